"""Where a store is: the one value that every caller opens it by.

Room rule: what the configuration says, in the terms of those who open; nothing is opened here. The password is not in it: it is
read from its file each time a connection is made, so that a changed one is found without a restart.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

STORE_FILE = "mfad.sqlite"
_BUNDLES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt")
"""Where Debian and Red Hat keep the CAs that the system trusts."""


@dataclass(frozen=True, slots=True)
class StorePlace:
    """``url`` "" is the SQLite file of ``state_dir``, else a PostgreSQL database. ``timeout_s`` is seconds.

    ``state_dir`` is always there: locks and the high-water mark are of this machine, wherever the store is.
    """

    state_dir: Path
    url: str = ""
    password_file: Path | None = None
    connections: int = 8
    timeout_s: float = 3.0

    @property
    def is_file(self) -> bool:
        """Whether the store is a file of this machine (SQLite)."""
        return not self.url

    @property
    def file(self) -> Path | None:
        """The SQLite file; None for a database server."""
        return self.state_dir / STORE_FILE if self.is_file else None

    def __str__(self) -> str:
        """For people: the file, or user, hosts and database."""
        if self.is_file:
            return str(self.state_dir / STORE_FILE)
        parts = urlsplit(self.url)
        given = [(name, value) for name, value in parse_qsl(parts.query) if name in {"host", "port"}]
        return urlunsplit(("postgresql", parts.netloc, parts.path, urlencode(given, safe="/,:"), ""))

    @property
    def is_near(self) -> bool:
        """Whether every server is this machine: a socket, or a loopback address."""
        return all(_is_near(host) for host in self.hosts())

    @property
    def ssl_mode(self) -> str:
        """How the server proves who it is: as the URL says, else ``verify-full`` unless it is this machine."""
        given = dict(parse_qsl(urlsplit(self.url).query))
        return given.get("sslmode", "disable" if self.is_near else "verify-full")

    def hosts(self) -> list[str]:
        """The servers that the URL names, without ports; "" is the usual socket."""
        parts = urlsplit(self.url)
        named = dict(parse_qsl(parts.query)).get("host") or parts.netloc.rpartition("@")[2]
        return [_without_port(host) for host in named.split(",")]

    def connection_url(self) -> str:
        """The URL for libpq, with what it leaves open: how the server proves who it is, and the CAs that may say so."""
        parts = urlsplit(self.url)
        given = dict(parse_qsl(parts.query))
        given["sslmode"] = self.ssl_mode
        if given["sslmode"].startswith("verify") and "sslrootcert" not in given:
            given["sslrootcert"] = next((path for path in _BUNDLES if Path(path).exists()), "system")
        return urlunsplit(("postgresql", parts.netloc, parts.path, urlencode(given, safe="/,:"), ""))


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host if host.startswith(("/", "@")) else host.partition(":")[0]


def _is_near(host: str) -> bool:
    if not host or host.startswith(("/", "@")) or host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
