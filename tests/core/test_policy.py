"""First rule that matches, then the default; what is missing is never guessed."""

from __future__ import annotations

import fnmatch
import math
from dataclasses import replace
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfa_core.errors import InvalidInput
from mfa_core.model import Door, FactorKind, Grammar, SplitMode
from mfa_core.policy import (
    DEFAULT_RULE,
    Action,
    AfterMethods,
    AtTimes,
    Condition,
    Enforce,
    Enrol,
    Fit,
    FromDoors,
    FromNetworks,
    Globs,
    InGroups,
    OfUsers,
    OnHosts,
    OnMissing,
    Policy,
    PolicyQuestion,
    Rule,
    ToServices,
    problems,
)

ASKED = PolicyQuestion(
    door=Door.PAM,
    service="sshd",
    username="alice",
    groups=frozenset({"staff", "wheel"}),
    source="10.1.2.3",
    now=datetime(2026, 11, 20, 12, 0, tzinfo=UTC).timestamp(),  # a Friday
    host_groups=frozenset({"web"}),
    methods=("publickey sk-ssh-ed25519@openssh.com AAAA", "password"),
)


@pytest.mark.parametrize(
    ("condition", "fit"),
    [
        pytest.param(FromDoors(frozenset({Door.PAM, Door.LDAP})), Fit.HOLDS, id="door"),
        pytest.param(FromDoors(frozenset({Door.RADIUS})), Fit.DIFFERS, id="another door"),
        pytest.param(ToServices(Globs(("sudo", "sshd"))), Fit.HOLDS, id="service"),
        pytest.param(ToServices(Globs(("ssh*",))), Fit.HOLDS, id="service glob"),
        pytest.param(ToServices(Globs(("SSHD",))), Fit.DIFFERS, id="service case counts"),
        pytest.param(ToServices(Globs(("ssh",))), Fit.DIFFERS, id="service prefix is no match"),
        pytest.param(OfUsers(Globs(("bob", "al?ce"))), Fit.HOLDS, id="user glob"),
        pytest.param(OfUsers(Globs(("svc-*", "bob"))), Fit.DIFFERS, id="another user"),
        pytest.param(InGroups(frozenset({"wheel"})), Fit.HOLDS, id="group"),
        pytest.param(InGroups(frozenset({"vpn"})), Fit.DIFFERS, id="another group"),
        pytest.param(OnHosts(frozenset({"db", "web"})), Fit.HOLDS, id="host group"),
        pytest.param(OnHosts(frozenset({"db"})), Fit.DIFFERS, id="another host group"),
        pytest.param(AfterMethods(Globs(("publickey sk-*",))), Fit.HOLDS, id="security key"),
        pytest.param(AfterMethods(Globs(("publickey ssh-*",))), Fit.DIFFERS, id="another kind of key"),
    ],
)
def test_a_condition_holds_or_differs(condition: Condition, fit: Fit) -> None:
    """One row for each way a condition can be written."""
    assert condition.fit(ASKED) is fit
    assert condition.seen(ASKED).isprintable()


