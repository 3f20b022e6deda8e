"""One request, from the datagram to the recorded reply: in which order is everything done?

Room rule: sequence. Each step is somebody else's: framing, secrets, duplicates, translation, verdicts. The order is the
protection: size, client, duplicate, framing, signature, rate, room, credential, question; nothing costly is done for a
stranger, and nothing twice for a friend who asks again. Runs on one event loop and knows no socket.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import os
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

from mfa_core.model import Attempt
from mfa_core.secret import Secret
from mfa_core.verdict import Accepted, Exempt, Pending, Verdict
from mfa_runtime.directory import Groups
from mfa_runtime.gate import Gate
from radius_plugin.accounting import accounting_line
from radius_plugin.authentication_log import AuthenticationLog
from radius_plugin.authenticators import SharedSecret
from radius_plugin.clients import CertificateTable, Client, ClientTable, PeerIdentity, canonical
from radius_plugin.duplicates import Duplicates, InFlight
from radius_plugin.request import Login, RequestRefused, Unasked, bound_to, read_login
from radius_plugin.results import Answer, Dialogue, Outcome, answer_to, needs_groups, refused, timed_out
from radius_plugin.settings import (
    ClientSettings,
    Purpose,
    RadiusDoorSettings,
    RequireSignature,
    SignReplies,
)
from radius_plugin.state import StateSeal
from radius_plugin.wire import Code, Malformed, Packet, PacketTooLong, Type, parse

POLL_S = 1.0
"""How often an out-of-band factor is asked after."""
MAX_JOINED = 16
"""Retries of one login that are answered together."""
_ZEROS = bytes(16)
# Python looks an enum's member up in 130 ns, and a packet needs a dozen of them.
_ACCESS_REQUEST = Code.ACCESS_REQUEST
_ACCOUNTING_REQUEST = Code.ACCOUNTING_REQUEST
_STATUS_SERVER = Code.STATUS_SERVER
_AUTHENTICATION = Purpose.AUTHENTICATION
_ACCOUNTING = Purpose.ACCOUNTING
_ALWAYS = SignReplies.ALWAYS
_AUTO = RequireSignature.AUTO
_YES = RequireSignature.YES
_UNKNOWN_CHALLENGE = Unasked.UNKNOWN_CHALLENGE
_BAD_ENCODING = Unasked.BAD_ENCODING
_UNAVAILABLE = Outcome.UNAVAILABLE

log = logging.getLogger(__name__)

Send = Callable[[bytes, Any], None]
"""Sends a reply to where a request came from; the second argument is what the transport gave with it."""


class Signers(Protocol):
    """Remembers which clients have signed a request, over restarts and for all workers (``auto``)."""

    def has_signed(self, client: str) -> bool:
        """Whether a signed request of this client was ever seen."""
        ...

    def remember(self, client: str) -> None:
        """It was. Must not raise."""
        ...


@dataclass(frozen=True, slots=True)
class Dropped:
    """A packet that is not answered. ``why`` is a stable word, ``who`` a client's name."""

    why: str
    who: str


@dataclass(slots=True, eq=False)
class _Work:
    """One request under way, and where its answer goes."""

    key: Hashable
    packet: Packet
    client: Client
    secret: SharedSecret
    address: str
    send: Send
    to: Any
    started: float
    login: Login | None = None
    entry: InFlight[_Work] | None = None
    shared: _Joined | None = None
    until: float = 0.0
    poll: asyncio.TimerHandle | None = None
    over: bool = False
    asking: bool = False
    """The gate was asked and has not answered: until then it keeps its place, whoever waits for it."""
    has_place: bool = False


@dataclass(slots=True, eq=False)
class _Joined:
    """One login that a client asks for again and again from new ports. ``answer`` is there when it is decided.

    ``until``: when it is to be decided, and from then on how long its answer is given to others.
    """

    tag: bytes
    waiting: list[_Work]
    until: float
    answer: Answer | None = None


@dataclass(frozen=True, slots=True)
class _Settled:
    """What a reload replaces, as one value."""

    settings: RadiusDoorSettings
    table: ClientTable
    certificates: CertificateTable
    clients: tuple[Client, ...]
    counts: dict[str, dict[str, int]]
    groups_matter: bool


