"""The PAM door over real sockets, with a scripted gate."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import socket
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import uvloop

from mfa_core.errors import ConfigurationError
from mfa_core.secret import Secret
from mfa_core.verdict import Accepted, Pending
from pam_mfa.settings import Mode, ServiceSettings
from pam_mfa.wire import (
    Answer,
    Ask,
    Begin,
    Cancel,
    Error,
    Info,
    Log,
    Phase,
    Result,
    SetAuthtok,
    Wait,
    decode_ops,
    encode_answer,
    encode_begin,
)
from tests.pam_mfa.doubles import (
    ACCEPTED,
    CODE,
    FakeClock,
    Module,
    RunningDoor,
    ScriptedGate,
    answer,
    ask,
    begin,
    only,
    result,
    running_door,
)
from tests.pam_mfa.pam_harness import socket_directory

NOBODY = 65_534


@pytest.fixture
def directory() -> Iterator[Path]:
    with socket_directory() as made:
        yield made


@pytest.fixture(params=["asyncio", "uvloop"])
def door(request: pytest.FixtureRequest, directory: Path) -> Iterator[RunningDoor]:
    factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop
    with running_door(directory, loop_factory=factory) as running:
        yield running


def test_a_right_code_is_success(door: RunningDoor, directory: Path) -> None:
    """BEGIN, prompt, code, PAM_SUCCESS, and the daemon hangs up."""
    with Module(directory) as module:
        assert module.exchange(begin()) == (Ask("Verification code: "),)

        assert module.exchange(answer(CODE)) == (Result(0),)

        assert module.hung_up()
    assert door.gate.attempts[1].challenge_id == "c1"


def test_a_wrong_code_is_auth_err(door: RunningDoor, directory: Path) -> None:
    with Module(directory) as module:
        module.exchange(begin())

        ops = module.exchange(answer(b"000000"))

    assert [type(op) for op in ops] == [Error, Log, Result]
    assert result(ops) == 7


def test_many_at_once_disturb_nobody(door: RunningDoor, directory: Path) -> None:
    """Sixteen threads, each its own answers: no answer goes astray."""

    def log_in(number: int) -> int | None:
        with Module(directory) as module:
            module.exchange(begin(b"user%d" % number))
            return result(module.exchange(answer(CODE if number % 2 else b"000000")))

    with ThreadPoolExecutor(16) as threads:
        codes = list(threads.map(log_in, range(200)))

    assert codes == [0 if number % 2 else 7 for number in range(200)]
    door.until(lambda: not door.door._connections)
    assert door.door._by_uid == {}
    assert door.door._by_user == {}


def test_one_slow_decision_delays_nobody_else(door: RunningDoor, directory: Path) -> None:
    hold = door.call(asyncio.Event)
    door.gate.hold = hold  # type: ignore[assignment]
    with Module(directory) as slow, Module(directory) as quick:
        slow.exchange(begin())
        slow.send(answer(CODE))
        door.until(lambda: door.gate.holding == 1)

        assert quick.exchange(begin(b"bob")) == (Ask("Verification code: "),)

        door.loop.call_soon_threadsafe(hold.set)  # type: ignore[attr-defined]
        assert result(slow.receive()) == 0


# Bad peers


JUNK = [
    b"\x00",
    b"MFA1",
    b"GET / HTTP/1.1\r\n\r\n",
    b"MFA1\x00\x02\x00\x01",
    bytes(range(64)),
    b"x" * 20_000,
    encode_begin(begin())[:-1],
    encode_answer(answer(CODE)),
]


@pytest.mark.parametrize("junk", JUNK, ids=lambda junk: repr(junk[:12]))
def test_junk_gets_service_err_and_is_hung_up_on(door: RunningDoor, directory: Path, junk: bytes) -> None:
    with Module(directory) as module:
        ops = module.exchange(junk)

        assert result(ops) == 3
        assert only(ops, Log)
        assert module.hung_up()
    with Module(directory) as module:
        assert only(module.exchange(begin()), Ask)


def test_junk_in_mid_dialogue_ends_it(door: RunningDoor, directory: Path) -> None:
    with Module(directory) as module:
        module.exchange(begin())

        assert result(module.exchange(begin())) == 3


def test_junk_is_logged_once_and_counted(door: RunningDoor, directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "mfad.pam"):
        for _ in range(50):
            with Module(directory) as module:
                module.exchange(b"junk")

    assert len(caplog.records) == 1
    assert "junk" not in caplog.text
    assert door.door.counters.junk == 50


def test_a_peer_that_says_nothing_is_hung_up_on(directory: Path) -> None:
    clock = FakeClock()
    with running_door(directory, clock=clock) as door, Module(directory) as module:
        door.until(lambda: len(door.door._connections) == 1)
        door.call(door.door.sweep)
        clock.advance(5.1)

        door.call(door.door.sweep)

        assert result(module.receive()) == 9
        assert module.hung_up()
        assert door.door.counters.deadlines == 1


def test_a_person_who_does_not_answer_is_hung_up_on_after_the_modules_timeout(directory: Path) -> None:
    clock = FakeClock()
    with running_door(directory, clock=clock) as door, Module(directory) as module:
        module.exchange(begin(options=(b"timeout=20",)))
        clock.advance(19.9)
        door.call(door.door.sweep)
        assert len(door.door._connections) == 1

        clock.advance(0.2)
        door.call(door.door.sweep)

        assert result(module.receive()) == 9


def test_a_slow_decision_makes_the_module_wait_and_then_give_up(directory: Path) -> None:
    """The module leaves after 5 s without a word; a primary backend may take longer."""
    clock, gate = FakeClock(), ScriptedGate()
    with running_door(directory, gate, clock=clock, decision_s=30.0) as door, Module(directory) as module:
        gate.hold = door.call(asyncio.Event)  # type: ignore[assignment]
        module.exchange(begin())
        module.send(answer(CODE))
        door.until(lambda: gate.holding == 1)

        clock.advance(3.1)
        door.call(door.door.sweep)
        door.call(door.door.sweep)
        assert module.receive() == (Wait(30),)

        clock.advance(27.0)
        door.call(door.door.sweep)
        assert result(module.receive()) == 9
        assert door.gate.holding == 1, "the decision itself is not cancelled"

        assert gate.hold is not None
        door.loop.call_soon_threadsafe(gate.hold.set)
        door.until(lambda: door.door.counters.dropped_verdicts == 1)
        assert not door.door._connections


def test_a_hang_up_while_deciding_frees_the_socket_and_drops_the_verdict(door: RunningDoor, directory: Path) -> None:
    """sshd's LoginGraceTime ends the module. A spend that is under way is finished, and answers nobody."""
    hold = door.call(asyncio.Event)
    door.gate.hold = hold  # type: ignore[assignment]
    with Module(directory) as module:
        module.exchange(begin())
        module.send(answer(CODE))
        door.until(lambda: door.gate.holding == 1)

    door.until(lambda: door.door.counters.hang_ups == 1)
    (connection,) = door.door._connections
    assert not connection.open
    assert connection.socket.fileno() == -1

    door.loop.call_soon_threadsafe(hold.set)  # type: ignore[attr-defined]
    door.until(lambda: not door.door._connections)
    assert door.door.counters.dropped_verdicts == 1


