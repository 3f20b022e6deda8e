"""``mfactl user``: who has to have a second factor, who has one, who is locked."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mfa_core.errors import InvalidInput, UsernameRefused
from mfa_core.model import Door, EnrolmentState, User
from mfa_core.secret import Secret
from mfactl import user_groups
from mfactl.exit_codes import ExitCode
from mfactl.options import Json, Name
from mfactl.output import counted, moment, say, say_columns, say_json, say_json_list, seconds_or_none

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from mfa_runtime.administration.act import Act
    from mfa_runtime.administration.users import ListedUser
    from mfactl.session import Session

app = typer.Typer(help="Users: add, list, require, exempt, lock, unlock, reset, password, groups.", no_args_is_help=True)
app.command()(user_groups.group)
app.command()(user_groups.groups)

Names = Annotated[list[str] | None, typer.Argument(metavar="NAME...", help="Login names.")]
FromFile = Annotated[Path | None, typer.Option("--file", help="A file with one login name a line.")]
_MAX_LINE_BYTES = 1024
Reason = Annotated[str, typer.Option(help="For the audit log.")]


@app.command()
def add(context: typer.Context, names: Names = None, file: FromFile = None, json: Json = False) -> None:
    """Add users. They have nothing yet: `mfactl enrol` gives them a factor."""
    from mfa_runtime.administration import users

    _each(context, names, file, users.add_user, "added", json=json)


@app.command("list")
def list_(
    context: typer.Context,
    json: Json = False,
    state: Annotated[EnrolmentState | None, typer.Option(help="Only users in this state.")] = None,
    group: Annotated[str | None, typer.Option(help="no: without an active factor; yes: with one.")] = None,
    locked: Annotated[bool, typer.Option("--locked", help="Only users locked by an administrator.")] = False,
    name: Annotated[str | None, typer.Option(help="Only names like this, with * and ?.")] = None,
    in_group: Annotated[str | None, typer.Option(help="Only users in this group: see `mfactl user group`.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many.")] = None,
) -> None:
    """List users by name. A million of them need no more memory than a thousand."""
    from mfa_runtime.administration.users import Group, UserFilter, list_users
    from mfactl.session import open_session

    if group not in {None, "no", "yes"}:
        raise InvalidInput(f"--group {group}, expected no or yes")
    wanted = UserFilter(
        name=name,
        state=state,
        locked=True if locked else None,
        factor=None if group is None else Group(group),
        member_of=in_group,
    )
    with open_session(context) as session, session.reading() as connection:
        listed = list_users(connection, wanted, now=session.now, limit=limit)
        if json:
            say_json_list(_as_json(user) for user in listed)
        else:
            say_columns(("NAME", "STATE", "FACTORS", "REQUIREMENT", "GRACE UNTIL", "LOCKED", "CODES"), _rows(listed))


@app.command()
def show(context: typer.Context, name: Name, json: Json = False) -> None:
    """Show all that is known of a user, but no secret."""
    from mfa_runtime.administration.credentials import list_credentials
    from mfa_runtime.administration.groups import groups_of
    from mfa_runtime.administration.users import UserFilter, find_user, list_users, throttle_of
    from mfa_runtime.config.sections import Role
    from mfactl.creds import as_json, rows
    from mfactl.session import open_session

    with open_session(context) as session, session.reading() as connection:
        user = find_user(connection, session.name(name))
        listed = next(u for u in list_users(connection, UserFilter(), now=session.now, limit=1, start=user.name))
        credentials = list(list_credentials(connection, user))
        standing = throttle_of(connection, user.name)
        member_of = groups_of(connection, user)
    if json:
        say_json(
            _as_json(listed)
            | {
                "groups": member_of,
                "credentials": [as_json(credential) for credential in credentials],
                "failures": standing.consecutive,
                "retry_at": seconds_or_none(standing.not_before if standing.not_before > session.now else 0),
            }
        )
        return
    say(f"name          {listed.name}")
    say(f"state         {listed.state}{', locked by an administrator' if listed.locked else ''}")
    say(f"requirement   {listed.requirement}")
    say(f"grace until   {moment(listed.grace_until)}")
    if member_of:
        say(f"groups        {', '.join(member_of)}")
    if session.config.role is Role.AGENT:
        say("recovery      its authority knows; a host holds no recovery codes")
    else:
        say(f"recovery      {counted(listed.recovery_left, 'code')} left")
    if listed.has_password:
        say("password      set, for `primary: {type: local}`")
    say(f"failures      {standing.consecutive} in a row; next try from {moment(standing.not_before)}")
    say(f"added         {moment(listed.created_at)}")
    if credentials:
        say()
        rows(credentials)


@app.command()
def require(
    context: typer.Context,
    names: Names = None,
    file: FromFile = None,
    days: Annotated[int | None, typer.Option(help="Days of grace to enrol, 1 to 365.")] = None,
    json: Json = False,
) -> None:
    """Require a second factor. Asking again never extends the grace."""
    from mfa_runtime.administration import users
    from mfactl.session import read_configuration

    grace = days if days is not None else read_configuration(context).enrolment.grace_days
    _each(context, names, file, lambda c, act, name: users.require(c, act, name, days=grace), "required", json=json)


@app.command()
def exempt(
    context: typer.Context,
    names: Names = None,
    file: FromFile = None,
    reason: Reason = "",
    undo: Annotated[bool, typer.Option("--undo", help="Let the policy decide again.")] = False,
    json: Json = False,
) -> None:
    """Ask no second factor of a user, whatever the policy says."""
    from mfa_runtime.administration import users

    if undo:
        _each(context, names, file, users.follow_policy, "under the policy", json=json)
    else:
        _each(context, names, file, lambda c, act, name: users.exempt(c, act, name, reason=reason), "exempt", json=json)


@app.command()
def lock(context: typer.Context, names: Names = None, file: FromFile = None, reason: Reason = "", json: Json = False) -> None:
    """Refuse every login until `mfactl user unlock`."""
    from mfa_runtime.administration import users

    _each(context, names, file, lambda c, act, name: users.lock(c, act, name, reason=reason), "locked", json=json)


@app.command()
def unlock(context: typer.Context, names: Names = None, file: FromFile = None, json: Json = False) -> None:
    """Take off the lock, and what failed codes left: waiting times and the hard lock."""
    from mfa_runtime.administration import users

    _each(context, names, file, users.unlock, "unlocked", json=json)


@app.command()
def reset(context: typer.Context, names: Names = None, file: FromFile = None, json: Json = False) -> None:
    """Start over: revoke the factors, drop codes and trust. An administrator's lock stays."""
    from mfa_runtime.administration import users

    _each(context, names, file, users.reset, "reset", json=json)


