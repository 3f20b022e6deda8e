"""A name and a value become whole attributes that others read as they were meant, or are refused with a cure."""

from __future__ import annotations

import re
import struct
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyrad.dictionary import Dictionary
from pyrad.packet import Packet

from mfa_core.errors import ConfigurationError
from radius_plugin.attributes import (
    MAX_REPLY_OCTETS,
    SHIPPED,
    AttributeRefused,
    Dictionaries,
    Value,
    greatest_reply_octets,
)
from radius_plugin.settings import AttributeName, ReplyRule
from radius_plugin.wire import Code
from tests.end_to_end.programs import must_have
from tests.radius_plugin.test_third_parties import OURS, UNSIGNED, radclient

DICTIONARIES = Dictionaries.load()
FREERADIUS = Path("/usr/share/freeradius")


@cache
def _pyrads_own() -> Dictionary:
    return Dictionary(*map(str, (SHIPPED / "rfc", *(one for one in SHIPPED.iterdir() if one.name != "rfc"))))


def decoded(attributes: bytes) -> dict[object, list[object]]:
    """What pyrad reads out of ``attributes`` with our dictionaries."""
    packet = Packet(dict=_pyrads_own())
    packet.DecodePacket(struct.pack("!BBH16x", 2, 0, 20 + len(attributes)) + attributes)
    return {name: packet[name] for name in packet.keys()}  # noqa: SIM118  a Packet's keys are names, its iteration numbers


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        pytest.param("Filter-Id", "vpn", "0b0576706e", id="text"),
        pytest.param("filter-id", "vpn", "0b0576706e", id="case of the name"),
        pytest.param("Reply-Message", "grüß dich\n", "120e6772c3bcc39f20646963680a", id="UTF-8 and a line end"),
        pytest.param("Class", "1234", "190631323334", id="digits are text"),
        pytest.param("Class", "0x0102", "1908307830313032", id="what looks like hex is text"),
        pytest.param("Class", b"\x01\x02", "19040102", id="octets"),
        pytest.param("Class", b"0x0102", "1908307830313032", id="octets that look like hex"),
        pytest.param("Class", ["a", "b"], "19036119" + "0362", id="two values"),
        pytest.param("Session-Timeout", 3600, "1b0600000e10", id="number"),
        pytest.param("Session-Timeout", "3600", "1b0600000e10", id="number as text"),
        pytest.param("Service-Type", "Administrative-User", "060600000006", id="named number"),
        pytest.param("Service-Type", "administrative", "060600000006", id="named number, small letters"),
        pytest.param("Framed-IP-Address", "192.0.2.1", "0806c0000201", id="IPv4"),
        pytest.param("Framed-IPv6-Address", "2001:db8::1", "a81220010db8000000000000000000000001", id="IPv6"),
        pytest.param("Delegated-IPv6-Prefix", "2001:db8::/32", "7b14002020010db8000000000000000000000000", id="IPv6 prefix"),
        pytest.param("Framed-Interface-Id", "211:22ff:fe33:4455", "600a021122fffe334455", id="interface id"),
        pytest.param("Tunnel-Type:1", "VLAN", "40060100000d", id="tag of a number"),
        pytest.param("Tunnel-Type", "VLAN", "40060000000d", id="no tag of a number"),
        pytest.param("Tunnel-Medium-Type:31", "IEEE-802", "41061f000006", id="greatest tag"),
        pytest.param("Tunnel-Private-Group-Id:1", "42", "5105013432", id="tag of a text"),
        pytest.param("Tunnel-Private-Group-ID:0", "42", "5105003432", id="the RFC's spelling, tag 0"),
        pytest.param("Tunnel-Private-Group-Id", "42", "51043432", id="no tag of a text"),
        pytest.param("Tunnel-Private-Group-Id", "\t42", "510600093432", id="a text that begins as a tag would"),
        pytest.param("Tunnel-Private-Group-Id", b"\x0142", "5105013432", id="tag among octets"),
        pytest.param("Cisco-AVPair", "shell:priv-lvl=15", "1a190000000901137368656c6c3a707269762d6c766c3d3135", id="vendor"),
        pytest.param("Mikrotik-Wireless-VLANID", 42, "1a0c00003a8c" + "1a060000002a", id="vendor's number"),
        pytest.param("PaloAlto-Client-Source-IP", "192.0.2.1", "1a1100006375" + "070b3139322e302e322e31", id="vendor's text"),
    ],
)
def test_a_value_is_encoded(name: str, value: Value | list[Value], expected: str) -> None:
    """Type, length, value; the octets are written out here."""
    assert DICTIONARIES.encode(name, value).hex() == expected


