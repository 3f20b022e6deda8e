"""The life of the daemon as a service manager sees it: exit codes, readiness, signals, an old copy of the store."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.daemon import Mfad
from tests.end_to_end.programs import clean_environment, wait_until
from tests.pam_mfa.pam_harness import PamCode, auth_line, run_pam

EX_CONFIG, EX_UNAVAILABLE = 78, 69


@pytest.fixture
def mfad(tmp_path: Path) -> Iterator[Mfad]:
    """An installation without users, not started."""
    one = Mfad(tmp_path / "m")
    one.init()
    yield one
    one.close()


def run_to_its_end(mfad: Mfad, *words: str) -> subprocess.CompletedProcess[str]:
    """Run mfad where it is expected to end by itself."""
    return subprocess.run(
        [sys.executable, "-m", "mfad", "--config", str(mfad.config_path), *words],
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def login(mfad: Mfad, user: str, answer: str) -> int:
    """One login through the real module."""
    return run_pam([auth_line(socket_dir=mfad.socket_dir)], user, [answer]).code


def test_a_broken_configuration_ends_it_with_every_problem(mfad: Mfad) -> None:
    """An administrator mends them all at once, and systemd does not restart it for nothing (exit 78)."""
    mfad.config_path.write_text("role: nobody\nstate_dir: 7\ndoors: {radius: {}}\ntotp: {window: 9}\nnonsense: 1\n")

    ended = run_to_its_end(mfad)

    assert ended.returncode == EX_CONFIG
    for line, key in ((1, "role"), (2, "state_dir"), (3, "doors.radius"), (4, "totp.window"), (5, "nonsense")):
        assert f"mfad.yaml:{line}: {key}" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_check_says_good_and_touches_nothing(mfad: Mfad) -> None:
    """``--check`` before a reload."""
    checked = run_to_its_end(mfad, "--check")

    assert (checked.returncode, checked.stderr) == (0, "")
    assert "good" in checked.stdout
    assert not mfad.socket_dir.exists()


def test_check_reads_the_files_of_the_radius_door(mfad: Mfad) -> None:
    """A secret that is absent and an attribute that nobody knows are told before a reload, not at it."""
    mfad.config_path.write_text(
        "doors:\n  radius:\n    clients: [{name: nas, network: 192.0.2.1, secret_file: absent}]\n"
        "    reply: [{attributes: {Filtr-Id: vpn}}]\n"
    )

    checked = run_to_its_end(mfad, "--check")

    assert checked.returncode == EX_CONFIG
    assert "mfad.yaml:3: doors.radius.clients[0].secret_file" in checked.stderr
    assert "mfad.yaml:4: doors.radius.reply[0].attributes.Filtr-Id" in checked.stderr
    assert "Traceback" not in checked.stderr


def test_check_reads_the_certificates_of_the_radius_door(mfad: Mfad) -> None:
    """They would end a start and refuse a reload."""
    mfad.config_path.write_text(
        "doors:\n  radius:\n    listen: ['tls://127.0.0.1:2083']\n    clients: [{name: nas, tls: {subject: [nas.example]}}]\n"
        "    tls: {certificate_file: absent.pem, key_file: absent.key, client_ca_file: absent-ca.pem}\n"
    )

    checked = run_to_its_end(mfad, "--check")

    assert checked.returncode == EX_CONFIG
    assert "doors.radius.tls: certificate_file and key_file cannot be used: No such file or directory" in checked.stderr
    assert "Traceback" not in checked.stderr


def test_check_reads_the_files_of_the_first_factor_and_warns(mfad: Mfad) -> None:
    """What is weak is said where it is asked for, and not at the start alone."""
    secret = mfad.config_path.with_name("nas.secret")
    secret.write_text("a secret of the client's")
    secret.chmod(0o600)
    door = (
        "doors:\n  radius:\n    listen: ['127.0.0.1:1812']\n"
        f"    clients: [{{name: nas, network: 127.0.0.1, secret_file: {secret}, require_message_authenticator: 'no'}}]\n"
    )
    mfad.config_path.write_text(door)
    good = run_to_its_end(mfad, "--check")
    mfad.config_path.write_text(f"{door}    primary: {{type: radius, servers: ['127.0.0.1:1812'], secret_file: absent}}\n")
    bad = run_to_its_end(mfad, "--check")

    assert good.returncode == 0
    assert "warning: RADIUS client 'nas'" in good.stderr
    assert bad.returncode == EX_CONFIG
    assert "absent" in bad.stderr
    assert "Traceback" not in bad.stderr


def test_a_missing_store_ends_it_with_the_cure(mfad: Mfad) -> None:
    """Fail closed, and say what to do."""
    shutil.rmtree(mfad.directory / "state")

    ended = run_to_its_end(mfad)

    assert ended.returncode == EX_UNAVAILABLE
    assert "mfactl init" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_key_of_another_store_ends_it(mfad: Mfad, tmp_path: Path) -> None:
    """With the wrong key nothing could be verified."""
    other = Mfad(tmp_path / "other")
    other.init()
    shutil.copy(other.directory / "kek", mfad.directory / "kek")

    ended = run_to_its_end(mfad)

    assert ended.returncode == EX_CONFIG
    assert "the store was sealed under key" in ended.stderr


def test_sigterm_ends_it_with_0(mfad: Mfad) -> None:
    """The contract with whoever starts it."""
    mfad.start()

    assert mfad.stop() == 0


def test_systemd_hears_ready_reload_and_stop(mfad: Mfad, tmp_path: Path) -> None:
    """``Type=notify-reload``: READY when the doors listen, RELOADING and READY around a reload, STOPPING at the end."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(30)
        mfad.start(NOTIFY_SOCKET=str(tmp_path / "notify"))
        assert manager.recv(4096) == b"READY=1"
        mfad.reload()
        assert manager.recv(4096).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
        assert manager.recv(4096) == b"READY=1"
        mfad.stop()
        assert manager.recv(4096) == b"STOPPING=1"


