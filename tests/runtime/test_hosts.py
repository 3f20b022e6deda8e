"""Hosts: they join by a token that works once, change state by an administrator's word, and are known to hold what they may."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from sqlalchemy import Connection, select, update

from mfa_core.audit import GENESIS
from mfa_core.errors import Conflict, InvalidInput, NotFound, StoreCorrupt
from mfa_core.model import FactorKind
from mfa_core.secret import Secret
from mfa_runtime.administration import credentials, groups, host_groups, hosts, join_tokens
from mfa_runtime.administration.act import Act
from mfa_runtime.administration.enrolment import Parameters, begin, provision_active
from mfa_runtime.administration.hosts import Why, holders_of
from mfa_runtime.administration.users import find_user
from mfa_runtime.store import changes
from mfa_runtime.store import hosts as rows
from mfa_runtime.store.alarms import AlarmKind, list_alarms
from mfa_runtime.store.hosts import Host, HostGroup, HostMaterial, HostState, KeyProtection
from mfa_runtime.store.schema import host_groups as host_groups_table
from mfa_runtime.store.schema import join_tokens as join_tokens_table
from tests.doubles import ALICE, BOB, T0, Installation, Person

HANS = Person("hans", kind=FactorKind.HOTP)
DAY = 86_400.0

New = Callable[..., Installation]
"""Makes a store with these people, wherever the tests run."""


@pytest.fixture
def two_hosts(new_installed: New) -> Iterator[Installation]:
    """Groups web (for dev) and db (for ops), a host in each; alice is in dev, bob in ops."""
    installed = new_installed(ALICE, BOB, HANS)
    with installed.store.writing() as connection:
        act = installed.act()
        changes.begin_clock(connection)
        groups.add_to_groups(connection, act, "alice", ["dev"])
        groups.add_to_groups(connection, act, "bob", ["ops"])
        for group, users in (("web", "dev"), ("db", "ops")):
            host_groups.add_host_group(connection, act, HostGroup(group))
            host_groups.entitle(connection, act, group, users)
            join(connection, act, f"{group}1.example", group)
    yield installed
    installed.close()


def join(connection: Connection, act: Act, name: str, host_group: str) -> Host:
    number = hosts.reserve_host(connection)
    return hosts.admit_host(
        connection, act, number=number, name=name, host_group=host_group, certificate=bytes([number]) * 32,
        hpke_public=b"h" * 32, key_protection="file", software="0.1", address="192.0.2.7",
    )  # fmt: skip


def synced(connection: Connection, name: str, *, now: float = T0, lasts_s: float = DAY) -> Host:
    """The host has all there is, and a lease."""
    host = hosts.find_host(connection, name)
    heard = rows.heard(host, now=now, cursor=changes.now_at(connection), lease_until=now + lasts_s)
    assert heard is not None
    rows.save_heard(connection, [heard])
    return hosts.find_host(connection, name)


# tokens


def test_a_token_lets_one_host_join(two_hosts: Installation) -> None:
    """The second who shows it gets nothing, and so does one who shows another."""
    with two_hosts.store.writing() as connection:
        act = two_hosts.act()
        issued = join_tokens.issue_token(connection, act, "web", host_name="web2.example")
        assert join_tokens.list_tokens(connection, now=T0) == [issued.token]

        assert join_tokens.consume_token(connection, act, Secret(bytes(20))) is None
        used = join_tokens.consume_token(connection, act, issued.secret)
        assert used is not None
        assert (used.host_group, used.host_name, used.used_at) == ("web", "web2.example", T0)
        assert join_tokens.consume_token(connection, act, issued.secret) is None
        assert join_tokens.list_tokens(connection, now=T0) == []
        assert len(issued.secret) == 20
        (kept,) = connection.execute(select(join_tokens_table.c.hash)).scalars()
        assert issued.secret.reveal() not in bytes(kept)


def test_a_token_is_over_after_a_quarter_of_an_hour(two_hosts: Installation) -> None:
    """From that second on."""
    with two_hosts.store.writing() as connection:
        issued = join_tokens.issue_token(connection, two_hosts.act(), "web")
        two_hosts.clock.advance(15 * 60)
        assert join_tokens.consume_token(connection, two_hosts.act(), issued.secret) is None
        two_hosts.clock.advance(-1)
        assert join_tokens.consume_token(connection, two_hosts.act(), issued.secret) is not None


def test_a_token_is_cancelled_and_bounded(two_hosts: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was cancelled lets nobody join; times have bounds, and so have numbers."""
    with two_hosts.store.writing() as connection:
        act = two_hosts.act()
        issued = join_tokens.issue_token(connection, act, "web")
        join_tokens.cancel_token(connection, act, issued.token.id)
        assert join_tokens.consume_token(connection, act, issued.secret) is None
        with pytest.raises(NotFound):
            join_tokens.cancel_token(connection, act, issued.token.id)
        for ttl_s in (0, 59, 25 * 3600):
            with pytest.raises(InvalidInput):
                join_tokens.issue_token(connection, act, "web", ttl_s=ttl_s)
        with pytest.raises(InvalidInput):
            join_tokens.issue_token(connection, act, "web", host_name="No Host")
        with pytest.raises(NotFound):
            join_tokens.issue_token(connection, act, "nowhere")
        monkeypatch.setattr(join_tokens, "MAX_OPEN", 1)
        join_tokens.issue_token(connection, act, "web")
        with pytest.raises(InvalidInput):
            join_tokens.issue_token(connection, act, "web")


