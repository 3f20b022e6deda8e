"""``mfactl agent``: hosts that ask an authority, seen from both sides."""

from __future__ import annotations

import getpass
import os
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mfa_core.errors import Conflict, InvalidInput
from mfa_core.secret import Secret
from mfactl import agent_groups, agent_hosts, agent_tokens
from mfactl.options import Json
from mfactl.output import moment, say, say_json, seconds_or_none

if TYPE_CHECKING:
    from mfactl.session import Session

app = typer.Typer(
    help="Hosts and their authority: join, status; at the authority: token, list, revoke, group.", no_args_is_help=True
)
app.command("token")(agent_tokens.token)
app.command("list")(agent_hosts.list_)
app.command("revoke")(agent_hosts.revoke)
app.command("release")(agent_hosts.release)
app.command("forget")(agent_hosts.forget)
app.command("holders")(agent_hosts.holders)
app.command("alarms")(agent_hosts.alarms)
app.add_typer(agent_groups.app, name="group")
app.command("entitle")(agent_groups.entitle)
app.command("withdraw")(agent_groups.withdraw)

_MAX_TOKEN_BYTES = 256
JOIN = "`mfactl agent join https://HOST:PORT`, with a token from there"


@app.command()
def status(
    context: typer.Context,
    host: Annotated[str | None, typer.Argument(metavar="[HOST]", help="At an authority: everything about this host.")] = None,
    json: Json = False,
) -> None:
    """On an agent: its authority, its lease, what it holds, what is wrong. At an authority: its hosts, or one of them."""
    from mfa_runtime.config.sections import Role
    from mfactl.session import open_session, read_configuration

    if read_configuration(context).role is Role.AGENT:
        if host is not None:
            raise InvalidInput("this is an agent, it knows no other hosts", cure="run it without HOST, or at the authority")
        with open_session(context) as session:
            _here(session, json=json)
    elif host is None:
        agent_hosts.list_(context, json=json, host_group=None, state=None)
    else:
        with open_session(context) as session:
            session.only_on_authority()
            agent_hosts.show(session, host, json=json)


def _here(session: Session, *, json: bool) -> None:
    from mfactl.agent_here import as_json, probe, read_here, tell

    here = read_here(session)
    if here is None:
        raise Conflict("this host has joined no authority yet", cure=JOIN)
    probes = probe(here)
    if json:
        say_json(as_json(here, probes))
        return
    tell(here, now=session.now)
    for one in probes:
        say(f"{one.url} {'answers' if not one.cause else f'does not answer: {one.cause}'}")


@app.command()
def join(
    context: typer.Context,
    url: Annotated[str, typer.Argument(metavar="URL", help="https://NAME:PORT of an authority.")],
    token: Annotated[
        str | None, typer.Option("--token", help="Other users of this host can see it: better the file, or the prompt.")
    ] = None,
    token_file: Annotated[Path | None, typer.Option("--token-file", help="A file with the token; - for stdin.")] = None,
    name: Annotated[str | None, typer.Option("--name", help="What the host is called there; else its host name.")] = None,
    json: Json = False,
) -> None:
    """Make this host an agent of an authority, with a one-time token of `mfactl agent token` there."""
    from mfa_runtime.agent.joining import join as join_authority
    from mfa_runtime.config.agent_section import authority_url
    from mfa_runtime.config.notation import Unfit
    from mfa_runtime.config.sections import Role
    from mfa_runtime.protocol.words import protection_of
    from mfactl.session import open_session

    try:
        canonical = authority_url(url)
    except Unfit as err:
        raise InvalidInput(f"{url[:64]!a}: expected {err.expected}", cure=err.cure) from None
    with open_session(context) as session:
        if session.config.role is not Role.AGENT:
            raise Conflict(
                f"this is no agent (role: {session.config.role})",
                cure="set `role: agent` in the configuration and run `mfactl init`; config/agent.yaml shows the keys",
            )
        joined = join_authority(
            session.store,
            session.keyring,
            canonical,
            _token(token, token_file),
            (socket.gethostname() if name is None else name).lower(),
            protection_of(session.config.key_source),
            os.urandom,
            time.time,
            software=software(),
            actor=session.actor,
        )
    if json:
        say_json(
            {
                "host": joined.host_name,
                "host_id": joined.host_id,
                "host_group": joined.host_group,
                "authority": joined.url,
                "authority_id": joined.authority_id,
                "certificate_until": seconds_or_none(joined.certificate_until),
            }
        )
        return
    say(f"{joined.host_name} is host number {joined.host_id} of {joined.url}, in the group {joined.host_group}")
    say(f"Its certificate is good until {moment(joined.certificate_until)}, and mfad renews it.")
    say("Now start mfad (or restart it), then: mfactl agent status")


def _token(given: str | None, file: Path | None) -> Secret:
    """The token: of the file, of the option, of the prompt, of standard input."""
    if given is not None and file is not None:
        raise InvalidInput("both --token and --token-file", cure="give one of them")
    if given is not None:
        return Secret(given.encode())
    if file is not None and str(file) != "-":
        try:
            with file.open("rb") as lines:
                return Secret(lines.readline(_MAX_TOKEN_BYTES).strip())
        except OSError as err:
            raise InvalidInput(f"{file}: cannot be read: {err.strerror}", cure="give the file that holds the token") from err
    if file is None and sys.stdin.isatty():
        return Secret(getpass.getpass("Token: ").strip().encode())
    return Secret(sys.stdin.buffer.readline(_MAX_TOKEN_BYTES).strip())


def software() -> str:
    """What runs here, as hosts tell it."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"mfad {version('mfad')}"
    except PackageNotFoundError:
        return "mfad"
