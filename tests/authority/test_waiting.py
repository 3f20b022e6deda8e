"""Who waits for what: only those whom a change concerns are told, none is forgotten, and no wait lasts for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from authority.waiting import REMEMBERED, Wait, Waiting


def on_a_loop(scenario: Callable[[], None]) -> None:
    async def ran() -> None:
        scenario()

    asyncio.run(ran())


def begin(waiting: Waiting, host_id: int, *topics: str, since: int = 0, until: float = 100.0) -> Wait:
    return waiting.begin(host_id, frozenset(topics), since=since, until=until)


def test_a_change_is_told_to_its_topic() -> None:
    def scenario() -> None:
        waiting = Waiting()
        waiting.start_over(0)
        web, db = begin(waiting, 1, "group:web", "host:1"), begin(waiting, 2, "group:db", "host:2")
        assert waiting.heard(1, [(1, "group:web"), (1, "group:*")]) == [web]
        assert waiting.heard(2, [(2, "host:2"), (2, "group:db")]) == [db]
        assert not web.woken.done()  # who is to be told tells in his own time

    on_a_loop(scenario)


def test_who_looked_before_a_change_that_was_heard_already_does_not_wait() -> None:
    def scenario() -> None:
        waiting = Waiting()
        waiting.start_over(5)
        waiting.heard(7, [(6, "group:a"), (7, "group:b")])
        assert begin(waiting, 1, "group:a", since=5).woken.done()
        assert not begin(waiting, 2, "group:a", since=6).woken.done()
        assert begin(waiting, 3, "group:b", since=6).woken.done()
        assert not begin(waiting, 4, "group:c", since=5).woken.done()
        assert begin(waiting, 5, "group:c", since=4).woken.done()  # nobody knows what was before
        assert not begin(waiting, 6, "group:c", since=9).woken.done()

    on_a_loop(scenario)


def test_what_is_remembered_has_a_bound() -> None:
    def scenario() -> None:
        waiting = Waiting()
        waiting.start_over(0)
        waiting.heard(REMEMBERED + 10, [(number, "group:a") for number in range(1, REMEMBERED + 11)])
        assert len(waiting._recent) == REMEMBERED
        assert begin(waiting, 1, "group:b", since=5).woken.done()
        assert not begin(waiting, 2, "group:b", since=11).woken.done()

    on_a_loop(scenario)


def test_a_wait_ends_in_time() -> None:
    def scenario() -> None:
        waiting = Waiting()
        waiting.start_over(0)
        first, second = begin(waiting, 1, "a", until=10.0), begin(waiting, 2, "a", until=20.0)
        waiting.tick(9.9)
        assert not first.woken.done()
        waiting.tick(10.0)
        assert first.woken.result() is False
        assert not second.woken.done()

    on_a_loop(scenario)


def test_a_host_that_asks_again_has_given_up_the_first_wait() -> None:
    def scenario() -> None:
        waiting = Waiting()
        waiting.start_over(0)
        first = begin(waiting, 1, "a")
        second = begin(waiting, 1, "a")
        assert first.woken.result() is False
        waiting.end(first)  # as its request does when it hears that
        assert len(waiting) == 1
        assert waiting.heard(1, [(1, "a")]) == [second]
        waiting.end(second)
        assert (len(waiting), waiting._by_topic) == (0, {})

    on_a_loop(scenario)


def test_nobody_waits_once_it_is_closed() -> None:
    def scenario() -> None:
        waiting = Waiting()
        waiting.start_over(0)
        first = begin(waiting, 1, "a")
        waiting.close()
        assert first.woken.result() is False
        assert begin(waiting, 2, "a").woken.result() is False

    on_a_loop(scenario)


_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("begin"), st.integers(1, 4), st.sets(st.sampled_from("abc"), min_size=1)),
        st.tuples(st.just("end"), st.integers(1, 4)),
        st.tuples(st.just("change"), st.lists(st.sampled_from("abc"), min_size=1, max_size=3)),
        st.tuples(st.just("tick"), st.integers(0, 5)),
    ),
    max_size=30,
)


@given(steps=_STEPS)
def test_no_change_is_missed_whatever_comes_in_which_order(steps: list[tuple[object, ...]]) -> None:
    def scenario() -> None:
        waiting = Waiting()
        waiting.start_over(0)
        seq, now = 0, 0.0
        open_waits: dict[int, Wait] = {}
        for step in steps:
            match step:
                case ("begin", int(host), set(topics)):
                    open_waits[host] = waiting.begin(host, frozenset(map(str, topics)), since=seq, until=now + 3.0)
                case ("end", int(host)):
                    if host in open_waits:
                        waiting.end(open_waits.pop(host))
                case ("change", list(topics)):
                    seq += 1
                    told = waiting.heard(seq, [(seq, str(topic)) for topic in topics])
                    wanted = {one for one in open_waits.values() if one.topics & set(topics) and not one.woken.done()}
                    assert set(told) == wanted
                    for one in told:
                        one.tell(True)
                case ("tick", int(seconds)):
                    now += seconds
                    waiting.tick(now)
                case _:
                    raise AssertionError(step)
        assert len(waiting) == len(open_waits)

    on_a_loop(scenario)
