"""Look-ups in directories that answer, stall, lie, go away and refuse the service account."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ldap_proxy.directory_client import MAX_ANSWER, MAX_OUTSTANDING, Answer, DirectoryClient, NoAnswer
from ldap_proxy.dn import parse_dn
from ldap_proxy.kept import Kept
from ldap_proxy.link import Link
from ldap_proxy.lookup import MAX_KEY, MAX_UNDER_WAY, NOTHING_KEEP_S, REFUSED_SERVICE_S, Identities, LookupFailed, Lookups
from ldap_proxy.message import (
    ABANDON_REQUEST,
    BIND_REQUEST,
    SEARCH_REQUEST,
    Scope,
    build_extended_response,
    build_result,
    build_search,
    notice_of_disconnection,
    parse_bind,
    present,
)
from ldap_proxy.settings import Limits, LookupSettings, Scheme, Server
from ldap_proxy.upstream import Upstreams
from mfa_core.secret import Secret
from tests.doubles import FakeClock
from tests.end_to_end.programs import must_have
from tests.end_to_end.slapd import BASE, PEOPLE, PROGRAMS, SERVICE_DN, SERVICE_PASSWORD, Slapd
from tests.ldap_proxy.directories import (
    Behaviour,
    Caller,
    Directory,
    Ear,
    directory,
    done,
    entry,
    honest,
    run,
    silent,
    until,
    upstream_settings,
)

ALICE = b"uid=alice,ou=people,dc=example,dc=org"
SERVICE = LookupSettings("cn=mfad", Secret(b"service"), timeout_s=5.0)
ANONYMOUS = LookupSettings(timeout_s=5.0)


@asynccontextmanager
async def lookups(
    one: Directory, settings: LookupSettings = ANONYMOUS, *, clock: Any = time.monotonic
) -> AsyncIterator[Lookups]:
    upstreams = Upstreams(upstream_settings(one.server), monotonic=time.monotonic, limits=Limits())
    asking = Lookups(settings, upstreams, monotonic=clock)
    try:
        yield asking
    finally:
        asking.close()
        await upstreams.stop()


async def values(asking: Lookups, name: bytes = ALICE, attribute: str = "uid") -> tuple[str, ...] | LookupFailed:
    told: list[tuple[str, ...] | LookupFailed] = []
    asking.values(name, attribute, told.append)
    assert not told  # never from within the call
    await until(lambda: told)
    assert len(told) == 1
    return told[0]


def people(**attributes: list[bytes]) -> Behaviour:
    """A directory in which everybody has these attributes."""

    def behave(caller: Caller, pdu: bytes, number: int, tag: int) -> bytes:
        found = entry(number, ALICE, **attributes) if tag == SEARCH_REQUEST else b""
        return found + done(number, tag)

    return behave


def answering(code: int, *, to: int = SEARCH_REQUEST) -> Behaviour:
    return lambda caller, pdu, number, tag: done(number, tag, code if tag == to else 0)


def searches(one: Directory) -> int:
    return sum(caller.tags().count(SEARCH_REQUEST) for caller in one.callers)


# -- answers ----------------------------------------------------------------------------------------------------------------


def test_an_answer_is_kept_for_its_time_and_asked_once() -> None:
    """Those who ask at the same time share one question; those who come later need none."""

    async def main() -> None:
        clock = FakeClock()
        async with directory(people(uid=[b"alice"])) as one, lookups(one, clock=clock) as asking:
            assert asking.kept_values(ALICE, "uid") is None
            assert await asyncio.gather(*(values(asking) for _ in range(10))) == [("alice",)] * 10
            assert asking.kept_values(ALICE, "uid") == ("alice",)
            assert searches(one) == 1

            clock.advance(ANONYMOUS.keep_s - 1)
            assert asking.kept_values(ALICE, "uid") == ("alice",)
            clock.advance(1)
            assert asking.kept_values(ALICE, "uid") is None
            assert await values(asking) == ("alice",)
            assert searches(one) == 2
            assert asking.counts == {"asked": 2, "answered": 2, "failed": 0}

    run(main())


@pytest.mark.parametrize("code", [0, 32, 34])
def test_no_entry_is_an_answer_that_is_kept_shortly(code: int) -> None:
    """Somebody may be waiting for his account."""

    async def main() -> None:
        clock = FakeClock()
        async with directory(answering(code)) as one, lookups(one, clock=clock) as asking:
            assert await values(asking) == ()
            clock.advance(NOTHING_KEEP_S - 1)
            assert asking.kept_values(ALICE, "uid") == ()
            clock.advance(1)
            assert asking.kept_values(ALICE, "uid") is None

    run(main())


@pytest.mark.parametrize("code", [1, 2, 3, 4, 10, 49, 50, 51, 52, 53, 80, 123])
def test_any_other_result_is_no_answer(code: int) -> None:
    """Above all no empty one, and nothing is kept of it."""

    async def main() -> None:
        async with directory(answering(code)) as one, lookups(one) as asking:
            found = await values(asking)
            assert isinstance(found, LookupFailed)
            assert f"({code})" in str(found) or f"result {code}" in str(found)
            assert asking.kept_values(ALICE, "uid") is None

    run(main())


def test_all_values_come_and_other_attributes_do_not() -> None:
    """Under whatever name the directory answers; an attribute with options is another one."""

    async def main() -> None:
        behave = people(userid=[b"alice", "ålice".encode(), b"\xff"], **{"uid;lang-en": [b"other"]})
        async with directory(behave) as one, lookups(one) as asking:
            assert await values(asking) == ("alice", "ålice", "\udcff")

    run(main())


def test_several_entries_under_one_dn_are_no_answer() -> None:
    """A base search finds one entry or none (RFC 4511 section 4.5.1.2)."""

    async def main() -> None:
        def behave(caller: Caller, pdu: bytes, number: int, tag: int) -> bytes:
            return entry(number, ALICE, uid=[b"alice"]) * 2 + done(number, tag)

        async with directory(behave) as one, lookups(one) as asking:
            assert isinstance(await values(asking), LookupFailed)

    run(main())


def test_a_group_is_asked_whether_it_has_a_member() -> None:
    """One search at the group's own DN; yes and no are kept, and a group that is not there is a no and a warning."""
    group, alice = parse_dn("cn=apps,dc=example,dc=org"), parse_dn(ALICE.decode())

    async def ask(asking: Lookups) -> bool | LookupFailed:
        told: list[bool | LookupFailed] = []
        asking.membership(group, alice, ("member", "uniqueMember"), told.append)
        await until(lambda: told)
        return told[0]

    async def main(behave: Behaviour, expected: bool) -> bytes:
        async with directory(behave) as one, lookups(one) as asking:
            assert asking.kept_membership(group, alice) is None
            assert await ask(asking) is expected
            assert asking.kept_membership(group, alice) is expected
            assert asking.kept_membership(alice, group) is None
            return bytes(one.callers[0].received)

    asked = run(main(people(), True))
    for octets in (b"cn=apps,dc=example,dc=org", b"member", b"uniqueMember", ALICE):
        assert octets in asked
    run(main(honest, False))
    run(main(answering(32), False))

    async def failing() -> None:
        async with directory(answering(50)) as one, lookups(one) as asking:
            assert isinstance(await ask(asking), LookupFailed)
            assert asking.kept_membership(group, alice) is None

    run(failing())


