"""What a measurement of the RADIUS door stands on: books of datagrams, FreeRADIUS as the peer, mfad, the generator. Nothing is
measured here.

The servers share the first processor that this process may use, the generator has the second: on a machine with one, no figure
would mean anything. Packets are built here, before the clock runs, and sent by a program in C (radius_load.c): a generator in
Python would be slower than the servers.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import secrets
import socket
import struct
import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bench.processes import free_port, listed, need, pin_tree, processor_s, stop
from bench.stage import BOUND, ROOT, Stage, daemon, name_of
from mfa_core import oath

PEER, OURS = "FreeRADIUS files+pap", "mfad"
USERS = 65_536
SOCKETS = 8
OUTSTANDING = 8
"""Requests under way at each socket: 64 in all, as many as a busy concentrator has."""
ACCESS_REQUEST, STATUS_SERVER = 1, 12
_USER_NAME, _USER_PASSWORD, _NAS_IP_ADDRESS, _NAS_PORT, _CALLING_STATION_ID, _MESSAGE_AUTHENTICATOR = 1, 2, 4, 5, 31, 80


# Books


@dataclass(frozen=True, slots=True)
class Login:
    """What one person types."""

    name: str
    password: str


def access_request(identifier: int, login: Login, secret: bytes, *, number: int = 0) -> bytes:
    """A PAP request as a NAS sends it: about 110 octets, Message-Authenticator first. ``number`` makes the calling station."""
    authenticator = secrets.token_bytes(16)
    station = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}".encode()
    attributes = (
        _attribute(_USER_NAME, login.name.encode())
        + _attribute(_USER_PASSWORD, _hidden(login.password.encode(), secret, authenticator))
        + _attribute(_NAS_IP_ADDRESS, bytes((127, 0, 0, 1)))
        + _attribute(_NAS_PORT, struct.pack(">I", number & 0xFFFF))
        + _attribute(_CALLING_STATION_ID, station)
    )
    return signed(ACCESS_REQUEST, identifier, authenticator, attributes, secret)


def status_server(identifier: int, secret: bytes) -> bytes:
    """Are you alive? (RFC 5997)"""
    return signed(STATUS_SERVER, identifier, secrets.token_bytes(16), b"", secret)


def signed(code: int, identifier: int, authenticator: bytes, attributes: bytes, secret: bytes) -> bytes:
    """A request with its Message-Authenticator in front (RFC 3579 section 3.2)."""
    size = 20 + 18 + len(attributes)
    head = struct.pack(">BBH16sBB", code, identifier, size, authenticator, _MESSAGE_AUTHENTICATOR, 18)
    return head + hmac.digest(secret, head + bytes(16) + attributes, "md5") + attributes


def _attribute(kind: int, value: bytes) -> bytes:
    return bytes((kind, 2 + len(value))) + value


def _hidden(password: bytes, secret: bytes, authenticator: bytes) -> bytes:
    # RFC 2865 section 5.2
    padded = password + bytes(-len(password) % 16)
    hidden, chain = b"", authenticator
    for start in range(0, len(padded), 16):
        pad = hashlib.md5(secret + chain).digest()
        chain = bytes(a ^ b for a, b in zip(padded[start : start + 16], pad, strict=True))
        hidden += chain
    return hidden


def identifier_of(number: int, sockets: int) -> int:
    """The identifier that record ``number`` must carry: radius_load.c says which socket sends it."""
    return number // sockets % 256


def write_book(path: Path, packets: Iterable[bytes]) -> Path:
    """A file of datagrams for radius_load."""
    path.write_bytes(b"".join(struct.pack(">H", len(packet)) + packet for packet in packets))
    return path


def login_book(path: Path, logins: Sequence[Login], secret: bytes, *, sockets: int = SOCKETS) -> Path:
    """A book of one Access-Request for each login."""
    return write_book(
        path, (access_request(identifier_of(i, sockets), login, secret, number=i) for i, login in enumerate(logins))
    )


class Logins(Protocol):
    """Where logins that a server lets in come from."""

    def take(self, count: int) -> list[Login]:
        """``count`` of them, each by another user."""


class Roster:
    """Hands out users whose code is unspent: each once, and again from the next time step on."""

    def __init__(self, here: Stage, count: int) -> None:
        self._here, self._count = here, count
        self._next, self._last_step = 0, -1

    def take(self, count: int) -> list[Login]:
        """The next ``count`` users with their codes for now, which hold until the end of the next time step."""
        if count > self._count:
            raise SystemExit(f"{count} logins of different users need as many users, there are {self._count}")
        if self._next + count > self._count:
            while oath.step_at(time.time(), 30) <= self._last_step:
                time.sleep(0.2)
            self._next = 0
        numbers = range(self._next, self._next + count)
        self._next += count
        now = time.time()
        self._last_step = oath.step_at(now, 30)
        return [Login(name_of(n), self._here.code(name_of(n), now=now)) for n in numbers]


class PeerRoster:
    """Hands out the users of FreeRADIUS's file, whose passwords are good for ever."""

    def __init__(self, count: int) -> None:
        self._count, self._next = count, 0

    def take(self, count: int) -> list[Login]:
        """The next ``count`` users."""
        numbers = [(self._next + i) % self._count for i in range(count)]
        self._next += count
        return [Login(name_of(n), peer_password(n)) for n in numbers]


