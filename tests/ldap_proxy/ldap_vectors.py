"""How are the messages, names and headers of tests/vectors/ldap.json read? Its ``reading`` describes them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ldap_proxy.dn import Rdn

PATH = Path(__file__).resolve().parents[1] / "vectors" / "ldap.json"
LIMIT = 65_536

_DOCUMENT: dict[str, Any] = json.loads(PATH.read_text())


@dataclass(frozen=True, slots=True)
class Message:
    """One that is framed well. ``read`` holds what its kind of reader makes of it, by that reader's name."""

    name: str
    octets: bytes
    tag: int
    message_id: int
    controls: bytes
    read: dict[str, Any]
    canonical: bool


@dataclass(frozen=True, slots=True)
class Broken:
    """Octets that are no message; ``shown_at`` of them are enough to tell."""

    name: str
    octets: bytes
    shown_at: int
    limit: int
    too_large: bool


@dataclass(frozen=True, slots=True)
class BrokenBody:
    """A message that its reader refuses; for ``controls`` their element."""

    name: str
    reader: str
    octets: bytes


@dataclass(frozen=True, slots=True)
class Name:
    """A text, and what it names; None when it is no DN."""

    text: str
    rdns: tuple[Rdn, ...] | None


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """The first octets of a connection. ``refused_at``: how many of them are enough to refuse it; 0 for those that are good."""

    name: str
    octets: bytes
    source: str | None
    used: int
    refused_at: int


def read_messages(reader: str = "") -> list[Message]:
    """All of them, or those that this reader reads."""
    found = []
    for row in _DOCUMENT["messages"]:
        octets = bytes.fromhex(row["octets"])
        if not reader or reader in row:
            found.append(
                Message(
                    row["name"],
                    octets,
                    int(row["tag"], 16),
                    row["message_id"],
                    octets[len(octets) - row["controls_size"] :],
                    row,
                    row.get("canonical", False),
                )
            )
    return found


def read_broken() -> list[Broken]:
    """What framing refuses."""
    return [
        Broken(row["name"], bytes.fromhex(row["octets"]), row["shown_at"], row.get("limit", LIMIT), row.get("too_large", False))
        for row in _DOCUMENT["malformed"]
    ]


def read_broken_bodies() -> list[BrokenBody]:
    """What the readers of single messages refuse."""
    return [BrokenBody(row["name"], row["reader"], bytes.fromhex(row["octets"])) for row in _DOCUMENT["malformed_bodies"]]


def read_names() -> list[Name]:
    """DNs, and texts that are none."""
    return [
        Name(
            row["text"],
            None if row["rdns"] is None else tuple(tuple((kind, value) for kind, value in rdn) for rdn in row["rdns"]),
        )
        for row in _DOCUMENT["dns"]
    ]


def read_proxy_headers() -> list[ProxyHeader]:
    """Headers of the PROXY protocol, good and bad."""
    return [
        ProxyHeader(row["name"], bytes.fromhex(row["octets"]), row.get("source"), row.get("used", 0), row.get("refused_at", 0))
        for row in _DOCUMENT["proxy_headers"]
    ]