# states


def test_a_revoked_host_is_revoked_for_good(two_hosts: Installation) -> None:
    """Its topic wakes it; it is not released; it joins anew under its name, as another host."""
    with two_hosts.store.writing() as connection:
        act, at = two_hosts.act(), changes.now_at(connection)
        first = synced(connection, "web1.example")
        assert hosts.revoke_host(connection, act, "web1.example").state is HostState.REVOKED
        assert [row.topic for row in changes.since(connection, [changes.host_topic(first.id)], at, 9)] == [f"host:{first.id}"]
        for forbidden in (hosts.revoke_host, hosts.release_host, hosts.forget_host):
            with pytest.raises(Conflict):
                forbidden(connection, act, "web1.example")

        second = join(connection, act, "web1.example", "web")
        assert second.id != first.id
        assert hosts.find_host(connection, "web1.example").id == second.id
        before = rows.find(connection, first.id)
        assert before is not None
        assert (before.name, before.lease_until) == (f"web1.example#{first.id}", first.lease_until)
        assert before.state is HostState.REVOKED


def test_a_name_is_taken_as_long_as_its_host_is_not_revoked(two_hosts: Installation) -> None:
    """A token does not push a host aside."""
    with two_hosts.store.writing() as connection, pytest.raises(Conflict):
        join(connection, two_hosts.act(), "web1.example", "web")


def test_a_quarantine_is_an_alarm_and_ends_by_an_administrator(two_hosts: Installation) -> None:
    """It is raised once, however often the copy shows itself."""
    with two_hosts.store.writing() as connection:
        act, host = two_hosts.act(), hosts.find_host(connection, "web1.example")
        assert hosts.quarantine_host(connection, act, host, AlarmKind.CLONE_SUSPECTED, reason="an old certificate")
        assert not hosts.quarantine_host(connection, act, host, AlarmKind.CLONE_SUSPECTED, reason="an old certificate")
        (alarm,) = list_alarms(connection)
        assert (alarm.kind, alarm.host_id) == (AlarmKind.CLONE_SUSPECTED, host.id)
        assert hosts.find_host(connection, str(host.id)).state is HostState.QUARANTINED
        assert hosts.release_host(connection, act, "web1.example").state is HostState.ACTIVE
        with pytest.raises(Conflict):
            hosts.release_host(connection, act, "web1.example")


