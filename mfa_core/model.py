"""The values that a verification is about: an attempt, a user, a credential.

Room rule: frozen values, validated where they are made, with units in their names. No value here knows how it is stored or
how it travels.
"""

from __future__ import annotations

import enum
import hmac
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import md5

from mfa_core.secret import Secret
from mfa_core.value import hot_value


class Door(enum.StrEnum):
    """Where an attempt came in."""

    PAM = "pam"
    RADIUS = "radius"
    LDAP = "ldap"
    CONSOLE = "console"
    """``mfactl``: an administrator verifies or confirms a code."""


class FirstFactor(enum.StrEnum):
    """What is known of the password."""

    DONE = "done"
    """The caller has verified it (or an equal factor, such as a public key): texts may say more, enrolment may be offered."""
    ELSEWHERE = "elsewhere"
    """Somebody else decides about it, before or after us; we do not know the outcome."""
    OURS = "ours"
    """It stands in what was typed and our backend must verify it."""


class Interaction(enum.StrEnum):
    """Whether the door can ask the person something."""

    PROMPTS = "prompts"
    """It can ask, and may show a new secret."""
    ASKS = "asks"
    """It can ask, but its caller is not trusted with a secret: a screen locker that runs as the user."""
    CHALLENGES = "challenges"
    """It can ask by a challenge that its client carries away and answers in a request of its own (RADIUS State)."""
    ONE_SHOT = "one_shot"


class SplitMode(enum.StrEnum):
    """How password and code share what was typed."""

    SEPARATE = "separate"
    """What was typed is the code alone."""
    APPEND = "append"
    """``secret123456``"""
    SEPARATOR = "separator"
    """``secret,123456``"""
    OTP_ONLY = "otp_only"
    """The password field carries nothing but the code."""
    PASSWORD = "password"  # noqa: S105  a mode, not a password
    """All of it is the password; the code is asked for afterwards."""
    AUTO = "auto"
    """Whatever it can be: the code alone where no password is ours to check, password and code by separator or end to end, or
    the password alone, and then the code is asked for."""
    KEYWORD = "keyword"
    """``secret,push``: the word names an out-of-band factor; codes are split as with SEPARATOR."""


@dataclass(frozen=True, slots=True)
class Grammar:
    """A split mode and its separator (one or more characters, used by SEPARATOR and KEYWORD)."""

    mode: SplitMode = SplitMode.SEPARATE
    separator: str = ","


SEPARATE = Grammar()


@dataclass(frozen=True, slots=True)
class ChapAnswer:
    """A one-way answer made from a code (RFC 1994 section 4.1), which says of a candidate whether it is the code.

    A value, so that it can be told to another host. ``identifier`` is one octet.
    """

    identifier: int
    challenge: bytes
    response: bytes = field(repr=False)  # a million codes are tried on it in a second

    def __call__(self, candidate: str) -> bool:
        """Whether ``candidate`` is what was typed. It takes the same time for every candidate of one length."""
        return hmac.compare_digest(
            chap_response(self.identifier, candidate.encode("utf-8", "surrogateescape"), self.challenge), self.response
        )


def chap_response(identifier: int, typed: bytes, challenge: bytes) -> bytes:
    """MD5 over the CHAP identifier, what was typed, and the challenge."""
    return md5(bytes((identifier,)) + typed + challenge, usedforsecurity=False).digest()


@hot_value
class Attempt:
    """One request to be let in, as a door saw it.

    ``username`` is as presented (undecodable bytes as surrogates). ``source`` is a canonical IP address literal, or None
    when the door does not know it. ``typed`` is None when nothing was asked yet. ``client`` names the retransmitting
    party (a NAS, a tty), for "the same wrong code again counts once". ``wait_s`` is how long the door can wait for an
    out-of-band factor, seconds. ``methods`` are what SSH_AUTH_INFO_0 lists as done, for instance ``publickey ssh-ed25519``.
    ``challenge_id`` repeats the id of the challenge that this answers; where ``challenge_until`` (Unix seconds) is given, the
    challenge was carried by the client, and may be answered once. ``veiled`` stands where the door does not see the code but a
    one-way answer made from it (:class:`ChapAnswer`): whether a candidate gives that answer; ``typed`` then holds the answer's
    bytes. ``grammar`` says how ``typed`` is to be read; a policy rule may say otherwise, unless ``grammar_is_final``: the
    answer to a challenge, and a text that shows its own parts. ``remembered`` names the credential (``totp:12``) of a login
    that the door remembers and that this one repeats: the factor is not asked for again while that credential is good, where
    the password is ours to check.
    """

    event_id: str
    door: Door
    service: str
    username: str
    source: str | None = None
    typed: Secret | None = None
    first_factor: FirstFactor = FirstFactor.ELSEWHERE
    interaction: Interaction = Interaction.ONE_SHOT
    wait_s: float = 0.0
    client: str = ""
    methods: tuple[str, ...] = ()
    challenge_id: str = ""
    grammar: Grammar = SEPARATE
    challenge_until: float = 0.0
    veiled: Callable[[str], bool] | None = None
    grammar_is_final: bool = False
    remembered: str = ""


