"""How does a test put an exchange between a gate and a transport that it holds in its hands, and move its time?

Room rule: no socket and no waiting. Time moves by :meth:`Bench.pass_time` alone, the loop's as well; packets are made octet by
octet, by nothing of the product.
"""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import itertools
import os
from collections.abc import Callable, Coroutine, Hashable
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from mfa_core.model import Attempt
from mfa_core.secret import Secret
from mfa_core.verdict import Accepted, Challenge, Pending, Reason, Rejected, Unavailable, Unready, Verdict
from radius_plugin.clients import Client
from radius_plugin.exchange import Exchange, Signers
from radius_plugin.settings import ClientSettings, Mode, Purpose, RadiusDoorSettings
from radius_plugin.state import KEY_SIZE, StateSeal
from tests.doubles import FakeClock
from tests.end_to_end.radius_packets import (
    ACCESS_REQUEST,
    ACCOUNTING_REQUEST,
    STATUS_SERVER,
    USER_NAME,
    USER_PASSWORD,
    Answer,
    Attribute,
    attribute,
    hidden,
    packet,
    read_answer,
    signed,
)

SECRET = b"a secret of the test"
NAS = "192.0.2.9"
OTHER_NAS = "192.0.2.10"
STRANGER = "203.0.113.5"
AUTHENTICATION = frozenset({Purpose.AUTHENTICATION})
ACCOUNTING = frozenset({Purpose.ACCOUNTING})
BOTH = frozenset(Purpose)
CLIENT = ClientSettings("vpn", ipaddress.ip_network(NAS), (Secret(SECRET),), mode=Mode.MFA_ONLY)
OTHER = replace(CLIENT, name="other", network=ipaddress.ip_network(OTHER_NAS))
EVENT = "0" * 26
T = TypeVar("T")

_authenticators = itertools.count(1)


def accepted(user: str = "alice", **more: Any) -> Accepted:
    return Accepted(EVENT, "totp", "totp:1", user=user, **more)


def rejected(reason: Reason = Reason.MISMATCH, text: str = "Access denied.") -> Rejected:
    return Rejected(EVENT, reason, text)


def unavailable(reason: Unready = Unready.STORE) -> Unavailable:
    return Unavailable(EVENT, reason)


CHALLENGED = Challenge(EVENT, (), 0.0)
PENDING = Pending("push-1", "look at your phone", 0.0)


def new_authenticator() -> bytes:
    """Another one each time, none of them all zeros."""
    return next(_authenticators).to_bytes(16, "big")


def request(
    *attributes: Attribute,
    code: int = ACCESS_REQUEST,
    identifier: int = 1,
    sign: bool = True,
    secret: bytes = SECRET,
    authenticator: bytes | None = None,
) -> bytes:
    """Any request."""
    one = new_authenticator() if authenticator is None else authenticator
    body = b"".join(attribute(kind, value) for kind, value in attributes)
    return signed(secret, code, identifier, one, body) if sign else packet(code, identifier, one, body)


def login(
    name: str | bytes = "alice",
    password: str | bytes = "123456",
    *more: Attribute,
    identifier: int = 1,
    sign: bool = True,
    secret: bytes = SECRET,
    authenticator: bytes | None = None,
) -> bytes:
    """An Access-Request with PAP."""
    one = new_authenticator() if authenticator is None else authenticator
    name, text = (value.encode() if isinstance(value, str) else value for value in (name, password))
    first = [(USER_NAME, name), (USER_PASSWORD, hidden(secret, one, text or bytes(16)))]
    return request(*first, *more, identifier=identifier, sign=sign, secret=secret, authenticator=one)


def status(**more: Any) -> bytes:
    """A Status-Server."""
    return request(code=STATUS_SERVER, **more)


def accounting(*attributes: Attribute, secret: bytes = SECRET, identifier: int = 1) -> bytes:
    """An Accounting-Request, its authenticator computed (RFC 2866 section 3)."""
    body = b"".join(attribute(kind, value) for kind, value in attributes)
    whole = packet(ACCOUNTING_REQUEST, identifier, bytes(16), body)
    return packet(ACCOUNTING_REQUEST, identifier, hashlib.md5(whole + secret).digest(), body)


@dataclass
class HeldGate:
    """Keeps every question until it is told the answer. ``at_once`` answers each one in the next turn of the loop."""

    at_once: Verdict | None = None
    breaks: Exception | None = None
    questions: list[tuple[Attempt, Callable[[Verdict], None]]] = field(default_factory=list)

    async def decide(self, attempt: Attempt) -> Verdict:
        raise NotImplementedError

    def ask(self, attempt: Attempt, answer: Callable[[Verdict], None]) -> None:
        self.questions.append((attempt, answer))
        if self.breaks is not None:
            raise self.breaks
        if self.at_once is not None:
            asyncio.get_running_loop().call_soon(answer, self.at_once)

    @property
    def attempts(self) -> list[Attempt]:
        return [attempt for attempt, _ in self.questions]


