"""A host that belongs and means harm, and people who type anything: what may not come of it at the authority."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import select

from authority.look import Place
from mfa_core.audit import Outcome
from mfa_core.verdict import Reason
from mfa_runtime.administration import users
from mfa_runtime.store.schema import throttle
from tests.authority.served import run, served


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
                place = Place(seq, seq + ahead, seq if since is None else since, 0, evil.cursor.generation)
                await evil.ask(page=place.text())
            authority.change(lambda connection, act: users.lock(connection, act, "bob"))
            (answer,) = await good.sync()  # the double compares the digest
            assert [(user.name, user.locked) for user in answer.users] == [("bob", True)]
            assert answer.digest == good.digest

    run(scenario())
