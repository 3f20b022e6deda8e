"""How the store is reached: engines, transactions, and what their failures mean.

Room rule: engines and pragmas are made in this file, and database exceptions end in it. It knows no table but ``meta``.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, select
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from mfa_core.errors import StoreCorrupt, StoreFull, StoreUnavailable
from mfa_runtime.store.place import STORE_FILE, StorePlace
from mfa_runtime.store.schema import meta

__all__ = ["STORE_FILE", "Session", "Store", "connect", "connect_to", "read_meta", "restrict_file_mode", "translated"]

log = logging.getLogger(__name__)

BUSY_TIMEOUT_MS = 5_000
"""How long a writer waits for another process: many times the longest batch, and well below a login's deadline."""
TURN_S = 0.0002
"""How often a login's writer looks whether another process has finished its transaction of a millisecond or two."""
PAGE_CACHE_KIB = 16 * 1024
AUTO_CHECKPOINT_PAGES = 8192
"""A commit that makes the write-ahead log longer than this (32 MiB) moves it into the database itself, and waits for that."""
WAL_LIMIT_BYTES = 64 * 1024 * 1024
"""The write-ahead log is cut back to this after a checkpoint."""


class Store:
    """One open store. Threads may share it; a connection belongs to one thread at a time."""

    def __init__(self, engine: Engine, *, url: str, path: Path | None) -> None:
        self._engine = engine
        self._settling = engine if path is None else _sqlite_engine(url, poolclass=NullPool)
        self._writer = engine.execution_options(mfad_begin="BEGIN IMMEDIATE")
        self.url = url
        self.path = path

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A consistent view. Never waits for a writer.

        Raises:
            StoreUnavailable, StoreCorrupt: as :func:`translated` says.
        """
        with translated(), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that holds the write lock from its first statement; durable when the block ends.

        SQLite: ``BEGIN IMMEDIATE``, so that what is read in it is still true when it is written.

        Raises:
            StoreFull, StoreUnavailable, StoreCorrupt: as :func:`translated` says; nothing was written.
        """
        with translated(), self._writer.begin() as connection:
            yield connection

    def session(self, *, settles: bool = False) -> Session:
        """A connection for one thread that works all the time: it saves the way through the pool at each transaction.

        With ``settles`` its commits are durable when :meth:`Session.settle` has returned, and not before.
        """
        if settles and self.path is not None:
            # Its connection must not come into the pool, where somebody would take its commits for durable.
            return Session(self._settling, log=self.path.with_name(self.path.name + "-wal"))
        return Session(self._engine)

    @property
    def answers_at_once(self) -> bool:
        """Whether a read costs microseconds and never waits: SQLite's pages are in memory, and readers wait for no writer."""
        return self._engine.dialect.name == "sqlite"

    def checkpoint(self) -> None:
        """Move the write-ahead log into the database without making writers wait (SQLite; nothing to do elsewhere)."""
        if self._engine.dialect.name != "sqlite":
            return
        with translated(), self._engine.connect() as connection:
            raw = connection.connection.driver_connection
            if isinstance(raw, sqlite3.Connection):
                raw.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def lengthen_log(self, size: int) -> None:
        """Make the write-ahead log at least ``size`` bytes long and empty again (SQLite; nothing to do elsewhere).

        The pages that this takes are free in the database afterwards, and the next time takes the same ones.

        Raises:
            StoreFull, StoreUnavailable: as :meth:`writing`.
        """
        if self._engine.dialect.name != "sqlite":
            return
        with self.writing() as connection:
            connection.exec_driver_sql("CREATE TABLE room (bytes BLOB)")
            connection.exec_driver_sql("INSERT INTO room VALUES (zeroblob(?))", (size,))
            connection.exec_driver_sql("DROP TABLE room")
        self.checkpoint()

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()


