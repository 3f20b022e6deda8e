"""How does a test use the RADIUS clients that other people wrote: radclient, and pam_radius_auth behind the real libpam?"""

from __future__ import annotations

import re
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.end_to_end.host import module_directory
from tests.end_to_end.programs import PATIENCE_S, clean_environment, start, stop, wait_until
from tests.pam_mfa.pam_harness import PamTransaction, Seen, Step

PAM_RADIUS = "pam_radius_auth.so"
_RECEIVED = re.compile(r"^Received (\S+) Id \d+ from (\S+) ", re.MULTILINE)
_ATTRIBUTE = re.compile(r"^\t([A-Za-z0-9:-]+) = (.*)$", re.MULTILINE)


def free_port(host: str = "127.0.0.1", kind: socket.SocketKind = socket.SOCK_DGRAM) -> int:
    """A port that nobody has at this moment; for TCP and for UDP they differ."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, kind) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True, slots=True)
class Heard:
    """What radclient received: ``what`` is "" when nothing came that it believes."""

    what: str
    attributes: Mapping[str, str]
    screen: str


def radclient(
    server: str,
    secret: str,
    directory: Path,
    attributes: str,
    *,
    command: str = "auth",
    prefix: Sequence[str] = (),
    tries: int = 1,
) -> Heard:
    """Send one request; ``attributes`` as radclient reads them (``User-Name = "alice", ...``). It is signed."""
    secret_file = directory / "radclient.secret"
    secret_file.write_text(secret + "\n")
    words = attributes if command == "acct" else f"{attributes}\nMessage-Authenticator = 0x00"
    done = subprocess.run(
        [*prefix, "radclient", "-x", "-r", str(tries), "-t", "5", "-S", str(secret_file), server, command],
        input=words + "\n",
        capture_output=True,
        text=True,
        check=False,
        timeout=2 * PATIENCE_S,
        env=clean_environment(),
    )
    screen = done.stdout + done.stderr
    received = _RECEIVED.search(screen)
    after = screen[received.end() :] if received else ""
    return Heard(received[1] if received else "", dict(_ATTRIBUTE.findall(after)), screen)


def pam_radius(
    server: str, secret: str, directory: Path, user: str, answers: Sequence[Step], *words: str, timeout_s: int = 5
) -> Seen:
    """Authenticate ``user`` through a stack of pam_radius_auth.so alone."""
    conf = directory / "pam_radius.conf"
    conf.touch(0o600)
    conf.write_text(f"{server} {secret} {timeout_s}\n")
    line = " ".join(["auth required", str(module_directory() / PAM_RADIUS), f"conf={conf}", *words])
    with PamTransaction([line], user, answers) as pam:
        return pam.authenticate()


class Program:
    """Any server of other people that runs until the test is over, and writes to a file of its own."""

    def __init__(self, command: Sequence[str | Path], log: Path, ready: Callable[[], object], *, what: str) -> None:
        self.log_path = log
        with log.open("ab") as output:
            self._program = start(command, stdout=output, stderr=output)
        try:
            wait_until(lambda: ready() or self._program.poll() is not None, f"{what} is ready:\n{self.log()}")
            assert self._program.poll() is None, f"{what} ended: {self.log()}"
        except AssertionError:
            self.close()
            raise

    @property
    def pid(self) -> int:
        return self._program.pid

    def log(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def wait_for_log(self, text: str) -> None:
        wait_until(lambda: text in self.log(), f"{text!r} in:\n{self.log()}")

    def close(self) -> None:
        stop(self._program)
