"""Alarms: what an administrator of an authority has to look at.

Room rule: the only file that reads or writes ``alarms``. Of one kind, host and user there is one alarm a day, so that nobody
can fill the store, or bury one alarm under others of its kind.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from mfa_runtime.store.ids import take
from mfa_runtime.store.prepared import Prepared
from mfa_runtime.store.schema import alarms

DAY_S = 86_400.0
MAX_DETAILS_CHARS = 2_000


class AlarmKind(enum.StrEnum):
    """What is the matter."""

    REPLAY_SUSPECTED = "replay_suspected"
    """One code was accepted in two places."""
    JOURNAL_FORK = "journal_fork"
    """A host's journal is not the one whose beginning is here: an old state of the host has come back."""
    CLONE_SUSPECTED = "clone_suspected"
    """Two machines have shown what one host has."""
    KEY_PROTECTION = "key_protection"
    """A host keeps its keys worse than its group demands, and gets no material."""
    CLOCK_OFFSET = "clock_offset"
    STORE_RESTORED = "store_restored"


@dataclass(frozen=True, slots=True)
class Alarm:
    """One alarm. ``host_id`` and ``user_id`` 0: none; ``seen_at`` 0: nobody has acknowledged it. Times are Unix seconds."""

    id: int
    at: float
    kind: AlarmKind
    host_id: int
    user_id: int
    details: Mapping[str, str | float]
    seen_at: float


_SAME = Prepared(
    select(alarms.c.id).where(
        alarms.c.kind == bindparam("what"),
        alarms.c.host_id == bindparam("host"),
        alarms.c.user_id == bindparam("who"),
        alarms.c.at > bindparam("after"),
        alarms.c.seen_at < bindparam("unseen"),
    )
)
_RAISE = Prepared(insert(alarms))
_COLUMNS = (alarms.c.id, alarms.c.at, alarms.c.kind, alarms.c.host_id, alarms.c.user_id, alarms.c.details, alarms.c.seen_at)


def raise_alarm(
    connection: Connection,
    kind: AlarmKind,
    *,
    now: float,
    host_id: int = 0,
    user_id: int = 0,
    details: Mapping[str, str | float] | None = None,
) -> bool:
    """Raise an alarm, unless one of this kind, host and user has been raised within a day and nobody has acknowledged it.

    ``now`` is Unix seconds; ``details`` never hold a secret or a code. Whether it was raised.
    """
    same = {"what": kind.value, "host": host_id, "who": user_id, "after": now - DAY_S, "unseen": 1.0}
    if _SAME.rows(connection, same):
        return False
    number = take(connection, "alarms")
    if _SAME.rows(connection, same):  # whoever took a number before us has committed by now
        return False
    text = json.dumps(dict(details or {}), sort_keys=True, separators=(",", ":"))
    if len(text) > MAX_DETAILS_CHARS:
        text = json.dumps({"cut": text[: MAX_DETAILS_CHARS // 4]}, separators=(",", ":"))
    _RAISE.run_rows(
        connection,
        ("id", "at", "kind", "host_id", "user_id", "details", "seen_at"),
        [(number, now, kind.value, host_id, user_id, text, 0.0)],
    )
    return True


def list_alarms(connection: Connection, *, unseen: bool = True, limit: int = 1_000) -> Iterator[Alarm]:
    """The newest alarms, newest first; ``unseen``: only those that nobody has acknowledged."""
    query = select(*_COLUMNS).order_by(alarms.c.id.desc()).limit(limit)
    if unseen:
        query = query.where(alarms.c.seen_at == 0)
    for number, at, kind, host_id, user_id, details, seen_at in connection.execute(query):
        yield Alarm(int(number), float(at), AlarmKind(kind), int(host_id), int(user_id), json.loads(details), float(seen_at))


def acknowledge(connection: Connection, number: int, now: float) -> bool:
    """An administrator has seen it. False when there is no such alarm, or it was seen before."""
    seen = update(alarms).where(alarms.c.id == number, alarms.c.seen_at == 0).values(seen_at=now)
    return connection.execute(seen).rowcount > 0


def forget(connection: Connection, before: float, *, keep: int = 100_000) -> int:
    """Forget alarms that were acknowledged before this Unix time, and the oldest of more than ``keep``; how many went."""
    gone = connection.execute(delete(alarms).where(alarms.c.seen_at > 0, alarms.c.seen_at < before)).rowcount
    over = connection.execute(select(alarms.c.id).order_by(alarms.c.id.desc()).offset(keep).limit(1)).scalar()
    if over is not None:
        gone += connection.execute(delete(alarms).where(alarms.c.id <= over)).rowcount
    return gone
