"""How does a test log in by EAP-TTLS and say more inside the tunnel than a password? (RFC 5281, RFC 3748, RFC 3579)

eapol_test sends a name and a password there, and nothing else; somebody else's device may send any attribute, or one tunnel
inside another.
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from tests.end_to_end.radius_packets import EAP_MESSAGE, STATE, USER_NAME, USER_PASSWORD, Answer, Attribute, Nas

_RESPONSE, _IDENTITY, _TTLS = 2, 1, 21
_LENGTH_INCLUDED, _MORE, _START = 0x80, 0x40, 0x20
_MANDATORY = 0x40
_PIECE = 1000
"""Octets of TLS in one EAP message."""
_ANONYMOUS = b"anonymous"


class Way(Protocol):
    """Carries one EAP message to the server; its answer, b"" where that is the end."""

    def carry(self, message: bytes) -> bytes: ...


class Outside:
    """Over RADIUS, with ``more`` in each request. ``last`` is the last answer."""

    def __init__(self, nas: Nas, more: Sequence[Attribute] = ()) -> None:
        self._nas, self._more, self._state = nas, list(more), b""
        self.last: Answer | None = None

    def carry(self, message: bytes) -> bytes:
        """See :class:`Way`."""
        pieces = [(EAP_MESSAGE, message[at : at + 253]) for at in range(0, len(message), 253)]
        state = [(STATE, self._state)] if self._state else []
        self.last = self._nas.ask(self._nas.request([(USER_NAME, _ANONYMOUS), *self._more, *state, *pieces]))
        if self.last.what != "Challenge":
            return b""
        self._state = self.last.state
        return b"".join(self.last.all(EAP_MESSAGE))


class Tunnel:
    """EAP-TTLS with the server behind ``way``, whose certificate ``authority`` vouches for."""

    def __init__(self, way: Way, authority: Path) -> None:
        self._way = way
        context = ssl.create_default_context(cafile=str(authority))
        context.check_hostname = False
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        self._read, self._written = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._read, self._written)
        self._identifier = 0

    def open(self) -> Tunnel:
        """Shake hands."""
        heard = self._send(bytes((_IDENTITY,)) + _ANONYMOUS)
        while heard:
            self._take(heard)
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                heard = self._flush()
            else:
                return self
        raise AssertionError("the server did not want a tunnel")

    def say(self, *said: Attribute) -> bytes:
        """Send attributes through the tunnel (RFC 5281 section 10.1); the EAP message that comes back through it, or b""."""
        self._tls.write(b"".join(_avp(kind, value) for kind, value in said))
        heard = self._flush()
        if not heard:
            return b""
        self._take(heard)
        found = b""
        while self._read.pending:
            found += self._tls.read(1 << 14)
        return _eap_in(found)

    def log_in(self, name: bytes, password: bytes, *more: Attribute) -> None:
        """TTLS-PAP, with ``more`` beside name and password."""
        self.say((USER_NAME, name), (USER_PASSWORD, password + bytes(-len(password) % 16)), *more)

    def _take(self, message: bytes) -> None:
        while True:
            assert message[4] == _TTLS, f"EAP type {message[4]}"
            flags = message[5]
            self._read.write(message[10 if flags & _LENGTH_INCLUDED else 6 :])
            if not flags & _MORE:
                return
            message = self._send(bytes((_TTLS, 0)))

    def _flush(self) -> bytes:
        octets = self._written.read()
        total = len(octets).to_bytes(4, "big")
        while True:
            piece, octets = octets[:_PIECE], octets[_PIECE:]
            flags = _LENGTH_INCLUDED | (_MORE if octets else 0)
            heard = self._send(bytes((_TTLS, flags)) + total + piece)
            if not octets:
                return heard

    def _send(self, body: bytes) -> bytes:
        heard = self._way.carry(
            bytes((_RESPONSE, self._identifier)) + (4 + len(body)).to_bytes(2, "big") + body
        )
        if heard:
            self._identifier = heard[1]
        return heard


class Inside:
    """Through another tunnel, with ``more`` beside each message."""

    def __init__(self, tunnel: Tunnel, more: Sequence[Attribute] = ()) -> None:
        self._tunnel, self._more = tunnel, list(more)

    def carry(self, message: bytes) -> bytes:
        """See :class:`Way`."""
        return self._tunnel.say((USER_NAME, _ANONYMOUS), *self._more, (EAP_MESSAGE, message))


def _avp(kind: int, value: bytes) -> bytes:
    size = 8 + len(value)
    return kind.to_bytes(4, "big") + bytes((_MANDATORY,)) + size.to_bytes(3, "big") + value + bytes(-size % 4)


def _eap_in(octets: bytes) -> bytes:
    found, at = b"", 0
    while at < len(octets):
        size = int.from_bytes(octets[at + 5 : at + 8], "big")
        if int.from_bytes(octets[at : at + 4], "big") == EAP_MESSAGE:
            found += octets[at + 8 : at + size]
        at += size + -size % 4
    return found
