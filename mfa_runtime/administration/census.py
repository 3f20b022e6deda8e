"""How many of what there are."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from mfa_runtime.store.database import read_meta
from mfa_runtime.store.schema import audit_head, credentials, users


@dataclass(frozen=True, slots=True)
class Census:
    """Counts: users by state, credentials by ``kind state``, events over all chains."""

    store_id: str
    generation: int
    users: dict[str, int]
    locked: int
    credentials: dict[str, int]
    events: int


def count(connection: Connection) -> Census:
    """Count the store."""
    by_state = connection.execute(select(users.c.state, func.count()).group_by(users.c.state).order_by(users.c.state))
    by_kind = connection.execute(
        select(credentials.c.kind, credentials.c.state, func.count())
        .group_by(credentials.c.kind, credentials.c.state)
        .order_by(credentials.c.kind, credentials.c.state)
    )
    return Census(
        store_id=read_meta(connection, "store_id") or "",
        generation=int(read_meta(connection, "generation") or 0),
        users={state: int(number) for state, number in by_state},
        locked=int(connection.execute(select(func.count()).where(users.c.locked.is_(True))).scalar_one()),
        credentials={f"{kind} {state}": int(number) for kind, state, number in by_kind},
        events=int(connection.execute(select(func.coalesce(func.sum(audit_head.c.seq), 0))).scalar_one()),
    )
