"""What a measurement of authority and agents stands on: an authority over a store with many users, agents that joined it, hosts
that are only simulated, the generator. Nothing is measured here.

An agent is made as an administrator makes it, by mfactl and a token. Simulated hosts are rows in the authority's store and
certificates that its own CA has signed; they share one key, so that ten thousand are made in seconds.
"""

from __future__ import annotations

import base64
import contextlib
import getpass
import http.client
import json
import os
import secrets
import signal
import socket
import sqlite3
import ssl
import struct
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from sqlalchemy import Connection, insert

from authority.certificate_authority import CertificateAuthority, sign_host
from authority.own_keys import OwnKeys, ensure_authority, load_own_keys
from bench.processes import free_port, processor_s
from bench.radius_stage import Roster, Server, Shared
from bench.stage import BOUND, ROOT, Stage
from mfa_core.audit import GENESIS
from mfa_core.secret import Secret
from mfa_runtime.administration import host_groups
from mfa_runtime.administration.act import Act
from mfa_runtime.protocol import sealed, signed
from mfa_runtime.protocol.reporting import JournalHead
from mfa_runtime.protocol.syncing import (
    Cursor,
    SealedEntry,
    SyncAnswer,
    SyncRequest,
    read_entries,
    read_sync_answer,
    rules_digest,
)
from mfa_runtime.protocol.words import SYNC, KeyProtection
from mfa_runtime.store import hosts as host_rows
from mfa_runtime.store.hosts import HostGroup, HostMaterial
from mfa_runtime.store.ids import take
from mfa_runtime.store.schema import hosts, memberships

READY_S = 30.0
GROUP = "bench"
"""The host group of every host here, and the user group that is entitled on it where not everybody is."""
NAME = "localhost"


# Programs


def mfactl(config: Path, *words: str | Path, typed: str = "", prefix: Sequence[str] = ()) -> str:
    """Run mfactl; what it wrote. Ends the program, with what it said, when it refuses."""
    command = [*prefix, sys.executable, "-m", "mfactl", "--config", config, *words]
    done = subprocess.run(command, cwd=ROOT, input=typed, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"mfactl {' '.join(map(str, words))}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


class Station:
    """One mfad with a configuration of its own, in a process that can be frozen, killed and started again.

    ``prefix`` stands before each command (another network namespace, processors).
    """

    def __init__(self, folder: Path, config: str, *, prefix: Sequence[str] = ()) -> None:
        self.folder = folder
        self.config = folder / "mfad.yaml"
        self.config.write_text(config)
        self.prefix = tuple(prefix)
        self._log = folder / "mfad.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of mfad."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> float:
        """Start mfad and wait until it is ready; the seconds that took."""
        with self._log.open("w") as log:  # a pipe that nobody reads would stop it when it is full
            began = time.monotonic()
            command = [*BOUND, *self.prefix, sys.executable, "-m", "mfad", "--config", str(self.config)]
            self._process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stderr=log)
        while "mfad: ready" not in self.log():
            if self._process.poll() is not None or time.monotonic() > began + READY_S:
                raise SystemExit(f"mfad in {self.folder.name} is not ready: {self.log()[-2000:]}")
            time.sleep(0.002)
        return time.monotonic() - began

    def log(self) -> str:
        """What it has said since its start."""
        return self._log.read_text(errors="replace")

    def freeze(self) -> None:
        """It stands still, and its connections stay."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """It goes on."""
        os.kill(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL, by its pid."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """SIGTERM."""
        if self._process is not None and self._process.poll() is None:
            self.thaw()
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                self.kill()

    def cpu_s(self) -> float:
        """Processor seconds used so far."""
        return processor_s(self.pid)

    def resident(self) -> int:
        """Octets that lie in memory."""
        for line in Path(f"/proc/{self.pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Rss:"):
                return int(line.split()[1]) * 1024
        raise RuntimeError("no Rss")

    def mfactl(self, *words: str | Path, typed: str = "") -> str:
        """Run mfactl there."""
        return mfactl(self.config, *words, typed=typed, prefix=self.prefix)


@dataclass(frozen=True, slots=True)
class Authority:
    """An authority over a stage's store."""

    here: Stage
    station: Station
    address: str
    port: int

    @property
    def url(self) -> str:
        """Where agents find it."""
        return f"https://{self.address}:{self.port}"

    def act(self) -> Act:
        """An administrator who changes something."""
        return Act(f"bench:{getpass.getuser()}", time.time(), os.urandom, self.here.keyring())

    def ca(self) -> CertificateAuthority:
        """Who signs for its hosts."""
        return self.keys().ca

    def keys(self) -> OwnKeys:
        """What it signs with."""
        with self.here.store.reading() as connection:
            return load_own_keys(connection, self.here.keyring())


