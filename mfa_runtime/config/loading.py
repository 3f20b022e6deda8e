"""A file into a :class:`Config`, or into all of its problems.

Room rule: the order of the steps, and the translation of what pydantic found into sentences. The file is read here and nothing
else is: whether the state directory or the key exists is for whoever opens them.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import tzinfo
from pathlib import Path
from typing import Any, get_args

from pydantic import AliasChoices, BaseModel, ValidationError
from pydantic_core import ErrorDetails

from mfa_core.errors import ConfigurationError
from mfa_core.identity import IdentityRules
from mfa_core.model import Door
from mfa_core.policy import Enrol, Policy, PolicyProblem, Rule, problems
from mfa_core.throttle import ThrottleRules
from mfa_runtime.config import document as yaml_text
from mfa_runtime.config.agent_section import Agent
from mfa_runtime.config.authority_section import Authority
from mfa_runtime.config.document import Document
from mfa_runtime.config.fault import Fault
from mfa_runtime.config.ldap_door_together import faults as ldap_faults
from mfa_runtime.config.notation import Unfit
from mfa_runtime.config.problem import ConfigurationProblems, Problem, describe, key_of
from mfa_runtime.config.radius_door_together import faults as radius_faults
from mfa_runtime.config.roles_together import faults as role_faults
from mfa_runtime.config.rules import RuleSection, When
from mfa_runtime.config.rules_document import write_rules
from mfa_runtime.config.sections import (
    Audit,
    Directory,
    Doors,
    Enrolment,
    GroupSource,
    Limits,
    LogLevel,
    Metrics,
    Recovery,
    Role,
    Settings,
    Totp,
)
from mfa_runtime.config.store_section import StoreSection
from mfa_runtime.store.place import StorePlace

DEFAULT_KEY_FILE = "/etc/mfad/kek"


@dataclass(frozen=True, slots=True)
class Config:
    """All that an administrator has set, checked. Paths are absolute.

    ``key_source`` is what :func:`mfa_runtime.key_file.load_key_source` takes: a path, or ``systemd-creds:NAME``.
    ``host_groups`` are those of this host; ``time_zone`` is that of rules which name none.
    """

    role: Role
    state_dir: Path
    store: StoreSection
    authority: Authority
    agent: Agent
    key_source: str
    issuer: str
    time_zone: tzinfo
    host_groups: frozenset[str]
    log_level: LogLevel
    doors: Doors
    identity: IdentityRules
    totp: Totp
    throttle: ThrottleRules
    enrolment: Enrolment
    recovery: Recovery
    directory: Directory
    limits: Limits
    audit: Audit
    metrics: Metrics
    policy: Policy
    rules: str
    """The policy and what it depends on, as an authority's hosts get it: :mod:`mfa_runtime.config.rules_document`."""
    places: Document = field(compare=False, repr=False)
    """Where each key stands, without its value: for what is found wrong with it only when the parts are built."""

    @property
    def store_place(self) -> StorePlace:
        """Where the store is, for those who open it."""
        store = self.store
        return StorePlace(self.state_dir, store.url, store.password_file, store.connections, float(store.timeout))

    @property
    def enabled_doors(self) -> frozenset[Door]:
        """The doors that listen."""
        return _enabled(self.doors)


