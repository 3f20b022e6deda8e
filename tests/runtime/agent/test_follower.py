"""An agent beside a fake authority: join, sync, logins with it and without it, and what is told when it is back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from sqlalchemy import Connection

from mfa_core.audit import GENESIS
from mfa_core.errors import Conflict, StoreFull
from mfa_core.passcode import read_passcode
from mfa_core.secret import Secret
from mfa_core.split import Split
from mfa_runtime.agent import follower, own_keys
from mfa_runtime.agent.breaker import State
from mfa_runtime.agent.exchange import VerifyExchange
from mfa_runtime.agent.trouble import What, read_trouble
from mfa_runtime.counsel import Referred
from mfa_runtime.protocol.reporting import JournalHead
from mfa_runtime.protocol.syncing import SyncAnswer
from mfa_runtime.protocol.words import HEALTH, JOURNAL, SYNC, VERIFY, Refusal
from tests.doubles import ALICE, BOB, T0, FakeClock, Person, attempt, install
from tests.runtime.agent.agent_host import IMPATIENT, PATIENT, AgentHost, until
from tests.runtime.agent.certificates import Ca
from tests.runtime.agent.fake_authority import FakeAuthority, Fault, answers, drops, halves, hangs

Scenario = Callable[[FakeAuthority, AgentHost], Awaitable[None]]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def authority(tmp_path: Path, clock: FakeClock) -> FakeAuthority:
    made = FakeAuthority(tmp_path, clock)
    made.add(ALICE)
    return made


@pytest.fixture
def host(tmp_path: Path, clock: FakeClock) -> AgentHost:
    return AgentHost(tmp_path / "host", clock)


@asynccontextmanager
async def joined(authority: FakeAuthority, host: AgentHost) -> AsyncIterator[None]:
    """A host that has joined, and asks."""
    async with authority.serve():
        await host.join(authority)
        async with host.running():
            await host.online()
            yield


def play(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(scenario)


def trouble(host: AgentHost) -> What | None:
    found = read_trouble(host.state.trouble)
    return None if found is None else found.what


def test_online_then_offline_then_back(authority: FakeAuthority, host: AgentHost, clock: FakeClock) -> None:
    """The whole way: a code at the authority, the next one alone, a replay refused, and the journal there in the end."""

    async def scenario() -> None:
        async with joined(authority, host):
            assert host.names() == ["alice"]
            assert await host.says("alice", ALICE.code(T0)) == "accepted"
            assert authority.users["alice"].last_step == host.watermark("alice")
            await authority.stop()
            clock.advance(60)
            assert await host.says("alice", ALICE.code(clock())) == "accepted"
            assert await host.says("alice", ALICE.code(clock())) == "replayed"
            assert await host.says("bob", BOB.code(clock())) != "accepted"
            await until(lambda: trouble(host) is What.UNREACHABLE, "the trouble is written down")
            authority.asked.clear()
            await authority.start()
            await host.online()
            assert authority.users["alice"].last_step == int(clock() // 30)
            said = [one for one in authority.events() if one["event"] == "attempt"]
            assert [one["outcome"] for one in said] == ["accepted", "accepted", "rejected", "rejected"]
            assert [one.get("by") for one in said] == ["authority", "host", "host", "host"]
            clock.advance(60)
            assert await host.says("alice", ALICE.code(clock())) == "accepted"
            await until(lambda: len(authority.events()) >= 6, "the journal is complete")
            assert trouble(host) is None

    play(scenario())


def test_what_was_decided_alone_is_told_before_anybody_asks(
    authority: FakeAuthority, host: AgentHost, clock: FakeClock
) -> None:
    async def scenario() -> None:
        async with joined(authority, host):
            await authority.stop()
            assert await host.says("alice", ALICE.code(T0)) == "accepted"
            await host.offline()
            held = asyncio.Event()

            async def waits(_request: web.Request, _body: bytes) -> None:
                await held.wait()

            authority.standing_faults[JOURNAL] = waits
            authority.asked.clear()
            await authority.start()
            await until(lambda: JOURNAL in authority.asked, "the journal is on its way")
            clock.advance(60)
            assert host.follower.link.breaker.state is State.RETURNING
            assert await host.says("alice", ALICE.code(clock())) == "accepted"
            assert not authority.attempts
            held.set()
            await host.online()
            clock.advance(60)
            assert await host.says("alice", ALICE.code(clock())) == "accepted"
            order = [path for path in dict.fromkeys(authority.asked) if path != HEALTH]
            assert order == [JOURNAL, SYNC, VERIFY]
            assert len(authority.attempts) == 1

    play(scenario())


FAULTS: dict[str, Fault] = {
    "drops": drops, "hangs": hangs, "halves": halves, "503": answers(503, b'{"error":"unavailable"}'), "500": answers(500),
    "garbage": answers(200, b"\x00\xff not JSON"), "other JSON": answers(200, b'{"rulings":[]}'),
    "compressed": answers(200, b"x", **{"Content-Encoding": "br"}), "redirect": answers(302, Location="https://elsewhere/"),
    "no page": answers(404), "too much": answers(200, b" " * (17 << 20)),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_an_authority_that_answers_nonsense_is_as_one_that_is_gone(
    authority: FakeAuthority, host: AgentHost, clock: FakeClock, fault: str
) -> None:
    async def scenario() -> None:
        if fault == "hangs":
            host.habits = IMPATIENT
        async with joined(authority, host):
            authority.standing_faults = {VERIFY: FAULTS[fault], SYNC: answers(503)}
            assert await host.says("alice", ALICE.code(T0)) == "accepted"
            assert authority.ruled == {}
            assert not host.follower.link.breaker.asks
            authority.standing_faults = {}
            await host.online()
            assert authority.users["alice"].last_step == host.watermark("alice")

    play(scenario())


@pytest.mark.parametrize("fault", [drops, answers(401), halves])
def test_one_lost_answer_is_asked_for_again_and_the_code_is_spent_once(
    authority: FakeAuthority, host: AgentHost, fault: Fault
) -> None:
    async def scenario() -> None:
        async with joined(authority, host):

            async def after_deciding(request: web.Request, body: bytes) -> web.StreamResponse | None:
                authority._verify(body)
                return await fault(request, body)

            authority.faults[VERIFY] = [after_deciding]
            assert await host.says("alice", ALICE.code(T0)) == "accepted"
            assert [one.event_id for one in authority.attempts] == [authority.attempts[0].event_id] * 2
            assert host.follower.link.breaker.asks

    play(scenario())


def test_a_host_that_dies_after_the_authority_accepted_gets_no_second_accept(
    authority: FakeAuthority, host: AgentHost
) -> None:
    async def scenario() -> None:
        async with joined(authority, host):
            login = replace(attempt("alice", ALICE.code(T0)), event_id="DIED")
            found = (Split(Secret(b""), read_passcode(ALICE.code(T0).encode())),)
            exchange = VerifyExchange(lambda: host.follower._contact.authorities, try_s=1.0)
            await exchange.verify([Referred(login, "alice", found)], budget_s=1.0)  # and nothing comes of it here
        async with authority.serve(), host.running():
            await host.online()
            assert host.watermark("alice") == -1
            assert await host.says("alice", ALICE.code(T0)) == "replayed"

    play(scenario())


def test_logins_that_come_together_go_together(authority: FakeAuthority, host: AgentHost) -> None:
    people = [Person(f"user{number}") for number in range(30)]
    for one in people:
        authority.add(one)

    async def scenario() -> None:
        async with joined(authority, host):
            said = await asyncio.gather(*(host.says(one.name, one.code(T0)) for one in people))
            assert set(said) == {"accepted"}
            assert len(authority.batches) < 10

    play(scenario())


# What the authority says of users


def test_a_change_is_heard_at_once(authority: FakeAuthority, host: AgentHost) -> None:
    async def scenario() -> None:
        async with joined(authority, host):
            authority.add(BOB)
            await until(lambda: "bob" in host.names(), "bob is here", seconds=4.0)  # well below the time of a long poll
            authority.remove("alice")
            await until(lambda: host.names() == ["bob"], "alice is gone", seconds=4.0)
            await authority.stop()
            assert await host.says("bob", BOB.code(T0)) == "accepted"
            assert await host.says("alice", ALICE.code(T0)) != "accepted"

    play(scenario())


def test_new_rules_hold_from_then_on(authority: FakeAuthority, host: AgentHost) -> None:
    async def scenario() -> None:
        async with joined(authority, host):
            assert host.rules_heard[-1][1] == "edge"
            authority.rules = '{"format":1,"policy":[{"id":"nobody","deny":true}],"window":2}'
            authority.add(ALICE)
            await until(lambda: host.rules_heard[-1][0].window == 2, "the rules are here")
            await authority.stop()
            assert await host.says("alice", ALICE.code(T0)) == "policy_denied"

    play(scenario())


def test_rules_that_cannot_be_read_leave_those_of_before(authority: FakeAuthority, host: AgentHost) -> None:
    async def scenario() -> None:
        async with joined(authority, host):
            before = host.state.rules
            authority.rules = '{"format":99}'
            authority.add(BOB)
            await until(lambda: trouble(host) is What.RULES, "the trouble is written down")
            assert host.state.rules == before
            assert "bob" in host.names()
            assert "agent.rules_refused" in host.actions()

    play(scenario())


SPOILT: dict[str, Callable[[SyncAnswer], SyncAnswer]] = {
    "another host's": lambda one: one.model_copy(update={"host_id": 8}),
    "another authority's": lambda one: one.model_copy(update={"authority_id": "another"}),
    "an old one": lambda one: one.model_copy(update={"nonce": bytes(16)}),
    "an older one": lambda one: one.model_copy(update={"seq": 1}),
}


@pytest.mark.parametrize("how", [*SPOILT, "another key's", "cut off", "tampered with"])
def test_of_a_spoilt_answer_nothing_is_used(authority: FakeAuthority, host: AgentHost, how: str) -> None:
    async def scenario() -> None:
        async with joined(authority, host):
            before = host.state
            if how in SPOILT:
                authority.twist = SPOILT[how]
            elif how == "another key's":
                authority.signer = replace_signer(authority)
            elif how == "cut off":
                authority.spoil = lambda body: body[: len(body) // 2]
            else:
                authority.spoil = lambda body: body.replace(b'"name":"bob"', b'"name":"eve"')
            authority.add(BOB)
            await until(lambda: trouble(host) is What.ANSWER, "the trouble is written down")
            state = host.state
            assert host.names() == ["alice"]
            assert (state.seq, state.cursor, state.not_after) == (before.seq, before.cursor, before.not_after)
            assert "agent.answer_refused" in host.actions()
            assert await host.says("alice", ALICE.code(T0)) == "accepted"
            assert authority.attempts == []

    play(scenario())


def replace_signer(authority: FakeAuthority) -> Any:
    return FakeAuthority(authority.folder, authority.clock).signer


def test_a_set_of_users_that_differs_is_asked_for_anew(authority: FakeAuthority, host: AgentHost) -> None:
    async def scenario() -> None:
        async with joined(authority, host):
            authority.users["alice"].version += 1  # a change of which no page tells
            authority.add(BOB)
            authority.users["alice"].version = 1
            await until(lambda: "bob" in host.names(), "bob is here")
            await until(lambda: host.follower.counted.full_syncs >= 2, "all of it was asked for")
            assert trouble(host) is None

    play(scenario())


def test_an_authority_that_never_compares_is_asked_for_everything_in_the_end(
    authority: FakeAuthority, host: AgentHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with joined(authority, host):
            authority.twist = lambda one: one.model_copy(update={"digest": None})
            authority.add(BOB)
            await until(lambda: "bob" in host.names(), "bob is here")
            authority.add(BOB)
            await until(lambda: host.state.cursor == authority.seq, "it was heard again")
            assert (host.follower.counted.full_syncs, trouble(host)) == (1, None)  # not at once
            monkeypatch.setattr(follower, "UNCOMPARED_S", 0.0)
            authority.add(BOB)
            await until(lambda: host.follower.counted.full_syncs >= 2, "all of it was asked for")
            assert trouble(host) is None

    play(scenario())


def test_much_is_not_stored_where_it_would_take_the_room_of_logins(
    authority: FakeAuthority, host: AgentHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A little is: somebody may have lost the right to log in."""
    crowd = [Person(f"late{number}") for number in range(follower.SMALL_PAGE + 1)]
    wanted: list[int] = []

    def full(size: int) -> None:
        wanted.append(size)
        raise StoreFull("the file system of the store is full", cure="free space")

    async def scenario() -> None:
        async with joined(authority, host):
            monkeypatch.setattr(host.store, "check_room", full)
            authority.add(BOB)
            await until(lambda: "bob" in host.names(), "bob is here")
            for one in crowd:
                authority.add(one)
            await until(lambda: trouble(host) is What.STORE, "the trouble is written down")
            assert host.names() == ["alice", "bob"]
            assert await host.says("alice", ALICE.code(T0)) == "accepted"
            assert wanted[0] > len(crowd) * follower.ROOM_FOR_USER
            monkeypatch.undo()
            host.follower._woken.set()
            await until(lambda: len(host.names()) == 2 + len(crowd), "all are here")

    play(scenario())


