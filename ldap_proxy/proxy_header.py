"""Whose connection does a load balancer hand on? (PROXY protocol, version 2)

Room rule: the first octets of a connection become an address or are refused, sans-IO. Whether the peer may say so is asked
before, elsewhere. Version 1 is text, and is refused: every balancer that speaks it speaks version 2.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Final

from ldap_proxy.ber import Buffer, Malformed

SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"
LENGTH_MAX: Final = 16 * 1024
"""Octets after the fixed part. Addresses need at most 216; a client's certificate in an element is the longest there is."""

_FIXED: Final = 16
_LOCAL: Final = 0x20
_PROXY: Final = 0x21
_INET: Final = 0x11
_INET6: Final = 0x21
_ADDRESSES: Final = {0x00: 0, _INET: 12, _INET6: 36, 0x31: 216}
"""Octets of both addresses and both ports, by family and transport: unspecified; streams of IPv4, IPv6 and local sockets."""
_CRC32C: Final = 0x03


@dataclass(frozen=True, slots=True)
class Header:
    """What was said. ``source``: the client's address, or None when the connection's own peer is the source.

    That is so when the balancer speaks for itself (a health check), or for a client without an address of IP. ``used``: octets
    of the header.
    """

    source: str | None
    used: int


def read(buffer: Buffer) -> Header | None:
    """Read the header at the beginning of a connection. None: more octets are needed.

    IPv6 addresses that stand for an IPv4 one (``::ffff:192.0.2.1``) come out as that one, so that limits and networks by source
    see one client, however it came to the balancer.

    Raises: Malformed as soon as the octets show that they are no header of version 2 in front of a stream.
    """
    size = len(buffer)
    if buffer[:12] != SIGNATURE[:size]:
        raise Malformed("a connection that does not begin with a PROXY header of version 2")
    if size > 12 and buffer[12] not in (_LOCAL, _PROXY):
        raise Malformed(f"a PROXY header with the version and command 0x{buffer[12]:02x}, expected 0x20 or 0x21")
    if size > 13 and buffer[12] == _PROXY and buffer[13] not in _ADDRESSES:
        raise Malformed(f"a PROXY header with the family and transport 0x{buffer[13]:02x}, expected those of a stream")
    if size < _FIXED:
        return None
    length = buffer[14] << 8 | buffer[15]
    if length > LENGTH_MAX:
        raise Malformed(f"a PROXY header with {length} octets after its fixed part, expected at most {LENGTH_MAX}")
    used = _FIXED + length
    if buffer[12] == _LOCAL:  # whatever else it says is to be skipped without a look (section 2.2)
        return Header(None, used) if size >= used else None
    kind = buffer[13]
    addresses = _ADDRESSES[kind]
    if length < addresses:
        raise Malformed(f"a PROXY header with {length} octets of addresses, expected at least {addresses}")
    if size < used:
        return None
    header = bytes(buffer[:used])
    _check_elements(header, _FIXED + addresses)
    if kind == _INET:
        return Header(str(ipaddress.IPv4Address(header[16:20])), used)
    if kind == _INET6:
        address = ipaddress.IPv6Address(header[16:32])
        return Header(str(address.ipv4_mapped or address), used)
    return Header(None, used)


def _check_elements(header: bytes, at: int) -> None:
    """See that the header ends in a row of (type, length, value), and that its checksum, if it has one, fits (section 2.2).

    Raises: Malformed.
    """
    while at < len(header):
        if at + 3 > len(header):
            raise Malformed(f"{len(header) - at} octets at the end of a PROXY header, expected a type and a length")
        kind, value = header[at], at + 3
        at = value + (header[at + 1] << 8 | header[at + 2])
        if at > len(header):
            raise Malformed(f"an element of a PROXY header that ends {at - len(header)} octets after it")
        if kind != _CRC32C:
            continue
        if at - value != 4:
            raise Malformed(f"a PROXY header with a checksum of {at - value} octets, expected 4")
        if crc32c(header[:value] + bytes(4) + header[at:]) != int.from_bytes(header[value:at], "big"):
            raise Malformed("a PROXY header whose checksum does not fit")


def _crc32c_row(octet: int) -> int:
    for _ in range(8):
        octet = octet >> 1 ^ (0x82F6_3B78 if octet & 1 else 0)
    return octet


_CRC32C_TABLE: Final = tuple(_crc32c_row(octet) for octet in range(256))


def crc32c(octets: bytes) -> int:
    """The CRC of Castagnoli (RFC 3720 appendix B.4), which the standard library has not."""
    remainder = 0xFFFF_FFFF
    for octet in octets:
        remainder = remainder >> 8 ^ _CRC32C_TABLE[(remainder ^ octet) & 0xFF]
    return remainder ^ 0xFFFF_FFFF
