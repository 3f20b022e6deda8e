"""How does a test speak LDAP octet by octet? A client of sockets that builds and reads PDUs by hand (RFC 4511, X.690).

Nothing of the door is used here: what the door sends is judged by code that shares none with it.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

from tests.end_to_end.programs import PATIENCE_S

BIND_REQUEST, BIND_RESPONSE = 0x60, 0x61
UNBIND_REQUEST = 0x42
SEARCH_REQUEST, SEARCH_ENTRY, SEARCH_DONE, SEARCH_REFERENCE = 0x63, 0x64, 0x65, 0x73
MODIFY_REQUEST, MODIFY_RESPONSE = 0x66, 0x67
ADD_REQUEST, ADD_RESPONSE = 0x68, 0x69
DELETE_REQUEST, DELETE_RESPONSE = 0x4A, 0x6B
COMPARE_REQUEST, COMPARE_RESPONSE = 0x6E, 0x6F
ABANDON_REQUEST = 0x50
EXTENDED_REQUEST, EXTENDED_RESPONSE = 0x77, 0x78
INTERMEDIATE_RESPONSE = 0x79

STARTTLS, WHOAMI = "1.3.6.1.4.1.1466.20037", "1.3.6.1.4.1.4203.1.11.3"
NOTICE_OF_DISCONNECTION = "1.3.6.1.4.1.1466.20036"
CANCEL, VERIFY_CREDENTIALS = "1.3.6.1.1.8", "1.3.6.1.4.1.4203.666.6.5"
FAST_BIND = "1.2.840.113556.1.4.1781"

SUCCESS, OPERATIONS_ERROR, PROTOCOL_ERROR, COMPARE_FALSE, COMPARE_TRUE = 0, 1, 2, 5, 6
AUTH_METHOD_NOT_SUPPORTED, STRONGER_AUTH_REQUIRED, REFERRAL = 7, 8, 10
UNAVAILABLE_CRITICAL_EXTENSION, CONFIDENTIALITY_REQUIRED = 12, 13
INAPPROPRIATE_AUTHENTICATION, INVALID_CREDENTIALS, INSUFFICIENT_ACCESS = 48, 49, 50
BUSY, UNAVAILABLE, UNWILLING_TO_PERFORM = 51, 52, 53

GRACE_S = 0.3
"""How long nothing must come where nothing may come."""


def tlv(tag: int, *content: bytes) -> bytes:
    """One element, with the shortest definite length."""
    body = b"".join(content)
    if len(body) < 0x80:
        return bytes((tag, len(body))) + body
    size = len(body).to_bytes((len(body).bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(size))) + size + body


def integer(number: int, tag: int = 0x02) -> bytes:
    return tlv(tag, number.to_bytes(number.bit_length() // 8 + 1, "big", signed=True))


def octets(text: str | bytes, tag: int = 0x04) -> bytes:
    return tlv(tag, text.encode() if isinstance(text, str) else text)


def message(number: int, operation: bytes, controls: bytes = b"") -> bytes:
    """An LDAPMessage; ``controls`` are Control elements."""
    return tlv(0x30, integer(number), operation, tlv(0xA0, controls) if controls else b"")


def control(oid: str, value: bytes | None = None, *, critical: bool = False) -> bytes:
    return tlv(0x30, octets(oid), tlv(0x01, b"\xff") if critical else b"", b"" if value is None else octets(value))


def bind(number: int, dn: str | bytes, password: str | bytes, *, version: int = 3, controls: bytes = b"") -> bytes:
    return message(number, tlv(BIND_REQUEST, integer(version), octets(dn), octets(password, 0x80)), controls)


def sasl_bind(number: int, mechanism: str, credentials: bytes | None = None) -> bytes:
    chosen = tlv(0xA3, octets(mechanism), b"" if credentials is None else octets(credentials))
    return message(number, tlv(BIND_REQUEST, integer(3), octets(""), chosen))


def present(attribute: str) -> bytes:
    return octets(attribute, 0x87)


def equals(attribute: str, value: str) -> bytes:
    return tlv(0xA3, octets(attribute), octets(value))


EVERYTHING = present("objectClass")


def search(
    number: int,
    base: str,
    *,
    scope: int = 0,
    wanted: bytes = EVERYTHING,
    attributes: Sequence[str] = (),
    controls: bytes = b"",
) -> bytes:
    body = (
        octets(base),
        integer(scope, 0x0A),
        integer(0, 0x0A),
        integer(0),
        integer(0),
        tlv(0x01, b"\x00"),
        wanted,
        tlv(0x30, *(octets(one) for one in attributes)),
    )
    return message(number, tlv(SEARCH_REQUEST, *body), controls)


def modify(number: int, dn: str, attribute: str, value: str, *, controls: bytes = b"") -> bytes:
    """Replace all values of an attribute by one."""
    change = tlv(0x30, integer(2, 0x0A), tlv(0x30, octets(attribute), tlv(0x31, octets(value))))
    return message(number, tlv(MODIFY_REQUEST, octets(dn), tlv(0x30, change)), controls)


def delete(number: int, dn: str) -> bytes:
    return message(number, octets(dn, DELETE_REQUEST))


def add(number: int, dn: str, attributes: Sequence[tuple[str, str | bytes]]) -> bytes:
    listed = (tlv(0x30, octets(name), tlv(0x31, octets(value))) for name, value in attributes)
    return message(number, tlv(ADD_REQUEST, octets(dn), tlv(0x30, *listed)))


def compare(number: int, dn: str, attribute: str, value: str, *, controls: bytes = b"") -> bytes:
    return message(number, tlv(COMPARE_REQUEST, octets(dn), tlv(0x30, octets(attribute), octets(value))), controls)


def extended(number: int, oid: str, value: bytes | None = None, *, controls: bytes = b"") -> bytes:
    body = (octets(oid, 0x80), b"" if value is None else octets(value, 0x81))
    return message(number, tlv(EXTENDED_REQUEST, *body), controls)


def abandon(number: int, which: int) -> bytes:
    return message(number, integer(which, ABANDON_REQUEST))


def unbind(number: int) -> bytes:
    return message(number, tlv(UNBIND_REQUEST))


def result(number: int, tag: int, code: int, text: str = "", *more: bytes, matched: str = "", controls: bytes = b"") -> bytes:
    """A response, as a directory sends it."""
    return message(number, tlv(tag, integer(code, 0x0A), octets(matched), octets(text), *more), controls)


def entry(number: int, dn: str, attributes: Sequence[tuple[str, str]] = ()) -> bytes:
    listed = (tlv(0x30, octets(name), tlv(0x31, octets(value))) for name, value in attributes)
    return message(number, tlv(SEARCH_ENTRY, octets(dn), tlv(0x30, *listed)))


def notice(code: int, text: str = "") -> bytes:
    return result(0, EXTENDED_RESPONSE, code, text, octets(NOTICE_OF_DISCONNECTION, 0x8A))


# Reading. A peer that sends what cannot be read fails the test.


def elements(body: bytes) -> Iterator[tuple[int, bytes]]:
    """Tag and content of each element in ``body``, which must hold whole ones."""
    at = 0
    while at < len(body):
        size, start = _length(body, at)
        assert start + size <= len(body), "an element that does not fit"
        yield body[at], body[start : start + size]
        at = start + size


def _length(data: bytes, at: int) -> tuple[int, int]:
    """Length and start of the content of the element at ``at``."""
    first = data[at + 1]
    if first < 0x80:
        return first, at + 2
    count = first & 0x7F
    assert count, "an indefinite length"
    assert len(data) >= at + 2 + count
    return int.from_bytes(data[at + 2 : at + 2 + count], "big"), at + 2 + count


def whole(data: bytes) -> int:
    """How many octets the PDU at the start of ``data`` has; 0 while that cannot be told or they are not all there."""
    if len(data) < 2 or (data[1] > 0x80 and len(data) < 2 + (data[1] & 0x7F)):
        return 0
    size, start = _length(data, 0)
    return start + size if len(data) >= start + size else 0


def pdus(data: bytes) -> list[Pdu]:
    """All whole PDUs at the start of ``data``."""
    found = []
    while length := whole(data):
        found.append(Pdu(data[:length]))
        data = data[length:]
    return found


@dataclass(frozen=True, slots=True)
class Pdu:
    """One LDAPMessage in its octets."""

    octets: bytes

    def _parts(self) -> list[tuple[int, bytes]]:
        ((tag, body),) = elements(self.octets)
        assert tag == 0x30, f"{self.octets!r} is no LDAPMessage"
        return list(elements(body))

    @property
    def number(self) -> int:
        """The message id."""
        return int.from_bytes(self._parts()[0][1], "big", signed=True)

    @property
    def tag(self) -> int:
        return self._parts()[1][0]

    @property
    def operation(self) -> list[tuple[int, bytes]]:
        """The elements of the protocolOp."""
        return list(elements(self._parts()[1][1]))

    @property
    def code(self) -> int:
        """The result code of a response."""
        return int.from_bytes(self.operation[0][1], "big")

    @property
    def text(self) -> str:
        """The diagnostic message of a response."""
        return self.operation[2][1].decode()

    @property
    def name(self) -> str:
        """The first string of an operation: whom a bind is for, what a search begins at, which entry this is."""
        return next(value for tag, value in self.operation if tag == 0x04).decode()

    @property
    def password(self) -> bytes | None:
        """Of a simple bind; None of SASL's."""
        return next((value for tag, value in self.operation if tag == 0x80), None)

    def part(self, tag: int) -> bytes | None:
        """The element of the protocolOp with this tag, None if it has none."""
        return next((value for one, value in self.operation if one == tag), None)

    @property
    def sasl(self) -> bytes:
        """What a BindResponse says to the client's mechanism."""
        return self.part(0x87) or b""

    @property
    def oid(self) -> str:
        """Which extended operation, of a request or of a response."""
        return (self.part(0x80 if self.tag == EXTENDED_REQUEST else 0x8A) or b"").decode()

    @property
    def controls(self) -> bytes:
        """The Control elements."""
        return next((value for tag, value in self._parts()[2:] if tag == 0xA0), b"")

    @property
    def is_notice(self) -> bool:
        """Whether it is a Notice of Disconnection."""
        return (self.number, self.tag, self.oid) == (0, EXTENDED_RESPONSE, NOTICE_OF_DISCONNECTION)


