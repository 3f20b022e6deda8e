"""A configuration is one frozen value, or every problem at once with its place."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfa_core.errors import ConfigurationError
from mfa_core.model import Door, FactorKind, Grammar, SplitMode
from mfa_core.policy import (
    DEFAULT_RULE,
    Action,
    Decision,
    Enforce,
    Enrol,
    Fit,
    OnMissing,
    PolicyQuestion,
)
from mfa_core.throttle import ThrottleRules
from mfa_runtime.config import DEFAULTS, Config, ConfigurationProblems, load_config, load_config_text
from mfa_runtime.config.sections import PamMode, PriorFactor

ROOT = Path(__file__).parents[2]
BASE = Path("/etc/mfad")


def load(text: str | bytes) -> Config:
    """Load ``text`` as if it stood in /etc/mfad."""
    return load_config_text(text, name="mfad.yaml", base=BASE)


def problems_of(text: str | bytes) -> list[tuple[int, str]]:
    """The places that are complained of."""
    with pytest.raises(ConfigurationProblems) as refused:
        load(text)
    for problem in refused.value.problems:
        assert str(problem) in str(refused.value)
        assert str(problem).isprintable()
        assert problem.seen
        assert problem.expected
    return [(problem.line, problem.key) for problem in refused.value.problems]


def test_an_empty_file_means_the_defaults() -> None:
    """And they are the core's defaults where the core has some."""
    assert DEFAULTS.throttle == ThrottleRules()
    assert DEFAULTS.enabled_doors == {Door.PAM}
    assert DEFAULTS.key_source == "/etc/mfad/kek"
    assert DEFAULTS.policy.decide(PolicyQuestion(Door.PAM, "sshd", "alice")) == DEFAULT_RULE.decision()


def test_the_commented_file_says_what_the_defaults_are() -> None:
    """config/mfad.yaml has every key, each with its default."""
    commented = load_config(ROOT / "config" / "mfad.yaml")

    for one in fields(Config):
        if one.name not in ("policy", "places"):
            assert getattr(commented, one.name) == getattr(DEFAULTS, one.name), one.name
    assert commented.policy.rules == ()


def test_the_commented_file_names_every_key() -> None:
    """A key that is added in code and not there is found here."""
    text = (ROOT / "config" / "mfad.yaml").read_text()
    sections = [DEFAULTS.doors, DEFAULTS.doors.pam, DEFAULTS.totp, DEFAULTS.enrolment, DEFAULTS.recovery,
                DEFAULTS.directory, DEFAULTS.limits, DEFAULTS.audit, DEFAULTS.metrics]  # fmt: skip

    missing = [
        name
        for section in sections
        if section is not None
        for name in type(section).model_fields
        if f"{name}:" not in text and name not in ("radius", "ldap")
    ]

    assert missing == []


