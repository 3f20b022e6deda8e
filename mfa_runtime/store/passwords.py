"""The rows of `primary: local`: one password hash for a user, or none.

Room rule: statements, and no decision. What a hash is stands in :mod:`mfa_runtime.password_hash`.
"""

from __future__ import annotations

from sqlalchemy import ClauseElement, Connection, bindparam, delete, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Dialect

from mfa_runtime.store.prepared import Prepared
from mfa_runtime.store.schema import passwords, users

_OF = Prepared(
    select(users.c.id, passwords.c.hash)
    .select_from(users.join(passwords, passwords.c.user_id == users.c.id))
    .where(users.c.name == bindparam("user_name"))
)


def password_key(name: str) -> str:
    """The key of a user's throttle record for passwords of our own; the canonical name."""
    return f"password:{name}"


def password_row(connection: Connection, name: str) -> tuple[int, str] | None:
    """The number of the user of this canonical name, and the hash; None without a password or a user."""
    rows = _OF.rows(connection, {"user_name": name})
    return (int(rows[0][0]), str(rows[0][1])) if rows else None


def _upsert(dialect: Dialect) -> ClauseElement:
    insert = postgresql.insert if dialect.name == "postgresql" else sqlite.insert
    statement = insert(passwords)
    changed = {name: statement.excluded[name] for name in ("hash", "changed_at")}
    return statement.on_conflict_do_update(index_elements=["user_id"], set_=changed)


_WRITE = Prepared(_upsert)


def write_password(connection: Connection, user_id: int, hashed: str, *, now: float) -> None:
    """Give a user this hash in place of another one. ``now`` is Unix seconds."""
    _WRITE.run_each(connection, [{"user_id": user_id, "hash": hashed, "changed_at": now}])


def drop_password(connection: Connection, user_id: int) -> bool:
    """Take the password away. Whether there was one."""
    return connection.execute(delete(passwords).where(passwords.c.user_id == user_id)).rowcount > 0
