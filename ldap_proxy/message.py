"""What do the few messages say that the door reads or writes itself? (RFC 4511 section 4)

Room rule: octets of a whole message become a value or are refused as a whole, values become octets in the one canonical form;
sans-IO. This file knows the shapes of operations and decides nothing: which result code, which control, which operation may
pass stands elsewhere. Controls are kept as the octets they came in, with their own tag and length, because whoever rebuilds a
message puts them back **inside** its SEQUENCE.

The directory must read a bind exactly as the door does, so a request that is not fully accounted for is refused. In what the
directory answers, elements that nobody knows are passed over where RFC 4511 section 4 (extensibility) lets them stand.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable
from typing import Final, NamedTuple, NewType

from ldap_proxy.ber import MESSAGE_ID_MAX, Malformed, element, expect, head, integer, integer_octets, length_octets, wrapped
from mfa_core.secret import Secret

BIND_REQUEST: Final = 0x60
BIND_RESPONSE: Final = 0x61
UNBIND_REQUEST: Final = 0x42
SEARCH_REQUEST: Final = 0x63
SEARCH_ENTRY: Final = 0x64
SEARCH_DONE: Final = 0x65
SEARCH_REFERENCE: Final = 0x73
MODIFY_REQUEST: Final = 0x66
MODIFY_RESPONSE: Final = 0x67
ADD_REQUEST: Final = 0x68
ADD_RESPONSE: Final = 0x69
DELETE_REQUEST: Final = 0x4A
DELETE_RESPONSE: Final = 0x6B
MODIFY_DN_REQUEST: Final = 0x6C
MODIFY_DN_RESPONSE: Final = 0x6D
COMPARE_REQUEST: Final = 0x6E
COMPARE_RESPONSE: Final = 0x6F
ABANDON_REQUEST: Final = 0x50
EXTENDED_REQUEST: Final = 0x77
EXTENDED_RESPONSE: Final = 0x78
INTERMEDIATE_RESPONSE: Final = 0x79

FINAL: Final = {
    BIND_REQUEST: BIND_RESPONSE,
    SEARCH_REQUEST: SEARCH_DONE,
    MODIFY_REQUEST: MODIFY_RESPONSE,
    ADD_REQUEST: ADD_RESPONSE,
    DELETE_REQUEST: DELETE_RESPONSE,
    MODIFY_DN_REQUEST: MODIFY_DN_RESPONSE,
    COMPARE_REQUEST: COMPARE_RESPONSE,
    EXTENDED_REQUEST: EXTENDED_RESPONSE,
}
"""The response that ends each operation; Unbind and Abandon have none."""
REQUESTS: Final = frozenset(FINAL) | {UNBIND_REQUEST, ABANDON_REQUEST}
"""What a client may send."""
RESPONSES: Final = frozenset(FINAL.values()) | {SEARCH_ENTRY, SEARCH_REFERENCE, INTERMEDIATE_RESPONSE}
"""What a directory may send."""

NOTICE_OF_DISCONNECTION: Final = "1.3.6.1.4.1.1466.20036"
START_TLS: Final = "1.3.6.1.4.1.1466.20037"
WHO_AM_I: Final = "1.3.6.1.4.1.4203.1.11.3"

MAX_CONTROLS: Final = 100
"""Of one message. Clients send a handful; half a million empty ones fit into a message of 4 MB."""
_OID_MAX: Final = 256
_NUMERIC_OID: Final = re.compile(rb"(?:0|[1-9][0-9]*)(?:\.(?:0|[1-9][0-9]*))+")  # RFC 4512 section 1.4
_MECHANISM: Final = re.compile(rb"[A-Za-z0-9_-]{1,20}")  # RFC 4422 section 3.1, and small letters, which servers take
_ATTRIBUTE: Final = re.compile(  # RFC 4512 section 2.5, and the "_" and "=" that Active Directory has in names and options
    rb"(?:[A-Za-z][A-Za-z0-9_-]*|(?:0|[1-9][0-9]*)(?:\.(?:0|[1-9][0-9]*))+)(?:;[A-Za-z0-9_=-]+)*"
)
_FINAL_TAGS: Final = frozenset(FINAL.values())
_VERSION_3: Final = b"\x02\x01\x03"


class ResultCode(enum.IntEnum):
    """RFC 4511 appendix A.1, and RFC 4370's. A directory may send others; they are numbers here."""

    SUCCESS = 0
    OPERATIONS_ERROR = 1
    PROTOCOL_ERROR = 2
    TIME_LIMIT_EXCEEDED = 3
    SIZE_LIMIT_EXCEEDED = 4
    COMPARE_FALSE = 5
    COMPARE_TRUE = 6
    AUTH_METHOD_NOT_SUPPORTED = 7
    STRONGER_AUTH_REQUIRED = 8
    REFERRAL = 10
    ADMIN_LIMIT_EXCEEDED = 11
    UNAVAILABLE_CRITICAL_EXTENSION = 12
    CONFIDENTIALITY_REQUIRED = 13
    SASL_BIND_IN_PROGRESS = 14
    NO_SUCH_ATTRIBUTE = 16
    UNDEFINED_ATTRIBUTE_TYPE = 17
    INAPPROPRIATE_MATCHING = 18
    CONSTRAINT_VIOLATION = 19
    ATTRIBUTE_OR_VALUE_EXISTS = 20
    INVALID_ATTRIBUTE_SYNTAX = 21
    NO_SUCH_OBJECT = 32
    ALIAS_PROBLEM = 33
    INVALID_DN_SYNTAX = 34
    ALIAS_DEREFERENCING_PROBLEM = 36
    INAPPROPRIATE_AUTHENTICATION = 48
    INVALID_CREDENTIALS = 49
    INSUFFICIENT_ACCESS_RIGHTS = 50
    BUSY = 51
    UNAVAILABLE = 52
    UNWILLING_TO_PERFORM = 53
    LOOP_DETECT = 54
    NAMING_VIOLATION = 64
    OBJECT_CLASS_VIOLATION = 65
    NOT_ALLOWED_ON_NON_LEAF = 66
    NOT_ALLOWED_ON_RDN = 67
    ENTRY_ALREADY_EXISTS = 68
    OBJECT_CLASS_MODS_PROHIBITED = 69
    AFFECTS_MULTIPLE_DSAS = 71
    OTHER = 80
    AUTHORIZATION_DENIED = 123


