"""How many codes are verified and durably spent in a second, through the whole core: one core, 64 waiting, and one at a time.

Peer in the same run: a bare loop over the same kind of file that does nothing but the compare-and-set, one durable commit each:
what a verifier that commits for itself would reach if its other work cost nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sqlite3
import sys
import time
from pathlib import Path

import uvloop

from bench.stage import Stage, name_of, stage, wait_for_early_step
from mfa_core.identity import IdentityRules
from mfa_core.model import Attempt, Door
from mfa_core.policy import Policy
from mfa_core.secret import Secret
from mfa_core.verdict import Accepted
from mfa_core.verifier import Settings
from mfa_runtime.audit_sinks import no_sink
from mfa_runtime.directory import NoGroups
from mfa_runtime.event_id import new_event_id
from mfa_runtime.ledger import Ledger
from mfa_runtime.upkeep import WriteAheadLog
from mfa_runtime.verification import Rules, Verification

WAITING = 64
BAR_TOGETHER = 10_000
BAR_ALONE = 500


async def measure(here: Stage, codes: list[tuple[str, Secret]], alone: int) -> tuple[float, float, float]:
    """Verify every code once: ``alone`` of them one at a time, the rest with 64 waiting. Rates, and CPU seconds a spend."""
    keyring = here.keyring()
    ledger = Ledger(here.store, keyring=keyring, reload_keyring=here.keyring, node="bench", clock=time.time, sink=no_sink)
    gate = Verification(
        store=here.store,
        ledger=ledger,
        rules=Rules(IdentityRules(), Policy(), Settings()),
        groups=NoGroups(),
        clock=time.time,
        capacity=4096,
    )
    write_ahead_log = WriteAheadLog(here.store, written=lambda: ledger.written, monotonic=time.monotonic)
    write_ahead_log.make_long()
    gate.start()

    async def verify(name: str, code: Secret) -> None:
        event_id = new_event_id(time.time(), os.urandom)
        verdict = await gate.decide(Attempt(event_id, Door.CONSOLE, "bench", name, typed=code))
        if not isinstance(verdict, Accepted):
            raise SystemExit(f"{name}: {verdict}")

    started = time.perf_counter()
    for name, code in codes[:alone]:
        await verify(name, code)
    alone_rate = alone / (time.perf_counter() - started)

    rest = iter(codes[alone:])

    async def work() -> None:
        for name, code in rest:
            await verify(name, code)

    checkpoints = asyncio.create_task(_checkpoints(write_ahead_log))
    cpu, started = time.process_time(), time.perf_counter()
    await asyncio.gather(*(work() for _ in range(WAITING)))
    took, cpu = time.perf_counter() - started, time.process_time() - cpu
    checkpoints.cancel()
    await gate.stop()
    count = len(codes) - alone
    return alone_rate, count / took, cpu / count


async def _checkpoints(write_ahead_log: WriteAheadLog) -> None:
    while True:
        await asyncio.sleep(1)
        await asyncio.get_running_loop().run_in_executor(None, write_ahead_log.checkpoint_if_due)


def bare_loop(folder: Path, count: int) -> float:
    """Compare-and-set and commit, and nothing else; per second."""
    path = folder / "peer.sqlite"
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE c (id INTEGER PRIMARY KEY, last_step INTEGER)")
    connection.execute("BEGIN")
    connection.executemany("INSERT INTO c VALUES (?, 0)", ((i,) for i in range(65_536)))
    connection.execute("COMMIT")
    started = time.perf_counter()
    for i in range(count):
        connection.execute("UPDATE c SET last_step = 1 WHERE id = ? AND last_step < 1", (i,))
    rate = count / (time.perf_counter() - started)
    connection.close()
    return rate


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=65_536)
    parser.add_argument("--spends", type=int, default=40_000)
    parser.add_argument("--alone", type=int, default=2_000)
    parser.add_argument("--cores", type=int, default=1, help="pin to this many cores")
    options = parser.parse_args()
    os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[: options.cores]))
    sys.setswitchinterval(0.0005)
    with stage(options.users) as here:
        peer = bare_loop(here.folder, 3000)
        now = wait_for_early_step(25)
        step = max(1, options.users // (options.spends + options.alone))
        names = [name_of(i * step) for i in range(options.spends + options.alone)]
        codes = [(name, Secret(here.code(name, now=now).encode())) for name in names]
        alone, together, cpu_s = uvloop.run(measure(here, codes, options.alone))
    print(f"users {options.users}, cores {options.cores}, each spend by another user, every check, audit and commit on")
    for what, rate, bar in (
        ("bare compare-and-set, a commit each (peer)", peer, ""),
        ("one at a time", alone, f"bar {BAR_ALONE:,}/s"),
        (f"{WAITING} waiting", together, f"bar {BAR_TOGETHER:,}/s"),
    ):
        print(f"  {what:44} {rate:10,.0f}/s {rate / peer:6.2f}x   {bar}")
    print(f"  CPU a spend                                  {cpu_s * 1e6:10.1f} us")
    missed = together < BAR_TOGETHER or alone < BAR_ALONE
    print("  bar missed" if missed else "  bars met")
    return int(missed)


if __name__ == "__main__":
    raise SystemExit(main())
