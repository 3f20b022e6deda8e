"""Can one code be spent twice? 16 processes with 16 threads each log in with the same code, at the same moment, through the
real pam_mfa.so and the real mfad, each round with another user. Exactly one of them may get PAM_SUCCESS.

With ``--kill`` mfad is killed with SIGKILL at a random point of each round and started again, and the code is tried again by
all of them, and once more after a second kill. Then none may succeed twice, whoever saw SUCCESS must be the last one, and no
SUCCESS at all is good only where the store says that the code was spent for an answer that died with mfad.

Prints a table, and exits with 1 on a double accept, on an accept too few, or on a broken audit chain. Run it as
``python -m bench.race --rounds 50 [--kill]``. ``--postgresql`` races authorities on one store: :mod:`bench.race_authorities`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

from bench import race_authorities
from bench.stage import ROOT, Stage, name_of, stage
from mfa_runtime.store import audit_log
from tests.pam_mfa.pam_harness import Always, PamCode, PamTransaction, auth_line, build

PROCESSES, THREADS = 16, 16
LEAD_S = 0.5
"""Seconds between the word and the start: all threads have their PAM handle by then."""
READY_S = 30.0


@dataclass(frozen=True, slots=True)
class Order:
    """One wave: who logs in, with which code, through which sockets, and when (monotonic seconds)."""

    sockets: Path
    user: str
    code: str
    start_at: float
    threads: int


def log_in(order: Order, results: list[int]) -> None:
    """One login: prepare, wait for the moment, authenticate, keep the PAM result."""
    with PamTransaction([auth_line(socket_dir=order.sockets)], order.user, [Always(order.code)]) as pam:
        time.sleep(max(0.0, order.start_at - time.monotonic()))
        results.append(pam.authenticate().code)


def work(orders: Connection) -> None:
    """A process of the crowd: run waves until told to end."""
    while (order := orders.recv()) is not None:
        results: list[int] = []
        threads = [threading.Thread(target=log_in, args=(order, results)) for _ in range(order.threads)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        orders.send(results)


class Crowd:
    """The processes that log in. Make it before anything else has threads: they are forked."""

    def __init__(self, processes: int, threads: int) -> None:
        self._threads = threads
        context = multiprocessing.get_context("fork")
        self._members = []
        for _ in range(processes):
            ours, theirs = context.Pipe()
            process = context.Process(target=work, args=(theirs,), daemon=True)
            process.start()
            theirs.close()
            self._members.append((process, ours))

    def begin(self, sockets: Path, user: str, code: str) -> float:
        """Start a wave; the moment at which it strikes."""
        start_at = time.monotonic() + LEAD_S
        for _, pipe in self._members:
            pipe.send(Order(sockets, user, code, start_at, self._threads))
        return start_at

    def end(self) -> Counter[int]:
        """Wait for the wave; how often each PAM code came."""
        seen: Counter[int] = Counter()
        for _, pipe in self._members:
            seen.update(pipe.recv())
        return seen

    def strike(self, sockets: Path, user: str, code: str) -> Counter[int]:
        """One wave."""
        self.begin(sockets, user, code)
        return self.end()

    def close(self) -> None:
        """Send the processes home."""
        for process, pipe in self._members:
            pipe.send(None)
            process.join(10)
            pipe.close()


class Mfad:
    """The daemon over a stage, which can be killed and started again."""

    def __init__(self, here: Stage) -> None:
        self.sockets = here.folder / "run"
        self._config = here.folder / "mfad.yaml"
        self._config.write_text(
            "state_dir: ./state\nkey_file: ./kek\ndoors:\n  pam:\n    socket_dir: ./run\n"
            "limits: {connections: 4096, connections_per_user: 1000}\nlog_level: error\n"
        )
        self._log = (here.folder / "log").open("w+")
        self._process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        position = self._log.seek(0, os.SEEK_END)
        process = subprocess.Popen([sys.executable, "-m", "mfad", "--config", str(self._config)], cwd=ROOT, stderr=self._log)
        deadline = time.monotonic() + READY_S
        while True:
            self._log.seek(position)
            if "ready" in self._log.read():
                return process
            if process.poll() is not None or time.monotonic() > deadline:
                self._log.seek(position)
                raise RuntimeError(f"mfad is not ready: {self._log.read()}")
            time.sleep(0.01)

    def kill(self) -> None:
        """SIGKILL, by its pid."""
        self._process.kill()
        self._process.wait()

    def start(self) -> None:
        """Start again after a kill."""
        self._process = self._start()

    def close(self) -> None:
        """SIGTERM, and the end of the log."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(timeout=30)
        self._log.close()


