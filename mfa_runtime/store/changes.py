"""What changed since a host last asked: numbers from one clock, and a row for each topic that has to hear of it.

Room rule: the only file that reads or writes ``sync_clock`` and ``changes``. The statements are prepared, so that a login's
transaction may note a change as well as an administrator's.

A number is taken by an UPDATE of the one row of ``sync_clock``, in the transaction of the change: until that has ended, nobody
else gets one, so that whoever sees number N sees all that is below. Where there is no such row (no authority) nothing is noted.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from sqlalchemy import BigInteger, ClauseElement, Connection, Integer, bindparam, delete, func, insert, select, tuple_, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Dialect

from mfa_runtime.store.prepared import Prepared, PreparedIn
from mfa_runtime.store.schema import changes, memberships, sync_clock, users

EVERYBODY = "group:*"
"""The topic of every change of any user."""
RULES = "rules"
"""The topic of the policy."""
_ROW = 1
_NO_USER = 0
_LAST_USER = 2**63 - 1


def group_topic(user_group: str) -> str:
    """The topic of the users of a group."""
    return f"group:{user_group}"


def host_group_topic(host_group: str) -> str:
    """The topic of what holds for all hosts of a group: its scope and its terms."""
    return f"hostgroup:{host_group}"


def host_topic(host_id: int) -> str:
    """The topic of one host."""
    return f"host:{host_id}"


class Change(NamedTuple):
    """One row. ``user_id`` is 0 where the topic itself has changed."""

    seq: int
    user_id: int
    topic: str


_HAS_CLOCK = Prepared(select(sync_clock.c.seq).where(sync_clock.c.id == _ROW))
_TICK = Prepared(
    update(sync_clock).where(sync_clock.c.id == _ROW).values(seq=sync_clock.c.seq + 1).returning(sync_clock.c.seq)
)
_STAMP = Prepared(update(users).where(users.c.id == bindparam("number")).values(version=bindparam("seq_now")))
_GROUPS = PreparedIn(
    lambda wanted: select(memberships.c.user_id, memberships.c.user_group).select_from(
        wanted.join(memberships, memberships.c.user_id == wanted.c.wanted)
    ),
    BigInteger(),
)
_NOTE = Prepared(insert(changes))


def begin_clock(connection: Connection) -> bool:
    """Make this the store of an authority, if it is not yet: from here on, changes are noted. Whether it was begun now.

    The users that are there keep version 0, "as it was when the clock began": no host has heard of anything before, and their
    first change gives them a number.
    """
    return _BEGIN.run(connection, {"id": _ROW, "seq": 1}) > 0


def _insert_clock(dialect: Dialect) -> ClauseElement:
    insert_ = postgresql.insert if dialect.name == "postgresql" else sqlite.insert
    return insert_(sync_clock).on_conflict_do_nothing(index_elements=["id"])


_BEGIN = Prepared(_insert_clock)


def now_at(connection: Connection) -> int:
    """The number of the last change; 0 where there is no clock.

    Whoever pages through :func:`since` reads this first: what comes in later has a greater number, and is read next time.
    """
    rows = _HAS_CLOCK.rows(connection, {})
    return int(rows[0][0]) if rows else 0


def note_user(connection: Connection, user_id: int, now: float, *, also: Collection[str] = ()) -> int:
    """As :func:`note_users`, of one user."""
    return note_users(connection, [user_id], now, also=also)


def note_users(connection: Connection, user_ids: Sequence[int], now: float, *, also: Collection[str] = ()) -> int:
    """Note that what hosts know of these users has changed; return the number of the change, 0 where there is no clock.

    Must run in the transaction of the change. The topics are those of the groups that the users are in at that moment, and
    ``also``: whoever takes a user out of a group names it there. ``now`` is Unix seconds.
    """
    seq = _tick(connection) if user_ids else 0
    if not seq:
        return 0
    numbers = list(dict.fromkeys(user_ids))
    _STAMP.run_rows(connection, ("seq_now", "number"), [(seq, number) for number in numbers])
    rows = {(EVERYBODY, seq, number, now) for number in numbers}
    rows |= {(topic, seq, number, now) for topic in also for number in numbers}
    rows |= {(group_topic(group), seq, int(number), now) for number, group in _GROUPS.rows(connection, numbers)}
    _NOTE.run_rows(connection, ("topic", "seq", "user_id", "at"), sorted(rows))
    return seq


def note_topic(connection: Connection, topic: str, now: float) -> int:
    """Note that a topic itself has changed (a scope, terms, rules, one host); the number, 0 where there is no clock."""
    seq = _tick(connection)
    if seq:
        _NOTE.run_rows(connection, ("topic", "seq", "user_id", "at"), [(topic, seq, _NO_USER, now)])
    return seq


def _tick(connection: Connection) -> int:
    rows = _TICK.rows(connection, {})
    return int(rows[0][0]) if rows else 0


_SINCE = Prepared(
    select(changes.c.seq, changes.c.user_id, changes.c.topic)
    .where(
        changes.c.topic == bindparam("about"),
        tuple_(changes.c.seq, changes.c.user_id)
        > tuple_(bindparam("after_seq", type_=BigInteger), bindparam("after_user", type_=BigInteger)),
    )
    .order_by(changes.c.seq, changes.c.user_id)
    .limit(bindparam("most", type_=Integer))
)


def since(
    connection: Connection, topics: Iterable[str], after: int, limit: int, *, after_user: int = _LAST_USER
) -> list[Change]:
    """The first ``limit`` changes of these topics after number ``after``, in order; a user in two groups comes twice.

    An import is one change of many users: with ``after_user`` the rest of change ``after`` comes first, behind that user. Each
    topic is a range of an index: what others heard of costs nothing.
    """
    asked = {"after_seq": after, "after_user": after_user, "most": limit}
    found = [
        [Change(int(seq), int(user_id), name) for seq, user_id, name in _SINCE.rows(connection, asked | {"about": topic})]
        for topic in sorted(set(topics))
    ]
    return list(heapq.merge(*found))[:limit]


_LATEST = Prepared(select(func.max(changes.c.seq)).where(changes.c.topic == bindparam("about")))


def latest(connection: Connection, topics: Iterable[str]) -> int:
    """The number of the last change of these topics; 0 for none that is remembered."""
    return max((int(_LATEST.rows(connection, {"about": topic})[0][0] or 0) for topic in topics), default=0)


def topics_since(connection: Connection, after: int, limit: int) -> list[tuple[int, str]]:
    """The first ``limit`` pairs of a number after ``after`` and a topic of it, in order, however many users each is about."""
    told = (
        select(changes.c.seq, changes.c.topic)
        .where(changes.c.seq > after)
        .distinct()
        .order_by(changes.c.seq, changes.c.topic)
        .limit(limit)
    )
    return [(int(seq), str(topic)) for seq, topic in connection.execute(told)]


_OLDEST = select(func.min(changes.c.seq))


def oldest(connection: Connection) -> int:
    """Whose cursor is below this has missed what was forgotten since: only all of it brings that host up to date."""
    found = connection.execute(_OLDEST).scalar()
    return now_at(connection) if found is None else int(found) - 1


def forget(connection: Connection, before: float, *, limit: int = 10_000) -> int:
    """Forget up to ``limit`` numbers of changes from before this Unix time, oldest first; how many rows went.

    Numbers go in order, whatever the clock on the wall did meanwhile: :func:`oldest` says what is left.
    """
    last = connection.execute(select(func.max(changes.c.seq)).where(changes.c.at < before)).scalar()
    if last is None:
        return 0
    up_to = min(int(last), int(connection.execute(_OLDEST).scalar_one()) + limit - 1)
    return connection.execute(delete(changes).where(changes.c.seq <= up_to)).rowcount


def clear(connection: Connection, *, seq: int) -> None:
    """Set the clock to ``seq`` and forget every change: each host must fetch all of it (a restore)."""
    connection.execute(delete(changes))
    connection.execute(update(sync_clock).where(sync_clock.c.id == _ROW).values(seq=seq))
