"""A list of ``otpauth://`` URIs, one a line: what most apps and servers export. The account of the label is the user."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from mfa_core.errors import InvalidInput
from mfa_core.oath import MIN_SECRET_BITS
from mfa_core.otpauth import decode_key_uri
from mfa_runtime.imports.lines import numbered_lines
from mfa_runtime.imports.row import ImportedCredential, ImportRow, RowProblem


def parse_otpauth_list(stream: BinaryIO, *, minimum_bits: int = MIN_SECRET_BITS) -> Iterator[ImportRow]:
    """Read a list; empty lines and lines that begin with ``#`` are passed over."""
    for entry in numbered_lines(stream):
        if isinstance(entry, RowProblem):
            yield entry
            continue
        line, text = entry
        if not text.strip() or text.startswith("#"):
            continue
        try:
            key = decode_key_uri(text, minimum_bits=minimum_bits)
        except InvalidInput as err:
            yield RowProblem(line, str(err))
            continue
        yield ImportedCredential(
            line,
            key.account,
            key.secret,
            key.kind,
            key.digest,
            key.digits,
            key.period_s,
            # The URI has the next counter.
            last_step=key.counter - 1,
            label=key.issuer,
        )
