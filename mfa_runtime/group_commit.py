"""Group commit: what waits together is written together.

Room rule: a queue, one thread and no knowledge of what is done. Batches form by themselves: while one transaction waits for
the disk, the next jobs gather. A lone job is not delayed by a timer.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from mfa_core.errors import Overloaded

Job = TypeVar("Job")
Result = TypeVar("Result")

_Answer = Callable[[Result | BaseException], None]
_Processed = tuple[list[_Answer[Result]], Sequence[Result | BaseException]]

MAX_AT_ONCE = 32
"""Jobs that are processed on the loop's thread: others of the loop wait for it."""
MAX_BATCH = 256
"""Jobs in one transaction. Larger ones gain nothing and make the first of them wait."""

log = logging.getLogger(__name__)


class GroupCommit(Generic[Job, Result]):
    """Runs ``process`` on lists of jobs in a thread of its own, and answers on the event loop.

    ``process`` answers every job of its list, in order, and does not raise; if it does all the same, the jobs fail with that
    error. At most ``capacity`` jobs wait. One batch is under way at a time, and what arrives meanwhile is the next one: the
    loop hands over whole batches, because a thread that took jobs one by one would start on the first of many.

    With ``settle`` the results hold when that has returned as well, and are delivered then. It is called for one batch or
    several, in a second thread while others are processed already, or, when nothing waits, where the batch was processed: a
    lone job need not pay for another hand-over. What it raises becomes the answer of the batches it was called for.

    With ``process_now`` small batches are processed on the loop itself, and settled in the second thread; None from it sends
    the batch to the first one. The next batch gathers until this one is settled, as it does while the first thread is at work.
    """

    def __init__(
        self,
        process: Callable[[Sequence[Job]], Sequence[Result]],
        *,
        capacity: int,
        idle: Callable[[], None],
        settle: Callable[[], None] | None = None,
        process_now: Callable[[Sequence[Job]], Sequence[Result] | None] | None = None,
    ) -> None:
        self._process = process
        self._process_now = process_now if settle is not None else None
        self._settle = settle
        self._capacity = capacity
        self._idle = idle
        self._batches: queue.SimpleQueue[tuple[list[Job], list[_Answer[Result]]] | None] = queue.SimpleQueue()
        self._jobs: list[Job] = []
        self._answers: list[_Answer[Result]] = []
        self._processed: queue.SimpleQueue[tuple[_Processed[Result], bool] | None] = queue.SimpleQueue()
        """What is to be settled, and whether the writer is free when it is."""
        self._under_way = 0
        self._busy = False
        self._scheduled = False
        self._drained: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._settler: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread; call it on the event loop that will submit."""
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._work, name="group-commit", daemon=True)
        self._thread.start()
        if self._settle is not None:
            self._settler = threading.Thread(target=self._settle_all, args=(self._settle,), name="group-settle", daemon=True)
            self._settler.start()

    def submit(self, job: Job) -> asyncio.Future[Result]:
        """Queue a job. Call it on the event loop.

        Raises:
            Overloaded: too many wait already, or the writer has stopped.
        """
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()

        def settle(result: Result | BaseException) -> None:
            if future.done():
                return
            if isinstance(result, BaseException):
                future.set_exception(result)
            else:
                future.set_result(result)

        self.submit_to(job, settle)
        return future

    def submit_to(self, job: Job, answer: Callable[[Result | BaseException], None]) -> None:
        """Queue a job; ``answer`` is called on the loop with its result, or with the error that its batch ended in.

        For doors that keep no task for a request: a batch comes back in one callback of the loop, which calls every answer in
        the order of the jobs, without a future for each. ``answer`` must not block, and what it raises is logged and is no
        matter of the other jobs.

        Raises:
            Overloaded: as :meth:`submit`; ``answer`` will not be called.
        """
        if self._loop is None or self._thread is None:
            raise Overloaded("the store's writer has stopped")
        waiting = len(self._jobs) + self._under_way
        if waiting >= self._capacity:
            raise Overloaded(f"{waiting} attempts wait for the store already")
        self._jobs.append(job)
        self._answers.append(answer)
        if not self._scheduled and not self._busy:
            # Not now but after the callbacks that are ready: those of the previous batch's callers submit in them.
            self._scheduled = True
            self._loop.call_soon(self._hand_over)

    @property
    def waiting(self) -> int:
        """Jobs that were submitted and not answered."""
        return len(self._jobs) + self._under_way

    async def stop(self) -> None:
        """Answer what is queued, then end the thread."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        if self.waiting:
            self._drained = asyncio.Event()
            await self._drained.wait()
        self._batches.put(None)
        await asyncio.get_running_loop().run_in_executor(None, thread.join)
        if self._settler is not None:
            self._processed.put(None)
            await asyncio.get_running_loop().run_in_executor(None, self._settler.join)
            self._settler = None
        self._loop = None

    def _hand_over(self) -> None:
        self._scheduled = False
        if self._busy or not self._jobs:
            return
        jobs, answers = self._jobs, self._answers
        self._jobs, self._answers = jobs[MAX_BATCH:], answers[MAX_BATCH:]
        del jobs[MAX_BATCH:], answers[MAX_BATCH:]
        self._under_way += len(jobs)
        self._busy = True
        if self._process_now is not None and len(jobs) <= MAX_AT_ONCE:
            results = self._process_now(jobs)
            if results is not None:
                self._processed.put(((answers, results), True))
                return
        self._batches.put((jobs, answers))

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
            jobs, answers = batch
            results: Sequence[Result | BaseException]
            try:
                results = self._process(jobs)
                if len(results) != len(jobs):
                    raise RuntimeError(f"{len(jobs)} jobs got {len(results)} results")
            except Exception as err:
                # A bug must refuse these logins and not end the thread that serves all others.
                log.exception("processing a batch failed")
                results = [err] * len(jobs)
            if self._settle is None or isinstance(results[0], BaseException):
                self._tell(self._deliver, [(answers, results)], True)
            elif self._jobs:
                # Others wait: they are processed while this batch is settled.
                self._processed.put(((answers, results), False))
                self._tell(self._go_on)
            else:
                self._tell(self._deliver, self._settled(self._settle, [(answers, results)]), True)

    def _settle_all(self, settle: Callable[[], None]) -> None:
        while True:
            batch = self._processed.get()
            if batch is None:
                return
            batches, frees = [batch[0]], batch[1]
            with contextlib.suppress(queue.Empty):
                while (batch := self._processed.get_nowait()) is not None:
                    batches.append(batch[0])
                    frees = frees or batch[1]
            self._tell(self._deliver, self._settled(settle, batches), frees)
            if batch is None:
                return

    @staticmethod
    def _settled(settle: Callable[[], None], batches: list[_Processed[Result]]) -> list[_Processed[Result]]:
        try:
            settle()
        except Exception as err:
            log.exception("settling failed")
            return [(answers, [err] * len(answers)) for answers, _ in batches]
        return batches

    def _tell(self, callback: Callable[..., None], *arguments: object) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(callback, *arguments)

    def _go_on(self) -> None:
        """The writer's thread is free."""
        self._busy = False
        self._hand_over()

    def _deliver(self, batches: Sequence[_Processed[Result]], writer_is_free: bool) -> None:
        for answers, results in batches:
            self._under_way -= len(answers)
            for answer, result in zip(answers, results, strict=True):
                try:
                    answer(result)
                except Exception:
                    log.exception("a result could not be delivered")
        if writer_is_free:
            self._busy = False
        if self._jobs:
            if not self._scheduled and not self._busy and self._loop is not None:
                self._scheduled = True
                self._loop.call_soon(self._hand_over)
        elif self._drained is not None and not self._under_way:
            self._drained.set()

    def _rest(self) -> None:
        try:
            self._idle()
        except Exception:
            log.exception("the work between batches failed")


_IDLE_S = 1.0
