"""Hosts: they join, are revoked, quarantined and released; and which of them may still hold what was taken away.

Room rule: the state of a host changes in this file only. How a host proves who it is, and what it is told, the authority knows.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import Connection, delete, func, select

from mfa_core.audit import GENESIS
from mfa_core.errors import Conflict, NotFound
from mfa_core.model import CredentialState, FactorKind
from mfa_runtime.administration.act import Act
from mfa_runtime.administration.host_names import check_host_name
from mfa_runtime.store import changes, entitlement, hosts
from mfa_runtime.store.alarms import AlarmKind, raise_alarm
from mfa_runtime.store.hosts import Host, HostGroup, HostMaterial, HostState
from mfa_runtime.store.ids import take
from mfa_runtime.store.schema import changes as changes_table
from mfa_runtime.store.schema import credentials
from mfa_runtime.store.schema import hosts as hosts_table


def find_host(connection: Connection, name: str) -> Host:
    """The host of this name, or of this number. Raises: NotFound."""
    found = hosts.find_by_name(connection, name)
    if found is None and name.isascii() and name.isdigit() and len(name) <= 18:
        found = hosts.find(connection, int(name))
    if found is None:
        raise NotFound(f"there is no host {name}", cure="see `mfactl agent list`")
    return found


def list_hosts(
    connection: Connection, *, host_group: str | None = None, state: HostState | None = None
) -> Iterator[Host]:
    """The hosts, by name: state, lease, cursor, clock and key protection as they were last heard."""
    yield from hosts.every(connection, host_group=host_group, state=state)


def reserve_host(connection: Connection) -> int:
    """The number of a host that is about to join: its certificate names it."""
    return take(connection, "hosts")


def admit_host(
    connection: Connection,
    act: Act,
    *,
    number: int,
    name: str,
    host_group: str,
    certificate: bytes,
    hpke_public: bytes,
    key_protection: str,
    software: str,
    address: str,
) -> Host:
    """Write down a host that has joined. ``certificate`` is the SHA-256 of the one it was given.

    A revoked host of the same name makes room: its row stays, under another name, until its lease is over and after.

    Raises:
        Conflict: a host of this name is active or quarantined.
        InvalidInput: no name of a host.
    """
    before = hosts.find_by_name(connection, check_host_name(name))
    if before is not None:
        if before.state is not HostState.REVOKED:
            raise Conflict(
                f"there is already a host {name}, {before.state}", cure=f"revoke it first: `mfactl agent revoke {name}`"
            )
        rename = hosts_table.update().where(hosts_table.c.id == before.id).values(name=f"{name}#{before.id}"[-256:])
        connection.execute(rename)
    host = Host(
        id=number,
        name=name,
        host_group=host_group,
        state=HostState.ACTIVE,
        certificate=certificate,
        next_certificate=b"",
        hpke_public=hpke_public,
        joined_at=act.now,
        last_seen=act.now,
        cursor=-1,
        lease_until=0.0,
        journal_epoch=1,
        journal_seq=0,
        journal_hash=GENESIS,
        key_protection=key_protection,
        clock_offset_s=0.0,
        software=software,
        address=address,
    )
    hosts.add(connection, host)
    act.record(connection, "host.join", name, host=number, host_group=host_group, key_protection=key_protection)
    return host


def revoke_host(connection: Connection, act: Act, name: str) -> Host:
    """Refuse a host from now on, for good.

    Raises:
        NotFound: no such host.
        Conflict: it is revoked already.
    """
    host = find_host(connection, name)
    if not hosts.set_state(connection, host.id, HostState.REVOKED, was=[HostState.ACTIVE, HostState.QUARANTINED]):
        raise Conflict(f"{host.name} is revoked already", cure="nothing needs to be done")
    changes.note_topic(connection, changes.host_topic(host.id), act.now)
    act.record(connection, "host.revoke", host.name, host=host.id, lease_until=int(host.lease_until))
    return find_host(connection, host.name)


def quarantine_host(connection: Connection, act: Act, host: Host, kind: AlarmKind, *, reason: str) -> bool:
    """Refuse a host until :func:`release_host`, with an alarm. False when it was not active."""
    if not hosts.set_state(connection, host.id, HostState.QUARANTINED, was=[HostState.ACTIVE]):
        return False
    changes.note_topic(connection, changes.host_topic(host.id), act.now)
    raise_alarm(connection, kind, now=act.now, host_id=host.id, details={"reason": reason})
    act.record(connection, "host.quarantine", host.name, host=host.id, kind=kind.value, reason=reason)
    return True


def release_host(connection: Connection, act: Act, name: str) -> Host:
    """End a quarantine. The host may show an older journal than we have once more: it begins a new one.

    Raises:
        NotFound: no such host.
        Conflict: it is not in quarantine.
    """
    host = find_host(connection, name)
    if not hosts.release(connection, host.id):
        raise Conflict(f"{host.name} is {host.state}, not in quarantine", cure="a revoked host joins anew with a token")
    changes.note_topic(connection, changes.host_topic(host.id), act.now)
    act.record(connection, "host.release", host.name, host=host.id)
    return find_host(connection, host.name)


def forget_host(connection: Connection, act: Act, name: str) -> None:
    """Remove the row of a revoked host; what it brought of its journal stays in the audit log.

    Raises:
        NotFound: no such host.
        Conflict: it is not revoked, or its lease is not over: it may still let people in.
    """
    host = find_host(connection, name)
    if host.state is not HostState.REVOKED:
        raise Conflict(
            f"{host.name} is {host.state}, and may let people in until its lease is over",
            cure=f"`mfactl agent revoke {host.name}`, and wait until the time that `mfactl agent status` shows",
        )
    if host.lease_until > act.now:
        raise Conflict(
            f"{host.name} is revoked; where it is cut off it may let people in until its lease is over",
            cure=f"wait until the time that `mfactl agent status {host.name}` shows",
        )
    connection.execute(delete(hosts_table).where(hosts_table.c.id == host.id))
    act.record(connection, "host.forget", host.name, host=host.id)


# -- who still holds a credential ---------------------------------------------------------------------------------------------


class Why(enum.StrEnum):
    """Why a host is taken to hold a credential."""

    ENTITLED = "entitled"
    """It should: the credential counts, and its user may log in there."""
    BEHIND = "behind"
    """It has not said yet that it heard of the change that took it away."""


@dataclass(frozen=True, slots=True)
class Holder:
    """A host that may hold a credential and verify it alone until ``until`` (Unix seconds) at the latest."""

    host: str
    host_id: int
    state: HostState
    material: HostMaterial
    why: Why
    until: float


def holders_of(connection: Connection, credential_id: int, now: float) -> list[Holder]:
    """The hosts that may hold this credential, by name. Never too few; too many where a host is behind for another reason.

    Hosts whose lease is over are not among them: they verify nothing alone. (A stolen one that held the seed keeps it: enrol
    its users anew.)

    Raises:
        NotFound: no such credential.
    """
    row = connection.execute(
        select(credentials.c.user_id, credentials.c.kind, credentials.c.state, credentials.c.host_id).where(
            credentials.c.id == credential_id
        )
    ).first()
    if row is None:
        raise NotFound(f"there is no credential {credential_id}", cure="see `mfactl cred list NAME`")
    counts = row.state == CredentialState.ACTIVE and row.kind == FactorKind.TOTP
    forgotten = changes.oldest(connection)
    groups = {group.name: group for group in hosts.every_group(connection)}
    scopes = {name: entitlement.scope_of(connection, name) for name in groups}
    entitled = {name: entitlement.is_entitled(connection, int(row.user_id), scope) for name, scope in scopes.items()}
    told = _last_told(connection, int(row.user_id))
    found = []
    for host in hosts.every(connection):
        if host.lease_until <= now:
            continue
        group, scope = groups[host.host_group], scopes[host.host_group]
        topics = {changes.host_group_topic(group.name), *map(changes.group_topic, scope)}
        last = max((told.get(topic, 0) for topic in topics), default=0)
        if counts and entitled[group.name] and _holds(host, group, int(row.host_id)):
            why = Why.ENTITLED
        elif row.kind == FactorKind.TOTP and int(row.host_id) in {0, host.id} and host.cursor < max(last, forgotten):
            why = Why.BEHIND
        else:
            continue
        found.append(Holder(host.name, host.id, host.state, group.material, why, host.lease_until))
    return found


def _holds(host: Host, group: HostGroup, only_host: int) -> bool:
    if not group.admits(host.key_protection):
        return False
    return only_host == host.id if group.material is HostMaterial.PER_HOST else only_host in {0, host.id}


def _last_told(connection: Connection, user_id: int) -> dict[str, int]:
    """The last change that hosts heard of this user, and of groups of hosts, by topic."""
    query = (
        select(changes_table.c.topic, func.max(changes_table.c.seq))
        .where(changes_table.c.user_id.in_([0, user_id]))
        .group_by(changes_table.c.topic)
    )
    return {topic: int(seq) for topic, seq in connection.execute(query)}
