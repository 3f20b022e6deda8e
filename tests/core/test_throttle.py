"""How fast somebody may guess: the table of waits, lanes, the hard cap, sources, and clocks that step back."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfa_core.throttle import (
    CLEAN,
    LANE_REFRESH_S,
    Record,
    Standing,
    Throttle,
    ThrottleRules,
    back_off_s,
    charge,
    charge_source,
    is_known_lane,
    standing,
    succeed,
)

NOW = 1_700_000_000.0
DAY = 86_400.0
RULES = ThrottleRules()
OPEN = (Standing.OPEN, 0.0)
NOTHING = Throttle()
KNOWN = Record(last_success_at=NOW - DAY)
"""The lane of a source from which the user came yesterday."""


def after(failures: int, throttle: Throttle = NOTHING, *, now: float = NOW, rules: ThrottleRules = RULES) -> Throttle:
    """Fail this often, as soon as it is allowed each time."""
    for _ in range(failures):
        throttle = charge(throttle, now, rules)
    return throttle


@pytest.mark.parametrize(
    ("failures", "wait_s"),
    [(0, 0), (1, 0), (2, 0), (3, 0), (4, 1), (5, 2), (6, 4), (7, 8), (8, 16), (9, 32), (10, 64), (11, 128), (12, 256),
     (13, 512), (14, 900), (15, 900), (99, 900), (10_000, 900)],
)  # fmt: skip
def test_three_are_free_then_the_wait_doubles_up_to_a_quarter_of_an_hour(failures: int, wait_s: float) -> None:
    """The whole table."""
    assert back_off_s(failures, RULES.free, RULES) == wait_s


@pytest.mark.parametrize("failures", range(1, 20))
def test_what_a_failure_costs_is_what_the_next_attempt_waits(failures: int) -> None:
    """Not a second more, and at its end the account is open."""
    throttle = after(failures)
    wait_s = back_off_s(failures, RULES.free, RULES)

    assert standing(throttle, NOW, RULES) == ((Standing.WAIT, wait_s) if wait_s else OPEN)
    assert standing(throttle, NOW + wait_s, RULES) == OPEN


def test_a_patient_guesser_gets_under_a_hundred_guesses_a_day() -> None:
    """core-5-10: as many as the back-off allows, whatever is sent in parallel: every one is charged before the next."""
    throttle, now, evaluated = Throttle(), NOW, 0
    while now < NOW + DAY:
        where, wait_s = standing(throttle, now, replace(RULES, hard_cap=10**9))
        if where is Standing.OPEN:
            evaluated += 1
            throttle = charge(throttle, now, RULES)
        else:
            now += wait_s

    assert evaluated <= 110


def test_two_hundred_guesses_at_once_are_four() -> None:
    """core-5-10: three free ones and the one that starts the waiting; the rest is not looked at."""
    throttle, evaluated = Throttle(), 0
    for _ in range(200):
        if standing(throttle, NOW, RULES)[0] is Standing.OPEN:
            evaluated += 1
            throttle = charge(throttle, NOW, RULES)

    assert evaluated == 4


# The hard cap


def test_a_hundred_consecutive_failures_lock_for_good() -> None:
    """core-5-13: over weeks, at whatever pace; time does not open it again."""
    throttle = Throttle()
    for day in range(100):
        assert standing(throttle, NOW + day * DAY, RULES)[0] is Standing.OPEN
        throttle = charge(throttle, NOW + day * DAY, RULES)

    assert standing(throttle, NOW + 100 * DAY, RULES) == (Standing.LOCKED, 0.0)
    assert standing(throttle, NOW + 36_500 * DAY, RULES) == (Standing.LOCKED, 0.0)


def test_the_hard_cap_counts_over_all_lanes() -> None:
    """core-5-11: fifty from home and fifty from elsewhere are a hundred."""
    throttle = Throttle(lane=KNOWN)
    for n in range(100):
        lane = KNOWN if n % 2 else CLEAN
        throttle = charge(replace(throttle, lane=lane), NOW, RULES)

    assert standing(replace(throttle, lane=KNOWN), NOW, RULES)[0] is Standing.LOCKED


def test_a_success_ends_the_count() -> None:
    """Consecutive means without a success between."""
    throttle = succeed(replace(after(99), source=CLEAN), NOW, RULES, scope="", has_source=False)

    assert standing(after(3, throttle), NOW, RULES) == OPEN


# Lanes


def test_a_stranger_cannot_lock_the_owner_out() -> None:
    """core-5-11: ninety-nine failures from elsewhere leave the lane open from which the owner came yesterday."""
    throttle = after(99)

    assert standing(throttle, NOW, RULES)[0] is Standing.WAIT
    assert standing(replace(throttle, lane=KNOWN), NOW, RULES) == OPEN
    assert standing(replace(after(100), lane=KNOWN), NOW, RULES)[0] is Standing.LOCKED


def test_the_owner_waits_for_his_own_mistakes() -> None:
    """His lane has the same back-off."""
    throttle = after(4, Throttle(lane=KNOWN))

    assert standing(throttle, NOW, RULES) == (Standing.WAIT, 1.0)
    assert (throttle.account.failures, throttle.account.consecutive) == (0, 4)


def test_a_success_clears_only_its_own_lane() -> None:
    """What a stranger earned he keeps; only the consecutive count is over."""
    throttle = succeed(replace(after(10), lane=KNOWN), NOW, RULES, scope="", has_source=True)

    assert throttle.account.consecutive == 0
    assert standing(replace(throttle, lane=CLEAN), NOW, RULES) == (Standing.WAIT, 64.0)
    assert standing(throttle, NOW, RULES) == OPEN


def test_a_success_from_a_new_source_opens_a_lane_and_clears_the_one_it_used() -> None:
    """From then on that source is known."""
    throttle = succeed(after(3), NOW, RULES, scope="web", has_source=True)

    assert throttle.account == CLEAN
    assert throttle.lane == Record(last_success_at=NOW, scope="web")
    assert is_known_lane(throttle, NOW + 1, RULES)


def test_without_a_source_there_is_no_lane() -> None:
    """A door that does not know the source must not make all unknown sources one trusted place."""
    assert succeed(after(3), NOW, RULES, scope="", has_source=False) == Throttle(source=after(3).source)


@pytest.mark.parametrize(
    ("since_s", "known"),
    [(0.0, True), (30 * DAY - 1, True), (30 * DAY, False), (-59.0, True), (-61.0, False)],
    ids=["now", "almost-30-days", "30-days", "clock-slightly-back", "clock-back"],
)
def test_a_lane_is_known_for_thirty_days(since_s: float, known: bool) -> None:
    """And not at all when it seems to come from the future."""
    assert is_known_lane(Throttle(lane=Record(last_success_at=NOW - since_s)), NOW, RULES) is known


def test_a_lane_that_never_succeeded_is_not_known() -> None:
    """Zero is "never", also in January 1970."""
    assert not is_known_lane(Throttle(), 10.0, RULES)


@pytest.mark.parametrize(
    ("since_s", "scope", "failures", "rewritten"),
    [(1.0, "a", 0, False), (LANE_REFRESH_S, "a", 0, True), (1.0, "b", 0, True), (1.0, "a", 1, True)],
    ids=["fresh", "old", "another-scope", "had-failures"],
)
def test_a_login_writes_its_lane_only_when_that_says_something_new(
    since_s: float, scope: str, failures: int, rewritten: bool
) -> None:
    """The records are the same objects where nothing changed: the store writes nothing."""
    throttle = Throttle(lane=Record(last_success_at=NOW - since_s, scope=scope, failures=failures))

    following = succeed(throttle, NOW, RULES, scope="a", has_source=True)

    assert (following.lane is not throttle.lane) is rewritten
    assert following.account is throttle.account
    assert following.source is throttle.source


# Sources


def test_a_source_has_thirty_free_failures_over_all_users() -> None:
    """core-5-11: the thirty-first makes it wait, as the fourth does an account."""
    source = CLEAN
    for n in range(1, 34):
        source = charge_source(source, NOW, RULES)
        where, wait_s = standing(Throttle(source=source), NOW, RULES)
        assert (where, wait_s) == (OPEN if n <= 30 else (Standing.SOURCE_WAIT, 2.0 ** (n - 31)))


def test_a_source_is_forgiven_one_failure_a_minute() -> None:
    """An office of people who mistype is not locked out of its own building."""
    source = CLEAN
    for n in range(1_000):
        source = charge_source(source, NOW + 60 * n, RULES)

    assert source.failures == 1


def test_forgiveness_never_goes_below_nothing() -> None:
    """A year of quiet is not a credit."""
    source = charge_source(charge_source(CLEAN, NOW, RULES), NOW + 365 * DAY, RULES)

    assert source.failures == 1


def test_colleagues_behind_one_address_do_not_lock_each_other_out() -> None:
    """A known lane is not held up by what its source did."""
    throttle = Throttle(source=Record(failures=40, not_before=NOW + 500, last_failure_at=NOW))

    assert standing(throttle, NOW, RULES) == (Standing.SOURCE_WAIT, 500.0)
    assert standing(replace(throttle, lane=KNOWN), NOW, RULES) == OPEN


def test_an_account_that_waits_says_so_before_its_source_does() -> None:
    """One wait at a time is told: the account's."""
    throttle = Throttle(
        account=Record(not_before=NOW + 5, last_failure_at=NOW), source=Record(not_before=NOW + 500, last_failure_at=NOW)
    )

    assert standing(throttle, NOW, RULES) == (Standing.WAIT, 5.0)


