"""Which application a connection belongs to, and how addresses are written."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ldap_proxy.applications import MAX_REMEMBERED, Applications
from ldap_proxy.settings import Application, Listen, Scheme
from ldap_proxy.sources import address_of, origin_of

PLAIN, SECURE, LOCAL = Listen(Scheme.LDAP, "*", 389), Listen(Scheme.LDAPS, "*", 636), Listen(Scheme.LDAPI, "/run/ldapi")


def application(name: str, *networks: str, listens: tuple[Listen, ...] = ()) -> Application:
    return Application(name, networks=tuple(map(ipaddress.ip_network, networks)), listens=listens)


ALL = Applications(
    [
        Application("ldap", networks=(ipaddress.ip_network("10.1.2.3/32"),)),
        application("wide", "10.0.0.0/8", "2001:db8::/32"),
        application("narrow", "10.1.0.0/16", "192.0.2.0/24"),
        application("host", "10.1.2.3"),
        application("host inside", "10.1.2.3", listens=(SECURE,)),
        application("local", listens=(LOCAL,)),
        application("inside", listens=(SECURE,)),
        application("said nothing"),
        application("host again", "10.1.2.3"),
    ]
)


@pytest.mark.parametrize(
    ("source", "listen", "name"),
    [
        ("10.9.9.9", PLAIN, "wide"),
        ("10.1.9.9", PLAIN, "narrow"),
        ("10.1.2.3", PLAIN, "host"),
        ("10.1.2.3", SECURE, "host inside"),
        ("::ffff:10.1.2.3", PLAIN, "host"),
        ("10.1.9.9", SECURE, "narrow"),
        ("2001:db8::1", PLAIN, "wide"),
        ("2001:db8::1%eth0", PLAIN, "wide"),
        ("198.51.100.1", PLAIN, "ldap"),
        ("198.51.100.1", SECURE, "inside"),
        ("", LOCAL, "local"),
        ("", PLAIN, "ldap"),
        ("no address", PLAIN, "ldap"),
    ],
)
def test_the_longest_prefix_wins_and_then_the_listener(source: str, listen: Listen, name: str) -> None:
    """Of two alike the first; whom nobody knows has the door's own settings, which nothing else chooses."""
    assert [ALL.find(source, listen).name for _ in range(2)] == [name] * 2


def test_a_flood_of_sources_takes_no_memory() -> None:
    """The search is done again."""
    for number in range(2 * MAX_REMEMBERED):
        ALL.find(str(ipaddress.IPv6Address(number)), PLAIN)
    assert len(ALL._remembered) <= MAX_REMEMBERED
    assert ALL.find("10.9.9.9", PLAIN).name == "wide"


@pytest.mark.parametrize(
    ("source", "origin"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:0:1:2:3:4:5", "2001:db8:0:1::/64"),
        ("2001:db8:0:1::%eth0", "2001:db8:0:1::/64"),
        ("", ""),
        ("/run/ldapi", "/run/ldapi"),
    ],
)
def test_origins(source: str, origin: str) -> None:
    """One host may have all addresses of a /64."""
    assert origin_of(source) == origin


@given(st.text(max_size=50) | st.ip_addresses().map(str))
def test_whatever_a_source_is_it_is_read(source: str) -> None:
    """Never an exception, and an address in one form only."""
    address = address_of(source)
    if address is not None:
        assert address_of(str(address)) == address
    assert isinstance(origin_of(source), str)
