"""How does a test decide when, and what, the RADIUS server behind mfad answers?

It is that server: a socket without a thread. mfad asks, the test looks at what was asked, and answers when it wants to. So a
first factor is slow for exactly as long as a test needs, and nobody sleeps.
"""

from __future__ import annotations

import hashlib
import hmac
import socket
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.end_to_end.programs import PATIENCE_S
from tests.end_to_end.radius_packets import (
    ACCESS_ACCEPT,
    GRACE_S,
    MESSAGE_AUTHENTICATOR,
    PROXY_STATE,
    USER_NAME,
    USER_PASSWORD,
    Attribute,
    attribute,
    packet,
)


@dataclass(frozen=True, slots=True)
class Asked:
    """One Access-Request that mfad sent. ``password`` is what its User-Password hides."""

    raw: bytes
    sender: tuple[str, int]
    attributes: tuple[Attribute, ...]
    password: bytes

    def all(self, kind: int) -> list[bytes]:
        return [value for one, value in self.attributes if one == kind]

    @property
    def name(self) -> str:
        (value,) = self.all(USER_NAME)
        return value.decode()


@dataclass(slots=True)
class Upstream:
    """A server at a free port of 127.0.0.1 that answers what it is told. A context manager."""

    secret: bytes
    socket: socket.socket = field(init=False)
    _seen: set[bytes] = field(init=False, default_factory=set)

    def __post_init__(self) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.socket.close()

    @property
    def address(self) -> str:
        host, port = self.socket.getsockname()
        return f"{host}:{port}"

    def primary(self, directory: Path, **more: object) -> dict[str, object]:
        """The section ``primary`` of a door that asks here, and waits for as long as a test may need."""
        path = directory / "upstream.secret"
        path.touch(0o600)
        path.write_bytes(self.secret + b"\n")
        return {"type": "radius", "servers": [self.address], "secret_file": str(path), "timeout": "20s", "retries": 1, **more}

    def next(self, *, patience_s: float = PATIENCE_S) -> Asked:
        """The next request that is no retransmit. Raises: AssertionError when none comes."""
        give_up_at = time.monotonic() + patience_s
        while True:
            self.socket.settimeout(max(0.001, give_up_at - time.monotonic()))
            try:
                raw, sender = self.socket.recvfrom(65_535)
            except TimeoutError:
                raise AssertionError("nobody asked the upstream server") from None
            if raw not in self._seen:
                self._seen.add(raw)
                return self._read(raw, sender)

    def is_asked(self) -> bool:
        """Whether something new is asked within a grace."""
        try:
            self.next(patience_s=GRACE_S)
        except AssertionError:
            return False
        return True

    def _read(self, raw: bytes, sender: tuple[str, int]) -> Asked:
        found: list[Attribute] = []
        at = 20
        while at < len(raw):
            found.append((raw[at], raw[at + 2 : at + raw[at + 1]]))
            if raw[at] == MESSAGE_AUTHENTICATOR:
                blanked = raw[: at + 2] + bytes(16) + raw[at + 18 :]
                assert hmac.digest(self.secret, blanked, "md5") == raw[at + 2 : at + 18], "mfad signed its request wrongly"
                assert at == 20, "the Message-Authenticator is not first in mfad's request"
            at += raw[at + 1]
        assert any(kind == MESSAGE_AUTHENTICATOR for kind, _ in found), "mfad did not sign its request"
        (password,) = [value for kind, value in found if kind == USER_PASSWORD]
        return Asked(raw, sender, tuple(found), self._revealed(raw[4:20], password))

    def _revealed(self, authenticator: bytes, hidden: bytes) -> bytes:
        out, last = b"", authenticator
        for start in range(0, len(hidden), 16):
            block = hidden[start : start + 16]
            out += bytes(a ^ b for a, b in zip(block, hashlib.md5(self.secret + last).digest(), strict=True))
            last = block
        return out.rstrip(b"\0")

    def answer(self, asked: Asked, code: int = ACCESS_ACCEPT, *more: Attribute, sign: bool = True) -> None:
        """Answer; ``sign=False`` leaves the Message-Authenticator out, as a forger must who has only a collision."""
        body = b"".join(attribute(PROXY_STATE, value) for value in asked.all(PROXY_STATE))
        body += b"".join(attribute(kind, value) for kind, value in more)
        self.socket.sendto(reply(asked.raw, code, self.secret, body, sign=sign), asked.sender)

    def answer_all(self, asked: Sequence[Asked], code: int = ACCESS_ACCEPT) -> None:
        for one in asked:
            self.answer(one, code)


def reply(request: bytes, code: int, secret: bytes, body: bytes, *, sign: bool = True) -> bytes:
    """A reply with a right Response Authenticator (RFC 2865 section 3)."""
    if sign:
        empty = attribute(MESSAGE_AUTHENTICATOR, bytes(16))
        digest = hmac.digest(secret, packet(code, request[1], request[4:20], empty + body), "md5")
        body = attribute(MESSAGE_AUTHENTICATOR, digest) + body
    header = struct.pack("!BBH", code, request[1], 20 + len(body))
    return header + hashlib.md5(header + request[4:20] + body + secret).digest() + body