# Clocks


def test_a_clock_that_steps_back_is_no_lockout() -> None:
    """core-5-20: failures of an hour that has not come yet hold nobody up, and they still count."""
    throttle = after(20, now=NOW + 3_600)

    assert standing(throttle, NOW, RULES) == OPEN
    following = charge(throttle, NOW, RULES)
    assert standing(following, NOW, RULES) == (Standing.WAIT, 900.0)
    assert following.account.consecutive == 21


def test_a_clock_that_steps_back_does_not_open_the_hard_lock() -> None:
    """core-5-20: it does not depend on the time."""
    assert standing(after(100, now=NOW + 3_600), NOW, RULES)[0] is Standing.LOCKED


def test_a_small_step_back_waits_a_little_longer() -> None:
    """Within a minute the record is believed: a clock that jitters opens nothing."""
    where, wait_s = standing(after(14), NOW - 30, RULES)

    assert (where, wait_s) == (Standing.WAIT, 930.0)


# Properties

_steps = st.lists(
    st.tuples(st.floats(-4_000, 4_000), st.sampled_from(["fail here", "fail there", "succeed here", "succeed there"])),
    max_size=60,
)


@given(_steps)
def test_whatever_happens_the_counts_hold(steps: list[tuple[float, str]]) -> None:
    """No record is ever negative, no wait longer than the cap and the slack, and consecutive failures are those since the last
    success, wherever it was."""
    here, there, shared = CLEAN, CLEAN, Throttle()
    now, consecutive = NOW, 0
    for seconds, what in steps:
        now += seconds
        throttle = replace(shared, lane=here if "here" in what else there)
        if what.startswith("fail"):
            throttle, consecutive = charge(throttle, now, RULES), consecutive + 1
        else:
            throttle, consecutive = succeed(throttle, now, RULES, scope="", has_source=True), 0
        here, there = (throttle.lane, there) if "here" in what else (here, throttle.lane)
        shared = replace(throttle, lane=CLEAN)

        where, wait_s = standing(throttle, now, RULES)

        assert throttle.account.consecutive == consecutive
        assert (where is Standing.LOCKED) is (consecutive >= RULES.hard_cap)
        assert 0 <= wait_s <= RULES.cap_s + 60
        assert min(throttle.account.failures, throttle.lane.failures, throttle.source.failures) >= 0


@given(st.integers(0, 10**6))
def test_waits_never_shrink(failures: int) -> None:
    """And have no overflow."""
    assert back_off_s(failures, RULES.free, RULES) <= back_off_s(failures + 1, RULES.free, RULES) <= RULES.cap_s


@given(st.lists(st.floats(0, 2_000), min_size=1, max_size=99))
def test_a_stranger_alone_never_touches_the_lane_of_the_owner(gaps: list[float]) -> None:
    """Below the hard cap, at whatever pace."""
    throttle, now = Throttle(), NOW
    for gap in gaps:
        now += gap
        throttle = charge(throttle, now, RULES)

    assert standing(replace(throttle, lane=Record(last_success_at=now)), now, RULES) == OPEN
