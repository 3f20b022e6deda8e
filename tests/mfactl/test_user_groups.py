"""`mfactl user group`: who is in which group, and who is in one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mfactl.conftest import Command


@pytest.fixture
def people(mfactl: Command) -> Command:
    """An installation with alice and bob."""
    assert mfactl("user", "add", "alice", "bob").status == 0
    return mfactl


def test_groups_are_added_listed_and_removed(people: Command) -> None:
    """Told for people and for programs; the same again changes nothing."""
    added = people("user", "group", "Alice", "add", "ops", "dev")
    assert (added.status, added.out) == (0, "alice: dev, ops\n")
    assert people("user", "group", "alice").out == "alice: dev, ops\n"
    assert people("user", "group", "alice", "list", "--json").json == {"name": "alice", "groups": ["dev", "ops"], "changed": []}
    again = people("user", "group", "alice", "add", "ops", "--json").json
    assert again == {"name": "alice", "groups": ["dev", "ops"], "changed": []}
    assert "nothing to add" in people("user", "group", "alice", "add", "ops").out

    removed = people("user", "group", "alice", "remove", "ops", "never", "--json").json
    assert removed == {"name": "alice", "groups": ["dev"], "changed": ["ops"]}
    assert people("user", "group", "bob").out == "bob: -\n"


def test_users_and_groups_are_listed(people: Command) -> None:
    """The users of a group, the groups with how many they have, the groups of a user."""
    people("user", "group", "alice", "add", "dev")

    assert [user["name"] for user in people("user", "list", "--in-group", "dev", "--json").json] == ["alice"]
    assert people("user", "list", "--in-group", "none", "--json").json == []
    assert people("user", "groups", "--json").json == [{"name": "dev", "users": 1}]
    assert "dev" in people("user", "groups").out
    assert people("user", "show", "alice", "--json").json["groups"] == ["dev"]
    assert "groups        dev" in people("user", "show", "alice").out
    assert "groups" not in people("user", "show", "bob").out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("alice", "add"), "no group was named"),
        (("alice", "list", "dev"), "`list` takes no groups"),
        (("alice", "add", "*"), "cannot be a group's name"),
        (("carol", "add", "dev"), "there is no user carol"),
    ],
)
def test_what_cannot_be_is_refused_with_a_cure(people: Command, arguments: tuple[str, ...], says: str) -> None:
    """Nothing is changed."""
    answer = people("user", "group", *arguments)

    assert answer.status != 0
    assert says in answer.err
    assert "cure:" in answer.err
    assert people("user", "groups", "--json").json == []


def test_an_import_puts_users_into_groups(mfactl: Command, tmp_path: Path) -> None:
    """A column names them, with spaces or semicolons; a row with a group that cannot be is a problem."""
    table = tmp_path / "table.csv"
    table.write_text(f"user,secret,groups\nalice,{'A' * 32},dev;ops\nbob,{'B' * 32},dev\ncarol,{'C' * 32},{'x' * 200}\n")

    mfactl("import", "csv", str(table))

    assert mfactl("user", "groups", "--json").json == [{"name": "dev", "users": 2}, {"name": "ops", "users": 1}]
    assert [user["name"] for user in mfactl("user", "list", "--json").json] == ["alice", "bob"]
