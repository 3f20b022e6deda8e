"""``mfactl agent list``, ``revoke``, ``release``, ``forget``, ``holders`` and ``alarms``: the hosts of an authority."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from mfa_core.errors import NotFound
from mfactl.options import CredentialId, Json
from mfactl.output import counted, moment, note, printable, say, say_columns, say_json, say_json_list, seconds_or_none
from mfactl.spans import span

if TYPE_CHECKING:
    from sqlalchemy import Connection, Table

    from mfa_runtime.store.alarms import Alarm
    from mfa_runtime.store.hosts import Host
    from mfactl.session import Session

HostName = Annotated[str, typer.Argument(metavar="HOST", help="The host's name, or its number.")]


class StateWord(enum.StrEnum):
    """Of :class:`mfa_runtime.store.hosts.HostState`, which takes a third of a second to load."""

    ACTIVE = "active"
    QUARANTINED = "quarantined"
    REVOKED = "revoked"


SILENT_S = 300.0
"""A host that is connected asks at least once in this time."""


@dataclass(frozen=True, slots=True)
class Known:
    """A host, and by how much it is ``behind``: whether there are changes that it has not said to have."""

    host: Host
    behind: bool
    silent_s: float


def known_hosts(connection: Connection, *, now: float, host_group: str | None = None, state: str | None = None) -> list[Known]:
    """The hosts by name."""
    from mfa_runtime.store import changes, entitlement, hosts

    wanted = None if state is None else hosts.HostState(state)
    latest: dict[str, int] = {}
    forgotten = changes.oldest(connection)
    found = []
    for host in list(hosts.every(connection, host_group=host_group, state=wanted)):
        if host.host_group not in latest:
            scope = entitlement.scope_of(connection, host.host_group)
            topics = [changes.host_group_topic(host.host_group), *map(changes.group_topic, scope)]
            latest[host.host_group] = max(changes.latest(connection, topics), forgotten)
        found.append(Known(host, host.cursor < latest[host.host_group], max(0.0, now - host.last_seen)))
    return found


def list_(
    context: typer.Context,
    json: Json = False,
    host_group: Annotated[str | None, typer.Option("--group", help="Only hosts of this group.")] = None,
    state: Annotated[StateWord | None, typer.Option(help="Only hosts in this state.")] = None,
) -> None:
    """List the hosts: when they were last heard, until when they may decide alone, how they keep their key."""
    from mfactl.session import open_session

    with open_session(context) as session:
        session.only_on_authority()
        with session.reading() as connection:
            found = known_hosts(connection, now=session.now, host_group=host_group, state=state)
    if json:
        say_json_list(as_json(one) for one in found)
        return
    shown = say_columns(
        ("NAME", "GROUP", "STATE", "LAST SEEN", "LEASE UNTIL", "KEY", "CLOCK", "BEHIND", "SOFTWARE", "ADDRESS"),
        (
            (
                one.host.name,
                one.host.host_group,
                one.host.state,
                moment(one.host.last_seen),
                moment(one.host.lease_until),
                one.host.key_protection,
                f"{one.host.clock_offset_s:+.0f}s",
                "yes" if one.behind else "no",
                one.host.software or "-",
                one.host.address or "-",
            )
            for one in found
        ),
    )
    if not shown:
        note("no such host" if host_group or state else "no host has joined yet: `mfactl agent token HOSTGROUP` lets one")


def show(session: Session, name: str, *, json: bool) -> None:
    """Everything about one host."""
    from mfa_runtime.administration.hosts import find_host
    from mfa_runtime.store.alarms import list_alarms
    from mfa_runtime.store.hosts import HostMaterial, find_group

    with session.reading() as connection:
        host = find_host(connection, name)
        hosts = known_hosts(connection, now=session.now, host_group=host.host_group)
        [known] = [one for one in hosts if one.host.id == host.id]
        group = find_group(connection, host.host_group)
        alarms = [one for one in list_alarms(connection) if one.host_id == host.id]
    material = group.material if group is not None and group.admits(host.key_protection) else None
    # A book of codes reaches a quarter beyond the lease; what is known here is an upper bound.
    books = group is not None and material is HostMaterial.CODEBOOK and host.lease_until > 0
    codes_until = host.lease_until + group.max_offline_s / 4 if group is not None and books else 0.0
    if json:
        more = {"material": material, "codes_until": seconds_or_none(codes_until), "alarms": len(alarms)}
        say_json(as_json(known) | more)
        return
    say(f"host          {host.name} (number {host.id}), {host.state}")
    say(f"group         {host.host_group}; holds {'no secrets' if material is None else material}")
    say(f"joined        {moment(host.joined_at)}")
    say(f"last seen     {moment(host.last_seen)} ({span(known.silent_s)} ago), from {host.address or '-'}")
    if host.lease_until > 0:
        say(f"lease         until {moment(host.lease_until)}: until then it may decide alone, even revoked, if it is cut off")
    else:
        say("lease         none yet: it decides nothing alone")
    if codes_until:
        say(f"codes         until {moment(codes_until)} at the latest: a copy of it gives none after that")
    say(f"up to date    {'no: there are changes that it has not confirmed' if known.behind else 'yes'}")
    say(f"journal       here up to {host.journal_epoch}:{host.journal_seq}")
    say(f"key           {host.key_protection}")
    say(f"clock         {host.clock_offset_s:+.1f} s")
    say(f"software      {host.software or '-'}")
    if alarms:
        say(f"alarms        {counted(len(alarms), 'alarm')}: mfactl agent alarms")


def revoke(context: typer.Context, name: HostName, json: Json = False) -> None:
    """Refuse a host from now on, for good. It must join anew, with a new token."""
    from mfa_runtime.administration.hosts import revoke_host
    from mfactl.session import open_session

    with open_session(context) as session:
        session.only_on_authority()
        with session.changing() as (connection, act):
            host = revoke_host(connection, act, name)
    if json:
        say_json(_state_json(host))
        return
    say(f"{host.name}: revoked")
    if host.lease_until > session.now:
        say(f"If it is cut off from here it may decide alone until {moment(host.lease_until)}. What it held: docs/offline.md.")


def release(context: typer.Context, name: HostName, json: Json = False) -> None:
    """End a quarantine. Look first which of the two machines is the right one."""
    from mfa_runtime.administration.hosts import release_host
    from mfactl.session import open_session

    with open_session(context) as session:
        session.only_on_authority()
        with session.changing() as (connection, act):
            host = release_host(connection, act, name)
    if json:
        say_json(_state_json(host))
    else:
        say(f"{host.name}: released")


def forget(context: typer.Context, name: HostName, json: Json = False) -> None:
    """Remove a revoked host from the list, when its lease is over."""
    from mfa_runtime.administration.hosts import forget_host
    from mfactl.session import open_session

    with open_session(context) as session:
        session.only_on_authority()
        with session.changing() as (connection, act):
            forget_host(connection, act, name)
    if json:
        say_json({"host": name, "forgotten": True})
    else:
        say(f"{name}: forgotten")


def holders(context: typer.Context, number: CredentialId, json: Json = False) -> None:
    """List the hosts that may still verify a credential alone, and until when."""
    from mfa_runtime.administration.hosts import holders_of
    from mfactl.session import open_session

    with open_session(context) as session:
        session.only_on_authority()
        with session.reading() as connection:
            found = holders_of(connection, number, session.now)
    if json:
        say_json_list(
            {
                "host": one.host,
                "host_id": one.host_id,
                "state": one.state,
                "material": one.material,
                "why": one.why,
                "until": seconds_or_none(one.until),
            }
            for one in found
        )
        return
    if not found:
        say(f"No host can verify credential {number} without asking here.")
        return
    words = {"entitled": "it should: its users may log in there", "behind": "it has not confirmed the change yet"}
    say_columns(
        ("HOST", "STATE", "MATERIAL", "UNTIL", "WHY"),
        ((one.host, one.state, one.material, moment(one.until), words[one.why]) for one in found),
    )


def alarms(
    context: typer.Context,
    every: Annotated[bool, typer.Option("--all", help="Those that were acknowledged, too.")] = False,
    acknowledge: Annotated[int | None, typer.Option("--ack", metavar="ID", help="You have looked at this one.")] = None,
    json: Json = False,
) -> None:
    """List what has to be looked at, newest first."""
    from mfa_runtime.store import alarms as store
    from mfactl.session import open_session

    with open_session(context) as session:
        session.only_on_authority()
        if acknowledge is not None:
            with session.changing() as (connection, act):
                if not store.acknowledge(connection, acknowledge, act.now):
                    raise NotFound(f"there is no alarm {acknowledge} that nobody has seen", cure="see `mfactl agent alarms`")
                act.record(connection, "alarm.acknowledge", str(acknowledge))
            if json:
                say_json({"id": acknowledge, "acknowledged": True})
            else:
                say(f"alarm {acknowledge}: acknowledged")
            return
        with session.reading() as connection:
            found = list(store.list_alarms(connection, unseen=not every))
            host_names, user_names = _names(connection, found)
    if json:
        say_json_list(
            {
                "id": one.id,
                "at": one.at,
                "kind": one.kind,
                "host": host_names.get(one.host_id),
                "user": user_names.get(one.user_id),
                "details": dict(one.details),
                "acknowledged_at": seconds_or_none(one.seen_at),
                "meaning": ALARMS[one.kind][0],
                "cure": ALARMS[one.kind][1],
            }
            for one in found
        )
        return
    if not found:
        say("No alarms.")
    for one in found:
        of = [f"host {host_names.get(one.host_id, one.host_id)}" if one.host_id else ""]
        of.append(f"user {user_names.get(one.user_id, one.user_id)}" if one.user_id else "")
        of += [f"{key}={value}" for key, value in one.details.items()]
        words = printable(" ".join(filter(None, (one.kind, *of))))
        say(f"{one.id}  {moment(one.at)}  {words}{'  (seen)' if one.seen_at else ''}")
        meaning, cure = ALARMS[one.kind]
        say(f"    {meaning}; {cure}")


ALARMS: Mapping[str, tuple[str, str]] = {
    "replay_suspected": (
        "one code was accepted in two places: somebody has seen it, or its owner typed it twice while a host was cut off",
        "ask the owner; in doubt `mfactl user reset NAME` and enrol again",
    ),
    "journal_fork": (
        "the host's journal is not the one that was here: it was put back to an older state",
        "if nobody has restored it, find out who has a copy; it has fetched everything anew",
    ),
    "clone_suspected": (
        "two machines have shown what one host has; it is in quarantine",
        "find both; `mfactl agent release HOST` when only the right one is left, or revoke it and join anew",
    ),
    "key_protection": (
        "the host keeps its key worse than its group demands, and gets no secrets",
        "seal its key with systemd-creds (docs/offline.md), or `mfactl agent group set GROUP --key-protection any`",
    ),
    "clock_offset": ("the host's clock is far off", "`timedatectl set-ntp true` there: alone, it lets nobody in"),
    "store_restored": (
        "this store was restored from a backup: codes of before may be known to somebody",
        "hosts have fetched everything anew; look at `mfactl agent list` for those that have not come back",
    ),
}
"""What each kind of alarm means, and what to do."""


def _names(connection: Connection, found: list[Alarm]) -> tuple[dict[int, str], dict[int, str]]:
    from sqlalchemy import select

    from mfa_runtime.store.schema import hosts, users

    def names(table: Table, numbers: set[int]) -> dict[int, str]:
        rows = connection.execute(select(table.c.id, table.c.name).where(table.c.id.in_(numbers)))
        return {int(number): str(name) for number, name in rows}

    return names(hosts, {one.host_id for one in found}), names(users, {one.user_id for one in found})


def as_json(one: Known) -> dict[str, object]:
    """A host for programs."""
    host = one.host
    return {
        "host": host.name,
        "id": host.id,
        "host_group": host.host_group,
        "state": host.state,
        "joined_at": seconds_or_none(host.joined_at),
        "last_seen": seconds_or_none(host.last_seen),
        "lease_until": seconds_or_none(host.lease_until),
        "key_protection": host.key_protection,
        "clock_offset_s": host.clock_offset_s,
        "behind": one.behind,
        "cursor": host.cursor,
        "journal": {"epoch": host.journal_epoch, "seq": host.journal_seq},
        "software": host.software,
        "address": host.address,
    }


def _state_json(host: Host) -> dict[str, object]:
    return {"host": host.name, "id": host.id, "state": host.state, "lease_until": seconds_or_none(host.lease_until)}
