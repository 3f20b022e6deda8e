"""One attempt in, one judgement out: the order of the path, every reason, and no way to be let in but the right ones."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

from mfa_core import codebook, texts
from mfa_core.audit import By, Outcome
from mfa_core.model import (
    Attempt,
    Credential,
    CredentialState,
    Door,
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
from mfa_core.oath import code_at
from mfa_core.passcode import read_passcode
from mfa_core.policy import Action, Decision, Enforce, Enrol
from mfa_core.secret import Secret
from mfa_core.split import Split, whole
from mfa_core.throttle import Record, Throttle, ThrottleRules
from mfa_core.verdict import (
    Accepted,
    Challenge,
    Exempt,
    Exemption,
    PromptKind,
    Reason,
    Rejected,
    Verdict,
)
from mfa_core.verifier import (
    _DUMMY,
    Judgement,
    Password,
    Proof,
    ProofState,
    Settings,
    Situation,
    judge,
    readings,
)

NOW = 1_700_000_040.0
STEP = 56_666_668
DAY = 86_400.0
SOURCE = "192.0.2.1"
TOTP = Credential(7, FactorKind.TOTP, CredentialState.ACTIVE, Secret(b"12345678901234567890"))
ALICE = User(3, "alice", EnrolmentState.ACTIVE)
REQUIRE = Decision("r1")
WRONG = "000000"
RECOVERY = "01-ABCD-EFGH-JKMN-PQRS"
KEY = "ABCD-EFGH-JKMN-PQRS-TVWX-YZ23"
BYPASS = "ABCD-EFGH-JKMN"
JUNK = b"\b\n\r\x7fINCORRECT"
APPEND, SEPARATOR = Grammar(SplitMode.APPEND), Grammar(SplitMode.SEPARATOR)
KNOWN = Record(last_success_at=NOW - 3_600)


def code(offset: int = 0, credential: Credential = TOTP) -> str:
    """The code ``offset`` steps from now."""
    return code_at(credential, STEP + offset)


def attempt(typed: str | bytes | None = None, **fields: object) -> Attempt:
    """Alice at sshd, asked in a dialogue, with nobody knowing about her password."""
    raw = typed.encode() if isinstance(typed, str) else typed
    values: dict[str, object] = {
        "event_id": "e1", "door": Door.PAM, "service": "sshd", "username": "alice", "source": SOURCE,
        "typed": None if raw is None else Secret(raw), "interaction": Interaction.PROMPTS,
    }  # fmt: skip
    return Attempt(**(values | fields))  # type: ignore[arg-type]


def read(password: str, digits: str) -> Split:
    """The reading that a password stands before a code."""
    return Split(Secret(password.encode()), read_passcode(digits.encode()))


def situation(**fields: object) -> Situation:
    """Alice is active, has one TOTP and a clean record, and a code is required."""
    values: dict[str, object] = {
        "name": "alice", "user": ALICE, "credentials": (TOTP,), "throttle": Throttle(), "decision": REQUIRE, "now": NOW,
    }  # fmt: skip
    return Situation(**(values | fields))  # type: ignore[arg-type]


def decide(typed: str | bytes | None = None, *, how: dict[str, object] | None = None, **fields: object) -> Judgement:
    """Judge an attempt (changed by ``how``) in a situation (changed by ``fields``)."""
    return judge(attempt(typed, **(how or {})), situation(**fields), Settings())


def reason(judgement: Judgement) -> Reason:
    """Why it was refused, as the audit log has it; the event agrees with the verdict that it is a refusal."""
    assert isinstance(judgement.verdict, Rejected), judgement.verdict
    assert judgement.event.outcome is Outcome.REJECTED
    return Reason(judgement.event.reason)


# Right codes


def test_a_right_code_is_accepted_and_its_step_is_spent() -> None:
    """core-5-1: the accept carries the credential that must be written first."""
    judgement = decide(code())

    assert judgement.verdict == Accepted("e1", FactorKind.TOTP, "totp:7", user="alice", rule="r1")
    assert judgement.credential is not None
    assert judgement.credential.last_step == STEP
    assert (judgement.event.outcome, judgement.event.factor, judgement.event.step) == (Outcome.ACCEPTED, "totp", STEP)


@pytest.mark.parametrize("offset", [-1, 0])
def test_the_same_code_again_is_replayed_and_not_counted(offset: int) -> None:
    """core-5-1, core-5-2, core-5-3: a double click is no guess; it waits for the next code, and locks nobody out."""
    spent = replace(TOTP, last_step=STEP)

    judgement = decide(code(offset), credentials=(spent,))

    assert reason(judgement) is Reason.REPLAYED
    assert judgement.credential is None
    assert judgement.throttle == Throttle()


def test_replay_is_told_at_a_prompt_and_nowhere_else() -> None:
    """core-5-1: a door that cannot prompt hears what a wrong code hears (keycloak#13867)."""
    spent = (replace(TOTP, last_step=STEP),)

    prompted, one_shot = (
        decide(code(), credentials=spent, how={"interaction": interaction}).verdict
        for interaction in (Interaction.PROMPTS, Interaction.ONE_SHOT)
    )

    assert isinstance(prompted, Rejected)
    assert isinstance(one_shot, Rejected)
    assert prompted.public_text == texts.already_used(30)
    assert one_shot.public_text == texts.DENIED


def test_the_wait_after_a_restore_is_told_as_long_as_it_is() -> None:
    """A restore spends steps that are still to come; the next code is spent as well."""
    restored = replace(TOTP, last_step=STEP + 11)

    verdict = decide(code(), credentials=(restored,)).verdict

    assert isinstance(verdict, Rejected)
    assert verdict.retry_after_s == 12 * 30


def test_any_of_several_credentials_may_answer() -> None:
    """The one that fits is spent, the others are left alone."""
    other = replace(TOTP, id=8, secret=Secret(b"another secret of 20"))

    judgement = decide(code(credential=other), credentials=(TOTP, other))

    assert judgement.credential is not None
    assert judgement.credential.id == 8


def test_a_wrong_code_is_one_failure_however_many_credentials_there_are() -> None:
    """core-5-17: privacyidea#471 counted one for each."""
    many = tuple(replace(TOTP, id=n, secret=Secret(bytes([n]) * 20)) for n in range(5))

    judgement = decide(WRONG, credentials=many)

    assert reason(judgement) is Reason.MISMATCH
    assert judgement.throttle.account.consecutive == 1
    assert judgement.event.failures == 1


def test_two_consecutive_codes_move_the_drift_and_say_so() -> None:
    """The first is refused, counted and remembered; the second lets in."""
    first = decide(code(5))
    assert reason(first) is Reason.MISMATCH
    assert first.throttle.account.consecutive == 1
    assert first.credential is not None
    assert (first.credential.resync_step, first.credential.last_step) == (STEP + 5, -1)

    second = decide(code(6), credentials=(first.credential,))

    assert isinstance(second.verdict, Accepted)
    assert second.credential is not None
    assert (second.credential.last_step, second.credential.drift_steps, second.credential.resync_step) == (STEP + 6, 6, -1)
    assert "drift" in second.event.note


def test_a_clock_behind_the_last_accepted_step_is_noted() -> None:
    """core-5-20: who looks with ``mfactl why`` sees that the clock and not the person is wrong."""
    judgement = decide(code(), credentials=(replace(TOTP, last_step=STEP + 500),))
    other = decide(WRONG, credentials=(replace(TOTP, last_step=STEP + 500),))

    assert reason(judgement) is Reason.REPLAYED
    assert "clock" in other.event.note


# Every reason

_WAITING = Throttle(account=Record(failures=9, consecutive=9, not_before=NOW + 32, last_failure_at=NOW))
_SOURCE_WAITING = Throttle(source=Record(failures=40, not_before=NOW + 500, last_failure_at=NOW))
_HARD = Throttle(account=Record(failures=100, consecutive=100, last_failure_at=NOW - DAY))
_PROOF = {
    FactorKind.RECOVERY: Proof(FactorKind.RECOVERY, 21, ProofState.USABLE, remaining=4),
    FactorKind.RECOVERY_KEY: Proof(FactorKind.RECOVERY_KEY, 22, ProofState.USABLE),
    FactorKind.BYPASS: Proof(FactorKind.BYPASS, 23, ProofState.USABLE),
}

HOST_REASONS = (
    Reason.NEVER_SYNCED, Reason.HOST_REVOKED, Reason.CLOCK_ROLLBACK, Reason.CLOCK_JUMPED, Reason.CACHE_EXPIRED,
    Reason.NOT_OFFLINE, Reason.TOO_EARLY,
)  # fmt: skip
"""Why a host may not decide alone."""

REASONS: dict[Reason, Judgement] = {
    Reason.MISMATCH: decide(WRONG),
    Reason.REPLAYED: decide(code(), credentials=(replace(TOTP, last_step=STEP),)),
    Reason.MALFORMED: decide("no code at all"),
    Reason.NO_CODE: decide("password", how={"grammar": SEPARATOR}),
    Reason.EMPTY: decide(""),
    Reason.FACTOR_REQUIRED: decide(None, how={"interaction": Interaction.ONE_SHOT}),
    Reason.JUNK: decide(JUNK),
    Reason.THROTTLED: decide(code(), throttle=_WAITING),
    Reason.LOCKED: decide(code(), throttle=_HARD),
    Reason.LOCKED_BY_ADMIN: decide(code(), user=replace(ALICE, locked=True)),
    Reason.SOURCE_THROTTLED: decide(code(), throttle=_SOURCE_WAITING),
    Reason.REPEATED: decide(
        WRONG,
        how={"interaction": Interaction.ONE_SHOT},
        tag=b"tag",
        throttle=Throttle(account=Record(1, 1, last_failure_at=NOW - 5, last_tag=b"tag")),
    ),
    Reason.UNKNOWN_USER: decide(code(), user=None, credentials=()),
    Reason.USERNAME_REFUSED: decide(code(), name="", user=None, credentials=()),
    Reason.NOT_ENROLLED: decide(WRONG, user=replace(ALICE, state=EnrolmentState.NONE), credentials=()),
    Reason.GRACE_ENDED: decide(WRONG, user=replace(ALICE, state=EnrolmentState.INVITED, grace_until=NOW - 1), credentials=()),
    Reason.ENROLMENT_OFFERED: decide(
        how={"first_factor": FirstFactor.DONE},
        user=replace(ALICE, state=EnrolmentState.INVITED),
        credentials=(),
        decision=Decision("r1", enrol=Enrol.AT_LOGIN),
    ),
    Reason.FACTOR_NOT_ALLOWED: decide(
        RECOVERY, proof=_PROOF[FactorKind.RECOVERY], decision=Decision("r1", allow_recovery=False)
    ),
    Reason.EXPIRED: decide(BYPASS, proof=replace(_PROOF[FactorKind.BYPASS], state=ProofState.EXPIRED)),
    Reason.POLICY_DENIED: decide(code(), decision=Decision("r1", Action.DENY)),
    Reason.FIRST_FACTOR_FAILED: decide(
        "secret" + code(),
        how={"grammar": APPEND, "first_factor": FirstFactor.OURS},
        password=Password.BAD,
        reading=read("secret", code()),
    ),
    Reason.NEEDS_AUTHORITY: decide(RECOVERY, partial=True),
    **{reason: decide(code(), partial=True, refusal=reason) for reason in HOST_REASONS},
}
"""How each reason comes about. The enrolment dialogue gives the two that are not here; who is entitled, an authority says."""

_SAID = {
    Reason.REPLAYED, Reason.THROTTLED, Reason.LOCKED, Reason.SOURCE_THROTTLED, Reason.ENROLMENT_OFFERED,
    Reason.NEEDS_AUTHORITY, *HOST_REASONS,
}  # fmt: skip
"""What a prompt may say, or a proved first factor; every other refusal is one sentence."""

_EVALUATED = {
    Reason.MISMATCH, Reason.MALFORMED, Reason.LOCKED_BY_ADMIN, Reason.UNKNOWN_USER, Reason.USERNAME_REFUSED,
    Reason.NOT_ENROLLED, Reason.GRACE_ENDED, Reason.FACTOR_NOT_ALLOWED, Reason.EXPIRED,
}  # fmt: skip
"""What is a guess, or must look like one. core-5-8: text that is no code is counted, empty and junk answers are not."""


def test_every_reason_is_told_how_it_comes_about() -> None:
    """A reason that nothing gives is a lie in the documentation."""
    assert REASONS.keys() | {Reason.CANCELLED, Reason.CHALLENGE_EXPIRED, Reason.NOT_ENTITLED} == set(Reason)


@pytest.mark.parametrize(("expected", "judgement"), REASONS.items(), ids=list(REASONS))
def test_each_reason_stands_in_its_event(expected: Reason, judgement: Judgement) -> None:
    """And neither in what the person sees nor in a second event."""
    assert reason(judgement) is expected
    assert isinstance(judgement.verdict, Rejected)
    assert (judgement.verdict.public_text != texts.DENIED) is (expected in _SAID)
    assert judgement.event.event_id == judgement.verdict.event_id
    assert judgement.event.rule == "r1"


@pytest.mark.parametrize(("expected", "judgement"), REASONS.items(), ids=list(REASONS))
def test_what_is_counted(expected: Reason, judgement: Judgement) -> None:
    """core-5-8, core-5-14, core-5-15: guesses are, and nothing else."""
    if expected in _EVALUATED:
        assert judgement.throttle.account.consecutive == 1
        assert judgement.throttle.source.failures == 1
    elif expected is Reason.FIRST_FACTOR_FAILED:
        assert judgement.throttle == Throttle(source=replace(judgement.throttle.source, failures=1))
    else:
        assert judgement.event.failures == 0
        assert judgement.throttle in (Throttle(), _WAITING, _SOURCE_WAITING, _HARD, Throttle(judgement.throttle.account))


@pytest.mark.parametrize(
    "typed",
    [b"-12345", b"0" * 10_000, b"123\x00456", "\U0001f4a5".encode() * 6, "\uff11\uff12\uff13\uff14\uff15\uff16".encode(),
     b" 123456"],
    ids=["negative", "10k", "nul", "emoji", "full-width", "blank"],
)  # fmt: skip
def test_what_is_no_code_is_refused_and_counted(typed: bytes) -> None:
    """core-5-7, core-5-8: before any HMAC."""
    judgement = decide(typed)

    assert reason(judgement) is Reason.MALFORMED
    assert judgement.throttle.account.consecutive == 1


@pytest.mark.parametrize("between", ["", " ", "-"], ids=["plain", "blank", "hyphen"])
def test_a_code_is_spent_in_whatever_spelling(between: str) -> None:
    """core-5-7: 123 456 is 123456 at the replay check."""
    written = code()[:3] + between + code()[3:]

    assert isinstance(decide(written).verdict, Accepted)
    assert reason(decide(written, credentials=(replace(TOTP, last_step=STEP),))) is Reason.REPLAYED


# The order of the path


def test_policy_comes_before_everything() -> None:
    """Denied is denied, whatever is typed, and nothing is counted or spent."""
    judgement = decide(code(), decision=Decision("no", Action.DENY, missing="network"), throttle=_HARD)

    assert reason(judgement) is Reason.POLICY_DENIED
    assert judgement.credential is None
    assert judgement.event.note == "network"  # core-5-60: the audit says which condition could not be answered


def test_the_throttle_comes_before_the_password() -> None:
    """A guesser who has to wait does not learn whether the password was right."""
    for password in Password:
        judgement = decide(
            "pw" + code(), how={"grammar": APPEND}, password=password, reading=read("pw", code()), throttle=_WAITING
        )
        assert reason(judgement) is Reason.THROTTLED


def test_the_password_comes_before_the_code() -> None:
    """core-5-14: a wrong one leaves the account's counter and the code alone; the source pays."""
    judgement = decide("pw" + code(), how={"grammar": APPEND}, password=Password.BAD, reading=read("pw", code()))

    assert reason(judgement) is Reason.FIRST_FACTOR_FAILED
    assert judgement.credential is None
    assert (judgement.throttle.account, judgement.throttle.lane) == (Record(), Record())
    assert judgement.throttle.source.failures == 1


def test_a_right_code_while_waiting_is_refused_like_a_wrong_one() -> None:
    """core-5-16: nothing in the verdict tells them apart, and the code is not spent."""
    for throttle in (_WAITING, _HARD, _SOURCE_WAITING):
        right, wrong = decide(code(), throttle=throttle), decide(WRONG, throttle=throttle)

        assert right.verdict == wrong.verdict
        assert right.credential is None
        assert right.throttle is throttle


def test_a_success_clears_the_count_and_makes_the_source_known() -> None:
    """After the accept, not before."""
    throttle = Throttle(account=Record(3, 3, last_failure_at=NOW - 9))

    judgement = judge(attempt(code()), situation(throttle=throttle), Settings(scope="web"))

    assert judgement.throttle == Throttle(lane=Record(last_success_at=NOW, scope="web"))


def test_without_a_source_no_source_is_counted() -> None:
    """core-5-60: else all who come without one would share a counter, and a lane."""
    wrong = decide(WRONG, how={"source": None})
    bad = decide("pw" + code(), how={"source": None, "grammar": APPEND}, password=Password.BAD, reading=read("pw", code()))
    good = decide(code(), how={"source": None})

    assert (wrong.throttle.source, wrong.throttle.account.consecutive) == (Record(), 1)
    assert bad.throttle == Throttle()
    assert good.throttle == Throttle()


# Retransmissions


@pytest.mark.parametrize(
    ("interaction", "tag", "seconds", "expected"),
    [
        (Interaction.ONE_SHOT, b"tag", 59.0, Reason.REPEATED),
        (Interaction.ONE_SHOT, b"tag", 60.0, Reason.MISMATCH),
        (Interaction.ONE_SHOT, b"other", 1.0, Reason.MISMATCH),
        (Interaction.ONE_SHOT, b"", 1.0, Reason.MISMATCH),
        (Interaction.PROMPTS, b"tag", 1.0, Reason.MISMATCH),
    ],
    ids=["again", "a-minute-later", "another-code-or-client", "no-tag", "typed-by-a-person"],
)
def test_a_retransmitted_wrong_code_counts_once(
    interaction: Interaction, tag: bytes, seconds: float, expected: Reason
) -> None:
    """core-5-15: from the same client, within a minute, where nobody was asked."""
    throttle = Throttle(account=Record(1, 1, last_failure_at=NOW - seconds, last_tag=b"tag"))

    judgement = decide(WRONG, how={"interaction": interaction}, throttle=throttle, tag=tag)

    assert reason(judgement) is expected
    assert judgement.throttle.account.consecutive == (1 if expected is Reason.REPEATED else 2)


def test_a_retransmission_is_recognised_in_the_lane_that_was_used() -> None:
    """core-5-15: a known source has its tag in its own record."""
    throttle = Throttle(lane=replace(KNOWN, failures=1, last_failure_at=NOW - 5, last_tag=b"tag"))

    assert reason(decide(WRONG, how={"interaction": Interaction.ONE_SHOT}, throttle=throttle, tag=b"tag")) is Reason.REPEATED


# Those who cannot match: unknown, not enrolled, locked, suspended

STRANGERS: dict[str, dict[str, object]] = {
    "unknown": {"user": None, "credentials": ()},
    "refused-name": {"name": "", "user": None, "credentials": ()},
    "not-enrolled": {"user": replace(ALICE, state=EnrolmentState.NONE), "credentials": ()},
    "invited": {"user": replace(ALICE, state=EnrolmentState.INVITED), "credentials": ()},
    "grace-ended": {"user": replace(ALICE, state=EnrolmentState.INVITED, grace_until=NOW - DAY), "credentials": ()},
    "locked": {"user": replace(ALICE, locked=True)},
    "suspended": {
        "user": replace(ALICE, state=EnrolmentState.SUSPENDED),
        "credentials": (replace(TOTP, state=CredentialState.SUSPENDED),),
    },
    "revoked": {"user": replace(ALICE, state=EnrolmentState.REVOKED), "credentials": ()},
    "pending": {
        "user": replace(ALICE, state=EnrolmentState.PENDING),
        "credentials": (replace(TOTP, state=CredentialState.PENDING),),
    },
    "other-factor": {"decision": Decision("r1", factors=frozenset({FactorKind.HOTP}))},
}
_ALIKE = {Reason.MISMATCH, Reason.UNKNOWN_USER, Reason.USERNAME_REFUSED}
"""Every door has one code for these."""


@pytest.mark.parametrize("who", STRANGERS)
@pytest.mark.parametrize("interaction", list(Interaction))
@pytest.mark.parametrize("typed", [None, WRONG, code(), code_at(_DUMMY, STEP), RECOVERY, "not a code"],
                         ids=["asked", "wrong", "right", "code-of-the-dummy", "recovery", "malformed"])  # fmt: skip
def test_who_cannot_match_is_treated_as_who_did_not(who: str, interaction: Interaction, typed: str | None) -> None:
    """core-5-16, core-5-18: the same prompts, texts, waits and counts as for alice with a wrong code, until the first factor
    is proved. The code of the dummy secret, which stands in the source, is wrong for everybody."""
    how: dict[str, object] = {"interaction": interaction}
    stranger = decide(typed, how=how, **STRANGERS[who])
    alice = decide(WRONG if typed in (code(), code_at(_DUMMY, STEP)) else typed, how=how)

    if typed is None:
        assert stranger.verdict == alice.verdict
        return
    assert isinstance(stranger.verdict, Rejected)
    assert isinstance(alice.verdict, Rejected)
    assert stranger.verdict.public_text == alice.verdict.public_text
    assert stranger.verdict.retry_after_s == alice.verdict.retry_after_s
    assert {stranger.verdict.reason, alice.verdict.reason} <= _ALIKE | {Reason.MALFORMED}
    assert stranger.throttle == alice.throttle
    assert stranger.credential is None
    assert reason(stranger) is not Reason.REPLAYED


@pytest.mark.parametrize("throttle", [_WAITING, _SOURCE_WAITING, _HARD], ids=["waiting", "source-waiting", "locked"])
@pytest.mark.parametrize("who", STRANGERS)
def test_who_cannot_match_waits_like_everybody(who: str, throttle: Throttle) -> None:
    """core-5-18: the same verdict, wait and all."""
    assert decide(WRONG, throttle=throttle, **STRANGERS[who]).verdict == decide(WRONG, throttle=throttle).verdict


@pytest.mark.parametrize(
    ("who", "text"),
    [
        ("not-enrolled", texts.MUST_ENROL), ("grace-ended", texts.GRACE_ENDED), ("locked", texts.LOCKED_BY_ADMIN),
        ("suspended", texts.MUST_ENROL), ("unknown", texts.MUST_ENROL), ("refused-name", texts.DENIED),
    ],
)  # fmt: skip
def test_who_proved_the_first_factor_hears_about_his_account(who: str, text: str) -> None:
    """He may know; so may somebody whom mfad does not know yet: his password was right."""
    judgement = decide(WRONG, how={"first_factor": FirstFactor.DONE}, **STRANGERS[who])

    assert isinstance(judgement.verdict, Rejected)
    assert judgement.verdict.public_text == text


@pytest.mark.parametrize("state", [s for s in CredentialState if s is not CredentialState.ACTIVE])
def test_only_an_active_credential_opens(state: CredentialState) -> None:
    """core-5-45: an abandoned enrolment's code is wrong."""
    assert reason(decide(code(), credentials=(replace(TOTP, state=state),))) is Reason.NOT_ENROLLED


# Exemptions


def exemption(judgement: Judgement) -> Exemption | None:
    """Why nothing was asked; None when something was."""
    if not isinstance(judgement.verdict, Exempt):
        return None
    assert judgement.event.outcome is Outcome.EXEMPT
    assert judgement.event.reason == judgement.verdict.exemption
    return judgement.verdict.exemption


NOBODY_YET = {"user": replace(ALICE, state=EnrolmentState.NONE), "credentials": ()}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"decision": Decision("r", Action.EXEMPT)}, Exemption.POLICY),
        ({"decision": Decision("r", Action.EXEMPT), "user": None, "credentials": ()}, Exemption.POLICY),
        ({"user": replace(ALICE, requirement=Requirement.EXEMPT)}, Exemption.USER),
        ({"decision": Decision("r", Action.EXEMPT), "user": replace(ALICE, locked=True)}, None),
        ({"user": replace(ALICE, requirement=Requirement.EXEMPT, locked=True)}, None),
        ({"decision": Decision("r", enforce=Enforce.ENROLLED_ONLY)}, None),
        (NOBODY_YET | {"decision": Decision("r", enforce=Enforce.ENROLLED_ONLY)}, Exemption.ENROLLED_ONLY),
        ({"user": None, "credentials": (), "decision": Decision("r", enforce=Enforce.ENROLLED_ONLY)}, Exemption.ENROLLED_ONLY),
        (
            NOBODY_YET
            | {
                "user": replace(ALICE, state=EnrolmentState.NONE, requirement=Requirement.REQUIRED),
                "decision": Decision("r", enforce=Enforce.ENROLLED_ONLY),
            },
            None,
        ),
        (STRANGERS["suspended"] | {"decision": Decision("r", enforce=Enforce.ENROLLED_ONLY)}, None),
        (STRANGERS["revoked"] | {"decision": Decision("r", enforce=Enforce.ENROLLED_ONLY)}, None),
        (STRANGERS["locked"] | {"decision": Decision("r", enforce=Enforce.ENROLLED_ONLY), "credentials": ()}, None),
        (NOBODY_YET, None),
    ],
    ids=["policy", "policy-unknown-user", "user", "policy-but-locked", "user-but-locked", "enrolled-only-has-one",
         "enrolled-only-has-none", "enrolled-only-unknown", "enrolled-only-but-required", "enrolled-only-suspended",
         "enrolled-only-revoked", "enrolled-only-locked", "not-enrolled"],
)  # fmt: skip
def test_who_is_exempt(fields: dict[str, object], expected: Exemption | None) -> None:
    """Nobody whom an administrator locked; nobody whose factor was taken away and who would get round it that way."""
    assert exemption(decide(**fields)) is expected
    assert exemption(decide(WRONG, **fields)) is expected