def test_a_disk_that_is_full_leaves_the_old_cache_and_is_told(
    authority: FakeAuthority, host: AgentHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with joined(authority, host):
            real, full = host.store.writing, [True]

            @contextmanager
            def writing() -> Iterator[Connection]:
                with real() as connection:
                    yield connection
                    bobs = connection.exec_driver_sql("SELECT count(*) FROM users WHERE name = 'bob'").scalar()
                    if full and bobs:
                        raise StoreFull("database or disk is full", cure="free space")

            monkeypatch.setattr(host.store, "writing", writing)
            authority.add(BOB)
            await until(lambda: trouble(host) is What.STORE, "the trouble is written down")
            assert host.names() == ["alice"]
            assert "agent.sync_not_stored" in host.actions()
            assert await host.says("alice", ALICE.code(T0)) == "accepted"
            full.clear()
            host.follower._woken.set()
            await until(lambda: "bob" in host.names(), "bob is here")
            await until(lambda: trouble(host) is None, "the trouble is over")

    play(scenario())


def test_a_clock_that_is_off_is_told(authority: FakeAuthority, host: AgentHost, clock: FakeClock) -> None:
    async def scenario() -> None:
        authority.clock = FakeClock(T0 - 3600)
        async with joined(authority, host):
            await until(lambda: trouble(host) is What.CLOCK, "the trouble is written down")
            await authority.stop()
            assert await host.says("alice", ALICE.code(T0)) == "clock_jumped"

    play(scenario())


# What the authority says of the host


@pytest.mark.parametrize("path", [VERIFY, SYNC])
@pytest.mark.parametrize("refusal", [Refusal.REVOKED, Refusal.UNKNOWN_HOST])
def test_a_revoked_host_forgets_everything(
    authority: FakeAuthority, host: AgentHost, path: str, refusal: Refusal
) -> None:
    async def scenario() -> None:
        async with joined(authority, host):
            authority.refusal = refusal
            if path == SYNC:
                authority.changed.set()
                await until(lambda: host.state.standing == "revoked", "it has heard")
            assert await host.says("alice", ALICE.code(T0)) == "host_revoked"
            assert (host.names(), host.state.standing, host.state.not_after) == ([], "revoked", 0.0)
            assert "agent.revoked" in host.actions()
            await authority.stop()
            assert await host.says("alice", ALICE.code(T0)) == "host_revoked"

    play(scenario())


def test_a_host_in_quarantine_decides_nothing_until_it_is_released(authority: FakeAuthority, host: AgentHost) -> None:
    async def scenario() -> None:
        async with joined(authority, host):
            authority.refusal = Refusal.QUARANTINED
            assert await host.says("alice", ALICE.code(T0)) == "host_revoked"
            assert host.state.standing == "quarantined"
            authority.refusal = None
            host.follower._woken.set()
            await host.online()
            assert host.state.standing == "joined"
            assert await host.says("alice", ALICE.code(T0)) == "accepted"

    play(scenario())


def test_a_fork_begins_a_new_journal_with_what_was_decided_alone(
    authority: FakeAuthority, host: AgentHost, clock: FakeClock
) -> None:
    """The machine was put back: what it decided since, and has not told, is told in the next epoch."""

    async def scenario() -> None:
        async with joined(authority, host):
            await authority.stop()
            assert await host.says("alice", ALICE.code(T0)) == "accepted"
            authority.journal[1] = ['{"another":"journal"}']
            await authority.start()
            await until(lambda: host.state.journal_epoch == 2, "a new journal")
            await host.online()
            await until(lambda: bool(authority.journal.get(2)), "it is there")
            carried = [one for one in authority.events(2) if one["event"] == "attempt"]
            assert [(one["outcome"], one["by"]) for one in carried] == [("accepted", "host")]
            assert authority.users["alice"].last_step == host.watermark("alice")
            assert host.ledger.node == "local:2"
            clock.advance(60)
            assert await host.says("alice", ALICE.code(clock())) == "accepted"
            await until(lambda: len([e for e in authority.events(2) if e["event"] == "attempt"]) == 2, "and goes on")

    play(scenario())


def test_a_machine_that_was_put_back_twice_begins_after_all_journals_that_there_were(
    authority: FakeAuthority, host: AgentHost, clock: FakeClock
) -> None:
    """It does not know how many it has begun before. The authority says so, and nobody waits for it."""

    async def scenario() -> None:
        async with joined(authority, host):
            await authority.stop()
            assert await host.says("alice", ALICE.code(T0)) == "accepted"
            authority.journal[4] = ['{"another":"journal"}']
            await authority.start()
            await host.online()
            assert host.state.journal_epoch == 5
            assert [one["by"] for one in authority.events(5) if one["event"] == "attempt"] == ["host"]

    play(scenario())


def test_a_sync_and_then_an_upload_may_tell_of_a_fork(authority: FakeAuthority, host: AgentHost) -> None:
    async def scenario() -> None:
        async with joined(authority, host):
            authority.journal[3] = ['{"another":"journal"}']
            authority.fork = True
            authority.changed.set()
            await until(lambda: host.state.journal_epoch >= 2, "a new journal")
            authority.fork = False
            await until(lambda: host.state.journal_epoch == 4, "one after all others")
            await host.online()

    play(scenario())


def test_a_fork_that_a_sync_tells_begins_a_new_journal(authority: FakeAuthority, host: AgentHost) -> None:
    async def scenario() -> None:
        async with joined(authority, host):
            authority.fork = True
            authority.changed.set()
            await until(lambda: host.state.journal_epoch >= 2, "a new journal")
            authority.fork = False
            await host.online()

    play(scenario())


def test_an_authority_that_was_put_back_is_told_again(authority: FakeAuthority, host: AgentHost, clock: FakeClock) -> None:
    """Its store is an older one: what it was told since, it is told once more, in the same journal; what was spent is spent."""

    async def scenario() -> None:
        async with joined(authority, host):
            kept, mark = list(authority.journal[1]), authority.users["alice"].last_step
            assert await host.says("alice", ALICE.code(T0)) == "accepted"
            await until(lambda: host.state.journal_seq == len(authority.journal[1]) > len(kept), "it has been told")
            told, spent = list(authority.journal[1]), authority.users["alice"].last_step
            await authority.stop()
            authority.journal[1], authority.users["alice"].last_step = kept, mark
            authority.ruled.clear()
            await authority.start()
            await until(lambda: authority.journal[1][: len(told)] == told, "it is told once more")
            await host.online()
            assert (host.state.journal_epoch, host.follower.counted.forks) == (1, 0)
            assert authority.users["alice"].last_step == spent
            assert await host.says("alice", ALICE.code(T0)) == "replayed"
            clock.advance(60)
            assert await host.says("alice", ALICE.code(clock())) == "accepted"
            await until(lambda: host.state.journal_seq == len(authority.journal[1]), "and goes on")
            assert trouble(host) is None

    play(scenario())


def test_a_host_that_had_more_to_tell_begins_where_the_authority_was_put_back_to(
    authority: FakeAuthority, host: AgentHost
) -> None:
    async def scenario() -> None:
        async with joined(authority, host):
            await until(lambda: len(authority.journal.get(1, [])) > 0, "it has been told")
            await authority.stop()
            assert await host.says("alice", ALICE.code(T0)) == "accepted"
            authority.journal[1] = []
            await authority.start()
            await host.online()
            assert host.state.journal_epoch == 1
            assert [one["by"] for one in authority.events() if one["event"] == "attempt"] == ["host"]
            assert authority.users["alice"].last_step == host.watermark("alice")

    play(scenario())


def test_an_authority_that_takes_nothing_is_not_told_for_ever(authority: FakeAuthority, host: AgentHost) -> None:
    async def scenario() -> None:
        async with joined(authority, host):
            await authority.stop()
            assert await host.says("alice", ALICE.code(T0)) == "accepted"
            nothing = answers(200, JournalHead(epoch=1, seq=0, hash=GENESIS).octets())
            authority.standing_faults[JOURNAL] = nothing
            await authority.start()
            await until(lambda: trouble(host) is What.ANSWER, "the trouble is written down")
            assert authority.asked.count(JOURNAL) < 5
            assert host.state.journal_epoch == 1

    play(scenario())


# Joining


def test_a_host_that_has_not_joined_lets_nobody_in_and_notices_a_join(authority: FakeAuthority, host: AgentHost) -> None:
    async def scenario() -> None:
        async with authority.serve(), host.running():
            assert await host.says("alice", ALICE.code(T0)) == "never_synced"
            await host.join(authority)
            await host.online()
            assert await host.says("alice", ALICE.code(T0)) == "accepted"

    play(scenario())


def test_another_join_is_noticed_and_forgets_what_was(authority: FakeAuthority, host: AgentHost) -> None:
    async def scenario() -> None:
        async with joined(authority, host):
            authority.host_id = 8
            authority.users.clear()
            authority.add(BOB)
            await host.join(authority)
            await until(lambda: host.names() == ["bob"], "the users of the new one")
            assert host.state.journal_epoch == 2
            await until(lambda: host.ledger.node == "local:2", "the new journal")

    play(scenario())


def test_a_store_with_users_of_its_own_does_not_join(authority: FakeAuthority, tmp_path: Path, host: AgentHost) -> None:
    (tmp_path / "other").mkdir()
    host.store = install(tmp_path / "other").store

    async def scenario() -> None:
        async with authority.serve():
            with pytest.raises(Conflict):
                await host.join(authority)
        assert authority.asked == []

    play(scenario())


# Ways to the authority


def test_another_authority_is_asked_when_one_is_gone(
    authority: FakeAuthority, host: AgentHost, tmp_path: Path, clock: FakeClock
) -> None:
    async def scenario() -> None:
        same = {"ca": authority.ca, "signer": authority.signer, "users": authority.users, "seq": authority.seq}
        other = FakeAuthority(tmp_path, clock, **same)  # type: ignore[arg-type]
        async with authority.serve(), other.serve():
            await host.join(authority)
            other.hpke_public = authority.hpke_public
            host.habits = replace(PATIENT, authorities=(authority.url, other.url))
            async with host.running():
                await host.online()
                await authority.stop()
                assert await host.says("alice", ALICE.code(T0)) == "accepted"
                assert len(other.attempts) == 1

    play(scenario())


def test_another_server_at_the_address_is_not_believed(
    authority: FakeAuthority, host: AgentHost, tmp_path: Path, clock: FakeClock
) -> None:
    async def scenario() -> None:
        async with joined(authority, host):
            await authority.stop()
            impostor = FakeAuthority(tmp_path, clock, ca=Ca("impostor"), port=authority.port)
            async with impostor.serve():
                assert await host.says("alice", ALICE.code(T0)) == "accepted"
                await host.offline()
                await until(lambda: "certificate" in host.state.trouble, "the trouble names it")
                assert impostor.asked == []

    play(scenario())


def test_a_certificate_is_renewed_and_shown_from_one_moment_on(authority: FakeAuthority, tmp_path: Path) -> None:
    clock = FakeClock(time.time() + 21 * 86_400)
    authority.clock = clock
    host = AgentHost(tmp_path / "host", clock)

    async def scenario() -> None:
        async with joined(authority, host):
            def stored() -> list[str]:
                with host.store.reading() as connection:
                    return [one[0] for one in own_keys.stamp(connection)]

            authority.add(BOB)
            await until(lambda: "tls-next" in stored(), "a new certificate")
            first = set(authority.shown)
            assert len(first) == 1
            clock.advance(own_keys.SWITCH_S + 1)
            authority.add(BOB)
            await until(lambda: len(set(authority.shown)) == 2, "it is shown")
            assert await host.says("alice", ALICE.code(clock())) == "accepted"
            clock.advance(own_keys.SWITCH_S + 1)
            authority.add(BOB)
            await until(lambda: stored() == ["hpke", "tls"], "the old one is gone")
            assert await host.says("alice", ALICE.code(clock(), 1)) == "accepted"
            assert len(set(authority.shown)) == 2
            assert authority.shown[-1] not in first

    play(scenario())


def test_an_event_with_the_longest_texts_is_taken(authority: FakeAuthority, host: AgentHost, clock: FakeClock) -> None:
    """Else whoever chooses such a name could keep a host from its authority for ever."""
    odd = "\U0001f511" * 300

    async def scenario() -> None:
        async with joined(authority, host):
            await authority.stop()
            await host.says(odd, "123456", service=odd, client=odd, source=odd)
            await authority.start()
            await host.online()
            await until(lambda: max(map(len, authority.journal[1])) > 8_192, "it is in the journal")

    play(scenario())


def test_a_journal_that_forks_again_and_again_begins_anew_a_few_times_in_a_while(
    authority: FakeAuthority, host: AgentHost
) -> None:
    """A machine that was put back several times has begun a few of them before."""

    async def scenario() -> None:
        async with joined(authority, host):
            authority.fork = True
            authority.changed.set()
            await until(lambda: trouble(host) is What.ANSWER, "the trouble is written down")
            assert host.state.journal_epoch == 1 + follower.FORKS
            authority.fork = False
            host.follower._woken.set()
            await host.online()

    play(scenario())
