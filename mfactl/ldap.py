"""``mfactl ldap test``: log in as an application would, and explain each step."""

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

from mfa_core.errors import Conflict, InvalidInput
from mfa_core.secret import Secret
from mfactl.exit_codes import ExitCode
from mfactl.options import Json
from mfactl.output import printable, say, say_json
from mfactl.recorded import newest_event

if TYPE_CHECKING:
    from ldap_proxy.settings import Application, ExemptSettings, LdapDoorSettings, Server
    from ldap_proxy.trial import Login, Step, Tls
    from mfactl.ldap_meaning import Circumstances

app = typer.Typer(help="Try the LDAP door.", no_args_is_help=True)

MAX_TYPED = 4096
_LOOPBACK = {"*": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  compared, not bound
_ATTRIBUTE = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,63}").fullmatch


@app.callback()
def ldap() -> None:
    """Try the LDAP door."""


@dataclass(frozen=True, slots=True)
class _Target:
    """Whom to ask, and as which application. ``door`` and ``application`` are None where the configuration was not needed."""

    server: Server
    tls: Tls | None
    door: LdapDoorSettings | None = None
    application: Application | None = None
    source: str = ""


@app.command("test")
def try_login(
    context: typer.Context,
    user: Annotated[str, typer.Option(metavar="NAME", help="Who logs in, as people type it into the application.")] = "",
    dn: Annotated[str, typer.Option("--dn", metavar="DN", help="Who logs in, by DN (or as Active Directory takes it).")] = "",
    search_base: Annotated[str, typer.Option(metavar="DN", help="Look for NAME under it, as most applications do.")] = "",
    search_attribute: Annotated[str, typer.Option(metavar="NAME", help="The attribute that holds NAME.")] = "uid",
    bind_dn: Annotated[str, typer.Option(metavar="DN", help="The application's own account, which searches.")] = "",
    bind_password_file: Annotated[Path | None, typer.Option(help="A file with its password (else it is asked for).")] = None,
    server: Annotated[str, typer.Option(metavar="URL", help="Whom to ask (else the first address of `listen`).")] = "",
    start_tls: Annotated[bool, typer.Option("--start-tls", help="Begin TLS on a connection in clear.")] = False,
    ca_file: Annotated[Path | None, typer.Option(help="Who must have signed the server's certificate.")] = None,
    tls_name: Annotated[str, typer.Option(metavar="NAME", help="The name in the certificate (else that of URL).")] = "",
    no_verify: Annotated[bool, typer.Option("--no-verify", help="Believe any certificate.")] = False,
    certificate: Annotated[Path | None, typer.Option(help="A certificate of the application, where one is asked for.")] = None,
    key: Annotated[Path | None, typer.Option(help="Its key, if it is in another file.")] = None,
    again: Annotated[bool, typer.Option("--again", help="Bind once more with the same text, as some applications do.")] = False,
    stdin: Annotated[bool, typer.Option("--stdin", help="Read what is typed from standard input, a line each.")] = False,
    timeout: Annotated[float, typer.Option(min=0.1, max=600, help="Seconds that each step may take.")] = 30.0,
    json: Json = False,
) -> None:
    """Log somebody in through the LDAP door, as an application would, and say what each answer means. The code is spent by it.

    With --search-base NAME is looked for (by the account --bind-dn, or by nobody); without, the DN is made of NAME as
    doors.ldap says, or given by --dn. Passwords and codes are asked for, or read with --stdin: never given on the command line.
    """
    from ldap_proxy.trial import Act, Trial

    if bool(user) is bool(dn):
        raise InvalidInput("give --user or --dn: one of them", cure="`mfactl ldap test --user NAME`")
    if dn and (search_base or bind_dn):
        raise InvalidInput("--dn needs no search", cure="leave --search-base and --bind-dn out, or give --user")
    if bind_password_file is not None and not bind_dn:
        raise InvalidInput("--bind-password-file without --bind-dn", cure="whose password is it?")
    target = _target(
        context, server=server, start_tls=start_tls, ca_file=ca_file, tls_name=tls_name, verify=not no_verify,
        certificate=certificate, key=key,
    )  # fmt: skip
    show: Callable[[str], None] = _nothing if json else say
    ask = _asker(show, stdin=stdin)
    as_whom = "" if target.application is None else f", as application {target.application.name}"
    show(f"server       {target.server}{as_whom}")
    login = _login(
        target, user=user, dn=dn, search_base=search_base, search_attribute=search_attribute, bind_dn=bind_dn,
        bind_password_file=bind_password_file, again=again, ask=ask,
    )  # fmt: skip
    began, steps = time.time(), list[dict[str, Any]]()
    names = list[str]()

    def told(step: Step) -> None:
        steps.append(_described(step))
        show(_line(steps[-1]))

    def typed(name: str) -> Secret:
        names.append(name)
        return ask(f"Password and code of {user or name}, as they go into the password field: ")

    last = Trial(target.server, told, target.tls, timeout).log_in(login, typed)
    person = names[0] if names else dn
    seen = _circumstances(target, account=bind_dn, person=person)
    event = None
    if target.application is not None and last.act in (Act.BIND, Act.BIND_AGAIN):
        wanted = {"door": "ldap", "service": target.application.name}
        event = newest_event(context, began, {**wanted, "user": user} if user else wanted)
    _conclude(last, seen, steps, event, show, dn=person, json=json)


