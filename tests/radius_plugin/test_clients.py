"""Whose address, whose certificate? The longest prefix and the one owner; nobody where it is not certain."""

from __future__ import annotations

import ipaddress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from radius_plugin import clients as clients_module
from radius_plugin.clients import CertificateTable, Client, ClientTable, PeerIdentity, canonical
from radius_plugin.settings import Network, TlsClient
from tests.radius_plugin.door_doubles import CLIENT, SECRET


def client(name: str, network: str = "::/0") -> Client:
    return Client.of(replace(CLIENT, name=name, network=ipaddress.ip_network(network)))


def table(*networks: str) -> ClientTable:
    return ClientTable([client(network, network) for network in networks])


def owner(found: Client | None) -> str | None:
    return None if found is None else found.settings.name


NESTED = (
    *("0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "10.1.2.3"),
    *("2001:db8::/32", "2001:db8:1::/48", "2001:db8::1"),
)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("10.1.2.3", "10.1.2.3"),
        ("10.1.2.4", "10.1.2.0/24"),
        ("10.1.3.3", "10.1.0.0/16"),
        ("10.2.0.1", "10.0.0.0/8"),
        ("192.0.2.1", "0.0.0.0/0"),
        ("0.0.0.0", "0.0.0.0/0"),
        ("255.255.255.255", "0.0.0.0/0"),
        ("2001:db8::1", "2001:db8::1"),
        ("2001:db8::2", "2001:db8::/32"),
        ("2001:db8:1::1", "2001:db8:1::/48"),
        ("2001:db9::1", None),
        ("::1", None),
        ("::ffff:10.1.2.3", "10.1.2.3"),
        ("::ffff:10.9.9.9", "10.0.0.0/8"),
        ("2001:db8::1%eth0", "2001:db8::1"),
        ("fe80::1%eth0", None),
        ("", None),
        ("vpn.example.org", None),
        ("10.1.2", None),
        ("10.1.2.3.4", None),
        ("::ffff:10.1.2.3.4", None),
        ("010.1.2.3", None),
    ],
)
def test_the_longest_prefix_wins(address: str, expected: str | None) -> None:
    """Rows 51, 52. Asked twice: what is remembered is the same."""
    clients = table(*NESTED)
    assert owner(clients.find(address)) == expected
    assert owner(clients.find(address)) == expected


def test_nobody_is_known_without_clients() -> None:
    assert ClientTable([]).find("192.0.2.1") is None


V4 = st.builds(
    lambda number, length: ipaddress.ip_network((number, length), strict=False), st.integers(0, 2**32 - 1), st.integers(0, 32)
)
V6 = st.builds(
    lambda number, length: ipaddress.ip_network((number, length), strict=False),
    st.integers(0, 2**128 - 1).map(ipaddress.IPv6Address),
    st.integers(0, 128),
)


@given(st.lists(st.one_of(V4, V6), max_size=12, unique=True), st.data())
def test_the_table_finds_what_a_search_through_all_finds(networks: list[Network], data: st.DataObject) -> None:
    inside = [one[data.draw(st.integers(0, one.num_addresses - 1))] for one in networks]
    address = data.draw(st.one_of(st.ip_addresses(), *map(st.just, inside)))
    # as the kernel writes it: a mapped address is the IPv4 address
    mapped = getattr(address, "ipv4_mapped", None)
    wanted = mapped or address
    holds = [one for one in networks if one.version == wanted.version and wanted in one]
    best = max(holds, key=lambda one: one.prefixlen, default=None)
    text = f"::ffff:{mapped}" if mapped else str(address)
    assert owner(table(*map(str, networks)).find(text)) == (None if best is None else str(best))


def test_a_flood_of_addresses_is_remembered_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients_module, "MAX_REMEMBERED", 10)
    clients = table("10.0.0.0/8")
    for number in range(1000):
        clients.find(f"192.0.{number // 250}.{number % 250}")
        assert len(clients._remembered) <= 10
    assert owner(clients.find("10.1.1.1")) == "10.0.0.0/8"


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1%3", "192.0.2.1"),
        ("fe80::1%eth0", "fe80::1"),
        ("::ffff:c000:201", "::ffff:c000:201"),
        ("2001:db8::ffff:192.0.2.1", "2001:db8::ffff:192.0.2.1"),
    ],
)
def test_addresses_are_written_one_way(address: str, expected: str) -> None:
    assert canonical(address) == expected


def test_a_client_shows_no_secret() -> None:
    assert SECRET.decode() not in repr(client("vpn"))


FINGERPRINT = "ab" * 32


def identity(*names: str, fingerprint: str = "00" * 32) -> PeerIdentity:
    return PeerIdentity(frozenset(names), fingerprint)


def certificates() -> CertificateTable:
    def described(name: str, *names: str, fingerprints: frozenset[str] = frozenset()) -> tuple[TlsClient, Client]:
        one = client(name)
        return TlsClient(one.settings, frozenset(names), fingerprints), one

    return CertificateTable(
        [
            described("vpn", "VPN.example.org", "vpn2.example.org"),
            described("wifi", "wifi.example.org"),
            described("pinned", fingerprints=frozenset({FINGERPRINT})),
        ]
    )


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        pytest.param(identity("vpn.example.org"), "vpn", id="name"),
        pytest.param(identity("vpn.example.org", "vpn2.example.org"), "vpn", id="two-names-of-one"),
        pytest.param(identity("vpn.example.org", "unknown.example.org"), "vpn", id="one-name-known"),
        pytest.param(identity("vpn.example.org", "wifi.example.org"), None, id="names-of-two-clients"),
        pytest.param(identity("unknown.example.org"), None, id="unknown"),
        pytest.param(identity(), None, id="no-name"),
        pytest.param(identity("sub.vpn.example.org"), None, id="below"),
        pytest.param(identity("*.example.org"), None, id="wildcard"),
        pytest.param(identity("example.org"), None, id="above"),
        pytest.param(identity(fingerprint=FINGERPRINT), "pinned", id="fingerprint"),
        pytest.param(identity("vpn.example.org", fingerprint=FINGERPRINT), "pinned", id="fingerprint-before-name"),
        pytest.param(identity(FINGERPRINT), None, id="fingerprint-as-name"),
    ],
)
def test_a_certificate_is_of_one_client_or_of_none(shown: PeerIdentity, expected: str | None) -> None:
    assert owner(certificates().find(shown)) == expected


def test_what_a_certificate_says_stays_one_line() -> None:
    assert "\n" not in str(identity("a\nmfad: accepted"))
