"""Which PAM return code, and which words, stand for a verdict?

Room rule: every PAM number that mfad chooses is in this file, and nothing else is decided here. The rest of the machine speaks
verdicts (mfa_core.verdict); reasons go to the log of this host, only public texts go to the person.
"""

from __future__ import annotations

import enum
from typing import assert_never

from mfa_core.verdict import Accepted, Challenge, Exempt, Pending, Reason, Rejected, Unavailable, Unready, Verdict
from pam_mfa.login import Login, Trust
from pam_mfa.plain_text import one_line, paragraph, quoted
from pam_mfa.qr import draw_recovery_key
from pam_mfa.settings import ExemptAnswer
from pam_mfa.wire import TEXT_MAX, Error, Info, Level, Log, Op, Ops, Result, SetAuthtok

NOTICES_MAX = 8
NOTICE_MAX = 1_024
"""Bytes of one notice: eight of them fit into one message with room to spare."""


class PamCode(enum.IntEnum):
    """Return codes of Linux-PAM (security/_pam_types.h) that the module accepts."""

    SUCCESS = 0
    SERVICE_ERR = 3
    PERM_DENIED = 6
    AUTH_ERR = 7
    CRED_INSUFFICIENT = 8
    AUTHINFO_UNAVAIL = 9
    MAXTRIES = 11
    IGNORE = 25


class Dialogue(enum.Enum):
    """Whether the person was asked before the verdict came."""

    NONE = "none"
    PROMPTED = "prompted"


Final = Accepted | Exempt | Rejected | Unavailable
"""The verdicts that end a conversation."""


def _rejected_code(reason: Reason, dialogue: Dialogue) -> PamCode:
    match reason:
        case (
            Reason.MISMATCH
            | Reason.REPLAYED
            | Reason.MALFORMED
            | Reason.NO_CODE
            | Reason.EMPTY
            | Reason.JUNK
            | Reason.REPEATED
            | Reason.UNKNOWN_USER
            | Reason.USERNAME_REFUSED
            | Reason.FACTOR_REQUIRED
            | Reason.FACTOR_NOT_ALLOWED
            | Reason.EXPIRED
            | Reason.FIRST_FACTOR_FAILED
            | Reason.CANCELLED
            | Reason.CHALLENGE_EXPIRED
            # A stack may let AUTHINFO_UNAVAIL pass: whoever can cut a host off must not have a way in by it.
            | Reason.NEEDS_AUTHORITY
            | Reason.NEVER_SYNCED
            | Reason.HOST_REVOKED
            | Reason.CLOCK_ROLLBACK
            | Reason.CLOCK_JUMPED
            | Reason.CACHE_EXPIRED
            | Reason.NOT_OFFLINE
            | Reason.TOO_EARLY
        ):
            return PamCode.AUTH_ERR
        case Reason.THROTTLED | Reason.LOCKED | Reason.LOCKED_BY_ADMIN | Reason.SOURCE_THROTTLED:
            return PamCode.MAXTRIES  # sshd then stops offering its PAM methods on this connection
        case Reason.NOT_ENROLLED if dialogue is Dialogue.PROMPTED:
            return PamCode.AUTH_ERR  # after the same question the same answer: a stranger must not learn who has a token
        case Reason.NOT_ENROLLED | Reason.GRACE_ENDED | Reason.ENROLMENT_OFFERED:
            return PamCode.CRED_INSUFFICIENT
        case Reason.POLICY_DENIED | Reason.NOT_ENTITLED:
            return PamCode.PERM_DENIED
        case _:
            assert_never(reason)


def _unavailable_code(reason: Unready) -> PamCode:
    match reason:
        case Unready.STORE | Unready.BACKEND | Unready.OVERLOADED | Unready.CLOCK | Unready.INTERNAL:
            return PamCode.AUTHINFO_UNAVAIL
        case Unready.STORE_FULL:
            # a stack may let AUTHINFO_UNAVAIL pass on the console; a host with a full disk must not become a way in
            return PamCode.AUTH_ERR
        case Unready.CONFIGURATION:
            return PamCode.SERVICE_ERR
        case _:
            assert_never(reason)


def _shown(text: str) -> Ops:
    return (Error(paragraph(text, limit=NOTICE_MAX)),) if text else ()


def _notices(notices: tuple[str, ...]) -> Ops:
    return tuple(Info(paragraph(one, limit=NOTICE_MAX)) for one in notices[:NOTICES_MAX])


def _logged(trust: Trust, level: Level, what: str, login: Login, event_id: str, why: str) -> Ops:
    """Return the log line, for the host's syslog. A process that only asks about itself does not hear the reason."""
    if trust is Trust.ITSELF:
        return ()
    line = (
        f"{what}: user={quoted(login.username)} service={quoted(login.service)} source={login.source or 'unknown'}"
        f" reason={why} event={one_line(event_id, limit=64)}"
    )
    return (Log(level, cut_log(line)),)


def cut_log(line: str) -> str:
    """Return ``line`` as one that LOG carries."""
    return one_line(line, limit=TEXT_MAX)


