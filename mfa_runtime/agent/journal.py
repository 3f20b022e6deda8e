"""What this host has decided is told to its authority: its audit chain, in order, once.

Room rule: reads the chain of this host, sends what the authority has not, and remembers how far that goes. What the authority
makes of it is its business. A chain is never changed: where the two sides' copies do not continue each other (this machine was
put back to an older state), a new one begins, and takes along what the authority cannot have heard. Where the authority has
less of the same chain than it had (its store was put back), it gets the rest once more.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlalchemy import Connection, select

from mfa_core.audit import GENESIS, AttemptDecided, By, Outcome
from mfa_core.errors import MfaError
from mfa_runtime.administration.act import LOCAL_NODE, Act
from mfa_runtime.agent.http import Authorities, Refused
from mfa_runtime.protocol.message import ProtocolError
from mfa_runtime.protocol.reporting import JournalHead, JournalRequest, read_journal_answer, read_refused
from mfa_runtime.protocol.words import JOURNAL, MAX_BODIES, Refusal
from mfa_runtime.store import agent_state, audit_log
from mfa_runtime.store.agent_state import AgentState
from mfa_runtime.store.database import Store
from mfa_runtime.store.schema import audit, audit_head

log = logging.getLogger(__name__)

MAX_PIECE_CHARS = 3 << 20
"""Of the events that are sent together."""


class Fork(MfaError):
    """The authority has another journal of this host than this one continues: that of ``epoch``, 0 where it did not say."""

    def __init__(self, message: str, *, cure: str = "", epoch: int = 0) -> None:
        super().__init__(message, cure=cure)
        self.epoch = epoch


@dataclass(frozen=True, slots=True)
class Piece:
    """Events that the authority has not, in their order: from ``first_seq`` on, after the hash ``previous``."""

    first_seq: int
    previous: bytes
    bodies: tuple[str, ...]
    head: JournalHead
    """How far the journal goes with them."""


def node_of(epoch: int) -> str:
    """The name of the audit chain that is a host's journal in an epoch, from 1 on."""
    return LOCAL_NODE if epoch <= 1 else f"{LOCAL_NODE}:{epoch}"


def head(connection: Connection, epoch: int) -> JournalHead:
    """How far this host's journal goes."""
    query = select(audit_head.c.seq, audit_head.c.hash).where(audit_head.c.node == node_of(epoch))
    row = connection.execute(query).first()
    return JournalHead(epoch=epoch, seq=0 if row is None else row.seq, hash=GENESIS if row is None else bytes(row.hash))


def unsent(connection: Connection, epoch: int, after: int) -> Piece | None:
    """The next events behind number ``after``; None where there are none."""
    node = node_of(epoch)
    rows = connection.execute(
        select(audit.c.seq, audit.c.body, audit.c.hash)
        .where(audit.c.node == node, audit.c.seq >= after)
        .order_by(audit.c.seq)
        .limit(MAX_BODIES + 1)
    ).all()
    previous = bytes(rows[0].hash) if rows and rows[0].seq == after else GENESIS
    new: list[Any] = []
    chars = 0
    for row in rows:
        chars += len(row.body)
        if row.seq <= after:
            continue
        if new and (len(new) == MAX_BODIES or chars > MAX_PIECE_CHARS):
            break
        new.append(row)
    if not new:
        return None
    last = new[-1]
    return Piece(
        new[0].seq, previous, tuple(row.body for row in new),
        JournalHead(epoch=epoch, seq=last.seq, hash=bytes(last.hash)),
    )  # fmt: skip


async def upload(
    authorities: Authorities,
    store: Store,
    run: Callable[[Callable[[], Any]], Awaitable[Any]],
    *,
    try_s: float,
) -> int:
    """Send until nothing is left; how many events went. ``run`` runs what waits for the store in another thread.

    Raises:
        Unreachable, Refused: as asking does; what was taken before is remembered.
        Fork: the authority has another journal; it has taken nothing.
        ProtocolError: it answers what cannot be read, that it has what it was not sent, or will not go on from where it is.
    """
    sent, again = 0, False
    while True:
        piece: Piece | None = await run(partial(_next, store))
        if piece is None:
            return sent
        request = JournalRequest(
            epoch=piece.head.epoch, first_seq=piece.first_seq, previous=piece.previous, bodies=piece.bodies
        )
        try:
            answer = await authorities.post(JOURNAL, request.octets(), try_s=try_s, budget_s=2 * try_s)
        except Refused as err:
            if err.code == Refusal.JOURNAL_FORK:
                its = read_refused(err.body).journal
                raise Fork(str(err), cure=err.cure, epoch=0 if its is None else its.epoch) from err
            raise
        taken = read_journal_answer(answer.body)
        if not again and await run(partial(go_back, store, taken, JournalHead(
            epoch=piece.head.epoch, seq=piece.first_seq - 1, hash=piece.previous
        ))):  # fmt: skip
            again = True
            continue
        # It may have more than we know: an answer of before was lost on the way.
        if taken.epoch != piece.head.epoch or taken.seq < piece.head.seq:
            raise ProtocolError(
                f"the authority has the journal up to {taken.epoch}:{taken.seq}, and was sent {piece.head.seq}",
                cure="see the log of the authority",
            )
        await run(partial(_sent_until, store, taken.epoch, taken.seq))
        sent += len(piece.bodies)


