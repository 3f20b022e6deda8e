"""May this host decide alone, now? What it was told, what its clocks say, and for how long it has asked in vain.

Room rule: pure functions of values. Nothing here says yes to a code: an answer of None lets the ordinary rules of
:mod:`mfa_core.verifier` go on, with a stricter throttle, and any reason refuses before a code is looked at.
"""

from __future__ import annotations

from dataclasses import dataclass

from mfa_core.throttle import ThrottleRules
from mfa_core.verdict import Reason

EVERY_SERVICE = ("*",)
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
    raise NotImplementedError


def floor_after(floor: float, accepted_step: int, period_s: int, *, drift_steps: int = 0, now: float) -> float:
    """The floor after a code of this step was accepted at ``now``, Unix seconds.

    Only a right code moves it: a clock that was put forward must not shut the host when it is put right again. ``now`` bounds
    it, because a code of the next step is ahead of the time.
    """
    raise NotImplementedError


def stricter(rules: ThrottleRules) -> ThrottleRules:
    """The throttle of a host that decides alone: :data:`OFFLINE_THROTTLE`, or ``rules`` where those are stricter."""
    raise NotImplementedError