class Exchange:
    """All requests of this process."""

    def __init__(
        self,
        settings: RadiusDoorSettings,
        gate: Gate,
        *,
        seal: StateSeal,
        groups: Groups,
        signers: Signers,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
        new_event_id: Callable[[], str],
        random: Callable[[int], bytes] = os.urandom,
        journal: AuthenticationLog | None = None,
    ) -> None:
        self._gate = gate
        self._seal = seal
        self._groups = groups
        self._signers = signers
        self._clock = clock
        self._monotonic = monotonic
        self._new_event_id = new_event_id
        self._journal = journal
        self._now = _settle(settings, {})
        self._duplicates: Duplicates[_Work] = Duplicates(
            keep_s=_keep_s(settings), max_answers=settings.max_cached_replies, monotonic=monotonic
        )
        self._join_key = random(32)
        self._joined: OrderedDict[bytes, _Joined] = OrderedDict()
        self._deadlines: dict[_Work, None] = {}
        self._rates: dict[str, tuple[float, float]] = {}
        self._places = 0
        self._places_of: dict[str, int] = {}
        self._dropped: dict[Dropped, int] = {}
        self._dropped_more = 0
        self._unreadable: dict[str, int] = {}
        self._strangers: set[str] = set()
        self._strangers_packets = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self.counts: dict[str, int] = {}
        """Events that are no client's: packets of strangers."""

    @property
    def clients(self) -> Iterable[Client]:
        """The clients, with their counts."""
        return self._now.clients

    @property
    def under_way(self) -> int:
        """Requests that wait for their answer."""
        return self._duplicates.under_way

    def is_under_way(self, key: Hashable) -> bool:
        """Whether the request under this key (of a peer, a code and an identifier) may still be answered."""
        return self._duplicates.pending(key) is not None

    @property
    def answers_forgotten_early(self) -> int:
        """How often answers were forgotten before their time, because too many were kept."""
        return self._duplicates.forgotten_early

    def counts_by_client(self) -> dict[str, dict[str, int]]:
        """The events of each client since the start, by its name."""
        return {name: dict(counts) for name, counts in self._now.counts.items()}

    def client_with(self, identity: PeerIdentity) -> Client | None:
        """The client that has this certificate, in the configuration as it is now."""
        return self._now.certificates.find(identity)

    def reload(self, settings: RadiusDoorSettings) -> None:
        """From the next request on, these hold. Requests under way, answers and counts stay."""
        self._now = _settle(settings, self._now.counts)
        self._rates = {name: left for name, left in self._rates.items() if name in self._now.counts}
        self._duplicates.keep_s = _keep_s(settings)

    def receive(self, datagram: bytes, address: str, port: int, send: Send, to: Any, scope: Hashable, purposes: Any) -> None:
        """Take one datagram from ``address`` and ``port``. ``scope`` is the socket: the same numbers on another are others.

        Answers by ``send``, at once or later; never raises for anything that a peer can send.
        """
        client = self._now.table.find(address)
        if client is None:
            self.counts["unknown_client"] = self.counts.get("unknown_client", 0) + 1
            self._strangers_packets += 1
            if len(self._strangers) < _MOST_STRANGERS:
                self._strangers.add(address)
            return
        try:
            self.receive_from(client, datagram, (scope, address, port), send, to, purposes, address)
        except Exception:
            # A bug is one packet's trouble: it is not answered, and the next one is.
            log.exception("a packet of client %s could not be handled", client.settings.name)
            self._drop(client, "internal")

    def receive_from(
        self, client: Client, datagram: bytes, peer: tuple[Any, ...], send: Send, to: Any, purposes: Any, address: str,
        *, protected: bool = False,
    ) -> None:  # fmt: skip
        """As :meth:`receive`, for a client that is known already. ``protected``: TLS vouches for it (RFC 6614)."""
        if len(datagram) < 20:
            return self._drop(client, "too_short")
        key = (*peer, datagram[0], datagram[1])
        answer = self._duplicates.answer_to(key, datagram)
        if answer is not None:
            client.count("duplicate")
            send(answer, to)
            return None
        pending = self._duplicates.pending(key)
        if pending is not None and pending.request == datagram:
            client.count("duplicate_pending")
            pending.work.to = to
            return None
        try:
            packet = parse(datagram, max_attributes=self._now.settings.max_attributes)
        except Malformed as err:
            return self._drop(client, err.flaw)
        secret = self._believed(packet, client, protected=protected)
        if secret is None:
            return None
        work = _Work(key, packet, client, secret, canonical(address), send, to, self._monotonic())
        if packet.code == _ACCESS_REQUEST and _AUTHENTICATION in purposes:
            if pending is not None and not self._may_supersede(packet, pending.work, protected=protected):
                return self._drop(client, "unsigned_conflict")
            self._access_request(work, datagram, None if pending is None else pending.work)
        elif packet.code == _ACCOUNTING_REQUEST and _ACCOUNTING in purposes:
            self._accounting_request(work, datagram)
        elif packet.code == _STATUS_SERVER:
            client.count("status_server")
            accounting = _AUTHENTICATION not in purposes
            self._send(work, Answer(Code.ACCOUNTING_RESPONSE if accounting else Code.ACCESS_ACCEPT, b"", Outcome.ACCEPTED))
        else:
            self._drop(client, "unexpected_code")
        return None

    # Who wrote it

    def _believed(self, packet: Packet, client: Client, *, protected: bool) -> SharedSecret | None:
        """The secret that the packet was made with; None when it is not to be answered (rules R2 to R5 of the threat model)."""
        secrets = self._valid_secrets(client)
        if packet.code == _ACCOUNTING_REQUEST:
            for secret in secrets:
                if secret.accounting_request_is_good(packet):
                    if packet.message_authenticator_at and not secret.signed(packet):
                        break
                    return self._with(client, secret)
            self._drop(client, "bad_accounting_authenticator")
            return None
        if packet.message_authenticator_at:
            for secret in secrets:
                if secret.signed(packet):
                    settings = client.settings
                    if settings.require_message_authenticator is _AUTO and _shows_that_it_signs(packet, protected=protected):
                        self._learn(settings.name)
                    return self._with(client, secret)
            self._drop(client, "bad_message_authenticator")
            return None
        if protected and client.settings.require_message_authenticator is not _YES:
            return secrets[0]
        if packet.has_eap or packet.code == _STATUS_SERVER or self._must_sign(client.settings):
            self._drop(client, "unsigned")
            return None
        if client.settings.limit_proxy_state and Type.PROXY_STATE in packet:
            self._drop(client, "unsigned_proxy_state")
            return None
        client.count("unsigned")
        if packet.authenticator == _ZEROS:
            client.count("zero_authenticator")
        return self._with(client, _plausible(secrets, packet))

    def _valid_secrets(self, client: Client) -> tuple[SharedSecret, ...]:
        until = client.settings.previous_secret_until
        if len(client.secrets) > 1 and until and self._clock() >= until:
            return client.secrets[:1]
        return client.secrets

    @staticmethod
    def _with(client: Client, secret: SharedSecret) -> SharedSecret:
        if secret is not client.secrets[0]:
            client.count("previous_secret")
        return secret

    def _learn(self, name: str) -> None:
        if not self._signers.has_signed(name):
            self._signers.remember(name)

    @staticmethod
    def _may_supersede(packet: Packet, old: _Work, *, protected: bool) -> bool:
        """Whether this request may take the number of one under way: whoever can forge an address must not cancel it."""
        return protected or packet.message_authenticator_at > 0 or not old.packet.message_authenticator_at

    def _must_sign(self, settings: ClientSettings) -> bool:
        match settings.require_message_authenticator:
            case RequireSignature.YES:
                return True
            case RequireSignature.NO:
                return False
            case RequireSignature.AUTO:
                return self._signers.has_signed(settings.name)

    # What it asks

    def _access_request(self, work: _Work, datagram: bytes, old: _Work | None) -> None:
        """``old``: the request that had this number, and is still under way."""
        client, settings = work.client, work.client.settings
        packet = work.packet
        if packet.has_eap and (Type.USER_PASSWORD in packet or Type.CHAP_PASSWORD in packet):
            return self._drop(client, "eap_and_password")  # no client means both (RFC 3579 section 3.3, as FreeRADIUS)
        client.count("access_request")
        if settings.requests_per_s and not self._within_rate(settings):
            return self._drop(client, "rate")
        if old is not None:
            # The client has given the number to another request: nobody waits for the old one any more.
            client.count("superseded")
            self._forget(old)
        if self._places * 2 >= self._now.settings.max_in_flight and not self._has_room(settings.name):
            return self._drop(client, "overloaded")
        try:
            work.login = login = read_login(
                work.packet, settings, work.secret, address=work.address, seal=self._seal, now=self._clock(),
                event_id=self._new_event_id(),
            )  # fmt: skip
        except RequestRefused as err:
            if err.why is _BAD_ENCODING:
                self._doubt_secret(work)
            answer = refused(err.why, work.packet.first(Type.EAP_MESSAGE))
            self._log(work, answer, err.user_name)
            self._keep_and_send(work, datagram, answer)
            return None
        if not packet.message_authenticator_at and login.attempt.typed and not _are_texts(login.attempt.typed.reveal()):
            self._doubt_secret(work)
        work.entry = self._duplicates.begin(work.key, datagram, work)
        work.until = work.started + self._now.settings.decision_s
        self._deadlines[work] = None
        self._take_place(work, settings.name)
        if settings.join_retries and login.carried is None and self._joins(work, login):
            return None
        self._ask(work, login.attempt)
        return None

    def _ask(self, work: _Work, attempt: Attempt) -> None:
        work.asking = True
        try:
            self._gate.ask(attempt, partial(self._decided, work))
        except BaseException:
            # It never should. The next copy is a new request.
            work.asking = False
            self._forget(work)
            raise

    def _decided(self, work: _Work, verdict: Verdict) -> None:
        if not work.asking:
            return  # one question, one answer
        work.asking = False
        try:
            self._conclude(work, verdict)
        except Exception:
            log.exception("a verdict for client %s could not be told", work.client.settings.name)
            self._forget(work)
        if work.over:
            self._leave_place(work)

    def _conclude(self, work: _Work, verdict: Verdict) -> None:
        login, shared = work.login, work.shared
        if login is None or (work.over and (shared is None or shared.answer is not None)):
            return
        if isinstance(verdict, Pending):
            self._poll_later(work, login, verdict)
        elif self._now.groups_matter and isinstance(verdict, Accepted | Exempt):
            task = asyncio.get_running_loop().create_task(self._conclude_with_groups(work, login, verdict))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        else:
            self._answer(work, login, verdict, frozenset())

    async def _conclude_with_groups(self, work: _Work, login: Login, verdict: Accepted | Exempt) -> None:
        try:
            self._answer(work, login, verdict, await self._groups.groups_of(verdict.user))
        except Exception:
            log.exception("a verdict for client %s could not be told", work.client.settings.name)
            self._forget(work)

    def _answer(self, work: _Work, login: Login, verdict: Verdict, groups: frozenset[str] | None) -> None:
        rules = self._now.settings.reply_rules
        answer = answer_to(verdict, login, work.client.settings, self._dialogue(work), rules=rules, groups=groups)
        if answer is not None:
            self._settle(work, answer)

    @staticmethod
    def _is_awaited(work: _Work) -> bool:
        """Whether somebody waits for its verdict: itself, or a retry that has joined it."""
        if not work.over:
            return True
        return work.shared is not None and any(not other.over for other in work.shared.waiting)

    def _dialogue(self, work: _Work) -> Dialogue:
        owner = bound_to(work.client.settings, work.address)
        lifetime_s = self._now.settings.state_lifetime_s
        return Dialogue(self._seal, owner, self._new_event_id, self._clock(), lifetime_s)

    def _poll_later(self, work: _Work, login: Login, verdict: Pending) -> None:
        """Ask again while the person may still answer on another device; the client's own patience is the bound."""
        work.until = work.started + work.client.settings.wait_s
        if work.shared is not None:
            work.shared.until = work.until
            for one in work.shared.waiting:
                one.until = work.until
        attempt = replace(login.attempt, challenge_id=verdict.id, challenge_until=0.0, typed=None)
        work.poll = asyncio.get_running_loop().call_later(POLL_S, self._poll, work, attempt)

    def _poll(self, work: _Work, attempt: Attempt) -> None:
        work.poll = None
        if not self._is_awaited(work):
            self._part(work)
            return
        try:
            self._ask(work, attempt)
        except Exception:
            log.exception("a request of client %s could not be asked after", work.client.settings.name)

    # Room for all: a place is kept from the first question until the request is over and the gate has answered

    def _has_room(self, name: str) -> bool:
        """Half of the places is for one client, however much it asks; the rest is for the others, if there are any."""
        most = self._now.settings.max_in_flight
        if self._places >= most:
            return False
        return len(self._now.counts) < 2 or self._places_of.get(name, 0) * 2 < most

    def _take_place(self, work: _Work, name: str) -> None:
        work.has_place = True
        self._places += 1
        self._places_of[name] = self._places_of.get(name, 0) + 1

    def _leave_place(self, work: _Work) -> None:
        if work.has_place and not work.asking:
            work.has_place = False
            self._places -= 1
            name = work.client.settings.name
            left = self._places_of[name] = self._places_of[name] - 1
            if not left:
                del self._places_of[name]

    def _accounting_request(self, work: _Work, datagram: bytes) -> None:
        work.client.count("accounting_request")
        if self._journal is not None:
            self._journal.write(**accounting_line(work.packet, work.client.settings.name))
        self._keep_and_send(work, datagram, Answer(Code.ACCOUNTING_RESPONSE, b"", Outcome.ACCEPTED))

    # The same login from a new port

    def _joins(self, work: _Work, login: Login) -> bool:
        """Attach to the same login, if it is under way or was decided a moment ago. False: it is new, and others may attach."""
        found = self._join_tag(work, login)
        if found is None:
            return False
        tag, has_session = found
        known = self._joined.get(tag)
        if known is not None and known.answer is None:
            work.client.count("joined")
            if len(known.waiting) >= MAX_JOINED:
                self._forget(known.waiting.pop(0))  # the client listens to the newest
            work.shared, work.until = known, known.until
            known.waiting.append(work)
            return True
        if known is not None and known.answer is not None and has_session and self._monotonic() < known.until:
            work.client.count("joined")
            self._settle(work, known.answer)
            return True
        work.shared = self._joined[tag] = _Joined(tag, [work], work.until)
        self._joined.move_to_end(tag)
        if len(self._joined) > self._now.settings.max_in_flight:
            self._joined.popitem(last=False)
        return False

    def _join_tag(self, work: _Work, login: Login) -> tuple[bytes, bool] | None:
        """What is the same in every retry of one login, and whether a session is named. None: another login may look the same.

        Without a session or a place, two people behind one name cannot be told apart, and one code would let both in. What CHAP
        shows is good for its own challenge alone.
        """
        packet = work.packet
        session = packet.first(Type.ACCT_SESSION_ID) or b""
        station = packet.first(Type.CALLING_STATION_ID) or b""
        if not (session or station) or login.attempt.veiled is not None:
            return None
        parts = (
            work.client.settings.name.encode("utf-8", "surrogateescape"),
            work.address.encode(),
            login.user_name,
            login.attempt.typed.reveal() if login.attempt.typed is not None else b"",
            packet.first(Type.NAS_IDENTIFIER) or b"",
            session,
            station,
            (login.attempt.source or "").encode(),
        )
        message = b"".join([len(part).to_bytes(4, "big") + part for part in parts])
        return hmac.digest(self._join_key, message, hashlib.sha256), bool(session)

    def _part(self, work: _Work) -> None:
        """Nobody is left who waits for this login: the next one like it is new."""
        shared = work.shared
        if shared is not None and shared.answer is None and not any(not other.over for other in shared.waiting):
            shared.waiting = []
            if self._joined.get(shared.tag) is shared:
                del self._joined[shared.tag]

    # The end

    def _settle(self, work: _Work, answer: Answer) -> None:
        """Answer this request, and those that have joined it."""
        self._log(work, answer, work.login.user_name if work.login is not None else b"")
        shared, works = work.shared, [work]
        if shared is not None and shared.answer is None:
            works = shared.waiting
            shared.answer, shared.waiting = answer, []
            shared.until = self._monotonic() + self._now.settings.join_s
            # What was no decision is asked again.
            if (answer.code is None or answer.outcome is _UNAVAILABLE) and self._joined.get(shared.tag) is shared:
                del self._joined[shared.tag]
        for one in works:
            self._finish(one, answer)

    def _finish(self, work: _Work, answer: Answer) -> None:
        if work.over:
            return
        self._done_with(work)
        # The entry names the work: taken apart here, neither waits for the collector of circles.
        entry, work.entry = work.entry, None
        if entry is None or not self._duplicates.is_current(work.key, entry):
            return
        octets = self._octets(work, answer)
        if octets is None:
            self._duplicates.dropped(work.key, entry)
            return
        self._duplicates.answered(work.key, entry, octets)
        work.send(octets, work.to)

    def _forget(self, work: _Work) -> None:
        """Its verdict, when it comes, is recorded and sent to nobody."""
        self._done_with(work)
        entry, work.entry = work.entry, None
        if entry is not None:
            self._duplicates.dropped(work.key, entry)
        if not work.asking and work.poll is None:
            self._part(work)

    def _done_with(self, work: _Work) -> None:
        work.over = True
        self._deadlines.pop(work, None)
        if work.poll is not None and work.shared is None:  # who has joined it still wants to know
            work.poll.cancel()
        self._leave_place(work)

    def _keep_and_send(self, work: _Work, datagram: bytes, answer: Answer) -> None:
        octets = self._octets(work, answer)
        if octets is not None:
            self._duplicates.remember(work.key, datagram, octets)
            work.send(octets, work.to)

    def _send(self, work: _Work, answer: Answer) -> None:
        octets = self._octets(work, answer)
        if octets is not None:
            work.send(octets, work.to)

    def _octets(self, work: _Work, answer: Answer) -> bytes | None:
        if answer.code is None:
            return None
        # EAP is never answered unsigned (RFC 3579 section 3.2).
        sign = work.client.settings.reply_message_authenticator is _ALWAYS or work.packet.has_eap
        try:
            return work.secret.reply(answer.code, work.packet, answer.attributes, sign=sign)
        except PacketTooLong as err:
            # Reply attributes were measured at load; only a client's own Proxy-States can do this.
            log.error("client %s: %s", work.client.settings.name, err)
            self._drop(work.client, "reply_too_long")
            return None

    def sweep(self) -> None:
        """End what has waited too long, forget what is past, say what was dropped. Call it about twice a second."""
        now = self._monotonic()
        for work in [work for work in self._deadlines if now >= work.until]:
            try:
                event_id = work.login.attempt.event_id if work.login is not None else ""
                self._settle(work, timed_out(work.client.settings, event_id))
            except Exception:
                # One request's trouble must not end the deadlines of all others.
                log.exception("a request of client %s could not be ended", work.client.settings.name)
                self._forget(work)
        for tag, joined in list(self._joined.items()):
            if joined.answer is not None and now >= joined.until:
                del self._joined[tag]
        self._duplicates.turn_if_due()
        self._say_what_was_dropped()

    async def drain(self, wait_s: float) -> None:
        """Wait for the verdicts under way, at most ``wait_s``."""
        until = self._monotonic() + wait_s
        while self._duplicates.under_way and self._monotonic() < until:  # noqa: ASYNC110  verdicts come by callbacks
            await asyncio.sleep(0.01)

    # What is said about it

    def _drop(self, client: Client, why: str) -> None:
        client.count(f"dropped_{why}")
        self._note_drop(why, client.settings.name)

    def _doubt_secret(self, work: _Work) -> None:
        """What another secret hides comes out as noise; a signature would have shown it."""
        if not work.packet.message_authenticator_at and Type.USER_PASSWORD in work.packet:
            name = work.client.settings.name
            work.client.count("unreadable_password")
            if name in self._unreadable or len(self._unreadable) < _MOST_KINDS:
                self._unreadable[name] = self._unreadable.get(name, 0) + 1

    def _note_drop(self, why: str, who: str) -> None:
        one = Dropped(why, who)
        if one in self._dropped or len(self._dropped) < _MOST_KINDS:
            self._dropped[one] = self._dropped.get(one, 0) + 1
        else:
            self._dropped_more += 1

    def _say_what_was_dropped(self) -> None:
        dropped, self._dropped = self._dropped, {}
        for one, times in dropped.items():
            log.warning("dropped %d packets of client %s: %s", times, one.who, one.why)
        if self._dropped_more:
            log.warning("dropped %d packets more, of other clients or for other reasons", self._dropped_more)
            self._dropped_more = 0
        unreadable, self._unreadable = self._unreadable, {}
        for name, times in unreadable.items():
            log.warning("%d requests of client %s whose passwords are no text: is its secret wrong?", times, name)
        if self._strangers_packets:
            # A line of their own: those who can invent addresses must not use up what may be said of clients.
            shown = ", ".join(sorted(self._strangers))
            log.warning("dropped %d packets of unknown clients, such as %s", self._strangers_packets, shown)
            self._strangers, self._strangers_packets = set(), 0

    def _within_rate(self, settings: ClientSettings) -> bool:
        """A bucket of two seconds' worth, and of one request at least."""
        now, rate = self._monotonic(), settings.requests_per_s
        most = max(1.0, 2 * rate)
        left, since = self._rates.get(settings.name, (most, now))
        left = min(most, left + (now - since) * rate)
        self._rates[settings.name] = (left - 1 if left >= 1 else left, now)
        return left >= 1

    def _log(self, work: _Work, answer: Answer, user_name: bytes) -> None:
        work.client.count(answer.outcome)
        if answer.reason == _UNKNOWN_CHALLENGE:
            work.client.count("unknown_challenge")
        if self._journal is None:
            return
        attempt = work.login.attempt if work.login is not None else None
        self._journal.write(
            kind="authentication",
            client=work.client.settings.name,
            nas=work.address,
            user=answer.user or user_name.decode("utf-8", "backslashreplace"),
            source=attempt.source if attempt is not None else None,
            outcome=answer.outcome,
            reason=answer.reason,
            event=answer.event_id,
            milliseconds=round((self._monotonic() - work.started) * 1000, 2),
        )


