"""The section `agent`, and what goes with that role."""

from __future__ import annotations

from pathlib import Path

import pytest

from mfa_runtime.config import DEFAULTS, Config, ConfigurationProblems, load_config, load_config_text

ROOT = Path(__file__).parents[2]
BASE = Path("/etc/mfad")


def load(text: str) -> Config:
    """Load ``text`` as if it stood in /etc/mfad."""
    return load_config_text(text, name="mfad.yaml", base=BASE)


def test_the_commented_file_says_what_the_defaults_are() -> None:
    """config/agent.yaml has every key, each with its default."""
    text = (ROOT / "config" / "agent.yaml").read_text()

    assert load_config(ROOT / "config" / "agent.yaml").agent == DEFAULTS.agent
    assert [name for name in ("authorities", "budget", "try", "retry", "sync_wait") if f"{name}:" not in text] == []


def test_every_key_is_read() -> None:
    """Times as seconds, URLs in one spelling."""
    found = load(
        """\
role: agent
agent:
  authorities: ["https://MFA.example.org:18443/", "https://[2001:db8::7]"]
  budget: 2.5s
  try: 500ms
  retry: 1m
  sync_wait: 0
"""
    ).agent

    assert found.authorities == ("https://mfa.example.org:18443", "https://[2001:db8::7]")
    assert (found.budget, found.attempt_s, found.retry, found.sync_wait) == (2.5, 0.5, 60.0, 0)


def test_what_says_nothing_of_its_own_may_stay() -> None:
    """A file that was a standalone host's becomes an agent's by its role alone."""
    assert load("role: agent\npolicy: []\nidentity: {fold_case: true, realms: []}").policy.rules == ()


@pytest.mark.parametrize(
    ("text", "places"),
    [
        pytest.param("agent: {}", [(1, "agent")], id="standalone with an agent's settings"),
        pytest.param("role: agent\nauthority: {}", [(2, "authority")], id="agent with an authority's settings"),
        pytest.param("role: agent\ndoors: {}", [(2, "doors")], id="no door"),
        pytest.param("role: agent\npolicy:\n- id: a", [(2, "policy")], id="a policy"),
        pytest.param("role: agent\nidentity: {realms: [CORP]}", [(2, "identity")], id="names"),
        pytest.param("role: agent\nidentity:\n  fold_case: false", [(2, "identity")], id="the case of names"),
        pytest.param("role: agent\nhost_groups: [a]", [(2, "host_groups")], id="host groups"),
        pytest.param("role: agent\nstore: {url: postgresql://a/b}", [(2, "store.url")], id="a database"),
        pytest.param(
            "role: agent\ndoors:\n  pam: {primary: {type: local}}", [(3, "doors.pam.primary.type")], id="local passwords"
        ),
        pytest.param("role: agent\nagent: {try: 4s}", [(2, "agent.try")], id="more than the budget"),
        pytest.param("role: agent\nagent: {tri: 1s}", [(2, "agent.tri")], id="mistyped"),
        pytest.param("role: agent\nagent: {attempt_s: 1s}", [(2, "agent.attempt_s")], id="our own name of it"),
        pytest.param("role: agent\nagent: {budget: 3}", [(2, "agent.budget")], id="no unit"),
        pytest.param("role: agent\nagent: {budget: 31s}", [(2, "agent.budget")], id="too long"),
        pytest.param("role: agent\nagent: {retry: 0s}", [(2, "agent.retry")], id="without a pause"),
        pytest.param("role: agent\nagent: {authorities: http://a}", [(2, "agent.authorities")], id="in clear"),
        pytest.param("role: agent\nagent: {authorities: https://a/b}", [(2, "agent.authorities")], id="a path"),
        pytest.param("role: agent\nagent: {authorities: 'https://u:p@a'}", [(2, "agent.authorities")], id="a password"),
        pytest.param("role: agent\nagent: {authorities: https://a:0}", [(2, "agent.authorities")], id="port"),
        pytest.param("role: agent\nagent: {authorities: 'https://[1.2.3.4]'}", [(2, "agent.authorities")], id="IPv4"),
        pytest.param("role: agent\nagent: {authorities: [https://a, https://A/]}", [(2, "agent.authorities")], id="twice"),
    ],
)
def test_a_mistake_is_told_with_its_place(text: str, places: list[tuple[int, str]]) -> None:
    """Line and key, nothing else complained of."""
    with pytest.raises(ConfigurationProblems) as refused:
        load(text)

    assert [(problem.line, problem.key) for problem in refused.value.problems] == places
