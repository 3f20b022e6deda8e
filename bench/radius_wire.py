"""What does the wire itself cost: packets for which nothing is written? Status-Server, unknown users, wrong signatures,
retransmits, strangers, and a burst.

The peer is FreeRADIUS with files and pap, asked the same. What is answered is measured in answers a second, unless the
generator was the slower one; what is dropped, in the processor time of each packet that the server read, under a flood: there
is no answer to count. A retransmit that was verified again would be an Access-Reject, for its code is spent: Access-Accepts
alone count.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from bench.figures import HIGHEST_SHARE, Spread, conclude, ratios
from bench.processes import free_ports, processors
from bench.radius_stage import (
    OURS,
    OUTSTANDING,
    PEER,
    SOCKETS,
    Generator,
    Login,
    Run,
    Server,
    Shared,
    access_request,
    all_accepted,
    book_size,
    freeradius_files,
    identifier_of,
    login_book,
    mfad_radius,
    new_secret,
    status_server,
    write_book,
)
from bench.stage import Stage, stage

BAR_RATIO = 0.8
BAR_DUPLICATE = 0.3
BAR_STRANGER_US = 8.0
BURST = 1024
STRANGER = "127.0.0.2:0"
"""A source that no client entry contains: the only client is 127.0.0.1."""
FLOOD_RATE = 200_000
"""More than a server reads: what its socket drops proves it."""
STATUS, UNKNOWN_USER, BAD_SIGNATURE = "Status-Server", "unknown user", "bad Message-Authenticator"
FRESH, DUPLICATE, STRANGERS, BURSTS = "fresh login", "duplicate", "unknown source", f"burst of {BURST:,} logins"
ANSWERED = (STATUS, UNKNOWN_USER, FRESH, DUPLICATE)

Seen = dict[str, list[Run]]


class Bench:
    """One round of every kind of packet for one server."""

    def __init__(self, here: Stage, shared: Shared, generator: Generator, options: argparse.Namespace) -> None:
        self._shared, self._generator, self._options = shared, generator, options
        self._book = here.folder / "book"

    def round(self, server: Server, seen: Seen) -> None:
        """Ask this server everything once."""
        load = {"sockets": self._options.sockets, "outstanding": self._options.outstanding}
        flood = {"sockets": self._options.sockets, "rate": FLOOD_RATE, "repeat": self._options.flood_repeat}
        ask = self._generator.run

        status = self._write(lambda i, _: status_server(i, self._shared.value))
        seen[STATUS].append(answered(ask(server, status, **load), "accept"))

        unknown = self._write(lambda i, n: access_request(i, nobody(n), self._shared.value, number=n))
        seen[UNKNOWN_USER].append(answered(ask(server, unknown, **load), "reject"))

        unsigned = self._write(lambda i, n: broken(access_request(i, nobody(n), self._shared.value, number=n)))
        seen[BAD_SIGNATURE].append(silent(ask(server, unsigned, "flood", **flood)))

        strangers = self._write(lambda i, n: access_request(i, nobody(n), self._shared.value, number=n))
        seen[STRANGERS].append(silent(ask(server, strangers, "flood", **flood, **{"from": STRANGER})))

        source = f"127.0.0.1:{free_ports(self._options.sockets)}"
        logins = server.logins.take(book_size(self._options.sockets))
        book = login_book(self._book, logins, self._shared.value, sockets=self._options.sockets)
        fresh = ask(server, book, **load, **{"from": source})
        again = ask(server, book, **load, **{"from": source}, repeat=self._options.duplicates)
        for run in (fresh, again):
            all_accepted(run, server.label)
        seen[FRESH].append(fresh)
        seen[DUPLICATE].append(again)

        book = login_book(self._book, server.logins.take(BURST), self._shared.value, sockets=self._options.sockets)
        seen[BURSTS].append(
            ask(server, book, "burst", sockets=self._options.sockets, retries=0, timeout_ms=5_000)
        )

    def _write(self, packet: Callable[[int, int], bytes]) -> Path:
        sockets = self._options.sockets
        return write_book(self._book, (packet(identifier_of(n, sockets), n) for n in range(self._options.packets)))


def nobody(number: int) -> Login:
    """A user whom no server knows."""
    return Login(f"nobody{number:05d}", "000000")


def broken(packet: bytes) -> bytes:
    """The same with one bit of its Message-Authenticator changed."""
    return packet[:22] + bytes((packet[22] ^ 1,)) + packet[23:]


def answered(run: Run, how: str) -> Run:
    """The run, if every packet was answered so."""
    if getattr(run, how) != run.sent or run.bad:
        raise SystemExit(f"{run.sent} packets were to be answered with {how}: {run}")
    return run


def silent(run: Run) -> Run:
    """The run, if nothing was answered."""
    if run.stray:
        raise SystemExit(f"{run.stray} packets were answered that deserve silence: {run}")
    return run


def report(kinds: list[str], seen: dict[str, Seen]) -> list[str]:
    """Print a table; the bars that were missed."""
    missed: list[str] = []
    print(f"  {'packets':26} {'server':22} {'answers/s':>26} {'CPU us/packet':>22} {'ratio to FreeRADIUS':>26}")
    for kind in kinds:
        for label, rounds in seen.items():
            runs = rounds[kind]
            rate = Spread.of(runs, "rate").text(",.0f") if kind in ANSWERED else "-"
            compared = ""
            if label == OURS and kind not in (STRANGERS, BURSTS):
                # Where there are no answers, or more than the generator can ask for: packets for each second of processor time.
                by_rate = kind in ANSWERED and not any(run.cpu_share > HIGHEST_SHARE for run in runs + seen[PEER][kind])
                figure = ratios(runs, seen[PEER][kind], "rate" if by_rate else "per_cpu_s")
                compared = figure.text(".2f") + ("x" if by_rate else "x CPU")
                if kind != FRESH and figure.median < BAR_RATIO:
                    missed.append(f"{kind} at {figure.median:.2f}x")
            print(f"  {kind:26} {label:22} {rate:>26} {Spread.of(runs, 'cpu_us').text('.1f'):>22} {compared:>26}")
            if kind in (BAD_SIGNATURE, STRANGERS):
                print(f"  {'':26} the socket dropped {sum(r.dropped for r in runs):,} of {sum(r.sent for r in runs):,}")
            if kind == BURSTS:
                last = Spread.of(runs, "max_ms").text(".0f")
                print(f"  {'':26} lost {[run.lost for run in runs]}, last answer after {last} ms")
    for label, rounds in seen.items():
        cost = ratios(rounds[DUPLICATE], rounds[FRESH], "cpu_us")
        print(f"  {label}: a duplicate costs {cost.text('.2f')}x a fresh login (bar {BAR_DUPLICATE}x)")
        if label == OURS and cost.median > BAR_DUPLICATE:
            missed.append(f"duplicate at {cost.median:.2f}x of a fresh login")
    share = max(run.cpu_share for rounds in seen.values() for kind in ANSWERED for run in rounds[kind])
    print(f"  the generator used at most {share:.2f} of its core; 'CPU': compared by processor time")
    if OURS in seen:
        stranger = Spread.of(seen[OURS][STRANGERS], "cpu_us").median
        lost = sum(run.sent - run.accept for run in seen[OURS][BURSTS])
        print(f"  unknown sources {stranger:.1f} us a packet (bar {BAR_STRANGER_US} us); lost in bursts {lost} (bar 0)")
        if stranger > BAR_STRANGER_US:
            missed.append(f"unknown source {stranger:.1f} us")
        if lost:
            missed.append(f"{lost} lost in bursts")
    return missed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--packets", type=int, default=20_000, help="of each kind, each round")
    parser.add_argument("--flood-repeat", type=int, default=5, help="how often those are sent in a flood")
    parser.add_argument("--duplicates", type=int, default=10, help="how often each login is sent again")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sockets", type=int, default=SOCKETS)
    parser.add_argument("--outstanding", type=int, default=OUTSTANDING, help="requests under way at each socket")
    parser.add_argument("--peer-only", action="store_true", help="FreeRADIUS alone: does the generator keep up?")
    options = parser.parse_args()
    server_cpu, generator_cpu = processors()[:2]
    kinds = [STATUS, UNKNOWN_USER, BAD_SIGNATURE, STRANGERS, FRESH, DUPLICATE, BURSTS]
    with stage(1 if options.peer_only else options.users) as here, ExitStack() as running:
        shared = new_secret(here.folder)
        peer = freeradius_files(here.folder / "freeradius", shared, users=options.users, cpus=[server_cpu])
        servers = [running.enter_context(peer)]
        if not options.peer_only:
            ours = mfad_radius(here, shared, users=options.users, cpus=[server_cpu])
            servers.append(running.enter_context(ours))
        bench = Bench(here, shared, Generator(here.folder, shared, cpu=generator_cpu), options)
        seen: dict[str, Seen] = {server.label: {kind: [] for kind in kinds} for server in servers}
        warm: dict[str, Seen] = {server.label: {kind: [] for kind in kinds} for server in servers}
        for number in range(options.rounds + 1):  # the first is for the caches
            for server in servers if number % 2 else servers[::-1]:
                bench.round(server, (seen if number else warm)[server.label])
    print(
        f"{options.rounds} rounds, {options.sockets} sockets with {options.outstanding} requests under way;"
        " each server on one core; median (least..most) of the rounds"
    )
    return conclude(report(kinds, seen))


if __name__ == "__main__":
    raise SystemExit(main())
