"""mfad with the role of an authority: a process of its own, whose store mfactl changes from another one."""

from __future__ import annotations

import asyncio
import os
import socket
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest
import yaml
from sqlalchemy import Connection

from authority.own_keys import load_own_keys
from mfa_core.audit import Outcome
from mfa_core.secret import Secret
from mfa_runtime.administration.act import Act
from mfa_runtime.administration.host_groups import add_host_group, entitle
from mfa_runtime.administration.join_tokens import issue_token
from mfa_runtime.config import load_config
from mfa_runtime.protocol.syncing import rules_digest
from mfa_runtime.store.hosts import HostGroup
from mfa_runtime.store.opening import open_store
from mfad.build import load_ring
from tests.authority.agent_double import AgentDouble, Refusal, asks_about
from tests.authority.served import run
from tests.end_to_end.daemon import Mfad

T = TypeVar("T")


def free_port() -> int:
    """A TCP port of loopback that nobody has at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Site:
    """A running authority without doors, and what a host needs to join it."""

    mfad: Mfad
    port: int
    metrics: int
    folder: Path

    def settings(self, **more: object) -> dict[str, object]:
        return {
            "role": "authority", "state_dir": "./state", "key_file": "./kek", "log_level": "debug",
            "authority": {"listen": [f"127.0.0.1:{self.port}"]}, "metrics": {"listen": f"127.0.0.1:{self.metrics}"}, **more,
        }  # fmt: skip

    def configure(self, **more: object) -> None:
        self.mfad.config_path.write_text(yaml.safe_dump(self.settings(**more)))

    def stranger(self) -> AgentDouble:
        """A host that trusts the CA in the store."""
        trust = self.change(lambda connection, act: load_own_keys(connection, act.keyring).ca.pem)
        agent = AgentDouble(f"https://127.0.0.1:{self.port}", trust, self.folder)
        agent.clock = time.time
        return agent

    def token(self) -> Secret:
        """A token to join with."""
        return self.change(lambda connection, act: issue_token(connection, act, "edge").secret)

    def change(self, work: Callable[[Connection, Act], T]) -> T:
        """What an administrator does, where it does not matter that it is a command."""
        config = load_config(self.mfad.config_path)
        store = open_store(config.store_place)
        try:
            keyring = load_ring(store, config)
            with store.writing() as connection:
                return work(connection, Act("tester", time.time(), os.urandom, keyring))
        finally:
            store.close()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    one = Site(Mfad(folder / "mfad"), free_port(), free_port(), folder)
    one.configure()
    one.mfad.init()

    def group(connection: Connection, act: Act) -> None:
        add_host_group(connection, act, HostGroup("edge"))
        entitle(connection, act, "edge", "*")

    one.change(group)
    one.mfad.start()
    yield one
    one.mfad.close()


def test_what_mfactl_does_reaches_a_host_that_waits(site: Site) -> None:
    assert f"HTTPS on 127.0.0.1:{site.port}" in site.mfad.log()

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        agent = site.stranger()
        await agent.join(site.token())
        await agent.sync()
        assert agent.users == {}
        waits = asyncio.create_task(agent.sync(wait_s=50.0))
        person = await loop.run_in_executor(None, site.mfad.enrol, "carol")
        await waits
        while not agent.secrets:  # the user comes first, and then her credential, where the poll saw them apart
            await agent.sync(wait_s=50.0)
        assert [user.name for user in agent.users.values()] == ["carol"]
        (ruling,) = await agent.verify(asks_about("carol", person.next_code()))
        assert ruling.outcome is Outcome.ACCEPTED
        waits = asyncio.create_task(agent.sync(wait_s=50.0))
        await loop.run_in_executor(None, site.mfad.mfactl, "agent", "revoke", agent.name)
        with pytest.raises(Refusal, match="403 revoked"):
            await waits
        await agent.close()

    run(scenario())
    with urllib.request.urlopen(f"http://127.0.0.1:{site.metrics}/metrics") as answer:
        text = answer.read().decode()
    assert 'mfad_authority_requests_total{path="/v1/join",result="ok"} 1.0' in text
    assert 'mfad_authority_verifications_total{outcome="accepted"} 1.0' in text
    assert 'mfad_authority_requests_total{path="/v1/sync",result="revoked"} 1.0' in text


def test_a_reload_brings_new_rules_to_hosts_and_the_keys_stay(site: Site) -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        agent = site.stranger()
        await agent.join(site.token())
        await agent.sync()
        before = agent.rules
        waits = asyncio.create_task(agent.sync(wait_s=50.0))
        site.configure(policy=[{"id": "ssh", "when": {"service": ["sshd"]}, "enforce": "all"}])
        await loop.run_in_executor(None, site.mfad.reload)
        await waits
        assert agent.rules != before
        assert "sshd" in agent.rules
        assert (await agent.ask()).rules is None
        assert rules_digest(agent.rules) != rules_digest(before)
        await agent.close()
        await loop.run_in_executor(None, site.mfad.stop)
        site.mfad.launch()
        await loop.run_in_executor(None, site.mfad.wait_until_ready)
        (answer,) = await agent.sync()  # the same CA, the same signing key, the same place in the feed
        assert not answer.full
        await agent.close()

    run(scenario())
