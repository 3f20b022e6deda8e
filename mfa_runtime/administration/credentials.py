"""Credentials an administrator looks at, suspends, gives back, revokes and brings back into step.

Room rule: a change of a credential's state takes the user's state with it, by :func:`mfa_core.enrolment.settled`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import Connection, Row, select, update

from mfa_core.enrolment import settled
from mfa_core.errors import Conflict, InvalidInput, NotFound
from mfa_core.model import Credential, CredentialState, Digest, FactorKind, Requirement, User
from mfa_core.oath import resynchronise
from mfa_core.passcode import PasscodeKind, read_passcode
from mfa_runtime.administration.act import Act
from mfa_runtime.administration.users import find_user, set_state
from mfa_runtime.sealing import Place
from mfa_runtime.store import changes
from mfa_runtime.store.schema import credentials, hosts, users


@dataclass(frozen=True, slots=True)
class ListedCredential:
    """A credential without its secret. Times are Unix seconds, 0: never. ``host`` is the only one that it is for, "": all."""

    id: int
    user: str
    kind: FactorKind
    state: CredentialState
    digest: Digest
    digits: int
    period_s: int
    label: str
    created_at: float
    verified_at: float
    last_used_at: float
    expires_at: float
    drift_steps: int
    host_id: int = 0
    host: str = ""


def list_credentials(connection: Connection, user: User) -> Iterator[ListedCredential]:
    """A user's credentials, oldest first."""
    query = (
        select(credentials, hosts.c.name.label("host_name"))
        .outerjoin(hosts, hosts.c.id == credentials.c.host_id)
        .where(credentials.c.user_id == user.id)
        .order_by(credentials.c.id)
    )
    for row in connection.execute(query):
        yield ListedCredential(
            id=int(row.id),
            user=user.name,
            kind=FactorKind(row.kind),
            state=CredentialState(row.state),
            digest=Digest(row.digest),
            digits=row.digits,
            period_s=row.period_s,
            label=row.label,
            created_at=row.created_at,
            verified_at=row.verified_at,
            last_used_at=row.last_used_at,
            expires_at=row.expires_at,
            drift_steps=row.drift_steps,
            host_id=int(row.host_id),
            host=(row.host_name or f"host {row.host_id}") if row.host_id else "",
        )


def suspend_credential(connection: Connection, act: Act, number: int, *, force: bool = False) -> User:
    """Stop a credential until :func:`resume_credential`; return the user as he is then.

    Raises:
        NotFound: no such credential.
        Conflict: it is not active, or it is the last factor of a required user and ``force`` was not given.
    """
    row, user = _find(connection, number)
    if row.state != CredentialState.ACTIVE:
        raise Conflict(f"credential {number} is {row.state}, not active", cure="see `mfactl cred list NAME`")
    _keep_a_factor(connection, user, number, force=force)
    return _settle(connection, act, user, number, CredentialState.SUSPENDED, "credential.suspend")


def resume_credential(connection: Connection, act: Act, number: int) -> User:
    """Let a suspended credential verify again.

    Raises:
        NotFound: no such credential.
        Conflict: it is not suspended.
    """
    row, user = _find(connection, number)
    if row.state != CredentialState.SUSPENDED:
        raise Conflict(f"credential {number} is {row.state}, not suspended", cure="see `mfactl cred list NAME`")
    return _settle(connection, act, user, number, CredentialState.ACTIVE, "credential.resume")


def revoke_credential(connection: Connection, act: Act, number: int, *, force: bool = False) -> User:
    """Stop a credential for good.

    Raises:
        NotFound: no such credential.
        Conflict: it is revoked already, or it is the last factor of a required user and ``force`` was not given.
    """
    row, user = _find(connection, number)
    if row.state == CredentialState.REVOKED:
        raise Conflict(f"credential {number} is revoked already", cure="nothing needs to be done")
    if row.state == CredentialState.ACTIVE:
        _keep_a_factor(connection, user, number, force=force)
    return _settle(connection, act, user, number, CredentialState.REVOKED, "credential.revoke")


