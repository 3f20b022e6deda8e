"""Users: add, find, list, require, exempt, lock, unlock, reset.

Room rule: names come in canonical (:func:`mfa_core.identity.normalise` was the caller's business). What a state may become is
asked of :mod:`mfa_core.enrolment`.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, and_, case, delete, exists, func, insert, or_, select, update

from mfa_core.enrolment import DEFAULT_GRACE_DAYS, Move, grace_deadline, moved
from mfa_core.errors import Conflict, NotFound
from mfa_core.model import CredentialState, EnrolmentState, FactorKind, Requirement, User
from mfa_core.throttle import CLEAN, Record
from mfa_runtime.administration.act import Act
from mfa_runtime.store import changes
from mfa_runtime.store.ids import take
from mfa_runtime.store.passwords import password_key
from mfa_runtime.store.schema import credentials, memberships, one_time_codes, passwords, throttle, users

_PAGE = 2_000
"""Users read at a time: a list of a million holds this many in memory."""


class Group(enum.Enum):
    """A selection of users by what they still lack."""

    NO_FACTOR = "no"
    WITH_FACTOR = "yes"


@dataclass(frozen=True, slots=True)
class UserFilter:
    """Which users to list. ``name`` is a pattern with ``*`` and ``?``; ``member_of`` a group; None means any."""

    name: str | None = None
    state: EnrolmentState | None = None
    requirement: Requirement | None = None
    locked: bool | None = None
    factor: Group | None = None
    member_of: str | None = None


@dataclass(frozen=True, slots=True)
class ListedUser:
    """One line of a list. ``factors`` are the kinds of active credentials; ``grace_until`` Unix seconds, 0: none.

    ``has_password``: one of our own, for `primary: local`.
    """

    name: str
    state: EnrolmentState
    requirement: Requirement
    factors: tuple[str, ...]
    grace_until: float
    locked: bool
    recovery_left: int
    created_at: float
    has_password: bool


def find_user(connection: Connection, name: str) -> User:
    """The user of this canonical name.

    Raises:
        NotFound: there is none.
    """
    row = connection.execute(select(users).where(users.c.name == name)).first()
    if row is None:
        raise NotFound(f"there is no user {name}", cure="see `mfactl user list`, or add the user with `mfactl user add NAME`")
    left = connection.execute(
        select(func.count()).where(
            one_time_codes.c.user_id == row.id,
            one_time_codes.c.kind == FactorKind.RECOVERY,
            one_time_codes.c.uses_left > 0,
        )
    ).scalar_one()
    return User(
        id=int(row.id),
        name=row.name,
        state=EnrolmentState(row.state),
        requirement=Requirement(row.requirement),
        grace_until=float(row.grace_until),
        locked=bool(row.locked),
        recovery_left=int(left),
    )


def add_user(connection: Connection, act: Act, name: str) -> User:
    """Add a user who has nothing yet.

    Raises:
        Conflict: the name is taken.
    """
    if connection.execute(select(users.c.id).where(users.c.name == name)).first() is not None:
        raise Conflict(f"there is already a user {name}", cure="see `mfactl user show NAME`")
    number = take(connection, "users")
    connection.execute(
        insert(users).values(
            id=number,
            name=name,
            state=EnrolmentState.NONE,
            requirement=Requirement.INHERIT,
            grace_until=0.0,
            locked=False,
            created_at=act.now,
        )
    )
    changes.note_user(connection, number, act.now)
    act.record(connection, "user.add", name)
    return User(number, name, EnrolmentState.NONE)


def find_or_add_user(connection: Connection, act: Act, name: str) -> User:
    """The user of this name, added if need be."""
    try:
        return find_user(connection, name)
    except NotFound:
        return add_user(connection, act, name)


def require(connection: Connection, act: Act, name: str, *, days: int = DEFAULT_GRACE_DAYS) -> User:
    """Require the second factor of a user, with days of grace to enrol. Asking again never extends the grace.

    Raises:
        NotFound: no such user.
        InvalidInput: ``days`` is not 1 to 365.
    """
    user = find_user(connection, name)
    until = grace_deadline(user.grace_until, now=act.now, days=days)
    _change(
        connection, act, user, requirement=Requirement.REQUIRED, state=moved(user.state, Move.INVITE), grace_until=until
    )
    act.record(connection, "user.require", name, grace_until=int(until))
    return find_user(connection, name)


def exempt(connection: Connection, act: Act, name: str, *, reason: str = "") -> User:
    """Ask no second factor of a user, whatever the policy says. Raises: NotFound."""
    user = find_user(connection, name)
    _change(connection, act, user, requirement=Requirement.EXEMPT)
    act.record(connection, "user.exempt", name, reason=reason)
    return find_user(connection, name)


def follow_policy(connection: Connection, act: Act, name: str) -> User:
    """Take back what was said of a user: the policy alone decides. Raises: NotFound."""
    user = find_user(connection, name)
    _change(connection, act, user, requirement=Requirement.INHERIT)
    act.record(connection, "user.inherit", name)
    return find_user(connection, name)


def lock(connection: Connection, act: Act, name: str, *, reason: str = "") -> User:
    """Refuse every login of a user until :func:`unlock`. Raises: NotFound.

    A bypass code opens a locked account, for whom it is issued after the lock; one from before it is taken back.
    """
    user = find_user(connection, name)
    _change(connection, act, user, locked=True)
    taken_back = connection.execute(
        delete(one_time_codes).where(one_time_codes.c.user_id == user.id, one_time_codes.c.kind == FactorKind.BYPASS)
    ).rowcount
    act.record(connection, "user.lock", name, reason=reason, bypass_codes=taken_back)
    return find_user(connection, name)


def unlock(connection: Connection, act: Act, name: str) -> User:
    """Take off an administrator's lock, and the lock and waiting time that failures left. Raises: NotFound."""
    user = find_user(connection, name)
    _change(connection, act, user, locked=False)
    cleared = _clear_throttle(connection, user)
    act.record(connection, "user.unlock", name, throttle_rows=cleared)
    return find_user(connection, name)