@pytest.mark.parametrize("decision", [Decision("r", Action.EXEMPT), Decision("r", enforce=Enforce.ENROLLED_ONLY)])
def test_a_name_that_is_no_identity_is_never_exempt(decision: Decision) -> None:
    """core-5-28: ``alice@elsewhere`` may be alice to the directory behind us; which rule holds for her cannot be known."""
    nobody = {"name": "", "user": None, "credentials": (), "decision": decision}

    assert isinstance(decide(**nobody).verdict, Challenge)
    assert reason(decide(code(), **nobody)) is Reason.USERNAME_REFUSED


def test_grace_lets_in_until_its_deadline_and_says_so() -> None:
    """The deadline is shown; after it the door is closed."""
    invited = replace(ALICE, state=EnrolmentState.INVITED, grace_until=NOW + 2 * DAY)

    judgement = decide(user=invited, credentials=())

    assert exemption(judgement) is Exemption.GRACE
    assert isinstance(judgement.verdict, Exempt)
    assert "2 days" in judgement.verdict.notices[0]
    assert judgement.grace_until == 0.0
    assert exemption(decide(user=replace(invited, grace_until=NOW), credentials=())) is None


def test_grace_of_the_policy_starts_at_the_first_login_and_is_written_once() -> None:
    """core-5-44: the second login finds the deadline and does not move it."""
    decision = Decision("r", grace_s=int(7 * DAY))
    first = decide(**NOBODY_YET, decision=decision)

    assert exemption(first) is Exemption.GRACE
    assert first.grace_until == NOW + 7 * DAY
    met = replace(ALICE, state=EnrolmentState.NONE, grace_until=first.grace_until)
    later = decide(user=met, credentials=(), decision=decision, now=NOW + DAY)
    assert exemption(later) is Exemption.GRACE
    assert later.grace_until == 0.0
    assert reason(decide(WRONG, user=met, credentials=(), decision=decision, now=NOW + 8 * DAY)) is Reason.GRACE_ENDED


