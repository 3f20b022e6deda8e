"""A session without a network: a client and a directory that are lists of octets, a gate that is told what to say.

``Stage`` joins the real session, bind, permits, mapping and exemptions with these. Every exchange is seen from both ends: what
the client is told, and what the directory is sent.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ldap_proxy import message
from ldap_proxy.ber import head, wrapped
from ldap_proxy.bind import Services
from ldap_proxy.dn import parse_dn
from ldap_proxy.exemptions import Exemptions
from ldap_proxy.guessing import Guessing
from ldap_proxy.link import Receiver
from ldap_proxy.lookup import Identities
from ldap_proxy.mapping import Names
from ldap_proxy.message import ResultCode
from ldap_proxy.remember import Remember
from ldap_proxy.results import Outcome
from ldap_proxy.session import Rules, Session
from ldap_proxy.settings import (
    Application,
    ExemptSettings,
    LdapDoorSettings,
    Listen,
    Scheme,
    Server,
    ServerTls,
    UpstreamSettings,
)
from ldap_proxy.upstream import NoUpstream
from mfa_core.model import Attempt
from mfa_core.secret import Secret
from mfa_core.verdict import Accepted, Reason, Rejected, Verdict
from mfa_core.verifier import Password
from mfa_runtime.gate import Check, Checked

LISTEN = Listen(Scheme.LDAP, "127.0.0.1", 389)
SOURCE = "192.0.2.7"
BOB = b"uid=bob,ou=people,dc=example,dc=org"
SERVICE = b"cn=svc,dc=example,dc=org"
EXEMPT = ExemptSettings(dns=frozenset({parse_dn(SERVICE.decode())}))
TLS = ServerTls(Path("certificate"), Path("key"))
REFUSED = ResultCode.INVALID_CREDENTIALS


class FakeClock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        """Let them pass."""
        self.now += seconds


class FakeTransport:
    """The client's end of a connection."""

    def __init__(self) -> None:
        self.written = b""
        self.reading = True
        self.closed = False
        self.aborted = False

    def write(self, data: bytes) -> None:
        """Keep it. Nothing may follow the end."""
        assert not self.closed
        self.written += bytes(data)

    def set_write_buffer_limits(self, high: int) -> None:
        """Nothing is measured."""

    def pause_reading(self) -> None:
        """Stop."""
        self.reading = False

    def resume_reading(self) -> None:
        """Go on."""
        self.reading = True

    def is_closing(self) -> bool:
        """Whether it was closed."""
        return self.closed

    def close(self) -> None:
        """Close it."""
        self.closed = True

    def abort(self) -> None:
        """Close it at once."""
        self.closed = self.aborted = True


class FakeLink:
    """One connection to the directory."""

    server = "ldap://directory"

    def __init__(self, receiver: Receiver) -> None:
        self.receiver = receiver
        self.written = b""
        self.writes = 0
        self.reading = True
        self.closed = False
        self.aborted = False

    def write(self, data: bytes) -> None:
        """Keep it. Nothing may follow the end."""
        assert not self.closed
        self.written += bytes(data)
        self.writes += 1

    def pause(self) -> None:
        """Stop."""
        self.reading = False

    def resume(self) -> None:
        """Go on."""
        self.reading = True

    def close(self) -> None:
        """Take leave."""
        self.closed = True

    def abort(self) -> None:
        """Close it at once."""
        self.closed = self.aborted = True


class FakeUpstreams:
    """Gives connections: at once (``stock``), or when it is told to."""

    def __init__(self) -> None:
        self.stock = True
        self.links: list[FakeLink] = []
        self.waiting: list[tuple[Receiver, Callable[[Any], None]]] = []
        self.called_off = 0

    def connect(self, receiver: Receiver, done: Callable[[Any], None]) -> Callable[[], None]:
        """See :class:`ldap_proxy.upstream.Upstreams`."""
        if self.stock:
            done(self._made(receiver))
            return lambda: None
        waiting = (receiver, done)
        self.waiting.append(waiting)

        def call_off() -> None:
            if waiting in self.waiting:
                self.waiting.remove(waiting)
                self.called_off += 1

        return call_off

    def give(self) -> None:
        """Give the first who waits his connection."""
        receiver, done = self.waiting.pop(0)
        done(self._made(receiver))

    def refuse(self, *, overloaded: bool = False) -> None:
        """Give the first who waits none."""
        _, done = self.waiting.pop(0)
        done(NoUpstream("no server answers", overloaded=overloaded))

    def _made(self, receiver: Receiver) -> FakeLink:
        self.links.append(FakeLink(receiver))
        return self.links[-1]


