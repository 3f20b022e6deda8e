"""``mfactl radius test``: ask as a NAS would, and explain the answer."""

from __future__ import annotations

import getpass
import ipaddress
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mfa_core.errors import Conflict, InvalidInput, NotFound
from mfa_core.secret import Secret
from mfactl.exit_codes import ExitCode
from mfactl.options import Json
from mfactl.output import printable, say, say_json
from mfactl.recorded import newest_event

if TYPE_CHECKING:
    from mfa_runtime.config import Config
    from mfa_runtime.config.radius_door import RadiusClient, RadiusDoor
    from mfactl.radius_meaning import Circumstances
    from radius_plugin.attributes import Dictionaries
    from radius_plugin.settings import ClientSettings
    from radius_plugin.trial import Answer, Nas, Protection, Step

app = typer.Typer(help="Try the RADIUS door.", no_args_is_help=True)

FIRST_PROMPT = "Password, code or both, as the door expects it: "
MAX_TYPED = 4096
_LOOPBACK = {"*": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  compared, not bound
_SERVER = re.compile(r"(?:\[([0-9A-Fa-f:.%]+)\]|([^:\[\]\s]+))(?::([0-9]{1,5}))?").fullmatch


@app.callback()
def radius() -> None:
    """Try the RADIUS door."""


@dataclass(frozen=True, slots=True)
class _Target:
    """Whom to ask, and as whom. ``door`` and ``config`` are None where the configuration was not needed."""

    host: str
    port: int
    secret: Secret
    source: str = ""
    config: Config | None = None
    door: RadiusDoor | None = None
    client: ClientSettings | None = None
    is_ours: bool = False
    """Whether it was taken from the configuration, so that what happens there can be looked up here."""

    @property
    def server(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@app.command("test")
def try_login(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="The user's name; not needed with --status.")] = "",
    client: Annotated[str, typer.Option(metavar="NAME", help="Be this client (else the one that has our address).")] = "",
    server: Annotated[str, typer.Option(metavar="HOST[:PORT]", help="Whom to ask (else the first address of `listen`).")] = "",
    secret_file: Annotated[Path | None, typer.Option(help="A file with the shared secret (else that of the client).")] = None,
    source: Annotated[str, typer.Option(metavar="ADDRESS", help="The address of this machine to send from.")] = "",
    stdin: Annotated[bool, typer.Option("--stdin", help="Read password and codes from standard input, a line each.")] = False,
    chap: Annotated[bool, typer.Option("--chap", help="Send CHAP, not PAP.")] = False,
    unsigned: Annotated[bool, typer.Option("--unsigned", help="Send no Message-Authenticator, as old clients do.")] = False,
    calling_station_id: Annotated[str, typer.Option(metavar="TEXT", help="Where the person seems to be.")] = "",
    timeout: Annotated[float, typer.Option(min=0.1, max=600, help="Seconds to wait for the answer to each try.")] = 5.0,
    retries: Annotated[int, typer.Option(min=0, max=20, help="How often the same octets are sent again.")] = 2,
    accounting: Annotated[bool, typer.Option("--accounting", help="Tell of a session of NAME, no login.")] = False,
    status: Annotated[bool, typer.Option("--status", help="Send Status-Server, no login: is somebody there?")] = False,
    json: Json = False,
) -> None:
    """Log NAME in through the RADIUS door, as a NAS would, and say what the answer means. The code is spent by it.

    Password and code are asked for, or read with --stdin: never given on the command line.
    """
    if accounting and status:
        raise InvalidInput("--accounting and --status are two trials: choose one")
    if not name and not status:
        raise InvalidInput("a user's name is missing", cure="`mfactl radius test NAME`, or --status to log nobody in")
    from mfactl.radius_meaning import replies_are_signed
    from radius_plugin.authenticators import SharedSecret
    from radius_plugin.trial import Login, Method, Patience, Protection, Trial

    target = _target(context, client=client, server=server, secret_file=secret_file, source=source, accounting=accounting)
    protection = Protection.UNSIGNED if unsigned else Protection.SIGNED
    show: Callable[[str], None] = _nothing if json else say
    began, steps = time.time(), list[dict[str, Any]]()
    names = _names(target)

    def told(step: Step) -> None:
        steps.append(_described(step, names))
        for line in _lines(steps[-1]):
            show(line)

    with _opened(target) as nas:
        seen = _circumstances(target, nas.source, protection)
        as_whom = "" if target.client is None else f" as client {target.client.name}"
        show(f"server       {seen.server}, asked from {nas.source}{as_whom}")
        trial = Trial(
            nas, SharedSecret(target.secret), Patience(timeout, retries), told, protection, replies_are_signed(target.client)
        )
        if status:
            answer = trial.status()
        elif accounting:
            answer = trial.account(name)
        else:
            ask = _asker(show, stdin=stdin)
            typed = ask(FIRST_PROMPT)
            if typed is None:
                raise InvalidInput("nothing was typed", cure="give a line on standard input, or answer the prompt")
            login = Login(name, typed, Method.CHAP if chap else Method.PAP, calling_station_id)
            answer = trial.log_in(login, ask)
    event = None
    if seen.holder and not (status or accounting):
        event = newest_event(context, began, {"door": "radius", "service": seen.holder})
    _conclude(answer, seen, steps, event, show, json=json)


