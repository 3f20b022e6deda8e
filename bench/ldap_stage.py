"""What a measurement of the LDAP door stands on: books of requests, slapd with people in it, its peers, mfad, the generator.
Nothing is measured here.

The peers relay to the same slapd as mfad does: back-ldap, which is slapd itself as a proxy, and lloadd where it can be built.
Neither checks a second factor. Requests are built here, before the clock runs, and played by a program in C (ldap_load.c).
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.processes import free_port, need, processor_s, stop
from bench.stage import BOUND, ROOT, Stage, daemon, name_of
from mfa_core import oath

DIRECT, BACK_LDAP, LLOADD, OURS = "slapd", "slapd back-ldap", "lloadd", "mfad"
CONNECTIONS = 16
BRANCH_ENTRIES = 1000
BASE = "dc=example,dc=org"
PEOPLE, BRANCH = f"ou=people,{BASE}", f"ou=branch,{BASE}"
SERVICE_DN, SERVICE_PASSWORD = f"cn=service,{BASE}", "the password of the application"
_ROOT_DN, _ROOT_PASSWORD = f"cn=admin,{BASE}", "the password of the balancer"
_WINDOW = 1
"""Steps to both sides in which mfad takes a code, so that one user may bind three times at a time."""
_MARGIN_S = 12.0
"""A code of the step before is given out when the present one lasts so long yet."""

# Requests


def _tlv(tag: int, *parts: bytes) -> bytes:
    content = b"".join(parts)
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(octets))) + octets + content


def _message(operation: bytes) -> bytes:
    # The id is filled in by the generator.
    return _tlv(0x30, b"\x02\x02\x01\x00", operation)


def bind(name: str, password: str) -> bytes:
    """A simple bind."""
    return _message(_tlv(0x60, b"\x02\x01\x03", _tlv(0x04, name.encode()), _tlv(0x80, password.encode())))


def search(base: str, *, scope: int, attribute: str, value: str) -> bytes:
    """A search for entries with a value, all attributes. ``scope``: 0 base, 1 one level, 2 subtree."""
    head = _tlv(0x04, base.encode()) + bytes((0x0A, 1, scope, 0x0A, 1, 0, 2, 1, 0, 2, 1, 0, 1, 1, 0))
    wanted = _tlv(0xA3, _tlv(0x04, attribute.encode()), _tlv(0x04, value.encode()))
    return _message(_tlv(0x63, head, wanted, _tlv(0x30)))


def unbind() -> bytes:
    """The end of a connection."""
    return _message(b"\x42\x00")


def service_bind() -> bytes:
    """What an application does first."""
    return bind(SERVICE_DN, SERVICE_PASSWORD)


def find(name: str) -> bytes:
    """How an application finds out who somebody is."""
    return search(PEOPLE, scope=2, attribute="uid", value=name)


def list_branch() -> bytes:
    """A search with :data:`BRANCH_ENTRIES` answers."""
    return search(BRANCH, scope=1, attribute="objectClass", value="inetOrgPerson")


def whole_login(who: Login) -> list[bytes]:
    """What an application does to let somebody in, on a connection of its own."""
    return [service_bind(), find(who.name), bind(who.dn, who.password), unbind()]


def write_book(path: Path, exchanges: Iterable[Sequence[bytes]]) -> Path:
    """A file of exchanges for ldap_load."""
    with path.open("wb") as out:
        for requests in exchanges:
            out.write(struct.pack(">H", len(requests)))
            for request in requests:
                out.write(struct.pack(">H", len(request)) + request)
    return path


# People


@dataclass(frozen=True, slots=True)
class Login:
    """What one person types into an application: the password as the server wants it, with or without a code."""

    name: str
    password: str

    @property
    def dn(self) -> str:
        """As the directory names him."""
        return f"uid={self.name},{PEOPLE}"


def password_of(number: int) -> str:
    """The password of user ``number`` in the directory."""
    return f"a password {number:06d}"


class Passwords:
    """Hands out the users of the directory with their passwords, which are good for ever."""

    def __init__(self, count: int) -> None:
        self._count, self._next = count, 0

    def take(self, count: int) -> list[Login]:
        """The next ``count`` users."""
        numbers = [(self._next + i) % self._count for i in range(count)]
        self._next += count
        return [Login(name_of(n), password_of(n)) for n in numbers]


class Codes:
    """Hands out users with password and code: another user each time, and no code twice.

    A user's codes are taken in the order of their steps, so that each is unspent.
    """

    def __init__(self, here: Stage, count: int) -> None:
        self._here, self._count, self._next = here, count, 0
        self._last_step = [0] * count

    def take(self, count: int) -> list[Login]:
        """The next ``count`` users; their codes hold for :data:`_MARGIN_S` at least."""
        if count > self._count:
            raise SystemExit(f"{count} logins of different users need as many users, there are {self._count}")
        numbers = [(self._next + i) % self._count for i in range(count)]
        self._next += count
        latest = max(self._last_step[n] for n in numbers)
        while latest + 1 > self._present() + _WINDOW:
            time.sleep(0.2)
        now = time.time()
        early = 30 - now % 30 >= _MARGIN_S
        first = self._present() - (_WINDOW if early else _WINDOW - 1)
        logins = []
        for n in numbers:
            step = max(first, self._last_step[n] + 1)
            self._last_step[n] = step
            logins.append(Login(name_of(n), f"{password_of(n)},{self._here.code(name_of(n), now=step * 30)}"))
        return logins

    @staticmethod
    def _present() -> int:
        return oath.step_at(time.time(), 30)


# Servers


@dataclass(frozen=True, slots=True)
class Server:
    """An LDAP server under measurement. ``pids`` are the roots of the process trees whose time is counted: its own, and not of
    what stands behind it."""

    label: str
    pids: tuple[int, ...]
    port: int
    people: Passwords | Codes
    tls_port: int = 0

    def cpu_s(self) -> float:
        """Processor seconds used so far."""
        return sum(processor_s(pid) for pid in self.pids)


_SLAPD = """
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
pidfile {folder}/pid
argsfile {folder}/args
loglevel 0
sizelimit unlimited
{tls}
database mdb
suffix "{base}"
rootdn "{root_dn}"
rootpw "{root_password}"
directory {folder}/database
maxsize 4294967296
index objectClass,uid eq
access to attrs=userPassword by anonymous auth by * none
access to * by users read by anonymous search
"""
_BACK_LDAP = """
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_ldap
pidfile {folder}/pid
argsfile {folder}/args
loglevel 0
sizelimit unlimited
database ldap
suffix "{base}"
uri ldap://127.0.0.1:{port}
rebind-as-user yes
chase-referrals no
"""
_LLOADD = """
pidfile {folder}/pid
argsfile {folder}/args
feature proxyauthz
bindconf bindmethod=simple binddn="{root_dn}" credentials="{root_password}"
backend-server uri=ldap://127.0.0.1:{port} numconns=16 bindconns={binds}
"""
_BIND_CONNECTIONS = 80
"""More than ever bind at a time: lloadd refuses what finds no free one."""
_HEAD = """dn: {base}
objectClass: dcObject
objectClass: organization
o: example

