"""What does a durable spend cost in processor time, and do two processes on one store spend faster than one?

Wall clocks say little on a shared machine; the processor time counts what this process used, in user and kernel mode, flushes
to disk included, waiting for them not. Every spend is another user's TOTP from a sealed secret, with throttle, audit and
commit. The speed of a processor changes too: *unit* is the time of a fixed piece of Python in the same seconds, for comparing.

``gate`` awaits :class:`mfa_runtime.verification.Verification`; ``ask`` is answered by it through callbacks; ``check`` as well,
behind a password that is checked at once (a bind of the LDAP door); ``queue`` gives ready entries to the writer's thread;
``ledger`` calls the ledger in the same thread. The number is how many wait together.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import uvloop

from bench.stage import Stage, name_of, stage
from mfa_core.identity import IdentityRules
from mfa_core.model import Attempt, Door, FirstFactor, Grammar, SplitMode
from mfa_core.policy import Policy
from mfa_core.secret import Secret
from mfa_core.verdict import Accepted, Verdict
from mfa_core.verifier import Password, Settings
from mfa_runtime.audit_sinks import no_sink
from mfa_runtime.directory import NoGroups
from mfa_runtime.event_id import new_event_id
from mfa_runtime.gate import Checked
from mfa_runtime.group_commit import GroupCommit
from mfa_runtime.ledger import Ledger, Ruling
from mfa_runtime.sitting import Entry
from mfa_runtime.store.key_table import load_keyring
from mfa_runtime.store.opening import open_store
from mfa_runtime.upkeep import WriteAheadLog
from mfa_runtime.verification import Rules, Verification
from mfad.collector import let_the_collector_rest

COUNTS = {1: 300, 64: 1_920, 256: 2_560}
"""How many spends are measured in a row, by how many wait together."""
LAYERS = ("ledger", "queue", "ask", "check", "gate")
SEPARATOR = Grammar(SplitMode.SEPARATOR, ",")

Codes = Sequence[tuple[str, Secret]]


def unit_us() -> float:
    """Microseconds of processor time that a fixed piece of Python takes now."""
    started = time.process_time()
    total = 0
    for n in range(20_000):
        total += len(str(n))
    return (time.process_time() - started) * 1e6


@dataclass(slots=True)
class Bank:
    """The parts that spend. ``now`` stands still, so that the codes hold for the whole run."""

    here: Stage
    now: float
    source: str | None
    ledger: Ledger = field(init=False)
    policy: Policy = field(default_factory=Policy)

    def __post_init__(self) -> None:
        keyring = self.here.keyring()
        self.ledger = Ledger(
            self.here.store, keyring=keyring, reload_keyring=self.here.keyring, node=f"bench-{os.getpid()}",
            clock=lambda: self.now, sink=no_sink,
        )  # fmt: skip

    def attempt(self, name: str, code: Secret) -> Attempt:
        """One request."""
        return Attempt(new_event_id(time.time(), os.urandom), Door.RADIUS, "bench", name, self.source, typed=code, client="nas")

    def bind(self, name: str, code: Secret) -> Attempt:
        """One simple bind."""
        return Attempt(
            new_event_id(time.time(), os.urandom), Door.LDAP, "bench", name, self.source,
            typed=Secret(b"correct horse," + code.reveal()), first_factor=FirstFactor.OURS, client="ldap", grammar=SEPARATOR,
        )  # fmt: skip

    def entry(self, name: str, code: Secret) -> Entry:
        """One request as the gate hands it over."""
        return Entry(self.attempt(name, code), name, self.policy.default.decision(), Settings())

    def gate(self) -> Verification:
        """The whole gate."""
        return Verification(
            store=self.here.store, ledger=self.ledger, rules=Rules(IdentityRules(), self.policy, Settings()),
            groups=NoGroups(), clock=lambda: self.now, capacity=4096,
        )  # fmt: skip


def good(verdict: Verdict) -> None:
    """Stop at anything but an accept."""
    if not isinstance(verdict, Accepted):
        raise SystemExit(f"{verdict}")


def through_ledger(bank: Bank, codes: Codes, together: int) -> None:
    """Batch after batch in this thread."""
    for start in range(0, len(codes), together):
        for ruling in bank.ledger.process([bank.entry(*one) for one in codes[start : start + together]]):
            good(ruling.verdict)


async def through_queue(bank: Bank, codes: Codes, together: int) -> None:
    """Batch after batch over the writer's thread, answered by callbacks."""
    writer: GroupCommit[Entry, Ruling] = GroupCommit(
        bank.ledger.commit, capacity=4096, idle=bank.ledger.flush, settle=bank.ledger.settle
    )
    writer.start()
    rest = iter(codes)
    done = asyncio.get_running_loop().create_future()
    waiting = 0

    def answer(result: Ruling | BaseException) -> None:
        nonlocal waiting
        if isinstance(result, BaseException):
            raise result
        good(result.verdict)
        waiting -= 1
        ask()

    def ask() -> None:
        nonlocal waiting
        one = next(rest, None)
        if one is not None:
            waiting += 1
            writer.submit_to(bank.entry(*one), answer)
        elif not waiting and not done.done():
            done.set_result(None)

    for _ in range(together):
        ask()
    await done
    await writer.stop()


