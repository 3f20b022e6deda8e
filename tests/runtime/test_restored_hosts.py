"""A restored authority knows what was taken from hosts since, and has every host fetch everything anew; so does an agent."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import Connection, select

from mfa_core.secret import Secret
from mfa_runtime.administration import groups, host_groups, hosts, join_tokens, users
from mfa_runtime.administration.backup import back_up
from mfa_runtime.administration.keys import rotate_data_key
from mfa_runtime.administration.restore import RestoreReport, restore
from mfa_runtime.key_file import KeyEncryptionKeys
from mfa_runtime.state_lock import StateLock
from mfa_runtime.store import agent_state, alarms, changes, codebooks, entitlement, key_pairs, uses
from mfa_runtime.store import hosts as rows
from mfa_runtime.store.agent_state import AgentState
from mfa_runtime.store.alarms import AlarmKind
from mfa_runtime.store.codebooks import Codebook
from mfa_runtime.store.database import STORE_FILE, connect
from mfa_runtime.store.hosts import Host, HostGroup, HostState
from mfa_runtime.store.key_pairs import KeyPair
from mfa_runtime.store.schema import join_tokens as join_tokens_table
from mfa_runtime.store.uses import Use
from tests.doubles import ALICE, BOB, KEK, T0, FakeClock, Installation, install

KEKS = KeyEncryptionKeys((KEK,))
DAY = 86_400.0
STATE = AgentState(
    host_id=7, host_name="web1.example", authority_id="a" * 32, authorities=(), trust=b"", signers={}, generation="x:1",
    cursor=40, digest="d", seq=100, not_after=T0 + DAY, floor=T0,
)  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    state = tmp_path / "state"
    state.mkdir()
    return state


@pytest.fixture
def before(folder: Path) -> Installation:
    """An authority with two hosts in group web, where the users of dev may log in; alice is in dev and ops."""
    installed = install(folder, ALICE, BOB)
    with installed.store.writing() as connection:
        changes.begin_clock(connection)
        act = installed.act()
        groups.add_to_groups(connection, act, "alice", ["dev", "ops"])
        host_groups.add_host_group(connection, act, HostGroup("web"))
        host_groups.entitle(connection, act, "web", "dev")
        join(connection, installed, "web1.example")
        join(connection, installed, "web2.example")
        key_pairs.save(connection, installed.keyring(), KeyPair("ca", Secret(b"old"), b""))
        codebooks.put(connection, installed.keyring(), [Codebook(1, 5, Secret(b"codes"))])
        uses.record(connection, [Use(1, 1, 0, "event-1", T0)])
    return installed


def join(connection: Connection, installed: Installation, name: str) -> Host:
    number = hosts.reserve_host(connection)
    hosts.admit_host(
        connection, installed.act(), number=number, name=name, host_group="web", certificate=bytes([number]) * 32,
        hpke_public=b"", key_protection="file", software="", address="",
    )  # fmt: skip
    heard = rows.heard(
        hosts.find_host(connection, name), now=T0, cursor=changes.now_at(connection), lease_until=T0 + DAY
    )
    assert heard is not None
    rows.save_heard(connection, [heard])
    return heard


def back(installed: Installation, target: Path) -> Path:
    back_up(installed.store, installed.act(), target)
    return target


def put_back(folder: Path, backup: Path, clock: FakeClock) -> tuple[Installation, RestoreReport]:
    with StateLock(folder).exclusive():
        report = restore(folder, backup, KEKS, actor="tester", now=clock(), random=os.urandom)
    return Installation(connect(folder / STORE_FILE), clock=clock), report


def test_what_was_taken_from_hosts_since_is_not_given_back(before: Installation, folder: Path, tmp_path: Path) -> None:
    """Revoked hosts, withdrawn scopes, left groups, used codes; and a host that has joined since is there."""
    file = back(before, tmp_path / "b.db")
    with before.store.writing() as connection:
        act = before.act()
        hosts.revoke_host(connection, act, "web1.example")
        host_groups.withdraw(connection, act, "web", "dev")
        host_groups.add_host_group(connection, act, HostGroup("db"))
        host_groups.entitle(connection, act, "web", "ops")
        groups.remove_from_groups(connection, act, "alice", ["ops"])
        users.add_user(connection, act, "carol")
        groups.add_to_groups(connection, act, "carol", ["ops"])
        join(connection, before, "web3.example")
        uses.record(connection, [Use(1, 2, 3, "event-2", T0)])
        key_pairs.save(connection, before.keyring(), KeyPair("ca", Secret(b"new"), b""))
        last = changes.now_at(connection)
    before.close()

    after, report = put_back(folder, file, before.clock)

    assert report.quarantined == ()
    with after.store.reading() as connection:
        found = {host.name: (host.state, host.cursor) for host in hosts.list_hosts(connection)}
        assert found == {
            "web1.example": (HostState.REVOKED, -1), "web2.example": (HostState.ACTIVE, -1),
            "web3.example": (HostState.ACTIVE, -1),
        }  # fmt: skip
        assert entitlement.scope_of(connection, "web") == {"ops"}
        assert [one.group.name for one in host_groups.list_host_groups(connection)] == ["db", "web"]
        assert [(one.name, one.users) for one in groups.list_groups(connection)] == [("dev", 1), ("ops", 1)]
        assert list(groups.members(connection, "ops")) == ["carol"]
        assert uses.find(connection, 1, 1) is not None
        assert uses.find(connection, 1, 2) is not None
        pair = key_pairs.load(connection, after.keyring(), "ca")
        assert pair is not None
        assert pair.private.same_as(Secret(b"new"))
        assert changes.now_at(connection) > last
        assert changes.oldest(connection) == changes.now_at(connection)
        assert [alarm.kind for alarm in alarms.list_alarms(connection)] == [AlarmKind.STORE_RESTORED]
    after.close()


def test_without_the_replaced_store_every_host_is_in_quarantine(before: Installation, folder: Path, tmp_path: Path) -> None:
    """Nobody knows which were revoked. Their leases are taken for as long as they can be."""
    file = back(before, tmp_path / "b.db")
    before.close()
    (folder / STORE_FILE).unlink()
    before.clock.advance(10 * DAY)

    after, report = put_back(folder, file, before.clock)

    assert report.quarantined == ("web1.example", "web2.example")
    with after.store.writing() as connection:
        for host in hosts.list_hosts(connection):
            assert host.state is HostState.QUARANTINED
            assert host.lease_until >= T0 + 11 * DAY
        assert [holder.host for holder in hosts.holders_of(connection, 1, before.clock())] == list(report.quarantined)
        assert hosts.release_host(connection, after.act(), "web1.example").state is HostState.ACTIVE
    after.close()


def test_a_number_is_never_given_twice(before: Installation, folder: Path, tmp_path: Path) -> None:
    """Also when one backup is restored twice, each time after the store was lost: no cursor is right by accident."""
    file = back(before, tmp_path / "b.db")
    before.close()
    numbers: list[int] = []
    for _ in range(2):
        (folder / STORE_FILE).unlink()
        before.clock.advance(60)
        after, report = put_back(folder, file, before.clock)
        with after.store.writing() as connection:
            numbers.append(changes.now_at(connection))
            numbers.append(changes.note_user(connection, 1, before.clock()))
        after.close()

    assert numbers == sorted(set(numbers))
    assert report.generation == 2


def test_tokens_and_codebooks_do_not_come_back(before: Installation, folder: Path, tmp_path: Path) -> None:
    """A token may have been used since; a codebook is made anew."""
    with before.store.writing() as connection:
        join_tokens.issue_token(connection, before.act(), "web")
    file = back(before, tmp_path / "b.db")
    before.close()

    after, _ = put_back(folder, file, before.clock)

    with after.store.reading() as connection:
        assert connection.execute(select(join_tokens_table)).all() == []
        assert codebooks.get(connection, after.keyring(), [1]) == {}
    after.close()


def test_a_store_that_became_an_authority_since_is_one_afterwards(folder: Path, tmp_path: Path) -> None:
    """A backup from before has neither clock nor hosts."""
    before = install(folder, ALICE, BOB)
    file = back(before, tmp_path / "b.db")
    with before.store.writing() as connection:
        changes.begin_clock(connection)
        host_groups.add_host_group(connection, before.act(), HostGroup("web"))
        join(connection, before, "web1.example")
        at = changes.now_at(connection)
    before.close()

    after, report = put_back(folder, file, before.clock)

    with after.store.reading() as connection:
        assert changes.now_at(connection) > at
        assert hosts.find_host(connection, "web1.example").state is HostState.ACTIVE
    assert report.quarantined == ()
    after.close()


def test_a_standalone_store_stays_one(folder: Path, tmp_path: Path) -> None:
    """No clock, and no alarm that nobody would look at."""
    before = install(folder, ALICE, BOB)
    file = back(before, tmp_path / "b.db")
    before.close()

    after, _ = put_back(folder, file, before.clock)

    with after.store.reading() as connection:
        assert changes.now_at(connection) == 0
        assert list(alarms.list_alarms(connection)) == []
    after.close()


def test_a_key_pair_that_the_backup_cannot_open_stays_as_it_was(before: Installation, folder: Path, tmp_path: Path) -> None:
    """The data key was rotated since: the row of the replaced store would be lost, the one of the backup is not."""
    file = back(before, tmp_path / "b.db")
    rotate_data_key(
        before.store, KEKS, lambda _: before.act(), random=os.urandom, advance=lambda done, total: None
    )
    with before.store.writing() as connection:
        key_pairs.save(connection, before.keyring(), KeyPair("ca", Secret(b"new"), b""))
    before.close()

    after, _ = put_back(folder, file, before.clock)

    with after.store.reading() as connection:
        pair = key_pairs.load(connection, after.keyring(), "ca")
    assert pair is not None
    assert pair.private.same_as(Secret(b"old"))
    after.close()


@pytest.mark.parametrize("present", [True, False])
def test_a_restored_agent_verifies_nothing_alone_until_it_has_synced(folder: Path, tmp_path: Path, present: bool) -> None:
    """Who was taken from it since must not come back; what only rises is as high as it was."""
    before = install(folder, ALICE, BOB)
    with before.store.writing() as connection:
        agent_state.save(connection, STATE)
    file = back(before, tmp_path / "b.db")
    with before.store.writing() as connection:
        agent_state.change(connection, seq=200, floor=T0 + 500, standing="revoked", journal_epoch=2, journal_seq=9)
    before.close()
    if not present:
        (folder / STORE_FILE).unlink()

    after, _ = put_back(folder, file, before.clock)

    with after.store.reading() as connection:
        state = agent_state.load(connection)
    wanted = replace(STATE, cursor=-1, generation="", digest="", not_after=0.0)
    if present:
        wanted = replace(wanted, seq=200, floor=T0 + 500, standing="revoked", journal_epoch=2, journal_seq=0)
    assert state == wanted
    after.close()
