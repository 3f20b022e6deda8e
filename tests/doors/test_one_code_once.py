"""One code, everybody at once, through the real module and the real daemon. ``python -m bench.race`` runs fifty rounds."""

from __future__ import annotations

from bench.race import PROCESSES, THREADS, race


def test_of_256_logins_with_one_code_one_succeeds() -> None:
    """core-5-4, core-5-6: 16 processes of 16 threads; the others hear AUTH_ERR, and one accept is on record."""
    for done in race(3):
        assert done.successes == [1]
        assert done.wrong(killed=False) == ""
        assert done.waves[0].total() == PROCESSES * THREADS


def test_a_daemon_that_is_killed_brings_no_code_back() -> None:
    """core-5-4, core-5-56: SIGKILL at a random moment, start, again with the same code, SIGKILL, start, again: never two, and
    after the last SUCCESS that was seen there is none."""
    for done in race(2, kill=True, processes=4, threads=8, seed=1):
        assert sum(done.successes) <= 1
        assert done.successes[-1] == 0
        assert done.wrong(killed=True) == ""
