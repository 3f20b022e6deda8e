"""Passwords of our own: set, checked, moved, planted, restored, rotated."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from sqlalchemy import select, text, update

from mfa_core.errors import InvalidInput, NotFound
from mfa_core.secret import Secret
from mfa_core.throttle import ThrottleRules
from mfa_runtime import password_hash
from mfa_runtime.administration import keys
from mfa_runtime.administration.act import Act
from mfa_runtime.administration.backup import back_up
from mfa_runtime.administration.passwords import check_password, remove_password, set_password
from mfa_runtime.administration.restore import restore
from mfa_runtime.administration.users import UserFilter, list_users
from mfa_runtime.key_file import KeyEncryptionKeys
from mfa_runtime.primary_local import LocalPrimary
from mfa_runtime.sealing import Keyring
from mfa_runtime.state_lock import StateLock
from mfa_runtime.store.database import STORE_FILE, connect
from mfa_runtime.store.key_table import load_keyring
from mfa_runtime.store.passwords import password_row
from mfa_runtime.store.schema import audit, passwords
from tests.doubles import ALICE, BOB, KEK, Installation, attempt, install

GOOD, OTHER = "correct horse battery", "staple of another colour"
KEKS = KeyEncryptionKeys((KEK,))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    state = tmp_path / "state"
    state.mkdir()
    return state


@pytest.fixture
def installed(folder: Path) -> Installation:
    """alice and bob, without passwords."""
    return install(folder, ALICE, BOB)


def give(installed: Installation, name: str, password: str) -> None:
    with installed.store.writing() as connection:
        set_password(connection, installed.act(), name, Secret(password.encode()))


def check(installed: Installation, name: str, password: str | bytes) -> bool:
    raw = password.encode() if isinstance(password, str) else password

    async def ask() -> bool:
        backend = LocalPrimary(
            installed.store, keyring=lambda: ring_of(installed), clock=installed.clock, throttle=ThrottleRules(source_free=3)
        )
        try:
            return await backend.check(name, Secret(raw), attempt(name))
        finally:
            backend.close()

    return asyncio.run(ask())


def ring_of(installed: Installation) -> Keyring:
    with installed.store.reading() as connection:
        return load_keyring(connection, KEKS, random=os.urandom)


def test_right_wrong_and_none(installed: Installation) -> None:
    """A password counts from when it is set, and no longer when it is replaced or removed."""
    assert check(installed, "alice", GOOD) is False
    give(installed, "alice", GOOD)
    assert check(installed, "alice", GOOD) is True
    for wrong in (GOOD + " ", GOOD + "\0", GOOD.upper(), "", b"\xff", "x" * 257):
        installed.clock.advance(60)
        assert check(installed, "alice", wrong) is False
    assert check(installed, "bob", GOOD) is False
    assert check(installed, "nobody", GOOD) is False

    give(installed, "alice", OTHER)
    assert check(installed, "alice", GOOD) is False
    assert check(installed, "alice", OTHER) is True

    with installed.store.writing() as connection:
        remove_password(connection, installed.act(), "alice")
    assert check(installed, "alice", OTHER) is False
    with installed.store.writing() as connection, pytest.raises(NotFound):
        remove_password(connection, installed.act(), "alice")


def test_whoever_has_none_costs_the_same(installed: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    """One argon2 run for everybody, with the same parameters."""
    give(installed, "alice", GOOD)
    runs: list[str] = []

    class Counting:
        def verify(self, stored: str, tag: bytes) -> bool:
            runs.append(stored.rpartition("$")[0].rpartition("$")[0])
            return real.verify(stored, tag)

    real = password_hash._hasher
    monkeypatch.setattr(password_hash, "_hasher", Counting())
    for name in ("alice", "bob", "nobody"):
        check(installed, name, "wrong password")

    assert len(runs) == 3
    assert len(set(runs)) == 1


def test_a_row_that_was_moved_or_planted_is_no_password(installed: Installation) -> None:
    """Somebody with write access to the database, and without the key."""
    give(installed, "alice", GOOD)
    give(installed, "bob", OTHER)
    with installed.store.writing() as connection:
        alice, bob = password_row(connection, "alice"), password_row(connection, "bob")
        assert alice is not None
        assert bob is not None
        connection.execute(update(passwords).where(passwords.c.user_id == alice[0]).values(hash=bob[1]))
    assert check(installed, "alice", OTHER) is False
    assert check(installed, "alice", GOOD) is False

    other = Keyring({1: Secret(bytes(32))}, current=1, pepper=Secret(bytes(32)), audit_key=Secret(bytes(32)), random=os.urandom)
    made = password_hash.hash_password(Secret(GOOD.encode()), alice[0], keyring=other)
    for planted in (made, GOOD, "", "$argon2id$", "\0"):
        with installed.store.writing() as connection:
            connection.execute(update(passwords).where(passwords.c.user_id == alice[0]).values(hash=planted))
        assert check(installed, "alice", GOOD) is False


def test_what_happens_is_written_down(installed: Installation) -> None:
    """Who, of whom; never the password, in no file of the store."""
    give(installed, "alice", GOOD)
    with installed.store.writing() as connection:
        remove_password(connection, installed.act(), "alice")
        bodies = "".join(connection.execute(select(audit.c.body)).scalars())

    assert "user.password.set" in bodies
    assert "user.password.remove" in bodies
    assert GOOD not in bodies


def test_a_list_says_who_has_one(installed: Installation) -> None:
    """`user list --json`."""
    give(installed, "bob", GOOD)
    with installed.store.reading() as connection:
        listed = {user.name: user.has_password for user in list_users(connection, UserFilter(), now=0)}

    assert listed == {"alice": False, "bob": True}


def test_a_user_who_is_removed_takes_it_along(installed: Installation) -> None:
    """The row goes with its owner."""
    give(installed, "alice", GOOD)
    with installed.store.writing() as connection:
        connection.execute(text("DELETE FROM users WHERE name = 'alice'"))
        assert connection.execute(select(passwords)).all() == []


REFUSED = {
    "seven characters": "s3cret!",
    "257 bytes": "x" * 128 + "y" * 129,
    "129 two-byte characters": "ä" * 100 + "ö" * 29,
    "one character": "zzzzzzzzzzzz",
    "a common one": "Password123",
    "a line feed": "correct\nhorse",
    "a NUL": "correct\0horse",
}


@pytest.mark.parametrize("what", REFUSED)
def test_passwords_that_are_refused(what: str, installed: Installation) -> None:
    """The reason never quotes it, and nothing is changed."""
    with installed.store.writing() as connection, pytest.raises(InvalidInput) as refused:
        set_password(connection, installed.act(), "alice", Secret(REFUSED[what].encode()))
    assert REFUSED[what] not in str(refused.value) + refused.value.cure
    with installed.store.reading() as connection:
        assert password_row(connection, "alice") is None


@pytest.mark.parametrize("password", ["8 chars.", "äöüßÄÖÜ€", "x" * 255 + "y", "ends with blanks  "])
def test_passwords_that_are_taken(password: str, installed: Installation) -> None:
    """Any characters; at least eight, at most 256 bytes."""
    give(installed, "alice", password)
    assert check(installed, "alice", password) is True


def test_a_name_is_no_password() -> None:
    """In no spelling."""
    with pytest.raises(InvalidInput):
        check_password(Secret(b"Alice-In-Chains"), name="alice-in-chains")


def test_bytes_that_nobody_can_type_are_refused() -> None:
    """Not UTF-8."""
    with pytest.raises(InvalidInput):
        check_password(Secret(b"\xff\xfe" * 8), name="alice")


def test_an_unknown_user_gets_none(installed: Installation) -> None:
    """There is nobody to check it for."""
    with installed.store.writing() as connection, pytest.raises(NotFound):
        set_password(connection, installed.act(), "nobody", Secret(GOOD.encode()))


def restored(installed: Installation, folder: Path, backup: Path, *, present: bool) -> Installation:
    installed.store.close()
    if not present:
        (folder / STORE_FILE).unlink()
    with StateLock(folder).exclusive():
        restore(folder, backup, KEKS, actor="tester", now=installed.clock(), random=os.urandom)
    return Installation(connect(folder / STORE_FILE), clock=installed.clock)


def test_a_restore_brings_no_old_password_back(installed: Installation, folder: Path, tmp_path: Path) -> None:
    """Changed, removed and set since the backup: as they are now. A store that is lost: as in the backup."""
    give(installed, "alice", GOOD)
    give(installed, "bob", GOOD)
    backup = tmp_path / "b.db"
    back_up(installed.store, installed.act(), backup)
    give(installed, "alice", OTHER)
    with installed.store.writing() as connection:
        remove_password(connection, installed.act(), "bob")

    again = restored(installed, folder, backup, present=True)
    assert check(again, "alice", GOOD) is False
    assert check(again, "alice", OTHER) is True
    assert check(again, "bob", GOOD) is False

    lost = restored(again, folder, backup, present=False)
    assert check(lost, "alice", GOOD) is True
    assert check(lost, "bob", GOOD) is True
    lost.store.close()


def test_passwords_survive_a_rotation_of_the_data_key(installed: Installation) -> None:
    """They hang on the pepper, which stays."""
    give(installed, "alice", GOOD)

    def act(ring: Keyring) -> Act:
        return Act("tester", installed.clock(), os.urandom, ring)

    keys.rotate_data_key(installed.store, KEKS, act, random=os.urandom, advance=lambda *_: None)

    assert check(installed, "alice", GOOD) is True


def test_guessing_costs_waiting_in_every_process_until_it_stops(installed: Installation) -> None:
    """Nobody else counts these: three are free here, then the right one waits as well; a success forgets them."""
    give(installed, "alice", GOOD)
    guesses = [check(installed, "alice", OTHER) for _ in range(4)]
    waits = check(installed, "alice", GOOD)
    installed.clock.advance(2)
    comes = check(installed, "alice", GOOD)
    after = [check(installed, "alice", OTHER) for _ in range(3)]

    assert guesses == [False] * 4
    assert waits is False
    assert comes is True
    assert after == [False] * 3
    assert check(installed, "alice", GOOD) is True


def test_guessing_at_one_user_holds_up_no_other(installed: Installation) -> None:
    for name in ("alice", "bob"):
        give(installed, name, GOOD)
    for _ in range(5):
        check(installed, "alice", OTHER)

    assert check(installed, "bob", GOOD) is True


def test_a_name_without_a_password_leaves_no_record(installed: Installation) -> None:
    """A flood of names fills no table."""
    for name in ("alice", "nobody"):
        check(installed, name, OTHER)

    assert installed.rows("throttle") == []


def test_a_new_password_starts_without_the_guesses_at_the_old_one(installed: Installation) -> None:
    give(installed, "alice", GOOD)
    for _ in range(6):
        check(installed, "alice", OTHER)
    give(installed, "alice", OTHER)

    assert check(installed, "alice", OTHER) is True
