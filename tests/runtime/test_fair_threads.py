"""Threads for calls that block: everybody gets a turn, whatever hangs."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest

from mfa_runtime.fair_threads import FairThreads, Shares
from mfa_runtime.primary import PrimaryUnavailable

SHARES = Shares(threads=4, waiting=8, user_threads=2, user_waiting=3, source_threads=2, source_waiting=6)
LONG_S = 30.0


class Stage:
    """Calls that note that they began, and hang until they may go on."""

    def __init__(self, shares: Shares = SHARES) -> None:
        self.threads = FairThreads("test", shares)
        self.go = threading.Event()
        self.gates: dict[str, threading.Event] = {}
        self.begun: list[str] = []
        self._noted = threading.Condition()

    def hang(self, what: str) -> Callable[[], str]:
        def call() -> str:
            with self._noted:
                self.begun.append(what)
                self._noted.notify_all()
            assert self.gates.get(what, self.go).wait(LONG_S)
            return what

        return call

    def ask(self, what: str, *, user: str = "", source: str | None = None, timeout_s: float = LONG_S) -> asyncio.Task[str]:
        return asyncio.ensure_future(
            self.threads.run(self.hang(what), user=user or what, source=source, timeout_s=timeout_s)
        )

    async def until_begun(self, number: int) -> None:
        def wait() -> None:
            with self._noted:
                assert self._noted.wait_for(lambda: len(self.begun) >= number, LONG_S), self.begun

        await asyncio.to_thread(wait)


def play(scene: Callable[[Stage], Awaitable[None]], shares: Shares = SHARES) -> None:
    """Run a scene; whatever hangs in the end is let go."""

    async def run() -> None:
        stage = Stage(shares)
        try:
            await scene(stage)
        finally:
            stage.go.set()
            stage.threads.close()

    asyncio.run(run())


def test_a_hanging_user_holds_a_share() -> None:
    """One user's calls hang; another one's are begun all the same, and the third call of the first waits."""

    async def scene(stage: Stage) -> None:
        first = [stage.ask(f"a{number}", user="alice") for number in range(3)]
        await stage.until_begun(2)
        second = stage.ask("b", user="bob")
        await stage.until_begun(3)
        assert stage.begun[:2] == ["a0", "a1"]
        assert stage.begun[2:] == ["b"]
        stage.go.set()
        assert await asyncio.gather(*first, second) == ["a0", "a1", "a2", "b"]

    play(scene)


def test_a_source_that_floods_holds_a_share() -> None:
    """Many users from one source; somebody from elsewhere is begun at once, and somebody from an unknown one."""

    async def scene(stage: Stage) -> None:
        flood = [stage.ask(f"u{number}", source="192.0.2.1") for number in range(6)]
        await stage.until_begun(2)
        others = [stage.ask("elsewhere", source="192.0.2.2"), stage.ask("unknown")]
        await stage.until_begun(4)
        assert set(stage.begun) == {"u0", "u1", "elsewhere", "unknown"}
        stage.go.set()
        await asyncio.gather(*flood, *others)

    play(scene)


def test_whoever_holds_the_fewest_threads_is_next() -> None:
    """With every thread taken, a newcomer passes those who came before him and hold some already."""

    async def scene(stage: Stage) -> None:
        stage.gates["b0"] = threading.Event()
        asked = [stage.ask("a0", user="alice"), stage.ask("a1", user="alice"), stage.ask("b0", user="bob")]
        await stage.until_begun(3)
        asked += [stage.ask("a2", user="alice"), stage.ask("c0", user="carol")]
        await asyncio.sleep(0)
        stage.gates["b0"].set()
        await stage.until_begun(4)
        assert stage.begun[3] == "c0"
        stage.go.set()
        await asyncio.gather(*asked)

    play(scene, Shares(threads=3, waiting=8, user_threads=3, user_waiting=3, source_threads=3, source_waiting=8))


def test_over_the_bounds_nobody_waits() -> None:
    """Of a user, of a source, and of all; the reason says which."""

    async def scene(stage: Stage) -> None:
        kept = [stage.ask(f"a{number}", user="alice") for number in range(5)]
        await stage.until_begun(2)
        with pytest.raises(PrimaryUnavailable, match="this user"):
            await stage.ask("a5", user="alice")
        kept += [stage.ask(f"s{number}", source="192.0.2.1") for number in range(7)]
        await stage.until_begun(4)
        with pytest.raises(PrimaryUnavailable, match="8 calls wait"):
            await stage.ask("x")
        stage.go.set()
        assert len(await asyncio.gather(*kept)) == 12

    play(scene)


def test_a_call_that_is_given_up_on_keeps_its_share_until_it_returns() -> None:
    """Its caller is answered; whoever is told shuts what it waits at; the user's next calls wait behind it."""

    async def scene(stage: Stage) -> None:
        told: list[str] = []
        with pytest.raises(PrimaryUnavailable, match="no answer"):
            await stage.threads.run(
                stage.hang("a0"), user="alice", source=None, timeout_s=0.01, give_up=lambda: told.append("a0")
            )
        assert told == ["a0"]
        with pytest.raises(PrimaryUnavailable, match="no thread"):
            await stage.ask("a1", user="alice", timeout_s=0.01)
        stage.go.set()
        assert await stage.ask("a2", user="alice") == "a2"
        assert "a1" not in stage.begun

    play(scene, Shares(threads=4, waiting=8, user_threads=1, user_waiting=3, source_threads=2, source_waiting=6))


