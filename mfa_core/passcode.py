"""What a person typed as a code, classified once; and how codes of letters are written.

Room rule: bytes in, one checked value out, and nothing behind this file looks at raw bytes again. Whether the code is *right*
is not known here.

The shapes cannot be confused, because they differ in length once separators are taken out:

======  =============  ==================================================  ================================
length  kind           written                                             bits
======  =============  ==================================================  ================================
6-10    DIGITS         ``123456``, ``123 456``                             RFC 4226, RFC 6238
12      BYPASS         ``XXXX-XXXX-XXXX``                                  60, throttled and short-lived
18      RECOVERY       ``NN-XXXX-XXXX-XXXX-XXXX``, NN from 01 to 99        80 (NIST SP 800-63B-4 asks for 64)
24      RECOVERY_KEY   ``XXXX-XXXX-XXXX-XXXX-XXXX-XXXX``                   120
======  =============  ==================================================  ================================

Letters are Crockford's base32: no case, I and L read as 1, O as 0, U does not exist. An undivided run of digits is DIGITS or
nothing, also when it has 12, 18 or 24 of them: a password that ends in digits must not turn into a bypass code. Codes are
written with hyphens, so the one code in a million that has no letter still works as it was printed.
"""

from __future__ import annotations

import enum
import re

from mfa_core.errors import InvalidInput
from mfa_core.secret import Secret
from mfa_core.value import hot_value

MAX_TYPED_BYTES = 128
"""More than this is no code; the longest one, with a separator after every character, has 47."""

MAX_RECOVERY_INDEX = 99

KEYWORDS = frozenset({"push", "sms", "phone"})
"""Words that name an out-of-band factor in place of a code."""

RECOVERY_CODE_BYTES = 10
RECOVERY_KEY_BYTES = 15
BYPASS_CODE_BYTES = 8
"""Of 64 bits 60 are used: 12 characters of 5 bits."""

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_CANONICAL = bytes.maketrans(b"abcdefghijklmnopqrstuvwxyzILO", b"ABCDEFGH1JK1MN0PQRSTUVWXYZ110")

_BYPASS_LENGTH, _RECOVERY_LENGTH, _RECOVERY_KEY_LENGTH = 12, 18, 24
_LONGEST_KEYWORD = max(map(len, KEYWORDS))
_LENGTHS = frozenset(
    {*map(len, KEYWORDS), *range(6, 11), _BYPASS_LENGTH, _RECOVERY_LENGTH, _RECOVERY_KEY_LENGTH}
)
"""Of all that can be a code, without separators."""

_PLAIN_DIGITS = re.compile(rb"[0-9]{6,10}").fullmatch
_GROUPED = re.compile(rb"[0-9A-Za-z]+(?:[ -][0-9A-Za-z]+)*").fullmatch
_UNDIVIDED_DIGITS = re.compile(rb"[0-9]+").fullmatch
_DIGITS = _PLAIN_DIGITS
_BYPASS = re.compile(rb"[0-9A-HJKMNP-TV-Z]{12}").fullmatch
_RECOVERY = re.compile(rb"(?!00)[0-9]{2}[0-9A-HJKMNP-TV-Z]{16}").fullmatch
_RECOVERY_KEY = re.compile(rb"[0-9A-HJKMNP-TV-Z]{24}").fullmatch

