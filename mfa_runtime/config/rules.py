"""The keys of a policy rule, and the rule they make.

Room rule: translates one rule's section into a :class:`mfa_core.policy.Rule`; what a rule means is decided there. A key has
the spellings of all doors (``service``, ``nas``, ``application``), because one condition serves them all.
"""

from __future__ import annotations

import re
from datetime import UTC, tzinfo
from typing import Annotated, Any

from pydantic import AliasChoices, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from mfa_core.model import Door, FactorKind, Grammar, SplitMode
from mfa_core.policy import (
    TYPED_FACTORS,
    Action,
    AfterMethods,
    AtTimes,
    Condition,
    Enforce,
    Enrol,
    FromDoors,
    FromNetworks,
    Globs,
    InGroups,
    OfUsers,
    OnHosts,
    OnMissing,
    Rule,
    ToServices,
)
from mfa_runtime.config.notation import (
    Days,
    Flag,
    Hours,
    Separator,
    SomeNames,
    Unfit,
    duration,
    read_networks,
)
from mfa_runtime.config.section import Section

_RULE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}").fullmatch
_USER_PATTERN = re.compile(r"[!-?A-\[\]-~]{1,256}").fullmatch


def _rule_id(value: object) -> str:
    if isinstance(value, str) and _RULE_ID(value):
        return value
    raise Unfit("1 to 64 letters, digits, dots, hyphens or underscores", "give the rule a short name for the audit log")


def _one_or_many_doors(value: object) -> object:
    if value in (None, [], ()):
        raise Unfit("at least one door", "leave the key out for all doors")
    return (value,) if isinstance(value, str) else value


def _factors(value: object) -> object:
    return (value,) if isinstance(value, str) else value


_GRACE = duration("0", "365d")


class When(Section):
    """The conditions of a rule; a key that is absent does not matter.

    A key without a value is refused, and so is ``when`` itself: a condition that was commented out must not turn a rule into
    one for everybody.
    """

    # The defaults stand for "absent"; checking them would refuse them as empty.
    model_config = ConfigDict(validate_default=False)

    door: Annotated[tuple[Door, ...], BeforeValidator(_one_or_many_doors)] = Field(
        default=(), validation_alias=AliasChoices("door", "doors", "protocol", "protocols")
    )
    service: SomeNames = Field(
        default=(), validation_alias=AliasChoices("service", "services", "nas", "application", "applications")
    )
    user: SomeNames = Field(default=(), validation_alias=AliasChoices("user", "users"))
    group: SomeNames = Field(default=(), validation_alias=AliasChoices("group", "groups"))
    network: SomeNames = Field(default=(), validation_alias=AliasChoices("network", "networks", "client_cidr"))
    days: Days = frozenset()
    hours: Hours = None
    host_group: SomeNames = Field(default=(), validation_alias=AliasChoices("host_group", "host_groups"))
    methods: SomeNames = Field(default=(), validation_alias=AliasChoices("methods", "method"))

    @model_validator(mode="before")
    @classmethod
    def _nothing_is_not_everything(cls, data: Any) -> Any:
        if data is None:
            raise Unfit("conditions", "write `when: {}`, or leave it out, for a rule that matches everything")
        return data

    @field_validator("user", mode="after")
    @classmethod
    def _users_can_match(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in patterns:
            if not _USER_PATTERN(pattern):
                raise Unfit(
                    "canonical names such as alice or svc-*",
                    "users are matched after their realm is taken off, and are plain ASCII",
                    seen=f"{pattern[:64]!a}",
                )
        return patterns

    @field_validator("network", mode="after")
    @classmethod
    def _networks_can_be_read(cls, networks: tuple[str, ...]) -> tuple[str, ...]:
        read_networks(networks)
        return networks

    def conditions(self, *, zone: tzinfo, fold: Any) -> tuple[Condition, ...]:
        """Make the conditions, the cheap ones first. ``fold`` turns a user pattern into the case of canonical names."""
        found: list[Condition] = []
        if self.door:
            found.append(FromDoors(frozenset(self.door)))
        if self.service:
            found.append(ToServices(Globs(self.service)))
        if self.user:
            found.append(OfUsers(Globs(tuple(map(fold, self.user)))))
        if self.host_group:
            found.append(OnHosts(frozenset(self.host_group)))
        if self.methods:
            found.append(AfterMethods(Globs(self.methods)))
        if self.group:
            found.append(InGroups(frozenset(self.group)))
        if self.network:
            found.append(FromNetworks(self.network))
        if self.days or self.hours is not None:
            begin, end, own_zone = (0, 24 * 60, None) if self.hours is None else self.hours
            days = self.days or frozenset(range(7))
            found.append(AtTimes(days, begin, end, zone if own_zone is None else own_zone))
        return tuple(found)


class RuleSection(Section):
    """One rule of ``policy``. ``grace`` and ``trust_window`` are seconds; ``grace`` None: what an administrator granted."""

    id: Annotated[str, BeforeValidator(_rule_id)]
    when: When = Field(default_factory=When)
    require: Annotated[tuple[FactorKind, ...], BeforeValidator(_factors)] | None = None
    exempt: Flag = False
    deny: Flag = False
    enforce: Enforce = Enforce.ALL
    grace: int | None = None
    trust_window: Annotated[int, duration("0", "12h")] = 0
    offline: Flag = True
    enrol: Enrol = Enrol.REFUSE
    split: SplitMode | None = None
    separator: Separator | None = None
    allow_recovery: Flag = True
    on_missing: OnMissing = OnMissing.DENY

    @field_validator("grace", mode="before")
    @classmethod
    def _a_time_or_inherit(cls, value: object) -> int | None:
        if value is None or value == "inherit":
            return None
        seconds: int = _GRACE.func(value)
        return seconds

    @model_validator(mode="after")
    def _one_action(self) -> RuleSection:
        said = [
            name
            for name, is_said in (("require", self.require is not None), ("exempt", self.exempt), ("deny", self.deny))
            if is_said
        ]
        if len(said) > 1:
            raise Unfit("one of require, exempt and deny", "make two rules of it", seen=" and ".join(said))
        if self.separator is not None and self.split not in (SplitMode.SEPARATOR, SplitMode.KEYWORD):
            raise Unfit("split: separator beside it", "add it, or take the separator out", seen="a separator without a use")
        return self

    def rule(self, *, zone: tzinfo = UTC, fold: Any = str, line: int = 0) -> Rule:
        """Make the rule. ``zone`` is for days and hours that name none."""
        action = Action.EXEMPT if self.exempt else Action.DENY if self.deny else Action.REQUIRE
        separator = "," if self.separator is None else self.separator
        return Rule(
            id=self.id,
            conditions=self.when.conditions(zone=zone, fold=fold),
            action=action,
            factors=TYPED_FACTORS if self.require is None else frozenset(self.require),
            enforce=self.enforce,
            grace_s=self.grace,
            trust_window_s=self.trust_window,
            offline=self.offline,
            enrol=self.enrol,
            grammar=None if self.split is None else Grammar(self.split, separator),
            allow_recovery=self.allow_recovery,
            on_missing=self.on_missing,
            line=line,
        )