def _nothing(_: str) -> None:
    """For programs, which read one JSON value at the end."""


# Whom to ask


def _target(
    context: typer.Context, *, server: str, start_tls: bool, ca_file: Path | None, tls_name: str, verify: bool,
    certificate: Path | None, key: Path | None,
) -> _Target:  # fmt: skip
    from dataclasses import replace

    from ldap_proxy.applications import Applications
    from ldap_proxy.settings import Scheme
    from ldap_proxy.settings import Server as Place
    from ldap_proxy.trial import Tls

    tls = Tls(start_tls, ca_file, verify=verify, name=tls_name, certificate=certificate, key=key)
    if server:
        place = _server(server)
        return _Target(place, _checked(place, tls))
    door = _door(context)
    listen = door.listens[0]
    place = Place(listen.scheme, _LOOPBACK.get(listen.host, listen.host), listen.port)
    if door.tls is not None:
        if ca_file is None and verify:
            # it must be the very one of the configuration: no name is needed then
            tls = replace(tls, exactly=door.tls.certificate_file)
        if door.tls.required and place.scheme is Scheme.LDAP:
            tls = replace(tls, start=True)
    # A connection to an address of this host comes from that very address.
    source = "" if place.scheme is Scheme.LDAPI else place.host
    return _Target(place, _checked(place, tls), door, Applications(door.applications).find(source, listen), source)


def _server(text: str) -> Server:
    from pydantic import TypeAdapter, ValidationError

    from ldap_proxy.settings import Scheme
    from ldap_proxy.settings import Server as Place
    from mfa_runtime.config.ldap_address import Servers

    try:
        (address,) = TypeAdapter(Servers).validate_python(text, context={"base": Path.cwd()})
    except ValidationError as err:
        raise InvalidInput(
            f"--server {text[:64]!a} is no address of LDAP", cure="for instance ldap://192.0.2.1, ldaps://localhost:1636"
        ) from err
    return Place(Scheme(address.scheme.value), address.host, address.port)


def _checked(place: Server, tls: Tls) -> Tls | None:
    from ldap_proxy.settings import Scheme

    if tls.start and place.scheme is not Scheme.LDAP:
        raise InvalidInput(f"--start-tls, and {place}", cure="StartTLS is for ldap:// addresses")
    return tls if tls.start or place.scheme is Scheme.LDAPS else None


def _door(context: typer.Context) -> LdapDoorSettings:
    from ldap_proxy.configuration import build_ldap_settings
    from mfactl.session import read_configuration

    config = read_configuration(context)
    door = config.doors.ldap
    if door is None:
        cure = "add it under doors (config/ldap.yaml explains every key), or give --server"
        raise Conflict("the LDAP door is not configured", cure=cure)
    return build_ldap_settings(config, door)


# As whom


def _login(
    target: _Target, *, user: str, dn: str, search_base: str, search_attribute: str, bind_dn: str,
    bind_password_file: Path | None, again: bool, ask: Callable[[str], Secret],
) -> Login:  # fmt: skip
    from ldap_proxy.settings import MappingKind
    from ldap_proxy.trial import Account, Login, Search, dn_of
    from mfa_runtime.secret_file import read_secret_file

    if dn:
        return Login(dn, again=again)
    if not _ATTRIBUTE(search_attribute):
        raise InvalidInput(f"--search-attribute {search_attribute[:64]!a} is no name of an attribute", cure="for instance uid")
    mapping = None if target.door is None else target.door.mapping
    base = mapping.bases[0].text if mapping is not None and mapping.bases else ""
    if search_base or bind_dn:
        if not search_base and not base:
            raise InvalidInput("where is NAME to be looked for?", cure="--search-base DN")
        account = Account()
        if bind_dn:
            file = bind_password_file
            account = Account(bind_dn, ask(f"Password of {bind_dn}: ") if file is None else read_secret_file(file))
        return Login(account=account, search=Search(search_base or base, search_attribute, user), again=again)
    if mapping is not None and mapping.bind_names and "@" in user:
        return Login(user, again=again)
    if mapping is None or mapping.kind is not MappingKind.RDN or not base:
        raise InvalidInput(
            "which entry is this user's?", cure="--dn DN, or --search-base DN with the settings that the application has"
        )
    return Login(dn_of(mapping.attributes[0], user, base), again=again)