class Scope(enum.IntEnum):
    """How deep a search goes (RFC 4511 section 4.5.1.2)."""

    BASE = 0
    ONE_LEVEL = 1
    SUBTREE = 2


class BindRequest(NamedTuple):
    """RFC 4511 section 4.2. ``name`` is as the client wrote it; ``controls`` are their element, or empty.

    ``password`` is that of a simple bind. When it is None, ``mechanism`` names that of SASL. An empty mechanism is one that
    nobody may support (section 4.2.1), and stands too for what is no name of a mechanism and for a choice of authentication
    that we do not know: all are to be answered authMethodNotSupported.
    """

    message_id: int
    version: int
    name: bytes
    password: Secret | None
    mechanism: str = ""
    credentials: Secret | None = None
    controls: bytes = b""


class Result(NamedTuple):
    """An LDAPResult and what came with it (RFC 4511 section 4.1.9). ``tag`` is that of the response.

    ``oid`` and ``value`` are the responseName and responseValue of an extended response, ``sasl`` the serverSaslCreds of a
    bind's.
    """

    message_id: int
    tag: int
    code: int
    matched: bytes = b""
    diagnostic: bytes = b""
    controls: bytes = b""
    oid: bytes = b""
    value: bytes | None = None
    sasl: bytes | None = None


Filter = NewType("Filter", bytes)
"""A search filter as octets: made by :func:`present`, :func:`equal`, :func:`all_of` and :func:`any_of`."""


# -- reading ------------------------------------------------------------------------------------------------------------------


def _opened(pdu: bytes, tag: int) -> tuple[int, int, int]:
    """Message ID, first octet and end of the content of the operation, of a message that is whole and of this kind.

    Raises: Malformed.
    """
    found = head(pdu, 0, len(pdu))
    if found is None or found[0] != len(pdu):
        raise Malformed(f"{len(pdu)} octets, expected one whole message")
    _, message_id, kind, start, end = found
    if kind != tag:
        raise Malformed(f"a message with the operation 0x{kind:02x}, expected 0x{tag:02x}")
    return message_id, start, end