@pytest.mark.parametrize(
    ("networks", "source", "fit"),
    [
        pytest.param(("10.0.0.0/8",), "10.255.255.255", Fit.HOLDS, id="v4 in"),
        pytest.param(("10.0.0.0/8",), "11.0.0.0", Fit.DIFFERS, id="v4 out"),
        pytest.param(("10.0.0.1",), "10.0.0.1", Fit.HOLDS, id="single host"),
        pytest.param(("0.0.0.0/0", "-10.0.0.0/8"), "10.1.2.3", Fit.DIFFERS, id="excluded"),
        pytest.param(("0.0.0.0/0", "-10.0.0.0/8"), "192.0.2.1", Fit.HOLDS, id="not excluded"),
        pytest.param(("-10.0.0.0/8",), "192.0.2.1", Fit.HOLDS, id="exclusion alone includes the rest"),
        pytest.param(("-10.0.0.0/8",), "2001:db8::1", Fit.HOLDS, id="exclusion alone includes v6"),
        pytest.param(("-10.0.0.0/8",), "::ffff:10.1.2.3", Fit.DIFFERS, id="mapped address is excluded as v4"),
        pytest.param(("10.0.0.0/8",), "::ffff:10.1.2.3", Fit.HOLDS, id="mapped address is v4"),
        pytest.param(("::ffff:10.0.0.0/104",), "10.1.2.3", Fit.HOLDS, id="mapped network is v4"),
        pytest.param(("::/0",), "10.1.2.3", Fit.DIFFERS, id="all of v6 holds no v4"),
        pytest.param(("2001:db8::/32",), "2001:DB8:0:0::1", Fit.HOLDS, id="v6 in another spelling"),
        pytest.param(("fe80::/10",), "fe80::1%eth0", Fit.HOLDS, id="v6 with a zone"),
        pytest.param(("10.0.0.0/8",), None, Fit.UNKNOWN, id="unknown"),
        pytest.param(("-10.0.0.0/8",), None, Fit.UNKNOWN, id="unknown, exclusion alone"),
        pytest.param(("10.0.0.0/8",), "db1.example.org", Fit.UNKNOWN, id="a name is no address"),
        pytest.param(("10.0.0.0/8",), "010.1.2.3", Fit.UNKNOWN, id="leading zero"),
    ],
)
def test_a_source_lies_in_a_network(networks: tuple[str, ...], source: str | None, fit: Fit) -> None:
    """Include, exclude, both families, and nothing guessed."""
    assert FromNetworks(networks).fit(replace(ASKED, source=source)) is fit


@pytest.mark.parametrize("text", ["10.1.2.3/8", "10.0.0.0/33", "10.0.0", "localhost", "", "-", "--10.0.0.0/8", "0x0a000000"])
def test_what_is_no_network_is_refused(text: str) -> None:
    """Typing mistakes are found at load."""
    with pytest.raises(InvalidInput, match="is no network"):
        FromNetworks((text,))


BERLIN = ZoneInfo("Europe/Berlin")
OFFICE = AtTimes(frozenset(range(5)), 6 * 60, 22 * 60, BERLIN)
NIGHT = AtTimes(frozenset({4}), 22 * 60, 6 * 60, BERLIN)
SPRING = AtTimes(start_min=2 * 60, end_min=3 * 60, zone=BERLIN)


