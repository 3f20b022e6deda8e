"""Whatever a host must hear of takes a number in the transaction that changes it, and no reader passes a number by."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from sqlalchemy import Connection, func, select, update

from mfa_core.identity import IdentityRules
from mfa_core.model import Credential, CredentialState, EnrolmentState, FactorKind
from mfa_core.oath import code_at, step_at
from mfa_core.secret import Secret
from mfa_core.throttle import Record
from mfa_runtime.administration import bypass, credentials, enrolment, groups, importing, passwords, recovery, users
from mfa_runtime.administration.act import Act
from mfa_runtime.administration.enrolment import Confirmed, Parameters
from mfa_runtime.administration.users import find_user
from mfa_runtime.imports.row import ImportedCredential
from mfa_runtime.sealing import Place
from mfa_runtime.store import changes, entitlement
from mfa_runtime.store.accounts import write_records
from mfa_runtime.store.entitlement import UserRow
from mfa_runtime.store.schema import changes as changes_table
from mfa_runtime.store.schema import credentials as credentials_table
from mfa_runtime.store.schema import users as users_table
from tests.doubles import ALICE, BOB, T0, Installation, Person, attempt, default_policy

HANS = Person("hans", kind=FactorKind.HOTP)
PARAMETERS = Parameters("Example")
ROOT = Path(__file__).parents[2]

Change = Callable[[Connection, Act], object]
New = Callable[..., Installation]
"""Makes a store with these people, wherever the tests run."""


@pytest.fixture
def numbered(new_installed: New) -> Iterator[Installation]:
    """A store whose clock runs: alice and bob are in group dev, hans is in none, carol has nothing yet."""
    installed = new_installed(ALICE, BOB, HANS)
    prepare(installed)
    with installed.store.writing() as connection:
        assert changes.begin_clock(connection)
    yield installed
    installed.close()


def prepare(installed: Installation) -> None:
    with installed.store.writing() as connection:
        act = installed.act()
        users.add_user(connection, act, "carol")
        groups.add_to_groups(connection, act, "alice", ["dev"])
        groups.add_to_groups(connection, act, "bob", ["dev", "ops"])
        credentials.suspend_credential(connection, act, 2)


def confirm(connection: Connection, act: Act) -> object:
    """The right code of what carol has pending."""
    carol = find_user(connection, "carol")
    row = connection.execute(select(credentials_table).where(credentials_table.c.user_id == carol.id)).one()
    secret = act.keyring.unseal(bytes(row.secret), Place("credentials", "secret", row.id, carol.id))
    code = code_at(Credential(1, FactorKind.TOTP, CredentialState.PENDING, secret), step_at(act.now, 30))
    outcome = enrolment.confirm(connection, act, carol, code)
    assert isinstance(outcome, Confirmed)
    return outcome


def expire(connection: Connection, act: Act) -> object:
    later = Act(act.actor, act.now + 10_000, act.random, act.keyring, act.node)
    return enrolment.expire_pending(connection, later, find_user(connection, "carol"))


BEFORE: dict[str, Change] = {
    "users.follow_policy": lambda c, act: users.exempt(c, act, "alice"),
    "users.unlock": lambda c, act: users.lock(c, act, "alice"),
    "users.invite_again": lambda c, act: credentials.revoke_credential(c, act, 1),
    "enrolment.confirm": lambda c, act: enrolment.begin(c, act, find_user(c, "carol"), PARAMETERS),
    "enrolment.expire_pending": lambda c, act: enrolment.begin(c, act, find_user(c, "carol"), PARAMETERS),
}
"""What must have been for a change to be one."""

TOLD: dict[str, Change] = {
    "users.add_user": lambda c, act: users.add_user(c, act, "dave"),
    "users.find_or_add_user": lambda c, act: users.find_or_add_user(c, act, "dave"),
    "users.require": lambda c, act: users.require(c, act, "alice"),
    "users.exempt": lambda c, act: users.exempt(c, act, "alice"),
    "users.follow_policy": lambda c, act: users.follow_policy(c, act, "alice"),
    "users.lock": lambda c, act: users.lock(c, act, "alice"),
    "users.unlock": lambda c, act: users.unlock(c, act, "alice"),
    "users.reset": lambda c, act: users.reset(c, act, "alice"),
    "users.invite_again": lambda c, act: users.invite_again(c, act, find_user(c, "alice")),
    "credentials.suspend_credential": lambda c, act: credentials.suspend_credential(c, act, 1),
    "credentials.resume_credential": lambda c, act: credentials.resume_credential(c, act, 2),
    "credentials.revoke_credential": lambda c, act: credentials.revoke_credential(c, act, 1),
    "credentials.resynchronise_credential": lambda c, act: credentials.resynchronise_credential(
        c, act, 3, HANS.code_number(7), HANS.code_number(8)
    ),
    "enrolment.begin": lambda c, act: enrolment.begin(c, act, find_user(c, "carol"), PARAMETERS),
    "enrolment.confirm": confirm,
    "enrolment.provision_active": lambda c, act: enrolment.provision_active(c, act, find_user(c, "carol"), PARAMETERS),
    "enrolment.expire_pending": expire,
    "groups.add_to_groups": lambda c, act: groups.add_to_groups(c, act, "alice", ["ops"]),
    "groups.remove_from_groups": lambda c, act: groups.remove_from_groups(c, act, "bob", ["ops"]),
}
"""One call of everything an administrator (or a person, enrolling) does that hosts must hear of."""

UNTOLD: dict[str, str] = {
    "passwords.set_password": "passwords of our own stay at the authority",
    "passwords.remove_password": "as above",
    "recovery.new_recovery_codes": "used at the authority alone",
    "recovery.replace_recovery_key": "as above",
    "bypass.issue_bypass": "used at the authority alone",
    "bypass.revoke_bypass": "as above",
    "enrolment.secret_tag": "makes a tag and writes nothing",
}


def what_hosts_know(connection: Connection) -> dict[int, tuple[UserRow, tuple[str, ...]]]:
    """Every user as hosts are told, without the version; and the groups, which say to whom."""
    ids = list(connection.execute(select(users_table.c.id)).scalars())
    return {
        user.id: (replace(user, version=0), tuple(groups.groups_of(connection, find_user(connection, user.name))))
        for user in entitlement.documents(connection, ids)
    }


def acts_of(module: ModuleType) -> set[str]:
    """The public functions of a module that take a connection and an act."""
    name = module.__name__.rpartition(".")[2]
    return {
        f"{name}.{one}"
        for one, function in vars(module).items()
        if inspect.isfunction(function)
        and function.__module__ == module.__name__
        and not one.startswith("_")
        and "act" in inspect.signature(function).parameters
    }


def test_every_act_is_tried_or_named_as_none_that_hosts_hear_of() -> None:
    """A new function of administration does not get past the tests below."""
    found = set().union(*map(acts_of, (users, credentials, enrolment, groups, passwords, recovery, bypass)))

    assert found == TOLD.keys() | UNTOLD.keys()


@pytest.mark.parametrize("name", TOLD)
def test_what_changes_a_user_for_hosts_is_noted_for_all_his_topics(numbered: Installation, name: str) -> None:
    """Everybody's topic and that of each group that he is in, or was: with the number that is his version from then on."""
    with numbered.store.writing() as connection:
        BEFORE.get(name, lambda *_: None)(connection, numbered.act())
        before, at = what_hosts_know(connection), changes.now_at(connection)
        TOLD[name](connection, numbered.act())
        after = what_hosts_know(connection)
        changed = {user_id for user_id in after if after[user_id] != before.get(user_id)}

        assert changed
        for user_id in changed:
            topics = {changes.EVERYBODY}
            for _, of in (before.get(user_id, (None, ())), after[user_id]):
                topics |= set(map(changes.group_topic, of))
            (document,) = entitlement.documents(connection, [user_id])
            noted = [row for row in changes.since(connection, topics, at, 100) if row.user_id == user_id]
            assert {row.topic for row in noted} == topics
            assert max(row.seq for row in noted) == document.version


