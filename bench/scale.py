"""Does a store of a million users cost more than one of a thousand? Start of mfad, its memory, a login's latency, an import.

The peer is mfad itself with 1,000 users, in the same run. Logins go through the module and the daemon, each by another user
spread over the whole store, so that no page is warm by luck.
"""

from __future__ import annotations

import argparse
import base64
import os
import random
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from bench.login import Driver
from bench.stage import MODULE, ROOT, Stage, daemon, name_of, percentile, stage, wait_for_early_step

BAR_START_S = 2.0
BAR_RESIDENT_MIB = 256
BAR_P99_RATIO = 1.5
BAR_IMPORT_S = 600


@dataclass(frozen=True, slots=True)
class Seen:
    """What one size of store showed."""

    start_s: float
    resident_mib: float
    median_ms: float
    p99_ms: float


def observe(here: Stage, names: list[str]) -> Seen:
    """Start mfad and log these users in."""
    program = here.folder / "pam_login"
    subprocess.run(["cc", "-O2", "-o", str(program), str(ROOT / "bench" / "pam_login.c"), "-lpam"], check=True)
    confdir = here.folder / "pam.d"
    confdir.mkdir()
    with daemon(here) as running:
        (confdir / "mfad").write_text(f"auth required {MODULE} socket_dir={running.sockets}\n")
        driver = Driver(program, confdir, "mfad")
        times: list[float] = []
        for name in names:
            now = wait_for_early_step(1)
            times += driver.login([(name, here.code(name, now=now))])
        driver.close()
        return Seen(running.ready_s, running.resident_mib(), percentile(times, 0.5), percentile(times, 0.99))


def import_csv(count: int, folder: Path) -> float:
    """Seconds that `mfactl import csv` takes for a file of this many users."""
    state = folder / "import"
    state.mkdir()
    (state / "mfad.yaml").write_text("state_dir: ./state\nkey_file: ./kek\ndoors: {pam: {socket_dir: ./run}}\n")
    source = state / "users.csv"
    with source.open("w") as out:
        out.write("user,secret\n")
        for number in range(count):
            out.write(f"{name_of(number)},{base64.b32encode(os.urandom(20)).decode()}\n")
    mfactl = [sys.executable, "-m", "mfactl", "--config", str(state / "mfad.yaml")]
    subprocess.run([*mfactl, "init"], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    started = time.monotonic()
    subprocess.run([*mfactl, "import", "csv", str(source)], check=True, cwd=ROOT)
    return time.monotonic() - started


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--logins", type=int, default=900)
    parser.add_argument("--skip-import", action="store_true")
    options = parser.parse_args()
    choose = random.Random(1)  # the same users in every run
    with stage(1_000) as here:
        small = observe(here, [name_of(i) for i in choose.sample(range(1_000), options.logins)])
    with stage(options.users) as here:
        large = observe(here, [name_of(i) for i in choose.sample(range(options.users), options.logins)])
        import_s = 0.0 if options.skip_import else import_csv(options.users, here.folder)
    print(f"  {'users':>10} {'start s':>8} {'resident MiB':>13} {'median ms':>10} {'p99 ms':>8}")
    for users, seen in ((1_000, small), (options.users, large)):
        print(
            f"  {users:10,} {seen.start_s:8.2f} {seen.resident_mib:13.0f} {seen.median_ms:10.3f} {seen.p99_ms:8.3f}"
        )
    ratio = large.p99_ms / small.p99_ms
    print(f"  p99 ratio {ratio:.2f}x (bar {BAR_P99_RATIO}x), median ratio {large.median_ms / small.median_ms:.2f}x")
    if not options.skip_import:
        print(f"  import of {options.users:,} users {import_s:.0f} s (bar {BAR_IMPORT_S} s)")
    missed = [
        what
        for what, bad in (
            ("start", large.start_s > BAR_START_S),
            ("memory", large.resident_mib > BAR_RESIDENT_MIB),
            ("p99", ratio > BAR_P99_RATIO),
            ("import", import_s > BAR_IMPORT_S),
        )
        if bad
    ]
    print("  bars missed: " + ", ".join(missed) if missed else "  bars met")
    return int(bool(missed))


if __name__ == "__main__":
    raise SystemExit(main())
