"""How do tests get a PostgreSQL of their own, that they may kill?

A real cluster from Debian's binaries, run as the user ``postgres`` in a directory of its own, on a socket there and on a free
port of 127.0.0.1. It is stopped by process id, and dies with the process that started it.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from mfa_runtime.store.place import StorePlace
from tests.end_to_end.programs import must_be_root, must_have, run, start, wait_until

BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
"""Debian's, the newest last."""
USER = "postgres"
OWNER = "mfad"
SETTINGS = {
    "fsync": "on",
    "max_connections": "100",
    "shared_buffers": "32MB",
    "log_min_messages": "warning",
    "log_line_prefix": "'%m %a[%p] '",
    "autovacuum_naptime": "10s",
}


def must_have_postgresql() -> None:
    """Skip the test without Debian's PostgreSQL; in CI that is a failure."""
    must_be_root()
    must_have(str(BINARIES[-1] / "postgres") if BINARIES else "/usr/lib/postgresql/15/bin/postgres", "setpriv")


class Cluster:
    """One server. ``port`` and ``directory`` stay the same over restarts."""

    def __init__(self, **settings: str) -> None:
        must_have_postgresql()
        self.directory = Path(tempfile.mkdtemp(prefix="mfad-pg-"))
        owner = pwd.getpwnam(USER)
        os.chown(self.directory, owner.pw_uid, owner.pw_gid)
        self.directory.chmod(0o755)
        self.port = _free_port()
        self._numbers = itertools.count(1)
        self._server: subprocess.Popen[bytes] | None = None
        data = self.directory / "data"
        run([*_AS_POSTGRES, BINARIES[-1] / "initdb", "-D", data, "-A", "trust", "-E", "UTF8", "--locale=C", "-U", USER])
        lines = [f"{name} = {value}\n" for name, value in (SETTINGS | settings).items()]
        lines += [
            f"port = {self.port}\n",
            "listen_addresses = '127.0.0.1'\n",
            f"unix_socket_directories = '{self.directory}'\n",
        ]
        with (data / "postgresql.conf").open("a") as file:
            file.writelines(lines)

    def start(self) -> None:
        """Start the server, also after a kill, and wait until it answers."""
        with (self.directory / "log").open("ab") as log:
            # What a killed server left in shared memory may take it a moment to let go of.
            for _ in range(5):
                self._server = start([*_AS_POSTGRES, BINARIES[-1] / "postgres", "-D", self.directory / "data"], stderr=log)
                wait_until(lambda: self.answers() or not self._runs(), "PostgreSQL answers")
                if self._runs():
                    return
                time.sleep(0.2)
        raise AssertionError((self.directory / "log").read_text()[-2000:])

    def _runs(self) -> bool:
        return self._server is not None and self._server.poll() is None

    def answers(self) -> bool:
        """Whether somebody can connect."""
        try:
            self.admin("postgres").close()
        except psycopg.OperationalError:
            return False
        return True

    def kill(self) -> None:
        """SIGKILL to the server and every process of it, as if the machine had lost power."""
        if self._server is None:
            return
        # setpriv has become the server itself.
        children = Path(f"/proc/{self._server.pid}/task/{self._server.pid}/children")
        pids = [self._server.pid, *map(int, children.read_text().split())]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._server.wait()
        wait_until(lambda: not any(_lives(pid) for pid in pids[1:]), "the server's processes are gone")

    def stand_still(self) -> None:
        """SIGSTOP to every process: connections stay, and nobody answers."""
        self._signal_all(signal.SIGSTOP)

    def go_on(self) -> None:
        """SIGCONT."""
        self._signal_all(signal.SIGCONT)

    def _signal_all(self, number: int) -> None:
        assert self._server is not None
        children = Path(f"/proc/{self._server.pid}/task/{self._server.pid}/children").read_text().split()
        for pid in (self._server.pid, *map(int, children)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def stop(self) -> None:
        """A fast shutdown: connections are ended, everything is written."""
        if self._runs():
            assert self._server is not None
            self._server.send_signal(signal.SIGINT)
            self._server.wait(30)

    def close(self) -> None:
        """Stop, and leave nothing behind."""
        self.stop()
        shutil.rmtree(self.directory)

    def admin(self, database: str) -> psycopg.Connection[Any]:
        """A connection of the server's own administrator."""
        return psycopg.connect(
            host=str(self.directory), port=self.port, user=USER, dbname=database, autocommit=True, connect_timeout=10
        )

    def create(self, *, template: str = "template0") -> str:
        """A new database of the user ``mfad``; its name."""
        name = f"mfad{next(self._numbers)}"
        with self.admin("postgres") as admin:
            if not admin.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (OWNER,)).fetchone():
                admin.execute(f"CREATE ROLE {OWNER} LOGIN")
            admin.execute(f"CREATE DATABASE {name} OWNER {OWNER} TEMPLATE {template} ENCODING 'UTF8'")
        return name

    def drop(self, name: str) -> None:
        """Remove a database, whoever is connected."""
        with self.admin("postgres") as admin:
            admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def url(self, database: str, *, tcp: bool = False) -> str:
        """What stands in store.url."""
        if tcp:
            return f"postgresql://{OWNER}@127.0.0.1:{self.port}/{database}"
        return f"postgresql://{OWNER}@/{database}?host={self.directory}&port={self.port}"

    def place(self, state_dir: Path, database: str) -> StorePlace:
        """As the configuration would say it."""
        return StorePlace(state_dir, self.url(database))


_AS_POSTGRES = ("setpriv", f"--reuid={USER}", f"--regid={USER}", "--init-groups", "--pdeathsig=KILL")


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def cluster(**settings: str) -> Iterator[Cluster]:
    """A running server, gone afterwards."""
    one = Cluster(**settings)
    try:
        one.start()
        yield one
    finally:
        one.close()