@pytest.mark.parametrize("name", TOLD)
def test_a_store_without_an_authority_notes_nothing(new_installed: New, name: str) -> None:
    """No number, no row, no version."""
    installed = new_installed(ALICE, BOB, HANS)
    prepare(installed)
    with installed.store.writing() as connection:
        BEFORE.get(name, lambda *_: None)(connection, installed.act())
        TOLD[name](connection, installed.act())

        assert changes.now_at(connection) == 0
        assert connection.execute(select(func.count()).select_from(changes_table)).scalar() == 0
        assert set(connection.execute(select(users_table.c.version)).scalars()) == {0}
    installed.close()


def test_a_recovery_code_is_nothing_that_hosts_hear_of(numbered: Installation) -> None:
    """What changes nothing for hosts wakes none of them."""
    with numbered.store.writing() as connection:
        act, alice = numbered.act(), find_user(connection, "alice")
        passwords.set_password(connection, act, "alice", Secret(b"correct horse"))
        recovery.new_recovery_codes(connection, act, alice, count=1)
        bypass.issue_bypass(connection, act, alice, reason="lost", approver="bob")

        assert changes.now_at(connection) == 1


def test_an_import_is_one_change_of_many_users(numbered: Installation) -> None:
    """A batch takes one number; the groups that the file names are joined in it."""
    rows = [
        ImportedCredential(line, f"user{line}", Secret(bytes([line]) * 20), groups=("dev", "new")) for line in range(1, 6)
    ]
    importing.import_rows(
        numbered.store, numbered.act, rows, rules=IdentityRules(), source="test", dry_run=False, report=lambda _: None
    )

    with numbered.store.reading() as connection:
        noted = changes.since(connection, ["group:new"], 1, 100)
        assert len(noted) == 5
        assert {row.seq for row in noted} == {2}
        assert len(changes.since(connection, ["group:dev"], 1, 100)) == 5
        assert {u.version for u in entitlement.documents(connection, [row.user_id for row in noted])} == {2}