def parse_bind(pdu: bytes) -> BindRequest:
    """Read a BindRequest. Its version may be any number: the session answers protocolError. Raises: Malformed."""
    message_id, at, end = _opened(pdu, BIND_REQUEST)
    # The shape that all clients send, by hand; whatever else there is takes the longer way, which says the same.
    if pdu[at : at + 4] == b"\x02\x01\x03\x04" and at + 5 < end and pdu[at + 4] < 0x80:
        name_at = at + 5
        at = name_at + pdu[at + 4]
        if at + 1 < end and pdu[at] == 0x80 and pdu[at + 1] < 0x80 and at + 2 + pdu[at + 1] == end:
            return BindRequest(message_id, 3, pdu[name_at:at], Secret(pdu[at + 2 : end]), "", None, pdu[end:])
        at = name_at - 5

    start, at = expect(pdu, at, end, 0x02)
    version = integer(pdu, start, at)
    name_at, name_end = expect(pdu, at, end, 0x04)
    choice, start, at = element(pdu, name_end, end)
    if at != end:
        raise Malformed(f"{end - at} octets after the authentication of a bind")
    name, controls = pdu[name_at:name_end], pdu[end:]
    if choice == 0x80:
        return BindRequest(message_id, version, name, Secret(pdu[start:end]), controls=controls)
    if choice != 0xA3:
        if choice & 0xC0 != 0x80:
            raise Malformed(f"an authentication with the tag 0x{choice:02x}, expected one of its context")
        return BindRequest(message_id, version, name, None, controls=controls)
    start, at = expect(pdu, start, end, 0x04)
    mechanism = pdu[start:at].decode("ascii") if _MECHANISM.fullmatch(pdu, start, at) else ""
    credentials = None
    if at != end:
        start, at = expect(pdu, at, end, 0x04)
        credentials = Secret(pdu[start:at])
    if at != end:
        raise Malformed(f"{end - at} octets after the credentials of a bind")
    return BindRequest(message_id, version, name, None, mechanism, credentials, controls)


def parse_result(pdu: bytes) -> Result:
    """Read any response that carries an LDAPResult: all but entries, references and intermediate ones. Raises: Malformed."""
    found = head(pdu, 0, len(pdu))
    if found is None or found[0] != len(pdu):
        raise Malformed(f"{len(pdu)} octets, expected one whole message")
    _, message_id, tag, at, end = found
    if tag not in _FINAL_TAGS:
        raise Malformed(f"a message with the operation 0x{tag:02x}, expected one with a result")
    if end - at == 7 and pdu[at : at + 2] == b"\x0a\x01" and pdu[at + 2] < 0x80 and pdu[at + 3 : end] == b"\x04\x00\x04\x00":
        return Result(message_id, tag, pdu[at + 2], b"", b"", pdu[end:])  # what nearly all of them look like
    start, at = expect(pdu, at, end, 0x0A)
    code = integer(pdu, start, at)
    if code < 0:
        raise Malformed("a result code below 0")
    start, at = expect(pdu, at, end, 0x04)
    matched = pdu[start:at]
    start, at = expect(pdu, at, end, 0x04)
    diagnostic = pdu[start:at]

    controls, oid, value, sasl = pdu[end:], b"", None, None
    seen = 0xA2  # the tags below rise: [3] referral, [7] serverSaslCreds, [10] responseName, [11] responseValue
    while at < end:
        part, start, at = element(pdu, at, end)
        if part & 0xC0 != 0x80 or part & 0x1F <= seen & 0x1F:
            raise Malformed(f"an element with the tag 0x{part:02x} after one with 0x{seen:02x} in a result")
        seen = part
        if part == 0x87 and tag == BIND_RESPONSE:
            sasl = pdu[start:at]
        elif part == 0x8A and tag == EXTENDED_RESPONSE:
            oid = pdu[start:at]
        elif part == 0x8B and tag == EXTENDED_RESPONSE:
            value = pdu[start:at]
    if controls[:1] == b"\x8a":  # Active Directory's Notice of Disconnection; ber.head lets it pass nowhere else
        start, at = expect(controls, 0, len(controls), 0x8A)
        controls, oid = b"", oid or controls[start:at]
    return Result(message_id, tag, code, matched, diagnostic, controls, oid, value, sasl)


def extended_oid(pdu: bytes) -> str:
    """Which operation an ExtendedRequest asks for (RFC 4511 section 4.12). Raises: Malformed."""
    _, at, end = _opened(pdu, EXTENDED_REQUEST)
    start, at = expect(pdu, at, end, 0x80)
    oid = _oid(pdu[start:at])
    if at != end:
        _, at = expect(pdu, at, end, 0x81)
    if at != end:
        raise Malformed(f"{end - at} octets after the value of an extended request")
    return oid


