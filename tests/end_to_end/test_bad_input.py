"""Junk, full disks, wrong clocks: a clear error, a refusal, nothing lost, and the next login works. A real mfad and libpam."""

from __future__ import annotations

import os
import random
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.end_to_end.clocks import Clock
from tests.end_to_end.conftest import USERS
from tests.end_to_end.daemon import Mfad, Person
from tests.end_to_end.host import private_host
from tests.end_to_end.programs import run, wait_until
from tests.pam_mfa.pam_harness import PamCode, Seen, auth_line, run_pam


def answer(mfad: Mfad, person: Person, code: str) -> Seen:
    return run_pam([auth_line(socket_dir=mfad.socket_dir)], person.name, [code])


def throw(path: Path, message: bytes) -> None:
    """Send one message and do not wait for anything."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as peer:
        peer.settimeout(5)
        try:
            peer.connect(os.fspath(path))
            peer.send(message)
        except OSError:
            return  # the message was too long for a socket, or we were turned away


def test_junk_on_both_sockets_disturbs_no_login(mfad: Mfad) -> None:
    """Row 30, from the other side: short, long, half and random messages, while people log in."""
    good = b"MFA1\0\1\0\1"
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    noise = random.Random(seed)
    junk = [
        b"\0", b"MFA1", good, good + b"\x01\x01\0\1", good + b"\xff" * 60_000, b"GET / HTTP/1.0\r\n\r\n", b"A" * 200_000,
        b"MFA1\0\2\0\1", b"MFA1\0\1\0\3\3\1\0\0", *(noise.randbytes(noise.randrange(1, 20_000)) for _ in range(40)),
        *(good + noise.randbytes(noise.randrange(1, 300)) for _ in range(60)),
    ]  # fmt: skip
    before = mfad.connections()
    over = threading.Event()

    def keep_throwing() -> None:
        while not over.is_set():
            for name in ("priv.sock", "user.sock"):
                for message in junk:
                    throw(mfad.socket_dir / name, message)

    thrower = threading.Thread(target=keep_throwing)
    thrower.start()
    try:
        for _ in range(10):
            person = mfad.person()
            assert answer(mfad, person, person.next_code()).code == PamCode.SUCCESS
    finally:
        over.set()
        thrower.join()
    assert mfad.running
    wait_until(lambda: mfad.connections() == before, "all of it is forgotten")
    assert "Traceback" not in mfad.log()
    assert mfad.log().count("sent no message of ours") < 50


def has_no_room(seen: Seen) -> bool:
    """Whether the person was told that the use of the code cannot be recorded."""
    return any("cannot record use" in text.lower() for text in seen.errors)


def test_full_disk_refuses_and_says_so(template: Mfad, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Row 39: never accepted without a record; and when there is room again the very same code works.

    There is no room for mfad to make its write-ahead log long, and what it has of one is used up by refused logins first.
    """
    place = tmp_path_factory.mktemp("full")
    state = place / "mfad" / "state"
    mfad_dir = place / "mfad"
    mfad_dir.mkdir()
    with private_host(place / "host", mfad_dir / "run", users=USERS, pam={}, tmpfs={state: "size=4m,mode=0700"}) as host:
        mfad = Mfad(mfad_dir, prefix=host.inside())
        mfad.copy_from(template, state_dir=tmp_path / "copy")
        run(host.inside("sh", "-c", f"cp {tmp_path}/copy/* {state}/"))
        run(host.inside("sh", "-c", f"dd if=/dev/zero of={state}/filler bs=4096 2>/dev/null; truncate -s -512K {state}/filler"))
        mfad.start()
        try:
            person, other = mfad.person(), mfad.person()
            assert answer(mfad, other, other.next_code()).code == PamCode.SUCCESS
            run(host.inside("sh", "-c", f"dd if=/dev/zero of={state}/filler2 bs=4096 2>/dev/null || true"))
            wrong = other.wrong_code()
            assert any(has_no_room(answer(mfad, other, wrong)) for _ in range(200))
            code = person.next_code()
            refused = answer(mfad, person, code)
            again = answer(mfad, person, code)
            run(host.inside("rm", state / "filler", state / "filler2"))
            accepted = answer(mfad, person, code)
            replayed = answer(mfad, person, code)
        finally:
            mfad.close()
    assert (refused.code, again.code) == (PamCode.AUTH_ERR, PamCode.AUTH_ERR)
    assert has_no_room(refused), refused.shown
    assert "could not be lengthened" in mfad.log()
    assert accepted.code == PamCode.SUCCESS
    assert replayed.code == PamCode.AUTH_ERR


