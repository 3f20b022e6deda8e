"""The audit chain in the store: append, read, verify.

Room rule: the only file that writes ``audit`` and ``audit_head``. Every event is appended in the transaction of what it
tells about, so that neither exists without the other. Each node has a chain of its own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import Connection, bindparam, insert, select, update

from mfa_core.audit import GENESIS, Event, canonical, link
from mfa_runtime.sealing import Keyring
from mfa_runtime.store.prepared import Prepared
from mfa_runtime.store.schema import audit, audit_head

_READ_HEAD = Prepared(
    select(audit_head.c.seq, audit_head.c.hash).where(audit_head.c.node == bindparam("n")).with_for_update()
)
_MOVE_HEAD = Prepared(
    update(audit_head)
    .where(audit_head.c.node == bindparam("n"))
    .values(seq=bindparam("s"), hash=bindparam("h"), mac=bindparam("m"))
)
_INSERT_HEAD = Prepared(insert(audit_head))
_INSERT = Prepared(insert(audit))


class Told(NamedTuple):
    """An event as text: its id, when it was (Unix seconds), and the canonical JSON."""

    event_id: str
    at: float
    body: str


def append(connection: Connection, events: Sequence[Event], *, node: str, keyring: Keyring) -> list[str]:
    """Append events to this node's chain, in order; return their canonical texts for the sinks.

    Must run inside the writing transaction of what the events tell about.
    """
    told = [(event.event_id, event.at, canonical(event)) for event in events]
    append_told(connection, told, node=node, keyring=keyring)
    return [body for _, _, body in told]


def append_told(
    connection: Connection, told: Sequence[Told | tuple[str, float, str]], *, node: str, keyring: Keyring
) -> None:
    """As :func:`append`, of events that somebody else has written out: what a host brings of its own chain."""
    head = _READ_HEAD.rows(connection, {"n": node})
    seq, previous = (int(head[0][0]), bytes(head[0][1])) if head else (0, GENESIS)
    rows: list[tuple[str, int, str, float, str, bytearray]] = []
    for event_id, at, body in told:
        seq += 1
        previous = link(previous, body)
        # A bytearray, because sqlite3 looks for adapters of bytes each time: that takes longer than the hash.
        rows.append((node, seq, event_id, at, body, bytearray(previous)))
    if not rows:
        return
    _INSERT.send_rows(connection, ("node", "seq", "event_id", "at", "body", "hash"), rows)
    mac = keyring.audit_mac(_head_bytes(node, seq, previous))
    if head:
        _MOVE_HEAD.send(connection, {"n": node, "s": seq, "h": previous, "m": mac})
    else:
        _INSERT_HEAD.send(connection, {"node": node, "seq": seq, "hash": previous, "mac": mac})


_HASH_AT = Prepared(select(audit.c.hash).where(audit.c.node == bindparam("n"), audit.c.seq == bindparam("s")))


def hash_at(connection: Connection, node: str, seq: int) -> bytes | None:
    """The hash of event ``seq`` of a node; :data:`GENESIS` before the first, None for one that is not here."""
    if seq == 0:
        return GENESIS
    rows = _HASH_AT.rows(connection, {"n": node, "s": seq})
    return bytes(rows[0][0]) if rows else None


def _head_bytes(node: str, seq: int, digest: bytes) -> bytes:
    return f"{node}|{seq}|".encode() + digest


@dataclass(frozen=True, slots=True)
class ChainReport:
    """What verification found in one node's chain. ``problems`` is empty when the chain is whole."""

    node: str
    events: int
    problems: tuple[str, ...]


_MAX_PROBLEMS = 20
_STREAMED = {"yield_per": 2000}


def verify(connection: Connection, *, keyring: Keyring) -> Iterator[ChainReport]:
    """Walk every chain: gaps, reordered or changed events, and a cut tail (the head is signed) are reported.

    A store has events from its first minute on: one without any was emptied, and that is reported as well.
    """
    heads = {row.node: row for row in connection.execute(select(audit_head))}
    nodes = set(heads) | set(connection.execute(select(audit.c.node).distinct()).scalars())
    if not nodes:
        yield ChainReport("(none)", 0, ("there is no event and no signed head: the audit log was emptied",))
    for node in sorted(nodes):
        problems: list[str] = []
        count, expected, previous = 0, 1, GENESIS
        rows = connection.execute(
            select(audit.c.seq, audit.c.body, audit.c.hash, audit.c.event_id)
            .where(audit.c.node == node)
            .order_by(audit.c.seq),
            execution_options=_STREAMED,
        )
        for row in rows:
            if len(problems) >= _MAX_PROBLEMS:
                continue
            count += 1
            if row.seq != expected:
                problems.append(f"events {expected} to {row.seq - 1} are missing")
            digest = bytes(row.hash)
            if row.seq == expected and link(previous, row.body) != digest:
                problems.append(f"event {row.seq} ({row.event_id}) or the one before it was changed")
            elif _id_of(row.body) != row.event_id:
                problems.append(f"event {row.seq} stands under another id ({row.event_id})")
            expected, previous = row.seq + 1, digest
        head = heads.get(node)
        if head is None:
            problems.append("the signed head is missing")
        elif head.seq != expected - 1 or bytes(head.hash) != previous:
            problems.append(
                f"the chain ends at event {expected - 1}, its signed head says {head.seq}: the tail was cut or added to"
            )
        elif keyring.audit_mac(_head_bytes(node, head.seq, bytes(head.hash))) != bytes(head.mac):
            problems.append("the signature of the head is wrong: the chain was rewritten")
        yield ChainReport(node, count, tuple(problems))


def _id_of(body: str) -> str | None:
    try:
        value = json.loads(body)
    except ValueError:
        return None
    return value.get("id") if isinstance(value, dict) else None


@dataclass(frozen=True, slots=True)
class Entry:
    """One event as it stands in the log."""

    node: str
    seq: int
    body: str
    hash: bytes


def tail(connection: Connection, *, limit: int, after: tuple[str, int] | None = None) -> list[Entry]:
    """The newest ``limit`` events, oldest first; with ``after`` (node, seq): those that followed it on that node."""
    query = select(audit.c.node, audit.c.seq, audit.c.body, audit.c.hash)
    if after is not None:
        query = query.where(audit.c.node == after[0], audit.c.seq > after[1]).order_by(audit.c.seq).limit(limit)
        return [Entry(r.node, r.seq, r.body, bytes(r.hash)) for r in connection.execute(query)]
    query = query.order_by(audit.c.at.desc() if _several_nodes(connection) else audit.c.seq.desc()).limit(limit)
    return [Entry(r.node, r.seq, r.body, bytes(r.hash)) for r in connection.execute(query)][::-1]


def _several_nodes(connection: Connection) -> bool:
    return len(connection.execute(select(audit_head.c.node).limit(2)).all()) > 1


def find(connection: Connection, event_id: str) -> list[Entry]:
    """The events with this id (an attempt has one)."""
    query = select(audit.c.node, audit.c.seq, audit.c.body, audit.c.hash).where(audit.c.event_id == event_id)
    return [Entry(r.node, r.seq, r.body, bytes(r.hash)) for r in connection.execute(query)]


def every(connection: Connection) -> Iterator[Entry]:
    """All events, chain by chain, in order, streamed."""
    query = select(audit.c.node, audit.c.seq, audit.c.body, audit.c.hash).order_by(audit.c.node, audit.c.seq)
    for r in connection.execute(query, execution_options=_STREAMED):
        yield Entry(r.node, r.seq, r.body, bytes(r.hash))