@app.command()
def password(
    context: typer.Context,
    name: Name,
    stdin: Annotated[bool, typer.Option("--stdin", help="Take it from one line of standard input, for provisioning.")] = False,
    remove: Annotated[bool, typer.Option("--remove", help="Take the password away.")] = False,
    check: Annotated[Door | None, typer.Option(help="Change nothing: ask the backend of this door if it is right.")] = None,
    json: Json = False,
) -> None:
    """Set the password that `primary: {type: local}` checks: asked twice, never shown, never an argument."""
    from mfa_runtime.administration import passwords
    from mfactl.session import open_session

    if remove and (stdin or check is not None):
        raise InvalidInput("--remove takes no password", cure="give --remove alone")
    if check is not None:
        _check_password(context, name, check, stdin=stdin, json=json)
        return
    with open_session(context) as session:
        canonical = _canonical(session, name)
        if remove:
            with session.changing() as (connection, act):
                passwords.remove_password(connection, act, canonical)
        else:
            # Asked for before the transaction begins: logins wait for it.
            chosen = _password_from_stdin() if stdin else _password_asked(canonical)
            with session.changing() as (connection, act):
                passwords.set_password(connection, act, canonical, chosen)
    if json:
        say_json({"name": canonical, "has_password": not remove})
    else:
        say(f"{canonical}: {'has no password any more' if remove else 'password set'}")


