"""What does TLS towards the applications cost? Searches of one entry over LDAPS: slapd itself, and mfad with the same slapd in
clear behind it. In clear beside them, so that the price of TLS can be told from that of the relay.

slapd's TLS is GnuTLS on several threads, mfad's is OpenSSL in one worker; both take the client's first choice of cipher.
"""

from __future__ import annotations

import argparse
from contextlib import ExitStack

from bench.figures import Spread, bottlenecks, conclude, ratios
from bench.ldap_stage import (
    CONNECTIONS,
    Certificate,
    Generator,
    Passwords,
    Run,
    all_good,
    find,
    mfad_ldap,
    service_bind,
    slapd,
    write_book,
)
from bench.stage import stage

BAR_RATIO = 0.6


def report(seen: dict[tuple[str, bool], list[Run]]) -> list[str]:
    """Print a table; the bars that were missed."""
    print(f"  {'searches a second':29} {'to slapd':>29} {'CPU us':>20} {'p50 ms':>8} {'p99 ms':>8}   cipher")
    for (label, tls), runs in seen.items():
        ratio, cpu = ratios(runs, seen["slapd", tls], "rate").text(".2f"), Spread.of(runs, "cpu_us").text(".1f")
        p50, p99 = (Spread.of(runs, figure).median for figure in ("p50_ms", "p99_ms"))
        what = f"{label}, {'LDAPS' if tls else 'in clear'}"
        rate = Spread.of(runs, "rate").median
        print(f"    {what:16} {rate:10,.0f} {ratio:>29} {cpu:>20} {p50:8.2f} {p99:8.2f}   {runs[0].cipher}")
    ratio = ratios(seen["mfad", True], seen["slapd", True], "rate")
    print(f"  LDAPS, mfad by slapd: {ratio.text('.2f')}x (bar {BAR_RATIO}x)")
    missed = bottlenecks([run for runs in seen.values() for run in runs])
    return [*missed, f"LDAPS searches at {ratio.median:.2f}x"] if ratio.median < BAR_RATIO else missed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=1.5, help="of each turn")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    with stage(1) as here, ExitStack() as running:
        certificate = Certificate.make(here.folder)
        direct = running.enter_context(slapd(here.folder / "slapd", users=options.users, tls=certificate))
        servers = [direct, running.enter_context(mfad_ldap(here, direct, users=1, tls=certificate))]
        generator = Generator(here.folder)
        first = write_book(here.folder / "first", [[service_bind()]])
        people = Passwords(options.users).take(options.users)
        book = write_book(here.folder / "book", ([find(who.name)] for who in people))
        turns = [(server, tls) for tls in (True, False) for server in servers]
        seen: dict[tuple[str, bool], list[Run]] = {(server.label, tls): [] for server, tls in turns}
        for number in range(options.rounds + 1):  # the first is for the caches
            for server, tls in turns if number % 2 else turns[::-1]:
                run = generator.run(server, book, tls=tls, first=first, repeat=0, seconds=options.seconds, entries=1)
                all_good(run, server.label)
                if number:
                    seen[server.label, tls].append(run)
    print(
        f"{options.rounds} rounds of {options.seconds} s, {CONNECTIONS} connections, nothing pinned; median (least..most)"
        " of the rounds"
    )
    return conclude(report(seen))


if __name__ == "__main__":
    raise SystemExit(main())
