"""What does the second factor add to a login? The same stack with pam_permit, with pam_mfa.so and mfad, and with
pam_google_authenticator, in one run, each login by another user.

All of them are measured from pam_start to pam_end in a C program, loading of the module included. Both verifiers write durably
before they answer: pam_google_authenticator rewrites the user's file and calls fsync, mfad commits to its store.

Two ways of taking turns, because they differ: *busy* logs in blocks of users one after another through one stack, then through
the next (a host where somebody logs in all the time: code and data are in the processor's caches); *idle* changes the stack
after every login (each login finds the caches full of somebody else's data, as on a host where nobody logged in for a while).
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

from bench.stage import MODULE, ROOT, Stage, daemon, name_of, percentile, stage, wait_for_early_step

BAR_ADDED_MS = 1.0
PAM_SUCCESS = 0


class Driver:
    """A process that logs users in through one PAM service, as fast as it is told to."""

    def __init__(self, program: Path, folder: Path, service: str) -> None:
        self.service = service
        self._process = subprocess.Popen(
            [str(program), str(folder), service], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def login(self, logins: list[tuple[str, str]]) -> list[float]:
        """Log these users in with these codes, one right after the other; milliseconds of each. All must be let in."""
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise RuntimeError("no pipe")
        stdin.write("".join(f"{user} {code}\n" for user, code in logins))
        stdin.flush()
        times = []
        for user, _ in logins:
            result, ns = stdout.readline().split()
            if int(result) != PAM_SUCCESS:
                raise SystemExit(f"{self.service}: {user} was answered {result}")
            times.append(int(ns) / 1e6)
        return times

    def close(self) -> None:
        """End the process."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process.wait(timeout=10)


@contextlib.contextmanager
def drivers(here: Stage, sockets: Path) -> Iterator[dict[str, Driver]]:
    """One driver for each stack."""
    program = here.folder / "pam_login"
    subprocess.run(["cc", "-O2", "-o", str(program), str(ROOT / "bench" / "pam_login.c"), "-lpam"], check=True)
    confdir = here.folder / "pam.d"
    confdir.mkdir()
    secrets = here.folder / "google"
    stacks = {
        "permit": "auth required pam_permit.so",
        "mfad": f"auth required {MODULE} socket_dir={sockets}",
        "google": f"auth required pam_google_authenticator.so user=root secret={secrets}/${{USER}}",
    }
    for service, line in stacks.items():
        (confdir / service).write_text(line + "\n")
    running = {service: Driver(program, confdir, service) for service in stacks}
    try:
        yield running
    finally:
        for driver in running.values():
            driver.close()


def write_google_files(here: Stage, count: int) -> None:
    """The same secrets in pam_google_authenticator's own form, with reuse refused."""
    folder = here.folder / "google"
    folder.mkdir(mode=0o700)
    for number in range(count):
        path = folder / name_of(number)
        path.write_text(f'{here.base32(name_of(number))}\n" DISALLOW_REUSE\n" TOTP_AUTH\n')
        path.chmod(0o400)


def take_turns(here: Stage, stacks: dict[str, Driver], numbers: range, block: int) -> dict[str, list[float]]:
    """Log these users in through every stack, ``block`` of them before the next stack has its turn."""
    times: dict[str, list[float]] = {service: [] for service in stacks}
    for start in range(numbers.start, numbers.stop, block):
        now = wait_for_early_step(2)
        users = [name_of(n) for n in range(start, min(numbers.stop, start + block))]
        logins = [(user, here.code(user, now=now)) for user in users]
        for service, driver in stacks.items():
            times[service] += driver.login(logins)
    return times


def report(title: str, times: dict[str, list[float]]) -> list[str]:
    """Print a table; the bars that were missed."""
    median = {service: percentile(values, 0.5) for service, values in times.items()}
    late = {service: percentile(values, 0.99) for service, values in times.items()}
    added = {service: median[service] - median["permit"] for service in times}
    print(f"{title}: {len(times['mfad'])} logins, each by another user; milliseconds")
    print(f"  {'stack':28} {'median':>8} {'p99':>8} {'added':>8}   median/google  p99/google")
    for service, label in (("permit", "pam_permit"), ("google", "pam_google_authenticator"), ("mfad", "pam_mfa.so and mfad")):
        print(
            f"  {label:28} {median[service]:8.3f} {late[service]:8.3f} {added[service]:8.3f}"
            f"   {median[service] / median['google']:8.2f}x     {late[service] / late['google']:8.2f}x"
        )
    return [
        f"{title}: {what}"
        for what, bad in (
            (f"added {added['mfad']:.2f} ms > {BAR_ADDED_MS} ms", added["mfad"] > BAR_ADDED_MS),
            ("median above pam_google_authenticator's", median["mfad"] > median["google"]),
            ("p99 above pam_google_authenticator's", late["mfad"] > late["google"]),
        )
        if bad
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--logins", type=int, default=1000)
    parser.add_argument("--block", type=int, default=50, help="logins of one stack before the next one's turn, when busy")
    options = parser.parse_args()
    warm, count = 50, options.logins
    with stage(warm + 2 * count) as here, daemon(here) as running:
        write_google_files(here, warm + 2 * count)
        with drivers(here, running.sockets) as stacks:
            take_turns(here, stacks, range(warm), warm)
            busy = take_turns(here, stacks, range(warm, warm + count), options.block)
            idle = take_turns(here, stacks, range(warm + count, warm + 2 * count), 1)
    missed = report("busy", busy) + report("idle", idle)
    print("bars missed: " + "; ".join(missed) if missed else "bars met")
    return int(bool(missed))


if __name__ == "__main__":
    raise SystemExit(main())
