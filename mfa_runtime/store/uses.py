"""Which code was used where: the same step of a credential, accepted in two places, shows here.

Room rule: the only file that reads or writes ``otp_uses``. It finds; what follows from it is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from sqlalchemy import ClauseElement, Connection, and_, bindparam, delete, or_, select, tuple_
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Dialect

from mfa_runtime.store.prepared import Prepared
from mfa_runtime.store.schema import otp_uses


class Use(NamedTuple):
    """A code that was accepted. ``host_id`` 0: at a door of the authority itself; ``at`` is Unix seconds."""

    credential_id: int
    step: int
    host_id: int
    event_id: str
    at: float


class Clash(NamedTuple):
    """The same step twice: ``first`` was known already, ``second`` came now."""

    first: Use
    second: Use


def _insert(dialect: Dialect) -> ClauseElement:
    insert = postgresql.insert if dialect.name == "postgresql" else sqlite.insert
    return insert(otp_uses).on_conflict_do_nothing(index_elements=["credential_id", "step"])


_INSERT = Prepared(_insert)
_FIND = Prepared(
    select(otp_uses.c.credential_id, otp_uses.c.step, otp_uses.c.host_id, otp_uses.c.event_id, otp_uses.c.at).where(
        otp_uses.c.credential_id == bindparam("number"), otp_uses.c.step == bindparam("at_step")
    )
)


def record(connection: Connection, uses: Sequence[Use]) -> list[Clash]:
    """Write these uses down; return those whose step was used by another event. The same use again is no clash."""
    if not uses or _INSERT.run_rows(connection, Use._fields, uses) == len(uses):
        return []
    clashes = []
    for use in uses:
        first = find(connection, use.credential_id, use.step)
        if first is not None and (first.event_id, first.host_id) != (use.event_id, use.host_id):
            clashes.append(Clash(first, use))
    return clashes


def find(connection: Connection, credential_id: int, step: int) -> Use | None:
    """Where this step was used, if it was."""
    rows = _FIND.rows(connection, {"number": credential_id, "at_step": step})
    return Use(*rows[0]) if rows else None


def known(connection: Connection, uses: Collection[Use]) -> set[Use]:
    """Which of these are written down already, as they are but for their time."""
    c, wanted = otp_uses.c, list(uses)
    there: set[tuple[int, int, int, str]] = set()
    for start in range(0, len(wanted), _AT_ONCE):
        keys = [(use.credential_id, use.step) for use in wanted[start : start + _AT_ONCE]]
        query = select(c.credential_id, c.step, c.host_id, c.event_id).where(tuple_(c.credential_id, c.step).in_(keys))
        there.update(tuple(row) for row in connection.execute(query))
    return {use for use in wanted if use[:4] in there}


def forget(connection: Connection, before: float, *, limit: int = 10_000) -> int:
    """Forget up to ``limit`` uses from before this Unix time; how many went."""
    c = otp_uses.c
    old = connection.execute(select(c.credential_id, c.step).where(c.at < before).order_by(c.at).limit(limit)).all()
    gone = 0
    for start in range(0, len(old), _AT_ONCE):
        piece = old[start : start + _AT_ONCE]
        gone += connection.execute(
            delete(otp_uses).where(or_(*(and_(c.credential_id == row.credential_id, c.step == row.step) for row in piece)))
        ).rowcount
    return gone


_AT_ONCE = 200