def test_a_hang_up_at_the_prompt_frees_everything(door: RunningDoor, directory: Path) -> None:
    with Module(directory) as module:
        module.exchange(begin())

    door.until(lambda: not door.door._connections)
    assert door.door._by_user == {}


def test_a_peer_that_never_reads_is_dropped(door: RunningDoor, directory: Path) -> None:
    """It connects, speaks and closes at once, a thousand times: nothing is left of it."""
    for _ in range(1_000):
        with Module(directory) as module:
            module.send(begin())

    door.until(lambda: not door.door._connections and door.door.counters.accepted == 1_000)
    assert door.door.counters.crashes == 0


# Mistakes of ours


def test_a_gate_that_raises_is_no_answer_and_no_crash(directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    gate = ScriptedGate(RuntimeError("boom"))
    with running_door(directory, gate) as door, Module(directory) as module:
        with caplog.at_level(logging.ERROR, "mfad.pam"):
            assert result(module.exchange(begin())) == 9

        assert "boom" in caplog.text
        assert door.door.counters.crashes == 1


def test_a_text_that_the_wire_cannot_carry_costs_this_login_only(directory: Path) -> None:
    """A notice is cut; a password with NUL cannot be cut, so the login is refused."""
    gate = ScriptedGate(ask(), Accepted("e", "totp", "1", password=Secret(b"a\0b")))
    with running_door(directory, gate) as door:
        with Module(directory) as module:
            module.exchange(begin())
            assert result(module.exchange(answer(CODE))) == 3
        assert door.door.counters.crashes == 1
        with Module(directory) as module:
            assert only(module.exchange(begin()), Ask)


# Bounds


def test_more_conversations_than_allowed_are_turned_away(directory: Path) -> None:
    with running_door(directory, max_conversations=2) as door, Module(directory) as one, Module(directory) as two:
        one.exchange(begin())
        two.exchange(begin(b"bob"))

        with Module(directory) as three:
            door.until(lambda: door.door.counters.overloaded == 1)
            assert result(three.receive()) == 9
            assert three.hung_up()

        one.exchange(answer(CODE))
        door.until(lambda: len(door.door._connections) == 1)
        with Module(directory) as three:
            assert only(three.exchange(begin(b"carol")), Ask)


def test_one_user_name_does_not_take_all_the_room(directory: Path) -> None:
    with running_door(directory, max_conversations_per_user=2), Module(directory) as one, Module(directory) as two:
        one.exchange(begin())
        two.exchange(begin())

        with Module(directory) as three:
            assert result(three.exchange(begin())) == 9
        with Module(directory) as other:
            assert only(other.exchange(begin(b"bob")), Ask)

        two.exchange(answer(CODE))
        with Module(directory) as three:
            assert only(three.exchange(begin()), Ask)


def test_running_out_of_descriptors_is_survived(directory: Path) -> None:
    """Peers wait in the queue until there is room again; the loop does not spin and the door does not die."""
    with running_door(directory) as door:
        waiting = Module(directory)
        waiting.exchange(begin())
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        client.settimeout(10)
        resource.setrlimit(resource.RLIMIT_NOFILE, (client.fileno() + 1, hard))
        fillers = []
        try:
            while True:
                try:
                    fillers.append(os.dup(client.fileno()))
                except OSError:
                    break
            client.connect(str(directory / "priv.sock"))
            client.send(encode_begin(begin(b"bob")))
            door.until(lambda: door.door._complained_at > 0)
            assert result(waiting.exchange(answer(CODE))) == 0
        finally:
            for filler in fillers:
                os.close(filler)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

        assert only(decode_ops(client.recv(20_000)), Ask)
        client.close()
        waiting.socket.close()


# Whose process it is


CHILD = """
import socket, sys
module = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
module.settimeout(10)
try:
    module.connect(sys.argv[1])
    for message in sys.argv[2:]:
        module.send(bytes.fromhex(message))
        print(module.recv(20_000).hex())
except OSError as error:
    print(type(error).__name__)
"""


def as_nobody(path: Path, *messages: Begin | Answer | Cancel) -> list[str]:
    """What an unprivileged process reads after each message; the name of its error where there was one."""
    if os.geteuid() != 0:
        assert not os.environ.get("CI"), "CI runs these tests as root"
        pytest.skip("needs root, to become somebody else")
    encoded = [encode_begin(one) if isinstance(one, Begin) else encode_answer(one) for one in messages]
    done = subprocess.run(
        ["/usr/bin/python3", "-I", "-S", "-c", CHILD, path, *(one.hex() for one in encoded)],
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        cwd="/",
    )
    return done.stdout.split()


def test_a_user_verifies_itself_on_the_user_socket(door: RunningDoor, directory: Path) -> None:
    prompt, end = as_nobody(directory / "user.sock", begin(b"nobody", b"i3lock", rhost=b"192.0.2.1"), answer(CODE))

    assert only(decode_ops(bytes.fromhex(prompt)), Ask)
    assert decode_ops(bytes.fromhex(end)) == (Result(0),)
    assert {attempt.source for attempt in door.gate.attempts} == {None}


def test_a_user_cannot_verify_another(door: RunningDoor, directory: Path) -> None:
    (end,) = as_nobody(directory / "user.sock", begin(b"root"))

    assert result(decode_ops(bytes.fromhex(end))) == 6
    assert door.gate.attempts == []


def test_a_user_gets_no_password_and_brings_none(directory: Path) -> None:
    gate = ScriptedGate(ask(), Accepted("e", "totp", "1", password=Secret(b"hunter2")))
    combined = ServiceSettings(mode=Mode.COMBINED)
    with running_door(directory, gate, default_service=combined):
        first, end = as_nobody(
            directory / "user.sock",
            begin(b"nobody", authtok=Secret(b"hunter2123456"), options=(b"try_first_pass",)),
            answer(b"hunter2123456"),
        )

    assert only(decode_ops(bytes.fromhex(first)), Ask)
    assert decode_ops(bytes.fromhex(end)) == (Result(0),)


def test_a_user_cannot_open_the_privileged_socket(door: RunningDoor, directory: Path) -> None:
    assert as_nobody(directory / "priv.sock", begin(b"nobody")) == ["PermissionError"]


def test_a_user_who_got_at_the_privileged_socket_is_refused_there_too(door: RunningDoor, directory: Path) -> None:
    """A wrong chmod is not enough to ask about others: SO_PEERCRED says who it is."""
    (directory / "priv.sock").chmod(0o666)

    (end,) = as_nobody(directory / "priv.sock", begin(b"root"))

    # PERM_DENIED, or the reset where the refusal overtook BEGIN
    assert end in ("ConnectionResetError", "BrokenPipeError") or result(decode_ops(bytes.fromhex(end))) == 6
    assert door.gate.attempts == []


def test_a_user_who_comes_too_often_is_slowed_down(directory: Path) -> None:
    with running_door(directory, uid_burst=2, uid_interval_s=1_000.0) as door:
        for _ in range(3):
            as_nobody(directory / "user.sock", begin(b"nobody"))

        assert door.door.counters.rate_limited == 1


MANY_UIDS = """
import os, socket, sys
held = []
for uid in range(100_000, 100_000 + int(sys.argv[2])):
    os.seteuid(uid)
    one = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    one.connect(sys.argv[1])
    os.seteuid(0)
    held.append(one)
print("held", flush=True)
sys.stdin.read()
"""


def test_ordinary_users_together_leave_room_for_root(directory: Path) -> None:
    """Somebody with subordinate uids is as many users as he likes: sshd and su are answered all the same."""
    if os.geteuid() != 0:
        assert not os.environ.get("CI"), "CI runs these tests as root"
        pytest.skip("needs root, to become others")
    with running_door(directory, max_conversations=8, begin_s=60.0) as door:
        crowd = subprocess.Popen(
            ["/usr/bin/python3", "-I", "-S", "-c", MANY_UIDS, directory / "user.sock", "20"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        with crowd:
            assert crowd.stdout is not None
            assert crowd.stdin is not None
            crowd.stdout.readline()
            door.until(lambda: door.door.counters.overloaded == 16)

            with Module(directory) as module:
                assert only(module.exchange(begin()), Ask)
            crowd.stdin.close()


def test_root_is_not_slowed_down(directory: Path) -> None:
    if os.geteuid() != 0:
        assert not os.environ.get("CI"), "CI runs these tests as root"
        pytest.skip("needs root")
    with running_door(directory, uid_burst=1, uid_interval_s=1_000.0):
        for _ in range(5):
            with Module(directory, "user.sock") as module:
                assert only(module.exchange(begin(b"anybody")), Ask)


def test_a_hanging_user_database_stalls_nobody_on_the_privileged_socket(directory: Path) -> None:
    released = threading.Event()

    def look_up(uid: int) -> bytes | None:
        released.wait(30)
        return b"nobody"

    with running_door(directory, look_up=look_up) as door, ThreadPoolExecutor(1) as threads:
        stalled = threads.submit(as_nobody, directory / "user.sock", begin(b"nobody"))
        try:
            door.until(lambda: len(door.door._connections) == 1)
            with Module(directory) as module:
                assert only(module.exchange(begin()), Ask)
        finally:
            released.set()
        assert only(decode_ops(bytes.fromhex(stalled.result(30)[0])), Ask)


# Reload and stop


def test_a_reload_changes_the_next_conversation_and_not_this_one(door: RunningDoor, directory: Path) -> None:
    with Module(directory) as old:
        old.exchange(begin(b"alice", b"su"))
        settings = replace(door.settings, default_service=ServiceSettings(attempts=2, prompt="New: "))
        door.call(lambda: door.door.reload(settings))

        with Module(directory) as later:
            assert later.exchange(begin()) == (Ask("New: "),)
        assert result(old.exchange(answer(b"000000"))) == 7, "the old settings allow one attempt"


def test_stopping_lets_conversations_finish(directory: Path) -> None:
    with running_door(directory) as door, Module(directory) as module:
        module.exchange(begin())
        stopping = asyncio.run_coroutine_threadsafe(door.door.stop(grace_s=30.0), door.loop)
        door.until(lambda: door.door._listeners is None)
        with pytest.raises((ConnectionRefusedError, FileNotFoundError)):
            Module(directory)

        assert result(module.exchange(answer(CODE))) == 0

        stopping.result(10)
    assert not (directory / "priv.sock").exists()


def test_stopping_refuses_those_who_do_not_finish(directory: Path) -> None:
    with running_door(directory) as door, Module(directory) as module:
        module.exchange(begin())

        door.await_(door.door.stop(grace_s=0.01))

        assert result(module.receive()) == 9
        assert module.hung_up()


def test_a_second_daemon_does_not_take_the_sockets(door: RunningDoor, directory: Path) -> None:
    with pytest.raises(ConfigurationError, match="another mfad answers"), running_door(directory):
        pass

    with Module(directory) as module:
        assert only(module.exchange(begin()), Ask)


# Other dialogues, end to end


def test_an_out_of_band_factor_is_polled(directory: Path) -> None:
    gate = ScriptedGate(ask(), Pending("p", "Approve 47", 2e9), ACCEPTED)
    with running_door(directory, gate), Module(directory) as module:
        module.exchange(begin(options=(b"timeout=60",)))

        assert module.exchange(answer(b"push")) == (Info("Approve 47"), Wait(60))
        assert module.receive() == (Result(0),)
    assert [attempt.challenge_id for attempt in gate.attempts] == ["", "c1", "p"]


def test_the_account_phase(door: RunningDoor, directory: Path) -> None:
    with Module(directory) as module:
        assert result(module.exchange(begin(phase=Phase.ACCOUNT, options=(b"require_mfa",)))) == 6
    with Module(directory) as module:
        assert result(module.exchange(begin(service=b"cron", phase=Phase.ACCOUNT, options=(b"require_mfa",)))) == 0


def test_combined_hands_the_password_on(directory: Path) -> None:
    gate = ScriptedGate(ask(), Accepted("e", "totp", "1", password=Secret(b"hunter2")))
    with running_door(directory, gate, default_service=ServiceSettings(mode=Mode.COMBINED)), Module(directory) as module:
        module.exchange(begin())

        ops = module.exchange(answer(b"hunter2123456"))

    assert [op.password.reveal() for op in only(ops, SetAuthtok)] == [b"hunter2"]
    assert result(ops) == 0


def test_no_secret_reaches_the_log(door: RunningDoor, directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        for text in (b"739104", b"hunter2"):
            with Module(directory) as module:
                module.exchange(begin(authtok=Secret(b"hunter2"), options=(b"try_first_pass",)))
                module.exchange(answer(text))
        with Module(directory) as module:
            module.exchange(b"hunter2 739104")

    assert "739104" not in caplog.text
    assert "hunter2" not in caplog.text