def _check_password(context: typer.Context, name: str, door: Door, *, stdin: bool, json: bool) -> None:
    """Ask the backend of a door, as a login there would: a wrong password counts where the directory counts."""
    import asyncio

    from mfa_core.model import Attempt, FirstFactor, Interaction
    from mfa_runtime.primaries import open_primary
    from mfactl.session import open_session

    with open_session(context) as session:
        canonical = _canonical(session, name)
        section = getattr(session.config.doors, door.value, None)
        backend = section and open_primary(
            section.primary, store=session.store, keyring=lambda: session.keyring, throttle=session.config.throttle
        )
        if section is None or backend is None:
            raise InvalidInput(f"the {door.value} door has no backend for passwords", cure=f"set doors.{door.value}.primary")
        try:
            typed = _password_from_stdin() if stdin else Secret.from_text(getpass.getpass(f"Password of {canonical}: "))
            attempt = Attempt(
                event_id="", door=Door.CONSOLE, service="mfactl", username=name, source=None, typed=None,
                first_factor=FirstFactor.OURS, interaction=Interaction.PROMPTS, client="mfactl",
            )  # fmt: skip
            good = bool(typed) and asyncio.run(backend.check(canonical, typed, attempt))
        finally:
            backend.close()
        kind = section.primary.type.value
    if json:
        say_json({"name": canonical, "door": door.value, "backend": kind, "right": good})
    else:
        say(f"{canonical}: {'right' if good else 'wrong'}, says {kind}")
    if not good:
        raise typer.Exit(ExitCode.REFUSED)


def _password_from_stdin() -> Secret:
    line = sys.stdin.buffer.readline(_MAX_LINE_BYTES)
    if not line.endswith(b"\n") and len(line) == _MAX_LINE_BYTES:
        raise InvalidInput("standard input holds more than a password", cure="give it alone, on one line")
    return Secret(line.removesuffix(b"\n").removesuffix(b"\r"))


def _password_asked(name: str) -> Secret:
    if not sys.stdin.isatty():
        raise InvalidInput("there is no terminal to ask for the password", cure="give it with --stdin, on one line")
    first = Secret.from_text(getpass.getpass(f"New password for {name}: "))
    if not first.same_as(Secret.from_text(getpass.getpass("Again: "))):
        raise InvalidInput("the two differ", cure="try again; nothing was changed")
    return first


def _each(
    context: typer.Context,
    names: list[str] | None,
    file: Path | None,
    change: Callable[[Connection, Act, str], User],
    done: str,
    *,
    json: bool,
) -> None:
    """One transaction over all names: either every one of them was changed, or none."""
    from mfactl.session import open_session

    wanted = [*(names or []), *(_lines(file) if file is not None else ())]
    if not wanted:
        raise InvalidInput("no user was named", cure="give one or more NAMEs, or --file FILE")
    changed: list[User] = []
    with open_session(context) as session, session.changing() as (connection, act):
        changed += [change(connection, act, _canonical(session, name)) for name in wanted]
    if json:
        say_json_list(_user_json(user) for user in changed)
        return
    for user in changed:
        grace = f", grace until {moment(user.grace_until)}" if user.grace_until > 0 else ""
        say(f"{user.name}: {done} ({user.state}{grace})")


def _canonical(session: Session, name: str) -> str:
    """The canonical form; a refusal says which of many names it is."""
    try:
        return session.name(name)
    except UsernameRefused as err:
        raise InvalidInput(f"{name[:64]!a}: {err}", cure=err.cure) from err


def _lines(file: Path) -> Iterator[str]:
    try:
        with file.open(encoding="ascii", errors="surrogateescape") as lines:
            yield from (line.strip() for line in lines if line.strip() and not line.startswith("#"))
    except OSError as err:
        raise InvalidInput(f"{file}: cannot be read: {err.strerror}", cure="give a file with one login name a line") from err


def _user_json(user: User) -> dict[str, object]:
    return {
        "name": user.name,
        "state": user.state,
        "requirement": user.requirement,
        "grace_until": seconds_or_none(user.grace_until),
        "locked": user.locked,
    }


def _as_json(user: ListedUser) -> dict[str, object]:
    return {
        "name": user.name,
        "state": user.state,
        "factors": list(user.factors),
        "requirement": user.requirement,
        "grace_until": seconds_or_none(user.grace_until),
        "locked": user.locked,
        "recovery_codes_left": user.recovery_left,
        "created_at": seconds_or_none(user.created_at),
        "has_password": user.has_password,
    }


def _rows(listed: Iterator[ListedUser]) -> Iterator[tuple[str, ...]]:
    for user in listed:
        yield (
            user.name,
            user.state,
            ",".join(user.factors) or "-",
            user.requirement,
            moment(user.grace_until),
            "yes" if user.locked else "no",
            str(user.recovery_left),
        )
