"""What do the octets of a RADIUS packet say? (RFC 2865 sections 3 and 5, RFC 2866, 2869, 3579, 5997)

Room rule: everything that knows an offset, a number or a limit of the framing lives here, both ways, sans-IO: octets become a
packet or are refused as a whole, values become octets. This file knows no secret, so it cannot tell who wrote a packet
(authenticators.py does), and it does not judge whether a packet makes sense.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterator
from typing import Final

from mfa_core.errors import MfaError, PeerProtocolError

HEADER_SIZE = 20
PACKET_MAX = 4096
"""Octets of a packet (RFC 2865 section 3)."""
VALUE_MAX = 253
"""Octets of an attribute's value: one octet of length counts itself and the type."""
VENDOR_VALUE_MAX = 247
AUTHENTICATOR_SIZE = 16
MAX_ATTRIBUTES = 200
"""FreeRADIUS's bound: a login has about 20, and 2,038 empty ones fit into a packet."""

_U32 = struct.Struct(">I")
_HEADER = struct.Struct(">BBH16s")


class Code(enum.IntEnum):
    """The first octet (RFC 2865 section 4, RFC 2866 section 4, RFC 5997 section 3)."""

    ACCESS_REQUEST = 1
    ACCESS_ACCEPT = 2
    ACCESS_REJECT = 3
    ACCOUNTING_REQUEST = 4
    ACCOUNTING_RESPONSE = 5
    ACCESS_CHALLENGE = 11
    STATUS_SERVER = 12


class Type(enum.IntEnum):
    """The attribute types that this door reads or writes by itself; policies may give any other."""

    USER_NAME = 1
    USER_PASSWORD = 2
    CHAP_PASSWORD = 3
    NAS_IP_ADDRESS = 4
    NAS_PORT = 5
    SERVICE_TYPE = 6
    FILTER_ID = 11
    REPLY_MESSAGE = 18
    STATE = 24
    CLASS = 25
    VENDOR_SPECIFIC = 26
    SESSION_TIMEOUT = 27
    CALLED_STATION_ID = 30
    CALLING_STATION_ID = 31
    NAS_IDENTIFIER = 32
    PROXY_STATE = 33
    ACCT_STATUS_TYPE = 40
    ACCT_DELAY_TIME = 41
    ACCT_INPUT_OCTETS = 42
    ACCT_OUTPUT_OCTETS = 43
    ACCT_SESSION_ID = 44
    ACCT_SESSION_TIME = 46
    ACCT_TERMINATE_CAUSE = 49
    EVENT_TIMESTAMP = 55
    CHAP_CHALLENGE = 60
    NAS_PORT_TYPE = 61
    PROMPT = 76
    EAP_MESSAGE = 79
    MESSAGE_AUTHENTICATOR = 80
    NAS_PORT_ID = 87
    NAS_IPV6_ADDRESS = 95
    ERROR_CAUSE = 101


_VENDOR_SPECIFIC = 26
_PROXY_STATE = 33
_EAP_MESSAGE = 79
_MESSAGE_AUTHENTICATOR = 80
_MESSAGE_AUTHENTICATOR_SIZE = 18


class Flaw(enum.StrEnum):
    """Which rule of the framing was broken: stable words for counters, logs and tests."""

    TOO_SHORT = "too_short"
    """Fewer octets than a header has."""
    TOO_LONG = "too_long"
    LENGTH_BEYOND_DATAGRAM = "length_beyond_datagram"
    LENGTH_UNDER_HEADER = "length_under_header"
    ATTRIBUTE_ZERO = "attribute_zero"
    """Type 0, which nothing has."""
    ATTRIBUTE_LENGTH = "attribute_length"
    """An attribute of 0 or 1 octets: less than its own type and length."""
    ATTRIBUTE_OVERRUN = "attribute_overrun"
    """An attribute that ends after the packet."""
    TRAILING_OCTET = "trailing_octet"
    """One octet after the last attribute: a type without a length."""
    TOO_MANY_ATTRIBUTES = "too_many_attributes"
    MESSAGE_AUTHENTICATOR_LENGTH = "message_authenticator_length"
    SEVERAL_MESSAGE_AUTHENTICATORS = "several_message_authenticators"


class Malformed(PeerProtocolError):
    """The octets are no RADIUS packet: do not answer, count ``flaw``. The text quotes none of them."""

    def __init__(self, flaw: Flaw, detail: str) -> None:
        super().__init__(f"{flaw}: {detail}", cure="look for another program that sends to this port")
        self.flaw = flaw


class PacketTooLong(MfaError):
    """What was to be sent needs more than 4,096 octets: send less, or nothing."""


