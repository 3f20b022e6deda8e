"""Several authorities in front of one PostgreSQL: one set of keys, one feed, and a code is good once at all of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from mfa_core.audit import Outcome
from mfa_runtime.administration import groups, users
from mfa_runtime.administration.hosts import revoke_host
from mfa_runtime.store.alarms import AlarmKind, list_alarms
from tests.authority.agent_double import Refusal, asks_about
from tests.authority.served import Served, beside, run, served
from tests.authority.test_sync import until
from tests.doubles import ALICE, BOB
from tests.end_to_end.postgresql import Cluster


@asynccontextmanager
async def two(server: Cluster, folder: Path) -> AsyncIterator[tuple[Served, Served]]:
    """Two authorities of one store."""
    async with served(folder, server=server) as first, beside(first.installed, folder, node="second") as second:
        yield first, second


def test_a_host_that_joined_one_is_known_to_the_other(postgresql: Cluster, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with two(postgresql, tmp_path) as (first, second):
            assert first.trust == second.trust
            agent = await first.agent()
            await agent.sync()
            await agent.turn_to(second.url)
            (answer,) = await agent.sync()
            assert not answer.full
            assert sorted(user.name for user in agent.users.values()) == ["alice", "bob"]
            waits = asyncio.create_task(agent.sync(wait_s=50.0))
            await until(lambda: second.door.counters()["waiting"] == 1)
            first.change(lambda connection, act: users.lock(connection, act, "bob"))
            (answer,) = await waits
            assert [user.name for user in answer.users] == ["bob"]
            new = await agent.renew()
            await agent.turn_to(first.url)
            await agent.use(new)
            await agent.sync()
            first.change(lambda connection, act: revoke_host(connection, act, agent.name))
            await agent.turn_to(second.url)
            with pytest.raises(Refusal, match="403 revoked"):
                await agent.sync()

    run(scenario())


def test_one_code_is_accepted_by_one_of_them(postgresql: Cluster, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with two(postgresql, tmp_path) as (first, second):
            agents = [await one.agent(f"web{n}.example") for n in range(4) for one in (first, second)[n % 2 : n % 2 + 1]]
            code = ALICE.code(first.clock())
            answers = await asyncio.gather(*(agent.verify(asks_about("alice", code)) for agent in agents * 2))
            outcomes = sorted(ruling.outcome for (ruling,) in answers)
            assert outcomes == [Outcome.ACCEPTED, *[Outcome.REJECTED] * 7]
            # A host that lost the answer asks the other authority, and hears the same.
            asked = asks_about("bob", BOB.code(first.clock()))
            (ruling,) = await agents[0].verify(asked)
            await agents[0].turn_to(second.url)
            (again,) = await agents[0].verify(asked)
            assert (again.outcome, again.credential, again.step) == (Outcome.ACCEPTED, ruling.credential, ruling.step)

    run(scenario())


def test_a_journal_that_one_took_in_counts_at_the_other(postgresql: Cluster, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with two(postgresql, tmp_path) as (first, second):
            one, other = await first.agent(), await second.agent("web2.example")
            step = int(first.clock() // 30)
            one.alone("e1", first.clock(), step=step)
            one.alone("e2", first.clock(), outcome=Outcome.REJECTED, failures=1)
            other.alone("e3", first.clock(), step=step)
            heads = await asyncio.gather(one.upload(), one.upload(), one.upload(), return_exceptions=True)
            assert one.head in heads
            assert await one.upload() == one.head
            await other.upload()
            (ruling,) = await other.verify(asks_about("alice", ALICE.code(first.clock())))
            assert (ruling.outcome, ruling.reason) == (Outcome.REJECTED, "replayed")
            with first.installed.store.reading() as connection:
                assert [alarm.kind for alarm in list_alarms(connection)] == [AlarmKind.REPLAY_SUSPECTED]

    run(scenario())


def test_scopes_and_tombstones_are_the_same_there(postgresql: Cluster, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path, server=postgresql) as authority:
            agent = await authority.agent("db1.example", "db")
            await agent.sync()
            assert sorted(user.name for user in agent.users.values()) == ["alice"]
            authority.change(lambda connection, act: groups.add_to_groups(connection, act, "bob", ["dba"]))
            authority.change(lambda connection, act: groups.remove_from_groups(connection, act, "alice", ["dba"]))
            (answer,) = await agent.sync()
            assert (answer.full, answer.gone) == (False, (1,))
            assert sorted(user.name for user in agent.users.values()) == ["bob"]
            assert answer.digest == agent.digest

    run(scenario())
