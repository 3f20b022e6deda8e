"""What does it cost to keep hosts up to date, and what does that cost grow with?

``new``   a new host fetches 1,000 people, as secrets and as code books: time, octets, processor time. Beside it the floor, as
          many octets fetched by curl over TLS with certificates on both sides from `openssl s_server`; and a real agent, from
          its start.
``scope`` a host with 200 people among 1,000, 100,000 and 1,000,000: everything, one change, and nothing new. It must cost the
          same. Steps are those of SQLite's machine for what is read: they do not depend on how busy the computer is.
``crowd`` 10,000 hosts wait, each on a TLS connection of its own with its own certificate; somebody is changed whom all of them
          know. How late does the last one hear of it, what does that cost the authority, and what does a host cost that waits?
          What is sealed and signed is checked by one host; the others count octets.

privacyIDEA, which has no such feed, cannot be measured against; SSSD caches what a login asks for.
"""

from __future__ import annotations

import argparse
import hashlib
import resource
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, select

from bench.authority_stage import (
    GROUP,
    Authority,
    Crowd,
    Generator,
    SimulatedHost,
    Taken,
    Told,
    add_group,
    authority,
    crowd,
    cursor_of,
    join,
    put_into_group,
)
from bench.figures import Spread, conclude
from bench.ldap_stage import Certificate
from bench.processes import free_port, need, stop
from bench.stage import BOUND, name_of, stage
from mfa_core.errors import StoreUnavailable
from mfa_runtime.administration import users
from mfa_runtime.protocol.words import SYNC
from mfa_runtime.store import changes, entitlement
from mfa_runtime.store.hosts import HostMaterial
from mfa_runtime.store.schema import users as user_rows

BAR_NEW_S = 2.0
BAR_GROWTH = 1.25
"""Of steps, from the smallest store to the largest: a tree of a million is one or two levels deeper."""
BAR_HEARD_S = 2.0
"""Revocation reaches a connected host; reported for ten thousand at once, and a bar for one."""
PEOPLE = 200
POLL_S = 50.0
"""How long a host waits for news before it asks again."""
SIZES = (1_000, 100_000, 1_000_000)


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one sync: seconds on the wall, processor seconds of the authority, what came."""

    seconds: float
    cpu_s: float
    taken: Taken

    @property
    def ms(self) -> float:
        """Milliseconds."""
        return self.seconds * 1e3

    @property
    def cpu_ms(self) -> float:
        """Milliseconds of the authority's processor time."""
        return self.cpu_s * 1e3


def cost_of(at: Authority, work: Callable[[], Taken]) -> Cost:
    """Do something, and say what it took."""
    before, began = at.station.cpu_s(), time.perf_counter()
    taken = work()
    seconds = time.perf_counter() - began
    time.sleep(0.05)  # what the authority does after its answer belongs to it
    return Cost(seconds, at.station.cpu_s() - before, taken)


# A new host


def first_sync(at: Authority, host: SimulatedHost) -> Cost:
    """A host that has nothing connects and fetches everything."""

    def work() -> Taken:
        with host:
            return host.sync()

    return cost_of(at, work)