def test_read_only_state_directory_is_refused_and_mended(
    template: Mfad, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Row 39: a file system that came up read-only lets nobody in, with words; nothing has to be repaired afterwards."""
    place = tmp_path_factory.mktemp("ro")
    state = place / "mfad" / "state"
    mfad_dir = place / "mfad"
    mfad_dir.mkdir()
    with private_host(place / "host", mfad_dir / "run", users=USERS, pam={}, tmpfs={state: "size=16m,mode=0700"}) as host:
        mfad = Mfad(mfad_dir, prefix=host.inside())
        mfad.copy_from(template, state_dir=tmp_path / "copy")
        run(host.inside("sh", "-c", f"cp {tmp_path}/copy/* {state}/ && mount -o remount,ro {state}"))
        person = mfad.person()
        code = person.next_code()
        try:
            with pytest.raises(AssertionError, match="ended"):
                mfad.start()
            assert "Traceback" not in mfad.log()
            assert "state" in mfad.log()
            assert answer_unasked(mfad, person).code == PamCode.AUTHINFO_UNAVAIL
            run(host.inside("mount", "-o", "remount,rw", state))
            mfad.start()
            assert answer(mfad, person, code).code == PamCode.SUCCESS
        finally:
            mfad.close()


def answer_unasked(mfad: Mfad, person: Person) -> Seen:
    return run_pam([auth_line(socket_dir=mfad.socket_dir)], person.name, [])


def test_clock_that_steps_back_brings_no_code_back_to_life(make_mfad: Callable[..., Mfad], tmp_path: Path) -> None:
    """Row 8: neither the one that was used nor one before it; the audit log says why. When the clock is right again, so is
    everything."""
    clock = Clock(tmp_path / "offset")
    mfad = make_mfad()
    mfad.start(**clock.environment())
    person = mfad.person()
    used = person.next_code()
    assert answer(mfad, person, used).code == PamCode.SUCCESS

    for minutes in (1, 20):
        clock.set(-60 * minutes)
        then = int(time.time()) // 30 - 2 * minutes
        assert answer(mfad, person, used).code == PamCode.AUTH_ERR
        assert answer(mfad, person, person.code_at(then)).code == PamCode.AUTH_ERR
    assert "the clock is behind the last accepted step" in mfad.mfactl("audit", "export")
    clock.set(0)
    mfad.mfactl("user", "unlock", person.name)
    assert answer(mfad, person, used).code == PamCode.AUTH_ERR
    assert answer(mfad, person, person.next_code()).code == PamCode.SUCCESS
    mfad.mfactl("audit", "verify")


@pytest.mark.parametrize(
    "text",
    ["role: [", "role: standalone\nsurprise: 1\n", "\0\1\2", "policy: [{id: x, exempt: maybe}]\n"],
    ids=["half a file", "unknown key", "no text", "half a rule"],
)
def test_broken_configuration_changes_nothing_in_a_running_mfad(mfad: Mfad, person: Person, text: str) -> None:
    """SIGHUP with a half-written file: the log says what is wrong, logins go on under the old one."""
    good = mfad.config_path.read_text()
    refused = "the configuration was not reloaded"
    before = mfad.log().count(refused)
    try:
        mfad.config_path.write_text(text)
        mfad.signal_reload()
        wait_until(lambda: mfad.log().count(refused) > before, "mfad refuses it")
        assert answer(mfad, person, person.next_code()).code == PamCode.SUCCESS
    finally:
        mfad.config_path.write_text(good)
        mfad.reload()