@pytest.mark.parametrize(
    ("window", "now", "fit"),
    [
        pytest.param(OFFICE, datetime(2026, 11, 20, 6, 0, tzinfo=BERLIN), Fit.HOLDS, id="begin is inside"),
        pytest.param(OFFICE, datetime(2026, 11, 20, 5, 59, 59, tzinfo=BERLIN), Fit.DIFFERS, id="before"),
        pytest.param(OFFICE, datetime(2026, 11, 20, 22, 0, tzinfo=BERLIN), Fit.DIFFERS, id="end is outside"),
        pytest.param(OFFICE, datetime(2026, 11, 21, 12, 0, tzinfo=BERLIN), Fit.DIFFERS, id="Saturday"),
        pytest.param(OFFICE, datetime(2026, 11, 20, 5, 30, tzinfo=UTC), Fit.HOLDS, id="UTC 05:30 is 06:30 in winter"),
        pytest.param(OFFICE, datetime(2026, 7, 17, 4, 30, tzinfo=UTC), Fit.HOLDS, id="UTC 04:30 is 06:30 in summer"),
        pytest.param(OFFICE, datetime(2026, 11, 20, 4, 30, tzinfo=UTC), Fit.DIFFERS, id="UTC 04:30 is 05:30 in winter"),
        pytest.param(NIGHT, datetime(2026, 11, 20, 23, 0, tzinfo=BERLIN), Fit.HOLDS, id="Friday night"),
        pytest.param(NIGHT, datetime(2026, 11, 21, 5, 59, tzinfo=BERLIN), Fit.HOLDS, id="belongs to Friday on Saturday"),
        pytest.param(NIGHT, datetime(2026, 11, 21, 6, 0, tzinfo=BERLIN), Fit.DIFFERS, id="Saturday at six"),
        pytest.param(NIGHT, datetime(2026, 11, 20, 5, 0, tzinfo=BERLIN), Fit.DIFFERS, id="Friday morning is Thursday's"),
        pytest.param(NIGHT, datetime(2026, 11, 21, 23, 0, tzinfo=BERLIN), Fit.DIFFERS, id="Saturday night"),
        pytest.param(SPRING, datetime(2026, 3, 29, 0, 59, tzinfo=UTC), Fit.DIFFERS, id="gap: 01:59 before"),
        pytest.param(SPRING, datetime(2026, 3, 29, 1, 0, tzinfo=UTC), Fit.DIFFERS, id="gap: 03:00 after, two never comes"),
        pytest.param(SPRING, datetime(2026, 10, 25, 0, 30, tzinfo=UTC), Fit.HOLDS, id="fold: first 02:30"),
        pytest.param(SPRING, datetime(2026, 10, 25, 1, 30, tzinfo=UTC), Fit.HOLDS, id="fold: second 02:30"),
        pytest.param(SPRING, datetime(2026, 10, 25, 2, 0, tzinfo=UTC), Fit.DIFFERS, id="fold: 03:00"),
        pytest.param(OFFICE, datetime(2038, 1, 19, 3, 14, 8, tzinfo=UTC), Fit.DIFFERS, id="2038, Tuesday 04:14"),
        pytest.param(OFFICE, datetime(2038, 1, 19, 12, 0, tzinfo=UTC), Fit.HOLDS, id="2038, Tuesday noon"),
        pytest.param(OFFICE, datetime(1969, 12, 31, 12, 0, tzinfo=UTC), Fit.HOLDS, id="before 1970, a Wednesday"),
    ],
)
def test_a_window_follows_the_clock_on_the_wall(window: AtTimes, now: datetime, fit: Fit) -> None:
    """Zones, days of change, midnight and far years."""
    assert window.fit(replace(ASKED, now=now.timestamp())) is fit


@pytest.mark.parametrize("now", [math.nan, math.inf, -math.inf, 1e300, 253402300800.0, -1e12])
def test_a_time_that_no_calendar_shows_is_unknown(now: float) -> None:
    """A broken clock is missing data, not an exception."""
    assert OFFICE.fit(replace(ASKED, now=now)) is Fit.UNKNOWN
    assert OFFICE.seen(replace(ASKED, now=now)) == "time unknown"


@pytest.mark.parametrize(
    ("days", "start", "end"), [({0}, 60, 60), ({0}, -1, 60), ({0}, 0, 1441), ({0}, 1440, 60), (set(), 0, 60), ({7}, 0, 60)]
)
def test_a_window_that_cannot_be_is_refused(days: set[int], start: int, end: int) -> None:
    """No length, outside the day, no day."""
    with pytest.raises(InvalidInput):
        AtTimes(frozenset(days), start, end)


PATTERNS = st.lists(st.text(alphabet="ab*?[]!-^\\\\|().\n", max_size=8), min_size=1, max_size=4)


@given(PATTERNS, st.text(alphabet="ab*?[]!-^\\\\|().\n", max_size=8))
def test_patterns_together_match_what_one_of_them_matches(patterns: list[str], text: str) -> None:
    """Any text is a pattern, and joining them changes nothing."""
    assert Globs(tuple(patterns)).match(text) == any(fnmatch.fnmatchcase(text, one) for one in patterns)


def test_a_hostile_pattern_does_not_take_for_ever() -> None:
    """Stars do not backtrack into each other."""
    assert not Globs(("*a" * 25 + "b", "a*b*c", "c*b*a")).match("a" * 250)


