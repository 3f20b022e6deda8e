"""What runs inside FreeRADIUS: it asks mfad, and decides nothing itself. (rlm_python3; PROTOCOL.md)

Room rule: standard library only, one file, so that installing it is copying it. What FreeRADIUS hands over becomes one message,
mfad's answer becomes FreeRADIUS's words. Whatever goes wrong on the way is RLM_MODULE_FAIL, never RLM_MODULE_OK.

The policy ``mfad_hide`` has moved the attributes that are text into octets before this file is called: rlm_python3 hands text
over as a C string of UTF-8, so that a NUL would cut a user's name short, and make somebody else of him. Octets come as 0x...
"""

from __future__ import annotations

import itertools
import pwd
import re
import socket
import struct
import time
from collections import deque
from ipaddress import ip_address
from pathlib import Path

import radiusd  # type: ignore[import-not-found]  # FreeRADIUS's own, there only inside it

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    Pairs = Iterable[tuple[str, str]]

PLUGIN = b"mfad-freeradius 1"
VERSION = 1
MESSAGE_MAX = 16384
VALUE_MAX = 253
"""Octets of a value in a RADIUS attribute; rlm_python3 cuts what is printed in more than 1,023 characters."""
CONNECT_S = 1.0
REMARK_S = 10.0
"""One line in so many seconds for each kind of trouble: requests must not fill the disk."""

LOGIN, VERDICT, ACCOUNTING, RECORDED = 1, 2, 3, 4
ACCEPT, REJECT, CHALLENGE, NO_ANSWER = 1, 2, 3, 4

_HEADER = struct.Struct(">4sHHI")
_FIELD = struct.Struct(">HH")
_UCRED = struct.Struct("iII")

# What mfad_hide makes: attribute, tag on the wire
_OCTETS = {
    "Tmp-Octets-0": 0x0101,  # User-Name
    "Tmp-Octets-1": 0x0102,  # User-Password
    "CHAP-Password": 0x0103,
    "CHAP-Challenge": 0x0104,
    "State": 0x0105,
    "Tmp-Octets-2": 0x0106,  # Calling-Station-Id, or whatever holds the address of the person's device
    "Tmp-Octets-3": 0x0107,  # Called-Station-Id
    "Tmp-Octets-4": 0x0108,  # NAS-Identifier
    "Tmp-Octets-5": 0x010E,  # Acct-Session-Id
}
_ADDRESSES = {"NAS-IP-Address": 0x0109, "NAS-IPv6-Address": 0x0109, "Tmp-String-0": 0x010A}
_CLIENT = "Tmp-String-1"
_INNER = "Tmp-Integer-0"
_LOGIN_ONLY = frozenset({"Tmp-Octets-1", "CHAP-Password", "CHAP-Challenge", "State"})

_STATUS = "Tmp-Integer-1"  # Acct-Status-Type, a number
_CAUSE = "Tmp-Integer-2"  # Acct-Terminate-Cause, a number


class Trouble(Exception):
    """No answer that may be used. ``kind`` is a stable word; the text quotes nothing of what a peer or a user sent."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


# settings


class Settings:
    """``config { }`` of the module's instance."""

    def __init__(self, words: Mapping[str, str]) -> None:
        known = {"socket", "server_user", "timeout", "on_unavailable", "dictionary"}
        strange = sorted(set(words) - known)
        if strange:
            raise Trouble("configuration", f"config {{ {strange[0]} }} is not known, expected {', '.join(sorted(known))}")
        self.socket = words.get("socket", "/run/mfad/radius/radius.sock")
        self.server_uids = {0, _uid(words.get("server_user", "root"))}
        self.timeout_s = _number(words.get("timeout", "5"))
        refusal = words.get("on_unavailable", "silence")
        if refusal not in ("silence", "reject"):
            raise Trouble("configuration", f"config {{ on_unavailable = {refusal} }}, expected silence or reject")
        self.silent = refusal == "silence"
        self.dictionary = words.get("dictionary", "/usr/share/freeradius/dictionary")


def _uid(name: str) -> int:
    if name.isascii() and name.isdigit():
        return int(name)
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        raise Trouble("configuration", f"config {{ server_user = {name} }}: no such user") from None


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 300):
        raise Trouble("configuration", f"config {{ timeout = {text} }}, expected 1 to 300 seconds")
    return int(text)


