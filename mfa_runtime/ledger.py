"""One transaction for a batch of attempts: read, judge, spend, record.

Room rule: the only place where judgements become durable. Inside one writing transaction the attempts are judged one after
another, each on what the ones before it left, so that a batch is simple, serial and right; answers leave when it is durable.
Where another process is writing, a batch is judged while it waits, and once more if what it was judged on has changed.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import assert_never

from sqlalchemy import Connection

from mfa_core import texts
from mfa_core.audit import AttemptDecided, Event, Outcome
from mfa_core.errors import MfaError, StoreCorrupt, StoreFull, StoreUnavailable
from mfa_core.mirror import Ruled
from mfa_core.offline import Moment
from mfa_core.throttle import Throttle
from mfa_core.value import hot_value
from mfa_core.verdict import Accepted, Challenge, Exempt, Pending, Rejected, Unavailable, Unready, Verdict
from mfa_core.verifier import Judgement
from mfa_runtime.batch_locks import locks_of
from mfa_runtime.look import Freshness, Look
from mfa_runtime.sealing import Keyring, UnknownKey
from mfa_runtime.sitting import Entry, Lost, Sitting
from mfa_runtime.store import audit_log
from mfa_runtime.store.accounts import Account
from mfa_runtime.store.database import Session, Store

log = logging.getLogger(__name__)

MAX_DEFERRED = 10_000
"""Challenge events that may wait for the next transaction."""


@hot_value
class Ruling:
    """What became of an entry. ``may_enrol``: the refusal may be turned into an enrolment.

    ``judgement`` is what the verdict comes from; None where none was possible.
    """

    verdict: Verdict
    may_enrol: bool = False
    judgement: Judgement | None = None


def ruled_of(ruling: Ruling) -> Ruled:
    """What an authority tells the host that asked."""
    verdict, judgement = ruling.verdict, ruling.judgement
    if judgement is None or isinstance(verdict, Unavailable | Pending):
        return Ruled(Outcome.UNAVAILABLE, verdict.reason if isinstance(verdict, Unavailable) else Unready.INTERNAL)
    event, spent = judgement.event, judgement.credential
    said = Ruled(
        event.outcome,
        rule=event.rule,
        factor=event.factor,
        credential=event.credential,
        step=event.step,
        note=event.note,
    )
    match verdict:
        case Accepted():
            drift = 0 if spent is None else spent.drift_steps
            return replace(said, drift_steps=drift, reading=judgement.reading, notices=verdict.notices)
        case Exempt():
            return replace(said, exemption=verdict.exemption, notices=verdict.notices, until=judgement.grace_until)
        case Rejected():
            return replace(
                said,
                reason=event.reason,
                text=verdict.public_text,
                retry_after_s=verdict.retry_after_s,
                counted=event.failures > 0,
            )
        case Challenge():
            return replace(said, until=verdict.expires_at)
        case _:
            assert_never(verdict)


Sink = Callable[[Sequence[str]], None]
"""Receives canonical audit texts when they are durable."""

FORESIGHT_BATCHES = 32
"""So many batches are judged before their transaction after another process was met in one."""
FORESIGHT_S = 1.0
"""What was judged longer ago is judged again: codes, waits and challenges end by the clock."""


class Ledger:
    """Judges batches against the store. Two threads use it, in turns: the loop's where it need not wait, else the writer's."""

    def __init__(
        self,
        store: Store,
        *,
        keyring: Keyring,
        reload_keyring: Callable[[], Keyring],
        node: str,
        clock: Callable[[], float],
        sink: Sink,
        moment: Callable[[float], Moment] | None = None,
        records_uses: bool = False,
    ) -> None:
        """``moment`` is there on an agent: what the host's clocks say when ``clock`` says this. ``records_uses``: an authority
        writes down which code was used where, in the transaction that accepts it."""
        self._moment = moment
        self._records_uses = records_uses
        self._session = store.session(settles=True)
        self._asking = store.session()
        self._asks_at_once = store.answers_at_once
        self._several_writers = store.several_writers
        self._keyring = keyring
        self._reload_keyring = reload_keyring
        self._node = node
        self._clock = clock
        self._sink = sink
        self._deferred: deque[AttemptDecided] = deque()
        self._told: deque[str] = deque(maxlen=MAX_DEFERRED)
        self._committed: deque[str] = deque()
        self._settling = threading.Lock()
        self._turn = threading.Lock()
        """Whose turn the session is."""
        self._crowded = 0
        self._freshness = Freshness()
        self.written = 0
        """Events that were committed: what the write-ahead log holds is about ten kilobytes each."""

    @property
    def node(self) -> str:
        """The audit chain that is written."""
        return self._node

    def begin_chain(self, node: str) -> None:
        """Write another audit chain from the next transaction on; waits for the one under way. Any thread may call it."""
        with self._turn:
            self._node = node

    @property
    def keyring(self) -> Keyring:
        """The keys as last loaded."""
        return self._keyring

    def process(self, entries: Sequence[Entry]) -> list[Ruling]:
        """Answer every entry, in order, durably. Never raises: what breaks is ``Unavailable``."""
        rulings = self.commit(entries)
        try:
            self.settle()
        except MfaError as err:
            return [self._broken(entry, err) for entry in entries]
        return rulings

    def settle(self) -> None:
        """Return when all that was committed is durable, and tell the sinks. Any thread may call it.

        Raises:
            StoreFull: it is not, and what :meth:`commit` answered must not be told.
        """
        with self._settling:
            bodies = [self._committed.popleft() for _ in range(len(self._committed))]
            if bodies:
                try:
                    self._session.settle()
                except BaseException:
                    self._committed.extendleft(reversed(bodies))
                    raise
            bodies[:0] = [self._told.popleft() for _ in range(len(self._told))]
            if bodies:
                self._sink(bodies)

    def commit(self, entries: Sequence[Entry]) -> list[Ruling]:
        """Answer every entry, in order; the answers hold when :meth:`settle` has returned. Never raises, as :meth:`process`.

        Questions (nothing typed) are answered from a reading transaction when the answer is a challenge: it gives nothing
        away, so its event may wait for the next write. Everything else is written before it is answered.
        """
        with self._turn:
            return self._commit(entries)

    def commit_now(self, entries: Sequence[Entry]) -> list[Ruling] | None:
        """As :meth:`commit`, where it is asked, on the loop's thread: a few short attempts cost less than the hand-overs
        between two threads that take the interpreter from each other at each statement. None, and nothing is written, where it
        would have to wait, or anything is out of order: :meth:`commit` finds out what.
        """
        if not self._asks_at_once or self._crowded or not self._turn.acquire(blocking=False):
            return None
        try:
            return self._write(entries, now=True)
        except Exception as err:  # noqa: BLE001  it breaks again where it is answered
            log.debug("a batch is left to the writer's thread: %s", err)
            return None
        finally:
            self._turn.release()

    def _commit(self, entries: Sequence[Entry]) -> list[Ruling]:
        rulings: list[Ruling | None] = [None] * len(entries)
        asking = [i for i, e in enumerate(entries) if e.attempt.typed is None and e.told is None]
        if asking:
            answers = self._questions(self._session, [entries[i] for i in asking])
            for i, ruling in zip(asking, answers, strict=True):
                rulings[i] = ruling
        rest = [i for i, ruling in enumerate(rulings) if ruling is None]
        if rest:
            for i, ruling in zip(rest, self._batch([entries[i] for i in rest]), strict=True):
                rulings[i] = ruling
        return [ruling for ruling in rulings if ruling is not None]

    def note(self, event: AttemptDecided) -> None:
        """Keep the event of a verdict that was found elsewhere, for the next transaction. Any thread may call it."""
        if len(self._deferred) < MAX_DEFERRED:
            self._deferred.append(event)

    def tell(self, bodies: Sequence[str]) -> None:
        """Hand the sinks what somebody else has committed to the audit log. Any thread may call it."""
        self._told.extend(bodies)

    def reload_keys(self) -> Keyring:
        """Load the keys again, because a value was sealed under one that is not here. Raises: MfaError."""
        self._keyring = self._reload_keyring()
        return self._keyring

    def flush(self) -> None:
        """Write the events that wait. Called when there is nothing else to do, and at the end."""
        try:
            if self._deferred:
                with self._turn:
                    self._write([])
            self.settle()
        except MfaError as err:
            log.error("%d audit events wait: %s", len(self._deferred), err)

    def question(self, entry: Entry) -> Ruling | None:
        """Answer one question where it is asked, on the loop's thread; None when it has to be queued.

        Most logins begin with one. A challenge is decided by a read of a few pages, which never waits for a writer; two
        hand-overs between threads cost more than that.
        """
        return self._questions(self._asking, [entry])[0] if self._asks_at_once else None

    def standing(self, connection: Connection, entry: Entry) -> tuple[Account | None, Throttle]:
        """What the store holds now about an entry's user and its throttle, for what must be known before it is judged.

        Raises:
            UnknownKey, StoreCorrupt, StoreUnavailable: as reading does.
        """
        (look,) = Sitting(connection, [entry], self._keyring, self._clock()).looks(self._freshness.mark)
        return look.account, look.throttle

    def look(self, entries: Sequence[Entry]) -> list[Look] | None:
        """As :meth:`standing` for each entry, where it is asked, on the loop's thread; None where that takes longer or fails.

        What was found may stand in the entry: it is not read again where it still holds. Who gets None asks for one at a time,
        and hears what is wrong with which.
        """
        if not self._asks_at_once:
            return None
        mark = self._freshness.mark
        # The writer's session has the pages in memory; those of any other one are dropped at each commit.
        mine = self._turn.acquire(blocking=False)
        try:
            with self._session.looking() if mine else self._asking.reading() as connection:
                return Sitting(connection, entries, self._keyring, self._clock()).looks(mark)
        except Exception as err:  # noqa: BLE001  it breaks again where it is answered
            log.debug("a look at the store failed: %s", err)
            return None
        finally:
            if mine:
                self._turn.release()

    def _questions(self, session: Session, entries: Sequence[Entry]) -> list[Ruling | None]:
        try:
            with session.reading() as connection:
                judged = Sitting(
                    connection, entries, self._keyring, self._clock(), moment=self._moment, is_asking=True
                ).judge()
        except StoreCorrupt:
            # The writing path loads the keys again, and finds out whose row it is: the others are asked all the same.
            return [None] * len(entries)
        except MfaError as err:
            return [self._broken(entry, err) for entry in entries]
        rulings: list[Ruling | None] = []
        for judgement in judged:
            if isinstance(judgement.verdict, Challenge) and len(self._deferred) < MAX_DEFERRED:
                self._deferred.append(judgement.event)
                rulings.append(Ruling(judgement.verdict, judgement=judgement))
            else:
                rulings.append(None)
        return rulings

    def _batch(self, entries: Sequence[Entry]) -> list[Ruling]:
        try:
            return self._session.persist(partial(self._write, entries))
        except UnknownKey as err:
            return self._with_new_keys(entries, err)
        except (StoreCorrupt, Lost) as err:
            if len(entries) == 1:
                return [self._alone(entries[0], err)]
            # One row that does not open, or one lost race, is one login's trouble and not its neighbours'.
            return [ruling for entry in entries for ruling in self._batch([entry])]
        except MfaError as err:
            return [self._broken(entry, err) for entry in entries]
        except Exception:
            # A row or a text that nobody thought of: whose it is shows when each is judged alone, and nothing was written.
            if len(entries) > 1:
                return [ruling for entry in entries for ruling in self._batch([entry])]
            log.exception("attempt %s broke its judgement", entries[0].attempt.event_id)
            return [self._broken(entries[0], StoreCorrupt("internal error", cure="report the traceback above"))]

    def _with_new_keys(self, entries: Sequence[Entry], err: UnknownKey) -> list[Ruling]:
        try:
            keyring = self._reload_keyring()
        except MfaError as problem:
            return [self._broken(entry, problem) for entry in entries]
        if keyring.numbers == self._keyring.numbers:
            if len(entries) == 1:
                return [self._broken(entries[0], err)]
            return [ruling for entry in entries for ruling in self._batch([entry])]
        self._keyring = keyring
        return self._batch(entries)

    def _alone(self, entry: Entry, err: MfaError) -> Ruling:
        if isinstance(err, Lost):
            for _ in range(_RACES):
                try:
                    return self._session.persist(partial(self._write, [entry]))[0]
                except Lost:
                    continue
                except MfaError as problem:
                    return self._broken(entry, problem)
        return self._broken(entry, err)

    def _write(self, entries: Sequence[Entry], *, now: bool = False) -> list[Ruling]:
        deferred = [self._deferred.popleft() for _ in range(len(self._deferred))]
        foreseen: list[tuple[Sitting, list[Judgement]]] = []

        def foresee() -> None:
            # A hash's row is read by the judgement itself, which must then stand in the transaction.
            if entries and not foreseen and all(entry.proof is None for entry in entries):
                foreseen.extend(self._foresee(entries))

        def meanwhile() -> None:
            self._crowded = FORESIGHT_BATCHES
            foresee()

        if self._crowded:
            self._crowded -= 1
            foresee()
        try:
            locks = () if now or not self._several_writers else tuple(locks_of(entries, self._keyring))
            with self._session.writing_now() if now else self._session.writing(meanwhile, locks=locks) as connection:
                sitting, judged = self._judged(connection, entries, foreseen)
                sitting.write()
                events: list[Event] = [*deferred, *(judgement.event for judgement in judged)]
                bodies = audit_log.append(connection, events, node=self._node, keyring=self._keyring)
        except BaseException:
            self._deferred.extendleft(reversed(deferred))
            raise
        self._freshness.committed(sitting.touched())
        self.written += len(bodies)
        self._committed.extend(bodies)
        return [Ruling(judgement.verdict, judgement.may_enrol, judgement) for judgement in judged]

    def _judged(
        self, connection: Connection, entries: Sequence[Entry], foreseen: Sequence[tuple[Sitting, list[Judgement]]]
    ) -> tuple[Sitting, list[Judgement]]:
        now = self._clock()
        for sitting, judged in foreseen:
            if 0 <= now - sitting.now < FORESIGHT_S and sitting.still_holds(connection):
                return sitting, judged
        holds = None
        if self._asks_at_once:
            self._freshness.meet(self._session.version())
            holds = self._freshness.holds
        sitting = Sitting(
            connection, entries, self._keyring, now, holds, moment=self._moment, records_uses=self._records_uses
        )
        return sitting, sitting.judge()

    def _foresee(self, entries: Sequence[Entry]) -> list[tuple[Sitting, list[Judgement]]]:
        """Judge before the transaction, on what there is to read now. Nothing comes of it unless it still holds then."""
        try:
            with self._session.reading() as connection:
                sitting = Sitting(
                    connection, entries, self._keyring, self._clock(), moment=self._moment, records_uses=self._records_uses
                )
                return [(sitting, sitting.judge())]
        except Exception as err:  # noqa: BLE001  it breaks in the transaction again, where it is answered
            log.debug("a batch could not be judged beforehand: %s", err)
            return []

    def _broken(self, entry: Entry, err: MfaError) -> Ruling:
        """Refuse, say why in the log, and keep the event for when the store can be written again."""
        attempt = entry.attempt
        reason = _UNREADY.get(type(err), Unready.INTERNAL)
        log.error("attempt %s could not be decided (%s): %s; %s", attempt.event_id, reason, err, err.cure)
        self.note(
            AttemptDecided(
                event_id=attempt.event_id,
                at=self._clock(),
                door=attempt.door,
                service=attempt.service,
                user=entry.name or attempt.username,
                outcome=Outcome.UNAVAILABLE,
                reason=reason,
                rule=entry.decision.rule,
                source=attempt.source or "",
                client=attempt.client,
            )
        )
        if reason is Unready.STORE_FULL:
            return Ruling(Unavailable(attempt.event_id, reason, texts.CANNOT_RECORD))
        return Ruling(Unavailable(attempt.event_id, reason))


_RACES = 5
_UNREADY = {StoreFull: Unready.STORE_FULL, StoreUnavailable: Unready.STORE, Lost: Unready.STORE}
