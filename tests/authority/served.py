"""An authority that serves on loopback, with people, groups and hosts, on the loop of the test."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import uvloop
from sqlalchemy import Connection

from authority.door import AuthorityDoor
from authority.look import Digests
from authority.own_keys import load_own_keys
from authority.settings import AuthoritySettings
from mfa_core.identity import IdentityRules
from mfa_core.secret import Secret
from mfa_runtime.administration import groups, host_groups, join_tokens
from mfa_runtime.administration.act import Act
from mfa_runtime.config.listen import Endpoint
from mfa_runtime.directory import NoGroups
from mfa_runtime.ledger import Ledger
from mfa_runtime.store.hosts import HostGroup
from mfa_runtime.verification import Rules, Verification
from tests.authority.agent_double import AgentDouble
from tests.doubles import ALICE, BOB, NO_WAITING, NODE, FakeClock, Installation, Person, install
from tests.end_to_end.postgresql import Cluster
from tests.runtime.on_postgresql import install_on

T = TypeVar("T")

RULES = '{"format":1}'
SETTINGS = AuthoritySettings(
    listen=(Endpoint("127.0.0.1", 0),),
    names=("localhost", "127.0.0.1"),
    tls=None,
    rules=RULES,
    host_certificate_s=30 * 86_400.0,
    long_poll_s=50.0,
    suspends=False,
    hard_cap=100,
    max_hosts=100,
    max_verifications=4096,
)


@dataclass
class Served:
    """A running authority."""

    installed: Installation
    folder: Path
    settings: AuthoritySettings
    door: AuthorityDoor
    trust: str
    agents: list[AgentDouble] = field(default_factory=list)

    @property
    def clock(self) -> FakeClock:
        return self.installed.clock

    @property
    def url(self) -> str:
        host, port = self.door.addresses[0]
        return f"https://{host}:{port}"

    def change(self, work: Callable[[Connection, Act], T]) -> T:
        """What an administrator does, in one transaction of its own."""
        with self.installed.store.writing() as connection:
            return work(connection, self.installed.act())

    def token(self, group: str = "web", *, name: str = "", ttl_s: float = 900.0) -> Secret:
        """A token to join with."""
        return self.change(
            lambda connection, act: join_tokens.issue_token(connection, act, group, host_name=name, ttl_s=ttl_s).secret
        )

    def stranger(self, name: str = "web1.example") -> AgentDouble:
        """A host that has not joined."""
        agent = AgentDouble(self.url, self.trust, self.folder, name=name)
        agent.clock = self.clock
        self.agents.append(agent)
        return agent

    async def agent(self, name: str = "web1.example", group: str = "web") -> AgentDouble:
        """A host that has joined."""
        agent = self.stranger(name)
        await agent.join(self.token(group))
        return agent


@asynccontextmanager
async def served(
    folder: Path, *people: Person, settings: AuthoritySettings = SETTINGS, server: Cluster | None = None, **parts: Any
) -> AsyncIterator[Served]:
    """An authority with groups web (everybody may log in) and db (only dba may), in SQLite or in PostgreSQL."""
    parts = {"settings": NO_WAITING, "clock": FakeClock(float(int(time.time()) // 60 * 60)), "node": NODE} | parts
    if server is None:
        installed = install(folder, *(people or (ALICE, BOB)), **parts)
    else:
        installed = install_on(server, folder, *people, **parts)
    with installed.store.writing() as connection:
        act = installed.act()
        for name, users in (("web", "*"), ("db", "dba")):
            host_groups.add_host_group(connection, act, HostGroup(name))
            host_groups.entitle(connection, act, name, users)
        groups.add_to_groups(connection, act, (people or (ALICE,))[0].name, ["dba"])
    try:
        async with beside(installed, folder, settings) as one:
            yield one
    finally:
        installed.close()


@asynccontextmanager
async def beside(
    installed: Installation, folder: Path, settings: AuthoritySettings = SETTINGS, *, node: str = NODE
) -> AsyncIterator[Served]:
    """An authority on a store that is there."""
    ledger = Ledger(
        installed.store, keyring=installed.keyring(), reload_keyring=installed.keyring, node=node, clock=installed.clock,
        sink=installed.sink, records_uses=True,
    )  # fmt: skip
    gate = Verification(
        store=installed.store, ledger=ledger, rules=Rules(IdentityRules(), installed.policy, installed.settings),
        groups=NoGroups(), clock=installed.clock, capacity=10_000,
    )  # fmt: skip
    door = AuthorityDoor(
        settings, installed.store, gate, keyring=lambda: ledger.keyring, reload_keyring=ledger.reload_keys, note=ledger.note,
        tell=ledger.tell, node=node, clock=installed.clock, monotonic=time.monotonic, random=os.urandom,
    )  # fmt: skip
    gate.start()
    agents: list[AgentDouble] = []
    try:
        await door.start()
        assert door._parts is not None
        # However busy this computer is: digests cost nothing here, and are never left out for their price.
        door._parts.feed.digests = Digests(time.monotonic, lambda: 0.0)
        with installed.store.reading() as connection:
            trust = load_own_keys(connection, installed.keyring()).ca.pem
        yield Served(installed, folder, settings, door, trust, agents)
    finally:
        for agent in agents:
            await agent.close()
        await door.stop()
        await gate.stop()
        ledger._session.close()


def run(scenario: Coroutine[Any, Any, T]) -> T:
    """Run a scenario on the kind of loop that mfad has."""
    return uvloop.run(scenario)
