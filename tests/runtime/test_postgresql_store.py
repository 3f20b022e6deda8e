"""A store in PostgreSQL: what is refused at its door, who waits for whom, and what a lost connection means."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import insert, select, text, update

from mfa_core.errors import ConfigurationError, StoreCorrupt, StoreFull, StoreUnavailable
from mfa_core.oath import step_at
from mfa_core.verdict import Accepted, Rejected, Unavailable
from mfa_runtime.administration.restore import settle_restored
from mfa_runtime.batch_locks import bucket_of
from mfa_runtime.key_file import KeyEncryptionKeys
from mfa_runtime.store import audit_log
from mfa_runtime.store import postgresql as server_store
from mfa_runtime.store.creation import Created, ensure_store
from mfa_runtime.store.database import OutcomeUnknown, Store, TryAgain
from mfa_runtime.store.ids import take
from mfa_runtime.store.opening import open_store
from mfa_runtime.store.postgresql import ServerStore, translated
from mfa_runtime.store.schema import meta, users
from mfa_runtime.upkeep import HighWater
from tests.doubles import ALICE, BOB, KEK, NO_WAITING, T0, Installation, attempt, wrong
from tests.end_to_end.postgresql import Cluster, cluster
from tests.runtime.on_postgresql import install_on, new_place

KEKS = KeyEncryptionKeys((KEK,))


@pytest.fixture(scope="module")
def own_server() -> Iterator[Cluster]:
    """A server whose settings are changed, and changed back."""
    with cluster() as one:
        yield one


@pytest.fixture
def installed(postgresql: Cluster, tmp_path: Path) -> Iterator[Installation]:
    """alice and bob, and nobody waits."""
    installation = install_on(postgresql, tmp_path, settings=NO_WAITING)
    yield installation
    installation.close()


def test_several_who_make_the_store_at_once_make_one(postgresql: Cluster, tmp_path: Path) -> None:
    """`mfactl init` on two machines."""
    place = postgresql.place(tmp_path, postgresql.create())
    made: list[Created] = []

    def make() -> None:
        store, created = ensure_store(place, KEKS, now=T0, random=os.urandom)
        made.append(created)
        store.close()

    makers = [threading.Thread(target=make) for _ in range(4)]
    for one in makers:
        one.start()
    for one in makers:
        one.join()

    assert sorted(made, key=lambda created: created.value) == [Created.NEW, *[Created.PRESENT] * 3]
    with closing(open_store(place)) as store, store.reading() as connection:
        assert connection.execute(select(meta.c.value).where(meta.c.name == "generation")).scalar() == "1"
        fill = connection.execute(text("SELECT reloptions FROM pg_class WHERE relname = 'credentials'")).scalar()
    assert fill == ["fillfactor=80"]
    postgresql.drop(place.url.partition("@/")[2].partition("?")[0])


def test_an_empty_database_is_no_store(postgresql: Cluster, tmp_path: Path) -> None:
    """The cure is the same as for a file."""
    place = postgresql.place(tmp_path, postgresql.create())
    with pytest.raises(StoreCorrupt, match="is not a store of mfad") as seen:
        open_store(place)
    assert "mfactl init" in seen.value.cure


@pytest.mark.parametrize(("setting", "value"), [("fsync", "off"), ("default_transaction_read_only", "on")])
def test_a_server_that_would_forget_or_does_not_write_is_refused(
    own_server: Cluster, tmp_path: Path, setting: str, value: str
) -> None:
    """fsync=off brings used codes back to life; a standby reads only."""
    place = replace(new_place(own_server, tmp_path), timeout_s=1.0)
    with own_server.admin("postgres") as admin:
        admin.execute(f"ALTER SYSTEM SET {setting} = {value}")
        admin.execute("SELECT pg_reload_conf()")
    try:
        with pytest.raises(StoreUnavailable, match=r"fsync|read-write|read-only") as seen:
            open_store(place)
        assert seen.value.cure
    finally:
        with own_server.admin("postgres") as admin:
            admin.execute("SET default_transaction_read_only = off")
            admin.execute(f"ALTER SYSTEM RESET {setting}")
            admin.execute("SELECT pg_reload_conf()")
    open_store(place).close()


@pytest.mark.parametrize(
    ("given", "used"), [("off", "on"), ("local", "on"), ("remote_write", "on"), ("remote_apply", "remote_apply")]
)
def test_a_commit_is_on_disk_whatever_the_role_is_set_to(own_server: Cluster, tmp_path: Path, given: str, used: str) -> None:
    """For logins and for administration; what is stricter than ours stays."""
    store = open_store(new_place(own_server, tmp_path))
    with own_server.admin("postgres") as admin:
        admin.execute(f"ALTER ROLE mfad SET synchronous_commit = {given}")
    try:
        fresh = ServerStore(new_place(own_server, tmp_path))
        with fresh.writing() as connection:
            assert connection.execute(text("SHOW synchronous_commit")).scalar() == used
        session = fresh.session()
        raw: Any = session.connect().connection.driver_connection
        assert raw.execute("SHOW synchronous_commit").fetchone()[0] == used
        session.close()
        fresh.close()
    finally:
        with own_server.admin("postgres") as admin:
            admin.execute("ALTER ROLE mfad RESET synchronous_commit")
        store.close()


def test_a_password_is_read_from_its_file_and_never_told(own_server: Cluster, tmp_path: Path) -> None:
    """A wrong one is refused; a changed file counts from the next connection on."""
    place = replace(new_place(own_server, tmp_path), password_file=tmp_path / "password", timeout_s=1.0)
    place = replace(place, url=place.url.replace("mfad@", "guarded@"))
    hba = own_server.directory / "data" / "pg_hba.conf"
    trusting = hba.read_text()
    with own_server.admin("postgres") as admin:
        admin.execute("CREATE ROLE guarded LOGIN PASSWORD 'correct-horse' IN ROLE mfad")
        hba.write_text("local all guarded scram-sha-256\n" + trusting)
        admin.execute("SELECT pg_reload_conf()")
    try:
        with pytest.raises(ConfigurationError, match=r"store\.password_file"):
            open_store(place)
        (tmp_path / "password").write_text("wrong-donkey\n")
        (tmp_path / "password").chmod(0o400)
        with pytest.raises(StoreUnavailable, match="refuses") as seen:
            open_store(place)
        assert "password_file" in seen.value.cure
        assert "donkey" not in repr(seen.value) + str(seen.value.__cause__)
        (tmp_path / "password").write_text("correct-horse\n")
        open_store(place).close()
    finally:
        hba.write_text(trusting)
        with own_server.admin("postgres") as admin:
            admin.execute("SELECT pg_reload_conf()")


def test_nobody_there_is_said_with_a_cure(tmp_path: Path) -> None:
    """A port that nobody has, and a host that does not exist."""
    place = server_store.StorePlace(tmp_path, "postgresql://mfad@127.0.0.1:1/mfad", timeout_s=1.0)
    with pytest.raises(StoreUnavailable, match="not reached") as seen:
        open_store(place)
    assert "store.url" in seen.value.cure


def test_a_server_without_tls_is_no_server_elsewhere(own_server: Cluster, tmp_path: Path) -> None:
    """verify-full is not silently given up."""
    name = new_place(own_server, tmp_path).url.partition("@/")[2].partition("?")[0]
    place = server_store.StorePlace(tmp_path, own_server.url(name, tcp=True) + "?sslmode=verify-full", timeout_s=1.0)
    with pytest.raises(StoreUnavailable, match="does not prove who it is") as seen:
        open_store(place)
    assert "sslrootcert" in seen.value.cure


# Several writers


def test_failures_that_two_authorities_count_at_once_are_all_counted(installed: Installation) -> None:
    """Of one account, of one source and of one unknown name: nobody gets guesses for nothing."""
    rounds = 30
    code = wrong(*(ALICE.code(T0, offset) for offset in range(-12, 13)))

    def guess(ledger: Any, number: int) -> None:
        for turn in range(rounds):
            guessed = f"{(int(code) + 7 * turn + 400 * number) % 1_000_000:06}"
            if guessed in {ALICE.code(T0, offset) for offset in range(-12, 13)}:
                guessed = code
            installed.process(ledger, attempt("alice", guessed), attempt("nobody", guessed, source="198.51.100.7"))

    threads = [threading.Thread(target=guess, args=(installed.ledger(), number)) for number in range(3)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()

    rows = {str(row["key"]): row for row in installed.rows("throttle")}
    unknown = f"unknown:{bucket_of('nobody', installed.keyring())}"
    outcomes = Counter(row["node"] for row in installed.rows("audit"))
    assert sum(outcomes.values()) == 2 * 3 * rounds
    # The same wrong code once more from the same client counts once; every event is a guess all the same.
    assert rows["account:alice"]["consecutive"] == rows["source:192.0.2.1"]["failures"] == 3 * rounds
    assert rows[unknown]["failures"] == rows["source:198.51.100.7"]["failures"] == 3 * rounds


def test_an_administrator_is_alone(installed: Installation) -> None:
    """What is read in such a transaction is still true when it is written: numbers are taken once, and logins wait."""
    taken: list[int] = []

    def number(store: Store) -> None:
        with store.writing() as connection:
            taken.append(take(connection, "anything"))

    threads = [threading.Thread(target=number, args=(installed.store,)) for _ in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert sorted(taken) == list(range(1, 9))


def test_a_reader_sees_one_moment_and_waits_for_nobody(installed: Installation) -> None:
    """An audit chain that grows is whole at every look."""
    with installed.store.reading() as connection:
        before = connection.execute(select(users.c.name)).scalars().all()
        with installed.store.writing() as writer:
            writer.execute(insert(users).values(id=99, name="eve", state="none", requirement="inherit", grace_until=0.0,
                                                locked=False, created_at=T0))  # fmt: skip
        assert connection.execute(select(users.c.name)).scalars().all() == before


# Connections that are lost


def test_a_commit_whose_answer_is_lost_accepts_nothing(
    own_server: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server spends the code afterwards: it is gone for its user, and nobody got in by it."""
    installation = install_on(own_server, tmp_path, settings=NO_WAITING)
    ledger = installation.ledger()
    installation.process(ledger)
    raw: Any = ledger._session.connect().connection.driver_connection
    raw.patience_s = 0.3
    commit = server_store._commit

    def stop_then_commit(connection: Any) -> None:
        own_server.stand_still()
        commit(connection)

    monkeypatch.setattr(server_store, "_commit", stop_then_commit)
    try:
        (ruling,) = installation.process(ledger, attempt("alice", ALICE.code(T0)))
    finally:
        monkeypatch.undo()
        own_server.go_on()
    again, other = (installation.process(ledger, attempt(one.name, one.code(T0)))[0] for one in (ALICE, BOB))

    assert isinstance(ruling.verdict, Unavailable)
    assert isinstance(again.verdict, Rejected)
    assert isinstance(other.verdict, Accepted)
    assert installation.credential_of("alice")["last_step"] == step_at(T0, 30)
    installation.close()


