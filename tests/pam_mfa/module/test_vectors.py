"""Do wire.c and the vectors say the same?"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

import pytest

from tests.pam_mfa.pam_harness import build
from tests.pam_mfa.wire_vectors import Vector, read_vectors

VECTORS = read_vectors()


def check(lines: Sequence[str]) -> list[str]:
    """Let the C code read lines, one answer each."""
    done = subprocess.run(
        [build() / "wire_check"], input="\n".join(lines) + "\n", capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def said() -> dict[str, str]:
    """What the C code says to each vector that is its to read or write, by name: one process for all of them."""
    lines = {
        v.name: f"decode {v.message.hex()}" if v.kind in ("ops", "any") else f"encode {v.expected}"
        for v in VECTORS
        if v.kind in ("ops", "any") or not v.refused
    }
    return dict(zip(lines, check(list(lines.values())), strict=True))


@pytest.mark.parametrize("vector", [v for v in VECTORS if v.kind in ("ops", "any")], ids=lambda vector: vector.name)
def test_module_reads_a_message_for_it_as_the_vector_says(vector: Vector, said: dict[str, str]) -> None:
    """What mfad sends is taken apart field by field, or refused as a whole."""
    if vector.refused:
        assert said[vector.name].startswith("refused ")
    else:
        assert said[vector.name] == vector.expected


@pytest.mark.parametrize(
    "vector", [v for v in VECTORS if not v.refused and v.kind in ("begin", "answer")], ids=lambda vector: vector.name
)
def test_module_writes_the_bytes_of_the_vector(vector: Vector, said: dict[str, str]) -> None:
    """BEGIN and ANSWER have one spelling."""
    assert said[vector.name] == vector.message.hex()


def test_every_truncation_of_every_good_message_is_read_or_refused() -> None:
    """A message cut at any byte gives a value or a reason, under ASan and UBSan, and never the whole message."""
    good = [v.message for v in VECTORS if not v.refused and v.kind == "ops" and len(v.message) < 200]

    cuts = [f"decode {message[:size].hex() or '-'}" for message in good for size in range(len(message))]
    decoded = check(cuts)

    assert len(decoded) == len(cuts)
    assert all(line.startswith(("refused ", "ops ")) for line in decoded)


def test_no_message_that_the_module_writes_passes_the_limits() -> None:
    """A writer past 16,384 bytes or 64 fields refuses as a whole, rather than cutting."""
    too_long = "encode answer " + " ".join(["RESP:" + "1" * 4096] * 4)
    too_many = "encode begin " + " ".join(["OPTION:o"] * 65)

    assert check([too_long, too_many]) == ["refused", "refused"]


def test_vectors_cover_every_field_and_many_refusals() -> None:
    """All tags of all three messages stand in good vectors, and at least 25 malformed ones are there for each reader."""
    named = {name for v in VECTORS if not v.refused for name, _ in v.fields}

    assert len(named) == 14 + 10 + 2
    assert sum(v.refused and v.kind in ("ops", "any") for v in VECTORS) >= 25
    assert sum(v.refused and v.kind in ("begin", "answer", "any") for v in VECTORS) >= 25
    assert len({v.name for v in VECTORS}) == len(VECTORS)