class FactorKind(enum.StrEnum):
    """A kind of credential: how it is enrolled, and how an answer is verified."""

    TOTP = "totp"
    HOTP = "hotp"
    RECOVERY = "recovery"
    """One of ten numbered 80-bit codes."""
    RECOVERY_KEY = "recovery_key"
    """The 24-character key."""
    BYPASS = "bypass"
    """Issued by an administrator, with a reason."""


class Digest(enum.StrEnum):
    """HMAC digests of RFC 6238 section 1.2."""

    SHA1 = "sha1"
    SHA256 = "sha256"
    SHA512 = "sha512"


class Material(enum.StrEnum):
    """What is here of a credential, to find a code with."""

    SEED = "seed"
    """Its secret."""
    CODEBOOK = "codebook"
    """The codes of a stretch of time, and no secret: see :mod:`mfa_core.codebook`."""
    NONE = "none"
    """Nothing: its codes are known to the authority alone. Its format is known all the same."""


class CredentialState(enum.StrEnum):
    """Life of a credential: pending -> active <-> suspended -> revoked. Only ACTIVE verifies a login."""

    PENDING = "pending"
    ACTIVE = "active"
    SUSPENDED = "suspended"
    REVOKED = "revoked"


class EnrolmentState(enum.StrEnum):
    """What is expected of a user: see :mod:`mfa_core.enrolment` for the moves between them."""

    NONE = "none"
    INVITED = "invited"
    PENDING = "pending"
    ACTIVE = "active"
    SUSPENDED = "suspended"
    REVOKED = "revoked"


class Requirement(enum.StrEnum):
    """What an administrator said of a user, over what the policy says."""

    INHERIT = "inherit"
    REQUIRED = "required"
    EXEMPT = "exempt"


@hot_value
class Credential:
    """An OATH credential, unsealed for the length of one decision.

    ``last_step`` is the watermark: the highest time step (TOTP) or counter (HOTP) that is spent; -1 when none.
    ``drift_steps`` is added to the present step. ``resync_step`` remembers a good code outside the window (-1: none): the
    next consecutive one moves the drift. ``period_s`` is 30 or 60; 0 for HOTP.

    ``secret`` holds what ``material`` says: a CODEBOOK the packed codes from the time step ``first_step`` on, NONE nothing.
    ``host_id`` is the only host where the credential answers; 0: everywhere.
    """

    id: int
    kind: FactorKind
    state: CredentialState
    secret: Secret
    digest: Digest = Digest.SHA1
    digits: int = 6
    period_s: int = 30
    last_step: int = -1
    drift_steps: int = 0
    resync_step: int = -1
    label: str = ""
    material: Material = Material.SEED
    first_step: int = 0
    host_id: int = 0

    def spent_at(self, step: int, drift_steps: int) -> Credential:
        """This credential after the code of ``step`` was accepted. (Spelt out: ``replace`` costs a login 5 microseconds.)"""
        return Credential(
            self.id,
            self.kind,
            self.state,
            self.secret,
            self.digest,
            self.digits,
            self.period_s,
            step,
            drift_steps,
            -1,
            self.label,
            self.material,
            self.first_step,
            self.host_id,
        )


@hot_value
class User:
    """A user the store knows. ``grace_until`` is Unix seconds, 0 when no grace was granted."""

    id: int
    name: str
    state: EnrolmentState
    requirement: Requirement = Requirement.INHERIT
    grace_until: float = 0.0
    locked: bool = False
    recovery_left: int = 0
    """Unused numbered recovery codes."""