def test_a_connection_that_is_lost_before_the_commit_is_nobodys_trouble(
    installed: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The transaction is tried again on another one; its code counts once."""
    ledger = installed.ledger()
    installed.process(ledger)
    append, ends = audit_log.append, [True, True]

    def append_after_the_end(connection: Any, *given: Any, **more: Any) -> list[str]:
        if ends:
            ends.pop()
            pid = connection.connection.driver_connection.info.backend_pid
            with installed.store.reading() as other:
                other.execute(text("SELECT pg_terminate_backend(CAST(:pid AS integer))"), {"pid": pid})
        return append(connection, *given, **more)

    monkeypatch.setattr(audit_log, "append", append_after_the_end)
    first, second = installed.process(ledger, attempt("alice", ALICE.code(T0)), attempt("alice", ALICE.code(T0)))

    assert ends == []
    assert (type(first.verdict), type(second.verdict)) == (Accepted, Rejected)
    assert len(installed.rows("audit")) == 2


def test_what_is_pushed_away_is_tried_again_a_few_times(installed: Installation) -> None:
    """And then no more."""
    session = installed.store.session()
    tries: list[int] = []

    def work() -> str:
        tries.append(1)
        if len(tries) < 3:
            raise TryAgain("a deadlock")
        return "done"

    assert session.persist(work) == "done"
    assert len(tries) == 3

    def never() -> str:
        tries.append(1)
        raise TryAgain("a deadlock")

    tries.clear()
    with pytest.raises(TryAgain):
        session.persist(never)
    assert len(tries) == server_store.TRIES


@pytest.mark.parametrize(
    ("err", "meaning"),
    [
        (psycopg.errors.DeadlockDetected, TryAgain),
        (psycopg.errors.SerializationFailure, TryAgain),
        (psycopg.errors.UniqueViolation, TryAgain),
        (psycopg.errors.AdminShutdown, TryAgain),
        (psycopg.errors.ReadOnlySqlTransaction, TryAgain),
        (psycopg.OperationalError, TryAgain),
        (psycopg.errors.DiskFull, StoreFull),
        (psycopg.errors.LockNotAvailable, StoreUnavailable),
        (psycopg.errors.QueryCanceled, StoreUnavailable),
        (psycopg.errors.InsufficientPrivilege, StoreUnavailable),
        (psycopg.errors.UndefinedTable, StoreCorrupt),
        (psycopg.errors.DataCorrupted, StoreCorrupt),
        (psycopg.errors.StringDataRightTruncation, StoreCorrupt),
        (psycopg.DataError, StoreCorrupt),
    ],
)
def test_failures_are_named_for_what_follows(err: type[psycopg.Error], meaning: type[Exception]) -> None:
    """As SQLite's are."""
    with pytest.raises(meaning) as seen, translated():
        raise err("it says")
    assert type(seen.value) is meaning
    assert seen.value.cure or meaning is StoreUnavailable  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("err", "unknown"),
    [
        (psycopg.OperationalError, True),
        (psycopg.errors.AdminShutdown, True),
        (psycopg.errors.CrashShutdown, True),
        (psycopg.errors.SerializationFailure, False),
        (psycopg.errors.DiskFull, False),
    ],
)
def test_only_the_servers_word_decides_what_a_commit_did(err: type[psycopg.Error], unknown: bool) -> None:
    """Where it says no, nothing was written; where it says nothing, nobody knows."""
    with pytest.raises(StoreUnavailable) as seen, translated(), server_store._unknown_when_lost():
        raise err("it says")
    assert isinstance(seen.value, OutcomeUnknown) is unknown