# reading


def some_changes(numbered: Installation) -> None:
    with numbered.store.writing() as connection:
        changes.note_user(connection, 1, T0)  # 2
        changes.note_users(connection, [1, 2, 3], T0 + 1)  # 3
        changes.note_topic(connection, changes.host_group_topic("web"), T0 + 2)  # 4
        changes.note_user(connection, 3, T0 + 3, also=["group:old"])  # 5


def test_a_reader_sees_its_own_topics_in_order(numbered: Installation) -> None:
    """Those of another group are not in the answer, and nothing comes twice for one topic."""
    some_changes(numbered)
    with numbered.store.reading() as connection:
        found = changes.since(connection, ["group:dev", "hostgroup:web"], 1, 100)

    assert [(row.seq, row.user_id) for row in found] == [(2, 1), (3, 1), (3, 2), (4, 0)]


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_a_reader_pages_through_a_change_of_many_users(numbered: Installation, limit: int) -> None:
    """Page by page the same rows as at once, also where a page ends between two users of one number."""
    some_changes(numbered)
    with numbered.store.reading() as connection:
        at_once = changes.since(connection, ["group:*", "group:old"], 0, 100)
        paged: list[changes.Change] = []
        after, user = 0, 2**63 - 1
        while page := changes.since(connection, ["group:*", "group:old"], after, limit, after_user=user):
            paged += page
            after, user = page[-1].seq, page[-1].user_id

    assert {(row.seq, row.user_id) for row in paged} == {(row.seq, row.user_id) for row in at_once}


def test_who_is_behind_what_was_forgotten_can_see_it(numbered: Installation) -> None:
    """What is forgotten goes by number; a cursor from before is below the oldest."""
    some_changes(numbered)
    with numbered.store.writing() as connection:
        assert changes.oldest(connection) == 1
        assert changes.forget(connection, T0 + 1.5) > 0
        assert changes.oldest(connection) == 3
        assert [row.seq for row in changes.since(connection, ["group:*", "hostgroup:web"], 0, 100)] == [4, 5]
        assert changes.forget(connection, T0 + 1.5) == 0
        changes.forget(connection, T0 + 100)
        assert changes.oldest(connection) == changes.now_at(connection) == 5


def test_forgetting_is_bounded(numbered: Installation) -> None:
    """Logins wait for it: so many numbers at a time."""
    some_changes(numbered)
    with numbered.store.writing() as connection:
        changes.forget(connection, T0 + 100, limit=1)
        assert changes.oldest(connection) == 2


def test_a_clock_is_begun_once(numbered: Installation) -> None:
    """Who is there by then keeps version 0, and gets a number with his first change."""
    with numbered.store.writing() as connection:
        changes.note_user(connection, 1, T0)
        assert not changes.begin_clock(connection)
        assert changes.now_at(connection) == 2
        assert [u.version for u in entitlement.documents(connection, [1, 2])] == [2, 0]


