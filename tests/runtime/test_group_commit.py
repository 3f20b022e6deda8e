"""What waits together is done together, in order, within a bound, and an error is the batch's own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence

import pytest

from mfa_core.errors import Overloaded
from mfa_runtime.group_commit import MAX_AT_ONCE, MAX_BATCH, GroupCommit


class Work:
    """Doubles numbers, keeps the batches, and can be held up."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.go = threading.Event()
        self.go.set()
        self.idle = 0

    def process(self, jobs: Sequence[int]) -> list[int]:
        self.go.wait(10)
        self.batches.append(list(jobs))
        if 13 in jobs:
            raise RuntimeError("thirteen")
        return [2 * job for job in jobs]

    def rest(self) -> None:
        self.idle += 1


async def started(work: Work, capacity: int = 10_000) -> GroupCommit[int, int]:
    writer = GroupCommit(work.process, capacity=capacity, idle=work.rest)
    writer.start()
    return writer


def test_a_lone_job_is_not_delayed_and_many_are_one_batch() -> None:
    """No timer: what arrives while a batch is under way is the next one."""

    async def run() -> tuple[list[int], list[list[int]]]:
        work = Work()
        writer = await started(work)
        alone = await writer.submit(1)
        work.go.clear()
        first = writer.submit(2)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        others = [writer.submit(n) for n in range(3, 10)]
        work.go.set()
        results = await asyncio.gather(first, *others)
        await writer.stop()
        return [alone, *results], work.batches

    results, batches = asyncio.run(run())

    assert results == [2 * n for n in range(1, 10)]
    assert batches == [[1], [2], list(range(3, 10))]


def test_a_batch_is_bounded() -> None:
    """A thousand at once are four transactions, in order."""

    async def run() -> list[list[int]]:
        work = Work()
        writer = await started(work)
        await asyncio.gather(*(writer.submit(n + 100) for n in range(1_000)))
        await writer.stop()
        return work.batches

    batches = asyncio.run(run())
    assert max(map(len, batches)) == MAX_BATCH
    assert [n for batch in batches for n in batch] == list(range(100, 1_100))


def test_over_its_capacity_it_refuses() -> None:
    """core-5-65: and takes again when there is room."""

    async def run() -> None:
        work = Work()
        writer = await started(work, capacity=3)
        futures = [writer.submit(n) for n in range(3)]
        with pytest.raises(Overloaded):
            writer.submit(3)
        await asyncio.gather(*futures)
        assert await writer.submit(4) == 8
        await writer.stop()
        with pytest.raises(Overloaded):
            writer.submit(5)

    asyncio.run(run())


def test_an_error_is_the_batchs_own(caplog: pytest.LogCaptureFixture) -> None:
    """core-5-59: those jobs fail, the thread lives, the next job is done."""

    async def run() -> None:
        work = Work()
        writer = await started(work)
        with pytest.raises(RuntimeError, match="thirteen"):
            await writer.submit(13)
        assert await writer.submit(4) == 8
        await writer.stop()

    asyncio.run(run())
    assert "Traceback" in caplog.text


def test_a_caller_that_gave_up_disturbs_nobody() -> None:
    """Its job is done all the same: a spend is durable or it is not."""

    async def run() -> list[list[int]]:
        work = Work()
        writer = await started(work)
        work.go.clear()
        gone, kept = writer.submit(1), writer.submit(2)
        await asyncio.sleep(0)
        gone.cancel()
        work.go.set()
        assert await kept == 4
        await writer.stop()
        return work.batches

    assert asyncio.run(run()) == [[1, 2]]


def test_answers_come_in_order_in_one_callback_of_the_loop() -> None:
    """For doors without a task for each request: nothing else of the loop runs between the answers of a batch."""

    async def run() -> tuple[list[object], int]:
        work, seen, turns = Work(), [], 0
        writer = await started(work)
        for n in range(1, 6):
            writer.submit_to(n, seen.append)

        while not seen:
            turns += 1
            await asyncio.sleep(0.001)
            assert len(seen) in {0, 5}
        writer.submit_to(13, seen.append)
        await writer.stop()
        return seen, turns

    seen, turns = asyncio.run(run())
    assert seen[:5] == [2, 4, 6, 8, 10]
    assert isinstance(seen[5], RuntimeError)
    assert turns >= 1


