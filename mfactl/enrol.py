"""``mfactl enrol`` and ``mfactl confirm``: a second factor for a user, shown once."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from mfa_core.errors import Conflict
from mfa_core.model import Digest, EnrolmentState, FactorKind
from mfactl.options import Json, Name
from mfactl.output import moment, refuse, say, say_json, seconds_or_none


def enrol(
    context: typer.Context,
    name: Name,
    json: Json = False,
    no_confirm: Annotated[
        bool, typer.Option("--no-confirm", help="Active at once, without a code: for provisioning. Audited.")
    ] = False,
    hotp: Annotated[bool, typer.Option("--hotp", help="Count uses instead of time.")] = False,
    digits: Annotated[int | None, typer.Option(help="6, 7 or 8.")] = None,
    digest: Annotated[Digest | None, typer.Option(help="Many apps ignore all but sha1.")] = None,
    period: Annotated[int | None, typer.Option(help="Seconds of a time step: 30 or 60.")] = None,
    label: Annotated[str, typer.Option(help="For lists, such as the name of the device.")] = "",
    host: Annotated[
        str | None, typer.Option("--host", help="At an authority: it verifies at this host alone, and no other one holds it.")
    ] = None,
) -> None:
    """Give a user a new second factor; unknown users are added. It counts after `mfactl confirm`, unless --no-confirm."""
    from mfa_runtime.administration.enrolment import Parameters, begin, provision_active
    from mfa_runtime.administration.hosts import find_host
    from mfa_runtime.administration.users import find_or_add_user, invite_again
    from mfactl.session import open_session

    with open_session(context) as session:
        totp = session.config.totp
        parameters = Parameters(
            issuer=session.config.issuer,
            kind=FactorKind.HOTP if hotp else FactorKind.TOTP,
            digest=totp.digest if digest is None else digest,
            digits=totp.digits if digits is None else digits,
            period_s=totp.period if period is None else period,
            label=label[:128],
            pending_s=session.config.enrolment.pending,
        )
        canonical = session.name(name)
        with session.changing() as (connection, act):
            host_id = 0 if host is None else find_host(connection, host).id
            user = find_or_add_user(connection, act, canonical)
            if user.state is EnrolmentState.REVOKED:
                user = invite_again(connection, act, user)
            if no_confirm:
                begun, key = provision_active(connection, act, user, parameters, host_id=host_id)
                recovery_key: str | None = key.reveal().decode("ascii")
            else:
                begun, recovery_key = begin(connection, act, user, parameters, host_id=host_id), None
    uri, secret = begun.uri.reveal().decode("ascii"), begun.secret_base32.reveal().decode("ascii")
    if json:
        answer: dict[str, object] = {
            "user": canonical,
            "credential": begun.credential_id,
            "otpauth_uri": uri,
            "secret": secret,
            "recovery_key": recovery_key,
        }
        say_json(answer if no_confirm else answer | {"expires_at": seconds_or_none(begun.expires_at)})
        return
    from mfactl.qr import draw

    # The QR code comes after the rest, with one line after it: a terminal of 24 rows then shows the whole of it. That line is
    # what is needed next, or what is shown only now: a larger code may scroll off all that stands above it.
    say(uri)
    say(f"Key: {' '.join(secret[at : at + 4] for at in range(0, len(secret), 4))}")
    if recovery_key is not None:
        say(f"{canonical}: credential {begun.credential_id} is active. An earlier recovery key stops working.")
    drawn = draw(begun.uri)
    if drawn:
        say(drawn)
    if recovery_key is None:
        say(f"Now: mfactl confirm {canonical} CODE  (until {moment(begun.expires_at)[11:]})")
    else:
        say(f"Recovery key, shown only now: {recovery_key}")


def confirm(
    context: typer.Context,
    name: Name,
    code: Annotated[str | None, typer.Argument(metavar="[CODE]", help="What the app shows; asked for when left out.")] = None,
    json: Json = False,
) -> None:
    """Prove that a new factor works; it is active then. The code is spent by this."""
    from mfa_runtime.administration.enrolment import Confirmed, NotConfirmed, confirm
    from mfa_runtime.administration.users import find_user
    from mfactl.session import open_session

    typed = code if code is not None else ask_code("Code")
    with open_session(context) as session:
        canonical = session.name(name)
        with session.changing() as (connection, act):
            user = find_user(connection, canonical)
            outcome = confirm(connection, act, user, typed)
    match outcome:
        case Confirmed():
            key = outcome.recovery_key.reveal().decode("ascii")
            if json:
                say_json({"user": canonical, "credential": outcome.credential_id, "state": "active", "recovery_key": key})
                return
            say(f"{canonical}: credential {outcome.credential_id} is active.")
            say(f"Recovery key, shown only now; an earlier one stops working: {key}")
        case NotConfirmed.NOTHING_PENDING:
            raise Conflict(f"{canonical} has nothing to confirm", cure=f"begin with `mfactl enrol {canonical}`")
        case NotConfirmed.EXPIRED:
            raise Conflict("the time to confirm is over", cure=f"begin again with `mfactl enrol {canonical}`")
        case NotConfirmed.MISMATCH:
            refuse("this is not the code that the new credential gives now", "wait for the next code and type it at once")
            raise typer.Exit(1)
        case NotConfirmed.CLOCK:
            refuse(
                "the code is right for another time: the clock of the phone and of this machine differ by minutes",
                "set both clocks automatically (`timedatectl` here), then confirm again",
            )
            raise typer.Exit(1)


def ask_code(what: str) -> str:
    """Ask for a one-time code: prompt on a terminal, else one line of standard input."""
    if sys.stdin.isatty():
        return str(typer.prompt(what))
    return sys.stdin.readline(256).strip()
