"""``mfactl status``: the installation on one screen."""

from __future__ import annotations

import typer

from mfactl.options import Json
from mfactl.output import say, say_json
from mfactl.session import open_session


def status(context: typer.Context, json: Json = False) -> None:
    """Show what is there: store, users, factors, whether mfad runs."""
    from mfa_runtime.administration.census import count
    from mfa_runtime.state_lock import StateLock
    from mfactl.doctor.installation import answers
    from mfactl.doctor.ldap_door import held as ldap_held
    from mfactl.doctor.radius_listeners import held

    with open_session(context) as session, session.reading() as connection:
        census = count(connection)
        config = session.config
        door = config.doors.pam
        sockets = {} if door is None else {name: answers(door.socket_dir / name) for name in ("priv.sock", "user.sock")}
        radius = config.doors.radius
        if radius is not None:
            sockets |= held(radius)
            if radius.freeradius is not None:
                sockets[str(radius.freeradius.socket)] = answers(radius.freeradius.socket)
        if config.doors.ldap is not None:
            sockets |= ldap_held(config.doors.ldap)
        # This command holds the lock too: whoever is left is mfad, or another mfactl.
        others = StateLock(config.state_dir).holders()
    running = all(sockets.values()) and bool(sockets)
    if json:
        say_json(
            {
                "state_dir": str(config.state_dir),
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
        )
        return
    say(f"store        {config.state_dir} ({census.store_id[:8]}, generation {census.generation})")
    say(f"mfad         {'listens' if running else 'does not listen'} (doors: {', '.join(sorted(config.enabled_doors))})")
    say(f"users        {_counts(census.users)}; {census.locked} locked")
    say(f"credentials  {_counts(census.credentials)}")
    say(f"audit        {census.events:,} events")


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{number:,} {name}" for name, number in counts.items()) or "none"
