"""A little of the fuzzing of the codec, on the same inputs each time."""

from __future__ import annotations

import random

from tests.fuzz.radius_wire_fuzz import GENUINE, REQUEST, SEEDS, check, mutant


def test_the_seeds_hold() -> None:
    """Every packet that the fuzzer begins with, whole and every beginning of the shorter ones."""
    assert len(GENUINE) > 20
    assert REQUEST in GENUINE
    for octets in SEEDS:
        check(octets)
        if len(octets) < 120:
            for size in range(len(octets)):
                check(octets[:size])


def test_a_few_thousand_mutants_hold() -> None:
    """No mutant breaks the codec or passes for a signed packet; enough of them parse to mean something."""
    chance = random.Random(2865)
    parsed = sum(check(mutant(chance)) for _ in range(5_000))
    assert parsed > 500
