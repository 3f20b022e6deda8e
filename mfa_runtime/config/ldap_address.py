"""How is written where LDAP is spoken: ``ldap://``, ``ldaps://`` and ``ldapi://``, for listeners and for servers.

Room rule: text in, a frozen value or :class:`Unfit` out. Listeners are address literals, because what a name means can change
under one; servers may have names. A path of ldapi:// may be percent-encoded, as LDAP's own tools want it, or stand as it is.
"""

from __future__ import annotations

import enum
import ipaddress
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import unquote_to_bytes

from pydantic import BeforeValidator, ValidationInfo

from mfa_runtime.config.listen import ANY
from mfa_runtime.config.notation import Unfit

MAX_SERVERS = 8
MAX_LISTENERS = 64
_MAX_SOCKET_PATH_BYTES = 107
"""unix(7): sun_path has 108 bytes, the last one a NUL."""
_ROOM_FOR_A_DRAFT = len(".") + len(".4194304")
"""A socket that is listened on is made under another name, with the process id in it."""


class LdapScheme(enum.StrEnum):
    """How octets travel."""

    LDAP = "ldap"
    LDAPS = "ldaps"
    LDAPI = "ldapi"


USUAL_PORTS = {LdapScheme.LDAP: 389, LdapScheme.LDAPS: 636}


@dataclass(frozen=True, slots=True)
class LdapAddress:
    """One place. ``host`` is an address literal in its shortest form, for a listener also ``*``, for a server also a name.

    For LDAPI ``host`` is the absolute path of the socket, and ``port`` 0.
    """

    scheme: LdapScheme
    host: str
    port: int = 0

    def __str__(self) -> str:
        if self.scheme is LdapScheme.LDAPI:
            return f"ldapi://{self.host}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"

    @property
    def is_of_this_host(self) -> bool:
        """Whether what is said there stays on the host."""
        if self.scheme is LdapScheme.LDAPI or self.host.lower() == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def collides(self, other: LdapAddress) -> bool:
        """Whether the kernel would refuse one of two listeners."""
        if LdapScheme.LDAPI in {self.scheme, other.scheme}:
            return self.host == other.host and self.scheme is other.scheme
        if self.port != other.port:
            return False
        wild = {ANY, "0.0.0.0", "::"}  # noqa: S104  compared, not bound
        mine, others = _families(self.host), _families(other.host)
        return bool(mine & others) and (self.host == other.host or self.host in wild or other.host in wild)


def _families(host: str) -> set[int]:
    return {4, 6} if host == ANY else {ipaddress.ip_address(host).version}


_TCP = re.compile(r"(ldaps?)://(\*|\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253})(?::([0-9]{1,5}))?/?").fullmatch
_IPC = re.compile(r"ldapi://([!-~]{1,400})").fullmatch
_LISTENERS = "listeners such as ldap://127.0.0.1:389, ldaps://*:636, ldap://[2001:db8::1]:389 or ldapi:///run/mfad/ldapi"
_SERVERS = "servers such as ldaps://dc1.example.org, ldap://10.0.0.1:389 or ldapi:///run/slapd/ldapi"


def _read(value: object, expected: str, base: Path, *, longest: int) -> LdapAddress:
    if not isinstance(value, str):
        raise Unfit(expected)
    ipc = _IPC(value)
    if ipc is not None:
        return LdapAddress(LdapScheme.LDAPI, _path(ipc[1], expected, base, longest))
    parts = _TCP(value)
    if parts is None:
        raise Unfit(expected, "say ldap://, ldaps:// or ldapi://; a DN has no place here, and IPv6 stands in brackets")
    scheme = LdapScheme(parts[1])
    port = USUAL_PORTS[scheme] if parts[3] is None else int(parts[3])
    if not 1 <= port <= 65_535:
        raise Unfit(expected, "a port is a number from 1 to 65535")
    return LdapAddress(scheme, _host(parts[2], expected), port)


def _path(text: str, expected: str, base: Path, longest: int) -> str:
    octets = unquote_to_bytes(text)
    if not octets.isascii() or not octets.decode().isprintable():
        raise Unfit(expected, "the path of a socket is printable ASCII")
    path = str(base / octets.decode())
    if len(os.fsencode(path)) > longest:
        raise Unfit("a path short enough for a socket", f"use at most {longest} bytes, the folder of this file included")
    return path


def _host(text: str, expected: str) -> str:
    bare = text.strip("[]")
    try:
        address = ipaddress.ip_address(bare)
    except ValueError:
        if text != bare or all(part.isdigit() for part in bare.split(".")):
            raise Unfit(expected) from None
        return text
    if (address.version == 6) is not text.startswith("["):
        raise Unfit(expected, "IPv6 stands in brackets, IPv4 does not")
    return str(address)


def _base(info: ValidationInfo) -> Path:
    base: Path = (info.context or {}).get("base", Path())
    return base


def _listener(value: object, info: ValidationInfo) -> LdapAddress:
    if isinstance(value, LdapAddress):
        return value
    address = _read(value, _LISTENERS, _base(info), longest=_MAX_SOCKET_PATH_BYTES - _ROOM_FOR_A_DRAFT)
    if address.scheme is not LdapScheme.LDAPI and address.host != ANY:
        try:
            ipaddress.ip_address(address.host)
        except ValueError:
            raise Unfit(_LISTENERS, "give address literals, not names; * is all addresses of the host") from None
    return address


def _server(value: object, info: ValidationInfo) -> LdapAddress:
    if isinstance(value, LdapAddress):
        return value
    address = _read(value, _SERVERS, _base(info), longest=_MAX_SOCKET_PATH_BYTES)
    if address.host in {ANY, "0.0.0.0", "::"}:  # noqa: S104  compared, not bound
        raise Unfit(_SERVERS, "name the one server that is meant")
    return address


def _several(most: int) -> Any:
    def read(value: object) -> object:
        found = value if isinstance(value, list | tuple) else (value,)
        if not 1 <= len(found) <= most or None in found:
            raise Unfit(f"1 to {most} URLs")
        return found

    return BeforeValidator(read)


Listeners = Annotated[tuple[Annotated[LdapAddress, BeforeValidator(_listener)], ...], _several(MAX_LISTENERS)]
"""One listener or a list of them."""
Servers = Annotated[tuple[Annotated[LdapAddress, BeforeValidator(_server)], ...], _several(MAX_SERVERS)]
"""One server, or a list in the order in which they are tried."""
