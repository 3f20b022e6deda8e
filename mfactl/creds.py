"""``mfactl cred``: the credentials of a user, without their secrets."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import typer

from mfactl.enrol import ask_code
from mfactl.options import CredentialId, Force, Json, Name
from mfactl.output import moment, refuse, say, say_columns, say_json, say_json_list, seconds_or_none

if TYPE_CHECKING:
    from mfa_core.model import User
    from mfa_runtime.administration.credentials import ListedCredential

app = typer.Typer(help="Credentials: list, suspend, resume, revoke, resync.", no_args_is_help=True)


@app.command("list")
def list_(context: typer.Context, name: Name, json: Json = False) -> None:
    """List a user's credentials, oldest first."""
    from mfa_runtime.administration.credentials import list_credentials
    from mfa_runtime.administration.users import find_user
    from mfactl.session import open_session

    with open_session(context) as session, session.reading() as connection:
        found = list(list_credentials(connection, find_user(connection, session.name(name))))
    if json:
        say_json_list(map(as_json, found))
    else:
        rows(found)


@app.command()
def suspend(context: typer.Context, number: CredentialId, force: Force = False, json: Json = False) -> None:
    """Stop a credential until `mfactl cred resume`."""
    from mfa_runtime.administration.credentials import suspend_credential
    from mfactl.session import open_session

    with open_session(context) as session, session.changing() as (connection, act):
        user = suspend_credential(connection, act, number, force=force)
    _done(number, "suspended", user, json=json)


@app.command()
def resume(context: typer.Context, number: CredentialId, json: Json = False) -> None:
    """Let a suspended credential verify again."""
    from mfa_runtime.administration.credentials import resume_credential
    from mfactl.session import open_session

    with open_session(context) as session, session.changing() as (connection, act):
        user = resume_credential(connection, act, number)
    _done(number, "active", user, json=json)


@app.command()
def revoke(context: typer.Context, number: CredentialId, force: Force = False, json: Json = False) -> None:
    """Stop a credential for good."""
    from mfa_runtime.administration.credentials import revoke_credential
    from mfactl.session import open_session

    with open_session(context) as session, session.changing() as (connection, act):
        user = revoke_credential(connection, act, number, force=force)
    _done(number, "revoked", user, json=json)


@app.command()
def resync(context: typer.Context, number: CredentialId, json: Json = False) -> None:
    """Bring a token back into step with two consecutive codes, which are asked for."""
    from mfa_runtime.administration.credentials import resynchronise_credential
    from mfactl.session import open_session

    first, second = ask_code("A code"), ask_code("The code after it")
    with open_session(context) as session, session.changing() as (connection, act):
        after = resynchronise_credential(connection, act, number, first, second)
    if after is None:
        refuse(
            f"these are not two consecutive new codes of credential {number}",
            "take two codes that follow each other, the older one first, neither of them used before",
        )
        raise typer.Exit(1)
    if json:
        say_json({"credential": number, "drift_steps": after.drift_steps})
    else:
        say(f"credential {number} is in step again (drift {after.drift_steps:+d} steps)")


def as_json(credential: ListedCredential) -> dict[str, object]:
    """A credential for programs."""
    return {
        "credential": credential.id,
        "user": credential.user,
        "kind": credential.kind,
        "state": credential.state,
        "digest": credential.digest,
        "digits": credential.digits,
        "period_s": credential.period_s,
        "label": credential.label,
        "host": credential.host or None,
        "drift_steps": credential.drift_steps,
        "created_at": seconds_or_none(credential.created_at),
        "verified_at": seconds_or_none(credential.verified_at),
        "last_used_at": seconds_or_none(credential.last_used_at),
        "expires_at": seconds_or_none(credential.expires_at),
    }


def rows(found: Iterable[ListedCredential]) -> None:
    """Credentials for people."""
    say_columns(
        ("ID", "KIND", "STATE", "ALGORITHM", "CREATED", "LAST USED", "LABEL"),
        (
            (
                str(one.id),
                one.kind,
                one.state,
                f"{one.digest}/{one.digits}" + (f"/{one.period_s}s" if one.period_s else ""),
                moment(one.created_at),
                moment(one.last_used_at),
                f"{one.label} (at {one.host} alone)".lstrip() if one.host else one.label,
            )
            for one in found
        ),
    )


def _done(number: int, state: str, user: User, *, json: bool) -> None:
    if json:
        say_json({"credential": number, "state": state, "user": user.name, "user_state": user.state})
    else:
        say(f"credential {number} is {state}; {user.name} is {user.state}")