# OpenSSH auth-pam.c, fake_password(): the answer of a user that sshd will refuse anyway, repeated and cut to the length of
# what was really typed. Answers of the PAM wire have at most 4,096 bytes.
_SSHD_JUNK = b"\b\n\r\x7fINCORRECT"
_SSHD_JUNK_REPEATED = _SSHD_JUNK * (4096 // len(_SSHD_JUNK) + 1)


class PasscodeKind(enum.StrEnum):
    """What a typed text can be."""

    EMPTY = "empty"
    JUNK = "junk"
    """Not typed by a person: sshd's filler for a user it refuses anyway."""
    DIGITS = "digits"
    """A TOTP or HOTP code, or an imported scratch code."""
    RECOVERY = "recovery"
    RECOVERY_KEY = "recovery_key"
    BYPASS = "bypass"
    KEYWORD = "keyword"
    ABSENT = "absent"
    """No code was typed where one may be asked for afterwards: all of the text is the password."""
    VEILED = "veiled"
    """A code that is not seen, only a one-way answer made from it (:attr:`mfa_core.model.Attempt.veiled`)."""
    MALFORMED = "malformed"
    """No code of any kind."""


@hot_value
class Passcode:
    """A typed code in its one spelling.

    ``text`` is ASCII without separators: the digits; the 16, 24 or 12 upper-case characters of a recovery code (without its
    index), key or bypass code; the lower-case keyword; empty for EMPTY, JUNK and MALFORMED. Hash and compare this and
    nothing else. ``recovery_index`` is 1 to 99 for RECOVERY, else 0.
    """

    kind: PasscodeKind
    text: Secret
    recovery_index: int = 0


_NOTHING = Secret(b"")
_EMPTY = Passcode(PasscodeKind.EMPTY, _NOTHING)
_JUNK = Passcode(PasscodeKind.JUNK, _NOTHING)
_MALFORMED = Passcode(PasscodeKind.MALFORMED, _NOTHING)


def read_passcode(typed: bytes) -> Passcode:
    """Say what ``typed`` is. Never raises; takes time linear in the first 4,096 bytes.

    Single blanks and hyphens between characters are taken out, because authenticator apps show ``123 456``; blanks at the
    ends, doubled ones, full-width digits and everything else outside ASCII are MALFORMED: two spellings of one code must
    not reach the replay check as two codes.
    """
    if _PLAIN_DIGITS(typed):
        return Passcode(PasscodeKind.DIGITS, Secret(typed))
    if not typed:
        return _EMPTY
    if typed[0] == _SSHD_JUNK[0] and _SSHD_JUNK_REPEATED.startswith(typed):
        return _JUNK
    if len(typed) > MAX_TYPED_BYTES:
        return _MALFORMED
    joined = typed.replace(b" ", b"").replace(b"-", b"")
    # No two kinds have a length in common: most passwords end here.
    size = len(joined)
    if size not in _LENGTHS or not _GROUPED(typed):
        return _MALFORMED
    if size <= _LONGEST_KEYWORD:
        word = typed.lower()
        return Passcode(PasscodeKind.KEYWORD, Secret(word)) if word.decode("ascii") in KEYWORDS else _MALFORMED
    if _DIGITS(joined):
        return Passcode(PasscodeKind.DIGITS, Secret(joined))
    if _UNDIVIDED_DIGITS(typed):
        return _MALFORMED
    canonical = joined.translate(_CANONICAL)
    if size == _BYPASS_LENGTH and _BYPASS(canonical):
        return Passcode(PasscodeKind.BYPASS, Secret(canonical))
    if size == _RECOVERY_LENGTH and _RECOVERY(canonical):
        return Passcode(PasscodeKind.RECOVERY, Secret(canonical[2:]), recovery_index=int(canonical[:2]))
    if size == _RECOVERY_KEY_LENGTH and _RECOVERY_KEY(canonical):
        return Passcode(PasscodeKind.RECOVERY_KEY, Secret(canonical))
    return _MALFORMED


def format_recovery_code(index: int, raw: bytes) -> str:
    """Write recovery code number ``index`` (1 to 99) of 10 random bytes as ``NN-XXXX-XXXX-XXXX-XXXX``.

    Raises: InvalidInput, for another index or length.
    """
    if not 1 <= index <= MAX_RECOVERY_INDEX:
        raise InvalidInput(f"recovery code number {index}, expected 1 to {MAX_RECOVERY_INDEX}")
    return f"{index:02d}-{_grouped(raw, length=RECOVERY_CODE_BYTES)}"


def format_recovery_key(raw: bytes) -> str:
    """Write the recovery key of 15 random bytes as six groups of four. Raises: InvalidInput, for another length."""
    return _grouped(raw, length=RECOVERY_KEY_BYTES)


def format_bypass_code(raw: bytes) -> str:
    """Write a bypass code of 8 random bytes (the last 4 bits are dropped) as three groups of four.

    Raises: InvalidInput, for another length.
    """
    return _grouped(raw, length=BYPASS_CODE_BYTES)


def _grouped(raw: bytes, *, length: int) -> str:
    if len(raw) != length:
        raise InvalidInput(f"a code is made of {length} random bytes, got {len(raw)}")
    characters = length * 8 // 20 * 4
    bits = int.from_bytes(raw, "big") >> (length * 8 - characters * 5)
    text = "".join(_ALPHABET[(bits >> shift) & 31] for shift in range(characters * 5 - 5, -1, -5))
    return "-".join(text[start : start + 4] for start in range(0, characters, 4))
