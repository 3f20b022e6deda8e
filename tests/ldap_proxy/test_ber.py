"""The framing: the shared vectors, every way that octets can come, and properties over all octets."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ldap_proxy import ber
from ldap_proxy.ber import Head, Malformed, TooLarge, element, expect, head, integer, integer_octets, length_octets, wrapped
from mfa_core.errors import PeerProtocolError
from tests.ldap_proxy.ldap_vectors import LIMIT, Broken, Message, read_broken, read_messages

MESSAGES = read_messages()
BROKEN = read_broken()
Outcome = Head | tuple[type[Malformed], str] | None


def outcome(buffer: ber.Buffer, start: int, limit: int, reading: Any = head) -> Outcome:
    """What is said about the message at ``start``, a refusal as a value."""
    try:
        said: Head | None = reading(buffer, start, limit)
    except Malformed as refused:
        return type(refused), refused.text
    return said


def with_length(tag: int, content: bytes, form: int) -> bytes:
    """An element with ``form`` octets of length; 0 is the short form where that does."""
    if form == 0 and len(content) < 0x80:
        return bytes((tag, len(content))) + content
    form = max(form, 1, (len(content).bit_length() + 7) // 8)
    return bytes((tag, 0x80 | form)) + len(content).to_bytes(form, "big") + content


forms = st.integers(0, 4)
sizes = st.one_of(st.integers(0, 300), st.sampled_from([125, 126, 127, 128, 129, 255, 256, 65_535, 65_536]))


@st.composite
def messages(draw: st.DrawFn) -> tuple[bytes, Head]:
    """A message with lengths of any form, and what is to be said of it."""
    message_id = draw(st.one_of(st.integers(0, 300), st.integers(0, 2**31 - 1), st.sampled_from([127, 128, 32_767, 32_768])))
    shortest = integer_octets(message_id)[2:]
    digits = bytes(draw(st.integers(0, 4 - len(shortest)))) + shortest
    tag = draw(st.integers(0, 255).filter(lambda tag: tag & 0x1F != 0x1F))
    content = bytes(draw(sizes))
    operation = with_length(tag, content, draw(forms))
    controls = draw(st.one_of(st.just(b""), st.builds(with_length, st.just(0xA0), st.builds(bytes, sizes), forms)))
    start = with_length(0x02, digits, draw(forms)) + operation
    whole = with_length(0x30, start + controls, draw(forms))
    op_end = len(whole) - len(controls)
    return whole, (len(whole), message_id, tag, op_end - len(content), op_end)


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message.name)
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_a_message_is_found_among_others(message: Message, kind: Any) -> None:
    """Wherever it stands, in whichever kind of buffer, its envelope is read."""
    for before, after in ((b"", b""), (b"\x00" * 7, b""), (MESSAGES[0].octets, MESSAGES[1].octets)):
        found = head(kind(before + message.octets + after), len(before), LIMIT)
        assert found is not None
        end, message_id, tag, op_start, op_end = found
        assert (end, message_id, tag) == (len(before) + len(message.octets), message.message_id, message.tag)
        assert op_start <= op_end == end - len(message.controls)


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message.name)
def test_a_message_that_comes_octet_by_octet_is_known_by_its_head(message: Message) -> None:
    """Nothing is said until it can be; then the same is said whatever else comes."""
    whole = head(message.octets, 0, LIMIT)
    said = [head(message.octets[:size], 0, LIMIT) for size in range(len(message.octets) + 1)]
    first = next(size for size, found in enumerate(said) if found is not None)
    assert set(said[:first]) <= {None}
    assert set(said[first:]) == {whole}
    assert whole is not None
    assert first <= whole[3]  # the tag and length of the operation are the last octets needed


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.name)
def test_what_is_no_message_is_refused_as_soon_as_it_shows(broken: Broken) -> None:
    """Every malformed vector is refused from the octet that shows it on, and not before, alone and with others behind it."""
    for size in range(len(broken.octets) + 1):
        said = outcome(broken.octets[:size], 0, broken.limit)
        if size < broken.shown_at:
            assert not said or isinstance(said[0], int)
        else:
            assert said
            assert said[0] is (TooLarge if broken.too_large else Malformed)
    assert outcome(broken.octets + MESSAGES[0].octets, 0, broken.limit) == outcome(broken.octets, 0, broken.limit)


def test_nothing_has_come() -> None:
    """No octets say nothing, at the end of a buffer too."""
    assert head(b"", 0, LIMIT) is None
    assert head(MESSAGES[0].octets, len(MESSAGES[0].octets), LIMIT) is None


def test_the_limit_counts_the_whole_message() -> None:
    """A message of exactly the limit passes, one octet more does not; the text says both numbers."""
    octets = MESSAGES[0].octets
    assert head(octets, 0, len(octets)) is not None
    with pytest.raises(TooLarge) as refused:
        head(octets, 0, len(octets) - 1)
    assert refused.value.text == f"a message of {len(octets)} octets, expected at most {len(octets) - 1}"


def test_an_announced_size_is_refused_before_it_is_waited_for() -> None:
    """Six octets that promise two gigabytes are enough."""
    with pytest.raises(TooLarge):
        head(bytes.fromhex("30847fffffff"), 0, 4 * 1024 * 1024)


def test_a_filter_nested_8000_deep_is_a_length() -> None:
    """Nothing here goes into depth."""
    nested = b"\x87\x02cn"
    for _ in range(8000):
        nested = wrapped(0xA2, nested)
    whole = wrapped(0x30, integer_octets(1) + wrapped(0x63, nested))
    assert head(whole, 0, LIMIT) == (len(whole), 1, 0x63, len(whole) - len(nested), len(whole))


def test_malformed_is_the_peers_fault_and_quotes_nothing() -> None:
    """The exception is one of a peer that broke the protocol, and tells an administrator where to look."""
    with pytest.raises(PeerProtocolError) as refused:
        head(b"secret", 0, LIMIT)
    assert isinstance(refused.value, Malformed)
    assert refused.value.text == str(refused.value) == "a message that begins with 0x73, expected 0x30"
    assert refused.value.cure


@given(messages(), st.binary(max_size=12), st.binary(max_size=12))
def test_every_form_of_length_is_read(made: tuple[bytes, Head], before: bytes, after: bytes) -> None:
    """Lengths may be longer than they need be, message IDs too, anywhere."""
    octets, (end, message_id, tag, op_start, op_end) = made
    at = len(before)
    expected = (at + end, message_id, tag, at + op_start, at + op_end)
    assert head(before + octets + after, at, 1 << 20) == expected
    assert head(before + octets, at, end) == expected
    assert outcome(before + octets, at, end - 1) == (TooLarge, f"a message of {end} octets, expected at most {end - 1}")


@given(messages(), st.data())
def test_a_cut_message_is_waited_for(made: tuple[bytes, Head], data: st.DataObject) -> None:
    """A prefix is never refused: it is the whole message's head, or nothing yet."""
    octets, whole = made
    size = data.draw(st.integers(0, len(octets)))
    assert head(octets[:size], 0, 1 << 20) == (whole if size >= whole[3] else None)