@contextlib.contextmanager
def authority(
    here: Stage, *, address: str = "127.0.0.1", prefix: Sequence[str] = (), more: str = ""
) -> Iterator[Authority]:
    """mfad as the authority over this stage's store. ``more`` are lines of its configuration."""
    port = free_port()
    config = (
        "role: authority\nstate_dir: ./state\nkey_file: ./kek\n"
        f"authority: {{listen: ['{address}:{port}'], certificate_names: [{NAME}, '{address}']}}\n"
        f"doors: {{pam: {{socket_dir: ./run}}}}\n{more}"
    )
    station = Station(here.folder, config, prefix=prefix)
    at = Authority(here, station, address, port)
    ensure_authority(here.store, at.act())
    with contextlib.closing(station):
        station.start()
        yield at


def add_group(
    at: Authority, *, name: str = GROUP, material: HostMaterial = HostMaterial.SEED, users: str = "*", **terms: float
) -> None:
    """A host group on which a group of users (everybody) is entitled."""
    with at.here.store.writing() as connection:
        act = at.act()
        host_groups.add_host_group(connection, act, HostGroup(name, material=material, **terms))  # type: ignore[arg-type]  # of several types
        host_groups.entitle(connection, act, name, users)


def put_into_group(connection: Connection, user_ids: Iterable[int], group: str = GROUP) -> None:
    """Put users into a group by their numbers, before any host has heard of them."""
    connection.execute(insert(memberships), [{"user_id": number, "user_group": group} for number in user_ids])


def join(at: Authority, folder: Path, *, group: str = GROUP, doors: str, prefix: Sequence[str] = ()) -> Station:
    """A host of this group, made in ``folder`` and not started. ``doors`` in YAML's flow form."""
    folder.mkdir(mode=0o755)
    station = Station(folder, f"role: agent\nstate_dir: ./state\nkey_file: ./kek\ndoors: {doors}\n", prefix=prefix)
    station.mfactl("init")
    token = folder / "token"
    token.touch(0o600)
    said = json.loads(at.station.mfactl("agent", "token", group, "--name", folder.name, "--json"))
    token.write_text(said["token"] + "\n")
    station.mfactl("agent", "join", at.url, "--token-file", token, "--name", folder.name)
    return station


@contextlib.contextmanager
def agent_radius(
    at: Authority, folder: Path, shared: Shared, *, users: int, label: str, prefix: Sequence[str] = ()
) -> Iterator[tuple[Station, Server]]:
    """A host of the authority with a RADIUS door, which has synced."""
    port = free_port()
    nas = f"{{name: nas, network: 127.0.0.1/32, secret_file: {shared.file}, mode: auto}}"
    radius = f"{{listen: ['127.0.0.1:{port}'], clients: [{nas}], primary: {{type: none}}}}"
    doors = f"{{pam: {{socket_dir: ./run}}, radius: {radius}}}"
    station = join(at, folder, doors=doors, prefix=prefix)
    with contextlib.closing(station):
        station.start()
        wait_until_synced(station)
        yield station, Server(label, (station.pid,), port, Roster(at.here, users))


def wait_until_synced(station: Station, *, patience_s: float = 60.0) -> None:
    """Until a host has all that it is to have."""
    deadline = time.monotonic() + patience_s
    while cursor_of(station) < 0:
        if time.monotonic() > deadline:
            raise SystemExit(f"{station.folder.name} has not synced: {station.log()[-2000:]}")
        time.sleep(0.02)


