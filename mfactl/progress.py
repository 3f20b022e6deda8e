"""How far long work is: a bar on a terminal, else a line every few seconds.

Room rule: rich is imported here only, and only when there is a terminal to draw on. All of it goes to stderr.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LINE_EVERY_S = 5.0

Advance = Callable[[float, str], None]
"""``advance(done, note)``: how much is done of the total, and a few words."""


@contextmanager
def progress(what: str, total: float | None) -> Iterator[Advance]:
    """Show the progress of ``what``; without ``total`` only the words."""
    if sys.stderr.isatty():
        yield from _bar(what, total)
    else:
        yield from _lines(what, total)


def _bar(what: str, total: float | None) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as drawn:
        task = drawn.add_task(what, total=total, note="")
        yield lambda done, note: drawn.update(task, completed=done, note=note)
        if total is not None:
            drawn.update(task, completed=total)


def _lines(what: str, total: float | None) -> Iterator[Advance]:
    last = time.monotonic()

    def advance(done: float, note: str) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < LINE_EVERY_S:
            return
        last = now
        share = f" {100 * done / total:.0f}%" if total else ""
        sys.stderr.write(f"{what}:{share} {note}\n")
        sys.stderr.flush()

    yield advance
