"""Row numbers, taken in the transaction that uses them: the seal of a row is bound to its number before the row exists."""

from __future__ import annotations

from sqlalchemy import BigInteger, ClauseElement, Connection, bindparam, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Dialect

from mfa_runtime.store.prepared import Prepared
from mfa_runtime.store.schema import counters


def _take(dialect: Dialect) -> ClauseElement:
    # One statement, so that two who take the first number of a counter do not both begin it.
    insert = postgresql.insert if dialect.name == "postgresql" else sqlite.insert
    following = counters.c.next + bindparam("more", type_=BigInteger)
    return (
        insert(counters)
        .values(name=bindparam("counter"), next=bindparam("first"))
        .on_conflict_do_update(index_elements=["name"], set_={"next": following})
        .returning(counters.c.next)
    )


_TAKE = Prepared(_take)


def take(connection: Connection, name: str, count: int = 1) -> int:
    """Reserve ``count`` consecutive numbers of the counter ``name`` (a table's name) and return the first."""
    rows = _TAKE.rows(connection, {"counter": name, "first": 1 + count, "more": count})
    return int(rows[0][0]) - count


def peek(connection: Connection, name: str) -> int:
    """The number that would be taken next."""
    return int(connection.execute(select(counters.c.next).where(counters.c.name == name)).scalar() or 1)