@pytest.mark.parametrize(
    ("name", "value", "seen", "cure"),
    [
        pytest.param("Filter", "x", "no dictionary knows", "perhaps Filter-Id", id="unknown, something near"),
        pytest.param("qqqqq", "x", "no dictionary knows", "dictionary_files", id="unknown"),
        pytest.param("Filter-Id:1", "x", "a tag at Filter-Id", "RFC 2868", id="tag where there is none"),
        pytest.param("Tunnel-Type:32", "VLAN", "the tag '32'", "Tunnel-Type:1", id="tag too great"),
        pytest.param("Tunnel-Type:", "VLAN", "the tag ''", "Tunnel-Type:1", id="empty tag"),
        pytest.param("Tunnel-Type:x", "VLAN", "the tag 'x'", "Tunnel-Type:1", id="tag of letters"),
        pytest.param("Tunnel-Type:1", "VLAM", "'VLAM'", "perhaps VLAN", id="name of a number"),
        pytest.param("Tunnel-Type:1", 1 << 24, "16777216", "", id="no room for the tag"),
        pytest.param("Tunnel-Private-Group-Id:1", b"42", "a tag beside octets", "first octet", id="tag and octets"),
        pytest.param("Tunnel-Password:1", "x", "encrypted", "", id="salted"),
        pytest.param("Class", 1234, "the number 1234", "in quotes", id="number for text"),
        pytest.param("Filter-Id", "", "an empty text", "RFC 2865", id="empty text"),
        pytest.param("Class", b"", "no octets", "", id="no octets"),
        pytest.param("Filter-Id", "a\0b", "control character", "octets", id="NUL"),
        pytest.param("Filter-Id", "a\ud800", "control character", "octets", id="surrogate"),
        pytest.param("Filter-Id", "x" * 254, "254 octets", "", id="text too long"),
        pytest.param("Filter-Id", "ü" * 127, "254 octets", "", id="text too long in UTF-8"),
        pytest.param("Tunnel-Private-Group-Id:1", "x" * 253, "254 octets with its tag", "", id="too long with its tag"),
        pytest.param("Cisco-AVPair", "x" * 248, "248 octets", "", id="vendor's text too long"),
        pytest.param("Session-Timeout", -1, "'-1'", "", id="negative"),
        pytest.param("Session-Timeout", 1 << 32, "'4294967296'", "", id="33 bits"),
        pytest.param("Session-Timeout", "1h", "'1h'", "", id="no number"),
        pytest.param("Framed-IP-Address", "10.0.0.299", "'10.0.0.299'", "", id="no IPv4"),
        pytest.param("Framed-IP-Address", "2001:db8::1", "'2001:db8::1'", "", id="IPv6 for IPv4"),
        pytest.param("Framed-IP-Address", 167772161, "167772161", "in quotes", id="number for an address"),
        pytest.param("Framed-IPv6-Prefix", "10.0.0.0/8", "'10.0.0.0/8'", "", id="IPv4 for a prefix"),
        *(
            pytest.param(name, "x", name, "take it out", id=name)
            for name in ("User-Password", "CHAP-Password", "State", "Proxy-State", "EAP-Message", "Message-Authenticator",
                         "CHAP-Challenge", "MS-MPPE-Send-Key", "ms-mppe-recv-key", "MS-CHAP-MPPE-Keys", "MS-CHAP2-Success",
                         "MS-MPPE-Encryption-Types")
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_sent_is_refused(name: str, value: Value, seen: str, cure: str) -> None:
    """When the configuration is loaded, not when somebody logs in."""
    with pytest.raises(AttributeRefused) as refused:
        DICTIONARIES.encode(name, value)

    assert seen in refused.value.seen
    assert refused.value.expected
    assert cure in refused.value.cure


def test_the_greatest_values_fit() -> None:
    """And the length octet says so."""
    assert DICTIONARIES.encode("Filter-Id", "x" * 253)[1] == 255
    assert DICTIONARIES.encode("Tunnel-Private-Group-Id:1", "x" * 252)[1] == 255
    assert DICTIONARIES.encode("Cisco-AVPair", "x" * 247)[1] == 255


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Calling-Station-Id", AttributeName(31)),
        ("calling-station-id", AttributeName(31)),
        ("PaloAlto-Client-Source-IP", AttributeName(7, vendor=25461)),
        ("Message-Authenticator", AttributeName(80)),
    ],
)
def test_a_name_has_a_place(name: str, expected: AttributeName) -> None:
    """Also where it may not be sent."""
    assert DICTIONARIES.lookup(name) == expected


def test_a_dictionary_may_be_added(tmp_path: Path) -> None:
    """With includes, and what pyrad cannot encode skipped and told apart."""
    (tmp_path / "more").write_text("ATTRIBUTE Acme-Role 1 string\nATTRIBUTE Acme-Sub 2 tlv\nATTRIBUTE Acme-Deep 2.1 string\n"
                                   "ATTRIBUTE Acme-Flag 3 bool\nATTRIBUTE Acme-Far 300 integer\n")  # fmt: skip
    (tmp_path / "dictionary").write_text(
        "VENDOR Acme 99999\nBEGIN-VENDOR Acme\n$INCLUDE more\nEND-VENDOR Acme\nATTRIBUTE Inside 1001 string\n"
        "VENDOR Hidden 311\nATTRIBUTE Harmless 16 octets Hidden\nATTRIBUTE Sign 80 octets\n"
    )

    # The file that includes ends its vendor itself.
    dictionaries = Dictionaries.load([tmp_path / "dictionary"])

    assert dictionaries.lookup("Acme-Role") == AttributeName(1, vendor=99999)
    assert dictionaries.encode("Filter-Id", "x") == b"\x0b\x03x"
    for name in ("Acme-Sub", "Acme-Deep", "Acme-Flag", "Acme-Far", "Inside", "Harmless", "Sign"):
        with pytest.raises(AttributeRefused):
            dictionaries.encode(name, "x")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        pytest.param(b"ATTRIBUTE X one string\n", ":1: Illegal attribute code", id="number"),
        pytest.param(b"\nATTRIBUTE X 1 colour\n", ":2: Illegal type", id="type"),
        pytest.param(b"$INCLUDE nowhere\n", "cannot be read", id="include"),
        pytest.param(b"$INCLUDE d\n", "Recursive include", id="include of itself"),
        pytest.param(b"VALUE Service-Type X many\n", ":1: Illegal value", id="value"),
        pytest.param(b"\xff\xfe", "is no RADIUS dictionary", id="not UTF-8"),
        pytest.param(b"VENDOR X 1 format=\n", "", id="format"),
    ],
)
def test_a_dictionary_that_cannot_be_read_is_told_with_its_line(tmp_path: Path, content: bytes, told: str) -> None:
    """By its path; a cure is given."""
    path = tmp_path / "d"
    path.write_bytes(content)

    with pytest.raises(ConfigurationError) as refused:
        Dictionaries.load([path])

    assert str(refused.value).startswith(str(path))
    assert told in str(refused.value)
    assert refused.value.cure