def control_oids(controls: bytes) -> tuple[tuple[str, bool], ...]:
    """Type and criticality of each control (RFC 4511 section 4.1.11), of their element as a message holds it.

    Raises: Malformed, also for more than MAX_CONTROLS.
    """
    if not controls:
        return ()
    at, end = expect(controls, 0, len(controls), 0xA0)
    if end != len(controls):
        raise Malformed(f"{len(controls) - end} octets after the controls")
    found: list[tuple[str, bool]] = []
    while at < end:
        if len(found) == MAX_CONTROLS:
            raise Malformed(f"more than {MAX_CONTROLS} controls")
        inner, at = expect(controls, at, end, 0x30)
        start, inner = expect(controls, inner, at, 0x04)
        oid = _oid(controls[start:inner])
        critical = False
        if inner < at and controls[inner] == 0x01:
            start, inner = expect(controls, inner, at, 0x01)
            if inner - start != 1:
                raise Malformed(f"a criticality of {inner - start} octets, expected 1")
            critical = controls[start] != 0
        if inner < at:
            _, inner = expect(controls, inner, at, 0x04)
        if inner != at:
            raise Malformed(f"{at - inner} octets after the value of a control")
        found.append((oid, critical))
    return tuple(found)


def compare_attribute(pdu: bytes) -> str:
    """The attribute description that a CompareRequest names, as it is written (RFC 4511 section 4.10).

    Raises: Malformed, also for what is no description: a directory that passes over a blank must not find a name we missed.
    """
    _, at, end = _opened(pdu, COMPARE_REQUEST)
    _, at = expect(pdu, at, end, 0x04)
    inner, at = expect(pdu, at, end, 0x30)
    if at != end:
        raise Malformed(f"{end - at} octets after the assertion of a compare")
    start, inner = expect(pdu, inner, end, 0x04)
    description = pdu[start:inner]
    _, inner = expect(pdu, inner, end, 0x04)
    if inner != end:
        raise Malformed(f"{end - inner} octets after the value of a compare")
    if _ATTRIBUTE.fullmatch(description) is None:
        raise Malformed(f"an attribute description of {len(description)} octets that is not as RFC 4512 has it")
    return description.decode("ascii")


def abandoned(pdu: bytes) -> int:
    """The message ID that an AbandonRequest names (RFC 4511 section 4.11). Raises: Malformed."""
    _, start, end = _opened(pdu, ABANDON_REQUEST)
    message_id = integer(pdu, start, end)
    if message_id < 0:
        raise Malformed("a message ID below 0")
    return message_id


def parse_entry(pdu: bytes) -> tuple[bytes, dict[str, list[bytes]]]:
    """Name and attributes of a SearchResultEntry (RFC 4511 section 4.5.2); descriptions in small letters. Raises: Malformed."""
    _, at, end = _opened(pdu, SEARCH_ENTRY)
    start, at = expect(pdu, at, end, 0x04)
    name = pdu[start:at]
    at, stop = expect(pdu, at, end, 0x30)
    attributes: dict[str, list[bytes]] = {}
    while at < stop:
        inner, at = expect(pdu, at, stop, 0x30)
        start, inner = expect(pdu, inner, at, 0x04)
        try:
            description = pdu[start:inner].decode("ascii").lower()
        except UnicodeDecodeError:
            raise Malformed("an attribute description that is not ASCII") from None
        values = attributes.setdefault(description, [])
        inner, after = expect(pdu, inner, at, 0x31)
        if after != at:
            raise Malformed(f"{at - after} octets after the values of an attribute")
        while inner < at:
            start, inner = expect(pdu, inner, at, 0x04)
            values.append(pdu[start:inner])
    if at != end:
        raise Malformed(f"{end - at} octets after the attributes of an entry")
    return name, attributes


def _oid(octets: bytes) -> str:
    """An LDAPOID. Only the one spelling without leading zeros is taken: nobody may read "01.2" as another one's name."""
    if len(octets) > _OID_MAX or _NUMERIC_OID.fullmatch(octets) is None:
        raise Malformed(f"an object identifier of {len(octets)} octets that is not dotted numbers")
    return octets.decode("ascii")


# -- writing ------------------------------------------------------------------------------------------------------------------


def message(message_id: int, tag: int, content: bytes, controls: bytes = b"") -> bytes:
    """A whole message, with the element ``controls`` inside it."""
    if not 0 <= message_id <= MESSAGE_ID_MAX:
        raise ValueError(f"the message ID {message_id}, expected 0 to {MESSAGE_ID_MAX}")
    return wrapped(0x30, integer_octets(message_id) + wrapped(tag, content) + controls)


def build_bind(message_id: int, name: bytes, password: bytes, controls: bytes = b"") -> bytes:
    """A simple bind of version 3."""
    names, passwords, more = len(name), len(password), len(controls)
    length = 7 + names + passwords
    if length + more < 0x78 and 0 <= message_id < 0x80:  # each length is one octet: the same as below, in one piece
        opening = bytes((0x30, length + more + 5, 2, 1, message_id, BIND_REQUEST, length, 2, 1, 3, 4, names))
        return b"%b%b\x80%c%b%b" % (opening, name, passwords, password, controls)
    content = b"".join((_VERSION_3, b"\x04", length_octets(names), name, b"\x80", length_octets(passwords), password))
    return message(message_id, BIND_REQUEST, content, controls)