def authenticate_ops(verdict: Final, *, login: Login, trust: Trust, exempt: ExemptAnswer, dialogue: Dialogue) -> Ops:
    """Return what ends an authenticate phase with ``verdict``."""
    match verdict:
        case Accepted(notices=notices, password=password, recovery_key=recovery_key):
            ops: list[Op] = list(_notices(notices))
            if recovery_key is not None and trust is Trust.ANYBODY:
                ops.append(Info(draw_recovery_key(recovery_key)))
            if password is not None and trust is Trust.ANYBODY:
                ops.append(SetAuthtok(password))
            return (*ops, Result(PamCode.SUCCESS))
        case Exempt(event_id=event_id, exemption=exemption, rule=rule, notices=notices):
            code = PamCode.SUCCESS if exempt is ExemptAnswer.SUCCESS else PamCode.IGNORE
            line = _logged(trust, Level.INFO, "exempt", login, event_id, f"{exemption} rule={quoted(rule)}")
            return (*_notices(notices), *line, Result(code))
        case Rejected(event_id=event_id, reason=reason, public_text=text):
            line = _logged(trust, Level.NOTICE, "refused", login, event_id, reason)
            return (*_shown(text), *line, Result(_rejected_code(reason, dialogue)))
        case Unavailable(event_id=event_id, reason=cause, public_text=text):
            if cause is Unready.STORE_FULL:
                text = "Cannot record use."
            line = _logged(trust, Level.ERR, "unavailable", login, event_id, cause)
            return (*_shown(text), *line, Result(_unavailable_code(cause)))
        case _:
            assert_never(verdict)


def account_ops(verdict: Verdict, *, login: Login, trust: Trust) -> Ops:
    """Return what ends an account phase whose login had no second factor: only an exemption is good enough."""
    match verdict:
        case Exempt(event_id=event_id, exemption=exemption, rule=rule):
            line = _logged(trust, Level.INFO, "exempt", login, event_id, f"{exemption} rule={quoted(rule)}")
            return (*line, Result(PamCode.SUCCESS))
        case Rejected(event_id=event_id, reason=reason):
            line = _logged(trust, Level.NOTICE, "login without a second factor refused", login, event_id, reason)
            return (*_shown(MFA_MISSING), *line, Result(PamCode.PERM_DENIED))
        case Challenge() | Pending() | Accepted():
            line = _logged(trust, Level.NOTICE, "login without a second factor refused", login, "", "factor_required")
            return (*_shown(MFA_MISSING), *line, Result(PamCode.PERM_DENIED))
        case Unavailable(event_id=event_id, reason=cause, public_text=text):
            code = _unavailable_code(cause)
            if code is PamCode.AUTH_ERR:
                code = PamCode.PERM_DENIED  # AUTH_ERR is not a code of the account phase
            return (*_shown(text), *_logged(trust, Level.ERR, "unavailable", login, event_id, cause), Result(code))
        case _:
            assert_never(verdict)


MFA_MISSING = "This login needs a second factor, and it was not asked for one."


class Refusal(enum.Enum):
    """Why the door itself ends a conversation: nobody asked the gate, or its answer does not count."""

    PROTOCOL = "protocol"
    """The peer broke PROTOCOL.md."""
    ARGUMENT = "argument"
    INTERNAL = "internal"
    NOT_ITSELF = "not_itself"
    OVERLOADED = "overloaded"
    RATE = "rate"
    DEADLINE = "deadline"
    STOPPING = "stopping"
    CANCELLED = "cancelled"
    NO_PASSWORD = "no_password"  # noqa: S105  the name of a cause
    REPEATED_PASSWORD = "repeated_password"  # noqa: S105  the name of a cause
    TOO_MANY_PROMPTS = "too_many_prompts"
    ENROLMENT_NOT_HERE = "enrolment_not_here"


_REFUSALS: dict[Refusal, tuple[PamCode, str, Level]] = {
    Refusal.PROTOCOL: (PamCode.SERVICE_ERR, "", Level.ERR),
    Refusal.ARGUMENT: (PamCode.SERVICE_ERR, "", Level.ERR),
    Refusal.INTERNAL: (PamCode.SERVICE_ERR, "", Level.CRIT),
    Refusal.NOT_ITSELF: (PamCode.PERM_DENIED, "", Level.WARNING),
    Refusal.OVERLOADED: (PamCode.AUTHINFO_UNAVAIL, "", Level.ERR),
    Refusal.RATE: (PamCode.AUTHINFO_UNAVAIL, "Too many attempts, wait a little.", Level.NOTICE),
    Refusal.DEADLINE: (PamCode.AUTHINFO_UNAVAIL, "", Level.NOTICE),
    Refusal.STOPPING: (PamCode.AUTHINFO_UNAVAIL, "", Level.NOTICE),
    Refusal.CANCELLED: (PamCode.AUTH_ERR, "", Level.NOTICE),
    Refusal.NO_PASSWORD: (PamCode.AUTH_ERR, "", Level.NOTICE),
    Refusal.REPEATED_PASSWORD: (PamCode.AUTH_ERR, "", Level.NOTICE),
    Refusal.TOO_MANY_PROMPTS: (PamCode.AUTH_ERR, "", Level.NOTICE),
    Refusal.ENROLMENT_NOT_HERE: (
        PamCode.CRED_INSUFFICIENT,
        "You have to enrol a second factor, which is not possible here. Ask your administrator.",
        Level.NOTICE,
    ),
}


def refusal_ops(refusal: Refusal, why: str) -> Ops:
    """Return what ends a conversation that the door refuses; ``why`` is words of ours, peers' values quoted."""
    code, text, level = _REFUSALS[refusal]
    return (*_shown(text), Log(level, cut_log(f"mfad: {why}")), Result(code))


ACCOUNT_NOT_ASKED: Ops = (Result(PamCode.IGNORE),)
"""The account phase without ``require_mfa``: no opinion."""
ACCOUNT_EXEMPT_SERVICE: Ops = (Result(PamCode.SUCCESS),)
"""The account phase of a service that nobody authenticates to, such as cron."""
