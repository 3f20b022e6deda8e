"""What hosts did alone is brought in link by link, once, and makes accounts stricter and nothing else."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, select, update

from mfa_core.audit import GENESIS, By, Outcome, link
from mfa_core.model import CredentialState
from mfa_core.verdict import Reason
from mfa_runtime.administration.hosts import release_host
from mfa_runtime.protocol.reporting import JournalHead
from mfa_runtime.store import audit_log, hosts
from mfa_runtime.store.alarms import Alarm, AlarmKind, list_alarms
from mfa_runtime.store.hosts import HostState
from mfa_runtime.store.schema import audit, audit_head, credentials, otp_uses, throttle
from mfa_runtime.store.schema import hosts as hosts_table
from tests.authority.agent_double import AgentDouble, Refusal, asks_about
from tests.authority.served import SETTINGS, Served, run, served
from tests.doubles import ALICE


def step_of(authority: Served, ago_s: float = 0.0) -> int:
    return int((authority.clock() - ago_s) // 30)


def watermark(authority: Served, credential: int = 1) -> int:
    with authority.installed.store.reading() as connection:
        return int(connection.execute(select(credentials.c.last_step).where(credentials.c.id == credential)).scalar_one())


def consecutive(authority: Served, name: str) -> int:
    with authority.installed.store.reading() as connection:
        query = select(throttle.c.consecutive).where(throttle.c.key == f"account:{name}")
        return int(connection.execute(query).scalar() or 0)


def alarms_of(authority: Served) -> list[Alarm]:
    with authority.installed.store.reading() as connection:
        return list(list_alarms(connection))


def chain_of(authority: Served, node: str) -> list[str]:
    with authority.installed.store.reading() as connection:
        return list(connection.execute(select(audit.c.body).where(audit.c.node == node).order_by(audit.c.seq)).scalars())


def chains_are_whole(authority: Served) -> bool:
    with authority.installed.store.reading() as connection:
        return not any(one.problems for one in audit_log.verify(connection, keyring=authority.installed.keyring()))


def upload_rest(agent: AgentDouble, since: JournalHead) -> Any:
    return agent.upload(agent.bodies[since.seq :], first=since.seq + 1, previous=since.hash)


def test_an_accept_of_a_host_alone_spends_the_code_here(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as authority:
            agent = await authority.agent()
            agent.alone("e1", authority.clock(), step=step_of(authority))
            assert await agent.upload() == agent.head
            assert watermark(authority) == step_of(authority)
            (ruling,) = await agent.verify(asks_about("alice", ALICE.code(authority.clock())))
            assert (ruling.outcome, ruling.reason) == (Outcome.REJECTED, "replayed")
            assert chain_of(authority, f"host:{agent.host_id}:1") == agent.bodies
            assert chains_are_whole(authority)
            assert alarms_of(authority) == []

    run(scenario())


def test_the_same_events_again_change_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as authority:
            agent = await authority.agent()
            failure = {"outcome": Outcome.REJECTED, "reason": Reason.MISMATCH, "failures": 1}
            agent.alone("e1", authority.clock(), **failure)
            agent.alone("e2", authority.clock(), step=step_of(authority))
            await agent.upload()
            first = agent.head
            assert (watermark(authority), consecutive(authority, "alice")) == (step_of(authority), 1)
            assert await agent.upload() == first
            assert await agent.upload(agent.bodies[:1]) == first
            agent.alone("e3", authority.clock(), **failure)
            assert await agent.upload() == agent.head  # two that are here, and a new one
            assert consecutive(authority, "alice") == 2
            assert len(chain_of(authority, f"host:{agent.host_id}:1")) == 3
            assert await asyncio.gather(*(agent.upload() for _ in range(5))) == [agent.head] * 5
            assert consecutive(authority, "alice") == 2
            assert chains_are_whole(authority)

    run(scenario())


def test_what_an_authority_accepted_that_was_put_back_is_spent_again(tmp_path: Path) -> None:
    """Its events of that time are told once more. The same use is no second one; where it was forgotten, it is remembered."""

    async def scenario() -> None:
        async with served(tmp_path) as authority:
            agent = await authority.agent()
            asked = asks_about("alice", ALICE.code(authority.clock()))
            (ruling,) = await agent.verify(asked)
            assert ruling.outcome is Outcome.ACCEPTED
            step = ruling.step
            agent.alone(asked.event_id, authority.clock(), step=step, by=By.AUTHORITY)
            await agent.upload()
            assert (watermark(authority), alarms_of(authority)) == (step, [])
            with authority.installed.store.writing() as connection:  # as it was before
                connection.execute(update(credentials).values(last_step=-1))
                connection.execute(delete(otp_uses))
                connection.execute(delete(audit).where(audit.c.node.like("host:%")))
                connection.execute(delete(audit_head).where(audit_head.c.node.like("host:%")))
                connection.execute(update(hosts_table).values(journal_seq=0, journal_hash=GENESIS))
            agent.alone("refused", authority.clock(), outcome=Outcome.REJECTED, failures=1, by=By.AUTHORITY)
            assert await agent.upload() == agent.head
            assert (watermark(authority), consecutive(authority, "alice"), alarms_of(authority)) == (step, 0, [])
            (again,) = await agent.verify(asks_about("alice", ALICE.code(authority.clock())))
            assert (again.outcome, again.reason) == (Outcome.REJECTED, "replayed")
            assert chains_are_whole(authority)

    run(scenario())


@pytest.mark.parametrize("by", [["host"], {"a": 1}, None, 3, "authority "])
def test_who_decided_is_a_word_or_nobody(tmp_path: Path, by: object) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as authority:
            agent = await authority.agent()
            body = agent.alone("e1", authority.clock(), step=step_of(authority))
            agent.bodies[-1] = body.replace('"by":"host"', f'"by":{json.dumps(by)}')
            assert await agent.upload() == agent.head
            assert watermark(authority) == -1

    run(scenario())


def test_after_a_gap_the_host_hears_from_where_on(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as authority:
            agent = await authority.agent()
            agent.alone("e1", authority.clock())
            await agent.upload()
            here = agent.head
            agent.alone("e2", authority.clock())
            missing = agent.head
            agent.alone("e3", authority.clock())
            assert await upload_rest(agent, missing) == here
            assert await upload_rest(agent, here) == agent.head

    run(scenario())


def test_another_event_than_is_here_is_a_fork_and_nothing_is_kept(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as authority:
            agent = await authority.agent()
            for number in range(3):
                agent.alone(f"e{number}", authority.clock())
            await agent.upload()
            here, bodies = agent.head, list(agent.bodies)
            for changed in (0, 1, 2):
                agent.bodies = list(bodies)
                agent.bodies[changed] = agent.bodies[changed].replace('"alice"', '"mlice"')
                agent.alone("e9", authority.clock(), step=step_of(authority))
                with pytest.raises(Refusal, match="409 journal_fork") as seen:
                    await agent.upload()
                assert seen.value.said.journal == here
            agent.bodies = bodies[:2]
            agent.alone("other", authority.clock(), step=step_of(authority))
            with pytest.raises(Refusal, match="409 journal_fork"):
                await agent.upload([agent.bodies[2]], first=3, previous=link(b"x" * 32, "other"))
            assert watermark(authority) == -1
            assert chain_of(authority, f"host:{agent.host_id}:1") == bodies
            assert [alarm.kind for alarm in alarms_of(authority)] == [AlarmKind.JOURNAL_FORK]

    run(scenario())


def test_a_new_journal_begins_beside_the_old_one(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as authority:
            agent = await authority.agent()
            agent.alone("e1", authority.clock())
            await agent.upload()
            old = list(agent.bodies)
            agent.epoch, agent.bodies = 2, []
            agent.alone("e2", authority.clock(), step=step_of(authority))
            assert await agent.upload() == agent.head
            assert chain_of(authority, f"host:{agent.host_id}:1") == old
            assert chain_of(authority, f"host:{agent.host_id}:2") == agent.bodies
            assert watermark(authority) == step_of(authority)
            agent.epoch, agent.bodies = 1, old
            with pytest.raises(Refusal, match="403 quarantined"):
                await agent.upload()
            assert {alarm.kind for alarm in alarms_of(authority)} == {AlarmKind.JOURNAL_FORK, AlarmKind.CLONE_SUSPECTED}
            with authority.installed.store.reading() as connection:
                host = hosts.find(connection, agent.host_id)
            assert host is not None
            assert host.state is HostState.QUARANTINED

    run(scenario())


def test_a_released_host_with_an_older_journal_begins_a_new_one(tmp_path: Path) -> None:
    """An administrator has found it to be the right one. As soon as it has said what it holds, an older one is a copy again."""

    async def scenario() -> None:
        async with served(tmp_path) as authority:
            agent = await authority.agent()
            agent.alone("e1", authority.clock())
            await agent.upload()
            old = list(agent.bodies)
            agent.epoch, agent.bodies = 3, []
            agent.alone("e2", authority.clock())
            await agent.upload()
            agent.epoch, agent.bodies = 1, old
            with pytest.raises(Refusal, match="403 quarantined"):
                await agent.sync()
            with authority.installed.store.writing() as connection:
                release_host(connection, authority.installed.act(), agent.name)

            for _ in range(2):
                (answer,) = await agent.sync()
                assert answer.journal == "fork"
                with pytest.raises(Refusal, match="409 journal_fork"):
                    await agent.upload()
            agent.epoch, agent.bodies, agent.cursor = 4, [], None
            agent.alone("e3", authority.clock(), step=step_of(authority))
            assert await agent.upload() == agent.head
            assert watermark(authority) == step_of(authority)
            await agent.sync()
            await agent.sync()
            agent.epoch, agent.bodies = 1, old
            with pytest.raises(Refusal, match="403 quarantined"):
                await agent.sync()

    run(scenario())


def test_a_host_that_has_joined_anew_may_begin_with_any_number(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as authority:
            agent = await authority.agent()
            agent.epoch = 7
            agent.alone("e1", authority.clock())
            assert await agent.upload() == agent.head
            assert alarms_of(authority) == []

    run(scenario())


# -- the same code twice ------------------------------------------------------------------------------------------------------


def test_one_code_on_two_hosts_that_were_alone_is_one_alarm(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as authority:
            one, other = await authority.agent(), await authority.agent("web2.example")
            for number, agent in enumerate((one, other)):
                agent.alone(f"e{number}", authority.clock(), step=step_of(authority))
            await one.upload()
            assert alarms_of(authority) == []
            await other.upload()
            await other.upload()
            (alarm,) = alarms_of(authority)
            assert (alarm.kind, alarm.host_id, alarm.user_id) == (AlarmKind.REPLAY_SUSPECTED, other.host_id, 1)
            assert (alarm.details["first_host"], alarm.details["second_host"]) == (one.host_id, other.host_id)
            assert (alarm.details["first_event"], alarm.details["second_event"]) == ("e0", "e1")

    run(scenario())


def test_a_code_that_was_used_here_and_by_a_host_alone_is_an_alarm(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as authority:
            one, other = await authority.agent(), await authority.agent("web2.example")
            await one.verify(asks_about("alice", ALICE.code(authority.clock())))
            other.alone("e1", authority.clock(), step=step_of(authority))
            await other.upload()
            assert [alarm.kind for alarm in alarms_of(authority)] == [AlarmKind.REPLAY_SUSPECTED]

    run(scenario())


@pytest.mark.parametrize("suspends", [False, True])
def test_a_code_that_was_used_twice_suspends_its_credential_where_that_is_wanted(tmp_path: Path, suspends: bool) -> None:
    async def scenario() -> None:
        async with served(tmp_path, settings=replace(SETTINGS, suspends=suspends)) as authority:
            for number, name in enumerate(("web1.example", "web2.example", "web3.example")):
                agent = await authority.agent(name)
                agent.alone(f"e{number}", authority.clock(), step=step_of(authority))
                await agent.upload()
            state = authority.installed.rows("credentials")[0]["state"]
            assert state == (CredentialState.SUSPENDED if suspends else CredentialState.ACTIVE)

    run(scenario())


# -- what a host is not believed ----------------------------------------------------------------------------------------------


def test_what_the_authority_has_ruled_is_not_counted_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as authority:
            agent = await authority.agent()
            asked = asks_about("alice", ALICE.code(authority.clock()))
            await agent.verify(asked)
            agent.alone(asked.event_id, authority.clock(), step=step_of(authority), by=By.AUTHORITY)
            agent.alone("e2", authority.clock(), outcome=Outcome.REJECTED, failures=3, by=By.AUTHORITY)
            await agent.upload()
            assert alarms_of(authority) == []
            assert consecutive(authority, "alice") == 0

    run(scenario())


def test_a_host_spends_no_code_of_users_that_it_is_not_for(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as authority:
            agent = await authority.agent("db1.example", "db")
            agent.alone("e1", authority.clock(), user="bob", credential=2, step=step_of(authority))
            agent.alone("e2", authority.clock(), user="bob", outcome=Outcome.REJECTED, failures=1)
            agent.alone("e3", authority.clock(), user="nobody", outcome=Outcome.REJECTED, failures=1)
            await agent.upload()
            assert watermark(authority, 2) == -1
            assert (consecutive(authority, "bob"), consecutive(authority, "nobody")) == (0, 0)
            with authority.installed.store.reading() as connection:
                assert connection.execute(select(otp_uses)).all() == []

    run(scenario())


def test_a_step_that_is_to_come_locks_nobody_out(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as authority:
            agent = await authority.agent()
            agent.alone("e1", authority.clock(), step=step_of(authority) + 1_000)
            agent.alone("e2", authority.clock(), credential=99, step=1)
            await agent.upload()
            assert watermark(authority) == -1

    run(scenario())


def test_failures_are_counted_up_to_the_cap(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as authority:
            agent = await authority.agent()
            for number in range(120):
                agent.alone(f"e{number}", authority.clock(), outcome=Outcome.REJECTED, failures=1)
            await agent.upload()
            assert consecutive(authority, "alice") == SETTINGS.hard_cap

    run(scenario())


@pytest.mark.parametrize(
    "body",
    [
        "not json",
        "[]",
        '"text"',
        "{}",
        '{"id":"e1"}',
        '{"id":7,"at":1.0}',
        '{"id":"e1","at":"1"}',
        '{"id":"e1","at":true}',
        '{"id":"e1","at":NaN}',
        '{"id":"e1","at":1e300}',
        '{"id":"a b","at":1.0}',
        '{"id":"","at":1.0}',
        "[" * 4_000,
    ],
)
def test_what_is_no_event_is_refused(tmp_path: Path, body: str) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as authority:
            agent = await authority.agent()
            with pytest.raises(Refusal, match="400 bad_request"):
                await agent.upload([body])

    run(scenario())


@pytest.mark.parametrize(
    "more",
    [
        '"outcome":"accepted","credential":7,"step":1',
        '"outcome":"accepted","credential":"totp:0","step":1',
        '"outcome":"accepted","credential":"totp:1","step":"1"',
        '"outcome":"accepted","credential":"totp:1","step":true',
        '"outcome":"accepted","credential":"totp:1","step":-5',
        '"outcome":"accepted","credential":"hotp:1","step":5',
        '"outcome":[],"failures":1',
        '"outcome":"rejected","failures":"1","user":"alice"',
        '"outcome":"rejected","failures":1,"user":7',
        '"outcome":"rejected","failures":1',
    ],
)
def test_an_event_that_says_nothing_of_use_is_kept_and_changes_nothing(tmp_path: Path, more: str) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as authority:
            agent = await authority.agent()
            body = f'{{"at":1.0,"by":"host","event":"attempt","id":"e1",{more}}}'
            head = await agent.upload([body])
            assert head == JournalHead(epoch=1, seq=1, hash=link(GENESIS, body))
            assert watermark(authority) == -1
            assert consecutive(authority, "alice") == 0

    run(scenario())