# the wire


def put(tag: int, value: bytes) -> bytes:
    return _FIELD.pack(tag, len(value)) + value


def message(kind: int, number: int, fields: Iterable[bytes]) -> bytes:
    return _HEADER.pack(b"MFR1", VERSION, kind, number) + b"".join(fields)


def fields_of(raw: bytes, kind: int, number: int) -> dict[int, list[bytes]]:
    """Take a message of mfad's apart: the values of each tag.

    Raises: Trouble, and nothing else, whatever the bytes are.
    """
    if len(raw) > MESSAGE_MAX or len(raw) < _HEADER.size:
        raise Trouble("protocol", f"mfad sent {len(raw)} bytes, expected {_HEADER.size} to {MESSAGE_MAX}")
    magic, version, seen_kind, seen_number = _HEADER.unpack_from(raw)
    if magic != b"MFR1" or version != VERSION:
        raise Trouble("protocol", f"mfad does not speak version {VERSION}: install its own copy of this file")
    if (seen_kind, seen_number) != (kind, number):
        raise Trouble("protocol", "mfad answered another question")
    found: dict[int, list[bytes]] = {}
    at = _HEADER.size
    while at < len(raw):
        if len(raw) - at < _FIELD.size:
            raise Trouble("protocol", "mfad sent a field header cut short")
        tag, length = _FIELD.unpack_from(raw, at)
        at += _FIELD.size + length
        if at > len(raw):
            raise Trouble("protocol", "mfad sent a field that runs past the end")
        found.setdefault(tag, []).append(raw[at - length : at])
    return found


def read_verdict(raw: bytes, number: int) -> tuple[int, list[str], bytes, bytes]:
    """Read VERDICT: kind, messages, State, encoded reply attributes.

    Raises: Trouble.
    """
    found = fields_of(raw, VERDICT, number)
    if set(found) - {0x0201, 0x0202, 0x0203, 0x0204} or any(len(found.get(tag, ())) > 1 for tag in (0x0201, 0x0203, 0x0204)):
        raise Trouble("protocol", "mfad sent a field that is not known, or twice one that may stand once")
    kind = found.get(0x0201, [b""])[0]
    state = found.get(0x0203, [b""])[0]
    if len(kind) != 1 or kind[0] not in (ACCEPT, REJECT, CHALLENGE, NO_ANSWER):
        raise Trouble("protocol", "mfad sent no verdict that is known")
    if (kind[0] == CHALLENGE) != bool(state) or len(state) > VALUE_MAX:
        raise Trouble("protocol", "mfad sent a State that does not belong to its verdict")
    try:
        texts = [text.decode() for text in found.get(0x0202, ())]
    except UnicodeDecodeError:
        raise Trouble("protocol", "mfad sent a message that is not UTF-8") from None
    attributes = found.get(0x0204, [b""])[0]
    if attributes and kind[0] != ACCEPT:
        raise Trouble("protocol", "mfad sent attributes beside a refusal")
    return kind[0], texts, state, attributes


def read_recorded(raw: bytes, number: int) -> bool:
    """Read RECORDED: whether the accounting record is kept.

    Raises: Trouble.
    """
    found = fields_of(raw, RECORDED, number)
    if found == {0x0401: [b"\1"]}:
        return True
    if found == {0x0401: [b"\0"]}:
        return False
    raise Trouble("protocol", "mfad sent no acknowledgement that is known")


# what FreeRADIUS says


def login_fields(pairs: Pairs, wait_s: int) -> list[bytes]:
    """Make the fields of LOGIN. Raises: Trouble."""
    values = _once(pairs)
    fields = _common(values)
    inner = values.get(_INNER) == "1"
    if "Tmp-Octets-0" not in values:
        fields.append(put(0x0101, b""))  # a login of nobody; mfad refuses it
    for name in sorted(_LOGIN_ONLY):
        if name in values and not (inner and name == "State"):  # inside a tunnel State is the outer conversation's
            fields.append(put(_OCTETS[name], _octets(name, values[name])))
    fields.append(put(0x010C, b"\1" if inner else b"\0"))
    fields.append(put(0x010D, b"\0" if inner else b"\1"))  # neither TTLS-PAP nor GTC carries a second question
    fields.append(put(0x0110, struct.pack(">H", wait_s)))
    return fields


