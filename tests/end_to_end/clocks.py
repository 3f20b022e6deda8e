"""How does a test move the clock of a real program?

The wall clock: libfaketime reads an offset from a file at every call, and monotonic clocks stay true. The clocks that count
from boot: a time namespace (:func:`after_a_suspend`), which a program is started in.
"""

from __future__ import annotations

import time
from pathlib import Path

from tests.end_to_end.programs import must_have


def libfaketime() -> Path:
    """The library for programs with threads. Skips the test where it is missing."""
    found = [*Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), *Path("/usr/lib/faketime").glob("libfaketimeMT.so.1")]
    if not found:
        must_have("/usr/lib/faketime/libfaketimeMT.so.1")
    return found[0]


class Clock:
    """A wall clock that a test sets, for the programs that are started with :meth:`environment`."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.offset_s = 0.0
        self.set(0)

    def set(self, offset_s: float) -> None:
        """So many seconds from true, at once."""
        self.offset_s = float(offset_s)
        fresh = self._file.with_suffix(".new")
        # nobody reads half a number
        fresh.write_text(f"{offset_s:+.3f}\n")
        fresh.replace(self._file)

    def now(self) -> float:
        """What it says, Unix seconds."""
        return time.time() + self.offset_s

    def environment(self) -> dict[str, str]:
        """Variables for a program that is to look at this clock. Times of files stay true."""
        return {
            "LD_PRELOAD": str(libfaketime()),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }


def after_a_suspend(seconds: int) -> list[str]:
    """Prefix: a program whose CLOCK_BOOTTIME and CLOCK_MONOTONIC are ``seconds`` further, on the same boot."""
    must_have("unshare")
    return ["unshare", "--time", f"--boottime={seconds}", f"--monotonic={seconds}", "--"]
