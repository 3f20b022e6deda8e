"""What the authority has ruled, on the host that asked: nobody is let in whom it has not let in, and no step twice."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfa_core import texts
from mfa_core.audit import By, Outcome
from mfa_core.mirror import SPENT_HERE, Ruled, mirror
from mfa_core.model import (
    Attempt,
    Credential,
    CredentialState,
    Door,
    EnrolmentState,
    FactorKind,
    FirstFactor,
    Interaction,
    Material,
    User,
)
from mfa_core.passcode import read_passcode
from mfa_core.policy import Decision
from mfa_core.secret import Secret
from mfa_core.split import Split
from mfa_core.throttle import Record, Throttle, ThrottleRules
from mfa_core.verdict import Accepted, Challenge, Exempt, Exemption, Reason, Rejected, Unavailable, Unready
from mfa_core.verifier import Judgement, Password, Settings, Situation

NOW = 1_700_000_040.0
STEP = 56_666_668
TOTP = Credential(7, FactorKind.TOTP, CredentialState.ACTIVE, Secret(b""), material=Material.NONE)
ALICE = User(3, "alice", EnrolmentState.ACTIVE)
ACCEPTED = Ruled(Outcome.ACCEPTED, rule="r7", factor="totp", credential="totp:7", step=STEP, drift_steps=2, reading=0)
SETTINGS = Settings(scope="servers")


def reading(password: str = "", code: str = "123456") -> Split:
    """One that was referred."""
    return Split(Secret(password.encode()), read_passcode(code.encode()))


def attempt(**fields: object) -> Attempt:
    """Alice at sshd."""
    values: dict[str, object] = {
        "event_id": "e1", "door": Door.PAM, "service": "sshd", "username": "alice", "source": "192.0.2.1",
        "typed": Secret(b"123456"), "interaction": Interaction.PROMPTS,
    }  # fmt: skip
    return Attempt(**(values | fields))  # type: ignore[arg-type]


def hear(
    ruled: Ruled, *, how: dict[str, object] | None = None, found: tuple[Split, ...] = (reading(),), **fields: object
) -> Judgement:
    """What this host makes of a ruling."""
    values: dict[str, object] = {
        "name": "alice", "user": ALICE, "credentials": (TOTP,), "throttle": Throttle(), "decision": Decision("local"),
        "now": NOW,
    }  # fmt: skip
    return mirror(attempt(**(how or {})), Situation(**(values | fields)), SETTINGS, ruled, found)  # type: ignore[arg-type]


def refused(reason: Reason, **fields: object) -> Ruled:
    """A refusal."""
    return Ruled(Outcome.REJECTED, reason, rule="r7", **fields)  # type: ignore[arg-type]


def test_an_accept_lets_in_and_raises_the_watermark() -> None:
    """Whatever is here to compare with: the authority has compared."""
    judgement = hear(replace(ACCEPTED, notices=("3 of your recovery codes are left.",), note="drift moved"))

    assert judgement.verdict == Accepted(
        "e1", FactorKind.TOTP, "totp:7", ("3 of your recovery codes are left.",), user="alice", rule="r7"
    )
    assert judgement.credential is not None
    assert (judgement.credential.last_step, judgement.credential.drift_steps) == (STEP, 2)
    event = judgement.event
    assert (event.by, event.rule, event.note, event.outcome) == (By.AUTHORITY, "r7", "drift moved", Outcome.ACCEPTED)
    assert (event.factor, event.credential, event.step) == ("totp", "totp:7", STEP)


@pytest.mark.parametrize("spent", [STEP, STEP + 1])
def test_a_step_that_is_spent_here_stays_spent(spent: int) -> None:
    """core-3.7: it was accepted while the host was alone, and the authority has not heard of it. Nothing is charged."""
    judgement = hear(ACCEPTED, credentials=(replace(TOTP, last_step=spent),))

    assert isinstance(judgement.verdict, Rejected)
    assert judgement.verdict.reason is Reason.REPLAYED
    assert judgement.verdict.retry_after_s > 0
    assert "already used" in judgement.verdict.public_text
    assert (judgement.credential, judgement.throttle) == (None, Throttle())
    assert judgement.event.note == SPENT_HERE
    assert isinstance(hear(ACCEPTED, credentials=(replace(TOTP, last_step=STEP - 1),)).verdict, Accepted)


@given(st.integers(-1, 50), st.integers(0, 50))
def test_the_watermark_never_falls(spent: int, step: int) -> None:
    """For every pair of steps: accepted and raised, or refused."""
    judgement = hear(replace(ACCEPTED, step=step), credentials=(replace(TOTP, last_step=spent),))

    assert isinstance(judgement.verdict, Accepted) is (step > spent)
    if judgement.credential is not None:
        assert judgement.credential.last_step == step > spent


@pytest.mark.parametrize("credentials", [(), (replace(TOTP, id=8),), (replace(TOTP, state=CredentialState.SUSPENDED),)])
def test_what_is_not_here_cannot_be_spent_here(credentials: tuple[Credential, ...]) -> None:
    """A credential that was made a moment ago, or is not active here yet: it lets in, by the authority's word."""
    judgement = hear(ACCEPTED, credentials=credentials)

    assert isinstance(judgement.verdict, Accepted)
    assert judgement.credential is None


