"""Which result does a bind end in?

Room rule: the one file that maps verdicts to result codes of LDAP. What leaves is a code and a public text; reasons stay here,
as the ``reason`` of the bind log. A wrong code and a wrong password look alike: 49, and the same octets where the directory
gives no text of its own (OpenLDAP gives none).
"""

from __future__ import annotations

import enum
from typing import Final, assert_never

from ldap_proxy.message import ResultCode
from mfa_core.value import hot_value
from mfa_core.verdict import Accepted, Challenge, Exempt, Pending, Reason, Rejected, Unavailable, Unready, Verdict


class Outcome(enum.StrEnum):
    """How a bind ended: stable words for counters and logs."""

    ACCEPTED = "accepted"
    EXEMPT = "exempt"
    ANONYMOUS = "anonymous"
    REJECTED = "rejected"
    UNAVAILABLE = "unavailable"
    TIMED_OUT = "timed_out"
    CLIENT_GONE = "client_gone"
    STEP = "step"
    """A SASL bind that goes on (RFC 4511 section 4.2.1: saslBindInProgress)."""


@hot_value
class Answer:
    """What is said, and why. ``text`` is the diagnosticMessage; ``reason`` never leaves the machine.

    ``by_directory``: the directory refused, and its own octets are the answer.
    """

    code: int
    text: str
    outcome: Outcome
    reason: str = ""
    by_directory: bool = False


PASSWORD_REFUSED: Final = frozenset(
    {
        ResultCode.INVALID_CREDENTIALS,
        ResultCode.NO_SUCH_OBJECT,
        ResultCode.INVALID_DN_SYNTAX,
        ResultCode.INAPPROPRIATE_AUTHENTICATION,
        ResultCode.CONSTRAINT_VIOLATION,
        ResultCode.UNWILLING_TO_PERFORM,
    }
)
"""What a directory answers to a name and a password that it does not take; all else is trouble of its own."""

NO_CONFIDENTIALITY: Final = ResultCode.CONFIDENTIALITY_REQUIRED
TLS_FIRST: Final = Answer(NO_CONFIDENTIALITY, "start TLS first", Outcome.REJECTED, "tls_required")
VERSION: Final = Answer(ResultCode.PROTOCOL_ERROR, "only version 3 is spoken", Outcome.REJECTED, "version")
NO_PASSWORD: Final = Answer(
    ResultCode.UNWILLING_TO_PERFORM, "unauthenticated bind (DN with no password) disallowed", Outcome.REJECTED, "empty_password"
)
"""RFC 4513 section 5.1.2: to be failed with unwillingToPerform by default. OpenLDAP's own words."""
NO_ANONYMOUS: Final = Answer(
    ResultCode.INAPPROPRIATE_AUTHENTICATION, "anonymous bind disallowed", Outcome.REJECTED, "anonymous_denied"
)
DIRECTORY_AWAY: Final = Answer(
    ResultCode.UNAVAILABLE, "the directory cannot be reached", Outcome.UNAVAILABLE, "directory_unavailable"
)
DIRECTORY_BUSY: Final = Answer(ResultCode.BUSY, "too many connections to the directory", Outcome.UNAVAILABLE, "overloaded")
NO_IDENTITY: Final = Answer(
    ResultCode.UNAVAILABLE, "the directory does not say who that is", Outcome.UNAVAILABLE, "no_identity"
)
TOO_LATE: Final = Answer(ResultCode.UNAVAILABLE, "no answer in time", Outcome.TIMED_OUT, "no verdict in time")


def refused(reason: str, refusal_text: str) -> Answer:
    """Credentials that are not taken, for a reason that nobody hears."""
    return Answer(ResultCode.INVALID_CREDENTIALS, refusal_text, Outcome.REJECTED, reason)


def not_confirmed(reason: str, refusal_text: str) -> Answer:
    """A factor that was awaited to the end."""
    return Answer(ResultCode.INVALID_CREDENTIALS, refusal_text, Outcome.TIMED_OUT, reason)


def answer_to(verdict: Verdict, refusal_text: str) -> Answer | None:
    """Return what a verdict is to the client; None where the question has to be asked again later (an out-of-band factor)."""
    match verdict:
        case Accepted():
            return Answer(ResultCode.SUCCESS, "", Outcome.ACCEPTED, verdict.factor)
        case Exempt():
            return Answer(ResultCode.SUCCESS, "", Outcome.EXEMPT, verdict.exemption)
        case Challenge():
            # A bind has no second question (RFC 4511 section 4.2); nothing was typed that could be judged.
            return Answer(ResultCode.INVALID_CREDENTIALS, refusal_text, Outcome.REJECTED, "challenge")
        case Rejected():
            by_directory = verdict.reason is Reason.FIRST_FACTOR_FAILED
            return Answer(ResultCode.INVALID_CREDENTIALS, refusal_text, Outcome.REJECTED, verdict.reason, by_directory)
        case Pending():
            return None
        case Unavailable():
            if verdict.reason is Unready.OVERLOADED:
                return Answer(ResultCode.BUSY, verdict.public_text, Outcome.UNAVAILABLE, verdict.reason)
            by_directory = verdict.reason is Unready.BACKEND
            return Answer(ResultCode.UNAVAILABLE, verdict.public_text, Outcome.UNAVAILABLE, verdict.reason, by_directory)
        case _:
            assert_never(verdict)