@pytest.mark.parametrize("who", ["unknown", "refused-name", "locked", "suspended", "revoked"])
def test_grace_is_not_for(who: str) -> None:
    """core-5-44: somebody whom nobody knows would have a grace that never ends; the others had their factor."""
    assert exemption(decide(**({"decision": Decision("r", grace_s=1000)} | STRANGERS[who]))) is None


@pytest.mark.parametrize("interaction", list(Interaction))
def test_no_grace_means_none(interaction: Interaction) -> None:
    """A rule with `grace: 0` (sudo, say) is not opened by a deadline that was set at another door, or by an administrator."""
    invited = replace(ALICE, state=EnrolmentState.INVITED, grace_until=NOW + 2 * DAY)
    none, inherited = Decision("r", grace_s=0), Decision("r")
    how: dict[str, object] = {"interaction": interaction}

    assert exemption(decide(how=how, user=invited, credentials=(), decision=none)) is None
    assert exemption(decide(how=how, user=invited, credentials=(), decision=inherited)) is Exemption.GRACE


def test_a_process_that_asks_about_itself_sets_no_deadline() -> None:
    """It names its service, and would choose the rule with the longest grace, for all doors. A deadline that runs counts."""
    long = Decision("r", grace_s=int(300 * DAY))
    in_grace = {"user": replace(ALICE, state=EnrolmentState.NONE, grace_until=NOW + DAY), "credentials": ()}

    how: dict[str, object] = {"interaction": Interaction.ASKS}

    judgement = decide(how=how, **NOBODY_YET, decision=long)

    assert exemption(judgement) is None
    assert judgement.grace_until == 0.0
    assert exemption(decide(how=how, **in_grace, decision=long)) is Exemption.GRACE


