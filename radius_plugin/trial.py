"""What does a server answer to one request, and can the answer be believed?

Room rule: a NAS in small. Sockets, waiting and retransmitting are here; framing and secrets are those of the engine; what the
outcome means to an administrator is :mod:`mfactl.radius_meaning`'s. A reply is judged as a client of today must (RFC 3579
section 3.2, CVE-2024-3596): what fails is no reply, and waiting goes on.
"""

from __future__ import annotations

import enum
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self

from mfa_core.errors import InvalidInput, NotFound
from mfa_core.model import chap_response
from mfa_core.secret import Secret
from radius_plugin.authenticators import HIDDEN_MAX, Doubt, ReplyRefused, SharedSecret
from radius_plugin.wire import (
    AUTHENTICATOR_SIZE,
    HEADER_SIZE,
    VALUE_MAX,
    Code,
    Packet,
    Type,
    attribute,
    integer_attribute,
)

BUFFER = 4097
FIRST_SIGNED_AT = HEADER_SIZE + 2
"""Where a Message-Authenticator that is the first attribute has its sixteen octets."""
NAS_NAME = "mfactl"
MAX_CHALLENGES = 10
"""Prompts of one login that are answered: a server that goes on asking is not waited for."""
_VIRTUAL = 5
"""NAS-Port-Type Virtual (RFC 2865 section 5.41)."""
_START, _STOP = 1, 2

RandomBytes = Callable[[int], bytes]


class Protection(enum.Enum):
    """Whether requests carry a Message-Authenticator."""

    SIGNED = "signed"
    UNSIGNED = "unsigned"


class Method(enum.Enum):
    """How what was typed travels."""

    PAP = "PAP"
    CHAP = "CHAP"


class Signature(enum.Enum):
    """Where a reply has its Message-Authenticator."""

    FIRST = "first"
    LATER = "later"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Login:
    """What a NAS says about a login. ``state`` is that of the challenge that ``typed`` answers."""

    user_name: str
    typed: Secret
    method: Method = Method.PAP
    calling_station_id: str = ""
    state: bytes = b""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long one try waits, in seconds, and how many times the same octets are sent again after it."""

    timeout_s: float
    retries: int


@dataclass(frozen=True, slots=True)
class Believed:
    """A reply of the holder of the secret to this very request. ``sent`` counts how often it was sent."""

    packet: Packet
    signature: Signature
    milliseconds: float
    sent: int


@dataclass(frozen=True, slots=True)
class Doubted:
    """Something answered, and nothing of it could be believed. ``doubt`` is about the last one."""

    doubt: Doubt
    detail: str


class Silence(enum.Enum):
    """Nothing came."""

    TIMED_OUT = "timed_out"
    NOBODY_LISTENS = "nobody_listens"
    """The host itself said so (ICMP port unreachable)."""


Answer = Believed | Doubted | Silence


def login_request(login: Login, secret: SharedSecret, *, identifier: int, protection: Protection, random: RandomBytes) -> bytes:
    """An Access-Request.

    Raises:
        InvalidInput: a name or a password that no packet can carry.
    """
    authenticator = random(AUTHENTICATOR_SIZE)
    name, typed = login.user_name.encode("utf-8", "surrogateescape"), login.typed.reveal()
    if not 1 <= len(name) <= VALUE_MAX:
        raise InvalidInput(f"a user name of {len(name)} octets, expected 1 to {VALUE_MAX}")
    if len(typed) > HIDDEN_MAX:
        raise InvalidInput(f"a password of {len(typed)} octets, at most {HIDDEN_MAX} travel")
    if login.method is Method.CHAP:
        chap = random(1)
        credential = attribute(Type.CHAP_PASSWORD, chap + chap_response(chap[0], typed, authenticator))
    else:
        credential = attribute(Type.USER_PASSWORD, secret.hide(typed, authenticator))
    attributes = attribute(Type.USER_NAME, name) + credential + _about_us()
    if login.calling_station_id:
        attributes += attribute(Type.CALLING_STATION_ID, login.calling_station_id.encode())
    if login.state:
        attributes += attribute(Type.STATE, login.state)
    signed = protection is Protection.SIGNED
    return secret.request(Code.ACCESS_REQUEST, identifier, attributes, authenticator=authenticator, sign=signed)


def status_request(secret: SharedSecret, *, identifier: int, protection: Protection, random: RandomBytes) -> bytes:
    """A Status-Server (RFC 5997): is somebody there who has this secret?"""
    name = attribute(Type.NAS_IDENTIFIER, NAS_NAME.encode())
    signed = protection is Protection.SIGNED
    return secret.request(Code.STATUS_SERVER, identifier, name, authenticator=random(AUTHENTICATOR_SIZE), sign=signed)


def accounting_requests(user_name: str, secret: SharedSecret, *, identifier: int, random: RandomBytes) -> tuple[bytes, bytes]:
    """Start and Stop of a session of no length (RFC 2866), so that none stays open."""
    name = user_name.encode("utf-8", "surrogateescape")
    if not 1 <= len(name) <= VALUE_MAX:
        raise InvalidInput(f"a user name of {len(name)} octets, expected 1 to {VALUE_MAX}")
    session = attribute(Type.ACCT_SESSION_ID, random(8).hex().encode()) + attribute(Type.USER_NAME, name) + _about_us()
    ended = integer_attribute(Type.ACCT_SESSION_TIME, 0)
    start = integer_attribute(Type.ACCT_STATUS_TYPE, _START) + session
    stop = integer_attribute(Type.ACCT_STATUS_TYPE, _STOP) + session + ended
    return (
        secret.request(Code.ACCOUNTING_REQUEST, identifier, start, sign=False),
        secret.request(Code.ACCOUNTING_REQUEST, (identifier + 1) % 256, stop, sign=False),
    )


def _about_us() -> bytes:
    return attribute(Type.NAS_IDENTIFIER, NAS_NAME.encode()) + integer_attribute(Type.NAS_PORT_TYPE, _VIRTUAL)


class Nas:
    """One socket to one server, from one address. Use it as a context manager."""

    def __init__(self, host: str, port: int, *, source: str = "", monotonic: Callable[[], float] = time.monotonic) -> None:
        """Open it; nothing is sent. ``host`` is an address or a name, ``source`` an address of this machine.

        Raises:
            NotFound: the name is not known, or no packet can leave for there, or from ``source``.
        """
        self._monotonic = monotonic
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        except (OSError, UnicodeError) as err:
            raise NotFound(f"{host}: no address is known for it", cure="name the server by its address") from err
        self._socket = socket.socket(family, kind, protocol)
        try:
            if source:
                self._socket.bind((source, 0))
            self._socket.connect(address)
        except OSError as err:
            self._socket.close()
            seen = f"from {source} to {host}" if source else f"to {host}"
            cure = "give an address of this machine, of the server's family" if source else "look at the routes of this machine"
            raise NotFound(f"no packet can be sent {seen}: {err.strerror}", cure=cure) from err
        self.source: str = self._socket.getsockname()[0]
        """The address that the server sees, unless something on the way changes it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def ask(self, request: bytes, secret: SharedSecret, patience: Patience, *, must_be_signed: bool = True) -> Answer:
        """Send ``request`` until something that can be believed comes back, or patience is over."""
        began = self._monotonic()
        doubted: Doubted | None = None
        for sent in range(1, patience.retries + 2):
            until = self._monotonic() + patience.timeout_s
            try:
                self._socket.send(request)
                while (left := until - self._monotonic()) > 0:
                    self._socket.settimeout(left)
                    datagram = self._socket.recv(BUFFER)
                    try:
                        reply = secret.verify_reply(request, datagram, require_message_authenticator=must_be_signed)
                    except ReplyRefused as err:
                        doubted = Doubted(err.doubt, str(err))
                        continue
                    return Believed(reply, _signature(reply), (self._monotonic() - began) * 1000, sent)
            except TimeoutError:
                continue
            except ConnectionRefusedError:
                return Silence.NOBODY_LISTENS
            except OSError as err:
                raise NotFound(f"the request cannot be sent: {err.strerror}", cure="look at routes and packet filters") from err
        return doubted or Silence.TIMED_OUT


