"""Who may log in on which hosts: asked in the time that the entitled users take, however many others there are."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection, text

from mfa_core.errors import InvalidInput, NotFound
from mfa_core.model import CredentialState
from mfa_runtime.administration import credentials, groups, host_groups
from mfa_runtime.administration.users import UserFilter, add_user, list_users
from mfa_runtime.store import changes, entitlement
from mfa_runtime.store.hosts import HostGroup
from mfa_runtime.store.prepared import Prepared
from mfa_runtime.store.schema import memberships
from tests.doubles import ALICE, BOB, Installation, Person

OTHERS = 100_000
ENTITLED = 1_000

New = Callable[..., Installation]
"""Makes a store with these people, wherever the tests run."""


def numbers(installed: Installation, scope: set[str], limit: int = 2) -> list[int]:
    """All entitled users, page by page."""
    found: list[int] = []
    with installed.store.reading() as connection:
        while page := entitlement.entitled_page(connection, frozenset(scope), found[-1] if found else -1, limit):
            found += page
    return found


@pytest.fixture
def five(new_installed: New) -> Iterator[Installation]:
    """Users 1 to 5: 1 and 2 in a, 2 and 4 in b, 3 and 5 in none."""
    installed = new_installed(*(Person(f"user{number}") for number in range(1, 6)))
    with installed.store.writing() as connection:
        changes.begin_clock(connection)
        act = installed.act()
        groups.add_to_groups(connection, act, "user1", ["a"])
        groups.add_to_groups(connection, act, "user2", ["a", "b"])
        groups.add_to_groups(connection, act, "user4", ["b"])
    yield installed
    installed.close()


@pytest.mark.parametrize(
    ("scope", "wanted"),
    [
        (set(), []), ({"a"}, [1, 2]), ({"a", "b"}, [1, 2, 4]), ({"*"}, [1, 2, 3, 4, 5]), ({"a", "*"}, [1, 2, 3, 4, 5]),
        ({"c"}, []),
    ],
)
@pytest.mark.parametrize("limit", [1, 2, 100])
def test_the_entitled_users_come_in_order_each_once(
    five: Installation, scope: set[str], wanted: list[int], limit: int
) -> None:
    """Whatever the length of a page, and whoever is in two of the groups."""
    assert numbers(five, scope, limit) == wanted
    with five.store.reading() as connection:
        asked = frozenset(scope)
        assert entitlement.count(connection, asked) == len(wanted)
        assert [number for number, _ in entitlement.manifest(connection, asked)] == wanted
        assert entitlement.entitled_among(connection, [1, 2, 3, 4, 5], asked) == set(wanted)
        for number in range(1, 6):
            assert entitlement.is_entitled(connection, number, asked) == (number in wanted)
            assert entitlement.is_entitled(connection, f"user{number}", asked) == (number in wanted)


def test_a_stranger_is_entitled_only_where_everybody_is(five: Installation) -> None:
    """Nobody knows yet who he is; he may enrol where everybody may log in."""
    with five.store.reading() as connection:
        assert entitlement.is_entitled(connection, "stranger", frozenset({"*"}))
        assert not entitlement.is_entitled(connection, "stranger", frozenset({"a", "b"}))


def test_a_document_says_what_counts(five: Installation) -> None:
    """Revoked credentials are not in it, suspended ones are; users without any are in it as well."""
    with five.store.writing() as connection:
        act = five.act()
        credentials.suspend_credential(connection, act, 1)
        credentials.revoke_credential(connection, act, 2)
        add_user(connection, act, "new")
        found = entitlement.documents(connection, [6, 2, 1, 99, 1])

    assert [user.id for user in found] == [1, 2, 6]
    assert [[c.state for c in user.credentials] for user in found] == [[CredentialState.SUSPENDED], [], []]
    assert "sealed" not in repr(found)


def test_the_digest_is_that_of_the_lines(five: Installation) -> None:
    """As both sides compute it: NUMBER|VERSION by number, joined by line feeds, nothing at the end."""
    with five.store.reading() as connection:
        entries = list(entitlement.manifest(connection, frozenset({"a", "b"})))
    lines = "\n".join(f"{number}|{version}" for number, version in entries)

    assert entries == [(1, 2), (2, 3), (4, 4)]
    assert entitlement.manifest_digest(entries) == hashlib.sha256(lines.encode()).hexdigest()
    assert entitlement.manifest_digest([]) == hashlib.sha256(b"").hexdigest()


@given(st.dictionaries(st.integers(1, 2**62), st.integers(0, 2**62), max_size=8))
def test_two_manifests_have_one_digest_only_if_they_are_equal(entries: dict[int, int]) -> None:
    """No two lines can be read as others: a number is digits, and so is a version."""
    same = entitlement.manifest_digest(sorted(entries.items()))
    for number, version in entries.items():
        other = sorted((entries | {number: version + 1}).items())
        assert entitlement.manifest_digest(other) != same


# what it costs


def add_others(installed: Installation, first: int, count: int, *, user_group: str) -> None:
    """So many users in bulk, in this group."""
    with installed.store.writing() as connection:
        connection.execute(
            text(
                "WITH RECURSIVE n(i) AS (SELECT :first UNION ALL SELECT i + 1 FROM n WHERE i < :last)"
                " INSERT INTO users (id, name, state, requirement, grace_until, locked, created_at)"
                " SELECT i, 'other' || i, 'active', 'inherit', 0, false, 0 FROM n"
            ),
            {"first": first, "last": first + count - 1},
        )
        connection.execute(
            text("INSERT INTO memberships SELECT id, :name FROM users WHERE id BETWEEN :first AND :last"),
            {"name": user_group, "first": first, "last": first + count - 1},
        )


def steps(installed: Installation, work: Callable[[Connection], object]) -> int:
    """How many instructions of SQLite's machine this takes: what it costs, without a clock."""
    count = 0

    def step() -> int:
        nonlocal count
        count += 1
        return 0

    with installed.store.reading() as connection:
        raw = connection.connection.driver_connection
        assert isinstance(raw, sqlite3.Connection)
        raw.set_progress_handler(step, 1)
        try:
            work(connection)
        finally:
            raw.set_progress_handler(None, 0)
    return count


