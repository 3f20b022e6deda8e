"""How is written where mfad listens for others, and who may come: addresses with ports, and networks.

Room rule: text in, a frozen value or :class:`Unfit` out. No name is resolved: what a name means can change under a listener.
"""

from __future__ import annotations

import enum
import ipaddress
import re
from dataclasses import dataclass
from typing import Annotated

from pydantic import BeforeValidator

from mfa_runtime.config.notation import Unfit

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

ANY = "*"
"""All addresses of the host, of both families."""


class Wire(enum.StrEnum):
    """What a RADIUS listener carries."""

    AUTHENTICATION = "udp"
    ACCOUNTING = "acct"
    TLS = "tls"
    """Both, inside TLS (RFC 6614 section 2.5)."""


USUAL_PORTS = {Wire.AUTHENTICATION: 1812, Wire.ACCOUNTING: 1813, Wire.TLS: 2083}
"""RFC 2865 section 3, RFC 2866 section 3, RFC 6614 section 2.1."""


@dataclass(frozen=True, slots=True)
class ListenAt:
    """One address of the RADIUS door. ``host`` is an address literal in its shortest form, or ``*``."""

    host: str
    port: int
    wire: Wire = Wire.AUTHENTICATION

    def __str__(self) -> str:
        return f"{self.wire.value}://{_written(self.host, self.port)}"

    def collides(self, other: ListenAt) -> bool:
        """Whether the kernel would refuse one of the two sockets."""
        if self.port != other.port or (self.wire is Wire.TLS) is not (other.wire is Wire.TLS):
            return False
        mine, others = _families(self.host), _families(other.host)
        wild = {ANY, "0.0.0.0", "::"}  # noqa: S104  compared, not bound
        return bool(mine & others) and (self.host == other.host or self.host in wild or other.host in wild)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address and port of a listener that has only one kind. ``host`` is an address literal, or ``*`` where that may be."""

    host: str
    port: int

    @property
    def hosts(self) -> tuple[str, ...]:
        """What to bind: for ``*`` all addresses of both families."""
        return ("0.0.0.0", "::") if self.host == ANY else (self.host,)  # noqa: S104  what "*" says

    def __str__(self) -> str:
        return _written(self.host, self.port)


def _written(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _families(host: str) -> set[int]:
    return {4, 6} if host == ANY else {ipaddress.ip_address(host).version}


_LISTEN = re.compile(r"(?:(udp|acct|tls)://)?(\*|\[[0-9A-Fa-f:.]{2,45}\]|[0-9.]{7,15})(?::([0-9]{1,5}))?").fullmatch
_EXPECTED = "an address and a port, such as 192.0.2.1:1812, [2001:db8::1]:1812, *:1812, acct://*:1813 or tls://*:2083"


def _listen_at(value: object) -> ListenAt:
    if isinstance(value, ListenAt):
        return value
    parts = _LISTEN(value) if isinstance(value, str) else None
    if parts is None:
        raise Unfit(_EXPECTED, "give address literals, not names; IPv6 stands in brackets")
    wire = Wire(parts[1] or "udp")
    return ListenAt(_host(parts[2], _EXPECTED), _port(parts[3], USUAL_PORTS[wire], _EXPECTED), wire)


ListensAt = Annotated[ListenAt, BeforeValidator(_listen_at)]


def _endpoint(value: object) -> Endpoint | None:
    if value is None or isinstance(value, Endpoint):
        return value
    expected = "an address and a port, such as 127.0.0.1:9464 or [::1]:9464"
    parts = _LISTEN(value) if isinstance(value, str) else None
    if parts is None or parts[1] is not None or parts[2] == ANY or parts[3] is None:
        raise Unfit(expected, "give an address literal; 0.0.0.0 and [::] stand for all of the host's")
    return Endpoint(_host(parts[2], expected), _port(parts[3], 0, expected))


MaybeEndpoint = Annotated[Endpoint | None, BeforeValidator(_endpoint)]


def _endpoint_or_all(value: object) -> Endpoint:
    if isinstance(value, Endpoint):
        return value
    expected = "an address and a port, such as 192.0.2.7:18443, [2001:db8::7]:18443 or *:18443"
    parts = _LISTEN(value) if isinstance(value, str) else None
    if parts is None or parts[1] is not None or parts[3] is None:
        raise Unfit(expected, "give address literals, not names; IPv6 stands in brackets")
    return Endpoint(_host(parts[2], expected), _port(parts[3], 0, expected))


AnEndpointOrAll = Annotated[Endpoint, BeforeValidator(_endpoint_or_all)]


def _host(text: str, expected: str) -> str:
    if text == ANY:
        return ANY
    try:
        address = ipaddress.ip_address(text.strip("[]"))
    except ValueError:
        raise Unfit(expected) from None
    if (address.version == 6) is not text.startswith("["):
        raise Unfit(expected, "IPv6 stands in brackets, IPv4 does not")
    return str(address)


def _port(text: str | None, usual: int, expected: str) -> int:
    port = usual if text is None else int(text)
    if not 1 <= port <= 65_535:
        raise Unfit(expected, "a port is a number from 1 to 65535")
    return port


def _network(value: object) -> Network:
    if isinstance(value, ipaddress.IPv4Network | ipaddress.IPv6Network):
        return value
    expected = "an address or a network, such as 192.0.2.1, 10.0.0.0/8 or 2001:db8::/32"
    if not isinstance(value, str) or not value.isascii() or "%" in value:
        raise Unfit(expected)
    try:
        network = ipaddress.ip_network(value, strict=False)
    except ValueError:
        raise Unfit(expected) from None
    if "/" in value and not value.partition("/")[2].isdigit():
        raise Unfit(expected, f"write {network}")
    if "/" in value and ipaddress.ip_address(value.partition("/")[0]) != network.network_address:
        raise Unfit(expected, f"bits are set behind the prefix: {network} is perhaps meant")
    if isinstance(network, ipaddress.IPv6Network) and network.prefixlen >= 96:
        mapped = network.network_address.ipv4_mapped
        if mapped is not None:
            # Such a source is counted as the IPv4 address that it is, and would never be found here.
            raise Unfit(expected, f"write it as IPv4: {ipaddress.IPv4Network((mapped, network.prefixlen - 96))}")
    return network


ANetwork = Annotated[Network, BeforeValidator(_network)]
