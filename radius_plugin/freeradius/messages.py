"""What do the bytes between FreeRADIUS's module and mfad say? (PROTOCOL.md, version 1; mfad's side)

Room rule: everything of the daemon's that knows a tag, an offset or a limit of this wire lives here, sans-IO: bytes become
frozen values or are refused as a whole, values become bytes. This file does not know what a login is decided by, nor how bytes
travel. The module has a codec of its own, because it is one file that runs in another program; vectors hold the two together.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import ip_address

from mfa_core.errors import PeerProtocolError
from mfa_core.secret import Secret

VERSION = 1
MESSAGE_MAX = 16_384
"""Bytes of a message, header included."""
FIELDS_MAX = 64
VALUE_MAX = 253
"""Octets of a value: what fits into an attribute of RADIUS (RFC 2865 section 5)."""
ATTRIBUTES_MAX = 4_096
"""Octets of all reply attributes together: a packet holds no more (RFC 2865 section 3)."""
WAIT_MAX_S = 300

_MAGIC = b"MFR1"
_HEADER = struct.Struct(">4sHHI")
_FIELD = struct.Struct(">HH")


class MessageType(enum.IntEnum):
    """The u16 at offset 6."""

    LOGIN = 1
    VERDICT = 2
    ACCOUNTING = 3
    RECORDED = 4


class ReplyKind(enum.IntEnum):
    """What FreeRADIUS is to do."""

    ACCEPT = 1
    REJECT = 2
    CHALLENGE = 3
    NO_ANSWER = 4
    """Say nothing: the client asks its next server."""


class Fault(enum.StrEnum):
    """Why a message was refused: stable words for counters, logs and tests."""

    HEADER = "header"
    MAGIC = "magic"
    VERSION = "version"
    TYPE = "type"
    TOO_LONG = "too_long"
    TOO_MANY_FIELDS = "too_many_fields"
    TRUNCATED = "truncated"
    UNKNOWN_TAG = "unknown_tag"
    SIZE = "size"
    REPEATED = "repeated"
    MISSING = "missing"
    NOT_UTF8 = "not_utf8"
    RANGE = "range"


class MessageRefused(PeerProtocolError):
    """The bytes are no message of this protocol; ``fault`` says which rule they broke. The text quotes none of them."""

    def __init__(self, fault: Fault, detail: str) -> None:
        super().__init__(
            f"{fault}: {detail}", cure="copy the mfad_freeradius.py of this version of mfad to FreeRADIUS, restart it"
        )
        self.fault = fault


@dataclass(frozen=True, slots=True)
class PluginRequest:
    """LOGIN: an Access-Request, or what came out of an EAP tunnel, as FreeRADIUS saw it. It has checked the packet.

    Absent values are empty; ``password`` and ``chap_password`` are None when absent. ``source`` is the address that the packet
    came from, ``client`` FreeRADIUS's short name for it. ``challenges`` is False where no second question can be asked.
    ``wait_s`` is how long the module waits for a verdict, seconds.
    """

    user_name: bytes
    source: str
    wait_s: int
    inner: bool = False
    challenges: bool = True
    password: Secret | None = field(default=None, compare=False)
    chap_password: Secret | None = field(default=None, compare=False)
    chap_challenge: bytes = b""
    state: bytes = b""
    calling_station: bytes = b""
    called_station: bytes = b""
    nas_identifier: bytes = b""
    nas_address: str = ""
    session_id: bytes = b""
    client: str = ""
    plugin: str = ""


@dataclass(frozen=True, slots=True)
class PluginAccounting:
    """ACCOUNTING: an Accounting-Request (RFC 2866). Numbers are None when absent; octets include the gigawords (RFC 2869)."""

    status: int
    source: str
    user_name: bytes = b""
    calling_station: bytes = b""
    called_station: bytes = b""
    nas_identifier: bytes = b""
    nas_address: str = ""
    session_id: bytes = b""
    client: str = ""
    plugin: str = ""
    session_time_s: int | None = None
    input_octets: int | None = None
    output_octets: int | None = None
    terminate_cause: int | None = None
    framed_address: str = ""


@dataclass(frozen=True, slots=True)
class PluginReply:
    """VERDICT. ``state`` belongs to a CHALLENGE, ``attributes`` (as they stand in a packet) to an ACCEPT."""

    kind: ReplyKind
    messages: tuple[str, ...] = ()
    state: bytes = b""
    attributes: bytes = b""


_WAIT = 0x0110
_STATUS = 0x0301


def _bytes(least: int, most: int) -> Callable[[bytes], bytes]:
    def read(value: bytes) -> bytes:
        if not least <= len(value) <= most:
            raise MessageRefused(Fault.SIZE, f"a value of {len(value)} octets, expected {least} to {most}")
        return value

    return read


def _number(size: int, most: int) -> Callable[[bytes], int]:
    def read(value: bytes) -> int:
        if len(value) != size:
            raise MessageRefused(Fault.SIZE, f"a number of {len(value)} octets, expected {size}")
        number = int.from_bytes(value)
        if number > most:
            raise MessageRefused(Fault.RANGE, f"a number over {most}")
        return number

    return read


def _address(value: bytes) -> str:
    if len(value) not in (4, 16):
        raise MessageRefused(Fault.SIZE, f"an address of {len(value)} octets, expected 4 or 16")
    return str(ip_address(value))


def _text(value: bytes) -> str:
    try:
        return _VALUE(value).decode()
    except UnicodeDecodeError:
        raise MessageRefused(Fault.NOT_UTF8, "a text that is not UTF-8") from None


def _secret(read: Callable[[bytes], bytes]) -> Callable[[bytes], Secret]:
    return lambda value: Secret(read(value))


def _flag(value: bytes) -> bool:
    return bool(_number(1, 1)(value))


_VALUE = _bytes(0, VALUE_MAX)
_Reader = Callable[[bytes], object]

# tag: attribute of the value, how to read it
_BOTH: dict[int, tuple[str, _Reader]] = {
    0x0101: ("user_name", _VALUE),
    0x0106: ("calling_station", _VALUE),
    0x0107: ("called_station", _VALUE),
    0x0108: ("nas_identifier", _VALUE),
    0x0109: ("nas_address", _address),
    0x010A: ("source", _address),
    0x010B: ("client", _text),
    0x010E: ("session_id", _VALUE),
    0x010F: ("plugin", _text),
}
_LOGIN = {
    **_BOTH,
    0x0102: ("password", _secret(_VALUE)),
    0x0103: ("chap_password", _secret(_bytes(17, 17))),
    0x0104: ("chap_challenge", _bytes(1, VALUE_MAX)),
    0x0105: ("state", _VALUE),
    0x010C: ("inner", _flag),
    0x010D: ("challenges", _flag),
    _WAIT: ("wait_s", _number(2, WAIT_MAX_S)),
}
_ACCOUNTING = {
    **_BOTH,
    _STATUS: ("status", _number(4, 0xFFFFFFFF)),
    0x0303: ("session_time_s", _number(4, 0xFFFFFFFF)),
    0x0304: ("input_octets", _number(8, 0xFFFFFFFFFFFFFFFF)),
    0x0305: ("output_octets", _number(8, 0xFFFFFFFFFFFFFFFF)),
    0x0306: ("terminate_cause", _number(4, 0xFFFFFFFF)),
    0x0307: ("framed_address", _address),
}
_LOGIN_REQUIRED = frozenset({0x0101, 0x010A, 0x010C, 0x010D, _WAIT})
_ACCOUNTING_REQUIRED = frozenset({0x010A, _STATUS})


def decode_from_plugin(message: bytes) -> tuple[int, PluginRequest | PluginAccounting]:
    """Decode what the module sent: the number that the answer must carry, and the request.

    Raises: MessageRefused, and nothing else, whatever the bytes are.
    """
    kind, number, fields = _fields(message)
    if kind == MessageType.LOGIN:
        found = _read(fields, _LOGIN, _LOGIN_REQUIRED)
        if found["wait_s"] == 0:
            raise MessageRefused(Fault.RANGE, "a module that does not wait")
        return number, PluginRequest(**found)  # type: ignore[arg-type]  # the table gives each its type
    if kind == MessageType.ACCOUNTING:
        return number, PluginAccounting(**_read(fields, _ACCOUNTING, _ACCOUNTING_REQUIRED))  # type: ignore[arg-type]
    raise MessageRefused(Fault.TYPE, f"a message of type {kind}, expected LOGIN or ACCOUNTING")


def _read(
    fields: list[tuple[int, bytes]], known: dict[int, tuple[str, _Reader]], required: frozenset[int]
) -> dict[str, object]:
    found: dict[str, object] = {}
    seen = set()
    for tag, value in fields:
        if tag not in known:
            raise MessageRefused(Fault.UNKNOWN_TAG, f"field {tag:#06x}")
        if tag in seen:
            raise MessageRefused(Fault.REPEATED, f"field {tag:#06x} stands twice")
        seen.add(tag)
        name, read = known[tag]
        found[name] = read(value)
    if not seen >= required:
        raise MessageRefused(Fault.MISSING, f"no field {min(required - seen):#06x}")
    return found


def _fields(message: bytes) -> tuple[int, int, list[tuple[int, bytes]]]:
    """Take the frame apart: type, number, and (tag, value) pairs, none of them looked at."""
    size = len(message)
    if size > MESSAGE_MAX:
        raise MessageRefused(Fault.TOO_LONG, f"a message of more than {MESSAGE_MAX} bytes")
    if size < _HEADER.size:
        raise MessageRefused(Fault.HEADER, f"a message of {size} bytes, expected at least {_HEADER.size}")
    magic, version, kind, number = _HEADER.unpack_from(message)
    if magic != _MAGIC:
        raise MessageRefused(Fault.MAGIC, "a message that does not begin with MFR1")
    if version != VERSION:
        raise MessageRefused(Fault.VERSION, f"the module speaks version {version}, mfad version {VERSION}")
    fields: list[tuple[int, bytes]] = []
    at = _HEADER.size
    while at < size:
        if len(fields) == FIELDS_MAX:
            raise MessageRefused(Fault.TOO_MANY_FIELDS, f"more than {FIELDS_MAX} fields")
        if size - at < _FIELD.size:
            raise MessageRefused(Fault.TRUNCATED, "a field header cut short")
        tag, length = _FIELD.unpack_from(message, at)
        at += _FIELD.size
        if at + length > size:
            raise MessageRefused(Fault.TRUNCATED, f"a field that runs {at + length - size} bytes past the end")
        fields.append((tag, message[at : at + length]))
        at += length
    return kind, number, fields


def encode_reply(number: int, reply: PluginReply) -> bytes:
    """Encode VERDICT.

    Raises: ValueError for a reply that the wire does not carry: a mistake of ours.
    """
    texts = [text.encode() for text in reply.messages]
    if len(texts) > FIELDS_MAX - 3 or any(len(text) > VALUE_MAX for text in texts):
        raise ValueError(f"{len(texts)} messages, expected few, of at most {VALUE_MAX} octets each")
    if bool(reply.state) != (reply.kind is ReplyKind.CHALLENGE) or len(reply.state) > VALUE_MAX:
        raise ValueError(f"a State of {len(reply.state)} octets in {reply.kind.name}")
    if reply.attributes and (reply.kind is not ReplyKind.ACCEPT or len(reply.attributes) > ATTRIBUTES_MAX):
        raise ValueError(f"{len(reply.attributes)} octets of attributes in {reply.kind.name}")
    fields = [_put(0x0201, bytes((reply.kind,))), *(_put(0x0202, text) for text in texts)]
    if reply.state:
        fields.append(_put(0x0203, reply.state))
    if reply.attributes:
        fields.append(_put(0x0204, reply.attributes))
    return _message(MessageType.VERDICT, number, fields)


def encode_recorded(number: int, *, recorded: bool) -> bytes:
    """Encode RECORDED: whether the accounting record is kept."""
    return _message(MessageType.RECORDED, number, [_put(0x0401, b"\1" if recorded else b"\0")])


def _put(tag: int, value: bytes) -> bytes:
    return _FIELD.pack(tag, len(value)) + value


def _message(kind: MessageType, number: int, fields: list[bytes]) -> bytes:
    message = _HEADER.pack(_MAGIC, VERSION, kind, number) + b"".join(fields)
    if len(message) > MESSAGE_MAX:
        raise ValueError(f"a message of {len(message)} bytes, more than the wire carries")
    return message
