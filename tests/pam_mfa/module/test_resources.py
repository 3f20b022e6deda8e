"""What is left behind in the caller? Nothing: no descriptor, no memory, no handler, no secret on the stack."""

from __future__ import annotations

import gc
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.pam_mfa import fake_mfad as wire
from tests.pam_mfa.fake_mfad import FakeMfad, Handler, Peer, ops, prompt, result
from tests.pam_mfa.module.driver import drive
from tests.pam_mfa.pam_harness import Always, Broken, PamCode, account_line, auth_line, build, probe_line, run_pam

FULL = [
    ops(wire.info("Welcome"), wire.error("Careful"), prompt("Password: "), prompt()),
    ops(wire.wait(5)),
    ops(wire.set_authtok("secret"), wire.putenv("MFA_METHOD=totp"), wire.log(6, "accepted"), result(0)),
]
ANSWERS = ["secret", "123456"]


def lines(directory: Path) -> list[str]:
    return [auth_line("try_first_pass", socket_dir=directory), account_line("require_mfa", socket_dir=directory)]


def closes_before_the_answer(peer: Peer) -> None:
    peer.begin()
    peer.send(ops(prompt()))


# Every way out of a phase, with the script that leads there.
WAYS_OUT: dict[str, Sequence[bytes] | Handler] = {
    "success": FULL,
    "ignore": [ops(result(25))],
    "refused": [ops(prompt("Password: "), prompt()), ops(result(7))],
    "protocol error": [ops(prompt("Password: "), prompt()), b"MFA1"],
    "too long": [ops(prompt("Password: "), prompt()), b"M" * 20_000],
    "closed": closes_before_the_answer,
    "bad variable": [ops(wire.set_authtok("secret"), wire.putenv("PATH=x"), result(0))],
}


