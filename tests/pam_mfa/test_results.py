"""Verdicts and the PAM codes that stand for them."""

from __future__ import annotations

import pytest

from mfa_core.model import FirstFactor
from mfa_core.secret import Secret
from mfa_core.verdict import Accepted, Exempt, Exemption, Pending, Reason, Rejected, Unavailable, Unready, Verdict
from pam_mfa.login import Login, Trust
from pam_mfa.results import Dialogue, Final, Refusal, account_ops, authenticate_ops, refusal_ops
from pam_mfa.settings import ExemptAnswer
from pam_mfa.wire import Error, Info, Log, Ops, SetAuthtok, encode_ops
from tests.pam_mfa.doubles import ask, only, result

LOGIN = Login("sshd", "alice", "192.0.2.7", "", (), FirstFactor.ELSEWHERE)
ACCOUNT_CODES = {0, 3, 6, 9, 10, 13, 25}
"""What the module accepts in the account phase (PROTOCOL.md)."""
AUTHENTICATE_CODES = {0, 3, 6, 7, 8, 9, 10, 11, 13, 25}


def end(
    verdict: Final,
    *,
    login: Login = LOGIN,
    trust: Trust = Trust.ANYBODY,
    exempt: ExemptAnswer = ExemptAnswer.IGNORE,
    dialogue: Dialogue = Dialogue.PROMPTED,
) -> Ops:
    return authenticate_ops(verdict, login=login, trust=trust, exempt=exempt, dialogue=dialogue)


def test_accepted_is_success_with_its_notices() -> None:
    ops = end(Accepted("e", "totp", "1", notices=("2 recovery codes left", "\x1b[31mred")))

    assert ops[:2] == (Info("2 recovery codes left"), Info("[31mred"))
    assert result(ops) == 0


def test_the_password_before_the_code_is_handed_on_by_the_privileged_socket_alone() -> None:
    accepted = Accepted("e", "totp", "1", password=Secret(b"hunter2"))

    assert [op.password.reveal() for op in only(end(accepted), SetAuthtok)] == [b"hunter2"]
    assert only(end(accepted, trust=Trust.ITSELF), SetAuthtok) == []


def test_an_exemption_is_ignore_unless_success_is_wanted() -> None:
    exempt = Exempt("e", Exemption.GRACE, "rule-1", ("Enrol by Friday.",))

    assert result(end(exempt)) == 25
    assert result(end(exempt, exempt=ExemptAnswer.SUCCESS)) == 0
    assert Info("Enrol by Friday.") in end(exempt)


REJECTED = {
    Reason.MISMATCH: 7,
    Reason.REPLAYED: 7,
    Reason.MALFORMED: 7,
    Reason.NO_CODE: 7,
    Reason.EMPTY: 7,
    Reason.FACTOR_REQUIRED: 7,
    Reason.JUNK: 7,
    Reason.THROTTLED: 11,
    Reason.LOCKED: 11,
    Reason.LOCKED_BY_ADMIN: 11,
    Reason.SOURCE_THROTTLED: 11,
    Reason.REPEATED: 7,
    Reason.UNKNOWN_USER: 7,
    Reason.USERNAME_REFUSED: 7,
    Reason.NOT_ENROLLED: 8,
    Reason.GRACE_ENDED: 8,
    Reason.ENROLMENT_OFFERED: 8,
    Reason.FACTOR_NOT_ALLOWED: 7,
    Reason.EXPIRED: 7,
    Reason.POLICY_DENIED: 6,
    Reason.FIRST_FACTOR_FAILED: 7,
    Reason.CANCELLED: 7,
    Reason.CHALLENGE_EXPIRED: 7,
    Reason.NOT_ENTITLED: 6,
    Reason.NEEDS_AUTHORITY: 7,
    # Never 9: a stack that lets AUTHINFO_UNAVAIL pass would let in whoever can cut the network.
    Reason.NEVER_SYNCED: 7,
    Reason.HOST_REVOKED: 7,
    Reason.CLOCK_ROLLBACK: 7,
    Reason.CLOCK_JUMPED: 7,
    Reason.CACHE_EXPIRED: 7,
    Reason.NOT_OFFLINE: 7,
    Reason.TOO_EARLY: 7,
}