class Client:
    """One connection to a directory or to the door. Close it."""

    def __init__(self, address: tuple[str, int] | str, *, source: str = "", timeout_s: float = PATIENCE_S) -> None:
        if isinstance(address, str):
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.connect(address)
        else:
            self.socket = socket.create_connection(address, timeout_s, (source, 0) if source else None)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.settimeout(timeout_s)
        self._buffer = b""
        self._next = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """FIN."""
        self.socket.close()

    def reset(self) -> None:
        """RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def number(self) -> int:
        """A message id that this connection has not had."""
        self._next += 1
        return self._next

    def send(self, *requests: bytes) -> None:
        """In one segment, where they fit."""
        self.socket.sendall(b"".join(requests))

    def receive(self) -> Pdu:
        """The next PDU. Raises: EOFError when the connection has ended, TimeoutError when nothing comes."""
        while not (length := whole(self._buffer)):
            try:
                more = self.socket.recv(65_536)
            except ConnectionResetError:
                more = b""
            if not more:
                raise EOFError(f"the connection ended; left over: {self._buffer!r}")
            self._buffer += more
        one, self._buffer = Pdu(self._buffer[:length]), self._buffer[length:]
        return one

    def ask(self, request: bytes) -> Pdu:
        """Send one request; the first PDU that comes."""
        self.send(request)
        return self.receive()

    def bind(self, dn: str, password: str | bytes, **more: int | bytes) -> Pdu:
        """The BindResponse."""
        number = self.number()
        answer = self.ask(bind(number, dn, password, **more))  # type: ignore[arg-type]
        assert (answer.number, answer.tag) == (number, BIND_RESPONSE), answer
        return answer

    def search(self, base: str, **more: object) -> list[Pdu]:
        """All that comes, the SearchResultDone last."""
        number = self.number()
        self.send(search(number, base, **more))  # type: ignore[arg-type]
        return self.until(SEARCH_DONE, number)

    def until(self, tag: int, number: int) -> list[Pdu]:
        """All PDUs up to the one with this tag and message id."""
        found = [self.receive()]
        while (found[-1].tag, found[-1].number) != (tag, number):
            assert not found[-1].is_notice, f"a notice of disconnection: {found[-1].text}"
            found.append(self.receive())
        return found

    def whoami(self) -> str:
        """Who the directory says this is; "" for nobody."""
        answer = self.ask(extended(self.number(), WHOAMI))
        assert (answer.tag, answer.code) == (EXTENDED_RESPONSE, SUCCESS), (answer.code, answer.text)
        return (answer.part(0x8B) or b"").decode()

    def is_silent(self) -> bool:
        """Whether nothing comes, and the connection stands. Another thread may be sending meanwhile."""
        return not self._buffer and not select.select([self.socket], [], [], GRACE_S)[0]

    def rest(self) -> list[Pdu]:
        """All that still comes until the peer closes. Raises: TimeoutError where it does not."""
        found: list[Pdu] = []
        with contextlib.suppress(EOFError):
            while True:
                found.append(self.receive())
        assert not self._buffer, "a piece of a PDU"
        return found

    def rest_or_nothing(self) -> None:
        """Read until it ends, whatever comes and however it ends."""
        with contextlib.suppress(OSError):
            while self.socket.recv(65_536):
                pass

    def start_tls(self, context: ssl.SSLContext, name: str | None = None) -> Pdu:
        """Ask for StartTLS and begin TLS where the answer is 0; that answer."""
        answer = self.ask(extended(self.number(), STARTTLS))
        if answer.code == SUCCESS:
            assert not self._buffer
            self.begin_tls(context, name)
        return answer

    def begin_tls(self, context: ssl.SSLContext, name: str | None = None) -> None:
        """The handshake, at once."""
        self.socket = context.wrap_socket(self.socket, server_hostname=name)
