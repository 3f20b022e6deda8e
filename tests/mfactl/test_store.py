"""``mfactl store``: into a database and back, and what a database changes for the other commands."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.end_to_end.postgresql import Cluster
from tests.mfactl.conftest import Command


@pytest.fixture
def url(postgresql: Cluster) -> Iterator[str]:
    """Of an empty database."""
    name = postgresql.create()
    yield postgresql.url(name)
    postgresql.drop(name)


def say_where(directory: Path, url: str) -> None:
    """Change the configuration as `mfactl store migrate` says."""
    config = directory / "mfad.yaml"
    lines = [line for line in config.read_text().splitlines() if not line.startswith("store:")]
    config.write_text("\n".join([*lines, f'store: {{url: "{url}"}}' if url else ""]) + "\n")


def test_a_store_moves_into_a_database_and_back(mfactl: Command, tmp_path: Path, url: str) -> None:
    """Users, chains and identity come along; the old place is not used again."""
    mfactl("user", "add", "alice", "bob")
    before = mfactl("store", "status", "--json").json
    moved = mfactl("store", "migrate", "--to", url, "--json").json
    assert moved["rows"]["users"] == 2

    say_where(tmp_path, url)
    after = mfactl("store", "status", "--json").json
    assert (after["kind"], after["store_id"], after["users"]) == ("postgresql", before["store_id"], 2)
    assert after["audit_events"] == before["audit_events"] + 1
    assert after["others"] == []
    assert mfactl("user", "add", "carol").status == 0
    assert mfactl("audit", "verify").status == 0

    refused = mfactl("store", "migrate", "--to", "sqlite")
    assert (refused.status != 0, "is not empty" in refused.err) == (True, True)
    old = tmp_path / "var" / "state" / "mfad.sqlite"
    old.rename(tmp_path / "old.sqlite")
    for beside in old.parent.glob("mfad.sqlite-*"):
        beside.unlink()
    assert mfactl("store", "migrate", "--to", "sqlite", "--json").json["rows"]["users"] == 3
    say_where(tmp_path, "")
    assert [one["name"] for one in mfactl("user", "list", "--json").json] == ["alice", "bob", "carol"]


def test_a_store_that_others_have_open_is_not_moved(mfactl: Command, tmp_path: Path, url: str) -> None:
    """A lock of this machine knows nothing of other ones."""
    assert mfactl("store", "migrate", "--to", url).status == 0
    say_where(tmp_path, url)
    with psycopg.connect(url, application_name="mfad elsewhere:4711"):
        for command in (("store", "migrate", "--to", "sqlite"), ("store", "restored")):
            refused = mfactl(*command)
            assert refused.status != 0
            assert "in use by elsewhere:4711" in refused.err
    settled = mfactl("store", "restored", "--json").json
    assert settled["generation"] == 2


def test_what_copies_a_file_says_what_to_do_with_a_database(mfactl: Command, tmp_path: Path, url: str) -> None:
    """And `restored` is for databases alone."""
    refused = mfactl("store", "restored")
    assert "mfactl restore FILE" in refused.err
    mfactl("store", "migrate", "--to", url)
    say_where(tmp_path, url)

    backup, restore = mfactl("backup", "x"), mfactl("restore", "x")

    assert "pg_dump" in backup.err
    assert "store restored" in restore.err
    assert not (tmp_path / "x").exists()


def test_a_machine_without_the_key_of_a_shared_store_is_told_so(mfactl: Command, tmp_path: Path, url: str) -> None:
    """A key of its own would open nothing, and hide that the right one is missing."""
    mfactl("store", "migrate", "--to", url)
    say_where(tmp_path, url)
    (tmp_path / "var" / "kek").rename(tmp_path / "kek.away")

    refused = mfactl("init")

    assert "copy the key file" in refused.err
    assert not (tmp_path / "var" / "kek").exists()


@pytest.mark.parametrize("to", ["postgresql://mfad:hunter2@db/mfad", "mysql://hunter2@db/mfad", "postgresql://db"])
def test_a_place_that_is_none_is_refused_without_a_password(mfactl: Command, to: str) -> None:
    """What is wrong is said, and no part of a password."""
    refused = mfactl("store", "migrate", "--to", to)

    assert refused.status != 0
    assert "--to: saw" in refused.err
    assert "hunter2" not in refused.err


def test_the_store_itself_is_no_other_place(mfactl: Command) -> None:
    """SQLite into SQLite."""
    assert "is the store itself" in mfactl("store", "migrate", "--to", "sqlite").err
