"""What does a person wait for when the authority goes away, and how soon is all well again?

Three ways to go: it stands still (SIGSTOP), is killed (SIGKILL), or its packets vanish (a switch between two network namespaces
drops them). Each time: the first login afterwards, which nobody has warned; those that follow; and, from the moment when the
authority is back, the time until it decides a login again, by its own audit log. Then: how long after the commit of a lock a
connected host knows of it, by the host's own store.

Logins are RADIUS requests on the agent's loopback, another user each. The peer is a host that decides for itself, in the same
minutes. Run it as root.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field

from bench.authority_stage import Authority, Station, add_group, agent_radius, authority, query
from bench.figures import Spread, conclude
from bench.processes import need
from bench.radius_stage import Login, Server, Shared, access_request, mfad_radius, new_secret
from bench.stage import flush_ms, name_of, percentile, stage
from mfa_runtime.administration import users
from tests.end_to_end.namespaces import Cut, Machine, Network

BAR_FIRST_S = 3.5
BAR_LATER_MS = 50.0
BAR_BACK_S = 5.0
BAR_HEARD_S = 2.0
ACCESS_ACCEPT = 2
PATIENCE_S = 20.0


class Nas:
    """A RADIUS client that asks one thing at a time. ``machine``: where it sits; None: here."""

    def __init__(self, server: Server, shared: Shared, machine: Machine | None) -> None:
        self.logins = server.logins
        self._secret = shared.value
        with ExitStack() as there:
            if machine is not None:
                there.enter_context(machine.entered())
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.connect(("127.0.0.1", server.port))
        self._socket.settimeout(PATIENCE_S)
        self._number = 0

    def login(self) -> tuple[Login, float]:
        """Log the next user in; who it was, and the seconds that it took. Ends the program when it is refused."""
        (login,) = self.logins.take(1)
        self._number += 1
        identifier = self._number % 256
        packet = access_request(identifier, login, self._secret, number=self._number)
        began = time.perf_counter()
        self._socket.send(packet)
        reply = self._socket.recv(4096)
        seconds = time.perf_counter() - began
        if reply[:2] != bytes((ACCESS_ACCEPT, identifier)):
            raise SystemExit(f"{login.name} was not let in: code {reply[0]} after {seconds:.2f} s")
        return login, seconds


def decided_by_authority(at: Authority, name: str) -> bool:
    """Whether the authority itself has judged the last login of a user: its own chain of events says so, not a journal."""
    rows = query(at.station, "SELECT body FROM audit WHERE node NOT LIKE 'host:%' ORDER BY at DESC, seq DESC LIMIT 64")
    events = [json.loads(body) for (body,) in rows]
    return any(event.get("user") == name and event.get("outcome") == "accepted" for event in events)


@dataclass(slots=True)
class Outage:
    """What rounds of one kind of outage showed. Seconds."""

    label: str
    begin: Callable[[], object]
    end: Callable[[], object]
    first: list[float] = field(default_factory=list)
    later: list[float] = field(default_factory=list)
    alone: list[float] = field(default_factory=list)
    back: list[float] = field(default_factory=list)


def play(outage: Outage, at: Authority, agent: Nas, alone: Nas, logins: int) -> None:
    """One round."""
    wait_until_asked(at, agent)
    outage.begin()
    try:
        outage.first.append(agent.login()[1])
        for _ in range(logins):
            outage.later.append(agent.login()[1])
            outage.alone.append(alone.login()[1])
    finally:
        outage.end()
    outage.back.append(wait_until_asked(at, agent))


def wait_until_asked(at: Authority, agent: Nas) -> float:
    """Log in until the authority has decided; the seconds until then."""
    began = time.monotonic()
    while True:
        login, _ = agent.login()
        now = time.monotonic()
        if decided_by_authority(at, login.name):
            return now - began
        if now > began + PATIENCE_S:
            raise SystemExit("the agent does not ask the authority any more")
        time.sleep(0.05)


def heard_s(at: Authority, station: Station, number: int) -> float:
    """Seconds from the commit of a lock to the moment when a connected host holds it."""
    name = name_of(number)
    with at.here.store.writing() as connection:
        users.lock(connection, at.act(), name)
    committed = time.monotonic()
    while not query(station, "SELECT locked FROM users WHERE name = ?", name)[0][0]:
        if time.monotonic() > committed + PATIENCE_S:
            raise SystemExit(f"the host does not hear of the lock of {name}")
        time.sleep(0.005)
    return time.monotonic() - committed


def report(outages: list[Outage], heard: list[float]) -> list[str]:
    """Print a table; the bars that were missed."""
    missed = []
    columns = ("   first login s  ", "later, median ms", "  p99 ms", "alone, median ms", "  p99 ms", " ratio", "  back after s")
    print(f"  {'':18} {' '.join(columns)}")
    for one in outages:
        first, back = Spread(tuple(one.first)), Spread(tuple(one.back))
        median, late = (percentile(one.later, share) * 1e3 for share in (0.5, 0.99))
        peer, peer_late = (percentile(one.alone, share) * 1e3 for share in (0.5, 0.99))
        print(
            f"  {one.label:18} {first.text('.2f'):>18} {median:16.2f} {late:8.2f} {peer:16.2f} {peer_late:8.2f}"
            f" {median / peer:6.2f}   {back.text('.2f')}"
        )
        missed += [
            f"{one.label}: {what} {value:.2f} {unit}"
            for what, value, bar, unit in (
                ("first login", max(one.first), BAR_FIRST_S, "s"),
                ("later ones", late, BAR_LATER_MS, "ms"),
                ("back after", max(one.back), BAR_BACK_S, "s"),
            )
            if value > bar
        ]
    print(f"  bars: first login {BAR_FIRST_S} s, later ones {BAR_LATER_MS} ms (p99), back after {BAR_BACK_S} s, each time")
    print(f"  a connected host hears of a lock after {Spread(tuple(heard)).text('.2f')} s (bar {BAR_HEARD_S} s)")
    return missed + ([f"a lock is heard of after {max(heard):.2f} s"] if max(heard) > BAR_HEARD_S else [])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--logins", type=int, default=200, help="after the first one of an outage")
    parser.add_argument("--users", type=int, default=8_192)
    parser.add_argument("--heard", type=int, default=20, help="locks that a connected host hears of")
    options = parser.parse_args()
    need("ip", "iproute2")
    if os.geteuid():
        raise SystemExit("network namespaces want root")
    with ExitStack() as running:
        here, other = (running.enter_context(stage(options.users)) for _ in range(2))
        shared = new_secret(here.folder)
        network = running.enter_context(Network())
        far, near = network.machine("authority"), network.machine("host")
        at = running.enter_context(authority(here, address=far.address, prefix=far.inside()))
        add_group(at)
        asking = agent_radius(
            at, here.folder / "agent", shared, users=options.users, label="agent", prefix=near.inside()
        )
        station, server = running.enter_context(asking)
        agent = Nas(server, shared, near)
        alone = Nas(running.enter_context(mfad_radius(other, shared, users=options.users, cpus=())), shared, None)
        print(f"bringing a page to the disk takes {flush_ms(here.folder):.2f} ms here now")
        outages = [
            Outage("it stands still", at.station.freeze, at.station.thaw),
            Outage("it is killed", at.station.kill, at.station.start),
            Outage("packets vanish", lambda: near.cut(Cut.SILENT), near.rejoin),
        ]
        for _ in range(options.rounds):
            for outage in outages:
                play(outage, at, agent, alone, options.logins)
        # Users from the other end: who is locked logs in no more.
        heard = [heard_s(at, station, options.users - 1 - number) for number in range(options.heard)]
    print(f"{options.rounds} outages of each kind, {options.logins} logins in each; median (least..most)")
    return conclude(report(outages, heard))


if __name__ == "__main__":
    raise SystemExit(main())