@pytest.mark.parametrize("reason", Reason)
def test_code_of_every_reason(reason: Reason) -> None:
    ops = end(Rejected("e", reason, "Access denied."), dialogue=Dialogue.NONE)

    assert result(ops) == REJECTED[reason]
    assert Error("Access denied.") in ops


def test_not_enrolled_after_a_prompt_looks_like_a_wrong_code() -> None:
    not_enrolled, wrong, unknown = (
        end(Rejected("e", reason), trust=Trust.ITSELF) for reason in (Reason.NOT_ENROLLED, Reason.MISMATCH, Reason.UNKNOWN_USER)
    )

    assert not_enrolled == wrong == unknown


UNAVAILABLE = {
    Unready.STORE: 9,
    Unready.STORE_FULL: 7,
    Unready.BACKEND: 9,
    Unready.OVERLOADED: 9,
    Unready.CONFIGURATION: 3,
    Unready.CLOCK: 9,
    Unready.INTERNAL: 9,
}


@pytest.mark.parametrize("cause", Unready)
def test_code_of_every_cause(cause: Unready) -> None:
    assert result(end(Unavailable("e", cause))) == UNAVAILABLE[cause]


def test_a_full_disk_says_so() -> None:
    assert Error("Cannot record use.") in end(Unavailable("e", Unready.STORE_FULL))


EVERY_VERDICT: list[Verdict] = [
    Accepted("e", "totp", "1"),
    Exempt("e", Exemption.POLICY, "r"),
    ask(),
    Pending("p", "Approve on your phone", 2e9),
    *(Rejected("e", reason) for reason in Reason),
    *(Unavailable("e", cause) for cause in Unready),
]


@pytest.mark.parametrize("verdict", EVERY_VERDICT, ids=repr)
def test_the_account_phase_lets_only_the_exempt_pass(verdict: Verdict) -> None:
    """The login had no second factor: a verdict that is none of an exemption is PERM_DENIED, or no answer."""
    code = result(account_ops(verdict, login=LOGIN, trust=Trust.ANYBODY))

    assert code in ACCOUNT_CODES
    assert (code == 0) == isinstance(verdict, Exempt)
    if isinstance(verdict, Rejected):
        assert code == 6


def test_reasons_go_to_the_log_and_names_are_escaped_there() -> None:
    login = Login("ssh\nd", 'al"ice\x1b\udcff', None, "", (), FirstFactor.ELSEWHERE)

    (log,) = only(end(Rejected("e-7", Reason.REPLAYED), login=login), Log)

    assert log.text == ('refused: user="al\\x22ice\\x1b\\xff" service="ssh\\x0ad" source=unknown reason=replayed event=e-7')


@pytest.mark.parametrize("reason", Reason)
def test_the_reason_is_not_told_to_the_person_nor_to_a_user_process(reason: Reason) -> None:
    public = Rejected("e", reason, "Access denied.")

    assert only(end(public, trust=Trust.ITSELF), Log) == []
    assert {op.text for op in end(public) if isinstance(op, Error | Info)} == {"Access denied."}


@pytest.mark.parametrize("refusal", Refusal)
def test_every_refusal_fits_the_wire_and_is_no_success(refusal: Refusal) -> None:
    ops = refusal_ops(refusal, "why \x1b" * 1_000)

    encode_ops(ops)
    assert result(ops) in AUTHENTICATE_CODES - {0, 25}


def test_texts_without_end_still_fit_one_message() -> None:
    endless = tuple(["✓" * 5_000] * 50)

    encode_ops(end(Accepted("e", "totp", "1", notices=endless)))
    encode_ops(end(Rejected("e", Reason.MISMATCH, endless[0])))
    encode_ops(end(Exempt("e", Exemption.GRACE, "r" * 9_000, endless)))
