"""Group commit: what waits together is written together.

Room rule: a queue, one thread and no knowledge of what is done. Batches form by themselves: while one transaction waits for
the disk, the next jobs gather. A lone job is not delayed by a timer.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from mfa_core.errors import Overloaded

Job = TypeVar("Job")
Result = TypeVar("Result")

_Waiting = tuple[Job, "asyncio.Future[Result]"]

MAX_BATCH = 256
"""Jobs in one transaction. Larger ones gain nothing and make the first of them wait."""

log = logging.getLogger(__name__)


class GroupCommit(Generic[Job, Result]):
    """Runs ``process`` on lists of jobs in a thread of its own, and answers on the event loop.

    ``process`` answers every job of its list, in order, and does not raise; if it does all the same, the jobs fail with that
    error. At most ``capacity`` jobs wait. One batch is under way at a time, and what arrives meanwhile is the next one: the
    loop hands over whole batches, because a thread that took jobs one by one would start on the first of many.
    """

    def __init__(
        self, process: Callable[[Sequence[Job]], Sequence[Result]], *, capacity: int, idle: Callable[[], None]
    ) -> None:
        self._process = process
        self._capacity = capacity
        self._idle = idle
        self._batches: queue.SimpleQueue[list[_Waiting[Job, Result]] | None] = queue.SimpleQueue()
        self._next: deque[_Waiting[Job, Result]] = deque()
        self._under_way = 0
        self._scheduled = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread; call it on the event loop that will submit."""
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._work, name="group-commit", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> asyncio.Future[Result]:
        """Queue a job. Call it on the event loop.

        Raises:
            Overloaded: too many wait already, or the writer has stopped.
        """
        if self._loop is None or self._thread is None:
            raise Overloaded("the store's writer has stopped")
        if self.waiting >= self._capacity:
            raise Overloaded(f"{self.waiting} attempts wait for the store already")
        future: asyncio.Future[Result] = self._loop.create_future()
        self._next.append((job, future))
        if not self._scheduled and not self._under_way:
            # Not now but after the callbacks that are ready: those of the previous batch's callers submit in them.
            self._scheduled = True
            self._loop.call_soon(self._hand_over)
        return future

    @property
    def waiting(self) -> int:
        """Jobs that were submitted and not answered."""
        return len(self._next) + self._under_way

    async def stop(self) -> None:
        """Answer what is queued, then end the thread."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        while self.waiting:
            await asyncio.wait([future for _, future in self._next] or [asyncio.ensure_future(asyncio.sleep(0.001))])
        self._batches.put(None)
        await asyncio.get_running_loop().run_in_executor(None, thread.join)
        self._loop = None

    def _hand_over(self) -> None:
        self._scheduled = False
        if self._under_way or not self._next:
            return
        batch = [self._next.popleft() for _ in range(min(MAX_BATCH, len(self._next)))]
        self._under_way = len(batch)
        self._batches.put(batch)

    def _work(self) -> None:
        while True:
            try:
                batch = self._batches.get(timeout=_IDLE_S)
            except queue.Empty:
                self._rest()
                continue
            if batch is None:
                self._rest()
                return
            try:
                results: Sequence[Result] | BaseException = self._process([job for job, _ in batch])
            except Exception as err:
                # A bug must refuse these logins and not end the thread that serves all others.
                log.exception("processing a batch failed")
                results = err
            if self._loop is not None and not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._deliver, batch, results)

    def _deliver(
        self, batch: list[_Waiting[Job, Result]], results: Sequence[Result] | BaseException
    ) -> None:
        self._under_way = 0
        if isinstance(results, BaseException):
            for _, future in batch:
                if not future.done():
                    future.set_exception(results)
        else:
            for (_, future), result in zip(batch, results, strict=True):
                if not future.done():
                    future.set_result(result)
        if self._next and not self._scheduled and self._loop is not None:
            self._scheduled = True
            self._loop.call_soon(self._hand_over)

    def _rest(self) -> None:
        try:
            self._idle()
        except Exception:
            log.exception("the work between batches failed")


_IDLE_S = 1.0
