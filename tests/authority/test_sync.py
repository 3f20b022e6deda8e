"""A host hears of what concerns it, all of it, nothing else, and at once."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection

from authority.books import HORIZON, SHORT_S
from authority.http_connection import Patience
from mfa_core import codebook
from mfa_core.audit import GENESIS
from mfa_core.model import FactorKind
from mfa_core.oath import step_at
from mfa_runtime.administration import groups, host_groups, users
from mfa_runtime.administration import hosts as administration
from mfa_runtime.administration.act import Act
from mfa_runtime.administration.credentials import revoke_credential, suspend_credential
from mfa_runtime.protocol import signed
from mfa_runtime.protocol.message import ProtocolError
from mfa_runtime.protocol.reporting import JournalHead
from mfa_runtime.protocol.syncing import Cursor, SyncAnswer
from mfa_runtime.protocol.words import MAX_PAGE_USERS, SYNC, KeyProtection
from mfa_runtime.store import changes, hosts
from mfa_runtime.store.alarms import AlarmKind, list_alarms
from mfa_runtime.store.hosts import HostGroup, HostMaterial
from mfa_runtime.store.hosts import KeyProtection as Demanded
from tests.authority.agent_double import AgentDouble, Refusal
from tests.authority.served import SETTINGS, Served, run, served
from tests.doubles import ALICE, BOB, Person

HANS = Person("hans", kind=FactorKind.HOTP)
DAY = 86_400.0


def lock(name: str) -> Any:
    return lambda connection, act: users.lock(connection, act, name)


def names(agent: AgentDouble) -> list[str]:
    return sorted(user.name for user in agent.users.values())


def test_a_host_gets_everything_once_and_then_what_changes(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as authority:
            agent = await authority.agent()
            (first,) = await agent.sync()
            assert (first.full, names(agent), agent.rules) == (True, ["alice", "bob"], SETTINGS.rules)
            assert agent.secrets[1].secret.reveal() == ALICE.secret
            assert first.not_after == authority.clock() + DAY
            (nothing,) = await agent.sync()
            assert (nothing.full, nothing.users, nothing.gone, nothing.sealed, nothing.rules) == (False, (), (), None, None)
            assert nothing.digest == agent.digest
            authority.change(lock("bob"))
            (delta,) = await agent.sync()
            assert (delta.full, [(user.name, user.locked) for user in delta.users]) == (False, [("bob", True)])
            assert delta.digest == agent.digest

    run(scenario())


def test_a_user_that_is_gone_is_told_as_gone(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as authority:
            agent = await authority.agent("db1.example", "db")
            await agent.sync()
            assert names(agent) == ["alice"]
            authority.change(lambda connection, act: groups.add_to_groups(connection, act, "bob", ["dba"]))
            await agent.sync()
            assert names(agent) == ["alice", "bob"]
            authority.change(lambda connection, act: groups.remove_from_groups(connection, act, "alice", ["dba"]))
            (answer,) = await agent.sync()
            assert (answer.full, answer.gone, names(agent)) == (False, (1,), ["bob"])

    run(scenario())


def test_a_change_of_the_scope_is_everything_anew(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as authority:
            agent = await authority.agent("db1.example", "db")
            await agent.sync()
            authority.change(lambda connection, act: host_groups.entitle(connection, act, "db", "*"))
            (answer,) = await agent.sync()
            assert (answer.full, names(agent)) == (True, ["alice", "bob"])

    run(scenario())


def test_a_host_never_hears_of_users_that_it_is_not_for(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as authority:
            agent = await authority.agent("db1.example", "db")
            await agent.sync()
            authority.change(lock("bob"))
            (answer,) = await agent.sync(cursor=Cursor(generation="1", seq=0))
            assert 2 not in {*agent.users, *answer.gone}
            # Nor where it asks for a page that nobody gave out.
            answer = await agent.ask(page="1.1.-1.1.0.1")
            assert "bob" not in {user.name for user in answer.users}

    run(scenario())


@pytest.mark.parametrize(
    "cursor",
    [None, Cursor(generation="2", seq=1), Cursor(generation="1", seq=1 << 40)],
    ids=["none", "another store", "future"],
)
def test_a_cursor_that_leads_nowhere_is_everything_anew(tmp_path: Path, cursor: Cursor | None) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as authority:
            agent = await authority.agent()
            await agent.sync()
            assert (await agent.sync(cursor=cursor))[0].full

    run(scenario())


def test_a_cursor_older_than_what_is_remembered_is_everything_anew(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as authority:
            agent = await authority.agent()
            await agent.sync()
            authority.change(lock("alice"))
            authority.change(lambda connection, _: changes.forget(connection, authority.clock() + 1.0))
            parts = authority.door._parts
            assert parts is not None
            parts.poll._counted_at = float("-inf")
            await parts.poll.look()
            (answer,) = await agent.sync()
            assert (answer.full, agent.users[1].locked) == (True, True)

    run(scenario())


def test_a_digest_that_differs_is_everything_anew_but_not_again_and_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as authority:
            agent = await authority.agent()
            await agent.sync()
            assert (await agent.ask(digest="0" * 64)).full
            assert not (await agent.ask(digest="0" * 64)).full

    run(scenario())


def test_many_users_come_in_pages(tmp_path: Path) -> None:
    people = [Person(f"user{n:04d}") for n in range(2 * MAX_PAGE_USERS + 3)]

    async def scenario() -> None:
        async with served(tmp_path, *people) as authority:
            agent = await authority.agent()
            answers = await agent.sync()
            assert [len(answer.users) for answer in answers] == [MAX_PAGE_USERS, MAX_PAGE_USERS, 3]
            assert [answer.more for answer in answers] == [True, True, False]
            assert all(answer.full for answer in answers)
            assert len(agent.secrets) == len(people)
            assert [answer.digest is None for answer in answers] == [True, True, False]
            other = await authority.agent("web2.example")
            made = authority.door.counters()["pages_made"]
            await other.sync()
            assert authority.door.counters()["pages_made"] == made  # they were written out once
            assert {n: entry.secret.reveal() for n, entry in other.secrets.items()} == {
                n: entry.secret.reveal() for n, entry in agent.secrets.items()
            }

    run(scenario())


def test_what_changes_between_two_pages_comes_afterwards(tmp_path: Path) -> None:
    people = [Person(f"user{n:04d}") for n in range(MAX_PAGE_USERS + 1)]

    async def scenario() -> None:
        async with served(tmp_path, *people) as authority:
            agent = await authority.agent()
            first = await agent.ask()
            agent.take(first)
            authority.change(lock("user0000"))
            second = await agent.ask(page=first.page)
            agent.take(second)
            assert (second.full, second.more, second.digest) == (True, False, None)
            assert not agent.users[1].locked
            (third,) = await agent.sync()
            assert (third.full, agent.users[1].locked) == (False, True)
            assert third.digest == agent.digest

    run(scenario())


def test_a_change_of_many_users_comes_in_pages_too(tmp_path: Path) -> None:
    people = [Person(f"user{n:04d}") for n in range(MAX_PAGE_USERS + 2)]

    async def scenario() -> None:
        async with served(tmp_path, *people) as authority:
            agent = await authority.agent()
            await agent.sync()

            def all_of_them(connection: Connection, act: Act) -> None:
                changes.note_users(connection, range(1, len(people) + 1), act.now)

            authority.change(all_of_them)
            first = await agent.ask()
            assert (first.full, first.more, len(first.users)) == (False, True, MAX_PAGE_USERS)
            agent.take(first)
            authority.change(lock("user0000"))  # in the middle of it: it is not passed by
            second = await agent.ask(page=first.page)
            agent.take(second)
            assert (second.more, len(second.users)) == (False, 2)
            (third,) = await agent.sync()
            assert [user.name for user in third.users] == ["user0000"]
            assert third.digest == agent.digest

    run(scenario())


def test_a_page_that_nobody_gave_out_is_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as authority:
            agent = await authority.agent()
            for page in ("x", "1.2.3", "1.2.3.x.0.1", "1.2.3.4.1", "9" * 30 + ".1.1.1.0.1"):
                with pytest.raises(Refusal, match="400 bad_request"):
                    await agent.ask(page=page)

    run(scenario())


# -- what an answer is worth --------------------------------------------------------------------------------------------------


def test_an_answer_is_for_one_host_and_one_question(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as authority:
            agent, other = await authority.agent(), await authority.agent("web2.example")
            octets, headers = await agent.post(SYNC, agent.request().octets())
            answer = SyncAnswer.read(octets)
            assert answer.host_id == agent.host_id
            with pytest.raises(signed.BadSignature):
                signed.verify(headers[signed.HEADER], octets.replace(b"alice", b"mlice"), agent.signers)
            with pytest.raises(ProtocolError):
                other.take(answer)  # its key does not open what was sealed to the other one
            with pytest.raises(ProtocolError):
                agent.take(answer.model_copy(update={"seq": answer.seq + 1}))

    run(scenario())


def test_the_numbers_of_answers_rise_whatever_the_host_says_of_its_last(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as authority:
            agent = await authority.agent()
            ahead = int(authority.clock() * 1e6) + 1_000_000_000
            agent.seq = ahead
            assert (await agent.ask()).seq == ahead + 1

    run(scenario())


def test_a_lease_is_written_down_before_it_is_handed_out(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as authority:
            agent = await authority.agent()
            answer = await agent.ask(now=authority.clock() + 5.0)
            with authority.installed.store.reading() as connection:
                host = hosts.find(connection, agent.host_id)
            assert host is not None
            assert host.lease_until >= answer.not_after
            assert (host.clock_offset_s, host.software) == (5.0, "test")

    run(scenario())


def test_how_far_a_host_has_come_is_written_down_while_it_waits(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as authority:
            agent = await authority.agent()

            def written() -> int:
                with authority.installed.store.reading() as connection:
                    host = hosts.find(connection, agent.host_id)
                assert host is not None
                return host.cursor

            await agent.sync()
            authority.change(lock("bob"))
            await agent.sync()
            assert agent.cursor is not None
            assert written() < agent.cursor.seq  # it was told, and has not said that it holds it
            waits = asyncio.create_task(agent.sync(wait_s=50.0))
            await until(lambda: authority.door.counters()["waiting"] == 1)
            await until(lambda: agent.cursor is not None and written() == agent.cursor.seq)
            assert not waits.done()
            authority.change(lock("alice"))
            await waits

    run(scenario())


def test_a_clock_that_is_far_off_is_an_alarm(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as authority:
            agent = await authority.agent()
            await agent.ask(now=authority.clock() - 3600.0)
            with authority.installed.store.reading() as connection:
                assert [alarm.kind for alarm in list_alarms(connection)] == [AlarmKind.CLOCK_OFFSET]

    run(scenario())


def test_other_rules_reach_a_host_that_waits(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as authority:
            agent = await authority.agent()
            await agent.sync()
            waits = asyncio.create_task(agent.sync(wait_s=50.0))
            await until(lambda: authority.door.counters()["waiting"] == 1)
            authority.door.reload(replace(SETTINGS, rules='{"format":1,"window":2}'))
            (answer,) = await waits
            assert answer.rules == agent.rules == '{"format":1,"window":2}'

    run(scenario())


# -- waiting ------------------------------------------------------------------------------------------------------------------


async def until(holds: Any) -> None:
    """Wait for something that is about to happen."""
    async with asyncio.timeout(30.0):
        while not holds():  # noqa: ASYNC110  it happens in parts that tell nobody
            await asyncio.sleep(0.01)


def test_a_change_wakes_whom_it_concerns_and_nobody_else(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as authority:
            web, db = await authority.agent(), await authority.agent("db1.example", "db")
            await web.sync()
            await db.sync()
            waits = [asyncio.create_task(one.sync(wait_s=50.0)) for one in (web, db)]
            await until(lambda: authority.door.counters()["waiting"] == 2)
            authority.change(lock("bob"))  # who may log in on web alone
            (answer,) = await waits[0]
            assert [user.name for user in answer.users] == ["bob"]
            await until(lambda: authority.door.counters()["woken"] == 1)
            assert not waits[1].done()
            assert authority.door.counters()["waiting"] == 1
            authority.change(lock("alice"))
            (answer,) = await waits[1]
            assert [user.name for user in answer.users] == ["alice"]

    run(scenario())


def test_a_change_that_was_made_before_the_poll_and_after_the_look_is_not_lost(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as authority:
            agent = await authority.agent()
            await agent.sync()
            parts = authority.door._parts
            assert parts is not None
            feed = parts.feed
            look = feed._look

            async def late(*asked: Any) -> Any:
                found = await look(*asked)
                if not found.is_news:
                    authority.change(lock("bob"))
                    await parts.poll.look()  # hears of it while nobody waits
                    feed._look = look  # type: ignore[method-assign]
                return found

            feed._look = late  # type: ignore[method-assign]
            (answer,) = await agent.sync(wait_s=50.0)
            assert [user.name for user in answer.users] == ["bob"]

    run(scenario())


def test_a_host_that_is_revoked_while_it_waits_hears_it_at_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as authority:
            agent = await authority.agent()
            await agent.sync()
            waits = asyncio.create_task(agent.sync(wait_s=50.0))
            await until(lambda: authority.door.counters()["waiting"] == 1)
            authority.change(lambda connection, act: administration.revoke_host(connection, act, agent.name))
            with pytest.raises(Refusal, match="403 revoked"):
                await waits

    run(scenario())


def test_a_wait_ends_with_a_lease(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as authority:
            agent = await authority.agent()
            await agent.sync()
            authority.clock.advance(10.0)
            (answer,) = await agent.sync(wait_s=0.1)
            assert (answer.users, answer.not_after) == ((), authority.clock() + DAY)

    run(scenario())


def test_a_host_waits_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as authority:
            agent = await authority.agent()
            await agent.sync()
            body = agent.request(wait_s=50.0).octets()
            first = asyncio.create_task(agent.post(SYNC, body))
            await until(lambda: authority.door.counters()["waiting"] == 1)
            second = asyncio.create_task(agent.post(SYNC, agent.request(wait_s=50.0).octets()))
            await first
            assert authority.door.counters()["waiting"] == 1
            authority.change(lock("bob"))
            await second

    run(scenario())


def test_hosts_that_wait_are_answered_when_the_authority_stops(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as authority:
            agent = await authority.agent()
            await agent.sync()
            waits = asyncio.create_task(agent.sync(wait_s=50.0))
            await until(lambda: authority.door.counters()["waiting"] == 1)
            await authority.door.stop()
            (answer,) = await waits
            assert answer.users == ()
            authority.door._parts = authority.door._at = None
            authority.door._tasks = []

    run(scenario())


# -- material -----------------------------------------------------------------------------------------------------------------


def group(**changed: Any) -> Any:
    """Change the group web."""
    return lambda connection, _: hosts.save_group(connection, replace(HostGroup("web"), **changed))


def test_only_what_a_host_can_verify_alone_is_sent(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path, ALICE, BOB, HANS) as authority:
            agent = await authority.agent()
            authority.change(lambda connection, act: suspend_credential(connection, act, 2))
            await agent.sync()
            assert sorted(agent.secrets) == [1]  # bob's is suspended, and hans counts
            assert [user.credentials[0].material for user in agent.users.values()] == ["seed", "none", "none"]
            authority.change(lambda connection, act: revoke_credential(connection, act, 1))
            await agent.sync()
            assert agent.users[1].credentials == ()

    run(scenario())


def test_a_group_that_is_never_offline_holds_no_material(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as authority:
            authority.change(group(max_offline_s=0.0))
            agent = await authority.agent()
            (answer,) = await agent.sync()
            assert (answer.sealed, answer.not_after) == (None, authority.clock())

    run(scenario())


def test_a_book_holds_the_codes_of_the_lease_and_a_quarter_more(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as authority:
            hour = 3600.0
            authority.change(group(material=HostMaterial.CODEBOOK, max_offline_s=hour))
            agent = await authority.agent()
            await agent.sync()
            now = authority.clock()
            entry = agent.secrets[1]
            book = codebook.as_book(ALICE.credential, entry.first_step, entry.secret)
            for offset in (0, 1, 60, 120, 149):
                assert codebook.code(book, step_at(now, 30) + offset) == ALICE.code(now, offset)
            assert codebook.last_step(book) == step_at(now, 30) + 150 + 1
            assert codebook.code(book, step_at(now, 30) - 20) is None
            assert ALICE.secret not in entry.secret.reveal()
            # Another host gets the same book, and nobody makes it again.
            other = await authority.agent("web2.example")
            authority.clock.advance(61.0)
            await other.sync()
            again = codebook.as_book(ALICE.credential, other.secrets[1].first_step, other.secrets[1].secret)
            assert codebook.code(again, step_at(authority.clock(), 30) + 100) == ALICE.code(authority.clock(), 100)

    run(scenario())


def test_codes_that_end_before_the_lease_come_anew(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as authority:
            hour = 3600.0
            authority.change(group(material=HostMaterial.CODEBOOK, max_offline_s=hour))
            agent = await authority.agent()
            await agent.sync()
            ends = authority.clock() + 1.25 * hour
            assert not (await agent.ask(codes_until=ends)).full
            authority.clock.advance(0.25 * hour + 60.0)
            (answer,) = await agent.sync(codes_until=ends, wait_s=50.0)  # until they are made
            assert answer.full
            entry = agent.secrets[1]
            book = codebook.as_book(ALICE.credential, entry.first_step, entry.secret)
            assert codebook.last_step(book) >= step_at(authority.clock() + hour, 30)
            assert codebook.code(book, step_at(authority.clock() + hour, 30)) == ALICE.code(authority.clock() + hour)

    run(scenario())


def ends_of(agent: AgentDouble) -> set[float]:
    """When its books end."""
    return {(one.first_step + len(one.secret) // 3) * 30.0 for one in agent.secrets.values()}


def pages_of(answers: list[SyncAnswer]) -> list[tuple[bool, bool]]:
    return [(answer.full, answer.more) for answer in answers]


CROWD = [Person(f"user{n:04d}") for n in range(120)]


def test_a_new_host_gets_the_codes_of_half_an_hour_and_hears_when_the_others_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page of a few, so that there are several of them: what the first one was goes for all."""
    monkeypatch.setattr("authority.pages.PAGE_MATERIAL_OCTETS", 70 * 3 * 76)

    async def scenario() -> None:
        async with served(tmp_path, *CROWD) as authority:
            authority.change(group(material=HostMaterial.CODEBOOK))
            agent = await authority.agent()
            parts = authority.door._parts
            assert parts is not None
            first = await agent.sync()
            now = authority.clock()
            assert pages_of(first) == [(True, True), (True, False)]
            (ends,) = ends_of(agent)
            assert now + SHORT_S <= ends < now + SHORT_S + 90.0
            assert parts.books.made == len(CROWD) * (14 + 1 + 60 + 1)  # and no more while it waited
            # It asks again, and waits: what is not made yet is not waited for by anybody else, nor asked for again and again.
            asked = authority.door.counters()["requests"]["/v1/sync"]["ok"]
            second = await agent.sync(codes_until=ends, wait_s=50.0)
            assert all(answer.full for answer in second)
            assert len(second) > 10
            (ends,) = ends_of(agent)
            assert ends >= now + HORIZON * DAY
            assert authority.door.counters()["requests"]["/v1/sync"]["ok"] == asked + len(second)
            assert not (await agent.ask(codes_until=ends)).full
            for number in (1, len(CROWD)):
                entry, person = agent.secrets[number], CROWD[number - 1]
                book = codebook.as_book(person.credential, entry.first_step, entry.secret)
                for offset in (0, 59, 60, 61, 62, 2_880, 3_600):
                    assert codebook.code(book, step_at(now, 30) + offset) == person.code(now, offset)
            # All of it was made once: the day behind the first part. The next host gets a part of it at once, and then the day.
            made = parts.books.made
            assert made == len(CROWD) * (14 + 1 + 3_600 + 1)
            other = await authority.agent("web2.example")
            assert pages_of(await other.sync()) == [(True, True), (True, False)]
            (ends,) = ends_of(other)
            assert ends < now + SHORT_S + 90.0
            assert (await other.sync(codes_until=ends))[0].full
            (ends,) = ends_of(other)
            assert ends >= now + HORIZON * DAY
            assert parts.books.made == made

    run(scenario())


