"""Where does one LDAP message end, and what is in it? (RFC 4511 section 5.1, X.690)

Room rule: everything that knows how tags, lengths and integers look in BER lives here, both ways, sans-IO. This file knows the
envelope that all messages have, and no operation (message.py does). Nothing is ever taken apart to its depth: a filter nested
eight thousand times is a length here, and nothing recurses.

The same :func:`head` frames what clients send and what the directory answers. Two programs that do not agree where a message
ends see different messages, and then a bind can hide from one of them: so what is not exactly as the RFC has it is refused,
except that lengths may be longer than they need be, as every directory reads (and Active Directory writes) them.
"""

from __future__ import annotations

import struct
from typing import Final

from mfa_core.errors import PeerProtocolError

Buffer = bytes | bytearray | memoryview

MESSAGE_ID_MAX: Final = 0x7FFF_FFFF
"""maxInt (RFC 4511 section 4.1.1)."""

_SEQUENCE: Final = 0x30
_INTEGER: Final = 0x02
_CONTROLS: Final = 0xA0
_RESPONSE_NAME: Final = 0x8A
_EXTENDED_RESPONSE: Final = 0x78
_MULTI_OCTET_TAG: Final = 0x1F
_LENGTH_OF_4_AND_ID: Final = struct.Struct(">IBBB").unpack_from
_LENGTH_OF_2_AND_ID: Final = struct.Struct(">HBBB").unpack_from
_LENGTH_OF_4: Final = struct.Struct(">I").unpack_from
_MESSAGE_MIN: Final = 5
"""Octets in the smallest message: an INTEGER of three and an operation of two (an Unbind)."""


class Malformed(PeerProtocolError):
    """The octets are no LDAP message, and where the next one begins is not known: say so and close. The text quotes none."""

    def __init__(self, text: str) -> None:
        super().__init__(text, cure="look for a client that does not speak LDAP to this port")
        self.text: Final = text


class TooLarge(Malformed):
    """A message says that it is longer than it may be: say so and close."""


Head = tuple[int, int, int, int, int]
"""``(end, message_id, tag, op_start, op_end)``, see :func:`head`."""


def head(buffer: Buffer, start: int, limit: int) -> Head | None:
    """Where the message at ``start`` ends and what it is: ``(end, message_id, tag, op_start, op_end)``, offsets in ``buffer``.

    ``tag`` is the tag of the operation, ``op_start`` the first octet of its content; from ``op_end`` to ``end`` stand the
    controls with their own tag and length, or nothing. ``end`` and ``op_end`` may lie beyond what has come so far. None: more
    octets are needed to know.

    Raises, as soon as the octets show it:
        TooLarge: the message has more than ``limit`` octets.
        Malformed: it is no message.
    """
    # Every message of both directions comes through here: index arithmetic, no slices, and a try costs nothing until it
    # catches. Whatever is unusual, wrong or cut short is left to the careful reading, which says the same of all others.
    try:
        length = buffer[start + 1]
        if length < 0x80:
            end = start + 2 + length
            kind = buffer[start + 2]
            octets = buffer[start + 3]
            message_id = buffer[start + 4]
            at = start + 5
        elif length == 0x84:
            length, kind, octets, message_id = _LENGTH_OF_4_AND_ID(buffer, start + 2)
            end = start + 6 + length
            at = start + 9
        elif length == 0x82:
            length, kind, octets, message_id = _LENGTH_OF_2_AND_ID(buffer, start + 2)
            end = start + 4 + length
            at = start + 7
        elif length == 0x81:
            end = start + 3 + buffer[start + 2]
            kind = buffer[start + 3]
            octets = buffer[start + 4]
            message_id = buffer[start + 5]
            at = start + 6
        else:
            return _head_carefully(buffer, start, limit)

        if kind != 0x02 or message_id >= 0x80 or end - start > limit or buffer[start] != 0x30:
            return _head_carefully(buffer, start, limit)
        if octets == 2:
            message_id = message_id << 8 | buffer[at]
            at += 1
        elif octets == 3:
            message_id = message_id << 16 | buffer[at] << 8 | buffer[at + 1]
            at += 2
        elif octets == 4:
            message_id = message_id << 24 | buffer[at] << 16 | buffer[at + 1] << 8 | buffer[at + 2]
            at += 3
        elif octets != 1:
            return _head_carefully(buffer, start, limit)

        tag = buffer[at]
        length = buffer[at + 1]
        if length < 0x80:
            at += 2
        elif length == 0x84:
            (length,) = _LENGTH_OF_4(buffer, at + 2)
            at += 6
        elif length == 0x82:
            length = buffer[at + 2] << 8 | buffer[at + 3]
            at += 4
        elif length == 0x81:
            length = buffer[at + 2]
            at += 3
        else:
            return _head_carefully(buffer, start, limit)
        op_end = at + length
        if tag & 0x1F == 0x1F:
            return _head_carefully(buffer, start, limit)
        if op_end != end:
            length = end - op_end - 2
            if not 0 <= length < 0x80 or buffer[op_end] != 0xA0 or buffer[op_end + 1] != length:
                return _head_carefully(buffer, start, limit)
    except (IndexError, struct.error):
        return _head_carefully(buffer, start, limit)
    return end, message_id, tag, at, op_end


