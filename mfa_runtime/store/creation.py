"""Make a store: schema, first keys, identity. Never overwrites what is there."""

from __future__ import annotations

import enum
import os
from pathlib import Path

from sqlalchemy import insert

from mfa_runtime.key_file import KeyEncryptionKeys
from mfa_runtime.sealing import RandomBytes
from mfa_runtime.store.database import STORE_FILE, Store, connect, read_meta
from mfa_runtime.store.key_table import create_keys
from mfa_runtime.store.schema import meta
from mfa_runtime.store.versions import bring_up_to_date


class Created(enum.Enum):
    """What :func:`ensure_store` found."""

    NEW = "new"
    PRESENT = "present"


def ensure_store(state_dir: Path, keks: KeyEncryptionKeys, *, now: float, random: RandomBytes) -> tuple[Store, Created]:
    """Create the store of ``state_dir``, or bring an existing one up to the present schema.

    Raises:
        StoreUnavailable, StoreCorrupt, ConfigurationError: as opening a store does.
    """
    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    # SQLite gives its log and index files the mode of the database.
    os.close(os.open(state_dir / STORE_FILE, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    store = connect(state_dir / STORE_FILE)
    bring_up_to_date(store)
    with store.writing() as connection:
        if read_meta(connection, "store_id") is not None:
            return store, Created.PRESENT
        create_keys(connection, keks, now=now, random=random)
        connection.execute(
            insert(meta),
            [
                {"name": "store_id", "value": random(16).hex()},
                {"name": "generation", "value": "1"},
                {"name": "created_at", "value": str(int(now))},
            ],
        )
    return store, Created.NEW