def test_codes_that_are_not_there_are_not_sent_again_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever keeps them from being made, a host hears that there is nothing new; before its own end it gets what there is."""

    async def never(*_: Any) -> float:
        return 0.0

    monkeypatch.setattr("authority.bookkeeping.Bookkeeper._go_through", never)

    async def scenario() -> None:
        async with served(tmp_path, *CROWD) as authority:
            authority.change(group(material=HostMaterial.CODEBOOK))
            agent = await authority.agent()
            await agent.sync()
            (ends,) = ends_of(agent)
            for _ in range(3):
                assert not (await agent.ask(codes_until=ends)).full
            authority.clock.advance(SHORT_S * 0.8)
            (answer,) = await agent.sync(codes_until=ends)
            assert answer.full
            assert min(ends_of(agent)) >= authority.clock() + SHORT_S
            for _ in range(3):  # even if it says the same once more
                assert not (await agent.ask(codes_until=ends)).full

    run(scenario())


def test_somebody_new_comes_with_all_his_codes_and_a_host_with_long_books_keeps_them(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as authority:
            authority.change(group(material=HostMaterial.CODEBOOK))
            agent = await authority.agent()
            await agent.sync()
            before = ends_of(agent)  # few people: all at once
            assert min(before) >= authority.clock() + HORIZON * DAY
            authority.change(lambda connection, act: changes.note_user(connection, 2, act.now))
            (answer,) = await agent.sync(codes_until=min(before))
            assert (answer.full, len(answer.users)) == (False, 1)
            assert ends_of(agent) == before

    run(scenario())


def test_a_host_that_keeps_its_keys_badly_gets_no_material(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as authority:
            authority.change(group(key_protection=Demanded.SYSTEMD_CREDS))
            agent = await authority.agent()
            (answer,) = await agent.sync()
            assert (answer.sealed, answer.terms.key_protection) == (None, "systemd-creds")
            assert names(agent) == ["alice", "bob"]
            with authority.installed.store.reading() as connection:
                assert [alarm.kind for alarm in list_alarms(connection)] == [AlarmKind.KEY_PROTECTION]
            for protection, held in ((KeyProtection.SYSTEMD_CREDS, [1, 2]), (KeyProtection.FILE, [])):
                agent.protection = protection
                (answer,) = await agent.sync()
                assert answer.full
                assert sorted(agent.secrets) == held
                assert not (await agent.ask()).full

    run(scenario())


def test_a_group_that_demands_better_keys_is_an_alarm_with_the_next_answer(tmp_path: Path) -> None:
    """However short ago it is that its hosts were written down."""

    async def scenario() -> None:
        async with served(tmp_path) as authority:
            agent = await authority.agent()
            await agent.sync()
            await agent.sync()
            authority.change(group(key_protection=Demanded.SYSTEMD_CREDS))
            authority.change(lambda connection, act: changes.note_topic(connection, changes.host_group_topic("web"), act.now))
            (answer,) = await agent.sync()
            assert answer.full
            assert agent.secrets == {}
            with authority.installed.store.reading() as connection:
                assert [alarm.kind for alarm in list_alarms(connection)] == [AlarmKind.KEY_PROTECTION]

    run(scenario())


def _only_on(authority: Served, credential: int, host_id: int) -> None:
    from sqlalchemy import update

    from mfa_runtime.store.schema import credentials

    def work(connection: Connection, act: Act) -> None:
        connection.execute(update(credentials).where(credentials.c.id == credential).values(host_id=host_id))
        changes.note_user(connection, credential, act.now)

    authority.change(work)


def test_a_credential_for_one_host_is_sent_to_that_host_alone(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as authority:
            authority.change(group(material=HostMaterial.PER_HOST))
            one, other = await authority.agent(), await authority.agent("web2.example")
            _only_on(authority, 1, one.host_id)
            await one.sync()
            await other.sync()
            assert sorted(one.secrets) == [1]
            assert sorted(other.secrets) == []
            assert [credential.material for credential in one.users[2].credentials] == ["none"]
            assert other.users[1].credentials == ()

    run(scenario())


# -- journals in a sync -------------------------------------------------------------------------------------------------------


def test_a_journal_that_ends_before_ours_is_a_fork(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as authority:
            agent = await authority.agent()
            agent.alone("e1", authority.clock(), step=-1)
            agent.alone("e2", authority.clock(), step=-1)
            await agent.upload()
            assert (await agent.ask()).journal == agent.head
            restored = JournalHead(epoch=1, seq=1, hash=b"x" * 32)
            assert (await agent.ask(journal=restored)).journal == "fork"
            another = JournalHead(epoch=1, seq=2, hash=b"x" * 32)
            assert (await agent.ask(journal=another)).journal == "fork"
            with authority.installed.store.reading() as connection:
                assert [alarm.kind for alarm in list_alarms(connection)] == [AlarmKind.JOURNAL_FORK]
            begun = JournalHead(epoch=2, seq=0, hash=GENESIS)
            assert (await agent.ask(journal=begun)).journal == begun
            with pytest.raises(Refusal, match="403 quarantined"):
                await agent.ask(journal=restored)  # somebody goes on with what this host has given up

    run(scenario())


def test_connections_of_hosts_that_wait_are_not_hung_up_on(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as authority:
            agent = await authority.agent()
            await agent.sync()
            parts = authority.door._parts
            assert parts is not None
            waits = asyncio.create_task(agent.sync(wait_s=50.0))
            await until(lambda: authority.door.counters()["waiting"] == 1)
            parts.server.connections.patience = Patience(request_s=0.0, idle_s=0.0)
            parts.server.connections.sweep()
            authority.change(lock("bob"))
            (answer,) = await waits
            assert [user.name for user in answer.users] == ["bob"]

    run(scenario())
