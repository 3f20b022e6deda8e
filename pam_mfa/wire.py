"""What do the bytes between pam_mfa.so and mfad say? (PROTOCOL.md, version 1)

Room rule: everything that knows a tag, an offset or a limit of the wire lives here, both ways, sans-IO: bytes become frozen
values or are refused as a whole, values become bytes. This file does not know what a PAM result means, who may connect, or
what is asked next. The module writes BEGIN and ANSWER and reads OPS; the daemon does the reverse; the tests do both.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass, field

from mfa_core.errors import PeerProtocolError
from mfa_core.secret import Secret

VERSION = 1
MESSAGE_MAX = 16_384
"""Bytes of a message, header included."""
FIELDS_MAX = 64
TEXT_MAX = 2_048
"""Bytes of UTF-8 in a prompt, a log line or a variable."""
SHOWN_MAX = 8_192
"""Bytes of UTF-8 in INFO and ERROR: a QR code is one message."""
BYTES_MAX = 4_096
"""Bytes of an answer, a password or SSH_AUTH_INFO_0; the module cuts the last and cancels instead of cutting the others."""
WAIT_MAX_S = 300
FAIL_DELAY_MAX_US = 5_000_000

_MAGIC = b"MFA1"
_HEADER = struct.Struct(">4sHH")
_FIELD = struct.Struct(">HH")
_FIELD_SIZE = _FIELD.size
_read_field = _FIELD.unpack_from
_U32 = struct.Struct(">I")


class MessageType(enum.IntEnum):
    """The u16 at offset 6."""

    BEGIN = 1
    OPS = 2
    ANSWER = 3


class Phase(enum.IntEnum):
    """The PAM phase that one connection serves."""

    AUTHENTICATE = 1
    ACCOUNT = 2


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
    NUL = "nul"
    NOT_UTF8 = "not_utf8"
    RANGE = "range"
    MIXED = "mixed"
    """Fields that exclude one another, or an order that the protocol forbids."""


class MessageRefused(PeerProtocolError):
    """The bytes are no message of this protocol; ``fault`` says which rule they broke. The text quotes none of them."""

    def __init__(self, fault: Fault, detail: str, *, seen_version: int = VERSION) -> None:
        super().__init__(f"{fault}: {detail}", cure="install the same version of mfad and pam_mfa.so, then restart mfad")
        self.fault = fault
        self.seen_version = seen_version


@dataclass(frozen=True, slots=True)
class Begin:
    """BEGIN: what the module knows when a PAM phase starts. Every value is what a *process* said: judge it by its socket.

    Absent fields are empty; ``authtok`` is None when absent, because an empty password is one. ``uid`` and ``euid`` are for
    logs only: the kernel's word for them is SO_PEERCRED.
    """

    phase: Phase
    flags: int
    user: bytes
    service: bytes
    uid: int
    euid: int
    tty: bytes = b""
    rhost: bytes = b""
    ruser: bytes = b""
    ssh_connection: bytes = b""
    ssh_auth_info: bytes = b""
    authtok: Secret | None = field(default=None, compare=False)
    options: tuple[bytes, ...] = ()
    module: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """ANSWER with RESP fields: one answer for each prompt, in order."""

    responses: tuple[Secret, ...] = field(compare=False)


@dataclass(frozen=True, slots=True)
class Cancel:
    """ANSWER with CANCEL: the conversation function failed with ``code``, a PAM return code."""

    code: int


class Echo(enum.Enum):
    """Whether what is typed shows on the screen."""

    OFF = "off"
    ON = "on"


@dataclass(frozen=True, slots=True)
class Ask:
    """PROMPT_OFF or PROMPT_ON."""

    text: str
    echo: Echo = Echo.OFF


@dataclass(frozen=True, slots=True)
class Info:
    text: str


@dataclass(frozen=True, slots=True)
class Error:
    text: str


@dataclass(frozen=True, slots=True)
class Wait:
    """The next message may take ``seconds``, 1 to 300."""

    seconds: int


@dataclass(frozen=True, slots=True)
class SetAuthtok:
    password: Secret = field(compare=False)


@dataclass(frozen=True, slots=True)
class PutEnv:
    """``MFA_NAME=value``."""

    assignment: str


@dataclass(frozen=True, slots=True)
class FailDelay:
    microseconds: int


class Level(enum.IntEnum):
    """Levels of syslog(3) that LOG may carry."""

    CRIT = 2
    ERR = 3
    WARNING = 4
    NOTICE = 5
    INFO = 6
    DEBUG = 7


@dataclass(frozen=True, slots=True)
class Log:
    level: Level
    text: str


@dataclass(frozen=True, slots=True)
class Result:
    """The PAM return code; ends the message and the conversation."""

    code: int


Op = Ask | Info | Error | Wait | SetAuthtok | PutEnv | FailDelay | Log | Result
Ops = tuple[Op, ...]


_PHASE = 0x0101
_FLAGS = 0x0102
_UID = 0x010A
_EUID = 0x010B
_AUTHTOK = 0x010C
_MODULE = 0x010E
_NUMBER_SIZES = {_PHASE: 1, _FLAGS: 4, _UID: 4, _EUID: 4}
# Arbitrary bytes, but no NUL: they become C strings. tag: (attribute of Begin, most bytes)
_STRINGS = {
    0x0103: ("user", MESSAGE_MAX),
    0x0104: ("service", MESSAGE_MAX),
    0x0105: ("tty", MESSAGE_MAX),
    0x0106: ("rhost", MESSAGE_MAX),
    0x0107: ("ruser", MESSAGE_MAX),
    0x0108: ("ssh_connection", MESSAGE_MAX),
    0x0109: ("ssh_auth_info", BYTES_MAX),
    _AUTHTOK: ("authtok", BYTES_MAX),
}
_OPTION = 0x010D
_REQUIRED = frozenset({_PHASE, _FLAGS, 0x0103, 0x0104, _UID, _EUID})
_PHASES = {phase.value: phase for phase in Phase}
_RESP = 0x0301
_CANCEL = 0x0302

_PROMPT_OFF = 0x0201
_PROMPT_ON = 0x0202
_INFO = 0x0203
_ERROR = 0x0204
_WAIT = 0x0205
_SET_AUTHTOK = 0x0206
_PUTENV = 0x0207
_FAIL_DELAY = 0x0208
_LOG = 0x0209
_RESULT = 0x020A
_ONCE_IN_OPS = frozenset({_WAIT, _SET_AUTHTOK, _FAIL_DELAY, _RESULT})


def _fields(message: bytes) -> tuple[int, list[tuple[int, bytes]]]:
    """Take the frame apart: the message type and its (tag, value) pairs, none of them looked at.

    Raises: MessageRefused.
    """
    size = len(message)
    if size > MESSAGE_MAX:
        raise MessageRefused(Fault.TOO_LONG, f"a message of more than {MESSAGE_MAX} bytes")
    if size < _HEADER.size:
        raise MessageRefused(Fault.HEADER, f"a message of {size} bytes, expected at least {_HEADER.size}")
    magic, version, kind = _HEADER.unpack_from(message)
    if magic != _MAGIC:
        raise MessageRefused(Fault.MAGIC, "a message that does not begin with MFA1")
    if version != VERSION:
        older = "pam_mfa.so" if version < VERSION else "mfad"
        raise MessageRefused(
            Fault.VERSION,
            f"the peer speaks version {version}, mfad version {VERSION}: the package of {older} is older",
            seen_version=version,
        )
    fields: list[tuple[int, bytes]] = []
    at = _HEADER.size
    while at < size:
        if len(fields) == FIELDS_MAX:
            raise MessageRefused(Fault.TOO_MANY_FIELDS, f"more than {FIELDS_MAX} fields")
        if size - at < _FIELD_SIZE:
            raise MessageRefused(Fault.TRUNCATED, "a field header cut short")
        tag, length = _read_field(message, at)
        at += _FIELD_SIZE
        end = at + length
        if end > size:
            raise MessageRefused(Fault.TRUNCATED, f"a field that runs {end - size} bytes past the end")
        fields.append((tag, message[at:end]))
        at = end
    return kind, fields


def _text(value: bytes, limit: int) -> str:
    if len(value) > limit:
        raise MessageRefused(Fault.SIZE, f"a text of {len(value)} bytes, expected at most {limit}")
    if b"\0" in value:
        raise MessageRefused(Fault.NUL, "a text with NUL")
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise MessageRefused(Fault.NOT_UTF8, "a text that is not UTF-8") from None


def _number(value: bytes, size: int) -> int:
    if len(value) != size:
        raise MessageRefused(Fault.SIZE, f"a number of {len(value)} bytes, expected {size}")
    return int.from_bytes(value)


def _c_string(value: bytes, limit: int) -> bytes:
    if len(value) > limit:
        raise MessageRefused(Fault.SIZE, f"a value of {len(value)} bytes, expected at most {limit}")
    if b"\0" in value:
        raise MessageRefused(Fault.NUL, "a value with NUL")
    return value


def decode_from_module(message: bytes) -> Begin | Answer | Cancel:
    """Decode what the module sent.

    Raises: MessageRefused, and nothing else, whatever the bytes are.
    """
    kind, fields = _fields(message)
    if kind == MessageType.BEGIN:
        return _decode_begin(fields)
    if kind == MessageType.ANSWER:
        return _decode_answer(fields)
    raise MessageRefused(Fault.TYPE, f"a message of type {kind}, expected BEGIN or ANSWER")


def _decode_begin(fields: list[tuple[int, bytes]]) -> Begin:
    numbers: dict[int, int] = {}
    strings: dict[str, bytes] = {}
    options: list[bytes] = []
    module = ""
    seen = set()
    for tag, value in fields:
        if tag == _OPTION:
            options.append(_c_string(value, MESSAGE_MAX))
            continue
        if tag in seen:
            raise MessageRefused(Fault.REPEATED, f"field {tag:#06x} stands twice in BEGIN")
        seen.add(tag)
        if tag in _STRINGS:
            name, limit = _STRINGS[tag]
            strings[name] = _c_string(value, limit)
        elif tag in _NUMBER_SIZES:
            numbers[tag] = _number(value, _NUMBER_SIZES[tag])
        elif tag == _MODULE:
            module = _text(value, TEXT_MAX)
        else:
            raise MessageRefused(Fault.UNKNOWN_TAG, f"field {tag:#06x} in BEGIN")
    if not seen >= _REQUIRED:
        raise MessageRefused(Fault.MISSING, f"BEGIN without field {min(_REQUIRED - seen):#06x}")
    phase = _PHASES.get(numbers[_PHASE])
    if phase is None:
        raise MessageRefused(Fault.RANGE, f"phase {numbers[_PHASE]}, expected 1 or 2")
    authtok = strings.pop("authtok", None)
    return Begin(
        phase=phase,
        flags=numbers[_FLAGS],
        uid=numbers[_UID],
        euid=numbers[_EUID],
        authtok=None if authtok is None else Secret(authtok),
        options=tuple(options),
        module=module,
        **strings,
    )


def _decode_answer(fields: list[tuple[int, bytes]]) -> Answer | Cancel:
    responses = []
    for tag, value in fields:
        if tag == _RESP:
            responses.append(Secret(_c_string(value, BYTES_MAX)))
        elif tag == _CANCEL:
            code = _number(value, 1)
            if len(fields) != 1:
                raise MessageRefused(Fault.MIXED, "CANCEL does not stand alone")
            return Cancel(code)
        else:
            raise MessageRefused(Fault.UNKNOWN_TAG, f"field {tag:#06x} in ANSWER")
    if not responses:
        raise MessageRefused(Fault.MISSING, "ANSWER with neither RESP nor CANCEL")
    return Answer(tuple(responses))


def _put(tag: int, value: bytes) -> bytes:
    return _FIELD.pack(tag, len(value)) + value


def _put_text(tag: int, text: str, limit: int, prefix: bytes = b"") -> bytes:
    value = text.encode()
    if len(value) > limit or b"\0" in value:
        raise ValueError(f"a text of {len(value)} bytes for field {tag:#06x}, expected at most {limit} and no NUL")
    return _put(tag, prefix + value)


def _put_c_string(tag: int, value: bytes, limit: int) -> bytes:
    if len(value) > limit or b"\0" in value:
        raise ValueError(f"a value of {len(value)} bytes for field {tag:#06x}, expected at most {limit} and no NUL")
    return _put(tag, value)


def _encode_op(op: Op) -> bytes:
    match op:
        case Result(code):
            return _put(_RESULT, code.to_bytes(1))
        case Ask(text, echo):
            return _put_text(_PROMPT_OFF if echo is Echo.OFF else _PROMPT_ON, text, TEXT_MAX)
        case Error(text):
            return _put_text(_ERROR, text, SHOWN_MAX)
        case Info(text):
            return _put_text(_INFO, text, SHOWN_MAX)
        case Log(level, text):
            return _put_text(_LOG, text, TEXT_MAX, prefix=level.to_bytes(1))
        case SetAuthtok(password):
            return _put_c_string(_SET_AUTHTOK, password.reveal(), BYTES_MAX)
        case Wait(seconds):
            if not 1 <= seconds <= WAIT_MAX_S:
                raise ValueError(f"WAIT {seconds}, expected 1 to {WAIT_MAX_S} seconds")
            return _put(_WAIT, _U32.pack(seconds))
        case PutEnv(assignment):
            if not _is_assignment(assignment):
                raise ValueError("PUTENV takes MFA_NAME=value")
            return _put_text(_PUTENV, assignment, TEXT_MAX)
        case FailDelay(microseconds):
            if not 0 <= microseconds <= FAIL_DELAY_MAX_US:
                raise ValueError(f"FAIL_DELAY {microseconds}, expected at most {FAIL_DELAY_MAX_US} microseconds")
            return _put(_FAIL_DELAY, _U32.pack(microseconds))


def _is_assignment(text: str) -> bool:
    name, equals, value = text.partition("=")
    return name.startswith("MFA_") and len(name) > len("MFA_") and bool(equals) and bool(value)


def _message(kind: MessageType, fields: list[bytes]) -> bytes:
    message = _HEADER.pack(_MAGIC, VERSION, kind) + b"".join(fields)
    if len(message) > MESSAGE_MAX or len(fields) > FIELDS_MAX:
        raise ValueError(f"a message of {len(message)} bytes and {len(fields)} fields, more than the wire carries")
    return message


def encode_ops(ops: Ops) -> bytes:
    """Encode what the module is to do.

    Raises: ValueError when the operations break a rule of PROTOCOL.md: that is a mistake of ours, not of a peer.
    """
    return _message(MessageType.OPS, [_encode_op(op) for op in ops])


# The reverse direction: what the module does in C. The tests and the benchmark stand in for it.


def encode_begin(begin: Begin) -> bytes:
    """Encode BEGIN in the order of the tags, OPTIONs before MODULE; empty optional fields are left out.

    Raises: ValueError past a limit.
    """
    numbers = {_PHASE: begin.phase, _FLAGS: begin.flags, _UID: begin.uid, _EUID: begin.euid}
    fields = {tag: _put(tag, number.to_bytes(_NUMBER_SIZES[tag])) for tag, number in numbers.items()}
    for tag, (name, limit) in _STRINGS.items():
        if tag == _AUTHTOK:
            value = None if begin.authtok is None else begin.authtok.reveal()
        else:
            value = getattr(begin, name) or (b"" if tag in _REQUIRED else None)
        if value is not None:
            fields[tag] = _put_c_string(tag, value, limit)
    written = [fields[tag] for tag in sorted(fields)]
    written += [_put_c_string(_OPTION, option, MESSAGE_MAX) for option in begin.options]
    if begin.module:
        written.append(_put_text(_MODULE, begin.module, TEXT_MAX))
    return _message(MessageType.BEGIN, written)


def encode_answer(answer: Answer | Cancel) -> bytes:
    """Encode ANSWER. Raises: ValueError past a limit."""
    if isinstance(answer, Cancel):
        return _message(MessageType.ANSWER, [_put(_CANCEL, answer.code.to_bytes(1))])
    return _message(MessageType.ANSWER, [_put_c_string(_RESP, one.reveal(), BYTES_MAX) for one in answer.responses])


def decode_ops(message: bytes) -> Ops:
    """Decode OPS by the rules that the C module applies.

    Raises: MessageRefused.
    """
    kind, fields = _fields(message)
    if kind != MessageType.OPS:
        raise MessageRefused(Fault.TYPE, f"a message of type {kind}, expected OPS")
    ops: list[Op] = []
    seen = set()
    prompts = False
    for tag, value in fields:
        if _RESULT in seen:
            raise MessageRefused(Fault.MIXED, "a field after RESULT")
        if tag in _ONCE_IN_OPS and tag in seen:
            raise MessageRefused(Fault.REPEATED, f"field {tag:#06x} stands twice in OPS")
        seen.add(tag)
        ops.append(_decode_op(tag, value))
        prompts = prompts or tag in (_PROMPT_OFF, _PROMPT_ON)
    if _RESULT in seen and (prompts or _WAIT in seen):
        raise MessageRefused(Fault.MIXED, "RESULT with a prompt or WAIT")
    if not (_RESULT in seen or prompts or _WAIT in seen):
        raise MessageRefused(Fault.MISSING, "OPS with neither prompt, nor WAIT, nor RESULT")
    return tuple(ops)


def _ranged(number: int, least: int, most: int) -> int:
    if not least <= number <= most:
        raise MessageRefused(Fault.RANGE, f"the number {number}, expected {least} to {most}")
    return number


def _decode_op(tag: int, value: bytes) -> Op:
    if tag == _PROMPT_OFF:
        return Ask(_text(value, TEXT_MAX))
    if tag == _PROMPT_ON:
        return Ask(_text(value, TEXT_MAX), Echo.ON)
    if tag == _INFO:
        return Info(_text(value, SHOWN_MAX))
    if tag == _ERROR:
        return Error(_text(value, SHOWN_MAX))
    if tag == _WAIT:
        return Wait(_ranged(_number(value, 4), 1, WAIT_MAX_S))
    if tag == _SET_AUTHTOK:
        return SetAuthtok(Secret(_c_string(value, BYTES_MAX)))
    if tag == _PUTENV:
        assignment = _text(value, TEXT_MAX)
        if not _is_assignment(assignment):
            raise MessageRefused(Fault.RANGE, "PUTENV of another variable than MFA_NAME=value")
        return PutEnv(assignment)
    if tag == _FAIL_DELAY:
        return FailDelay(_ranged(_number(value, 4), 0, FAIL_DELAY_MAX_US))
    if tag == _LOG:
        return Log(Level(_ranged(_number(value[:1], 1), Level.CRIT, Level.DEBUG)), _text(value[1:], TEXT_MAX))
    if tag == _RESULT:
        return Result(_number(value, 1))
    raise MessageRefused(Fault.UNKNOWN_TAG, f"field {tag:#06x} in OPS")
