"""Can one code be spent twice through two authorities in front of one store? Two processes, each with a gate of its own and an
audit chain of its own, are shown the same code by eight racers each, at the same moment, code after code. One racer may get in.

With ``--kill`` processes are killed with SIGKILL in the middle of rounds and started again: now an authority, now the database
server with all its processes. Then none may get in twice, whoever was told so must be on record, and what is not on record in
the end must still let its user in, once.

SQLite is raced as well: two processes on one file. Prints a table, and exits with 1 where a code let in twice or not at all.
Run it as ``python -m bench.race --postgresql [--kill]``.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

from mfa_core.verdict import Accepted, Unavailable
from mfa_runtime.store import audit_log
from mfa_runtime.store.opening import open_store
from mfa_runtime.store.place import StorePlace
from tests.doubles import NO_WAITING, T0, Installation, Person, attempt, install
from tests.end_to_end.postgresql import Cluster, cluster
from tests.runtime.on_postgresql import install_on

AUTHORITIES, RACERS_EACH = 2, 8
KILL_AUTHORITY_EVERY, KILL_DATABASE_EVERY = 20, 50
ANSWER_S = 60.0


def person(number: int) -> Person:
    """The user of a round."""
    return Person(f"person{number}")


def authority(place: StorePlace, node: str, pipe: Connection) -> None:
    """One authority: for each number that comes, its user's code from all racers; how often what came of it."""
    installation = Installation(open_store(place), settings=NO_WAITING, node=node)

    async def race() -> None:
        async with installation.gate() as gate:
            pipe.send("ready")
            while (number := pipe.recv()) is not None:
                one = person(number)
                verdicts = await asyncio.gather(*(gate.decide(attempt(one.name, one.code(T0))) for _ in range(RACERS_EACH)))
                pipe.send(Counter(type(verdict).__name__ for verdict in verdicts))

    asyncio.run(race())
    installation.close()


class Process:
    """An authority that can be killed and started again."""

    def __init__(self, place: StorePlace, node: str) -> None:
        self._place, self._node = place, node
        self._context = multiprocessing.get_context("spawn")
        self.start()

    def start(self) -> None:
        """Start, also after a kill."""
        self._pipe, theirs = self._context.Pipe()
        self._process = self._context.Process(target=authority, args=(self._place, self._node, theirs), daemon=True)
        self._process.start()
        theirs.close()
        if not self._pipe.poll(ANSWER_S) or self._pipe.recv() != "ready":
            raise RuntimeError(f"{self._node} is not ready")

    def begin(self, number: int) -> None:
        """Let its racers go."""
        self._pipe.send(number)

    def end(self) -> Counter[str]:
        """What they heard; nothing from one that was killed."""
        with suppress(EOFError, ConnectionResetError):
            if self._pipe.poll(ANSWER_S):
                return Counter(self._pipe.recv())
        return Counter()

    def kill(self) -> None:
        """SIGKILL, by its pid."""
        self._process.kill()
        self._process.join()

    def close(self) -> None:
        """Send it home."""
        with suppress(BrokenPipeError):
            self._pipe.send(None)
        self._process.join(10)


@dataclass(slots=True)
class Result:
    """What became of the codes."""

    store: str
    codes: int
    heard: Counter[str] = field(default_factory=Counter)
    told: Counter[int] = field(default_factory=Counter)
    record: Counter[str] = field(default_factory=Counter)
    kills: Counter[str] = field(default_factory=Counter)
    afterwards: int = 0
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def wrong(self, *, killed: bool) -> list[str]:
        """What is wrong; empty for nothing."""
        found = list(self.problems)
        found += [f"code {number} let in {times} times" for number, times in self.told.items() if times > 1]
        found += [f"{name} is on record {times} times" for name, times in self.record.items() if times > 1]
        found += [f"code {number} let in without a record" for number in self.told if not self.record[person(number).name]]
        if not killed and len(self.told) != self.codes:
            found.append(f"{self.codes - len(self.told)} codes let nobody in")
        if len(self.record) + self.afterwards != self.codes:
            found.append(f"{self.codes - len(self.record) - self.afterwards} codes were lost")
        return found


