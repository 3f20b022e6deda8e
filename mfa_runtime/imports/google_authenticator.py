"""``~/.google_authenticator``, as google-authenticator-libpam keeps it: one user a file.

Format (FILEFORMAT in its source): the secret in base32, then options, each a line that begins with ``" ``, then scratch codes
of eight digits.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import BinaryIO

from mfa_core.errors import InvalidInput
from mfa_core.model import FactorKind
from mfa_core.oath import MAX_DRIFT, MIN_SECRET_BITS, check_parameters
from mfa_core.otpauth import MAX_COUNTER, decode_base32
from mfa_runtime.imports.lines import numbered_lines
from mfa_runtime.imports.row import ImportedCredential, ImportRow, RowNote, RowProblem

_SCRATCH = re.compile(r"[0-9]{8}").fullmatch
_NUMBER = re.compile(r"-?[0-9]{1,19}").fullmatch
_MAX_LINES = 1_000
"""The file has some twenty lines; DISALLOW_REUSE stands in one."""


def parse_google_authenticator(
    stream: BinaryIO, username: str, *, minimum_bits: int = MIN_SECRET_BITS
) -> Iterator[ImportRow]:
    """Read one file, which belongs to ``username``. Yields one credential or one problem, and notes."""
    secret_text: str | None = None
    options: dict[str, list[str]] = {}
    scratch = 0
    for entry in numbered_lines(stream):
        if isinstance(entry, RowProblem):
            yield entry
            return
        line, text = entry
        if line > _MAX_LINES:
            yield RowProblem(line, f"more than {_MAX_LINES} lines: not a file of google-authenticator")
            return
        if line == 1:
            secret_text = text
        elif text.startswith('" '):
            name, *words = text[2:].split() or [""]
            options[name] = words
        elif _SCRATCH(text.strip()):
            scratch += 1
        elif text.strip():
            yield RowProblem(line, 'expected an option that begins with `" `, or a scratch code of 8 digits')
            return
    try:
        yield _credential(secret_text, options, username, minimum_bits=minimum_bits)
    except InvalidInput as err:
        yield RowProblem(1, str(err))
        return
    if scratch:
        # 26 bits a code: NIST SP 800-63B-4 section 3.1.2.2 asks for 64 where they are kept for long.
        yield RowNote(1, f"{scratch} scratch codes are too short to keep: `mfactl recovery new` makes new ones")


def _credential(
    secret_text: str | None, options: dict[str, list[str]], username: str, *, minimum_bits: int
) -> ImportedCredential:
    if not secret_text or not secret_text.strip():
        raise InvalidInput("the first line is empty, expected the secret in base32")
    secret = decode_base32(secret_text.strip())
    if "HOTP_COUNTER" in options:
        check_parameters(secret, digits=6, period_s=0, minimum_bits=minimum_bits)
        # The counter in the file is the next one that the module tries.
        return ImportedCredential(
            1, username, secret, FactorKind.HOTP, period_s=0, last_step=_number(options, "HOTP_COUNTER", 1, lowest=0) - 1
        )
    if "TOTP_AUTH" not in options:
        raise InvalidInput('neither `" TOTP_AUTH` nor `" HOTP_COUNTER`: not a file of google-authenticator')
    period_s = _number(options, "STEP_SIZE", 30, lowest=1)
    check_parameters(secret, digits=6, period_s=period_s, minimum_bits=minimum_bits)
    used = [int(word) for word in options.get("DISALLOW_REUSE", []) if _NUMBER(word) and 0 <= int(word) <= MAX_COUNTER]
    skew = _number(options, "TIME_SKEW", 0, lowest=-MAX_COUNTER)
    return ImportedCredential(
        1,
        username,
        secret,
        period_s=period_s,
        last_step=max(used, default=-1),
        drift_steps=max(-MAX_DRIFT, min(MAX_DRIFT, skew)),
    )


def _number(options: dict[str, list[str]], name: str, default: int, *, lowest: int) -> int:
    words = options.get(name)
    if words is None:
        return default
    if len(words) != 1 or not _NUMBER(words[0]) or not lowest <= int(words[0]) <= MAX_COUNTER:
        raise InvalidInput(f"{name} is not a whole number from {lowest}")
    return int(words[0])
