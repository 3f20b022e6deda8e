"""An authority: does it listen, do its hosts come, is there something to look at, and can anybody log in anywhere?"""

from __future__ import annotations

import socket
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from mfa_core.errors import MfaError
from mfactl.agent_hosts import SILENT_S, Known, known_hosts
from mfactl.doctor.certificates import check_end, check_key_file
from mfactl.doctor.finding import Finding, Weight
from mfactl.output import counted

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from mfa_runtime.config import Config
    from mfa_runtime.config.listen import Endpoint
    from mfactl.session import Session

PLACE = "hosts"
LISTENS = "listen"
MANY = 5
"""So many hosts are named, and the rest counted."""
NEARLY_FULL = 0.9
RULES_OF_S = 2 * 3_600.0
LAG_S = 5.0


def check_authority(session: Session) -> Iterator[Finding]:
    """Look at this authority."""
    yield from _keys(session)
    yield from _listens(session.config)
    yield from _certificate(session.config)
    with session.reading() as connection:
        yield from _hosts(connection, session)
        yield from _alarms(connection)
        yield from _entitlement(connection)
        yield from _rules(connection, session)
        if session.config.store.url:
            yield from _server(connection)


def _keys(session: Session) -> Iterator[Finding]:
    from authority.own_keys import load_own_keys

    try:
        with session.reading() as connection:
            keys = load_own_keys(connection, session.keyring)
    except MfaError as err:
        yield Finding(Weight.PROBLEM, "key", str(err), err.cure)
        return
    yield Finding(Weight.GOOD, "key", f"authority {keys.authority_id[:8]}: CA, signing key {keys.signer.key_id}")


def _listens(config: Config) -> Iterator[Finding]:
    for endpoint in config.authority.listen:
        if taken(endpoint):
            yield Finding(Weight.GOOD, LISTENS, f"https://{endpoint} listens")
        else:
            yield Finding(
                Weight.PROBLEM, LISTENS, f"nobody listens at https://{endpoint}: every host decides alone",
                "`systemctl start mfad`, and see its log",
            )  # fmt: skip
    if all(endpoint.host in {"127.0.0.1", "::1"} for endpoint in config.authority.listen):
        yield Finding(
            Weight.WARNING, LISTENS, "the authority listens on this machine alone: no other host reaches it",
            'set authority.listen to ["0.0.0.0:18443", "[::]:18443"]',
        )  # fmt: skip


