"""A store that is a SQLite file: its engine, its transactions, its write-ahead log, and what its failures mean.

Room rule: pragmas stand in this file, and sqlite3's exceptions end in it. It knows no table.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from mfa_core.errors import StoreCorrupt, StoreFull, StoreUnavailable
from mfa_runtime.store.database import Session, Store

log = logging.getLogger(__name__)

BUSY_TIMEOUT_MS = 5_000
"""How long a writer waits for another process: many times the longest batch, and well below a login's deadline."""
TURN_S = 0.0002
"""How often a login's writer looks whether another process has finished its transaction of a millisecond or two."""
PAGE_CACHE_KIB = 16 * 1024
AUTO_CHECKPOINT_PAGES = 8192
"""A commit that makes the write-ahead log longer than this (32 MiB) moves it into the database itself, and waits for that."""
ERASE_PATIENCE_MS = 200
"""How long the write-ahead log is waited for when it is to be emptied."""
WAL_LIMIT_BYTES = 64 * 1024 * 1024
"""The write-ahead log is cut back to this after a checkpoint."""


class FileStore(Store):
    """A SQLite file. Its writer is alone, whichever process he is in; readers wait for nobody."""

    answers_at_once = True
    several_writers = False

    def __init__(self, path: Path) -> None:
        url = f"sqlite:///{path}"
        self._engine = _engine(url, pool_size=8, max_overflow=8, pool_timeout=10)
        self._settling = _engine(url, poolclass=NullPool)
        self._writer = self._engine.execution_options(mfad_begin="BEGIN IMMEDIATE")
        self._path = path

    @property
    def path(self) -> Path:
        return self._path

    def __str__(self) -> str:
        return str(self._path)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        with translated(), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        # IMMEDIATE: what is read in it is still true when it is written.
        with translated(), self._writer.begin() as connection:
            yield connection

    def session(self, *, settles: bool = False) -> FileSession:
        if settles:
            # Its connection must not come into the pool, where somebody would take its commits for durable.
            return FileSession(self._settling, log=self._path.with_name(self._path.name + "-wal"))
        return FileSession(self._engine)

    def checkpoint(self) -> None:
        with translated(), self._engine.connect() as connection:
            raw = connection.connection.driver_connection
            if isinstance(raw, sqlite3.Connection):
                raw.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def lengthen_log(self, size: int) -> None:
        # The pages that this takes are free in the database afterwards, and the next time takes the same ones.
        with self.writing() as connection:
            connection.exec_driver_sql("CREATE TABLE room (bytes BLOB)")
            connection.exec_driver_sql("INSERT INTO room VALUES (zeroblob(?))", (size,))
            connection.exec_driver_sql("DROP TABLE room")
        self.checkpoint()

    def check_room(self, size: int) -> None:
        try:
            system = os.statvfs(self._path.parent)
        except OSError as err:
            raise StoreUnavailable(f"the file system of the store cannot be asked: {err.strerror}") from err
        free = system.f_bavail * system.f_frsize
        if free < size:
            raise StoreFull(
                f"the file system of the store is full: {free // 2**10} KiB are free of the {size // 2**10} KiB that it takes",
                cure="free space on the file system of state_dir",
            )

    def erase_log(self, size: int) -> bool:
        with translated(), self._engine.connect() as connection:
            raw = connection.connection.driver_connection
            if not isinstance(raw, sqlite3.Connection):
                return False
            # Logins wait meanwhile: who reads for longer than this is waited for another time.
            raw.execute(f"PRAGMA busy_timeout={ERASE_PATIENCE_MS}")
            try:
                busy, _, _ = raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            finally:
                raw.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
        if busy:
            return False
        self.lengthen_log(size)
        return True

    def close(self) -> None:
        self._engine.dispose()


class FileSession(Session):
    """SQLAlchemy does not know of its transactions, which saves 40 microseconds each.

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

    def reading(self) -> _Transaction:
        return _Transaction(self, "BEGIN", patient=self._log is not None)

    def looking(self) -> _Transaction:
        return _Transaction(self, "BEGIN")

    def writing(
        self,
        meanwhile: Callable[[], None] | None = None,
        *,
        locks: Sequence[int] = (),  # noqa: ARG002  the writer of a file is alone
    ) -> _Transaction:
        # Whatever settle could not make durable cannot be told, and must not be spent either.
        if self._refused:
            raise _meaning(self._refused)
        return _Transaction(self, "BEGIN IMMEDIATE", meanwhile)

    def writing_now(self) -> _Transaction:
        if self._refused:
            raise _meaning(self._refused)
        return _Transaction(self, "BEGIN IMMEDIATE", waits=False)

    def settle(self) -> None:
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

    def version(self) -> tuple[int, int]:
        raw: Any = self.connect().connection.driver_connection
        return self._connected, int(raw.execute("PRAGMA data_version").fetchone()[0])

    def close(self) -> None:
        # What was committed is durable before the connection goes, or known not to be.
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

    __slots__ = ("_begin", "_meanwhile", "_patient", "_raw", "_session", "_waits")

    def __init__(
        self,
        session: FileSession,
        begin: str,
        meanwhile: Callable[[], None] | None = None,
        *,
        patient: bool = False,
        waits: bool = True,
    ) -> None:
        self._session = session
        self._begin = begin
        self._meanwhile = meanwhile
        self._patient = patient
        self._waits = waits

    def __enter__(self) -> Connection:
        with translated():
            connection = self._session.connect()
            raw: Any = connection.connection.driver_connection
            self._raw = raw
            try:
                if self._patient:
                    raw.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
                if self._meanwhile is None:
                    raw.execute(self._begin)
                else:
                    self._take_turns(raw, self._meanwhile)
            except sqlite3.OperationalError as err:
                if err.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                    self._session.close()
                elif not self._waits:
                    raise StoreUnavailable("somebody else is writing to the store, and was not waited for") from err
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


def _engine(url: str, **pool: Any) -> Engine:
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
    # What is deleted is overwritten: a secret that a host may not have any more is in no free page of it.
    cursor.execute("PRAGMA secure_delete=ON")
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
