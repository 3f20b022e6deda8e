"""The section `authority`, and what goes with that role."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mfa_core.errors import ConfigurationError
from mfa_core.model import Door
from mfa_core.policy import Action, PolicyQuestion
from mfa_runtime.config import DEFAULTS, Config, ConfigurationProblems, load_config, load_config_text
from mfa_runtime.config.authority_section import Authority, AuthorityTls, OnReplay
from mfa_runtime.config.listen import Endpoint
from mfa_runtime.config.rules_document import read_rules
from mfa_runtime.config.sections import Role

ROOT = Path(__file__).parents[2]
BASE = Path("/etc/mfad")


def load(text: str) -> Config:
    """Load ``text`` as if it stood in /etc/mfad."""
    return load_config_text(text, name="mfad.yaml", base=BASE)


def test_the_commented_file_says_what_the_defaults_are() -> None:
    """config/authority.yaml has every key, each with its default."""
    text = (ROOT / "config" / "authority.yaml").read_text()

    assert load_config(ROOT / "config" / "authority.yaml").authority == DEFAULTS.authority
    assert [name for name in [*Authority.model_fields, *AuthorityTls.model_fields] if f"{name}:" not in text] == []


def test_an_authority_needs_no_door() -> None:
    """It listens for hosts. Doors that are listed are there as anywhere."""
    assert load("role: authority").enabled_doors == frozenset()
    assert load("role: authority\ndoors:").enabled_doors == frozenset()
    assert load("role: authority\ndoors: {}").enabled_doors == frozenset()
    assert load("role: authority\ndoors: {pam: {}}").enabled_doors == {Door.PAM}


def test_its_rules_may_name_the_doors_of_hosts() -> None:
    """A rule for RADIUS is not blamed for a door that the authority itself has not."""
    assert load("role: authority\npolicy:\n- {id: vpn, when: {door: radius}}").policy.rules


def test_two_authorities_on_one_database() -> None:
    """The example means what it says."""
    config = load_config(ROOT / "config" / "examples" / "two-authorities.yaml")

    assert config.role is Role.AUTHORITY
    assert config.authority.name == "mfa1"
    assert config.store.url.startswith("postgresql://mfad@db1.example.org,db2.example.org/mfad?sslmode=verify-full")


def test_a_star_is_all_addresses_of_both_families() -> None:
    """As at the doors."""
    [found] = load('role: authority\nauthority: {listen: ["*:8443"]}').authority.listen

    assert (str(found), found.hosts) == ("*:8443", ("0.0.0.0", "::"))


def test_every_key_is_read() -> None:
    """Times as seconds, places from the folder of the file."""
    found = load(
        """\
role: authority
authority:
  listen: ["192.0.2.7:443", "[2001:db8::7]:443"]
  name: mfa1
  certificate_names: [mfa.example.org, 192.0.2.7, "2001:db8::7", "*.example.org"]
  tls: {certificate_file: a.pem, key_file: a.key}
  trust_file: ca.pem
  host_certificate: 12h
  long_poll: 0
  on_replay: suspend
  max_hosts: 5
  max_verifications: 6
