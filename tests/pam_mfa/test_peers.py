"""Uids, their names, and how often they may come."""

from __future__ import annotations

import asyncio
import os
import pwd
import socket

from mfa_runtime.seqpacket import peer_uid
from pam_mfa.peers import BUCKETS_MAX, NAMES_MAX, UidRates, UserNames, look_up_name
from tests.pam_mfa.doubles import FakeClock


def test_the_kernel_names_the_uid() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        assert peer_uid(ours) == os.geteuid()


def test_a_name_comes_from_the_user_database() -> None:
    assert look_up_name(os.getuid()) == pwd.getpwuid(os.getuid()).pw_name.encode()
    assert look_up_name(3_999_999_999) is None


def test_names_are_kept_for_a_minute_and_within_bounds() -> None:
    clock, asked = FakeClock(), []

    def look_up(uid: int) -> bytes:
        asked.append(uid)
        return b"user%d" % uid

    names = UserNames(clock, look_up)

    async def scenario() -> None:
        assert await names.of(1) == b"user1"
        assert await names.of(1) == b"user1"
        assert asked == [1]
        clock.advance(61)
        await names.of(1)
        assert asked == [1, 1]
        for uid in range(2, NAMES_MAX + 2):
            await names.of(uid)
        assert len(names._known) == NAMES_MAX
        await names.of(1)
        assert asked[-1] == 1

    asyncio.run(scenario())
    names.close()


def test_a_burst_then_one_at_a_time() -> None:
    clock = FakeClock()
    rates = UidRates(clock)

    assert [rates.take(1000, burst=3, interval_s=2.0) for _ in range(4)] == [True, True, True, False]
    assert rates.take(1001, burst=3, interval_s=2.0)
    clock.advance(2.0)
    assert [rates.take(1000, burst=3, interval_s=2.0) for _ in range(2)] == [True, False]
    clock.advance(1_000.0)
    assert [rates.take(1000, burst=3, interval_s=2.0) for _ in range(4)] == [True, True, True, False]


def test_the_table_of_rates_is_bounded() -> None:
    rates = UidRates(FakeClock())
    for uid in range(BUCKETS_MAX + 100):
        rates.take(uid, burst=1, interval_s=1.0)

    assert len(rates._buckets) == BUCKETS_MAX