def test_nothing_is_noted_of_what_is_rolled_back(numbered: Installation) -> None:
    """The number is taken in the same transaction, and given again."""
    def fails() -> None:
        with numbered.store.writing() as connection:
            changes.note_user(connection, 1, T0)
            raise KeyError

    with pytest.raises(KeyError):
        fails()

    with numbered.store.writing() as connection:
        assert changes.since(connection, ["group:*"], 0, 10) == []
        assert changes.note_user(connection, 1, T0) == 2


def test_a_login_can_note_a_change(numbered: Installation) -> None:
    """The transactions of logins take prepared statements only."""
    session = numbered.store.session()
    with session.writing() as connection:
        assert changes.note_users(connection, [1, 2], T0) == 2
        assert len(changes.since(connection, ["group:dev"], 1, 10)) == 2
    session.close()


def test_a_topic_is_a_range_of_the_index(numbered: Installation) -> None:
    """What others heard of is not looked at, nor is anything sorted."""
    compiled = changes._SINCE
    with numbered.store.reading() as connection:
        text = compiled._for(connection.dialect).text
        raw = connection.connection.driver_connection
        assert raw is not None
        plan = [row[3] for row in raw.execute("EXPLAIN QUERY PLAN " + text, ("group:dev", 1, 0, 10, 0)).fetchall()]

    assert len(plan) == 1
    assert "SEARCH changes USING PRIMARY KEY (topic=? AND (seq,user_id)>(?,?))" in plan[0]


# several processes

WRITERS, WRITES = 3, 25


def run_changers(directory: Path, url: str, read: Callable[[], None]) -> list[int]:
    """The numbers that three processes took, while ``read`` is called again and again."""
    changers = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.runtime.changer", str(directory), str(user), str(WRITES), url],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for user in range(1, WRITERS + 1)
    ]  # fmt: skip
    try:
        for changer in changers:
            assert changer.stdout is not None
            assert changer.stdout.readline() == "here\n"
        for changer in changers:
            assert changer.stdin is not None
            changer.stdin.write("go\n")
            changer.stdin.flush()
        while any(changer.poll() is None for changer in changers):
            read()
        read()
        return [int(number) for changer in changers for number in changer.communicate(timeout=60)[0].split()]
    finally:
        for changer in changers:
            changer.kill()
            changer.wait()


def test_no_reader_passes_a_change_by(numbered: Installation, tmp_path: Path) -> None:
    """Three processes write, each holding its number for a while before it commits; the reader's cursor only rises.

    With a serial, which is taken before the commit and outside of it, this loses rows.
    """
    seen: list[tuple[int, int]] = []
    cursor = 1

    def read() -> None:
        nonlocal cursor
        with numbered.store.reading() as connection:
            up_to = changes.now_at(connection)
            seen.extend((row.seq, row.user_id) for row in changes.since(connection, ["group:*"], cursor, 10_000))
        assert up_to >= cursor
        cursor = up_to

    url = "" if numbered.store.path is not None else str(numbered.store)
    numbers = run_changers(tmp_path, url, read)

    assert sorted(numbers) == list(range(2, 2 + WRITERS * WRITES))
    assert sorted({seq for seq, _ in seen}) == sorted(numbers)


def versions(connection: Connection, ids: Sequence[int]) -> list[int]:
    return [user.version for user in entitlement.documents(connection, ids)]


def test_a_hard_lock_is_no_change(numbered: Installation) -> None:
    """Failures are counted where they happen; a stranger who guesses wakes no host."""
    with numbered.store.writing() as connection:
        write_records(connection, {"account:alice": Record(failures=100, consecutive=100, not_before=1e12)})
        connection.execute(update(credentials_table).values(last_step=5, known_source="192.0.2.1"))

        assert changes.now_at(connection) == 1
        assert versions(connection, [1, 2, 3]) == [0, 0, 0]


def test_the_grace_that_a_login_starts_is_a_change(new_installed: New) -> None:
    """Its end counts offline as well. The second login changes nothing."""
    dave = Person("dave", kind=None, state=EnrolmentState.NONE)
    installed = new_installed(dave, policy=default_policy(grace_s=7 * 86_400))
    with installed.store.writing() as connection:
        changes.begin_clock(connection)

    for _ in range(2):
        installed.decide(attempt("dave", ""))

    with installed.store.reading() as connection:
        (dave_now,) = entitlement.documents(connection, [1])
        assert (dave_now.grace_until, dave_now.version) == (T0 + 7 * 86_400, 2)
        assert changes.now_at(connection) == 2
    installed.close()