def test_what_a_call_raises_is_raised() -> None:
    """And its thread goes on."""

    async def scene(stage: Stage) -> None:
        def fail() -> None:
            raise PrimaryUnavailable("broken")

        for _ in range(9):
            with pytest.raises(PrimaryUnavailable, match="broken"):
                await stage.threads.run(fail, user="alice", source=None, timeout_s=LONG_S)

    play(scene)


def test_a_cancelled_caller_leaves_its_place() -> None:
    """A door that closes a dialogue."""

    async def scene(stage: Stage) -> None:
        hanging = [stage.ask(f"a{number}", user="alice") for number in range(2)]
        await stage.until_begun(2)
        for _ in range(20):
            waiting = stage.ask("w", user="alice")
            await asyncio.sleep(0)
            waiting.cancel()
            with suppress(asyncio.CancelledError):
                await waiting
        stage.go.set()
        await asyncio.gather(*hanging)
        assert stage.begun == ["a0", "a1"]

    play(scene)


def test_closing_lets_those_finish_who_are_in() -> None:
    """Running or waiting; then the threads end, and nobody new comes in."""

    async def scene(stage: Stage) -> None:
        admitted = [stage.ask(f"a{number}") for number in range(6)]
        await stage.until_begun(4)
        stage.threads.close()
        with pytest.raises(PrimaryUnavailable, match="closed"):
            await stage.ask("late")
        stage.go.set()
        assert len(await asyncio.gather(*admitted)) == 6
        mine = [thread for thread in threading.enumerate() if thread.name.startswith("test-")]
        for thread in mine:
            await asyncio.to_thread(thread.join, LONG_S)
        assert not any(thread.is_alive() for thread in mine)

    play(scene)


def test_a_thread_that_waits_keeps_nothing_alive() -> None:
    """Not the password of the last call."""

    class Precious:
        pass

    async def scene(stage: Stage) -> None:
        precious = Precious()
        watch = weakref.ref(precious)
        await stage.threads.run(lambda kept=precious: None, user="alice", source=None, timeout_s=LONG_S)  # type: ignore[misc]
        del precious
        for _ in range(100):
            gc.collect()
            if watch() is None:
                return
            await asyncio.sleep(0.01)
        raise AssertionError("kept")

    play(scene)


@pytest.mark.parametrize("threads", [1, 2, 8, 64])
def test_the_usual_shares_leave_room(threads: int) -> None:
    """One source never gets all of several threads, one user never all that a source may."""
    shares = Shares.of(threads)

    assert 1 <= shares.user_threads <= shares.source_threads <= max(1, threads // 2)
    assert shares.user_waiting <= shares.source_waiting <= shares.waiting // 2
