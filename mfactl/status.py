"""``mfactl status``: the installation on one screen."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from mfactl.options import Json
from mfactl.output import counted, moment, printable, say, say_json
from mfactl.session import open_session

if TYPE_CHECKING:
    from mfactl.session import Session


def status(context: typer.Context, json: Json = False) -> None:
    """Show what is there: store, users, factors, whether mfad runs."""
    from mfa_runtime.administration.census import count
    from mfa_runtime.state_lock import StateLock
    from mfactl.doctor.authority import taken
    from mfactl.doctor.installation import answers
    from mfactl.doctor.ldap_door import held as ldap_held
    from mfactl.doctor.radius_listeners import held

    with open_session(context) as session:
        config = session.config
        more, lines = _role(session)
        with session.reading() as connection:
            census = count(connection)
        door = config.doors.pam
        sockets = {} if door is None else {name: answers(door.socket_dir / name) for name in ("priv.sock", "user.sock")}
        radius = config.doors.radius
        if radius is not None:
            sockets |= held(radius)
            if radius.freeradius is not None:
                sockets[str(radius.freeradius.socket)] = answers(radius.freeradius.socket)
        if config.doors.ldap is not None:
            sockets |= ldap_held(config.doors.ldap)
        if config.role == "authority":
            sockets |= {f"https://{one}": taken(one) for one in config.authority.listen}
        # This command holds the lock too: whoever is left is mfad, or another mfactl.
        others = StateLock(config.state_dir).holders()
    running = all(sockets.values()) and bool(sockets)
    if json:
        say_json(
            {
                "role": config.role,
                "state_dir": str(config.state_dir),
                "store": str(config.store_place),
                "store_id": census.store_id,
                "generation": census.generation,
                "users": census.users,
                "locked_users": census.locked,
                "credentials": census.credentials,
                "audit_events": census.events,
                "doors": sorted(config.enabled_doors),
                "sockets": sockets,
                "mfad_listens": running,
                "processes": list(others),
            }
            | more
        )
        return
    where = config.store_place if config.store.url else config.state_dir
    say(f"store        {where} ({census.store_id[:8]}, generation {census.generation})")
    doors = ", ".join(sorted(config.enabled_doors)) or "none"
    say(f"mfad         {'listens' if running else 'does not listen'} ({config.role}; doors: {doors})")
    say(f"users        {_counts(census.users)}; {census.locked} locked")
    say(f"credentials  {_counts(census.credentials)}")
    say(f"audit        {counted(census.events, 'event')}")
    for line in lines:
        say(line)


def _role(session: Session) -> tuple[dict[str, object], list[str]]:
    """What there is to say of this role beside the rest: for programs, and for people."""
    from mfa_runtime.config.sections import Role

    match session.config.role:
        case Role.AGENT:
            return _agent(session)
        case Role.AUTHORITY:
            return _authority(session)
        case Role.STANDALONE:
            return {}, []


def _agent(session: Session) -> tuple[dict[str, object], list[str]]:
    from mfactl.agent_here import STANDINGS, alone, as_json, read_here

    here = read_here(session)
    if here is None:
        return {"agent": {"joined": False}}, ["authority    none yet: mfactl agent join https://HOST:PORT"]
    reached = f"not reached since {moment(here.offline_since)}" if here.offline_since else STANDINGS[here.state.standing]
    lines = [f"authority    {', '.join(here.urls)}: {reached}", f"alone        {alone(here, now=session.now)}"]
    if here.unsent:
        lines.append(f"journal      {here.unsent:,} not sent yet")
    if here.trouble is not None:
        lines.append(f"trouble      {printable(here.trouble.text)}")
        lines += [f"             cure: {printable(here.trouble.cure)}"] if here.trouble.cure else []
    return {"agent": as_json(here, [])}, lines


def _authority(session: Session) -> tuple[dict[str, object], list[str]]:
    from collections import Counter

    from mfa_runtime.store.alarms import list_alarms
    from mfactl.agent_hosts import SILENT_S, known_hosts

    with session.reading() as connection:
        hosts = known_hosts(connection, now=session.now)
        alarms = sum(1 for _ in list_alarms(connection))
    states = Counter(str(one.host.state) for one in hosts)
    connected = sum(1 for one in hosts if one.host.state == "active" and one.silent_s <= SILENT_S)
    lines = [f"hosts        {_counts(dict(states))}; {connected:,} heard in the last 5 minutes"]
    if alarms:
        lines.append(f"alarms       {alarms:,} to look at: mfactl agent alarms")
    return {"hosts": dict(states), "hosts_connected": connected, "alarms": alarms}, lines


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{number:,} {name}" for name, number in counts.items()) or "none"
