"""How does a test move the clock of a real program?

The wall clock: a library that is loaded first (wall_clock.c) adds what a file says, and monotonic clocks stay true. The clocks
that count from boot: a time namespace (:func:`after_a_suspend`), which a program is started in.
"""

from __future__ import annotations

import fcntl
import mmap
import time
from functools import cache
from pathlib import Path

from tests.end_to_end.programs import REPOSITORY, must_have, run

_SOURCE = Path(__file__).with_name("wall_clock.c")


@cache
def _library() -> Path:
    """Built once for all tests of a checkout. Skips the test where there is no compiler."""
    must_have("gcc")
    built = REPOSITORY / "build" / f"wall-clock-{_SOURCE.stat().st_mtime_ns}.so"
    built.parent.mkdir(exist_ok=True)
    with built.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not built.exists():
            fresh = built.with_suffix(".new")
            run(["gcc", "-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror", "-o", fresh, _SOURCE])
            fresh.rename(built)
    return built


class Clock:
    """A wall clock that a test sets, for the programs that are started with :meth:`environment`."""

    def __init__(self, file: Path) -> None:
        self._file = file
        file.write_bytes(bytes(8))
        with file.open("r+b") as opened:
            self._seen = mmap.mmap(opened.fileno(), 8)
        self.offset_s = 0.0

    def set(self, offset_s: float) -> None:
        """So many seconds from true, at once."""
        self.offset_s = float(offset_s)
        self._seen[:] = int(offset_s * 1e9).to_bytes(8, "little", signed=True)

    def now(self) -> float:
        """What it says, Unix seconds."""
        return time.time() + self.offset_s

    def environment(self) -> dict[str, str]:
        """Variables for a program that is to look at this clock. Times of files stay true."""
        return {"LD_PRELOAD": str(_library()), "MFAD_TEST_CLOCK": str(self._file)}


def after_a_suspend(seconds: int) -> list[str]:
    """Prefix: a program whose CLOCK_BOOTTIME and CLOCK_MONOTONIC are ``seconds`` further, on the same boot."""
    must_have("unshare")
    return ["unshare", "--time", f"--boottime={seconds}", f"--monotonic={seconds}", "--"]
