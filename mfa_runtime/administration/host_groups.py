"""Groups of hosts: what their hosts may hold and for how long, and who may log in there.

Room rule: ``host_groups`` and ``host_scope`` change in this file only, each change with a number that makes the hosts of the
group fetch everything anew.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from sqlalchemy import Connection, delete, insert, select

from mfa_core.errors import Conflict, InvalidInput, NotFound
from mfa_runtime.administration.act import Act
from mfa_runtime.administration.groups import check_group
from mfa_runtime.store import changes, entitlement, hosts
from mfa_runtime.store.hosts import HostGroup, HostMaterial, KeyProtection
from mfa_runtime.store.schema import host_groups, host_scope
from mfa_runtime.store.schema import hosts as hosts_table

MAX_OFFLINE_S = 14 * 86_400.0
"""No lease is longer: who was revoked on the first day must not log in for a third week."""
MAX_SERVICES = 100


@dataclass(frozen=True, slots=True)
class ListedHostGroup:
    """A group of hosts, the groups of users that may log in there, and how many hosts are in it."""

    group: HostGroup
    scope: tuple[str, ...]
    hosts: int


def find_host_group(connection: Connection, name: str) -> HostGroup:
    """The group of hosts of this name. Raises: NotFound."""
    found = hosts.find_group(connection, name)
    if found is None:
        raise NotFound(f"there is no host group {name}", cure="see `mfactl agent group list`, or make it with `group add`")
    return found


def add_host_group(connection: Connection, act: Act, group: HostGroup) -> HostGroup:
    """Make a group of hosts. Nobody may log in there until :func:`entitle`.

    Raises:
        Conflict: the name is taken.
        InvalidInput: a value is out of its bounds.
    """
    if hosts.find_group(connection, check_group(group.name)) is not None:
        raise Conflict(f"there is already a host group {group.name}", cure="change it with `mfactl agent group set`")
    _check(group)
    made = replace(group, created_at=act.now)
    hosts.save_group(connection, made)
    act.record(connection, "host_group.add", group.name, **_told(made))
    return made


def set_host_group(
    connection: Connection,
    act: Act,
    name: str,
    *,
    material: HostMaterial | None = None,
    max_offline_s: float | None = None,
    offline_after_s: float | None = None,
    offline_services: tuple[str, ...] | None = None,
    key_protection: KeyProtection | None = None,
) -> HostGroup:
    """Change what is given of a group of hosts; its hosts fetch everything anew.

    Raises:
        NotFound: no such group.
        InvalidInput: a value is out of its bounds.
    """
    before = find_host_group(connection, name)
    after = replace(
        before,
        material=before.material if material is None else material,
        max_offline_s=before.max_offline_s if max_offline_s is None else max_offline_s,
        offline_after_s=before.offline_after_s if offline_after_s is None else offline_after_s,
        offline_services=before.offline_services if offline_services is None else offline_services,
        key_protection=before.key_protection if key_protection is None else key_protection,
    )
    _check(after)
    if after != before:
        hosts.save_group(connection, after)
        changes.note_topic(connection, changes.host_group_topic(name), act.now)
        act.record(connection, "host_group.set", name, **_told(after))
    return after


def remove_host_group(connection: Connection, act: Act, name: str) -> None:
    """Remove a group of hosts, its scope and its join tokens.

    Raises:
        NotFound: no such group.
        Conflict: hosts are in it, revoked ones too: their journals and leases are still looked at.
    """
    find_host_group(connection, name)
    if connection.execute(select(hosts_table.c.id).where(hosts_table.c.host_group == name).limit(1)).first() is not None:
        raise Conflict(f"there are hosts in the group {name}", cure="see `mfactl agent list`; `mfactl agent forget HOST`")
    connection.execute(delete(host_groups).where(host_groups.c.name == name))
    changes.note_topic(connection, changes.host_group_topic(name), act.now)
    act.record(connection, "host_group.remove", name)


def list_host_groups(connection: Connection) -> list[ListedHostGroup]:
    """Every group of hosts, by name."""
    numbers: dict[str, int] = {}
    for group in connection.execute(select(hosts_table.c.host_group)).scalars():
        numbers[group] = numbers.get(group, 0) + 1
    return [
        ListedHostGroup(group, tuple(sorted(entitlement.scope_of(connection, group.name))), numbers.get(group.name, 0))
        for group in hosts.every_group(connection)
    ]


def entitle(connection: Connection, act: Act, host_group: str, user_group: str) -> bool:
    """Let the users of a group (``*``: everybody) log in on the hosts of a group. False when they could before.

    Raises:
        NotFound: no such group of hosts.
        InvalidInput: as :func:`check_group`.
    """
    find_host_group(connection, host_group)
    if user_group != entitlement.EVERYBODY:
        check_group(user_group)
    if user_group in entitlement.scope_of(connection, host_group):
        return False
    connection.execute(insert(host_scope).values(host_group=host_group, user_group=user_group))
    changes.note_topic(connection, changes.host_group_topic(host_group), act.now)
    act.record(connection, "host_group.entitle", host_group, users=user_group)
    return True


def withdraw(connection: Connection, act: Act, host_group: str, user_group: str) -> None:
    """The users of a group may no longer log in on the hosts of a group, unless another of their groups may.

    Raises:
        NotFound: no such group of hosts, or they could not before.
    """
    find_host_group(connection, host_group)
    gone = connection.execute(
        delete(host_scope).where(host_scope.c.host_group == host_group, host_scope.c.user_group == user_group)
    ).rowcount
    if not gone:
        raise NotFound(
            f"the users of {user_group} are not entitled on {host_group}", cure="see `mfactl agent group list`"
        )
    changes.note_topic(connection, changes.host_group_topic(host_group), act.now)
    act.record(connection, "host_group.withdraw", host_group, users=user_group)


def _check(group: HostGroup) -> None:
    if not 0 <= group.max_offline_s <= MAX_OFFLINE_S:
        raise InvalidInput(
            f"{group.max_offline_s:.0f} s offline at most, expected 0 (never) to {MAX_OFFLINE_S:.0f} (14 days)"
        )
    if not 0 <= group.offline_after_s <= MAX_OFFLINE_S:
        raise InvalidInput(f"offline after {group.offline_after_s:.0f} s, expected 0 to {MAX_OFFLINE_S:.0f} (14 days)")
    if len(group.offline_services) > MAX_SERVICES or not all(
        service.isprintable() and 1 <= len(service) <= MAX_SERVICE_CHARS for service in group.offline_services
    ):
        raise InvalidInput(
            f"expected up to {MAX_SERVICES} names of services of 1 to {MAX_SERVICE_CHARS} characters",
            cure="names are those of the audit log: sshd, a RADIUS client, an LDAP application; * for all",
        )


MAX_SERVICE_CHARS = 128


def _told(group: HostGroup) -> dict[str, str | float]:
    return {
        "material": group.material.value,
        "max_offline_s": group.max_offline_s,
        "offline_after_s": group.offline_after_s,
        "offline_services": " ".join(group.offline_services),
        "key_protection": group.key_protection.value,
    }
