"""The breaker: its table, and what the times in it do."""

from __future__ import annotations

import itertools

import pytest

from mfa_runtime.agent.breaker import JITTER, TABLE, Breaker, Happening, State, at_start, spread

RETRY_S = 2.0


def after(breaker: Breaker, *happenings: tuple[Happening, float]) -> Breaker:
    for what, now in happenings:
        breaker = breaker.after(what, now, retry_s=RETRY_S, chance=0.5)
    return breaker


def test_every_state_knows_every_happening() -> None:
    assert set(TABLE) == set(itertools.product(State, Happening))


@pytest.mark.parametrize("path", list(itertools.product(Happening, repeat=4)))
def test_a_lost_authority_is_asked_again_only_after_it_was_found_and_told(path: tuple[Happening, ...]) -> None:
    breaker = Breaker(State.OPEN, 0.0, 0.0) if path[0] is Happening.LOST else at_start(0.0)
    found = False
    for now, what in enumerate(path, start=1):
        was = breaker.state
        breaker = after(breaker, (what, float(now)))
        found = what is not Happening.LOST and (found or what is Happening.FOUND)
        if breaker.asks and was is not State.CLOSED:
            assert found
            assert what is Happening.RECONCILED


def test_a_start_asks_nobody_and_looks_at_once() -> None:
    breaker = at_start(100.0)

    assert not breaker.asks
    assert breaker.is_about_to_ask
    assert breaker.look_at == 100.0
    assert breaker.unreachable_s(130.0) == 30.0


def test_it_is_gone_since_the_first_failure_and_not_since_the_last() -> None:
    breaker = after(Breaker(State.CLOSED), (Happening.LOST, 10.0), (Happening.LOST, 14.0), (Happening.FOUND, 15.0),
                    (Happening.LOST, 16.0))  # fmt: skip

    assert breaker.unreachable_s(20.0) == 10.0


def test_while_it_is_there_it_is_unreachable_for_no_time() -> None:
    breaker = after(at_start(0.0), (Happening.FOUND, 5.0), (Happening.RECONCILED, 6.0))

    assert breaker.asks
    assert breaker.unreachable_s(60.0) == 0.0
    assert after(breaker, (Happening.LOST, 70.0)).unreachable_s(71.0) == 1.0


def test_requests_that_fail_together_do_not_put_off_the_next_look() -> None:
    first = after(Breaker(State.CLOSED), (Happening.LOST, 10.0))

    later = after(first, (Happening.LOST, 10.5), (Happening.LOST, 11.5))

    assert later.look_at == first.look_at == 12.0
    assert after(later, (Happening.LOST, 12.0)).look_at == 14.0


@pytest.mark.parametrize(("chance", "expected"), [(0.0, 1 - JITTER), (0.5, 1.0), (0.999999, 1 + JITTER)])
def test_looks_are_spread_around_the_time_between_them(chance: float, expected: float) -> None:
    assert spread(RETRY_S, chance) == pytest.approx(RETRY_S * expected, abs=0.001)
