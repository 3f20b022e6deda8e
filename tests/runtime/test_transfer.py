"""A store into another database: whole, once, and taken up where it broke off."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import delete, insert, select, update

from mfa_core.errors import Conflict, StoreCorrupt
from mfa_core.verdict import Accepted, Rejected
from mfa_runtime.key_file import KeyEncryptionKeys
from mfa_runtime.store import audit_log, transfer
from mfa_runtime.store.creation import ensure_store, make_schema
from mfa_runtime.store.database import Store
from mfa_runtime.store.opening import open_store
from mfa_runtime.store.place import StorePlace
from mfa_runtime.store.schema import metadata, throttle, users
from tests.doubles import ALICE, BOB, KEK, T0, Installation, Person, attempt, install
from tests.end_to_end.postgresql import Cluster

PEOPLE = (ALICE, BOB, Person("zoë"), *(Person(f"person{number}") for number in range(40)))
"""Names that databases sort differently."""


class PulledOut(Exception):
    """The process ends here."""


@pytest.fixture
def filled(tmp_path: Path) -> Iterator[Installation]:
    """A store that has been used."""
    (tmp_path / "old").mkdir()
    installation = install(tmp_path / "old", *PEOPLE)
    installation.in_order(attempt("alice", ALICE.code(T0)), attempt("bob", "000000"), attempt("nobody", "123456"))
    yield installation
    installation.close()


@pytest.fixture
def place(postgresql: Cluster, tmp_path: Path) -> Iterator[StorePlace]:
    """An empty database."""
    name = postgresql.create()
    yield postgresql.place(tmp_path / "new", name)
    postgresql.drop(name)


def contents(store: Store) -> dict[str, set[tuple[object, ...]]]:
    """Every row of every table."""
    with store.reading() as connection:
        return {table.name: {tuple(row) for row in connection.execute(select(table))} for table in metadata.sorted_tables}


def copy(source: Store, place: StorePlace, advance: Callable[[str, int, int], None] | None = None) -> transfer.Transfer:
    """As `mfactl store migrate` does it, in small steps."""
    with closing(make_schema(place)) as target:
        return transfer.transfer(source, target, advance=advance or (lambda *_: None), rows_at_once=7)


def pulled_out_at(rows: int) -> Callable[[str, int, int], None]:
    """An end of the process when so many rows have been copied."""

    def advance(_table: str, done: int, _total: int) -> None:
        if done >= rows:
            raise PulledOut

    return advance


def test_a_store_is_the_same_in_postgresql_and_back_in_sqlite(filled: Installation, place: StorePlace, tmp_path: Path) -> None:
    """Seals open, the chain is whole, and the code that was spent stays spent."""
    before = contents(filled.store)
    done = copy(filled.store, place)
    assert done.rows == {name: len(rows) for name, rows in before.items()}
    assert done.total > 90

    with closing(open_store(place)) as there:
        assert contents(there) == before
        moved = Installation(there)
        again, fresh = moved.decide(attempt("alice", ALICE.code(T0)), attempt("bob", BOB.code(T0)))
        assert (type(again), type(fresh)) == (Rejected, Accepted)
        with there.reading() as connection:
            assert [report.problems for report in audit_log.verify(connection, keyring=moved.keyring())] == [()]
        after = contents(there)
        copy(there, StorePlace(tmp_path / "back"))
    with closing(open_store(StorePlace(tmp_path / "back"))) as back:
        assert contents(back) == after


@pytest.mark.parametrize("rows", [1, 45, 97])
def test_a_copy_that_broke_off_is_no_store_and_goes_on_where_it_was(filled: Installation, place: StorePlace, rows: int) -> None:
    """Nothing twice, nothing left out, nothing copied again."""
    with pytest.raises(PulledOut):
        copy(filled.store, place, pulled_out_at(rows))
    with pytest.raises(StoreCorrupt, match="unfinished copy") as seen:
        open_store(place)
    assert "migrate" in seen.value.cure

    done = copy(filled.store, place)

    assert done.resumed >= rows
    with closing(open_store(place)) as there:
        assert contents(there) == contents(filled.store)


def test_a_store_that_was_used_in_between_is_copied_anew(filled: Installation, place: StorePlace) -> None:
    """What was copied before is old."""
    with pytest.raises(PulledOut):
        copy(filled.store, place, pulled_out_at(60))
    filled.in_order(attempt("zoë", PEOPLE[2].code(T0)))

    assert copy(filled.store, place).resumed == 0
    with closing(open_store(place)) as there:
        assert contents(there) == contents(filled.store)


def test_a_place_that_is_not_empty_is_left_alone(filled: Installation, place: StorePlace, tmp_path: Path) -> None:
    """Another store, and the unfinished copy of another one."""
    store, _ = ensure_store(place, KeyEncryptionKeys((KEK,)), now=T0, random=os.urandom)
    store.close()
    with pytest.raises(Conflict, match="is not empty"):
        copy(filled.store, place)

    other = StorePlace(tmp_path / "other")
    with pytest.raises(PulledOut):
        copy(filled.store, other, pulled_out_at(20))
    (tmp_path / "second").mkdir()
    second = Installation(ensure_store(tmp_path / "second", KeyEncryptionKeys((KEK,)), now=T0, random=os.urandom)[0])
    with pytest.raises(Conflict, match="of another store"):
        copy(second.store, other)
    second.close()


def test_a_source_that_is_written_to_meanwhile_makes_no_store(filled: Installation, place: StorePlace) -> None:
    """Somebody's mfad on another machine: what it spent would be good again."""

    def write(table: str, _done: int, _total: int) -> None:
        if table == "users compared":
            filled.in_order(attempt("zoë", PEOPLE[2].code(T0)))

    with pytest.raises(Conflict, match="written to while"):
        copy(filled.store, place, write)
    with pytest.raises(StoreCorrupt, match="unfinished copy"):
        open_store(place)


@pytest.mark.parametrize(
    "spoil", [delete(users).where(users.c.name == "bob"), update(users).where(users.c.name == "bob").values(locked=True)]
)
def test_a_copy_that_differs_is_found(filled: Installation, place: StorePlace, spoil: object) -> None:
    """A row too few, and a row that is not the same."""
    with pytest.raises(PulledOut):
        copy(filled.store, place, pulled_out_at(90))
    with closing(make_schema(place)) as target, target.writing() as connection:
        connection.execute(spoil)  # type: ignore[call-overload]

    with pytest.raises(StoreCorrupt, match="expected, or they differ"):
        copy(filled.store, place)
    copy(filled.store, place)
    with closing(open_store(place)) as there:
        assert contents(there) == contents(filled.store)


def test_a_value_that_postgresql_does_not_take_is_named(filled: Installation, place: StorePlace) -> None:
    """SQLite keeps a NUL in a text."""
    with filled.store.writing() as connection:
        connection.execute(
            insert(throttle).values(
                key="source:a\0b", failures=1, consecutive=0, not_before=0.0, last_failure_at=0.0, last_success_at=0.0,
                last_tag=b"", scope="",
            )
        )  # fmt: skip
    with pytest.raises(StoreCorrupt, match=r"does not take the rows .* of throttle"):
        copy(filled.store, place)
