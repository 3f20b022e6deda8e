"""How many LDAP operations a second does one worker of mfad pass on, and how late, beside slapd itself and its proxies?

  search       one entry by its uid, by a bound application
  1000 entries a branch, on four connections; its rate is in entries
  exempt bind  the application's own bind: no code is asked for
  MFA bind     password and code, another enrolled user each time; the others are given the password alone
  login        connect, bind of the application, search, bind of the user (password and code), unbind

All relay to the same slapd. mfad checks codes, spends them durably, and writes bind log and audit log; the peers check and
write nothing. Who a DN is has been confirmed once before the clock runs. Servers take turns; ratios are taken round by round.
Nothing is pinned: server, slapd and generator share the processors.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench.figures import Spread, bottlenecks, conclude, ratios
from bench.ldap_stage import (
    BACK_LDAP,
    BRANCH_ENTRIES,
    CONNECTIONS,
    DIRECT,
    LLOADD,
    OURS,
    Codes,
    Generator,
    Login,
    Passwords,
    Run,
    Server,
    all_good,
    back_ldap,
    bind,
    find,
    list_branch,
    lloadd,
    lloadd_program,
    mfad_ldap,
    service_bind,
    slapd,
    whole_login,
    write_book,
)
from bench.stage import Stage, flush_ms, stage

BAR_P99 = 3.0
CONTROLS = 200


@dataclass(frozen=True, slots=True)
class Case:
    """One kind of exchange. ``bars`` are the least ratios to other servers; ``figure`` is what the ratio is of."""

    label: str
    exchange: Callable[[Login], list[bytes]]
    bars: dict[str, float]
    figure: str = "rate"
    mode: str = "keep"
    connections: int = CONNECTIONS
    entries: int = -1
    by_person: bool = True
    """Another user each time; else it is the same exchange again and again."""


CASES = (
    Case("search", lambda who: [find(who.name)], {DIRECT: 0.65, LLOADD: 1.5}, entries=1),
    Case(
        "1000 entries",
        lambda _: [list_branch()],
        {DIRECT: 0.80},
        figure="entries_rate",
        connections=4,
        entries=BRANCH_ENTRIES,
        by_person=False,
    ),
    Case("exempt bind", lambda _: [service_bind()], {DIRECT: 0.40}, by_person=False),
    Case("MFA bind", lambda who: [bind(who.dn, who.password)], {DIRECT: 0.22, LLOADD: 0.6}),
    Case(
        "login",
        whole_login,
        {DIRECT: 0.40},
        mode="fresh",
    ),
)
SPENDING = {"MFA bind", "login"}
Seen = dict[str, dict[str, list[Run]]]
"""Runs by the label of the case and of the server."""


class Bench:
    """Plays cases to servers, from books in a folder."""

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        self._folder, self._options = folder, options
        self._generator = Generator(folder)
        self._first = write_book(folder / "first", [[service_bind()]])
        self._searched = Passwords(options.users)

    def run(self, case: Case, server: Server) -> Run:
        """One turn. A book of codes is played once, any other one until time is over."""
        spends = case.label in SPENDING and isinstance(server.people, Codes)
        people = server.people if case.label in SPENDING else self._searched
        logins = people.take(self._options.binds if case.mode == "keep" else self._options.logins)
        book = write_book(self._folder / "book", map(case.exchange, logins if case.by_person else logins[:1]))
        more = {} if case.mode == "fresh" else {"first": self._first}
        run = self._generator.run(
            server,
            book,
            case.mode,
            repeat=1 if spends else 0,
            seconds=self._options.seconds,
            connections=case.connections,
            entries=case.entries,
            **more,
        )
        return all_good(run, f"{server.label}: {case.label}")

    def warm(self, server: Server) -> None:
        """Let a server see every user once, so that it knows who each DN is."""
        left = self._options.users
        while left:
            count = min(left, self._options.binds)
            book = write_book(self._folder / "book", ([bind(who.dn, who.password)] for who in server.people.take(count)))
            all_good(self._generator.run(server, book, first=self._first), f"{server.label}: first binds")
            left -= count

    def refused(self, server: Server, logins: Iterable[Login], what: str) -> None:
        """Hold that none of these is let in: a figure of a server that asks for nothing is none."""
        book = write_book(self._folder / "book", ([bind(who.dn, who.password)] for who in logins))
        run = self._generator.run(server, book, first=self._first)
        if run.results != {"49": run.exchanges} or run.broken:
            raise SystemExit(f"{server.label} does not refuse {what}: {run}")
        print(f"  {what}: {run.exchanges} of {run.exchanges} refused (49)")

    def controls(self, server: Server) -> None:
        """What must not be let in, at mfad."""
        spent = server.people.take(CONTROLS)
        book = write_book(self._folder / "book", ([bind(who.dn, who.password)] for who in spent))
        all_good(self._generator.run(server, book, first=self._first), f"{server.label}: controls")
        self.refused(server, spent, "a code for the second time")
        wrong = [Login(who.name, _with_another_code(who.password)) for who in server.people.take(CONTROLS)]
        self.refused(server, wrong, "a wrong code behind the right password")
        bare = [Login(who.name, who.password.rpartition(",")[0]) for who in server.people.take(CONTROLS)]
        self.refused(server, bare, "the right password alone")


def _with_another_code(text: str) -> str:
    # A digit more in every place: it is the code of no other step but by chance, one in 300,000.
    password, _, code = text.rpartition(",")
    return f"{password},{''.join(str((int(digit) + 1) % 10) for digit in code)}"


def measure(servers: list[Server], cases: list[Case], bench: Bench, rounds: int) -> Seen:
    """Let the servers take turns."""
    seen: Seen = {case.label: {server.label: [] for server in servers} for case in cases}
    for number in range(rounds + 1):  # the first is for the caches
        for case in cases:
            for server in servers if number % 2 else servers[::-1]:
                run = bench.run(case, server)
                if number:
                    seen[case.label][server.label].append(run)
    return seen


def report(seen: Seen, cases: list[Case]) -> list[str]:
    """Print tables; the bars that were missed."""
    missed = bottlenecks([run for servers in seen.values() for runs in servers.values() for run in runs])
    for case in cases:
        servers = seen[case.label]
        direct = servers[DIRECT]
        unit = "entries" if case.figure == "entries_rate" else "times"
        print(f"  {f'{case.label}, {unit} a second':29} {'to slapd':>29} {'CPU us':>20} {'p50 ms':>8} {'p99 ms':>8}")
        for label, runs in servers.items():
            rate, ratio = Spread.of(runs, case.figure).median, ratios(runs, direct, case.figure).text(".2f")
            cpu = Spread.of(runs, "entry_us" if unit == "entries" else "cpu_us").text(".1f")
            p50, p99 = (Spread.of(runs, figure).median for figure in ("p50_ms", "p99_ms"))
            print(f"    {label:16} {rate:10,.0f} {ratio:>29} {cpu:>20} {p50:8.2f} {p99:8.2f}")
        if OURS in servers:
            missed += _judge(case, servers)
    return missed


def _judge(case: Case, servers: dict[str, list[Run]]) -> list[str]:
    missed = []
    for label, bar in case.bars.items():
        peer = label if label in servers else BACK_LDAP
        if peer not in servers:
            continue
        ratio = ratios(servers[OURS], servers[peer], case.figure)
        print(f"    mfad by {peer}: {ratio.text('.2f')}x (bar {bar}x)")
        if ratio.median < bar:
            missed.append(f"{case.label} at {ratio.median:.2f}x {peer}")
    p99 = ratios(servers[OURS], servers[DIRECT], "p99_ms")
    print(f"    p99 of mfad by slapd: {p99.text('.1f')}x (bar {BAR_P99}x)")
    if p99.median > BAR_P99:
        missed.append(f"p99 of {case.label} at {p99.median:.1f}x")
    return missed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=24_000)
    parser.add_argument("--binds", type=int, default=12_000, help="with a code, at most, each round")
    parser.add_argument("--logins", type=int, default=4_000, help="with a code, at most, each round")
    parser.add_argument("--seconds", type=float, default=1.5, help="of each turn, at most")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--case", action="append", choices=[case.label for case in CASES], help="only these")
    parser.add_argument("--peers-only", action="store_true", help="slapd and its proxies: does the generator keep up?")
    parser.add_argument("--ours-only", action="store_true", help="slapd and mfad alone")
    options = parser.parse_args()
    cases = [case for case in CASES if not options.case or case.label in options.case]
    with stage(1 if options.peers_only else options.users) as here, ExitStack() as running:
        servers = _started(here, running, options)
        bench = Bench(here.folder, options)
        ours = next((server for server in servers if server.label == OURS), None)
        if ours and SPENDING.intersection(case.label for case in cases):
            bench.warm(ours)
        flushes = [flush_ms(here.folder)]
        seen = measure(servers, cases, bench, options.rounds)
        flushes.append(flush_ms(here.folder))
        print(
            f"{options.rounds} rounds of {options.seconds} s at most, {CONNECTIONS} connections, {options.users:,} users,"
            " nothing pinned;\nmedian (least..most) of the rounds; CPU time of the server itself for each exchange or entry"
        )
        print(f"  a flush to this disk took {flushes[0]:.2f} ms before and {flushes[1]:.2f} ms after: codes are spent durably")
        missed = report(seen, cases)
        if ours:
            bench.controls(ours)
    return conclude(missed)


def _started(here: Stage, running: ExitStack, options: argparse.Namespace) -> list[Server]:
    direct = running.enter_context(slapd(here.folder / "slapd", users=options.users))
    servers = [direct]
    if not options.ours_only:
        servers.append(running.enter_context(back_ldap(here.folder / "back-ldap", direct, users=options.users)))
        if lloadd_program() is not None:
            servers.append(running.enter_context(lloadd(here.folder / "lloadd", direct, users=options.users)))
    if not options.peers_only:
        servers.append(running.enter_context(mfad_ldap(here, direct, users=options.users)))
    return servers


if __name__ == "__main__":
    raise SystemExit(main())