def build_sasl_bind(
    message_id: int, name: bytes, mechanism: str, credentials: bytes | None = None, controls: bytes = b""
) -> bytes:
    """A bind of version 3 by a SASL mechanism."""
    sasl = wrapped(0x04, mechanism.encode("ascii"))
    if credentials is not None:
        sasl += wrapped(0x04, credentials)
    return message(message_id, BIND_REQUEST, _VERSION_3 + wrapped(0x04, name) + wrapped(0xA3, sasl), controls)


def build_unbind(message_id: int) -> bytes:
    """An Unbind."""
    return message(message_id, UNBIND_REQUEST, b"")


def build_abandon(message_id: int, abandoned_id: int) -> bytes:
    """An Abandon of the operation with the other message ID."""
    if not 0 <= abandoned_id <= MESSAGE_ID_MAX:
        raise ValueError(f"the message ID {abandoned_id}, expected 0 to {MESSAGE_ID_MAX}")
    return message(message_id, ABANDON_REQUEST, integer_octets(abandoned_id)[2:])


def build_extended_request(message_id: int, oid: str, value: bytes | None = None, controls: bytes = b"") -> bytes:
    """An extended operation."""
    content = wrapped(0x80, oid.encode("ascii"))
    if value is not None:
        content += wrapped(0x81, value)
    return message(message_id, EXTENDED_REQUEST, content, controls)


def _result(code: int, diagnostic: str, matched: bytes = b"") -> bytes:
    """The components of an LDAPResult. What UTF-8 cannot carry becomes "?"."""
    return integer_octets(code, 0x0A) + wrapped(0x04, matched) + wrapped(0x04, diagnostic.encode("utf-8", "replace"))


def build_result(
    message_id: int, tag: int, code: int, diagnostic: str = "", *, matched: bytes = b"", controls: bytes = b""
) -> bytes:
    """A response with no more than a result in it; ``tag`` is that of the response."""
    return message(message_id, tag, _result(code, diagnostic, matched), controls)


def build_extended_response(
    message_id: int, code: int, diagnostic: str = "", *, oid: str = "", value: bytes | None = None, controls: bytes = b""
) -> bytes:
    """The response to an extended operation."""
    content = _result(code, diagnostic)
    if oid:
        content += wrapped(0x8A, oid.encode("ascii"))
    if value is not None:
        content += wrapped(0x8B, value)
    return message(message_id, EXTENDED_RESPONSE, content, controls)


def notice_of_disconnection(code: int, text: str = "") -> bytes:
    """The last that a client hears (RFC 4511 section 4.4.1)."""
    return build_extended_response(0, code, text, oid=NOTICE_OF_DISCONNECTION)


def present(attribute: str) -> Filter:
    """Entries that have the attribute."""
    return Filter(wrapped(0x87, attribute.encode("ascii")))


def equal(attribute: str, value: bytes) -> Filter:
    """Entries in which the attribute has the value, as its own rule compares."""
    return Filter(wrapped(0xA3, wrapped(0x04, attribute.encode("ascii")) + wrapped(0x04, value)))


def all_of(*filters: Filter) -> Filter:
    """Entries that fit each of them."""
    return Filter(wrapped(0xA0, b"".join(filters)))


def any_of(*filters: Filter) -> Filter:
    """Entries that fit one of them."""
    return Filter(wrapped(0xA1, b"".join(filters)))


def build_search(
    message_id: int,
    base: bytes,
    scope: int,
    filter: Filter,  # noqa: A002  the word of RFC 4511
    attributes: Iterable[str] = (),
    *,
    size_limit: int = 0,
    time_limit_s: int = 0,
    controls: bytes = b"",
) -> bytes:
    """A search (RFC 4511 section 4.5.1) that follows no alias. Limits of 0 are none; no attributes means all."""
    content = (
        wrapped(0x04, base)
        + integer_octets(scope, 0x0A)
        + b"\x0a\x01\x00"  # neverDerefAliases
        + integer_octets(size_limit)
        + integer_octets(time_limit_s)
        + b"\x01\x01\x00"  # typesOnly: no
        + filter
        + wrapped(0x30, b"".join(wrapped(0x04, attribute.encode("ascii")) for attribute in attributes))
    )
    return message(message_id, SEARCH_REQUEST, content, controls)