def test_a_host_is_forgotten_when_its_lease_is_over(two_hosts: Installation) -> None:
    """Until then it may let people in, and is shown."""
    with two_hosts.store.writing() as connection:
        synced(connection, "web1.example", lasts_s=3600)
        hosts.revoke_host(connection, two_hosts.act(), "web1.example")
        two_hosts.clock.advance(2 * 3600)
        hosts.forget_host(connection, two_hosts.act(), "web1.example")
        with pytest.raises(NotFound):
            hosts.find_host(connection, "web1.example")
        host_groups.remove_host_group(connection, two_hosts.act(), "web")
        with pytest.raises(Conflict):
            host_groups.remove_host_group(connection, two_hosts.act(), "db")


@pytest.mark.parametrize("name", ["", "A", "a b", "a..b", "-a", "a#1", "*", "ü", "a\n", "a" * 64, ".".join(["a" * 60] * 5)])
def test_a_host_is_called_as_hosts_are(name: str) -> None:
    """RFC 1123 section 2.1."""
    with pytest.raises(InvalidInput):
        hosts.check_host_name(name)


# what is written when a host is heard of


def test_a_host_that_has_nothing_new_writes_nothing(two_hosts: Installation) -> None:
    """A lease is written with slack, so that the next twenty need no write; a minute later the host was seen again."""
    with two_hosts.store.writing() as connection:
        host = synced(connection, "web1.example")
        assert host.lease_until >= T0 + DAY
        cursor = host.cursor

        assert rows.heard(host, now=T0 + 50, cursor=cursor, lease_until=T0 + 50 + DAY, clock_offset_s=0.4) is None
        seen = rows.heard(host, now=T0 + 61, cursor=cursor, lease_until=T0 + 61 + DAY)
        assert seen == replace(host, last_seen=T0 + 61)
        longer = rows.heard(host, now=T0 + 2 * 3600, lease_until=T0 + 2 * 3600 + DAY)
        assert longer is not None
        assert longer.lease_until > T0 + 2 * 3600 + DAY
        assert rows.heard(host, now=T0 + 1, cursor=cursor + 1) is not None
        assert rows.heard(host, now=T0 + 1, key_protection="systemd-creds") is not None
        assert rows.heard(host, now=T0 + 1, clock_offset_s=3.0) is not None


def test_a_lease_that_was_written_never_shrinks(two_hosts: Installation) -> None:
    """Two authorities write; the later end stands."""
    with two_hosts.store.writing() as connection:
        host = synced(connection, "web1.example")
        rows.save_heard(connection, [replace(host, lease_until=T0, cursor=0)])
        after = hosts.find_host(connection, "web1.example")

    assert (after.lease_until, after.cursor) == (host.lease_until, 0)


def test_certificates_come_into_use_by_being_shown(two_hosts: Installation) -> None:
    """Both may be shown until the next one is; from then on that one alone."""
    first, second = bytes([1]) * 32, b"s" * 32
    with two_hosts.store.writing() as connection:
        rows.set_next_certificate(connection, 1, second)
        assert {h.id for h in (rows.find_by_fingerprint(connection, f) for f in (first, second)) if h} == {1}
        assert not rows.promote_certificate(connection, 1, first)
        assert rows.promote_certificate(connection, 1, second)
        assert not rows.promote_certificate(connection, 1, second)
        assert rows.find_by_fingerprint(connection, first) is None
        assert rows.find_by_fingerprint(connection, b"") is None


def test_a_journal_moves_on_from_where_it_was_seen(two_hosts: Installation) -> None:
    """Two uploads at once: the second to come finds that it was moved, and keeps nothing."""
    with two_hosts.store.writing() as connection:
        host = hosts.find_host(connection, "web1.example")
        assert (host.journal_epoch, host.journal_seq, host.journal_hash) == (1, 0, GENESIS)
        assert rows.move_journal(connection, host, epoch=1, seq=4, digest=b"4" * 32)
    with two_hosts.store.writing() as connection:
        assert not rows.move_journal(connection, host, epoch=1, seq=9, digest=b"9" * 32)
        after = hosts.find_host(connection, "web1.example")

    assert (after.journal_seq, after.journal_hash) == (4, b"4" * 32)


# groups