# Servers


@dataclass(frozen=True, slots=True)
class Server:
    """A RADIUS server under measurement. ``pids`` are the roots of the process trees whose time is counted; ``logins`` are such
    as it lets in."""

    label: str
    pids: tuple[int, ...]
    port: int
    logins: Logins

    def cpu_s(self) -> float:
        """Processor seconds used so far by all its processes, exact to the nanosecond (/proc counts in hundredths)."""
        return sum(self.cpu_parts_s())

    def cpu_parts_s(self) -> tuple[float, ...]:
        """The same for each of ``pids`` and what it started."""
        return tuple(processor_s(pid) for pid in self.pids)

    def dropped(self) -> int:
        """Datagrams that its socket had no room for."""
        return sum(drops for _, drops in self._udp())

    def waiting(self) -> int:
        """Octets in its sockets that it has not read yet."""
        return sum(queued for queued, _ in self._udp())

    def _udp(self) -> Iterator[tuple[int, int]]:
        for table in ("/proc/net/udp", "/proc/net/udp6"):
            for line in Path(table).read_text().splitlines()[1:]:
                fields = line.split()
                if int(fields[1].rpartition(":")[2], 16) == self.port:
                    yield int(fields[4].partition(":")[2], 16), int(fields[-1])


@dataclass(frozen=True, slots=True)
class Shared:
    """The secret that all clients here have."""

    file: Path
    value: bytes


def new_secret(folder: Path) -> Shared:
    """A shared secret, in a file as servers want it."""
    value = secrets.token_hex(16).encode()
    path = folder / "nas.secret"
    path.write_bytes(value + b"\n")
    path.chmod(0o600)
    return Shared(path, value)


_RADIUSD = """
prefix = /usr
libdir = /usr/lib/freeradius
confdir = {folder}
modconfdir = {folder}/mods-config
certdir = {folder}
cadir = {folder}
logdir = {folder}
run_dir = {folder}
pidfile = {folder}/radiusd.pid
max_request_time = 30
cleanup_delay = 5
max_requests = 16384
hostname_lookups = no
log {{
    destination = files
    file = {folder}/radius.log
    auth = no
}}
security {{
    max_attributes = 200
    reject_delay = 0
    status_server = yes
}}
client nas {{
    ipaddr = 127.0.0.1
    secret = {secret}
    require_message_authenticator = yes
}}
thread pool {{
    start_servers = 5
    max_servers = 32
    min_spare_servers = 3
    max_spare_servers = 10
    max_requests_per_server = 0
    auto_limit_acct = no
}}
modules {{
{modules}
}}
{sites}
"""
"""FreeRADIUS's defaults, but for reject_delay (1 s: it would measure the delay) and a Message-Authenticator asked for."""
_FILES_MODULES = """
    files {{
        filename = {folder}/users
    }}
    pap {{
    }}
"""
_FILES_SITE = """
server default {{
    listen {{
        type = auth
        ipaddr = 127.0.0.1
        port = {port}
    }}
    authorize {{
        files
        pap
    }}
    authenticate {{
        Auth-Type PAP {{
            pap
        }}
    }}
}}
"""


