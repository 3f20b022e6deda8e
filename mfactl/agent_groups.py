"""``mfactl agent group``, ``entitle`` and ``withdraw``: what hosts may hold, and who may log in there."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Annotated

import typer

from mfa_core.errors import InvalidInput
from mfactl.options import Json
from mfactl.output import note, say, say_columns, say_json, say_json_list
from mfactl.spans import names, seconds, span

if TYPE_CHECKING:
    from mfa_runtime.store.hosts import HostGroup

app = typer.Typer(help="Groups of hosts: add, set, list, remove.", no_args_is_help=True)

HostGroupName = Annotated[str, typer.Argument(metavar="HOSTGROUP", help="A group of hosts.")]
UserGroupName = Annotated[str, typer.Argument(metavar="USERGROUP", help="A group of users; '*' for everybody.")]


class MaterialWord(enum.StrEnum):
    """Of :class:`mfa_runtime.store.hosts.HostMaterial`, which takes a third of a second to load."""

    SEED = "seed"
    CODEBOOK = "codebook"
    PER_HOST = "per_host"


class ProtectionWord(enum.StrEnum):
    """Of :class:`mfa_runtime.store.hosts.KeyProtection`."""

    ANY = "any"
    FILE = "file"
    SYSTEMD_CREDS = "systemd-creds"


MATERIALS = {
    MaterialWord.SEED: "seeds",
    MaterialWord.CODEBOOK: "books of codes",
    MaterialWord.PER_HOST: "seeds of credentials for one host",
}
Material = Annotated[
    MaterialWord | None,
    typer.Option(help="What a host keeps of a code generator: the seed, a book of codes, or the seeds of its own ones alone."),
]
MaxOffline = Annotated[str | None, typer.Option(help="How long a host may decide alone: 24h, 3d, at most 14d; 0 never.")]
OfflineAfter = Annotated[str | None, typer.Option(help="So long the authority must have been gone before: 0, 30s, 10m.")]
Services = Annotated[str | None, typer.Option(help="Where it may decide alone: sshd,sudo; '*' everywhere; '' nowhere.")]
Protection = Annotated[ProtectionWord | None, typer.Option(help="Hosts that keep their key worse get no secrets.")]
_LONGEST = "14d"


@app.command()
def add(
    context: typer.Context,
    name: HostGroupName,
    material: Material = None,
    max_offline: MaxOffline = None,
    offline_after: OfflineAfter = None,
    services: Services = None,
    key_protection: Protection = None,
    json: Json = False,
) -> None:
    """Make a group of hosts. Nobody may log in there until `mfactl agent entitle`.

    What is left out is: seed, 24h, at once, all services, any protection.
    """
    from mfa_runtime.administration.host_groups import add_host_group
    from mfa_runtime.store.hosts import HostGroup, HostMaterial, KeyProtection
    from mfactl.session import open_session

    usual = HostGroup(name)
    wanted = HostGroup(
        name,
        material=usual.material if material is None else HostMaterial(material),
        max_offline_s=usual.max_offline_s if max_offline is None else _max_offline(max_offline),
        offline_after_s=usual.offline_after_s if offline_after is None else _offline_after(offline_after),
        offline_services=usual.offline_services if services is None else names(services),
        key_protection=usual.key_protection if key_protection is None else KeyProtection(key_protection),
    )
    with open_session(context) as session:
        session.only_on_authority()
        with session.changing() as (connection, act):
            made = add_host_group(connection, act, wanted)
    _told(made, json=json)
    if not json:
        say(f"Nobody may log in there yet: mfactl agent entitle {made.name} USERGROUP")


@app.command("set")
def set_(
    context: typer.Context,
    name: HostGroupName,
    material: Material = None,
    max_offline: MaxOffline = None,
    offline_after: OfflineAfter = None,
    services: Services = None,
    key_protection: Protection = None,
    json: Json = False,
) -> None:
    """Change what is given; its hosts fetch everything anew."""
    from mfa_runtime.administration.host_groups import set_host_group
    from mfa_runtime.store.hosts import HostMaterial, KeyProtection
    from mfactl.session import open_session

    if {material, max_offline, offline_after, services, key_protection} == {None}:
        raise InvalidInput("nothing to change was given", cure="see `mfactl agent group set --help`")
    with open_session(context) as session:
        session.only_on_authority()
        with session.changing() as (connection, act):
            after = set_host_group(
                connection,
                act,
                name,
                material=None if material is None else HostMaterial(material),
                max_offline_s=None if max_offline is None else _max_offline(max_offline),
                offline_after_s=None if offline_after is None else _offline_after(offline_after),
                offline_services=None if services is None else names(services),
                key_protection=None if key_protection is None else KeyProtection(key_protection),
            )
    _told(after, json=json)


@app.command("list")
def list_(context: typer.Context, json: Json = False) -> None:
    """List the groups of hosts: their terms, who may log in, how many hosts there are."""
    from mfa_runtime.administration.host_groups import list_host_groups
    from mfactl.session import open_session

    with open_session(context) as session:
        session.only_on_authority()
        with session.reading() as connection:
            listed = list_host_groups(connection)
    if json:
        say_json_list(_as_json(one.group) | {"user_groups": list(one.scope), "hosts": one.hosts} for one in listed)
        return
    shown = say_columns(
        ("GROUP", "HOSTS", "USERS OF", "MATERIAL", "OFFLINE FOR", "AFTER", "SERVICES", "KEY"),
        (
            (
                one.group.name,
                f"{one.hosts:,}",
                ",".join(one.scope) or "(nobody)",
                one.group.material,
                span(one.group.max_offline_s) if one.group.max_offline_s else "never",
                span(one.group.offline_after_s),
                ",".join(one.group.offline_services) or "(none)",
                one.group.key_protection,
            )
            for one in listed
        ),
    )
    if not shown:
        note("there is no host group yet: `mfactl agent group add NAME`")


@app.command()
def remove(context: typer.Context, name: HostGroupName, json: Json = False) -> None:
    """Remove a group that no host is in."""
    from mfa_runtime.administration.host_groups import remove_host_group
    from mfactl.session import open_session

    with open_session(context) as session:
        session.only_on_authority()
        with session.changing() as (connection, act):
            remove_host_group(connection, act, name)
    if json:
        say_json({"host_group": name, "removed": True})
    else:
        say(f"{name}: removed")


def entitle(context: typer.Context, host_group: HostGroupName, user_group: UserGroupName, json: Json = False) -> None:
    """Let a group of users log in on a group of hosts."""
    from mfa_runtime.administration.host_groups import entitle as administer
    from mfa_runtime.store.entitlement import count
    from mfactl.session import open_session

    with open_session(context) as session:
        session.only_on_authority()
        with session.changing() as (connection, act):
            new = administer(connection, act, host_group, user_group)
        with session.reading() as connection:
            number = count(connection, frozenset({user_group}))
    if json:
        say_json({"host_group": host_group, "user_group": user_group, "entitled": True, "changed": new})
        return
    say(f"{host_group}: {_whom(user_group)} may log in{'' if new else ' (as before)'}")
    if number == 0:
        say(
            "There are no users yet: mfactl enrol NAME"
            if user_group == "*"
            else f"Nobody is in {user_group} yet: mfactl user group NAME add {user_group}"
        )


def withdraw(context: typer.Context, host_group: HostGroupName, user_group: UserGroupName, json: Json = False) -> None:
    """End what `mfactl agent entitle` began."""
    from mfa_runtime.administration.host_groups import withdraw as administer
    from mfactl.session import open_session

    with open_session(context) as session:
        session.only_on_authority()
        with session.changing() as (connection, act):
            administer(connection, act, host_group, user_group)
    if json:
        say_json({"host_group": host_group, "user_group": user_group, "entitled": False, "changed": True})
    else:
        say(f"{host_group}: {_whom(user_group)} may not log in any more, unless by another group")


def _whom(user_group: str) -> str:
    return "everybody" if user_group == "*" else f"the users of {user_group}"


def _max_offline(text: str) -> float:
    return seconds(text, option="--max-offline", shortest="0", longest=_LONGEST)


def _offline_after(text: str) -> float:
    return seconds(text, option="--offline-after", shortest="0", longest=_LONGEST)


def _as_json(group: HostGroup) -> dict[str, object]:
    return {
        "name": group.name,
        "material": group.material,
        "max_offline_s": group.max_offline_s,
        "offline_after_s": group.offline_after_s,
        "offline_services": list(group.offline_services),
        "key_protection": group.key_protection,
    }


def _told(group: HostGroup, *, json: bool) -> None:
    if json:
        say_json(_as_json(group))
        return
    alone = (
        f"alone for {span(group.max_offline_s)} at most, {','.join(group.offline_services) or 'no service'}"
        + (f", once the authority has been gone for {span(group.offline_after_s)}" if group.offline_after_s else "")
        if group.max_offline_s
        else "never alone"
    )
    say(f"{group.name}: {MATERIALS[MaterialWord(group.material)]}, {alone}; keys: {group.key_protection}")