@dataclass
class Asked:
    """One question to the gate."""

    attempt: Attempt
    check: Check | None
    answer: Callable[[Verdict], None]
    told: list[Password | Exception] = field(default_factory=list)

    def have_checked(self, password: bytes) -> None:
        """Ask for the password, as the gate does once it has taken the text apart."""
        assert self.check is not None
        self.check(Secret(password), self.told.append)

    def say(self, verdict: Verdict) -> None:
        """Give the verdict."""
        self.answer(verdict)


class FakeGate:
    """Keeps what it is asked. With ``by_itself`` it answers too: a password before a comma, and the code ``123456``."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.by_itself = True
        self.events: list[str] = []

    def canonical(self, username: str) -> str:
        """Small letters."""
        return username.lower()

    def ask(self, attempt: Attempt, answer: Callable[[Verdict], None]) -> None:
        """A pending factor is asked after."""
        self.asked.append(Asked(attempt, None, answer))

    def ask_with(self, attempt: Attempt, check: Check, answer: Callable[[Verdict], None]) -> None:
        """See :class:`mfa_runtime.gate.Gate`; the answer may come before this returns, as it never does there."""
        asked = Asked(attempt, check, answer)
        self.asked.append(asked)
        if not self.by_itself:
            return
        assert attempt.typed is not None
        password, comma, code = attempt.typed.reveal().rpartition(b",")
        if attempt.remembered:
            password, comma, code = attempt.typed.reveal(), b",", b"123456"
        if not comma:
            answer(Rejected(attempt.event_id, Reason.NO_CODE))
            return

        def checked(found: Password | Exception) -> None:
            asked.told.append(found)
            if found is Password.BAD:
                answer(Rejected(attempt.event_id, Reason.FIRST_FACTOR_FAILED))
            elif found is not Password.GOOD:
                answer(unavailable(attempt))
            elif code == b"123456":
                answer(Accepted(attempt.event_id, "totp", "totp:12", user=attempt.username))
            else:
                answer(Rejected(attempt.event_id, Reason.MISMATCH))

        told: Checked = checked
        check(Secret(password), told)


def unavailable(attempt: Attempt) -> Verdict:
    """What the gate says when a check ends in an exception."""
    from mfa_core.verdict import Unavailable, Unready

    return Unavailable(attempt.event_id, Unready.BACKEND)


class FakeJournal:
    """The bind log."""

    def __init__(self) -> None:
        self.lines: list[dict[str, object]] = []

    def write(self, **fields: object) -> None:
        """Keep the line."""
        self.lines.append(fields)


class FakeLookups:
    """What the directory says of groups: nothing that is not put here."""

    def __init__(self) -> None:
        self.members: dict[tuple[object, object], bool] = {}
        self.waiting: list[Callable[[Any], None]] = []

    def kept_membership(self, group: object, member: object) -> bool | None:
        """What is known."""
        return self.members.get((group, member))

    def membership(
        self, group: object, member: object, attributes: tuple[str, ...], done: Callable[[Any], None]
    ) -> Callable[[], None]:
        """Ask."""
        self.waiting.append(done)
        return lambda: None

    def kept_values(self, name: bytes, attribute: str) -> tuple[str, ...] | None:
        """What is known."""
        return None

    def values(self, name: bytes, attribute: str, done: Callable[[Any], None]) -> Callable[[], None]:
        """Ask."""
        self.waiting.append(done)
        return lambda: None


def door_settings(**given: Any) -> LdapDoorSettings:
    """Settings of a door with one directory and one exempt service account."""
    values: dict[str, Any] = {
        "listens": (LISTEN,),
        "upstream": UpstreamSettings(servers=(Server(Scheme.LDAP, "127.0.0.1", 1),)),
        "applications": (Application(exempt=EXEMPT),),
    }
    return LdapDoorSettings(**{**values, **given})


class Stage:
    """One session, and everything around it."""

    def __init__(self, settings: LdapDoorSettings | None = None, *, secured: bool = False, source: str = SOURCE) -> None:
        self.settings = settings or door_settings()
        self.clock = FakeClock()
        self.gate = FakeGate()
        self.upstreams = FakeUpstreams()
        self.journal = FakeJournal()
        self.lookups = FakeLookups()
        self.identities = Identities(keep_s=300, max_entries=100, monotonic=self.clock)
        lookups: Any = self.lookups
        numbers = iter(range(1, 1_000_000))
        upstreams: Any = self.upstreams
        self.services = Services(
            gate=self.gate,
            upstreams=upstreams,
            names=Names(self.settings.mapping, lookups),
            exemptions={one.name: Exemptions(one.exempt, lookups) for one in self.settings.applications},
            identities=self.identities,
            guessing=Guessing(self.settings.limits.failed_binds, key=Secret(b"k" * 32), monotonic=self.clock),
            remember=Remember(key=Secret(b"k" * 32), monotonic=self.clock),
            journal=self.journal,
            monotonic=self.clock,
            new_event_id=lambda: f"event{next(numbers)}",
        )
        self.rules = Rules(self.settings, self.services)
        self.counted: dict[str, int] = {}
        self.outcomes: list[str] = []
        self.malformed: list[str] = []
        self.handshakes = 0
        self.turns: list[Session] = []
        self.gone = 0
        self.transport = FakeTransport()
        self.session = Session(self, LISTEN, source, secured=secured)
        transport: Any = self.transport
        self.session.connection_made(transport)
        self._told = 0
        self._sent: dict[int, int] = {}

    # What the session sees of the server

    def name_of(self, listen: Listen) -> str:
        """As it is."""
        return str(listen)

    def can_secure(self) -> bool:
        """Whether the settings have a certificate."""
        return self.settings.tls is not None

    def secure(self, session: Session) -> None:
        """The handshake is done when the test says so."""
        self.handshakes += 1

    def later(self, session: Session) -> None:
        """Its turn comes when the test says so."""
        self.turns.append(session)

    def left(self, session: Session) -> None:
        """Count it."""
        self.gone += 1

    def count(self, event: str) -> None:
        """Count it."""
        self.counted[event] = self.counted.get(event, 0) + 1

    def count_bind(self, application: str, outcome: Outcome, seconds: float) -> None:
        """Keep it."""
        self.outcomes.append(outcome.value)

    def note_malformed(self, source: str, whose: str, text: str) -> None:
        """Keep it."""
        self.malformed.append(f"{whose}: {text}")

    # Both ends

    def client(self, *octets: bytes) -> list[bytes]:
        """The client sends these in one piece. What it is told until then."""
        self.session.data_received(b"".join(octets))
        return self.told()

    def turn(self) -> list[bytes]:
        """Whoever waits for a turn has one. What the client is told until then."""
        waiting, self.turns = self.turns, []
        for session in waiting:
            session.take_turn()
        return self.told()

    def told(self) -> list[bytes]:
        """The messages that the client was told since this was last asked."""
        new = self.transport.written[self._told :]
        self._told = len(self.transport.written)
        return split(new)

    @property
    def link(self) -> FakeLink:
        """The newest connection to the directory."""
        return self.upstreams.links[-1]

    def sent(self) -> list[bytes]:
        """The messages that the directory was sent over the newest connection since this was last asked."""
        at = self._sent.get(len(self.upstreams.links), 0)
        new = self.link.written[at:]
        self._sent[len(self.upstreams.links)] = len(self.link.written)
        return split(new)

    def directory(self, *octets: bytes) -> list[bytes]:
        """The directory answers these in one piece. What the client is told until then."""
        assert not self.link.closed
        self.session.upstream_data(b"".join(octets))
        return self.told()

    def bound(self, name: bytes = SERVICE, message_id: int = 1) -> Stage:
        """Let the client be bound: by its password alone as the service account, else with a code."""
        typed = b"secret" if name == SERVICE else b"secret,123456"
        self.client(message.build_bind(message_id, name, typed))
        self.directory(bind_result(message_id))
        self.directory(who_is(message_id, b"dn:" + name))
        assert self.session.state.value == "bound"
        self.told()
        self.sent()
        return self

    @property
    def is_over(self) -> bool:
        """Whether the client was hung up on, and the directory left."""
        return self.transport.closed and all(link.closed for link in self.upstreams.links)


def split(octets: bytes) -> list[bytes]:
    """The messages in ``octets``, which must be whole."""
    found, at = [], 0
    while at < len(octets):
        measured = head(octets, at, 1 << 30)
        assert measured is not None, octets[at:]
        assert measured[0] <= len(octets), octets[at:]
        found.append(octets[at : measured[0]])
        at = measured[0]
    return found


def codes(told: list[bytes]) -> list[tuple[int, int, int]]:
    """Message ID, tag and result code of each."""
    results = [message.parse_result(one) for one in told]
    return [(one.message_id, one.tag, one.code) for one in results]


def is_notice(told: list[bytes], code: int) -> bool:
    """Whether it ends in a Notice of Disconnection with this code."""
    result = message.parse_result(told[-1])
    return (result.message_id, result.code, result.oid) == (0, code, message.NOTICE_OF_DISCONNECTION.encode())


def search(message_id: int, base: bytes = b"dc=example,dc=org", controls: bytes = b"") -> bytes:
    """A search for everything."""
    plain = message.build_search(message_id, base, 2, message.present("objectClass"), ())
    if not controls:
        return plain
    found = head(plain, 0, len(plain))
    assert found is not None
    return message.message(message_id, found[2], plain[found[3] : found[4]], controls)


def entry(message_id: int, size: int = 0) -> bytes:
    """A SearchResultEntry with an attribute of ``size`` octets."""
    attribute = wrapped(0x30, wrapped(0x04, b"cn") + wrapped(0x31, wrapped(0x04, b"x" * size)))
    return message.message(message_id, message.SEARCH_ENTRY, wrapped(0x04, BOB) + wrapped(0x30, attribute))


def done(message_id: int, code: int = 0) -> bytes:
    """A SearchResultDone."""
    return message.build_result(message_id, message.SEARCH_DONE, code)


def bind_result(message_id: int, code: int = 0, text: str = "", controls: bytes = b"") -> bytes:
    """A BindResponse."""
    return message.build_result(message_id, message.BIND_RESPONSE, code, text, controls=controls)


def who_is(message_id: int, authzid: bytes) -> bytes:
    """The answer to Who am I."""
    return message.build_extended_response(message_id, 0, value=authzid)


def control(oid: str, *, critical: bool = True) -> bytes:
    """The controls element with one control."""
    flag = wrapped(0x01, b"\xff") if critical else b""
    return wrapped(0xA0, wrapped(0x30, wrapped(0x04, oid.encode()) + flag))


def modify(message_id: int, size: int = 1, controls: bytes = b"") -> bytes:
    """A ModifyRequest that replaces ``description`` by ``size`` octets."""
    change = wrapped(0x0A, b"\x02") + wrapped(0x30, wrapped(0x04, b"description") + wrapped(0x31, wrapped(0x04, b"x" * size)))
    content = wrapped(0x04, BOB) + wrapped(0x30, wrapped(0x30, change))
    return message.message(message_id, message.MODIFY_REQUEST, content, controls)


def compare(message_id: int, attribute: bytes) -> bytes:
    """A CompareRequest."""
    content = wrapped(0x04, BOB) + wrapped(0x30, wrapped(0x04, attribute) + wrapped(0x04, b"guess"))
    return message.message(message_id, message.COMPARE_REQUEST, content)


def tags(pdus: list[bytes]) -> list[tuple[int, int]]:
    """Message ID and tag of each."""
    found: list[tuple[int, int]] = []
    for pdu in pdus:
        measured = head(pdu, 0, len(pdu))
        assert measured is not None
        found.append((measured[1], measured[2]))
    return found