def test_a_missing_group_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    """It is a mistake in the configuration, or in the rights of the service account."""
    group = parse_dn("cn=gone,dc=example,dc=org")

    async def main() -> None:
        async with directory(answering(32)) as one, lookups(one) as asking:
            for name in ("a", "b", "c"):
                told: list[Any] = []
                asking.membership(group, parse_dn(f"uid={name}"), ("member",), told.append)
                await until(lambda told=told: told)

    caplog.set_level(logging.WARNING, logger="ldap_proxy.lookup")
    run(main())
    assert [record.getMessage() for record in caplog.records] == [
        "the group cn=gone,dc=example,dc=org is not there, or an anonymous client may not read it: nobody is exempt by it"
    ]


# -- who asks ---------------------------------------------------------------------------------------------------------------


def test_the_service_account_binds_once_for_many_questions() -> None:
    """And the bind is its own, before the first question."""

    async def main() -> None:
        async with directory(people(uid=[b"alice"])) as one, lookups(one, SERVICE) as asking:
            for number in range(5):
                assert await values(asking, b"uid=%d" % number) == ("alice",)
            assert [caller.tags() for caller in one.callers] == [[BIND_REQUEST] + [SEARCH_REQUEST] * 5]
            bind = parse_bind(one.callers[0].pdus[0])
            assert bind.name == b"cn=mfad"
            assert bind.password is not None
            assert bind.password.reveal() == b"service"

    run(main())