class Packet:
    """A packet whose framing is good. Nothing in it is believed yet, and nothing of it changes.

    Attributes are found by one walk and cut out when they are asked for. ``octets`` ends where Length says.
    ``message_authenticator_at`` is the offset of the sixteen octets in the Message-Authenticator, 0 where there is none.
    """

    __slots__ = ("_first", "_repeated", "authenticator", "code", "count", "identifier", "message_authenticator_at", "octets")

    def __init__(self, octets: bytes, first: dict[int, int], repeated: list[int], message_authenticator_at: int) -> None:
        self.octets: Final = octets
        self.code: Final = octets[0]
        self.identifier: Final = octets[1]
        self.authenticator: Final = octets[4:HEADER_SIZE]
        self.message_authenticator_at: Final = message_authenticator_at
        self.count: Final = len(first) + len(repeated)
        self._first: Final = first  # type -> offset of the first attribute of this type
        self._repeated: Final = repeated  # offsets of all others, in order

    def first(self, kind: int) -> bytes | None:
        """The value of the first attribute of this type."""
        at = self._first.get(kind)
        if at is None:
            return None
        octets = self.octets
        return octets[at + 2 : at + octets[at + 1]]

    def all(self, kind: int) -> list[bytes]:
        """The values of all attributes of this type, in order."""
        at = self._first.get(kind)
        if at is None:
            return []
        octets = self.octets
        values = [octets[at + 2 : at + octets[at + 1]]]
        if self._repeated:
            values += [octets[at + 2 : at + octets[at + 1]] for at in self._repeated if octets[at] == kind]
        return values

    def attributes(self) -> Iterator[tuple[int, bytes]]:
        """Type and value of every attribute, in the order of the packet."""
        octets = self.octets
        at = HEADER_SIZE
        while at < len(octets):
            after = at + octets[at + 1]
            yield octets[at], octets[at + 2 : after]
            at = after

    def __contains__(self, kind: int) -> bool:
        return kind in self._first

    @property
    def proxy_states(self) -> list[bytes]:
        """What each proxy on the way wants back (RFC 2865 section 5.33)."""
        return self.all(_PROXY_STATE)

    @property
    def has_eap(self) -> bool:
        """Whether EAP is carried: such a packet must be signed (RFC 3579 section 3.1)."""
        return _EAP_MESSAGE in self._first

    def vendor_all(self, vendor: int, kind: int) -> list[bytes]:
        """The values of a vendor's attribute, in order.

        A Vendor-Specific whose inside is not a row of (type, length, value), which RFC 2865 section 5.26 only recommends, holds
        nothing for us.
        """
        found = []
        number = _U32.pack(vendor)
        for value in self.all(_VENDOR_SPECIFIC):
            if value[:4] == number:
                found += _inside(value, kind)
        return found

    def vendor_first(self, vendor: int, kind: int) -> bytes | None:
        """The value of the first such attribute of this vendor; see :meth:`vendor_all`."""
        found = self.vendor_all(vendor, kind)
        return found[0] if found else None

    def __repr__(self) -> str:
        return f"Packet(code={self.code}, identifier={self.identifier}, {self.count} attributes, {len(self.octets)} octets)"


def _inside(value: bytes, kind: int) -> list[bytes]:
    """The vendor attributes of this type in one Vendor-Specific; none when any part of it is malformed."""
    found = []
    at, end = 4, len(value)
    while at < end:
        if at + 1 == end:
            return []
        after = at + value[at + 1]
        if after < at + 2 or after > end:
            return []
        if value[at] == kind:
            found.append(value[at + 2 : after])
        at = after
    return found


def packet_length(header: bytes) -> int:
    """How many octets the packet has that begins with these four or more: for streams (RFC 6613 section 2.6.4).

    Raises: Malformed, and then the stream cannot be followed any further.
    """
    if len(header) < 4:
        raise Malformed(Flaw.TOO_SHORT, f"{len(header)} octets, expected 4")
    length = header[2] << 8 | header[3]
    if length < HEADER_SIZE:
        raise Malformed(Flaw.LENGTH_UNDER_HEADER, f"Length is {length}, expected at least {HEADER_SIZE}")
    if length > PACKET_MAX:
        raise Malformed(Flaw.TOO_LONG, f"Length is {length}, expected at most {PACKET_MAX}")
    return length