def taken(endpoint: Endpoint) -> bool:
    """Does somebody listen there?"""
    host = {"*": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(endpoint.host, endpoint.host)  # noqa: S104  compared, not bound
    try:
        socket.create_connection((host, endpoint.port), timeout=2).close()
    except OSError:
        return False
    return True


def _certificate(config: Config) -> Iterator[Finding]:
    tls = config.authority.tls
    if tls is None:
        return  # mfad makes its own, and a new one in time
    yield from check_end(tls.certificate_file, now=datetime.fromtimestamp(time.time(), UTC))
    try:
        yield from check_key_file(tls.key_file)
    except OSError as err:
        yield Finding(Weight.PROBLEM, "tls", f"{tls.key_file}: {err.strerror}", "see authority.tls.key_file")


def _hosts(connection: Connection, session: Session) -> Iterator[Finding]:
    now = session.now
    found = known_hosts(connection, now=now)
    active = [one for one in found if one.host.state == "active"]
    quarantined = [one for one in found if one.host.state == "quarantined"]
    if quarantined:
        yield Finding(
            Weight.PROBLEM, PLACE, f"{counted(len(quarantined), 'host')} in quarantine: {_named(quarantined)}",
            "`mfactl agent alarms` says why; then `mfactl agent release HOST`, or revoke it",
        )  # fmt: skip
    if not active:
        yield Finding(Weight.GOOD, PLACE, "no active host" if found else "no host has joined yet")
        return
    silent = [one for one in active if one.silent_s > SILENT_S]
    if silent:
        ended = [one for one in silent if one.host.lease_until <= now]
        more = f"; {len(ended):,} of them may decide alone no more" if ended else ""
        yield Finding(
            Weight.WARNING, PLACE, f"{counted(len(silent), 'host')} silent for more than 5 minutes: {_named(silent)}{more}",
            "`mfactl doctor` there says what is in the way; `mfactl agent revoke HOST` for one that is gone for good",
        )  # fmt: skip
    else:
        yield Finding(Weight.GOOD, PLACE, f"{counted(len(active), 'host')}, all heard in the last 5 minutes")
    behind = [one for one in active if one.behind and one not in silent]
    if behind:
        yield Finding(
            Weight.WARNING, PLACE, f"{counted(len(behind), 'host')} connected and not up to date: {_named(behind)}",
            "if that stays so for a minute, see `mfactl doctor` and the log of mfad there",
        )  # fmt: skip
    yield from _software(active)
    off = [one for one in active if abs(one.host.clock_offset_s) > 30]
    if off:
        seen = f"{counted(len(off), 'host')} with a wrong clock: {_named(off)}"
        yield Finding(Weight.WARNING, "clock", seen, "`timedatectl set-ntp true` there")
    most = session.config.authority.max_hosts
    if len(found) > most * NEARLY_FULL:
        yield Finding(
            Weight.WARNING, PLACE, f"{len(found):,} hosts of at most {most:,}",
            "raise authority.max_hosts, or `mfactl agent forget` the revoked ones",
        )  # fmt: skip


def _software(active: Sequence[Known]) -> Iterator[Finding]:
    from mfactl.agent import software

    present = software()
    others = [one for one in active if one.host.software and one.host.software != present]
    if others:
        versions = Counter(one.host.software for one in others)
        told = ", ".join(f"{number:,} with {version}" for version, number in versions.most_common(3))
        yield Finding(
            Weight.WARNING, PLACE, f"{counted(len(others), 'host')} with other software than this one ({present}): {told}",
            "bring authority and hosts to one version, the authority first",
        )  # fmt: skip


def _named(found: Sequence[Known]) -> str:
    names = ", ".join(one.host.name for one in found[:MANY])
    return names if len(found) <= MANY else f"{names} and {len(found) - MANY:,} more"


def _alarms(connection: Connection) -> Iterator[Finding]:
    from mfa_runtime.store.alarms import list_alarms

    found = list(list_alarms(connection))
    if found:
        kinds = ", ".join(f"{number:,} {kind}" for kind, number in Counter(one.kind.value for one in found).most_common())
        yield Finding(
            Weight.PROBLEM, "alarms", f"{counted(len(found), 'alarm')} that nobody has acknowledged: {kinds}",
            "`mfactl agent alarms`, then `mfactl agent alarms --ack ID`",
        )  # fmt: skip


def _entitlement(connection: Connection) -> Iterator[Finding]:
    from sqlalchemy import func, select

    from mfa_runtime.administration.host_groups import list_host_groups
    from mfa_runtime.store.entitlement import EVERYBODY, count
    from mfa_runtime.store.schema import memberships, users

    groups = list_host_groups(connection)
    if not groups:
        yield Finding(
            Weight.WARNING, PLACE, "there is no host group: no host can join", "`mfactl agent group add NAME`, then `entitle`"
        )
    for one in groups:
        if not one.scope:
            seen = f"nobody may log in on the hosts of {one.group.name}"
        elif count(connection, frozenset(one.scope)) == 0:
            seen = f"nobody is in {', '.join(one.scope)}: nobody may log in on the hosts of {one.group.name}"
        else:
            continue
        yield Finding(
            Weight.WARNING, PLACE, seen, f"`mfactl agent entitle {one.group.name} GROUP`, `mfactl user group NAME add GROUP`"
        )
    if groups and not any(EVERYBODY in one.scope for one in groups):
        grouped = select(func.count(memberships.c.user_id.distinct()))
        alone = int(connection.execute(select(func.count()).select_from(users)).scalar_one()) - int(
            connection.execute(grouped).scalar_one()
        )
        if alone > 0:
            yield Finding(
                Weight.WARNING, "users", f"{counted(alone, 'user')} in no group: they may log in on no host",
                "`mfactl user group NAME add GROUP`",
            )  # fmt: skip


def _rules(connection: Connection, session: Session) -> Iterator[Finding]:
    from mfa_runtime.protocol.syncing import rules_digest
    from mfa_runtime.store.shared_rules import noted

    own = rules_digest(session.config.rules)
    others = [one for one in noted(connection, since=session.now - RULES_OF_S) if one.digest != own]
    if others:
        names = ", ".join(one.authority for one in others)
        yield Finding(
            Weight.PROBLEM, "policy", f"this file has other rules than the authority {names} goes by: hosts get both in turns",
            "make `policy`, `identity`, `time_zone` and `totp` the same everywhere, then `systemctl reload mfad` on each",
        )  # fmt: skip


def _server(connection: Connection) -> Iterator[Finding]:
    """PostgreSQL. Without fsync mfad does not use it at all, which opening the store has told."""
    from sqlalchemy import text
    from sqlalchemy.exc import SQLAlchemyError

    try:
        writes, standbys = connection.execute(
            text("SELECT current_setting('full_page_writes'), current_setting('synchronous_standby_names')")
        ).one()
        rows = connection.execute(
            text("SELECT sync_state, extract(epoch FROM replay_lag) FROM pg_stat_replication WHERE state = 'streaming'")
        ).all()
    except SQLAlchemyError as err:
        seen = f"the server does not tell how it is set up: {type(err).__name__}"
        yield Finding(Weight.UNKNOWN, "store", seen, "look at its log")
        return
    if writes != "on":
        yield Finding(
            Weight.WARNING, "store", "the server runs with full_page_writes=off: a power loss may damage the store",
            "set full_page_writes = on",
        )  # fmt: skip
    if rows and not str(standbys).strip():
        yield Finding(
            Weight.WARNING, "store", "a standby follows late: after a failover the codes of the last moments are good again",
            "set synchronous_standby_names on the server",
        )  # fmt: skip
    late = [float(lag) for _, lag in rows if lag is not None and float(lag) > LAG_S]
    if late:
        seen = f"a standby is {max(late):.0f} s behind"
        yield Finding(Weight.WARNING, "store", seen, "see its disk and network: logins may wait for it")
    yield Finding(Weight.GOOD, "store", f"PostgreSQL, {counted(len(rows), 'server')} following")

