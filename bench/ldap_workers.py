"""What does a second worker add where the directory is not the limit?

Behind mfad stands a directory that answers at once (ldap_answers.c), so that mfad is what takes the time. All that runs (the
workers, that directory, the generator) is held on one processor for one worker and on two for two: the machine grows with the
workers. Beside that stands one worker with two processors, where directory and generator need not share the worker's.

Who a DN is is asked at every bind: workers do not know what the other one was told, and the figures would be about that.
"""

from __future__ import annotations

import argparse
import os
from contextlib import ExitStack
from dataclasses import dataclass

from bench.figures import Spread, conclude, ratios
from bench.ldap_stage import (
    Codes,
    Generator,
    Login,
    Passwords,
    Run,
    Server,
    all_good,
    answers,
    bind,
    find,
    mfad_ldap,
    service_bind,
    write_book,
)
from bench.processes import pin_tree, processors
from bench.stage import stage

BAR_RATIO = 1.6
SEARCH, MFA_BIND = "search", "MFA bind"
ONE, TWO = "1 worker, 1 processor", "2 workers, 2 processors"
ONE_ON_TWO = "1 worker, 2 processors"


@dataclass(frozen=True, slots=True)
class Turn:
    """One kind of exchange, at a server, on some processors."""

    kind: str
    label: str
    server: Server
    cpus: list[int]


def exchange(kind: str, who: Login) -> list[bytes]:
    """What is asked."""
    return [find(who.name)] if kind == SEARCH else [bind(who.dn, who.password)]


def report(seen: dict[tuple[str, str], list[Run]]) -> list[str]:
    """Print a table; the bars that were missed."""
    missed = []
    for kind in (SEARCH, MFA_BIND):
        print(f"  {kind:40} {'a second':>24} {'CPU us':>20} {'p99 ms':>8}   generator's share of a core")
        for (of_kind, label), runs in seen.items():
            if of_kind == kind:
                rate, cpu = Spread.of(runs, "rate").text(",.0f"), Spread.of(runs, "cpu_us").text(".1f")
                p99, share = Spread.of(runs, "p99_ms").median, Spread.of(runs, "cpu_share").median
                print(f"    {label:38} {rate:>24} {cpu:>20} {p99:8.2f}   {share:.2f}")
        for one in (ONE, ONE_ON_TWO):
            ratio = ratios(seen[kind, TWO], seen[kind, one], "rate")
            bar = f" (bar {BAR_RATIO}x)" if one == ONE else ""
            print(f"    {TWO} / {one}: {ratio.text('.2f')}x{bar}")
        one, two = (Spread.of(seen[kind, label], "cpu_us").median for label in (ONE_ON_TWO, TWO))
        print(f"    two processors that were mfad's alone would give {2 * one / two:.2f}x, by the processor time of each")
        ratio = ratios(seen[kind, TWO], seen[kind, ONE], "rate")
        if ratio.median < BAR_RATIO:
            missed.append(f"two workers at {ratio.median:.2f}x one ({kind})")
    return missed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=24_000)
    parser.add_argument("--binds", type=int, default=10_000, help="with a code, at most, each round")
    parser.add_argument("--seconds", type=float, default=1.5, help="of each turn, at most")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--connections", type=int, default=32)
    options = parser.parse_args()
    cpus = processors()[:2]
    with ExitStack() as running:
        here, other = (running.enter_context(stage(options.users)) for _ in range(2))
        directory = running.enter_context(answers(here.folder / "answers"))
        single = running.enter_context(mfad_ldap(here, directory, users=options.users, identity_cache="0"))
        double = running.enter_context(mfad_ldap(other, directory, users=options.users, identity_cache="0", more="workers: 2"))
        generator = Generator(here.folder)
        first = write_book(here.folder / "first", [[service_bind()]])
        searched = Passwords(options.users)
        turns = [
            Turn(kind, label, server, on)
            for kind in (SEARCH, MFA_BIND)
            for label, server, on in ((ONE, single, cpus[:1]), (ONE_ON_TWO, single, cpus), (TWO, double, cpus))
        ]
        seen: dict[tuple[str, str], list[Run]] = {(turn.kind, turn.label): [] for turn in turns}
        for number in range(options.rounds + 1):  # the first is for the caches
            for turn in turns if number % 2 else turns[::-1]:
                people: Codes | Passwords = searched if turn.kind == SEARCH else turn.server.people
                logins = people.take(options.binds)
                book = write_book(here.folder / "book", (exchange(turn.kind, who) for who in logins))
                pin_tree(os.getpid(), turn.cpus)
                run = generator.run(
                    turn.server,
                    book,
                    first=first,
                    repeat=0 if turn.kind == SEARCH else 1,
                    seconds=options.seconds,
                    connections=options.connections,
                )
                all_good(run, f"{turn.label}: {turn.kind}")
                if number:
                    seen[turn.kind, turn.label].append(run)
    print(
        f"{options.rounds} rounds of {options.seconds} s at most, {options.connections} connections, generator and directory"
        " on the same processors; median (least..most) of the rounds"
    )
    return conclude(report(seen))


if __name__ == "__main__":
    raise SystemExit(main())
