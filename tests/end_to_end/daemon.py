"""How does a test run a real mfad, give people authenticators, and read codes from them?

Time is real here. A code that was used is refused for the rest of its step, and steps before the last used one too, so a
:class:`Person` hands out codes in rising order: the present step, then the next one, which the window of +-1 accepts already.
That is two logins at once for each person; a test that needs more takes more people. Nobody waits for a step to pass.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyotp
import yaml

from tests.end_to_end.programs import PATIENCE_S, clean_environment, run, start, stop, wait_until

WINDOW = 1
CROWD = "person"
FAR = 12
"""Steps around now whose codes are not taken for wrong ones: more than drift and window reach."""


@dataclass(slots=True)
class Person:
    """Somebody with an authenticator app."""

    name: str
    secret: str
    recovery_key: str = ""
    digits: int = 6
    last_step: int = field(default=-1)
    clock: Callable[[], float] = field(default=time.time, repr=False, compare=False)
    """What the clock of her telephone says, Unix seconds."""

    def step(self) -> int:
        """The time step of now."""
        return int(self.clock()) // 30

    def code_at(self, step: int) -> str:
        return pyotp.HOTP(self.secret, digits=self.digits).at(step)

    def next_code(self) -> str:
        """A code that is good now and that this person has not used."""
        now = self.step()
        step = max(now, self.last_step + 1)
        assert step <= now + WINDOW, f"{self.name} has used every code of the window: take another person"
        self.last_step = step
        return self.code_at(step)

    def wrong_code(self) -> str:
        """A code that is not right now, nor was or will be soon."""
        now = self.step()
        near = {self.code_at(step) for step in range(now - FAR, now + FAR + 1)}
        return next(code for code in (f"{number:0{self.digits}d}" for number in range(123_456, 999_999)) if code not in near)


class Mfad:
    """An installation of mfad in ``directory``: configuration, key, store and daemon. ``prefix`` puts it into a host."""

    def __init__(self, directory: Path, settings: Mapping[str, Any] | None = None, *, prefix: Sequence[str] = ()) -> None:
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        self._unused: list[Person] = []
        self.directory = directory
        self.socket_dir = directory / "run"
        self.prefix = list(prefix)
        self.environment: dict[str, str] = {}
        self.config_path = directory / "mfad.yaml"
        self.log_path = directory / "log"
        self._program: subprocess.Popen[bytes] | None = None
        self._readies = 0
        self.configure(settings or {})

    def configure(self, settings: Mapping[str, Any]) -> None:
        """Write the configuration: the usual one, and ``settings`` over it."""
        usual = {
            "role": "standalone",
            "state_dir": "./state",
            "key_file": "./kek",
            "log_level": "debug",
            "doors": {"pam": {"socket_dir": "./run"}},
            # all tests come from 127.0.0.1, whose failures would add up
            "throttle": {"source_free": 10_000},
            "policy": [],
        }
        self.config_path.write_text(yaml.safe_dump(_merged(usual, settings)))

    def mfactl(self, *words: str, stdin: str = "") -> str:
        """Run mfactl; its standard output."""
        return run(
            [*self.prefix, sys.executable, "-m", "mfactl", "--config", str(self.config_path), *words],
            stdin=stdin,
            env=clean_environment(**self.environment),
        )

    def mfactl_json(self, *words: str, stdin: str = "") -> Any:
        return json.loads(self.mfactl(*words, "--json", stdin=stdin))

    def init(self) -> None:
        self.mfactl("init")

    def copy_from(self, template: Mfad, state_dir: Path | None = None) -> None:
        """Take over key and store of a stopped installation, and the people in it."""
        shutil.copy(template.directory / "kek", self.directory / "kek")
        target = state_dir or self.directory / "state"
        target.mkdir(mode=0o700, exist_ok=True)
        for path in (template.directory / "state").iterdir():
            shutil.copy(path, target)
        self._unused = [replace(person) for person in template._unused]

    def person(self, name: str | None = None) -> Person:
        """Somebody enrolled here whom no test has used: this one, or anyone of the crowd."""
        index = next(i for i, one in enumerate(self._unused) if (one.name == name if name else one.name.startswith(CROWD)))
        return self._unused.pop(index)

    def enrol(self, name: str) -> Person:
        """Provision one user as a program would: ``mfactl enrol --no-confirm --json``."""
        answer = self.mfactl_json("enrol", name, "--no-confirm")
        return Person(name, answer["secret"], answer["recovery_key"])

    def import_people(self, names: Mapping[str, int]) -> None:
        """Many at once, by ``mfactl import csv``: one start of Python instead of one each. ``names`` with their digits."""
        self.mfactl("import", "csv", "-", stdin=self.new_people(names))

    def new_people(self, names: Mapping[str, int], groups: Mapping[str, Sequence[str]] | None = None) -> str:
        """The text of an import that makes them, with the user groups of those who have some."""
        people = [Person(name, base64.b32encode(os.urandom(20)).decode(), digits=digits) for name, digits in names.items()]
        self._unused += people
        of = groups or {}
        rows = [f"{one.name},{one.secret},{one.digits},{' '.join(of.get(one.name, ()))}" for one in people]
        return "\n".join(["user,secret,digits,groups", *rows, ""])

    @property
    def running(self) -> bool:
        return self._program is not None and self._program.poll() is None

    def start(self, **environment: str) -> None:
        """Run mfad until it says that it is ready."""
        self.launch(**environment)
        self.wait_until_ready()

    def launch(self, **environment: str) -> None:
        """Run mfad. From the main thread: a program that outlives the thread which started it is killed."""
        self._readies = self.log().count("mfad: ready")
        with self.log_path.open("ab") as log:
            self._program = start(
                [*self.prefix, sys.executable, "-m", "mfad", "--config", str(self.config_path)],
                stderr=log,
                env=clean_environment(**self.environment, **environment),
            )

    def wait_until_ready(self) -> None:
        """Until it says so."""
        wait_until(
            lambda: self.log().count("mfad: ready") > self._readies or not self.running,
            lambda: f"mfad is ready:\n{self.log()}",
            patience_s=3 * PATIENCE_S,
        )
        assert self.running, f"mfad ended: {self.log()}"

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        assert self._program is not None
        return stop(self._program)

    def kill(self) -> None:
        """What the kernel does to it when memory runs out."""
        assert self._program is not None
        stop(self._program, signal.SIGKILL)

    def close(self) -> None:
        if self._program is not None:
            stop(self._program)

    def log(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def signal_reload(self) -> None:
        """SIGHUP."""
        assert self._program is not None
        self._program.send_signal(signal.SIGHUP)

    def reload(self) -> None:
        """SIGHUP, until the log says that it was taken."""
        before = self.log().count("configuration reloaded")
        self.signal_reload()
        wait_until(lambda: self.log().count("configuration reloaded") > before, lambda: f"reload:\n{self.log()}")

    def connections(self) -> int:
        """Sockets that the daemon has open."""
        assert self._program is not None
        return sum(_is_socket(fd) for fd in Path(f"/proc/{self._program.pid}/fd").iterdir())

    def failures(self, name: str) -> int:
        """Consecutive failures that stand against a user."""
        return int(self.mfactl_json("user", "show", name)["failures"])


def _is_socket(descriptor: Path) -> bool:
    """Whether an entry of /proc/PID/fd is a socket; one that was closed since the listing is not."""
    try:
        return os.readlink(descriptor).startswith("socket:")
    except FileNotFoundError:
        return False


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    out = dict(base)
    for key, value in over.items():
        out[key] = _merged(out[key], value) if isinstance(value, dict) and isinstance(out.get(key), dict) else value
    return out
