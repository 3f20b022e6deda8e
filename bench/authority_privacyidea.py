"""How long does one question to an authority take, beside one to privacyIDEA?

One TOTP code after the other, each of another credential, over a kept connection, by the same client. mfad is asked over TLS
1.3 with certificates on both sides; privacyIDEA over plain HTTP, with gunicorn and one worker, and a store in SQLite as well.
Its tokens have no user, and are asked for by their serial numbers (POST /validate/check), which spares it a look into a
directory; a policy (otppin=none) spares it the argon2 hash of a PIN. What differs is in its favour.

privacyIDEA is not in the environment of the tests: ``python3 -m venv V && V/bin/pip install privacyidea gunicorn``, then
``--venv V``.
"""

from __future__ import annotations

import argparse
import contextlib
import hmac
import http.client
import json
import os
import secrets
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

from bench.authority_login import request_of
from bench.authority_stage import SimulatedHost, Station, add_group, authority, crowd
from bench.figures import Spread
from bench.processes import free_port, processor_s, stop
from bench.radius_stage import Roster
from bench.stage import BOUND, percentile, stage
from mfa_runtime.protocol.words import VERIFY

_CONFIG = """
SQLALCHEMY_DATABASE_URI = "sqlite:///{folder}/pi.sqlite"
SECRET_KEY = "{secret}"
PI_PEPPER = "{secret}"
PI_ENCFILE = "{folder}/enckey"
PI_AUDIT_KEY_PRIVATE = "{folder}/private.pem"
PI_AUDIT_KEY_PUBLIC = "{folder}/public.pem"
PI_LOGLEVEL = 40
PI_LOGFILE = "{folder}/pi.log"
"""
_APPLICATION = """
from privacyidea.app import create_app
app = create_app(config_name="production", config_file="{folder}/pi.cfg", silent=True)
"""
_TOKENS = """
import os
from application import app
from privacyidea.lib.policy import set_policy
from privacyidea.lib.token import init_token
with app.app_context():
    set_policy("no_pin", scope="authentication", action="otppin=none")
    for number in range({count}):
        key = os.urandom(20).hex()
        serial = f"TOTP{{number:07d}}"
        init_token({{"type": "totp", "otpkey": key, "serial": serial, "pin": "", "timeStep": 30, "hashlib": "sha1"}})
        print(serial, key)
"""


@dataclass(frozen=True, slots=True)
class PrivacyIdea:
    """A running privacyIDEA, and its tokens: serial number and key."""

    pid: int
    port: int
    tokens: list[tuple[str, bytes]]


@contextlib.contextmanager
def privacyidea(venv: Path, folder: Path, count: int) -> Iterator[PrivacyIdea]:
    """privacyIDEA with so many tokens, stopped by its pid."""
    (folder / "pi.cfg").write_text(_CONFIG.format(folder=folder, secret=secrets.token_hex(16)))
    (folder / "application.py").write_text(_APPLICATION.format(folder=folder))
    (folder / "tokens.py").write_text(_TOKENS.format(count=count))
    there = {"cwd": folder, "env": os.environ | {"PRIVACYIDEA_CONFIGFILE": str(folder / "pi.cfg")}}
    for step in ("create_enckey", "create_audit_keys", "create_tables"):
        subprocess.run([venv / "bin" / "pi-manage", "setup", step], check=True, capture_output=True, **there)  # type: ignore[call-overload]  # cwd and env
    made = subprocess.run([venv / "bin" / "python", "tokens.py"], check=True, capture_output=True, text=True, **there)  # type: ignore[call-overload]  # as above
    lines = [line.split() for line in made.stdout.splitlines() if line.startswith("TOTP")]
    port = free_port()
    words = ["--workers=1", "--worker-class=gthread", "--threads=1", "--keep-alive=60", f"--bind=127.0.0.1:{port}"]
    with (folder / "output").open("w") as output:
        process = subprocess.Popen(
            [*BOUND, venv / "bin" / "gunicorn", *words, "application:app"], stdout=output, stderr=output, **there  # type: ignore[call-overload]  # as above
        )
    try:
        deadline = time.monotonic() + 60
        while socket.socket().connect_ex(("127.0.0.1", port)):
            if time.monotonic() > deadline:
                raise SystemExit(f"privacyIDEA does not listen: {(folder / 'output').read_text()[-2000:]}")
            time.sleep(0.2)
        yield PrivacyIdea(process.pid, port, [(serial, bytes.fromhex(key)) for serial, key in lines])
    finally:
        stop(process)


