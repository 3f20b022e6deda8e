"""Tables of credentials with commas: with a header that names the columns, or in the order of the OATH CSV.

A header is recognised by a column for the secret. Without one the columns are ``serial, secret, type, digits, period or
counter`` (what privacyIDEA, LinOTP and token vendors write, the secret in hexadecimal digits); such a table has no users, so
the caller says which columns there are.
"""

from __future__ import annotations

import base64
import binascii
import csv
import enum
import re
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from mfa_core.errors import InvalidInput
from mfa_core.model import Digest, FactorKind
from mfa_core.oath import MIN_SECRET_BITS, check_parameters
from mfa_core.otpauth import MAX_COUNTER, decode_base32, read_digest
from mfa_core.secret import Secret
from mfa_runtime.imports.lines import numbered_lines
from mfa_runtime.imports.row import MAX_LABEL_CHARS, ImportedCredential, ImportRow, RowProblem


class Encoding(enum.StrEnum):
    """How secrets are written. Some texts are both base32 and hexadecimal, so this is never guessed."""

    BASE32 = "base32"
    HEX = "hex"
    BASE64 = "base64"


class Column(enum.StrEnum):
    """What a column can hold. ``-`` passes a column over."""

    USER = "user"
    SECRET = "secret"  # noqa: S105  the name of a column
    TYPE = "type"
    DIGEST = "digest"
    DIGITS = "digits"
    PERIOD = "period"
    COUNTER = "counter"
    PERIOD_OR_COUNTER = "period_or_counter"
    LABEL = "label"
    GROUPS = "groups"
    IGNORED = "-"


OATH_CSV = (Column.LABEL, Column.SECRET, Column.TYPE, Column.DIGITS, Column.PERIOD_OR_COUNTER)

_HEADINGS = {
    **dict.fromkeys(("user", "username", "user_name", "name", "login", "account", "uid"), Column.USER),
    **dict.fromkeys(("secret", "key", "seed", "otpkey", "secret_key"), Column.SECRET),
    **dict.fromkeys(("type", "kind", "tokentype", "token_type"), Column.TYPE),
    **dict.fromkeys(("digest", "algorithm", "hash", "hashlib", "algo"), Column.DIGEST),
    **dict.fromkeys(("digits", "otplen", "otp_length", "length"), Column.DIGITS),
    **dict.fromkeys(("period", "timestep", "time_step", "interval", "step"), Column.PERIOD),
    **dict.fromkeys(("counter", "count", "next_counter"), Column.COUNTER),
    **dict.fromkeys(("label", "serial", "description", "issuer", "device"), Column.LABEL),
    **dict.fromkeys(("groups", "group", "user_groups"), Column.GROUPS),
}
_NUMBER = re.compile(r"[0-9]{1,19}").fullmatch
_HEX = re.compile(r"(?:[0-9A-Fa-f]{2})+").fullmatch
_KINDS = {"totp": FactorKind.TOTP, "hotp": FactorKind.HOTP, "": FactorKind.TOTP}


def parse_csv(
    stream: BinaryIO,
    *,
    columns: Sequence[Column] | None = None,
    encoding: Encoding | None = None,
    minimum_bits: int = MIN_SECRET_BITS,
) -> Iterator[ImportRow]:
    """Read a table. ``columns`` overrides a header (which is then a row like any other, and a problem).

    ``encoding`` is base32 where columns were named by header or caller, and hexadecimal in the OATH CSV, unless given.
    """
    layout = None if columns is None else tuple(columns)
    for entry in numbered_lines(stream):
        if isinstance(entry, RowProblem):
            yield entry
            continue
        line, text = entry
        if not text.strip() or text.startswith("#"):
            continue
        try:
            cells = [cell.strip() for cell in next(csv.reader([text], strict=True))]
            if layout is None:
                layout = _header(cells)
                if layout is not None:
                    continue
                layout = OATH_CSV
                encoding = Encoding.HEX if encoding is None else encoding
            yield _credential(line, cells, layout, encoding or Encoding.BASE32, minimum_bits=minimum_bits)
        except (csv.Error, StopIteration):
            yield RowProblem(line, "not a row with commas: a quotation mark is not closed, or stands in the wrong place")
        except InvalidInput as err:
            yield RowProblem(line, str(err))


def _header(cells: Sequence[str]) -> tuple[Column, ...] | None:
    found = tuple(_HEADINGS.get(cell.lower().replace(" ", "_").replace("-", "_"), Column.IGNORED) for cell in cells)
    return found if Column.SECRET in found else None


def _credential(
    line: int, cells: Sequence[str], layout: Sequence[Column], encoding: Encoding, *, minimum_bits: int
) -> ImportedCredential:
    # Optional columns at the end may be missing: the OATH CSV writes digits and period only where they differ.
    row: dict[Column, str] = {column: cell for column, cell in zip(layout, cells, strict=False) if column is not Column.IGNORED}
    username = row.get(Column.USER, "")
    if not username:
        raise InvalidInput(
            "the row names no user: give a header with a column `user`, or say which columns there are with --columns"
        )
    secret_text = row.get(Column.SECRET, "")
    if not secret_text:
        raise InvalidInput("the row has no secret")
    kind = _KINDS.get(row.get(Column.TYPE, "").lower())
    if kind is None:
        raise InvalidInput("the type is neither totp nor hotp")
    secret = _secret(secret_text, encoding)
    digest = read_digest(row[Column.DIGEST]) if row.get(Column.DIGEST) else Digest.SHA1
    digits = _number(row, Column.DIGITS, 6)
    is_hotp = kind is FactorKind.HOTP
    period_s = 0 if is_hotp else _number(row, Column.PERIOD, _number(row, Column.PERIOD_OR_COUNTER, 30))
    counter = _number(row, Column.COUNTER, _number(row, Column.PERIOD_OR_COUNTER, 0)) if is_hotp else 0
    if not is_hotp and period_s == 0:
        raise InvalidInput("the period is 0 s, expected 30 or 60")
    check_parameters(secret, digits=digits, period_s=period_s, minimum_bits=minimum_bits)
    label = row.get(Column.LABEL, "")[:MAX_LABEL_CHARS]
    groups = tuple(dict.fromkeys(row.get(Column.GROUPS, "").replace(";", " ").split()))
    return ImportedCredential(
        line, username, secret, kind, digest, digits, period_s, last_step=counter - 1, label=label, groups=groups
    )


def _secret(text: str, encoding: Encoding) -> Secret:
    match encoding:
        case Encoding.BASE32:
            return decode_base32(text)
        case Encoding.HEX:
            if not _HEX(text):
                raise InvalidInput("the secret is not written in hexadecimal digits: see --encoding")
            return Secret(bytes.fromhex(text))
        case Encoding.BASE64:
            try:
                return Secret(base64.b64decode(text, validate=True))
            except (binascii.Error, ValueError) as err:
                raise InvalidInput("the secret is not base64: see --encoding") from err


def _number(row: dict[Column, str], column: Column, default: int) -> int:
    text = row.get(column, "")
    if not text:
        return default
    if not _NUMBER(text) or int(text) > MAX_COUNTER:
        raise InvalidInput(f"{column} is not a whole number from 0")
    return int(text)