@dataclass
class KnownGroups:
    """Groups by user; "away" is for a directory that does not answer, an exception for one that breaks."""

    by_user: dict[str, frozenset[str]] | None = field(default_factory=dict)
    breaks: Exception | None = None
    asked: list[str] = field(default_factory=list)

    async def groups_of(self, name: str) -> frozenset[str] | None:
        self.asked.append(name)
        await asyncio.sleep(0)
        if self.breaks is not None:
            raise self.breaks
        return None if self.by_user is None else self.by_user.get(name, frozenset())


@dataclass
class RememberedSigners:
    known: set[str] = field(default_factory=set)

    def has_signed(self, client: str) -> bool:
        return client in self.known

    def remember(self, client: str) -> None:
        self.known.add(client)


@dataclass
class Journal:
    lines: list[dict[str, object]] = field(default_factory=list)

    def write(self, **fields: object) -> None:
        self.lines.append(fields)


class _Loop(asyncio.SelectorEventLoop):
    """Its time stands still unless it is moved."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        super().__init__()

    def time(self) -> float:
        return self._monotonic()


@dataclass(frozen=True, slots=True)
class Sent:
    octets: bytes
    to: Hashable

    def read(self, asked: bytes, secret: bytes = SECRET) -> Answer:
        return read_answer(self.octets, secret, asked)


class Bench:
    """An exchange with a gate, groups, signers and a journal in the test's hands. Close it."""

    def __init__(self, *clients: ClientSettings, signers: Signers | None = None, **more: Any) -> None:
        self.monotonic, self.clock = FakeClock(1000.0), FakeClock()
        self.loop = _Loop(self.monotonic)
        self.gate = HeldGate()
        self.groups = KnownGroups()
        self.signers = RememberedSigners() if signers is None else signers
        self.journal = Journal()
        self.sent: list[Sent] = []
        self.settings = RadiusDoorSettings(listen=(), clients=clients or (CLIENT,), **more)
        journal: Any = self.journal
        numbers = itertools.count(1)
        self.exchange = Exchange(
            self.settings,
            self.gate,
            seal=StateSeal([Secret(bytes(KEY_SIZE))], random=os.urandom),
            groups=self.groups,
            signers=self.signers,
            clock=self.clock,
            monotonic=self.monotonic,
            new_event_id=lambda: f"{next(numbers):026d}",
            journal=journal,
        )

    def close(self) -> None:
        self.turn()
        self.loop.close()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(coroutine)

    def turn(self) -> None:
        """What is ready is done."""

        async def turns() -> None:
            for _ in range(6):
                await asyncio.sleep(0)

        self.run(turns())

    def pass_time(self, seconds: float, *, step_s: float = 0.5) -> None:
        """Time passes, with a sweep at each step as the door makes it."""
        for _ in range(round(seconds / step_s)):
            self.monotonic.advance(step_s)
            self.clock.advance(step_s)
            self.turn()
            self.sweep()

    def sweep(self) -> None:
        async def swept() -> None:
            self.exchange.sweep()

        self.run(swept())

    def hear(
        self,
        datagram: bytes,
        *,
        address: str = NAS,
        port: int = 40_000,
        purposes: frozenset[Purpose] = AUTHENTICATION,
        scope: Hashable = 0,
    ) -> list[Sent]:
        """A datagram comes; what was sent since, once the loop has nothing left to do."""
        before = len(self.sent)

        async def received() -> None:
            self.exchange.receive(datagram, address, port, self._send, (address, port), scope, purposes)

        self.run(received())
        self.turn()
        return self.sent[before:]

    def hear_protected(self, datagram: bytes, client: Client, *, connection: int = 1) -> list[Sent]:
        """A packet comes over TLS."""
        before = len(self.sent)

        async def received() -> None:
            self.exchange.receive_from(
                client, datagram, ("tls", connection, NAS), self._send, connection, BOTH, NAS, protected=True
            )

        self.run(received())
        self.turn()
        return self.sent[before:]

    def one(self, datagram: bytes, **more: Any) -> Answer:
        """The one answer to a datagram."""
        secret = more.pop("secret", SECRET)
        (sent,) = self.hear(datagram, **more)
        return sent.read(datagram, secret)

    def decide(self, verdict: Verdict, question: int = -1) -> list[Sent]:
        """The gate answers a question; what was sent because of it."""
        before = len(self.sent)

        async def told() -> None:
            self.gate.questions[question][1](verdict)

        self.run(told())
        self.turn()
        return self.sent[before:]

    def counts(self, name: str = "vpn") -> dict[str, int]:
        return self.exchange.counts_by_client()[name]

    @property
    def asked(self) -> int:
        """How many questions the gate was asked."""
        return len(self.gate.questions)

    def _send(self, octets: bytes, to: Hashable) -> None:
        self.sent.append(Sent(octets, to))

