"""The PROXY header: the shared vectors, octet by octet, and properties over all octets."""

from __future__ import annotations

import ipaddress
import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ldap_proxy.ber import Malformed
from ldap_proxy.proxy_header import LENGTH_MAX, SIGNATURE, Header, crc32c, read
from tests.ldap_proxy.ldap_vectors import ProxyHeader, read_proxy_headers

HEADERS = read_proxy_headers()


def outcome(octets: bytes) -> Header | type[Malformed] | None:
    """What is said about these octets, a refusal as a value."""
    try:
        return read(octets)
    except Malformed:
        return Malformed


def header(command: int, kind: int, content: bytes) -> bytes:
    """A header around these octets."""
    return SIGNATURE + struct.pack(">BBH", command, kind, len(content)) + content


@pytest.mark.parametrize("case", HEADERS, ids=lambda case: case.name)
def test_a_header_is_read_or_refused_as_soon_as_it_can_be(case: ProxyHeader) -> None:
    """Octet by octet: nothing is said too early, and nothing changes afterwards."""
    for size in range(len(case.octets) + 1):
        said = outcome(case.octets[:size])
        if case.refused_at:
            assert said is (Malformed if size >= case.refused_at else None)
        else:
            assert said == (Header(case.source, case.used) if size >= case.used else None)


@pytest.mark.parametrize("kind", [bytearray, memoryview])
def test_any_buffer_can_be_read(kind: type[bytearray]) -> None:
    """Not only bytes."""
    case = next(case for case in HEADERS if case.name == "elements")
    assert read(kind(case.octets)) == Header(case.source, case.used)


def test_a_refusal_says_what_was_seen() -> None:
    """In numbers, and nothing of the octets themselves."""
    with pytest.raises(Malformed) as refused:
        read(SIGNATURE + b"\x21\x11\xff\xff")
    assert refused.value.text == f"a PROXY header with 65535 octets after its fixed part, expected at most {LENGTH_MAX}"


@given(st.ip_addresses(v=4), st.ip_addresses(v=4), st.integers(0, 65_535), st.binary(max_size=20))
def test_every_ipv4_address_is_read(
    source: ipaddress.IPv4Address, other: ipaddress.IPv4Address, port: int, after: bytes
) -> None:
    """As its text; what follows the header is left."""
    octets = header(0x21, 0x11, source.packed + other.packed + struct.pack(">HH", port, 389))
    assert read(octets + after) == Header(str(source), 28)


@given(st.ip_addresses(v=6))
@example(ipaddress.IPv6Address("::ffff:192.0.2.7"))
def test_every_ipv6_address_is_read(source: ipaddress.IPv6Address) -> None:
    """As its shortest text, or as the IPv4 address that it stands for."""
    octets = header(0x21, 0x21, source.packed + bytes(16) + struct.pack(">HH", 1, 636))
    assert read(octets) == Header(str(source.ipv4_mapped or source), 52)


@given(
    st.lists(st.tuples(st.integers(0, 255).filter(lambda kind: kind != 3), st.binary(max_size=300)), max_size=6), st.booleans()
)
def test_elements_are_passed_over(elements: list[tuple[int, bytes]], summed: bool) -> None:
    """All types, with a checksum that fits or without one; a checksum of another header does not fit."""
    content = (
        bytes((192, 0, 2, 7)) + bytes(8) + b"".join(struct.pack(">BH", kind, len(value)) + value for kind, value in elements)
    )
    if not summed:
        assert read(header(0x21, 0x11, content)) == Header("192.0.2.7", 16 + len(content))
        return
    octets = header(0x21, 0x11, content + b"\x03\x00\x04" + bytes(4))
    checksum = crc32c(octets)
    assert read(octets[:-4] + checksum.to_bytes(4, "big")) == Header("192.0.2.7", len(octets))
    assert outcome(octets[:-4] + (checksum ^ 1).to_bytes(4, "big")) is Malformed


def test_the_checksum_is_castagnolis() -> None:
    """RFC 3720 appendix B.4 and the check value of its catalogue entry."""
    assert crc32c(b"123456789") == 0xE306_9283
    assert crc32c(bytes(32)) == 0x8A91_36AA
    assert crc32c(b"\xff" * 32) == 0x62A8_AB43


@st.composite
def disturbed(draw: st.DrawFn) -> bytes:
    """A header of the vectors with octets changed."""
    octets = bytearray(draw(st.sampled_from(HEADERS)).octets)
    for _ in range(draw(st.integers(0, 3))):
        octets[draw(st.integers(0, len(octets) - 1))] = draw(st.integers(0, 255))
    return bytes(octets)


@given(st.one_of(st.binary(max_size=40), disturbed()))
def test_any_octets_are_a_header_or_not(octets: bytes) -> None:
    """A value, a wait or Malformed; what is said of a prefix stands for the whole."""
    settled = None
    for size in range(len(octets) + 1):
        said = outcome(octets[:size])
        assert settled is None or said == settled
        settled = said
    if isinstance(settled, Header):
        assert 16 <= settled.used <= len(octets)
        assert settled.source is None or ipaddress.ip_address(settled.source)
