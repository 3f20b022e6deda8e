"""Make a store: schema, first keys, identity. Never overwrites what is there."""

from __future__ import annotations

import enum
import os
from pathlib import Path

from sqlalchemy import insert

from mfa_runtime.key_file import KeyEncryptionKeys
from mfa_runtime.sealing import RandomBytes
from mfa_runtime.store.database import Store, connect_to, read_meta
from mfa_runtime.store.key_table import create_keys
from mfa_runtime.store.place import StorePlace
from mfa_runtime.store.schema import meta
from mfa_runtime.store.versions import bring_up_to_date


class Created(enum.Enum):
    """What :func:`ensure_store` found."""

    NEW = "new"
    PRESENT = "present"


def ensure_store(
    place: StorePlace | Path, keks: KeyEncryptionKeys, *, now: float, random: RandomBytes
) -> tuple[Store, Created]:
    """Create the store at ``place``, or bring an existing one up to the present schema. A path is a state directory of SQLite.

    Raises:
        StoreUnavailable, StoreCorrupt, ConfigurationError: as opening a store does.
    """
    store = make_schema(StorePlace(place) if isinstance(place, Path) else place)
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


def make_schema(place: StorePlace) -> Store:
    """A store at ``place`` that has every table, or an older one brought up to date; without keys where it is new.

    Raises:
        StoreUnavailable, StoreCorrupt, ConfigurationError: as opening a store does.
    """
    place.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    if place.file is not None:
        # SQLite gives its log and index files the mode of the database.
        os.close(os.open(place.file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    store = connect_to(place)
    try:
        bring_up_to_date(store)
    except BaseException:
        store.close()
        raise
    return store