def test_grace_is_not_for_who_has_a_factor() -> None:
    """Having it is having to use it."""
    assert exemption(decide(user=replace(ALICE, grace_until=NOW + DAY))) is None


TRUSTING = Decision("r", trust_window_s=4 * 3_600)
TRUSTED = Throttle(lane=replace(KNOWN, scope="web"))


@pytest.mark.parametrize(
    ("fields", "scope", "expected"),
    [
        ({}, "web", True),
        ({}, "db", False),
        ({"now": NOW + 3 * 3_600 - 1}, "web", True),
        ({"now": NOW + 3 * 3_600}, "web", False),
        ({"now": NOW - 3_600 - 61}, "web", False),
        ({"decision": REQUIRE}, "web", False),
        ({"throttle": Throttle()}, "web", False),
        ({"throttle": Throttle(lane=replace(TRUSTED.lane, failures=1))}, "web", False),
        ({"user": replace(ALICE, locked=True)}, "web", False),
        ({"user": None, "credentials": ()}, "web", False),
        (STRANGERS["suspended"], "web", False),
        (STRANGERS["revoked"], "web", False),
    ],
    ids=["inside", "another-host-group", "last-second", "over", "clock-back", "no-window", "another-source", "failed-since",
         "locked", "unknown", "suspended", "revoked"],
)  # fmt: skip
def test_a_trust_window_is_for_this_user_from_this_place_to_this_host_group(
    fields: dict[str, object], scope: str, expected: bool
) -> None:
    """core-5-30: it ends with its time, with a failure, with a lock, and with the credential that it came from."""
    values = {"decision": TRUSTING, "throttle": TRUSTED} | fields

    judgement = judge(attempt(), situation(**values), Settings(scope=scope))

    assert (exemption(judgement) is Exemption.TRUST_WINDOW) is expected


_OTHER = replace(TOTP, id=8)
REPEATED = {
    "first_factor": FirstFactor.OURS, "interaction": Interaction.ONE_SHOT, "grammar": Grammar(SplitMode.PASSWORD),
    "grammar_is_final": True, "remembered": "totp:7",
}  # fmt: skip


def repeated(*, how: dict[str, object] | None = None, **fields: object) -> Judgement:
    """Judge a login that the door remembers: the password alone, which the directory says is good."""
    return decide("hunter2", how=REPEATED | (how or {}), **({"password": Password.GOOD} | fields))


def test_a_remembered_login_is_repeated_without_a_code() -> None:
    """Nothing is spent, counted or forgiven by it, and the log names the credential."""
    judgement = repeated(throttle=Throttle(account=Record(2, 2)))

    assert exemption(judgement) is Exemption.REMEMBERED
    assert (judgement.credential, judgement.spent_code, judgement.throttle.account) == (None, 0, Record(2, 2))
    assert judgement.event.note == "totp:7"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"credentials": ()}, Reason.NO_CODE),
        ({"credentials": (_OTHER,)}, Reason.NO_CODE),
        ({"credentials": (replace(TOTP, state=CredentialState.SUSPENDED), _OTHER)}, Reason.NO_CODE),
        ({"credentials": (replace(TOTP, state=CredentialState.REVOKED), _OTHER)}, Reason.NO_CODE),
        ({"credentials": (replace(TOTP, state=CredentialState.PENDING),)}, Reason.NO_CODE),
        ({"decision": replace(REQUIRE, factors=frozenset({FactorKind.HOTP}))}, Reason.NO_CODE),
        ({"user": replace(ALICE, locked=True)}, Reason.NO_CODE),
        ({"user": replace(ALICE, state=EnrolmentState.SUSPENDED)}, Reason.NO_CODE),
        ({"user": replace(ALICE, state=EnrolmentState.REVOKED)}, Reason.NO_CODE),
        ({"user": None, "credentials": ()}, Reason.NO_CODE),
        ({"name": ""}, Reason.NO_CODE),
        ({"decision": Decision("r", Action.DENY)}, Reason.POLICY_DENIED),
        ({"password": Password.BAD}, Reason.FIRST_FACTOR_FAILED),
        ({"password": Password.NOT_ASKED}, Reason.FIRST_FACTOR_FAILED),
        ({"throttle": _WAITING}, Reason.THROTTLED),
        ({"throttle": _SOURCE_WAITING}, Reason.SOURCE_THROTTLED),
        ({"throttle": _HARD}, Reason.LOCKED),
    ],
    ids=["no-credential", "another", "suspended", "revoked", "pending", "kind-not-accepted", "locked", "user-suspended",
         "user-revoked", "unknown", "no-identity", "denied", "wrong-password", "password-not-asked", "waits", "source-waits",
         "hard-lock"],
)  # fmt: skip
def test_a_remembered_login_ends_with(fields: dict[str, object], expected: Reason) -> None:
    """It goes round nothing but the code, and no longer than the credential would."""
    assert reason(repeated(**fields)) is expected


