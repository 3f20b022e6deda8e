"""Does the generator behind the figures of the authority count what happened? Against servers that this test plays."""

from __future__ import annotations

import base64
import json
import queue
import socket
import ssl
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from authority.certificate_authority import CertificateAuthority, make_authority, read_shown, server_context
from bench.authority_stage import Generator, Hosts, Played, mint, write_records
from tests.end_to_end.programs import must_have

HOSTS = 3
Answering = Callable[[int, bytes], tuple[int, bytes]]
"""What a played authority says to a host: status and body."""


@dataclass
class Seen:
    """What came: who asked, and what."""

    requests: list[tuple[int, bytes]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


@pytest.fixture(scope="module")
def ours() -> CertificateAuthority:
    return make_authority("test", now=time.time())


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Generator:
    must_have("cc", "/usr/include/openssl/ssl.h")
    return Generator(tmp_path_factory.mktemp("generator"), cpu=None)


@pytest.fixture(scope="module")
def hosts(ours: CertificateAuthority, tmp_path_factory: pytest.TempPathFactory) -> Hosts:
    key = ec.generate_private_key(ec.SECP256R1())
    return mint(ours, tmp_path_factory.mktemp("hosts"), range(1, HOSTS + 1), key=key, now=time.time()).hosts


@contextmanager
def playing(ours: CertificateAuthority, answer: Answering) -> Iterator[tuple[int, Seen]]:
    """An authority that answers each request by ``answer``, in a thread for each connection."""
    context = server_context(ours, ["localhost"], now=time.time())
    seen = Seen()
    threads: list[threading.Thread] = []

    def serve(plain: socket.socket) -> None:
        try:
            connection = context.wrap_socket(plain, server_side=True)
        except OSError:  # the generator does not believe us
            plain.close()
            return
        with connection:
            from_host = _host_of(connection)
            while (body := _request(connection)) is not None:
                with seen.lock:
                    seen.requests.append((from_host, body))
                status, said = answer(from_host, body)
                head = f"HTTP/1.1 {status} Whatever\r\nContent-Length: {len(said)}\r\n\r\n".encode()
                # In two pieces: the generator puts answers together.
                connection.sendall(head + said[:5])
                connection.sendall(said[5:])

    with socket.create_server(("127.0.0.1", 0)) as listening:

        def accept() -> None:
            while True:
                plain, _ = listening.accept()
                if plain.recv(1, socket.MSG_PEEK) == b"e":
                    plain.close()
                    return
                one = threading.Thread(target=serve, args=(plain,))
                one.start()
                threads.append(one)

        accepting = threading.Thread(target=accept)
        accepting.start()
        try:
            yield listening.getsockname()[1], seen
        finally:
            with socket.create_connection(listening.getsockname()) as ending:
                ending.sendall(b"end")
                accepting.join()
            for one in threads:
                one.join()


def _host_of(connection: ssl.SSLSocket) -> int:
    shown = connection.getpeercert(binary_form=True)
    assert shown is not None
    return read_shown(shown).host_id


def _request(connection: ssl.SSLSocket) -> bytes | None:
    got = b""
    while b"\r\n\r\n" not in got:
        try:
            some = connection.recv(65_536)
        except OSError:
            return None
        if not some:
            return None
        got += some
    head, _, body = got.partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v1/test HTTP/1.1\r\n")
    size = next(int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
    while len(body) < size:
        body += connection.recv(65_536)
    return body


def play(generator: Generator, port: int, hosts: Hosts, book: Path, connections: int = HOSTS) -> Played:
    return generator.play(port, hosts, book, path="/v1/test", count='"accepted"', connections=connections)


def test_each_body_is_sent_once_and_good_answers_are_counted(
    ours: CertificateAuthority, generator: Generator, hosts: Hosts, tmp_path: Path
) -> None:
    bodies = [b'{"number": %d}' % number for number in range(20)]

    def answer(_: int, body: bytes) -> tuple[int, bytes]:
        number = json.loads(body)["number"]
        return 200 if number % 5 else 503, b'{"rulings": ["accepted", "accepted", "rejected"]}'

    with playing(ours, answer) as (port, seen):
        run = play(generator, port, hosts, write_records(tmp_path / "book", bodies))

    assert sorted(body for _, body in seen.requests) == sorted(bodies)
    assert {host for host, _ in seen.requests} == {1, 2, 3}
    assert (run.exchanges, run.good, run.counted, run.broken) == (20, 16, 32, 0)
    assert run.octets_in == 20 * len(b"HTTP/1.1 200 Whatever\r\nContent-Length: 49\r\n\r\n") + 20 * 49
    assert 0 < run.p50_ms <= run.p99_ms <= run.max_ms


def test_a_large_answer_is_one_answer(
    ours: CertificateAuthority, generator: Generator, hosts: Hosts, tmp_path: Path
) -> None:
    with playing(ours, lambda *_: (200, b'"accepted"' + b" " * 3_000_000)) as (port, _):
        run = play(generator, port, hosts, write_records(tmp_path / "book", [b"{}"] * 4), connections=2)

    assert (run.exchanges, run.good, run.counted) == (4, 4, 4)


def test_a_server_of_another_authority_is_not_believed(generator: Generator, hosts: Hosts, tmp_path: Path) -> None:
    with (
        playing(make_authority("another", now=time.time()), lambda *_: (200, b"{}")) as (port, seen),
        pytest.raises(subprocess.CalledProcessError),
    ):
        play(generator, port, hosts, write_records(tmp_path / "book", [b"{}"]), connections=1)
    assert not seen.requests


def test_a_poll_carries_what_the_last_answer_said_and_news_are_told_apart_from_leases(
    ours: CertificateAuthority, generator: Generator, hosts: Hosts, tmp_path: Path
) -> None:
    news: dict[int, queue.SimpleQueue[bytes]] = {host: queue.SimpleQueue() for host in range(1, HOSTS + 1)}

    def said(seq: int, cursor: int, digest: str, users: str) -> bytes:
        # The digest of a credential, and one inside a text, are not the manifest's.
        rules = json.dumps('{"digest":"' + "e" * 64 + '"}')
        return (
            f'{{"nonce":"","seq":{seq},"cursor":{{"generation":"g","seq":{cursor}}},"users":[{users}],"gone":[],'
            f'"digest":"{digest}","rules":{rules}}}'
        ).encode()

    def answer(host: int, _: bytes) -> tuple[int, bytes]:
        return 200, news[host].get()

    body = tmp_path / "body"
    body.write_text('{"nonce":"@NONCE@","seq":@SEQ@,"cursor":@CURSOR@,"digest":"@DIGEST@"}')
    user = '{"digest":"sha1"}'
    with playing(ours, answer) as (port, seen):
        with generator.hold(
            port, hosts, body, path="/v1/test", connections=HOSTS, seq=7, cursor=8, digest="d" * 64, seconds=20
        ) as held:
            held.begin()
            news[1].put(said(9, 8, "d" * 64, ""))  # a lease
            began = time.monotonic_ns()
            for host in news:
                news[host].put(said(10 + host, 20, "f" * 64, user))
            told = held.end()
            ended = time.monotonic_ns()
        for host in news:  # whoever hangs up is heard by a thread that waits for something to say
            news[host].put(b"{}")

    assert (told.told, told.leases, told.broken) == (HOSTS, 1, 0)
    assert began < told.first_ns <= told.p50_ns <= told.last_ns < ended
    polls = [(host, json.loads(sent)) for host, sent in seen.requests]
    first = [poll for _, poll in polls[:HOSTS]]
    assert all((poll["seq"], poll["cursor"], poll["digest"]) == (7, 8, "d" * 64) for poll in first)
    last = dict(polls)
    assert {host: (poll["seq"], poll["cursor"], poll["digest"]) for host, poll in last.items()} == {
        host: (10 + host, 20, "f" * 64) for host in news
    }
    nonces = [base64.b64decode(poll["nonce"], validate=True) for _, poll in polls]
    assert all(len(nonce) == 16 for nonce in nonces)
    assert len(set(nonces)) == len(nonces) == 2 * HOSTS + 1


def test_a_book_that_is_cut_short_is_none(
    ours: CertificateAuthority, generator: Generator, hosts: Hosts, tmp_path: Path
) -> None:
    book = tmp_path / "book"
    book.write_bytes(struct.pack(">I", 5) + b"1234")
    with pytest.raises(subprocess.CalledProcessError):
        play(generator, 1, hosts, book)


def test_the_key_of_the_hosts_is_readable_by_nobody_else(hosts: Hosts) -> None:
    assert hosts.key.stat().st_mode & 0o077 == 0
    serialization.load_pem_private_key(hosts.key.read_bytes(), None)
