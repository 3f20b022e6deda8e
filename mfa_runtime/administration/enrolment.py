"""Enrolment: a secret is made and shown once, a code proves that it arrived, and only then it counts.

Room rule: a user's first and further credentials are made in this file (imports in :mod:`.imports`). The person in the login
dialogue and ``mfactl enrol`` walk the same path; who may walk it is decided before.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

from sqlalchemy import Connection, delete, insert, select, update

from mfa_core.enrolment import PENDING_S, Move, moved, pending_until
from mfa_core.errors import Conflict, InvalidInput, NotFound
from mfa_core.model import Credential, CredentialState, Digest, FactorKind, User
from mfa_core.oath import DIGITS, PERIODS_S, Fit, match
from mfa_core.otpauth import OathKey, encode_base32, encode_key_uri
from mfa_core.passcode import PasscodeKind, read_passcode
from mfa_core.secret import Secret
from mfa_runtime.administration.act import Act
from mfa_runtime.administration.recovery import replace_recovery_key
from mfa_runtime.administration.users import set_state
from mfa_runtime.sealing import Place
from mfa_runtime.store import changes, hosts
from mfa_runtime.store.hosts import HostState
from mfa_runtime.store.ids import take
from mfa_runtime.store.schema import credentials

SECRET_BYTES = {Digest.SHA1: 20, Digest.SHA256: 32, Digest.SHA512: 64}
"""As long as the digest, as RFC 6238 (appendix A of its test vectors) and the apps have it."""


@dataclass(frozen=True, slots=True)
class Parameters:
    """What a new credential is like. ``issuer`` is what the app shows over the account; ``pending_s`` is how long it can be
    confirmed."""

    issuer: str
    kind: FactorKind = FactorKind.TOTP
    digest: Digest = Digest.SHA1
    digits: int = 6
    period_s: int = 30
    label: str = ""
    pending_s: int = PENDING_S

    def __post_init__(self) -> None:
        if self.digits not in DIGITS:
            raise InvalidInput(f"{self.digits} digits, expected 6, 7 or 8")
        if self.kind is FactorKind.TOTP and self.period_s not in PERIODS_S:
            raise InvalidInput(f"a period of {self.period_s} s, expected 30 or 60")


@dataclass(frozen=True, slots=True)
class Begun:
    """A new credential, with what is shown once. ``expires_at`` is Unix seconds, 0 when it is active already."""

    credential_id: int
    user: User
    issuer: str
    uri: Secret
    secret_base32: Secret
    expires_at: float


@dataclass(frozen=True, slots=True)
class Confirmed:
    """The credential is active. ``step`` is the time step or counter of the confirming code, which is spent."""

    credential_id: int
    step: int
    recovery_key: Secret


class NotConfirmed(enum.Enum):
    """Why a code confirms nothing."""

    NOTHING_PENDING = "nothing_pending"
    EXPIRED = "expired"
    MISMATCH = "mismatch"
    CLOCK = "clock"
    """The code is right for another time: the clock of the phone (or ours) is minutes off."""


def begin(connection: Connection, act: Act, user: User, parameters: Parameters, *, host_id: int = 0) -> Begun:
    """Make a pending credential. A second call replaces the first one's: only the latest secret can be confirmed.

    With ``host_id`` it is for that host alone: nowhere else does it verify, and no other host ever holds it.

    Raises:
        Conflict: the user is suspended or revoked, or the host is.
        NotFound: there is no such host.
        UnknownKey: as :meth:`Act.seal`.
    """
    state = moved(user.state, Move.BEGIN)
    replaced = _drop_pending(connection, user)
    expires_at = pending_until(act.now, pending_s=parameters.pending_s)
    begun = _make(connection, act, user, parameters, CredentialState.PENDING, expires_at=expires_at, host_id=host_id)
    if set_state(connection, user, state):  # hosts are told of the user; a pending credential is nothing to them
        changes.note_user(connection, user.id, act.now)
    act.record(
        connection,
        "enrolment.begin",
        user.name,
        credential=begun.credential_id,
        kind=parameters.kind,
        replaced=replaced,
        **_bound(host_id),
    )
    return replace(begun, user=replace(user, state=state))


def confirm(
    connection: Connection, act: Act, user: User, typed: str, *, credential_id: int | None = None
) -> Confirmed | NotConfirmed:
    """Make the pending credential active when ``typed`` is its code now, and give the user a new recovery key.

    The step of that code is spent: it logs nobody in. ``credential_id`` insists on one credential, for a dialogue that must
    not confirm what somebody else has begun in between.
    """
    row = connection.execute(
        select(credentials).where(credentials.c.user_id == user.id, credentials.c.state == CredentialState.PENDING)
    ).first()
    if row is None or (credential_id is not None and row.id != credential_id):
        return NotConfirmed.NOTHING_PENDING
    if row.expires_at <= act.now:
        expire_pending(connection, act, user)
        return NotConfirmed.EXPIRED
    passcode = read_passcode(typed.encode("utf-8", "surrogateescape"))
    if passcode.kind is not PasscodeKind.DIGITS:
        return NotConfirmed.MISMATCH
    credential = Credential(
        id=int(row.id),
        kind=FactorKind(row.kind),
        state=CredentialState.PENDING,
        secret=act.keyring.unseal(bytes(row.secret), _place(int(row.id), user)),
        digest=Digest(row.digest),
        digits=int(row.digits),
        period_s=int(row.period_s),
    )
    found = match(credential, passcode.text.reveal().decode("ascii"), now=act.now)
    if found.fit is not Fit.NEW:
        return NotConfirmed.CLOCK if found.fit is Fit.OUTSIDE else NotConfirmed.MISMATCH
    connection.execute(
        update(credentials)
        .where(credentials.c.id == credential.id)
        .values(state=CredentialState.ACTIVE, last_step=found.step, verified_at=act.now, expires_at=0.0)
    )
    set_state(connection, user, moved(user.state, Move.CONFIRM))
    changes.note_user(connection, user.id, act.now)
    key = replace_recovery_key(connection, act, user)
    act.record(connection, "enrolment.confirm", user.name, credential=credential.id, kind=credential.kind, step=found.step)
    return Confirmed(credential.id, found.step, key)


def provision_active(
    connection: Connection, act: Act, user: User, parameters: Parameters, *, host_id: int = 0
) -> tuple[Begun, Secret]:
    """Make a credential that is active at once (``enrol --no-confirm``); return it with the user's new recovery key.

    ``host_id`` is as in :func:`begin`.

    Raises:
        NotFound: there is no such host.
        Conflict: the host is revoked.
        UnknownKey: as :meth:`Act.seal`.
    """
    state = moved(user.state, Move.PROVISION)
    _drop_pending(connection, user)
    begun = _make(connection, act, user, parameters, CredentialState.ACTIVE, expires_at=0.0, host_id=host_id)
    set_state(connection, user, state)
    changes.note_user(connection, user.id, act.now)
    key = replace_recovery_key(connection, act, user)
    act.record(
        connection,
        "enrolment.provision",
        user.name,
        credential=begun.credential_id,
        kind=parameters.kind,
        **_bound(host_id),
    )
    return replace(begun, user=replace(user, state=state)), key


def expire_pending(connection: Connection, act: Act, user: User) -> int:
    """Drop the user's pending credentials whose time is over; how many there were."""
    gone = connection.execute(
        delete(credentials).where(
            credentials.c.user_id == user.id,
            credentials.c.state == CredentialState.PENDING,
            credentials.c.expires_at <= act.now,
        )
    ).rowcount
    if gone:
        if set_state(connection, user, moved(user.state, Move.EXPIRE)):
            changes.note_user(connection, user.id, act.now)
        act.record(connection, "enrolment.expire", user.name)
    return gone