@pytest.mark.parametrize("first_factor", [FirstFactor.DONE, FirstFactor.ELSEWHERE])
def test_nothing_is_remembered_where_nobody_of_ours_checks_the_password(first_factor: FirstFactor) -> None:
    """The directory's own check is what a remembered login stands on; a question with nothing typed is none."""
    elsewhere = repeated(how={"first_factor": first_factor}, password=Password.NOT_ASKED)
    asked = decide(how=REPEATED | {"interaction": Interaction.CHALLENGES})

    assert reason(elsewhere) is Reason.NO_CODE
    assert isinstance(asked.verdict, Challenge)


def test_a_wrong_password_of_a_remembered_login_counts_for_its_source() -> None:
    """As any other wrong password."""
    judgement = repeated(password=Password.BAD, reading=readings(attempt("hunter2", **REPEATED), situation(), Settings())[0])

    assert (judgement.throttle.source.failures, judgement.throttle.account.failures) == (1, 0)


def test_an_exemption_changes_nothing_but_the_log() -> None:
    """No count, no spend."""
    judgement = decide(code(), decision=Decision("r", Action.EXEMPT), throttle=_WAITING)

    assert judgement.throttle is _WAITING
    assert judgement.credential is None


# Asking


@pytest.mark.parametrize(
    ("grammar", "kind"),
    [(Grammar(), PromptKind.CODE), (Grammar(SplitMode.OTP_ONLY), PromptKind.CODE), (APPEND, PromptKind.PASSWORD_AND_CODE),
     (SEPARATOR, PromptKind.PASSWORD_AND_CODE), (Grammar(SplitMode.KEYWORD), PromptKind.PASSWORD_AND_CODE)],
    ids=lambda v: v.mode if isinstance(v, Grammar) else "",
)  # fmt: skip
def test_what_is_asked_follows_the_grammar(grammar: Grammar, kind: PromptKind) -> None:
    """The door's, unless the rule says another."""
    by_door = decide(how={"grammar": grammar}).verdict
    by_rule = decide(decision=Decision("r", grammar=grammar)).verdict

    for verdict in (by_door, by_rule):
        assert isinstance(verdict, Challenge)
        assert verdict.prompts[0].kind is kind
        assert verdict.expires_at == NOW + 120


def test_a_new_challenge_resets_nothing() -> None:
    """core-5-12: asking ten times leaves the counter where it was."""
    for _ in range(10):
        judgement = decide(throttle=_WAITING)
        assert judgement.throttle is _WAITING


@pytest.mark.parametrize(
    ("how", "fields", "offered"),
    [
        ({}, {}, True),
        ({}, {"user": None}, True),
        ({"first_factor": FirstFactor.ELSEWHERE}, {}, False),
        ({"first_factor": FirstFactor.OURS}, {}, False),
        ({"interaction": Interaction.ONE_SHOT}, {}, False),
        ({"interaction": Interaction.ASKS}, {}, False),
        ({}, {"decision": REQUIRE}, False),
        ({}, {"name": "", "user": None}, False),
        ({}, {"user": replace(ALICE, locked=True)}, False),
        ({}, STRANGERS["suspended"], False),
        ({}, STRANGERS["revoked"], False),
        ({}, {"user": ALICE, "credentials": (TOTP,)}, False),
    ],
    ids=["invited", "unknown", "password-not-known", "password-ours", "no-prompts", "not-trusted-with-a-secret", "rule-refuses",
         "refused-name", "locked", "suspended", "revoked", "has-one"],
)  # fmt: skip
def test_enrolment_is_offered_only_behind_a_proved_first_factor(
    how: dict[str, object], fields: dict[str, object], offered: bool
) -> None:
    """core-5-44, core-5-42: else a guessed password would leave a new authenticator behind."""
    values: dict[str, object] = {
        "user": replace(ALICE, state=EnrolmentState.INVITED),
        "credentials": (),
        "decision": Decision("r", enrol=Enrol.AT_LOGIN),
    }

    judgement = decide(how={"first_factor": FirstFactor.DONE} | how, **(values | fields))

    assert judgement.may_enrol is offered
    assert (judgement.event.reason == Reason.ENROLMENT_OFFERED) is offered


# Combined answers


@pytest.mark.parametrize(
    ("typed", "grammar", "password"),
    [("hunter2{}", APPEND, b"hunter2"), ("hunter2,{}", SEPARATOR, b"hunter2"), ("a,b,{}", SEPARATOR, b"a,b"),
     ("hunter2123456{}", APPEND, b"hunter2123456"), ("{}", Grammar(SplitMode.OTP_ONLY), None)],
    ids=["append", "separator", "separator-in-password", "digits-in-password", "otp-only"],
)  # fmt: skip
def test_password_and_code_come_apart(typed: str, grammar: Grammar, password: bytes | None) -> None:
    """The password is handed on for the rest of the stack, byte for byte."""
    judgement = decide(typed.format(code()), how={"grammar": grammar})

    assert isinstance(judgement.verdict, Accepted)
    assert (judgement.verdict.password.reveal() if judgement.verdict.password else None) == password


@pytest.mark.parametrize("typed", ["hunter2", "hunter2,", "pass word", "123456", ",123456"])
def test_a_password_without_a_code_is_not_counted(typed: str) -> None:
    """And never taken as the whole answer of somebody who is enrolled."""
    judgement = decide(typed, how={"grammar": SEPARATOR})

    assert reason(judgement) is Reason.NO_CODE
    assert judgement.throttle == Throttle()


def test_only_the_reading_whose_password_was_checked_counts() -> None:
    """With codes of six and of eight digits there are two readings; the first factor is asked about one of them."""
    eight = replace(TOTP, id=8, digits=8)
    typed = "pw" + "12" + code()
    both = (TOTP, eight)
    found = readings(attempt(typed, grammar=APPEND), situation(credentials=both), Settings())
    assert [r.password.reveal() for r in found] == [b"pw", b"pw12"]

    right = decide(typed, how={"grammar": APPEND}, credentials=both, password=Password.GOOD, reading=found[1])
    other = decide(typed, how={"grammar": APPEND}, credentials=both, password=Password.GOOD, reading=found[0])

    assert isinstance(right.verdict, Accepted)
    assert reason(other) is Reason.MISMATCH


def test_two_readings_are_one_failure() -> None:
    """core-5-17: what can be read in two ways was typed once."""
    judgement = decide("pw12000000", how={"grammar": APPEND}, credentials=(TOTP, replace(TOTP, id=8, digits=8)))

    assert reason(judgement) is Reason.MISMATCH
    assert judgement.throttle.account.consecutive == 1


# One-time codes


@pytest.mark.parametrize(
    ("typed", "kind", "notice"),
    [(RECOVERY, FactorKind.RECOVERY, texts.recovery_notice(4)), (KEY, FactorKind.RECOVERY_KEY, texts.RECOVERY_KEY_USED),
     (BYPASS, FactorKind.BYPASS, texts.BYPASS_USED)],
    ids=["recovery", "key", "bypass"],
)  # fmt: skip
def test_a_proved_one_time_code_lets_in_and_is_used_up(typed: str, kind: FactorKind, notice: str) -> None:
    """core-5-40: of whatever length; combined with a password too, hyphens and all."""
    for text, grammar in ((typed, Grammar()), (f"hunter2{typed}", APPEND), (f"hunter2,{typed}", SEPARATOR)):
        judgement = decide(text, how={"grammar": grammar}, proof=_PROOF[kind])

        assert isinstance(judgement.verdict, Accepted)
        assert judgement.verdict.factor == kind
        assert judgement.verdict.notices == (notice,)
        assert judgement.spent_code == _PROOF[kind].code_id
        assert judgement.credential is None


@pytest.mark.parametrize(
    ("state", "expected", "counted"),
    [(ProofState.USED, Reason.REPLAYED, False), (ProofState.EXPIRED, Reason.EXPIRED, True), (None, Reason.MISMATCH, True)],
    ids=["used", "expired", "no-such-code"],
)
@pytest.mark.parametrize(
    ("typed", "kind"), [(RECOVERY, FactorKind.RECOVERY), (KEY, FactorKind.RECOVERY_KEY), (BYPASS, FactorKind.BYPASS)]
)
def test_a_one_time_code_that_is_used_expired_or_unknown_is_refused(
    typed: str, kind: FactorKind, state: ProofState | None, expected: Reason, counted: bool
) -> None:
    """core-5-39, core-5-41."""
    proof = None if state is None else replace(_PROOF[kind], state=state)

    judgement = decide(typed, proof=proof)

    assert reason(judgement) is expected
    assert judgement.spent_code == 0
    assert bool(judgement.throttle.account.consecutive) is counted


def test_a_proof_of_another_kind_proves_nothing() -> None:
    """What was typed and what was proved belong together."""
    assert reason(decide(BYPASS, proof=_PROOF[FactorKind.RECOVERY])) is Reason.MISMATCH
    assert reason(decide(code(0) if code() == WRONG else WRONG, proof=_PROOF[FactorKind.RECOVERY])) is Reason.MISMATCH


