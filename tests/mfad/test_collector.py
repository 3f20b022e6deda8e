"""The collector walks what is new, and not what start-up has made."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from mfad.collector import YOUNG_OBJECTS, let_the_collector_rest


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """The collector belongs to the process."""
    threshold = gc.get_threshold()
    yield
    gc.set_threshold(*threshold)
    gc.unfreeze()


def test_what_is_there_stays_and_garbage_is_still_found() -> None:
    """It rests, and is not off."""
    let_the_collector_rest()

    assert gc.get_freeze_count() > 0
    assert gc.isenabled()
    assert gc.get_threshold()[0] == YOUNG_OBJECTS

    before = gc.get_stats()[0]["collections"]
    kept = [[number] for number in range(YOUNG_OBJECTS + 1)]

    assert len(kept) > YOUNG_OBJECTS
    assert gc.get_stats()[0]["collections"] > before