def _drop_pending(connection: Connection, user: User) -> int:
    # Deleted, not revoked: nobody ever logged in with it, and its secret should not lie about.
    return connection.execute(
        delete(credentials).where(credentials.c.user_id == user.id, credentials.c.state == CredentialState.PENDING)
    ).rowcount


def _make(
    connection: Connection,
    act: Act,
    user: User,
    parameters: Parameters,
    state: CredentialState,
    *,
    expires_at: float,
    host_id: int,
) -> Begun:
    _check_host(connection, host_id)
    secret = Secret(act.random(SECRET_BYTES[parameters.digest]))
    period_s = 0 if parameters.kind is FactorKind.HOTP else parameters.period_s
    key = OathKey(parameters.kind, secret, user.name, parameters.issuer, parameters.digest, parameters.digits, period_s)
    number = take(connection, "credentials")
    connection.execute(
        insert(credentials).values(
            id=number,
            user_id=user.id,
            kind=parameters.kind,
            state=state,
            digest=parameters.digest,
            digits=parameters.digits,
            period_s=period_s,
            last_step=-1,
            drift_steps=0,
            resync_step=-1,
            secret=act.seal(connection, secret, _place(number, user)),
            secret_tag=secret_tag(act, user.id, secret),
            label=parameters.label,
            created_at=act.now,
            verified_at=0.0,
            last_used_at=0.0,
            expires_at=expires_at,
            host_id=host_id,
        )
    )
    return Begun(number, user, parameters.issuer, encode_key_uri(key), encode_base32(secret), expires_at)


def _check_host(connection: Connection, host_id: int) -> None:
    if not host_id:
        return
    host = hosts.find(connection, host_id)
    if host is None:
        raise NotFound(f"there is no host {host_id}", cure="see `mfactl agent list`")
    if host.state is HostState.REVOKED:
        raise Conflict(f"{host.name} is revoked: nobody can log in there", cure="let it join again first")


def _bound(host_id: int) -> dict[str, str | float]:
    return {"host": host_id} if host_id else {}


def secret_tag(act: Act, user_id: int, secret: Secret) -> bytes:
    """What makes the same secret of the same user recognisable, without the secret."""
    return act.keyring.tag("credential-secret", f"{user_id}|".encode() + secret.reveal())


def _place(number: int, user: User) -> Place:
    return Place("credentials", "secret", number, user.id)
