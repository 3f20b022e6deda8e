"""Where does somebody come from, as one value whatever way it is written?

Room rule: addresses; what follows from one is decided elsewhere.
"""

from __future__ import annotations

import ipaddress


def address_of(source: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address that a literal means, without its zone; of an IPv4 address inside an IPv6 one (RFC 4291 section 2.5.5.2) the
    IPv4 address. None for what is none: a client on a local socket.
    """
    try:
        address = ipaddress.ip_address(source.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def origin_of(source: str) -> str:
    """What somebody at ``source`` is counted under: the address, or the /64 of IPv6, in which one host has all addresses."""
    address = address_of(source)
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.IPv6Address(int(address) >> 64 << 64)) + "/64"
    return source if address is None else str(address)
