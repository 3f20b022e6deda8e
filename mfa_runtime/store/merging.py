"""What a host did alone, brought into the accounts of its authority.

Room rule: statements that only ever make an account stricter: a watermark rises, a count of failures grows. Whether a host may
say so is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import BigInteger, ClauseElement, Connection, Double, Integer, bindparam, case, func, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Dialect

from mfa_runtime.store.prepared import Prepared
from mfa_runtime.store.schema import credentials, throttle, users

_RAISE = Prepared(
    update(credentials)
    .where(credentials.c.id == bindparam("number"), credentials.c.last_step < bindparam("step", type_=BigInteger))
    .values(
        last_step=bindparam("new_step"),
        last_used_at=case(
            (credentials.c.last_used_at < bindparam("used", type_=Double), bindparam("used_at", type_=Double)),
            else_=credentials.c.last_used_at,
        ),
    )
)
_OWNER = Prepared(
    select(credentials.c.user_id, users.c.name, credentials.c.kind, credentials.c.period_s, credentials.c.host_id)
    .select_from(credentials.join(users, users.c.id == credentials.c.user_id))
    .where(credentials.c.id == bindparam("number"))
)
_USER = Prepared(select(users.c.id).where(users.c.name == bindparam("of")))


def raise_watermark(connection: Connection, credential_id: int, step: int, used_at: float) -> bool:
    """A step was spent elsewhere, at ``used_at`` (Unix seconds). False where this or a later one is spent here already."""
    spent = {"number": credential_id, "step": step, "new_step": step, "used": used_at, "used_at": used_at}
    return _RAISE.run(connection, spent) > 0


def owner_of(connection: Connection, credential_id: int) -> tuple[int, str, str, int, int] | None:
    """Of a credential: number and name of its user, its kind, its period in seconds, the only host where it verifies."""
    rows = _OWNER.rows(connection, {"number": credential_id})
    if not rows:
        return None
    user_id, name, kind, period_s, host_id = rows[0]
    return int(user_id), str(name), str(kind), int(period_s), int(host_id)


def user_id_of(connection: Connection, name: str) -> int | None:
    """The number of the user of this canonical name."""
    rows = _USER.rows(connection, {"of": name})
    return int(rows[0][0]) if rows else None


def _upsert(dialect: Dialect) -> ClauseElement:
    insert = postgresql.insert if dialect.name == "postgresql" else sqlite.insert
    statement = insert(throttle)
    least = func.least if dialect.name == "postgresql" else func.min
    return statement.on_conflict_do_update(
        index_elements=["key"],
        set_={
            "consecutive": case(
                (throttle.c.consecutive >= bindparam("cap", type_=Integer), throttle.c.consecutive),
                else_=least(throttle.c.consecutive + statement.excluded.consecutive, bindparam("top", type_=Integer)),
            ),
            "last_failure_at": case(
                (throttle.c.last_failure_at < statement.excluded.last_failure_at, statement.excluded.last_failure_at),
                else_=throttle.c.last_failure_at,
            ),
        },
    )


_ADD = Prepared(_upsert)


def add_failures(connection: Connection, failures: Mapping[str, tuple[int, float]], *, hard_cap: int) -> None:
    """Charge accounts, by canonical name of a user that is here: how often, and when last (Unix seconds)."""
    rows = [
        {
            "key": f"account:{name}", "failures": 0, "consecutive": min(count, hard_cap), "not_before": 0.0,
            "last_failure_at": at, "last_success_at": 0.0, "last_tag": b"", "scope": "", "cap": hard_cap, "top": hard_cap,
        }
        for name, (count, at) in failures.items()
    ]  # fmt: skip
    if rows:
        _ADD.run_each(connection, rows)