def _next(store: Store) -> Piece | None:
    with store.reading() as connection:
        state = agent_state.load(connection)
        return None if state is None else unsent(connection, state.journal_epoch, state.journal_seq)


def _sent_until(store: Store, epoch: int, seq: int) -> None:
    with store.writing() as connection:
        state = agent_state.load(connection)
        if state is not None and state.journal_epoch == epoch and state.journal_seq < seq:
            agent_state.change(connection, journal_seq=min(seq, head(connection, epoch).seq))


def go_back(store: Store, has: JournalHead, thought: JournalHead) -> bool:
    """The authority says how much of this journal it ``has``. Where that is less than it was ``thought`` to have, its store was
    put back to an older state: what follows is to be sent once more. Whether it is.

    Raises:
        Fork: it is not this journal that it has.
        StoreFull, StoreUnavailable: as writing does.
    """
    if has.epoch != thought.epoch or has.seq >= thought.seq:
        return False
    with store.writing() as connection:
        state = agent_state.load(connection)
        if state is None or state.journal_epoch != has.epoch:
            return False
        if audit_log.hash_at(connection, node_of(has.epoch), has.seq) != has.hash:
            raise Fork(
                f"the authority has another event {has.seq} of this journal than is here",
                cure="its store was restored, and to another journal than this host's: see `mfactl agent alarms` there",
                epoch=has.epoch,
            )
        if state.journal_seq > has.seq:
            agent_state.change(connection, journal_seq=has.seq)
    log.warning(
        "the authority has lost what this host told it after event %d (it had %d): it was restored, and is told again",
        has.seq, thought.seq,
    )  # fmt: skip
    return True


def begin_anew(connection: Connection, state: AgentState, act: Act, reason: str, *, after: int = 0) -> str:
    """Begin the journal of the next epoch, in the caller's transaction; return the name of its chain. The authority may know of
    epochs of which this host does not (any more): it is also the next one ``after`` those.

    What this host decided alone and has not sent, as far as it knows, stands at its beginning: the authority merges it as if it
    came late. Everything is asked for anew.
    """
    epoch = max(state.journal_epoch, after) + 1
    node = node_of(epoch)
    rest = connection.execute(
        select(audit.c.body)
        .where(audit.c.node == node_of(state.journal_epoch), audit.c.seq > state.journal_seq)
        .order_by(audit.c.seq)
    ).scalars()
    carried = [event for event in map(_decided_alone, rest) if event is not None]
    audit_log.append(connection, carried, node=node, keyring=act.keyring)
    Act(act.actor, act.now, act.random, act.keyring, node, act.told).record(
        connection, "agent.journal_fork", state.host_name, epoch=epoch, carried=len(carried), reason=reason
    )
    agent_state.change(connection, journal_epoch=epoch, journal_seq=0, cursor=-1, digest="")
    return node


def _decided_alone(body: str) -> AttemptDecided | None:
    """The event in this text, if it is an attempt that this host decided without its authority."""
    try:
        row = json.loads(body)
        if not isinstance(row, dict) or row.get("event") != "attempt" or row.get("by") != By.HOST:
            return None
        return AttemptDecided(
            event_id=row["id"], at=row["at"], door=row["door"], service=row["service"], user=row["user"],
            outcome=Outcome(row["outcome"]), reason=row.get("reason", ""), rule=row.get("rule", ""),
            source=row.get("source", ""), client=row.get("client", ""), factor=row.get("factor", ""),
            credential=row.get("credential", ""), step=row.get("step", -1), failures=row.get("failures", 0),
            note=row.get("note", ""), by=row["by"],
        )  # fmt: skip
    except (ValueError, KeyError):
        return None
