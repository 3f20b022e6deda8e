"""Where the password ends and the code begins, when both were typed in one text.

Room rule: from the right, by the formats of the user's *own* credentials, at most two readings with a code in them. The reading
"all of it is the password" is marked ABSENT, and the verifier answers it with a question or an exemption, never with an accept.
Passwords keep their bytes exactly as they came.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import assert_never

from mfa_core.model import Grammar, SplitMode
from mfa_core.passcode import Passcode, PasscodeKind, read_passcode
from mfa_core.secret import Secret
from mfa_core.value import hot_value

MAX_CANDIDATES = 2
"""Each reading costs a verification, and a guesser one more chance."""

LETTER_KINDS = frozenset({PasscodeKind.RECOVERY, PasscodeKind.RECOVERY_KEY, PasscodeKind.BYPASS})

_CODES = LETTER_KINDS | {PasscodeKind.DIGITS}
_NOT_A_PASSWORD = frozenset({PasscodeKind.EMPTY, PasscodeKind.JUNK})
_NO_PASSWORD = Secret(b"")
_ABSENT = Passcode(PasscodeKind.ABSENT, Secret(b""))

# The longest code with a separator after every character has 47 bytes; a separator further left cannot precede a code.
_CODE_REGION_BYTES = 64

_B32 = rb"[0-9A-TV-Za-tv-z]{4}"
# Longest first: a key ends in what looks like a recovery code and that in what looks like a bypass code.
_WRITTEN_LETTERS = (
    (PasscodeKind.RECOVERY_KEY, 29, re.compile(rb"-".join([_B32] * 6)).fullmatch),
    (PasscodeKind.RECOVERY, 22, re.compile(rb"[0-9]{2}-" + rb"-".join([_B32] * 4)).fullmatch),
    (PasscodeKind.BYPASS, 14, re.compile(rb"-".join([_B32] * 3)).fullmatch),
)


@hot_value
class CodeFormats:
    """What the codes of one user look like: the lengths of the digits codes, and which kinds of letter codes there are.

    For a user without credentials give the defaults, so that the work is the same.
    """

    digits: frozenset[int] = frozenset({6})
    letters: frozenset[PasscodeKind] = LETTER_KINDS


@hot_value
class Split:
    """One reading. ``password`` is empty where the grammar says that nothing but a code was typed."""

    password: Secret
    passcode: Passcode


def whole(typed: bytes) -> Split:
    """The reading that all of ``typed`` is the password."""
    return Split(Secret(typed), _ABSENT)


def split(typed: bytes, grammar: Grammar, formats: CodeFormats, *, ours: bool = False) -> tuple[Split, ...]:
    """Return the readings of ``typed``, longest code first; none when no code of this user can stand in it. Never raises.

    ``ours`` says that a backend of ours checks passwords; only AUTO asks.

    SEPARATE and OTP_ONLY: one reading, of any kind, with an empty password. The other modes: only codes that ``formats``
    has, and only behind a password of at least one byte, because directories answer "yes" to an empty one (RFC 4513
    section 5.1.2). What is EMPTY or JUNK as a whole comes back as that one reading in every mode, so that it can be told
    apart from a missing code.

    PASSWORD: the one reading is that all of it is the password. AUTO: where passwords are ours, the readings of SEPARATOR,
    and those of APPEND unless a code of digits stands behind a separator, and behind them that all of it is the password;
    where they are not, a code alone is just that.

    APPEND takes letter codes only as they are printed, with their hyphens: without them the end of most passwords would
    read as one. KEYWORD takes what SEPARATOR takes, and the words.
    """
    match grammar.mode:
        case SplitMode.SEPARATE | SplitMode.OTP_ONLY:
            return (Split(Secret(b""), read_passcode(typed)),)
        case SplitMode.APPEND:
            readings = _appended(typed, formats)
        case SplitMode.SEPARATOR:
            readings = _separated(typed, grammar.separator, formats, words=frozenset())
        case SplitMode.KEYWORD:
            readings = _separated(typed, grammar.separator, formats, words=frozenset({PasscodeKind.KEYWORD}))
        case SplitMode.PASSWORD:
            return (whole(typed),) if typed else (Split(_NO_PASSWORD, read_passcode(typed)),)
        case SplitMode.AUTO:
            return _automatic(typed, grammar.separator, formats, ours=ours)
        case _:
            assert_never(grammar.mode)
    found = tuple(reading for reading, _ in zip(readings, range(MAX_CANDIDATES), strict=False))
    if not found and (alone := read_passcode(typed)).kind in _NOT_A_PASSWORD:
        return (Split(_NO_PASSWORD, alone),)
    return found


def _automatic(typed: bytes, separator: str, formats: CodeFormats, *, ours: bool) -> tuple[Split, ...]:
    alone = read_passcode(typed)
    if alone.kind in _NOT_A_PASSWORD or (not ours and alone.kind in _CODES):
        return (Split(_NO_PASSWORD, alone),)
    found = tuple(_separated(typed, separator, formats, words=frozenset()))
    if all(reading.passcode.kind is not PasscodeKind.DIGITS for reading in found):
        # "Hello,world1123456": what stands behind the comma could be a bypass code, and is the end of a password and a code.
        found += tuple(_appended(typed, formats))
    found = found[:MAX_CANDIDATES]
    # Where nobody of ours checks the password, a code that stands behind one is all there is to say.
    return (*found, whole(typed)) if ours or not found else found


def _appended(typed: bytes, formats: CodeFormats) -> Iterator[Split]:
    # The shortest code of letters has a hyphen among its last five characters.
    for kind, length, is_written in _WRITTEN_LETTERS if b"-" in typed[-5:] else ():
        if kind in formats.letters and len(typed) > length and is_written(typed[-length:]):
            passcode = read_passcode(typed[-length:])
            if passcode.kind is kind:
                yield Split(Secret(typed[:-length]), passcode)
    for length in sorted(formats.digits, reverse=True):
        tail = typed[-length:]
        if len(typed) > length and tail.isdigit():  # of bytes: ASCII digits only
            passcode = read_passcode(tail)
            if passcode.kind is PasscodeKind.DIGITS:
                yield Split(Secret(typed[:-length]), passcode)


def _separated(typed: bytes, separator: str, formats: CodeFormats, *, words: frozenset[PasscodeKind]) -> Iterator[Split]:
    mark = separator.encode("utf-8", "surrogateescape")
    if not mark:
        return
    kinds = formats.letters | words
    # Left to right inside the region: with a separator that also stands inside codes ("-") the longest code comes first.
    start = typed.find(mark, max(1, len(typed) - _CODE_REGION_BYTES))
    while start != -1:
        passcode = read_passcode(typed[start + len(mark) :])
        if passcode.kind in kinds or (
            passcode.kind is PasscodeKind.DIGITS and len(passcode.text) in formats.digits
        ):
            yield Split(Secret(typed[:start]), passcode)
        start = typed.find(mark, start + 1)