def _circumstances(target: _Target, *, account: str, person: str) -> Circumstances:
    from mfactl.ldap_meaning import Circumstances

    chosen = target.application
    if chosen is None:
        return Circumstances(str(target.server), target.tls is None)
    separator = chosen.grammar.separator if chosen.grammar.mode.value != "append" else ""
    return Circumstances(
        str(target.server), target.tls is None, chosen.name,
        is_named_exempt(chosen.exempt, account, target.source), is_named_exempt(chosen.exempt, person, target.source),
        chosen.remember.mode, separator,
    )  # fmt: skip


def is_named_exempt(exempt: ExemptSettings, text: str, source: str) -> bool | None:
    """Whether a DN needs no code from ``source`` ("" when not known); None where only a group could say."""
    from ldap_proxy.dn import NotADn, parse_dn

    named = exempt.dns or exempt.subtrees or exempt.groups
    near = bool(source) and any(ipaddress.ip_address(source) in network for network in exempt.networks)
    if exempt.networks and not near:
        return False
    try:
        dn = parse_dn(text)
    except NotADn:
        return near and not named
    if not dn.rdns:
        return False
    if not named:
        return near
    if dn in exempt.dns or any(dn.is_under(base) for base in exempt.subtrees):
        return True
    return None if exempt.groups else False


# What is typed


def _asker(show: Callable[[str], None], *, stdin: bool) -> Callable[[str], Secret]:
    def ask(prompt: str) -> Secret:
        shown = printable(prompt)
        if not stdin and sys.stdin.isatty():
            return Secret.from_text(getpass.getpass(shown))
        show(f"prompt       {shown.rstrip()}")
        line = sys.stdin.readline(MAX_TYPED)
        if not line:
            raise InvalidInput("nothing was typed", cure="give a line on standard input, or answer the prompt")
        return Secret.from_text(line.rstrip("\r\n"))

    return ask


# What is said


def _described(step: Step) -> dict[str, Any]:
    from ldap_proxy.trial import Failed

    told: dict[str, Any] = {"step": step.act.value, "what": step.words}
    answer = step.answer
    if isinstance(answer, Failed):
        told |= {"failure": answer.failure.value, "detail": answer.detail}
    else:
        told |= {"milliseconds": round(answer.milliseconds, 2), "seen": answer.seen}
    if answer.result is not None:
        told |= {"code": answer.result.code, "text": answer.result.diagnostic.decode("utf-8", "backslashreplace")}
    return told


def _line(step: dict[str, Any]) -> str:
    from mfactl.ldap_meaning import named

    if "failure" in step:
        came = " ".join(filter(None, (step["failure"].replace("_", " "), step["detail"])))
    else:
        result = named(step["code"]) if "code" in step else ""
        text = f'"{step["text"]}"' if step.get("text") else ""
        came = ", ".join(filter(None, (result, text, step["seen"], f"{step['milliseconds']:g} ms")))
    return f"{step['step']:<12} {printable(step['what'])}: {printable(came)}"


def _conclude(
    last: Step, seen: Circumstances, steps: list[dict[str, Any]], event: dict[str, Any] | None,
    show: Callable[[str], None], *, dn: str, json: bool,
) -> None:  # fmt: skip
    from ldap_proxy.trial import Failed, Failure
    from mfactl.ldap_meaning import meaning_of
    from mfactl.reasons import advice

    meaning = meaning_of(last, seen)
    answer = last.answer
    show(f"outcome      {printable(meaning.sentence)}")
    for line in meaning.cures:
        show(f"             - {printable(line)}")
    if event is not None and event.get("outcome") != "accepted":
        # Also of an accept: nobody was asked for a code, perhaps.
        told = advice(event)
        show(f"reason       {told.meaning} (`mfactl why {event.get('id')}`)")
        if told.cure:
            show(f"cure         {told.cure}")
    code = None if answer.result is None else answer.result.code
    if json:
        say_json(
            {
                "server": seen.server,
                "application": seen.application,
                "dn": dn,
                "accepted": last.is_good,
                "code": code,
                "outcome": meaning.sentence,
                "cures": list(meaning.cures),
                "event": None if event is None else event.get("id"),
                "reason": None if event is None else event.get("reason"),
                "steps": steps,
            }
        )
    if last.is_good:
        return
    if not isinstance(answer, Failed) or answer.failure is Failure.UNTRUSTED:
        raise typer.Exit(ExitCode.REFUSED)
    absent = answer.failure in (Failure.NOT_FOUND, Failure.AMBIGUOUS)
    raise typer.Exit(ExitCode.NOT_FOUND if absent else ExitCode.UNAVAILABLE)
