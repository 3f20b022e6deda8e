"""Row numbers, taken in the transaction that uses them: the seal of a row is bound to its number before the row exists."""

from __future__ import annotations

from sqlalchemy import Connection, insert, select, update

from mfa_runtime.store.schema import counters


def take(connection: Connection, name: str, count: int = 1) -> int:
    """Reserve ``count`` consecutive numbers of the counter ``name`` (a table's name) and return the first."""
    following = connection.execute(
        update(counters).where(counters.c.name == name).values(next=counters.c.next + count).returning(counters.c.next)
    ).scalar()
    if following is None:
        connection.execute(insert(counters).values(name=name, next=1 + count))
        return 1
    return int(following) - count


def peek(connection: Connection, name: str) -> int:
    """The number that would be taken next."""
    return int(connection.execute(select(counters.c.next).where(counters.c.name == name)).scalar() or 1)
