"""One attempt in, one judgement out: the only place where the rules of the other files meet.

Room rule: a pure function of values. The order below is the order of ARCHITECTURE.md and is the security argument: policy,
throttle, first factor, charge, compare, spend. The accept is written once, last; every other path refuses. Users that are
unknown, not enrolled or locked walk the same path, with a secret that nobody has.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import assert_never

from mfa_core import codebook, oath, texts
from mfa_core.audit import AttemptDecided, By, Outcome
from mfa_core.model import (
    Attempt,
    Credential,
    CredentialState,
    EnrolmentState,
    FactorKind,
    FirstFactor,
    Grammar,
    Interaction,
    Material,
    Requirement,
    SplitMode,
    User,
)
from mfa_core.oath import Fit
from mfa_core.passcode import Passcode, PasscodeKind
from mfa_core.policy import TYPED_FACTORS, Action, Decision, Enforce, Enrol
from mfa_core.secret import Secret
from mfa_core.split import CodeFormats, Split, split, whole
from mfa_core.throttle import (
    Standing,
    Throttle,
    ThrottleRules,
    charge,
    charge_source,
    is_known_lane,
    standing,
    succeed,
)
from mfa_core.value import hot_value
from mfa_core.verdict import (
    Accepted,
    Challenge,
    Exempt,
    Exemption,
    Prompt,
    PromptKind,
    Reason,
    Rejected,
    Verdict,
)

REPEAT_WINDOW_S = 60.0
"""A one-shot client that sends the same wrong code again within this time is retransmitting, not guessing."""
CHALLENGE_LIFETIME_S = 120.0

NO_SCOPE = "(none)"
"""The scope of a success that opens no trust window: no host group is called so."""

_ONE_TIME = {
    PasscodeKind.RECOVERY: FactorKind.RECOVERY,
    PasscodeKind.RECOVERY_KEY: FactorKind.RECOVERY_KEY,
    PasscodeKind.BYPASS: FactorKind.BYPASS,
}

_DUMMY = Credential(
    id=0, kind=FactorKind.TOTP, state=CredentialState.ACTIVE, secret=Secret(b"nobody has this secret"), last_step=1 << 62
)
"""What an unknown user is compared with: the same work, and no step of it can ever be new."""

_DEFAULT_FORMATS = CodeFormats()
_VEILED = Split(Secret(b""), Passcode(PasscodeKind.VEILED, Secret(b"")))
_THROTTLE_RULES = ThrottleRules()


@dataclass(frozen=True, slots=True)
class Settings:
    """What an administrator may set about verification. ``window`` and ``max_drift`` in steps."""

    window: int = oath.DEFAULT_WINDOW
    max_drift: int = oath.MAX_DRIFT
    throttle: ThrottleRules = _THROTTLE_RULES
    scope: str = ""
    """The host group of this host: trust windows reach no further."""


class Password(enum.Enum):
    """What the first-factor backend said, where the password is ours to check."""

    NOT_ASKED = "not_asked"
    GOOD = "good"
    BAD = "bad"


class ProofState(enum.Enum):
    """What became of a recovery, key or bypass code when its hash was looked up."""

    USABLE = "usable"
    USED = "used"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class Proof:
    """A one-time code whose hash fits a row of this user: argon2 ran before, outside the transaction.

    ``code_id`` is the row; ``uses_left`` what it had; ``remaining`` how many numbered recovery codes are left after it.
    """

    kind: FactorKind
    code_id: int
    state: ProofState
    remaining: int = 0


Tag = bytes | Callable[[], bytes]

# Python looks an enum's member up in 130 ns, and a judgement needs two dozen of them.
_ACTIVE = CredentialState.ACTIVE
_OURS = FirstFactor.OURS
_ABSENT = PasscodeKind.ABSENT
_DIGITS = PasscodeKind.DIGITS
_EMPTY = PasscodeKind.EMPTY
_JUNK = PasscodeKind.JUNK
_VEILED_KIND = PasscodeKind.VEILED
_SEPARATE = SplitMode.SEPARATE
_BAD = Password.BAD
_GOOD = Password.GOOD
_DENY = Action.DENY
_EXEMPT = Action.EXEMPT
_USER_EXEMPT = Requirement.EXEMPT
_REQUIRED = Requirement.REQUIRED


@hot_value
class Situation:
    """All that the judgement of one attempt depends on. ``user`` is None when the store does not know the name.

    ``name`` is the canonical name; "" when the presented one maps to no identity. ``tag`` is the keyed tag of what was
    typed and by which client, or what makes it: most logins need none. ``reading`` is the one whose password was checked; None
    where none was. ``challenge_spent``: the challenge that a client carried and that this answers was answered before, or is
    over.
    """

    name: str
    user: User | None
    credentials: tuple[Credential, ...]
    throttle: Throttle
    decision: Decision
    now: float
    password: Password = Password.NOT_ASKED
    proof: Proof | None = None
    tag: Tag = b""
    reading: Split | None = None
    challenge_spent: bool = False
    partial: bool = False
    refusal: Reason | None = None
    found: tuple[Split, ...] | None = None
    hidden: bool = False
    host_id: int = 0
    host: str = ""


@hot_value
class Judgement:
    """A verdict, the event that tells of it, and what must be written before it leaves.

    ``credential`` is the changed one or None; ``throttle`` holds the same record objects where nothing changed; ``spent_code``
    is the row of a one-time code to use up, 0 for none; ``grace_until`` is a deadline to write, 0 for none; ``may_enrol`` says
    that the runtime may turn this refusal into an enrolment. ``reading`` is the place of the reading that was accepted.
    """

    verdict: Verdict
    event: AttemptDecided
    throttle: Throttle
    credential: Credential | None = None
    spent_code: int = 0
    grace_until: float = 0.0
    may_enrol: bool = False
    reading: int = 0


def judge(attempt: Attempt, situation: Situation, settings: Settings) -> Judgement:
    """Decide one attempt. RFC 6238 section 5.2: a code that was accepted is never accepted again."""
    decision, user = situation.decision, situation.user
    if situation.challenge_spent:
        return refuse(attempt, situation, Reason.CHALLENGE_EXPIRED)
    if decision.action is _DENY:
        return refuse(attempt, situation, Reason.POLICY_DENIED)
    enrolled = _enrolled(situation)
    exemption = _exemption(attempt, situation, settings, enrolled)
    if situation.refusal is not None:
        # What was told of a user ends with the lease. What the policy says of everybody does not: it opens the console then.
        if exemption is not None and (decision.action is not _EXEMPT or situation.refusal is Reason.HOST_REVOKED):
            exemption = None
        if exemption is None and attempt.typed is None:
            return refuse(attempt, situation, situation.refusal)
    # A password that is ours is checked of everybody: no second factor is wanted, and that is not no factor.
    if exemption is not None and not (attempt.first_factor is _OURS and attempt.typed is not None):
        return exemption
    if (
        user is not None
        and (user.locked or user.state in _CLOSED)
        and not _is_bypass(situation)
    ):
        enrolled = ()
    if attempt.typed is None:
        return _ask(attempt, situation, enrolled)
    return _answer(attempt, situation, settings, enrolled, exemption)


def _enrolled(situation: Situation) -> tuple[Credential, ...]:
    """The credentials that may answer under this decision."""
    factors, host_id = situation.decision.factors, situation.host_id
    return tuple(
        [
            c
            for c in situation.credentials
            if c.state is _ACTIVE and c.kind in factors and (not c.host_id or c.host_id == host_id)
        ]
    )


def _is_bypass(situation: Situation) -> bool:
    return situation.proof is not None and situation.proof.kind is FactorKind.BYPASS


def _exemption(
    attempt: Attempt, situation: Situation, settings: Settings, enrolled: tuple[Credential, ...]
) -> Judgement | None:
    decision, user, now = situation.decision, situation.user, situation.now
    # A name that is no identity may be an enrolled user's to the directory behind us: no exemption can be hers for certain.
    if not situation.name or (user is not None and user.locked):
        return None
    if decision.action is _EXEMPT:
        return _exempt(attempt, situation, Exemption.POLICY)
    # Who was not told of here may be enrolled all the same.
    if user is None and situation.partial:
        return None
    if user is not None and user.requirement is _USER_EXEMPT:
        return _exempt(attempt, situation, Exemption.USER)
    # Trust ends with the credential that it came from: a revoked one must not open for hours.
    if decision.trust_window_s and enrolled and is_known_lane(situation.throttle, now, settings.throttle):
        lane = situation.throttle.lane
        if lane.scope == settings.scope and not lane.failures and now - lane.last_success_at < decision.trust_window_s:
            return _exempt(attempt, situation, Exemption.TRUST_WINDOW)
    if enrolled:
        if attempt.remembered and _is_remembered(attempt, user, enrolled):
            return _exempt(attempt, situation, Exemption.REMEMBERED, note=attempt.remembered)
        return None
    required = user is not None and user.requirement is _REQUIRED
    untouched = user is None or (
        user.state in _CAN_ENROL and all(c.state is not CredentialState.SUSPENDED for c in situation.credentials)
    )
    # `grace: 0` means what it says, also when a deadline was set elsewhere: by an administrator, or by another rule.
    if user is not None and untouched and decision.grace_s != 0:
        deadline = user.grace_until
        # A process that only asks about itself names the service, and so the rule: it must not choose its own deadline.
        if not deadline and decision.grace_s and attempt.interaction is not Interaction.ASKS:
            deadline = now + decision.grace_s
        if deadline > now:
            written = 0.0 if user.grace_until else deadline
            judgement = _exempt(attempt, situation, Exemption.GRACE, texts.grace_notice(deadline, now))
            return replace(judgement, grace_until=written)
    # Somebody whose factor was suspended or revoked is not "not enrolled": that would be a way round it.
    if decision.enforce is Enforce.ENROLLED_ONLY and not required and untouched:
        return _exempt(attempt, situation, Exemption.ENROLLED_ONLY)
    return None


def _is_remembered(attempt: Attempt, user: User | None, enrolled: tuple[Credential, ...]) -> bool:
    """Whether the login that this repeats still stands: its credential may answer, and the password is checked once more."""
    return (
        attempt.first_factor is _OURS
        and attempt.typed is not None
        and user is not None
        and user.state not in _CLOSED
        and any(label_of(credential) == attempt.remembered for credential in enrolled)
    )


def _exempt(attempt: Attempt, situation: Situation, exemption: Exemption, *notices: str, note: str = "") -> Judgement:
    return Judgement(
        Exempt(attempt.event_id, exemption, situation.decision.rule, notices, situation.name),
        event_of(attempt, situation, Outcome.EXEMPT, exemption, note=note),
        situation.throttle,
    )


def _ask(attempt: Attempt, situation: Situation, enrolled: tuple[Credential, ...]) -> Judgement:
    if not enrolled and _may_enrol(attempt, situation):
        return refuse(attempt, situation, Reason.ENROLMENT_OFFERED, text=texts.MUST_ENROL, may_enrol=True)
    if attempt.interaction is Interaction.ONE_SHOT:
        return refuse(attempt, situation, Reason.FACTOR_REQUIRED)
    if situation.password is _GOOD and not enrolled:
        # No challenge that nothing can answer: who has proved the password may hear why.
        return refuse(attempt, situation, _unenrolled_reason(situation, enrolled) or Reason.NOT_ENROLLED)
    return challenge(attempt, situation)


def challenge(attempt: Attempt, situation: Situation) -> Judgement:
    """Ask for what this door can be asked for."""
    combined = attempt.interaction is not Interaction.CHALLENGES and _grammar(attempt, situation).mode not in _CODE_ALONE
    prompt = (
        Prompt(PromptKind.PASSWORD_AND_CODE, texts.COMBINED_PROMPT)
        if combined
        else Prompt(PromptKind.CODE, texts.CODE_PROMPT)
    )
    return Judgement(
        Challenge(attempt.event_id, (prompt,), situation.now + CHALLENGE_LIFETIME_S),
        event_of(attempt, situation, Outcome.CHALLENGED),
        situation.throttle,
    )


_CLOSED = {EnrolmentState.SUSPENDED, EnrolmentState.REVOKED}
_CODE_ALONE = {_SEPARATE, SplitMode.OTP_ONLY}


def _may_enrol(attempt: Attempt, situation: Situation) -> bool:
    """Only behind a first factor that is known to be verified: else a wrong password would leave a new authenticator behind."""
    return (
        situation.decision.enrol is Enrol.AT_LOGIN
        and attempt.first_factor is FirstFactor.DONE
        and attempt.interaction is Interaction.PROMPTS
        and (situation.user is None or (not situation.user.locked and situation.user.state in _CAN_ENROL))
        and bool(situation.name)
    )


_CAN_ENROL = {EnrolmentState.NONE, EnrolmentState.INVITED, EnrolmentState.PENDING}


def _grammar(attempt: Attempt, situation: Situation) -> Grammar:
    if situation.decision.grammar is None or attempt.grammar_is_final:
        return attempt.grammar
    return situation.decision.grammar


def readings(attempt: Attempt, situation: Situation, settings: Settings) -> tuple[Split, ...]:
    """How what was typed can be read, by this user's own formats. The runtime asks for it to check passwords and hashes.

    Where the password is ours and no second factor is wanted, all of it may be the password in every grammar.
    """
    if attempt.typed is None:
        return ()
    if attempt.veiled is not None:
        return (_VEILED,)
    grammar, formats = _grammar(attempt, situation), _DEFAULT_FORMATS
    if grammar.mode is not _SEPARATE and situation.credentials:
        digits = frozenset([c.digits for c in situation.credentials])
        if digits != _DEFAULT_FORMATS.digits:
            formats = CodeFormats(digits, _DEFAULT_FORMATS.letters)
    ours = attempt.first_factor is _OURS
    typed = attempt.typed.reveal()
    found = split(typed, grammar, formats, ours=ours)
    if (
        ours
        and typed
        and not attempt.grammar_is_final
        and not [one for one in found if one.passcode.kind is _ABSENT or not one.password]
        and _exemption(attempt, situation, settings, _enrolled(situation)) is not None
    ):
        return (*found, whole(typed))
    return found


def _answer(
    attempt: Attempt,
    situation: Situation,
    settings: Settings,
    enrolled: tuple[Credential, ...],
    exemption: Judgement | None,
) -> Judgement:
    throttle, now, rules = situation.throttle, situation.now, settings.throttle
    if situation.found is not None:
        found = situation.found
    else:
        found = readings(attempt, situation, settings) if situation.reading is None else (situation.reading,)
    if not found:
        return refuse(attempt, situation, Reason.NO_CODE)
    if found[0].passcode.kind is _EMPTY:
        return refuse(attempt, situation, Reason.EMPTY)
    if found[0].passcode.kind is _JUNK:
        return refuse(attempt, situation, Reason.JUNK)
    if attempt.interaction in _RETRANSMITS and _is_repeat(situation, rules):
        return refuse(attempt, situation, Reason.REPEATED)
    where, wait_s = standing(throttle, now, rules)
    # What an administrator or a kept recovery code says goes through the hard lock: it is what clears it.
    recovers = situation.proof is not None
    if where is Standing.LOCKED and not recovers:
        return refuse(attempt, situation, Reason.LOCKED, text=texts.LOCKED_OFFLINE if situation.partial else texts.LOCKED)
    if where is Standing.WAIT:
        return refuse(attempt, situation, Reason.THROTTLED, text=texts.retry_in(wait_s), retry_after_s=wait_s)
    if where is Standing.SOURCE_WAIT:
        return refuse(attempt, situation, Reason.SOURCE_THROTTLED, text=texts.retry_in(wait_s), retry_after_s=wait_s)
    # NOT_ASKED where it is ours: nothing could be read when it was to be checked, and a credential has come since.
    ours = attempt.first_factor is _OURS
    if situation.password is _BAD or (ours and situation.password is not _GOOD):
        charged = _charge_password(attempt, situation, settings)
        return refuse(attempt, situation, Reason.FIRST_FACTOR_FAILED, throttle=charged)
    if ours and exemption is not None:
        return exemption
    if situation.refusal is not None:
        return refuse(attempt, situation, situation.refusal)
    if found[0].passcode.kind is _ABSENT:
        if attempt.interaction is not Interaction.CHALLENGES:
            return refuse(attempt, situation, Reason.NO_CODE)
        return _ask(attempt, situation, enrolled)
    outcome, place = _evaluate(found, situation, settings, enrolled, attempt.veiled)
    if isinstance(outcome, _Refused):
        if outcome.reason in _DEFERRED:
            return _defer(attempt, situation, settings, outcome)
        # The charge stands for every code that was looked at. It is computed after the comparison only because nothing can
        # come between them: attempts on one account are judged one after another inside the writing transaction.
        charged = charge(throttle, now, rules, tag=tag_of(situation))
        if not attempt.source:
            charged = Throttle(charged.account, charged.lane, throttle.source)
        reason = _unenrolled_reason(situation, enrolled) or outcome.reason
        # A code that was right and is spent is no guess: a double click must not lock its owner out.
        counted = outcome.reason is not Reason.REPLAYED
        wait_s = outcome.wait_s if outcome.reason is Reason.REPLAYED else 0.0
        return refuse(
            attempt,
            situation,
            reason,
            text=texts.already_used(wait_s) if reason is Reason.REPLAYED else "",
            retry_after_s=wait_s,
            throttle=charged if counted else throttle,
            credential=outcome.credential,
            note=outcome.note,
        )
    # A spare code says nothing of the place: only a factor of one's own opens a trust window there.
    scope = settings.scope if outcome.factor in TYPED_FACTORS else NO_SCOPE
    fresh = succeed(throttle, now, rules, scope=scope, has_source=attempt.source is not None)
    event = event_of(
        attempt,
        situation,
        Outcome.ACCEPTED,
        note=outcome.note,
        factor=outcome.factor,
        credential=outcome.label,
        step=outcome.step,
    )
    return Judgement(
        Accepted(
            attempt.event_id,
            outcome.factor,
            outcome.label,
            outcome.notices,
            outcome.password,
            user=situation.name,
            rule=situation.decision.rule,
        ),
        event,
        fresh,
        credential=outcome.credential,
        spent_code=outcome.spent_code,
        reading=place,
    )


def _defer(attempt: Attempt, situation: Situation, settings: Settings, refused: _Refused) -> Judgement:
    """Refuse a code that only the authority can look at. It is no guess, and not counted as one.

    But what is said and not counted must not tell a stranger who has which token: he hears what he would hear of anybody, and
    waits like anybody. The authority, who adds up what hosts have counted, does not hear of that.
    """
    if refused.text == texts.RECOVERY_NEEDS_NETWORK or _has_proved(attempt, situation):
        return refuse(attempt, situation, refused.reason, text=refused.text)
    charged = charge(situation.throttle, situation.now, settings.throttle, tag=tag_of(situation))
    if not attempt.source:
        charged = Throttle(charged.account, charged.lane, situation.throttle.source)
    judgement = refuse(attempt, situation, refused.reason, text=refused.text, is_private=True)
    return replace(judgement, throttle=charged)


def _charge_password(attempt: Attempt, situation: Situation, settings: Settings) -> Throttle:
    """What a wrong password costs: the source, and the account where a wrong code may have hidden in it.

    The password has its own counter, where it is kept; guessing it must not lock the second factor. But AUTO asks a backend
    about one reading only: who knows the password and guesses codes behind it looks like somebody with a longer password.
    """
    throttle, now, rules = situation.throttle, situation.now, settings.throttle
    if situation.hidden or (situation.found is None and _hides_code(attempt, situation, settings)):
        charged = charge(throttle, now, rules, tag=tag_of(situation))
        return charged if attempt.source else Throttle(charged.account, charged.lane, throttle.source)
    source = charge_source(throttle.source, now, rules) if attempt.source else throttle.source
    return Throttle(throttle.account, throttle.lane, source)


def _hides_code(attempt: Attempt, situation: Situation, settings: Settings) -> bool:
    """Whether all that was typed was taken for the password, and a code could be read behind a shorter one."""
    if situation.reading is None or situation.reading.passcode.kind is not _ABSENT:
        return False
    return any(reading.passcode.kind is not _ABSENT for reading in readings(attempt, situation, settings))


_RETRANSMITS = {Interaction.ONE_SHOT, Interaction.CHALLENGES}


def _is_repeat(situation: Situation, rules: ThrottleRules) -> bool:
    throttle, now = situation.throttle, situation.now
    used = throttle.lane if is_known_lane(throttle, now, rules) else throttle.account
    return bool(used.last_tag) and used.last_tag == tag_of(situation) and 0 <= now - used.last_failure_at < REPEAT_WINDOW_S


def tag_of(situation: Situation) -> bytes:
    """The keyed tag of what was typed, and by which client."""
    return situation.tag if isinstance(situation.tag, bytes) else situation.tag()


@hot_value
class _Good:
    factor: FactorKind
    label: str
    step: int = -1
    credential: Credential | None = None
    spent_code: int = 0
    notices: tuple[str, ...] = ()
    password: Secret | None = None
    note: str = ""

    def behind(self, password: Secret) -> _Good:
        """This, behind a password. (Spelt out: ``replace`` costs a login 5 microseconds.)"""
        return _Good(
            self.factor, self.label, self.step, self.credential, self.spent_code, self.notices, password, self.note
        )


@dataclass(frozen=True, slots=True)
class _Refused:
    reason: Reason
    credential: Credential | None = None
    wait_s: float = 0.0
    note: str = ""
    text: str = ""


_NO_CODE_OF_ANY_KIND = _Refused(Reason.MALFORMED)
_NOT_THE_CODE = _Refused(Reason.MISMATCH)
_SPARE_AT_AUTHORITY = _Refused(Reason.NEEDS_AUTHORITY, text=texts.RECOVERY_NEEDS_NETWORK)
_BOOK_IS_OVER = _Refused(Reason.CACHE_EXPIRED, text=texts.CACHE_EXPIRED)
_HELD_BY_AUTHORITY = _Refused(Reason.NEEDS_AUTHORITY, text=texts.HELD_ELSEWHERE)


def _evaluate(
    found: tuple[Split, ...],
    situation: Situation,
    settings: Settings,
    enrolled: tuple[Credential, ...],
    veiled: Callable[[str], bool] | None,
) -> tuple[_Good | _Refused, int]:
    """What becomes of the readings, and the place of the one that was accepted."""
    refused = _NO_CODE_OF_ANY_KIND
    for place, reading in enumerate(found):
        passcode = reading.passcode
        if passcode.kind is _DIGITS:
            code = passcode.text.reveal().decode("ascii")
            outcome = _evaluate_digits(code, situation, settings, enrolled)
        elif passcode.kind is _VEILED_KIND and veiled is not None:
            outcome = _evaluate_digits(veiled, situation, settings, enrolled)
        elif passcode.kind in _ONE_TIME:
            outcome = _evaluate_one_time(_ONE_TIME[passcode.kind], situation)
        else:
            continue
        if isinstance(outcome, _Good):
            return (outcome.behind(reading.password) if reading.password else outcome), place
        # A guess that was looked at is charged, whatever else can be read in the text.
        if refused.reason in _MILD or (refused.reason is Reason.MISMATCH and outcome.reason not in _DEFERRED):
            refused = outcome
    return refused, 0


_DEFERRED = {Reason.NEEDS_AUTHORITY, Reason.CACHE_EXPIRED}
"""No code was looked at, so none can have been guessed."""
_MILD = {Reason.MALFORMED, *_DEFERRED}


def _evaluate_digits(
    code: str | Callable[[str], bool], situation: Situation, settings: Settings, enrolled: tuple[Credential, ...]
) -> _Good | _Refused:
    best = _NOT_THE_CODE
    for credential in enrolled or (_DUMMY,):
        result = oath.match(credential, code, now=situation.now, window=settings.window, max_drift=settings.max_drift)
        if situation.partial and _is_over(credential, situation.now, settings):
            continue  # what is left of the book is not looked at: a guess at it would not be counted below
        match result.fit:
            case Fit.NEW | Fit.CONSECUTIVE:
                spent = credential.spent_at(result.step, result.drift_steps)
                note = "drift moved by two consecutive codes" if result.fit is Fit.CONSECUTIVE else ""
                return _Good(credential.kind, label_of(credential), result.step, spent, note=note)
            case Fit.SPENT if credential is _DUMMY:
                # Its secret stands above for all to read. "Used" is not counted, which would tell who has no credential.
                continue
            case Fit.SPENT:
                best = _Refused(Reason.REPLAYED, wait_s=next_code_s(credential, result.step, situation.now))
            case Fit.OUTSIDE:
                if best.reason is Reason.MISMATCH:
                    remembered = replace(credential, resync_step=result.step)
                    best = _Refused(Reason.MISMATCH, remembered, note="a code outside the window: the next one resynchronises")
            case Fit.NONE:
                if credential.last_step < _DUMMY.last_step and _clock_is_behind(credential, situation.now, settings):
                    best = replace(best, note="the clock is behind the last accepted step")
            case _:
                assert_never(result.fit)
    if situation.partial and enrolled:
        over = [_is_over(credential, situation.now, settings) for credential in enrolled]
        if all(ended or one.material is Material.NONE for one, ended in zip(enrolled, over, strict=True)):
            return _BOOK_IS_OVER if any(over) else _HELD_BY_AUTHORITY
    return best


def _is_over(credential: Credential, now: float, settings: Settings) -> bool:
    """Whether a book of codes ends before the last code that could be the one now."""
    if credential.material is not Material.CODEBOOK:
        return False
    last = oath.step_at(now, credential.period_s) + credential.drift_steps + settings.window
    return codebook.last_step(credential) < last


def _clock_is_behind(credential: Credential, now: float, settings: Settings) -> bool:
    if credential.kind is not FactorKind.TOTP:
        return False
    reach = settings.max_drift + settings.window
    return credential.last_step > oath.step_at(now, credential.period_s) + reach


def next_code_s(credential: Credential, step: int, now: float) -> float:
    """Seconds until the authenticator shows a code after ``step`` that is not spent; a restore spends some minutes ahead."""
    if credential.kind is not FactorKind.TOTP:
        return 1.0
    return max(1.0, (max(step, credential.last_step) + 1 - credential.drift_steps) * credential.period_s - now)


def _evaluate_one_time(kind: FactorKind, situation: Situation) -> _Good | _Refused:
    proof = situation.proof
    if not situation.decision.accepts(kind):
        return _Refused(Reason.FACTOR_NOT_ALLOWED)
    if situation.partial:
        return _SPARE_AT_AUTHORITY
    if situation.user is None or proof is None or proof.kind is not kind:
        return _Refused(Reason.MISMATCH)
    if situation.user.locked and kind is not FactorKind.BYPASS:
        return _Refused(Reason.LOCKED_BY_ADMIN)
    match proof.state:
        case ProofState.USED:
            return _Refused(Reason.REPLAYED, wait_s=0.0)
        case ProofState.EXPIRED:
            return _Refused(Reason.EXPIRED)
        case ProofState.USABLE:
            return _Good(kind, f"{kind}:{proof.code_id}", spent_code=proof.code_id, notices=(_notice(kind, proof),))
        case _:
            assert_never(proof.state)


def _notice(kind: FactorKind, proof: Proof) -> str:
    if kind is FactorKind.RECOVERY:
        return texts.recovery_notice(proof.remaining)
    return texts.RECOVERY_KEY_USED if kind is FactorKind.RECOVERY_KEY else texts.BYPASS_USED


def label_of(credential: Credential) -> str:
    """How a credential is named in verdicts and in the log."""
    return f"{credential.kind}:{credential.id}"


def _unenrolled_reason(situation: Situation, enrolled: tuple[Credential, ...]) -> Reason | None:
    """The reason that stands behind a mismatch of somebody who could not have matched."""
    user = situation.user
    if not situation.name:
        return Reason.USERNAME_REFUSED
    if user is None:
        return Reason.UNKNOWN_USER
    if user.locked:
        return Reason.LOCKED_BY_ADMIN
    if enrolled or situation.proof is not None:
        return None
    return Reason.GRACE_ENDED if 0 < user.grace_until <= situation.now else Reason.NOT_ENROLLED


_TEXTS = {
    Reason.LOCKED_BY_ADMIN: texts.LOCKED_BY_ADMIN,
    Reason.UNKNOWN_USER: texts.MUST_ENROL,
    Reason.NOT_ENROLLED: texts.MUST_ENROL,
    Reason.GRACE_ENDED: texts.GRACE_ENDED,
    Reason.NOT_ENTITLED: texts.NOT_ENTITLED,
}
"""What somebody who proved the first factor may hear about his account."""

_HOST_TEXTS = {
    Reason.NEVER_SYNCED: texts.NEVER_SYNCED,
    Reason.HOST_REVOKED: texts.HOST_REVOKED,
    Reason.CLOCK_ROLLBACK: texts.CLOCK_NOT_TRUSTED,
    Reason.CLOCK_JUMPED: texts.CLOCK_NOT_TRUSTED,
    Reason.CACHE_EXPIRED: texts.CACHE_EXPIRED,
    Reason.NOT_OFFLINE: texts.NOT_OFFLINE,
    Reason.TOO_EARLY: texts.TOO_EARLY,
}
"""What is true of the host, whoever asks."""

_AT_PROMPT = {Reason.REPLAYED, Reason.THROTTLED, Reason.LOCKED, Reason.SOURCE_THROTTLED, Reason.NEEDS_AUTHORITY, *_HOST_TEXTS}
"""What is said at a prompt as well: unknown users hear the same."""


def _has_proved(attempt: Attempt, situation: Situation) -> bool:
    """Whether the first factor is known to be good, and who hears us is the one who gave it."""
    checked = attempt.interaction is Interaction.CHALLENGES and situation.password is _GOOD
    return checked or attempt.first_factor is FirstFactor.DONE


def refuse(
    attempt: Attempt,
    situation: Situation,
    reason: Reason,
    *,
    text: str = "",
    retry_after_s: float = 0.0,
    throttle: Throttle | None = None,
    credential: Credential | None = None,
    may_enrol: bool = False,
    note: str = "",
    is_private: bool = False,
) -> Judgement:
    """Refuse, and say no more than may be said. ``is_private``: the reason tells something of the account."""
    proved = _has_proved(attempt, situation)
    is_private = is_private or reason in _TEXTS
    if not text:
        text = _TEXTS.get(reason) or _HOST_TEXTS.get(reason, "")
    at_prompt = attempt.interaction is not Interaction.ONE_SHOT and reason in _AT_PROMPT and not is_private
    if not text or not (proved or at_prompt):
        text = texts.DENIED
    # Doors map reasons to their own codes, and a code is as readable as a text: what must not be told apart gets one reason.
    shown = reason if proved or not is_private else Reason.MISMATCH
    throttle = situation.throttle if throttle is None else throttle
    failures = 0 if throttle.account is situation.throttle.account else throttle.account.consecutive
    event = event_of(
        attempt, situation, Outcome.REJECTED, reason, note=note or situation.decision.missing, failures=failures
    )
    return Judgement(
        Rejected(attempt.event_id, shown, text, retry_after_s),
        event,
        throttle,
        credential=credential,
        may_enrol=may_enrol,
    )


def event_of(
    attempt: Attempt,
    situation: Situation,
    outcome: Outcome,
    reason: str = "",
    *,
    note: str = "",
    factor: str = "",
    credential: str = "",
    step: int = -1,
    failures: int = 0,
) -> AttemptDecided:
    """The event of an outcome."""
    return AttemptDecided(
        attempt.event_id,
        situation.now,
        attempt.door,
        attempt.service,
        situation.name or attempt.username,
        outcome,
        reason,
        situation.decision.rule,
        attempt.source or "",
        attempt.client,
        factor,
        credential,
        step,
        failures,
        note,
        By.HOST if situation.partial else "",
        situation.host,
    )
