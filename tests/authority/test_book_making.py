"""Codes that another process makes are those that are made here, and it leaves nothing behind."""

from __future__ import annotations

import asyncio
import io

import pytest

from authority import book_press
from authority.book_making import CHUNK_CODES, BookMaker
from authority.book_press import LENGTH, serve, written
from authority.books import Lack
from mfa_core import codebook
from mfa_core.model import Digest
from mfa_core.secret import Secret
from tests.authority.served import run
from tests.doubles import ALICE, Person

EIGHT = Person("eight", digits=8, period_s=60, digest=Digest.SHA256)


def lacking(person: Person, begin: int, count: int) -> Lack:
    return Lack(person.credential, begin, Secret(b""), begin, count)


def expected(lacks: list[Lack]) -> list[bytes]:
    return [codebook.pack(one.credential, one.begin, one.count) for one in lacks]


def test_its_codes_are_those_of_the_core_in_their_order() -> None:
    lacks = [lacking(ALICE, 1_000, CHUNK_CODES + 1), lacking(EIGHT, 5, 3), lacking(ALICE, 7, 0), lacking(ALICE, 7, 2)]

    async def scenario() -> None:
        maker = BookMaker(nice=10)
        try:
            both = await asyncio.gather(maker.make(lacks), maker.make(lacks[1:]))
            child = maker._child
            assert child is not None
        finally:
            await maker.stop()
        assert [[one.reveal() for one in some] for some in both] == [expected(lacks), expected(lacks[1:])]
        assert maker.made == CHUNK_CODES + 1 + 2 * (3 + 2)
        assert child.returncode is not None  # nothing is left running

    run(scenario())


def test_a_child_that_dies_is_not_missed() -> None:
    lacks = [lacking(ALICE, 1_000, 10)]

    async def scenario() -> None:
        maker = BookMaker()
        try:
            for _ in range(3):
                assert [one.reveal() for one in await maker.make(lacks)] == expected(lacks)
                if maker._child is not None:
                    maker._child.kill()  # while nobody asks, and it is not waited for
        finally:
            await maker.stop()

    run(scenario())


def test_without_a_child_codes_are_made_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    lacks = [lacking(ALICE, 1_000, 10), lacking(EIGHT, 1_000, 10)]
    monkeypatch.setattr("sys.executable", "/nowhere/python")

    async def scenario() -> None:
        maker = BookMaker()
        assert [one.reveal() for one in await maker.make(lacks)] == expected(lacks)
        await maker.stop()

    run(scenario())


def test_a_job_that_is_given_up_does_not_answer_the_next_one() -> None:
    async def scenario() -> None:
        maker = BookMaker()
        try:
            first = asyncio.create_task(maker.make([lacking(ALICE, 1, CHUNK_CODES)]))
            while maker._child is None:  # noqa: ASYNC110  it is started in the middle of it
                await asyncio.sleep(0.01)
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            assert [one.reveal() for one in await maker.make([lacking(EIGHT, 5, 3)])] == expected([lacking(EIGHT, 5, 3)])
        finally:
            await maker.stop()

    run(scenario())


def test_it_rests_when_nobody_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("authority.book_making.IDLE_S", 0.0)

    async def scenario() -> None:
        maker = BookMaker()
        await maker.make([lacking(ALICE, 1, 1)])
        child = maker._child
        assert child is not None
        assert await child.wait() == 0
        assert maker._child is None
        await maker.stop()

    run(scenario())


def test_the_child_ends_with_its_pipe() -> None:
    job = written([(ALICE.credential, 5, 2)])
    whole = LENGTH.pack(len(job)) + job
    for cut in range(len(whole)):
        answers = io.BytesIO()
        serve(io.BytesIO(whole[:cut]), answers)
        assert answers.getvalue() == b""
    answers = io.BytesIO()
    serve(io.BytesIO(whole + whole[:7]), answers)
    octets = codebook.pack(ALICE.credential, 5, 2)
    assert answers.getvalue() == LENGTH.pack(len(octets)) + octets
    assert book_press.made(job) == octets
