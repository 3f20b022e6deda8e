"""How are the packets of tests/vectors/radius.json read? Its ``reading`` describes them."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PATH = Path(__file__).resolve().parents[1] / "vectors" / "radius.json"

_PIECE = re.compile(r"([0-9a-f]*)(?:\{(\d+)\})?")
_DOCUMENT: dict[str, Any] = json.loads(PATH.read_text())

SECRET: bytes = _DOCUMENT["secret"].encode()
USER: str = _DOCUMENT["user"]
PASSWORD: str = _DOCUMENT["password"]
CODE: str = _DOCUMENT["code"]


@dataclass(frozen=True, slots=True)
class Case:
    """A request for the authentication port. ``flaw`` is "" when it parses; ``client`` changes the defaults of a client."""

    name: str
    octets: bytes
    outcome: str
    row: int | None
    flaw: str = ""
    signature: str = "absent"
    client: dict[str, Any] = field(default_factory=dict)
    typed: str | None = None
    chap: str | None = None
    bad_credential: bool = False
    proxy_states: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request and its reply as an RFC prints them."""

    source: str
    secret: bytes
    request: bytes
    reply: bytes
    signature: str
    user_name: bytes | None
    typed: bytes | None
    chap: str | None


@dataclass(frozen=True, slots=True)
class AccountingCase:
    """A request for the accounting port."""

    name: str
    octets: bytes
    good: bool
    signature: str
    outcome: str


@dataclass(frozen=True, slots=True)
class Reply:
    """What a server answers to ``request`` when it means ``code`` and ``attributes``."""

    name: str
    request: bytes
    code: int
    attributes: bytes
    sign: bool
    octets: bytes


@dataclass(frozen=True, slots=True)
class State:
    """The value of a State attribute, and all that it is made from."""

    key: bytes
    nonce: bytes
    client: str
    user_name: bytes
    challenge: str
    expires_at: int
    attempts: int
    first_factor_done: bool
    octets: bytes


def _octets(text: str) -> bytes:
    pieces = []
    for piece in text.split("_"):
        match = _PIECE.fullmatch(piece)
        assert match is not None, piece
        pieces.append(bytes.fromhex(match[1]) * int(match[2] or 1))
    return b"".join(pieces)


def _encoded(text: str | None) -> bytes | None:
    return None if text is None else text.encode()


def read_cases() -> list[Case]:
    """All requests for the authentication port, in the order of the file."""
    cases = []
    for entry in _DOCUMENT["cases"]:
        changed = {
            "octets": _octets(entry["octets"]),
            "proxy_states": tuple(bytes.fromhex(one) for one in entry.get("proxy_states", ())),
        }
        cases.append(Case(**entry | changed))
    return cases


def read_exchanges() -> list[Exchange]:
    """The examples of the RFCs."""
    return [
        Exchange(
            source=entry["source"],
            secret=entry["secret"].encode(),
            request=bytes.fromhex(entry["request"]),
            reply=bytes.fromhex(entry["reply"]),
            signature=entry["signature"],
            user_name=_encoded(entry.get("user_name")),
            typed=_encoded(entry.get("typed")),
            chap=entry.get("chap"),
        )
        for entry in _DOCUMENT["rfc"]
    ]


def read_accounting() -> list[AccountingCase]:
    """All requests for the accounting port."""
    return [AccountingCase(**entry | {"octets": _octets(entry["octets"])}) for entry in _DOCUMENT["accounting"]]


def _from_hex(entry: dict[str, Any], *names: str) -> dict[str, Any]:
    return entry | {name: bytes.fromhex(entry[name]) for name in names}


def read_replies() -> list[Reply]:
    """Answers of a server, octet for octet."""
    return [Reply(**_from_hex(entry, "request", "attributes", "octets")) for entry in _DOCUMENT["replies"]]


def read_states() -> list[State]:
    """State attributes, octet for octet."""
    return [
        State(**_from_hex(entry, "key", "nonce", "octets") | {"user_name": entry["user_name"].encode()})
        for entry in _DOCUMENT["state"]
    ]
