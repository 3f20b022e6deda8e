"""``mfactl policy``: is the configuration sound, and what does it ask of whom?"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from mfa_core.errors import InvalidInput
from mfa_core.identity import normalise
from mfa_core.model import Door
from mfactl.options import Json
from mfactl.output import counted, say, say_columns, say_json
from mfactl.session import read_configuration

app = typer.Typer(help="The policy: check it, explain a decision.", no_args_is_help=True)


@app.command()
def check(context: typer.Context, json: Json = False) -> None:
    """Read the configuration and the policy; every problem at once, with its line."""
    config = read_configuration(context)
    doors = sorted(config.enabled_doors)
    if json:
        say_json({"ok": True, "rules": len(config.policy.rules), "doors": doors})
    else:
        say(f"The configuration is sound: {counted(len(config.policy.rules), 'rule')}, doors {', '.join(doors)}.")


@app.command()
def explain(
    context: typer.Context,
    user: Annotated[str, typer.Option(help="The login name.")],
    door: Annotated[Door, typer.Option(help="Where the user comes in.")] = Door.PAM,
    service: Annotated[str, typer.Option(help="PAM service, NAS or application.")] = "sshd",
    source: Annotated[str | None, typer.Option(help="The IP address the user comes from; unknown when left out.")] = None,
    group: Annotated[
        list[str] | None, typer.Option(help="A group of the user (repeat it); asked of the system when left out.")
    ] = None,
    at: Annotated[str | None, typer.Option(help="When: 2026-01-31T08:30+01:00; now when left out.")] = None,
    method: Annotated[list[str] | None, typer.Option(help="What SSH_AUTH_INFO_0 lists, such as publickey.")] = None,
    json: Json = False,
) -> None:
    """Say which rule decides about a login, and why the others do not."""
    from mfa_core.policy import PolicyQuestion

    config = read_configuration(context)
    name = normalise(user, config.identity)
    question = PolicyQuestion(
        door=door,
        service=service,
        username=name,
        groups=frozenset(group) if group else _groups(name),
        source=_address(source),
        now=_moment(at),
        host_groups=config.host_groups,
        methods=tuple(method or ()),
    )
    decision = config.policy.decide(question)
    traces = config.policy.explain(question)
    if json:
        say_json(
            {
                "user": name,
                "rule": decision.rule,
                "action": decision.action,
                "factors": sorted(decision.factors),
                "enforce": decision.enforce,
                "missing": decision.missing,
                "trace": [
                    {"rule": t.rule, "line": t.line, "fit": t.fit.name.lower(), "decides": t.decides, "why": t.words}
                    for t in traces
                ],
            }
        )
        return
    say_columns(
        ("", "RULE", "LINE", "WHY"),
        ((">" if trace.decides else "", trace.rule, str(trace.line or "-"), trace.words) for trace in traces),
    )
    factors = f" one of {', '.join(sorted(decision.factors))}" if decision.action == "require" else ""
    say(f"{name}: {decision.action}{factors}, by rule {decision.rule}")


def _groups(name: str) -> frozenset[str] | None:
    from mfa_runtime.directory import lookup_nss

    try:
        return lookup_nss(name)
    except OSError:
        return None


def _address(source: str | None) -> str | None:
    import ipaddress

    try:
        return None if source is None else str(ipaddress.ip_address(source))
    except ValueError as err:
        raise InvalidInput(f"{source!a} is not an IP address", cure="write 192.0.2.1 or 2001:db8::1") from err


def _moment(at: str | None) -> float:
    if at is None:
        return datetime.now(UTC).timestamp()
    try:
        moment = datetime.fromisoformat(at)
    except ValueError as err:
        raise InvalidInput(f"{at!a} is not a time", cure="write 2026-01-31T08:30+01:00") from err
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()