def run(
    name: str, installation: Installation, place: StorePlace, codes: int, server: Cluster | None, seed: int | None
) -> Result:
    """Race for every code; ``seed`` is of the moments of the kills, None for none."""
    result = Result(name, codes)
    chance = random.Random(seed)
    processes = [Process(place, f"authority{number}") for number in range(AUTHORITIES)]
    began = time.monotonic()
    for number in range(codes):
        for one in processes:
            one.begin(number)
        if seed is not None:
            disturb(result, processes, server, number, chance)
        heard: Counter[str] = Counter()
        for one in processes:
            heard += one.end()
        if seed is not None and number % KILL_AUTHORITY_EVERY == 0:
            processes[0].start()
        result.heard += heard
        if heard["Accepted"]:
            result.told[number] = heard["Accepted"]
    result.seconds = time.monotonic() - began
    for one in processes:
        one.close()
    with installation.store.reading() as connection:
        events = [json.loads(entry.body) for entry in audit_log.every(connection)]
        chains = list(audit_log.verify(connection, keyring=installation.keyring()))
    result.record = Counter(event["user"] for event in events if event.get("outcome") == "accepted")
    result.problems = [problem for chain in chains for problem in chain.problems]
    left = [person(number) for number in range(codes) if not result.record[person(number).name]]
    verdicts = installation.decide(*(attempt(one.name, one.code(T0)) for one in left))
    result.afterwards = sum(isinstance(verdict, Accepted) for verdict in verdicts)
    return result


def disturb(result: Result, processes: list[Process], server: Cluster | None, number: int, chance: random.Random) -> None:
    """A kill in the middle of some rounds."""
    if number % KILL_AUTHORITY_EVERY == 0:
        time.sleep(chance.random() * 0.02)
        processes[0].kill()
        result.kills["authority"] += 1
    elif server is not None and number % KILL_DATABASE_EVERY == KILL_DATABASE_EVERY // 2 + 1:
        time.sleep(chance.random() * 0.02)
        server.kill()
        server.start()
        result.kills["database"] += 1


@contextmanager
def folder() -> Iterator[Path]:
    """A directory for a state."""
    made = Path(tempfile.mkdtemp(prefix="mfad-race-"))
    try:
        yield made
    finally:
        shutil.rmtree(made)


def race_stores(codes: int, seed: int | None) -> Iterator[Result]:
    """SQLite, then PostgreSQL."""
    people = [person(number) for number in range(codes)]
    with folder() as here:
        installation = install(here, *people, settings=NO_WAITING)
        yield run("SQLite", installation, StorePlace(here), codes, None, seed)
        installation.close()
    with folder() as here, cluster() as server:
        installation = install_on(server, here, *people, settings=NO_WAITING)
        yield run("PostgreSQL", installation, StorePlace(here, str(installation.store)), codes, server, seed)
        installation.close()


def main(codes: int, *, kill: bool, seed: int) -> int:
    """Race, print, and say what was wrong."""
    print(f"{AUTHORITIES} authorities x {RACERS_EACH} racers, {codes} codes" + (f", kills with seed {seed}" if kill else ""))
    print(
        f"{'store':>11}  {'accepted':>8}  {'refused':>8}  {'unavail.':>8}  {'on record':>9}  {'later':>10}  {'s':>6}  kills"
    )
    bad = 0
    for result in race_stores(codes, seed if kill else None):
        wrong = result.wrong(killed=kill)
        bad += bool(wrong)
        kills = ", ".join(f"{count} of {what}" for what, count in sorted(result.kills.items())) or "none"
        print(
            f"{result.store:>11}  {result.heard[Accepted.__name__]:>8}  {result.heard['Rejected']:>8}  "
            f"{result.heard[Unavailable.__name__]:>8}  {sum(result.record.values()):>9}  {result.afterwards:>10}  "
            f"{result.seconds:>6.1f}  {kills}",
            flush=True,
        )
        for line in wrong[:10]:
            print(f"{'':>11}  {line}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(300, kill="--kill" in sys.argv, seed=1))
