"""Attributes of a packet, by name: what was encoded reads as it was written, and octets of strangers read as something."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from radius_plugin.attributes import Dictionaries

NAMES = Dictionaries.load()


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("Filter-Id", "staff", "staff"),
        ("Class", "1", "1"),
        ("Class", b"\x00\xff", "0x00ff"),
        ("Service-Type", "Administrative-User", "Administrative-User"),
        ("Session-Timeout", 300, "300"),
        ("Framed-IP-Address", "192.0.2.7", "192.0.2.7"),
        ("Tunnel-Type:1", "VLAN", "VLAN"),
        ("Tunnel-Type", "VLAN", "VLAN"),
        ("Tunnel-Private-Group-Id:1", "42", "42"),
        ("Tunnel-Private-Group-Id", "42", "42"),
        ("Cisco-AVPair", "shell:priv-lvl=15", "shell:priv-lvl=15"),
        ("Fortinet-Group-Name", "vpn-users", "vpn-users"),
    ],
)
def test_what_was_encoded_reads_as_it_was_written(name: str, value: str | int | bytes, shown: str) -> None:
    """Types, names of values, tags, vendors."""
    octets = NAMES.encode(name, value)

    assert NAMES.read(octets[0], octets[2:]) == [(name, shown)]


@pytest.mark.parametrize(
    ("kind", "value", "shown"),
    [
        (250, b"ab", [("Attr-250", "0x6162")]),
        (8, b"abc", [("Framed-IP-Address", "0x616263")]),
        (26, b"\0\0\0\x09zz", [("Attr-26", "0x000000097a7a")]),
        (26, b"\0\0\xff\xff\x01\x03a\x02\x02", [("Vendor-65535-Attr-1", "0x61"), ("Vendor-65535-Attr-2", "0x")]),
    ],
)
def test_what_no_dictionary_knows_is_shown_by_number(kind: int, value: bytes, shown: list[tuple[str, str]]) -> None:
    """Nothing is hidden, nothing is guessed."""
    assert NAMES.read(kind, value) == shown


@given(st.integers(1, 255), st.binary(max_size=253))
def test_any_octets_read_as_something(kind: int, value: bytes) -> None:
    """A reply comes from a stranger's server."""
    shown = NAMES.read(kind, value)

    assert shown
    assert all(name and isinstance(text, str) for name, text in shown)