def load_config(path: Path) -> Config:
    """Read the file at ``path``; its relative paths start at its folder.

    Raises: ConfigurationProblems, with everything that is wrong; ConfigurationError, when the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            # One byte over the bound is enough to see that it is over.
            text = file.read(yaml_text.MAX_FILE_BYTES + 1)
    except OSError as err:
        raise ConfigurationError(
            f"{path}: cannot be read: {err.strerror}",
            cure="check --config or MFAD_CONFIG, and the file's permissions; `mfactl init` writes a first one",
        ) from err
    return load_config_text(text, name=str(path), base=path.absolute().parent)


def load_config_text(text: bytes | str, *, name: str, base: Path) -> Config:
    """Read ``text``; ``name`` stands in the problems as the file, and relative paths start at ``base``.

    Raises: ConfigurationProblems, with everything that is wrong.
    """
    raw = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
    document, found = yaml_text.read_document(raw, name=name)
    settings: Settings | None = None
    try:
        settings = Settings.model_validate(document.root, context={"base": base})
    except ValidationError as err:
        found.extend(_problems(document, Settings, err, ()))
    rules = _rules(document, settings, found)
    # While the rest is broken the doors are not known: then no rule is blamed for naming one. An authority's are its hosts'.
    doors = frozenset(Door) if settings is None or settings.role is Role.AUTHORITY else _enabled(settings.doors)
    policy = Policy(rules)
    found.extend(_policy_problem(document, problem) for problem in problems(policy, doors))
    if settings is not None and not settings.enrolment.enrol_networks:
        found.extend(_enrolment_nowhere(document, policy))
    if settings is not None:
        found.extend(
            Problem(document.name, document.line_of(fault.path), key_of(fault.path), fault.seen, fault.expected, fault.cure)
            for fault in _faults(document, settings, policy)
        )
    if settings is None or found:
        # What was noted while reading stands first; the same place is not blamed again for the gap that this left.
        first_by_place = {(problem.line, problem.key): problem for problem in reversed(found)}
        raise ConfigurationProblems(first_by_place.values())
    key_file = base / DEFAULT_KEY_FILE if settings.key_file is None else settings.key_file
    return Config(
        role=settings.role,
        state_dir=settings.state_dir,
        store=settings.store,
        authority=settings.authority,
        agent=settings.agent,
        key_source=str(key_file) if settings.key is None else settings.key,
        issuer=settings.issuer,
        time_zone=settings.time_zone,
        host_groups=frozenset(settings.host_groups),
        log_level=settings.log_level,
        doors=settings.doors,
        identity=settings.identity.rules(),
        totp=settings.totp,
        throttle=settings.throttle.rules(),
        enrolment=settings.enrolment,
        recovery=settings.recovery,
        directory=settings.directory,
        limits=settings.limits,
        audit=settings.audit,
        metrics=settings.metrics,
        policy=policy,
        rules=write_rules(document, settings),
        places=Document(document.name, {}, document.lines),
    )


def _enrolment_nowhere(document: Document, policy: Policy) -> Iterable[Problem]:
    return [
        Problem(
            document.name,
            rule.line,
            "enrolment.enrol_networks",
            f"no network, and enrol: at_login in {rule.id!r}",
            "where people may enrol at login",
            "list networks, or say enrol: refuse",
        )
        for rule in policy.rules
        if rule.enrol is Enrol.AT_LOGIN
    ]


def _faults(document: Document, settings: Settings, policy: Policy) -> Iterator[Fault]:
    """What does not go together within a door, or between a door and the policy."""
    sections = document.root.get("policy")
    whole = len(policy.rules) == (len(sections) if isinstance(sections, list) else 0)
    known = policy if whole else None
    yield from role_faults(document, settings)
    radius, ldap = settings.doors.radius, settings.doors.ldap
    if radius is not None:
        groups_are_known = settings.directory.groups is not GroupSource.NONE
        yield from radius_faults(radius, policy=known, groups_are_known=groups_are_known)
    if ldap is not None:
        yield from ldap_faults(ldap, policy=known)


def _enabled(doors: Doors) -> frozenset[Door]:
    return frozenset(door for door in Door if getattr(doors, door.value, None) is not None)


def _rules(document: Document, settings: Settings | None, found: list[Problem]) -> list[Rule]:
    """Read the rules one by one, so that a broken one does not hide what is wrong between the others."""
    sections = document.root.get("policy")
    if sections is None:
        return []
    if not isinstance(sections, list):
        line = document.line_of(("policy",))
        seen = describe(sections, key="policy")
        found.append(Problem(document.name, line, "policy", seen, "a list of rules", "begin each rule with `- id: NAME`"))
        return []
    rules: list[Rule] = []
    for index, section in enumerate(sections):
        path = ("policy", index)
        try:
            # "is None" is an empty list item, not an empty section: a rule needs its id.
            read = RuleSection.model_validate(section)
        except ValidationError as err:
            found.extend(_problems(document, RuleSection, err, path))
            continue
        fold = str.lower if settings is None or settings.identity.fold_case else str
        line = document.line_of(path)
        rules.append(
            read.rule(fold=fold, line=line) if settings is None else read.rule(zone=settings.time_zone, fold=fold, line=line)
        )
    return rules


def _policy_problem(document: Document, problem: PolicyProblem) -> Problem:
    sections = document.root.get("policy")
    count = len(sections) if isinstance(sections, list) else 0
    index = next(i for i in range(count) if document.line_of(("policy", i)) == problem.line)
    path: tuple[str | int, ...] = ("policy", index, problem.key)
    for spelling in next((names for names in _keys_at(When, ()) if problem.key in names), ()):
        if ("policy", index, "when", spelling) in document.lines:
            path = ("policy", index, "when", spelling)
    return Problem(
        document.name, document.line_of(path), key_of(path), problem.seen, problem.expected, f"{problem.rule}: {problem.cure}"
    )


def _problems(
    document: Document, model: type[BaseModel], err: ValidationError, path: tuple[str | int, ...]
) -> Iterable[Problem]:
    return [_problem(document, model, detail, path) for detail in err.errors(include_url=False)]


_EXPECTED = {
    "missing": "a value: this key is required",
    "bool_type": "true or false",
    "model_type": "keys and values",
    "model_attributes_type": "keys and values",
    "dict_type": "keys and values",
    "tuple_type": "a list",
    "string_type": "text",
}


def _problem(document: Document, model: type[BaseModel], detail: ErrorDetails, prefix: tuple[str | int, ...]) -> Problem:
    # "[key]" is pydantic's mark for "the key itself is wrong".
    loc = tuple(part for part in detail["loc"] if part != "[key]")
    path = (*prefix, *loc)
    kind = detail["type"]
    name = next((str(part) for part in reversed(path) if isinstance(part, str)), "")
    seen = describe(detail["input"], key=name)
    expected = _EXPECTED.get(kind, "")
    cure = ""
    if kind == "extra_forbidden":
        known = _keys_at(model, loc[:-1])
        seen = "an unknown key"
        expected = f"one of {', '.join(sorted(first for first, *_ in known))}"
        spellings = next((names for names in known if name in names), None)
        near = difflib.get_close_matches(name, [one for names in known for one in names], n=1)
        if spellings is not None:
            seen, expected = "the same condition in two spellings", f"one of {', '.join(spellings)}"
        elif "=" in name:
            cure = "put a DN in quotes: within braces YAML takes it apart at its commas"
        elif near:
            cure = f"perhaps {near[0]} is meant"
    elif kind == "missing":
        seen = "nothing"
    elif kind == "enum":
        expected = f"one of {detail['ctx']['expected']}"
    elif kind == "value_error":
        reason = detail["ctx"]["error"]
        if isinstance(reason, Unfit):
            expected, cure = reason.expected, reason.cure
            seen = seen if reason.seen is None else reason.seen
    return Problem(document.name, document.line_of(path), key_of(path), seen, expected or detail["msg"], cure)


def _keys_at(model: type[BaseModel], loc: tuple[Any, ...]) -> list[tuple[str, ...]]:
    """Return the keys of the section at ``loc``, each with all of its spellings, the usual one first."""
    for part in loc:
        field = model.model_fields.get(part) if isinstance(part, str) else None
        # The key of a mapping of sections stands in loc too, and leads nowhere further.
        annotation = field.annotation if field is not None else None
        sections = [
            one
            for one in (annotation, *get_args(annotation))
            if isinstance(one, type) and issubclass(one, BaseModel)
        ]
        if sections:
            model = sections[0]
    return [
        tuple(map(str, field.validation_alias.choices)) if isinstance(field.validation_alias, AliasChoices) else (name,)
        for name, field in model.model_fields.items()
    ]


DEFAULTS = load_config_text(b"", name="the built-in defaults", base=Path("/"))
"""What an empty file means."""
