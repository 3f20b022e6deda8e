"""How fast may somebody guess? Back-off, lockout and lanes.

Room rule: pure arithmetic over three records; no name, no store, no clock. The rules in one place:

* Every evaluated code is charged before it is looked at, and only a success takes the charge back.
* Three failures are free, then one has to wait 1, 2, 4 ... 900 seconds after each (4 guesses an hour in the end). A hundred
  consecutive ones, over all lanes, sessions and doors, lock the account until an administrator or a recovery code clears it
  (NIST SP 800-63B-4 section 3.2.2).
* A source from which this user succeeded within 30 days has a lane of its own: a stranger who guesses makes himself wait, not
  the owner, until the hard cap. A success clears its own lane and the consecutive count, never the stranger's lane.
* Failures are counted per source too, over all users; one is forgiven a minute. A known lane is not held up by it, so that
  colleagues behind one address do not lock each other out.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

from mfa_core.value import hot_value


@dataclass(frozen=True, slots=True)
class ThrottleRules:
    """The numbers. Times in seconds."""

    free: int = 3
    base_s: float = 1.0
    cap_s: float = 900.0
    hard_cap: int = 100
    source_free: int = 30
    lane_memory_s: float = 30 * 86_400.0
    forgive_s: float = 60.0
    """A source is forgiven one failure each time this many seconds pass."""


@hot_value
class Record:
    """What is remembered under one key. Times are Unix seconds, 0: never.

    ``consecutive`` counts only in an account's record; ``last_success_at`` and ``scope`` only in a lane's; ``last_tag`` is a
    keyed tag of the last wrong code and its client.
    """

    failures: int = 0
    consecutive: int = 0
    not_before: float = 0.0
    last_failure_at: float = 0.0
    last_success_at: float = 0.0
    last_tag: bytes = b""
    scope: str = ""


CLEAN = Record()


@hot_value
class Throttle:
    """The records that concern one attempt. ``lane`` and ``source`` are CLEAN when the door knows no source."""

    account: Record = CLEAN
    lane: Record = CLEAN
    source: Record = CLEAN


UNTOUCHED = Throttle()
"""Nothing is remembered: most attempts."""


class Standing(enum.Enum):
    """Whether a code may be evaluated now."""

    OPEN = "open"
    WAIT = "wait"
    SOURCE_WAIT = "source_wait"
    LOCKED = "locked"


_CLOCK_SLACK_S = 60.0
LANE_REFRESH_S = 600.0
"""A lane's last success is rewritten only when it is older: it saves a write at most logins, and errs to the strict side."""


def is_known_lane(throttle: Throttle, now: float, rules: ThrottleRules) -> bool:
    """Whether this user succeeded from this source lately."""
    since = now - throttle.lane.last_success_at
    return throttle.lane.last_success_at > 0 and -_CLOCK_SLACK_S <= since < rules.lane_memory_s


def standing(throttle: Throttle, now: float, rules: ThrottleRules) -> tuple[Standing, float]:
    """Whether a code may be evaluated now, and how many seconds to wait if not (0 for LOCKED)."""
    if throttle is UNTOUCHED:
        return Standing.OPEN, 0.0
    if throttle.account.consecutive >= rules.hard_cap:
        return Standing.LOCKED, 0.0
    known = is_known_lane(throttle, now, rules)
    wait = _remaining(throttle.lane if known else throttle.account, now)
    if wait > 0:
        return Standing.WAIT, wait
    if not known:
        wait = _remaining(throttle.source, now)
        if wait > 0:
            return Standing.SOURCE_WAIT, wait
    return Standing.OPEN, 0.0


def _remaining(record: Record, now: float) -> float:
    # A record from the future means that the clock stepped back: waiting for it would turn a wrong clock into a lockout. The
    # counts still hold, and the next failure writes a wait that starts now.
    if record.last_failure_at > now + _CLOCK_SLACK_S:
        return 0.0
    return record.not_before - now


def back_off_s(failures: int, free: int, rules: ThrottleRules) -> float:
    """Seconds to wait after this many failures."""
    if failures <= free:
        return 0.0
    return min(rules.cap_s, rules.base_s * 2.0 ** min(failures - free - 1, 30))


def charge(throttle: Throttle, now: float, rules: ThrottleRules, *, tag: bytes = b"") -> Throttle:
    """The records after one more failure in the lane that the attempt uses."""
    account = replace(throttle.account, consecutive=throttle.account.consecutive + 1)
    lane = throttle.lane
    if is_known_lane(throttle, now, rules):
        lane = _failed(lane, now, rules, free=rules.free, tag=tag)
    else:
        account = _failed(account, now, rules, free=rules.free, tag=tag)
    return Throttle(account, lane, charge_source(throttle.source, now, rules))


def charge_source(source: Record, now: float, rules: ThrottleRules) -> Record:
    """The source's record after one more failure of any kind, wrong passwords included."""
    quiet_s = max(0.0, now - source.last_failure_at)
    forgiven = min(source.failures, int(quiet_s // rules.forgive_s))
    return _failed(replace(source, failures=source.failures - forgiven), now, rules, free=rules.source_free, tag=b"")


def may_try(record: Record, now: float) -> bool:
    """Whether a password of our own may be looked at: nobody else counts those. The record is charged as a source's is."""
    return _remaining(record, now) <= 0


def _failed(record: Record, now: float, rules: ThrottleRules, *, free: int, tag: bytes) -> Record:
    failures = record.failures + 1
    return replace(
        record,
        failures=failures,
        not_before=now + back_off_s(failures, free, rules),
        last_failure_at=now,
        last_tag=tag,
    )


def succeed(throttle: Throttle, now: float, rules: ThrottleRules, *, scope: str, has_source: bool) -> Throttle:
    """The records after a success: the consecutive count and the lane that was used are cleared.

    ``throttle`` is what stood before the charge. The objects are the same ones where nothing changes, which tells the store
    that there is nothing to write.
    """
    if throttle is UNTOUCHED and not has_source:
        return throttle
    account, lane = throttle.account, throttle.lane
    known = is_known_lane(throttle, now, rules)
    if known:
        if account.consecutive:
            account = replace(account, consecutive=0)
    elif account.consecutive or account.failures:
        account = CLEAN
    if has_source and (
        lane.failures or lane.scope != scope or not known or now - lane.last_success_at >= LANE_REFRESH_S
    ):
        lane = Record(last_success_at=now, scope=scope)
    return Throttle(account, lane, throttle.source)