def resynchronise_credential(connection: Connection, act: Act, number: int, first: str, second: str) -> Credential | None:
    """Bring a token back into step by two consecutive codes; both are spent. None when they do not fit.

    A suspended credential is active again: whoever has the token has just shown it to an administrator.

    Raises:
        NotFound: no such credential.
        Conflict: it is pending or revoked.
        InvalidInput: what was typed is not digits.
    """
    row, user = _find(connection, number)
    if row.state not in {CredentialState.ACTIVE, CredentialState.SUSPENDED}:
        raise Conflict(f"credential {number} is {row.state}, expected active or suspended", cure="see `mfactl cred list NAME`")
    credential = Credential(
        id=number,
        kind=FactorKind(row.kind),
        state=CredentialState(row.state),
        secret=act.keyring.unseal(bytes(row.secret), Place("credentials", "secret", number, user.id)),
        digest=Digest(row.digest),
        digits=row.digits,
        period_s=row.period_s,
        last_step=row.last_step,
        drift_steps=row.drift_steps,
        resync_step=row.resync_step,
        label=row.label,
    )
    after = resynchronise(credential, _digits(first), _digits(second), now=act.now)
    if after is None:
        return None
    connection.execute(
        update(credentials)
        .where(credentials.c.id == number)
        .values(last_step=after.last_step, drift_steps=after.drift_steps, resync_step=-1)
    )
    changes.note_user(connection, user.id, act.now)
    if credential.state is CredentialState.SUSPENDED:
        _settle(connection, act, user, number, CredentialState.ACTIVE, "credential.resume")
    act.record(
        connection, "credential.resync", user.name, credential=number, step=after.last_step, drift=after.drift_steps
    )
    return after


def settle_user(connection: Connection, user: User) -> User:
    """Bring a user's state in line with the credentials as they are; return the user as he is then.

    The caller, who has changed a credential, notes the change for hosts.
    """
    states = [
        CredentialState(state)
        for state in connection.execute(select(credentials.c.state).where(credentials.c.user_id == user.id)).scalars()
    ]
    set_state(connection, user, settled(user.state, states))
    return find_user(connection, user.name)


def _digits(typed: str) -> str:
    passcode = read_passcode(typed.encode("utf-8", "surrogateescape"))
    if passcode.kind is not PasscodeKind.DIGITS:
        raise InvalidInput("a code of this credential is digits only", cure="type the code as the token shows it")
    return passcode.text.reveal().decode("ascii")


def _find(connection: Connection, number: int) -> tuple[Row[tuple[object, ...]], User]:
    row = connection.execute(
        select(credentials, users.c.name.label("user_name"))
        .join(users, users.c.id == credentials.c.user_id)
        .where(credentials.c.id == number)
    ).first()
    if row is None:
        raise NotFound(f"there is no credential {number}", cure="see `mfactl cred list NAME`")
    return row, find_user(connection, row.user_name)


def _keep_a_factor(connection: Connection, user: User, number: int, *, force: bool) -> None:
    # authentik#16209: a user who must have a factor could remove every one of them.
    if force or user.requirement is not Requirement.REQUIRED:
        return
    others = connection.execute(
        select(credentials.c.id).where(
            credentials.c.user_id == user.id,
            credentials.c.state == CredentialState.ACTIVE,
            credentials.c.id != number,
        )
    ).first()
    if others is None:
        raise Conflict(
            f"credential {number} is the last factor of {user.name}, of whom one is required",
            cure="enrol another one first, or say --force",
        )


def _settle(
    connection: Connection, act: Act, user: User, number: int, state: CredentialState, action: str
) -> User:
    connection.execute(update(credentials).where(credentials.c.id == number).values(state=state, expires_at=0.0))
    act.record(connection, action, user.name, credential=number)
    after = settle_user(connection, user)
    changes.note_user(connection, user.id, act.now)
    return after