def test_an_answer_that_raises_is_no_matter_of_the_others(caplog: pytest.LogCaptureFixture) -> None:
    """A door's bug costs its own request."""

    async def run() -> list[object]:
        work, seen = Work(), []
        writer = await started(work)

        def broken(_result: object) -> None:
            raise ValueError("a door's bug")

        writer.submit_to(1, seen.append)
        writer.submit_to(2, broken)
        writer.submit_to(3, seen.append)
        await writer.stop()
        return seen

    assert asyncio.run(run()) == [2, 6]
    assert "a door's bug" in caplog.text


def test_over_its_capacity_no_answer_is_promised() -> None:
    """Overloaded is raised, and the callback is never called."""

    async def run() -> list[object]:
        work, seen = Work(), []
        writer = await started(work, capacity=1)
        writer.submit_to(1, seen.append)
        with pytest.raises(Overloaded):
            writer.submit_to(2, seen.append)
        await writer.stop()
        return seen

    assert asyncio.run(run()) == [2]


def test_too_few_results_refuse_the_whole_batch(caplog: pytest.LogCaptureFixture) -> None:
    """Whose results they would be, nobody knows."""

    async def run() -> list[object]:
        seen: list[object] = []
        writer: GroupCommit[int, int] = GroupCommit(lambda jobs: jobs[1:], capacity=10, idle=lambda: None)
        writer.start()
        writer.submit_to(1, seen.append)
        writer.submit_to(2, seen.append)
        await writer.stop()
        return seen

    assert [type(one) for one in asyncio.run(run())] == [RuntimeError, RuntimeError]
    assert "2 jobs got 1 results" in caplog.text


class Flush:
    """Settles when it is let go, and can fail."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.calls = 0
        self.error: Exception | None = None

    def __call__(self) -> None:
        self.calls += 1
        assert self.go.wait(10)
        if self.error is not None:
            raise self.error


async def settling(work: Work, flush: Flush) -> GroupCommit[int, int]:
    writer = GroupCommit(work.process, capacity=10_000, idle=work.rest, settle=flush)
    writer.start()
    return writer


async def until(what: Callable[[], bool]) -> None:
    """Wait for it, not for ever."""
    async with asyncio.timeout(10):
        while not what():  # noqa: ASYNC110  what is waited for happens in another thread
            await asyncio.sleep(0.001)


def test_the_next_batch_is_processed_while_the_last_one_is_settled() -> None:
    """And nobody hears of either before the disk has answered."""

    async def run() -> None:
        work, flush, seen = Work(), Flush(), list[object]()
        writer = await settling(work, flush)
        work.go.clear()
        writer.submit_to(1, seen.append)
        await asyncio.sleep(0.01)
        writer.submit_to(2, seen.append)
        work.go.set()
        await until(lambda: work.batches == [[1], [2]])
        assert seen == []
        assert writer.waiting == 2
        flush.go.set()
        await until(lambda: not writer.waiting)
        assert sorted(seen, key=str) == [2, 4]
        await writer.stop()

    asyncio.run(run())


def test_what_settling_raises_is_the_answer() -> None:
    """A disk that refuses: none of the batches it was asked for is told its result. The next ones are asked for anew."""

    async def run() -> None:
        work, flush, seen = Work(), Flush(), list[object]()
        writer = await settling(work, flush)
        flush.error = RuntimeError("the disk")
        flush.go.set()
        with pytest.raises(RuntimeError, match="the disk"):
            await writer.submit(1)
        for n in range(2, 1_000):
            writer.submit_to(n, seen.append)
        await until(lambda: not writer.waiting)
        assert len(seen) == 998
        assert all(isinstance(one, RuntimeError) for one in seen)
        flush.error = None
        assert await writer.submit(3) == 6
        await writer.stop()

    asyncio.run(run())


def test_a_batch_that_broke_is_not_settled() -> None:
    """There is nothing to wait for."""

    async def run() -> int:
        work, flush = Work(), Flush()
        writer = await settling(work, flush)
        with pytest.raises(RuntimeError, match="thirteen"):
            await writer.submit(13)
        await writer.stop()
        return flush.calls

    assert asyncio.run(run()) == 0


def test_stopping_waits_for_the_disk() -> None:
    """Several batches on their way, each answered."""

    async def run() -> list[object]:
        work, flush, seen = Work(), Flush(), list[object]()
        writer = await settling(work, flush)
        for n in range(100, 1_100):
            writer.submit_to(n, seen.append)
        await asyncio.sleep(0.01)
        asyncio.get_running_loop().call_later(0.02, flush.go.set)
        await writer.stop()
        return seen

    assert sorted(asyncio.run(run()), key=int) == [2 * n for n in range(100, 1_100)]  # type: ignore[call-overload]


def test_stopping_answers_what_waits_and_rests_once_more() -> None:
    """Nothing that was taken is dropped; twice is no mistake."""

    async def run() -> int:
        work = Work()
        writer = await started(work)
        futures = [writer.submit(n) for n in range(100, 700)]
        await writer.stop()
        assert [f.result() for f in futures] == [2 * n for n in range(100, 700)]
        await writer.stop()
        return work.idle

    assert asyncio.run(run()) >= 1


class AtOnce:
    """Processes on the loop, where it may."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self.willing = True
        self.batches: list[list[int]] = []

    def __call__(self, jobs: Sequence[int]) -> list[int] | None:
        if not self.willing:
            return None
        self.batches.append(list(jobs))
        return [2 * job for job in jobs]