def test_a_service_account_without_a_password_never_binds() -> None:
    """It would be an unauthenticated bind (RFC 4513 section 5.1.2), which succeeds and means nothing."""

    async def main() -> None:
        for password in (None, Secret(b"")):
            async with directory(honest) as one, lookups(one, replace(SERVICE, bind_password=password)) as asking:
                assert isinstance(await values(asking), LookupFailed)
                assert all(BIND_REQUEST not in caller.tags() for caller in one.callers)

    run(main())


def test_a_refused_service_account_is_not_tried_again_at_once(caplog: pytest.LogCaptureFixture) -> None:
    """The directory would lock it; the log says so once."""

    async def main() -> None:
        clock = FakeClock()
        async with directory(answering(49, to=BIND_REQUEST)) as one, lookups(one, SERVICE, clock=clock) as asking:
            for number in range(5):
                found = await values(asking, b"uid=%d" % number)
                assert isinstance(found, LookupFailed)
                assert "bind_password_file" in found.cure
            assert sum(caller.tags().count(BIND_REQUEST) for caller in one.callers) == 1

            one.behave = people(uid=[b"alice"])
            clock.advance(REFUSED_SERVICE_S)
            assert await values(asking) == ("alice",)

    caplog.set_level(logging.ERROR, logger="ldap_proxy.lookup")
    run(main())
    assert len(caplog.records) == 1
    assert "service" not in caplog.records[0].getMessage().replace("look-ups", "")


def test_a_busy_directory_is_asked_again_by_the_next_one() -> None:
    """51 and 52 say nothing of the account."""

    async def main() -> None:
        async with directory(answering(51, to=BIND_REQUEST)) as one, lookups(one, SERVICE) as asking:
            assert isinstance(await values(asking), LookupFailed)
            one.behave = people(uid=[b"alice"])
            assert await values(asking) == ("alice",)

    run(main())


# -- directories that do not answer -------------------------------------------------------------------------------------------


def test_silence_is_told_in_time_and_the_connection_given_up() -> None:
    """What came later would be taken for the answer to another question."""

    async def main() -> None:
        async with directory(silent) as one, lookups(one, replace(ANONYMOUS, timeout_s=0.2)) as asking:
            assert isinstance(await values(asking), LookupFailed)
            await until(lambda: one.callers and one.callers[0].ended)
            one.behave = people(uid=[b"alice"])
            asking.reload(ANONYMOUS)
            assert await values(asking) == ("alice",)

    run(main())


def test_no_server_is_no_answer() -> None:
    """With what went wrong."""

    async def main() -> None:
        one = await Directory().start()
        await one.stop()
        async with lookups(one) as asking:
            found = await values(asking)
            assert isinstance(found, LookupFailed)
            assert "Connection refused" in str(found)

    run(main())


def test_a_connection_that_was_closed_meanwhile_costs_nobody_an_answer() -> None:
    """Directories close idle connections; a question may be asked twice."""

    async def main() -> None:
        async with directory(people(uid=[b"alice"])) as one, lookups(one) as asking:
            assert await values(asking, b"uid=1") == ("alice",)

            def last(caller: Caller, pdu: bytes, number: int, tag: int) -> None:
                one.behave = people(uid=[b"alice"])
                caller.end()

            one.behave = last
            assert await values(asking, b"uid=2") == ("alice",)

            one.behave = lambda caller, *_: caller.end()
            assert isinstance(await values(asking, b"uid=3"), LookupFailed)  # twice, and not for ever

    run(main())


