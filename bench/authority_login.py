"""What does asking an authority add to a login, and how many logins does one authority decide?

``one``   one login after the other at the RADIUS door: a host that decides itself, and an agent that asks its authority, in
          turns. The difference of the medians is what asking adds.
``many``  the same two with 64 logins under way: logins a second, and processor time of a login on host and authority.
``hosts`` 1, 4 and 16 hosts ask at once, each with a connection and requests of 16 logins, as agents under load send them:
          logins a second of one authority on one core. The hosts are simulated; TLS, certificates and all checks are real.

Every login is another user with an unspent code, single use and audit are durable before the answer, on both sides. The peer is
mfad on its own host in the same run; one question beside one to privacyIDEA is in bench.authority_privacyidea.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench.authority_stage import (
    Authority,
    Generator,
    Played,
    Station,
    add_group,
    agent_radius,
    authority,
    crowd,
    write_records,
)
from bench.figures import Spread, conclude, ratios
from bench.processes import pin_tree, processors
from bench.radius_stage import Generator as Nas
from bench.radius_stage import (
    Login,
    Logins,
    Roster,
    Run,
    Server,
    Shared,
    all_accepted,
    login_book,
    mfad_radius,
    new_secret,
)
from bench.stage import flush_ms, stage
from mfa_core.model import Door, FirstFactor, Interaction
from mfa_core.passcode import PasscodeKind
from mfa_core.secret import Secret
from mfa_core.verifier import Password
from mfa_runtime.event_id import new_event_id
from mfa_runtime.protocol.verifying import Reading, VerifyAttempt, VerifyRequest
from mfa_runtime.protocol.words import VERIFY

BAR_ADDED_MS = 5.0
TOGETHER = 16
"""Logins in one request."""
ALONE, ASKING = "decides itself", "asks its authority"


@dataclass(frozen=True, slots=True)
class Load:
    """Two servers of the same logins, and what stands behind one of them."""

    alone: Server
    asking: Server
    agent: Station
    at: Authority
    nas: Nas
    shared: Shared
    folder: Path

    def run(self, server: Server, count: int, *, sockets: int, outstanding: int) -> Run:
        """So many logins, all of which must be let in."""
        book = login_book(self.folder / "book", server.logins.take(count), self.shared.value, sockets=sockets)
        run = self.nas.run(server, book, sockets=sockets, outstanding=outstanding)
        all_accepted(run, server.label)
        return run


def one(load: Load, rounds: int, logins: int) -> list[str]:
    """The part ``one``; the bars that were missed."""
    seen: dict[str, list[Run]] = {ALONE: [], ASKING: []}
    for number in range(rounds + 1):  # the first is for the caches
        for server in (load.alone, load.asking) if number % 2 else (load.asking, load.alone):
            run = load.run(server, logins, sockets=1, outstanding=1)
            if number:
                seen[server.label].append(run)
    print(f"one login after the other, {rounds} rounds of {logins:,}, median (least..most) of the rounds, ms")
    for label, runs in seen.items():
        p50, p99 = Spread.of(runs, "p50_ms"), Spread.of(runs, "p99_ms")
        print(f"  {label:20} median {p50.text('.2f'):>22}   p99 {p99.text('.2f'):>22}")
    added = Spread(tuple(b.p50_ms - a.p50_ms for a, b in zip(seen[ALONE], seen[ASKING], strict=True)))
    late = Spread(tuple(b.p99_ms - a.p99_ms for a, b in zip(seen[ALONE], seen[ASKING], strict=True)))
    print(f"  asking adds {added.text('.2f')} ms to the median (bar {BAR_ADDED_MS} ms), {late.text('.2f')} ms to p99")
    return [f"asking adds {added.median:.1f} ms"] if added.median > BAR_ADDED_MS else []


def many(load: Load, rounds: int, logins: int) -> None:
    """The part ``many``."""
    seen: dict[str, list[Run]] = {ALONE: [], ASKING: []}
    behind: list[float] = []
    for number in range(rounds):
        for server in (load.alone, load.asking) if number % 2 else (load.asking, load.alone):
            before = load.at.station.cpu_s()
            seen[server.label].append(load.run(server, logins, sockets=8, outstanding=8))
            if server is load.asking:
                behind.append((load.at.station.cpu_s() - before) / logins * 1e6)
    print(f"64 logins under way, {rounds} rounds of {logins:,}; all on the same processors")
    for label, runs in seen.items():
        rate, cpu = Spread.of(runs, "rate"), Spread.of(runs, "cpu_us")
        print(f"  {label:20} {rate.text(',.0f'):>26} logins/s   {cpu.text('.0f'):>18} us of its processor a login")
    print(f"  the authority behind it   {Spread(tuple(behind)).text('.0f')} us of its processor a login")
    print(f"  logins of who asks by those of who does not: {ratios(seen[ASKING], seen[ALONE], 'rate').text('.2f')}x")


def request_of(logins: Sequence[Login]) -> bytes:
    """One request with these logins, as an agent sends it."""
    return VerifyRequest(
        attempts=tuple(
            VerifyAttempt(
                event_id=new_event_id(time.time(), os.urandom), door=Door.RADIUS, service="bench", name=login.name,
                source=f"10.0.{number // 250}.{number % 250}", client="nas", first_factor=FirstFactor.DONE,
                interaction=Interaction.ONE_SHOT, methods=(), wait_s=0.0, password=Password.NOT_ASKED, hidden=False, asks=False,
                readings=(Reading(kind=PasscodeKind.DIGITS, text=Secret(login.password.encode())),), veiled=None,
                challenge_id="", challenge_until=0.0, remembered="", groups=None,
            )
            for number, login in enumerate(logins)
        )
    ).octets()  # fmt: skip


def hosts(at: Authority, roster: Logins, folder: Path, counts: Sequence[int], rounds: int, logins: int) -> None:
    """The part ``hosts``."""
    server_cpu, generator_cpu = processors()[:2]
    pin_tree(at.station.pid, [server_cpu])
    generator = Generator(folder, cpu=generator_cpu)
    some = crowd(at, max(counts))
    seen: dict[int, list[tuple[Played, float]]] = {count: [] for count in counts}
    for _ in range(rounds):
        for count in counts:
            taken = roster.take(logins)
            bodies = [request_of(taken[start : start + TOGETHER]) for start in range(0, logins, TOGETHER)]
            book = write_records(folder / "requests", bodies)
            before = at.station.cpu_s()
            run = generator.play(
                at.port, some.minted.hosts, book, path=VERIFY, count='"outcome":"accepted"', connections=count
            )
            if run.counted != logins or run.broken:
                raise SystemExit(f"of {logins} logins {run.counted} were let in: {run}")
            seen[count].append((run, at.station.cpu_s() - before))
    print(f"hosts that ask at once, requests of {TOGETHER} logins; {rounds} rounds of {logins:,} logins, authority on one core")
    for count, runs in seen.items():
        rate = Spread(tuple(run.counted / run.seconds for run, _ in runs))
        cpu = Spread(tuple(cpu_s / run.counted * 1e6 for run, cpu_s in runs))
        late = Spread(tuple(run.p99_ms for run, _ in runs))
        share = max(run.cpu_share for run, _ in runs)
        print(
            f"  {count:3} hosts {rate.text(',.0f'):>24} logins/s   {cpu.text('.0f'):>18} us a login   p99 of a request"
            f" {late.median:.1f} ms   generator {share:.2f} of its core"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=["one", "many", "hosts"], default=["one", "many", "hosts"])
    parser.add_argument("--users", type=int, default=16_384)
    parser.add_argument("--logins", type=int, default=500, help="one after the other, each round")
    parser.add_argument("--load", type=int, default=4_096, help="with 64 under way, or by hosts, each round")
    parser.add_argument("--hosts", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    missed: list[str] = []
    with ExitStack() as running:
        here, other = (running.enter_context(stage(options.users)) for _ in range(2))
        shared = new_secret(here.folder)
        at = running.enter_context(authority(here))
        add_group(at)
        roster: Logins = Roster(here, options.users)
        if {"one", "many"} & set(options.parts):
            asking = agent_radius(at, here.folder / "agent", shared, users=options.users, label=ASKING)
            agent, server = running.enter_context(asking)
            roster = server.logins  # it knows whose codes are spent
            alone = running.enter_context(mfad_radius(other, shared, users=options.users, cpus=(), label=ALONE))
            load = Load(alone, server, agent, at, Nas(here.folder, shared, cpu=None), shared, here.folder)
            print(f"bringing a page to the disk takes {flush_ms(here.folder):.2f} ms here now")
            if "one" in options.parts:
                missed += one(load, options.rounds, options.logins)
            if "many" in options.parts:
                many(load, options.rounds, options.load)
        if "hosts" in options.parts:
            hosts(at, roster, here.folder, options.hosts, options.rounds, options.load)
    return conclude(missed)


if __name__ == "__main__":
    raise SystemExit(main())