def totp(key: bytes, now: float) -> str:
    """RFC 6238 with what every app does: SHA-1, 30 s, six digits."""
    digest = hmac.digest(key, struct.pack(">Q", int(now // 30)), "sha1")
    offset = digest[-1] & 15
    return f"{(struct.unpack('>I', digest[offset : offset + 4])[0] & 0x7FFFFFFF) % 10**6:06d}"


@dataclass(frozen=True, slots=True)
class Round:
    """Figures of one round: ms of one question, ms of the server's processor a question."""

    p50_ms: float
    p99_ms: float
    cpu_ms: float


def measured(pid: int, questions: list[Callable[[], bool]]) -> Round:
    """Put them one after the other; each must be answered with yes."""
    before, took = processor_s(pid), []
    for question in questions:
        began = time.perf_counter()
        good = question()
        took.append((time.perf_counter() - began) * 1e3)
        if not good:
            raise SystemExit("a right code was refused")
    return Round(percentile(took, 0.5), percentile(took, 0.99), (processor_s(pid) - before) / len(questions) * 1e3)


def ours(station: Station, host: SimulatedHost, roster: Roster, count: int) -> Round:
    """A round of mfad."""
    bodies = [request_of([login]) for login in roster.take(count)]
    return measured(station.pid, [lambda body=body: b'"accepted"' in host.post(VERIFY, body) for body in bodies])  # type: ignore[misc]  # bound now


def theirs(peer: PrivacyIdea, connection: http.client.HTTPConnection, tokens: list[tuple[str, bytes]]) -> Round:
    """A round of privacyIDEA."""

    def ask(serial: str, key: bytes) -> bool:
        body = urlencode({"serial": serial, "pass": totp(key, time.time())})
        connection.request("POST", "/validate/check", body, {"Content-Type": "application/x-www-form-urlencoded"})
        return bool(json.loads(connection.getresponse().read())["result"].get("value"))

    return measured(peer.pid, [lambda token=token: ask(*token) for token in tokens])  # type: ignore[misc]  # bound now


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--venv", type=Path, required=True, help="where privacyIDEA is installed")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--questions", type=int, default=40, help="each round")
    options = parser.parse_args()
    count = options.rounds * options.questions
    with (
        stage(4_096) as here,
        authority(here) as at,
        tempfile.TemporaryDirectory(dir=here.folder) as folder,
        privacyidea(options.venv.resolve(), Path(folder), count + 1) as peer,
    ):
        add_group(at)
        roster = Roster(here, 4_096)
        connection = http.client.HTTPConnection("127.0.0.1", peer.port, timeout=60)
        connection.connect()
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        seen: dict[str, list[Round]] = {"mfad": [], "privacyIDEA": []}
        with crowd(at, 1).one() as host, contextlib.closing(connection):
            theirs(peer, connection, peer.tokens[count:])  # its first answer takes seconds
            ours(at.station, host, roster, 10)
            for number in range(options.rounds):
                seen["mfad"].append(ours(at.station, host, roster, options.questions))
                some = peer.tokens[number * options.questions : (number + 1) * options.questions]
                seen["privacyIDEA"].append(theirs(peer, connection, some))
    print(f"one question after the other, {options.rounds} rounds of {options.questions}, median (least..most) of the rounds")
    for label, rounds in seen.items():
        p50, p99, cpu = (Spread.of(rounds, figure).text(".2f") for figure in ("p50_ms", "p99_ms", "cpu_ms"))
        print(f"  {label:12} median {p50:>24} ms   p99 {p99:>26} ms   {cpu:>24} ms of its processor")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
