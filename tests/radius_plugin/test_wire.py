"""The framing: the shared vectors, and properties over all packets and all octets."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mfa_core.errors import PeerProtocolError
from radius_plugin.wire import (
    HEADER_SIZE,
    PACKET_MAX,
    VALUE_MAX,
    VENDOR_VALUE_MAX,
    Code,
    Flaw,
    Malformed,
    Packet,
    PacketTooLong,
    Type,
    attribute,
    frame,
    integer_attribute,
    packet_length,
    parse,
    text_attributes,
    vendor_attribute,
)
from tests.radius_plugin.packet_vectors import AccountingCase, Case, Exchange, read_accounting, read_cases, read_exchanges

CASES = read_cases()
GOOD = [case for case in CASES if not case.flaw]
AUTHENTICATOR = bytes(range(16))

attribute_values = st.tuples(
    st.integers(1, 255).filter(lambda kind: kind != Type.MESSAGE_AUTHENTICATOR), st.binary(max_size=VALUE_MAX)
)
rows_of_attributes = st.lists(attribute_values, max_size=14)


def packed(row: list[tuple[int, bytes]]) -> bytes:
    """The attributes one after another."""
    return b"".join(attribute(kind, value) for kind, value in row)


def request(attributes: bytes) -> bytes:
    """An Access-Request around these octets, whatever they are."""
    return struct.pack(">BBH", 1, 7, HEADER_SIZE + len(attributes)) + AUTHENTICATOR + attributes


def encoded_again(packet: Packet) -> bytes:
    """The packet, made from what was read out of it."""
    return frame(packet.code, packet.identifier, packet.authenticator, packed(list(packet.attributes())))


def refusal(octets: bytes, max_attributes: int = 200) -> Flaw:
    """The rule that these octets break."""
    with pytest.raises(Malformed) as caught:
        parse(octets, max_attributes=max_attributes)
    return caught.value.flaw


@pytest.mark.parametrize("case", [case for case in CASES if case.flaw], ids=lambda case: case.name)
def test_a_malformed_packet_is_refused_for_its_flaw(case: Case) -> None:
    """Every malformed vector is refused, and for the reason that the file gives."""
    assert refusal(case.octets) == case.flaw


@pytest.mark.parametrize("case", GOOD, ids=lambda case: case.name)
def test_a_good_packet_is_read(case: Case) -> None:
    """Every other vector is read, up to Length, and makes the same octets again."""
    packet = parse(case.octets)
    length = int.from_bytes(case.octets[2:4], "big")
    assert packet.octets == encoded_again(packet) == case.octets[:length]
    assert bool(packet.message_authenticator_at) == (case.signature != "absent")
    assert tuple(packet.proxy_states) == case.proxy_states


@pytest.mark.parametrize("case", GOOD, ids=lambda case: case.name)
def test_a_packet_cut_anywhere_is_refused(case: Case) -> None:
    """No prefix of a packet is a packet."""
    whole = parse(case.octets).octets
    for size in range(len(whole)):
        assert refusal(whole[:size]) in (Flaw.TOO_SHORT, Flaw.LENGTH_BEYOND_DATAGRAM)


@pytest.mark.parametrize("case", [case for case in GOOD if len(case.octets) < 400], ids=lambda case: case.name)
def test_a_packet_cut_with_its_length_is_refused_or_whole_attributes(case: Case) -> None:
    """A prefix that says so in Length parses only when it ends where an attribute ends."""
    packet = parse(case.octets)
    ends = {HEADER_SIZE}
    for kind, value in packet.attributes():
        ends.add(max(ends) + len(attribute(kind, value)))
    for size in range(HEADER_SIZE, len(packet.octets)):
        cut = packet.octets[:2] + size.to_bytes(2, "big") + packet.octets[4:size]
        if size in ends:
            assert len(parse(cut).octets) == size
        else:
            assert refusal(cut) in (Flaw.ATTRIBUTE_OVERRUN, Flaw.TRAILING_OCTET)


@pytest.mark.parametrize("exchange", read_exchanges(), ids=lambda exchange: exchange.source)
def test_the_examples_of_the_rfcs(exchange: Exchange) -> None:
    """What the RFCs print is read, and made again, to the octet."""
    for octets in (exchange.request, exchange.reply):
        assert encoded_again(parse(octets)) == octets
    assert parse(exchange.request).first(Type.USER_NAME) == exchange.user_name


@given(rows_of_attributes)
def test_attributes_come_out_as_they_went_in(row: list[tuple[int, bytes]]) -> None:
    """Values by type, in order, and nothing else."""
    packet = parse(request(packed(row)))
    assert list(packet.attributes()) == row
    assert packet.count == len(row)
    for kind in range(256):
        values = [value for one, value in row if one == kind]
        assert packet.all(kind) == values
        assert packet.first(kind) == (values[0] if values else None)
        assert (kind in packet) == bool(values)


@given(st.binary(max_size=PACKET_MAX + 64) | st.binary(max_size=120).map(request), st.integers(0, 300))
@example(b"", 0)
@example(bytes(20), 200)
@example(request(b"\x01"), 200)
def test_any_octets_are_a_packet_or_malformed(octets: bytes, max_attributes: int) -> None:
    """Octets parse, and then make the same octets again, or they are refused as Malformed; never any other error."""
    try:
        packet = parse(octets, max_attributes=max_attributes)
    except Malformed:
        return
    assert packet.count <= max_attributes
    assert encoded_again(packet) == packet.octets == octets[: len(packet.octets)]
    packet.vendor_all(9, 1)
    repr(packet)


@given(st.sampled_from(GOOD), st.data())
def test_any_changed_octet_is_a_packet_or_malformed(case: Case, data: st.DataObject) -> None:
    """Octets of real packets, changed one after another, never raise anything but Malformed."""
    octets = bytearray(case.octets)
    for _ in range(data.draw(st.integers(1, 8))):
        octets[data.draw(st.integers(0, min(len(octets), 120) - 1))] = data.draw(st.integers(0, 255))
        with contextlib.suppress(Malformed):
            packet = parse(bytes(octets))
            assert encoded_again(packet) == packet.octets


def test_the_limit_of_attributes_can_be_chosen() -> None:
    """As many as allowed are read, one more is refused before the rest is looked at."""
    octets = request(attribute(25, b"c") * 5 + b"\x19\x00")
    assert refusal(octets, 5) == Flaw.TOO_MANY_ATTRIBUTES
    assert refusal(octets, 6) == Flaw.ATTRIBUTE_LENGTH
    assert parse(request(attribute(25, b"c") * 5), max_attributes=5).count == 5


def test_malformed_quotes_nothing_of_the_packet() -> None:
    """The text of a refusal, which is logged, holds numbers and no octets of the peer."""
    with pytest.raises(PeerProtocolError) as caught:
        parse(request(attribute(1, b"visible") + attribute(80, b"alsovisible")))
    assert "visible" not in str(caught.value)


def test_a_packet_prints_none_of_its_values() -> None:
    """A packet in a log or a traceback shows numbers alone."""
    assert repr(parse(request(attribute(1, b"alice")))) == "Packet(code=1, identifier=7, 1 attributes, 27 octets)"


def test_where_the_signature_stands() -> None:
    """The offset is that of the sixteen octets, wherever the attribute is."""
    signature = attribute(80, bytes(range(0x50, 0x60)))
    packet = parse(request(attribute(1, b"alice") + signature + attribute(4, bytes(4))))
    at = packet.message_authenticator_at
    assert packet.octets[at : at + 16] == bytes(range(0x50, 0x60))
    assert parse(request(attribute(1, b"alice"))).message_authenticator_at == 0


def test_eap_is_seen() -> None:
    """EAP-Message alone makes a packet one that must be signed."""
    assert parse(request(attribute(79, b"\x02\x01\x00\x04"))).has_eap
    assert not parse(request(attribute(1, b"alice"))).has_eap


def test_vendor_attributes_are_found_wherever_they_stand() -> None:
    """Several in one Vendor-Specific, and over several, in order; other vendors' are not looked into."""
    together = struct.pack(">I", 9) + b"\x01\x05abc\x02\x03x\x01\x02"
    row = attribute(26, together) + vendor_attribute(25461, 1, b"other") + vendor_attribute(9, 1, b"last")
    packet = parse(request(row))
    assert packet.vendor_all(9, 1) == [b"abc", b"", b"last"]
    assert packet.vendor_first(9, 2) == b"x"
    assert packet.vendor_first(25461, 1) == b"other"
    assert packet.vendor_first(9, 3) is None
    assert packet.vendor_first(311, 1) is None