def test_a_rule_may_forbid_spare_codes() -> None:
    """core-5-42: what is allowed is the rule's business, on this side of the wire."""
    strict = Decision("r", allow_recovery=False)
    for typed, kind in ((RECOVERY, FactorKind.RECOVERY), (KEY, FactorKind.RECOVERY_KEY), (BYPASS, FactorKind.BYPASS)):
        assert reason(decide(typed, proof=_PROOF[kind], decision=strict)) is Reason.FACTOR_NOT_ALLOWED


def test_a_factor_that_the_rule_does_not_name_is_not_looked_at() -> None:
    """core-5-42: a right TOTP where HOTP is required is no credential at all."""
    judgement = decide(code(), decision=Decision("r", factors=frozenset({FactorKind.HOTP})))

    assert reason(judgement) is Reason.NOT_ENROLLED


@pytest.mark.parametrize(
    ("typed", "kind", "opens"),
    [(RECOVERY, FactorKind.RECOVERY, True), (KEY, FactorKind.RECOVERY_KEY, True), (BYPASS, FactorKind.BYPASS, True)],
    ids=["recovery", "key", "bypass"],
)
def test_a_recovery_code_clears_the_hard_lock(typed: str, kind: FactorKind, opens: bool) -> None:
    """core-5-13: until an administrator or a recovery code clears it."""
    judgement = decide(typed, proof=_PROOF[kind], throttle=_HARD)

    if opens:
        assert isinstance(judgement.verdict, Accepted)
        assert judgement.throttle.account.consecutive == 0
    else:
        assert reason(judgement) is Reason.LOCKED


@pytest.mark.parametrize("state", [ProofState.USED, ProofState.EXPIRED])
def test_a_spent_recovery_code_clears_no_hard_lock(state: ProofState) -> None:
    """core-5-39: and the guess is counted on."""
    judgement = decide(RECOVERY, proof=replace(_PROOF[FactorKind.RECOVERY], state=state), throttle=_HARD)

    assert isinstance(judgement.verdict, Rejected)
    assert judgement.throttle.account.consecutive >= 100


@pytest.mark.parametrize(
    ("typed", "kind", "opens"),
    [(RECOVERY, FactorKind.RECOVERY, False), (KEY, FactorKind.RECOVERY_KEY, False), (BYPASS, FactorKind.BYPASS, True)],
    ids=["recovery", "key", "bypass"],
)
def test_of_an_administrators_lock_only_an_administrators_code_makes_an_exception(
    typed: str, kind: FactorKind, opens: bool
) -> None:
    """What he issued after he locked is meant."""
    judgement = decide(typed, proof=_PROOF[kind], user=replace(ALICE, locked=True))

    assert isinstance(judgement.verdict, Accepted) is opens
    assert opens or reason(judgement) is Reason.LOCKED_BY_ADMIN


# The whole product: no combination lets in without a reason to


@dataclass(frozen=True)
class Typed:
    """What was typed, and what it is worth by itself: "new" codes, "proof" of a kind, or nothing."""

    text: str | bytes | None
    worth: FactorKind | None = None
    proof: Proof | None = None


_SPENT_BEFORE = replace(TOTP, last_step=STEP - 1, resync_step=STEP + 5)
"""One credential for all kinds of codes: STEP - 1 is spent, STEP + 6 completes a resynchronisation."""

TYPED = {
    "nothing": Typed(None),
    "empty": Typed(""),
    "junk": Typed(JUNK),
    "malformed": Typed("what?"),
    "keyword": Typed("push"),
    "wrong": Typed(WRONG),
    "spent": Typed(code(-1)),
    "outside": Typed(code(9)),
    "new": Typed(code(), FactorKind.TOTP),
    "consecutive": Typed(code(6), FactorKind.TOTP),
    **{
        f"{kind}-{state.value if state else 'unproved'}": Typed(
            text,
            kind if state is ProofState.USABLE else None,
            Proof(kind, 20, state) if state else None,
        )
        for (text, kind), state in itertools.product(
            [(RECOVERY, FactorKind.RECOVERY), (KEY, FactorKind.RECOVERY_KEY), (BYPASS, FactorKind.BYPASS)], [None, *ProofState]
        )
    },
}
USERS = [None] + [
    User(3, "alice", state, requirement, grace, locked)
    for state, requirement, grace, locked in itertools.product(
        EnrolmentState, Requirement, (0.0, NOW - 1, NOW + DAY), (False, True)
    )
]
DECISIONS = [
    REQUIRE,
    Decision("r2", enforce=Enforce.ENROLLED_ONLY),
    Decision("r3", grace_s=1_000, allow_recovery=False),
    Decision("r4", factors=frozenset({FactorKind.HOTP}), trust_window_s=3_601),
    Decision("r5", Action.EXEMPT),
    Decision("r6", Action.DENY),
]
STANDINGS = {"open": Throttle(lane=KNOWN), "waiting": _WAITING, "source": _SOURCE_WAITING, "hard": _HARD}


def _may_be_let_in(asked: Attempt, typed: Typed, at: Situation) -> bool:
    """Said again and differently: when a code may open."""
    user, decision = at.user, at.decision
    if asked.first_factor is FirstFactor.OURS and at.password is not Password.GOOD:
        return False
    if user is None or decision.action is Action.DENY or at.password is Password.BAD:
        return False
    if typed.worth is FactorKind.TOTP:
        return (
            at.throttle is STANDINGS["open"]
            and not user.locked
            and user.state not in (EnrolmentState.SUSPENDED, EnrolmentState.REVOKED)
            and FactorKind.TOTP in decision.factors
            and any(c.state is CredentialState.ACTIVE for c in at.credentials)
        )
    if typed.worth is None or not decision.allow_recovery:
        return False
    if user.locked and typed.worth is not FactorKind.BYPASS:
        return False
    return at.throttle is STANDINGS["open"] or at.throttle is _HARD


def _check(asked: Attempt, typed: Typed, at: Situation) -> type[Verdict]:
    judgement = judge(asked, at, Settings())
    verdict = judgement.verdict
    assert judgement.event.event_id == "e1"
    match verdict:
        case Accepted():
            assert judgement.event.outcome is Outcome.ACCEPTED
            assert _may_be_let_in(asked, typed, at)
            spends = judgement.credential is not None and judgement.credential.last_step > TOTP.last_step
            assert spends is (typed.worth is FactorKind.TOTP)
            assert bool(judgement.spent_code) is not spends
            assert judgement.throttle.account.consecutive == 0
        case Exempt():
            assert judgement.event.outcome is Outcome.EXEMPT
            assert at.user is None or not at.user.locked
            assert judgement.throttle is at.throttle
            assert at.decision.action is not Action.DENY
        case Challenge():
            assert judgement.event.outcome is Outcome.CHALLENGED
            assert asked.typed is None
            assert judgement.throttle is at.throttle
        case Rejected():
            assert judgement.event.outcome is Outcome.REJECTED
            assert not _may_be_let_in(asked, typed, at)
            counted = judgement.throttle.account.consecutive - at.throttle.account.consecutive
            assert counted in (0, 1)
            assert bool(judgement.event.failures) is bool(counted)
            if asked.interaction is Interaction.ONE_SHOT:
                assert verdict.public_text == texts.DENIED
        case _:
            raise AssertionError(verdict)
    if not isinstance(verdict, Accepted):
        assert judgement.spent_code == 0
        assert judgement.credential is None or judgement.credential.last_step == _SPENT_BEFORE.last_step
    return type(verdict)


def _held(state: CredentialState | None) -> tuple[Credential, ...]:
    return () if state is None else (replace(_SPENT_BEFORE, state=state),)


def _users() -> Iterator[tuple[User | None, tuple[Credential, ...]]]:
    yield from ((user, _held(state)) for user in USERS if user for state in (None, *CredentialState))
    yield None, ()


@pytest.mark.parametrize("decision", DECISIONS, ids=lambda d: d.rule)
def test_nobody_is_let_in_without_a_new_code_or_a_usable_proof(decision: Decision) -> None:
    """Every user x requirement x grace x credential x typed, for this decision: always a verdict, one event, and an accept
    exactly where a new code or a usable proof was there."""
    seen = {
        _check(attempt(typed.text), typed, situation(
            user=user, credentials=held, decision=decision, proof=typed.proof, throttle=STANDINGS["open"]))
        for (user, held), typed in itertools.product(_users(), TYPED.values())
    }  # fmt: skip

    assert Rejected in seen
    assert (Accepted in seen) is (decision.action is not Action.DENY)  # "exempt" does not hold for who is locked


