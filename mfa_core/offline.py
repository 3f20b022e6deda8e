"""May this host decide alone, now? What it was told, what its clocks say, and for how long it has asked in vain.

Room rule: pure functions of values. Nothing here says yes to a code: an answer of None lets the ordinary rules of
:mod:`mfa_core.verifier` go on, with a stricter throttle, and any reason refuses before a code is looked at.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from mfa_core.throttle import ThrottleRules
from mfa_core.verdict import Reason

EVERY_SERVICE = ("*",)
JOINED = "joined"
"""The standing of a host that its authority knows and wants."""
CLOCK_SLACK_S = 60.0
"""So much less than the floor a clock may show, because clocks are slewed."""
MAX_JUMP_S = 90.0
"""So much the wall clock may have moved otherwise than the clock that nobody can set."""
MAX_OFFLINE_S = 14 * 86_400.0
"""No lease is honoured for longer than this, whatever it says."""

OFFLINE_THROTTLE = ThrottleRules(free=4, base_s=900.0, cap_s=900.0, hard_cap=20)
"""Five failures, then a quarter of an hour after each; after twenty in a row nobody but the authority lets the account in."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What an authority grants the hosts of a group. ``material`` is seed, codebook or per_host.

    ``max_offline_s`` is how long a lease lasts, seconds; 0: the host never decides alone. ``offline_after_s`` is for how long
    the authority must have been out of reach before. ``offline_services`` are names, or :data:`EVERY_SERVICE`.
    """

    host_group: str
    material: str
    max_offline_s: float
    offline_after_s: float
    offline_services: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Lease:
    """What the authority last told this host about itself. Times in Unix seconds.

    ``not_after`` is the end; ``floor`` is what no right clock can be before: the authority's time, and that of the codes
    accepted since. ``synced_at`` is the authority's time when it told, at ``boottime_s`` seconds of the boot ``boot_id`` here.
    ``standing`` is joined, revoked or quarantined. ``cursor`` is how far we have heard, -1: nothing.
    """

    not_after: float
    floor: float
    synced_at: float
    boot_id: str
    boottime_s: float
    terms: Terms
    standing: str
    cursor: int


@dataclass(frozen=True, slots=True)
class Moment:
    """What this host's clocks say: Unix seconds, and seconds of CLOCK_BOOTTIME in the boot ``boot_id``."""

    now: float
    boottime_s: float
    boot_id: str


def may_verify(lease: Lease | None, moment: Moment, service: str, unreachable_s: float) -> Reason | None:
    """Why this host may not decide alone; None where it may.

    ``unreachable_s`` is for how many seconds nobody has answered.
    """
    if lease is None:
        return Reason.NEVER_SYNCED
    if lease.standing != JOINED:
        return Reason.HOST_REVOKED
    if lease.cursor < 0:
        return Reason.NEVER_SYNCED
    # Whatever is no number compares as false: each test below asks for what must hold, and refuses where it does not.
    if not moment.now >= lease.floor - CLOCK_SLACK_S:
        return Reason.CLOCK_ROLLBACK
    if lease.boot_id == moment.boot_id and lease.boot_id:
        jumped_s = (moment.now - lease.synced_at) - (moment.boottime_s - lease.boottime_s)
        if not abs(jumped_s) <= MAX_JUMP_S:
            return Reason.CLOCK_JUMPED
    terms = lease.terms
    # Before the lease: where nobody is ever let in offline, waiting for the end of a lease has nothing to do with it.
    if not terms.max_offline_s > 0 or (terms.offline_services != EVERY_SERVICE and service not in terms.offline_services):
        return Reason.NOT_OFFLINE
    if not moment.now <= min(lease.not_after, lease.synced_at + MAX_OFFLINE_S):
        return Reason.CACHE_EXPIRED
    if not unreachable_s >= terms.offline_after_s:
        return Reason.TOO_EARLY
    return None


def floor_after(floor: float, accepted_step: int, period_s: int, *, drift_steps: int = 0, now: float) -> float:
    """The floor after a code of this step was accepted at ``now``, Unix seconds.

    Only a right code moves it: a clock that was put forward must not shut the host when it is put right again. ``now`` bounds
    it, because a code of the next step is ahead of the time.
    """
    return max(floor, min(float((accepted_step - drift_steps) * period_s), now))


def stricter(rules: ThrottleRules) -> ThrottleRules:
    """The throttle of a host that decides alone: :data:`OFFLINE_THROTTLE`, or the waits and the cap of ``rules`` where those
    are stricter."""
    return replace(
        rules,
        free=OFFLINE_THROTTLE.free,
        base_s=max(rules.base_s, OFFLINE_THROTTLE.base_s),
        cap_s=max(rules.cap_s, OFFLINE_THROTTLE.cap_s),
        hard_cap=min(rules.hard_cap, OFFLINE_THROTTLE.hard_cap),
    )