dn: {people}
objectClass: organizationalUnit

dn: {branch}
objectClass: organizationalUnit

dn: {service}
objectClass: organizationalRole
objectClass: simpleSecurityObject
userPassword: {password}

"""


def _hashed(password: str) -> str:
    salt = os.urandom(8)
    digest = hashlib.sha1(password.encode() + salt, usedforsecurity=False).digest()
    return base64.b64encode(b"{SSHA}" + base64.b64encode(digest + salt)).decode()


def _person(name: str, number: int, parent: str, password: str) -> str:
    return (
        f"dn: uid={name},{parent}\nobjectClass: inetOrgPerson\nuid: {name}\ncn: Somebody {number}\nsn: Number {number}\n"
        f"givenName: Somebody\nmail: {name}@example.org\ntelephoneNumber: +49 30 {number:07d}\nemployeeNumber: {number}\n"
        f"userPassword:: {_hashed(password)}\n\n"
    )


@contextlib.contextmanager
def slapd(folder: Path, *, users: int, tls: Certificate | None = None) -> Iterator[Server]:
    """OpenLDAP's slapd with mdb: so many people with salted passwords, a branch, a service account. Nothing is logged."""
    need("slapd", "slapd")
    (folder / "database").mkdir(parents=True, mode=0o700)
    files = f"TLSCertificateFile {tls.certificate}\nTLSCertificateKeyFile {tls.key}" if tls else ""
    configuration = _write(
        folder / "slapd.conf",
        _SLAPD.format(folder=folder, base=BASE, tls=files, root_dn=_ROOT_DN, root_password=_ROOT_PASSWORD),
    )
    with (folder / "people.ldif").open("w") as out:
        service = SERVICE_PASSWORD
        out.write(_HEAD.format(base=BASE, people=PEOPLE, branch=BRANCH, service=SERVICE_DN, password=service))
        for number in range(users):
            out.write(_person(name_of(number), number, PEOPLE, password_of(number)))
        for number in range(BRANCH_ENTRIES):
            out.write(_person(f"branch{number}", number, BRANCH, ""))
    loading = [need("slapadd", "slapd"), "-q", "-f", str(configuration), "-l", str(folder / "people.ldif")]
    subprocess.run(loading, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    (folder / "people.ldif").unlink()
    port, tls_port = free_port(), free_port() if tls else 0
    urls = f"ldap://127.0.0.1:{port}/" + (f" ldaps://127.0.0.1:{tls_port}/" if tls else "")
    with _running([need("slapd", "slapd"), "-d", "0", "-f", str(configuration), "-h", urls], folder, port) as pid:
        yield Server(DIRECT, (pid,), port, Passwords(users), tls_port)


@contextlib.contextmanager
def back_ldap(folder: Path, behind: Server, *, users: int) -> Iterator[Server]:
    """slapd as a proxy: back-ldap, with the identity of each client also upstream."""
    folder.mkdir(mode=0o700)
    configuration = _write(folder / "slapd.conf", _BACK_LDAP.format(folder=folder, base=BASE, port=behind.port))
    port = free_port()
    command = [need("slapd", "slapd"), "-d", "0", "-f", str(configuration), "-h", f"ldap://127.0.0.1:{port}/"]
    with _running(command, folder, port) as pid:
        yield Server(BACK_LDAP, (pid,), port, Passwords(users))


@contextlib.contextmanager
def lloadd(folder: Path, behind: Server, *, users: int) -> Iterator[Server]:
    """OpenLDAP's load balancer, which puts the client's identity into a control of every operation."""
    folder.mkdir(mode=0o700)
    port = free_port()
    text = _LLOADD.format(
        folder=folder, port=behind.port, root_dn=_ROOT_DN, root_password=_ROOT_PASSWORD, binds=_BIND_CONNECTIONS
    )
    configuration = _write(folder / "lloadd.conf", text)
    command = [str(lloadd_program()), "-d", "0", "-f", str(configuration), "-h", f"ldap://127.0.0.1:{port}/"]
    with _running(command, folder, port) as pid:
        time.sleep(1)  # until its own connections stand: before, it answers "busy"
        yield Server(LLOADD, (pid,), port, Passwords(users))


def lloadd_program() -> Path | None:
    """Where lloadd is, built from Debian's source when it is not there yet; None, having said why, when it cannot be."""
    folder = ROOT / "build" / "lloadd"
    if not (folder / "lloadd").exists():
        print("building lloadd from Debian's source, about a minute", file=sys.stderr)
        command = [str(ROOT / "bench" / "build_lloadd.sh"), str(folder)]
        built = subprocess.run(command, check=False, stderr=subprocess.PIPE, text=True)
        if built.returncode:
            print(f"lloadd cannot be built, slapd's back-ldap alone is the peer: {built.stderr.strip()[-300:]}")
            return None
    return folder / "lloadd"


@contextlib.contextmanager
def answers(folder: Path) -> Iterator[Server]:
    """A directory that costs next to nothing: ldap_answers.c."""
    folder.mkdir(mode=0o700)
    program = _compiled(folder, "ldap_answers")
    port = free_port()
    with _running([str(program), str(port)], folder, port) as pid:
        yield Server("a directory that answers at once", (pid,), port, Passwords(1))


@contextlib.contextmanager
def _running(command: Sequence[str], folder: Path, port: int) -> Iterator[int]:
    """A server that is there when its port takes connections, and stopped by its pid."""
    with (folder / "output").open("w") as output:
        process = subprocess.Popen([*BOUND, *command], stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        for _ in range(300):
            if process.poll() is not None:
                raise SystemExit(f"{command[0]} ended: {(folder / 'output').read_text()[-2000:]}")
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        else:
            raise SystemExit(f"{command[0]} does not listen on port {port}")
        yield process.pid
    finally:
        stop(process)


def _write(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o600)
    return path


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate of one's own for 127.0.0.1, and its key."""

    certificate: Path
    key: Path

    @classmethod
    def make(cls, folder: Path) -> Certificate:
        """In two files of ``folder``, on P-256."""
        made = cls(folder / "server.pem", folder / "server.key")
        words = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
        words += ["-subj", "/CN=localhost"]
        names = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(made.key), "-out", str(made.certificate)]
        subprocess.run([need("openssl", "openssl"), *words, *names], check=True, stderr=subprocess.DEVNULL)
        return made


@contextlib.contextmanager
def mfad_ldap(
    here: Stage,
    behind: Server,
    *,
    users: int,
    label: str = OURS,
    tls: Certificate | None = None,
    more: str = "",
    cpus: Sequence[int] = (),
    identity_cache: str = "1h",
) -> Iterator[Server]:
    """mfad with the LDAP door in front of a directory: the application is exempt, everybody else gives a code. Bind log, audit
    log and metrics are on, and who a DN is stays known for the whole run. ``more`` are keys of the door in YAML's flow form."""
    port, tls_port = free_port(), free_port() if tls else 0
    listen = [f"ldap://127.0.0.1:{port}", *([f"ldaps://127.0.0.1:{tls_port}"] if tls else [])]
    keys = [
        f"listen: [{', '.join(repr(address) for address in listen)}]",
        f"upstream: ['ldap://127.0.0.1:{behind.port}']",
        f"exempt: {{dn: ['{SERVICE_DN}']}}",
        f"bind_log: '{here.folder / 'binds.log'}'",
        f"identity_cache: {identity_cache}, lookup: {{cache_entries: {2 * max(users, 10_000)}}}",
        "limits: {connections: 8192, connections_per_source: 8192}",
    ]
    if tls:
        keys.append(f"tls: {{certificate_file: '{tls.certificate}', key_file: '{tls.key}'}}")
    doors = f"{{ldap: {{{', '.join([*keys, *filter(None, [more])])}}}}}"
    metrics = f"{{listen: '127.0.0.1:{free_port()}'}}"
    with daemon(here, doors=doors, metrics=metrics, cpus=cpus) as running:
        yield Server(label, (running.pid,), port, Codes(here, users), tls_port)


# The generator


@dataclass(frozen=True, slots=True)
class Run:
    """What the generator saw, and what servers spent meanwhile. Milliseconds, seconds, shares from 0 to 1."""

    exchanges: int
    good: int
    broken: int
    entries: int
    octets: int
    results: dict[str, int]
    seconds: float
    cpu_share: float
    cipher: str
    p50_ms: float
    p99_ms: float
    max_ms: float
    server_cpu_s: float = field(default=0.0)

    @property
    def rate(self) -> float:
        """Exchanges a second."""
        return self.exchanges / self.seconds

    @property
    def entries_rate(self) -> float:
        """Entries a second."""
        return self.entries / self.seconds

    @property
    def cpu_us(self) -> float:
        """Processor time of the server for each exchange, microseconds."""
        return self.server_cpu_s / self.exchanges * 1e6

    @property
    def entry_us(self) -> float:
        """Processor time of the server for each entry, microseconds."""
        return self.server_cpu_s / self.entries * 1e6


class Generator:
    """ldap_load, built for this run."""

    def __init__(self, folder: Path) -> None:
        self.program = _compiled(folder, "ldap_load", "-lssl", "-lcrypto")

    def run(self, server: Server, book: Path, mode: str = "keep", *, tls: bool = False, **options: str | float | Path) -> Run:
        """Play a book to a server. Options are those of ldap_load, with underscores."""
        options = {"connections": CONNECTIONS, **options}
        words = [f"--to=127.0.0.1:{server.tls_port if tls else server.port}", f"--book={book}", f"--mode={mode}"]
        words += [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
        words += ["--tls"] if tls else []
        before = server.cpu_s()
        said = subprocess.run([str(self.program), *words], check=True, stdout=subprocess.PIPE, text=True).stdout
        time.sleep(0.1)  # what the server does after its last answer belongs to the run
        return Run(**json.loads(said), server_cpu_s=server.cpu_s() - before)


def _compiled(folder: Path, name: str, *libraries: str) -> Path:
    """Compile a program of this folder into another; its path."""
    warnings = ["-Wall", "-Wextra", "-Wconversion", "-Wno-sign-conversion", "-Wshadow", "-Werror"]
    source = ROOT / "bench" / f"{name}.c"
    subprocess.run(["cc", "-std=c11", "-O2", *warnings, "-o", str(folder / name), str(source), *libraries], check=True)
    return folder / name


def all_good(run: Run, label: str) -> Run:
    """The run. Ends the program when not everything was answered with success: its figures would be about something else."""
    if run.good != run.exchanges or run.broken or not run.exchanges:
        raise SystemExit(f"{label}: of {run.exchanges} exchanges {run.good} were good, {run.broken} broken: {run}")
    return run