def _head_carefully(buffer: Buffer, start: int, limit: int) -> Head | None:
    """What :func:`head` says, with a look at every octet before the next: for what is unusual, wrong or not complete."""
    size = len(buffer)
    if start >= size:
        return None
    if buffer[start] != _SEQUENCE:
        raise Malformed(f"a message that begins with 0x{buffer[start]:02x}, expected 0x30")
    measured = _length(buffer, start + 1, size)
    if measured is None:
        return None
    length, at = measured
    end = at + length
    if end - start > limit:
        raise TooLarge(f"a message of {end - start} octets, expected at most {limit}")
    if length < _MESSAGE_MIN:
        raise Malformed(f"a message with {length} octets in it, expected at least {_MESSAGE_MIN}")

    seen = min(size, end)  # what is beyond the end belongs to the next message, and says nothing of this one
    if at >= seen:
        return None
    if buffer[at] != _INTEGER:
        raise Malformed(f"a message ID with the tag 0x{buffer[at]:02x}, expected 0x02")
    measured = _length(buffer, at + 1, seen)
    if measured is None:
        _may_come(seen, end, "message ID")
        return None
    length, at = measured
    if not 1 <= length <= 4:
        raise Malformed(f"a message ID of {length} octets, expected 1 to 4")
    if at < seen and buffer[at] >= 0x80:
        raise Malformed("a message ID below 0")
    if at + length >= end:
        raise Malformed("a message without an operation")
    if at + length >= seen:
        return None
    message_id = int.from_bytes(buffer[at : at + length], "big")
    at += length

    tag = buffer[at]
    if tag & _MULTI_OCTET_TAG == _MULTI_OCTET_TAG:
        raise Malformed(f"an operation whose tag begins with 0x{tag:02x}, expected a tag of one octet")
    measured = _length(buffer, at + 1, seen)
    if measured is None:
        _may_come(seen, end, "operation")
        return None
    length, at = measured
    op_end = at + length
    if op_end > end:
        raise Malformed(f"an operation that ends {op_end - end} octets after its message")
    if op_end < end:
        _tail(buffer, op_end, end, seen, _RESPONSE_NAME if tag == _EXTENDED_RESPONSE and not message_id else _CONTROLS)
    return end, message_id, tag, at, op_end


