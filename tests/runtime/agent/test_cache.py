"""What pages of a sync make of the store: nothing is lost that was spent, and nothing stays that had to go."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest

from mfa_core import codebook
from mfa_core.errors import StoreFull
from mfa_core.model import CredentialState, FactorKind, Material
from mfa_runtime.administration.act import Act
from mfa_runtime.agent import cache
from mfa_runtime.agent.cache import ManifestMismatch, Progress
from mfa_runtime.protocol.message import ProtocolError
from tests.doubles import ALICE, BOB, T0, FakeClock, Person, new_store
from tests.runtime.agent.fake_authority import FakeAuthority
from tests.runtime.agent.pages import Cache

STEP = int(T0 // 30)


@pytest.fixture
def authority(tmp_path: Path) -> FakeAuthority:
    made = FakeAuthority(tmp_path, FakeClock())
    made.add(ALICE)
    made.add(BOB)
    return made


@pytest.fixture
def here(tmp_path: Path, authority: FakeAuthority) -> Cache:
    return Cache(new_store(tmp_path), authority)


def test_a_first_sync_brings_users_secrets_rules_and_a_lease(here: Cache, authority: FakeAuthority) -> None:
    here.sync()

    account = here.account("alice")
    assert account is not None
    (credential,) = account.credentials
    assert (credential.secret.reveal(), credential.material) == (ALICE.secret, Material.SEED)
    state = here.state
    assert (state.cursor, state.generation, state.rules) == (authority.seq, "store:1", authority.rules)
    assert (state.not_after, state.floor, state.synced_at, state.boot_id) == (T0 + 86_400, T0, T0, "boot")


def test_a_change_comes_alone(here: Cache, authority: FakeAuthority) -> None:
    here.sync()
    authority.add(Person("alice", locked=True))

    (applied,) = here.sync()

    assert applied.users == 1
    account = here.account("alice")
    assert account is not None
    assert account.user.locked


@pytest.mark.parametrize(("ours", "theirs", "stands"), [(STEP, STEP - 5, STEP), (STEP - 5, STEP, STEP), (-1, STEP, STEP)])
def test_a_watermark_rises_and_never_falls(here: Cache, authority: FakeAuthority, ours: int, theirs: int, stands: int) -> None:
    here.sync()
    here.set_watermark(ours)
    authority.add(ALICE, last_step=theirs)

    here.sync()

    account = here.account("alice")
    assert account is not None
    assert account.credentials[0].last_step == stands


def test_a_watermark_stays_through_a_full_sync(here: Cache, authority: FakeAuthority) -> None:
    here.sync()
    here.set_watermark(STEP)
    authority.generation = "store:2"

    here.sync()

    account = here.account("alice")
    assert account is not None
    assert account.credentials[0].last_step == STEP


def test_whoever_is_gone_is_gone_with_his_secrets(here: Cache, authority: FakeAuthority) -> None:
    here.sync()
    authority.remove("bob")

    (applied,) = here.sync()

    assert here.names() == ["alice"]
    assert applied.erased


def test_a_full_sync_of_several_pages_takes_away_whom_no_page_had(here: Cache, authority: FakeAuthority) -> None:
    here.sync()
    for number in range(7):
        authority.add(Person(f"user{number}"))
    authority.users.pop("bob")
    authority.generation = "store:2"
    authority.page_users = 3

    pages = here.sync()

    assert [one.users for one in pages] == [3, 3, 2]
    assert here.names() == ["alice", *(f"user{number}" for number in range(7))]


def test_an_interrupted_full_sync_leaves_the_lease_and_the_old_users(here: Cache, authority: FakeAuthority) -> None:
    """Else somebody who lets only first pages through could keep a revoked user alive for ever."""
    here.sync()
    before = here.state
    authority.generation = "store:2"
    authority.users.pop("bob")
    for number in range(4):
        authority.add(Person(f"user{number}"))
    authority.page_users = 2
    authority.clock.advance(3600)

    here.take(here.ask(), Progress())

    state = here.state
    assert "bob" in here.names()
    assert (state.not_after, state.floor, state.cursor, state.generation) == (
        before.not_after, before.floor, before.cursor, before.generation,
    )  # fmt: skip
    assert state.seq > before.seq


def test_a_set_that_is_not_the_authority_s_is_not_stored(here: Cache, authority: FakeAuthority) -> None:
    here.sync()
    before = here.state
    authority.users["bob"].version += 1  # a change that it tells nobody of
    authority.add(ALICE)
    authority.users["bob"].version = 1
    authority.twist = lambda one: one.model_copy(
        update={"digest": "0" * 64, "users": tuple(user for user in one.users if user.name == "alice")}
    )

    with pytest.raises(ManifestMismatch):
        here.sync()

    assert here.state == before


def test_a_page_that_is_not_compared_is_kept_and_compared_at_the_next_answer(here: Cache, authority: FakeAuthority) -> None:
    here.sync()
    authority.add(Person("alice", locked=True))
    authority.twist = lambda one: one.model_copy(update={"digest": None})

    (applied,) = here.sync()

    assert (applied.users, applied.compared) == (1, False)
    assert here.state.cursor == authority.seq
    with here.store.reading() as connection:
        assert here.state.digest == cache.digest_here(connection)  # this is what the authority is told next
    assert not here.sync()[0].compared  # nor with nothing new
    authority.twist = lambda one: one
    assert here.sync()[0].compared


def test_what_went_astray_in_a_page_that_was_not_compared_is_found_at_the_next_answer(
    here: Cache, authority: FakeAuthority
) -> None:
    here.sync()
    authority.add(BOB)
    authority.add(ALICE)
    authority.twist = lambda one: one.model_copy(
        update={"digest": None, "users": tuple(user for user in one.users if user.name == "alice")}
    )
    assert not here.sync()[0].compared
    authority.twist = lambda one: one

    with pytest.raises(ManifestMismatch):
        here.sync()  # nothing is new, and the digest is not that of what is here


def test_names_may_change_hands(here: Cache, authority: FakeAuthority) -> None:
    here.sync()
    alice, bob = authority.users["alice"], authority.users["bob"]
    authority.seq += 1
    alice.person, bob.person = BOB, ALICE
    alice.version = bob.version = authority.seq

    here.sync()

    found = {name: here.account(name) for name in ("alice", "bob")}
    assert {name: one.user.id for name, one in found.items() if one} == {"alice": bob.id, "bob": alice.id}


def test_a_codebook_holds_the_codes_and_no_seed(here: Cache, authority: FakeAuthority) -> None:
    authority.terms = authority.terms.model_copy(update={"material": "codebook", "max_offline_s": 3600.0})
    authority.add(ALICE)

    here.sync()

    account = here.account("alice")
    assert account is not None
    (credential,) = account.credentials
    assert credential.material is Material.CODEBOOK
    assert codebook.code(credential, STEP + 10) == ALICE.code(T0, 10)
    with here.store.reading() as connection:
        assert cache.codes_until(connection) == pytest.approx(T0 + 1.25 * 3600 - 60, abs=60)


def test_a_book_that_is_not_sent_again_stays(here: Cache, authority: FakeAuthority) -> None:
    authority.terms = authority.terms.model_copy(update={"material": "codebook", "max_offline_s": 600.0})
    authority.add(ALICE)
    authority.add(BOB)
    here.sync()
    authority.entries_of = lambda kept: []  # type: ignore[method-assign]
    authority.add(Person("alice", locked=True))

    here.sync()

    account = here.account("alice")
    assert account is not None
    assert account.user.locked
    assert codebook.code(account.credentials[0], STEP) == ALICE.code(T0)


def test_a_secret_that_was_announced_and_not_sent_is_none(here: Cache, authority: FakeAuthority) -> None:
    authority.entries_of = lambda kept: []  # type: ignore[method-assign]

    here.sync()

    account = here.account("alice")
    assert account is not None
    assert account.credentials[0].material is Material.NONE


def test_counter_codes_are_the_authority_s(here: Cache, authority: FakeAuthority) -> None:
    authority.add(Person("carol", kind=FactorKind.HOTP))

    here.sync()

    account = here.account("carol")
    assert account is not None
    assert (account.credentials[0].material, account.credentials[0].secret.reveal()) == (Material.NONE, b"")


def test_a_revoked_credential_leaves_its_secret_nowhere(here: Cache, authority: FakeAuthority) -> None:
    here.sync()
    authority.add(ALICE, state=CredentialState.SUSPENDED, material="none")

    (applied,) = here.sync()

    account = here.account("alice")
    assert applied.erased
    assert account is not None
    assert account.credentials[0].secret.reveal() == b""


def test_a_credential_twice_in_a_page_is_refused(here: Cache, authority: FakeAuthority) -> None:
    authority.twist = lambda one: one.model_copy(
        update={"users": (*one.users[:-1], one.users[-1].model_copy(update={"credentials": one.users[0].credentials * 2}))}
    )

    with pytest.raises(ProtocolError):
        here.sync()

    assert here.names() == []


# What a thief finds


def sealed_rows(store_file: Path) -> list[bytes]:
    with sqlite3.connect(store_file) as raw:
        return [bytes(row[0]) for row in raw.execute("SELECT secret FROM credentials UNION ALL SELECT codes FROM codebooks")]


def found_in(folder: Path, needles: list[bytes]) -> list[str]:
    files = [file for file in folder.iterdir() if file.is_file()]
    return [file.name for file in files for needle in needles if needle in file.read_bytes()]


@pytest.mark.parametrize("change", ["codebook", "none", "gone", "wiped"])
def test_no_file_holds_a_sealed_seed_that_had_to_go(here: Cache, authority: FakeAuthority, tmp_path: Path, change: str) -> None:
    """Not in a page that is free, and not in the write-ahead log: with the key beside it, it would be the seed."""
    here.sync()
    path = here.store.path
    assert path is not None
    seeds = sealed_rows(path)
    assert len(seeds) == 2
    assert found_in(path.parent, seeds)
    if change == "codebook":
        authority.terms = authority.terms.model_copy(update={"material": "codebook", "max_offline_s": 600.0})
    for name in ("alice", "bob"):
        if change == "gone":
            authority.remove(name)
        elif change != "wiped":
            authority.add(authority.users[name].person, material=change)

    if change == "wiped":
        with here.store.writing() as connection:
            assert cache.wipe(connection, "revoked", _act(here), "revoked")
    else:
        assert any(one.erased for one in here.sync())
    assert here.store.erase_log(1 << 20)

    assert found_in(path.parent, seeds) == []


def _act(here: Cache) -> Act:
    return Act("test", T0, os.urandom, here.keyring)


def test_a_log_that_somebody_reads_is_emptied_later(here: Cache) -> None:
    here.sync()
    with here.store.reading() as connection:
        connection.exec_driver_sql("SELECT count(*) FROM users").fetchall()
        here.set_watermark(5)
        assert not here.store.erase_log(1 << 20)

    assert here.store.erase_log(1 << 20)


# A full disk


def test_a_full_disk_leaves_the_old_cache(here: Cache, authority: FakeAuthority) -> None:
    here.sync()
    before, names = here.state, here.names()
    for number in range(400):
        authority.add(Person(f"user{number:03d}-{'x' * 100}"))
    path = here.store.path
    assert path is not None
    with here.store.reading() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
    limit_pages(here, pages + 4)

    with pytest.raises(StoreFull):
        here.sync()

    assert (here.state, here.names()) == (before, names)
    limit_pages(here, 1 << 20)
    here.sync()
    assert len(here.names()) == 402


def limit_pages(here: Cache, pages: int) -> None:
    """As if the disk had so much room: SQLite says the same as for a disk that is full."""
    with here.store.writing() as connection:
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")
