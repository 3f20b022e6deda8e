"""The digest of what a scope holds is made once for a state, and a large one not again and again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from authority.look import CHEAP_S, DIGEST_SHARE, Digests
from mfa_runtime.protocol.syncing import manifest_digest
from tests.doubles import FakeClock, install

EVERYBODY = frozenset({"*"})


def test_a_digest_is_that_of_the_users_and_made_once_for_a_state(tmp_path: Path) -> None:
    installed = install(tmp_path)
    clock, made = FakeClock(0.0), iter(range(100))
    digests = Digests(clock, lambda: 0.0 * next(made))
    with installed.store.reading() as connection:
        first = digests.of(connection, EVERYBODY, "1", 1)
        assert first == digests.known(EVERYBODY, "1", 1) == manifest_digest([(1, 0), (2, 0)])
        before = next(made)
        assert digests.of(connection, EVERYBODY, "1", 1) == first
        assert next(made) == before + 1  # nothing was worked out
        assert digests.of(connection, frozenset({"nobody"}), "1", 1) == manifest_digest([])
    installed.close()


def test_a_dear_digest_is_made_for_a_part_of_the_time_only(tmp_path: Path) -> None:
    installed = install(tmp_path)
    clock = FakeClock(100.0)

    def worked() -> Iterator[float]:
        spent = 0.0
        while True:
            yield spent
            spent += 10 * CHEAP_S  # each one takes that long

    spent = worked()
    digests = Digests(clock, lambda: next(spent))
    with installed.store.reading() as connection:
        assert digests.of(connection, EVERYBODY, "1", 1) is not None
        assert digests.of(connection, EVERYBODY, "1", 2) is None
        assert digests.of(connection, EVERYBODY, "1", 1) is not None
        clock.advance(10 * CHEAP_S * DIGEST_SHARE)
        assert digests.of(connection, EVERYBODY, "1", 2) is not None
    installed.close()
