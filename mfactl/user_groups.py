"""``mfactl user group``: the groups of users that host groups and policies name."""

from __future__ import annotations

import enum
from typing import Annotated

import typer

from mfa_core.errors import InvalidInput
from mfactl.options import Json, Name
from mfactl.output import counted, say, say_columns, say_json, say_json_list


class GroupChange(enum.StrEnum):
    """What to do with the groups."""

    ADD = "add"
    REMOVE = "remove"
    LIST = "list"


def group(
    context: typer.Context,
    name: Name,
    change: Annotated[GroupChange, typer.Argument(help="add, remove or list.")] = GroupChange.LIST,
    groups: Annotated[list[str] | None, typer.Argument(metavar="GROUP...", help="Groups.")] = None,
    json: Json = False,
) -> None:
    """Put a user into groups, take him out of them, or list those that he is in."""
    from mfa_runtime.administration import groups as administration
    from mfa_runtime.administration.users import find_user
    from mfactl.session import open_session

    wanted = groups or []
    if change is GroupChange.LIST and wanted:
        raise InvalidInput("`list` takes no groups", cure=f"`mfactl user list --in-group {wanted[0]}` lists the users of one")
    if change is not GroupChange.LIST and not wanted:
        raise InvalidInput("no group was named", cure="give one or more GROUPs")
    changed: list[str] = []
    with open_session(context) as session:
        canonical = session.name(name)
        if change is not GroupChange.LIST:
            work = administration.add_to_groups if change is GroupChange.ADD else administration.remove_from_groups
            with session.changing() as (connection, act):
                changed = work(connection, act, canonical, wanted)
        with session.reading() as connection:
            present = administration.groups_of(connection, find_user(connection, canonical))
    if json:
        say_json({"name": canonical, "groups": present, "changed": changed})
        return
    if change is not GroupChange.LIST and not changed:
        say(f"{canonical}: nothing to {change}; groups: {', '.join(present) or '-'}")
        return
    say(f"{canonical}: {', '.join(present) or '-'}")


def groups(context: typer.Context, json: Json = False) -> None:
    """List the groups that users are in."""
    from mfa_runtime.administration.groups import list_groups
    from mfactl.session import open_session

    with open_session(context) as session, session.reading() as connection:
        listed = list_groups(connection)
    if json:
        say_json_list({"name": one.name, "users": one.users} for one in listed)
    elif say_columns(("GROUP", "USERS"), ((one.name, f"{one.users:,}") for one in listed)):
        say()
        say(f"{counted(len(listed), 'group')}")