def _nothing(_: str) -> None:
    """For programs, which read one JSON value at the end."""


# Whom to ask


def _target(
    context: typer.Context, *, client: str, server: str, secret_file: Path | None, source: str, accounting: bool
) -> _Target:
    from mfa_runtime.secret_file import read_secret_file

    host, port = _server(server, accounting=accounting) if server else ("", 0)
    if server and secret_file is not None and not client:
        return _Target(host, port, read_secret_file(secret_file), source)
    from mfactl.session import read_configuration
    from radius_plugin.configuration import read_client

    config = read_configuration(context)
    door = config.doors.radius
    if door is None:
        cure = "add it under doors (config/radius.yaml explains every key), or give --server and --secret-file"
        raise Conflict("the RADIUS door is not configured", cure=cure)
    if not server:
        host, port = _first_address(door, accounting=accounting)
    entry = _entry(door, client) if client else _holder(door, _source_towards(host, port, source))
    if entry is None and secret_file is None:
        raise Conflict(
            f"no client of doors.radius has the address that would be sent from, {_source_towards(host, port, source)}: mfad "
            "answers no strangers",
            cure="name a client with --client, or add one for this address: {name: test, network: ADDRESS, secret_file: FILE}",
        )
    settings = None if entry is None else read_client(config, door, entry)
    if settings is not None and not source and client and settings.is_one_host:
        source = _if_ours(str(settings.network.network_address))
    if secret_file is not None:
        secret = read_secret_file(secret_file)
    elif settings is not None and settings.secrets:
        secret = settings.secrets[0]
    else:
        raise Conflict(f"client {client!a} has no secret_file: it comes over TLS", cure="this trial speaks UDP: choose another")
    return _Target(host, port, secret, source, config, door, settings, is_ours=not server)


def _server(text: str, *, accounting: bool) -> tuple[str, int]:
    parts = _SERVER(text)
    port = int(parts[3] or (1813 if accounting else 1812)) if parts is not None else 0
    if parts is None or not 1 <= port <= 65_535:
        raise InvalidInput(f"--server {text[:64]!a} is no HOST:PORT", cure="for instance 192.0.2.1:1812 or [2001:db8::1]:1812")
    return parts[1] or parts[2], port


def _first_address(door: RadiusDoor, *, accounting: bool) -> tuple[str, int]:
    from mfa_runtime.config.listen import Wire

    wanted = Wire.ACCOUNTING if accounting else Wire.AUTHENTICATION
    for one in door.listen:
        if one.wire is wanted:
            return _LOOPBACK.get(one.host, one.host), one.port
    what = "accounting" if accounting else "authentication"
    raise Conflict(f"doors.radius.listen has no address for {what} over UDP", cure="add one, or say --server: this speaks UDP")


def _source_towards(host: str, port: int, source: str) -> str:
    from radius_plugin.trial import Nas

    with Nas(host, port, source=source) as nas:
        return nas.source


def _if_ours(address: str) -> str:
    """The address if packets can be sent from it here, else nothing: the system then chooses."""
    from radius_plugin.trial import can_send_from

    return address if can_send_from(address) else ""


def _entry(door: RadiusDoor, name: str) -> RadiusClient:
    for one in door.clients:
        if one.name == name:
            return one
    known = ", ".join(sorted(ascii(one.name) for one in door.clients)[:8])
    raise NotFound(f"there is no client {name[:64]!a} in doors.radius.clients", cure=f"there are {known}")


def _holder(door: RadiusDoor, address: str) -> RadiusClient | None:
    """The client that mfad takes this address for: the longest prefix wins."""
    literal = ipaddress.ip_address(address.partition("%")[0])
    found = [one for one in door.clients if one.network is not None and literal in one.network]
    return max(found, key=_prefix_length, default=None)


def _prefix_length(client: RadiusClient) -> int:
    return client.network.prefixlen if client.network is not None else -1


