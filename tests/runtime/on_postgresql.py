"""How do tests of the runtime get a store in PostgreSQL as quickly as one in SQLite?

A migrated database without users is made once a server, and emptied from then on.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import delete, insert, select

from mfa_runtime.key_file import KeyEncryptionKeys
from mfa_runtime.store.creation import ensure_store
from mfa_runtime.store.opening import open_store
from mfa_runtime.store.place import StorePlace
from mfa_runtime.store.schema import metadata
from tests.doubles import ALICE, BOB, KEK, T0, Installation, Person, add_people
from tests.end_to_end.postgresql import Cluster

_empty: WeakKeyDictionary[Cluster, tuple[str, dict[str, list[dict[str, Any]]]]] = WeakKeyDictionary()


def new_place(server: Cluster, directory: Path) -> StorePlace:
    """A store without users, sealed under :data:`tests.doubles.KEK`; ``directory`` is the state directory.

    It is in the one database that these tests share, one after another, on a server: emptied, which takes milliseconds.
    """
    known = _empty.get(server)
    if known is None:
        place = server.place(directory, server.create())
        store, _ = ensure_store(place, KeyEncryptionKeys((KEK,)), now=T0, random=os.urandom)
        with store.reading() as connection:
            rows = {t.name: [dict(row._mapping) for row in connection.execute(select(t))] for t in metadata.sorted_tables}
        store.close()
        _empty[server] = place.url.partition("@/")[2].partition("?")[0], rows
        return place
    database, rows = known
    place = server.place(directory, database)
    store = open_store(place)
    with store.writing() as connection:
        for table in reversed(metadata.sorted_tables):
            connection.execute(delete(table))
        for table in metadata.sorted_tables:
            if rows[table.name]:
                connection.execute(insert(table), rows[table.name])
    store.close()
    return place


def install_on(server: Cluster, directory: Path, *people: Person, **parts: object) -> Installation:
    """As :func:`tests.doubles.install`, on a server."""
    installation = Installation(open_store(new_place(server, directory)), **parts)  # type: ignore[arg-type]
    keyring = installation.keyring()
    with installation.store.writing() as connection:
        add_people(connection, people or (ALICE, BOB), keyring)
    return installation
