"""How long does a fast user wait beside a slow one on the same RADIUS/TLS connection?

The first factor is another RADIUS server, which this program plays: it answers some users after two seconds and the others at
once. The peer is the same connection without a slow user. A server that works on one packet of a connection at a time would let
the fast user wait for two seconds.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import hmac
import socket
import ssl
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

from bench.figures import Spread, conclude
from bench.processes import free_port, processors
from bench.radius_stage import Login, Shared, access_request, mfad_radius, new_secret
from bench.stage import Stage, name_of, stage
from tests.end_to_end.radius_certificates import Authority, Certificate

BAR_MS = 50.0
SLOW_S = 2.0
PASSWORD = "correct horse"
RADSEC = b"radsec"
"""The shared secret inside TLS, RFC 6614 section 2.3."""
ACCEPT = 2


@dataclass(frozen=True, slots=True)
class Pki:
    """Certificates of both ends."""

    authority: Authority
    server: Certificate
    client: Certificate


def new_pki(here: Stage) -> Pki:
    """An authority of its own and what it issues."""
    authority = Authority(here.folder / "pki")
    return Pki(authority, authority.issue("mfad.example.org", server=True), authority.issue("nas.example.org"))


@contextlib.contextmanager
def first_factor(shared: Shared, slow: frozenset[str]) -> Iterator[int]:
    """A RADIUS server that accepts everybody, some of them late; its port."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listening:
        listening.bind(("127.0.0.1", 0))
        ending = threading.Event()

        def answer(request: bytes, source: tuple[str, int]) -> None:
            if user_of(request) in slow:
                ending.wait(SLOW_S)
            listening.sendto(accept(request, shared.value), source)

        def serve() -> None:
            while True:
                request, source = listening.recvfrom(4096)
                if ending.is_set():
                    return
                threading.Thread(target=answer, args=(request, source)).start()

        serving = threading.Thread(target=serve)
        serving.start()
        try:
            yield int(listening.getsockname()[1])
        finally:
            ending.set()
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as waking:
                waking.sendto(b"end", listening.getsockname())
            serving.join()


def user_of(request: bytes) -> str:
    """The User-Name of a request."""
    at = 20
    while at < len(request):
        kind, size = request[at], request[at + 1]
        if kind == 1:
            return request[at + 2 : at + size].decode()
        at += size
    raise ValueError("a request without User-Name")


def accept(request: bytes, secret: bytes) -> bytes:
    """An Access-Accept with its Message-Authenticator, RFC 3579 section 3.2."""
    head = struct.pack(">BBH", ACCEPT, request[1], 38)
    blank = head + request[4:20] + bytes((80, 18)) + bytes(16)
    attribute = bytes((80, 18)) + hmac.digest(secret, blank, "md5")
    return head + hashlib.md5(head + request[4:20] + attribute + secret).digest() + attribute


class Connection:
    """A NAS's TLS connection with several requests under way."""

    def __init__(self, port: int, pki: Pki) -> None:
        context = ssl.create_default_context(cafile=str(pki.authority.path))
        context.load_cert_chain(pki.client.certificate, pki.client.key)
        plain = socket.create_connection(("127.0.0.1", port), timeout=30)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._tls = context.wrap_socket(plain, server_hostname="mfad.example.org")
        self._rest = b""

    def send(self, identifier: int, login: Login) -> None:
        """Ask without waiting."""
        self._tls.sendall(access_request(identifier, login, RADSEC))

    def receive(self) -> tuple[int, int]:
        """The identifier and the code of the next answer."""
        while len(self._rest) < 4 or len(self._rest) < struct.unpack(">H", self._rest[2:4])[0]:
            more = self._tls.recv(4096)
            if not more:
                raise SystemExit("mfad closed the connection")
            self._rest += more
        size = struct.unpack(">H", self._rest[2:4])[0]
        reply, self._rest = self._rest[:size], self._rest[size:]
        return reply[1], reply[0]

    def close(self) -> None:
        """End it."""
        self._tls.close()


def milliseconds(connection: Connection, identifier: int, login: Login) -> float:
    """How long one login takes."""
    started = time.monotonic()
    connection.send(identifier, login)
    answer = connection.receive()
    if answer != (identifier, ACCEPT):
        raise SystemExit(f"request {identifier} was answered by (identifier, code) {answer}")
    return (time.monotonic() - started) * 1e3


def measure(port: int, pki: Pki, fast: list[Login], slow: Login) -> tuple[list[float], list[float], float]:
    """Milliseconds of fast logins without a slow one, of those beside it, and of the slow one."""
    connection = Connection(port, pki)
    half = len(fast) // 2
    alone = [milliseconds(connection, i, login) for i, login in enumerate(fast[:half])]
    started = time.monotonic()
    connection.send(255, slow)
    beside = [milliseconds(connection, i, login) for i, login in enumerate(fast[half:], half)]
    answer = connection.receive()
    slow_ms = (time.monotonic() - started) * 1e3
    connection.close()
    if answer != (255, ACCEPT) or slow_ms < SLOW_S * 900:
        raise SystemExit(f"the slow user was answered {answer} after {slow_ms:.0f} ms")
    return alone, beside, slow_ms


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--logins", type=int, default=40, help="fast ones each round, half of them beside the slow one")
    options = parser.parse_args()
    each = options.logins + 1
    users = each * options.rounds
    slow = frozenset(name_of(n) for n in range(0, users, each))
    alone: list[float] = []
    beside: list[float] = []
    with stage(users) as here:
        shared, pki, port = new_secret(here.folder), new_pki(here), free_port()
        with (
            first_factor(shared, slow) as upstream,
            mfad_radius(
                here,
                shared,
                users=users,
                cpus=processors()[:1],
                listen=[f"tls://127.0.0.1:{port}"],
                clients=["{name: radsec, tls: {subject: nas.example.org}}"],
                primary=f"{{type: radius, servers: ['127.0.0.1:{upstream}'], secret_file: {shared.file}, timeout: 10s}}",
                more=f"tls: {{certificate_file: {pki.server.certificate}, key_file: {pki.server.key}, "
                f"client_ca_file: {pki.authority.path}}}",
            ) as server,
        ):
            for _ in range(options.rounds):
                first, *others = [Login(user.name, PASSWORD + user.password) for user in server.logins.take(each)]
                without, with_slow, _ = measure(port, pki, others, first)
                alone += without
                beside += with_slow
    print(f"{options.rounds} rounds, a first factor of {SLOW_S:.0f} s for one user; milliseconds, median (least..most)")
    print(f"  fast logins alone            {Spread(tuple(alone)).text('.1f')}")
    print(f"  beside the slow one          {Spread(tuple(beside)).text('.1f')}  (bar: the longest {BAR_MS:.0f})")
    print(f"  ratio of the medians         {Spread(tuple(beside)).median / Spread(tuple(alone)).median:.2f}x")
    return conclude([f"a fast user waited {max(beside):.0f} ms"] if max(beside) > BAR_MS else [])


if __name__ == "__main__":
    raise SystemExit(main())
