"""A store that an older version has written is brought up to date, and its users log in as before."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import insert, inspect, select, text

import mfa_runtime.store
from mfa_core.errors import StoreCorrupt
from mfa_core.secret import Secret
from mfa_core.verdict import Accepted
from mfa_runtime.key_file import KeyEncryptionKeys
from mfa_runtime.sealing import Place
from mfa_runtime.store import changes
from mfa_runtime.store.creation import Created, ensure_store
from mfa_runtime.store.database import STORE_FILE, connect
from mfa_runtime.store.key_table import create_keys, load_keyring
from mfa_runtime.store.opening import open_store
from mfa_runtime.store.schema import credentials, meta, metadata, users
from tests.doubles import ALICE, KEK, T0, Installation, attempt

KEKS = KeyEncryptionKeys((KEK,))


def old_store(directory: Path, revision: str) -> None:
    """A store as it was at this revision, with alice in it: only columns that it had are written."""
    store = connect(directory / STORE_FILE)
    config = Config()
    config.set_main_option("script_location", str(Path(mfa_runtime.store.__file__).parent / "migrations"))
    with store.writing() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    with store.writing() as connection:
        create_keys(connection, KEKS, now=T0, random=os.urandom)
        ring = load_keyring(connection, KEKS, random=os.urandom)
        connection.execute(insert(meta), [{"name": "store_id", "value": "1"}, {"name": "generation", "value": "1"}])
        user = {
            "id": 1, "name": "alice", "state": "active", "requirement": "inherit", "grace_until": 0.0, "locked": False,
            "created_at": T0,
        }  # fmt: skip
        credential = {
            "id": 1, "user_id": 1, "kind": "totp", "state": "active", "digest": "sha1", "digits": 6, "period_s": 30,
            "last_step": -1, "drift_steps": 0, "resync_step": -1, "secret_tag": b"", "label": "", "created_at": T0,
            "verified_at": 0.0, "last_used_at": 0.0, "expires_at": 0.0,
            "secret": ring.seal(Secret(ALICE.secret), Place("credentials", "secret", 1, 1)),
        }  # fmt: skip
        for table, row in (("users", user), ("credentials", credential)):
            names = ", ".join(row)
            connection.execute(text(f"INSERT INTO {table} ({names}) VALUES (:{', :'.join(row)})"), row)
    store.close()


@pytest.mark.parametrize("revision", ["0001", "0002", "0003"])
def test_an_older_store_is_refused_until_it_is_brought_up_to_date(tmp_path: Path, revision: str) -> None:
    """Then it has the tables and columns of this version, and the user's credential is as it was."""
    old_store(tmp_path, revision)
    with pytest.raises(StoreCorrupt, match=revision):
        open_store(tmp_path)

    store, created = ensure_store(tmp_path, KEKS, now=T0, random=os.urandom)

    assert created is Created.PRESENT
    with store.reading() as connection:
        assert compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), metadata) == []
        assert connection.execute(select(users.c.version)).scalar_one() == 0
        kept = connection.execute(select(credentials.c.host_id, credentials.c.material, credentials.c.known_source)).one()
        assert tuple(kept) == (0, "seed", "")
        assert changes.now_at(connection) == 0
    installed = Installation(store)
    assert isinstance(installed.decide(attempt("alice", ALICE.code(installed.clock())))[0], Accepted)
    installed.close()


def test_a_migrated_store_and_a_new_one_are_the_same(tmp_path: Path) -> None:
    """Table by table: columns with their defaults, indexes and foreign keys."""
    shapes = []
    for name, revision in (("old", "0003"), ("new", None)):
        directory = tmp_path / name
        directory.mkdir()
        if revision is not None:
            old_store(directory, revision)
        store, _ = ensure_store(directory, KEKS, now=T0, random=os.urandom)
        with store.reading() as connection:
            seen = inspect(connection)
            shapes.append({
                table: (
                    [(c["name"], str(c["type"]), c["nullable"], c["default"]) for c in seen.get_columns(table)],
                    sorted((i["name"], tuple(i["column_names"]), i["unique"]) for i in seen.get_indexes(table)),
                    seen.get_pk_constraint(table)["constrained_columns"],
                    sorted((tuple(f["constrained_columns"]), f["referred_table"]) for f in seen.get_foreign_keys(table)),
                )
                for table in seen.get_table_names()
            })
        store.close()

    assert shapes[0] == shapes[1]
    assert shapes[0].keys() == set(metadata.tables) | {"alembic_version"}