@pytest.mark.parametrize(
    "inside",
    [
        b"\x01",
        b"\x01\x01",
        b"\x01\x01\x02",
        b"\x01\x00",
        b"\x01\x06abc",
        b"\x01\x05abc\x02",
        b"\x01\x05abc\x02\x01",
        b"\x01\x05abc\x01\xff",
    ],
    ids=lambda inside: inside.hex(),
)
def test_a_malformed_vendor_specific_holds_nothing(inside: bytes) -> None:
    """Half of a Vendor-Specific is not believed, and the others are still read."""
    packet = parse(request(attribute(26, struct.pack(">I", 9) + inside)))
    assert packet.vendor_first(9, 1) is None
    packet = parse(request(attribute(26, struct.pack(">I", 9) + inside) + vendor_attribute(9, 1, b"whole")))
    assert packet.vendor_first(9, 1) == b"whole"


@pytest.mark.parametrize("size", range(4))
def test_a_vendor_specific_without_a_vendor_holds_nothing(size: int) -> None:
    """Fewer octets than a vendor's number has."""
    assert parse(request(attribute(26, bytes(size)))).vendor_first(0, 0) is None


@given(st.binary(max_size=64))
def test_any_vendor_specific_can_be_asked(value: bytes) -> None:
    """No octets inside a Vendor-Specific raise anything."""
    packet = parse(request(attribute(26, value)))
    vendor = int.from_bytes(value[:4], "big")
    assert all(len(found) <= len(value) for kind in range(8) for found in packet.vendor_all(vendor, kind))


