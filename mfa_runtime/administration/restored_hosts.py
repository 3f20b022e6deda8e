"""What is changed of hosts, groups and keys inside a restored copy, and of what an agent was told.

Room rule: as :mod:`.restored_rows`, whose counterpart this is: statements over whole tables, and the strict answer where the
store that is replaced is not known. Every host fetches everything anew from a restored authority, and a restored agent verifies
nothing alone before it has: what was taken away since the backup was written must not come back.
"""

from __future__ import annotations

from sqlalchemy import Connection, delete, exists, insert, select, update

from mfa_core.errors import StoreCorrupt
from mfa_runtime.administration.restored_rows import Circumstances, larger, present_table
from mfa_runtime.sealing import Keyring
from mfa_runtime.store import agent_state, changes, codebooks, key_pairs
from mfa_runtime.store.alarms import AlarmKind, raise_alarm
from mfa_runtime.store.hosts import LEASE_SLACK, HostState
from mfa_runtime.store.schema import agent_state as agent_state_table
from mfa_runtime.store.schema import (
    alarms,
    host_groups,
    host_scope,
    hosts,
    join_tokens,
    memberships,
    otp_uses,
    sync_clock,
    users,
)
from mfa_runtime.store.schema import key_pairs as key_pairs_table

CHANGES_A_SECOND = 1_000
"""More than any store makes for long: a clock set by the time, at this pace, is ahead of a store that is lost."""

_p_users, _p_memberships, _p_clock = present_table(users), present_table(memberships), present_table(sync_clock)
_p_agent, _p_pairs, _p_uses = present_table(agent_state_table), present_table(key_pairs_table), present_table(otp_uses)
_WHOLE = (host_groups, host_scope, hosts, alarms)
"""Tables that are as in the replaced store, in the order in which rows may refer to one another."""


def settle_hosts(connection: Connection, ring: Keyring, at: Circumstances) -> tuple[str, ...]:
    """Change every table of an authority and of an agent; return the hosts that are in quarantine because of it.

    Row numbers have been moved on before: an alarm takes one.
    """
    connection.execute(delete(join_tokens))  # they last minutes, and may have been used since
    codebooks.clear(connection)  # made anew, or sent anew
    _carry_pairs(connection, ring, at)
    _settle_agent(connection, at)
    known = at.present and connection.execute(select(_p_clock.c.seq)).scalar() is not None
    if not _move_clock(connection, at, known=known):
        return ()
    if known:
        _take_over(connection)
        _carry_memberships(connection)
        _carry_uses(connection)
    quarantined = () if known else _quarantine(connection, at)
    connection.execute(update(hosts).values(cursor=-1))
    raise_alarm(connection, AlarmKind.STORE_RESTORED, now=at.now, details={"hosts_in_quarantine": len(quarantined)})
    return quarantined


def _move_clock(connection: Connection, at: Circumstances, *, known: bool) -> bool:
    """Move the clock past every number that was ever given; whether this is an authority."""
    last = changes.now_at(connection)
    if known:
        last = max(last, int(connection.execute(select(_p_clock.c.seq)).scalar_one()))
        changes.begin_clock(connection)  # it may have begun since the backup
    elif last:
        last = max(last, int(at.now * CHANGES_A_SECOND))
    if last:
        changes.clear(connection, seq=last + 1)
    return last > 0


def _take_over(connection: Connection) -> None:
    """Hosts, their groups and scopes as they are now: who was revoked stays so, who has joined since is there."""
    for table in reversed(_WHOLE):
        connection.execute(delete(table))
    for table in _WHOLE:
        names = [column.name for column in table.columns]
        was = present_table(table)
        connection.execute(insert(table).from_select(names, select(*(was.c[name] for name in names))))


def _carry_memberships(connection: Connection) -> None:
    same = exists().where(_p_users.c.id == users.c.id, _p_users.c.name == users.c.name)
    owners = select(users.c.id).where(same)
    connection.execute(delete(memberships))
    kept = select(_p_memberships.c.user_id, _p_memberships.c.user_group).where(_p_memberships.c.user_id.in_(owners))
    connection.execute(insert(memberships).from_select(["user_id", "user_group"], kept))


def _carry_uses(connection: Connection) -> None:
    names = [column.name for column in otp_uses.columns]
    here = exists().where(otp_uses.c.credential_id == _p_uses.c.credential_id, otp_uses.c.step == _p_uses.c.step)
    missing = select(*(_p_uses.c[name] for name in names)).where(~here)
    connection.execute(insert(otp_uses).from_select(names, missing))


def _quarantine(connection: Connection, at: Circumstances) -> tuple[str, ...]:
    """Nobody knows which hosts were revoked since, nor what leases they were given: an administrator releases them."""
    active = hosts.c.state == HostState.ACTIVE.value
    names = tuple(connection.execute(select(hosts.c.name).where(active).order_by(hosts.c.name)).scalars())
    longest = select(host_groups.c.max_offline_s).where(host_groups.c.name == hosts.c.host_group).scalar_subquery()
    connection.execute(
        update(hosts).values(lease_until=larger(hosts.c.lease_until, at.now + longest * (1 + LEASE_SLACK)))
    )
    connection.execute(update(hosts).where(active).values(state=HostState.QUARANTINED.value))
    return names


def _carry_pairs(connection: Connection, ring: Keyring, at: Circumstances) -> None:
    """Key pairs as they are now: a certificate that was renewed since is the one that counts. One that does not open stays."""
    if not at.present:
        return
    names = [column.name for column in key_pairs_table.columns]
    for row in connection.execute(select(*(_p_pairs.c[name] for name in names))).all():
        try:
            ring.unseal(bytes(row.private), key_pairs.place_of(row.name))
        except StoreCorrupt:
            continue  # the data key was rotated since the backup
        key_pairs.remove(connection, row.name)
        connection.execute(insert(key_pairs_table).values(dict(zip(names, row, strict=True))))


def _settle_agent(connection: Connection, at: Circumstances) -> None:
    """The lease is over and everything is fetched anew; what only rises is as high as it was."""
    state = agent_state.load(connection)
    if state is None:
        return
    agent_state.change(connection, cursor=-1, generation="", digest="", not_after=0.0)
    was = connection.execute(select(_p_agent)).first() if at.present else None
    if was is None or (was.authority_id, was.host_id) != (state.authority_id, state.host_id):
        return
    agent_state.change(
        connection,
        seq=max(state.seq, int(was.seq)),
        floor=max(state.floor, float(was.floor)),
        standing=state.standing if was.standing == "joined" else was.standing,
        journal_epoch=max(state.journal_epoch, int(was.journal_epoch)),
        journal_seq=state.journal_seq if state.journal_epoch >= int(was.journal_epoch) else 0,
    )