_MOST_KINDS = 64
"""Kinds of drops that are told apart between two sweeps."""
_MOST_STRANGERS = 8


def _shows_that_it_signs(packet: Packet, *, protected: bool) -> bool:
    """Whether a good signature says that this client signs its requests: EAP and Status-Server must be signed by everybody."""
    return packet.code == _ACCESS_REQUEST and not packet.has_eap and not protected


def _keep_s(settings: RadiusDoorSettings) -> float:
    budgets = [client.retry_budget_s for client in settings.clients]
    budgets += [one.client.retry_budget_s for one in settings.tls_clients]
    return max([30.0, *budgets])


def _settle(settings: RadiusDoorSettings, before: dict[str, dict[str, int]]) -> _Settled:
    counts: dict[str, dict[str, int]] = {}

    def ready(one: ClientSettings) -> Client:
        # A client that comes both ways has one count, and goes on from before a reload.
        return Client.of(one, counts.setdefault(one.name, before.get(one.name, {})))

    udp = [ready(client) for client in settings.clients]
    tls = [(one, ready(one.client)) for one in settings.tls_clients]
    clients = (*udp, *(client for _, client in tls))
    groups_matter = needs_groups(settings.reply_rules)
    return _Settled(settings, ClientTable(udp), CertificateTable(tls), clients, counts, groups_matter)


def _plausible(secrets: tuple[SharedSecret, ...], packet: Packet) -> SharedSecret:
    """Of two secrets, the one under which an unsigned User-Password is text; a wrong one gives noise."""
    hidden = packet.first(Type.USER_PASSWORD)
    if len(secrets) > 1 and hidden is not None and len(hidden) % 16 == 0 and 16 <= len(hidden) <= 128:
        for secret in secrets:
            typed = Secret(secret.reveal(hidden, packet.authenticator))
            if _is_text(typed.reveal()):
                return secret
    return secrets[0]


def _are_texts(octets: bytes) -> bool:
    """Between the two of a static challenge stands a NUL; no password holds one."""
    return _is_text(octets.replace(b"\0", b""))


def _is_text(octets: bytes) -> bool:
    try:
        return octets.decode().isprintable()
    except UnicodeDecodeError:
        return False
