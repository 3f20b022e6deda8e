"""Several processes on one store: every code is somebody's, and nobody's twice."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mfa_core.oath import step_at
from mfa_runtime.store import audit_log
from tests.doubles import ALICE, T0, Person, install

ROOT = Path(__file__).parents[2]
PROCESSES = 4
CODES = {"people": 300, "steps": 100}
"""One code of each of 300 people, at once; a hundred codes of one person, one after another."""


def run_racers(directory: Path, mode: str) -> list[list[int]]:
    """What each of four processes got in with."""
    racers = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.runtime.racer", str(directory), mode, str(CODES[mode])],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for _ in range(PROCESSES)
    ]  # fmt: skip
    try:
        for racer in racers:
            assert racer.stdout is not None
            assert racer.stdout.readline() == "here\n"
        for racer in racers:
            assert racer.stdin is not None
            racer.stdin.write("go\n")
            racer.stdin.flush()
        return [json.loads(racer.communicate(timeout=60)[0]) for racer in racers]
    finally:
        for racer in racers:
            racer.kill()
            racer.wait()


@pytest.mark.parametrize("mode", ["steps", "people"])
def test_four_processes_spend_every_code_once(tmp_path: Path, mode: str) -> None:
    """core-5-5: read-then-write accepted 332; the log and the chain agree with what was seen."""
    codes = CODES[mode]
    people = [ALICE] if mode == "steps" else [Person(f"person{number}") for number in range(codes)]
    installation = install(tmp_path, *people)

    won = run_racers(tmp_path, mode)

    assert sorted(number for one in won for number in one) == list(range(codes))
    with installation.store.reading() as connection:
        outcomes = [json.loads(entry.body)["outcome"] for entry in audit_log.every(connection)]
        (report,) = audit_log.verify(connection, keyring=installation.keyring())
    assert (outcomes.count("accepted"), outcomes.count("rejected")) == (codes, (PROCESSES - 1) * codes)
    assert report.problems == ()
    if mode == "steps":
        assert installation.credential_of("alice")["last_step"] == step_at(T0, 30) + codes - 1
    installation.close()