def accounting_fields(pairs: Pairs) -> list[bytes]:
    """Make the fields of ACCOUNTING. Raises: Trouble."""
    values = _once(pairs)
    fields = _common(values)
    if _STATUS not in values:
        raise Trouble("policy", "accounting without Acct-Status-Type")
    fields.append(put(0x0301, struct.pack(">I", _count(values, _STATUS))))
    if "Acct-Session-Time" in values:
        fields.append(put(0x0303, struct.pack(">I", _count(values, "Acct-Session-Time"))))
    for tag, way in ((0x0304, "Input"), (0x0305, "Output")):
        if f"Acct-{way}-Octets" in values:
            total = _count(values, f"Acct-{way}-Octets") | _count(values, f"Acct-{way}-Gigawords") << 32
            fields.append(put(tag, struct.pack(">Q", total)))
    if _CAUSE in values:
        fields.append(put(0x0306, struct.pack(">I", _count(values, _CAUSE))))
    if "Framed-IP-Address" in values:
        fields.append(put(0x0307, _address("Framed-IP-Address", values["Framed-IP-Address"])))
    return fields


def _once(pairs: Pairs) -> dict[str, str]:
    """Index what we read by name; of an attribute that stands twice nobody could say which one counts."""
    values: dict[str, str] = {}
    for name, value in pairs:
        if name in values and (name in _OCTETS or name in _ADDRESSES):
            raise Trouble("repeated", f"{name} stands twice in the request")
        values[name] = value
    if _INNER not in values:
        raise Trouble("policy", "the policy mfad_hide must stand before this module")
    return values


def _common(values: Mapping[str, str]) -> list[bytes]:
    always = _OCTETS.keys() - _LOGIN_ONLY
    fields = [put(_OCTETS[name], _octets(name, values[name])) for name in sorted(always & values.keys())]
    if "NAS-IP-Address" in values:
        fields.append(put(0x0109, _address("NAS-IP-Address", values["NAS-IP-Address"])))
    elif "NAS-IPv6-Address" in values:
        fields.append(put(0x0109, _address("NAS-IPv6-Address", values["NAS-IPv6-Address"])))
    fields.append(put(0x010A, _address("Packet-Src-IP-Address", values.get("Tmp-String-0", ""))))
    fields.append(put(0x010B, values.get(_CLIENT, "").encode()[:VALUE_MAX]))
    fields.append(put(0x010F, PLUGIN))
    return fields


def _octets(name: str, printed: str) -> bytes:
    try:
        value = bytes.fromhex(printed[2:]) if printed.startswith("0x") or not printed else None
    except ValueError:
        value = None
    if value is None:
        raise Trouble("policy", f"{name} is not printed as octets")
    if len(value) > VALUE_MAX:
        raise Trouble("too_long", f"{name} has more than {VALUE_MAX} octets")
    return value


def _address(name: str, printed: str) -> bytes:
    try:
        return ip_address(printed).packed
    except ValueError:
        raise Trouble("policy", f"{name} is no address") from None


def _count(values: Mapping[str, str], name: str) -> int:
    text = values.get(name, "0")
    if not (text.isascii() and text.isdigit() and int(text) < 1 << 32):
        raise Trouble("policy", f"{name} is no number")
    return int(text)


# what mfad says


