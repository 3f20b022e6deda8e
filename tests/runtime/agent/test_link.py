"""The link: everybody is told, once, in time, whatever the authority does. Time is a number here."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mfa_core.audit import Outcome
from mfa_core.verdict import Unready
from mfa_runtime.agent.breaker import Happening, State
from mfa_runtime.agent.http import Refused, Unreachable
from mfa_runtime.agent.link import MAX_TOGETHER, MAX_WAITING, REQUESTS_AT_ONCE, RETURN_SHARE, Link
from mfa_runtime.counsel import Alone, Referred, Ruled
from tests.doubles import attempt

BUDGET_S = 3.0
YES = Ruled(Outcome.ACCEPTED)
Script = Callable[[Sequence[Referred]], Awaitable[Sequence[Ruled | None]]]


class _Jumping(selectors.DefaultSelector):
    """Waits for nothing but sockets: the time that a loop would sleep is added to its clock."""

    now = 1000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        found = super().select(0)
        if not found and timeout:
            self.now += timeout
        assert found or timeout is not None, "everybody waits, and nothing can happen"
        return found


class JumpingLoop(asyncio.SelectorEventLoop):
    """A loop whose time is made up: an hour passes in no time."""

    def __init__(self) -> None:
        self.clock = _Jumping()
        super().__init__(self.clock)

    def time(self) -> float:
        return self.clock.now


def run(scenario: Callable[[JumpingLoop], Coroutine[Any, Any, None]]) -> None:
    loop = JumpingLoop()
    try:
        loop.run_until_complete(scenario(loop))
    finally:
        loop.close()


async def says_yes(referred: Sequence[Referred]) -> Sequence[Ruled | None]:
    return [YES] * len(referred)


async def hangs(referred: Sequence[Referred]) -> Sequence[Ruled | None]:
    await asyncio.sleep(3600)
    return []


async def fails(referred: Sequence[Referred]) -> Sequence[Ruled | None]:
    raise Unreachable("nobody there")


async def breaks(referred: Sequence[Referred]) -> Sequence[Ruled | None]:
    raise KeyError("a bug")


async def miscounts(referred: Sequence[Referred]) -> Sequence[Ruled | None]:
    return [YES] * (len(referred) + 1)


def after(seconds: float, then: Script) -> Script:
    async def script(referred: Sequence[Referred]) -> Sequence[Ruled | None]:
        await asyncio.sleep(seconds)
        return await then(referred)

    return script


@dataclass
class Asking:
    """A link with a script for each request, and what was told when."""

    loop: JumpingLoop
    scripts: list[Script] = field(default_factory=list)
    told: dict[int, list[tuple[float, Ruled | Alone]]] = field(default_factory=dict)
    asked_at: dict[int, float] = field(default_factory=dict)
    sizes: list[int] = field(default_factory=list)
    losses: int = 0
    refusals: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.link = Link(
            self, monotonic=self.loop.time, chance=lambda: 0.5, budget_s=BUDGET_S, retry_s=2.0, lost=self._lost,
            refused=self._refused,
        )  # fmt: skip
        self.link.happened(Happening.FOUND)
        self.link.happened(Happening.RECONCILED)

    def _lost(self) -> None:
        self.losses += 1

    async def _refused(self, err: Refused) -> None:
        await asyncio.sleep(0.05)  # it is written down
        self.refusals.append(err.code)

    async def verify(self, referred: Sequence[Referred], *, budget_s: float) -> Sequence[Ruled | None]:
        self.sizes.append(len(referred))
        script = self.scripts.pop(0) if self.scripts else says_yes
        return await script(referred)

    def ask(self, count: int = 1) -> None:
        for _ in range(count):
            number = len(self.asked_at)
            self.asked_at[number] = self.loop.time()
            one = Referred(replace(attempt(), event_id=f"E{number}"), "alice")
            self.told[number] = []
            self.link.ask(one, lambda said, number=number: self.told[number].append((self.loop.time(), said)))

    async def wait(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def answers(self) -> list[str]:
        assert all(len(said) == 1 for said in self.told.values()), "somebody was told twice, or not at all"
        return ["alone" if isinstance(said[0][1], Alone) else "ruled" for said in self.told.values()]

    def longest(self) -> float:
        return max(said[0][0] - self.asked_at[number] for number, said in self.told.items())


def test_what_is_asked_in_one_turn_goes_in_one_request() -> None:
    async def scenario(loop: JumpingLoop) -> None:
        asking = Asking(loop)
        asking.ask(10)
        await asking.wait(0.1)
        assert asking.sizes == [10]
        assert asking.answers() == ["ruled"] * 10

    run(scenario)


def test_a_request_has_a_bound_and_there_are_few_at_once() -> None:
    async def scenario(loop: JumpingLoop) -> None:
        asking = Asking(loop, [after(1.0, says_yes)] * REQUESTS_AT_ONCE)
        asking.ask(MAX_TOGETHER * REQUESTS_AT_ONCE + 5)
        await asking.wait(0.5)
        assert asking.sizes == [MAX_TOGETHER] * REQUESTS_AT_ONCE
        await asking.wait(1.0)
        assert asking.sizes[-1] == 5
        assert set(asking.answers()) == {"ruled"}

    run(scenario)


LATE = [hangs, fails, after(2.9, fails), after(2.999, hangs)]


@pytest.mark.parametrize("script", LATE, ids=["hangs", "fails", "late", "later"])
def test_nobody_waits_longer_than_the_budget_and_later_ones_not_at_all(script: Script) -> None:
    async def scenario(loop: JumpingLoop) -> None:
        asking = Asking(loop, [script])
        asking.ask(3)
        await asking.wait(BUDGET_S + 0.001)
        assert asking.answers() == ["alone"] * 3
        assert asking.longest() <= BUDGET_S + 1e-6
        assert asking.losses == 1
        before = loop.time()
        asking.ask(5)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert asking.answers()[3:] == ["alone"] * 5
        assert loop.time() == before

    run(scenario)


def test_a_failure_tells_everybody_who_waits_at_once() -> None:
    async def scenario(loop: JumpingLoop) -> None:
        asking = Asking(loop, [hangs, after(0.5, fails), hangs, hangs])
        for _ in range(REQUESTS_AT_ONCE):
            asking.ask()
            await asking.wait(0.01)
        asking.ask(7)  # wait in the queue
        await asking.wait(0.6)
        assert asking.answers() == ["alone"] * (REQUESTS_AT_ONCE + 7)
        assert asking.longest() < 0.6
        assert asking.losses == 1

    run(scenario)


@pytest.mark.parametrize("script", [breaks, miscounts])
def test_a_bug_tells_its_own_to_be_decided_here_and_no_others(script: Script, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(loop: JumpingLoop) -> None:
        asking = Asking(loop, [script])
        asking.ask(2)
        await asking.wait(0.01)
        asking.ask()
        await asking.wait(0.01)
        assert asking.answers() == ["alone", "alone", "ruled"]
        assert asking.link.breaker.asks

    run(scenario)


def test_one_that_the_authority_could_not_decide_is_decided_here() -> None:
    async def scenario(loop: JumpingLoop) -> None:
        async def some(referred: Sequence[Referred]) -> Sequence[Ruled | None]:
            return [YES, None, YES]

        asking = Asking(loop, [some])
        asking.ask(3)
        await asking.wait(0.01)
        assert asking.answers() == ["ruled", "alone", "ruled"]
        assert asking.link.breaker.asks

    run(scenario)


def test_a_refusal_is_written_down_before_anybody_decides_here() -> None:
    async def scenario(loop: JumpingLoop) -> None:
        async def refuses(referred: Sequence[Referred]) -> Sequence[Ruled | None]:
            raise Refused("no", status=403, code="revoked")

        asking = Asking(loop, [refuses])
        asking.ask(2)
        await asking.wait(0.01)
        assert asking.told == {0: [], 1: []}
        await asking.wait(0.1)
        assert asking.refusals == ["revoked"]
        assert asking.answers() == ["alone"] * 2

    run(scenario)


def test_the_queue_is_bounded() -> None:
    async def scenario(loop: JumpingLoop) -> None:
        asking = Asking(loop, [hangs] * REQUESTS_AT_ONCE)
        asking.ask(MAX_TOGETHER * REQUESTS_AT_ONCE)
        await asking.wait(0.01)
        asking.ask(MAX_WAITING + 3)
        await asking.wait(0.01)
        told = [number for number, said in asking.told.items() if said]
        assert [asking.told[number][0][1] for number in told] == [Ruled(Outcome.UNAVAILABLE, Unready.OVERLOADED)] * 3
        await asking.link.stop()
        assert asking.answers().count("ruled") == 3

    run(scenario)


def test_a_stop_tells_everybody() -> None:
    async def scenario(loop: JumpingLoop) -> None:
        asking = Asking(loop, [hangs])
        asking.ask(2)
        await asking.wait(0.1)
        asking.ask(2)
        await asking.link.stop()
        await asyncio.sleep(0)
        assert asking.answers() == ["alone"] * 4

    run(scenario)


def test_how_long_the_authority_has_been_gone_is_told() -> None:
    async def scenario(loop: JumpingLoop) -> None:
        asking = Asking(loop, [fails])
        asking.ask()
        await asking.wait(60.0)
        asking.ask()
        await asyncio.sleep(0)
        assert [said[0][1] for said in asking.told.values()] == [Alone(0.0), Alone(pytest.approx(60.0))]

    run(scenario)


def test_a_door_that_breaks_does_not_keep_the_others_from_hearing(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(loop: JumpingLoop) -> None:
        asking = Asking(loop)

        def told(_said: object) -> None:
            raise RuntimeError("a door broke")

        asking.link.ask(Referred(attempt(), "alice"), told)
        asking.ask(2)
        await asking.wait(0.01)
        assert asking.answers() == ["ruled"] * 2

    run(scenario)
    assert "could not be delivered" in caplog.text


SCRIPTS = st.sampled_from(
    [says_yes, hangs, fails, breaks, miscounts, after(0.4, says_yes), after(1.7, fails), after(2.5, says_yes)]
)
MOVES = st.one_of(
    st.tuples(st.just("ask"), st.integers(1, 40)),
    st.tuples(st.just("wait"), st.floats(0.0, 4.0)),
    st.tuples(st.just("happens"), st.sampled_from(list(Happening))),
)


@settings(max_examples=150, deadline=None)
@given(scripts=st.lists(SCRIPTS, max_size=12), moves=st.lists(MOVES, max_size=14))
def test_everybody_is_told_once_within_the_budget(scripts: list[Script], moves: list[tuple[str, Any]]) -> None:
    """Whatever requests do, and whatever else is heard of the authority."""

    async def scenario(loop: JumpingLoop) -> None:
        asking = Asking(loop, scripts)
        for what, value in moves:
            match what:
                case "ask":
                    asking.ask(value)
                case "wait":
                    await asking.wait(value)
                case "happens":
                    asking.link.happened(value)
        await asking.wait(BUDGET_S + 0.01)
        if asking.told:
            asking.answers()
            assert asking.longest() <= BUDGET_S + 1e-6
        await asking.link.stop()
        assert asking.link.breaker.state is State.OPEN

    run(scenario)


def _anew(asking: Asking) -> None:
    """The link of a process that has just started."""
    asking.link = Link(
        asking, monotonic=asking.loop.time, chance=lambda: 0.5, budget_s=BUDGET_S, retry_s=2.0, lost=asking._lost,
        refused=asking._refused,
    )  # fmt: skip


def test_who_comes_at_the_start_waits_until_the_authority_is_found_and_asks_it() -> None:
    async def scenario(loop: JumpingLoop) -> None:
        asking = Asking(loop)
        _anew(asking)
        asking.ask(2)
        await asking.wait(0.4)
        assert asking.sizes == []
        asking.link.happened(Happening.FOUND)
        asking.ask()
        await asking.wait(0.4)
        asking.link.happened(Happening.RECONCILED)
        await asking.wait(0.1)

        assert asking.answers() == ["ruled"] * 3
        assert asking.sizes == [3]

    run(scenario)


def test_who_comes_at_the_start_decides_alone_as_soon_as_nobody_was_found() -> None:
    async def scenario(loop: JumpingLoop) -> None:
        asking = Asking(loop)
        _anew(asking)
        asking.ask()
        await asking.wait(0.4)
        asking.link.happened(Happening.LOST)
        asking.ask()
        await asking.wait(0.0)

        assert asking.answers() == ["alone"] * 2
        assert asking.longest() <= 0.4
        assert asking.losses == 0

    run(scenario)


@pytest.mark.parametrize("found", [False, True])
def test_nobody_waits_longer_than_the_budget_for_a_start_that_does_not_end(found: bool) -> None:
    async def scenario(loop: JumpingLoop) -> None:
        asking = Asking(loop)
        _anew(asking)
        asking.ask()
        await asking.wait(1.0)
        if found:
            asking.link.happened(Happening.FOUND)
        asking.ask()
        await asking.wait(10.0)
        asking.ask()
        await asking.wait(0.0)

        assert asking.answers() == ["alone"] * 3
        assert asking.longest() <= BUDGET_S

    run(scenario)


def test_who_comes_while_the_authority_is_told_what_was_decided_here_waits_a_little_each_time() -> None:
    async def scenario(loop: JumpingLoop) -> None:
        asking = Asking(loop)
        asking.link.happened(Happening.LOST)
        for _ in range(2):
            asking.link.happened(Happening.FOUND)
            asking.ask()
            await asking.wait(RETURN_SHARE * BUDGET_S + 0.1)
            asking.ask()  # it has taken too long already
            await asking.wait(0.0)
            asking.link.happened(Happening.LOST)
        asking.link.happened(Happening.FOUND)
        asking.ask()
        asking.link.happened(Happening.RECONCILED)
        await asking.wait(0.1)

        assert asking.answers() == ["alone"] * 4 + ["ruled"]
        assert asking.longest() <= RETURN_SHARE * BUDGET_S + 0.01

    run(scenario)


def test_a_link_that_stops_at_the_start_leaves_nobody_waiting() -> None:
    async def scenario(loop: JumpingLoop) -> None:
        asking = Asking(loop)
        _anew(asking)
        asking.ask()
        await asking.link.stop()
        asking.ask()
        await asking.wait(0.0)

        assert asking.answers() == ["alone"] * 2

    run(scenario)
