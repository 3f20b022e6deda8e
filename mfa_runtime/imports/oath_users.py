"""The usersfile of pam_oath (oath-toolkit): ``HOTP/T30/6 user pin hexsecret [counter [last-otp [time]]]``.

liboath (usersfile.c, parse_type and parse_usersfile): ``HOTP``, ``HOTP/E`` and ``HOTP/E/6`` count uses, ``HOTP/T30`` and
``HOTP/T60`` count time; digits are 6, 7 or 8 and 6 when left out. After a login the counter in the file is that of the code
that was used, and the code stands behind it; a counter without a code behind it is the next one to be tried.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import BinaryIO

from mfa_core.errors import InvalidInput
from mfa_core.model import FactorKind
from mfa_core.oath import MIN_SECRET_BITS, check_parameters
from mfa_core.otpauth import MAX_COUNTER
from mfa_core.secret import Secret
from mfa_runtime.imports.lines import numbered_lines
from mfa_runtime.imports.row import ImportedCredential, ImportRow, RowNote, RowProblem

_TYPE = re.compile(r"HOTP(?:/(?P<mode>E|T30|T60)(?:/(?P<digits>[678]))?)?").fullmatch
_NUMBER = re.compile(r"-?[0-9]{1,19}").fullmatch
_HEX = re.compile(r"(?:[0-9A-Fa-f]{2})+").fullmatch
_NO_PIN = {"-", "+"}
"""``-``: none; ``+``: verified elsewhere."""


def parse_oath_users(stream: BinaryIO, *, minimum_bits: int = MIN_SECRET_BITS) -> Iterator[ImportRow]:
    """Read a usersfile; empty lines and comments are passed over."""
    for entry in numbered_lines(stream):
        if isinstance(entry, RowProblem):
            yield entry
            continue
        line, text = entry
        words = text.split()
        if not words or words[0].startswith("#"):
            continue
        try:
            yield _credential(line, words, minimum_bits=minimum_bits)
        except InvalidInput as err:
            yield RowProblem(line, str(err))
            continue
        if words[2] not in _NO_PIN:
            yield RowNote(line, "the PIN is not imported: the password is the first factor here")


def _credential(line: int, words: list[str], *, minimum_bits: int) -> ImportedCredential:
    if len(words) < 4:
        raise InvalidInput(f"{len(words)} fields, expected at least type, user, PIN and secret")
    kind_text, username, _pin, secret_text, *log = words
    found = _TYPE(kind_text)
    if found is None:
        raise InvalidInput("the type is unknown, expected HOTP, HOTP/E, HOTP/T30 or HOTP/T60, with /6, /7 or /8")
    if not _HEX(secret_text):
        raise InvalidInput("the secret is not written in hexadecimal digits")
    secret = Secret(bytes.fromhex(secret_text))
    digits = int(found["digits"] or 6)
    if found["mode"] in {"T30", "T60"}:
        period_s = int(found["mode"][1:])
        check_parameters(secret, digits=digits, period_s=period_s, minimum_bits=minimum_bits)
        return ImportedCredential(line, username, secret, digits=digits, period_s=period_s)
    check_parameters(secret, digits=digits, period_s=0, minimum_bits=minimum_bits)
    counter = log[0] if log else "0"
    if not _NUMBER(counter) or not 0 <= int(counter) <= MAX_COUNTER:
        raise InvalidInput("the counter is not a whole number from 0")
    last_step = int(counter) if len(log) > 1 else int(counter) - 1
    return ImportedCredential(line, username, secret, FactorKind.HOTP, digits=digits, period_s=0, last_step=last_step)