class Dictionary:
    """FreeRADIUS's own word for the type of each attribute: a value must be written in the form that its type is read in."""

    def __init__(self, known: Types) -> None:
        self._known = known

    def pairs(self, encoded: bytes) -> list[tuple[str, str, str]]:
        """Turn attributes as they stand in a packet into what rlm_python3 takes: name, operator, value.

        Raises: Trouble for broken ones, and for those that rlm_python3 cannot be told.
        """
        out = []
        for kind, value in _attributes(encoded):
            if kind != 26:
                out.append(self._pair(0, kind, value))
                continue
            if len(value) < 4:
                raise Trouble("attribute", "mfad sent a Vendor-Specific attribute without a vendor")
            vendor = int.from_bytes(value[:4], "big")
            out += [self._pair(vendor, inner, one) for inner, one in _attributes(value[4:])]
        return out

    def _pair(self, vendor: int, kind: int, value: bytes) -> tuple[str, str, str]:
        unknown = (f"Vendor-{vendor}-Attr-{kind}" if vendor else f"Attr-{kind}", "octets", False)
        name, form, tagged = self._known.get((vendor, kind), unknown)
        tag = 0
        if tagged and form == "integer" and len(value) == 4:
            tag, value = value[0], b"\0" + value[1:]
        elif tagged and form == "string" and value and value[0] < 0x20:
            tag, value = value[0], value[1:]
        if tag:
            name = f"{name}:{tag}"
        written = _written(form, value)
        if written is None:
            raise Trouble("attribute", f"{name} is of type {form} to FreeRADIUS: {len(value)} octets are none")
        return name, "+=", written


_SIZES = {"byte": 1, "short": 2, "integer": 4, "integer64": 8, "date": 4}


def _written(form: str, value: bytes) -> str | None:
    """Return ``value`` in the form in which FreeRADIUS reads a value of type ``form``; None when it is none."""
    if form == "string":
        return quoted(value)
    if form == "octets":
        return "0x" + value.hex() if value else None
    if form in _SIZES and form != "date":
        return str(int.from_bytes(value, "big")) if len(value) == _SIZES[form] else None
    if form == "signed" and len(value) == 4:
        return str(int.from_bytes(value, "big", signed=True))
    if (form, len(value)) in (("ipaddr", 4), ("ipv6addr", 16), ("combo-ip", 4), ("combo-ip", 16)):
        return str(ip_address(value))
    if form == "ipv6prefix" and 2 <= len(value) <= 18 and value[1] <= 128:
        return f"{ip_address(value[2:].ljust(16, bytes(1)))}/{value[1]}"
    if form == "ipv4prefix" and len(value) == 6 and value[1] & 0x3F <= 32:
        return f"{ip_address(value[2:])}/{value[1] & 0x3F}"
    return None


def quoted(value: bytes) -> str:
    """Write octets as FreeRADIUS reads a string: everything but plain ASCII by its octal number."""
    return "".join(chr(one) if 0x20 <= one < 0x7F and one not in b"\\\"'`%" else f"\\{one:03o}" for one in value)


def _attributes(encoded: bytes) -> list[tuple[int, bytes]]:
    found = []
    at = 0
    while at < len(encoded):
        length = encoded[at + 1] if at + 1 < len(encoded) else 0
        if length < 2 or at + length > len(encoded):
            raise Trouble("attribute", "mfad sent an attribute of a wrong length")
        found.append((encoded[at], encoded[at + 2 : at + length]))
        at += length
    return found


Types = dict[tuple[int, int], tuple[str, str, bool]]
"""Vendor (0: none) and number: name, type, and whether it has a tag (RFC 2868)."""

_LINE = re.compile(r"\s*(\$INCLUDE-?|VENDOR|BEGIN-VENDOR|END-VENDOR|BEGIN-TLV|END-TLV|ATTRIBUTE)\s+([^#]*)")
_A_NUMBER = re.compile(r"0x[0-9a-fA-F]+|[0-9]+")
_INCLUDES_MAX = 8


def read_dictionary(path: str) -> Dictionary:
    """Read the types of all attributes whose number is one octet. Raises: Trouble when a file cannot be read."""
    known: Types = {}
    _read_file(Path(path), {}, known, 0)
    return Dictionary(known)


