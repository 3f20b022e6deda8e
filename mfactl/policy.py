"""``mfactl policy``: is the configuration sound, and what does it ask of whom?"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from mfa_core.errors import InvalidInput, MfaError
from mfa_core.identity import normalise
from mfa_core.model import CredentialState, Door
from mfactl.options import Json
from mfactl.output import counted, moment, note, say, say_columns, say_json, seconds_or_none
from mfactl.session import read_configuration

if TYPE_CHECKING:
    from mfa_core.policy import Decision, PolicyQuestion
    from mfa_core.verifier import Situation
    from mfa_runtime.config import Config

app = typer.Typer(help="The policy: check it, explain a decision.", no_args_is_help=True)


@app.command()
def check(context: typer.Context, json: Json = False) -> None:
    """Read the configuration and the policy; every problem at once, with its line."""
    config = read_configuration(context)
    weak = [*_weak_at_radius(config), *_weak_at_ldap(config)]
    doors = sorted(config.enabled_doors)
    rules = "the rules are the authority's" if config.role == "agent" else counted(len(config.policy.rules), "rule")
    if json:
        say_json({"ok": True, "rules": len(config.policy.rules), "doors": doors, "warnings": weak})
    else:
        for told in weak:
            note(f"warning: {told}")
        say(f"The configuration is sound: {rules}, doors {', '.join(doors) or 'none'}.")


def _weak_at_radius(config: Config) -> list[str]:
    """What is allowed at the RADIUS door and yet weak.

    Raises: ConfigurationError, for what only its files show: secrets, presets, reply attributes, certificates.
    """
    door = config.doors.radius
    if door is None:
        return []
    from radius_plugin.configuration import build_radius_settings, policy_warnings, warnings
    from radius_plugin.radsec import tls_context

    settings = build_radius_settings(config, door)
    if settings.tls is not None:
        tls_context(settings.tls)
    return [*warnings(settings), *policy_warnings(door, config.policy)]


def _weak_at_ldap(config: Config) -> list[str]:
    """What is allowed at the LDAP door and yet weak.

    Raises: ConfigurationError, for what only its files show: DNs, secrets, certificates.
    """
    door = config.doors.ldap
    if door is None:
        return []
    from ldap_proxy.configuration import build_ldap_settings, warnings
    from ldap_proxy.door import check_files

    settings = build_ldap_settings(config, door)
    check_files(settings)
    return warnings(settings)


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
    host_group: Annotated[
        list[str] | None, typer.Option(help="A group of the host where it happens (repeat it); this host's when left out.")
    ] = None,
    json: Json = False,
) -> None:
    """Say which rule decides about a login, why the others do not, and what follows with the user's own record."""
    from mfa_core.policy import PolicyQuestion

    config = _that_decides(context)
    name = normalise(user, config.identity)
    question = PolicyQuestion(
        door=door,
        service=service,
        username=name,
        groups=frozenset(group) if group else _groups(name),
        source=_address(source),
        now=_moment(at),
        host_groups=frozenset(host_group) if host_group else config.host_groups,
        methods=tuple(method or ()),
    )
    decision = config.policy.decide(question)
    traces = config.policy.explain(question)
    record, follows = _follows(context, config, question, decision)
    if json:
        say_json(
            {
                "user": name,
                "rule": decision.rule,
                "action": decision.action,
                "factors": sorted(decision.factors),
                "enforce": decision.enforce,
                "missing": decision.missing,
                "enrol": decision.enrol,
                "trust_window_s": decision.trust_window_s,
                "record": record,
                "follows": follows,
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
    trust = f"{decision.trust_window_s} s" if decision.trust_window_s else "none"
    say(f"{name}: {decision.action}{factors}, by rule {decision.rule} (enrol {decision.enrol}, trust window {trust})")
    if record is not None:
        say("record: " + ", ".join(f"{key} {_shown(key, value)}" for key, value in record.items()))
    if follows:
        say(f"so: {follows}")


def _that_decides(context: typer.Context) -> Config:
    """The configuration; on an agent with the rules of its authority, which are in the store."""
    from mfa_core.errors import Conflict
    from mfactl.session import as_told, open_session

    config = read_configuration(context)
    if config.role != "agent":
        return config
    with open_session(context) as session:
        state = session.agent_state()
        if state is None or not state.rules:
            raise Conflict("this host has heard no rules of its authority yet", cure="`mfactl agent status` says how it stands")
        return as_told(config, lambda: state)


def _follows(
    context: typer.Context, config: Config, question: PolicyQuestion, decision: Decision
) -> tuple[dict[str, object] | None, str]:
    """The user's own record, and what a login comes to with it; None and nothing where the store does not open."""
    from mfa_core.throttle import Throttle
    from mfa_core.verifier import Situation
    from mfa_runtime.administration.users import throttle_of
    from mfa_runtime.store.accounts import load
    from mfactl.session import open_session

    try:
        with open_session(context) as session, session.reading() as connection:
            account = load(connection, [question.username], session.keyring).get(question.username)
            throttle = Throttle(account=throttle_of(connection, question.username))
    except MfaError as err:
        note(f"mfactl: the user's own record is not taken into account: {err}")
        return None, ""
    user, credentials = (None, ()) if account is None else (account.user, account.credentials)
    if user is None:
        record: dict[str, object] = {"state": "unknown"}
    else:
        record = {
            "state": user.state,
            "locked": user.locked,
            "requirement": user.requirement,
            "grace_until": seconds_or_none(user.grace_until),
            "factors": sorted(c.kind for c in credentials if c.state is CredentialState.ACTIVE),
        }
    situation = Situation(
        question.username, user, credentials, throttle, replace(decision, grammar=None), question.now
    )
    return record, _outcome(config, question, situation)


def _outcome(config: Config, question: PolicyQuestion, situation: Situation) -> str:
    """Ask the verifier itself, as the door would: first without a code, then with one that hardly fits."""
    from mfa_core.audit import Outcome
    from mfa_core.model import Attempt, FirstFactor, Interaction
    from mfa_core.secret import Secret
    from mfa_core.verdict import Reason
    from mfa_core.verifier import Settings, judge
    from mfa_runtime.config.sections import PriorFactor
    from mfactl.reasons import EXEMPTIONS, REFUSALS

    door = config.doors.pam
    done = door is not None and door.settings_for(question.service).first_factor is PriorFactor.DONE
    attempt = Attempt(
        event_id="explain",
        door=question.door,
        service=question.service,
        username=question.username,
        first_factor=FirstFactor.DONE if done else FirstFactor.ELSEWHERE,
        interaction=Interaction.PROMPTS,
    )
    # The events, not the verdicts: what a person at a prompt must not learn stands only in them.
    told = judge(attempt, situation, Settings()).event
    if told.outcome is Outcome.CHALLENGED:
        told = judge(replace(attempt, typed=Secret(b"000000")), situation, Settings()).event
    if told.outcome is Outcome.EXEMPT:
        return f"let in without a code: {EXEMPTIONS[told.reason].meaning}"
    if told.reason == Reason.ENROLMENT_OFFERED:
        return "an enrolment is offered, where enrolment.enrol_networks lets the user enrol; else refused"
    if told.outcome is Outcome.REJECTED and told.reason not in {Reason.MISMATCH, Reason.REPLAYED}:
        return f"refused: {REFUSALS[told.reason].meaning}"
    return "asked for a code"


def _shown(key: str, value: object) -> str:
    if key == "grace_until":
        return moment(float(value)) if isinstance(value, int) else "-"
    if isinstance(value, list):
        return " ".join(value) or "none"
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)


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