def test_users_that_are_not_entitled_cost_nothing(new_installed: New) -> None:
    """A thousand entitled users among a thousand, and among a hundred and one thousand: the same steps, to a hundredth."""
    scope = frozenset({"wanted", "few"})

    def everything(connection: Connection) -> None:
        page = entitlement.entitled_page(connection, scope, -1, 100)
        entitlement.documents(connection, page)
        entitlement.is_entitled(connection, "other7", scope)
        entitlement.entitled_among(connection, page, scope)
        assert len(list(entitlement.manifest(connection, scope))) == ENTITLED
        assert entitlement.count(connection, scope) == ENTITLED

    installed = new_installed()
    add_others(installed, 10, ENTITLED, user_group="wanted")
    before = steps(installed, everything)

    add_others(installed, 10 + ENTITLED, OTHERS, user_group="unwanted")
    after = steps(installed, everything)

    assert before > ENTITLED  # it counts something
    assert after < before * 1.01
    installed.close()


STATEMENTS: dict[str, tuple[Prepared, tuple[object, ...]]] = {
    "page": (entitlement._PAGE_OF_GROUP, ("a", 0, 10, 0)),
    "page of all": (entitlement._PAGE_OF_ALL, (0, 10, 0)),
    "versions of all": (entitlement._VERSIONS_OF_ALL, (0, 10, 0)),
    "documents": (entitlement._DOCUMENTS.sized(8), tuple(range(8))),
    "versions": (entitlement._VERSIONS.sized(8), tuple(range(8))),
    "groups of a name": (entitlement._GROUPS_OF_NAME, ("a",)),
    "groups of a number": (entitlement._GROUPS_OF_ID, (1,)),
    "groups of some": (entitlement._GROUPS_OF_IDS.sized(8), tuple(range(8))),
}