def _read_file(path: Path, vendors: dict[str, int], known: Types, depth: int) -> None:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise Trouble("configuration", f"{path}: {error.strerror}") from None
    if depth > _INCLUDES_MAX:
        raise Trouble("configuration", f"{path}: dictionaries that include each other")
    vendor, nested = 0, 0
    for line in lines:
        match = _LINE.match(line)
        word, rest = (match[1], match[2].split()) if match else ("", [])
        if word.startswith("$INCLUDE") and rest:
            further = path.parent / rest[0]
            if word == "$INCLUDE" or further.exists():
                _read_file(further, vendors, known, depth + 1)
        elif word == "VENDOR" and len(rest) >= 2:
            plain = len(rest) == 2 or rest[2] == "format=1,1"
            vendors[rest[0]] = int(rest[1], 0) if plain else -1  # others are framed in ways of their own
        elif word == "BEGIN-VENDOR" and rest:
            vendor = vendors.get(rest[0], -1)
        elif word == "END-VENDOR":
            vendor = 0
        elif word in ("BEGIN-TLV", "END-TLV"):
            nested += 1 if word == "BEGIN-TLV" else -1
        elif word == "ATTRIBUTE" and len(rest) >= 3 and not nested and vendor >= 0 and _A_NUMBER.fullmatch(rest[1]):
            known[vendor, int(rest[1], 0)] = (rest[0], *_form(rest[2], rest[3:]))


def _form(written: str, options: list[str]) -> tuple[str, bool]:
    form = written.lower().partition("[")[0]
    words = options[0].split(",") if options else []
    hidden = any(word.startswith("encrypt=") for word in words)  # with a secret that mfad does not have
    return f"encrypted {form}" if hidden else form, "has_tag" in words


# the connection


class Connections:
    """Connections to mfad, each used by one request at a time. The one used last is used first, so that few stay warm."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._free: deque[socket.socket] = deque(maxlen=256)
        self._numbers = itertools.count(1)

    def ask(self, kind: int, fields: Iterable[bytes], timeout_s: float) -> tuple[bytes, int]:
        """Send a message, return mfad's answer and the number that it must carry.

        Nothing is asked twice: an answer that does not come may mean a code that is spent.

        Raises: Trouble.
        """
        number = next(self._numbers) & 0xFFFFFFFF
        question = message(kind, number, fields)
        if len(question) > MESSAGE_MAX:
            raise Trouble("too_long", "a request that is too long to ask about")
        connection = self._send(question)
        try:
            answer = _receive(connection, timeout_s)
        except BaseException:
            connection.close()
            raise
        self._free.append(connection)
        return answer, number

    def drop(self) -> None:
        """Close them all: what one of them said cannot be trusted, or mfad has another version now."""
        while self._free:
            self._free.pop().close()

    def _send(self, question: bytes) -> socket.socket:
        while True:
            try:
                connection = self._free.pop()
            except IndexError:
                connection = self._connect()
                break
            if _alive(connection):
                break
            connection.close()
        try:
            connection.settimeout(CONNECT_S)
            connection.send(question, socket.MSG_NOSIGNAL)
        except OSError as error:
            connection.close()
            raise Trouble("unreachable", f"mfad does not read: {error.strerror or 'timed out'}") from None
        return connection

    def _connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        try:
            connection.settimeout(CONNECT_S)
            connection.connect(self._settings.socket)
            _, uid, _ = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
        except (OSError, ValueError) as error:
            connection.close()
            why = getattr(error, "strerror", None) or "timed out"
            raise Trouble("unreachable", f"{self._settings.socket}: {why}; does mfad run, and may we enter?") from None
        if uid not in self._settings.server_uids:
            connection.close()
            raise Trouble("impostor", f"{self._settings.socket} is served by uid {uid}, expected root or server_user")
        return connection


def _alive(connection: socket.socket) -> bool:
    """Whether mfad is still there, and has said nothing that nobody asked for."""
    try:
        connection.settimeout(0)
        connection.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _receive(connection: socket.socket, timeout_s: float) -> bytes:
    try:
        connection.settimeout(timeout_s)
        answer = connection.recv(MESSAGE_MAX + 1)
    except socket.timeout:  # noqa: UP041  the same as TimeoutError only since Python 3.10
        raise Trouble("timeout", f"mfad said nothing within {timeout_s:.0f} s") from None
    except ConnectionResetError:  # it had not read the question
        answer = b""
    except OSError as error:
        raise Trouble("unreachable", f"no answer can be read: {error.strerror}") from None
    if not answer:
        raise Trouble("hung_up", "mfad closed the connection without an answer")
    return answer


# the module


class Plugin:
    """What there is one of: settings, connections, dictionary, and when which trouble was last spoken of."""

    def __init__(self, words: Mapping[str, str]) -> None:
        self.settings = Settings(words)
        self.connections = Connections(self.settings)
        self.dictionary = read_dictionary(self.settings.dictionary)
        self._remarks: dict[str, tuple[float, int]] = {}

    def authenticate(self, pairs: Pairs) -> Any:
        inner = (_INNER, "1") in pairs
        try:
            answer, number = self._ask(LOGIN, login_fields(pairs, self.settings.timeout_s))
            return self._told(inner, *read_verdict(answer, number))
        except Trouble as trouble:
            return self._fail(inner, trouble)

    def accounting(self, pairs: Pairs) -> Any:
        try:
            answer, number = self._ask(ACCOUNTING, accounting_fields(pairs))
            return radiusd.RLM_MODULE_OK if read_recorded(answer, number) else radiusd.RLM_MODULE_FAIL
        except Trouble as trouble:
            self.remark(trouble)
            return radiusd.RLM_MODULE_FAIL  # and no answer: the NAS sends the record again

    def remark(self, trouble: Trouble) -> None:
        """Write a line to FreeRADIUS's log, unless that kind of trouble was spoken of a moment ago."""
        now = time.monotonic()
        last, unspoken = self._remarks.get(trouble.kind, (float("-inf"), 0))
        if now - last < REMARK_S:
            self._remarks[trouble.kind] = (last, unspoken + 1)
            return
        self._remarks[trouble.kind] = (now, 0)
        more = f" ({unspoken} more of this kind)" if unspoken else ""
        _log(f"{trouble}{more}")

    def _ask(self, kind: int, fields: list[bytes]) -> tuple[bytes, int]:
        return self.connections.ask(kind, fields, self.settings.timeout_s)

    def _told(self, inner: bool, kind: int, texts: list[str], state: bytes, attributes: bytes) -> Any:
        reply = [("Reply-Message", "+=", quoted(text.encode())) for text in texts]
        if kind == ACCEPT:
            return radiusd.RLM_MODULE_OK, {"reply": (*reply, *self.dictionary.pairs(attributes))}
        if kind == REJECT:
            return radiusd.RLM_MODULE_REJECT, {"reply": tuple(reply)}
        if kind == CHALLENGE and not inner:
            signature = ("Message-Authenticator", "=", "0x00")
            question = (signature, ("State", ":=", "0x" + state.hex()), *reply)
            code = (("Response-Packet-Type", ":=", "Access-Challenge"),)
            return radiusd.RLM_MODULE_HANDLED, {"reply": question, "config": code}
        if kind == CHALLENGE:
            raise Trouble("protocol", "mfad asked a question inside a tunnel, where none can be asked")
        return _silence()

    def _fail(self, inner: bool, trouble: Trouble) -> Any:
        if trouble.kind in ("protocol", "hung_up"):
            self.connections.drop()
        self.remark(trouble)
        if self.settings.silent and not inner:
            return _silence()
        return radiusd.RLM_MODULE_FAIL


