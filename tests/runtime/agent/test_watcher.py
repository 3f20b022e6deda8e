"""A worker of an agent: it hears from the store, and asks only when the authority knows what was decided here."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from mfa_core.audit import AttemptDecided, By, Outcome
from mfa_core.passcode import read_passcode
from mfa_core.secret import Secret
from mfa_core.split import Split
from mfa_runtime.agent.breaker import State
from mfa_runtime.agent.contact import Contact
from mfa_runtime.agent.news import News
from mfa_runtime.agent.watcher import Watcher
from mfa_runtime.config.rules_document import SharedRules
from mfa_runtime.counsel import Alone, Counselled, Referred
from mfa_runtime.protocol.words import JOURNAL, SYNC, VERIFY, Refusal
from mfa_runtime.store import audit_log
from tests.doubles import ALICE, T0, FakeClock, attempt
from tests.runtime.agent.agent_host import AgentHost, until
from tests.runtime.agent.fake_authority import FakeAuthority, hangs


@pytest.fixture
def authority(tmp_path: Path) -> FakeAuthority:
    made = FakeAuthority(tmp_path, FakeClock())
    made.add(ALICE)
    return made


@pytest.fixture
def host(tmp_path: Path, authority: FakeAuthority) -> AgentHost:
    return AgentHost(tmp_path / "host", authority.clock)


class Worker:
    """What a worker process of this host has."""

    def __init__(self, host: AgentHost) -> None:
        self.rules: list[tuple[SharedRules, str]] = []
        self.nodes: list[str] = []
        contact = Contact(
            host.store, keyring=host.keyring, reload_keyring=host.keyring, habits=host.habits, clock=host.clock
        )
        self.watcher = Watcher(
            contact, clock=host.clock, monotonic=time.monotonic, random=os.urandom,
            news=News(rules_came=lambda *heard: self.rules.append(heard), chain_begun=self.nodes.append),
            tell=lambda bodies: None,
        )  # fmt: skip

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Worker]:
        task = asyncio.get_running_loop().create_task(self.watcher.run())
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await self.watcher.stop()

    async def ask(self, event: str) -> Counselled:
        told: asyncio.Future[Counselled] = asyncio.get_running_loop().create_future()
        one = attempt("alice", ALICE.code(T0))
        one.event_id = event  # type: ignore[misc]
        found = (Split(Secret(b""), read_passcode(ALICE.code(T0).encode())),)
        self.watcher.link.ask(Referred(one, "alice", found), told.set_result)
        return await told


def decided_alone(host: AgentHost) -> None:
    """Another process of this host has decided something."""
    with host.store.writing() as connection:
        event = AttemptDecided("ALONE1", T0, "pam", "sshd", "alice", Outcome.REJECTED, by=By.HOST)
        audit_log.append(connection, [event], node="local", keyring=host.keyring())


def test_it_hears_rules_and_chains_and_asks(authority: FakeAuthority, host: AgentHost) -> None:
    async def scenario() -> None:
        worker = Worker(host)
        async with authority.serve():
            await host.join(authority)
            async with host.running(), worker.running():
                await host.online()
                await until(lambda: worker.watcher.link.breaker.asks, "the worker asks")
                assert worker.nodes == ["local"]
                await until(lambda: bool(worker.rules), "the rules are here")
                assert worker.rules[-1][1] == "edge"
                assert not isinstance(await worker.ask("ASKED1"), Alone)

    asyncio.run(scenario())


def test_it_asks_nobody_before_the_journal_is_there(authority: FakeAuthority, host: AgentHost) -> None:
    async def scenario() -> None:
        worker = Worker(host)
        held = asyncio.Event()

        async def waits(_request: web.Request, _body: bytes) -> None:
            await held.wait()

        async with authority.serve():
            await host.join(authority)
            authority.standing_faults[JOURNAL] = waits
            decided_alone(host)
            async with host.running(), worker.running():
                await until(lambda: worker.watcher.link.breaker.state is State.RETURNING, "the authority is found")
                assert isinstance(await worker.ask("ASKED1"), Alone)
                held.set()
                await until(lambda: worker.watcher.link.breaker.asks, "the worker asks")
                assert any(one["id"] == "ALONE1" for one in authority.events())

    asyncio.run(scenario())


@pytest.mark.parametrize(("refusal", "standing"), [(Refusal.REVOKED, "revoked"), (Refusal.QUARANTINED, "quarantined")])
def test_what_it_is_refused_is_in_the_store_before_anybody_decides(
    authority: FakeAuthority, host: AgentHost, refusal: Refusal, standing: str
) -> None:
    """The main process may hear of it a second later."""

    async def scenario() -> None:
        worker = Worker(host)
        async with authority.serve():
            await host.join(authority)
            async with host.running(), worker.running():
                await host.online()
                await until(lambda: worker.watcher.link.breaker.asks, "the worker asks")
                authority.standing_faults = {SYNC: hangs, JOURNAL: hangs}

                async def refuses(_request: web.Request, _body: bytes) -> web.StreamResponse:
                    return authority.refuse(refusal)

                authority.standing_faults[VERIFY] = refuses
                assert isinstance(await worker.ask("ASKED1"), Alone)
                assert host.state.standing == standing

    asyncio.run(scenario())