@pytest.mark.parametrize("name", STATEMENTS)
def test_no_statement_reads_a_whole_table(five: Installation, name: str) -> None:
    """Every table is entered by an index; the list of what is asked for is all that is scanned."""
    statement, values = STATEMENTS[name]
    with five.store.reading() as connection:
        raw = connection.connection.driver_connection
        assert raw is not None
        query = "EXPLAIN QUERY PLAN " + statement._for(connection.dialect).text
        plan = [str(row[3]) for row in raw.execute(query, values).fetchall()]

    tables = [line for line in plan if any(table in line for table in ("users", "memberships", "credentials"))]
    assert tables
    assert all(line.startswith("SEARCH") for line in tables), plan


# groups and scopes


def test_a_scope_is_what_was_granted_and_not_withdrawn(five: Installation) -> None:
    """Each change of it has a number of its own, for the hosts of that group."""
    with five.store.writing() as connection:
        act, at = five.act(), changes.now_at(connection)
        host_groups.add_host_group(connection, act, HostGroup("web"))
        assert host_groups.entitle(connection, act, "web", "a")
        assert not host_groups.entitle(connection, act, "web", "a")
        host_groups.entitle(connection, act, "web", "*")
        host_groups.withdraw(connection, act, "web", "*")

        assert entitlement.scope_of(connection, "web") == {"a"}
        assert entitlement.scope_of(connection, "db") == frozenset()
        assert len(changes.since(connection, ["hostgroup:web"], at, 10)) == 3
        with pytest.raises(NotFound):
            host_groups.withdraw(connection, act, "web", "*")
        with pytest.raises(NotFound):
            host_groups.entitle(connection, act, "db", "a")


def test_who_leaves_a_group_is_heard_of_by_its_hosts(five: Installation) -> None:
    """They must forget him: they hear of it, though he is in it no more."""
    with five.store.writing() as connection:
        at = changes.now_at(connection)
        assert groups.remove_from_groups(connection, five.act(), "user2", ["b", "never"]) == ["b"]
        assert [row.user_id for row in changes.since(connection, ["group:b"], at, 10)] == [2]
        assert groups.remove_from_groups(connection, five.act(), "user2", ["b"]) == []


@pytest.mark.parametrize("name", ["", "*", "yes", "no", " a", "a\n", "a" * 129, "\x1b[2J"])
def test_a_group_has_a_name_that_can_be_typed(five: Installation, name: str) -> None:
    """And none that means something else."""
    with five.store.writing() as connection, pytest.raises(InvalidInput):
        groups.add_to_groups(connection, five.act(), "user1", [name])


def test_the_longest_group_is_a_topic(five: Installation) -> None:
    """PostgreSQL counts characters."""
    longest = "ä" * groups.MAX_GROUP_CHARS
    with five.store.writing() as connection:
        groups.add_to_groups(connection, five.act(), "user1", [longest])
        (row,) = changes.since(connection, [changes.group_topic(longest)], 0, 10)

    assert len(row.topic) <= 160


def test_users_are_listed_by_group(new_installed: New) -> None:
    """And groups by how many are in them."""
    installed = new_installed(ALICE, BOB)
    with installed.store.writing() as connection:
        groups.add_to_groups(connection, installed.act(), "bob", ["dev"])
        listed = list(list_users(connection, UserFilter(member_of="dev"), now=0.0))

        assert [user.name for user in listed] == ["bob"]
        assert groups.list_groups(connection) == [groups.ListedGroup("dev", 1)]
        assert list(groups.members(connection, "dev")) == ["bob"]
        assert connection.execute(memberships.select()).all() == [(2, "dev")]
    installed.close()
