"""What a measurement stands on: a store with many users, a daemon of its own, codes for now. Nothing is measured here."""

from __future__ import annotations

import base64
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import insert

from mfa_core import oath
from mfa_core.model import Credential, CredentialState, FactorKind
from mfa_core.secret import Secret
from mfa_runtime.key_file import KeyEncryptionKeys, load_key_source, new_key, write_key_file
from mfa_runtime.sealing import Keyring, Place
from mfa_runtime.store.creation import ensure_store
from mfa_runtime.store.database import Store
from mfa_runtime.store.ids import take
from mfa_runtime.store.key_table import load_keyring
from mfa_runtime.store.schema import credentials, users

ROOT = Path(__file__).resolve().parents[1]
MODULE = ROOT / "pam_mfa" / "module" / "build" / "pam_mfa.so"
BOUND = ("setpriv", "--pdeathsig", "TERM")
"""In front of a command: it ends when the measurement does, however that ends."""
_BATCH = 10_000


@dataclass(frozen=True, slots=True)
class Stage:
    """A folder with a store of enrolled users. ``secrets`` are kept only for the users that were asked for."""

    folder: Path
    store: Store
    keks: KeyEncryptionKeys
    secrets: dict[str, Secret]

    def keyring(self) -> Keyring:
        """The keys of the store."""
        with self.store.reading() as connection:
            return load_keyring(connection, self.keks, random=os.urandom)

    def code(self, name: str, *, now: float) -> str:
        """The TOTP code of a user at a Unix time."""
        credential = Credential(1, FactorKind.TOTP, CredentialState.ACTIVE, self.secrets[name])
        return oath.code_at(credential, oath.step_at(now, 30))

    def base32(self, name: str) -> str:
        """The user's secret as other programs want it."""
        return base64.b32encode(self.secrets[name].reveal()).decode()


def name_of(number: int) -> str:
    """The name of user ``number``."""
    return f"user{number:07d}"


@contextlib.contextmanager
def stage(count: int, *, keep: int | None = None) -> Iterator[Stage]:
    """A store with ``count`` users of one TOTP each; the secrets of the first ``keep`` (all) can be asked for.

    In $MFAD_BENCH_DIR, else in the working directory: /tmp may lie in memory, where durability costs nothing.
    """
    parent = os.environ.get("MFAD_BENCH_DIR") or str(ROOT / "build")
    Path(parent).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parent, prefix="bench-") as name:
        folder = Path(name)
        keks = KeyEncryptionKeys((new_key(os.urandom),))
        write_key_file(folder / "kek", keks)
        keks = load_key_source(str(folder / "kek"), credentials_directory=None)
        store, _ = ensure_store(folder / "state", keks, now=time.time(), random=os.urandom)
        secrets: dict[str, Secret] = {}
        here = Stage(folder, store, keks, secrets)
        keyring = here.keyring()
        for start in range(0, count, _BATCH):
            numbers = range(start, min(count, start + _BATCH))
            fresh = {n: Secret(os.urandom(20)) for n in numbers}
            _fill(here, keyring, fresh)
            secrets.update({name_of(n): s for n, s in fresh.items() if keep is None or n < keep})
        store.checkpoint()
        yield here
        store.close()


def _fill(here: Stage, keyring: Keyring, fresh: dict[int, Secret]) -> None:
    with here.store.writing() as connection:
        user_id = take(connection, "users", len(fresh))
        number = take(connection, "credentials", len(fresh))
        connection.execute(
            insert(users),
            [
                {
                    "id": user_id + i,
                    "name": name_of(n),
                    "state": "active",
                    "requirement": "inherit",
                    "grace_until": 0.0,
                    "locked": False,
                    "created_at": 0.0,
                }
                for i, n in enumerate(fresh)
            ],
        )
        connection.execute(
            insert(credentials),
            [
                {
                    "id": number + i,
                    "user_id": user_id + i,
                    "kind": "totp",
                    "state": "active",
                    "digest": "sha1",
                    "digits": 6,
                    "period_s": 30,
                    "last_step": -1,
                    "drift_steps": 0,
                    "resync_step": -1,
                    "secret": keyring.seal(secret, Place("credentials", "secret", number + i, user_id + i)),
                    "secret_tag": (number + i).to_bytes(32, "big"),
                    "label": "",
                    "created_at": 0.0,
                    "verified_at": 0.0,
                    "last_used_at": 0.0,
                    "expires_at": 0.0,
                }
                for i, secret in enumerate(fresh.values())
            ],
        )


@dataclass(frozen=True, slots=True)
class Daemon:
    """A running mfad. ``ready_s`` is from its start to the line that says ready."""

    pid: int
    sockets: Path
    ready_s: float

    def resident_mib(self) -> float:
        """Its resident memory, MiB."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
        raise RuntimeError("no VmRSS")


@contextlib.contextmanager
def daemon(
    here: Stage,
    *,
    policy: str = "[]",
    doors: str = "{pam: {socket_dir: ./run}}",
    metrics: str = "{}",
    cpus: Sequence[int] = (),
) -> Iterator[Daemon]:
    """mfad over this stage's store, in a process of its own, stopped by its pid. ``cpus``: where it must stay."""
    config = here.folder / "mfad.yaml"
    config.write_text(
        f"state_dir: ./state\nkey_file: ./kek\ndoors: {doors}\npolicy: {policy}\nmetrics: {metrics}\n"
        "limits: {connections: 4096, connections_per_user: 1000}\n"
    )
    pinned = ["taskset", "-c", ",".join(map(str, cpus))] if cpus else []
    log = here.folder / "mfad.log"  # a pipe that nobody reads would stop the daemon when it is full
    with log.open("w") as stderr:
        started = time.monotonic()
        process = subprocess.Popen(
            [*BOUND, *pinned, sys.executable, "-m", "mfad", "--config", str(config)], cwd=ROOT, stderr=stderr
        )
    try:
        while "mfad: ready" not in log.read_text(errors="replace"):  # "already in use" is not what is waited for
            if process.poll() is not None:
                raise RuntimeError(f"mfad ended with {process.returncode}")
            time.sleep(0.002)
        yield Daemon(process.pid, here.folder / "run", time.monotonic() - started)
    except BaseException:
        print(f"what mfad said last: {log.read_text(errors='replace')[-2000:]}", file=sys.stderr)
        raise
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)


def flush_ms(folder: Path, count: int = 50) -> float:
    """What bringing a page to the disk takes here now, milliseconds: the median of so many. What is answered durably waits for
    that, on a shared machine more than for all else."""
    took = []
    with (folder / "flushed").open("wb", buffering=0) as file:
        for _ in range(count):
            file.write(bytes(4096))
            started = time.perf_counter()
            os.fdatasync(file.fileno())
            took.append((time.perf_counter() - started) * 1e3)
    return percentile(took, 0.5)


def wait_for_early_step(margin_s: float) -> float:
    """Wait until the present time step has ``margin_s`` seconds left; return the time. Codes then hold for the run."""
    while 30 - time.time() % 30 < margin_s:
        time.sleep(0.2)
    return time.time()


def percentile(values: list[float], share: float) -> float:
    """The value below which ``share`` (0 to 1) of the sorted values lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
