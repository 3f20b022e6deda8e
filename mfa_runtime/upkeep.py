"""What has to be done to a store from time to time: checkpoints, forgetting, and the proof that it is not an old copy.

Room rule: runs beside the logins and never in their way.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, delete, func, select

from mfa_core.errors import StoreCorrupt, StoreUnavailable
from mfa_core.throttle import ThrottleRules
from mfa_runtime.administration.join_tokens import forget_tokens
from mfa_runtime.store import alarms, changes, hosts, uses
from mfa_runtime.store.database import Store, read_meta
from mfa_runtime.store.schema import audit_head, spent_challenges, throttle

log = logging.getLogger(__name__)

CHECKPOINT_AT_EVENTS = 400
"""The write-ahead log is moved into the database after this many events: about 200 logins, 4 MiB."""
CHECKPOINT_AFTER_S = 60.0
"""Or this long after the last time, when there were any."""
LOG_BYTES = 6 * 1024 * 1024
"""How long the write-ahead log is made at start: longer than what is written between two checkpoints."""
MAX_SOURCES = 200_000
"""Sources that are remembered at most; the ones that were quiet for longest go first."""
CHALLENGE_MEMORY_S = 600.0
"""How long after its end an answered challenge is remembered: a clock that steps back by less revives none."""
CHALLENGES_AT_ONCE = 10_000
"""Answered challenges that are forgotten in one transaction: logins wait for it."""
DAY_S = 86_400.0
CHANGES_MEMORY_S = 30 * DAY_S
USES_MEMORY_S = 30 * DAY_S
"""And as long as a host may be alone."""
TOKENS_MEMORY_S = 30 * DAY_S
ALARMS_MEMORY_S = 365 * DAY_S
"""From when somebody has acknowledged one."""
ROWS_AT_ONCE = 10_000
HIGH_WATER_FILE = "high-water"


@dataclass(frozen=True, slots=True)
class Forgotten:
    """How many throttle records, answered challenges and rows of an authority a sweep deleted."""

    lanes: int
    sources: int
    challenges: int = 0
    hosts: int = 0


class WriteAheadLog:
    """Keeps commits short: a log that neither grows nor has to be moved in a commit.

    A commit that makes the file longer has to write the file system's journal as well: twice the time, measured. So the log is
    made long once, and checkpoints beside the logins let it be written over from its beginning. ``written`` counts events.
    """

    def __init__(self, store: Store, *, written: Callable[[], int], monotonic: Callable[[], float]) -> None:
        self._store = store
        self._written = written
        self._monotonic = monotonic
        self._moved = 0
        self._moved_at = monotonic()

    def make_long(self) -> None:
        """Do this once at start. A disk without room for it is no reason not to start."""
        try:
            self._store.lengthen_log(LOG_BYTES)
        except StoreUnavailable as err:
            log.warning("the write-ahead log could not be lengthened: %s; %s", err, err.cure)

    def checkpoint_if_due(self) -> bool:
        """Checkpoint when enough was written, or some and long ago; whether it did."""
        written, now = self._written(), self._monotonic()
        new = written - self._moved
        if new < CHECKPOINT_AT_EVENTS and not (new and now - self._moved_at >= CHECKPOINT_AFTER_S):
            return False
        self._moved, self._moved_at = written, now
        self._store.checkpoint()
        return True


def forget(store: Store, *, now: float, rules: ThrottleRules) -> Forgotten:
    """Delete what no longer says anything: lanes without a late success, sources that were forgiven, challenges long over.

    Records of accounts stay: consecutive failures never expire by themselves (NIST SP 800-63B-4 section 3.2.2).
    """
    with store.writing() as connection:
        lanes = connection.execute(
            delete(throttle).where(
                throttle.c.key.like("lane:%"),
                throttle.c.last_success_at < now - rules.lane_memory_s,
                throttle.c.not_before < now,
            )
        ).rowcount
        forgiven_at = now - rules.forgive_s * throttle.c.failures
        sources = connection.execute(
            delete(throttle).where(
                throttle.c.key.like("source:%"), throttle.c.last_failure_at < forgiven_at, throttle.c.not_before < now
            )
        ).rowcount
        over = connection.execute(
            select(throttle.c.last_failure_at)
            .where(throttle.c.key.like("source:%"))
            .order_by(throttle.c.last_failure_at.desc())
            .offset(MAX_SOURCES)
            .limit(1)
        ).scalar()
        if over is not None:
            sources += connection.execute(
                delete(throttle).where(throttle.c.key.like("source:%"), throttle.c.last_failure_at <= over)
            ).rowcount
    return Forgotten(lanes, sources, _forget_challenges(store, now), _forget_of_hosts(store, now))


def _forget_challenges(store: Store, now: float) -> int:
    over = select(spent_challenges.c.id).where(spent_challenges.c.expires_at < now - CHALLENGE_MEMORY_S)
    count = 0
    while True:
        with store.writing() as connection:
            found = connection.execute(
                delete(spent_challenges).where(spent_challenges.c.id.in_(over.limit(CHALLENGES_AT_ONCE)))
            ).rowcount
        count += found
        if found < CHALLENGES_AT_ONCE:
            return count


def _forget_of_hosts(store: Store, now: float) -> int:
    """What an authority keeps for its hosts: changes that a host has heard of long ago, uses that none can bring any more.

    A host that was away for longer fetches everything; a journal that comes later is still merged, and what it accepted is
    compared with the watermark alone.
    """
    with store.reading() as connection:
        if not changes.now_at(connection):
            return 0
        longest = max((group.max_offline_s for group in hosts.every_group(connection)), default=0.0)
    count = 0
    sweeps: tuple[Callable[[Connection], int], ...] = (
        lambda c: changes.forget(c, now - CHANGES_MEMORY_S, limit=ROWS_AT_ONCE),
        lambda c: uses.forget(c, now - USES_MEMORY_S - longest, limit=ROWS_AT_ONCE),
        lambda c: forget_tokens(c, now - TOKENS_MEMORY_S),
        lambda c: alarms.forget(c, now - ALARMS_MEMORY_S),
    )
    for forget_some in sweeps:
        while True:
            with store.writing() as connection:
                found = forget_some(connection)
            count += found
            if found < ROWS_AT_ONCE:
                break
    return count


class HighWater:
    """A file beside the store that says how many audit events it has had.

    A store that was put back by hand (a copied file, a restored virtual disk of the database alone) has fewer, and would
    accept codes again that were spent since. ``mfactl restore`` removes the file, because it spends them itself.
    """

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / HIGH_WATER_FILE

    def check(self, store: Store) -> None:
        """Compare the store with the file.

        Raises:
            StoreCorrupt: the store is older than what was written before.
        """
        try:
            seen_id, seen_generation, seen_events = self._path.read_text("ascii").split()
        except (FileNotFoundError, ValueError):
            return
        store_id, generation, events = self._read(store)
        # A restore counts the generation up: a lower one is the store that was replaced, or a copy of it.
        if store_id == seen_id and (_number(generation), events) < (_number(seen_generation), _number(seen_events)):
            raise StoreCorrupt(
                f"the store holds {events} audit events, but {seen_events} were written before (generation {generation}, was "
                f"{seen_generation}): it is an old copy, and codes that were used since would be accepted again",
                cure="put the present store back, or bring the copy in with "
                + ("`mfactl store restored`" if store.path is None else "`mfactl restore`")
                + ", which spends those codes",
            )

    def write(self, store: Store) -> None:
        """Bring the file up to date.

        Raises:
            StoreUnavailable: the store cannot be read, or the file not be written.
        """
        text = " ".join(map(str, self._read(store)))
        temporary = self._path.with_name(self._path.name + ".new")
        try:
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with os.fdopen(fd, "w", encoding="ascii") as out:
                out.write(text + "\n")
            temporary.rename(self._path)
        except OSError as err:
            raise StoreUnavailable(
                f"{self._path} cannot be written: {err.strerror}", cure="look at the file system of state_dir: is it full?"
            ) from err

    @staticmethod
    def _read(store: Store) -> tuple[str, str, int]:
        with store.reading() as connection:
            events = connection.execute(select(func.sum(audit_head.c.seq))).scalar()
            return read_meta(connection, "store_id") or "-", read_meta(connection, "generation") or "-", int(events or 0)


def _number(text: str) -> int:
    return int(text) if text.isdigit() else 0
