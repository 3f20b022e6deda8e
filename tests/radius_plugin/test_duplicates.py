"""Requests under way and answers of the last while: whose is an answer, how long does it live, how many are kept."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from radius_plugin.duplicates import Duplicates
from tests.doubles import FakeClock

KEEP_S = 30.0


def duplicates(clock: FakeClock, *, most: int = 100) -> Duplicates[str]:
    return Duplicates(keep_s=KEEP_S, max_answers=most, monotonic=clock)


def test_an_answer_is_that_of_its_own_octets_and_key() -> None:
    known = duplicates(FakeClock())
    known.remember("key", b"request", b"answer")
    assert known.answer_to("key", b"request") == b"answer"
    assert known.answer_to("key", b"request ") is None
    assert known.answer_to("other", b"request") is None


def test_a_request_is_pending_until_its_answer_is_recorded() -> None:
    known = duplicates(FakeClock())
    entry = known.begin("key", b"request", "work")
    assert known.pending("key") is entry
    assert known.answer_to("key", b"request") is None
    known.answered("key", entry, b"answer")
    assert known.pending("key") is None
    assert known.answer_to("key", b"request") == b"answer"
    assert known.under_way == 0


def test_what_was_superseded_is_not_current_and_drops_nothing_of_its_successor() -> None:
    known = duplicates(FakeClock())
    old = known.begin("key", b"old", "old work")
    new = known.begin("key", b"new", "new work")
    assert not known.is_current("key", old)
    known.dropped("key", old)
    assert known.pending("key") is new


def test_an_answer_lives_its_time_and_not_twice_as_long() -> None:
    clock = FakeClock()
    known = duplicates(clock)
    clock.advance(KEEP_S - 0.001)
    known.remember("key", b"request", b"answer")
    clock.advance(KEEP_S)
    known.turn_if_due()
    assert known.answer_to("key", b"request") == b"answer"
    clock.advance(KEEP_S)
    known.turn_if_due()
    assert known.answer_to("key", b"request") is None


def test_a_later_answer_under_one_key_hides_the_earlier() -> None:
    clock = FakeClock()
    known = duplicates(clock)
    known.remember("key", b"old", b"old answer")
    clock.advance(KEEP_S)
    known.turn_if_due()
    known.remember("key", b"new", b"new answer")
    assert known.answer_to("key", b"new") == b"new answer"
    assert known.answer_to("key", b"old") is None


@pytest.mark.parametrize("most", [1, 2, 3, 10])
def test_a_flood_of_answers_is_bounded_and_counted(most: int) -> None:
    known = duplicates(FakeClock(), most=most)
    for number in range(1000):
        known.remember(number, b"request", b"answer")
        assert known.answer_to(number, b"request") == b"answer"
        assert len(known._young) + len(known._old) <= max(2, most)
    assert known.forgotten_early >= 1000 // most - 2


def test_large_ones_are_bounded_by_their_octets() -> None:
    """Whoever may send unsigned requests of 4,096 octets must not fill the memory with them."""
    known = Duplicates[str](keep_s=KEEP_S, max_answers=10**6, monotonic=FakeClock(), max_octets=100_000)
    for number in range(1000):
        known.remember(number, bytes(4096), bytes(4096))
        assert known.answer_to(number, bytes(4096)) == bytes(4096)
        kept = [*known._young.values(), *known._old.values()]
        assert sum(len(request) + len(answer) for request, answer in kept) <= 2 * (100_000 + 8192)


@dataclass
class Naive:
    """What is wanted, with a list and nothing clever."""

    answers: dict[int, tuple[bytes, bytes, float]] = field(default_factory=dict)
    pending: dict[int, bytes] = field(default_factory=dict)


class AgainstANaiveModel(RuleBasedStateMachine):
    """An answer is found at least as long as it is to be kept, never after twice that time, and never for other octets."""

    keys = st.integers(0, 3)
    requests = st.binary(max_size=1)

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock(0.0)
        self.real = duplicates(self.clock, most=10_000)
        self.naive = Naive()
        self.entries: dict[int, object] = {}
        self.number = 0

    @rule(key=keys, request=requests)
    def begin(self, key: int, request: bytes) -> None:
        self.entries[key] = self.real.begin(key, request, "work")
        self.naive.pending[key] = request

    @rule(key=keys)
    def answer(self, key: int) -> None:
        entry = self.real.pending(key)
        assert entry is self.entries.get(key)
        if entry is not None:
            self.number += 1
            answer = b"%d" % self.number
            self.real.answered(key, entry, answer)
            self.naive.answers[key] = (self.naive.pending.pop(key), answer, self.clock())
            del self.entries[key]

    @rule(key=keys)
    def drop(self, key: int) -> None:
        entry = self.real.pending(key)
        if entry is not None:
            self.real.dropped(key, entry)
            del self.naive.pending[key], self.entries[key]

    @rule(key=keys, request=requests)
    def remember(self, key: int, request: bytes) -> None:
        self.number += 1
        self.real.remember(key, request, b"%d" % self.number)
        self.naive.answers[key] = (request, b"%d" % self.number, self.clock())

    @rule(seconds=st.floats(0, 20))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.real.turn_if_due()

    @rule(key=keys, request=requests)
    def look(self, key: int, request: bytes) -> None:
        found = self.real.answer_to(key, request)
        wanted, answer, since = self.naive.answers.get(key, (None, None, 0.0))
        age = self.clock() - since
        if wanted != request:
            assert found is None
        elif age < KEEP_S:
            assert found == answer
        elif age > 2 * KEEP_S + 20:
            assert found is None
        else:
            assert found in {None, answer}

    @invariant()
    def counts_what_waits(self) -> None:
        assert self.real.under_way == len(self.naive.pending)


TestAgainstANaiveModel = AgainstANaiveModel.TestCase
TestAgainstANaiveModel.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