async def through_gate(bank: Bank, codes: Codes, together: int) -> None:
    """As doors do it: so many tasks, each with one attempt at a time."""
    gate = bank.gate()
    gate.start()
    rest = iter(codes)

    async def work() -> None:
        for one in rest:
            good(await gate.decide(bank.attempt(*one)))

    await asyncio.gather(*(work() for _ in range(together)))
    await gate.stop()


async def through_ask(bank: Bank, codes: Codes, together: int, *, check: bool) -> None:
    """As doors do it that keep no task for a request; with ``check`` as those that have the password checked."""
    gate = bank.gate()
    gate.start()
    rest = iter(codes)
    done = asyncio.get_running_loop().create_future()
    waiting = 0

    def answer(verdict: Verdict) -> None:
        nonlocal waiting
        good(verdict)
        waiting -= 1
        ask()

    def ask() -> None:
        nonlocal waiting
        one = next(rest, None)
        if one is not None:
            waiting += 1
            if check:
                gate.ask_with(bank.bind(*one), right, answer)
            else:
                gate.ask(bank.attempt(*one), answer)
        elif not waiting and not done.done():
            done.set_result(None)

    for _ in range(together):
        ask()
    await done
    await gate.stop()


def right(_password: Secret, tell: Checked) -> None:
    """A directory that takes no time and knows every password."""
    tell(Password.GOOD)


def spend(bank: Bank, layer: str, codes: Codes, together: int) -> None:
    """Spend all codes."""
    if layer == "ledger":
        through_ledger(bank, codes, together)
    elif layer == "queue":
        uvloop.run(through_queue(bank, codes, together))
    elif layer in {"ask", "check"}:
        uvloop.run(through_ask(bank, codes, together, check=layer == "check"))
    else:
        uvloop.run(through_gate(bank, codes, together))


def measure(here: Stage, layers: Sequence[str], rounds: int, now: float, source: str | None, users: int) -> None:
    """Print processor microseconds a spend: layers by batches, least and median over the rounds."""
    bank = Bank(here, now, source)
    upkeep = WriteAheadLog(here.store, written=lambda: bank.ledger.written, monotonic=time.monotonic)
    upkeep.make_long()
    codes = shuffled(here, now, users)
    costs: dict[tuple[str, int], list[float]] = {(layer, n): [] for layer in layers for n in COUNTS}
    let_the_collector_rest()  # as the daemon does after its start
    relative: dict[tuple[str, int], list[float]] = {one: [] for one in costs}
    units: list[float] = []
    for _ in range(rounds):
        for (layer, together), found in costs.items():
            some = [one for one, _ in zip(codes, range(COUNTS[together]), strict=False)]
            if len(some) < COUNTS[together]:
                raise SystemExit("not enough users for so many rounds")
            before = unit_us()
            started = time.process_time()
            spend(bank, layer, some, together)
            cost = (time.process_time() - started) * 1e6 / len(some)
            unit = (before + unit_us()) / 2
            units.append(unit)
            found.append(cost)
            relative[layer, together].append(cost / unit)
            upkeep.checkpoint_if_due()
    print(f"unit: least {min(units):,.0f} us, median {statistics.median(units):,.0f} us; source {source}")
    for (layer, together), found in costs.items():
        print(
            f"  {layer:8} {together:4} together   least {min(found):7.1f} us   median {statistics.median(found):7.1f} us   "
            f"median of units {1000 * statistics.median(relative[layer, together]):6.1f}/1000"
        )


