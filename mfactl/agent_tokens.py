"""``mfactl agent token``: what a host joins with, once, within minutes."""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING, Annotated

import typer

from mfa_core.errors import ConfigurationError, InvalidInput
from mfactl.options import Json
from mfactl.output import moment, note, say, say_columns, say_json, say_json_list, seconds_or_none
from mfactl.spans import seconds

if TYPE_CHECKING:
    from mfa_core.secret import Secret
    from mfactl.session import Session

MAGIC = "mfad1"


def token(
    context: typer.Context,
    host_group: Annotated[str | None, typer.Argument(metavar="[HOSTGROUP]", help="The group of hosts to join.")] = None,
    name: Annotated[str, typer.Option("--name", help="Only for the host of this name.")] = "",
    ttl: Annotated[str, typer.Option("--ttl", help="How long it is good: 1m to 24h.")] = "15m",
    list_: Annotated[bool, typer.Option("--list", help="Show the tokens that nobody has used yet (not the tokens).")] = False,
    cancel: Annotated[int | None, typer.Option(metavar="ID", help="Take an unused token back.")] = None,
    json: Json = False,
) -> None:
    """Make a token: one host joins with it, once. Standard output is the token alone."""
    from mfactl.session import open_session

    if [host_group is not None, list_, cancel is not None].count(True) != 1:
        raise InvalidInput("nothing to do", cure="give a HOSTGROUP, or --list, or --cancel ID")
    with open_session(context) as session:
        session.only_on_authority()
        if list_:
            _list(session, json=json)
        elif cancel is not None:
            _cancel(session, cancel, json=json)
        elif host_group is not None:
            _issue(session, host_group, name, seconds(ttl, option="--ttl", shortest="1m", longest="24h"), json=json)


def _issue(session: Session, host_group: str, name: str, ttl_s: float, *, json: bool) -> None:
    from mfa_runtime.administration.join_tokens import issue_token

    fingerprint = _fingerprint(session)
    with session.changing() as (connection, act):
        issued = issue_token(connection, act, host_group, host_name=name, ttl_s=ttl_s)
    written = written_token(issued.secret, fingerprint)
    if json:
        say_json(
            {
                "token": written,
                "id": issued.token.id,
                "host_group": host_group,
                "host_name": name or None,
                "not_after": seconds_or_none(issued.token.not_after),
            }
        )
        return
    say(written)
    whom = f"the host {name}" if name else "one host"
    note(f"For {whom} of {host_group}, once, until {moment(issued.token.not_after)}. There: mfactl agent join https://NAME:PORT")


def _list(session: Session, *, json: bool) -> None:
    from mfa_runtime.administration.join_tokens import list_tokens

    with session.reading() as connection:
        found = list_tokens(connection, now=session.now)
    if json:
        say_json_list(
            {
                "id": one.id,
                "host_group": one.host_group,
                "host_name": one.host_name or None,
                "not_after": seconds_or_none(one.not_after),
                "created_by": one.created_by,
            }
            for one in found
        )
        return
    say_columns(
        ("ID", "GROUP", "FOR", "UNTIL", "MADE BY"),
        ((str(one.id), one.host_group, one.host_name or "-", moment(one.not_after), one.created_by) for one in found),
    )


def _cancel(session: Session, number: int, *, json: bool) -> None:
    from mfa_runtime.administration.join_tokens import cancel_token

    with session.changing() as (connection, act):
        cancel_token(connection, act, number)
    if json:
        say_json({"id": number, "cancelled": True})
    else:
        say(f"token {number}: cancelled")


def written_token(secret: Secret, fingerprint: bytes) -> str:
    """As it is typed: the host learns from it whom it may show it to."""
    parts = (base64.urlsafe_b64encode(part).rstrip(b"=").decode("ascii") for part in (secret.reveal(), fingerprint))
    return ".".join((MAGIC, *parts))


def _fingerprint(session: Session) -> bytes:
    """SHA-256 of the certificate that a joining host must find in what the authority shows."""
    tls = session.config.authority.tls
    if tls is None:
        from authority.own_keys import load_own_keys

        with session.reading() as connection:
            return hashlib.sha256(load_own_keys(connection, session.keyring).ca.certificate).digest()
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    try:
        # The last one that is shown: what a renewed certificate is likely to be signed by, too.
        last = x509.load_pem_x509_certificates(tls.certificate_file.read_bytes())[-1]
    except (OSError, ValueError) as err:
        raise ConfigurationError(
            f"{tls.certificate_file}: no certificate can be read from it", cure="see authority.tls.certificate_file"
        ) from err
    return hashlib.sha256(last.public_bytes(Encoding.DER)).digest()
