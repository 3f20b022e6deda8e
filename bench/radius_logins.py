"""How many logins a second does one core of mfad answer, and how late at half that load? PAP and TOTP, another enrolled user
each time, secrets sealed at rest, every check, single use and audit durable before the answer.

The peer is FreeRADIUS with files and pap: the same users, a password each, no second factor, nothing signed, nothing written.
The servers take turns on the same core; the ratio is taken round by round.
"""

from __future__ import annotations

import argparse
from contextlib import ExitStack

from bench.figures import Spread, bottlenecks, conclude, ratios
from bench.processes import processors
from bench.radius_stage import (
    OURS,
    OUTSTANDING,
    PEER,
    SOCKETS,
    USERS,
    Generator,
    Run,
    Server,
    Shared,
    all_accepted,
    freeradius_files,
    login_book,
    mfad_radius,
    new_secret,
)
from bench.stage import Stage, stage

BAR_RATIO = 0.35
BAR_P99_MS = 10.0


class Rounds:
    """The runs of one server: as fast as it can, and at half of that."""

    def __init__(self) -> None:
        self.full: list[Run] = []
        self.half: list[Run] = []


def measure(
    here: Stage, shared: Shared, servers: list[Server], generator: Generator, options: argparse.Namespace
) -> dict[str, Rounds]:
    """Let the servers take turns."""
    seen = {server.label: Rounds() for server in servers}
    book = here.folder / "book"
    load = {"sockets": options.sockets, "outstanding": options.outstanding}
    for number in range(options.rounds + 1):  # the first is for the caches
        for server in servers if number % 2 else servers[::-1]:
            login_book(book, server.logins.take(options.logins), shared.value, sockets=options.sockets)
            full = generator.run(server, book, **load)
            all_accepted(full, server.label)
            login_book(book, server.logins.take(options.paced), shared.value, sockets=options.sockets)
            half = generator.run(server, book, "paced", **load, rate=full.rate / 2)
            all_accepted(half, server.label)
            if number:
                seen[server.label].full.append(full)
                seen[server.label].half.append(half)
    return seen


def report(seen: dict[str, Rounds]) -> list[str]:
    """Print a table; the bars that were missed."""
    print(f"  {'server':22} {'logins/s':>26} {'CPU us/login':>20} {'p50 ms':>8} {'p99 ms':>8}   p50, p99 ms at half load")
    for label, rounds in seen.items():
        rate, cpu = Spread.of(rounds.full, "rate"), Spread.of(rounds.full, "cpu_us")
        p50, p99 = Spread.of(rounds.full, "p50_ms").median, Spread.of(rounds.full, "p99_ms").median
        late50, late99 = Spread.of(rounds.half, "p50_ms"), Spread.of(rounds.half, "p99_ms")
        print(
            f"  {label:22} {rate.text(',.0f'):>26} {cpu.text('.0f'):>20} {p50:8.2f} {p99:8.2f}"
            f"   {late50.median:.2f}, {late99.text('.2f')}"
        )
        retries = sum(run.retransmits for run in rounds.full + rounds.half)
        if retries:
            print(f"    {retries} requests had to be sent again")
    missed = bottlenecks([run for rounds in seen.values() for run in rounds.full])
    if OURS not in seen:
        return missed
    theirs, ours = seen[PEER], seen[OURS]
    ratio, cpu_ratio = ratios(ours.full, theirs.full, "rate"), ratios(ours.full, theirs.full, "cpu_us")
    p99 = Spread.of(ours.half, "p99_ms").median
    print(f"  mfad by FreeRADIUS: logins {ratio.text('.2f')}x (bar {BAR_RATIO}x), CPU time of a login {cpu_ratio.text('.1f')}x")
    print(f"  p99 at half load {p99:.2f} ms (bar {BAR_P99_MS} ms)")
    if ratio.median < BAR_RATIO:
        missed.append(f"logins at {ratio.median:.2f}x")
    if p99 > BAR_P99_MS:
        missed.append(f"p99 at half load {p99:.1f} ms")
    return missed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=USERS)
    parser.add_argument("--logins", type=int, default=10_000, help="as fast as it goes, each round")
    parser.add_argument("--paced", type=int, default=5_000, help="at half of that rate, each round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sockets", type=int, default=SOCKETS)
    parser.add_argument("--outstanding", type=int, default=OUTSTANDING, help="requests under way at each socket")
    parser.add_argument("--peer-only", action="store_true", help="FreeRADIUS alone: does the generator keep up?")
    options = parser.parse_args()
    server_cpu, generator_cpu = processors()[:2]
    with stage(1 if options.peer_only else options.users) as here, ExitStack() as running:
        shared = new_secret(here.folder)
        peer = freeradius_files(here.folder / "freeradius", shared, users=options.users, cpus=[server_cpu])
        servers = [running.enter_context(peer)]
        if not options.peer_only:
            ours = mfad_radius(here, shared, users=options.users, cpus=[server_cpu])
            servers.append(running.enter_context(ours))
        seen = measure(here, shared, servers, Generator(here.folder, shared, cpu=generator_cpu), options)
    print(
        f"{options.rounds} rounds of {options.logins:,} logins, {options.sockets} sockets with {options.outstanding} requests"
        f" under way; each server on one core; median (least..most) of the rounds"
    )
    return conclude(report(seen))


if __name__ == "__main__":
    raise SystemExit(main())