def cursor_of(station: Station) -> int:
    """How far a host has synced, by its own store; -1: not at all."""
    return int(query(station, "SELECT cursor FROM agent_state")[0][0])


def query(station: Station, text: str, *arguments: object) -> list[tuple[Any, ...]]:
    """Rows of a station's store, as they are committed now."""
    with contextlib.closing(sqlite3.connect(f"file:{station.folder / 'state' / 'mfad.sqlite'}?mode=ro", uri=True)) as store:
        return list(store.execute(text, arguments))


# Simulated hosts


@dataclass(frozen=True, slots=True)
class Hosts:
    """What the generator needs: the certificates of all hosts (records of DER), their one key, and whom they trust (PEM)."""

    certificates: Path
    key: Path
    trust: Path


@dataclass(frozen=True, slots=True)
class Minted:
    """Hosts with their numbers, and the SHA-256 of the certificate of each."""

    hosts: Hosts
    fingerprints: dict[int, bytes]
    certificates: dict[int, str] = field(repr=False)


def mint(
    ca: CertificateAuthority, folder: Path, numbers: Iterable[int], *, key: ec.EllipticCurvePrivateKey, now: float
) -> Minted:
    """Certificates for hosts, in files of ``folder``."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bench")])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    csr = request.public_bytes(serialization.Encoding.PEM).decode()
    issued = {number: sign_host(ca, csr, host_id=number, now=now, lasts_s=86_400.0) for number in numbers}
    made = Hosts(folder / "hosts", folder / "hosts.key", folder / "trust.pem")
    write_records(made.certificates, (ssl.PEM_cert_to_DER_cert(one.pem) for one in issued.values()))
    made.trust.write_text(ca.pem)
    made.key.touch(0o600)
    made.key.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return Minted(
        made, {number: one.fingerprint for number, one in issued.items()}, {number: one.pem for number, one in issued.items()}
    )


def write_records(path: Path, records: Iterable[bytes]) -> Path:
    """A file of records for authority_load."""
    path.write_bytes(b"".join(struct.pack(">I", len(record)) + record for record in records))
    return path


@dataclass(frozen=True, slots=True)
class Crowd:
    """So many simulated hosts that an authority knows."""

    at: Authority
    minted: Minted
    hpke: Secret

    def one(self, index: int = 0) -> SimulatedHost:
        """One of them, which understands what it is told."""
        number = list(self.minted.fingerprints)[index]
        return SimulatedHost(self, number)


def crowd(at: Authority, count: int, *, group: str = GROUP) -> Crowd:
    """Make the authority know ``count`` hosts more, all of one group."""
    folder = at.here.folder / f"crowd-{secrets.token_hex(4)}"
    folder.mkdir(mode=0o700)
    key, hpke, now = ec.generate_private_key(ec.SECP256R1()), sealed.new_private_key(), time.time()
    with at.here.store.writing() as connection:
        first = take(connection, "hosts", count)
        minted = mint(at.ca(), folder, range(first, first + count), key=key, now=now)
        example = host_rows.Host(
            id=0, name="", host_group=group, state=host_rows.HostState.ACTIVE, certificate=b"", next_certificate=b"",
            hpke_public=sealed.public_of(hpke), joined_at=now, last_seen=now, cursor=-1, lease_until=0.0, journal_epoch=1,
            journal_seq=0, journal_hash=GENESIS, key_protection=KeyProtection.FILE, clock_offset_s=0.0, software="bench",
            address="127.0.0.1",
        )  # fmt: skip
        connection.execute(
            insert(hosts),
            [
                {name: getattr(one, name) for name in host_rows.Host.__dataclass_fields__}
                for number, fingerprint in minted.fingerprints.items()
                for one in [replace(example, id=number, name=f"{folder.name}-{number}", certificate=fingerprint)]
            ],
        )
    return Crowd(at, minted, hpke)


@dataclass(slots=True)
class Taken:
    """What a host got by a sync: users, secrets, and octets on the wire in both directions (without TLS)."""

    users: int = 0
    gone: int = 0
    secrets: int = 0
    secret_octets: int = 0
    octets_in: int = 0
    octets_out: int = 0
    answers: int = 0
    full: bool = False


class SimulatedHost:
    """A host that syncs as an agent does and keeps nothing: it checks signatures, nonces and numbers, and opens seals.

    One thread, one connection. Ends the program at anything that an agent would not believe.
    """

    def __init__(self, of: Crowd, number: int) -> None:
        self._of, self.number = of, number
        self._connection: http.client.HTTPSConnection | None = None
        signer = of.at.keys().signer
        self._signers = {signer.key_id: signer.public}
        self.seq = 0
        self.cursor: Cursor | None = None
        self.digest = ""
        self.rules_digest = ""

    def __enter__(self) -> Self:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_verify_locations(self._of.minted.hosts.trust)
        both = self._of.minted.hosts.key.parent / f"host-{self.number}.pem"
        both.touch(0o600)
        both.write_bytes(self._of.minted.hosts.key.read_bytes() + self._of.minted.certificates[self.number].encode())
        context.load_cert_chain(both)
        self._connection = http.client.HTTPSConnection(self._of.at.address, self._of.at.port, timeout=120, context=context)
        self._connection.connect()
        self._connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self

    def __exit__(self, *exc: object) -> None:
        assert self._connection is not None
        self._connection.close()

    def request(self, *, wait_s: float = 0.0, page: str | None = None, nonce: bytes | None = None) -> SyncRequest:
        """What it asks now."""
        return SyncRequest(
            nonce=nonce or os.urandom(16), cursor=self.cursor, seq=self.seq, digest=self.digest,
            rules_digest=self.rules_digest, wait_s=wait_s, codes_until=time.time() + 14 * 86_400.0 if self.cursor else 0.0,
            journal=JournalHead(epoch=1, seq=0, hash=GENESIS), key_protection=KeyProtection.FILE, now=time.time(),
            software="bench", page=page,
        )  # fmt: skip

    def sync(self, *, wait_s: float = 0.0) -> Taken:
        """All that is new, page by page."""
        taken, page = Taken(), None
        while True:
            request = self.request(wait_s=wait_s, page=page)
            answer = self._ask(request, taken)
            self._take(answer, request.nonce, taken)
            if not answer.more:
                self.cursor, self.digest = answer.cursor, answer.digest or self.digest
                return taken
            page = answer.page

    def _ask(self, request: SyncRequest, taken: Taken) -> SyncAnswer:
        assert self._connection is not None
        body = request.octets()
        self._connection.request("POST", SYNC, body, {"Content-Type": "application/json"})
        got = self._connection.getresponse()
        said = got.read()
        if got.status != 200:
            raise SystemExit(f"sync was refused with {got.status}: {said[:500]!r}")
        signed.verify(got.headers.get(signed.HEADER, ""), said, self._signers)
        taken.octets_out += len(body)
        taken.octets_in += len(said)
        taken.answers += 1
        return read_sync_answer(said)

    def _take(self, answer: SyncAnswer, nonce: bytes, taken: Taken) -> None:
        if answer.nonce != nonce or answer.host_id != self.number or answer.seq <= self.seq:
            raise SystemExit("an answer that is not to this question")
        self.seq = answer.seq
        taken.users += len(answer.users)
        taken.gone += len(answer.gone)
        taken.full = taken.full or answer.full
        if answer.rules is not None:
            self.rules_digest = rules_digest(answer.rules)
        for entry in self._opened(answer, nonce):
            taken.secrets += 1
            taken.secret_octets += len(entry.secret)

    def _opened(self, answer: SyncAnswer, nonce: bytes) -> Sequence[SealedEntry]:
        if answer.sealed is None:
            return ()
        context = sealed.sync_context(
            authority_id=answer.authority_id, host_id=self.number, seq=answer.seq, nonce=nonce
        )
        return read_entries(sealed.open_sealed(self._of.hpke, context, answer.sealed))

    def post(self, path: str, body: bytes) -> bytes:
        """Ask anything else; the answer. Ends the program at a refusal."""
        assert self._connection is not None
        self._connection.request("POST", path, body, {"Content-Type": "application/json"})
        got = self._connection.getresponse()
        said = got.read()
        if got.status != 200:
            raise SystemExit(f"{path} was refused with {got.status}: {said[:500]!r}")
        return said

    def poll_body(self, path: Path) -> Path:
        """Its long poll as the generator fills it in for hosts of the same group."""
        assert self.cursor is not None
        nonce = os.urandom(16)
        poll = json.loads(self.request(wait_s=50.0, nonce=nonce).octets())
        text = json.dumps(poll | {"nonce": "@NONCE@", "digest": "@DIGEST@"})
        text = text.replace(f'"seq": {self.seq},', '"seq": @SEQ@,', 1)
        cursor = json.dumps(poll["cursor"])
        text = text.replace(cursor, cursor.replace(str(self.cursor.seq), "@CURSOR@"), 1)
        if text.count("@") != 8 or base64.b64encode(nonce).decode() in text:
            raise RuntimeError(f"the poll could not be made a form: {text}")
        path.write_text(text)
        return path


# The generator


@dataclass(frozen=True, slots=True)
class Played:
    """What the generator saw while it played a book. Milliseconds, seconds, shares from 0 to 1."""

    exchanges: int
    good: int
    broken: int
    counted: int
    octets_in: int
    octets_out: int
    seconds: float
    cpu_share: float
    p50_ms: float
    p99_ms: float
    max_ms: float


@dataclass(frozen=True, slots=True)
class Told:
    """One round: how many hosts were told something new, and when (CLOCK_MONOTONIC, ns)."""

    told: int
    first_ns: int
    p50_ns: int
    p99_ns: int
    last_ns: int
    leases: int
    broken: int
    octets_in: int
    cpu_share: float


class Held:
    """Hosts that wait, each with a long poll."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.waiting = int(self._line()["waiting"])

    def _line(self) -> dict[str, float]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"the generator ended with {self._process.wait()}")
        return dict(json.loads(line))

    def begin(self) -> None:
        """From now on news count."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        self._line()

    def end(self) -> Told:
        """When all have heard something new, or the time is over."""
        return Told(**self._line())  # type: ignore[arg-type]  # from JSON


class Generator:
    """authority_load, built for this run. ``cpu`` is its processor, or None where it takes what the others leave."""

    def __init__(self, folder: Path, *, cpu: int | None) -> None:
        self._program = folder / "authority_load"
        self._cpu = cpu
        warnings = ["-Wall", "-Wextra", "-Wconversion", "-Wno-sign-conversion", "-Wshadow", "-Werror"]
        source = ROOT / "bench" / "authority_load.c"
        subprocess.run(
            ["cc", "-std=c11", "-O2", *warnings, "-o", str(self._program), str(source), "-lssl", "-lcrypto"], check=True
        )

    def _words(self, port: int, hosts: Hosts, path: str, connections: int, address: str = "127.0.0.1") -> list[str]:
        words = [str(self._program), f"--to={address}:{port}", f"--name={NAME}", f"--hosts={hosts.certificates}"]
        words += [f"--key={hosts.key}", f"--trust={hosts.trust}", f"--path={path}", f"--connections={connections}"]
        return [*words, *([f"--cpu={self._cpu}"] if self._cpu is not None else [])]

    def play(self, port: int, hosts: Hosts, book: Path, *, path: str, count: str, connections: int) -> Played:
        """Send the bodies of a book, as fast as they are answered."""
        words = [*self._words(port, hosts, path, connections), f"--book={book}", f"--count={count}", "--mode=play"]
        said = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout
        return Played(**json.loads(said))

    @contextlib.contextmanager
    def hold(
        self, port: int, hosts: Hosts, body: Path, *, path: str, connections: int, seq: int, cursor: int, digest: str,
        seconds: float,
    ) -> Iterator[Held]:  # fmt: skip
        """Let so many hosts wait."""
        words = [*self._words(port, hosts, path, connections), f"--body={body}", "--mode=hold", f"--seq={seq}"]
        words += [f"--cursor={cursor}", f"--digest={digest}", f"--seconds={seconds}"]
        with subprocess.Popen([*BOUND, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            try:
                yield Held(process)
            finally:
                assert process.stdin is not None
                process.stdin.close()
                process.terminate()
