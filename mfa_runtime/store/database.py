"""What a store can do, whatever keeps it: transactions for everybody, and sessions for those who decide logins.

Room rule: the ports, and which of the two implementations stands behind a place; each of those knows its database alone
(:mod:`.sqlite`, :mod:`.postgresql`). It knows no table but ``meta``.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, select

from mfa_core.errors import StoreUnavailable
from mfa_runtime.store.place import STORE_FILE, StorePlace
from mfa_runtime.store.schema import meta

__all__ = [
    "STORE_FILE", "OutcomeUnknown", "Session", "Store", "TryAgain", "connect", "connect_to", "read_meta", "restrict_file_mode",
]  # fmt: skip


Result = TypeVar("Result")


class TryAgain(StoreUnavailable):
    """Nothing was written, and the same may succeed at once: somebody else was in the way, or the connection had gone."""


class OutcomeUnknown(StoreUnavailable):
    """The server was asked to commit and did not say that it has: what was to be written may stand or not. Accept nothing."""


class Store(ABC):
    """One open store. Threads may share it; a connection belongs to one thread at a time. As text: where it is."""

    answers_at_once: bool
    """Whether a read costs microseconds and never waits: SQLite's pages are in memory, and readers wait for no writer."""
    several_writers: bool
    """Whether transactions of sessions run beside each other, so that a batch must lock what it depends on."""

    @property
    @abstractmethod
    def path(self) -> Path | None:
        """The file; None for a database server."""

    @abstractmethod
    def reading(self) -> AbstractContextManager[Connection]:
        """A consistent view. Never waits for a writer.

        Raises:
            StoreUnavailable: not now. StoreCorrupt: damaged, or of another schema.
        """

    @abstractmethod
    def writing(self) -> AbstractContextManager[Connection]:
        """A transaction that is alone from its first statement on: no other one of the store, in whichever process on whichever
        machine, writes beside it, so that what is read in it is still true when it is written. Durable when the block ends.

        Raises:
            StoreFull, StoreUnavailable, StoreCorrupt: nothing was written; but OutcomeUnknown: that is not known.
        """

    @abstractmethod
    def session(self, *, settles: bool = False) -> Session:
        """A connection for one thread that works all the time: it saves the way through the pool at each transaction.

        With ``settles`` its commits are durable when :meth:`Session.settle` has returned, and not before.
        """

    @abstractmethod
    def checkpoint(self) -> None:
        """Move the write-ahead log into the database without making writers wait (SQLite; a server does it by itself)."""

    @abstractmethod
    def lengthen_log(self, size: int) -> None:
        """Make the write-ahead log at least ``size`` bytes long and empty again (SQLite; a server keeps its own).

        Raises:
            StoreFull, StoreUnavailable: as :meth:`writing`.
        """

    def check_room(self, size: int) -> None:  # noqa: B027  a server says so itself
        """See whether ``size`` bytes more go into the file system of the store (SQLite).

        Raises:
            StoreFull: they do not.
        """

    def erase_log(self, size: int) -> bool:  # noqa: ARG002  a server keeps a log of its own
        """Empty the write-ahead log of all that was in it, and make it ``size`` bytes long again (SQLite). False when somebody
        reads what is in it: try again later.

        Raises:
            StoreFull, StoreUnavailable: as :meth:`writing`.
        """
        return True

    @abstractmethod
    def close(self) -> None:
        """Close every connection."""

    @abstractmethod
    def __str__(self) -> str: ...


class Session(ABC):
    """The transactions of a store on one kept connection. One thread at a time; after an error it connects anew.

    Only prepared statements may run in them (:mod:`.prepared`).
    """

    patience_s: float
    """How long a transaction waits for somebody else, and for a server that has gone."""

    @abstractmethod
    def reading(self) -> AbstractContextManager[Connection]:
        """As :meth:`Store.reading`."""

    @abstractmethod
    def looking(self) -> AbstractContextManager[Connection]:
        """As :meth:`reading`, but whatever is in the way is an error at once."""

    @abstractmethod
    def writing(
        self, meanwhile: Callable[[], None] | None = None, *, locks: Sequence[int] = ()
    ) -> AbstractContextManager[Connection]:
        """A transaction of logins: none of :meth:`Store.writing` runs beside it. Durable as :meth:`Store.session` says.

        When another process is writing, ``meanwhile`` is called first, which may read (SQLite). ``locks`` are numbers for what
        the transaction depends on: none that shares one of them runs beside it (where there are several writers).

        Raises:
            TryAgain: nothing was written, see :meth:`persist`. OutcomeUnknown, StoreFull, StoreUnavailable, StoreCorrupt: as
                :meth:`Store.writing`.
        """

    @abstractmethod
    def writing_now(self) -> AbstractContextManager[Connection]:
        """As :meth:`writing`, for a thread that must not wait: when another process is writing, StoreUnavailable."""

    def persist(self, work: Callable[[], Result]) -> Result:
        """Return what ``work`` returns; it is called again, a bounded number of times, where it raises TryAgain."""
        return work()

    @abstractmethod
    def settle(self) -> None:
        """Return when every transaction that this session has committed is durable. Any thread may call it.

        Raises:
            StoreFull: the disk refuses. What was committed may be lost if the machine fails; nothing must be answered on it.
        """

    @abstractmethod
    def version(self) -> tuple[int, int] | None:
        """Inside a transaction: what changes when anybody but this session has committed, or this session has connected anew.

        None where the store cannot tell (PostgreSQL).
        """

    @abstractmethod
    def connect(self) -> Connection:
        """The kept connection, opened if there is none."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the connection; the next transaction opens another."""


def connect_to(place: StorePlace) -> Store:
    """Make the store at ``place`` ready for use, without looking at what is in it.

    Raises:
        ConfigurationError: the password file cannot be used.
    """
    if place.file is not None:
        return connect(place.file)
    # Only who uses a server pays for its driver.
    from mfa_runtime.store.postgresql import ServerStore

    return ServerStore(place)


def connect(path: Path) -> Store:
    """Make the store of a SQLite file ready for use, without looking at what is in it."""
    from mfa_runtime.store.sqlite import FileStore

    return FileStore(path)


def read_meta(connection: Connection, name: str) -> str | None:
    """A value of the ``meta`` table."""
    value: Any = connection.execute(select(meta.c.value).where(meta.c.name == name)).scalar()
    return None if value is None else str(value)


def restrict_file_mode() -> None:
    """Make files created from here on private to this user (the store, its log and its index file)."""
    os.umask(0o077)