"""
    ).authority

    assert found.listen == (Endpoint("192.0.2.7", 443), Endpoint("2001:db8::7", 443))
    assert found.tls is not None
    assert (found.tls.certificate_file, found.trust_file) == (BASE / "a.pem", BASE / "ca.pem")
    assert (found.host_certificate, found.long_poll) == (43_200, 0)
    assert found.on_replay is OnReplay.SUSPEND
    assert (found.max_hosts, found.max_verifications) == (5, 6)


@pytest.mark.parametrize(
    ("text", "places"),
    [
        pytest.param("authority: {}", [(1, "authority")], id="standalone with an authority's settings"),
        pytest.param("role: authority\nagent: {}", [(2, "agent")], id="authority with an agent's settings"),
        pytest.param("doors: {}", [(1, "doors")], id="standalone without a door"),
        pytest.param(
            "role: authority\nauthority:\n  listen: [127.0.0.1:1, 127.0.0.1:1]", [(3, "authority.listen[1]")], id="one twice"
        ),
        pytest.param("role: authority\nauthority: {listen: []}", [(2, "authority.listen")], id="nowhere"),
        pytest.param("role: authority\nauthority: {listen: ['*']}", [(2, "authority.listen[0]")], id="no port"),
        pytest.param("role: authority\nauthority: {listen: ['a.example:1']}", [(2, "authority.listen[0]")], id="a name"),
        pytest.param("role: authority\nauthority: {listen: [null]}", [(2, "authority.listen[0]")], id="null"),
        pytest.param("role: authority\nauthority: {name: 'host:7:1'}", [(2, "authority.name")], id="a host's chain"),
        pytest.param(
            "role: authority\nauthority: {certificate_names: [https://a]}", [(2, "authority.certificate_names")], id="a URL"
        ),
        pytest.param(
            "role: authority\nauthority: {certificate_names: [1.2.3]}", [(2, "authority.certificate_names")], id="half"
        ),
        pytest.param(
            "role: authority\nauthority: {certificate_names: []}", [(2, "authority.certificate_names")], id="no name"
        ),
        pytest.param(
            "role: authority\nauthority: {tls: {key_file: a}}", [(2, "authority.tls.certificate_file")], id="half a pair"
        ),
        pytest.param(
            "role: authority\nauthority: {tls: {key_file: a, certificate_file: b}}", [(2, "authority.tls")], id="no trust"
        ),
        pytest.param("role: authority\nauthority: {trust_file: a}", [(2, "authority.trust_file")], id="trust alone"),
        pytest.param("role: authority\nauthority: {long_poll: 51s}", [(2, "authority.long_poll")], id="too long a wait"),
        pytest.param("role: authority\nauthority: {host_certificate: 5m}", [(2, "authority.host_certificate")], id="5m"),
        pytest.param("role: authority\nauthority: {on_replay: ignore}", [(2, "authority.on_replay")], id="ignore"),
        pytest.param("role: authority\nauthority: {max_hosts: 0}", [(2, "authority.max_hosts")], id="no hosts"),
    ],
)
def test_a_mistake_is_told_with_its_place(text: str, places: list[tuple[int, str]]) -> None:
    """Line and key, nothing else complained of."""
    with pytest.raises(ConfigurationProblems) as refused:
        load(text)

    assert [(problem.line, problem.key) for problem in refused.value.problems] == places


RULES = """\
role: authority
time_zone: Europe/Berlin
identity: {fold_case: false, realms: [example.org]}
totp: {window: 2, max_drift: 5}
policy:
- {id: hours, when: {hours: "08:00-18:00", network: 10.0.0.0/8, host_group: servers}, deny: true}
- {id: svc, when: {user: Svc-*}, exempt: true}
"""


def test_the_rules_of_an_authority_mean_the_same_on_a_host() -> None:
    """Written and read again: the same rules, and the settings that they depend on."""
    config = load(RULES)

    shared = read_rules(config.rules)

    assert [replace(rule, line=0) for rule in config.policy.rules] == list(shared.policy.rules)
    assert (shared.identity, shared.window, shared.max_drift) == (config.identity, 2, 5)
    assert shared.time_zone == config.time_zone
    question = PolicyQuestion(Door.PAM, "sshd", "Svc-backup")
    assert shared.policy.decide(question).action is Action.EXEMPT


def test_the_same_file_gives_the_same_rules() -> None:
    """Hosts compare a digest; and what does not change a rule does not change it."""
    assert load(RULES).rules == load(f"# a comment\n{RULES}\nlog_level: debug\n").rules
    assert load(RULES).rules != load(RULES.replace("18:00", "19:00")).rules


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[]", "[" * 100_000, '{"format":2}', '{"format":true,"x":1}', '{"format":1,"policy":[{"id":"a","new":1}]}',
     '{"format":1,"policy":[{"id":"a"},{"id":"a"}]}', '{"format":1,"policy":{}}', '{"format":1,"time_zone":"Mars/Sea"}'],
)  # fmt: skip
def test_rules_that_mean_nothing_here_are_refused(text: str) -> None:
    """A rule of a newer version must not turn into one without its condition."""
    with pytest.raises(ConfigurationError) as refused:
        read_rules(text)

    assert refused.value.cure
