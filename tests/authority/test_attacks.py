"""A host that belongs and means harm, and people who type anything: what may not come of it at the authority."""

from __future__ import annotations

import asyncio
import json
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from authority.look import Place
from authority.verifying import _BEFORE, SAME_ID
from mfa_core.audit import Outcome
from mfa_core.model import FirstFactor, Interaction
from mfa_core.passcode import PasscodeKind
from mfa_core.policy import Action
from mfa_core.secret import Secret
from mfa_core.verdict import Reason
from mfa_core.verifier import Password
from mfa_runtime.administration import users
from mfa_runtime.protocol.verifying import Reading
from mfa_runtime.protocol.words import SYNC, VERIFY
from mfa_runtime.store import audit_log
from mfa_runtime.store.schema import throttle
from tests.authority.agent_double import Refusal, asks_about
from tests.authority.served import run, served
from tests.authority.test_sync import until
from tests.doubles import ALICE, BOB, default_policy


@pytest.mark.parametrize("name", ["b\udcff", "a\0b", "Zo\u00eb", "a b", ""])
def test_what_somebody_typed_in_place_of_a_name_holds_no_journal_up(tmp_path: Path, name: str) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as authority:
            agent = await authority.agent()
            now = authority.clock()
            agent.alone("e1", now, user=name, outcome=Outcome.REJECTED, reason=Reason.USERNAME_REFUSED, failures=1)
            agent.alone("e2", now, user="alice", outcome=Outcome.REJECTED, reason=Reason.MISMATCH, failures=1)
            assert await agent.upload() == agent.head
            with authority.installed.store.reading() as connection:
                charged = connection.execute(select(throttle.c.key, throttle.c.consecutive)).all()
            assert [tuple(row) for row in charged] == [("account:alice", 1)]

    run(scenario())