def test_without_rules_everybody_needs_a_code() -> None:
    """The default: TOTP or HOTP, recovery and bypass codes in their place, of everyone."""
    policy = Policy()

    decision = policy.decide(ASKED)

    assert decision.rule == "default"
    assert decision.action is Action.REQUIRE
    assert decision.enforce is Enforce.ALL
    assert all(decision.accepts(kind) for kind in FactorKind)
    assert not policy.needs_groups


def test_the_first_rule_that_matches_decides_everything() -> None:
    """No effect of a later rule, or of the default, shines through."""
    first = Rule(
        "first", (OfUsers(Globs(("alice",))),), factors=frozenset({FactorKind.HOTP}), enforce=Enforce.ENROLLED_ONLY,
        grace_s=0, trust_window_s=60, offline=False, enrol=Enrol.AT_LOGIN, grammar=Grammar(SplitMode.APPEND),
        allow_recovery=False,
    )  # fmt: skip
    policy = Policy((Rule("other", (OfUsers(Globs(("bob",))),), Action.DENY), first, Rule("late", action=Action.EXEMPT)))

    decision = policy.decide(ASKED)

    assert decision == first.decision()
    assert [kind for kind in FactorKind if decision.accepts(kind)] == [FactorKind.HOTP]


NETWORK = FromNetworks(("10.0.0.0/8",))
STAFF = InGroups(frozenset({"staff"}))
BOB = OfUsers(Globs(("bob",)))


@pytest.mark.parametrize(
    ("conditions", "on_missing", "rule", "action", "missing"),
    [
        pytest.param((NETWORK,), OnMissing.DENY, "r", Action.DENY, "network", id="deny is the strict default"),
        pytest.param((NETWORK,), OnMissing.SKIP, "default", Action.REQUIRE, "", id="skip"),
        pytest.param((NETWORK,), OnMissing.MATCH, "r", Action.EXEMPT, "", id="match"),
        pytest.param((STAFF,), OnMissing.DENY, "r", Action.DENY, "group", id="groups"),
        pytest.param((STAFF, BOB), OnMissing.DENY, "default", Action.REQUIRE, "", id="a rule for others is not meant"),
        pytest.param((STAFF, BOB), OnMissing.MATCH, "default", Action.REQUIRE, "", id="match needs the other conditions"),
        pytest.param((STAFF, NETWORK), OnMissing.DENY, "r", Action.DENY, "group", id="the first missing one is named"),
    ],
)
def test_missing_data_is_what_the_rule_says(
    conditions: tuple[Condition, ...], on_missing: OnMissing, rule: str, action: Action, missing: str
) -> None:
    """And a denial for that reason accepts nothing but says what was missing."""
    policy = Policy((Rule("r", conditions, Action.EXEMPT, on_missing=on_missing),))

    decision = policy.decide(replace(ASKED, groups=None, source=None))

    assert (decision.rule, decision.action, decision.missing) == (rule, action, missing)


CONDITIONS = st.lists(
    st.sampled_from(
        [NETWORK, STAFF, BOB, OFFICE, NIGHT, FromDoors(frozenset({Door.PAM})), ToServices(Globs(("s*",))),
         AfterMethods(Globs(("publickey*",))), OnHosts(frozenset({"web"}))]
    ),
    max_size=3,
)  # fmt: skip
RULES = st.lists(
    st.builds(
        lambda conditions, action, on_missing: Rule("r", tuple(conditions), action, on_missing=on_missing),
        CONDITIONS, st.sampled_from(Action), st.sampled_from(OnMissing),
    ),
    max_size=5,
)  # fmt: skip
QUESTIONS = st.builds(
    PolicyQuestion,
    door=st.sampled_from(Door),
    service=st.text(max_size=5) | st.just("sshd"),
    username=st.sampled_from(["alice", "bob"]),
    groups=st.none() | st.frozensets(st.sampled_from(["staff", "wheel"])),
    source=st.none() | st.ip_addresses().map(str) | st.text(max_size=5) | st.just("10.0.0.1"),
    now=st.floats(),
    host_groups=st.frozensets(st.sampled_from(["web", "db"])),
    methods=st.lists(st.text(max_size=9) | st.just("publickey x"), max_size=2).map(tuple),
)