@st.composite
def disturbed(draw: st.DrawFn) -> bytes:
    """A message of the vectors with octets at its beginning changed, and perhaps cut."""
    octets = bytearray(draw(st.sampled_from(MESSAGES)).octets)
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, min(len(octets), 24) - 1))
        octets[at] = draw(
            st.one_of(
                st.integers(0, 255), st.sampled_from([1, 2, 3, 4, 5, 0x30, 0x7F, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0xA0])
            )
        )
    return bytes(octets[: draw(st.integers(0, len(octets)))]) if draw(st.booleans()) else bytes(octets)


@given(st.one_of(st.binary(max_size=40), disturbed()), st.integers(0, 80))
@example(bytes.fromhex("300702010342a084000000") + bytes(200), 65_536)
@example(bytes.fromhex("30818b0201034200a084") + bytes(132), 65_536)
def test_the_quick_reading_says_what_the_careful_one_says(octets: bytes, limit: int) -> None:
    """Whatever comes, both give the same head, the same wait or the same refusal, for any part that has come."""
    for size in range(len(octets) + 1):
        for bound in (limit, LIMIT):
            assert outcome(octets[:size], 0, bound) == outcome(octets[:size], 0, bound, ber._head_carefully)


@given(st.one_of(st.binary(max_size=40), disturbed()))
def test_what_is_said_once_is_never_taken_back(octets: bytes) -> None:
    """As octets come, waiting turns into a head or a refusal, and a head into a refusal for what follows the operation only."""
    said = [outcome(octets[:size], 0, LIMIT) for size in range(len(octets) + 1)]
    for before, now in itertools.pairwise(said):
        if before is None:
            continue
        if isinstance(before[0], type):
            assert now is not None
            assert now[0] is before[0]
        elif now != before:
            assert now is not None
            assert now[0] is Malformed
            assert "after the operation" in str(now[1]) or "controls" in str(now[1])