def test_terms_are_set_one_by_one(two_hosts: Installation) -> None:
    """What is not named stays; hosts hear of a change, and of none when nothing changed."""
    with two_hosts.store.writing() as connection:
        act, at = two_hosts.act(), changes.now_at(connection)
        host_groups.set_host_group(
            connection, act, "web", material=HostMaterial.CODEBOOK, offline_services=("sshd",), max_offline_s=3600.0,
            key_protection=KeyProtection.SYSTEMD_CREDS, offline_after_s=30.0,
        )  # fmt: skip
        after = host_groups.set_host_group(connection, act, "web", max_offline_s=7200.0)
        host_groups.set_host_group(connection, act, "web", max_offline_s=7200.0)

        assert after == HostGroup(
            "web", HostMaterial.CODEBOOK, 7200.0, 30.0, ("sshd",), KeyProtection.SYSTEMD_CREDS, created_at=T0
        )
        assert rows.find_group(connection, "web") == after
        assert len(changes.since(connection, ["hostgroup:web"], at, 9)) == 2
        assert [one.hosts for one in host_groups.list_host_groups(connection)] == [1, 1]
        with pytest.raises(NotFound):
            host_groups.set_host_group(connection, act, "none", max_offline_s=1.0)
        with pytest.raises(Conflict):
            host_groups.add_host_group(connection, act, HostGroup("web"))


@pytest.mark.parametrize(
    "values",
    [
        {"max_offline_s": -1.0}, {"max_offline_s": 15 * DAY}, {"offline_after_s": -1.0}, {"max_offline_s": float("nan")},
        {"offline_services": ("",)}, {"offline_services": ("a\n",)}, {"offline_services": ("a",) * 101},
    ],
)  # fmt: skip
def test_terms_have_bounds(two_hosts: Installation, values: dict[str, object]) -> None:
    """No lease lasts for ever."""
    with two_hosts.store.writing() as connection, pytest.raises(InvalidInput):
        host_groups.set_host_group(connection, two_hosts.act(), "web", **values)  # type: ignore[arg-type]


def test_a_group_that_nobody_understands_is_refused(two_hosts: Installation) -> None:
    """What a later version wrote is not taken for something else."""
    with two_hosts.store.writing() as connection:
        connection.execute(update(host_groups_table).values(material="quantum"))
        with pytest.raises(StoreCorrupt, match="quantum"):
            rows.find_group(connection, "web")


@pytest.mark.parametrize(
    ("demanded", "has", "admitted"),
    [
        ("any", "file", True), ("any", "", True), ("file", "systemd-creds", True), ("file", "", False),
        ("systemd-creds", "file", False), ("systemd-creds", "systemd-creds", True),
    ],
)
def test_a_group_may_demand_how_keys_are_kept(demanded: str, has: str, admitted: bool) -> None:
    """A host that keeps them worse gets no material."""
    assert HostGroup("web", key_protection=KeyProtection(demanded)).admits(has) is admitted


# one credential for one host


def test_a_credential_for_one_host_names_it(two_hosts: Installation) -> None:
    """Also while it is pending; of a host that is not there, or revoked, there is none."""
    with two_hosts.store.writing() as connection:
        act, alice = two_hosts.act(), find_user(connection, "alice")
        pending = begin(connection, act, alice, Parameters("Example"), host_id=1)
        made, _ = provision_active(connection, act, alice, Parameters("Example"), host_id=2)
        listed = {one.id: (one.host_id, one.host) for one in credentials.list_credentials(connection, alice)}
        assert listed == {1: (0, ""), made.credential_id: (2, "db1.example")}  # the pending one was replaced
        assert pending.credential_id != made.credential_id
        with pytest.raises(NotFound):
            begin(connection, act, alice, Parameters("Example"), host_id=99)
        hosts.revoke_host(connection, act, "web1.example")
        with pytest.raises(Conflict):
            begin(connection, act, alice, Parameters("Example"), host_id=1)


# who still holds it


def held_by(connection: Connection, number: int, now: float = T0) -> dict[str, Why]:
    return {holder.host: holder.why for holder in holders_of(connection, number, now)}