@contextmanager
def floor_server(folder: Path, octets: int) -> Iterator[int]:
    """`openssl s_server` with a file of so many octets, which nothing packs; its port."""
    made = Certificate.make(folder)
    (folder / "octets").write_bytes(b"".join(hash_of(number) for number in range(octets // 64 + 1))[:octets])
    port = free_port()
    words = ["s_server", "-accept", f"127.0.0.1:{port}", "-WWW", "-quiet", "-tls1_3", "-Verify", "1"]
    words += ["-cert", str(made.certificate), "-key", str(made.key), "-CAfile", str(made.certificate)]
    process = subprocess.Popen(
        [*BOUND, need("openssl", "openssl"), *words], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        time.sleep(0.5)
        yield port
    finally:
        stop(process)


def hash_of(number: int) -> bytes:
    """64 octets like no others."""
    return hashlib.sha512(number.to_bytes(8, "big")).digest()


def floor_s(folder: Path, port: int, octets: int) -> float:
    """Seconds for curl to fetch that file, connecting included."""
    words = ["--silent", "--show-error", "--tlsv1.3", "--cacert", "server.pem", "--cert", "server.pem", "--key", "server.key"]
    words += ["--output", "/dev/null", "--write-out", "%{time_total} %{size_download}", f"https://127.0.0.1:{port}/octets"]
    said = subprocess.run([need("curl", "curl"), *words], cwd=folder, check=True, stdout=subprocess.PIPE, text=True).stdout
    seconds, size = said.split()
    if int(size) < octets:
        raise SystemExit(f"curl got {size} of {octets} octets")
    return float(seconds)


def real_agent_s(at: Authority, folder: Path) -> tuple[float, float, float]:
    """Of a new agent: seconds from the start of mfad to everything, and to being ready; its processor seconds in between."""
    station = join(at, folder, doors="{pam: {socket_dir: ./run}}")
    with closing(station):
        began = time.monotonic()
        ready_s = station.start()
        spent = station.cpu_s()
        while cursor_of(station) < 0:
            if time.monotonic() > began + 60:
                raise SystemExit(f"the agent has not synced: {station.log()[-2000:]}")
            time.sleep(0.01)
        return time.monotonic() - began, ready_s, station.cpu_s() - spent


def new_host(people: int, rounds: int) -> list[str]:
    """The part ``new``; the bars that were missed."""
    missed = []
    print(f"a new host fetches {people:,} people, {rounds} rounds, median (least..most)")
    print(f"  {'':10} {'s':>24} {'authority CPU s':>24} {'octets':>12}   people, secrets")
    for material in (HostMaterial.SEED, HostMaterial.CODEBOOK):
        with stage(people, keep=0) as here, authority(here) as at:
            add_group(at, material=material)
            some = crowd(at, rounds + 1)
            costs = [first_sync(at, some.one(number)) for number in range(rounds + 1)]
            for label, part in ((f"{material}, 1st", costs[:1]), (material, costs[1:])):
                seen = part[-1].taken
                print(
                    f"  {label:13} {Spread.of(part, 'seconds').text('.3f'):>21} {Spread.of(part, 'cpu_s').text('.3f'):>24}"
                    f" {seen.octets_in:12,}   {seen.users:,}, {seen.secrets:,} ({seen.secret_octets:,} octets)"
                )
            if costs[0].taken.users != people or costs[0].taken.secrets != people:
                raise SystemExit(f"expected {people} people and secrets: {costs[0].taken}")
            folder = here.folder / "floor"
            folder.mkdir()
            octets = costs[0].taken.octets_in
            with floor_server(folder, octets) as port:
                floor = [floor_s(folder, port, octets) for _ in range(rounds)]
            floor_spread, ours = Spread(tuple(floor)), Spread.of(costs[1:], "seconds")
            ratio = ours.median / floor_spread.median
            print(f"    as many octets by curl from s_server {floor_spread.text('.3f')} s; ratio {ratio:.1f}x")
            synced_s, ready_s, cpu_s = real_agent_s(at, here.folder / "real")
            print(
                f"    a real agent has everything {synced_s - ready_s:.2f} s after it was ready (that {ready_s:.2f} s after its"
                f" start), and took {cpu_s:.2f} s of a processor for it"
            )
            for what, seconds in (("the first", costs[0].seconds), ("a", ours.median), ("a real agent's", synced_s - ready_s)):
                if seconds > BAR_NEW_S:
                    missed.append(f"{what} sync of {people:,} ({material}) {seconds:.1f} s")
    print(f"  bar {BAR_NEW_S} s")
    return missed


# Whom it does not concern


def spread_out(connection: Connection, total: int) -> list[int]:
    """The numbers of :data:`PEOPLE` users, all over the store."""
    names = [name_of(number * (total // PEOPLE)) for number in range(PEOPLE)]
    return list(connection.execute(select(user_rows.c.id).where(user_rows.c.name.in_(names))).scalars())


def steps(at: Authority, work: Callable[[Connection], object]) -> int:
    """How many steps of SQLite's machine reading something takes, in hundreds."""
    counted = 0

    def count() -> int:
        nonlocal counted
        counted += 1
        return 0

    with at.here.store.reading() as connection:
        driver = connection.connection.driver_connection
        assert driver is not None
        driver.set_progress_handler(count, 10)
        try:
            work(connection)
        finally:
            driver.set_progress_handler(None, 0)
    return counted * 10


def read_everything(connection: Connection) -> None:
    """What a full sync reads."""
    scope = entitlement.scope_of(connection, GROUP)
    numbers = entitlement.entitled_page(connection, scope, -1, 500)
    if len(numbers) != PEOPLE:
        raise SystemExit(f"{len(numbers)} people are entitled, expected {PEOPLE}")
    entitlement.documents(connection, numbers)
    list(entitlement.manifest(connection, scope))


def read_news(after: int) -> Callable[[Connection], None]:
    """What a host reads that has all but the last change."""

    def read(connection: Connection) -> None:
        topics = [changes.group_topic(GROUP), changes.host_group_topic(GROUP), changes.RULES]
        changes.since(connection, topics, after, 500)

    return read


@dataclass(frozen=True, slots=True)
class Scoped:
    """What one size of store showed."""

    total: int
    full: list[Cost]
    change: list[Cost]
    nothing: list[Cost]
    full_steps: int
    news_steps: int


def change_one(at: Authority, number: int, *, locked: bool) -> None:
    """Lock or unlock a user, as mfactl does. Says so where the authority itself did not let the store go for seconds."""
    for _ in range(5):
        try:
            with at.here.store.writing() as connection:
                (users.lock if locked else users.unlock)(connection, at.act(), name_of(number))
        except StoreUnavailable as err:
            print(f"  an administrator could not write: {err}")
        else:
            return
    raise SystemExit("nobody else can write to the store of this authority")


def scoped(total: int, rounds: int, strangers: int) -> Scoped:
    """A store of so many users, of whom a host knows a few."""
    with stage(total, keep=0) as here:
        with here.store.writing() as connection:
            numbers = spread_out(connection, total)
            put_into_group(connection, numbers)
        with authority(here) as at:
            add_group(at, users=GROUP)
            some = crowd(at, rounds)
            full = [first_sync(at, some.one(number)) for number in range(rounds)]
            change, nothing = [], []
            with some.one() as host:
                host.sync()
                for number in range(rounds):
                    change_one(at, 0, locked=number % 2 == 0)
                    change.append(cost_of(at, host.sync))
                    nothing.append(cost_of(at, host.sync))
                if any(cost.taken.users != 1 or cost.taken.full for cost in change):
                    raise SystemExit(f"one change should bring one person: {change}")
                with here.store.writing() as connection:
                    act = at.act()
                    for number in range(strangers):
                        users.lock(connection, act, name_of(number % (total // PEOPLE - 1) + 1))
                        users.unlock(connection, act, name_of(number % (total // PEOPLE - 1) + 1))
                with here.store.reading() as connection:
                    after = changes.now_at(connection) - 2 * strangers - 1
                nothing.append(cost_of(at, host.sync))
                if nothing[-1].taken.users or nothing[-1].taken.full:
                    raise SystemExit(f"the host heard of strangers: {nothing[-1].taken}")
            return Scoped(total, full, change, nothing, steps(at, read_everything), steps(at, read_news(after)))


def scope(rounds: int, sizes: tuple[int, ...], strangers: int) -> list[str]:
    """The part ``scope``; the bars that were missed."""
    seen = [scoped(total, rounds, strangers) for total in sizes]
    print(f"a host with {PEOPLE} people, after {2 * strangers:,} changes of others; median (least..most) of {rounds} rounds")
    print("  CPU is the authority's, ms")
    columns = ("everything ms", "CPU", "one change ms", "CPU", "nothing ms", "CPU")
    print(f"  {'users':>10} {'steps':>9} " + " ".join(f"{column:>17}" for column in columns))
    for one in seen:
        figures = [
            Spread.of(costs, figure).text(".1f")
            for costs in (one.full, one.change, one.nothing)
            for figure in ("ms", "cpu_ms")
        ]
        print(f"  {one.total:10,} {one.full_steps:9,} " + " ".join(f"{figure:>17}" for figure in figures))
    growth = seen[-1].full_steps / seen[0].full_steps
    news = seen[-1].news_steps / max(1, seen[0].news_steps)
    cpu = Spread.of(seen[-1].full, "cpu_s").median / Spread.of(seen[0].full, "cpu_s").median
    print(
        f"  {sizes[-1]:,} by {sizes[0]:,} users: steps of everything {growth:.2f}x, of news {news:.2f}x (bar {BAR_GROWTH}x),"
        f" authority's CPU {cpu:.2f}x"
    )
    ratios = {"steps of everything": growth, "steps of news": news}
    return [f"{what} grow {ratio:.2f}x" for what, ratio in ratios.items() if ratio > BAR_GROWTH]


# Ten thousand hosts


def idle_share(at: Authority) -> float:
    """The share of a core that an authority takes whose hosts wait: of one poll each, after what their coming left to do."""
    time.sleep(5)
    before = at.station.cpu_s()
    time.sleep(POLL_S)
    return (at.station.cpu_s() - before) / POLL_S


def crowd_hears(count: int, rounds: int, people: int) -> list[str]:
    """The part ``crowd``; the bars that were missed."""
    wanted = count + 1_000
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(wanted, hard)))
    with ExitStack() as running:
        here = running.enter_context(stage(people, keep=0))
        at = running.enter_context(authority(here))
        add_group(at)
        began = time.monotonic()
        some = crowd(at, count)
        print(f"{count:,} hosts, each with {people} people, made in {time.monotonic() - began:.1f} s")
        generator = Generator(here.folder, cpu=None)
        with some.one() as one:
            one.sync()
            form = one.poll_body(here.folder / "poll")
            at_start = (one.seq, one.cursor, one.digest)
        before, cpu_before, began = at.station.resident(), at.station.cpu_s(), time.monotonic()
        seq, cursor, digest = at_start
        assert cursor is not None
        held = running.enter_context(
            generator.hold(
                at.port, some.minted.hosts, form, path=SYNC, connections=count, seq=seq, cursor=cursor.seq, digest=digest,
                seconds=300.0,
            )
        )  # fmt: skip
        took_s, cpu_s = time.monotonic() - began, at.station.cpu_s() - cpu_before
        idle = idle_share(at)
        octets = (at.station.resident() - before) / count
        print(
            f"  {held.waiting:,} wait: connected in {took_s:.1f} s, {cpu_s / count * 1e3:.2f} ms of the authority's processor"
            f" each; {octets:,.0f} resident octets each; waiting takes {idle:.3f} of a core"
        )
        columns = ("round", "told", "first s", "half s", "p99 s", "last s", "CPU s", "us/host", "octets/host")
        print("  " + " ".join(f"{column:>11}" for column in columns))
        told: list[Told] = []
        for number in range(rounds):
            held.begin()
            spent, began = at.station.cpu_s(), time.monotonic()
            change_one(at, 0, locked=number % 2 == 0)
            committed = time.monotonic_ns()
            heard = held.end()
            time.sleep(2)  # that they have it is written down a little later
            spent = at.station.cpu_s() - spent - idle * (time.monotonic() - began)
            told.append(heard)
            moments = (heard.first_ns, heard.p50_ns, heard.p99_ns, heard.last_ns)
            late = " ".join(f"{(moment - committed) / 1e9:11.2f}" for moment in moments)
            print(
                f"  {number:>11} {heard.told:11,} {late} {spent:11.2f} {spent / count * 1e6:11.0f}"
                f" {heard.octets_in / count:11,.0f}"
            )
        check(some, people)
    return [f"{count - one.told} hosts did not hear of a change" for one in told if one.told < count]


def check(some: Crowd, people: int) -> None:
    """One host looks whether what the others were told is good: it gets everything once more, and believes it."""
    with some.one(1) as host:
        taken = host.sync()
    if taken.users != people:
        raise SystemExit(f"one host got {taken.users} people, expected {people}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=["new", "scope", "crowd"], default=["new", "scope", "crowd"])
    parser.add_argument("--people", type=int, default=1_000, help="of a new host")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--strangers", type=int, default=1_000, help="changes of others, twice")
    parser.add_argument("--hosts", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    missed: list[str] = []
    if "new" in options.parts:
        missed += new_host(options.people, options.rounds)
    if "scope" in options.parts:
        missed += scope(options.rounds, tuple(options.sizes), options.strangers)
    if "crowd" in options.parts:
        missed += crowd_hears(options.hosts, options.rounds, PEOPLE)
    return conclude(missed)


if __name__ == "__main__":
    raise SystemExit(main())
