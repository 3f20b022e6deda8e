"""Password and code in one text: read from the right, by the user's own formats."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfa_core.model import Grammar, SplitMode
from mfa_core.passcode import PasscodeKind, format_recovery_code
from mfa_core.split import CodeFormats, split

K = PasscodeKind
SIX = CodeFormats()
BOTH = CodeFormats(digits=frozenset({6, 8}))
DIGITS_ONLY = CodeFormats(letters=frozenset())
SEPARATE = Grammar()
OTP_ONLY = Grammar(SplitMode.OTP_ONLY)
APPEND = Grammar(SplitMode.APPEND)
COMMA = Grammar(SplitMode.SEPARATOR)
RECOVERY_ONLY = CodeFormats(letters=frozenset({K.RECOVERY}))
HYPHEN = Grammar(SplitMode.SEPARATOR, "-")
WORDS = Grammar(SplitMode.KEYWORD)

RECOVERY = b"07-ABCD-EFGH-JKMN-PQRS"
KEY = b"ABCD-EF12-JKMN-PQRS-TVWX-YZ01"
BYPASS = b"ABCD-EFGH-JKMN"


@pytest.mark.parametrize(
    ("typed", "grammar", "formats", "readings"),
    [
        pytest.param(b"123456", SEPARATE, SIX, [(b"", K.DIGITS)], id="separate"),
        pytest.param(b"12345678", SEPARATE, SIX, [(b"", K.DIGITS)], id="separate leaves the length to the verifier"),
        pytest.param(b"secret123456", OTP_ONLY, SIX, [(b"", K.BYPASS)], id="otp_only has no password"),
        pytest.param(b"secret!", SEPARATE, SIX, [(b"", K.MALFORMED)], id="separate, no code"),
        pytest.param(b"", SEPARATE, SIX, [(b"", K.EMPTY)], id="separate, empty"),
        pytest.param(b"secret123456", APPEND, SIX, [(b"secret", K.DIGITS)], id="append"),
        pytest.param(b"secret99123456", APPEND, SIX, [(b"secret99", K.DIGITS)], id="append, password ends in digits"),
        pytest.param(
            b"secret99123456", APPEND, BOTH,
            [(b"secret", K.DIGITS), (b"secret99", K.DIGITS)], id="append, two lengths",
        ),
        pytest.param(b"secret123456", APPEND, BOTH, [(b"secret", K.DIGITS)], id="append, two lengths, one fits"),
        pytest.param(b"secret12345", APPEND, SIX, [], id="append, code too short"),
        pytest.param(b"secret", APPEND, SIX, [], id="append, no code"),
        pytest.param(b"123456", APPEND, SIX, [], id="append, no password"),
        pytest.param(b"secret 123456", APPEND, SIX, [(b"secret ", K.DIGITS)], id="append keeps the blank"),
        pytest.param(b"secret123456 ", APPEND, SIX, [], id="append, trailing blank"),
        pytest.param(b"\xff\xfe\x00123456", APPEND, SIX, [(b"\xff\xfe\x00", K.DIGITS)], id="append, password is no UTF-8"),
        pytest.param("pass１２３４５６".encode(), APPEND, SIX, [], id="append, full-width digits"),  # noqa: RUF001
        pytest.param(
            b"secret" + RECOVERY, APPEND, SIX,
            [(b"secret", K.RECOVERY), (b"secret07-ABCD-", K.BYPASS)], id="append, recovery",
        ),
        pytest.param(b"secret" + RECOVERY.lower(), APPEND, RECOVERY_ONLY, [(b"secret", K.RECOVERY)], id="append, lower case"),
        pytest.param(
            b"secret" + KEY, APPEND, SIX,
            [(b"secret", K.RECOVERY_KEY), (b"secretABCD-EF", K.RECOVERY)], id="append, key",
        ),
        pytest.param(b"secret" + BYPASS, APPEND, SIX, [(b"secret", K.BYPASS)], id="append, bypass"),
        pytest.param(b"secret" + BYPASS, APPEND, DIGITS_ONLY, [], id="append, user has no letter codes"),
        pytest.param(b"secretABCDEFGHJKMN", APPEND, SIX, [], id="append, letters without hyphens are the password"),
        pytest.param(b"", APPEND, SIX, [(b"", K.EMPTY)], id="append, empty"),
        pytest.param(b"\b\n\r\x7fIN", APPEND, SIX, [(b"", K.JUNK)], id="append, junk of sshd"),
        pytest.param(b"secret,123456", COMMA, SIX, [(b"secret", K.DIGITS)], id="separator"),
        pytest.param(b"se,cr,et,123456", COMMA, SIX, [(b"se,cr,et", K.DIGITS)], id="separator in the password"),
        pytest.param(b"secret,,123456", COMMA, SIX, [(b"secret,", K.DIGITS)], id="separator ends the password"),
        pytest.param(b"secret,123 456", COMMA, SIX, [(b"secret", K.DIGITS)], id="separator, grouped digits"),
        pytest.param(b"secret, 123456", COMMA, SIX, [], id="separator, blank before the code"),
        pytest.param(b",123456", COMMA, SIX, [], id="separator, no password"),
        pytest.param(b"123456", COMMA, SIX, [], id="separator missing"),
        pytest.param(b"secret,", COMMA, SIX, [], id="separator, no code"),
        pytest.param(b"secret,12345678", COMMA, SIX, [], id="separator, not the length of this user"),
        pytest.param(b"secret,12345678", COMMA, BOTH, [(b"secret", K.DIGITS)], id="separator, second length"),
        pytest.param(b"\xff,\xfe,123456", COMMA, SIX, [(b"\xff,\xfe", K.DIGITS)], id="separator, no UTF-8"),
        pytest.param(b"secret,07ABCDEFGHJKMNPQRS", COMMA, SIX, [(b"secret", K.RECOVERY)], id="separator, bare recovery"),
        pytest.param(b"secret," + KEY, COMMA, SIX, [(b"secret", K.RECOVERY_KEY)], id="separator, key"),
        pytest.param(b"secret,push", COMMA, SIX, [], id="separator knows no words"),
        pytest.param(b"secret::123456", Grammar(SplitMode.SEPARATOR, "::"), SIX, [(b"secret", K.DIGITS)], id="two characters"),
        pytest.param("geheim§123456".encode(), Grammar(SplitMode.SEPARATOR, "§"), SIX, [(b"geheim", K.DIGITS)], id="no ASCII"),
        pytest.param(b"secret123456", Grammar(SplitMode.SEPARATOR, ""), SIX, [], id="empty separator finds nothing"),
        pytest.param(
            b"secret-" + RECOVERY, HYPHEN, SIX,
            [(b"secret", K.RECOVERY), (b"secret-07-ABCD", K.BYPASS)], id="hyphen, longest first",
        ),
        pytest.param(b"p" * 4000 + b",123456", COMMA, SIX, [(b"p" * 4000, K.DIGITS)], id="long password"),
        pytest.param(b"secret,push", WORDS, SIX, [(b"secret", K.KEYWORD)], id="keyword"),
        pytest.param(b"secret,SMS", WORDS, SIX, [(b"secret", K.KEYWORD)], id="keyword in capitals"),
        pytest.param(b"secret,123456", WORDS, SIX, [(b"secret", K.DIGITS)], id="keyword mode takes codes"),
        pytest.param(b"secret,pull", WORDS, SIX, [], id="unknown word"),
        pytest.param(b"push", WORDS, SIX, [], id="keyword, no password"),
    ],
)
def test_a_text_has_these_readings(
    typed: bytes, grammar: Grammar, formats: CodeFormats, readings: list[tuple[bytes, PasscodeKind]]
) -> None:
    """The table is the specification of the grammar."""
    found = [(one.password.reveal(), one.passcode.kind) for one in split(typed, grammar, formats)]

    assert found == readings


GRAMMARS = st.builds(Grammar, st.sampled_from(SplitMode), st.sampled_from([",", ";", "-", "::", "", "0", "§"]))
FORMATS = st.builds(
    CodeFormats,
    st.frozensets(st.integers(6, 10), max_size=3),
    st.frozensets(st.sampled_from([K.RECOVERY, K.RECOVERY_KEY, K.BYPASS])),
)
TYPED = st.binary(max_size=80) | st.text(alphabet="0123456789-,;: ABCdef", max_size=80).map(str.encode)


@given(TYPED, GRAMMARS, FORMATS)
def test_no_reading_makes_the_whole_text_the_password(typed: bytes, grammar: Grammar, formats: CodeFormats) -> None:
    """At most two readings; password, mark and code follow each other in what was typed, and a code is always there."""
    readings = split(typed, grammar, formats)

    assert len(readings) <= 2
    for reading in readings:
        password = reading.password.reveal()
        assert typed.startswith(password)
        if reading.passcode.kind is K.ABSENT:
            assert grammar.mode in {SplitMode.PASSWORD, SplitMode.AUTO}
            continue
        assert len(password) < len(typed) or typed == b""
        if password:
            assert reading.passcode.kind in {K.DIGITS, K.KEYWORD} | formats.letters
        if password and reading.passcode.kind is K.DIGITS:
            assert len(reading.passcode.text) in formats.digits


@pytest.mark.parametrize(
    ("typed", "readings"),
    [
        pytest.param(b"pass,word123456", [(b"pass,word", K.DIGITS)], id="appended, with a separator in the password"),
        pytest.param(b"Hi,world1123456", [(b"Hi", K.BYPASS), (b"Hi,world1", K.DIGITS)], id="end that could be a bypass code"),
        pytest.param(b"Hi,world1,123456", [(b"Hi,world1", K.DIGITS)], id="digits behind a separator are no end of a password"),
        pytest.param(b"Hi," + BYPASS, [(b"Hi", K.BYPASS), (b"Hi,", K.BYPASS)], id="bypass code behind a separator"),
    ],
)
def test_auto_reads_separated_and_appended(typed: bytes, readings: list[tuple[bytes, K]]) -> None:
    """And that all of it is the password, where passwords are ours."""
    found = split(typed, Grammar(SplitMode.AUTO), SIX, ours=True)

    assert [(one.password.reveal(), one.passcode.kind) for one in found] == [*readings, (typed, K.ABSENT)]


@given(st.binary(min_size=1, max_size=64), st.from_regex(rb"[0-9]{6}", fullmatch=True), st.sampled_from([APPEND, COMMA, WORDS]))
def test_the_password_keeps_its_bytes(password: bytes, code: bytes, grammar: Grammar) -> None:
    """Whatever stands before the code comes back as it was."""
    mark = b"" if grammar.mode is SplitMode.APPEND else b","

    readings = split(password + mark + code, grammar, SIX)

    assert (password, code) in [(one.password.reveal(), one.passcode.text.reveal()) for one in readings]


@given(
    st.binary(min_size=1, max_size=64),
    st.integers(1, 99),
    st.binary(min_size=10, max_size=10),
    st.sampled_from([APPEND, COMMA]),
)
def test_a_recovery_code_is_found_behind_any_password(password: bytes, index: int, raw: bytes, grammar: Grammar) -> None:
    """Among the two readings, also when its end looks like a bypass code."""
    mark = b"" if grammar.mode is SplitMode.APPEND else b","

    readings = split(password + mark + format_recovery_code(index, raw).encode(), grammar, SIX)

    assert (password, index) in [(one.password.reveal(), one.passcode.recovery_index) for one in readings]