def _opened(target: _Target) -> Nas:
    from radius_plugin.trial import Nas

    return Nas(target.host, target.port, source=target.source)


def _circumstances(target: _Target, source: str, protection: Protection) -> Circumstances:
    from mfactl.radius_meaning import Circumstances

    holder = None
    if target.door is not None and target.is_ours:
        found = _holder(target.door, source)
        holder = "" if found is None else found.name
    return Circumstances(target.server, source, protection, target.client, holder)


def _names(target: _Target) -> Dictionaries:
    from radius_plugin.attributes import Dictionaries

    return Dictionaries.load(() if target.door is None else target.door.dictionary_files)


# What is typed


def _asker(show: Callable[[str], None], *, stdin: bool) -> Callable[[str], Secret | None]:
    def ask(prompt: str) -> Secret | None:
        shown = printable(prompt).rstrip() + " "
        if not stdin and sys.stdin.isatty():
            return Secret.from_text(getpass.getpass(shown))
        show(f"prompt       {shown.rstrip()}")
        line = sys.stdin.readline(MAX_TYPED)
        return Secret.from_text(line.rstrip("\r\n")) if line else None

    return ask


# What is said


def _described(step: Step, names: Dictionaries) -> dict[str, Any]:
    from radius_plugin.trial import Believed, Doubted
    from radius_plugin.wire import Code

    answer = step.answer
    if isinstance(answer, Doubted):
        return {"request": step.request, "answer": "not believed", "doubt": answer.doubt, "detail": answer.detail}
    if not isinstance(answer, Believed):
        return {"request": step.request, "answer": "none", "why": answer.value}
    title = "-".join(word.capitalize() for word in Code(answer.packet.code).name.split("_"))
    shown = [pair for kind, value in answer.packet.attributes() for pair in names.read(kind, value) if kind not in _OURS]
    return {
        "request": step.request,
        "answer": title,
        "milliseconds": round(answer.milliseconds, 2),
        "sent": answer.sent,
        "message_authenticator": answer.signature.value,
        "attributes": [list(pair) for pair in shown],
    }


_OURS = {24, 80}
"""State and Message-Authenticator say nothing to anybody."""
_SIGNED = {"first": "signed", "later": "signed, but not first", "none": "not signed"}


def _lines(step: dict[str, Any]) -> list[str]:
    lines = [f"request      {step['request']}"]
    if "milliseconds" in step:
        tries = f", sent {step['sent']} times" if step["sent"] > 1 else ""
        signed = "" if step["answer"] == "Accounting-Response" else f", {_SIGNED[step['message_authenticator']]}"
        lines.append(f"answer       {step['answer']} after {step['milliseconds']:g} ms{signed}{tries}")
        lines += [f"  {name:<28}{printable(value)}" for name, value in step["attributes"]]
    else:
        lines.append(f"answer       {step['answer']}")
    return lines


def _conclude(
    answer: Answer, seen: Circumstances, steps: list[dict[str, Any]], event: dict[str, Any] | None,
    show: Callable[[str], None], *, json: bool,
) -> None:  # fmt: skip
    from mfactl.radius_meaning import meaning_of
    from mfactl.reasons import advice
    from radius_plugin.trial import Believed, Doubted
    from radius_plugin.wire import Code

    meaning = meaning_of(answer, seen)
    code = answer.packet.code if isinstance(answer, Believed) else None
    good = code in (Code.ACCESS_ACCEPT, Code.ACCOUNTING_RESPONSE)
    show(f"outcome      {meaning.sentence}")
    for line in meaning.cures:
        show(f"             - {line}")
    if event is not None and code != Code.ACCESS_ACCEPT:
        # Also of silence: mfad may have decided, or have said why it cannot.
        told = advice(event)
        show(f"reason       {told.meaning} (`mfactl why {event.get('id')}`)")
        if told.cure:
            show(f"cure         {told.cure}")
    elif code in (Code.ACCESS_REJECT, Code.ACCESS_CHALLENGE):
        show("             - why: `mfactl audit tail` as root on the server; requests that asked nobody stand in the")
        show("               authentication_log alone (doors.radius)")
    if json:
        say_json(
            {
                "server": seen.server,
                "source": seen.source,
                "client": None if seen.client is None else seen.client.name,
                "accepted": code == Code.ACCESS_ACCEPT,
                "outcome": meaning.sentence,
                "cures": list(meaning.cures),
                "event": None if event is None else event.get("id"),
                "reason": None if event is None else event.get("reason"),
                "steps": steps,
            }
        )
    if not good:
        raise typer.Exit(ExitCode.REFUSED if isinstance(answer, Believed | Doubted) else ExitCode.UNAVAILABLE)