@given(RULES, QUESTIONS)
def test_the_explanation_agrees_with_the_decision(rules: list[Rule], question: PolicyQuestion) -> None:
    """Exactly one rule decides, it is the one that decide() took, and any question has an answer."""
    rules = [replace(rule, id=f"r{number}") for number, rule in enumerate(rules)]
    policy = Policy(rules)

    traces = policy.explain(question)

    assert [trace.rule for trace in traces] == [*(rule.id for rule in rules), "default"]
    assert [trace.rule for trace in traces if trace.decides] == [policy.decide(question).rule]


def test_the_explanation_names_the_first_condition_that_does_not_hold() -> None:
    """In words, with what was seen."""
    policy = Policy(
        [
            Rule("vpn", (FromDoors(frozenset({Door.RADIUS})),), line=3),
            Rule("office", (NETWORK, OFFICE), on_missing=OnMissing.SKIP, line=5),
            Rule("rest", line=9),
        ]
    )

    words = [trace.words for trace in policy.explain(replace(ASKED, source=None))]

    assert words == [
        "door does not match: door pam",
        "network cannot be answered: source unknown; skipped by on_missing",
        "matches everything",
        "matches everything",
    ]


def test_only_a_rule_with_groups_needs_the_directory() -> None:
    """So that no directory is asked for nothing."""
    assert Policy([Rule("a", (STAFF,))]).needs_groups
    assert not Policy([Rule("a", (BOB,))]).needs_groups


@pytest.mark.parametrize(
    ("rules", "keys"),
    [
        pytest.param([Rule("a", (BOB,)), Rule("b")], [], id="good"),
        pytest.param([Rule("a"), Rule("b", (BOB,)), Rule("c")], ["when", "when"], id="behind a rule for everything"),
        pytest.param([Rule("a", (BOB,)), Rule("a", (STAFF,))], ["id"], id="one id twice"),
        pytest.param([Rule("default", (BOB,))], ["id"], id="id of the default"),
        pytest.param([Rule("a", factors=frozenset())], ["require"], id="no factor"),
        pytest.param([Rule("a", (BOB,), Action.EXEMPT, factors=frozenset())], [], id="exempt needs none"),
        pytest.param([Rule("a", trust_window_s=12 * 3600)], [], id="12 h"),
        pytest.param([Rule("a", trust_window_s=12 * 3600 + 1)], ["trust_window"], id="over 12 h"),
        pytest.param([Rule("a", trust_window_s=-1)], ["trust_window"], id="negative window"),
        pytest.param([Rule("a", grace_s=366 * 86400)], ["grace"], id="over a year"),
        pytest.param([Rule("a", (FromDoors(frozenset({Door.RADIUS})),))], ["door"], id="door that is off"),
        pytest.param([Rule("a", (FromDoors(frozenset({Door.RADIUS, Door.PAM})),))], [], id="one of the doors is on"),
        pytest.param([Rule("a", (FromDoors(frozenset({Door.CONSOLE})),))], [], id="console is always there"),
    ],
)
def test_a_policy_that_cannot_work_is_told_so(rules: list[Rule], keys: list[str]) -> None:
    """Every problem at once, each with a line and a cure."""
    numbered = [replace(rule, line=number + 1) for number, rule in enumerate(rules)]

    found = problems(Policy(numbered), frozenset({Door.PAM}))

    assert [problem.key for problem in found] == keys
    assert all(problem.line and problem.cure and problem.expected for problem in found)


def test_the_default_rule_has_no_problem() -> None:
    """What is built in passes its own checks."""
    assert problems(Policy(), frozenset({Door.PAM})) == []
    assert DEFAULT_RULE.conditions == ()
