"""What is asked of whom: the first rule that matches, then the default, which requires a code of everyone.

Room rule: a pure function of the question. Nothing here reads a clock, asks a directory or knows YAML; the time is in the
question, and what is not known is None and never guessed: a rule says itself what missing data means, and denies unless it
says otherwise.
"""

from __future__ import annotations

import enum
import fnmatch
import ipaddress
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from typing import ClassVar, Protocol, assert_never

from mfa_core.errors import InvalidInput
from mfa_core.model import Door, FactorKind, Grammar
from mfa_core.value import hot_value

MAX_TRUST_WINDOW_S = 12 * 3600
"""A trusted place is trusted for a working day at most."""

MAX_GRACE_S = 365 * 86_400

DEFAULT_ID = "default"

TYPED_FACTORS = frozenset({FactorKind.TOTP, FactorKind.HOTP})
SPARE_FACTORS = frozenset({FactorKind.RECOVERY, FactorKind.RECOVERY_KEY, FactorKind.BYPASS})
"""What stands in for a lost or broken factor; ``allow_recovery`` switches them together."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY_NAMES = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_MINUTES_A_DAY = 24 * 60


class Action(enum.StrEnum):
    """What a rule does with an attempt."""

    REQUIRE = "require"
    EXEMPT = "exempt"
    DENY = "deny"


class Enforce(enum.StrEnum):
    """Of whom a required factor is required."""

    ALL = "all"
    ENROLLED_ONLY = "enrolled_only"
    """Users without a credential pass: for roll-outs."""


class OnMissing(enum.StrEnum):
    """What a rule does when a condition cannot be answered, and no other condition says that it is not meant."""

    DENY = "deny"
    SKIP = "skip"
    """As if the condition did not hold."""
    MATCH = "match"
    """As if it held."""


class Enrol(enum.StrEnum):
    """What happens to a user who must enrol and has not."""

    REFUSE = "refuse"
    AT_LOGIN = "at_login"
    """Offered in the dialogue, where the first factor is known to be verified and the network may enrol."""


@hot_value
class PolicyQuestion:
    """Who comes from where, when, and through which door.

    ``username`` is canonical. ``groups`` is None when the directory could not say; ``source`` (an IP literal) is None when
    the door does not know it. ``now`` is Unix seconds. ``host_groups`` are those of this host. ``methods`` are what
    SSH_AUTH_INFO_0 lists as done, for instance ``publickey sk-ssh-ed25519@openssh.com``.
    """

    door: Door
    service: str
    username: str
    groups: frozenset[str] | None = None
    source: str | None = None
    now: float = 0.0
    host_groups: frozenset[str] = frozenset()
    methods: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Decision:
    """What the policy says. ``rule`` stands in the audit log.

    ``factors`` are the kinds that are required (any one of them); ask :meth:`accepts`, which knows the spare ones too.
    ``grace_s`` is seconds from the first login of a known user, None for only what an administrator granted.
    ``trust_window_s`` is seconds, 0 for none. ``grammar`` overrides the door's, unless None. ``missing`` names the condition
    that could not be answered when that is the reason for a DENY, else it is empty.
    """

    rule: str
    action: Action = Action.REQUIRE
    factors: frozenset[FactorKind] = TYPED_FACTORS
    enforce: Enforce = Enforce.ALL
    grace_s: int | None = None
    trust_window_s: int = 0
    offline: bool = True
    enrol: Enrol = Enrol.REFUSE
    grammar: Grammar | None = None
    allow_recovery: bool = True
    missing: str = ""

    def accepts(self, kind: FactorKind) -> bool:
        """Say whether a code of ``kind`` may answer."""
        return kind in self.factors or (self.allow_recovery and kind in SPARE_FACTORS)


class Fit(enum.Enum):
    """How a condition stands to a question."""

    HOLDS = enum.auto()
    DIFFERS = enum.auto()
    UNKNOWN = enum.auto()
    """The question lacks what the condition is about."""


def _fit(holds: bool) -> Fit:
    return Fit.HOLDS if holds else Fit.DIFFERS


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(name if name.isprintable() else ascii(name) for name in names)) or "none"


class Condition(Protocol):
    """One thing that a rule asks of a question."""

    @property
    def name(self) -> str:
        """The key of the policy file."""
        ...

    def fit(self, question: PolicyQuestion) -> Fit:
        """Answer it."""
        ...

    def seen(self, question: PolicyQuestion) -> str:
        """Say in words what the question had, for ``explain``."""
        ...


@dataclass(frozen=True, slots=True)
class Globs:
    """Shell patterns (``*``, ``?``, ``[abc]``), compiled once; names without one of these are looked up."""

    patterns: tuple[str, ...]
    _names: frozenset[str] = field(init=False, repr=False, compare=False)
    _matches: Callable[[str], object] | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        globs = [pattern for pattern in self.patterns if any(mark in pattern for mark in "*?[")]
        object.__setattr__(self, "_names", frozenset(self.patterns) - frozenset(globs))
        compiled = re.compile("|".join(map(fnmatch.translate, globs))).match if globs else None
        object.__setattr__(self, "_matches", compiled)

    def match(self, text: str) -> bool:
        """Say whether one of the patterns is ``text``."""
        return text in self._names or (self._matches is not None and self._matches(text) is not None)


@dataclass(frozen=True, slots=True)
class FromDoors:
    """The attempt came through one of these doors."""

    doors: frozenset[Door]
    name: ClassVar[str] = "door"

    def fit(self, question: PolicyQuestion) -> Fit:
        """See :class:`Condition`."""
        return _fit(question.door in self.doors)

    def seen(self, question: PolicyQuestion) -> str:
        """See :class:`Condition`."""
        return f"door {question.door.value}"


@dataclass(frozen=True, slots=True)
class ToServices:
    """The PAM service, NAS or LDAP application has one of these names; case counts."""

    services: Globs
    name: ClassVar[str] = "service"

    def fit(self, question: PolicyQuestion) -> Fit:
        """See :class:`Condition`."""
        return _fit(self.services.match(question.service))

    def seen(self, question: PolicyQuestion) -> str:
        """See :class:`Condition`."""
        return f"service {question.service!a}"


@dataclass(frozen=True, slots=True)
class OfUsers:
    """The canonical name matches; write patterns in the case that canonical names have."""

    users: Globs
    name: ClassVar[str] = "user"

    def fit(self, question: PolicyQuestion) -> Fit:
        """See :class:`Condition`."""
        return _fit(self.users.match(question.username))

    def seen(self, question: PolicyQuestion) -> str:
        """See :class:`Condition`."""
        return f"user {question.username!a}"


@dataclass(frozen=True, slots=True)
class InGroups:
    """The user is in one of these groups, which only the directory can say."""

    groups: frozenset[str]
    name: ClassVar[str] = "group"

    def fit(self, question: PolicyQuestion) -> Fit:
        """See :class:`Condition`."""
        return Fit.UNKNOWN if question.groups is None else _fit(not self.groups.isdisjoint(question.groups))

    def seen(self, question: PolicyQuestion) -> str:
        """See :class:`Condition`."""
        return "groups unknown" if question.groups is None else f"groups {_listed(question.groups)}"


@dataclass(frozen=True, slots=True)
class OnHosts:
    """This host is in one of these host groups."""

    host_groups: frozenset[str]
    name: ClassVar[str] = "host_group"

    def fit(self, question: PolicyQuestion) -> Fit:
        """See :class:`Condition`."""
        return _fit(not self.host_groups.isdisjoint(question.host_groups))

    def seen(self, question: PolicyQuestion) -> str:
        """See :class:`Condition`."""
        return f"host groups {_listed(question.host_groups)}"


@dataclass(frozen=True, slots=True)
class AfterMethods:
    """One of the methods already done matches: ``publickey sk-*`` also when the key itself follows in the line."""

    methods: Globs
    name: ClassVar[str] = "methods"

    def fit(self, question: PolicyQuestion) -> Fit:
        """See :class:`Condition`."""
        return _fit(any(self.methods.match(method) for method in question.methods))

    def seen(self, question: PolicyQuestion) -> str:
        """See :class:`Condition`."""
        return f"methods {_listed(method[:64] for method in question.methods)}"


_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class FromNetworks:
    """The source is in an included network and in no excluded one (written with ``-``).

    With exclusions alone everything else is included. IPv4-mapped IPv6 addresses and networks are IPv4 ones: a dual-stack
    socket must not turn 10.1.2.3 into a stranger, nor walk around an exclusion.

    Raises: InvalidInput, for what is no network, and for one with host bits set (10.1.2.3/8 is a typing mistake).
    """

    networks: tuple[str, ...]
    name: ClassVar[str] = "network"
    _include: tuple[tuple[int, int, int], ...] = field(init=False, repr=False, compare=False)
    _exclude: tuple[tuple[int, int, int], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        include = [_masked(text) for text in self.networks if not text.startswith("-")]
        exclude = [_masked(text.removeprefix("-")) for text in self.networks if text.startswith("-")]
        if not include:
            include = [(4, 0, 0), (6, 0, 0)]
        object.__setattr__(self, "_include", tuple(include))
        object.__setattr__(self, "_exclude", tuple(exclude))

    def fit(self, question: PolicyQuestion) -> Fit:
        """See :class:`Condition`."""
        return self.holds(question.source)

    def holds(self, source: str | None) -> Fit:
        """Say whether ``source`` lies in the networks; what is no IP literal is as unknown as None."""
        if source is None:
            return Fit.UNKNOWN
        try:
            address = ipaddress.ip_address(source)
        except ValueError:
            return Fit.UNKNOWN
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        version, number = address.version, int(address)

        def lies_in(networks: tuple[tuple[int, int, int], ...]) -> bool:
            return any(family == version and number & mask == value for family, mask, value in networks)

        return _fit(lies_in(self._include) and not lies_in(self._exclude))

    def seen(self, question: PolicyQuestion) -> str:
        """See :class:`Condition`."""
        return "source unknown" if question.source is None else f"source {question.source[:64]!a}"


def _masked(text: str) -> tuple[int, int, int]:
    """Read a network as (IP version, mask, address & mask)."""
    try:
        network: _Network = ipaddress.ip_network(text)
    except ValueError as err:
        raise InvalidInput(f"{text[:64]!a} is no network", cure="write it as 10.0.0.0/8 or 2001:db8::/32, host bits zero, "
                           "and with a minus sign in front to exclude it") from err
    mapped = network.network_address.ipv4_mapped if isinstance(network, ipaddress.IPv6Network) else None
    if mapped is not None and network.prefixlen >= 96:
        network = ipaddress.IPv4Network((int(mapped), network.prefixlen - 96))
    return network.version, int(network.netmask), int(network.network_address)


@dataclass(frozen=True, slots=True)
class AtTimes:
    """The wall clock in ``zone`` shows a time in the window.

    ``days``: 0 is Monday. ``start_min`` and ``end_min`` are minutes since midnight; the end is outside. A window over
    midnight (22:00-06:00) belongs to the day on which it begins: with ``fri`` it reaches into Saturday morning. The zone's
    rules decide on the days when clocks change: an hour that comes twice is in the window twice.

    Raises: InvalidInput, for a window of no length or outside the day.
    """

    days: frozenset[int] = frozenset(range(7))
    start_min: int = 0
    end_min: int = _MINUTES_A_DAY
    zone: tzinfo = UTC
    name: ClassVar[str] = "hours"

    def __post_init__(self) -> None:
        if not (0 <= self.start_min < _MINUTES_A_DAY and 0 <= self.end_min <= _MINUTES_A_DAY):
            raise InvalidInput("hours lie outside the day, expected 00:00 to 24:00")
        if self.start_min == self.end_min:
            raise InvalidInput("hours begin and end at the same minute", cure="write 00:00-24:00 for the whole day")
        if not self.days or not self.days <= frozenset(range(7)):
            raise InvalidInput("days name no day of the week, expected for instance mon-fri")

    def fit(self, question: PolicyQuestion) -> Fit:
        """See :class:`Condition`. A clock that no calendar can show is an unknown time."""
        local = self._local(question.now)
        if local is None:
            return Fit.UNKNOWN
        minute, today = local.hour * 60 + local.minute, local.weekday()
        if self.start_min < self.end_min:
            return _fit(today in self.days and self.start_min <= minute < self.end_min)
        return _fit(
            (today in self.days and minute >= self.start_min)
            or ((today - 1) % 7 in self.days and minute < self.end_min)
        )

    def seen(self, question: PolicyQuestion) -> str:
        """See :class:`Condition`."""
        local = self._local(question.now)
        return "time unknown" if local is None else f"{_DAY_NAMES[local.weekday()]} {local:%H:%M} {self.zone}"

    def _local(self, now: float) -> datetime | None:
        try:
            return (_EPOCH + timedelta(seconds=now)).astimezone(self.zone)
        except (OverflowError, ValueError):  # NaN, infinity, or a year outside 1 to 9999
            return None


@dataclass(frozen=True, slots=True)
class Rule:
    """Conditions, all of which must hold, and what follows. ``line`` is where it stands in the file, 0 for nowhere.

    The effects mean what they mean in :class:`Decision`.
    """

    id: str
    conditions: tuple[Condition, ...] = ()
    action: Action = Action.REQUIRE
    factors: frozenset[FactorKind] = TYPED_FACTORS
    enforce: Enforce = Enforce.ALL
    grace_s: int | None = None
    trust_window_s: int = 0
    offline: bool = True
    enrol: Enrol = Enrol.REFUSE
    grammar: Grammar | None = None
    allow_recovery: bool = True
    on_missing: OnMissing = OnMissing.DENY
    line: int = 0

    def decision(self) -> Decision:
        """What is decided when this rule matches."""
        return Decision(
            rule=self.id,
            action=self.action,
            factors=self.factors,
            enforce=self.enforce,
            grace_s=self.grace_s,
            trust_window_s=self.trust_window_s,
            offline=self.offline,
            enrol=self.enrol,
            grammar=self.grammar,
            allow_recovery=self.allow_recovery,
        )


DEFAULT_RULE = Rule(DEFAULT_ID)
"""TOTP or HOTP of everyone, recovery and bypass codes in their place."""


@dataclass(frozen=True, slots=True)
class RuleTrace:
    """How one rule stood to a question. ``decides`` marks the one that the decision came from.

    ``words`` tell the first condition that did not hold or could not be answered, or that the rule matches.
    """

    rule: str
    line: int
    fit: Fit
    decides: bool
    words: str


class Policy:
    """Rules in their order, then the default. Immutable, and safe to ask from several threads."""

    __slots__ = ("_compiled", "_default", "default", "needs_groups", "rules")

    def __init__(self, rules: Iterable[Rule] = (), default: Rule = DEFAULT_RULE) -> None:
        self.rules = tuple(rules)
        self.default = default
        self.needs_groups = any(isinstance(one, InGroups) for rule in self.rules for one in rule.conditions)
        """Whether a decision can depend on groups, so that the directory must be asked first."""
        self._default = default.decision()
        self._compiled = tuple(
            (tuple(one.fit for one in rule.conditions), rule, rule.decision()) for rule in self.rules
        )

    def decide(self, question: PolicyQuestion) -> Decision:
        """Return the decision of the first rule that matches, or of the default."""
        for conditions, rule, decision in self._compiled:
            unknown = False
            for fit in conditions:
                answer = fit(question)
                if answer is Fit.DIFFERS:
                    break
                if answer is Fit.UNKNOWN:
                    unknown = True
            else:
                if not unknown:
                    return decision
                match rule.on_missing:
                    case OnMissing.MATCH:
                        return decision
                    case OnMissing.DENY:
                        return Decision(rule=rule.id, action=Action.DENY, missing=_first_unknown(rule, question))
                    case OnMissing.SKIP:
                        continue
                    case _:
                        assert_never(rule.on_missing)
        return self._default

    def explain(self, question: PolicyQuestion) -> tuple[RuleTrace, ...]:
        """Return how every rule stands to ``question``, the default last; exactly one of them decides, as in decide()."""
        traces: list[RuleTrace] = []
        decided = False
        for rule in (*self.rules, self.default):
            fit, words = _stand(rule, question)
            takes = fit is Fit.HOLDS or (fit is Fit.UNKNOWN and rule.on_missing is not OnMissing.SKIP)
            traces.append(RuleTrace(rule.id, rule.line, fit, takes and not decided, words))
            decided = decided or takes
        return tuple(traces)


def _first_unknown(rule: Rule, question: PolicyQuestion) -> str:
    return next(one.name for one in rule.conditions if one.fit(question) is Fit.UNKNOWN)


def _stand(rule: Rule, question: PolicyQuestion) -> tuple[Fit, str]:
    unknown: Condition | None = None
    for condition in rule.conditions:
        fit = condition.fit(question)
        if fit is Fit.DIFFERS:
            return fit, f"{condition.name} does not match: {condition.seen(question)}"
        if fit is Fit.UNKNOWN and unknown is None:
            unknown = condition
    if unknown is None:
        return Fit.HOLDS, "matches" if rule.conditions else "matches everything"
    outcome = {
        OnMissing.DENY: "denied",
        OnMissing.SKIP: "skipped",
        OnMissing.MATCH: "taken as a match",
    }[rule.on_missing]
    return Fit.UNKNOWN, f"{unknown.name} cannot be answered: {unknown.seen(question)}; {outcome} by on_missing"


@dataclass(frozen=True, slots=True)
class PolicyProblem:
    """Why a policy may not be used: what was seen at ``line`` under ``key`` of ``rule``, what was expected, how to mend it."""

    rule: str
    line: int
    key: str
    seen: str
    expected: str
    cure: str


def problems(policy: Policy, doors: frozenset[Door]) -> list[PolicyProblem]:
    """Return everything that makes ``policy`` unusable where ``doors`` are enabled; an empty list when it may be used.

    A rule that can never be reached or never be satisfied is a mistake that shows only when somebody is locked out, or
    let in: refuse it when it is loaded.
    """
    found: list[PolicyProblem] = []
    lines_by_id: dict[str, int] = {DEFAULT_ID: policy.default.line}
    catch_all: Rule | None = None
    # The console is no configured door: mfactl is always there.
    answered = doors | {Door.CONSOLE}
    for rule in policy.rules:

        def note(key: str, seen: str, expected: str, cure: str, rule: Rule = rule) -> None:
            found.append(PolicyProblem(rule.id, rule.line, key, seen, expected, cure))

        if rule.id in lines_by_id:
            where = "the built-in default" if rule.id == DEFAULT_ID else f"the rule in line {lines_by_id[rule.id]}"
            note("id", rule.id, "an id of its own", f"{where} has this id: choose another")
        lines_by_id.setdefault(rule.id, rule.line)
        if catch_all is not None:
            note("when", f"a rule after {catch_all.id!r}, which matches everything", "a rule that can be reached",
                 f"give {catch_all.id!r} (line {catch_all.line}) a condition, or move it to the end")
        if rule.action is Action.REQUIRE and not rule.factors:
            note("require", "no factor", "at least one of totp, hotp",
                 "name a factor, or say `deny: true` or `exempt: true`, if that is what is meant")
        if not 0 <= rule.trust_window_s <= MAX_TRUST_WINDOW_S:
            note("trust_window", f"{rule.trust_window_s} s", "0 to 12h", "shorten it, or leave it out: 0 is the default")
        if rule.grace_s is not None and not 0 <= rule.grace_s <= MAX_GRACE_S:
            note("grace", f"{rule.grace_s} s", "inherit, or 0 to 365d", "shorten it")
        for condition in rule.conditions:
            if isinstance(condition, FromDoors) and condition.doors.isdisjoint(answered):
                note("door", ", ".join(sorted(condition.doors)), "a door that is enabled here: "
                     + (", ".join(sorted(doors)) or "none is"), "enable the door under doors:, or take the rule out")
        if not rule.conditions and catch_all is None:
            catch_all = rule
    return found
