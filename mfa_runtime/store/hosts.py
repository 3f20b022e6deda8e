"""The hosts of an authority and their groups: found, heard of, moved from state to state.

Room rule: statements over ``hosts`` and ``host_groups``, and what is worth a write. Who may change what, and what is audited,
stands in :mod:`mfa_runtime.administration.hosts`. A host that asks writes nothing as long as nothing about it is new.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

from sqlalchemy import BigInteger, Connection, LargeBinary, bindparam, case, insert, or_, select, update

from mfa_core.errors import StoreCorrupt
from mfa_runtime.store.prepared import Prepared, Row
from mfa_runtime.store.schema import host_groups, hosts

SEEN_EVERY_S = 60.0
"""``last_seen`` is right to this."""
LEASE_SLACK = 1 / 24
"""A lease is written down this part longer than it is, so that the next ones need no write: 24 hours as 25."""
MIN_LEASE_SLACK_S = 60.0
CLOCK_STEP_S = 1.0
"""A clock offset that has moved by less is not written."""


class HostState(enum.StrEnum):
    """What a host may do. Looked at in every request."""

    ACTIVE = "active"
    QUARANTINED = "quarantined"
    """It showed something that only a copy of it can show: refused until an administrator has looked."""
    REVOKED = "revoked"
    """For good: it must join anew."""


class HostMaterial(enum.StrEnum):
    """What the hosts of a group hold of a time-based credential, to verify it alone."""

    SEED = "seed"
    CODEBOOK = "codebook"
    """Codes up to a horizon."""
    PER_HOST = "per_host"
    """Seeds of credentials that are for that host alone."""


class KeyProtection(enum.StrEnum):
    """How a host keeps its keys, and, of a group, what its hosts must have at least."""

    ANY = "any"
    FILE = "file"
    """A file that root alone reads."""
    SYSTEMD_CREDS = "systemd-creds"
    """Sealed by systemd-creds, with the TPM where there is one."""


@dataclass(frozen=True, slots=True)
class HostGroup:
    """What holds for the hosts of a group. ``max_offline_s`` 0: they never verify alone."""

    name: str
    material: HostMaterial = HostMaterial.SEED
    max_offline_s: float = 24 * 3600.0
    offline_after_s: float = 0.0
    offline_services: tuple[str, ...] = ("*",)
    key_protection: KeyProtection = KeyProtection.ANY
    created_at: float = 0.0

    def admits(self, key_protection: str) -> bool:
        """Whether a host that keeps its keys like this, or better, gets material. What is not known is the worst."""
        order = [one.value for one in KeyProtection]
        at = order.index(key_protection) if key_protection in order else 0
        return at >= order.index(self.key_protection)


@dataclass(frozen=True, slots=True)
class Host:
    """A host that has joined. Times are Unix seconds.

    ``certificate`` and ``next_certificate`` are SHA-256 of what it may show (b"": none). ``cursor``: it has said that it holds
    all up to this change, -1: nothing, RELEASED: nothing since it was released from quarantine. ``lease_until``: no lease that
    it holds ends later. The journal of ``journal_epoch`` is here up to ``journal_seq``, whose hash is ``journal_hash``.
    """

    id: int
    name: str
    host_group: str
    state: HostState
    certificate: bytes
    next_certificate: bytes
    hpke_public: bytes
    joined_at: float
    last_seen: float
    cursor: int
    lease_until: float
    journal_epoch: int
    journal_seq: int
    journal_hash: bytes
    key_protection: str
    clock_offset_s: float
    software: str
    address: str


RELEASED = -2
"""The cursor of a host that was released from quarantine and has not said since what it holds."""

_COLUMNS = [hosts.c[field.name] for field in fields(Host)]
_BY_ID = Prepared(select(*_COLUMNS).where(hosts.c.id == bindparam("of")))
_BY_NAME = Prepared(select(*_COLUMNS).where(hosts.c.name == bindparam("of")))
_BY_FINGERPRINT = Prepared(
    select(*_COLUMNS).where(
        or_(
            hosts.c.certificate == bindparam("shown", type_=LargeBinary),
            hosts.c.next_certificate == bindparam("also", type_=LargeBinary),
        )
    )
)


def find(connection: Connection, host_id: int) -> Host | None:
    """The host of this number."""
    return _one(_BY_ID.rows(connection, {"of": host_id}))


def find_by_name(connection: Connection, name: str) -> Host | None:
    """The host of this name."""
    return _one(_BY_NAME.rows(connection, {"of": name}))


def find_by_fingerprint(connection: Connection, fingerprint: bytes) -> Host | None:
    """The host that may show the certificate with this SHA-256, in whatever state it is."""
    return _one(_BY_FINGERPRINT.rows(connection, {"shown": fingerprint, "also": fingerprint})) if fingerprint else None


def _one(rows: list[Row]) -> Host | None:
    return _host(rows[0]) if rows else None


def _host(row: Any) -> Host:
    (
        number, name, group, state, certificate, following, hpke, joined_at, last_seen, cursor, lease_until, epoch, seq, digest,
        protection, offset, software, address,
    ) = row  # fmt: skip
    return Host(
        int(number), name, group, HostState(state), bytes(certificate), bytes(following), bytes(hpke), float(joined_at),
        float(last_seen), int(cursor), float(lease_until), int(epoch), int(seq), bytes(digest), protection, float(offset),
        software, address,
    )  # fmt: skip


def every(connection: Connection, *, host_group: str | None = None, state: HostState | None = None) -> Iterator[Host]:
    """The hosts, by name."""
    query = select(*_COLUMNS).order_by(hosts.c.name)
    if host_group is not None:
        query = query.where(hosts.c.host_group == host_group)
    if state is not None:
        query = query.where(hosts.c.state == state.value)
    for row in connection.execute(query, execution_options={"yield_per": 1_000}):
        yield _host(row)


def add(connection: Connection, host: Host) -> None:
    """Write the row of a host that joins."""
    connection.execute(insert(hosts).values({field.name: getattr(host, field.name) for field in fields(Host)}))


def heard(
    host: Host,
    *,
    now: float,
    cursor: int | None = None,
    lease_until: float | None = None,
    key_protection: str | None = None,
    clock_offset_s: float | None = None,
    software: str | None = None,
    address: str | None = None,
) -> Host | None:
    """The row after a request of this host; None when nothing in it is worth a write.

    A lease that ends later than any before must be written (:func:`save_heard`) before it is handed out: with some slack, so
    that the next twenty need no write.
    """
    after = replace(host, last_seen=now)
    if cursor is not None:
        after = replace(after, cursor=cursor)
    if lease_until is not None and lease_until > max(host.lease_until, now):
        slack = max(MIN_LEASE_SLACK_S, (lease_until - now) * LEASE_SLACK)
        after = replace(after, lease_until=lease_until + slack)
    if key_protection is not None:
        after = replace(after, key_protection=key_protection)
    if clock_offset_s is not None and abs(clock_offset_s - host.clock_offset_s) >= CLOCK_STEP_S:
        after = replace(after, clock_offset_s=clock_offset_s)
    if software is not None:
        after = replace(after, software=software)
    if address is not None:
        after = replace(after, address=address)
    late = not 0 <= now - host.last_seen < SEEN_EVERY_S
    return after if late or replace(after, last_seen=host.last_seen) != host else None


_HEARD = Prepared(
    update(hosts)
    .where(hosts.c.id == bindparam("number"))
    .values(
        last_seen=bindparam("new_seen"),
        cursor=bindparam("new_cursor"),
        # Another authority may have given a longer one meanwhile.
        lease_until=case((hosts.c.lease_until < bindparam("new_lease"), bindparam("same_lease")), else_=hosts.c.lease_until),
        key_protection=bindparam("new_protection"),
        clock_offset_s=bindparam("new_offset"),
        software=bindparam("new_software"),
        address=bindparam("new_address"),
    )
)


def save_heard(connection: Connection, heard_of: Iterable[Host]) -> None:
    """Write what :func:`heard` returned."""
    rows = [
        {
            "number": host.id, "new_seen": host.last_seen, "new_cursor": host.cursor, "new_lease": host.lease_until,
            "same_lease": host.lease_until, "new_protection": host.key_protection, "new_offset": host.clock_offset_s,
            "new_software": host.software, "new_address": host.address,
        }
        for host in heard_of
    ]  # fmt: skip
    if rows:
        _HEARD.run_each(connection, rows)


def set_state(connection: Connection, host_id: int, state: HostState, *, was: Iterable[HostState]) -> bool:
    """Move a host into another state, from one of these, compare-and-set. Whether it was in one of them."""
    seen = [one.value for one in was]
    moved = update(hosts).where(hosts.c.id == host_id, hosts.c.state.in_(seen)).values(state=state.value)
    return connection.execute(moved).rowcount > 0


def release(connection: Connection, host_id: int) -> bool:
    """End a quarantine, compare-and-set: what the host holds is not known from now on. Whether it was in quarantine."""
    moved = (
        update(hosts)
        .where(hosts.c.id == host_id, hosts.c.state == HostState.QUARANTINED.value)
        .values(state=HostState.ACTIVE.value, cursor=RELEASED)
    )
    return connection.execute(moved).rowcount > 0


def set_next_certificate(connection: Connection, host_id: int, fingerprint: bytes) -> None:
    """From now on the host may show the certificate with this SHA-256 as well."""
    connection.execute(update(hosts).where(hosts.c.id == host_id).values(next_certificate=fingerprint))


def promote_certificate(connection: Connection, host_id: int, fingerprint: bytes) -> bool:
    """The host has shown its next certificate: only that one from now on. False when it was not the next one."""
    moved = (
        update(hosts)
        .where(hosts.c.id == host_id, hosts.c.next_certificate == fingerprint)
        .values(certificate=fingerprint, next_certificate=b"")
    )
    return connection.execute(moved).rowcount > 0


_MOVE_JOURNAL = Prepared(
    update(hosts)
    .where(
        hosts.c.id == bindparam("number"),
        hosts.c.journal_epoch == bindparam("was_epoch"),
        hosts.c.journal_seq == bindparam("was_seq", type_=BigInteger),
        hosts.c.journal_hash == bindparam("was_hash", type_=LargeBinary),
    )
    .values(journal_epoch=bindparam("new_epoch"), journal_seq=bindparam("new_seq"), journal_hash=bindparam("new_hash"))
)


def move_journal(connection: Connection, host: Host, *, epoch: int, seq: int, digest: bytes) -> bool:
    """Move the position of a host's journal on from where ``host`` says it was, compare-and-set.

    False: somebody else has moved it since; nothing of this upload may be kept.
    """
    return _MOVE_JOURNAL.run(
        connection,
        {
            "number": host.id, "was_epoch": host.journal_epoch, "was_seq": host.journal_seq, "was_hash": host.journal_hash,
            "new_epoch": epoch, "new_seq": seq, "new_hash": digest,
        },
    ) > 0  # fmt: skip


_GROUP_COLUMNS = [host_groups.c[field.name] for field in fields(HostGroup)]
_GROUP = Prepared(select(*_GROUP_COLUMNS).where(host_groups.c.name == bindparam("of")))


def find_group(connection: Connection, name: str) -> HostGroup | None:
    """The group of hosts of this name. Raises: StoreCorrupt."""
    rows = _GROUP.rows(connection, {"of": name})
    return _group(rows[0]) if rows else None


def every_group(connection: Connection) -> list[HostGroup]:
    """All groups of hosts, by name. Raises: StoreCorrupt."""
    return [_group(row) for row in connection.execute(select(*_GROUP_COLUMNS).order_by(host_groups.c.name))]


def save_group(connection: Connection, group: HostGroup) -> None:
    """Write a group of hosts, new or not."""
    values: dict[str, Any] = {field.name: getattr(group, field.name) for field in fields(HostGroup)}
    values |= {"material": group.material.value, "key_protection": group.key_protection.value}
    values["offline_services"] = json.dumps(group.offline_services)
    if connection.execute(update(host_groups).where(host_groups.c.name == group.name).values(values)).rowcount == 0:
        connection.execute(insert(host_groups).values(values))


def _group(row: Any) -> HostGroup:
    name, material, max_offline_s, offline_after_s, services, protection, created_at = row
    try:
        return HostGroup(
            name, HostMaterial(material), float(max_offline_s), float(offline_after_s), tuple(map(str, json.loads(services))),
            KeyProtection(protection), float(created_at),
        )  # fmt: skip
    except ValueError as err:
        raise StoreCorrupt(
            f"the row of host group {name} holds what this version of mfad does not know: {err}",
            cure="write it anew with `mfactl agent group set`",
        ) from err