def test_the_password_before_the_accepted_reading_is_handed_on() -> None:
    """It never left this host; the authority says which of the readings was good."""
    found = (reading("secret1", "23456789"), reading("secret", "123456"))

    for place, password in ((0, b"secret1"), (1, b"secret")):
        verdict = hear(replace(ACCEPTED, reading=place), found=found).verdict
        assert isinstance(verdict, Accepted)
        assert verdict.password is not None
        assert verdict.password.reveal() == password
    only = hear(replace(ACCEPTED, reading=-1)).verdict
    assert isinstance(only, Accepted)
    assert only.password is None


@pytest.mark.parametrize(
    "ruled",
    [
        replace(ACCEPTED, reading=2),
        replace(ACCEPTED, reading=-1),
        replace(ACCEPTED, factor="palm"),
        replace(ACCEPTED, factor=""),
        Ruled(Outcome.EXEMPT, exemption="because"),
        Ruled(Outcome.REJECTED, "no_reason_of_ours"),
        Ruled(Outcome.PENDING),
        Ruled(Outcome.UNAVAILABLE, "store_unavailable"),
    ],
)
def test_what_makes_no_sense_lets_nobody_in(ruled: Ruled) -> None:
    """Fail closed, and nothing changes."""
    judgement = hear(ruled, found=(reading(), reading("x")))

    assert isinstance(judgement.verdict, Unavailable)
    assert judgement.verdict.reason is (Unready.STORE if ruled.reason == "store_unavailable" else Unready.INTERNAL)
    assert (judgement.credential, judgement.throttle) == (None, Throttle())


def test_an_accept_of_a_question_lets_nobody_in() -> None:
    """Nothing was typed: there is no reading that could have been good."""
    assert isinstance(hear(ACCEPTED, how={"typed": None}, found=()).verdict, Unavailable)


@pytest.mark.parametrize("ruled", [ACCEPTED, Ruled(Outcome.EXEMPT, exemption=Exemption.POLICY)])
@pytest.mark.parametrize("password", [Password.BAD, Password.NOT_ASKED])
def test_a_wrong_password_is_not_the_authoritys_to_forgive(ruled: Ruled, password: Password) -> None:
    """Only this host has asked about it."""
    verdict = hear(ruled, how={"first_factor": FirstFactor.OURS}, password=password).verdict

    assert isinstance(verdict, Rejected)
    assert verdict.reason is Reason.FIRST_FACTOR_FAILED
    good = hear(ruled, how={"first_factor": FirstFactor.OURS}, password=Password.GOOD).verdict
    assert isinstance(good, Accepted | Exempt)


def test_a_challenge_that_was_answered_here_is_not_answered_again() -> None:
    """A State that was used while the host was alone."""
    verdict = hear(ACCEPTED, challenge_spent=True).verdict

    assert isinstance(verdict, Rejected)
    assert verdict.reason is Reason.CHALLENGE_EXPIRED


def test_a_success_clears_what_the_user_had_and_opens_a_lane() -> None:
    """As it does where the host decides itself: it is what holds when it is alone."""
    throttle = Throttle(account=Record(failures=4, consecutive=4, last_failure_at=NOW - 5))

    after = hear(ACCEPTED, throttle=throttle).throttle

    assert after.account == Record()
    assert (after.lane.last_success_at, after.lane.scope) == (NOW, "servers")
    spare = hear(replace(ACCEPTED, factor="recovery", credential="recovery:4", step=-1)).throttle
    assert spare.lane.scope not in ("servers", "")


def test_a_failure_is_counted_as_the_authority_counted_it() -> None:
    """It goes on from there when the network is cut."""
    counted = hear(refused(Reason.MISMATCH, counted=True))
    replayed = hear(refused(Reason.REPLAYED, text=texts.already_used(20), retry_after_s=20.0))

    assert counted.throttle.account.consecutive == counted.event.failures == 1
    assert counted.throttle.source.failures == 1
    assert replayed.throttle == Throttle()
    assert replayed.verdict == Rejected("e1", Reason.REPLAYED, texts.already_used(20), 20.0)
    without_source = hear(refused(Reason.MISMATCH, counted=True), how={"source": None})
    assert without_source.throttle.source == Record()


