"""Whether a host may decide alone: the whole table, the clocks, and a throttle that is never milder."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfa_core import offline
from mfa_core.offline import Lease, Moment, Terms, floor_after, may_verify, stricter
from mfa_core.throttle import Standing, Throttle, ThrottleRules, charge, standing
from mfa_core.verdict import Reason

SYNCED = 1_700_000_000.0
HOUR = 3_600.0
TERMS = Terms("servers", "seed", 24 * HOUR, 30.0, ("sshd", "sudo"))
LEASE = Lease(SYNCED + 24 * HOUR, SYNCED, SYNCED, "boot-a", 500.0, TERMS, "joined", 7)


def moment(after_s: float = HOUR, *, jumped_s: float = 0.0, boot_id: str = "boot-a") -> Moment:
    """So long after the sync, by a clock that was set forward by ``jumped_s`` since."""
    return Moment(SYNCED + after_s + jumped_s, 500.0 + after_s, boot_id)


def why(lease: Lease | None = LEASE, at: Moment | None = None, service: str = "sshd", alone_s: float = 60.0) -> Reason | None:
    """Ask."""
    return may_verify(lease, at or moment(), service, alone_s)


def test_a_host_within_its_lease_may() -> None:
    """Nothing in the way."""
    assert why() is None
    assert why(service="sudo") is None


TABLE: list[tuple[str, Reason | None, dict[str, object]]] = [
    ("no row", Reason.NEVER_SYNCED, {"lease": None}),
    ("joined, nothing heard", Reason.NEVER_SYNCED, {"lease": replace(LEASE, cursor=-1)}),
    ("revoked", Reason.HOST_REVOKED, {"lease": replace(LEASE, standing="revoked")}),
    ("quarantined", Reason.HOST_REVOKED, {"lease": replace(LEASE, standing="quarantined")}),
    ("a standing nobody knows", Reason.HOST_REVOKED, {"lease": replace(LEASE, standing="")}),
    ("an hour back", Reason.CLOCK_ROLLBACK, {"at": moment(jumped_s=-2 * HOUR)}),
    ("an hour back after a restart", Reason.CLOCK_ROLLBACK, {"at": moment(0.0, jumped_s=-HOUR, boot_id="boot-b")}),
    ("61 s before the floor", Reason.CLOCK_ROLLBACK, {"at": moment(0.0, jumped_s=-61.0)}),
    ("59 s before the floor", None, {"at": moment(0.0, jumped_s=-59.0)}),
    ("before a code that was accepted", Reason.CLOCK_ROLLBACK, {"lease": replace(LEASE, floor=SYNCED + 2 * HOUR)}),
    ("set forward by an hour", Reason.CLOCK_JUMPED, {"at": moment(jumped_s=HOUR)}),
    ("set back by an hour, not before the floor", Reason.CLOCK_JUMPED, {"at": moment(2 * HOUR, jumped_s=-HOUR)}),
    ("90 s", None, {"at": moment(jumped_s=90.0)}),
    ("91 s", Reason.CLOCK_JUMPED, {"at": moment(jumped_s=91.0)}),
    ("91 s back", Reason.CLOCK_JUMPED, {"at": moment(jumped_s=-91.0)}),
    ("an hour forward after a restart: nobody can tell", None, {"at": moment(jumped_s=HOUR, boot_id="boot-b")}),
    ("no boot id: as after a restart", None, {"lease": replace(LEASE, boot_id=""), "at": moment(jumped_s=HOUR, boot_id="")}),
    ("the end of the lease", None, {"at": moment(24 * HOUR)}),
    ("a second after it", Reason.CACHE_EXPIRED, {"at": moment(24 * HOUR + 1)}),
    ("a second after it, after a restart", Reason.CACHE_EXPIRED, {"at": moment(24 * HOUR + 1, boot_id="boot-b")}),
    (
        "a lease without an end",
        Reason.CACHE_EXPIRED,
        {"lease": replace(LEASE, not_after=1e12), "at": moment(offline.MAX_OFFLINE_S + 1)},
    ),
    ("a service that is not listed", Reason.NOT_OFFLINE, {"service": "vpn"}),
    ("... nor after the lease", Reason.NOT_OFFLINE, {"service": "vpn", "at": moment(48 * HOUR)}),
    ("the case counts", Reason.NOT_OFFLINE, {"service": "SSHD"}),
    ("no service", Reason.NOT_OFFLINE, {"lease": replace(LEASE, terms=replace(TERMS, offline_services=()))}),
    ("every service", None, {"lease": replace(LEASE, terms=replace(TERMS, offline_services=("*",))), "service": "vpn"}),
    (
        "a star among others is a name",
        Reason.NOT_OFFLINE,
        {"lease": replace(LEASE, terms=replace(TERMS, offline_services=("sshd", "*"))), "service": "vpn"},
    ),
    ("offline is off", Reason.NOT_OFFLINE, {"lease": replace(LEASE, terms=replace(TERMS, max_offline_s=0.0))}),
    ("gone for 29 s", Reason.TOO_EARLY, {"alone_s": 29.0}),
    ("gone for 30 s", None, {"alone_s": 30.0}),
    ("at once, if granted", None, {"lease": replace(LEASE, terms=replace(TERMS, offline_after_s=0)), "alone_s": 0.0}),
]


@pytest.mark.parametrize(("expected", "how"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_every_row_of_the_table(expected: Reason | None, how: dict[str, object]) -> None:
    """One thing changed at a time."""
    assert why(**how) is expected  # type: ignore[arg-type]


def test_the_first_reason_is_told() -> None:
    """Everything is wrong; what is mended first shows the next one."""
    terms = replace(TERMS, offline_services=())
    lease = Lease(SYNCED, SYNCED + 10 * HOUR, SYNCED, "boot-a", 500.0, terms, "revoked", -1)
    seen = []
    for better in (
        {"standing": "joined"}, {"cursor": 1}, {"floor": SYNCED}, {"boot_id": "boot-b"},
        {"terms": replace(TERMS, offline_after_s=100.0)}, {"not_after": SYNCED + 24 * HOUR},
        {"terms": TERMS},
    ):  # fmt: skip
        seen.append(why(lease, moment(jumped_s=HOUR)))
        lease = replace(lease, **better)  # type: ignore[arg-type]
    assert seen == [
        Reason.HOST_REVOKED, Reason.NEVER_SYNCED, Reason.CLOCK_ROLLBACK, Reason.CLOCK_JUMPED, Reason.NOT_OFFLINE,
        Reason.CACHE_EXPIRED, Reason.TOO_EARLY,
    ]  # fmt: skip
    assert why(lease, moment(jumped_s=HOUR)) is None


@pytest.mark.parametrize("broken", ["now", "boottime_s"])
def test_a_clock_that_shows_no_number_lets_nobody_in(broken: str) -> None:
    """NaN compares as false with everything: the tests ask for what must hold."""
    at = replace(moment(), **{broken: float("nan")})  # type: ignore[arg-type]
    assert why(at=at) is not None


@pytest.mark.parametrize("broken", ["not_after", "floor", "synced_at", "boottime_s"])
def test_a_lease_that_holds_no_number_lets_nobody_in(broken: str) -> None:
    """However it came into the row."""
    assert why(replace(LEASE, **{broken: float("nan")}), moment()) is not None  # type: ignore[arg-type]


@given(st.floats(0, 40 * 86_400), st.floats(-1e6, 1e6), st.booleans())
def test_nobody_is_let_in_after_the_lease_whatever_the_clock_does(after_s: float, jumped_s: float, restarted: bool) -> None:
    """In the same boot a clock that was set hides nothing; after a restart it can be set back to the last sync at most."""
    at = moment(after_s, jumped_s=jumped_s, boot_id="boot-b" if restarted else "boot-a")
    if may_verify(LEASE, at, "sshd", 60.0) is None:
        assert at.now <= LEASE.not_after
        assert restarted or after_s <= 24 * HOUR + offline.MAX_JUMP_S
        assert at.now >= SYNCED - offline.CLOCK_SLACK_S


@given(st.integers(0, 10**8), st.sampled_from([30, 60]), st.integers(-10, 10), st.floats(0, 4e9), st.floats(0, 4e9))
def test_the_floor_only_rises_and_never_above_the_clock(step: int, period_s: int, drift: int, floor: float, now: float) -> None:
    """Else one code of a phone that runs ahead, or one login by a clock in the future, would shut the host."""
    after = floor_after(floor, step, period_s, drift_steps=drift, now=now)

    assert after >= floor
    assert after <= max(floor, now)
    assert after <= max(floor, float((step - drift) * period_s))


def test_the_floor_is_the_time_of_the_code() -> None:
    """Not the time at which it was typed: a clock put forward has no code of its own."""
    assert floor_after(SYNCED, 56_666_668, 30, now=1_700_000_069.0) == 1_700_000_040.0
    assert floor_after(SYNCED, 56_666_678, 30, drift_steps=10, now=1_700_000_069.0) == 1_700_000_040.0


def test_five_failures_then_a_quarter_of_an_hour_each_then_nobody() -> None:
    """The numbers of the terms, walked through by the throttle itself."""
    rules = stricter(ThrottleRules())
    throttle, now, waits = Throttle(), SYNCED, []
    for _ in range(20):
        where, wait_s = standing(throttle, now, rules)
        waits.append(wait_s if where is Standing.WAIT else 0.0)
        now += wait_s
        throttle = charge(throttle, now, rules)

    assert waits == [0.0] * 5 + [900.0] * 15
    assert standing(throttle, now + 1e6, rules)[0] is Standing.LOCKED


@given(st.builds(ThrottleRules, base_s=st.floats(0, 5_000), cap_s=st.floats(0, 5_000), hard_cap=st.integers(1, 200)))
def test_alone_is_never_milder(rules: ThrottleRules) -> None:
    """Whichever is stricter, of what is set for all and of what holds offline."""
    alone = stricter(rules)
    for other in (rules, offline.OFFLINE_THROTTLE):
        assert alone.base_s >= other.base_s
        assert alone.cap_s >= other.cap_s
        assert alone.hard_cap <= other.hard_cap
    assert (alone.lane_memory_s, alone.source_free) == (rules.lane_memory_s, rules.source_free)
