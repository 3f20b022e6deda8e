"""How does a test run a real mfad with a RADIUS door, and ask it from any client address?

All of 127.0.0.0/8 is this host: clients that differ in their settings differ in their loopback address, and one mfad has many.
"""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.end_to_end.daemon import CROWD, Mfad, Person
from tests.end_to_end.programs import wait_until
from tests.end_to_end.radius_packets import Nas
from tests.end_to_end.radius_programs import free_port

SECRET = "a-secret-of-the-test-long-enough"


@dataclass(slots=True)
class Door:
    """A RADIUS door to be started: ``clients`` and ``door`` as in the configuration, secrets as text beside them.

    ``listen`` are patterns with ``{auth}``, ``{acct}`` and ``{tls}`` for the ports.
    """

    directory: Path
    clients: Sequence[Mapping[str, Any]]
    door: Mapping[str, Any] = field(default_factory=dict)
    more: Mapping[str, Any] = field(default_factory=dict)
    listen: Sequence[str] = ("127.0.0.1:{auth}",)
    prefix: Sequence[str] = ()
    ports: Mapping[str, int] = field(default_factory=dict)
    mfad: Mfad = field(init=False)
    secrets: dict[str, str] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        if not self.ports:
            kinds = {"auth": socket.SOCK_DGRAM, "acct": socket.SOCK_DGRAM, "tls": socket.SOCK_STREAM}
            self.ports = {name: free_port(kind=kind) for name, kind in kinds.items()}
        self.directory.mkdir(exist_ok=True)
        self.mfad = Mfad(self.directory, self.settings(), prefix=self.prefix)

    def settings(self) -> dict[str, Any]:
        """The configuration. A client may give its ``secret`` (and ``previous_secret``) as text: it becomes a file."""
        clients: list[dict[str, Any]] = []
        for given in self.clients:
            client = dict(given)
            for key in ("secret", "previous_secret"):
                default = SECRET if key == "secret" and "network" in client else None
                text = client.pop(key, default)
                if text is not None:
                    client[f"{key}_file"] = str(self.write_secret(f"{client['name']}.{key}", text))
            clients.append(client)
        listen = [one.format(**self.ports) for one in self.listen]
        log = {"authentication_log": str(self.log_path)}
        return {**self.more, "doors": {"radius": {"listen": listen, "clients": clients, **log, **self.door}}}

    @property
    def log_path(self) -> Path:
        return self.directory / "authentication.log"

    def logged(self, **fields: object) -> list[dict[str, Any]]:
        """The lines of the authentication log that have these fields."""
        lines = self.log_path.read_text().splitlines() if self.log_path.exists() else []
        # the last one may be half written
        found = [json.loads(line) for line in lines if line.endswith("}")]
        return [one for one in found if fields.items() <= one.items()]

    def write_secret(self, name: str, text: str) -> Path:
        """A file with a secret in it, for its owner alone."""
        path = self.directory / name
        path.touch(0o600)
        path.write_text(text + "\n")
        return path

    def change(self, clients: Sequence[Mapping[str, Any]]) -> None:
        """Other clients, and a reload."""
        self.clients = clients
        self.mfad.configure(self.settings())
        self.mfad.reload()

    def nas(self, source: str = "127.0.0.1", *, secret: str = SECRET, host: str = "127.0.0.1", port: str = "auth") -> Nas:
        """A client at ``source`` that asks ``host``."""
        return Nas((host, self.ports[port]), secret.encode(), source)

    def wait_for_login(self, **fields: object) -> dict[str, Any]:
        """Until the authentication log has one line with these fields, and no second one; that line."""
        wait_until(lambda: self.logged(kind="authentication", **fields), f"{fields} in the authentication log")
        (line,) = self.logged(kind="authentication", **fields)
        return line

    def set_password(self, name: str, password: str) -> None:
        """A password that mfad keeps (``primary: local``)."""
        self.mfad.mfactl("user", "password", name, "--stdin", stdin=f"{password}\n")

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Meanwhile mfad does nothing: what is sent to it waits in the kernel."""
        program = self.mfad._program
        assert program is not None
        program.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            program.send_signal(signal.SIGCONT)

    def queue(self, port: str = "auth") -> int:
        """How much memory the datagrams take that wait at a port: the same for each of one size."""
        program = self.mfad._program
        assert program is not None
        # of the network that mfad is in
        table = Path(f"/proc/{program.pid}/net/udp").read_text().splitlines()[1:]
        return sum(
            int(row.split()[4].split(":")[1], 16) for row in table if row.split()[1].endswith(f":{self.ports[port]:04X}")
        )

    def wait_for_queue(self, *, above: int) -> int:
        """Until more than ``above`` waits at the port for logins; how much that is."""
        wait_until(lambda: self.queue() > above, "a datagram waits")
        return self.queue()

    @property
    def server(self) -> str:
        """As radclient and others take it."""
        return f"127.0.0.1:{self.ports['auth']}"

    def person(self) -> Person:
        """Somebody enrolled whom no test has used."""
        return self.mfad.person()


@contextmanager
def radius_door(
    template: Mfad, directory: Path, clients: Sequence[Mapping[str, Any]], *, people: int = 0, **more: Any
) -> Iterator[Door]:
    """A copy of ``template`` that runs with a RADIUS door; stopped afterwards. See :class:`Door` for ``more``.

    ``people`` are enrolled beside those of the template, for tests that need many.
    """
    one = Door(directory, clients, **more)
    one.mfad.copy_from(template)
    try:
        if people:
            one.mfad.import_people({f"{CROWD}{number}": 6 for number in range(1000, 1000 + people)})
        one.mfad.start()
        yield one
    finally:
        one.mfad.close()
