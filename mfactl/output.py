"""How answers look: aligned columns for people, JSON for programs, one line of cause and one of cure for refusals.

Room rule: nothing else in this package writes to a terminal (progress bars: :mod:`mfactl.progress`). Text from outside is made
printable here, so that a user name cannot move the cursor.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import chain, islice

_MEASURED_ROWS = 500
"""Column widths come from this many rows: a list of a million is not held to be measured."""


def printable(text: str) -> str:
    """Text without control characters, escape sequences or undecodable bytes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode("ascii") for c in text)


def say(text: str = "") -> None:
    """One line (or several) of an answer."""
    sys.stdout.write(text + "\n")


def note(text: str) -> None:
    """One line beside the answer, to stderr."""
    sys.stderr.write(text + "\n")


def refuse(cause: str, cure: str, *more: str) -> None:
    """One line of cause (``more`` where there are several) and one of cure, to stderr."""
    for line in (cause, *more):
        sys.stderr.write(f"mfactl: {printable(line)}\n")
    if cure:
        sys.stderr.write(f"  cure: {printable(cure)}\n")


def say_json(value: object) -> None:
    """One JSON value."""
    json.dump(value, sys.stdout, indent=2)
    sys.stdout.write("\n")


def say_json_list(values: Iterable[object]) -> None:
    """A JSON list, written as it comes."""
    separator = "["
    for value in values:
        sys.stdout.write(f"{separator}\n  {json.dumps(value)}")
        separator = ","
    sys.stdout.write("[]\n" if separator == "[" else "\n]\n")


def say_columns(header: Sequence[str], rows: Iterable[Sequence[str]]) -> int:
    """Aligned columns, written as they come; how many rows there were."""
    source: Iterator[Sequence[str]] = iter(rows)
    first = [tuple(map(printable, row)) for row in islice(source, _MEASURED_ROWS)]
    if not first:
        return 0
    widths = [max(map(len, column)) for column in zip(header, *first, strict=True)]
    count = 0
    for row in chain([tuple(header)], first, (tuple(map(printable, row)) for row in source)):
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        sys.stdout.write(line.rstrip() + "\n")
        count += 1
    return count - 1


def counted(number: int, thing: str) -> str:
    """``1 rule``, ``2 rules``."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def moment(at: float) -> str:
    """A Unix time for people: UTC to the second; ``-`` for never."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%SZ") if at > 0 else "-"


def seconds_or_none(at: float) -> int | None:
    """A Unix time for programs: whole seconds, null for never."""
    return int(at) if at > 0 else None