@pytest.mark.parametrize("where", STANDINGS)
@pytest.mark.parametrize("password", list(Password))
def test_nor_past_a_throttle_or_a_wrong_password(where: str, password: Password) -> None:
    """The same for every standing, password, kind of door and first factor."""
    people = [(None, ()), (ALICE, _held(CredentialState.ACTIVE)), (replace(ALICE, locked=True), _held(CredentialState.ACTIVE)),
              (replace(ALICE, state=EnrolmentState.SUSPENDED), _held(CredentialState.SUSPENDED))]  # fmt: skip
    for (user, held), typed, interaction, first_factor, decision in itertools.product(
        people, TYPED.values(), Interaction, FirstFactor, DECISIONS[:3]
    ):
        if typed.text is not None and first_factor is FirstFactor.DONE and interaction is Interaction.ONE_SHOT:
            continue  # a door that knows the first factor prompts
        _check(
            attempt(typed.text, interaction=interaction, first_factor=first_factor),
            typed,
            situation(user=user, credentials=held, decision=decision, proof=typed.proof, password=password,
                      throttle=STANDINGS[where]),
        )  # fmt: skip


def test_rules_of_the_throttle_come_from_the_settings() -> None:
    """An administrator's numbers hold."""
    strict = Settings(throttle=ThrottleRules(free=0, base_s=30))

    judgement = judge(attempt(WRONG), situation(), strict)
    following = judge(attempt(code()), situation(throttle=judgement.throttle), strict)

    assert reason(following) is Reason.THROTTLED
    assert isinstance(following.verdict, Rejected)
    assert following.verdict.retry_after_s == 30


# Doors that ask by a challenge of their client's


AUTO = Grammar(SplitMode.AUTO)
ASKED = {"interaction": Interaction.CHALLENGES}
OURS = ASKED | {"first_factor": FirstFactor.OURS}


def test_a_code_alone_is_enough_where_nobody_of_ours_checks_passwords() -> None:
    """AUTO without a backend: the code, or anything and the code."""
    for typed in (code(), "hello" + code(), "hello," + code()):
        assert isinstance(decide(typed, how=ASKED | {"grammar": AUTO}).verdict, Accepted), typed


@pytest.mark.parametrize("typed", ["hello", "summer 2026", "12345", ",", "123456,", "\u00fc"])
def test_no_code_is_a_question_where_it_can_be_asked(typed: str) -> None:
    """AUTO: a password alone is never an accept, whoever checks it."""
    unchecked = decide(typed, how=ASKED | {"grammar": AUTO})
    checked = decide(typed, how=OURS | {"grammar": AUTO}, password=Password.GOOD, reading=whole(typed.encode()))

    for judgement in (unchecked, checked):
        assert isinstance(judgement.verdict, Challenge)
        assert judgement.throttle == Throttle()


def test_no_code_is_a_refusal_where_nothing_can_be_asked() -> None:
    """A client without challenges: not counted, as no code was looked at."""
    how = {"interaction": Interaction.ONE_SHOT, "first_factor": FirstFactor.OURS, "grammar": AUTO}

    judgement = decide("hello", how=how, password=Password.GOOD, reading=whole(b"hello"))

    assert reason(judgement) is Reason.NO_CODE
    assert judgement.throttle == Throttle()


def test_a_wrong_password_is_no_question() -> None:
    """The challenge would say that the password was right."""
    how = OURS | {"grammar": Grammar(SplitMode.PASSWORD)}

    judgement = decide("hello", how=how, password=Password.BAD, reading=whole(b"hello"))

    assert reason(judgement) is Reason.FIRST_FACTOR_FAILED
    assert judgement.throttle.account == Record()
    assert judgement.throttle.source.failures == 1


def test_guessing_codes_behind_a_known_password_is_counted_in_every_reading() -> None:
    """AUTO asks the backend about one reading: "hello000000" as a whole is a wrong password, and it is a guess as well."""
    judgement = decide("hello" + WRONG, how=OURS | {"grammar": AUTO}, password=Password.BAD, reading=whole(b"hello000000"))

    assert reason(judgement) is Reason.FIRST_FACTOR_FAILED
    assert judgement.throttle.account.failures == 1


def test_a_password_that_looks_like_one_with_a_code_may_still_be_asked_for_the_code() -> None:
    """AUTO: the backend said that all of it is the password."""
    judgement = decide("hello" + WRONG, how=OURS | {"grammar": AUTO}, password=Password.GOOD, reading=whole(b"hello000000"))

    assert isinstance(judgement.verdict, Challenge)
    assert judgement.throttle == Throttle()


def test_who_proved_the_password_and_has_no_factor_is_told_so() -> None:
    """No challenge that nothing can answer."""
    none = replace(ALICE, state=EnrolmentState.NONE)

    judgement = decide(
        "hello", how=OURS | {"grammar": AUTO}, user=none, credentials=(), password=Password.GOOD, reading=whole(b"hello")
    )

    assert isinstance(judgement.verdict, Rejected)
    assert judgement.verdict.public_text == texts.MUST_ENROL
    assert reason(judgement) is Reason.NOT_ENROLLED


@pytest.mark.parametrize("mode", list(SplitMode))
def test_exempt_is_not_without_a_password(mode: SplitMode) -> None:
    """Where the password is ours, who needs no second factor still needs that one, and all that was typed may be it."""
    exempt = replace(REQUIRE, action=Action.EXEMPT)
    how = OURS | {"grammar": Grammar(mode)}
    good = decide("hello", how=how, decision=exempt, password=Password.GOOD, reading=whole(b"hello"))
    bad = decide("hello", how=how, decision=exempt, password=Password.BAD, reading=whole(b"hello"))
    unasked = decide("hello", how=how, decision=exempt)
    empty = decide("", how=how, decision=exempt)

    assert isinstance(good.verdict, Exempt)
    assert [reason(judgement) for judgement in (bad, unasked)] == [Reason.FIRST_FACTOR_FAILED] * 2
    assert reason(empty) is Reason.EMPTY


def test_a_challenge_is_answered_once() -> None:
    """Not counted: the code was not looked at."""
    judgement = decide(code(), how=ASKED | {"challenge_id": "c", "challenge_until": NOW + 60}, challenge_spent=True)

    assert reason(judgement) is Reason.CHALLENGE_EXPIRED
    assert judgement.throttle == Throttle()


def test_what_answers_a_challenge_is_a_code_whatever_the_rule_says() -> None:
    """A rule's `split` is about the text before it."""
    decision = replace(REQUIRE, grammar=APPEND)
    how = ASKED | {"grammar": Grammar(SplitMode.OTP_ONLY), "grammar_is_final": True}

    assert isinstance(decide(code(), how=how, decision=decision).verdict, Accepted)


def test_a_veiled_code_is_found_among_the_candidates() -> None:
    """CHAP shows a digest of the code: the present one fits, once."""
    right = code()

    judgement = decide("digest", how=ASKED | {"veiled": lambda candidate: candidate == right})
    wrong = decide("digest", how=ASKED | {"veiled": lambda candidate: False})

    assert isinstance(judgement.verdict, Accepted)
    assert judgement.credential is not None
    assert judgement.credential.last_step == STEP
    assert reason(wrong) is Reason.MISMATCH
    assert wrong.throttle.account.failures == 1


# A host that decides alone, and one that asks

BOOK = codebook.as_book(TOTP, STEP - 1, Secret(codebook.pack(TOTP, STEP - 1, 100)))
NOTHING_HERE = replace(TOTP, secret=Secret(b""), material=Material.NONE)
HELD_HOTP = replace(NOTHING_HERE, id=9, kind=FactorKind.HOTP, period_s=0)
PROVED: dict[str, object] = {"first_factor": FirstFactor.DONE}


@pytest.mark.parametrize("credential", [TOTP, BOOK], ids=["seed", "codebook"])
def test_alone_a_code_is_accepted_once_and_the_event_says_who_decided(credential: Credential) -> None:
    """core-3.7: the same watermark as ever."""
    judgement = decide(code(), credentials=(credential,), partial=True)

    assert isinstance(judgement.verdict, Accepted)
    assert judgement.event.by == By.HOST
    assert judgement.credential is not None
    assert judgement.credential.material is credential.material
    assert judgement.credential.first_step == credential.first_step
    assert reason(decide(code(), credentials=(judgement.credential,), partial=True)) is Reason.REPLAYED


@pytest.mark.parametrize("refusal", HOST_REASONS)
def test_a_host_that_may_not_looks_at_nothing(refusal: Reason) -> None:
    """Right, wrong, spent or letters, known or not: one answer, nothing charged, nothing spent."""
    known: list[dict[str, object]] = [{}, {"user": None, "credentials": ()}, {"credentials": (NOTHING_HERE,)}]
    for who, typed in itertools.product(known, (code(), WRONG, RECOVERY, "junk text")):
        judgement = decide(typed, partial=True, refusal=refusal, **who)

        assert reason(judgement) is refusal
        assert isinstance(judgement.verdict, Rejected)
        assert judgement.verdict.reason is refusal
        assert "network" in judgement.verdict.public_text or refusal is Reason.HOST_REVOKED
        assert (judgement.throttle, judgement.credential) == (Throttle(), None)


