"""How many octets of mfad stay resident for each client that is bound and does nothing, with its connection to the directory?

Thousands of connections bind, the application's as well as people's with codes, and are then idle. What a process holds after a
few connections is taken away from what it holds after all of them.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.figures import conclude
from bench.ldap_stage import Generator, Server, bind, mfad_ldap, service_bind, slapd, write_book
from bench.processes import stop
from bench.stage import BOUND, stage

BAR_OCTETS = 6 * 1024
FEW = 100
"""Connections before the first weighing: what is made once for all of them is made then."""


def resident(pid: int) -> int:
    """Octets of a process that lie in memory."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Rss:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no Rss")


def sockets(pid: int) -> int:
    """How many sockets a process has open."""
    return sum(str(path.readlink()).startswith("socket:") for path in Path(f"/proc/{pid}/fd").iterdir())


@contextmanager
def held(generator: Generator, server: Server, folder: Path, exchanges: Sequence[Sequence[bytes]]) -> Iterator[None]:
    """A connection for each exchange, which it has played, and that is idle now."""
    book = write_book(folder / "book", exchanges)
    command = [*BOUND, str(generator.program), f"--to=127.0.0.1:{server.port}", f"--book={book}", "--mode=hold"]
    command.append(f"--connections={len(exchanges)}")
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holding:
        assert holding.stdout is not None
        if not holding.stdout.readline():
            raise SystemExit("the connections could not be bound")
        time.sleep(2)
        try:
            yield
        finally:
            stop(holding)


def weigh(generator: Generator, server: Server, folder: Path, exchanges: Sequence[Sequence[bytes]]) -> float:
    """Resident octets for each of these connections, those of the first few aside."""
    (pid,) = server.pids
    with held(generator, server, folder, exchanges[:FEW]):
        before, open_before = resident(pid), sockets(pid)
        with held(generator, server, folder, exchanges[FEW:]):
            after, opened = resident(pid), sockets(pid) - open_before
            count = len(exchanges) - FEW
            if opened < 2 * count:
                raise SystemExit(f"{opened} sockets for {count} pairs")
    return (after - before) / count


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=2000)
    options = parser.parse_args()
    wanted = 4 * options.pairs + 1000
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(wanted, resource.getrlimit(resource.RLIMIT_NOFILE)[1])))
    count = options.pairs + FEW
    seen = {}
    for who in ("the application, exempt", "people, with a code"):
        # A process of its own each time: memory that another kind of bind has left behind would be taken again.
        with (
            stage(count) as here,
            slapd(here.folder / "slapd", users=count) as directory,
            mfad_ldap(here, directory, users=count) as server,
        ):
            generator = Generator(here.folder)
            people = [[bind(login.dn, login.password)] for login in server.people.take(count)]
            exchanges = people if "people" in who else [[service_bind()]] * count
            seen[who] = weigh(generator, server, here.folder, exchanges)
    print(f"resident octets of mfad for each idle bound pair, {options.pairs:,} pairs (bar {BAR_OCTETS:,})")
    for who, octets in seen.items():
        print(f"  {who:24} {octets:8,.0f}")
    return conclude([f"{octets:,.0f} octets for {who}" for who, octets in seen.items() if octets > BAR_OCTETS])


if __name__ == "__main__":
    raise SystemExit(main())
