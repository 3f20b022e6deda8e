"""Keys are replaced while others work; a crash at any step leaves a key file and a store that fit together."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from mfa_core.errors import ConfigurationError
from mfa_core.secret import Secret
from mfa_core.verdict import Accepted
from mfa_runtime.administration import keys
from mfa_runtime.administration.act import Act
from mfa_runtime.administration.keys import report_keys, rotate_data_key, rotate_kek
from mfa_runtime.key_file import KeyEncryptionKeys, load_key_source, write_key_file
from mfa_runtime.ledger import Ledger
from mfa_runtime.sealing import Keyring, RandomBytes, key_id
from mfa_runtime.store import codebooks, key_pairs
from mfa_runtime.store.codebooks import Codebook
from mfa_runtime.store.database import STORE_FILE, Store, connect
from mfa_runtime.store.key_pairs import KeyPair
from mfa_runtime.store.key_table import load_keyring
from tests.doubles import KEK, NODE, FakeClock, Installation, Person, RecordingSink, attempt, install
from tests.runtime.kill import Killer, killed_at_every_step

PEOPLE = [Person(f"user{n}") for n in range(25)]


def ring_of(store: Store, key_file: Path) -> Keyring:
    with store.reading() as connection:
        return load_keyring(connection, load(key_file), random=os.urandom)


def load(key_file: Path) -> KeyEncryptionKeys:
    return load_key_source(str(key_file), credentials_directory=None)


def rotate(store: Store, key_file: Path, *, data: bool, random: RandomBytes = os.urandom) -> None:
    """What ``mfactl key rotate`` does."""
    after = rotate_kek(store, Act("tester", 0.0, random, ring_of(store, key_file)), load(key_file), key_file)
    if data:
        rotate_data_key(
            store, after, lambda ring: Act("tester", 0.0, random, ring), random=random, advance=lambda done, total: None
        )


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "kek"
    write_key_file(path, KeyEncryptionKeys((KEK,)))
    return path


def test_a_new_key_encryption_key_opens_what_the_old_one_sealed(tmp_path: Path, key_file: Path) -> None:
    """The file holds one key afterwards, another one, and the old one opens nothing."""
    installed = install(tmp_path, *PEOPLE)

    rotate(installed.store, key_file, data=False)

    keks = load(key_file)
    assert len(keks.keys) == 1
    assert key_id(keks.current) != key_id(KEK)
    ring_of(installed.store, key_file)
    with pytest.raises(ConfigurationError):
        installed.keyring()
    installed.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files that are somebody else's")
def test_the_key_file_keeps_its_owner(tmp_path: Path, key_file: Path) -> None:
    """mfad reads it again while it runs."""
    installed = install(tmp_path, *PEOPLE)
    before = load(key_file)
    os.chown(key_file, 4711, 4711)

    rotate_kek(installed.store, installed.act(), before, key_file)

    assert (key_file.stat().st_uid, key_file.stat().st_mode & 0o777) == (4711, 0o400)
    installed.close()


def test_a_new_data_key_seals_every_secret_and_the_old_one_is_dropped(
    tmp_path: Path, key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In batches; the report shows one data key for all rows."""
    monkeypatch.setattr(keys, "BATCH_ROWS", 10)
    installed = install(tmp_path, *PEOPLE)
    secrets = [row["secret"] for row in installed.rows("credentials")]

    rotate(installed.store, key_file, data=True)

    with installed.store.reading() as connection:
        report = report_keys(connection, load(key_file))
    (data_key,) = [key for key in report.keys if key.purpose == "data"]
    assert report.rows == {data_key.number: len(PEOPLE)}
    assert not report.unfinished
    assert all(row["secret"] not in secrets for row in installed.rows("credentials"))
    installed.close()


def test_key_pairs_and_codebooks_are_sealed_anew_as_well(tmp_path: Path, key_file: Path) -> None:
    """What an authority and an agent keep lies under the same data key: dropping the old one must lose none of it."""
    installed = install(tmp_path, *PEOPLE)
    pair, book = KeyPair("ca", Secret(b"private"), b"public"), Codebook(7, 1_000, Secret(b"codes"))
    with installed.store.writing() as connection:
        key_pairs.save(connection, installed.keyring(), pair)
        codebooks.put(connection, installed.keyring(), [book])

    rotate(installed.store, key_file, data=True)

    ring = ring_of(installed.store, key_file)
    with installed.store.reading() as connection:
        loaded, books = key_pairs.load(connection, ring, "ca"), codebooks.get(connection, ring, [7])
        report = report_keys(connection, load(key_file))
    assert loaded is not None
    assert loaded.private.same_as(pair.private)
    assert books[7].codes.same_as(book.codes)
    assert report.rows == {ring.current: len(PEOPLE) + 2}
    installed.close()


def test_a_running_process_goes_on_after_a_rotation(tmp_path: Path, key_file: Path) -> None:
    """It loads the keys again when it meets a value that it cannot open."""
    installed = install(tmp_path, *PEOPLE)
    ledger = Ledger(
        installed.store,
        keyring=ring_of(installed.store, key_file),
        reload_keyring=lambda: ring_of(installed.store, key_file),
        node=NODE,
        clock=installed.clock,
        sink=RecordingSink(),
    )
    rotate(installed.store, key_file, data=True)

    (ruling,) = installed.process(ledger, attempt("user3", PEOPLE[3].code(installed.clock())))

    assert isinstance(ruling.verdict, Accepted)
    ledger._session.close()
    installed.close()


def test_killed_at_any_step_everything_opens_and_the_same_command_finishes(
    tmp_path: Path, key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGKILL at every file operation and at every use of randomness."""
    monkeypatch.setattr(keys, "BATCH_ROWS", 10)
    state = tmp_path / "state"
    state.mkdir()
    install(state, *PEOPLE).close()
    saved, saved_key = tmp_path / "saved", tmp_path / "kek.saved"
    shutil.copytree(state, saved)
    shutil.copy(key_file, saved_key)

    def work(killer: Killer) -> None:
        def random(count: int) -> bytes:
            killer.step()
            return os.urandom(count)

        store = connect(state / STORE_FILE)
        killer.armed = True
        rotate(store, key_file, data=True, random=random)
        store.close()

    for number in killed_at_every_step(work, stride=3):
        installed = Installation(connect(state / STORE_FILE), clock=FakeClock())
        ring = ring_of(installed.store, key_file)
        with installed.store.reading() as connection:
            unfinished = report_keys(connection, load(key_file)).unfinished
        (credential,) = [row for row in installed.rows("credentials") if row["id"] == 7]
        assert ring.unseal(bytes(credential["secret"]), _place(credential)).same_as(Secret(PEOPLE[6].secret)), number  # type: ignore[arg-type]
        rotate(installed.store, key_file, data=unfinished)
        with installed.store.reading() as connection:
            assert not report_keys(connection, load(key_file)).unfinished
        installed.store.close()
        shutil.rmtree(state)
        shutil.copytree(saved, state)
        key_file.unlink()
        shutil.copy(saved_key, key_file)


def _place(row: dict[str, object]) -> object:
    from mfa_runtime.sealing import Place

    return Place("credentials", "secret", int(str(row["id"])), int(str(row["user_id"])))
