"""What is changed inside a restored copy, row by row, so that it is never more permissive than the store it replaces.

Room rule: statements over whole tables. The store that is replaced is attached as ``present`` (SQLite); where it is not known,
as after a restore of a database by its own tools, the strict answer is taken. Why each rule is so stands in :mod:`.restore`.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    FromClause,
    MetaData,
    ScalarSelect,
    Table,
    and_,
    case,
    cast,
    delete,
    exists,
    func,
    insert,
    or_,
    select,
    text,
    update,
)

from mfa_core.model import CredentialState, EnrolmentState, FactorKind, Requirement
from mfa_runtime.store.database import read_meta
from mfa_runtime.store.schema import audit_head, counters, credentials, meta, one_time_codes, passwords, throttle, users

REVOKED_BY_RESTORE = "revoked by restore"

_PRESENT = MetaData(schema="present")


@functools.cache
def present_table(table: Table) -> FromClause:
    """A table of the store that is replaced, where that is attached."""
    # An alias, because SQL and SQLAlchemy tell two tables of one name apart by nothing else in a correlated query.
    return Table(table.name, _PRESENT, *(Column(column.name, column.type) for column in table.columns)).alias(
        f"was_{table.name}"
    )


_p_users, _p_credentials, _p_codes = present_table(users), present_table(credentials), present_table(one_time_codes)
_p_passwords, _p_throttle = present_table(passwords), present_table(throttle)
_p_counters, _p_meta, _p_head = present_table(counters), present_table(meta), present_table(audit_head)


@dataclass(frozen=True, slots=True)
class Circumstances:
    """``now`` is Unix seconds; no TOTP step up to ``now`` plus ``reach`` steps may be used again; ``present``: attached."""

    now: float
    reach: int
    present: bool


def attach(connection: Connection, path: Path) -> None:
    """Make the store that is replaced readable in this transaction."""
    connection.execute(text("ATTACH DATABASE :path AS present"), {"path": str(path)})


def make_strict(connection: Connection, at: Circumstances) -> int:
    """Change every table; return how many bypass codes were revoked."""
    _settle_credentials(connection, at)
    revoked = _spend_codes(connection, at)
    _settle_users(connection, at)
    if at.present:
        _carry_passwords(connection)
    _carry_throttle(connection, at)
    return revoked


def next_generation(connection: Connection, at: Circumstances) -> int:
    """Count the generation up, over both stores; row numbers go on where the later store stopped."""
    generation = int(read_meta(connection, "generation") or 0)
    if at.present:
        seen = connection.execute(select(_p_meta.c.value).where(_p_meta.c.name == "generation")).scalar()
        generation = max(generation, int(seen or 0))
        # A row number is never given twice: seals and this file take it for an identity.
        later = select(_p_counters.c.next).where(_p_counters.c.name == counters.c.name).scalar_subquery()
        connection.execute(update(counters).values(next=func.max(counters.c.next, func.ifnull(later, 0))))
        missing = select(_p_counters.c.name, _p_counters.c.next).where(_p_counters.c.name.not_in(select(counters.c.name)))
        connection.execute(insert(counters).from_select(["name", "next"], missing))
    connection.execute(update(meta).where(meta.c.name == "generation").values(value=str(generation + 1)))
    return generation + 1


def larger(one: ColumnElement[Any], other: ColumnElement[Any]) -> ColumnElement[Any]:
    """The larger of two numbers of a row: max() of SQLite, greatest() of PostgreSQL."""
    return case((one >= other, one), else_=other)


def replaced_heads(connection: Connection) -> str:
    """Where the audit chains of the replaced store ended: its file, which is kept, can be checked against it."""
    rows = connection.execute(select(_p_head.c.node, _p_head.c.seq, _p_head.c.hash).order_by(_p_head.c.node))
    return " ".join(f"{row.node}:{row.seq}:{bytes(row.hash).hex()[:32]}" for row in rows)


def _settle_credentials(connection: Connection, at: Circumstances) -> None:
    c, state = credentials.c, CredentialState
    # Trust that was taken away since then must not come back.
    connection.execute(update(credentials).values(known_source="", known_at=0.0, known_scope=""))
    # Nobody could have logged in with a pending one, and its fifteen minutes are over.
    connection.execute(delete(credentials).where(c.state == state.PENDING))
    # The highest step that can have been accepted by now, whatever the backup knows.
    reached = cast(int(at.now) // c.period_s, BigInteger) + at.reach
    connection.execute(
        update(credentials)
        .where(c.kind == FactorKind.TOTP)
        .values(last_step=larger(c.last_step, reached), resync_step=-1)
    )
    if not at.present:
        connection.execute(
            update(credentials)
            .where(c.kind == FactorKind.HOTP, c.state == state.ACTIVE)
            .values(state=state.SUSPENDED, resync_step=-1)
        )
        return
    same = and_(_p_credentials.c.id == c.id, _p_credentials.c.secret_tag == c.secret_tag)
    connection.execute(
        update(credentials).values(
            last_step=func.max(c.last_step, func.ifnull(_twin(_p_credentials, "last_step", same), -1)),
            drift_steps=func.ifnull(_twin(_p_credentials, "drift_steps", same), c.drift_steps),
            resync_step=-1,
        )
    )
    now = func.ifnull(_twin(_p_credentials, "state", same), state.REVOKED.value)
    connection.execute(
        update(credentials).where(c.state != state.REVOKED, now == state.REVOKED.value).values(state=state.REVOKED)
    )
    connection.execute(
        update(credentials).where(c.state == state.ACTIVE, now == state.SUSPENDED.value).values(state=state.SUSPENDED)
    )


def _spend_codes(connection: Connection, at: Circumstances) -> int:
    c = one_time_codes.c
    lost: ColumnElement[bool] = c.uses_left > 0
    if at.present:
        same = and_(_p_codes.c.id == c.id, _p_codes.c.hash == c.hash)
        lost = c.uses_left > func.ifnull(_twin(_p_codes, "uses_left", same), 0)
    bypasses = connection.execute(select(func.count()).where(c.kind == FactorKind.BYPASS, lost)).scalar_one()
    # A code with several uses that lost one of them is spent as a whole: an administrator issues another one.
    connection.execute(
        update(one_time_codes)
        .where(lost)
        .values(uses_left=0, used_at=at.now, reason=case((c.reason == "", REVOKED_BY_RESTORE), else_=c.reason))
    )
    return int(bypasses)


def _settle_users(connection: Connection, at: Circumstances) -> None:
    c, state = users.c, EnrolmentState

    def has(wanted: CredentialState) -> ColumnElement[bool]:
        return exists().where(credentials.c.user_id == c.id, credentials.c.state == wanted)

    connection.execute(update(users).where(c.state == state.PENDING).values(state=state.INVITED))
    # As mfa_core.enrolment.settled, for all users at once.
    connection.execute(
        update(users)
        .where(c.state.in_([state.ACTIVE, state.SUSPENDED]))
        .values(
            state=case(
                (has(CredentialState.ACTIVE), state.ACTIVE.value),
                (has(CredentialState.SUSPENDED), state.SUSPENDED.value),
                else_=state.REVOKED.value,
            )
        )
    )
    if not at.present:
        return
    _add_newer_users(connection)
    same = and_(_p_users.c.id == c.id, _p_users.c.name == c.name)
    connection.execute(update(users).where(_twin(_p_users, "locked", same)).values(locked=True))
    _carry_demands(connection)
    # Reset since the backup: the user may enrol anew, as before.
    now = _twin(_p_users, "state", same)
    connection.execute(
        update(users).where(c.state == state.REVOKED, now.in_([state.NONE.value, state.INVITED.value])).values(state=now)
    )


def _add_newer_users(connection: Connection) -> None:
    """Users who are not in the backup, without a factor: mfad would take them for nobody, of whom nothing may be asked."""
    c, p = users.c, _p_users.c
    names = [column.name for column in users.columns]
    newer = select(*(p[name] for name in names)).where(p.name.not_in(select(c.name)), p.id.not_in(select(c.id)))
    connection.execute(insert(users).from_select(names, newer))
    connection.execute(update(users).where(c.state == EnrolmentState.PENDING).values(state=EnrolmentState.INVITED))


def _carry_demands(connection: Connection) -> None:
    """What was asked of a user since the backup is asked: a factor, an end of grace; nobody becomes "not enrolled" again."""
    c, state, wanted = users.c, EnrolmentState, Requirement
    same = and_(_p_users.c.id == c.id, _p_users.c.name == c.name)
    requirement = func.ifnull(_twin(_p_users, "requirement", same), c.requirement)
    until = func.ifnull(_twin(_p_users, "grace_until", same), 0.0)
    connection.execute(
        update(users).values(
            requirement=case(
                (or_(c.requirement == wanted.REQUIRED, requirement == wanted.REQUIRED), wanted.REQUIRED.value),
                (and_(c.requirement == wanted.EXEMPT, requirement == wanted.EXEMPT), wanted.EXEMPT.value),
                else_=wanted.INHERIT.value,
            ),
            # 0 is no deadline, and lets the policy set a new one.
            grace_until=case(
                (c.grace_until == 0.0, until), (until == 0.0, c.grace_until), else_=func.min(c.grace_until, until)
            ),
        )
    )
    had_a_factor = [state.ACTIVE.value, state.SUSPENDED.value, state.REVOKED.value]
    none_now = or_(
        c.state.in_([state.NONE, state.INVITED]),
        and_(c.state.in_([state.ACTIVE, state.SUSPENDED]), ~exists().where(credentials.c.user_id == c.id)),
    )
    connection.execute(
        update(users).where(none_now, _twin(_p_users, "state", same).in_(had_a_factor)).values(state=state.REVOKED)
    )


def without_factor(connection: Connection) -> tuple[str, ...]:
    """Users who could log in with a factor in the replaced store, and have none in this one."""
    same = and_(_p_users.c.id == users.c.id, _p_users.c.name == users.c.name)
    query = select(users.c.name).where(
        users.c.state == EnrolmentState.REVOKED, _twin(_p_users, "state", same) == EnrolmentState.ACTIVE
    )
    return tuple(connection.execute(query.order_by(users.c.name)).scalars())


def _carry_passwords(connection: Connection) -> None:
    """Passwords as they are now: one that was changed or taken away must not come back."""
    names = [column.name for column in passwords.columns]
    same = and_(_p_users.c.id == users.c.id, _p_users.c.name == users.c.name)
    owners = select(users.c.id).where(exists().where(same))
    connection.execute(delete(passwords))
    kept = select(*(_p_passwords.c[name] for name in names)).where(_p_passwords.c.user_id.in_(owners))
    connection.execute(insert(passwords).from_select(names, kept))


def _carry_throttle(connection: Connection, at: Circumstances) -> None:
    if not at.present:
        # Failures stay, trust does not: a lane that was taken away since then must not come back.
        connection.execute(update(throttle).values(last_success_at=0.0, scope=""))
        return
    connection.execute(delete(throttle))
    names = [column.name for column in throttle.columns]
    connection.execute(insert(throttle).from_select(names, select(*(_p_throttle.c[name] for name in names))))


def _twin(table: FromClause, column: str, same: ColumnElement[bool]) -> ScalarSelect[Any]:
    """A column of the row's counterpart in the replaced store; NULL when there is none."""
    return select(table.c[column]).where(same).scalar_subquery()