LINES = st.lists(
    st.lists(
        st.sampled_from(["ATTRIBUTE", "VALUE", "VENDOR", "BEGIN-VENDOR", "END-VENDOR", "$INCLUDE", "X", "Y", "1", "1.2", "0x1",
                         "string", "integer", "tlv", "octets[4]", "has_tag", "encrypt=2", "encrypt=", "format=1,1", "format=,",
                         "-1", "#", "9" * 30, "\0", ".", "Service-Type"]),
        max_size=6,
    ).map(" ".join),
    max_size=6,
).map("\n".join)  # fmt: skip


def encoded_or_seen(dictionaries: Dictionaries, name: str, value: Value | list[Value]) -> bytes | str:
    """Encode it, or say what was seen that cannot be; another exception fails the test."""
    try:
        return dictionaries.encode(name, value)
    except AttributeRefused as refused:
        return refused.seen


@given(text=LINES, value=st.text(max_size=4) | st.integers() | st.binary(max_size=4))
def test_any_dictionary_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, text: str, value: Value) -> None:
    """And whatever it names is encoded or refused: never another exception."""
    path = tmp_path_factory.mktemp("d") / "d"
    path.write_text(text)
    try:
        dictionaries = Dictionaries.load([path])
    except ConfigurationError:
        return
    for name in ("X", "Y", "Service-Type"):
        assert encoded_or_seen(dictionaries, name, value)


