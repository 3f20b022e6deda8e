"""What does the second factor add to a login? The same stack with pam_permit, with pam_mfa.so and mfad, and with
pam_google_authenticator, in one run, each login by another user, one after another in turn.

All of them are measured from pam_start to pam_end in a C program, loading of the module included. Both verifiers write durably
before they answer: pam_google_authenticator rewrites the user's file and calls fsync, mfad commits to its store.
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
        self._process = subprocess.Popen(
            [str(program), str(folder), service], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def login(self, user: str, code: str) -> tuple[int, float]:
        """Log in; the PAM result and milliseconds."""
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise RuntimeError("no pipe")
        stdin.write(f"{user} {code}\n")
        stdin.flush()
        result, ns = stdout.readline().split()
        return int(result), int(ns) / 1e6

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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--logins", type=int, default=1000)
    options = parser.parse_args()
    warm = 50
    count = options.logins + warm
    with stage(count) as here, daemon(here) as running:
        write_google_files(here, count)
        times: dict[str, list[float]] = {"permit": [], "mfad": [], "google": []}
        with drivers(here, running.sockets) as stacks:
            for number in range(count):
                now = wait_for_early_step(2)
                name = name_of(number)
                for service, driver in stacks.items():
                    result, took = driver.login(name, here.code(name, now=now))
                    if result != PAM_SUCCESS:
                        raise SystemExit(f"{service}: {name} was answered {result}")
                    if number >= warm:
                        times[service].append(took)
    median = {service: percentile(values, 0.5) for service, values in times.items()}
    late = {service: percentile(values, 0.99) for service, values in times.items()}
    added = {service: median[service] - median["permit"] for service in times}
    print(f"{options.logins} logins through libpam, each by another user; milliseconds")
    print(f"  {'stack':28} {'median':>8} {'p99':>8} {'added':>8}   median/google  p99/google")
    for service, label in (("permit", "pam_permit"), ("google", "pam_google_authenticator"), ("mfad", "pam_mfa.so and mfad")):
        print(
            f"  {label:28} {median[service]:8.3f} {late[service]:8.3f} {added[service]:8.3f}"
            f"   {median[service] / median['google']:8.2f}x     {late[service] / late['google']:8.2f}x"
        )
    missed = [
        what
        for what, bad in (
            (f"added {added['mfad']:.2f} ms > {BAR_ADDED_MS} ms", added["mfad"] > BAR_ADDED_MS),
            ("median above pam_google_authenticator's", median["mfad"] > median["google"]),
            ("p99 above pam_google_authenticator's", late["mfad"] > late["google"]),
        )
        if bad
    ]
    print("  bars missed: " + "; ".join(missed) if missed else "  bars met")
    return int(bool(missed))


if __name__ == "__main__":
    raise SystemExit(main())
