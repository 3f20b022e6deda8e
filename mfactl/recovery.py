"""``mfactl recovery`` and ``mfactl bypass``: what stands in for a lost factor, shown once."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from mfa_core.errors import InvalidInput
from mfactl.options import Json, Name
from mfactl.output import moment, say, say_json, seconds_or_none

app = typer.Typer(help="Recovery codes.", no_args_is_help=True)
bypass_app = typer.Typer(help="Bypass codes of administrators.", no_args_is_help=True)

_DURATION = re.compile(r"([0-9]{1,6})([smhd]?)").fullmatch
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3_600, "d": 86_400}


@app.command("new")
def new(context: typer.Context, name: Name, json: Json = False) -> None:
    """Make new recovery codes and a new recovery key; all earlier ones stop working."""
    from mfa_runtime.administration.recovery import new_recovery_codes
    from mfa_runtime.administration.users import find_user
    from mfactl.session import open_session

    with open_session(context) as session, session.changing() as (connection, act):
        user = find_user(connection, session.name(name))
        batch = new_recovery_codes(connection, act, user, count=session.config.recovery.codes)
    codes = [code.reveal().decode("ascii") for code in batch.codes]
    key = batch.key.reveal().decode("ascii")
    if json:
        say_json({"user": user.name, "recovery_codes": codes, "recovery_key": key})
        return
    say(f"Recovery codes of {user.name}, shown only now; each works once:")
    for code in codes:
        say(f"  {code}")
    say(f"Recovery key: {key}")


@bypass_app.command("issue")
def issue(
    context: typer.Context,
    name: Name,
    reason: Annotated[str, typer.Option(help="Why, for the audit log. Mandatory.")],
    approver: Annotated[str | None, typer.Option(help="Who allowed it; you, when left out.")] = None,
    valid: Annotated[str | None, typer.Option(help="How long: 30m, 2h; at most 24h.")] = None,
    json: Json = False,
) -> None:
    """Issue a code that lets a user in without a factor, once. An earlier one stops working."""
    from mfa_runtime.administration.bypass import issue_bypass
    from mfa_runtime.administration.users import find_user
    from mfactl.session import open_session

    with open_session(context) as session, session.changing() as (connection, act):
        user = find_user(connection, session.name(name))
        settings = session.config.recovery
        bypass = issue_bypass(
            connection,
            act,
            user,
            reason=reason,
            approver=session.actor if approver is None else approver,
            valid_s=settings.bypass_ttl if valid is None else _seconds(valid),
            uses=settings.bypass_uses,
        )
    code = bypass.code.reveal().decode("ascii")
    if json:
        say_json({"user": user.name, "code": code, "not_after": seconds_or_none(bypass.not_after)})
    else:
        say(f"Bypass code of {user.name}, shown only now, until {moment(bypass.not_after)}: {code}")


@bypass_app.command("revoke")
def revoke(context: typer.Context, name: Name, json: Json = False) -> None:
    """Take a user's bypass code back."""
    from mfa_runtime.administration.bypass import revoke_bypass
    from mfa_runtime.administration.users import find_user
    from mfactl.session import open_session

    with open_session(context) as session, session.changing() as (connection, act):
        user = find_user(connection, session.name(name))
        revoke_bypass(connection, act, user)
    if json:
        say_json({"user": user.name, "bypass": "revoked"})
    else:
        say(f"{user.name}: bypass code revoked")


def _seconds(written: str) -> int:
    found = _DURATION(written.strip().lower())
    if found is None:
        raise InvalidInput(f"{written!a} is not a duration", cure="write 30m, 2h or 900 (seconds)")
    return int(found[1]) * _UNITS[found[2]]