@dataclass(slots=True)
class Round:
    """What became of one code. ``accepts`` are the accepted attempts on record."""

    number: int
    waves: list[Counter[int]] = field(default_factory=list)
    seconds: float = 0.0
    accepts: int = 0
    problems: tuple[str, ...] = ()

    @property
    def successes(self) -> list[int]:
        """How often PAM_SUCCESS came, wave by wave."""
        return [wave[PamCode.SUCCESS] for wave in self.waves]

    def wrong(self, *, killed: bool) -> str:
        """What is wrong with it; "" for nothing."""
        seen = sum(self.successes)
        if seen > 1 or self.accepts > 1:
            return f"DOUBLE: {seen} successes, {self.accepts} on record"
        if seen and not self.accepts:
            return "a SUCCESS that is not on record"
        if not self.accepts or (not seen and not killed):
            return "nobody was let in"
        return "; ".join(self.problems)


def plain_round(crowd: Crowd, mfad: Mfad, here: Stage, number: int) -> Round:
    """One wave."""
    user, began = name_of(number), time.monotonic()
    done = Round(number, [crowd.strike(mfad.sockets, user, here.code(user, now=time.time()))])
    done.seconds = time.monotonic() - began
    return done


def kill_round(crowd: Crowd, mfad: Mfad, here: Stage, number: int, chance: random.Random) -> Round:
    """A wave with a kill in it, a wave after it, another kill, a last wave."""
    user, began = name_of(number), time.monotonic()
    code = here.code(user, now=time.time())
    done = Round(number)
    start_at = crowd.begin(mfad.sockets, user, code)
    # Most often in the first milliseconds, where the one accept is on its way; sometimes when all is over.
    time.sleep(max(0.0, start_at - time.monotonic()) + chance.expovariate(1 / 0.15))
    mfad.kill()
    done.waves.append(crowd.end())
    mfad.start()
    done.waves.append(crowd.strike(mfad.sockets, user, code))
    mfad.kill()
    mfad.start()
    done.waves.append(crowd.strike(mfad.sockets, user, code))
    done.seconds = time.monotonic() - began
    return done


def on_record(here: Stage) -> Counter[str]:
    """How often each user was accepted, by the audit log."""
    accepted: Counter[str] = Counter()
    with here.store.reading() as connection:
        for entry in audit_log.every(connection):
            body = json.loads(entry.body)
            if body.get("outcome") == "accepted":
                accepted[body["user"]] += 1
    return accepted


def broken_chains(here: Stage) -> tuple[str, ...]:
    """What `mfactl audit verify` would say."""
    with here.store.reading() as connection:
        reports = list(audit_log.verify(connection, keyring=here.keyring()))
    return tuple(problem for report in reports for problem in report.problems)


def race(
    rounds: int, *, kill: bool = False, processes: int = PROCESSES, threads: int = THREADS, seed: int = 0
) -> Iterator[Round]:
    """Run the rounds. The caller looks at each as it comes; the store is gone when the last one is out."""
    build("all")
    crowd = Crowd(processes, threads)
    chance = random.Random(seed)
    with contextlib.closing(crowd), stage(rounds) as here, contextlib.closing(Mfad(here)) as mfad:
        for number in range(rounds):
            done = kill_round(crowd, mfad, here, number, chance) if kill else plain_round(crowd, mfad, here, number)
            done.accepts = on_record(here)[name_of(number)]
            done.problems = broken_chains(here)
            yield done


def main() -> int:
    """Run the rounds, print them, say what was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--kill", action="store_true", help="kill mfad with SIGKILL in each round")
    parser.add_argument("--processes", type=int, default=PROCESSES)
    parser.add_argument("--threads", type=int, default=THREADS)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000, help="of the moments of the kills")
    parser.add_argument("--postgresql", action="store_true", help="two authorities on one SQLite file and one PostgreSQL")
    parser.add_argument("--codes", type=int, default=300, help="of that race")
    options = parser.parse_args()
    if options.postgresql:
        return race_authorities.main(options.codes, kill=options.kill, seed=options.seed)
    print(f"{options.processes} processes x {options.threads} threads, seed {options.seed}")
    print(f"{'round':>5}  {'SUCCESS':>9}  {'on record':>9}  {'AUTH_ERR':>8}  {'UNAVAIL':>7}  {'other':>5}  {'s':>5}")
    bad, lost = 0, 0
    for done in race(
        options.rounds, kill=options.kill, processes=options.processes, threads=options.threads, seed=options.seed
    ):
        total: Counter[int] = sum(done.waves, Counter())
        wrong = done.wrong(killed=options.kill)
        other = total.total() - total[PamCode.SUCCESS] - total[PamCode.AUTH_ERR] - total[PamCode.AUTHINFO_UNAVAIL]
        print(
            f"{done.number:>5}  {'+'.join(map(str, done.successes)):>9}  {done.accepts:>9}  {total[PamCode.AUTH_ERR]:>8}  "
            f"{total[PamCode.AUTHINFO_UNAVAIL]:>7}  {other:>5}  {done.seconds:>5.1f}  {wrong}",
            flush=True,
        )
        bad += bool(wrong)
        lost += not sum(done.successes)
    print(f"{options.rounds} rounds: {bad} bad" + (f", {lost} where the one accept died with mfad" if options.kill else ""))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
