"""The one language every door hears.

Room rule: what a verification can end in lives here, with the reasons. Only ``public_text`` and ``prompts`` ever leave the
machine; reasons are for the audit log and for ``mfactl why``. A door handles these with ``match`` and ``assert_never``.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from mfa_core.secret import Secret
from mfa_core.value import hot_value


class Reason(enum.StrEnum):
    """Why an attempt was refused. The value is what stands in the audit log; it is never shown to the person."""

    MISMATCH = "mismatch"
    """The code is not one that this user's credentials give now."""
    REPLAYED = "replayed"
    """The code was right once: its time step, counter or row is spent (RFC 6238 section 5.2)."""
    MALFORMED = "malformed"
    """What was typed cannot be a code of any kind that this user has."""
    NO_CODE = "no_code"
    """Password and code were expected in one text, and no code stands in it. Not counted as a failure."""
    EMPTY = "empty"
    """Nothing was typed. Not counted as a failure."""
    JUNK = "junk"
    """The caller's own filler, such as sshd's answer for a user it will refuse anyway. Not counted as a failure."""
    THROTTLED = "throttled"
    """Too many failures on this account's lane; not evaluated."""
    LOCKED = "locked"
    """The hard cap of consecutive failures was reached (NIST SP 800-63B-4 section 3.2.2)."""
    LOCKED_BY_ADMIN = "locked_by_admin"
    """An administrator locked the user."""
    SOURCE_THROTTLED = "source_throttled"
    """Too many failures from this source, over all users; not evaluated."""
    REPEATED = "repeated"
    """The same wrong code again from the same client within 60 s: a retransmission, refused without counting."""
    UNKNOWN_USER = "unknown_user"
    USERNAME_REFUSED = "username_refused"
    """The name cannot be mapped to exactly one identity."""
    NOT_ENROLLED = "not_enrolled"
    """The user has no active credential of a kind that the policy accepts, and no grace left."""
    GRACE_ENDED = "grace_ended"
    ENROLMENT_OFFERED = "enrolment_offered"
    """Must enrol; refused here because the door or the network may not enrol."""
    FACTOR_REQUIRED = "factor_required"
    """A code is needed, none was typed, and the door cannot ask for one here (the account phase of PAM)."""
    FACTOR_NOT_ALLOWED = "factor_not_allowed"
    """The code is of a kind that this rule does not accept."""
    EXPIRED = "expired"
    """A one-time code past its end."""
    POLICY_DENIED = "policy_denied"
    FIRST_FACTOR_FAILED = "first_factor_failed"
    CANCELLED = "cancelled"
    """The person or the caller gave up in mid-dialogue."""
    CHALLENGE_EXPIRED = "challenge_expired"
    NOT_ENTITLED = "not_entitled"
    """The user may not log in on hosts of this group. No code was looked at."""
    NEEDS_AUTHORITY = "needs_authority"
    """Nothing is here that this code could be checked with, and the authority cannot be reached. Not evaluated."""
    NEVER_SYNCED = "never_synced"
    """The authority cannot be reached, and it has told this host nothing yet."""
    HOST_REVOKED = "host_revoked"
    """The authority has cut this host off: it decides nothing alone."""
    CLOCK_ROLLBACK = "clock_rollback"
    """The authority cannot be reached, and the clock shows a time that has passed."""
    CLOCK_JUMPED = "clock_jumped"
    """The authority cannot be reached, and the clock was set since it last could."""
    CACHE_EXPIRED = "cache_expired"
    """The authority has been out of reach for longer than what it told holds."""
    NOT_OFFLINE = "not_offline"
    """The authority cannot be reached, and nobody is let in here without it."""
    TOO_EARLY = "too_early"
    """The authority cannot be reached, but not for as long yet as must be before the host decides alone."""


class Unready(enum.StrEnum):
    """Why no decision could be taken. Every one of them refuses the login."""

    STORE = "store_unavailable"
    STORE_FULL = "cannot_record_use"
    BACKEND = "first_factor_unavailable"
    OVERLOADED = "overloaded"
    CONFIGURATION = "configuration"
    CLOCK = "clock_before_accepted_step"
    INTERNAL = "internal"


class Exemption(enum.StrEnum):
    """Why no second factor was asked."""

    POLICY = "policy"
    USER = "user_exempt"
    GRACE = "grace"
    TRUST_WINDOW = "trust_window"
    REMEMBERED = "remembered"
    """The door remembers a login of this user with a code, and the credential of that login is still good."""
    ENROLLED_ONLY = "enrolled_only"


class PromptKind(enum.StrEnum):
    """What the answer to a prompt is, so that a door can choose its own wire form."""

    CODE = "code"
    PASSWORD_AND_CODE = "password_and_code"  # noqa: S105  a kind of prompt, not a password
    ENROLMENT_CODE = "enrolment_code"
    ACKNOWLEDGEMENT = "acknowledgement"


@dataclass(frozen=True, slots=True)
class Prompt:
    """One question. ``notices`` are shown before it."""

    kind: PromptKind
    text: str
    notices: tuple[str, ...] = ()


@hot_value
class Accepted:
    """The second factor was verified and its use is durably recorded.

    ``factor`` is the kind that was used; ``notices`` are for the person, after the login. ``password`` is what stood
    before the code where both were typed in one text (the rest of the stack may want it), else None. ``recovery_key`` is the
    one that replaces a key that was used, to be shown once. ``user`` is the canonical name and ``rule`` the policy's rule: what
    a door may have to tell its client depends on them.
    """

    event_id: str
    factor: str
    credential: str
    notices: tuple[str, ...] = ()
    password: Secret | None = None
    recovery_key: Secret | None = None
    user: str = ""
    rule: str = ""


@dataclass(frozen=True, slots=True)
class Exempt:
    """No second factor is wanted here. ``notices`` carry a grace deadline. A password that was ours to check was good."""

    event_id: str
    exemption: Exemption
    rule: str
    notices: tuple[str, ...] = ()
    user: str = ""


@dataclass(frozen=True, slots=True)
class EnrolmentOffer:
    """A new credential to show once: ``otpauth_uri`` for a QR, ``secret_base32`` for typing. Never active before a code."""

    otpauth_uri: Secret
    secret_base32: Secret
    issuer: str
    account: str


@dataclass(frozen=True, slots=True)
class Challenge:
    """Ask, and come back with the answer in an attempt that carries ``id``. ``expires_at`` is Unix seconds.

    ``enrolment`` is there when the prompt is an ENROLMENT_CODE; ``recovery_key`` when it is an ACKNOWLEDGEMENT: the person
    writes the key down and types its last four characters.
    """

    id: str
    prompts: tuple[Prompt, ...]
    expires_at: float
    enrolment: EnrolmentOffer | None = None
    recovery_key: Secret | None = None


@dataclass(frozen=True, slots=True)
class Pending:
    """An out-of-band factor is under way; ask again with ``id``. ``expires_at`` is Unix seconds."""

    id: str
    text: str
    expires_at: float


@dataclass(frozen=True, slots=True)
class Rejected:
    """Refused. ``retry_after_s`` is 0 where waiting does not help; ``public_text`` is the whole of what may be shown."""

    event_id: str
    reason: Reason
    public_text: str = "Access denied."
    retry_after_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Unavailable:
    """No decision could be taken: refuse. ``public_text`` is the whole of what may be shown."""

    event_id: str
    reason: Unready
    public_text: str = field(default="The second factor cannot be checked at the moment.")


Verdict = Accepted | Exempt | Challenge | Pending | Rejected | Unavailable
