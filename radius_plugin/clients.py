"""Which client sends from this address?

Room rule: addresses and networks only; the longest prefix wins. What a client may do stands in its settings, and a client that
is not here does not exist: nothing costly may be done for it.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from dataclasses import dataclass, field

from radius_plugin.authenticators import SharedSecret
from radius_plugin.settings import ClientSettings, TlsClient

MAX_REMEMBERED = 8_192
"""Addresses whose search is remembered; a flood from invented ones costs the search again, and no memory."""

_MAPPED = "::ffff:"


@dataclass(frozen=True, slots=True, eq=False)
class Client:
    """A client, ready for use. ``counts`` are its events since the start, by the words of :mod:`radius_plugin.metrics`."""

    settings: ClientSettings
    secrets: tuple[SharedSecret, ...]
    counts: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, settings: ClientSettings, counts: dict[str, int] | None = None) -> Client:
        """Prepare the secrets of ``settings``; ``counts`` go on from before a reload."""
        return cls(settings, tuple(map(SharedSecret, settings.secrets)), {} if counts is None else counts)

    def count(self, event: str) -> None:
        """Count one event."""
        self.counts[event] = self.counts.get(event, 0) + 1


class ClientTable:
    """Clients by address: one dictionary for each prefix length that occurs, longest first."""

    def __init__(self, clients: Iterable[Client]) -> None:
        self.clients = tuple(clients)
        self._by_length: dict[int, list[tuple[int, dict[int, Client]]]] = {}
        tables: dict[tuple[int, int], dict[int, Client]] = {}
        for client in self.clients:
            network = client.settings.network
            shift = network.max_prefixlen - network.prefixlen
            tables.setdefault((network.version, shift), {})[int(network.network_address) >> shift] = client
        for (version, shift), table in sorted(tables.items(), key=lambda item: item[0][1]):
            self._by_length.setdefault(version, []).append((shift, table))
        self._remembered: dict[str, Client | None] = {}

    def find(self, address: str) -> Client | None:
        """The client at ``address``, a literal as the kernel writes it; None for a stranger."""
        try:
            return self._remembered[address]
        except KeyError:
            pass
        found = self._search(canonical(address))
        if len(self._remembered) >= MAX_REMEMBERED:
            self._remembered.clear()
        self._remembered[address] = found
        return found

    def _search(self, address: str) -> Client | None:
        version, family = (6, socket.AF_INET6) if ":" in address else (4, socket.AF_INET)
        try:
            number = int.from_bytes(socket.inet_pton(family, address), "big")
        except OSError:
            return None
        for shift, table in self._by_length.get(version, ()):
            client = table.get(number >> shift)
            if client is not None:
                return client
        return None


@dataclass(frozen=True, slots=True)
class PeerIdentity:
    """What a verified certificate says: its names in lower case, and the SHA-256 of its octets in hexadecimal."""

    names: frozenset[str]
    fingerprint: str

    def __str__(self) -> str:
        return f"names {', '.join(map(ascii, sorted(self.names))) or 'none'}; SHA-256 {self.fingerprint}"


class CertificateTable:
    """Clients by certificate: the certificate itself first, then a name in it."""

    def __init__(self, clients: Iterable[tuple[TlsClient, Client]]) -> None:
        self._by_fingerprint: dict[str, Client] = {}
        self._by_name: dict[str, Client] = {}
        for described, client in clients:
            self._by_fingerprint.update(dict.fromkeys(described.fingerprints, client))
            self._by_name.update(dict.fromkeys((name.lower() for name in described.subject_names), client))

    def find(self, identity: PeerIdentity) -> Client | None:
        """Whose certificate this is; None for nobody's, and where its names are of two clients."""
        found = self._by_fingerprint.get(identity.fingerprint)
        if found is not None:
            return found
        named = {self._by_name[name] for name in identity.names if name in self._by_name}
        return named.pop() if len(named) == 1 else None


def canonical(address: str) -> str:
    """An address without its zone; an IPv4 address inside an IPv6 one (RFC 4291 section 2.5.5.2) is the IPv4 address."""
    address = address.partition("%")[0]
    return address[len(_MAPPED) :] if address.startswith(_MAPPED) and "." in address else address