def reset(connection: Connection, act: Act, name: str) -> User:
    """Back to the beginning: credentials revoked, codes and trust gone, state ``none``; at the next login all is new.

    An administrator's lock stays: who resets a lost phone does not mean to let a suspended person in.

    Raises:
        NotFound: no such user.
    """
    user = find_user(connection, name)
    gone = connection.execute(
        update(credentials)
        .where(credentials.c.user_id == user.id, credentials.c.state != CredentialState.REVOKED)
        .values(state=CredentialState.REVOKED, expires_at=0.0)
    ).rowcount
    codes = connection.execute(delete(one_time_codes).where(one_time_codes.c.user_id == user.id)).rowcount
    _clear_throttle(connection, user)
    _change(connection, act, user, state=moved(user.state, Move.RESET), grace_until=0.0)
    act.record(connection, "user.reset", name, credentials=gone, codes=codes)
    return find_user(connection, name)


def invite_again(connection: Connection, act: Act, user: User) -> User:
    """Let a user whose credentials were revoked enrol anew: an administrator's decision, not the user's."""
    if set_state(connection, user, moved(user.state, Move.INVITE)):
        changes.note_user(connection, user.id, act.now)
    act.record(connection, "user.invite", user.name)
    return find_user(connection, user.name)


def throttle_of(connection: Connection, name: str) -> Record:
    """What failed codes left on a user's account (not on a source's lane)."""
    row = connection.execute(select(throttle).where(throttle.c.key == f"account:{name}")).first()
    if row is None:
        return CLEAN
    return Record(failures=row.failures, consecutive=row.consecutive, not_before=row.not_before)


def list_users(
    connection: Connection, wanted: UserFilter, *, now: float, limit: int | None = None, start: str = ""
) -> Iterator[ListedUser]:
    """Users by name from ``start`` on, streamed: however many there are, two thousand are in memory."""
    state = _effective_state(now)
    query = (
        select(
            users.c.id, users.c.name, state.label("state"), users.c.requirement, users.c.grace_until, users.c.locked,
            users.c.created_at,
        )
        .where(*_conditions(wanted, state))
        .order_by(users.c.name)
    )
    following, left = users.c.name >= start, limit
    while left is None or left > 0:
        page = connection.execute(query.where(following).limit(_PAGE if left is None else min(_PAGE, left))).all()
        if not page:
            return
        factors = _factors(connection, page[0].name, page[-1].name)
        spare = _recovery_left(connection, page[0].name, page[-1].name)
        with_password = _with_password(connection, page[0].name, page[-1].name)
        for row in page:
            yield ListedUser(
                name=row.name,
                state=EnrolmentState(row.state),
                requirement=Requirement(row.requirement),
                factors=tuple(sorted(factors.get(row.id, ()))),
                grace_until=float(row.grace_until),
                locked=bool(row.locked),
                recovery_left=spare.get(row.id, 0),
                created_at=float(row.created_at),
                has_password=row.id in with_password,
            )
        following = users.c.name > page[-1].name
        left = None if left is None else left - len(page)


