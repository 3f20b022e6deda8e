"""A restored store is never more permissive than the one it replaces, and a crash leaves one of the two."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
from pathlib import Path

import pytest

from mfa_core.errors import ConfigurationError, Conflict, InvalidInput, MfaError, StoreCorrupt, StoreUnavailable
from mfa_core.model import CredentialState, EnrolmentState, FactorKind, Requirement
from mfa_core.policy import Enforce
from mfa_core.secret import Secret
from mfa_core.verdict import Accepted, Challenge, Rejected
from mfa_runtime.administration import credentials, users
from mfa_runtime.administration.backup import back_up
from mfa_runtime.administration.bypass import issue_bypass
from mfa_runtime.administration.enrolment import Parameters, provision_active
from mfa_runtime.administration.recovery import RecoveryBatch, new_recovery_codes
from mfa_runtime.administration.restore import RestoreReport, restore
from mfa_runtime.key_file import KeyEncryptionKeys
from mfa_runtime.state_lock import StateLock
from mfa_runtime.store import audit_log
from mfa_runtime.store.database import STORE_FILE, connect, read_meta
from mfa_runtime.store.opening import open_store
from mfa_runtime.store.snapshot import copy_store
from tests.doubles import ALICE, BOB, KEK, SOURCE, FakeClock, Installation, Person, attempt, default_policy, install
from tests.runtime.kill import Killer, killed_at_every_step

HANS = Person("hans", kind=FactorKind.HOTP, last_step=4)
KEKS = KeyEncryptionKeys((KEK,))
REACH_S = 12 * 30


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    state = tmp_path / "state"
    state.mkdir()
    return state


@pytest.fixture
def before(folder: Path) -> Installation:
    """The store that is backed up: alice and bob with TOTP, hans with a counter."""
    return install(folder, ALICE, BOB, HANS)


def reopen(folder: Path, clock: FakeClock) -> Installation:
    return Installation(connect(folder / STORE_FILE), clock=clock)


def put_back(folder: Path, backup: Path, clock: FakeClock) -> RestoreReport:
    with StateLock(folder).exclusive():
        return restore(folder, backup, KEKS, actor="tester", now=clock(), random=os.urandom)


def codes_of(installed: Installation, name: str) -> RecoveryBatch:
    with installed.store.writing() as connection:
        return new_recovery_codes(connection, installed.act(), users.find_user(connection, name))


def back(installed: Installation, target: Path) -> Path:
    back_up(installed.store, installed.act(), target)
    return target


def test_a_backup_is_one_private_file_without_the_key(before: Installation, tmp_path: Path) -> None:
    """Mode 0600, whole, and the key-encryption key is not in it."""
    file = back(before, tmp_path / "b.db")

    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert KEK.reveal() not in file.read_bytes()
    assert [path.name for path in tmp_path.iterdir() if path.name != "state"] == ["b.db"]
    with sqlite3.connect(file) as copy:
        assert copy.execute("SELECT count(*) FROM users").fetchone() == (3,)
    copy.close()


def test_a_copy_is_made_while_others_write(before: Installation, folder: Path, tmp_path: Path) -> None:
    """A writer that is in the middle of something neither waits nor shows."""
    with before.store.writing() as connection:
        users.add_user(connection, before.act(), "carol")
        copy_store(folder / STORE_FILE, tmp_path / STORE_FILE)

    copy = connect(tmp_path / STORE_FILE)
    assert [row["name"] for row in Installation(copy).rows("users")] == ["alice", "bob", "hans"]
    copy.close()


def test_a_code_that_was_used_after_the_backup_stays_used(before: Installation, folder: Path, tmp_path: Path) -> None:
    """The watermark of the store that is replaced is carried over; with it or without it no old code works."""
    file = back(before, tmp_path / "b.db")
    code = ALICE.code(before.clock())
    assert isinstance(before.decide(attempt("alice", code))[0], Accepted)
    before.close()

    put_back(folder, file, before.clock)

    after = reopen(folder, before.clock)
    assert isinstance(after.decide(attempt("alice", code))[0], Rejected)
    after.close()


@pytest.mark.parametrize("present", [True, False])
def test_no_code_that_could_be_used_before_can_be_used_after(
    before: Installation, folder: Path, tmp_path: Path, present: bool
) -> None:
    """Also those of a phone whose clock is ahead by the whole drift; some minutes later codes work again."""
    file = back(before, tmp_path / "b.db")
    before.close()
    if not present:
        (folder / STORE_FILE).unlink()

    report = put_back(folder, file, before.clock)

    after = reopen(folder, before.clock)
    codes = [ALICE.code(before.clock(), offset) for offset in range(-12, 12)]
    assert all(isinstance(verdict, Rejected) for verdict in after.in_order(*(attempt("alice", code) for code in codes)))
    before.clock.now = report.usable_from
    assert isinstance(after.decide(attempt("bob", BOB.code(before.clock())))[0], Accepted)
    after.close()


def test_a_counter_goes_on_from_the_store_that_was_replaced(before: Installation, folder: Path, tmp_path: Path) -> None:
    """The code that was used in between is refused, the next one works."""
    file = back(before, tmp_path / "b.db")
    assert isinstance(before.decide(attempt("hans", HANS.code_number(7)))[0], Accepted)
    before.close()

    report = put_back(folder, file, before.clock)

    after = reopen(folder, before.clock)
    used, following = after.in_order(attempt("hans", HANS.code_number(7)), attempt("hans", HANS.code_number(8)))
    assert report.suspended == ()
    assert isinstance(used, Rejected)
    assert isinstance(following, Accepted)
    after.close()


def test_a_counter_of_which_nothing_is_known_is_suspended_until_two_codes(
    before: Installation, folder: Path, tmp_path: Path
) -> None:
    """Codes 5 to 7 may have been used on the disk that is gone."""
    file = back(before, tmp_path / "b.db")
    before.close()
    (folder / STORE_FILE).unlink()

    report = put_back(folder, file, before.clock)

    after = reopen(folder, before.clock)
    number = int(str(after.credential_of("hans")["id"]))
    assert report.suspended == ("hans",)
    assert isinstance(after.decide(attempt("hans", HANS.code_number(5)))[0], Rejected)
    with after.store.writing() as connection:
        credentials.resynchronise_credential(
            connection, after.act(), number, HANS.code_number(20), HANS.code_number(21)
        )
    after.clock.advance(2_000)
    assert isinstance(after.decide(attempt("hans", HANS.code_number(22)))[0], Accepted)
    after.close()


def test_recovery_codes_used_since_the_backup_stay_used(before: Installation, folder: Path, tmp_path: Path) -> None:
    """The others of the batch go on working."""
    batch = codes_of(before, "alice")
    file = back(before, tmp_path / "b.db")
    assert isinstance(before.decide(attempt("alice", batch.codes[0].reveal()))[0], Accepted)
    before.close()

    report = put_back(folder, file, before.clock)

    after = reopen(folder, before.clock)
    used, fresh = after.in_order(*(attempt("alice", code.reveal()) for code in batch.codes[:2]))
    assert report.without_codes == ()
    assert isinstance(used, Rejected)
    assert isinstance(fresh, Accepted)
    after.close()


def test_codes_that_were_replaced_since_the_backup_do_not_come_back(
    before: Installation, folder: Path, tmp_path: Path
) -> None:
    """The user is listed: neither the old batch nor the new one works now."""
    batch = codes_of(before, "alice")
    file = back(before, tmp_path / "b.db")
    codes_of(before, "alice")
    before.close()

    report = put_back(folder, file, before.clock)

    after = reopen(folder, before.clock)
    assert report.without_codes == ("alice",)
    assert isinstance(after.decide(attempt("alice", batch.codes[0].reveal()))[0], Rejected)
    after.close()


def test_without_the_present_store_every_one_time_code_is_revoked(
    before: Installation, folder: Path, tmp_path: Path
) -> None:
    """Any of them may have been used; the report names who needs new ones."""
    batch = codes_of(before, "alice")
    with before.store.writing() as connection:
        bypass = issue_bypass(connection, before.act(), users.find_user(connection, "bob"), reason="x", approver="root")
    file = back(before, tmp_path / "b.db")
    before.close()
    (folder / STORE_FILE).write_bytes(b"no store at all")

    report = put_back(folder, file, before.clock)

    after = reopen(folder, before.clock)
    verdicts = after.in_order(
        attempt("alice", batch.codes[0].reveal()), attempt("alice", batch.key.reveal()), attempt("bob", bypass.code.reveal())
    )
    assert (report.present_known, report.without_codes, report.bypass_revoked) == (False, ("alice",), 1)
    assert all(isinstance(verdict, Rejected) for verdict in verdicts)
    after.close()


def test_what_an_administrator_did_since_the_backup_is_not_undone(
    before: Installation, folder: Path, tmp_path: Path
) -> None:
    """A revoked credential stays revoked, a locked user locked, a suspended credential suspended."""
    file = back(before, tmp_path / "b.db")
    with before.store.writing() as connection:
        users.lock(connection, before.act(), "bob")
        credentials.revoke_credential(connection, before.act(), int(str(before.credential_of("alice")["id"])))
        credentials.suspend_credential(connection, before.act(), int(str(before.credential_of("hans")["id"])))
    before.close()

    put_back(folder, file, before.clock)

    after = reopen(folder, before.clock)
    states = {name: after.credential_of(name)["state"] for name in ("alice", "hans")}
    with after.store.reading() as connection:
        assert users.find_user(connection, "bob").locked
    assert states == {"alice": CredentialState.REVOKED, "hans": CredentialState.SUSPENDED}
    after.close()


def test_nobody_becomes_exempt_or_not_enrolled_again(folder: Path, tmp_path: Path) -> None:
    """Who was exempt, in grace, without a factor or unknown when the backup was made is asked for what is asked of him now."""
    nobody = {"kind": None, "state": EnrolmentState.NONE}
    before = install(
        folder,
        Person("exempt", requirement=Requirement.EXEMPT),
        Person("enrolled", **nobody),  # type: ignore[arg-type]
        Person("required", **nobody),  # type: ignore[arg-type]
        Person("shortened", **nobody, grace_until=before_end(30)),  # type: ignore[arg-type]
        Person("reset"),
    )
    file = back(before, tmp_path / "b.db")
    with before.store.writing() as connection:
        act = before.act()
        users.follow_policy(connection, act, "exempt")
        for name in ("enrolled", "later"):
            provision_active(connection, act, users.find_or_add_user(connection, act, name), Parameters("mfad"))
        users.require(connection, act, "required", days=1)
        users.require(connection, act, "shortened", days=1)
        users.reset(connection, act, "reset")
    before.close()

    report = put_back(folder, file, before.clock)

    after = reopen(folder, before.clock)
    after.clock.advance(2 * 86_400.0)
    after.policy = default_policy(enforce=Enforce.ENROLLED_ONLY, grace_s=30 * 86_400)
    names = ("exempt", "enrolled", "later", "required", "shortened")
    verdicts = after.in_order(*(attempt(name) for name in names))
    assert [type(verdict) for verdict in verdicts[:4]] == [Challenge] * 4
    assert {row["name"]: row["grace_until"] for row in after.rows("users")}["shortened"] == before_end(1)
    assert {row["name"]: row["state"] for row in after.rows("users")}["reset"] == "none"
    assert report.without_factor == ("enrolled", "later")
    after.close()


def before_end(days: int) -> float:
    """A deadline so many days from the start."""
    return FakeClock()() + days * 86_400.0


def test_failures_since_the_backup_are_not_forgiven(before: Installation, folder: Path, tmp_path: Path) -> None:
    """Else restoring would be a way to go on guessing."""
    file = back(before, tmp_path / "b.db")
    before.decide(*(attempt("alice", f"{n:06d}") for n in range(3)))
    failures = before.rows("throttle")
    before.close()

    put_back(folder, file, before.clock)

    after = reopen(folder, before.clock)
    assert after.rows("throttle") == failures
    assert failures
    after.close()


def test_a_known_source_is_not_restored(before: Installation, folder: Path, tmp_path: Path) -> None:
    """It may have been taken away since; the next login makes it known again."""
    assert [type(v) for v in before.decide(attempt("alice", ALICE.code(before.clock())))] == [Accepted]
    assert before.credential_of("alice")["known_source"] == SOURCE
    file = back(before, tmp_path / "b.db")
    before.close()

    put_back(folder, file, before.clock)

    after = reopen(folder, before.clock)
    row = after.credential_of("alice")
    assert (row["known_source"], row["known_at"], row["known_scope"]) == ("", 0.0, "")
    after.close()


def test_the_generation_rises_over_both_and_the_event_is_written(
    before: Installation, folder: Path, tmp_path: Path
) -> None:
    """Whoever caches must notice; the chain of the restored store is whole."""
    file = back(before, tmp_path / "b.db")
    before.close()

    generations = [put_back(folder, file, before.clock).generation for _ in range(3)]

    store = open_store(folder)
    ring = Installation(store).keyring()
    with store.reading() as connection:
        chains = list(audit_log.verify(connection, keyring=ring))
        newest = audit_log.tail(connection, limit=1)
        assert read_meta(connection, "generation") == "4"
    store.close()
    assert generations == [2, 3, 4]
    assert all(not chain.problems for chain in chains)
    assert "store.restore" in newest[0].body


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files that are somebody else's")
def test_what_root_restores_belongs_to_the_user_of_mfad(before: Installation, folder: Path, tmp_path: Path) -> None:
    """Store and lock: else mfad could not open them."""
    file = back(before, tmp_path / "b.db")
    before.close()
    os.chown(folder, 4711, 4712)

    put_back(folder, file, before.clock)

    assert {(path.stat().st_uid, path.name) for path in folder.iterdir() if path.name != STORE_FILE + ".replaced"} == {
        (4711, STORE_FILE),
        (4711, "mfad.lock"),
    }


def test_row_numbers_are_never_given_twice(before: Installation, folder: Path, tmp_path: Path) -> None:
    """A seal is bound to the number of its row."""
    file = back(before, tmp_path / "b.db")
    with before.store.writing() as connection:
        newer = users.add_user(connection, before.act(), "carol")
    before.close()

    put_back(folder, file, before.clock)

    after = reopen(folder, before.clock)
    with after.store.writing() as connection:
        assert users.add_user(connection, after.act(), "dave").id > newer.id
    after.close()


def test_a_restore_refuses_while_somebody_uses_the_store(before: Installation, folder: Path, tmp_path: Path) -> None:
    """mfad holds the lock shared; and while a restore runs, nobody else gets in."""
    file = back(before, tmp_path / "b.db")

    with StateLock(folder).shared(), pytest.raises(Conflict, match="in use"):
        put_back(folder, file, before.clock)
    with StateLock(folder).exclusive(), pytest.raises(StoreUnavailable), StateLock(folder).shared():
        pass
    before.close()


def test_what_cannot_be_restored_leaves_the_store_untouched(before: Installation, folder: Path, tmp_path: Path) -> None:
    """Another key, a damaged file, a broken chain, no backup at all."""
    good = back(before, tmp_path / "b.db")
    before.close()
    digest = (folder / STORE_FILE).read_bytes()
    other = KeyEncryptionKeys((Secret(b"o" * 32),))
    text, damaged, forged = tmp_path / "t.db", tmp_path / "d.db", tmp_path / "f.db"
    text.write_text("no store")
    raw = bytearray(good.read_bytes())
    raw[8192:12288] = os.urandom(4096)
    damaged.write_bytes(raw)
    shutil.copy(good, forged)
    with sqlite3.connect(forged) as copy:
        copy.execute("UPDATE audit SET body = replace(body, 'tester', 'nobody')")
    copy.close()

    for file, keks, expected in (
        (good, other, ConfigurationError), (text, KEKS, InvalidInput), (damaged, KEKS, MfaError), (forged, KEKS, StoreCorrupt),
        (tmp_path / "absent.db", KEKS, InvalidInput),
    ):  # fmt: skip
        with pytest.raises(expected):
            restore(folder, file, keks, actor="x", now=before.clock(), random=os.urandom)

    assert (folder / STORE_FILE).read_bytes() == digest
    assert sorted(path.name for path in folder.iterdir()) == [STORE_FILE]


def test_killed_at_any_step_there_is_the_old_store_or_the_new_one(
    before: Installation, folder: Path, tmp_path: Path
) -> None:
    """SIGKILL at every file operation of a restore; the store opens, whole, and is one of the two."""
    file = back(before, tmp_path / "b.db")
    with before.store.writing() as connection:
        provision_active(connection, before.act(), users.find_user(connection, "bob"), Parameters("only in the old one"))
    before.close()
    now = before.clock()
    saved = tmp_path / "saved"
    shutil.copytree(folder, saved)

    def work(killer: Killer) -> None:
        killer.armed = True
        restore(folder, file, KEKS, actor="tester", now=now, random=os.urandom)

    seen = set()
    for _ in killed_at_every_step(work):
        store = open_store(folder)
        with store.reading() as connection:
            ring = Installation(store).keyring()
            assert all(not chain.problems for chain in audit_log.verify(connection, keyring=ring))
            generation = read_meta(connection, "generation")
        assert (len(Installation(store).rows("credentials")) == 4) == (generation == "1")
        store.close()
        seen.add(generation)
        shutil.rmtree(folder)
        shutil.copytree(saved, folder)

    assert "1" in seen
    assert put_back(folder, file, FakeClock(now)).generation >= 2