def peer_password(number: int) -> str:
    """The password of user ``number`` in FreeRADIUS's file: as long as a code."""
    return f"{number:06d}"


@contextlib.contextmanager
def freeradius_files(folder: Path, shared: Shared, *, users: int, cpus: Sequence[int]) -> Iterator[Server]:
    """FreeRADIUS with files and pap: the same users, with passwords of their own that never change."""
    folder.mkdir(mode=0o700)
    with (folder / "users").open("w") as out:
        for number in range(users):
            out.write(f'{name_of(number)} Cleartext-Password := "{peer_password(number)}"\n')
    port = free_port()
    with freeradius(
        folder,
        shared,
        modules=_FILES_MODULES.format(folder=folder),
        sites=_FILES_SITE.format(port=port),
        port=port,
        cpus=cpus,
    ) as pid:
        yield Server(PEER, (pid,), port, PeerRoster(users))


@contextlib.contextmanager
def freeradius(
    folder: Path, shared: Shared, *, modules: str, sites: str, port: int, cpus: Sequence[int]
) -> Iterator[int]:
    """FreeRADIUS with a configuration of its own in ``folder``, in the foreground, stopped by its pid."""
    program = need("freeradius", "freeradius")
    (folder / "radiusd.conf").write_text(
        _RADIUSD.format(folder=folder, secret=shared.value.decode(), modules=modules, sites=sites)
    )
    (folder / "dictionary").touch()
    with (folder / "output").open("w") as output:
        process = subprocess.Popen(
            [*BOUND, "taskset", "-c", listed(cpus), program, "-f", "-l", str(folder / "radius.log"), "-d", str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        wait_for_answer(port, shared.value, process, folder / "radius.log")
        yield process.pid
    finally:
        stop(process)


def wait_for_answer(port: int, secret: bytes, process: subprocess.Popen[bytes], log: Path) -> None:
    """Return when a server answers Status-Server. Ends the program with the end of its log when it does not come."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(0.2)
        asking.connect(("127.0.0.1", port))
        for _ in range(150):
            if process.poll() is not None:
                break
            try:
                asking.send(status_server(0, secret))
                asking.recv(4096)
            except OSError:  # not there yet
                time.sleep(0.1)
            else:
                return
    said = log.read_text(errors="replace")[-2000:] if log.exists() else "nothing"
    raise SystemExit(f"the server on port {port} does not answer; it said: {said}")


def pin(server: Server, cpus: Sequence[int]) -> None:
    """Let a server use these processors from now on, and its threads and children as well."""
    for root in server.pids:
        pin_tree(root, cpus)


@contextlib.contextmanager
def mfad_radius(
    here: Stage,
    shared: Shared,
    *,
    users: int,
    cpus: Sequence[int],
    label: str = OURS,
    listen: Sequence[str] = (),
    clients: Sequence[str] = (),
    primary: str = "{type: none}",
    more: str = "",
) -> Iterator[Server]:
    """mfad with the RADIUS door, for one client at 127.0.0.1. ``listen`` and ``clients`` are added to the lists of the door,
    ``more`` to its keys, all in YAML's flow form."""
    port = free_port()
    nas = f"{{name: nas, network: 127.0.0.1/32, secret_file: {shared.file}, mode: auto}}"
    addresses = ", ".join(f"'{address}'" for address in (f"127.0.0.1:{port}", *listen))
    door = f"listen: [{addresses}], clients: [{', '.join((nas, *clients))}], primary: {primary}"
    with daemon(here, doors=f"{{radius: {{{', '.join(filter(None, (door, more)))}}}}}", cpus=cpus) as running:
        yield Server(label, (running.pid,), port, Roster(here, users))


# The generator


@dataclass(frozen=True, slots=True)
class Run:
    """What the generator saw, and what the server spent meanwhile. Milliseconds, seconds, shares from 0 to 1."""

    sent: int
    answered: int
    accept: int
    reject: int
    challenge: int
    accounting: int
    other: int
    signed: int
    bad: int
    stray: int
    lost: int
    retransmits: int
    late: int
    seconds: float
    cpu_share: float
    steady_answered: int
    steady_seconds: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float
    server_parts_s: tuple[float, ...]
    dropped: int

    @property
    def server_cpu_s(self) -> float:
        """Processor time of the server, seconds."""
        return sum(self.server_parts_s)

    @property
    def rate(self) -> float:
        """Answers a second."""
        return self.answered / self.seconds

    @property
    def steady_rate(self) -> float:
        """Answers a second while every socket still had something to ask."""
        return self.steady_answered / self.steady_seconds

    @property
    def taken(self) -> int:
        """Datagrams that the server read: what it had no room for costs it nothing."""
        return self.sent + self.retransmits - self.dropped

    @property
    def cpu_us(self) -> float:
        """Processor time of the server for each datagram that it read, microseconds."""
        return self.server_cpu_s / max(1, self.taken) * 1e6

    @property
    def per_cpu_s(self) -> float:
        """Datagrams that a second of the server's processor time reads."""
        return self.taken / self.server_cpu_s


class Generator:
    """radius_load, built for this run. ``cpu`` is its processor, or None where it takes what the server leaves."""

    def __init__(self, folder: Path, shared: Shared, *, cpu: int | None) -> None:
        self._program = build_generator(folder)
        self._shared, self._cpu = shared, cpu

    def run(self, server: Server, book: Path, mode: str = "closed", **options: str | float) -> Run:
        """Send a book to a server. Options are those of radius_load, with underscores."""
        options = {"sockets": SOCKETS, "outstanding": OUTSTANDING, **options}
        words = [f"--to=127.0.0.1:{server.port}", f"--book={book}", f"--secret-file={self._shared.file}", f"--mode={mode}"]
        words += [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
        if self._cpu is not None:
            words.append(f"--cpu={self._cpu}")
        before, dropped = server.cpu_parts_s(), server.dropped()
        said = subprocess.run([str(self._program), *words], check=True, stdout=subprocess.PIPE, text=True).stdout
        give_up_at = time.monotonic() + 30
        while server.waiting() and time.monotonic() < give_up_at:
            time.sleep(0.01)
        time.sleep(0.05)  # what the server does after its last answer belongs to the run
        parts = tuple(after - earlier for after, earlier in zip(server.cpu_parts_s(), before, strict=True))
        return Run(**json.loads(said), server_parts_s=parts, dropped=server.dropped() - dropped)


def build_generator(folder: Path) -> Path:
    """Compile radius_load into ``folder``; its path."""
    program = folder / "radius_load"
    warnings = ["-Wall", "-Wextra", "-Wconversion", "-Wno-sign-conversion", "-Wshadow", "-Werror"]
    source = ROOT / "bench" / "radius_load.c"
    subprocess.run(["cc", "-std=c11", "-O2", *warnings, "-o", str(program), str(source)], check=True)
    return program


# Figures


def book_size(sockets: int) -> int:
    """The most records whose identifiers differ at each of so many sockets."""
    return 256 * sockets


def all_accepted(run: Run, label: str) -> None:
    """End the program when not every login of a run was let in: its figures would be about something else."""
    if run.accept != run.sent or run.bad:
        raise SystemExit(f"{label}: of {run.sent} logins {run.accept} were accepted: {run}")