class Session:
    """The transactions of :class:`Store` on one kept connection. One thread at a time; after an error it connects anew.

    Only prepared statements may run in them: SQLAlchemy does not know of these transactions, which saves 40 microseconds each.

    With ``log``, SQLite's write-ahead log, a commit writes its pages there and does not wait for the disk; :meth:`settle` does,
    when the write lock has been given back, and once for many commits. As durable as ``synchronous=FULL``, as nothing is
    answered before it: a commit is a run of frames in that one file, ended by a checksummed commit frame; ``fdatasync`` of the
    file brings it and all frames before it, whoever wrote them, to the disk; a checkpoint flushes the log itself before it
    moves a page, and the database before the log is written over; the header of a log begun anew is flushed at once.
    """

    def __init__(self, engine: Engine, *, log: Path | None = None) -> None:
        self._engine = engine
        self._log = log
        self._log_fd = -1
        self._log_lock = threading.Lock()
        self._refused = ""
        self._connection: Connection | None = None
        self._connected = 0
        self.patience_s = BUSY_TIMEOUT_MS / 1000
        """How long a writing transaction waits for another process."""

    def reading(self) -> _Transaction:
        """As :meth:`Store.reading`."""
        return _Transaction(self, "BEGIN", patient=self._log is not None)

    def looking(self) -> _Transaction:
        """As :meth:`reading`, but a lock of the moment (somebody recovers the log) is an error at once."""
        return _Transaction(self, "BEGIN")

    def writing(self, meanwhile: Callable[[], None] | None = None) -> _Transaction:
        """As :meth:`Store.writing`. When another process is writing, ``meanwhile`` is called first, which may read.

        Raises: StoreFull, at once, when :meth:`settle` has failed: what cannot be told must not be spent either.
        """
        if self._refused:
            raise _meaning(self._refused)
        return _Transaction(self, "BEGIN IMMEDIATE", meanwhile)

    def writing_now(self) -> _Transaction:
        """As :meth:`writing`, for a thread that must not wait: when another process is writing, StoreUnavailable."""
        if self._refused:
            raise _meaning(self._refused)
        return _Transaction(self, "BEGIN IMMEDIATE")

    def settle(self) -> None:
        """Return when every transaction that this session has committed is durable. Any thread may call it.

        Raises:
            StoreFull: the disk refuses. What was committed may be lost if the machine fails; nothing must be answered on it.
        """
        with self._log_lock:
            self._flush_log()

    def _flush_log(self) -> None:
        if self._refused:
            raise _meaning(self._refused)
        if self._log_fd < 0:
            return
        try:
            os.fdatasync(self._log_fd)
        except OSError as err:
            # The kernel drops what it could not write and says so once: a later success would be about later frames, which
            # nobody finds behind the ones that are missing. So this session commits nothing durably any more.
            self._refused = f"disk I/O error ({err.strerror}) at the write-ahead log; mfad must be started again"
            raise _meaning(self._refused) from err

    def connect(self) -> Connection:
        """The kept connection, opened if there is none."""
        if self._connection is None:
            connection = self._engine.connect()
            if self._log is not None:
                raw: Any = connection.connection.driver_connection
                raw.execute("PRAGMA synchronous=NORMAL")
                raw.execute("PRAGMA busy_timeout=0")  # it waits in its own way: see _take_turns
                raw.execute("SELECT 1 FROM sqlite_master").fetchone()  # makes the log, if this is the first to look
                # From before the first write on: the kernel tells an error of the disk to those who had the file open by then.
                with self._log_lock:
                    self._log_fd = os.open(self._log, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            self._connection = connection
            self._connected += 1
        return self._connection

    def version(self) -> tuple[int, int] | None:
        """Inside a transaction: what changes when anybody but this session has committed, or this session has connected anew.

        None where the store cannot tell (PostgreSQL).
        """
        connection = self.connect()
        if connection.dialect.name != "sqlite":
            return None
        raw: Any = connection.connection.driver_connection
        return self._connected, int(raw.execute("PRAGMA data_version").fetchone()[0])

    def close(self) -> None:
        """Let go of the connection; the next transaction opens another. What was committed is durable, or known not to be."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        with self._log_lock:
            if self._log_fd >= 0:
                try:
                    self._flush_log()
                except StoreFull as err:
                    log.error("%s; %s", err, err.cure)
                os.close(self._log_fd)
                self._log_fd = -1
        connection.close()


class _Transaction:
    """One transaction of a session. A class, and not a generator as its slower siblings are: every login has two."""

    __slots__ = ("_begin", "_meanwhile", "_patient", "_raw", "_session")

    def __init__(
        self, session: Session, begin: str, meanwhile: Callable[[], None] | None = None, *, patient: bool = False
    ) -> None:
        self._session = session
        self._begin = begin
        self._meanwhile = meanwhile
        self._patient = patient

    def __enter__(self) -> Connection:
        with translated():
            connection = self._session.connect()
            raw: Any = connection.connection.driver_connection
            self._raw = raw
            if connection.dialect.name == "sqlite":
                try:
                    if self._patient:
                        raw.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
                    if self._meanwhile is None:
                        raw.execute(self._begin)  # other drivers begin by themselves
                    else:
                        self._take_turns(raw, self._meanwhile)
                except sqlite3.OperationalError as err:
                    if err.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                        self._session.close()
                    raise  # nothing has begun where somebody else holds the lock
                except BaseException:
                    self._session.close()
                    raise
            return connection

    def _take_turns(self, raw: Any, meanwhile: Callable[[], None]) -> None:
        """Begin, when the other process is ready: asked often, because SQLite's own waiting grows to a tenth of a second."""
        deadline = 0.0
        while True:
            try:
                raw.execute(self._begin)
                break
            except sqlite3.OperationalError as err:
                if err.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                    raise
                now = time.monotonic()
                if not deadline:
                    deadline = now + self._session.patience_s
                    meanwhile()
                elif now >= deadline:
                    raise
                else:
                    time.sleep(TURN_S)

    def __exit__(self, kind: type[BaseException] | None, err: BaseException | None, _traceback: object) -> None:
        with translated():
            try:
                if err is not None:
                    raise err
                self._raw.commit()
                if self._patient:
                    self._raw.execute("PRAGMA busy_timeout=0")
            except BaseException:
                # Closing rolls back; after a failure nothing is known of the connection but that.
                self._session.close()
                raise


def connect_to(place: StorePlace) -> Store:
    """Make the engine of the store at ``place``, without looking at what is in it.

    Raises:
        ConfigurationError: the password file cannot be used.
    """
    if place.file is not None:
        return connect(place.file)
    raise StoreUnavailable(f"{place}: PostgreSQL is not built in yet")


def connect(path: Path) -> Store:
    """Make the engine of a SQLite file, without looking at what is in it."""
    url = f"sqlite:///{path}"
    return Store(_sqlite_engine(url, pool_size=8, max_overflow=8, pool_timeout=10), url=url, path=path)


def _sqlite_engine(url: str, **pool: Any) -> Engine:
    # hide_parameters: not even sealed values belong into a traceback.
    engine = create_engine(url, hide_parameters=True, **pool)
    event.listen(engine, "connect", _configure_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _configure_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    # Transactions are begun by _begin_sqlite; the driver's own implicit BEGIN would come too late to lock what is read.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
    cursor.execute("PRAGMA journal_mode=WAL")
    # FULL: a commit is on disk when it returns. NORMAL would bring a spent code back to life after a power loss.
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.execute(f"PRAGMA cache_size=-{PAGE_CACHE_KIB}")
    cursor.execute(f"PRAGMA journal_size_limit={WAL_LIMIT_BYTES}")
    cursor.execute("PRAGMA temp_store=MEMORY")
    # mfad checkpoints beside the logins (mfa_runtime.upkeep); this is for when it cannot keep up, or is not running.
    cursor.execute(f"PRAGMA wal_autocheckpoint={AUTO_CHECKPOINT_PAGES}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get("mfad_begin", "BEGIN"))


@contextmanager
def translated() -> Iterator[None]:
    """Turn database failures into errors named for what the caller does next.

    Raises:
        StoreFull: no room, or the disk refuses to write.
        StoreUnavailable: locked for too long, read-only, gone.
        StoreCorrupt: the file is damaged, or has another schema.
    """
    try:
        yield
    except DBAPIError as err:
        raise _meaning(str(err.orig)) from err
    except SQLAlchemyError as err:
        raise StoreUnavailable(f"the store cannot be used: {type(err).__name__}") from err
    except sqlite3.Error as err:  # prepared statements meet the driver directly
        raise _meaning(str(err)) from err


def _meaning(text: str) -> StoreUnavailable | StoreCorrupt:
    if "full" in text or "disk I/O error" in text:
        return StoreFull(f"a use cannot be recorded: {text}", cure="free space on the file system of state_dir")
    if "readonly" in text or "read-only" in text:
        return StoreUnavailable(f"the store is read-only: {text}", cure="make state_dir writable for mfad")
    if "locked" in text or "busy" in text:
        return StoreUnavailable(f"the store stayed locked for {BUSY_TIMEOUT_MS} ms: {text}", cure="see what else writes to it")
    if "unable to open" in text:
        return StoreUnavailable(f"the store cannot be opened: {text}", cure="check state_dir, its owner and its mode")
    if "malformed" in text or "not a database" in text:
        return StoreCorrupt(f"the store is damaged: {text}", cure="restore it from a backup")
    if "no such table" in text or "no such column" in text:
        return StoreCorrupt(f"the store has another schema: {text}", cure="run `mfactl init` to bring it up to date")
    return StoreUnavailable(f"the store cannot be used: {text}")


def read_meta(connection: Connection, name: str) -> str | None:
    """A value of the ``meta`` table."""
    value: Any = connection.execute(select(meta.c.value).where(meta.c.name == name)).scalar()
    return None if value is None else str(value)


def restrict_file_mode() -> None:
    """Make files created from here on private to this user (the store, its log and its index file)."""
    os.umask(0o077)