def test_a_wrong_password_is_charged_to_its_source() -> None:
    """And to the account where the authority says so."""
    for counted in (False, True):
        judgement = hear(refused(Reason.FIRST_FACTOR_FAILED, counted=counted), password=Password.BAD)
        assert judgement.throttle.source.failures == 1
        assert judgement.throttle.account.consecutive == int(counted)


def test_the_door_hears_what_it_may_hear_and_the_log_what_is_true() -> None:
    """The reason of somebody's account is for who has proved the first factor."""
    for reason in (Reason.UNKNOWN_USER, Reason.NOT_ENTITLED, Reason.LOCKED_BY_ADMIN):
        judgement = hear(refused(reason, text=texts.DENIED))
        assert judgement.verdict == Rejected("e1", Reason.MISMATCH, texts.DENIED)
        assert judgement.event.reason == reason

    proved = hear(refused(Reason.NOT_ENTITLED), how={"first_factor": FirstFactor.DONE}).verdict
    assert proved == Rejected("e1", Reason.NOT_ENTITLED, texts.NOT_ENTITLED)


def test_a_lock_of_the_authoritys_holds_here_until_it_is_taken_away_there() -> None:
    """It must hold when the network is cut; and a door that checks passwords asks about nobody who is locked, so that what the
    authority says of the next attempt has to end it."""
    locked = hear(refused(Reason.LOCKED)).throttle
    assert locked.account.consecutive == ThrottleRules().hard_cap
    assert hear(refused(Reason.LOCKED), throttle=locked).throttle is locked

    unlocked = hear(refused(Reason.FIRST_FACTOR_FAILED), throttle=locked, password=Password.BAD).throttle
    assert unlocked.account.consecutive == 0


@pytest.mark.parametrize("reason", [Reason.MISMATCH, Reason.FIRST_FACTOR_FAILED])
def test_what_a_host_has_counted_alone_is_not_undone_by_a_refusal(reason: Reason) -> None:
    """Who can cut and mend the network must not get five new guesses each time."""
    alone = Throttle(account=Record(failures=5, consecutive=5, not_before=NOW + 800, last_failure_at=NOW - 100))

    after = hear(refused(reason, counted=True), throttle=alone, password=Password.BAD).throttle

    assert (after.account.consecutive, after.account.failures, after.account.not_before) == (6, 6, NOW + 800)


def test_an_exemption_comes_with_its_deadline() -> None:
    """The grace that began at the authority is known here when the network is cut; one that is known does not move."""
    ruled = Ruled(Outcome.EXEMPT, exemption=Exemption.GRACE, rule="r7", notices=("soon",), until=NOW + 86_400)

    judgement = hear(ruled, how={"typed": None}, found=())

    assert judgement.verdict == Exempt("e1", Exemption.GRACE, "r7", ("soon",), "alice")
    assert judgement.grace_until == NOW + 86_400
    assert hear(ruled, how={"typed": None}, user=replace(ALICE, grace_until=NOW + 5)).grace_until == 0
    assert hear(ruled, how={"typed": None}, user=None, credentials=()).grace_until == 0


def test_a_challenge_is_this_hosts_own() -> None:
    """Its id is the attempt's, its prompt the door's."""
    verdict = hear(Ruled(Outcome.CHALLENGED, until=NOW + 9e9), how={"interaction": Interaction.CHALLENGES}).verdict

    assert isinstance(verdict, Challenge)
    assert (verdict.id, verdict.expires_at) == ("e1", NOW + 120)


def test_a_stranger_cannot_tell_by_the_waiting_who_may_log_in_here() -> None:
    """Neither the texts nor the waits of a name that is not entitled differ from those of one that is."""
    nobody = refused(Reason.NOT_ENTITLED)
    throttle, heard = Throttle(), []
    for _ in range(6):
        judgement = hear(nobody, user=None, credentials=(), throttle=throttle)
        throttle = judgement.throttle
        assert isinstance(judgement.verdict, Rejected)
        heard.append((judgement.verdict.reason, judgement.verdict.public_text))
        assert (judgement.event.reason, judgement.event.failures) == (Reason.NOT_ENTITLED, 0)
    assert heard[:4] == [(Reason.MISMATCH, texts.DENIED)] * 4
    assert heard[4:] == [(Reason.THROTTLED, texts.retry_in(1.0))] * 2


def test_a_password_or_nothing_at_all_charges_no_name_that_is_not_entitled() -> None:
    nobody = refused(Reason.NOT_ENTITLED)
    ours: dict[str, object] = {"first_factor": FirstFactor.OURS}
    for judgement in (
        hear(nobody, how=ours, password=Password.BAD),
        hear(nobody, found=(reading(code=""),)),
        hear(nobody, found=()),
        hear(nobody, how={"first_factor": FirstFactor.DONE}),
    ):
        assert judgement.throttle.account == Record()
    assert hear(nobody, how=ours, password=Password.GOOD).throttle.account.consecutive == 1
