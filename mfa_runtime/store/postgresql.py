"""A store that is a PostgreSQL database: its connections, its transactions, who waits for whom, and what its failures mean.

Room rule: psycopg is imported in this file only, and its exceptions end in it. It knows no table.

Who waits for whom: transactions of logins hold one advisory lock of the database together, every other transaction that writes
holds it alone (:meth:`.database.Store.writing` promises that). Logins lock what they depend on (names, sources, challenges) by
advisory locks as well, all at once and in the order of their numbers, before they read anything: so two authorities never wait
for each other in a circle, a failure that one has counted is seen by the other, and no row is written only to be locked. What
makes a code single-use does not rest on any of this: it is the compare-and-set of the spend itself.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import psycopg
from psycopg.types.numeric import Int8Dumper
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import NullPool

from mfa_core.errors import StoreCorrupt, StoreFull, StoreUnavailable
from mfa_runtime.secret_file import read_secret_file
from mfa_runtime.store.database import OutcomeUnknown, Session, Store, TryAgain
from mfa_runtime.store.place import StorePlace

log = logging.getLogger(__name__)
Result = TypeVar("Result")

EVERYBODY = 0x6D666164 << 32
"""The advisory lock that logins share and every other writer has alone: "mfad" in the upper half."""
CALLED = "mfad"
"""How connections are called at the server, with machine and process behind it: who shares a store can be seen there."""
OLDEST = 140_000
"""PostgreSQL 14: the oldest that is still looked after."""
TRIES = 5
"""How often a transaction is tried that others push out of the way."""
PAUSE_S = 0.05
"""Between two attempts to reach a server that has gone."""
LONGEST_S = 300.0
"""So long may one statement of administration take."""
IDLE_S = 60
"""A transaction that stands idle for longer has lost its client; its locks are in everybody's way."""


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """``others``: machine and process of whoever else has the store open. ``standbys``: name and sync_state (sync, quorum,
    potential, async; hidden: the user may not see it).
    """

    version: str
    full_page_writes: bool
    synchronous_commit: str
    bytes: int
    others: tuple[str, ...]
    standbys: tuple[tuple[str, str], ...]


class ServerStore(Store):
    """A PostgreSQL database. Several processes on several machines write to it at the same time."""

    answers_at_once = False
    several_writers = True

    def __init__(self, place: StorePlace) -> None:
        self._place = place
        self._engine = _engine(
            lambda: _connect(place),
            pool_size=place.connections,
            max_overflow=0,
            pool_timeout=place.timeout_s,
            pool_pre_ping=True,
        )
        self._reader = self._engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        event.listen(self._engine, "begin", _lock_out_others)

    @property
    def path(self) -> None:
        return None

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        with translated(), self._reader.begin() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        with translated(), self._engine.connect() as connection:
            transaction = connection.begin()
            try:
                yield connection
            except BaseException:
                transaction.rollback()
                raise
            with _unknown_when_lost():
                transaction.commit()

    def session(self, *, settles: bool = False) -> Session:  # noqa: ARG002  a commit is durable when it returns
        return ServerSession(self._place)

    def checkpoint(self) -> None:
        pass  # the server's own

    def lengthen_log(self, size: int) -> None:
        pass  # the server's own

    def facts(self) -> ServerFacts:
        """What the server says of itself, for people.

        Raises:
            StoreUnavailable, StoreCorrupt: as :meth:`reading`.
        """
        with self.reading() as connection:
            version, pages, commits, size = connection.exec_driver_sql(
                "SELECT current_setting('server_version'), current_setting('full_page_writes'), "
                "current_setting('synchronous_commit'), pg_database_size(current_database())"
            ).one()
            others = connection.exec_driver_sql(
                "SELECT DISTINCT substr(application_name, 6) || coalesce(' from ' || host(client_addr), '') "
                "FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'mfad %%' "
                "AND application_name <> %(own)s ORDER BY 1",
                {"own": f"{CALLED} {_this_process()}"},
            ).scalars()
            standbys = connection.exec_driver_sql(
                "SELECT application_name, coalesce(sync_state, 'hidden') FROM pg_stat_replication ORDER BY 1"
            ).all()
            return ServerFacts(
                version, pages == "on", commits, int(size), tuple(others), tuple((str(one[0]), str(one[1])) for one in standbys)
            )

    def close(self) -> None:
        self._engine.dispose()

    def __str__(self) -> str:
        return str(self._place)


