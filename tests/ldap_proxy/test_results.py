"""Which result a verdict is."""

from __future__ import annotations

import pytest

from ldap_proxy.message import ResultCode
from ldap_proxy.results import Outcome, answer_to, not_confirmed, refused
from mfa_core.verdict import Accepted, Challenge, Exempt, Exemption, Pending, Reason, Rejected, Unavailable, Unready

TEXT = "80090308: data 52e"


@pytest.mark.parametrize("reason", list(Reason))
def test_every_refusal_says_the_same(reason: Reason) -> None:
    """49 and one text; the reason is for the log alone."""
    answer = answer_to(Rejected("event", reason, "told elsewhere", 30.0), TEXT)

    assert answer is not None
    assert (answer.code, answer.text, answer.outcome) == (ResultCode.INVALID_CREDENTIALS, TEXT, Outcome.REJECTED)
    assert answer.reason == reason
    assert answer.by_directory is (reason is Reason.FIRST_FACTOR_FAILED)


@pytest.mark.parametrize("reason", list(Unready))
def test_what_cannot_be_decided_is_no_refusal_of_the_credential(reason: Unready) -> None:
    """52, and 51 where there is too much to do."""
    answer = answer_to(Unavailable("event", reason), TEXT)

    assert answer is not None
    assert answer.code == (ResultCode.BUSY if reason is Unready.OVERLOADED else ResultCode.UNAVAILABLE)
    assert answer.outcome is Outcome.UNAVAILABLE
    assert answer.by_directory is (reason is Unready.BACKEND)


def test_what_lets_in() -> None:
    """Accepted and exempt, and nothing else."""
    accepted = answer_to(Accepted("event", "totp", "totp:12"), TEXT)
    exempt = answer_to(Exempt("event", Exemption.REMEMBERED, "rule"), TEXT)

    assert accepted is not None
    assert (accepted.code, accepted.outcome, accepted.reason) == (ResultCode.SUCCESS, Outcome.ACCEPTED, "totp")
    assert exempt is not None
    assert (exempt.code, exempt.outcome, exempt.reason) == (ResultCode.SUCCESS, Outcome.EXEMPT, "remembered")


def test_a_bind_has_no_second_question() -> None:
    """A challenge refuses; a factor that is pending is asked after."""
    challenge = answer_to(Challenge("id", (), 0.0), TEXT)

    assert challenge is not None
    assert (challenge.code, challenge.outcome) == (ResultCode.INVALID_CREDENTIALS, Outcome.REJECTED)
    assert answer_to(Pending("id", "look at your phone", 0.0), TEXT) is None


def test_a_wrong_code_and_one_that_never_came_say_the_same() -> None:
    """To the client; the log tells them apart."""
    one, other = refused("mismatch", TEXT), not_confirmed("no verdict in time", TEXT)

    assert (one.code, one.text) == (other.code, other.text)
    assert one.outcome is not other.outcome
