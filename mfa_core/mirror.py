"""The authority has ruled: what that means on this host.

Room rule: a pure function of values, and nobody is let in whom the authority has not let in. What it accepted is held against
what was accepted here: a step that is spent on this host stays spent, also when the authority has not heard of it yet. And what
only this host knows, that a password was wrong or a challenge answered before, is not the authority's to forgive.
"""

from __future__ import annotations

from dataclasses import replace
from typing import assert_never

from mfa_core import texts
from mfa_core.audit import By, Outcome
from mfa_core.model import Attempt, Credential, CredentialState, FactorKind, FirstFactor
from mfa_core.passcode import PasscodeKind
from mfa_core.policy import TYPED_FACTORS
from mfa_core.split import Split
from mfa_core.throttle import Record, Standing, Throttle, charge, charge_source, standing, succeed
from mfa_core.value import hot_value
from mfa_core.verdict import Accepted, Exempt, Exemption, Reason, Unavailable, Unready
from mfa_core.verifier import (
    NO_SCOPE,
    Judgement,
    Password,
    Settings,
    Situation,
    challenge,
    event_of,
    label_of,
    next_code_s,
    refuse,
    tag_of,
)


@hot_value
class Ruled:
    """What an authority said about an attempt: a verdict without what is this host's own.

    ``outcome`` is ACCEPTED, EXEMPT, CHALLENGED, REJECTED or UNAVAILABLE. ``reason`` is a :class:`~mfa_core.verdict.Reason`,
    :class:`~mfa_core.verdict.Unready` or "" (the true one: what the door may hear of it is worked out here), ``exemption`` an
    :class:`~mfa_core.verdict.Exemption` or "". ``text`` is what may be shown, "" for the ordinary one. ``credential`` is a
    label ("totp:12"), ``step`` the step or counter that it was accepted at, -1 for none, ``drift_steps`` the drift after it.
    ``reading`` says which of the readings that were referred was accepted, -1 for the only one. ``until`` is the deadline of a
    grace, Unix seconds, 0 for none. ``counted``: the account was charged.
    """

    outcome: Outcome
    reason: str = ""
    exemption: str = ""
    rule: str = ""
    text: str = ""
    retry_after_s: float = 0.0
    factor: str = ""
    credential: str = ""
    step: int = -1
    drift_steps: int = 0
    reading: int = -1
    notices: tuple[str, ...] = ()
    until: float = 0.0
    counted: bool = False
    note: str = ""


SPENT_HERE = "the authority accepted it, but the step was spent on this host before"
"""The note of a refusal that the authority does not know of."""


def mirror(attempt: Attempt, situation: Situation, settings: Settings, ruled: Ruled, found: tuple[Split, ...]) -> Judgement:
    """The judgement of this host on an attempt that the authority has ruled about; ``found`` is what was referred."""
    judgement = _mirrored(attempt, situation, settings, ruled, found)
    event = judgement.event
    note = "; ".join(part for part in (event.note, ruled.note) if part)
    return replace(judgement, event=replace(event, by=By.AUTHORITY, rule=ruled.rule, note=note))


def _mirrored(
    attempt: Attempt, situation: Situation, settings: Settings, ruled: Ruled, found: tuple[Split, ...]
) -> Judgement:
    match ruled.outcome:
        case Outcome.REJECTED:
            return _rejected(attempt, situation, settings, ruled, found)
        case Outcome.CHALLENGED:
            return challenge(attempt, situation)
        case Outcome.UNAVAILABLE | Outcome.PENDING:
            return _unavailable(attempt, situation, ruled.reason)
        case Outcome.ACCEPTED | Outcome.EXEMPT if (reason := _forbidden(attempt, situation)) is not None:
            return refuse(attempt, situation, reason)
        case Outcome.EXEMPT:
            return _exempted(attempt, situation, ruled)
        case Outcome.ACCEPTED:
            return _accepted(attempt, situation, settings, ruled, found)
        case _:
            assert_never(ruled.outcome)