LIES = {
    "another message": lambda number: build_result(number + 1, 0x65, 0),
    "another operation": lambda number: build_result(number, 0x61, 0),
    "an extended response": lambda number: build_extended_response(number, 0),
    "an entry that is none": lambda number: b"\x30\x05\x02\x01" + bytes((number,)) + b"\x64\x00",
    "a request": lambda number: b"\x30\x05\x02\x01" + bytes((number,)) + b"\x42\x00",
    "farewell": lambda number: notice_of_disconnection(52),
    "garbage": lambda number: b"\xff" * 64,
    "too long": lambda number: b"\x30\x84\x7f\xff\xff\xff",
    "too many entries": lambda number: entry(number, ALICE) * 2000,
    "too much": lambda number: entry(number, ALICE, uid=[bytes(MAX_ANSWER // 2)]) * 3,
}


@pytest.mark.parametrize("lie", LIES)
def test_a_directory_that_lies_gives_no_answer(lie: str) -> None:
    """And the connection is of no use any more; nothing of it is kept."""

    async def main() -> None:
        def behave(caller: Caller, pdu: bytes, number: int, tag: int) -> bytes:
            return LIES[lie](number)  # type: ignore[no-any-return,no-untyped-call]

        async with directory(behave) as one, lookups(one) as asking:
            found = await values(asking)
            assert isinstance(found, LookupFailed)
            assert "within" not in str(found)  # it was not waited for something better
            await until(lambda: not one.open_callers)
            assert asking.kept_values(ALICE, "uid") is None

    run(main())


def test_answers_may_come_in_pieces_and_in_any_order() -> None:
    """As TCP and RFC 4511 section 3.1 allow."""

    async def main() -> None:
        held: list[tuple[Caller, int]] = []

        async def in_pieces(octets: bytes, caller: Caller) -> None:
            for octet in octets:
                caller.send(bytes((octet,)))
                await asyncio.sleep(0)

        def behave(caller: Caller, pdu: bytes, number: int, tag: int) -> Any:
            held.append((caller, number))
            if len(held) < 4:
                return None
            octets = b"".join(
                entry(number, ALICE, uid=[b"%d" % number]) + done(number, SEARCH_REQUEST) for _, number in reversed(held)
            )
            return in_pieces(octets, caller)

        async with directory(behave) as one, lookups(one, replace(ANONYMOUS, connections=1)) as asking:
            found = await asyncio.gather(*(values(asking, b"uid=%d" % number) for number in range(1, 5)))
            assert sorted(found) == [("1",), ("2",), ("3",), ("4",)]  # type: ignore[type-var]
            assert len(one.callers) == 1

    run(main())


# -- bounds -----------------------------------------------------------------------------------------------------------------


def test_questions_under_way_are_bounded() -> None:
    """One more hears at once that there is no room."""

    async def main() -> None:
        async with directory(silent) as one, lookups(one) as asking:
            told: list[Any] = []
            for number in range(MAX_UNDER_WAY):
                asking.values(b"uid=%d" % number, "uid", told.append)
            assert not told
            found = await values(asking, b"uid=one more")
            assert isinstance(found, LookupFailed)
            assert "under way" in str(found)
            assert len(told) <= MAX_UNDER_WAY
            await until(lambda: len(one.callers) == 2)  # as many connections as the settings have
        assert len(told) == MAX_UNDER_WAY  # nobody is left waiting at the end
        assert all(isinstance(one, LookupFailed) for one in told)

    run(main())


def test_more_questions_use_more_connections() -> None:
    """Up to ``connections``."""

    async def main() -> None:
        async with directory(silent) as one, lookups(one, replace(ANONYMOUS, connections=3)) as asking:
            for number in range(100):
                asking.values(b"uid=%d" % number, "uid", lambda _: None)
                await asyncio.sleep(0.001)
            await until(lambda: searches(one) == 100)
            assert len(one.callers) == 3

    run(main())


def test_who_calls_off_hears_nothing_and_the_others_do() -> None:
    """The answer is kept all the same."""

    async def main() -> None:
        async with directory(people(uid=[b"alice"])) as one, lookups(one) as asking:
            first: list[Any] = []
            second: list[Any] = []
            cancel = asking.values(ALICE, "uid", first.append)
            asking.values(ALICE, "uid", second.append)
            cancel()
            cancel()
            await until(lambda: second)
            assert second == [("alice",)]
            assert first == []

            alone = asking.values(b"uid=bob", "uid", first.append)
            alone()
            await until(lambda: asking.kept_values(b"uid=bob", "uid"))
            assert first == []
            assert searches(one) == 2

    run(main())


def test_names_of_any_length_do_not_fill_the_memory() -> None:
    """A long one is answered, and not kept."""

    async def main() -> None:
        async with directory(people(uid=[b"alice"])) as one, lookups(one) as asking:
            name = b"uid=" + b"x" * MAX_KEY
            assert await values(asking, name) == ("alice",)
            assert asking.kept_values(name, "uid") is None

    run(main())


def test_a_reload_forgets_and_asks_as_somebody_else() -> None:
    """Those who wait get their answer."""

    async def main() -> None:
        async with directory(people(uid=[b"alice"])) as one, lookups(one) as asking:
            assert await values(asking) == ("alice",)
            one.behave = silent
            told: list[Any] = []
            asking.values(b"uid=waiting", "uid", told.append)
            await until(lambda: searches(one) == 2)

            one.behave = people(uid=[b"new"])
            asking.reload(SERVICE)
            assert asking.kept_values(ALICE, "uid") is None
            await until(lambda: told)
            assert told == [("new",)]
            assert BIND_REQUEST in one.callers[-1].tags()

    run(main())


def test_after_the_end_nothing_is_asked() -> None:
    """And who waited is told."""

    async def main() -> None:
        async with directory(silent) as one, lookups(one) as asking:
            told: list[Any] = []
            asking.values(ALICE, "uid", told.append)
            await until(lambda: searches(one) == 1)
            asking.close()
            assert isinstance(told[0], LookupFailed)
            assert isinstance(await values(asking, b"uid=later"), LookupFailed)
            assert searches(one) == 1

    run(main())


# -- the client -------------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def client(one: Directory) -> AsyncIterator[DirectoryClient]:
    upstreams = Upstreams(upstream_settings(one.server), monotonic=time.monotonic, limits=Limits())
    links: list[Any] = []
    upstreams.connect(Ear(), links.append)
    await until(lambda: links)
    assert isinstance(links[0], Link)
    asking = DirectoryClient(links[0])
    try:
        yield asking
    finally:
        asking.close()
        await upstreams.stop()


def root_dse(message_id: int) -> bytes:
    return build_search(message_id, b"", Scope.BASE, present("objectClass"))


def test_a_request_that_is_called_off_is_abandoned() -> None:
    """RFC 4511 section 4.11: it may still be answered, and is not by most."""

    async def main() -> None:
        for behave in (honest, silent):
            told: list[Any] = []
            async with directory(silent) as one, client(one) as asking:
                cancel = asking.ask(root_dse, SEARCH_REQUEST, told.append, timeout_s=10.0)
                cancel()
                one.behave = behave
                await until(lambda one=one: one.callers and len(one.callers[0].pdus) == 2)
                assert one.callers[0].tags() == [SEARCH_REQUEST, ABANDON_REQUEST]
                one.behave = honest
                assert (await asking.asked(root_dse, SEARCH_REQUEST, timeout_s=10.0)).result.code == 0
            assert not told

    run(main())


def test_requests_of_one_connection_are_bounded() -> None:
    """One more is not sent."""

    async def main() -> None:
        async with directory(silent) as one, client(one) as asking:
            told: list[Any] = []
            for _ in range(MAX_OUTSTANDING):
                asking.ask(root_dse, SEARCH_REQUEST, told.append, timeout_s=10.0)
            with pytest.raises(NoAnswer, match="wait already"):
                await asking.asked(root_dse, SEARCH_REQUEST, timeout_s=10.0)
            assert not told
            assert asking.outstanding == MAX_OUTSTANDING

    run(main())


class _Wire:
    """A link without a network."""

    server = "ldap://nowhere"

    def __init__(self) -> None:
        self.is_open = True

    def give_to(self, receiver: Any) -> None: ...

    def write(self, data: bytes) -> None: ...

    def close(self) -> None:
        self.is_open = False

    abort = close


_MESSAGES = st.sampled_from(
    [
        build_result(1, 0x65, 0),
        build_result(1, 0x65, 32),
        entry(1, ALICE, uid=[b"alice"]),
        build_result(2, 0x65, 0),
        notice_of_disconnection(2),
        build_extended_response(0, 0, oid="1.2.3"),
        build_extended_response(1, 0),
    ]
)


@given(st.lists(st.one_of(_MESSAGES, st.binary(max_size=40)), max_size=6).map(b"".join), st.booleans())
def test_whatever_comes_is_an_answer_or_none(octets: bytes, whole: bool) -> None:
    """Whole or octet by octet: one thing is told at most, the same one, and never an exception."""

    async def main(pieces: list[bytes]) -> list[Any]:
        wire = _Wire()
        asking = DirectoryClient(wire)  # type: ignore[arg-type]
        told: list[Any] = []
        asking.ask(root_dse, SEARCH_REQUEST, told.append, timeout_s=100.0)
        for piece in pieces:
            if wire.is_open:
                asking.upstream_data(piece)
        asking.close()
        assert len(told) == 1
        assert isinstance(told[0], Answer | NoAnswer)
        return [one if isinstance(one, Answer) else "none" for one in told]

    at_once = run(main([octets]))
    in_pieces = run(main([octets[at : at + 1] for at in range(len(octets))]))
    assert at_once == in_pieces


# -- what is kept -----------------------------------------------------------------------------------------------------------


def test_identities_are_kept_by_the_octets_of_the_name() -> None:
    """For their time, in bounded number, and not for names without a bound."""
    clock = FakeClock()
    kept = Identities(keep_s=300.0, max_entries=2, monotonic=clock)

    kept.put(b"cn=a", b"dn:cn=a")
    kept.put(b"CN=a", b"dn:cn=a")
    assert (kept.get(b"cn=a"), kept.get(b"cn=A")) == (b"dn:cn=a", None)
    kept.put(b"cn=b", b"")
    assert (kept.get(b"cn=a"), kept.get(b"CN=a"), kept.get(b"cn=b")) == (None, b"dn:cn=a", b"")
    clock.advance(300)
    assert kept.get(b"cn=b") is None
    kept.put(b"x" * (MAX_KEY + 1), b"dn:cn=a")
    assert kept.get(b"x" * (MAX_KEY + 1)) is None


def test_with_no_time_to_keep_nothing_is_kept() -> None:
    """``identity_cache: 0`` asks each time."""
    kept = Identities(keep_s=0.0, max_entries=10, monotonic=FakeClock())
    kept.put(b"cn=a", b"dn:cn=a")
    assert kept.get(b"cn=a") is None


def test_a_value_that_is_put_again_is_the_youngest() -> None:
    """And the one that is thrown away is the oldest."""
    kept: Kept[str, int] = Kept(max_entries=2, monotonic=FakeClock())
    kept.put("a", 1, 10)
    kept.put("b", 2, 10)
    kept.put("a", 3, 10)
    kept.put("c", 4, 10)
    assert (kept.get("a"), kept.get("b"), kept.get("c"), len(kept)) == (3, None, 4, 2)
    kept.put("a", 5, 0)
    assert kept.get("a") is None
    kept.clear()
    assert len(kept) == 0


# -- a real directory -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def slapd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slapd]:
    must_have(*PROGRAMS)
    group = (
        f"dn: cn=apps,{BASE}\nobjectClass: groupOfNames\ncn: apps\nmember: uid=alice,{PEOPLE}\n\n"
        f"dn: cn=tools,{BASE}\nobjectClass: groupOfUniqueNames\ncn: tools\nuniqueMember: uid=bob,{PEOPLE}\n"
    )
    one = Slapd(tmp_path_factory.mktemp("slapd"), {"alice": "secret", "bob": "secret"}, ldif=group).start()
    yield one
    one.stop()


def test_slapd_is_asked(slapd: Slapd) -> None:
    """Attributes and groups of both kinds, by whatever spelling; without the service account there is nothing to see."""

    async def main() -> None:
        upstreams = Upstreams(
            upstream_settings(Server(Scheme.LDAP, "127.0.0.1", slapd.port)), monotonic=time.monotonic, limits=Limits()
        )
        asking = Lookups(
            LookupSettings(SERVICE_DN, Secret(SERVICE_PASSWORD.encode())), upstreams, monotonic=time.monotonic
        )
        assert await values(asking, f"UID=Alice, {PEOPLE}".encode()) == ("alice",)
        assert await values(asking, f"uid=alice,{PEOPLE}".encode(), "userid") == ("alice",)
        assert await values(asking, f"uid=nobody,{PEOPLE}".encode()) == ()
        assert await values(asking, b"no dn at all") == ()
        for group, member, expected in (
            ("apps", "alice", True), ("apps", "bob", False), ("tools", "bob", True), ("tools", "alice", False),
            ("nothing", "alice", False),
        ):  # fmt: skip
            told: list[Any] = []
            who = parse_dn(f"UID={member.upper()},{PEOPLE}")
            asking.membership(parse_dn(f"CN={group},{BASE}"), who, ("member", "uniqueMember"), told.append)
            await until(lambda told=told: told)
            assert told == [expected], (group, member)

        asking.reload(ANONYMOUS)
        assert await values(asking, f"uid=alice,{PEOPLE}".encode()) == ()
        asking.reload(LookupSettings(SERVICE_DN, Secret(b"wrong")))
        found = await values(asking, f"uid=alice,{PEOPLE}".encode())
        assert isinstance(found, LookupFailed)
        assert "invalid_credentials (49)" in str(found)
        asking.close()
        await upstreams.stop()

    run(main())
