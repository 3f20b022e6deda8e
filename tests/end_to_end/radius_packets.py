"""How does a test speak RADIUS octet by octet?

Room rule: nothing of the product is imported here, so that a mistake of its codec cannot hide behind itself. Packets are made
from RFC 2865, 2866, 2869 and 3579 alone, wrong ones as well. :class:`Nas` is one socket with a shared secret; silence is proved
by asking something else afterwards over the same socket, not by waiting.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import socket
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from tests.end_to_end.programs import PATIENCE_S

ACCESS_REQUEST, ACCESS_ACCEPT, ACCESS_REJECT = 1, 2, 3
ACCOUNTING_REQUEST, ACCOUNTING_RESPONSE = 4, 5
ACCESS_CHALLENGE, STATUS_SERVER = 11, 12
USER_NAME, USER_PASSWORD, CHAP_PASSWORD, NAS_IP_ADDRESS, NAS_PORT = 1, 2, 3, 4, 5
FILTER_ID, REPLY_MESSAGE, STATE, CLASS, CALLING_STATION_ID, NAS_IDENTIFIER = 11, 18, 24, 25, 31, 32
PROXY_STATE, ACCT_STATUS_TYPE, ACCT_SESSION_ID, CHAP_CHALLENGE = 33, 40, 44, 60
EAP_MESSAGE, MESSAGE_AUTHENTICATOR = 79, 80
START, STOP = b"\0\0\0\1", b"\0\0\0\2"
NAMES = {2: "Accept", 3: "Reject", 5: "Accounting-Response", 11: "Challenge"}

Attribute = tuple[int, bytes]
SILENCE = "silence"
GRACE_S = 0.05
"""How long, after a later request was answered, an answer to an earlier one may still come and spoil the silence."""


def attribute(kind: int, value: bytes) -> bytes:
    return bytes((kind, len(value) + 2)) + value


def hidden(secret: bytes, authenticator: bytes, password: bytes) -> bytes:
    """User-Password as RFC 2865 section 5.2 hides it; whole blocks, of no particular number."""
    out, last = b"", authenticator
    padded = password + b"\0" * (-len(password) % 16)
    for start in range(0, len(padded), 16):
        pad = hashlib.md5(secret + last).digest()
        last = bytes(a ^ b for a, b in zip(padded[start : start + 16], pad, strict=True))
        out += last
    return out


def chap(identifier: int, password: bytes, challenge: bytes) -> bytes:
    """CHAP-Password, RFC 2865 section 5.3."""
    return bytes((identifier,)) + hashlib.md5(bytes((identifier,)) + password + challenge).digest()


def packet(code: int, identifier: int, authenticator: bytes, body: bytes) -> bytes:
    return struct.pack("!BBH", code, identifier, 20 + len(body)) + authenticator + body


def signed(secret: bytes, code: int, identifier: int, authenticator: bytes, body: bytes) -> bytes:
    """With a Message-Authenticator in front."""
    empty = attribute(MESSAGE_AUTHENTICATOR, bytes(16))
    digest = hmac.digest(secret, packet(code, identifier, authenticator, empty + body), "md5")
    return packet(code, identifier, authenticator, attribute(MESSAGE_AUTHENTICATOR, digest) + body)


@dataclass(frozen=True, slots=True)
class Answer:
    """A reply whose Response Authenticator was right. ``signature`` says whether it had a right Message-Authenticator."""

    raw: bytes
    attributes: tuple[Attribute, ...]
    signature: bool

    @property
    def what(self) -> str:
        return NAMES.get(self.raw[0], str(self.raw[0]))

    @property
    def signed_first(self) -> bool:
        """Whether a right Message-Authenticator is the first attribute, and the only one of its kind."""
        return self.signature and self.attributes[0][0] == MESSAGE_AUTHENTICATOR and len(self.all(MESSAGE_AUTHENTICATOR)) == 1

    def all(self, kind: int) -> list[bytes]:
        return [value for one, value in self.attributes if one == kind]

    @property
    def text(self) -> str:
        """All of Reply-Message."""
        return b"".join(self.all(REPLY_MESSAGE)).decode()

    @property
    def state(self) -> bytes:
        (value,) = self.all(STATE)
        return value


def read_answer(raw: bytes, secret: bytes, request: bytes) -> Answer:
    """Check a reply as a client must. Raises: AssertionError for one that a client must not believe."""
    assert len(raw) >= 20, raw
    code, identifier, length = struct.unpack("!BBH", raw[:4])
    assert length == len(raw), "the reply's Length is not that of the datagram"
    assert identifier == request[1], "the reply is to another request"
    expected = hashlib.md5(raw[:4] + request[4:20] + raw[20:] + secret).digest()
    assert raw[4:20] == expected, f"wrong Response Authenticator in code {code}"
    found: list[Attribute] = []
    signature, at = False, 20
    while at < len(raw):
        size = raw[at + 1]
        assert 2 <= size <= len(raw) - at, "a broken attribute in the reply"
        found.append((raw[at], raw[at + 2 : at + size]))
        if raw[at] == MESSAGE_AUTHENTICATOR:
            blanked = raw[:4] + request[4:20] + raw[20 : at + 2] + bytes(16) + raw[at + 18 :]
            assert hmac.digest(secret, blanked, "md5") == raw[at + 2 : at + size], "wrong Message-Authenticator in the reply"
            signature = True
        at += size
    return Answer(raw, tuple(found), signature)


@dataclass(slots=True)
class Nas:
    """One socket of a RADIUS client. ``source`` is the address that the server sees."""

    server: tuple[str, int]
    secret: bytes
    source: str = "127.0.0.1"
    socket: socket.socket = field(init=False)
    _identifier: int = field(default=0, init=False)
    _stray: list[bytes] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        self.socket = socket.socket(socket.AF_INET6 if ":" in self.server[0] else socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((self.source, 0))
        # connected: a reply from another address than the one that was asked does not arrive
        self.socket.connect(self.server)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.socket.close()

    # making requests

    def identifier(self) -> int:
        self._identifier = (self._identifier + 1) % 256
        return self._identifier

    def login(
        self,
        name: str | bytes | None,
        password: str | bytes | None,
        *more: Attribute,
        sign: bool = True,
        identifier: int | None = None,
        authenticator: bytes | None = None,
        secret: bytes | None = None,
    ) -> bytes:
        """An Access-Request with PAP; no User-Name or User-Password where None is given."""
        one = os.urandom(16) if authenticator is None else authenticator
        key = self.secret if secret is None else secret
        first: list[Attribute] = []
        if name is not None:
            first.append((USER_NAME, name.encode() if isinstance(name, str) else name))
        if password is not None:
            text = password.encode() if isinstance(password, str) else password
            first.append((USER_PASSWORD, hidden(key, one, text or bytes(16))))
        return self.request([*first, *more], sign=sign, identifier=identifier, authenticator=one, secret=key)

    def request(
        self,
        attributes: Sequence[Attribute],
        *,
        code: int = ACCESS_REQUEST,
        sign: bool = True,
        identifier: int | None = None,
        authenticator: bytes | None = None,
        secret: bytes | None = None,
    ) -> bytes:
        """Any request with a random (or this) authenticator."""
        body = b"".join(attribute(kind, value) for kind, value in attributes)
        number = self.identifier() if identifier is None else identifier
        one = os.urandom(16) if authenticator is None else authenticator
        if sign:
            return signed(self.secret if secret is None else secret, code, number, one, body)
        return packet(code, number, one, body)

    def status(self) -> bytes:
        """A Status-Server (RFC 5997)."""
        return self.request([], code=STATUS_SERVER)

    def accounting(self, *attributes: Attribute, secret: bytes | None = None) -> bytes:
        """An Accounting-Request, whose authenticator is its checksum (RFC 2866 section 3)."""
        body = b"".join(attribute(kind, value) for kind, value in attributes)
        number = self.identifier()
        whole = packet(ACCOUNTING_REQUEST, number, bytes(16), body)
        checksum = hashlib.md5(whole + (self.secret if secret is None else secret)).digest()
        return packet(ACCOUNTING_REQUEST, number, checksum, body)

    # talking

    def send(self, raw: bytes) -> None:
        self.socket.send(raw)

    def receive(self, request: bytes, *, patience_s: float = PATIENCE_S) -> Answer:
        """The answer to ``request``; answers to others are kept. Raises: AssertionError when none comes."""
        give_up_at = time.monotonic() + patience_s
        while True:
            for raw in self._stray:
                if raw[1] == request[1]:
                    self._stray.remove(raw)
                    return read_answer(raw, self.secret, request)
            self.socket.settimeout(max(0.001, give_up_at - time.monotonic()))
            try:
                self._stray.append(self.socket.recv(65_535))
            except TimeoutError:
                raise AssertionError(f"no answer to {request[:20].hex()}") from None

    def ask(self, raw: bytes) -> Answer:
        """Send, and wait for the answer."""
        self.send(raw)
        return self.receive(raw)

    def is_silent(self, raw: bytes) -> bool:
        """Whether ``raw`` gets no answer, while a Status-Server that is sent after it gets one."""
        self.send(raw)
        return self.stays_silent()

    def stays_silent(self) -> bool:
        """Whether nothing but the answer to a Status-Server comes."""
        assert self.ask(self.status()).what == "Accept", "a Status-Server is accepted"
        self.socket.settimeout(GRACE_S)
        with contextlib.suppress(TimeoutError):
            self._stray.append(self.socket.recv(65_535))
        heard, self._stray = self._stray, []
        return not heard