def test_a_broken_reload_changes_nothing(mfad: Mfad) -> None:
    """A half-written file must not lock everybody out, nor open anything."""
    person = mfad.enrol("alice")
    mfad.start()
    good = mfad.config_path.read_text()
    mfad.config_path.write_text(good[: len(good) // 2] + "\npolicy: [{id: open, exe")
    mfad.signal_reload()
    wait_until(lambda: "not reloaded" in mfad.log(), "the log says that the reload failed")

    assert login(mfad, "alice", person.wrong_code()) == PamCode.AUTH_ERR
    assert login(mfad, "alice", person.next_code()) == PamCode.SUCCESS


def test_a_reload_brings_a_new_policy(mfad: Mfad) -> None:
    """SIGHUP is enough for what may change while running."""
    mfad.start()
    mfad.configure({"policy": [{"id": "closed", "when": {"user": "carol"}, "deny": True}]})
    mfad.reload()

    refused = run_pam([auth_line(socket_dir=mfad.socket_dir)], "carol", [])

    assert refused.code == PamCode.PERM_DENIED


def test_a_key_that_needs_a_restart_is_named_as_long_as_it_differs(mfad: Mfad) -> None:
    """From what runs, not from what was read last."""
    mfad.start()
    told = []
    for size in (100, 100, 4096):
        mfad.configure({"limits": {"verification_queue": size}})
        mfad.reload()
        told.append(mfad.log().count("restart mfad for limits.verification_queue"))

    assert told == [1, 2, 2]


def test_an_old_copy_of_the_store_is_refused(mfad: Mfad) -> None:
    """A file copied back by hand would accept codes again that were used since (core-5-56)."""
    person = mfad.enrol("alice")
    old = mfad.directory / "old"
    shutil.copytree(mfad.directory / "state", old)
    mfad.start()
    assert login(mfad, "alice", person.next_code()) == PamCode.SUCCESS
    mfad.stop()
    for name in ("mfad.sqlite", "mfad.sqlite-wal", "mfad.sqlite-shm"):
        (mfad.directory / "state" / name).unlink(missing_ok=True)
        if (old / name).exists():
            shutil.copy(old / name, mfad.directory / "state" / name)

    ended = run_to_its_end(mfad)

    assert ended.returncode == EX_UNAVAILABLE
    assert "old copy" in ended.stderr
    assert "mfactl restore" in ended.stderr