@given(st.one_of(st.binary(max_size=40), disturbed()))
def test_a_head_lies_within_its_message(octets: bytes) -> None:
    """The offsets rise, and everything that is said fits the octets."""
    said = outcome(octets, 0, LIMIT)
    if said is not None and len(said) == 5:
        end, message_id, tag, op_start, op_end = said
        assert 0 <= message_id <= ber.MESSAGE_ID_MAX
        assert 7 <= op_start <= op_end <= end <= LIMIT
        assert tag in octets
        assert op_end == end or op_end >= len(octets) or octets[op_end] in (0xA0, 0x8A)


@given(st.binary(max_size=60), st.integers(0, 60), st.integers(0, 60))
def test_an_element_fits_what_holds_it(octets: bytes, at: int, end: int) -> None:
    """Whatever the octets are, an element is within its bounds or Malformed."""
    end = min(end, len(octets))
    try:
        tag, start, after = element(octets, at, end)
    except Malformed:
        return
    assert at + 2 <= start <= after <= end
    assert tag == octets[at]


@given(st.integers(0, 255).filter(lambda tag: tag & 0x1F != 0x1F), sizes, forms)
def test_what_is_wrapped_is_found_again(tag: int, size: int, form: int) -> None:
    """An element comes out as it went in, with any form of length; ours is the shortest."""
    content = bytes(size)
    octets = with_length(tag, content, form)
    assert element(octets, 0, len(octets)) == (tag, len(octets) - size, len(octets))
    assert expect(octets, 0, len(octets), tag) == (len(octets) - size, len(octets))
    assert wrapped(tag, content) == bytes((tag,)) + length_octets(size) + content
    assert len(wrapped(tag, content)) <= len(octets)


@given(st.integers(-(2**31), 2**31 - 1))
@example(127)
@example(128)
@example(-128)
@example(-129)
@example(0)
def test_an_integer_is_written_in_its_shortest_form(number: int) -> None:
    """X.690 section 8.3.2: the first nine bits are not all alike."""
    octets = integer_octets(number)
    assert integer(octets, 2, len(octets)) == number
    assert octets[:2] == bytes((2, len(octets) - 2))
    if len(octets) > 3:
        assert octets[2] << 1 | octets[3] >> 7 not in (0, 0x1FF)


@pytest.mark.parametrize("size", [0, 5])
def test_an_integer_has_one_to_four_octets(size: int) -> None:
    """Others are refused, with their size."""
    with pytest.raises(Malformed, match=f"{size} octets"):
        integer(bytes(8), 0, size)


def test_another_element_is_not_taken_for_the_expected_one() -> None:
    """The tag is looked at."""
    with pytest.raises(Malformed, match="0x04, expected 0x02"):
        expect(b"\x04\x00", 0, 2, 0x02)