@pytest.mark.parametrize("path", sorted((ROOT / "config" / "examples").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_examples_load(path: Path) -> None:
    """And each has a policy."""
    assert load_config(path).policy.rules


def ssh(**given: object) -> PolicyQuestion:
    """A question of sshd."""
    return PolicyQuestion(door=Door.PAM, username="alice", **({"service": "sshd"} | given))  # type: ignore[arg-type]


def test_the_example_of_a_trusted_network_exempts_only_ssh_from_there() -> None:
    """From outside, from the guests' network and at sudo a code is asked."""
    policy = load_config(ROOT / "config/examples/ssh-trusted-network.yaml").policy
    nobody: frozenset[str] = frozenset()

    inside = policy.decide(ssh(source="10.1.2.3", groups=nobody))
    guests = policy.decide(ssh(source="10.66.2.3", groups=nobody))
    outside = policy.decide(ssh(source="192.0.2.1", groups=nobody))
    sudo = policy.decide(ssh(service="sudo", groups=frozenset({"wheel"})))
    unknown = policy.decide(ssh(service="sudo", groups=None))

    assert (inside.action, inside.rule) == (Action.EXEMPT, "ssh-from-the-office")
    assert [one.rule for one in (guests, outside)] == ["everyone-else"] * 2
    assert (sudo.rule, sudo.factors) == ("admins-are-always-asked-anew", {FactorKind.TOTP})
    assert (unknown.action, unknown.missing) == (Action.DENY, "group")


def test_the_example_of_security_keys_exempts_only_them() -> None:
    """An ordinary key, a password, or no word of sshd needs a code."""
    policy = load_config(ROOT / "config/examples/ssh-security-keys.yaml").policy

    actions = [
        policy.decide(ssh(methods=methods)).action
        for methods in [
            ("publickey sk-ssh-ed25519@openssh.com AAAAGnNr",),
            ("publickey sk-ssh-ed25519@openssh.com",),
            ("publickey ssh-ed25519 AAAA",),
            ("password",),
            (),
        ]
    ]

    assert actions == [Action.EXEMPT, Action.EXEMPT, Action.REQUIRE, Action.REQUIRE, Action.REQUIRE]


def test_the_example_of_enrolment_offers_it_over_ssh_inside() -> None:
    """In the rule, and in the networks."""
    config = load_config(ROOT / "config/examples/enrol-at-login.yaml")
    networks = config.enrolment.networks()

    assert config.policy.decide(ssh()).enrol is Enrol.AT_LOGIN
    assert config.enrolment.grace_days == 14
    assert networks is not None
    assert [networks.holds(source) for source in ("10.9.9.9", "192.0.2.1", None)] == [Fit.HOLDS, Fit.DIFFERS, Fit.UNKNOWN]


def test_every_key_of_a_rule_has_its_effect() -> None:
    """The longest rule there is."""
    config = load(
        """
time_zone: Europe/Berlin
host_groups: web
policy:
  - id: all-of-it
    when:
      door: [pam, radius]
      nas: "ss*"
      users: [ALICE, bob]
      groups: staff
      client_cidr: ["10.0.0.0/8", "-10.66.0.0/16"]
      days: sat-mon
      hours: "22:00-06:00"
      host_groups: [web]
      methods: "publickey *"
    require: [hotp]
    enforce: enrolled_only
    grace: 14d
    trust_window: 8h
    offline: false
    enrol: at_login
    split: separator
    separator: ";"
    allow_recovery: false
    on_missing: skip
"""
    )
    # Tuesday 00:30 in Berlin belongs to Monday's window.
    question = ssh(groups=frozenset({"staff"}), source="10.1.1.1", now=1763422200.0,
                   host_groups=config.host_groups, methods=("publickey x",))  # fmt: skip

    decision = config.policy.decide(question)

    assert decision == Decision(
        rule="all-of-it",
        factors=frozenset({FactorKind.HOTP}),
        enforce=Enforce.ENROLLED_ONLY,
        grace_s=14 * 86_400,
        trust_window_s=8 * 3600,
        offline=False,
        enrol=Enrol.AT_LOGIN,
        grammar=Grammar(SplitMode.SEPARATOR, ";"),
        allow_recovery=False,
    )
    assert config.policy.rules[0].on_missing is OnMissing.SKIP
    assert config.policy.rules[0].line == 5
    assert config.policy.needs_groups


def test_user_patterns_keep_their_case_where_names_do() -> None:
    """A rule must not silently match nobody."""
    config = load("{identity: {fold_case: false}, policy: [{id: a, when: {user: Alice}, deny: true}]}")

    assert config.policy.decide(PolicyQuestion(Door.PAM, "sshd", "Alice")).action is Action.DENY
    assert config.policy.decide(PolicyQuestion(Door.PAM, "sshd", "alice")).action is Action.REQUIRE


def test_relative_paths_start_at_the_folder_of_the_file(tmp_path: Path) -> None:
    """From whatever directory mfad is started."""
    file = tmp_path / "etc" / "mfad.yaml"
    file.parent.mkdir()
    file.write_text(
        "state_dir: ./var/state\nkey_file: ./var/kek\naudit: {json_file: log.jsonl}\n"
        "doors:\n  pam:\n    socket_dir: ./var/run\n"
    )

    config = load_config(file)

    assert config.state_dir == tmp_path / "etc/var/state"
    assert config.key_source == str(tmp_path / "etc/var/kek")
    assert config.doors.pam is not None
    assert config.doors.pam.socket_dir == tmp_path / "etc/var/run"
    assert config.audit.json_file == tmp_path / "etc/log.jsonl"


def test_a_hyphen_is_stderr_and_a_credential_is_no_path() -> None:
    """Neither is taken for a relative path."""
    config = load("key: systemd-creds:mfad-kek\naudit: {json_file: '-'}\n")

    assert config.key_source == "systemd-creds:mfad-kek"
    assert config.audit.json_file == Path("-")


def test_a_service_has_its_own_settings_and_the_doors_for_the_rest() -> None:
    """What it does not say is inherited, not reset."""
    door = load(
        """
doors:
  pam:
    mode: combined
    split: separator
    separator: "::"
    services:
      sshd: {first_factor: done, mode: code}
      sudo:
"""
    ).doors.pam
    assert door is not None

    ssh_settings, sudo, other = (door.settings_for(name) for name in ("sshd", "sudo", "login"))

    assert (ssh_settings.mode, ssh_settings.first_factor) == (PamMode.CODE, PriorFactor.DONE)
    assert {one.grammar for one in (ssh_settings, sudo, other)} == {Grammar(SplitMode.SEPARATOR, "::")}
    assert (sudo.mode, other.mode) == (PamMode.COMBINED, PamMode.COMBINED)


@pytest.mark.parametrize(
    "text", ["doors:", "doors: {pam: }", "doors:\n  pam:\n", "throttle:\npolicy:\nhost_groups:\n", "# nothing\n", "---\n"]
)
def test_an_empty_section_has_its_defaults(text: str) -> None:
    """Commenting out all of a section's keys does not break the file."""
    assert load(text).doors == DEFAULTS.doors


@pytest.mark.parametrize(
    ("text", "places"),
    [
        pytest.param("role: boss", [(1, "role")], id="no role"),
        pytest.param("\nfoo: 1", [(2, "foo")], id="unknown key"),
        pytest.param("totp: {window: 3}", [(1, "totp.window")], id="over the bound"),
        pytest.param("totp: {digits: 7}", [(1, "totp.digits")], id="seven digits"),
        pytest.param("totp: {period: 45s}", [(1, "totp.period")], id="odd period"),
        pytest.param("totp: {window: '1'}", [(1, "totp.window")], id="text for a number"),
        pytest.param("totp: {window: true}", [(1, "totp.window")], id="true for a number"),
        pytest.param("totp: {window: 1.0}", [(1, "totp.window")], id="float for a whole number"),
        pytest.param("totp: 30", [(1, "totp")], id="number for a section"),
        pytest.param("issuer: 'a:b'", [(1, "issuer")], id="colon in the issuer"),
        pytest.param("issuer: yes", [(1, "issuer")], id="yes is no text"),
        pytest.param("throttle: {base: 5}", [(1, "throttle.base")], id="no unit"),
        pytest.param("throttle: {cap: 2d}", [(1, "throttle.cap")], id="time too long"),
        pytest.param("throttle: {hard_cap: 101}", [(1, "throttle.hard_cap")], id="over what NIST allows"),
        pytest.param("enrolment: {grace_days: 0}", [(1, "enrolment.grace_days")], id="no grace days"),
        pytest.param("enrolment: {enrol_networks: [10.0.0.1/8]}", [(1, "enrolment.enrol_networks")], id="host bits"),
        pytest.param("identity: {realms: [a@b]}", [(1, "identity.realms")], id="realm"),
        pytest.param("time_zone: Europe/Berlim", [(1, "time_zone")], id="zone"),
        pytest.param("time_zone: ../../etc/passwd", [(1, "time_zone")], id="zone that is a path"),
        pytest.param("key_file: a\nkey: systemd-creds:b", [(0, "")], id="two keys"),
        pytest.param("key: abc", [(1, "key")], id="key in the file"),
        pytest.param("doors:\n  radius: {}\n  pam: {}", [(2, "doors.radius.clients")], id="radius without clients"),
        pytest.param("doors:\n  ldap: {}\n  pam: {}", [(2, "doors.ldap.upstream")], id="ldap without a directory"),
        pytest.param("doors:\n  ldap: {upstream: ldap://a, primary: {}}", [(2, "doors.ldap.primary")], id="ldap primary"),
        pytest.param("doors: {}", [(1, "doors")], id="no door"),
        pytest.param("doors: {pam: {mode: push}}", [(1, "doors.pam.mode")], id="mode"),
        pytest.param("doors: {pam: {separator: '-'}}", [(1, "doors.pam.separator")], id="separator inside codes"),
        pytest.param("doors: {pam: {prompt: ''}}", [(1, "doors.pam.prompt")], id="empty prompt"),
        pytest.param("doors: {pam: {prompt: \"a\\nb\"}}", [(1, "doors.pam.prompt")], id="prompt of two lines"),
        pytest.param("doors: {pam: {primary: {type: ldap}}}", [(1, "doors.pam.primary.servers")], id="ldap backend"),
        pytest.param("doors: {pam: {services: {../x: {}}}}", [(1, "doors.pam.services.../x")], id="service name"),
        pytest.param(f"doors: {{pam: {{socket_dir: {'x' * 98}}}}}", [(1, "doors.pam.socket_dir")], id="socket path too long"),
        pytest.param(
            "enrolment: {enrol_networks: []}\npolicy: [{id: a, enrol: at_login}]",
            [(2, "enrolment.enrol_networks")],
            id="enrolment nowhere",
        ),
        pytest.param("state_dir: ''", [(1, "state_dir")], id="empty path"),
        pytest.param("state_dir: [a]", [(1, "state_dir")], id="list for a path"),
        pytest.param("policy: {}", [(1, "policy")], id="policy is no list"),
        pytest.param("policy: [null]", [(1, "policy[0].id")], id="empty rule"),
        pytest.param("policy: [x]", [(1, "policy[0]")], id="rule is a word"),
        pytest.param("policy:\n- id: a\n  require: [push]", [(3, "policy[0].require[0]")], id="factor of the future"),
        pytest.param("policy:\n- id: a\n  require: []", [(3, "policy[0].require")], id="no factor"),
        pytest.param("policy:\n- id: a\n  exempt: true\n  deny: true", [(2, "policy[0]")], id="two actions"),
        pytest.param("policy:\n- id: a\n  trust_window: 13h", [(3, "policy[0].trust_window")], id="trust over 12 h"),
        pytest.param("policy:\n- id: a\n  grace: 14", [(3, "policy[0].grace")], id="grace without unit"),
        pytest.param("policy:\n- id: a\n- id: b", [(3, "policy[1].when")], id="rule that cannot be reached"),
        pytest.param(
            "policy:\n- id: a\n  when: {user: x}\n- id: a\n  when: {user: y}", [(4, "policy[1].id")], id="one id twice"
        ),
        pytest.param("policy:\n- id: default\n  when: {user: x}", [(2, "policy[0].id")], id="id of the default"),
        pytest.param("policy:\n- id: a b", [(2, "policy[0].id")], id="id with a blank"),
        pytest.param(
            "policy:\n- id: a\n  when:\n    protocol: radius", [(4, "policy[0].when.protocol")], id="door that is off"
        ),
        pytest.param("policy:\n- id: a\n  when: {door: fax}", [(3, "policy[0].when.door[0]")], id="no door"),
        pytest.param("policy:\n- id: a\n  when: {user: a, users: b}", [(3, "policy[0].when.users")], id="two spellings"),
        pytest.param("policy:\n- id: a\n  when: {user: []}", [(3, "policy[0].when.user")], id="empty condition"),
        pytest.param("policy:\n- id: a\n  when: {user: }", [(3, "policy[0].when.user")], id="condition without a value"),
        pytest.param("policy:\n- id: a\n  when: {hours: }", [(3, "policy[0].when.hours")], id="hours without a value"),
        pytest.param("policy:\n- id: a\n  when: {door: }", [(3, "policy[0].when.door")], id="door without a value"),
        pytest.param("policy:\n- id: a\n  when: {days: []}", [(3, "policy[0].when.days")], id="no days"),
        pytest.param("policy:\n- id: a\n  exempt: true\n  when:\n  # user: x", [(4, "policy[0].when")], id="commented out"),
        pytest.param("policy:\n- id: a\n  when: {user: a@b}", [(3, "policy[0].when.user")], id="user with a realm"),
        pytest.param("policy:\n- id: a\n  when: {group: [no]}", [(3, "policy[0].when.group[0]")], id="a group called no"),
        pytest.param("policy:\n- id: a\n  when: {days: mon-fry}", [(3, "policy[0].when.days")], id="days"),
        pytest.param("policy:\n- id: a\n  when: {hours: '6-22'}", [(3, "policy[0].when.hours")], id="hours"),
        pytest.param("policy:\n- id: a\n  when: {hours: '06:00-06:00'}", [(3, "policy[0].when.hours")], id="no length"),
        pytest.param("policy:\n- id: a\n  when: {hours: '06:00-25:00'}", [(3, "policy[0].when.hours")], id="25 o'clock"),
        pytest.param("policy:\n- id: a\n  when: {hours: 22:00}", [(3, "policy[0].when.hours")], id="YAML's base sixty"),
        pytest.param("policy:\n- id: a\n  when: {hours: '06:00-22:00 Mars/Sea'}", [(3, "policy[0].when.hours")], id="zone"),
        pytest.param("policy:\n- id: a\n  separator: ','", [(2, "policy[0]")], id="separator without split"),
    ],
)
def test_a_mistake_is_told_with_its_place(text: str, places: list[tuple[int, str]]) -> None:
    """Line and key, nothing else complained of."""
    assert problems_of(text) == places


def test_every_mistake_is_told_at_once() -> None:
    """In the order of the lines, whatever the kinds of the mistakes."""
    text = """\
role: boss
issuer: 5
issuer: x
totp:
  window: 9
  windw: 1
doors:
  radius: {}
  pam:
    mode: cod
    services:
      sshd: {promt: x}
policy:
  - id: a
    when: {networks: [10.0.0.0/33]}
  - require: totp
  - id: b
  - id: c
audit: 2026-01-01
"""
    assert problems_of(text) == [
        (1, "role"),
        (2, "issuer"),
        (3, "issuer"),
        (5, "totp.window"),
        (6, "totp.windw"),
        (8, "doors.radius.clients"),
        (10, "doors.pam.mode"),
        (12, "doors.pam.services.sshd.promt"),
        (15, "policy[0].when.networks"),
        (16, "policy[1].id"),
        (18, "policy[3].when"),
        (19, "audit"),
    ]


def test_a_mistyped_key_is_guessed() -> None:
    """The cure names what is perhaps meant."""
    with pytest.raises(ConfigurationProblems, match=r"seen an unknown key, expected one of .*; perhaps grace_days is meant"):
        load("enrolment: {grace_day: 3}")


@pytest.mark.parametrize(
    "text",
    [
        "key: JBSWY3DPEHPK3PXP",
        "doors: {pam: {primary: {password: JBSWY3DPEHPK3PXP}}}",
        "secret: JBSWY3DPEHPK3PXP",
        "doors: {pam: {primary: {type: pam, bind_password: [JBSWY3DPEHPK3PXP]}}}",
        "api_token: !x JBSWY3DPEHPK3PXP",
        "password: *JBSWY3DPEHPK3PXP",
        "password: !JBSWY3DPEHPK3PXP!x 1",
        "password: @JBSWY3DPEHPK3PXP",
        "password: \"JBSWY3DPEHPK3PXP\\q\"",
        "password: 'JBSWY3DPEHPK3PXP",
        "password: %JBSWY3DPEHPK3PXP",
        "password: JBSWY3DPEHPK3PXP: x",
    ],
)
def test_what_may_be_a_secret_is_never_quoted(text: str) -> None:
    """Wherever it stands and whatever is wrong with it."""
    with pytest.raises(ConfigurationProblems) as refused:
        load(text)

    assert "JBSWY3DPEHPK3PXP" not in str(refused.value) + refused.value.cure + repr(refused.value.problems)
    assert refused.value.__cause__ is None


def test_a_file_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    """Absent, or a folder."""
    for path in (tmp_path / "absent.yaml", tmp_path):
        with pytest.raises(ConfigurationError, match="cannot be read") as refused:
            load_config(path)
        assert "--config" in refused.value.cure


FRAGMENTS = st.sampled_from(
    ["role", "doors", "pam", "policy", "when", "id", ": ", "\n", "  ", "- ", "{", "}", "[", "]", "'", '"', "x", "1",
     "10.0.0.0/8", "&a ", "*a", "!", "|", ">", "#", "\t", "null", "true", "<<", "?", ",", "%", "@", "\x00", "\ud800", "ü",
     "2026-01-01", "---\n"]
)  # fmt: skip


def outcome_of(text: bytes) -> Config | ConfigurationProblems:
    """Load it; another exception fails the test."""
    try:
        return load(text)
    except ConfigurationProblems as refused:
        return refused


TEXTS = st.lists(FRAGMENTS, max_size=30).map(lambda parts: "".join(parts).encode("utf-8", "surrogatepass"))


@given(st.binary(max_size=200) | TEXTS)
def test_any_text_is_a_configuration_or_its_problems(text: bytes) -> None:
    """Never another exception, and never a configuration without a door."""
    outcome = outcome_of(text)

    if isinstance(outcome, Config):
        assert outcome.enabled_doors
    else:
        assert outcome.problems
        assert all(line.isprintable() for line in str(outcome).split("\n"))


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["0", "1h", "pam", "sshd"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4) | st.sampled_from(
        ["role", "doors", "pam", "services", "sshd", "policy", "when", "id", "throttle", "totp", "window", "users", "hours"]
    ), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip
KEYS = ["role", "doors", "policy", "totp", "key", "audit", "identity", "limits", "state_dir"]


@given(st.dictionaries(st.sampled_from(KEYS), PLAIN, max_size=4))
def test_any_values_are_a_configuration_or_its_problems(values: dict[str, object]) -> None:
    """The same for files that YAML can read: any type in any place."""
    outcome = outcome_of(json.dumps(values).encode())

    assert isinstance(outcome, Config) or outcome.problems
