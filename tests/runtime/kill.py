"""A process that is killed with SIGKILL at its n-th step, for every n."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress

STEPS = frozenset({"os.rename", "os.link", "os.remove", "os.mkdir", "open", "sqlite3.connect"})


class Killer:
    """Counts steps and dies at one of them. ``step`` can be called by what the test hands to the code, too."""

    def __init__(self, at: int) -> None:
        self._left = at
        self.armed = False

    def step(self) -> None:
        if not self.armed:
            return
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def watch(self, event: str, _arguments: object) -> None:
        if event in STEPS:
            self.step()


def killed_at_every_step(work: Callable[[Killer], None], *, first: int = 1, stride: int = 1) -> Iterator[int]:
    """Fork; let ``work`` run in the child and kill it at step n = first, first + stride ...; yield n after each death.

    Ends when the child came through. The child arms the killer itself, after its own preparations.
    """
    number = first
    while True:
        child = os.fork()
        if child == 0:
            status = 1
            with suppress(BaseException):
                killer = Killer(number)
                sys.addaudithook(killer.watch)
                work(killer)
                status = 0
            os._exit(status)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            yield number
            number += stride
            continue
        assert os.WEXITSTATUS(status) == 0, "the child failed by itself"
        return