@pytest.mark.parametrize("refusal", HOST_REASONS)
def test_what_the_authority_said_of_a_user_ends_with_the_lease(refusal: Reason) -> None:
    """Exempt by name, in grace, not enrolled, remembered: none of it outlives what it came with; a rule of the policy does."""
    told: list[dict[str, object]] = [
        {"user": replace(ALICE, requirement=Requirement.EXEMPT)},
        {"user": replace(ALICE, state=EnrolmentState.INVITED, grace_until=NOW + DAY), "credentials": ()},
        {
            "user": replace(ALICE, state=EnrolmentState.NONE),
            "credentials": (),
            "decision": Decision("r1", enforce=Enforce.ENROLLED_ONLY),
        },
        {"decision": Decision("r1", trust_window_s=7_200), "throttle": Throttle(lane=KNOWN)},
    ]
    for fields, typed in itertools.product(told, (None, code())):
        assert isinstance(decide(typed, partial=True, **fields).verdict, Exempt)
        assert reason(decide(typed, partial=True, refusal=refusal, **fields)) is refusal

    for typed in (None, code()):
        exempt = decide(typed, partial=True, refusal=refusal, decision=Decision("r1", Action.EXEMPT))
        assert isinstance(exempt.verdict, Exempt) is (refusal is not Reason.HOST_REVOKED)


def test_alone_a_name_that_was_not_told_of_is_never_let_through() -> None:
    """It may be an enrolled user's whom this host has not heard of yet. The question is the same as anybody's."""
    decision = Decision("r1", enforce=Enforce.ENROLLED_ONLY, grace_s=86_400)
    nobody: dict[str, object] = {"user": None, "credentials": (), "decision": decision}

    assert isinstance(decide(**nobody).verdict, Exempt)
    assert isinstance(decide(partial=True, **nobody).verdict, Challenge)
    assert reason(decide(code(), partial=True, **nobody)) is Reason.UNKNOWN_USER
    assert isinstance(decide(partial=True, **(nobody | {"decision": Decision("r1", Action.EXEMPT)})).verdict, Exempt)


@pytest.mark.parametrize("typed", [RECOVERY, KEY, BYPASS])
def test_letters_alone_need_the_network_and_are_no_guess(typed: str) -> None:
    """The text offers what works, and is the same for everybody; it is never charged."""
    for who in ({}, {"user": None, "credentials": ()}, {"user": replace(ALICE, locked=True)}):
        judgement = decide(typed, partial=True, **who)

        assert judgement.verdict == Rejected("e1", Reason.NEEDS_AUTHORITY, texts.RECOVERY_NEEDS_NETWORK)
        assert judgement.throttle == Throttle()


@pytest.mark.parametrize("held", [NOTHING_HERE, HELD_HOTP], ids=["totp", "hotp"])
def test_a_token_that_is_not_here_is_told_to_its_owner_and_to_nobody_else(held: Credential) -> None:
    """Who has proved the first factor hears why and is not charged; a stranger hears and waits as with any wrong code, and the
    authority does not add that up."""
    owner = decide(code(), credentials=(held,), partial=True, how=PROVED)
    stranger = decide(code(), credentials=(held,), partial=True)
    unknown = decide(WRONG, user=None, credentials=(), partial=True)

    assert owner.verdict == Rejected("e1", Reason.NEEDS_AUTHORITY, texts.HELD_ELSEWHERE)
    assert owner.throttle == Throttle()
    assert reason(stranger) is Reason.NEEDS_AUTHORITY
    assert stranger.verdict == unknown.verdict
    assert stranger.throttle == unknown.throttle
    assert (stranger.event.failures, unknown.event.failures) == (0, 1)


def book_until(last: int) -> Credential:
    """Alice's credential as a book of fifty codes up to this step."""
    return codebook.as_book(TOTP, last - 49, Secret(codebook.pack(TOTP, last - 49, 50)))


@pytest.mark.parametrize("last", [STEP, STEP - 1, STEP - 1_000])
def test_a_book_that_is_over_is_told_to_its_owner_and_nothing_in_it_is_looked_at(last: int) -> None:
    """Neither the right code nor a wrong one says more, so that nobody guesses uncounted at what is left of it."""
    for typed in (code(), code(-1), WRONG):
        owner = decide(typed, credentials=(book_until(last),), partial=True, how=PROVED)
        stranger = decide(typed, credentials=(book_until(last),), partial=True)
        unknown = decide(WRONG, user=None, credentials=(), partial=True)
        assert owner.verdict == Rejected("e1", Reason.CACHE_EXPIRED, texts.CACHE_EXPIRED)
        assert (owner.throttle, owner.credential) == (Throttle(), None)
        assert reason(stranger) is Reason.CACHE_EXPIRED
        assert stranger.verdict == unknown.verdict
        assert stranger.throttle == unknown.throttle


def test_a_book_that_reaches_far_enough_is_looked_at_and_a_wrong_code_counts() -> None:
    book = book_until(STEP + 1)

    assert isinstance(decide(code(), credentials=(book,), partial=True, how=PROVED).verdict, Accepted)
    wrong = decide(WRONG, credentials=(book,), partial=True, how=PROVED)
    assert reason(wrong) is Reason.MISMATCH
    assert wrong.throttle != Throttle()


def test_a_book_that_is_over_beside_a_token_that_is_here_makes_no_guess_free() -> None:
    both = (book_until(STEP - 5), replace(TOTP, id=99))

    assert reason(decide(WRONG, credentials=both, partial=True, how=PROVED)) is Reason.MISMATCH
    assert isinstance(decide(code(), credentials=both, partial=True, how=PROVED).verdict, Accepted)


def test_a_guess_beside_a_code_of_letters_is_charged() -> None:
    """Two readings of one text: that one of them needs the network makes the other no free guess."""
    both = (read("", WRONG), Split(Secret(b""), read_passcode(BYPASS.encode())))
    for found in (both, both[::-1]):
        judgement = decide(WRONG, partial=True, found=found)

        assert reason(judgement) is Reason.MISMATCH
        assert judgement.throttle.account.consecutive == 1


def test_with_one_usable_credential_a_wrong_code_is_a_wrong_code() -> None:
    """And a right one lets in, whatever else the user has."""
    both = (HELD_HOTP, TOTP)

    assert reason(decide(WRONG, credentials=both, partial=True)) is Reason.MISMATCH
    assert isinstance(decide(code(), credentials=both, partial=True).verdict, Accepted)


def test_a_credential_of_another_host_does_not_answer() -> None:
    """Enrolled for one host: good there, and as if it were not there everywhere else."""
    theirs = replace(TOTP, host_id=5)

    assert isinstance(decide(code(), credentials=(theirs,), host_id=5).verdict, Accepted)
    for host_id in (0, 6):
        assert reason(decide(code(), credentials=(theirs,), host_id=host_id)) is Reason.NOT_ENROLLED
        assert isinstance(decide(code(), credentials=(theirs, replace(TOTP, id=8)), host_id=host_id).verdict, Accepted)


def test_what_another_host_has_read_is_judged_as_it_read_it() -> None:
    """The text stayed there: what was typed here is not looked at, and the place of the good reading is told."""
    found = (read("secret", WRONG), read("secre", code()))

    judgement = decide("whatever", found=found, host_id=3, host="web1")

    assert isinstance(judgement.verdict, Accepted)
    assert judgement.reading == 1
    assert judgement.event.host == "web1"
    assert reason(decide(code(), found=())) is Reason.NO_CODE


@pytest.mark.parametrize("hidden", [False, True])
def test_a_wrong_password_that_may_hide_a_code_is_charged_to_the_account(hidden: bool) -> None:
    """Only the host that read the text knows; the event says it too."""
    judgement = decide(
        "x", how={"first_factor": FirstFactor.OURS}, password=Password.BAD, found=(whole(b""),), hidden=hidden
    )

    assert reason(judgement) is Reason.FIRST_FACTOR_FAILED
    assert judgement.throttle.account.consecutive == judgement.event.failures == int(hidden)
    assert judgement.throttle.source.failures == 1


def test_alone_the_lock_has_another_text() -> None:
    """No recovery code helps there."""
    verdict = decide(code(), throttle=_HARD, partial=True).verdict

    assert isinstance(verdict, Rejected)
    assert verdict.public_text == texts.LOCKED_OFFLINE


def test_offline_logins_are_told_in_words() -> None:
    """One or several, since when."""
    assert texts.offline_notice(1, NOW) == "1 offline login since 2023-11-14 22:14 UTC."
    assert texts.offline_notice(2, NOW) == "2 offline logins since 2023-11-14 22:14 UTC."
