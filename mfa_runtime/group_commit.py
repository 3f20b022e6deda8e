"""Group commit: what waits together is written together.

Room rule: a queue, one thread and no knowledge of what is done. Batches form by themselves: while one transaction waits for
the disk, the next jobs gather. A lone job is not delayed by a timer.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from mfa_core.errors import Overloaded

Job = TypeVar("Job")
Result = TypeVar("Result")

MAX_BATCH = 256
"""Jobs in one transaction. Larger ones gain nothing and make the first of them wait."""

log = logging.getLogger(__name__)


class GroupCommit(Generic[Job, Result]):
    """Runs ``process`` on lists of jobs in a thread of its own, and answers on the event loop.

    ``process`` answers every job of its list, in order, and does not raise; if it does all the same, the jobs fail with that
    error. At most ``capacity`` jobs wait.
    """

    def __init__(
        self, process: Callable[[Sequence[Job]], Sequence[Result]], *, capacity: int, idle: Callable[[], None]
    ) -> None:
        self._process = process
        self._capacity = capacity
        self._idle = idle
        self._queue: queue.SimpleQueue[tuple[Job, asyncio.Future[Result]] | None] = queue.SimpleQueue()
        self._waiting = 0
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
            Overloaded: too many wait already, or the thread has stopped.
        """
        if self._loop is None:
            raise Overloaded("the store's writer has stopped")
        if self._waiting >= self._capacity:
            raise Overloaded(f"{self._waiting} attempts wait for the store already")
        self._waiting += 1
        future: asyncio.Future[Result] = self._loop.create_future()
        self._queue.put((job, future))
        return future

    @property
    def waiting(self) -> int:
        """Jobs that were submitted and not answered."""
        return self._waiting

    async def stop(self) -> None:
        """Answer what is queued, then end the thread."""
        thread = self._thread
        if thread is None:
            return
        self._thread = None
        self._queue.put(None)
        await asyncio.get_running_loop().run_in_executor(None, thread.join)
        self._loop = None

    def _work(self) -> None:
        running = True
        while running:
            try:
                item = self._queue.get(timeout=_IDLE_S)
            except queue.Empty:
                self._rest()
                continue
            batch: list[tuple[Job, asyncio.Future[Result]]] = []
            while True:
                if item is None:
                    running = False
                else:
                    batch.append(item)
                    if len(batch) == MAX_BATCH:
                        break
                try:
                    item = self._queue.get_nowait()
                except queue.Empty:
                    break
            if batch:
                self._answer(batch)
        self._rest()

    def _answer(self, batch: list[tuple[Job, asyncio.Future[Result]]]) -> None:
        loop = self._loop
        try:
            results: Sequence[Result] | BaseException = self._process([job for job, _ in batch])
        except Exception as err:
            log.exception("processing a batch failed")
            results = err
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._deliver, batch, results)

    def _deliver(
        self, batch: list[tuple[Job, asyncio.Future[Result]]], results: Sequence[Result] | BaseException
    ) -> None:
        self._waiting -= len(batch)
        if isinstance(results, BaseException):
            for _, future in batch:
                if not future.done():
                    future.set_exception(results)
            return
        for (_, future), result in zip(batch, results, strict=True):
            if not future.done():
                future.set_result(result)

    def _rest(self) -> None:
        try:
            self._idle()
        except Exception:
            log.exception("the work between batches failed")


_IDLE_S = 1.0
