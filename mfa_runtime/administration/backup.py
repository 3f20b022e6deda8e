"""A backup: the whole store in one file, without the key that opens it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from mfa_core.errors import Conflict, InvalidInput
from mfa_runtime.administration.act import Act
from mfa_runtime.store.database import Store, read_meta
from mfa_runtime.store.snapshot import copy_store, sync_directory


@dataclass(frozen=True, slots=True)
class BackupReport:
    """What was written."""

    file: Path
    bytes: int
    store_id: str
    generation: int


def back_up(store: Store, act: Act, target: Path, *, force: bool = False) -> BackupReport:
    """Write a backup to ``target``, which appears in one rename when the backup is whole and durable.

    With ``force`` that rename replaces a file of this name.

    Raises:
        Conflict: there is such a file, and no ``force``.
        InvalidInput: ``target`` is the store itself, or no place for a file.
        StoreFull, StoreUnavailable: it cannot be written.
    """
    if store.path is None:
        raise InvalidInput(
            f"{store}: is no file that could be copied",
            cure="back it up with `pg_dump -Fc`; after pg_restore, `mfactl store restored` spends the codes used since",
        )
    if target.exists() and target.samefile(store.path):
        raise InvalidInput(f"{target}: is the store itself", cure="name another file")
    if target.is_dir():
        raise InvalidInput(f"{target}: is a directory", cure="name a file in it")
    if not target.absolute().parent.is_dir():
        raise InvalidInput(f"{target.absolute().parent}: is not a directory", cure="make it first")
    if not force and os.path.lexists(target):
        raise Conflict(f"{target}: is there already", cure="name a file that is not there, or replace it with --force")
    with store.writing() as connection:
        # Before the copy: the backup tells of itself, and a restored store knows where it came from.
        act.record(connection, "backup.make", target.name)
        store_id = read_meta(connection, "store_id") or ""
        generation = int(read_meta(connection, "generation") or 0)
    partial = target.with_name(f".{target.name}.partial")
    copy_store(store.path, partial)
    partial.rename(target)
    sync_directory(target.absolute().parent)
    return BackupReport(target, target.stat().st_size, store_id, generation)
