"""The store: what it is made of, what it refuses to be, and what its failures are called."""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, event, insert, select, text

from mfa_core.errors import ConfigurationError, MfaError, StoreCorrupt, StoreFull, StoreUnavailable
from mfa_core.model import FactorKind
from mfa_core.secret import Secret
from mfa_core.throttle import Record
from mfa_runtime.key_file import KeyEncryptionKeys
from mfa_runtime.store import accounts
from mfa_runtime.store.creation import Created, ensure_store
from mfa_runtime.store.database import STORE_FILE, Store, connect, read_meta
from mfa_runtime.store.ids import peek, take
from mfa_runtime.store.key_table import load_keyring
from mfa_runtime.store.opening import open_store
from mfa_runtime.store.schema import keys, meta, metadata
from tests.doubles import KEK, T0, Installation, new_store

KEKS = KeyEncryptionKeys((KEK,))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A fresh store."""
    return new_store(tmp_path)


# What it is made of


def test_the_migrations_lead_to_the_tables(store: Store) -> None:
    """What Alembic made and what the code expects are the same, column for column."""
    with store.reading() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []


def test_every_connection_is_durable(store: Store) -> None:
    """core-5-58: synchronous=FULL, or a power loss would bring a spent code back."""
    with store.reading() as connection:
        seen = {name: connection.execute(text(f"PRAGMA {name}")).scalar()
                for name in ("journal_mode", "synchronous", "foreign_keys")}  # fmt: skip

    assert seen == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}


def test_a_store_is_made_once(tmp_path: Path) -> None:
    """A second init changes nothing: the keys and the identity are those of the first."""
    mask = os.umask(0o077)
    try:
        first, made = ensure_store(tmp_path / "state", KEKS, now=T0, random=os.urandom)
        with first.reading() as connection:
            before = connection.execute(select(keys)).all(), read_meta(connection, "store_id")
        second, found = ensure_store(tmp_path / "state", KEKS, now=T0 + 1, random=os.urandom)
        with second.reading() as connection:
            after = connection.execute(select(keys)).all(), read_meta(connection, "store_id")
        modes = [stat.S_IMODE(p.stat().st_mode) for p in (tmp_path / "state", tmp_path / "state" / STORE_FILE)]
    finally:
        os.umask(mask)

    assert (made, found) == (Created.NEW, Created.PRESENT)
    assert before == after
    assert modes == [0o700, 0o600]
    first.close()
    second.close()


def test_numbers_are_never_given_twice(store: Store) -> None:
    """core-5-30: also after a row was deleted; a transaction that is rolled back gives its own back."""
    with store.writing() as connection:
        assert [take(connection, "users"), take(connection, "users", 5), take(connection, "users")] == [1, 2, 7]
        assert take(connection, "credentials") == 1

    def break_off() -> None:
        with store.writing() as connection:
            take(connection, "users")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        break_off()
    with store.reading() as connection:
        assert peek(connection, "users") == 8


def test_a_view_does_not_change_while_it_is_looked_at(store: Store) -> None:
    """A reader sees one moment, and neither waits for the writer nor stops it."""
    with store.reading() as view:
        before = view.execute(select(meta)).all()
        with store.writing() as connection:
            connection.execute(insert(meta).values(name="x", value="y"))
        assert view.execute(select(meta)).all() == before
    with store.reading() as view:
        assert read_meta(view, "x") == "y"


def test_a_writer_that_breaks_off_has_written_nothing(store: Store) -> None:
    """Session and store alike; both work on."""
    session = store.session()

    def break_off(writing: Callable[[], object]) -> None:
        with writing() as connection:  # type: ignore[attr-defined]
            accounts.write_records(connection, {"k": Record(failures=1)})
            raise KeyError

    for writing in (store.writing, session.writing):
        with pytest.raises(KeyError):
            break_off(writing)
        with session.reading() as connection:
            assert accounts.load_records(connection, ["k"]) == {}
    with session.writing() as connection:
        accounts.write_records(connection, {"k": Record(failures=1)})
    with store.reading() as connection:
        assert accounts.load_records(connection, ["k"])["k"].failures == 1
    session.close()


def test_long_lists_are_asked_in_pieces(store: Store) -> None:
    """A thousand throttle keys at once, of which three exist."""
    with store.writing() as connection:
        accounts.write_records(connection, {f"account:u{n}": Record(failures=n) for n in (0, 500, 999)})
        accounts.write_records(connection, {"account:u500": Record(failures=7, last_tag=b"\0\xff")})
        found = accounts.load_records(connection, [f"account:u{n}" for n in range(1_000)])

    assert {key: one.failures for key, one in found.items()} == {"account:u0": 0, "account:u500": 7, "account:u999": 999}
    assert found["account:u500"].last_tag == b"\0\xff"


@pytest.mark.parametrize("name", ["x' OR '1'='1", "a;DROP TABLE users", "%", "\x00", "'"])
def test_names_are_values(installed: Installation, name: str) -> None:
    """core-5-27: no text reaches a statement."""
    with installed.store.reading() as connection:
        assert accounts.load(connection, [name], installed.keyring()) == {}
        assert accounts.one_time_row(connection, name, FactorKind.BYPASS, 0) is None


def test_source_of_names_is_the_store(installed: Installation) -> None:
    """Two at once, and one that is not there."""
    with installed.store.reading() as connection:
        assert accounts.load(connection, ["bob", "nobody", "alice"], installed.keyring()).keys() == {"alice", "bob"}


# What it refuses to be


def _no_file(path: Path) -> None:
    path.unlink()


def _empty_file(path: Path) -> None:
    path.write_bytes(b"")


def _text_file(path: Path) -> None:
    path.write_text("this is no database, whatever its name says\n" * 40)


def _other_database(path: Path) -> None:
    path.unlink()
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE t (x)")
    other.close()


def _other_version(path: Path) -> None:
    with sqlite3.connect(path) as other:
        other.execute("UPDATE alembic_version SET version_num='9999'")
    other.close()


def _half(path: Path) -> None:
    raw = path.read_bytes()
    path.write_bytes(raw[: len(raw) // 2])


@pytest.mark.parametrize(
    ("spoil", "error", "seen"),
    [
        (_no_file, StoreUnavailable, "there is no store"), (_empty_file, StoreCorrupt, "is not a store of mfad"),
        (_text_file, StoreCorrupt, "damaged"), (_other_database, StoreCorrupt, "is not a store of mfad"),
        (_other_version, StoreCorrupt, "has schema 9999"), (_half, StoreCorrupt, "damaged"),
    ],
    ids=["absent", "empty", "text", "another-database", "another-version", "half"],
)  # fmt: skip
def test_what_is_no_store_is_not_opened(
    store: Store, tmp_path: Path, spoil: Callable[[Path], None], error: type[MfaError], seen: str
) -> None:
    """core-5-59: said in one line, with what to do."""
    store.close()
    spoil(tmp_path / STORE_FILE)

    with pytest.raises(error, match=seen) as refused:
        open_store(tmp_path)

    assert refused.value.cure


def test_another_key_file_is_refused(store: Store) -> None:
    """core-5-59: both ids are named, no key is."""
    with store.reading() as connection, pytest.raises(ConfigurationError, match="was sealed under key"):
        load_keyring(connection, KeyEncryptionKeys((Secret(b"x" * 32),)), random=os.urandom)


@pytest.mark.parametrize("purpose", ["data", "pepper", "audit"])
def test_a_key_table_that_lacks_a_key_is_damaged(store: Store, purpose: str) -> None:
    """core-5-59: mfad does not start with half its keys."""
    with store.writing() as connection:
        connection.execute(keys.delete().where(keys.c.purpose == purpose))
    with store.reading() as connection, pytest.raises(StoreCorrupt, match="not complete"):
        load_keyring(connection, KEKS, random=os.urandom)


@pytest.mark.parametrize("change", [{"wrapped": b"x" * 60}, {"purpose": "pepper"}, {"number": 9}])
def test_a_changed_key_table_is_damaged(store: Store, change: dict[str, object]) -> None:
    """core-5-25: a wrapped key is bound to its number and its purpose."""
    with store.writing() as connection:
        connection.execute(keys.update().where(keys.c.purpose == "data").values(**change))
    with store.reading() as connection, pytest.raises(StoreCorrupt):
        load_keyring(connection, KEKS, random=os.urandom)


# What its failures are called


def _write(connection: Connection) -> None:
    accounts.write_records(connection, {f"k{n}" + "x" * 500: Record(failures=1) for n in range(500)})


@pytest.mark.parametrize("through", ["store", "session"])
@pytest.mark.parametrize(
    ("pragma", "error", "seen"),
    [("max_page_count=1", StoreFull, "cannot be recorded"), ("query_only=ON", StoreUnavailable, "read-only")],
    ids=["full", "read-only"],
)
def test_a_store_that_cannot_be_written_says_why(
    store: Store, through: str, pragma: str, error: type[MfaError], seen: str
) -> None:
    """core-5-58: full and read-only are two errors with two cures; when it is over it works again."""

    def configure(connection: sqlite3.Connection, _record: object) -> None:
        connection.execute(f"PRAGMA {pragma}")

    def write(writer: object) -> None:
        with writer.writing() as connection:  # type: ignore[attr-defined]
            _write(connection)

    event.listen(store._engine, "connect", configure)
    with pytest.raises(error, match=seen) as refused:
        write(store if through == "store" else store.session())
    assert refused.value.cure
    event.remove(store._engine, "connect", configure)
    store._engine.dispose()
    write(store)


def test_a_store_that_is_held_says_so(tmp_path: Path, store: Store) -> None:
    """core-5-58: after the waiting time, and not as something else."""

    def impatient(connection: sqlite3.Connection, _record: object) -> None:
        connection.execute("PRAGMA busy_timeout=10")

    event.listen(store._engine, "connect", impatient)

    def write() -> None:
        with store.writing() as connection:
            _write(connection)

    with connect(tmp_path / STORE_FILE).writing(), pytest.raises(StoreUnavailable, match="locked"):
        write()
    write()


def test_a_file_system_without_room_says_how_much_there_is(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is written, and with the cure."""
    store.check_room(4096)
    real = os.statvfs

    class NearlyFull:
        f_bavail, f_frsize = 25, 4096

    monkeypatch.setattr(os, "statvfs", lambda path: (real(path), NearlyFull)[1])
    store.check_room(100 * 1024)
    with pytest.raises(StoreFull, match="100 KiB are free of the 101 KiB") as seen:
        store.check_room(101 * 1024)
    assert "free space" in seen.value.cure


def test_damaged_pages_are_damage(tmp_path: Path, store: Store) -> None:
    """core-5-59: found when they are read, and called by their name."""
    store.close()
    path = tmp_path / STORE_FILE
    raw = path.read_bytes()
    path.write_bytes(raw[:4096] + b"\xa5" * (len(raw) - 4096))

    with pytest.raises(StoreCorrupt), connect(path).reading() as connection:
        connection.execute(select(meta)).all()


def test_a_table_that_is_gone_is_another_schema(store: Store) -> None:
    """core-5-59."""
    with store.writing() as connection:
        connection.execute(text("DROP TABLE throttle"))
    with pytest.raises(StoreCorrupt, match="another schema"), store.reading() as connection:
        accounts.load_records(connection, ["x"])


def test_a_place_that_cannot_be_opened_says_so(tmp_path: Path) -> None:
    """A directory where the file should be, and a directory that is not there."""
    (tmp_path / STORE_FILE).mkdir()
    for path in (tmp_path / STORE_FILE, tmp_path / "none" / STORE_FILE):
        with pytest.raises(StoreUnavailable, match="cannot be opened"), connect(path).reading():
            pass
