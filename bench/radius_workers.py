"""What does a second worker on a second core add to the logins of mfad?

The peer is FreeRADIUS on one core and on two: the machine and the generator set a bound that no server passes. Where there are
only two processors the generator takes its share of them; it is printed, and what the server lost by it can be told from that.
Rates are of the time in which every socket still had something to ask: the kernel gives one worker more sockets than the other,
and their last requests would be measured with one worker idle.
"""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from dataclasses import dataclass

from bench.figures import Spread, conclude, ratios
from bench.processes import processors
from bench.radius_stage import (
    PEER,
    Generator,
    Run,
    Server,
    all_accepted,
    freeradius_files,
    login_book,
    mfad_radius,
    new_secret,
    pin,
)
from bench.stage import stage

BAR_RATIO = 1.5
ONE, TWO = "mfad, 1 worker, 1 core", "mfad, 2 workers, 2 cores"
ONE_ON_TWO, PEER_ONE, PEER_TWO = "mfad, 1 worker, 2 cores", f"{PEER}, 1 core", f"{PEER}, 2 cores"


@dataclass(frozen=True, slots=True)
class Case:
    """A server on some processors."""

    label: str
    server: Server
    cpus: list[int]


def report(seen: dict[str, list[Run]]) -> list[str]:
    """Print a table; the bars that were missed."""
    print(f"  {'server':32} {'logins/s':>26} {'CPU us/login':>18} {'p99 ms':>8}   generator's share of a core")
    for label, runs in seen.items():
        rate, cpu = Spread.of(runs, "steady_rate").text(",.0f"), Spread.of(runs, "cpu_us").text(".0f")
        p99, share = Spread.of(runs, "p99_ms").median, Spread.of(runs, "cpu_share").median
        print(f"  {label:32} {rate:>26} {cpu:>18} {p99:8.2f}   {share:.2f}")
    for left, right in ((TWO, ONE), (TWO, ONE_ON_TWO), (PEER_TWO, PEER_ONE), (TWO, PEER_TWO)):
        print(f"  {left} / {right}: {ratios(seen[left], seen[right], 'steady_rate').text('.2f')}x")
    ratio = ratios(seen[TWO], seen[ONE], "steady_rate").median
    print(f"  bar: two workers on two cores {BAR_RATIO}x one")
    return [f"two workers at {ratio:.2f}x one"] if ratio < BAR_RATIO else []


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=32_768)
    parser.add_argument("--logins", type=int, default=8_000, help="each round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sockets", type=int, default=32)
    parser.add_argument("--outstanding", type=int, default=4, help="requests under way at each socket")
    options = parser.parse_args()
    cpus = processors()
    one, two = cpus[:1], cpus[:2]
    with ExitStack() as running:
        here, other = (running.enter_context(stage(options.users)) for _ in range(2))
        shared = new_secret(here.folder)
        peer = running.enter_context(
            freeradius_files(here.folder / "freeradius", shared, users=options.users, cpus=one)
        )
        single = running.enter_context(mfad_radius(here, shared, users=options.users, cpus=one))
        double = running.enter_context(
            mfad_radius(other, shared, users=options.users, cpus=two, more="workers: 2")
        )
        # A third processor is the generator's own; of two it takes what it needs, wherever that is.
        generator = Generator(here.folder, shared, cpu=cpus[2] if len(cpus) > 2 else None)
        cases = [
            Case(PEER_ONE, peer, one),
            Case(PEER_TWO, peer, two),
            Case(ONE, single, one),
            Case(ONE_ON_TWO, single, two),
            Case(TWO, double, two),
        ]
        seen: dict[str, list[Run]] = {case.label: [] for case in cases}
        for number in range(options.rounds + 1):  # the first is for the caches
            for case in cases if number % 2 else cases[::-1]:
                pin(case.server, case.cpus)
                book = login_book(
                    here.folder / "book", case.server.logins.take(options.logins), shared.value, sockets=options.sockets
                )
                run = generator.run(case.server, book, sockets=options.sockets, outstanding=options.outstanding)
                # The peer loses some of a flood at times; its rate is of what it answers, and sets no bar here.
                if case.server is not peer or run.accept != run.answered:
                    all_accepted(run, case.label)
                if number:
                    seen[case.label].append(run)
    print(
        f"{options.rounds} rounds of {options.logins:,} logins, {options.sockets} sockets with {options.outstanding} requests"
        f" under way, {len(cpus)} processors; median (least..most) of the rounds"
    )
    return conclude(report(seen))


if __name__ == "__main__":
    raise SystemExit(main())
