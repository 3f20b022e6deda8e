"""A whole SQLite store as one file: copied while it is used, checked, and put in the place of another.

Room rule: the only file that treats a store as a file. What is changed inside a restored one is
:mod:`mfa_runtime.administration.restore`'s business.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from mfa_core.errors import InvalidInput, StoreCorrupt, StoreFull, StoreUnavailable

_BESIDE = ("-wal", "-shm", "-journal")


def copy_store(source: Path, target: Path) -> None:
    """Copy the SQLite file ``source``, as it is at one moment, into the new file ``target`` (mode 0600, durable).

    Uses the online backup API in one step: writers go on, and nothing of a half transaction is in the copy.

    Raises:
        InvalidInput: ``source`` is not a SQLite file, or cannot be read.
        StoreFull, StoreUnavailable: ``target`` cannot be written.
    """
    remove(target)
    try:
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
    except OSError as err:
        raise StoreUnavailable(f"{target}: cannot be written: {err.strerror}", cure="choose another place") from err
    try:
        reader = _open_to_read(source)
        writer = sqlite3.connect(target)
        try:
            reader.backup(writer)
            # One file, with no log beside it that could be lost or left behind.
            writer.execute("PRAGMA journal_mode=DELETE")
        finally:
            writer.close()
            reader.close()
        make_durable(target)
    except sqlite3.Error as err:
        remove(target)
        if "full" in str(err) or "disk I/O" in str(err):
            raise StoreFull(f"{target}: {err}", cure="free space on its file system") from err
        raise StoreUnavailable(f"{target}: cannot be written: {err}", cure="choose another place") from err
    except BaseException:
        remove(target)
        raise


def _open_to_read(path: Path) -> sqlite3.Connection:
    try:
        reader = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
        try:
            reader.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except BaseException:
            reader.close()
            raise
    except sqlite3.Error as err:
        raise InvalidInput(f"{path}: cannot be read as a store: {err}", cure="give a file of `mfactl backup`") from err
    return reader


def check_integrity(path: Path) -> None:
    """Read every page and index.

    Raises:
        StoreCorrupt: the file is damaged.
    """
    try:
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
        try:
            found = [str(row[0]) for row in connection.execute("PRAGMA integrity_check(5)")]
        finally:
            connection.close()
    except sqlite3.Error as err:
        raise StoreCorrupt(f"{path}: is damaged: {err}", cure="take another backup") from err
    if found != ["ok"]:
        raise StoreCorrupt(f"{path}: is damaged: {'; '.join(found)}", cure="take another backup")


def settle(path: Path) -> None:
    """Bring what stands in a store's write-ahead log into its file, and remove the log. Nobody else may have it open.

    Raises:
        StoreUnavailable: somebody has, or the file cannot be written.
    """
    try:
        connection = sqlite3.connect(path)
        try:
            mode = str(connection.execute("PRAGMA journal_mode=DELETE").fetchone()[0])
        finally:
            connection.close()
    except sqlite3.Error as err:
        raise StoreUnavailable(f"{path}: {err}", cure="stop what else uses the store") from err
    if mode != "delete":
        raise StoreUnavailable(f"{path}: somebody else has the store open", cure="stop mfad and end other mfactl commands")
    make_durable(path)


def put_in_place(new: Path, place: Path, *, aside: Path | None) -> None:
    """Make ``new`` the store at ``place``, in one rename; what was there is kept as ``aside``, if one is named.

    Both must be settled. A log of a store that could not be settled is moved aside first: SQLite would apply it to the new
    file.
    """
    if aside is not None and place.exists():
        remove(aside)
        os.link(place, aside)
    for suffix in _BESIDE:
        left = place.with_name(place.name + suffix)
        if left.exists():
            if aside is None:
                left.unlink()
            else:
                left.rename(aside.with_name(aside.name + suffix))
    sync_directory(place.parent)
    new.rename(place)
    sync_directory(place.parent)


def remove(path: Path) -> None:
    """Remove a store's file and what stands beside it."""
    for suffix in ("", *_BESIDE):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def make_durable(path: Path) -> None:
    """Return when the file's bytes are on disk."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_directory(path: Path) -> None:
    """Return when the directory's names are on disk."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