NAMES = st.sampled_from(["Filter-Id", "Class", "Session-Timeout", "Framed-IP-Address", "Framed-IPv6-Prefix", "Tunnel-Type:1",
                         "Tunnel-Private-Group-Id:1", "Tunnel-Private-Group-Id", "Cisco-AVPair", "Mikrotik-Wireless-VLANID",
                         "Framed-Interface-Id", "User-Password"]) | st.text(max_size=6)  # fmt: skip


@given(NAMES, st.lists(st.text(max_size=260) | st.integers() | st.binary(max_size=260), min_size=1, max_size=3))
def test_any_value_is_whole_attributes_or_refused(name: str, values: list[Value]) -> None:
    """Each of at most 255 octets, one for each value, and pyrad finds as many."""
    encoded = encoded_or_seen(DICTIONARIES, name, values)
    if isinstance(encoded, str):
        assert encoded.isprintable()
        return

    found = 0
    while encoded:
        assert 3 <= encoded[1] <= len(encoded)
        encoded = encoded[encoded[1] :]
        found += 1
    assert found == len(values)


@given(st.text(st.characters(exclude_categories=["C"]), min_size=1, max_size=60))
def test_a_text_stays_itself(text: str) -> None:
    """In attributes of text and of octets, of vendors, behind a tag."""
    for name in ("Filter-Id", "Cisco-AVPair", "Tunnel-Private-Group-Id:1"):
        [values] = decoded(DICTIONARIES.encode(name, text)).values()
        assert values == [text]
    assert decoded(DICTIONARIES.encode("Class", text)) == {"Class": [text.encode()]}


def test_freeradius_reads_what_we_wrote() -> None:
    """Every kind of value at once, in an Access-Accept that radclient takes apart."""
    sent: list[tuple[str, Value, str]] = [
        ("Filter-Id", "vpn", 'Filter-Id = "vpn"'),
        ("Class", "1234", "Class = 0x31323334"),
        ("Class", b"\x01\x02", "Class = 0x0102"),
        ("Session-Timeout", 3600, "Session-Timeout = 3600"),
        ("Service-Type", "Administrative", "Service-Type = Administrative-User"),
        ("Tunnel-Type:1", "VLAN", "Tunnel-Type:1 = VLAN"),
        ("Tunnel-Medium-Type:1", "IEEE-802", "Tunnel-Medium-Type:1 = IEEE-802"),
        ("Tunnel-Private-Group-Id:1", "42", 'Tunnel-Private-Group-Id:1 = "42"'),
        ("Framed-IP-Address", "192.0.2.1", "Framed-IP-Address = 192.0.2.1"),
        ("Framed-IPv6-Address", "2001:db8::1", "Framed-IPv6-Address = 2001:db8::1"),
        ("Delegated-IPv6-Prefix", "2001:db8::/32", "Delegated-IPv6-Prefix = 2001:db8::/32"),
        ("Cisco-AVPair", "shell:priv-lvl=15", 'Cisco-AVPair = "shell:priv-lvl=15"'),
        ("ASA-Group-Policy", "staff", 'ASA-Group-Policy = "staff"'),
        ("Fortinet-Group-Name", "staff", 'Fortinet-Group-Name = "staff"'),
        ("PaloAlto-User-Group", "staff", 'PaloAlto-User-Group = "staff"'),
        ("Juniper-Local-User-Name", "super", 'Juniper-Local-User-Name = "super"'),
        ("CP-Gaia-User-Role", "adminRole", 'CP-Gaia-User-Role = "adminRole"'),
        ("Mikrotik-Wireless-VLANID", 42, "Mikrotik-Wireless-VLANID = 42"),
        ("Aruba-User-Vlan", 42, "Aruba-User-Vlan = 42"),
        ("MS-Primary-DNS-Server", "192.0.2.53", "MS-Primary-DNS-Server = 192.0.2.53"),
    ]
    attributes = b"".join(DICTIONARIES.encode(name, value) for name, value, _ in sent)

    heard = radclient(UNSIGNED, lambda request: OURS.reply(Code.ACCESS_ACCEPT, request, attributes))

    received = heard.said.partition("Received")[2]
    assert [line for _, _, line in sent if f"\t{line}\n" not in received] == []