def test_few_jobs_are_processed_on_the_loop_and_told_when_they_are_settled() -> None:
    """What comes meanwhile is the next batch, and not one for each turn of the loop."""

    async def run() -> None:
        work, flush, seen = Work(), Flush(), list[object]()
        now = AtOnce(work)
        writer: GroupCommit[int, int] = GroupCommit(
            work.process, capacity=10_000, idle=work.rest, settle=flush, process_now=now
        )
        writer.start()
        writer.submit_to(1, seen.append)
        await until(lambda: bool(flush.calls))
        for n in (2, 3, 4):
            writer.submit_to(n, seen.append)
            await asyncio.sleep(0)
        assert now.batches == [[1]]
        assert seen == []
        assert writer.waiting == 4
        flush.go.set()
        await until(lambda: not writer.waiting)
        assert seen == [2, 4, 6, 8]
        assert now.batches == [[1], [2, 3, 4]]
        assert work.batches == []
        await writer.stop()

    asyncio.run(run())


def test_what_cannot_be_done_on_the_loop_is_done_beside_it() -> None:
    """Where it would have to wait, and where there is much of it."""

    async def run() -> None:
        work, flush = Work(), Flush()
        flush.go.set()
        now = AtOnce(work)
        writer: GroupCommit[int, int] = GroupCommit(
            work.process, capacity=10_000, idle=work.rest, settle=flush, process_now=now
        )
        writer.start()
        now.willing = False
        assert await writer.submit(1) == 2
        now.willing = True
        many = range(100, 100 + MAX_AT_ONCE + 1)
        assert await asyncio.gather(*map(writer.submit, many)) == [2 * n for n in many]
        assert work.batches == [[1], list(many)]
        assert now.batches == []
        assert await writer.submit(2) == 4
        assert now.batches == [[2]]
        await writer.stop()

    asyncio.run(run())


def test_what_settling_raises_is_the_answer_on_the_loop_too() -> None:
    """And the next ones are processed all the same."""

    async def run() -> None:
        work, flush = Work(), Flush()
        flush.go.set()
        writer: GroupCommit[int, int] = GroupCommit(
            work.process, capacity=10_000, idle=work.rest, settle=flush, process_now=AtOnce(work)
        )
        writer.start()
        flush.error = RuntimeError("the disk")
        with pytest.raises(RuntimeError, match="the disk"):
            await writer.submit(1)
        flush.error = None
        assert await writer.submit(2) == 4
        await writer.stop()

    asyncio.run(run())