def shuffled(here: Stage, now: float, users: int, offset: int = 0, every: int = 1) -> Iterator[tuple[str, Secret]]:
    """Users of the store, scattered, each once, with a code."""
    stride = 40_503
    for n in range(offset, users, every):
        name = name_of(n * stride % users)
        yield name, Secret(here.code(name, now=now).encode())


def process(here: Stage, pipe: Connection, core: int, now: float, codes: Codes, together: int) -> None:
    """A process of its own with its own store handle: spends when told to, and says how long it took."""
    os.sched_setaffinity(0, {core})
    store = open_store(here.folder / "state")
    own = Stage(here.folder, store, here.keks, here.secrets)
    with store.reading() as connection:
        load_keyring(connection, here.keks, random=os.urandom)
    bank = Bank(own, now, None)
    pipe.send("ready")
    pipe.recv()
    started = time.perf_counter()
    spend(bank, "queue", codes, together)
    pipe.send((time.perf_counter() - started, time.process_time()))
    store.close()


def together_rate(here: Stage, cores: Sequence[int], now: float, codes: Callable[[], Codes], together: int) -> float:
    """Spends a second of so many processes, each on a core of its own."""
    context = multiprocessing.get_context("fork")
    members = []
    count = 0
    for core in cores:
        ours, theirs = context.Pipe()
        share = codes()
        count += len(share)
        one = context.Process(target=process, args=(here, theirs, core, now, share, together))
        one.start()
        theirs.close()
        members.append((one, ours))
    return count / _race(members)


def compute(pipe: Connection, core: int) -> None:
    """A process that shares nothing: what two cores give here at this moment."""
    os.sched_setaffinity(0, {core})
    pipe.send("ready")
    pipe.recv()
    for _ in range(200):
        unit_us()
    pipe.send(None)


def computed_rate(cores: Sequence[int]) -> float:
    """Pieces of Python a second of so many processes."""
    context = multiprocessing.get_context("fork")
    members = []
    for core in cores:
        ours, theirs = context.Pipe()
        one = context.Process(target=compute, args=(theirs, core))
        one.start()
        theirs.close()
        members.append((one, ours))
    return 200 * len(cores) / _race(members)


def _race(members: Sequence[tuple[Any, Connection]]) -> float:
    """Start all at once, wait for all; seconds."""
    for _, pipe in members:
        pipe.recv()
    started = time.perf_counter()
    for _, pipe in members:
        pipe.send("go")
    for _, pipe in members:
        pipe.recv()
    took = time.perf_counter() - started
    for one, _ in members:
        one.join()
    return took


def scale(here: Stage, rounds: int, now: float, users: int, together: int, count: int) -> None:
    """Print how many times as fast two processes are as one, in turn, and what two that share nothing reach."""
    rest = shuffled(here, now, users)

    def codes() -> Codes:
        return [one for one, _ in zip(rest, range(count), strict=False)]

    cores = sorted(os.sched_getaffinity(0))[:2]
    found = []
    for _ in range(rounds):
        one = together_rate(here, cores[:1], now, codes, together)
        two = together_rate(here, cores, now, codes, together)
        here.store.checkpoint()
        alone = computed_rate(cores) / computed_rate(cores[:1])
        found.append((two / one, alone))
        print(
            f"  {together} waiting: one process {one:8,.0f}/s   two {two:8,.0f}/s   {two / one:5.2f}x   "
            f"(two that share nothing: {alone:5.2f}x)",
            flush=True,
        )
    print(f"  median {statistics.median(x for x, _ in found):5.2f}x   of {statistics.median(y for _, y in found):5.2f}x")


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=65_536)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--layers", nargs="+", choices=LAYERS, default=list(LAYERS))
    parser.add_argument("--source", default=None, help="the address that every attempt comes from")
    parser.add_argument("--processes", action="store_true", help="compare two processes on one store with one")
    parser.add_argument("--waiting", type=int, default=64, help="with --processes: how many wait in each")
    parser.add_argument("--count", type=int, default=4_000, help="with --processes: spends of each process a round")
    options = parser.parse_args()
    sys.setswitchinterval(0.0005)
    with stage(options.users) as here:
        now = time.time()
        if options.processes:
            scale(here, options.rounds, now, options.users, options.waiting, options.count)
        else:
            os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
            measure(here, options.layers, options.rounds, now, options.source, options.users)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