def test_names_and_numbers_are_freeradius_own() -> None:
    """What we call an attribute is what administrators know from there, with the same vendor, number and type."""
    must_have(str(FREERADIUS / "dictionary"))
    theirs = _numbers(*FREERADIUS.glob("dictionary*"))

    ours = _numbers(*SHIPPED.iterdir())

    # These are the RFC's own spellings beside FreeRADIUS's (Administrative-User).
    spelt = {("service-type", name) for name in ("outbound", "administrative", "nas-prompt")}
    spelt |= {("mikrotik-wireless-vlanid-type", name) for name in ("802.1q", "802.1ad")}
    assert {key: number for key, number in ours.items() if theirs.get(key) != number and key not in spelt} == {}
    assert len(ours) > 200


def _numbers(*files: Path) -> dict[object, tuple[str, ...]]:
    found: dict[object, tuple[str, ...]] = {}
    for file in files:
        vendor = ""
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
            match line.partition("#")[0].split():
                case ["BEGIN-VENDOR", name, *_]:
                    vendor = name.lower()
                case ["END-VENDOR", *_]:
                    vendor = ""
                case ["ATTRIBUTE", name, number, kind, *_]:
                    found[name.lower()] = (vendor, number, re.sub(r"\[\d+\]", "", kind.lower()))
                case ["VALUE", attribute, name, number, *_]:
                    found[attribute.lower(), name.lower()] = (number,)
                case ["VENDOR", name, number, *_]:
                    found["vendor", name.lower()] = (number,)
                case _:
                    pass
    return found


def rule(octets: int, **given: object) -> ReplyRule:
    """A rule that gives so many octets."""
    return replace(ReplyRule(attributes=bytes(octets)), **given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rules", "greatest"),
    [
        pytest.param([], 0, id="none"),
        pytest.param([rule(10), rule(20)], 30, id="all together"),
        pytest.param([rule(10, last=True), rule(20)], 10, id="the first is the last"),
        pytest.param([rule(10, groups=frozenset("a"), last=True), rule(20)], 20, id="the first may be the last"),
        pytest.param([rule(30, groups=frozenset("a"), last=True), rule(20)], 30, id="the first may be the last, and great"),
        pytest.param([rule(10, groups=frozenset("a")), rule(20, groups=frozenset("b"))], 30, id="two groups of one user"),
        pytest.param([rule(10, clients=frozenset("a")), rule(20, clients=frozenset("b"))], 20, id="a client or another"),
        pytest.param([rule(10, users=frozenset("a")), rule(20, users=frozenset("b")), rule(1)], 21, id="a user or another"),
        pytest.param([rule(10, policy_rules=frozenset("a")), rule(20, policy_rules=frozenset("b"))], 20, id="by rule"),
        pytest.param([rule(10, clients=frozenset("ab")), rule(20, clients=frozenset("bc"))], 30, id="a client of both"),
    ],
)
def test_the_greatest_reply_is_found(rules: list[ReplyRule], greatest: int) -> None:
    """A login has one client, one user, one policy rule and any groups."""
    assert greatest_reply_octets(rules) == greatest


MEMBERS = st.frozensets(st.sampled_from("ab"), max_size=2)
RULES = st.lists(
    st.builds(
        lambda n, clients, users, groups, policy_rules, last: rule(
            n, clients=clients, users=users, groups=groups, policy_rules=policy_rules, last=last
        ),
        st.integers(1, 50), MEMBERS, MEMBERS, MEMBERS, MEMBERS, st.booleans(),
    ),
    max_size=5,
)  # fmt: skip


@given(RULES, st.sampled_from("abc"), st.sampled_from("abc"), MEMBERS, st.sampled_from("abc"))
def test_no_login_gets_more_than_the_greatest_reply(
    rules: list[ReplyRule], client: str, user: str, groups: frozenset[str], policy_rule: str
) -> None:
    """Whoever it is."""
    given_octets = 0
    for one in rules:
        if (
            (not one.clients or client in one.clients)
            and (not one.users or user in one.users)
            and (not one.groups or groups & one.groups)
            and (not one.policy_rules or policy_rule in one.policy_rules)
        ):
            given_octets += len(one.attributes)
            if one.last:
                break

    assert given_octets <= greatest_reply_octets(rules)


def test_room_is_kept_for_proxies_and_the_signature() -> None:
    """What all attributes may take, with header, signature, a text and four proxies, is a packet."""
    assert MAX_REPLY_OCTETS + 20 + 18 + 255 + 4 * 255 <= 4096
