"""How does a test run a real mfad with an LDAP door in front of a directory, and come to it as any application?

All of 127.0.0.0/8 is this host: applications that differ in their settings differ in their loopback address, or in the
listener that they use.
"""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.end_to_end.daemon import CROWD, FAR, Mfad, Person
from tests.end_to_end.ldap_directory import (
    ADMIN,
    EXEMPT_GROUP,
    SERVICE,
    SERVICES,
    WITH_CODE_SHAPE,
    crowd,
    directory,
    password_of,
)
from tests.end_to_end.ldap_relay import Relay
from tests.end_to_end.ldap_wire import Client
from tests.end_to_end.programs import must_have, wait_until
from tests.end_to_end.radius_programs import free_port
from tests.end_to_end.slapd import PROGRAMS, SERVICE_DN, SERVICE_PASSWORD, Slapd

POLICY = [{"id": "no-code", "when": {"user": [WITH_CODE_SHAPE]}, "exempt": True}]


@dataclass(slots=True)
class LdapDoor:
    """An LDAP door to be started: ``door`` as in the configuration, ``upstream`` URLs of the directory.

    ``listen`` are patterns with ``{plain}`` and ``{tls}`` for the ports, ``{socket}`` for a path. ``more`` are other sections.
    """

    directory: Path
    upstream: Sequence[str]
    door: Mapping[str, Any] = field(default_factory=dict)
    more: Mapping[str, Any] = field(default_factory=dict)
    listen: Sequence[str] = ("ldap://127.0.0.1:{plain}",)
    ports: Mapping[str, int] = field(default_factory=dict)
    mfad: Mfad = field(init=False)
    lookup_password: Path = field(init=False)

    def __post_init__(self) -> None:
        if not self.ports:
            self.ports = {name: free_port(kind=socket.SOCK_STREAM) for name in ("plain", "tls", "other", "metrics")}
        self.directory.mkdir(exist_ok=True)
        self.lookup_password = self.directory / "lookup.password"
        self.lookup_password.touch(0o600)
        self.lookup_password.write_text(SERVICE_PASSWORD + "\n")
        self.mfad = Mfad(self.directory, self.settings())

    def settings(self) -> dict[str, Any]:
        """The configuration."""
        usual = {
            "listen": [one.format(**self.ports, socket=self.socket_path) for one in self.listen],
            "upstream": list(self.upstream),
            "lookup": {"bind_dn": SERVICE_DN, "bind_password_file": str(self.lookup_password)},
            "bind_log": str(self.log_path),
        }
        metrics = {"listen": f"127.0.0.1:{self.ports['metrics']}"}
        return {"policy": POLICY, "metrics": metrics, **self.more, "doors": {"ldap": {**usual, **self.door}}}

    def change(self, **door: Any) -> None:
        """Other settings of the door, and a reload."""
        self.door = {**self.door, **door}
        self.mfad.configure(self.settings())
        self.mfad.reload()

    @property
    def socket_path(self) -> Path:
        return self.directory / "ldapi"

    @property
    def url(self) -> str:
        return f"ldap://127.0.0.1:{self.ports['plain']}"

    @property
    def tls_url(self) -> str:
        """By address: libldap asks for this machine's own name where it reads ``localhost``."""
        return f"ldaps://127.0.0.1:{self.ports['tls']}"

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", self.ports["plain"]

    def client(self, source: str = "", *, port: str = "plain") -> Client:
        """A connection of an application at ``source``."""
        return Client(("127.0.0.1", self.ports[port]), source=source)

    def person(self, name: str | None = None) -> Person:
        """Somebody enrolled whom no test has used."""
        return self.mfad.person(name)

    # what it tells

    @property
    def log_path(self) -> Path:
        return self.directory / "bind.log"

    def logged(self, **fields: object) -> list[dict[str, Any]]:
        """The lines of the bind log that have these fields."""
        lines = self.log_path.read_text().splitlines() if self.log_path.exists() else []
        # the last one may be half written
        found = [json.loads(line) for line in lines if line.endswith("}")]
        return [one for one in found if fields.items() <= one.items()]

    def wait_for_bind(self, **fields: object) -> dict[str, Any]:
        """Until the bind log has one line with these fields; the last such line."""
        wait_until(lambda: self.logged(**fields), f"{fields} in the bind log")
        return self.logged(**fields)[-1]

    def metrics(self) -> str:
        """What Prometheus would read."""
        connection = http.client.HTTPConnection("127.0.0.1", self.ports["metrics"], timeout=20)
        try:
            connection.request("GET", "/metrics")
            return connection.getresponse().read().decode()
        finally:
            connection.close()

    def resident_kib(self) -> int:
        """Memory of the daemon."""
        program = self.mfad._program
        assert program is not None
        status = Path(f"/proc/{program.pid}/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])


def full(person: Person, *, separator: str = ",") -> str:
    """What somebody of the directory types: password and a code that is good now."""
    return f"{password_of(person.name)}{separator}{person.next_code()}"


def wrong_guesses(person: Person, count: int) -> list[str]:
    """The right password with different wrong codes: the same one again would be the same guess."""
    first, now = int(person.wrong_code()), int(time.time()) // 30
    near = {person.code_at(step) for step in range(now - FAR, now + FAR + 1)}
    codes = (f"{(first + 7919 * number) % 1_000_000:06}" for number in range(2 * count))
    return [f"{password_of(person.name)},{code}" for code in codes if code not in near][:count]


@contextmanager
def ldap_door(template: Mfad, directory: Path, upstream: Sequence[str], *, people: int = 40, **more: Any) -> Iterator[LdapDoor]:
    """A copy of ``template`` that runs with an LDAP door; stopped afterwards. See :class:`LdapDoor` for ``more``.

    ``people`` of the directory are enrolled, and those with names of their own.
    """
    one = LdapDoor(directory, upstream, **more)
    one.mfad.copy_from(template)
    # others of the template are in no directory
    one.mfad._unused = [person for person in one.mfad._unused if person.name == "eight"]
    names = [name for name in crowd() if name.startswith(CROWD)][:people]
    try:
        one.mfad.import_people({**dict.fromkeys([*names, "commas", "expired"], 6), "seven": 7})
        one.mfad.start()
        yield one
    finally:
        one.mfad.close()


EXEMPT = {"dn": [SERVICE, ADMIN], "subtree": SERVICES, "group": EXEMPT_GROUP}
"""What most tests have under ``exempt``."""


@dataclass(frozen=True, slots=True)
class Setting:
    """A directory, a relay in front of it that keeps what crosses, and a door in front of that."""

    directory: Slapd
    relay: Relay
    door: LdapDoor

    @property
    def straight(self) -> tuple[str, int]:
        """Where the directory itself is."""
        return "127.0.0.1", self.directory.port


@contextmanager
def ldap_setting(template: Mfad, place: Path, *, slapd: str = "", **more: Any) -> Iterator[Setting]:
    """All three, and :data:`EXEMPT`; stopped afterwards. ``slapd`` are lines of its own, ``more`` is for :func:`ldap_door`."""
    must_have(*PROGRAMS)
    with ExitStack() as life:
        served = directory(place / "slapd", more=slapd).start()
        life.callback(served.stop)
        relay = Relay(("127.0.0.1", served.port))
        life.callback(relay.close)
        settings = {"exempt": EXEMPT, **more.pop("door", {})}
        door = life.enter_context(ldap_door(template, place / "door", [relay.url], door=settings, **more))
        yield Setting(served, relay, door)