def _forbidden(attempt: Attempt, situation: Situation) -> Reason | None:
    """Why nobody is let in here, whatever the authority says."""
    if situation.challenge_spent:
        return Reason.CHALLENGE_EXPIRED
    checked = attempt.first_factor is FirstFactor.OURS and attempt.typed is not None
    return Reason.FIRST_FACTOR_FAILED if checked and situation.password is not Password.GOOD else None


_FACTORS = frozenset(FactorKind)


def _accepted(
    attempt: Attempt, situation: Situation, settings: Settings, ruled: Ruled, found: tuple[Split, ...]
) -> Judgement:
    place = 0 if ruled.reading < 0 and len(found) == 1 else ruled.reading
    if ruled.factor not in _FACTORS or not 0 <= place < len(found):
        return _unavailable(attempt, situation, "", note="the authority accepted what this host has not asked")
    factor, password = FactorKind(ruled.factor), found[place].password
    own = next((one for one in situation.credentials if label_of(one) == ruled.credential), None)
    if own is not None and 0 <= ruled.step <= own.last_step:
        wait_s = next_code_s(own, ruled.step, situation.now)
        return refuse(
            attempt, situation, Reason.REPLAYED, text=texts.already_used(wait_s), retry_after_s=wait_s, note=SPENT_HERE
        )
    scope = settings.scope if factor in TYPED_FACTORS else NO_SCOPE
    return Judgement(
        Accepted(
            attempt.event_id,
            factor,
            ruled.credential,
            ruled.notices,
            password or None,
            user=situation.name,
            rule=ruled.rule,
        ),
        event_of(attempt, situation, Outcome.ACCEPTED, factor=factor, credential=ruled.credential, step=ruled.step),
        succeed(situation.throttle, situation.now, settings.throttle, scope=scope, has_source=attempt.source is not None),
        credential=_spent(own, ruled),
        reading=place,
    )


def _spent(own: Credential | None, ruled: Ruled) -> Credential | None:
    """The credential after it. One that is not active here answers nobody here: it comes with its step when it is synced."""
    if own is None or ruled.step < 0 or own.state is not CredentialState.ACTIVE:
        return None
    return own.spent_at(ruled.step, ruled.drift_steps)


def _exempted(attempt: Attempt, situation: Situation, ruled: Ruled) -> Judgement:
    try:
        exemption = Exemption(ruled.exemption)
    except ValueError:
        return _unavailable(attempt, situation, "", note=f"the authority exempts for {ruled.exemption!a}")
    user = situation.user
    return Judgement(
        Exempt(attempt.event_id, exemption, ruled.rule, ruled.notices, situation.name),
        event_of(attempt, situation, Outcome.EXEMPT, exemption),
        situation.throttle,
        grace_until=ruled.until if user is not None and not user.grace_until else 0.0,
    )


_LOOKED_AT = {
    Reason.FIRST_FACTOR_FAILED, Reason.MISMATCH, Reason.REPLAYED, Reason.MALFORMED, Reason.EXPIRED, Reason.FACTOR_NOT_ALLOWED,
    Reason.UNKNOWN_USER, Reason.NOT_ENROLLED, Reason.GRACE_ENDED, Reason.LOCKED_BY_ADMIN,
}  # fmt: skip
"""What is refused for when nobody has to wait."""