def can_send_from(address: str) -> bool:
    """Whether ``address``, a literal, is one of this machine."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True


@dataclass(frozen=True, slots=True)
class Step:
    """One request in words, and what came back."""

    request: str
    answer: Answer


@dataclass(frozen=True, slots=True)
class Trial:
    """One conversation of a NAS with its server. ``told`` hears each step; ``must_be_signed`` is about replies."""

    nas: Nas
    secret: SharedSecret
    patience: Patience
    told: Callable[[Step], None]
    protection: Protection = Protection.SIGNED
    must_be_signed: bool = True
    random: RandomBytes = os.urandom

    def log_in(self, login: Login, ask: Callable[[str], Secret | None]) -> Answer:
        """Log in; challenges are answered by what ``ask`` gives for their prompt, None to give up. Returns the last answer.

        Raises:
            InvalidInput: see :func:`login_request`.
        """
        identifier = self.random(1)[0]
        for number in range(MAX_CHALLENGES + 1):
            octets = login_request(
                login, self.secret, identifier=(identifier + number) % 256, protection=self.protection, random=self.random
            )
            answer = self._ask(f"Access-Request, {login.method.value}, {self.protection.value}", octets)
            if not isinstance(answer, Believed) or answer.packet.code != Code.ACCESS_CHALLENGE or number == MAX_CHALLENGES:
                break
            typed = ask(reply_message(answer.packet) or "Answer: ")
            if typed is None:
                break
            login = replace(login, typed=typed, state=answer.packet.first(Type.STATE) or b"")
        return answer

    def status(self) -> Answer:
        """Ask whether somebody is there."""
        octets = status_request(self.secret, identifier=self.random(1)[0], protection=self.protection, random=self.random)
        return self._ask(f"Status-Server, {self.protection.value}", octets)

    def account(self, user_name: str) -> Answer:
        """Tell of a session: Start, and Stop if that was acknowledged. Raises: InvalidInput."""
        start, stop = accounting_requests(user_name, self.secret, identifier=self.random(1)[0], random=self.random)
        answer = self._ask("Accounting-Request, Start", start)
        return self._ask("Accounting-Request, Stop", stop) if isinstance(answer, Believed) else answer

    def _ask(self, words: str, octets: bytes) -> Answer:
        # Accounting-Responses are not signed as a rule: nothing is let in by one.
        must_be_signed = self.must_be_signed and octets[0] != Code.ACCOUNTING_REQUEST
        answer = self.nas.ask(octets, self.secret, self.patience, must_be_signed=must_be_signed)
        self.told(Step(words, answer))
        return answer


def _signature(reply: Packet) -> Signature:
    at = reply.message_authenticator_at
    return Signature.NONE if not at else Signature.FIRST if at == FIRST_SIGNED_AT else Signature.LATER


def reply_message(reply: Packet) -> str:
    """What the person is told: all Reply-Messages in order (RFC 2865 section 5.18)."""
    return b"".join(reply.all(Type.REPLY_MESSAGE)).decode("utf-8", "replace")