def test_a_thousand_transactions_leave_no_descriptor(directory: Path) -> None:
    """1,000 logins in one process, through every way out."""
    gc.collect()  # what other tests have left in this process goes first
    before = os.listdir("/proc/self/fd")
    for script in WAYS_OUT.values():
        with FakeMfad(directory, script):
            for _ in range(1000 // len(WAYS_OUT) + 1):
                run_pam(lines(directory), "alice", [Always("123456")])

    assert len(os.listdir("/proc/self/fd")) == len(before)


@pytest.mark.parametrize("way", WAYS_OUT)
def test_no_byte_and_no_descriptor_is_lost(directory: Path, way: str) -> None:
    """Valgrind on a C program: no error, no definite or indirect leak, whatever the way out."""
    with FakeMfad(directory, WAYS_OUT[way]):
        driven = drive(
            lines(directory),
            "alice",
            ANSWERS,
            options=["-n", "5", "-a", "-p"],
            under=[
                *("valgrind", "--quiet", "--error-exitcode=99", "--leak-check=full", "--show-leak-kinds=definite,indirect"),
                *("--errors-for-leak-kinds=definite,indirect", "--track-fds=no", "--keep-debuginfo=yes"),
            ],
        )

    assert len(driven.auth) == 5
    assert driven.facts["fds"] == "same"


@pytest.mark.parametrize("way", WAYS_OUT)
def test_sanitizers_find_nothing_in_a_c_program(directory: Path, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """ASan, UBSan and LSan on both the program and the module, 50 logins each."""
    asan = build("driver-asan") / "asan"
    monkeypatch.setenv("PAM_MFA_MODULE", str(asan / "pam_mfa.so"))
    with FakeMfad(directory, WAYS_OUT[way]):
        driven = drive(lines(directory), "alice", ANSWERS, options=["-n", "50", "-a"])

    assert len(driven.auth) == 50


@pytest.mark.parametrize("way", WAYS_OUT)
def test_signals_of_the_caller_are_as_they_were(directory: Path, way: str) -> None:
    """SIGPIPE at its default kills nobody, and no handler or mask is changed."""
    with FakeMfad(directory, WAYS_OUT[way]):
        driven = drive(lines(directory), "alice", ANSWERS, options=["-n", "20", "-a"])

    assert (driven.facts["signals"], driven.facts["fds"]) == ("same", "same")


def test_closed_standard_input_stays_free(directory: Path) -> None:
    """A caller that runs without descriptor 0 does not find mfad's socket there."""
    with FakeMfad(directory, FULL):
        driven = drive(lines(directory), "alice", ANSWERS, options=["-c"])

    assert driven.auth == [PamCode.SUCCESS]
    assert driven.facts["stdin"] == "free"


def test_no_descriptor_left_is_unavailable_not_a_login(directory: Path) -> None:
    """EMFILE in the caller is fail closed, and logged."""
    stack = [probe_line("nofile=3"), auth_line(socket_dir=directory)]
    with FakeMfad(directory, [ops(result(0))]) as mfad:
        driven = drive(stack, "alice")

    assert driven.auth in ([PamCode.AUTHINFO_UNAVAIL], [PamCode.SYSTEM_ERR])  # the latter when libpam cannot audit, either
    assert "mfad unavailable: socket: Too many open files" in driven.logs[0][1]
    assert mfad.begins == []


def test_hostile_environment_has_no_effect(directory: Path) -> None:
    """What a caller of su or sudo can set changes neither what is said to mfad nor what comes back."""
    hostile = {
        "SSH_CONNECTION": "10.0.0.1 1 10.0.0.2 22",
        "SSH_AUTH_INFO_0": "publickey sk-ssh-ed25519 AAAA",
        "MFA_SOCKET_DIR": "/tmp",
        "PYTHONPATH": "/tmp",
        "PYTHONSTARTUP": "/tmp/x.py",
        "HOME": "/tmp",
        "TMPDIR": "/tmp",
        "LANG": "tr_TR.UTF-8",
        "LC_ALL": "tr_TR.UTF-8",
        "TZ": ":/etc/shadow",
        "MALLOC_PERTURB_": "165",
        "PAM_USER": "root",
        "USER": "root",
        "LOGNAME": "root",
    }
    with FakeMfad(directory, FULL) as mfad:
        plain = drive(lines(directory), "alice", ANSWERS, options=["-p"])
        odd = drive(lines(directory), "alice", ANSWERS, options=["-p"], env=hostile)

    assert (plain.auth, plain.shown, plain.logs) == (odd.auth, odd.shown, odd.logs)
    assert mfad.begins[0] == mfad.begins[1]
    assert mfad.begins[0].get(wire.SSH_CONNECTION) == b"192.0.2.1 40000 192.0.2.2 22"


def test_no_file_is_opened_and_no_process_started(directory: Path) -> None:
    """strace from the socket on: until it is closed there is no call that opens, executes, forks or changes the process."""
    trace = directory / "trace"
    with FakeMfad(directory, FULL):
        drive(lines(directory), "alice", ANSWERS, under=["strace", "-f", "-o", str(trace)])
    calls = [line.split(maxsplit=1)[1] for line in trace.read_text().splitlines()]
    start = next(at for at, call in enumerate(calls) if call.startswith("socket(AF_UNIX, SOCK_SEQPACKET|"))
    end = next(at for at, call in enumerate(calls) if at > start and call.startswith("close("))

    used = {call.partition("(")[0] for call in calls[start:end]}
    allowed = {"connect", "getsockopt", "poll", "recvfrom", "sendto", "socket"}
    of_the_caller = {"write", "fcntl", "brk", "mmap", "getpid", "geteuid", "getuid"}  # printing, and the heap
    assert used <= allowed | of_the_caller
    assert any("SOCK_SEQPACKET|SOCK_CLOEXEC|SOCK_NONBLOCK" in call for call in calls)
    assert all("MSG_NOSIGNAL" in call for call in calls[start:end] if call.startswith("sendto("))


def test_answers_that_are_not_there_are_survived(directory: Path) -> None:
    """The callers that crash other modules, under whatever build is tested."""
    for broken in Broken:
        with FakeMfad(directory, [ops(wire.prompt_on()), ops(result(7))]):
            assert run_pam([auth_line(socket_dir=directory)], "alice", [broken]).code == PamCode.AUTH_ERR


@pytest.mark.parametrize("way", ["success", "refused", "protocol error", "closed"])
def test_stack_holds_no_answer_afterwards(directory: Path, way: str) -> None:
    """A module behind ours scans the stack that ours has used: neither answers nor passwords are there, however it ended."""
    secrets = ["s3cret-passw0rd", "917364-code", "4uthtok-of-stack"]
    stack = [
        probe_line(f"set_reversed={secrets[2][::-1]}"),
        auth_line("try_first_pass", socket_dir=directory),
        probe_line(*[f"stack={secret[::-1]}" for secret in secrets]),
    ]
    with FakeMfad(directory, WAYS_OUT[way]) as mfad:
        driven = drive(stack, "alice", secrets[:2], options=["-s"])

    assert mfad.begins[0].get(wire.AUTHTOK) == secrets[2].encode()
    assert driven.facts["stack"] == "clean"