class ServerSession(Session):
    """One connection outside the pool. Its transactions are begun and ended by text, in one message each with their locks.

    A connection that was lost while nothing was under way is made anew without a word; one that is lost inside a transaction,
    before the commit was sent, makes :meth:`persist` repeat the transaction. While the server is away that is tried for
    ``patience_s`` once, and then once for each transaction, so that nobody waits long in a queue of those who wait.
    """

    def __init__(self, place: StorePlace) -> None:
        self._place = place
        self._engine = _engine(lambda: _connect(place, hasty=True), poolclass=NullPool)
        self._connection: Connection | None = None
        self._gone_since = 0.0
        self.patience_s = place.timeout_s

    def reading(self) -> _Transaction:
        return _Transaction(self, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")

    def looking(self) -> _Transaction:
        return self.reading()

    def writing(
        self,
        meanwhile: Callable[[], None] | None = None,  # noqa: ARG002  nobody waits for a whole transaction of another here
        *,
        locks: Sequence[int] = (),
    ) -> _Transaction:
        begin = f"BEGIN; SELECT pg_advisory_xact_lock_shared({EVERYBODY})"
        if locks:
            numbers = ",".join(str(int(number)) for number in sorted(set(locks)))
            begin += f"; SELECT pg_advisory_xact_lock(k) FROM unnest('{{{numbers}}}'::bigint[]) AS k"  # noqa: S608  whole numbers
        return _Transaction(self, begin)

    def writing_now(self) -> _Transaction:
        raise StoreUnavailable("a server is not written to on a thread that must not wait")

    def persist(self, work: Callable[[], Result]) -> Result:
        give_up_at = time.monotonic() + self.patience_s
        for _ in range(TRIES - 1):
            try:
                return work()
            except TryAgain as err:
                if time.monotonic() >= give_up_at:
                    raise
                log.warning("a transaction is tried again: %s", err)
        return work()

    def settle(self) -> None:
        pass  # a commit is durable when it returns

    def version(self) -> None:
        return None

    def connect(self) -> Connection:
        while self._connection is None:
            try:
                with translated():
                    self._connection = self._engine.connect()
            except TryAgain as err:
                now = time.monotonic()
                self._gone_since = self._gone_since or now
                if now - self._gone_since >= self.patience_s:
                    raise StoreUnavailable(str(err), cure=err.cure) from err
                time.sleep(PAUSE_S)
            else:
                self._gone_since = 0.0
        return self._connection

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            # What is still open in it is rolled back by the server.
            connection.invalidate()
            connection.close()


class _Transaction:
    """One transaction of a session."""

    __slots__ = ("_begin", "_raw", "_session")

    def __init__(self, session: ServerSession, begin: str) -> None:
        self._session = session
        self._begin = begin

    def __enter__(self) -> Connection:
        try:
            with translated():
                return self._begun()
        except TryAgain as err:
            # Nothing has been asked for yet: a server that was restarted since the last time is no reason to tell anybody.
            log.info("the store is connected anew: %s", err)
            self._session.close()
        except BaseException:
            self._session.close()
            raise
        try:
            with translated():
                return self._begun()
        except BaseException:
            self._session.close()
            raise

    def _begun(self) -> Connection:
        connection = self._session.connect()
        raw: Any = connection.connection.driver_connection
        # Never prepared: it is several statements, and different each time.
        raw.execute(self._begin, prepare=False)
        raw.begin_to_gather()
        self._raw = raw
        return connection

    def __exit__(self, kind: type[BaseException] | None, err: BaseException | None, _traceback: object) -> None:
        raw = self._raw
        if err is not None:
            raw.cease_to_gather()
            if isinstance(err, psycopg.Error) or not self._rolled_back(raw):
                self._session.close()
            with translated():
                raise err
        try:
            with translated(), _unknown_when_lost():
                _commit(raw)
        except BaseException:
            self._session.close()
            raise

    @staticmethod
    def _rolled_back(raw: Any) -> bool:
        try:
            raw.execute("ROLLBACK", prepare=False)
        except psycopg.Error:
            return False
        return True


def _commit(raw: Any) -> None:
    raw.warned = ""
    cursor = raw.execute("COMMIT", prepare=False)
    raw.gathered.sync()
    done = cursor.statusmessage
    raw.cease_to_gather()
    if done != "COMMIT":
        raise TryAgain(f"the transaction was rolled back: the server answered {done}")
    if raw.warned:
        # "canceling wait for synchronous replication": it stands here, and is lost if the other server takes over now.
        raise OutcomeUnknown(f"the server warned while it committed: {raw.warned}", cure="look at its standby servers")


@contextmanager
def _unknown_when_lost() -> Iterator[None]:
    """Around a commit: what ended it without the server's word for or against it is neither."""
    try:
        yield
    except (psycopg.Error, DBAPIError) as err:
        origin = err.orig if isinstance(err, DBAPIError) else err
        state = getattr(origin, "sqlstate", None) or ""
        if not state or state.startswith(("57P", "08")):
            raise OutcomeUnknown(
                f"the connection was lost while the server committed: {_first_line(origin)}",
                cure="look into the audit log whether it did; a code may be used up by it",
            ) from err
        raise


class _Raw(psycopg.Connection[Any]):
    """A connection that does not wait for ever, and remembers warnings.

    While it gathers, statements whose results nobody asks for are sent with the next one that somebody does: a login's
    transaction is five messages to the server and not ten.
    """

    patience_s: float | None = None
    warned = ""
    gathered: psycopg.Pipeline | None = None

    def begin_to_gather(self) -> None:
        """From here on."""
        self._gathering = self.pipeline()
        self.gathered = self._gathering.__enter__()

    def cease_to_gather(self) -> None:
        """As before; what was gathered and not sent is."""
        gathered, self.gathered = self.gathered, None
        if gathered is not None:
            try:
                self._gathering.__exit__(None, None, None)
            except psycopg.Error as err:
                # Whoever asked for a result has heard it already; nothing of this transaction is committed.
                log.debug("what was gathered has failed: %s", _first_line(err))

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        """As psycopg's own, but a server that stands still is a server that has gone."""
        try:
            return super().wait(gen, interval=interval, timeout=self.patience_s if timeout is None else timeout)
        except psycopg.errors._WaitTimeout:  # noqa: SLF001  it has no other name
            if timeout is not None:
                raise
            self.pgconn.finish()
            raise psycopg.OperationalError(f"the server did not answer for {self.patience_s:g} s") from None


_SETTINGS = (
    "SELECT current_setting('fsync'), current_setting('synchronous_commit'), current_setting('server_encoding'), "
    "current_setting('server_version_num')::int, pg_is_in_recovery()"
)


def _connect(place: StorePlace, *, hasty: bool = False) -> Any:
    """A connection that is fit to keep the store: to a server that writes, durably. ``hasty``: no statement may take long."""
    wait_ms = int(place.timeout_s * 1000)
    options: dict[str, Any] = {
        "connect_timeout": max(2, round(place.timeout_s)),
        "application_name": f"{CALLED} {_this_process()}",
        "client_encoding": "UTF8",
        "target_session_attrs": "read-write",
        "keepalives_idle": 5,
        "keepalives_interval": 2,
        "keepalives_count": 3,
        "tcp_user_timeout": 2 * wait_ms,
    }
    if place.password_file is not None:
        options["password"] = (
            read_secret_file(place.password_file, key="store.password_file").reveal().decode("utf-8", "replace")
        )
    try:
        raw = _Raw.connect(place.connection_url(), autocommit=True, prepare_threshold=1, **options)
    except psycopg.OperationalError as err:
        raise _not_reached(_first_line(err)) from err
    try:
        raw.add_notice_handler(lambda notice: _warned(raw, notice))
        # One form of each prepared statement, however large its numbers are.
        raw.adapters.register_dumper(int, Int8Dumper)
        fsync, commits, encoding, version, standby = raw.execute(_SETTINGS, prepare=False).fetchall()[0]
        _check(fsync, encoding, version, standby)
        wanted = {
            "lock_timeout": wait_ms,
            # Before the client gives up by itself, which costs the connection.
            "statement_timeout": wait_ms + 1000 if hasty else 0,
            "idle_in_transaction_session_timeout": IDLE_S * 1000,
            "jit": "off",
        }
        if commits not in {"on", "remote_apply"}:
            # Anything less answers before the commit is on disk, or on the standby that takes over.
            wanted["synchronous_commit"] = "on"
        raw.execute("; ".join(f"SET {name} = {value}" for name, value in wanted.items()), prepare=False)
        raw.patience_s = place.timeout_s + 2.0 if hasty else LONGEST_S
        raw.autocommit = hasty
    except BaseException:
        raw.close()
        raise
    return raw


def _this_process() -> str:
    # PostgreSQL keeps 63 octets of it.
    return f"{socket.gethostname()[:40]}:{os.getpid()}"


def _check(fsync: str, encoding: str, version: int, standby: bool) -> None:
    if version < OLDEST:
        raise StoreUnavailable(f"the server is PostgreSQL {version // 10_000}", cure="use PostgreSQL 14 or newer")
    if fsync != "on":
        raise StoreUnavailable(
            "the server runs with fsync=off: a power loss would bring used codes back to life",
            cure="set fsync = on in postgresql.conf and restart the server",
        )
    if encoding != "UTF8":
        raise StoreUnavailable(
            f"the database has the encoding {encoding}", cure="create it with ENCODING 'UTF8' TEMPLATE template0"
        )
    if standby:
        raise TryAgain("the server is a standby", cure="name the primary too in store.url, with a comma between")


def _warned(raw: _Raw, notice: Any) -> None:
    log.log(
        logging.WARNING if notice.severity_nonlocalized == "WARNING" else logging.DEBUG,
        "PostgreSQL: %s",
        notice.message_primary,
    )
    if notice.severity_nonlocalized == "WARNING":
        raw.warned = str(notice.message_primary)


def _engine(connect: Callable[[], Any], **pool: Any) -> Engine:
    # hide_parameters: not even sealed values belong into a traceback.
    return create_engine("postgresql+psycopg://", creator=connect, hide_parameters=True, use_native_hstore=False, **pool)


def _lock_out_others(connection: Connection) -> None:
    if not connection.get_execution_options().get("postgresql_readonly"):
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({EVERYBODY})")


@contextmanager
def translated() -> Iterator[None]:
    """Turn database failures into errors named for what the caller does next.

    Raises:
        TryAgain: nothing was written; the same may succeed at once, perhaps on another connection.
        StoreFull: no room, or the disk refuses to write.
        StoreUnavailable: locked for too long, refused, gone.
        StoreCorrupt: damaged, another schema, or a value that it does not take.
    """
    try:
        yield
    except PoolTimeout as err:
        raise StoreUnavailable("every connection to the store is in use", cure="raise store.connections") from err
    except DBAPIError as err:
        raise _meaning(err.orig) from err
    except SQLAlchemyError as err:
        raise StoreUnavailable(f"the store cannot be used: {type(err).__name__}") from err
    except psycopg.Error as err:  # prepared statements meet the driver directly
        raise _meaning(err) from err


def _first_line(err: BaseException | None) -> str:
    # Without DETAIL, which shows values.
    text = (err.diag.message_primary if isinstance(err, psycopg.Error) else None) or str(err)
    return text.strip().partition("\n")[0]


_CURES = {
    "28": "check the user of store.url, store.password_file, and pg_hba.conf of the server",
    "3D": "create the database: createdb -O USER -E UTF8 -T template0 NAME",
    "3F": "grant the user of store.url CREATE and USAGE on the schema",
    "42501": "make the user of store.url the owner of the database's tables",
    "53200": "raise max_locks_per_transaction in postgresql.conf, or give the server more memory",
    "53300": "raise max_connections in postgresql.conf, or lower store.connections",
}


def _meaning(err: BaseException | None) -> StoreUnavailable | StoreCorrupt:
    """What a failure means. By SQLSTATE (PostgreSQL appendix A); without one the connection or the making of it failed."""
    text = _first_line(err)
    state = getattr(err, "sqlstate", None) or ""
    cure = next((cure for start, cure in _CURES.items() if state.startswith(start)), "")
    if state in {"53100", "58030"}:
        return StoreFull(f"a use cannot be recorded: {text}", cure="free space on the disk of the database server")
    if state in {"40001", "40P01", "23505"}:
        return TryAgain(f"somebody else was writing the same rows: {text}", cure="try again")
    if state.startswith(("57P", "08", "25006")):
        return TryAgain(f"the server is gone, or takes no writes: {text}", cure="see whether the database server runs")
    if state in {"55P03", "57014"}:
        return StoreUnavailable(
            f"the store stayed locked, or its server is too slow: {text}", cure="see what else writes to it"
        )
    if state.startswith("XX0") and state != "XX000":
        return StoreCorrupt(f"the store is damaged: {text}", cure="restore the database from a backup")
    if state in {"42P01", "42703"}:
        return StoreCorrupt(f"the store has another schema: {text}", cure="run `mfactl init` to bring it up to date")
    if state.startswith(("22", "23")) or (isinstance(err, psycopg.DataError) and not state):
        return StoreCorrupt(f"the store does not take a value: {text}", cure="report this")
    if not state and isinstance(err, psycopg.OperationalError):
        return TryAgain(f"the connection to the store was lost: {text}", cure="see whether the database server runs")
    return StoreUnavailable(f"the store cannot be used: {text}", cure=cure)


def _not_reached(text: str) -> StoreUnavailable:
    lower = text.lower()
    if "certificate" in lower or "ssl" in lower:
        return StoreUnavailable(
            f"the database server does not prove who it is: {text}",
            cure="name its CA: ...?sslrootcert=FILE, and the host as its certificate does; or turn TLS on at the server",
        )
    if "password" in lower or "pg_hba" in lower or "authentication" in lower or "does not exist" in lower:
        return StoreUnavailable(f"the database server refuses: {text}", cure=f"{_CURES['28']}; or create the database")
    if "too many" in lower or "remaining connection slots" in lower:
        return StoreUnavailable(f"the database server is full: {text}", cure=_CURES["53300"])
    return TryAgain(f"the database server is not reached: {text}", cure="see whether it runs, and whether store.url names it")