# A database that was put back


def test_a_database_that_was_put_back_is_noticed_and_settled(postgresql: Cluster, tmp_path: Path) -> None:
    """No code that was used since that backup counts again."""
    installation = install_on(postgresql, tmp_path, settings=NO_WAITING)
    installation.in_order(attempt("alice", wrong(ALICE.code(T0))))
    name = str(installation.store).partition("@/")[2].partition("?")[0]
    installation.close()
    backup = postgresql.create(template=name)
    installation = Installation(open_store(postgresql.place(tmp_path, name)), settings=NO_WAITING)
    high_water = HighWater(tmp_path)
    assert isinstance(installation.in_order(attempt("alice", ALICE.code(T0)))[0], Accepted)
    high_water.write(installation.store)
    installation.close()

    put_back = Installation(open_store(postgresql.place(tmp_path, backup)), settings=NO_WAITING)
    with pytest.raises(StoreCorrupt, match="old copy") as seen:
        high_water.check(put_back.store)
    assert "mfactl store restored" in seen.value.cure
    report = settle_restored(put_back.store, KEKS, actor="root", now=T0, random=os.urandom, node="mfactl:here")

    assert (report.generation, report.users) == (2, 2)
    high_water.check(put_back.store)
    assert isinstance(put_back.in_order(attempt("alice", ALICE.code(T0)))[0], Rejected)
    put_back.clock.now = report.usable_from
    assert isinstance(put_back.in_order(attempt("alice", ALICE.code(report.usable_from)))[0], Accepted)
    with put_back.store.reading() as connection:
        assert {chain.node: chain.problems for chain in audit_log.verify(connection, keyring=put_back.keyring())} == {
            "test": (), "mfactl:here": (),
        }  # fmt: skip
    put_back.close()
    postgresql.drop(backup)
    with closing(open_store(postgresql.place(tmp_path, name))) as store, store.writing() as connection:
        connection.execute(update(users).values(locked=False))
