"""Lines of a file that may be anything: numbered, bounded, decoded.

Room rule: the only file of this package that reads. A line has a bound, so that a disk image given by mistake costs no memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from mfa_runtime.imports.row import RowProblem

MAX_LINE_BYTES = 8_192
"""The longest key URI has 2 KiB, and no format has longer rows."""


def numbered_lines(stream: BinaryIO) -> Iterator[tuple[int, str] | RowProblem]:
    """Each line with its number from 1, without its end; a problem for a line that is too long or not UTF-8."""
    number = 0
    while raw := stream.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(raw) > MAX_LINE_BYTES:
            while raw and not raw.endswith(b"\n"):
                raw = stream.readline(MAX_LINE_BYTES + 1)
            yield RowProblem(number, f"the line has more than {MAX_LINE_BYTES} bytes")
            continue
        if number == 1:
            raw = raw.removeprefix(b"\xef\xbb\xbf")  # spreadsheets on Windows begin UTF-8 with a mark
        try:
            yield number, raw.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError:
            yield RowProblem(number, "the line is not UTF-8")