@given(st.text(max_size=600))
@example("é" * 127)
@example("x" + "é" * 400)
@example("🔑" * 200)
@example("a" * 253)
@example("a" * 254)
@example("")
@example("\udcff")
def test_a_long_text_is_cut_between_characters(text: str) -> None:
    """Every piece is UTF-8 by itself, the pieces are the text, and only the last one has room left for a character."""
    packet = parse(request(text_attributes(Type.REPLY_MESSAGE, text)))
    pieces = packet.all(Type.REPLY_MESSAGE)
    expected = text.encode("utf-8", "replace")
    assert b"".join(pieces) == expected
    assert "".join(piece.decode() for piece in pieces) == expected.decode()
    assert all(VALUE_MAX - 3 <= len(piece) <= VALUE_MAX for piece in pieces[:-1])
    assert all(pieces)


def test_attributes_that_the_wire_does_not_carry() -> None:
    """Types and lengths beyond an octet are mistakes of ours."""
    assert attribute(1, b"x" * VALUE_MAX)[1] == 255
    assert vendor_attribute(9, 1, b"x" * VENDOR_VALUE_MAX)[1] == 255
    for kind, value in ((0, b""), (256, b""), (-1, b""), (1, b"x" * (VALUE_MAX + 1))):
        with pytest.raises(ValueError, match="expected type"):
            attribute(kind, value)
    for vendor, kind, value in ((-1, 1, b""), (1 << 32, 1, b""), (9, 256, b""), (9, 1, b"x" * (VENDOR_VALUE_MAX + 1))):
        with pytest.raises(ValueError, match="of vendor"):
            vendor_attribute(vendor, kind, value)
    for number in (-1, 1 << 32):
        with pytest.raises(ValueError, match="4294967295"):
            integer_attribute(27, number)
    assert integer_attribute(Type.SESSION_TIMEOUT, 3600) == b"\x1b\x06\x00\x00\x0e\x10"


def test_packets_that_the_wire_does_not_carry() -> None:
    """4,096 octets are a packet, 4,097 are none; codes and identifiers have eight bits."""
    room = packed([(25, b"c" * VALUE_MAX)] * 15) + attribute(25, b"c" * 249)
    assert len(parse(frame(1, 0, AUTHENTICATOR, room)).octets) == PACKET_MAX
    with pytest.raises(PacketTooLong, match="4097 octets"):
        frame(1, 0, AUTHENTICATOR, room[:-251] + attribute(25, b"c" * 250))
    for code, identifier, authenticator in ((256, 0, AUTHENTICATOR), (1, 256, AUTHENTICATOR), (1, 0, b"short")):
        with pytest.raises(ValueError, match="authenticator of"):
            frame(code, identifier, authenticator)


def test_the_length_of_a_packet_in_a_stream() -> None:
    """Four octets say how many follow, or that the stream is lost."""
    assert packet_length(b"\x01\x02\x00\x14") == HEADER_SIZE
    assert packet_length(request(b"")[:9]) == HEADER_SIZE
    assert packet_length(b"\x01\x02\x10\x00") == PACKET_MAX
    for header, flaw in (
        (b"\x01\x02\x00", Flaw.TOO_SHORT),
        (b"\x01\x02\x00\x13", Flaw.LENGTH_UNDER_HEADER),
        (b"\x01\x02\x10\x01", Flaw.TOO_LONG),
    ):
        with pytest.raises(Malformed) as caught:
            packet_length(header)
        assert caught.value.flaw == flaw


@pytest.mark.parametrize("case", read_accounting(), ids=lambda case: case.name)
def test_accounting_requests_are_packets_like_others(case: AccountingCase) -> None:
    """Framing does not depend on the code."""
    packet = parse(case.octets)
    assert packet.code == Code.ACCOUNTING_REQUEST
    assert encoded_again(packet) == case.octets