def parse(datagram: bytes, *, max_attributes: int = MAX_ATTRIBUTES) -> Packet:
    """Read a datagram. What stands after Length is padding (RFC 2865 section 3).

    Raises: Malformed, and nothing else whatever the octets are.
    """
    size = len(datagram)
    if size < HEADER_SIZE:
        raise Malformed(Flaw.TOO_SHORT, f"{size} octets, expected at least {HEADER_SIZE}")
    end = datagram[2] << 8 | datagram[3]
    if end > PACKET_MAX or size > PACKET_MAX:
        raise Malformed(Flaw.TOO_LONG, f"{size} octets with Length {end}, expected at most {PACKET_MAX}")
    if end != size:
        if end > size:
            raise Malformed(Flaw.LENGTH_BEYOND_DATAGRAM, f"Length is {end}, and {size} octets came")
        if end < HEADER_SIZE:
            raise Malformed(Flaw.LENGTH_UNDER_HEADER, f"Length is {end}, expected at least {HEADER_SIZE}")
        datagram = datagram[:end]

    # This loop is the hot path of every packet, good or bad: offsets only, and one dict.
    first: dict[int, int] = {}
    repeated: list[int] = []
    at = HEADER_SIZE
    for _ in range(max_attributes):
        if at + 1 >= end:
            break
        length = datagram[at + 1]
        if length < 2:
            raise Malformed(Flaw.ATTRIBUTE_LENGTH, f"an attribute of {length} octets at offset {at}, expected at least 2")
        kind = datagram[at]
        if kind in first:
            repeated.append(at)
        else:
            first[kind] = at
        at += length
    if at != end:
        if at > end:
            raise Malformed(Flaw.ATTRIBUTE_OVERRUN, f"the last attribute ends at {at}, the packet at {end}")
        if at + 1 == end:
            raise Malformed(Flaw.TRAILING_OCTET, f"one octet after the last attribute, at offset {at}")
        raise Malformed(Flaw.TOO_MANY_ATTRIBUTES, f"more than {max_attributes} attributes")
    if 0 in first:
        raise Malformed(Flaw.ATTRIBUTE_ZERO, f"an attribute of type 0 at offset {first[0]}")
    signature = first.get(_MESSAGE_AUTHENTICATOR, 0)
    if signature:
        if datagram[signature + 1] != _MESSAGE_AUTHENTICATOR_SIZE:
            raise Malformed(
                Flaw.MESSAGE_AUTHENTICATOR_LENGTH,
                f"a Message-Authenticator of {datagram[signature + 1]} octets, expected {_MESSAGE_AUTHENTICATOR_SIZE}",
            )
        for other in repeated:
            if datagram[other] == _MESSAGE_AUTHENTICATOR:
                raise Malformed(Flaw.SEVERAL_MESSAGE_AUTHENTICATORS, f"a second Message-Authenticator at offset {other}")
        signature += 2
    return Packet(datagram, first, repeated, signature)


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute (RFC 2865 section 5).

    Raises: ValueError for a type or a length that the wire does not carry: a mistake of ours, not of a peer.
    """
    if not 1 <= kind <= 255 or len(value) > VALUE_MAX:
        raise ValueError(f"attribute {kind} with {len(value)} octets, expected type 1 to 255 and at most {VALUE_MAX} octets")
    return bytes((kind, len(value) + 2)) + value


def integer_attribute(kind: int, number: int) -> bytes:
    """One attribute that is a number of 32 bits. Raises: ValueError."""
    if not 0 <= number <= 0xFFFF_FFFF:
        raise ValueError(f"attribute {kind} with {number}, expected 0 to 4294967295")
    return attribute(kind, _U32.pack(number))


def text_attributes(kind: int, text: str) -> bytes:
    """A text, in as many attributes as it needs: clients join Reply-Messages in order (RFC 2865 section 5.18).

    No character is cut in two (UTF-8, RFC 3629), what UTF-8 cannot carry becomes "?", and an empty text needs no attribute:
    an empty value must not be sent. Raises: ValueError for a type that the wire does not carry.
    """
    octets = text.encode("utf-8", "replace")
    pieces = []
    at = 0
    while at < len(octets):
        after = at + VALUE_MAX
        if after < len(octets):
            while octets[after] & 0xC0 == 0x80:  # the middle of a character
                after -= 1
        pieces.append(attribute(kind, octets[at:after]))
        at = after
    return b"".join(pieces)


def vendor_attribute(vendor: int, kind: int, value: bytes) -> bytes:
    """One attribute of a vendor in a Vendor-Specific of its own (RFC 2865 section 5.26). Raises: ValueError."""
    if not 0 <= vendor <= 0xFFFF_FFFF or not 0 <= kind <= 255 or len(value) > VENDOR_VALUE_MAX:
        raise ValueError(f"attribute {kind} of vendor {vendor} with {len(value)} octets, expected at most {VENDOR_VALUE_MAX}")
    return attribute(_VENDOR_SPECIFIC, _U32.pack(vendor) + bytes((kind, len(value) + 2)) + value)


def frame(code: int, identifier: int, authenticator: bytes, attributes: bytes = b"") -> bytes:
    """A packet as it is; authenticators.py makes those that a peer believes.

    Raises:
        PacketTooLong: more than 4,096 octets.
        ValueError: a header field that the wire does not carry.
    """
    length = HEADER_SIZE + len(attributes)
    if length > PACKET_MAX:
        raise PacketTooLong(
            f"a packet of {length} octets, at most {PACKET_MAX} can be sent", cure="give fewer reply attributes"
        )
    if not 0 <= code <= 255 or not 0 <= identifier <= 255 or len(authenticator) != AUTHENTICATOR_SIZE:
        raise ValueError(f"code {code}, identifier {identifier}, an authenticator of {len(authenticator)} octets")
    return _HEADER.pack(code, identifier, length, authenticator) + attributes