def _tail(buffer: Buffer, at: int, end: int, seen: int, also: int) -> None:
    """See that what follows an operation is one element, controls as a rule, that ends where the message does.

    ``also`` is a second tag that may stand there: Active Directory puts the responseName of its Notice of Disconnection behind
    the operation, in place of into it (MS-ADTS, NoticeOfDisconnectionLDAPMessage). What has not come yet is not judged.
    """
    if at >= seen:
        return
    if buffer[at] not in (_CONTROLS, also):
        raise Malformed(f"an element with the tag 0x{buffer[at]:02x} after the operation, expected controls or the end")
    measured = _length(buffer, at + 1, seen)
    if measured is None:
        _may_come(seen, end, "controls")
    elif measured[0] + measured[1] != end:
        raise Malformed(f"controls that end {measured[0] + measured[1] - end:+} octets from the end of their message")


def _may_come(seen: int, end: int, what: str) -> None:
    """See that a length that is not all there is yet to come. Raises: Malformed when the message ends first."""
    if seen >= end:
        raise Malformed(f"a message that ends within the length of its {what}")


def _length(buffer: Buffer, at: int, end: int) -> tuple[int, int] | None:
    """The length at ``at`` and the offset behind it; None when it is not all there.

    Raises: Malformed for the indefinite form (RFC 4511 section 5.1 forbids it) and for more than four octets of length.
    """
    if at >= end:
        return None
    length = buffer[at]
    at += 1
    if length < 0x80:
        return length, at
    if not 0x81 <= length <= 0x84:
        raise Malformed(f"a length that begins with 0x{length:02x}, expected a definite one of at most four octets")
    after = at + length - 0x80
    if after > end:
        return None
    return int.from_bytes(buffer[at:after], "big"), after


def element(octets: Buffer, at: int, end: int) -> tuple[int, int, int]:
    """Tag, first octet and end of the content of the element at ``at``, which must fit before ``end``; that into ``octets``.

    Raises: Malformed.
    """
    if at >= end:
        raise Malformed("nothing where an element is expected")
    tag = octets[at]
    if tag & _MULTI_OCTET_TAG == _MULTI_OCTET_TAG:
        raise Malformed(f"an element whose tag begins with 0x{tag:02x}, expected a tag of one octet")
    measured = _length(octets, at + 1, end)
    if measured is None:
        raise Malformed("an element that is cut within its length")
    length, at = measured
    if at + length > end:
        raise Malformed(f"an element that ends {at + length - end} octets after what holds it")
    return tag, at, at + length


def expect(octets: Buffer, at: int, end: int, tag: int) -> tuple[int, int]:
    """First octet and end of the content of the element at ``at``, which has this tag. Raises: Malformed."""
    found, start, after = element(octets, at, end)
    if found != tag:
        raise Malformed(f"an element with the tag 0x{found:02x}, expected 0x{tag:02x}")
    return start, after


def integer(octets: Buffer, start: int, end: int) -> int:
    """The number in the content of an INTEGER or ENUMERATED of one to four octets. Raises: Malformed."""
    if not 1 <= end - start <= 4:
        raise Malformed(f"an integer of {end - start} octets, expected 1 to 4")
    return int.from_bytes(octets[start:end], "big", signed=True)


def length_octets(length: int) -> bytes:
    """A length in its shortest form."""
    if length < 0x80:
        return bytes((length,))
    if length <= 0xFF:
        return bytes((0x81, length))
    if length <= 0xFFFF:
        return bytes((0x82, length >> 8, length & 0xFF))
    size = (length.bit_length() + 7) // 8
    return bytes((0x80 | size,)) + length.to_bytes(size, "big")


def wrapped(tag: int, content: bytes) -> bytes:
    """One element."""
    return bytes((tag,)) + length_octets(len(content)) + content


def integer_octets(number: int, tag: int = _INTEGER) -> bytes:
    """An INTEGER, or what is made like one, in its shortest form (X.690 section 8.3). ``number`` is one of 32 bits, signed."""
    if 0 <= number < 0x80:
        return bytes((tag, 1, number))
    size = (number if number >= 0 else ~number).bit_length() // 8 + 1
    return bytes((tag, size)) + number.to_bytes(size, "big", signed=True)
