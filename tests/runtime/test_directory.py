"""Groups come from NSS in bounded time and number, or are not known."""

from __future__ import annotations

import asyncio
import grp
import os
import pwd
import threading
from collections.abc import Callable, Coroutine

import pytest

from mfa_runtime.directory import CachedGroups, NoGroups, lookup_nss


class Clock:
    """Seconds that move when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Lookup:
    """Answers from a table, counts, and blocks or fails when told to."""

    def __init__(self, **groups: set[str]) -> None:
        self.groups = groups
        self.asked: list[str] = []
        self.go = threading.Event()
        self.go.set()
        self.failure: Exception | None = None

    def __call__(self, name: str) -> frozenset[str]:
        self.asked.append(name)
        assert self.go.wait(30)
        if self.failure is not None:
            raise self.failure
        return frozenset(self.groups.get(name, set()))


def run(
    lookup: Callable[[str], frozenset[str]],
    scenario: Callable[[CachedGroups], Coroutine[None, None, None]],
    *,
    clock: Clock | None = None,
    timeout_s: float = 10.0,
    max_entries: int = 10,
) -> None:
    """Run ``scenario`` with groups from ``lookup``: two workers, kept for 60 s."""

    async def inside() -> None:
        groups = CachedGroups(
            lookup, monotonic=clock or Clock(), workers=2, timeout_s=timeout_s, keep_s=60.0, max_entries=max_entries
        )
        try:
            await scenario(groups)
        finally:
            groups.close()

    asyncio.run(inside())


def test_nss_knows_the_groups_of_root_and_nothing_of_nobody_at_all() -> None:
    """The real thing, as far as every machine has it."""
    primary = grp.getgrgid(pwd.getpwnam("root").pw_gid).gr_name

    assert primary in lookup_nss("root")
    assert lookup_nss("no-such-user-here") == frozenset()


def test_a_group_without_a_name_counts_as_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """It cannot match a rule by accident, and is seen in explanations."""
    monkeypatch.setattr(os, "getgrouplist", lambda name, gid: [0x7FFF_FFF0])

    assert lookup_nss("root") == {str(0x7FFF_FFF0)}


def test_an_answer_is_kept_for_its_time_whether_the_user_exists_or_not() -> None:
    """And asked again after it."""
    lookup, clock = Lookup(alice={"staff"}), Clock()

    async def scenario(groups: CachedGroups) -> None:
        for _ in range(2):
            assert await groups.groups_of("alice") == {"staff"}
            assert await groups.groups_of("ghost") == frozenset()
        clock.now += 60.0
        assert await groups.groups_of("alice") == {"staff"}

    run(lookup, scenario, clock=clock)
    assert lookup.asked == ["alice", "ghost", "alice"]


def test_a_failure_is_not_known_and_not_kept() -> None:
    """The directory may be back a second later."""
    lookup = Lookup(alice={"staff"})
    lookup.failure = OSError("directory away")

    async def scenario(groups: CachedGroups) -> None:
        assert await groups.groups_of("alice") is None
        lookup.failure = None
        assert await groups.groups_of("alice") == {"staff"}

    run(lookup, scenario)


def test_a_lookup_that_hangs_is_not_known_and_its_late_answer_is_kept() -> None:
    """The caller goes on after its time; nobody asks twice for one user."""
    lookup = Lookup(alice={"staff"})
    lookup.go.clear()

    async def scenario(groups: CachedGroups) -> None:
        assert await groups.groups_of("alice") is None
        assert await asyncio.gather(groups.groups_of("alice"), groups.groups_of("alice")) == [None, None]
        lookup.go.set()
        while await groups.groups_of("alice") is None:
            pass

    run(lookup, scenario, timeout_s=0.01)
    assert lookup.asked == ["alice"]


def test_lookups_that_hang_do_not_queue_without_bound() -> None:
    """Over twice the workers the answer is at once: not known."""
    lookup = Lookup()
    lookup.go.clear()

    async def scenario(groups: CachedGroups) -> None:
        waiting = [asyncio.ensure_future(groups.groups_of(f"user{number}")) for number in range(4)]
        await asyncio.sleep(0)
        assert await groups.groups_of("user4") is None
        lookup.go.set()
        assert await asyncio.gather(*waiting) == [frozenset()] * 4
        assert await groups.groups_of("user4") == frozenset()

    run(lookup, scenario)


def test_the_cache_has_a_bound() -> None:
    """The oldest answer makes room."""
    lookup = Lookup()

    async def scenario(groups: CachedGroups) -> None:
        for name in ("a", "b", "c", "c", "a"):
            await groups.groups_of(name)

    run(lookup, scenario, max_entries=2)
    assert lookup.asked == ["a", "b", "c", "a"]


def test_a_caller_who_goes_away_takes_no_answer_from_others() -> None:
    """Cancelling one of two leaves the other its answer."""
    lookup = Lookup(alice={"staff"})
    lookup.go.clear()

    async def scenario(groups: CachedGroups) -> None:
        one, other = (asyncio.ensure_future(groups.groups_of("alice")) for _ in range(2))
        await asyncio.sleep(0)
        one.cancel()
        await asyncio.sleep(0)
        lookup.go.set()
        assert await other == {"staff"}

    run(lookup, scenario)


def test_without_a_directory_groups_are_not_known() -> None:
    """Rules with groups follow their on_missing."""
    assert asyncio.run(NoGroups().groups_of("alice")) is None
