"""The parts of an agent: its doors read names as its authority does, and the numbers of all its processes are added."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from mfa_core.identity import IdentityRules
from mfa_runtime.config import Config, load_config_text
from mfa_runtime.config.rules_document import SharedRules, read_rules
from mfa_runtime.key_file import KeyEncryptionKeys, write_key_file
from mfa_runtime.store import agent_state
from mfad.agent import ALONE, ASKED, agent_readings
from mfad.build import Parts, build
from tests.doubles import KEK, agent_state_row, install

FILE = """
role: agent
state_dir: {place}
key_file: {place}/kek
doors:
  radius:
    listen: ["127.0.0.1:18120"]
    clients: [{{name: nas, network: 127.0.0.1, secret_file: {place}/secret}}]
"""


@pytest.fixture
def config(tmp_path: Path) -> Config:
    (tmp_path / "secret").write_text("a-secret-of-a-nas-that-is-long\n")
    (tmp_path / "secret").chmod(0o600)
    write_key_file(tmp_path / "kek", KeyEncryptionKeys((KEK,)))
    installed = install(tmp_path)
    with installed.store.writing() as connection:
        agent_state.save(connection, agent_state_row(rules=rules_with('"realms":["CORP"]')))
    installed.close()
    return load_config_text(FILE.format(place=tmp_path), name="mfad.yaml", base=tmp_path)


def rules_with(names: str) -> str:
    """Rules as an authority sends them."""
    text = load_config_text("role: authority\n", name="mfad.yaml", base=Path("/")).rules
    changed = text.replace('"realms":[]', names)
    assert changed != text
    return changed


def shared(names: str) -> SharedRules:
    return read_rules(rules_with(names))


def realms(parts: Parts) -> tuple[object, object]:
    """Those of the gate, and those of a door."""
    assert parts.radius is not None
    return parts.gate._rules.identity.realms, parts.radius.settings.realms


def test_the_doors_of_an_agent_read_names_as_its_authority_does(config: Config) -> None:
    async def scenario() -> None:
        parts = build(config)
        try:
            assert config.identity == IdentityRules()
            known = parts.gate._rules.identity.realms
            assert known
            assert realms(parts) == (known, known)
            parts.take_rules(shared('"realms":["OTHER"]'), "edge")
            others = parts.gate._rules.identity.realms
            assert others != known
            assert realms(parts) == (others, others)
            parts.reload(config)
            assert realms(parts) == (others, others)
        finally:
            parts.store.close()

    asyncio.run(scenario())


def test_the_logins_of_all_processes_are_added(config: Config) -> None:
    async def scenario() -> None:
        parts = build(config)
        try:
            assert parts.agent is not None
            parts.agent.link.asked, parts.agent.link.alone = 1, 2
            read = agent_readings(parts.agent, [{"asked": 10, "alone": 20}, {"asked": 100, "alone": 200}])
            found = {one.family: one.value for one in read}
            assert (found[ASKED], found[ALONE]) == (111, 222)
        finally:
            parts.store.close()

    asyncio.run(scenario())