def _rejected(
    attempt: Attempt, situation: Situation, settings: Settings, ruled: Ruled, found: tuple[Split, ...]
) -> Judgement:
    try:
        reason = Reason(ruled.reason)
    except ValueError:
        return _unavailable(attempt, situation, "", note=f"the authority refuses for {ruled.reason!a}")
    if reason is Reason.NOT_ENTITLED:
        return _not_entitled(attempt, situation, settings, ruled, found)
    rules, now = settings.throttle, situation.now
    throttle = situation.throttle
    if reason is Reason.LOCKED:
        # Else a host that is cut off would let guess on, on an account that is locked for everybody.
        throttle = _with_consecutive(throttle, max(throttle.account.consecutive, rules.hard_cap))
    elif reason in _LOOKED_AT and throttle.account.consecutive >= rules.hard_cap:
        # An administrator has taken the lock away there. What this host has counted alone never comes to so much, and stays.
        throttle = _with_consecutive(throttle, 0)
    if ruled.counted:
        charged = charge(throttle, now, rules, tag=tag_of(situation))
        throttle = Throttle(
            _no_sooner(charged.account, throttle.account),
            _no_sooner(charged.lane, throttle.lane),
            charged.source if attempt.source else throttle.source,
        )
    elif reason is Reason.FIRST_FACTOR_FAILED and attempt.source:
        throttle = Throttle(throttle.account, throttle.lane, charge_source(throttle.source, now, rules))
    judgement = refuse(attempt, situation, reason, text=ruled.text, retry_after_s=ruled.retry_after_s, throttle=throttle)
    failures = throttle.account.consecutive if ruled.counted else 0
    return replace(judgement, event=replace(judgement.event, failures=failures))


_NOT_LOOKED_AT = {PasscodeKind.EMPTY, PasscodeKind.JUNK, PasscodeKind.ABSENT}


def _not_entitled(
    attempt: Attempt, situation: Situation, settings: Settings, ruled: Ruled, found: tuple[Split, ...]
) -> Judgement:
    """Refuse who may not log in here. The authority counts nothing then, but this host makes him wait as it would anybody else:
    a stranger who is never told to wait would know by that who may log in, and who not."""
    rules, now, throttle = settings.throttle, situation.now, situation.throttle
    if attempt.first_factor is FirstFactor.DONE or not found or found[0].passcode.kind in _NOT_LOOKED_AT:
        return refuse(attempt, situation, Reason.NOT_ENTITLED, text=ruled.text)
    where, wait_s = standing(throttle, now, rules)
    match where:
        case Standing.LOCKED:
            judgement = refuse(attempt, situation, Reason.LOCKED, text=texts.LOCKED)
        case Standing.WAIT | Standing.SOURCE_WAIT:
            judgement = refuse(
                attempt, situation, Reason.THROTTLED, text=texts.retry_in(wait_s), retry_after_s=wait_s
            )
        case Standing.OPEN:
            charged = charge(throttle, now, rules, tag=tag_of(situation))
            if attempt.first_factor is FirstFactor.OURS and situation.password is not Password.GOOD:
                charged = Throttle(throttle.account, throttle.lane, charged.source)
            if not attempt.source:
                charged = Throttle(charged.account, charged.lane, throttle.source)
            judgement = refuse(attempt, situation, Reason.NOT_ENTITLED, text=ruled.text, throttle=charged)
        case _:
            assert_never(where)
    # In the log stands what is true, and no failure that the authority could add.
    return replace(judgement, event=replace(judgement.event, reason=Reason.NOT_ENTITLED, failures=0))


def _no_sooner(record: Record, before: Record) -> Record:
    """The record with the wait of before, where that was longer: a host that is alone makes people wait longer."""
    return record if record.not_before >= before.not_before else replace(record, not_before=before.not_before)


def _with_consecutive(throttle: Throttle, consecutive: int) -> Throttle:
    if throttle.account.consecutive == consecutive:
        return throttle
    return Throttle(replace(throttle.account, consecutive=consecutive), throttle.lane, throttle.source)


def _unavailable(attempt: Attempt, situation: Situation, reason: str, *, note: str = "") -> Judgement:
    try:
        unready = Unready(reason)
    except ValueError:
        unready = Unready.INTERNAL
    return Judgement(
        Unavailable(attempt.event_id, unready),
        event_of(attempt, situation, Outcome.UNAVAILABLE, unready, note=note),
        situation.throttle,
    )
