"""What reaches a terminal or a log is harmless."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pam_mfa.plain_text import cut_utf8, one_line, paragraph, quoted

anything = st.text(max_size=300) | st.binary(max_size=300).map(lambda raw: raw.decode("utf-8", "surrogateescape"))


@given(anything, st.integers(0, 100))
def test_one_line_holds_no_control_character_and_fits(text: str, limit: int) -> None:
    shown = one_line(text, limit=limit)

    assert not any(unicodedata.category(character) in ("Cc", "Cs") for character in shown)
    assert len(shown.encode()) <= limit


@given(anything)
def test_a_paragraph_keeps_line_feeds_and_no_other_control_character(text: str) -> None:
    shown = paragraph(text, limit=8_192)

    assert shown.count("\n") == text.count("\n")
    assert not any(unicodedata.category(one) in ("Cc", "Cs") for one in shown if one != "\n")


@given(st.binary(max_size=200) | anything)
def test_a_quoted_value_is_printable_ascii_and_cannot_end_itself(value: bytes | str) -> None:
    shown = quoted(value)

    assert shown.isascii()
    assert shown.isprintable()
    assert '"' not in shown[1 : shown.rindex('"')]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Code: ", "Code: "),
        ("\x1b[2Jcleared", "[2Jcleared"),
        ("a\nb\r\nc", "a b c"),
        ("\u202egnirts", "gnirts"),
        ("Größe ✓", "Größe ✓"),
        ("\udcff", "?"),
        ("\x9b31m", "31m"),
    ],
)
def test_what_a_prompt_makes_of_it(text: str, shown: str) -> None:
    assert one_line(text, limit=100) == shown


def test_a_character_is_never_cut_in_two() -> None:
    assert cut_utf8("aé✓", 3) == "aé"
    assert cut_utf8("aé✓", 5) == "aé"


def test_a_long_value_ends_in_dots() -> None:
    assert quoted(b"x" * 65) == '"' + "x" * 64 + '..."'