def test_a_credential_is_held_where_its_user_may_log_in(two_hosts: Installation) -> None:
    """As long as a lease lasts; who has no lease verifies nothing alone."""
    with two_hosts.store.writing() as connection:
        assert held_by(connection, 1) == {}
        host = synced(connection, "web1.example")
        synced(connection, "db1.example")

        assert held_by(connection, 1) == {"web1.example": Why.ENTITLED}
        assert held_by(connection, 2) == {"db1.example": Why.ENTITLED}
        assert held_by(connection, 3) == {}  # a counter is held nowhere
        assert holders_of(connection, 1, T0)[0].until == host.lease_until
        assert held_by(connection, 1, host.lease_until) == {}
        with pytest.raises(NotFound):
            holders_of(connection, 99, T0)


@pytest.mark.parametrize("stop", [credentials.revoke_credential, credentials.suspend_credential])
def test_a_stopped_credential_is_held_until_the_host_has_heard_of_it(
    two_hosts: Installation, stop: Callable[[Connection, Act, int], object]
) -> None:
    """And by a host that never comes back, until its lease is over."""
    with two_hosts.store.writing() as connection:
        synced(connection, "web1.example")
        synced(connection, "db1.example")
        stop(connection, two_hosts.act(), 1)
        assert held_by(connection, 1) == {"web1.example": Why.BEHIND}
        synced(connection, "web1.example")
        assert held_by(connection, 1) == {}


@pytest.mark.parametrize("way", ["user", "scope", "both"])
def test_who_may_no_longer_log_in_is_held_until_then_as_well(two_hosts: Installation, way: str) -> None:
    """Whether the user left the group, or the group lost the hosts."""
    with two_hosts.store.writing() as connection:
        act = two_hosts.act()
        synced(connection, "web1.example")
        if way in {"user", "both"}:
            groups.remove_from_groups(connection, act, "alice", ["dev"])
        if way in {"scope", "both"}:
            host_groups.withdraw(connection, act, "web", "dev")
        assert held_by(connection, 1) == {"web1.example": Why.BEHIND}
        synced(connection, "web1.example")
        assert held_by(connection, 1) == {}


def test_a_revoked_host_holds_until_its_lease_is_over(two_hosts: Installation) -> None:
    """Revocation reaches a host that can be reached; another keeps what it has."""
    with two_hosts.store.writing() as connection:
        host = synced(connection, "web1.example")
        hosts.revoke_host(connection, two_hosts.act(), "web1.example")
        (holder,) = holders_of(connection, 1, T0)
        assert (holder.state, holder.until) == (HostState.REVOKED, host.lease_until)


def test_what_a_host_never_heard_and_nobody_remembers_is_taken_for_held(two_hosts: Installation) -> None:
    """Rather one too many: the rows that would tell are forgotten."""
    with two_hosts.store.writing() as connection:
        synced(connection, "db1.example")
        assert held_by(connection, 1) == {}
        groups.add_to_groups(connection, two_hosts.act(), "bob", ["more"])
        two_hosts.clock.advance(100)
        changes.forget(connection, two_hosts.clock())
        assert held_by(connection, 1) == {"db1.example": Why.BEHIND}


def test_material_says_what_is_held(two_hosts: Installation) -> None:
    """Of `per_host` only what is for that host; of a host whose keys lie too openly nothing."""
    with two_hosts.store.writing() as connection:
        act = two_hosts.act()
        only, _ = provision_active(connection, act, find_user(connection, "alice"), Parameters("Example"), host_id=1)
        host_groups.set_host_group(connection, act, "web", material=HostMaterial.PER_HOST)
        synced(connection, "web1.example")
        assert held_by(connection, 1) == {}
        assert held_by(connection, only.credential_id) == {"web1.example": Why.ENTITLED}
        host_groups.set_host_group(
            connection, act, "web", material=HostMaterial.SEED, key_protection=KeyProtection.SYSTEMD_CREDS
        )
        synced(connection, "web1.example")
        assert held_by(connection, only.credential_id) == {}
