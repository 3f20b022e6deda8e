"""Does the module refuse, as a whole and without harm, every message that breaks a rule?"""

from __future__ import annotations

import gc
import os
import random
import socket
import struct
from pathlib import Path

import pytest

from tests.pam_mfa import fake_mfad as wire
from tests.pam_mfa.fake_mfad import FakeMfad, Peer, frame, ops, prompt, result
from tests.pam_mfa.pam_harness import Always, PamCode, auth_line, probe_line, run_pam
from tests.pam_mfa.wire_vectors import Vector, read_vectors

HARMFUL = (wire.set_authtok("x"), wire.putenv("MFA_X=1"), wire.info("Welcome"))


def answer_to(directory: Path, *messages: bytes) -> int:
    """The result of a login whose only replies are these; nothing of them may have been performed."""
    with FakeMfad(directory, [*messages]):
        seen = run_pam([auth_line(socket_dir=directory), probe_line("report")], "alice")
    assert seen.shown == ()
    assert dict(seen.env) == {}
    return seen.code


@pytest.mark.parametrize(
    "message",
    [
        frame(wire.OPS, *HARMFUL, result(0), magic=b"MFA2"),
        frame(wire.OPS, *HARMFUL, result(0), version=0),
        frame(wire.OPS, *HARMFUL, result(0), version=2),
        frame(wire.BEGIN, *HARMFUL, result(0)),
        frame(wire.ANSWER, (wire.RESP, b"123456")),
        frame(7, *HARMFUL, result(0)),
        ops(*HARMFUL, result(0)) + b"\x02",
        ops(*HARMFUL, result(0)) + struct.pack(">HH", wire.INFO, 1) + b"x",
        ops(*HARMFUL, (0x0500, b""), result(0)),
        ops(*HARMFUL, (wire.USER, b"root"), result(0)),
        ops(*HARMFUL, prompt(), result(0)),
        ops(*HARMFUL, wire.wait(5), result(0)),
        ops(*HARMFUL),
        ops(),
        ops(*HARMFUL, wire.info("a\0b"), result(0)),
        ops(*HARMFUL, wire.set_authtok("b"), result(0)),
        ops(*HARMFUL, *[wire.info("")] * 61, result(0)),
        ops(*HARMFUL, (wire.RESULT, b"")),
        ops(*HARMFUL, (wire.RESULT, b"\0\0")),
        b"MFA1",
        b"\0",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        random.Random(7).randbytes(300),
        b"\0" * 16384,
        b"\xff" * 16384,
    ],
    ids=lambda message: message[:24].hex(),
)
def test_message_that_breaks_a_rule_is_refused_as_a_whole(directory: Path, message: bytes) -> None:
    """SERVICE_ERR, and not one operation of the message is performed."""
    assert answer_to(directory, message) == PamCode.SERVICE_ERR


@pytest.mark.parametrize(
    "vector", [v for v in read_vectors() if v.refused and v.kind in ("ops", "any")], ids=lambda vector: vector.name
)
def test_refused_vector_is_refused_through_libpam(directory: Path, vector: Vector) -> None:
    """The same vectors that wire.c is asked about, through the whole module."""
    assert answer_to(directory, vector.message) == PamCode.SERVICE_ERR


def test_message_cut_at_any_byte_is_refused(directory: Path) -> None:
    """A RESULT 0 that is cut short, or has lost its middle, is never a SUCCESS."""
    whole = ops(*HARMFUL, result(0))

    # Of no bytes a message cannot be told from a close.
    assert [answer_to(directory, whole[:size]) for size in range(1, len(whole))] == [PamCode.SERVICE_ERR] * (len(whole) - 1)


@pytest.mark.parametrize("size", [16_385, 20_000, 60_000])
def test_message_that_is_too_long_is_refused_however_it_begins(directory: Path, size: int) -> None:
    """What fits into the buffer would be a good message: MSG_TRUNC tells that it is not the whole one."""
    good = ops(wire.info("i" * 8192), wire.error("e" * 8171), result(0))
    assert len(good) == 16_384

    assert answer_to(directory, good + b"\0" * (size - len(good))) == PamCode.SERVICE_ERR


def test_message_of_exactly_the_limit_is_performed(directory: Path) -> None:
    """16,384 bytes are allowed."""
    with FakeMfad(directory, [ops(wire.info("i" * 8192), wire.error("e" * 8171), result(0))]):
        seen = run_pam([auth_line(socket_dir=directory)], "alice")

    assert (seen.code, len(seen.infos[0]), len(seen.errors[0])) == (PamCode.SUCCESS, 8192, 8171)


def test_bad_message_behind_a_good_one_is_refused(directory: Path) -> None:
    """After a correct answer, too, the second message counts for itself."""
    with FakeMfad(directory, [ops(prompt()), ops(result(0)) + b"\0"]):
        assert run_pam([auth_line(socket_dir=directory)], "alice", ["123456"]).code == PamCode.SERVICE_ERR


def test_descriptors_passed_with_a_message_are_dropped(directory: Path) -> None:
    """SCM_RIGHTS cannot fill the table of sshd."""

    def handle(peer: Peer) -> None:
        peer.begin()
        with Path("/dev/null").open() as passed:
            socket.send_fds(peer.connection, [ops(result(0))], [passed.fileno()] * 8)

    gc.collect()  # what other tests have left in this process goes first
    before = len(os.listdir("/proc/self/fd"))
    with FakeMfad(directory, handle):
        assert run_pam([auth_line(socket_dir=directory)], "alice").code == PamCode.SUCCESS
    assert len(os.listdir("/proc/self/fd")) == before


def test_mutated_messages_never_crash_and_never_perform_half(directory: Path) -> None:
    """Some hundred good messages with bytes changed end in a code of the list; the long run of this is the fuzzer's."""
    chance = random.Random(20261122)
    good = [v.message for v in read_vectors() if not v.refused and v.kind == "ops" and len(v.message) < 300]
    codes = set()
    for _ in range(300):
        message = bytearray(chance.choice(good))
        for _ in range(chance.randint(1, 3)):
            message[chance.randrange(8, len(message))] = chance.randrange(256)
        with FakeMfad(directory, [bytes(message)]):
            codes.add(run_pam([auth_line(socket_dir=directory)], "alice", [Always("1")]).code)

    assert codes <= {0, 3, 6, 7, 8, 9, 10, 11, 13, 25}