def _effective_state(now: float) -> ColumnElement[str]:
    # A pending enrolment that ran out is an invitation again; nobody needs to come by and write that down.
    alive = exists().where(
        credentials.c.user_id == users.c.id, credentials.c.state == CredentialState.PENDING, credentials.c.expires_at > now
    )
    return case((and_(users.c.state == EnrolmentState.PENDING, ~alive), EnrolmentState.INVITED.value), else_=users.c.state)


def _conditions(wanted: UserFilter, state: ColumnElement[str]) -> Iterator[ColumnElement[bool]]:
    if wanted.name is not None:
        pattern = wanted.name.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
        yield users.c.name.like(pattern.replace("*", "%").replace("?", "_"), escape="\\")
    if wanted.state is not None:
        yield state == wanted.state.value
    if wanted.requirement is not None:
        yield users.c.requirement == wanted.requirement.value
    if wanted.locked is not None:
        yield users.c.locked.is_(wanted.locked)
    if wanted.member_of is not None:
        yield exists().where(memberships.c.user_id == users.c.id, memberships.c.user_group == wanted.member_of)
    if wanted.factor is not None:
        has = exists().where(credentials.c.user_id == users.c.id, credentials.c.state == CredentialState.ACTIVE)
        yield has if wanted.factor is Group.WITH_FACTOR else ~has


def _factors(connection: Connection, first: str, last: str) -> dict[int, set[str]]:
    found: dict[int, set[str]] = {}
    for user_id, kind in connection.execute(
        select(credentials.c.user_id, credentials.c.kind)
        .join(users, users.c.id == credentials.c.user_id)
        .where(users.c.name >= first, users.c.name <= last, credentials.c.state == CredentialState.ACTIVE)
    ):
        found.setdefault(int(user_id), set()).add(kind)
    return found


def _recovery_left(connection: Connection, first: str, last: str) -> dict[int, int]:
    return {
        int(user_id): int(count)
        for user_id, count in connection.execute(
            select(one_time_codes.c.user_id, func.count())
            .join(users, users.c.id == one_time_codes.c.user_id)
            .where(
                users.c.name >= first,
                users.c.name <= last,
                one_time_codes.c.kind == FactorKind.RECOVERY,
                one_time_codes.c.uses_left > 0,
            )
            .group_by(one_time_codes.c.user_id)
        )
    }


def _with_password(connection: Connection, first: str, last: str) -> set[int]:
    query = (
        select(passwords.c.user_id)
        .join(users, users.c.id == passwords.c.user_id)
        .where(users.c.name >= first, users.c.name <= last)
    )
    return {int(number) for number in connection.execute(query).scalars()}


def _change(connection: Connection, act: Act, user: User, **values: object) -> None:
    connection.execute(update(users).where(users.c.id == user.id).values(**values))
    changes.note_user(connection, user.id, act.now)


def set_state(connection: Connection, user: User, state: EnrolmentState) -> bool:
    """Write the state that a move led to, when it is another one; whether it is. The caller notes the change for hosts."""
    if state is user.state:
        return False
    connection.execute(update(users).where(users.c.id == user.id).values(state=state))
    return True


def _clear_throttle(connection: Connection, user: User) -> int:
    name = user.name
    lane = f"lane:{name} "
    connection.execute(
        update(credentials).where(credentials.c.user_id == user.id).values(known_source="", known_at=0.0, known_scope="")
    )
    # substr, not LIKE: names hold "_" and "%", and SQLite's LIKE has no case.
    return connection.execute(
        delete(throttle).where(
            or_(
                throttle.c.key.in_([f"account:{name}", password_key(name)]),
                func.substr(throttle.c.key, 1, len(lane)) == lane,
            )
        )
    ).rowcount
