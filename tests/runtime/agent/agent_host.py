"""A host with an agent in this process: its store, its gate and what follows its authority."""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from sqlalchemy import select

from mfa_core.identity import IdentityRules
from mfa_core.offline import Moment
from mfa_core.policy import Policy
from mfa_core.verdict import Accepted, Rejected, Unavailable, Verdict
from mfa_core.verifier import Settings
from mfa_runtime.agent.contact import Contact, Habits
from mfa_runtime.agent.follower import Follower
from mfa_runtime.agent.joining import Joined, join
from mfa_runtime.agent.news import News
from mfa_runtime.config.rules_document import SharedRules
from mfa_runtime.directory import NoGroups
from mfa_runtime.key_file import KeyEncryptionKeys
from mfa_runtime.ledger import Ledger
from mfa_runtime.protocol.words import KeyProtection
from mfa_runtime.sealing import Keyring
from mfa_runtime.store import agent_state
from mfa_runtime.store.agent_state import AgentState
from mfa_runtime.store.database import Store
from mfa_runtime.store.key_table import load_keyring
from mfa_runtime.store.schema import audit, credentials, users
from mfa_runtime.verification import Rules, Verification
from tests.doubles import KEK, FakeClock, RecordingSink, attempt, new_store
from tests.runtime.agent.fake_authority import FakeAuthority

BOOT = "boot-one"
PATIENT = Habits(budget_s=20.0, try_s=8.0, retry_s=0.1, sync_wait_s=5.0)
"""For whatever is answered: a machine that is busy loses no authority."""
IMPATIENT = Habits(budget_s=1.0, try_s=0.4, retry_s=0.1, sync_wait_s=5.0)
"""For an authority that says nothing."""
_numbers = itertools.count(1)


@dataclass
class AgentHost:
    """One host. ``boottime_s`` moves with the clock unless a test says otherwise."""

    folder: Path
    clock: FakeClock
    habits: Habits = PATIENT
    boottime_off: float = 0.0
    store: Store = field(init=False)
    sink: RecordingSink = field(default_factory=RecordingSink)
    ledger: Ledger = field(init=False)
    gate: Verification = field(init=False)
    follower: Follower = field(init=False)
    rules_heard: list[tuple[SharedRules, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.folder.mkdir(exist_ok=True)
        self.store = new_store(self.folder)

    def keyring(self) -> Keyring:
        with self.store.reading() as connection:
            return load_keyring(connection, KeyEncryptionKeys((KEK,)), random=os.urandom)

    def moment(self, now: float) -> Moment:
        return Moment(now=now, boottime_s=now - 1_000_000.0 + self.boottime_off, boot_id=BOOT)

    async def join(self, authority: FakeAuthority) -> Joined:
        return await asyncio.to_thread(
            join, self.store, self.keyring(), authority.url, authority.token, "edge-1", KeyProtection.FILE, os.urandom,
            self.clock,
        )  # fmt: skip

    @asynccontextmanager
    async def running(self) -> AsyncIterator[AgentHost]:
        """With its gate and follower at work."""
        self.ledger = Ledger(
            self.store, keyring=self.keyring(), reload_keyring=self.keyring, node="local", clock=self.clock, sink=self.sink,
            moment=self.moment,
        )
        contact = Contact(
            self.store, keyring=lambda: self.ledger.keyring, reload_keyring=self.ledger.reload_keys, habits=self.habits,
            clock=self.clock,
        )
        self.follower = Follower(
            contact, clock=self.clock, monotonic=time.monotonic, moment=self.moment, random=os.urandom,
            news=News(rules_came=self.take_rules, chain_begun=self.ledger.begin_chain), tell=self.ledger.tell,
        )
        self.gate = Verification(
            store=self.store, ledger=self.ledger, rules=Rules(IdentityRules(), Policy(), Settings()), groups=NoGroups(),
            clock=self.clock, capacity=1000, counsel=self.follower.link,
        )  # fmt: skip
        self.gate.start()
        task = asyncio.get_running_loop().create_task(self.follower.run())
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await self.follower.stop()
            await self.gate.stop()
            self.ledger._session.close()

    def take_rules(self, shared: SharedRules, host_group: str) -> None:
        self.rules_heard.append((shared, host_group))
        settings = Settings(window=shared.window, max_drift=shared.max_drift, scope=host_group)
        self.gate.replace_rules(Rules(shared.identity, shared.policy, settings, frozenset({host_group})), {})

    async def login(self, name: str, code: str, **values: object) -> Verdict:
        asked = attempt(name, code, **values)  # type: ignore[arg-type]
        return await self.gate.decide(replace(asked, event_id=f"EVENT{next(_numbers):08d}"))

    async def says(self, name: str, code: str, **values: object) -> str:
        """A login in a word: accepted, or why not."""
        verdict = await self.login(name, code, **values)
        if isinstance(verdict, Rejected | Unavailable):
            return verdict.reason.value
        return "accepted" if isinstance(verdict, Accepted) else type(verdict).__name__.lower()

    # -- what its store says

    @property
    def state(self) -> AgentState:
        with self.store.reading() as connection:
            found = agent_state.load(connection)
        assert found is not None
        return found

    def names(self) -> list[str]:
        with self.store.reading() as connection:
            return list(connection.execute(select(users.c.name).order_by(users.c.id)).scalars())

    def materials(self) -> dict[str, str]:
        query = select(users.c.name, credentials.c.material).join(credentials, credentials.c.user_id == users.c.id)
        with self.store.reading() as connection:
            return {row.name: row.material for row in connection.execute(query)}

    def watermark(self, name: str) -> int:
        query = select(credentials.c.last_step).join(users, credentials.c.user_id == users.c.id).where(users.c.name == name)
        with self.store.reading() as connection:
            return int(connection.execute(query).scalar_one())

    def actions(self) -> list[str]:
        """The administrative events of its log."""
        import json

        with self.store.reading() as connection:
            bodies = [json.loads(body) for body in connection.execute(select(audit.c.body).order_by(audit.c.at)).scalars()]
        return [body["action"] for body in bodies if body["event"] == "admin"]

    async def online(self) -> None:
        await until(lambda: self.follower.link.breaker.asks, "the host asks its authority")

    async def offline(self) -> None:
        await until(lambda: not self.follower.link.breaker.asks, "the host knows that its authority is gone")


async def until(holds: Callable[[], bool], what: str, *, seconds: float = 20.0) -> None:
    """Wait for something that happens beside."""
    end = asyncio.get_running_loop().time() + seconds
    while not holds():
        assert asyncio.get_running_loop().time() < end, f"in vain: {what}"
        await asyncio.sleep(0.01)
