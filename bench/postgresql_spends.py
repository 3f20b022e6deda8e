"""What does a login cost whose store is PostgreSQL, beside one whose store is SQLite, in the same minutes on the same disk?

Every spend is another user's TOTP from a sealed secret, with throttle, audit and a durable commit, through
:class:`mfa_runtime.verification.Verification` as doors ask it. The number is how many wait together. Latencies are those of
single spends. PostgreSQL is a cluster of this machine with its usual durability (fsync, synchronous_commit), over its socket
and over TCP of the loopback; ``two`` are two processes in front of one store, each with half of those who wait.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

from mfa_core.verdict import Accepted
from mfa_runtime.store.opening import open_store
from mfa_runtime.store.place import StorePlace
from mfad.collector import let_the_collector_rest
from tests.doubles import NO_WAITING, FakeClock, Installation, Person, attempt, install
from tests.end_to_end.postgresql import Cluster, cluster
from tests.runtime.on_postgresql import install_on

WAITING = (1, 4, 16, 64)
SPENDS = {1: 400, 4: 1_000, 16: 2_000, 64: 4_000}
PEOPLE = 4_000
STEP_S = 30


def people() -> list[Person]:
    """Who logs in."""
    return [Person(f"person{number}") for number in range(PEOPLE)]


async def spend(installation: Installation, names: list[Person], waiting: int) -> tuple[float, list[float]]:
    """Spends a second, and how long each took (seconds)."""
    now = installation.clock()
    attempts = [attempt(one.name, one.code(now), source=None) for one in names]
    took: list[float] = []
    async with installation.gate() as gate:
        rest = iter(attempts)

        async def work() -> None:
            for one in rest:
                began = time.perf_counter()
                if not isinstance(verdict := await gate.decide(one), Accepted):
                    raise SystemExit(f"{verdict}")
                took.append(time.perf_counter() - began)

        began = time.perf_counter()
        await asyncio.gather(*(work() for _ in range(waiting)))
        return len(attempts) / (time.perf_counter() - began), took


def measure(name: str, installation: Installation, rounds: int) -> None:
    """Print what so many waiting come to, median of the rounds; every round has codes of its own time step."""
    everybody = people()
    for waiting in WAITING:
        rates, all_took = [], []
        for _ in range(rounds):
            installation.clock.advance(STEP_S)
            rate, took = asyncio.run(spend(installation, everybody[: SPENDS[waiting]], waiting))
            rates.append(rate)
            all_took += took
        show(name, waiting, statistics.median(rates), sorted(all_took))


def show(name: str, waiting: int, rate: float, took: list[float]) -> None:
    """A line."""
    p50, p99 = took[len(took) // 2], took[len(took) * 99 // 100]
    print(
        f"  {name:22} {waiting:4} waiting  {rate:8,.0f} spends/s   p50 {p50 * 1e3:7.2f} ms   p99 {p99 * 1e3:7.2f} ms",
        flush=True,
    )


def half(place: StorePlace, node: str, now: float, first: int, waiting: int, pipe: Connection) -> None:
    """One of two authorities: spends every second user's code when told to."""
    installation = Installation(open_store(place), clock=FakeClock(now), settings=NO_WAITING, node=node)
    mine = people()[first : SPENDS[waiting] : 2]
    pipe.send("ready")
    pipe.recv()
    began = time.perf_counter()
    _, took = asyncio.run(spend(installation, mine, waiting // 2))
    pipe.send((time.perf_counter() - began, took))
    installation.close()


def measure_two(place: StorePlace, installation: Installation) -> None:
    """Two processes on one store."""
    context = multiprocessing.get_context("spawn")
    for waiting in WAITING[1:]:
        installation.clock.advance(STEP_S)
        members = []
        for number in range(2):
            ours, theirs = context.Pipe()
            given = (place, f"authority{number}", installation.clock(), number, waiting, theirs)
            members.append((context.Process(target=half, args=given), ours))
            members[-1][0].start()
        for _, pipe in members:
            pipe.recv()
        for _, pipe in members:
            pipe.send("go")
        answers = [pipe.recv() for _, pipe in members]
        for process, _ in members:
            process.join()
        longest = max(seconds for seconds, _ in answers)
        show("PostgreSQL, two", waiting, SPENDS[waiting] / longest, sorted(one for _, took in answers for one in took))


@contextmanager
def folder() -> Iterator[Path]:
    """A directory for a state."""
    made = Path(tempfile.mkdtemp(prefix="mfad-spends-"))
    try:
        yield made
    finally:
        shutil.rmtree(made)


def over(server: Cluster, here: Path, installation: Installation, *, tcp: bool) -> StorePlace:
    """The place of the store that is there, by socket or by TCP."""
    name = str(installation.store).partition("@/")[2].partition("?")[0]
    return StorePlace(here, server.url(name, tcp=tcp))


def main() -> None:
    """Measure both, one after the other, as often as asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with folder() as here, cluster() as server:
        (here / "sqlite").mkdir()
        on_file = install(here / "sqlite", *people(), settings=NO_WAITING)
        on_server = install_on(server, here / "server", *people(), settings=NO_WAITING)
        with server.admin(str(on_server.store).partition("@/")[2].partition("?")[0]) as admin:
            admin.execute("VACUUM ANALYZE")
        let_the_collector_rest()
        measure("SQLite", on_file, options.rounds)
        measure("PostgreSQL, socket", on_server, options.rounds)
        tcp = Installation(
            open_store(over(server, here, on_server, tcp=True)), clock=on_server.clock, settings=NO_WAITING, node="tcp"
        )
        measure("PostgreSQL, TCP", tcp, options.rounds)
        tcp.close()
        measure_two(over(server, here, on_server, tcp=False), on_server)
        on_file.close()
        on_server.close()


if __name__ == "__main__":
    main()
