"""Hosts ask about attempts: entitlement first, one ruling for one event, and nobody takes the whole queue."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from mfa_core.audit import Outcome
from mfa_core.model import Door, Requirement
from mfa_core.passcode import PasscodeKind
from mfa_core.policy import Action, Policy
from mfa_core.secret import Secret
from mfa_runtime.protocol.verifying import Reading, VeiledReading
from mfa_runtime.store.schema import audit, otp_uses, throttle
from tests.authority.agent_double import Refusal, asks_about
from tests.authority.served import SETTINGS, Served, run, served
from tests.doubles import ALICE, BOB, Person, default_policy, wrong


def events_of(authority: Served, event_id: str) -> list[str]:
    with authority.installed.store.reading() as connection:
        return list(connection.execute(select(audit.c.body).where(audit.c.event_id == event_id)).scalars())


def rows(authority: Served, table: Any) -> list[Any]:
    with authority.installed.store.reading() as connection:
        return list(connection.execute(select(table)).all())


def test_a_code_is_accepted_once_whoever_asks(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as authority:
            one, other = await authority.agent(), await authority.agent("web2.example")
            code = ALICE.code(authority.clock())
            (good,) = await one.verify(asks_about("alice", code))
            assert (good.outcome, good.credential, good.step) == (
                Outcome.ACCEPTED, "totp:1", int(authority.clock() // 30),
            )  # fmt: skip
            (again,) = await other.verify(asks_about("alice", code))
            assert (again.outcome, again.reason) == (Outcome.REJECTED, "replayed")
            assert [(row.credential_id, row.host_id) for row in rows(authority, otp_uses)] == [(1, one.host_id)]

    run(scenario())


def test_a_wrong_code_is_counted_and_says_so(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as authority:
            agent = await authority.agent()
            (ruling,) = await agent.verify(asks_about("alice", wrong(ALICE.code(authority.clock()))))
            assert (ruling.outcome, ruling.reason, ruling.counted) == (Outcome.REJECTED, "mismatch", True)

    run(scenario())


def test_an_event_that_is_asked_about_again_gets_the_same_ruling(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as authority:
            agent = await authority.agent()
            asked = asks_about("alice", ALICE.code(authority.clock()))
            rulings = await asyncio.gather(*(agent.verify(asked) for _ in range(20)))
            assert {ruling.outcome for (ruling,) in rulings} == {Outcome.ACCEPTED}
            assert len(events_of(authority, asked.event_id)) == 1
            # Twice in one request, and after mfad has forgotten it: it stands in the audit log.
            assert [one.outcome for one in await agent.verify(asked, asked)] == [Outcome.ACCEPTED] * 2
            parts = authority.door._parts
            assert parts is not None
            parts.verifying._decided.clear()
            (ruling,) = await agent.verify(asked)
            assert (ruling.outcome, ruling.credential, ruling.step) == (
                Outcome.ACCEPTED, "totp:1", int(authority.clock() // 30),
            )  # fmt: skip
            assert len(events_of(authority, asked.event_id)) == 1
            bad = asks_about("alice", wrong(ALICE.code(authority.clock())))
            (first,) = await agent.verify(bad)
            parts.verifying._decided.clear()
            (second,) = await agent.verify(bad)
            assert (second.outcome, second.reason, second.counted) == (first.outcome, first.reason, first.counted)

    run(scenario())


def test_the_id_of_another_host_s_event_brings_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as authority:
            one, other = await authority.agent(), await authority.agent("web2.example")
            asked = asks_about("alice", ALICE.code(authority.clock()))
            await one.verify(asked)
            (ruling,) = await other.verify(asked)
            assert ruling.outcome is Outcome.REJECTED

    run(scenario())


def test_who_may_not_log_in_there_is_nobody_there(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as authority:
            agent = await authority.agent("db1.example", "db")
            known = asks_about("bob", BOB.code(authority.clock()))
            unknown = asks_about("nobody", "123456")
            first, second = await agent.verify(known, unknown)
            assert (first.outcome, first.reason) == (Outcome.REJECTED, "not_entitled")
            assert replace_id(first) == replace_id(second)
            assert rows(authority, throttle) == []
            assert rows(authority, otp_uses) == []
            # The code was not looked at: it is still good where bob may log in.
            web = await authority.agent()
            (ruling,) = await web.verify(asks_about("bob", BOB.code(authority.clock())))
            assert ruling.outcome is Outcome.ACCEPTED
            assert '"reason":"not_entitled"' in events_of(authority, known.event_id)[0]

    run(scenario())


def replace_id(ruling: Any) -> Any:
    return ruling.model_copy(update={"event_id": ""})


@pytest.mark.parametrize(("action", "outcome"), [(Action.EXEMPT, Outcome.EXEMPT), (Action.DENY, Outcome.REJECTED)])
def test_whom_the_policy_exempts_or_denies_need_not_be_entitled(tmp_path: Path, action: Action, outcome: Outcome) -> None:
    policy: Policy = default_policy(action=action)

    async def scenario() -> None:
        async with served(tmp_path, policy=policy) as authority:
            agent = await authority.agent("db1.example", "db")
            (ruling,) = await agent.verify(asks_about("backup", None))
            assert ruling.outcome is outcome
            assert ruling.reason in {"", "policy_denied"}

    run(scenario())


def test_a_question_is_answered_with_a_challenge_or_an_exemption(tmp_path: Path) -> None:
    exempt = Person("eve", kind=None, requirement=Requirement.EXEMPT)

    async def scenario() -> None:
        async with served(tmp_path, ALICE, exempt) as authority:
            agent = await authority.agent()
            first, second = await agent.verify(asks_about("alice", None), asks_about("eve", None))
            assert first.outcome is Outcome.CHALLENGED
            assert (second.outcome, second.exemption) == (Outcome.EXEMPT, "user_exempt")

    run(scenario())


def test_several_readings_say_which_was_good(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as authority:
            agent = await authority.agent()
            code = ALICE.code(authority.clock())
            readings = tuple(
                Reading(kind=PasscodeKind.DIGITS, text=Secret(text.encode())) for text in ("77" + code, code)
            )
            (ruling,) = await agent.verify(asks_about("alice", code, readings=readings))
            assert (ruling.outcome, ruling.reading) == (Outcome.ACCEPTED, 1)

    run(scenario())


def test_a_chap_answer_is_compared_without_the_code(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as authority:
            agent = await authority.agent()
            code, challenge = ALICE.code(authority.clock()), b"c" * 16
            response = hashlib.md5(bytes([7]) + code.encode() + challenge).digest()
            asked = asks_about(
                "alice", code, door=Door.RADIUS, readings=(Reading(kind=PasscodeKind.VEILED, text=Secret(b"")),),
                veiled=VeiledReading(identifier=7, challenge=challenge, response=response),
            )  # fmt: skip
            (ruling,) = await agent.verify(asked)
            assert ruling.outcome is Outcome.ACCEPTED

    run(scenario())


@pytest.mark.parametrize(
    ("kind", "text", "index"),
    [
        (PasscodeKind.DIGITS, "12345", 0),
        (PasscodeKind.DIGITS, "\uff11\uff12\uff13\uff14\uff15\uff16", 0),
        (PasscodeKind.DIGITS, "123456", 3),
        (PasscodeKind.RECOVERY, "ABCDEFGHJKMNPQRS", 0),
        (PasscodeKind.RECOVERY, "abcdefghjkmnpqrs", 1),
        (PasscodeKind.BYPASS, "IIIIIIIIIIII", 0),
        (PasscodeKind.ABSENT, "a password", 0),
        (PasscodeKind.VEILED, "", 0),
    ],
)
def test_a_reading_that_no_host_of_ours_sends_is_refused(
    tmp_path: Path, kind: PasscodeKind, text: str, index: int
) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as authority:
            agent = await authority.agent()
            readings = (Reading(kind=kind, text=Secret(text.encode()), index=index),)
            with pytest.raises(Refusal, match="400 bad_request") as seen:
                await agent.verify(asks_about("alice", "", readings=readings))
            assert not text or text not in seen.value.said.text

    run(scenario())


def test_a_thousand_at_once_are_all_answered(tmp_path: Path) -> None:
    people = [Person(f"user{n:04d}") for n in range(1_000)]

    async def scenario() -> None:
        async with served(tmp_path, *people) as authority:
            agent = await authority.agent()
            asked = [asks_about(one.name, one.code(authority.clock())) for one in people]
            answers = await asyncio.gather(*(agent.verify(*asked[at : at + 8]) for at in range(0, 1_000, 8)))
            rulings = [ruling for answer in answers for ruling in answer]
            assert {ruling.outcome for ruling in rulings} == {Outcome.ACCEPTED}
            assert [ruling.event_id for ruling in rulings] == [one.event_id for one in asked]

    run(scenario())


def test_a_batch_is_answered_in_its_order(tmp_path: Path) -> None:
    people = [Person(f"user{n:02d}") for n in range(64)]

    async def scenario() -> None:
        async with served(tmp_path, *people) as authority:
            agent = await authority.agent()
            asked = [
                asks_about(one.name, one.code(authority.clock()) if n % 2 else wrong(one.code(authority.clock())))
                for n, one in enumerate(people)
            ]
            rulings = await agent.verify(*asked)
            assert [ruling.event_id for ruling in rulings] == [one.event_id for one in asked]
            assert [ruling.outcome is Outcome.ACCEPTED for ruling in rulings] == [bool(n % 2) for n in range(64)]

    run(scenario())


def test_one_host_has_at_most_half_of_the_room(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path, settings=replace(SETTINGS, max_verifications=4)) as authority:
            greedy, other = await authority.agent(), await authority.agent("web2.example")
            with pytest.raises(Refusal, match="503 overloaded"):
                await greedy.verify(*(asks_about("alice", "000000") for _ in range(3)))
            await greedy.verify(*(asks_about("alice", "000000") for _ in range(2)))
            await other.verify(asks_about("bob", BOB.code(authority.clock())))
            assert authority.door.counters()["under_way"] == 0

    run(scenario())


def test_a_host_that_is_refused_decides_nothing(tmp_path: Path) -> None:
    from mfa_runtime.administration.hosts import revoke_host

    async def scenario() -> None:
        async with served(tmp_path) as authority:
            agent = await authority.agent()
            authority.change(lambda connection, act: revoke_host(connection, act, agent.name))
            with pytest.raises(Refusal, match="403 revoked"):
                await agent.verify(asks_about("alice", ALICE.code(authority.clock())))
            assert rows(authority, otp_uses) == []

    run(scenario())
