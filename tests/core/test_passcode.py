"""What was typed is classified once, and codes of letters are read as they were written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfa_core.errors import InvalidInput
from mfa_core.passcode import (
    PasscodeKind,
    format_bypass_code,
    format_recovery_code,
    format_recovery_key,
    read_passcode,
)

K = PasscodeKind
JUNK = b"\b\n\r\x7fINCORRECT"


@pytest.mark.parametrize(
    ("typed", "kind", "text"),
    [
        (b"", K.EMPTY, b""),
        (b"123456", K.DIGITS, b"123456"),
        (b"12345678", K.DIGITS, b"12345678"),
        (b"1234567890", K.DIGITS, b"1234567890"),
        (b"123 456", K.DIGITS, b"123456"),
        (b"123-456", K.DIGITS, b"123456"),
        (b"12 34 56", K.DIGITS, b"123456"),
        (b"12345", K.MALFORMED, b""),
        (b"12345678901", K.MALFORMED, b""),
        (b" 123456", K.MALFORMED, b""),
        (b"123456 ", K.MALFORMED, b""),
        (b"123456\n", K.MALFORMED, b""),
        (b"123456\x00", K.MALFORMED, b""),
        (b"123  456", K.MALFORMED, b""),
        (b"123\t456", K.MALFORMED, b""),
        (b"-123456", K.MALFORMED, b""),
        (b"+12345", K.MALFORMED, b""),
        (b"12345.6", K.MALFORMED, b""),
        ("１２３４５６".encode(), K.MALFORMED, b""),  # noqa: RUF001  full-width on purpose
        ("١٢٣٤٥٦".encode(), K.MALFORMED, b""),
        ("😀".encode(), K.MALFORMED, b""),
        (b"\xff\xfe", K.MALFORMED, b""),
        (b"1" * 128, K.MALFORMED, b""),
        (b"1" * 10_000, K.MALFORMED, b""),
        (b"push", K.KEYWORD, b"push"),
        (b"SMS", K.KEYWORD, b"sms"),
        (b"phone", K.KEYWORD, b"phone"),
        (b"pushh", K.MALFORMED, b""),
        (b"p-ush", K.MALFORMED, b""),
        (b"ABCD-EFGH-JKMN", K.BYPASS, b"ABCDEFGHJKMN"),
        (b"abcdefghjkmn", K.BYPASS, b"ABCDEFGHJKMN"),
        (b"1234-5678-9012", K.BYPASS, b"123456789012"),
        (b"123456789012", K.MALFORMED, b""),
        (b"OIL1-oil0-AAAA", K.BYPASS, b"01110110AAAA"),
        (b"UUUU-EFGH-JKMN", K.MALFORMED, b""),
        (b"01-ABCD-EFGH-JKMN-PQRS", K.RECOVERY, b"ABCDEFGHJKMNPQRS"),
        (b"01ABCDEFGHJKMNPQRS", K.RECOVERY, b"ABCDEFGHJKMNPQRS"),
        (b"oi abcd efgh jkmn pqrs", K.RECOVERY, b"ABCDEFGHJKMNPQRS"),
        (b"00-ABCD-EFGH-JKMN-PQRS", K.MALFORMED, b""),
        (b"A1-ABCD-EFGH-JKMN-PQRS", K.MALFORMED, b""),
        (b"012345678901234567", K.MALFORMED, b""),
        (b"ABCD-EFGH-JKMN-PQRS-TVWX-YZ01", K.RECOVERY_KEY, b"ABCDEFGHJKMNPQRSTVWXYZ01"),
        (b"abcdefghjkmnpqrstvwxyzo1", K.RECOVERY_KEY, b"ABCDEFGHJKMNPQRSTVWXYZ01"),
        (b"ABCD-EFGH-JKMN-PQRS-TVWX-YZ0", K.MALFORMED, b""),
        (JUNK, K.JUNK, b""),
        (b"\b\n\r\x7fINCORRECX", K.MALFORMED, b""),
        (b"INCORRECT", K.MALFORMED, b""),
    ],
)
def test_typed_text_is_one_kind_in_one_spelling(typed: bytes, kind: PasscodeKind, text: bytes) -> None:
    """The table is the specification of the shapes."""
    passcode = read_passcode(typed)

    assert (passcode.kind, passcode.text.reveal()) == (kind, text)
    assert (passcode.recovery_index != 0) == (kind is K.RECOVERY)


@pytest.mark.parametrize("length", [1, 2, 5, 6, 12, 13, 14, 26, 127, 129, 4096])
def test_the_filler_of_sshd_is_junk_at_every_length(length: int) -> None:
    """sshd repeats and cuts it to the length of what was typed."""
    assert read_passcode((JUNK * 400)[:length]).kind is K.JUNK


@given(st.binary(max_size=200) | st.text(alphabet="0123456789 -ABCUILOabc\b\n", max_size=60).map(str.encode))
def test_any_bytes_are_a_passcode(typed: bytes) -> None:
    """Never an exception; and the text, when there is one, is short ASCII."""
    passcode = read_passcode(typed)

    assert passcode.text.reveal().isalnum() or not passcode.text
    assert len(passcode.text) <= 24
    assert "Secret(...)" in repr(passcode)


@given(st.integers(1, 99), st.binary(min_size=10, max_size=10))
def test_a_recovery_code_is_read_as_it_was_written(index: int, raw: bytes) -> None:
    """In upper and lower case, with hyphens or blanks."""
    written = format_recovery_code(index, raw)
    variants = {written, written.lower(), written.replace("-", " ")}

    read = [read_passcode(variant.encode()) for variant in variants]

    assert {(code.kind, code.recovery_index) for code in read} == {(K.RECOVERY, index)}
    assert {code.text.reveal() for code in read} == {written[3:].replace("-", "").encode()}


@given(st.binary(min_size=15, max_size=15), st.binary(min_size=8, max_size=8))
def test_a_key_and_a_bypass_code_are_read_as_they_were_written(key: bytes, bypass: bytes) -> None:
    """The writing side and the reading side agree."""
    assert read_passcode(format_recovery_key(key).encode()).kind is K.RECOVERY_KEY
    assert read_passcode(format_bypass_code(bypass).encode()).kind is K.BYPASS


@given(st.binary(min_size=15, max_size=15), st.binary(min_size=15, max_size=15))
def test_two_keys_are_written_differently(one: bytes, other: bytes) -> None:
    """No bit of the random bytes is lost."""
    assert (format_recovery_key(one) == format_recovery_key(other)) == (one == other)


def test_the_written_shapes_are_the_documented_ones() -> None:
    """Groups of four, Crockford's alphabet, the number in front."""
    assert format_recovery_code(7, bytes(10)) == "07-0000-0000-0000-0000"
    assert format_recovery_code(99, b"\xff" * 10) == "99-ZZZZ-ZZZZ-ZZZZ-ZZZZ"
    assert format_recovery_key(b"\xff" * 15) == "ZZZZ-ZZZZ-ZZZZ-ZZZZ-ZZZZ-ZZZZ"
    assert format_bypass_code(b"\xff" * 7 + b"\xf0") == "ZZZZ-ZZZZ-ZZZZ"
    assert format_bypass_code(b"\x00" * 7 + b"\x0f") == "0000-0000-0000"


def test_a_code_of_another_size_is_not_written() -> None:
    """The caller's mistake is named, the bytes are not."""
    for call in (
        lambda: format_recovery_code(0, bytes(10)),
        lambda: format_recovery_code(100, bytes(10)),
        lambda: format_recovery_code(1, bytes(9)),
        lambda: format_recovery_key(bytes(16)),
        lambda: format_bypass_code(bytes(7)),
    ):
        with pytest.raises(InvalidInput):
            call()