def _silence() -> Any:
    return radiusd.RLM_MODULE_FAIL, {"config": (("Response-Packet-Type", ":=", "Do-Not-Respond"),)}


def _log(text: str) -> None:
    radiusd.radlog(radiusd.L_ERR, "mfad: " + text.replace("%", "%%"))


_plugin: Plugin | None = None


def instantiate(_: object) -> int:
    """Called once, before the first request."""
    global _plugin
    try:
        _plugin = Plugin(getattr(radiusd, "config", {}) or {})
    except Trouble as trouble:
        _log(str(trouble))
        return -1
    return 0


def authenticate(pairs: Pairs) -> Any:
    """Called for each login, with the attributes of the request."""
    return _outermost(pairs, "authenticate")


def accounting(pairs: Pairs) -> Any:
    """Called for each accounting record."""
    return _outermost(pairs, "accounting")


def _outermost(pairs: Pairs, what: str) -> Any:
    """Nothing but a word about the kind of a mistake goes out: a traceback could carry a password to the log."""
    if _plugin is None:
        return radiusd.RLM_MODULE_FAIL
    try:
        return getattr(_plugin, what)(pairs or ())
    except Exception as error:  # noqa: BLE001  the outermost frame of one request
        _plugin.remark(Trouble("mistake", f"a mistake in this module: {type(error).__name__}"))
        return radiusd.RLM_MODULE_FAIL