def test_events_that_are_dated_ahead_do_not_hide_later_ones(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as authority:
            agent = await authority.agent()
            agent.alone("e1", authority.clock() + 1e9, outcome=Outcome.REJECTED, reason=Reason.MISMATCH)
            await agent.upload()
            authority.clock.now += 1.0
            authority.change(lambda connection, act: users.lock(connection, act, "bob"))
            with authority.installed.store.reading() as connection:
                (last,) = audit_log.tail(connection, limit=1)
            assert json.loads(last.body)["action"] == "user.lock"

    run(scenario())


@pytest.mark.parametrize("since", [-1, None])
def test_a_page_that_lies_ahead_spoils_nothing_for_other_hosts(tmp_path: Path, since: int | None) -> None:
    """What is kept for all hosts of a scope stands under the number of a change: nobody may put something there beforehand."""

    async def scenario() -> None:
        async with served(tmp_path) as authority:
            evil, good = await authority.agent("evil.example"), await authority.agent("good.example")
            await evil.sync()
            await good.sync()
            assert evil.cursor is not None
            seq = evil.cursor.seq
            for ahead in range(1, 8):
                place = Place(seq, seq + ahead, seq if since is None else since, 0, False, evil.cursor.generation)
                await evil.ask(page=place.text())
            authority.change(lambda connection, act: users.lock(connection, act, "bob"))
            (answer,) = await good.sync()  # the double compares the digest
            assert [(user.name, user.locked) for user in answer.users] == [("bob", True)]
            assert answer.digest == good.digest

    run(scenario())


@pytest.mark.parametrize("locked", [False, True])
@pytest.mark.parametrize("first_factor", [FirstFactor.OURS, FirstFactor.ELSEWHERE])
def test_an_exemption_is_no_way_to_charge_who_may_not_log_in_there(
    tmp_path: Path, first_factor: FirstFactor, locked: bool
) -> None:
    """Which rule holds depends on what the host says: such a rule must give it nothing about other people's accounts."""

    async def scenario() -> None:
        async with served(tmp_path, policy=default_policy(action=Action.EXEMPT)) as authority:
            if locked:
                authority.change(lambda connection, act: users.lock(connection, act, "bob"))
            agent = await authority.agent("db1.example", "db")
            said = {"first_factor": first_factor, "password": Password.BAD, "hidden": True, "source": None}
            for interaction in (Interaction.ONE_SHOT, Interaction.CHALLENGES, Interaction.PROMPTS):
                for code in ("000000", BOB.code(authority.clock())):
                    (ruling,) = await agent.verify(asks_about("bob", code, interaction=interaction, **said))
                    assert ruling.outcome is not Outcome.ACCEPTED
                    assert not ruling.counted
            with authority.installed.store.reading() as connection:
                assert connection.execute(select(throttle.c.key)).all() == []

    run(scenario())


def test_one_charge_is_for_one_text(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as authority:
            agent = await authority.agent()
            several = tuple(
                Reading(kind=PasscodeKind.DIGITS, text=Secret(text)) for text in (b"000000", b"000001", b"000002")
            )
            with pytest.raises(Refusal, match="400 bad_request"):
                await agent.verify(asks_about("alice", "", readings=several))

    run(scenario())


def test_an_event_is_about_one_user(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as authority:
            agent = await authority.agent()
            asked = asks_about("alice", ALICE.code(authority.clock()))
            (good,) = await agent.verify(asked)
            assert good.outcome is Outcome.ACCEPTED
            parts = authority.door._parts
            assert parts is not None
            for _ in ("as remembered", "as written"):
                (other,) = await agent.verify(asks_about("bob", "000000", event_id=asked.event_id))
                assert other.outcome is Outcome.REJECTED
                (again,) = await agent.verify(asked)
                assert again.outcome is Outcome.ACCEPTED
                parts.verifying._decided.clear()

    run(scenario())


def test_a_journal_full_of_one_id_is_not_read_when_that_is_asked_about(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as authority:
            agent = await authority.agent()
            for _ in range(4 * SAME_ID):
                agent.alone("evil", authority.clock(), outcome=Outcome.REJECTED, reason=Reason.MISMATCH)
            await agent.upload()
            with authority.installed.store.reading() as connection:
                assert len(_BEFORE.rows(connection, {"event": "evil"})) == SAME_ID
            first, second = await agent.verify(
                asks_about("alice", "000000", event_id="evil"), asks_about("bob", BOB.code(authority.clock()))
            )
            assert (first.outcome, second.outcome) == (Outcome.REJECTED, Outcome.ACCEPTED)

    run(scenario())


@pytest.mark.parametrize("text", ["a\0b", "\x1b]0;a title\x07", "two\nlines", "\u0430lice"])
def test_what_is_kept_or_looked_up_is_plain(tmp_path: Path, text: str) -> None:
    """A PostgreSQL takes no NUL, and would refuse with it what other hosts have written in the same transaction."""

    async def scenario() -> None:
        async with served(tmp_path) as authority:
            agent = await authority.agent()
            sync: dict[str, Any] = json.loads(agent.request().octets())
            with pytest.raises(Refusal, match="400 bad_request"):
                await agent.post(SYNC, json.dumps(sync | {"software": text}).encode())
            asked: dict[str, Any] = json.loads(asks_about("alice", "000000").octets())
            for field in ("name", "source", "challenge_id", "remembered"):
                with pytest.raises(Refusal, match="400 bad_request"):
                    await agent.post(VERIFY, json.dumps({"attempts": [asked | {field: text}]}).encode())
            # What a door was told of a client or a service is only written down.
            await agent.post(VERIFY, json.dumps({"attempts": [asked | {"client": text, "service": text}]}).encode())

    run(scenario())


def test_a_stranger_who_connects_and_says_nothing_keeps_no_host_away(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as authority:
            agent = await authority.agent()
            await agent.close()
            parts = authority.door._parts
            assert parts is not None
            parts.server._bounds = replace(parts.server._bounds, handshakes=4)
            address = authority.door.addresses[0]
            loop = asyncio.get_running_loop()
            silent = []
            try:
                for _ in range(6):
                    one = socket.socket()
                    silent.append(one)
                    one.setblocking(False)
                    one.bind(("127.0.0.2", 0))
                    await loop.sock_connect(one, address)
                await until(lambda: parts.server.connections.events.get("too_many_connections", 0) == 2)
                (ruling,) = await agent.verify(asks_about("alice", ALICE.code(authority.clock())))
                assert ruling.outcome is Outcome.ACCEPTED
                assert parts.server.connections.events["handshake_made_way"] >= 1
            finally:
                for one in silent:
                    one.close()

    run(scenario())
