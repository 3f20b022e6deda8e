"""How do calls that block run in few threads without one user or one source holding all of them?

Room rule: places and turns, and nothing of what is called. A call that hangs keeps its thread and its place in the shares of
its user and source until it returns: whoever asks again meanwhile only uses up what is theirs. Belongs to one event loop; the
threads are daemons, so that one that never returns does not keep the process from ending.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from mfa_runtime.primary import PrimaryUnavailable

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Shares:
    """``threads`` run calls; ``waiting`` calls may wait for one. Of both, one user and one source get no more than this."""

    threads: int
    waiting: int
    user_threads: int
    user_waiting: int
    source_threads: int
    source_waiting: int

    @classmethod
    def of(cls, threads: int) -> Shares:
        """The usual shares: a user two logins at once, a source half of everything."""
        return cls(
            threads=threads,
            waiting=8 * threads,
            user_threads=min(2, max(1, threads // 2)),
            user_waiting=4,
            source_threads=max(1, threads // 2),
            source_waiting=4 * threads,
        )


@dataclass(slots=True, eq=False)
class _Call:
    user: str
    source: str | None
    work: Callable[[], Any]
    answer: asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop


@dataclass(slots=True)
class _Held:
    """How many calls each user and each source has; None, a source that is not known, has no share and no bound."""

    users: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)

    def add(self, call: _Call) -> None:
        self.users[call.user] += 1
        if call.source is not None:
            self.sources[call.source] += 1

    def remove(self, call: _Call) -> None:
        for held, key in ((self.users, call.user), (self.sources, call.source)):
            if key is not None:
                held[key] -= 1
                if not held[key]:
                    del held[key]

    def of(self, call: _Call) -> tuple[int, int]:
        return self.users[call.user], 0 if call.source is None else self.sources[call.source]


class FairThreads:
    """Threads for the calls of one backend, which ``name`` names in refusals."""

    def __init__(self, name: str, shares: Shares) -> None:
        self._name = name
        self._shares = shares
        self._waiting: list[_Call] = []
        self._queued, self._running = _Held(), _Held()
        self._busy = 0
        self._started = 0
        self._closed = False
        self._next: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()

    async def run(
        self,
        work: Callable[[], T],
        *,
        user: str,
        source: str | None,
        timeout_s: float,
        give_up: Callable[[], None] | None = None,
    ) -> T:
        """What ``work`` returns or raises, called in a thread. ``give_up`` hears that nobody waits for it any more.

        Raises:
            PrimaryUnavailable: no place, no thread in time, or no answer within ``timeout_s``.
        """
        loop = asyncio.get_running_loop()
        call = _Call(user, source, work, loop.create_future(), loop)
        self._admit(call)
        try:
            await asyncio.wait([call.answer], timeout=timeout_s)
            if call.answer.done():
                answer: T = call.answer.result()
                return answer
            if call in self._waiting:
                raise PrimaryUnavailable(f"{self._name}: no thread was free for {timeout_s:.0f} s")
            raise PrimaryUnavailable(f"{self._name}: no answer within {timeout_s:.0f} s")
        finally:
            if call in self._waiting:
                self._waiting.remove(call)
                self._queued.remove(call)
            elif not call.answer.done() and give_up is not None:
                give_up()
            # Nobody looks at what comes later.
            call.answer.cancel()

    def close(self) -> None:
        """Admit nobody else. Calls that were admitted are answered; then the threads end."""
        self._closed = True
        self._end_threads()

    def _admit(self, call: _Call) -> None:
        shares = self._shares
        if self._closed:
            raise PrimaryUnavailable(f"{self._name} was closed")
        by_user, by_source = self._queued.of(call)
        if len(self._waiting) >= shares.waiting:
            raise PrimaryUnavailable(f"{self._name}: {len(self._waiting)} calls wait already")
        if by_user >= shares.user_waiting or by_source >= shares.source_waiting:
            whose = "this user" if by_user >= shares.user_waiting else "this source"
            raise PrimaryUnavailable(f"{self._name}: too many calls of {whose} wait already")
        self._waiting.append(call)
        self._queued.add(call)
        self._dispatch()

    def _dispatch(self) -> None:
        """Give free threads to whoever holds the fewest; among equals, to whoever came first."""
        while self._busy < self._shares.threads:
            able = [call for call in self._waiting if self._has_share(call)]
            if not able:
                return
            call = min(able, key=self._running.of)
            self._waiting.remove(call)
            self._queued.remove(call)
            self._running.add(call)
            self._busy += 1
            if self._started < self._busy:
                threading.Thread(target=self._work, name=f"{self._name}-{self._started}", daemon=True).start()
                self._started += 1
            self._next.put(call)

    def _has_share(self, call: _Call) -> bool:
        by_user, by_source = self._running.of(call)
        return by_user < self._shares.user_threads and by_source < self._shares.source_threads

    def _work(self) -> None:
        while (call := self._next.get()) is not None:
            value: Any = None
            error: BaseException | None = None
            try:
                value = call.work()
            except BaseException as err:  # noqa: BLE001  it is raised where somebody waits
                error = err
            try:
                call.loop.call_soon_threadsafe(self._returned, call, value, error)
            except RuntimeError:
                return  # the loop is closed: the process ends
            # A thread that waits must not keep a password alive.
            del call, value, error

    def _returned(self, call: _Call, value: Any, error: BaseException | None) -> None:
        self._busy -= 1
        self._running.remove(call)
        if not call.answer.done():
            if error is not None:
                call.answer.set_exception(error)
            else:
                call.answer.set_result(value)
        self._dispatch()
        self._end_threads()

    def _end_threads(self) -> None:
        if self._closed and not self._waiting and not self._busy:
            for _ in range(self._started):
                self._next.put(None)
            self._started = 0
