"""The LDAP door in the daemon: from a file to a bind, in one process and in several, beside other doors."""

from __future__ import annotations

import http.client
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ldap_proxy.settings import LdapDoorSettings, Limits, UpstreamSettings
from mfad.ldap import make_room_for_connections
from tests.end_to_end.daemon import CROWD, Mfad, Person
from tests.end_to_end.programs import clean_environment, must_have, wait_until
from tests.end_to_end.radius_certificates import Authority
from tests.end_to_end.slapd import PEOPLE, PROGRAMS, SERVICE_DN, SERVICE_PASSWORD, Slapd

PASSWORD = "the directory's password"
CROWD_SIZE = 40
OK, INVALID_CREDENTIALS = 0, 49
EX_CONFIG = 78


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slapd]:
    must_have(*PROGRAMS, "ldapwhoami")
    one = Slapd(tmp_path_factory.mktemp("directory") / "slapd", {f"{CROWD}{number}": PASSWORD for number in range(CROWD_SIZE)})
    one.start()
    yield one
    one.stop()


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Mfad:
    """With people in it, to be copied."""
    one = Mfad(tmp_path_factory.mktemp("installed") / "m")
    one.init()
    one.import_people({f"{CROWD}{number}": 6 for number in range(CROWD_SIZE)})
    return one


class Door:
    """A mfad in front of the directory, with ``keys`` in its LDAP section."""

    def __init__(self, place: Path, installed: Mfad, directory: Slapd, **more: Any) -> None:
        self.port, self.metrics_port = free_port(), free_port()
        self._directory = directory
        self.mfad = Mfad(place, self.settings())
        self.mfad.copy_from(installed)
        self.configure(**more)

    def settings(self, *, doors: dict[str, Any] | None = None, **keys: Any) -> dict[str, Any]:
        usual = {"listen": [f"ldap://127.0.0.1:{self.port}"], "upstream": [self._directory.url], "bind_log": "./binds.json"}
        return {
            "metrics": {"listen": f"127.0.0.1:{self.metrics_port}"},
            "doors": {"ldap": {**usual, **keys}, **(doors or {})},
        }

    def configure(self, **keys: Any) -> None:
        self.mfad.configure(self.settings(**keys))

    def bind(self, name: str, password: str) -> int:
        """The result of a bind as an application makes it."""
        url, dn = f"ldap://127.0.0.1:{self.port}", name if "=" in name else f"uid={name},{PEOPLE}"
        asked = subprocess.run(
            ["ldapwhoami", "-x", "-H", url, "-D", dn, "-w", password], env=clean_environment(), capture_output=True, text=True,
            timeout=60, check=False,
        )  # fmt: skip
        if asked.returncode == OK:
            assert asked.stdout.strip() == f"dn:{dn}"
        return asked.returncode

    def log_in(self, person: Person, separator: str = ",") -> int:
        return self.bind(person.name, f"{PASSWORD}{separator}{person.next_code()}")

    def lines(self, name: str = "binds.json") -> list[dict[str, Any]]:
        path = self.mfad.directory / name
        text = path.read_text() if path.exists() else ""
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def metrics(self) -> list[str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.metrics_port, timeout=20)
        try:
            connection.request("GET", "/metrics")
            return connection.getresponse().read().decode().splitlines()
        finally:
            connection.close()

    def workers(self) -> list[int]:
        """The processes that the daemon has started."""
        assert self.mfad._program is not None
        pid = self.mfad._program.pid
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.fixture
def door(installed: Mfad, directory: Slapd, tmp_path: Path) -> Iterator[Door]:
    one = Door(tmp_path / "m", installed, directory)
    one.mfad.start()
    yield one
    one.mfad.close()


@pytest.fixture
def shared(installed: Mfad, directory: Slapd, tmp_path: Path) -> Iterator[Door]:
    """A door that two processes serve."""
    one = Door(tmp_path / "m", installed, directory, workers=2)
    one.mfad.start()
    yield one
    one.mfad.close()


def check(mfad: Mfad) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mfad", "--config", str(mfad.config_path), "--check"],
        env=clean_environment(), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


# One process


def test_password_and_code_bind_and_the_password_alone_does_not(door: Door) -> None:
    """What it is all for."""
    person = door.mfad.person()

    assert door.bind(person.name, PASSWORD) == INVALID_CREDENTIALS
    assert door.log_in(person) == OK
    assert door.bind(person.name, f"a wrong one,{person.next_code()}") == INVALID_CREDENTIALS
    assert f"LDAP on ldap://127.0.0.1:{door.port}" in door.mfad.log()


def test_each_bind_has_a_line_that_only_mfad_can_read(door: Door) -> None:
    """And a number; neither has anything of the credential."""
    person = door.mfad.person()
    code = person.next_code()
    assert door.bind(person.name, f"{PASSWORD},{code}") == OK
    assert door.bind(person.name, PASSWORD) == INVALID_CREDENTIALS
    wait_until(lambda: len(door.lines()) == 2, "two lines")

    good, bad = door.lines()
    wanted = {"time", "kind", "event", "listener", "application", "source", "dn", "user", "outcome", "reason", "code"}
    assert wanted <= good.keys()
    assert good.keys() == bad.keys()
    assert (good["user"], good["outcome"], good["reason"], good["code"]) == (person.name, "accepted", "totp", 0)
    assert (bad["outcome"], bad["code"]) == ("rejected", INVALID_CREDENTIALS)
    assert (good["listener"], good["application"]) == (f"ldap://127.0.0.1:{door.port}", "ldap")
    assert (door.mfad.directory / "binds.json").stat().st_mode & 0o777 == 0o600
    told = door.metrics()
    assert 'mfad_ldap_binds_total{application="ldap",outcome="accepted"} 1.0' in told
    assert 'mfad_ldap_binds_total{application="ldap",outcome="rejected"} 1.0' in told
    assert "mfad_ldap_processes 1.0" in told
    for text in (json.dumps([good, bad]), "\n".join(told), door.mfad.log()):
        assert PASSWORD not in text
        assert code not in text


def test_a_reload_changes_what_it_can_and_names_what_needs_a_restart(door: Door) -> None:
    person, other = door.mfad.person(), door.mfad.person()
    assert door.log_in(person) == OK
    wait_until(door.lines, "a line")
    door.configure(separator=";", listen=[f"ldap://127.0.0.1:{free_port()}"], bind_log="./other.json")
    door.mfad.reload()

    assert "restart mfad for doors.ldap.listen" in door.mfad.log()
    assert door.bind(other.name, f"{PASSWORD},{other.next_code()}") == INVALID_CREDENTIALS
    assert door.log_in(other, ";") == OK
    wait_until(lambda: len(door.lines("other.json")) == 2, "the lines are in the other file")
    assert len(door.lines()) == 1

    door.configure(bind_log=None)
    door.mfad.reload()
    assert door.log_in(door.mfad.person()) == OK
    door.configure()
    door.mfad.reload()
    assert door.log_in(door.mfad.person()) == OK
    wait_until(lambda: len(door.lines()) == 2, "lines are written again")
    assert len(door.lines("other.json")) == 2


def test_a_log_that_was_moved_away_is_begun_anew(door: Door) -> None:
    assert door.log_in(door.mfad.person()) == OK
    wait_until(door.lines, "a line")
    shutil.move(door.mfad.directory / "binds.json", door.mfad.directory / "binds.json.1")
    door.mfad.reload()
    assert door.log_in(door.mfad.person()) == OK
    wait_until(door.lines, "a line in the new file")
    assert len(door.lines()) == len(door.lines("binds.json.1")) == 1


def test_a_reload_with_a_file_that_cannot_be_used_changes_nothing(door: Door, tmp_path: Path) -> None:
    """Neither the door nor the policy."""
    tls = {"certificate_file": str(tmp_path / "absent"), "key_file": str(tmp_path / "absent")}
    settings = door.settings(tls=tls, separator=";")
    door.mfad.configure({**settings, "policy": [{"id": "nobody", "when": {"door": "ldap"}, "deny": True}]})
    door.mfad.signal_reload()
    wait_until(lambda: " cannot be used" in door.mfad.log(), "it is refused")

    assert door.log_in(door.mfad.person()) == OK


def test_a_stop_is_told_to_who_is_connected(door: Door) -> None:
    """Notice of Disconnection (RFC 4511 section 4.4.1) with unavailable, 52; and exit status 0."""
    with socket.create_connection(("127.0.0.1", door.port), timeout=30) as idle:
        wait_until(lambda: "mfad_ldap_connections 1.0" in door.metrics(), "the door has it")
        assert door.mfad.stop() == 0
        told = b""
        while part := idle.recv(4096):
            told += part
    assert told[:1] == b"\x30"
    assert b"1.3.6.1.4.1.1466.20036" in told
    assert b"\x0a\x01\x34" in told


def test_an_address_that_somebody_has_ends_it(installed: Mfad, directory: Slapd, tmp_path: Path) -> None:
    one = Door(tmp_path / "m", installed, directory)
    with socket.socket() as other:
        other.bind(("127.0.0.1", one.port))
        other.listen()
        ended = subprocess.run(
            [sys.executable, "-m", "mfad", "--config", str(one.mfad.config_path)],
            env=clean_environment(), capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert ended.returncode == EX_CONFIG
    assert f"doors.ldap.listen: ldap://127.0.0.1:{one.port} cannot be listened on: Address already in use" in ended.stderr
    assert "Traceback" not in ended.stderr


# --check


def test_check_reads_the_files_of_the_door_and_warns(installed: Mfad, directory: Slapd, tmp_path: Path) -> None:
    """DNs and secrets with their line, certificates by name; what is weak goes on."""
    one = Door(tmp_path / "m", installed, directory)
    one.configure(lookup={"bind_dn": "cn=a,,b", "bind_password_file": "absent"}, exempt={"dn": ["x y=z"]})
    bad = check(one.mfad)
    assert bad.returncode == EX_CONFIG
    for key in ("doors.ldap.lookup.bind_dn", "doors.ldap.lookup.bind_password_file", "doors.ldap.exempt.dn[0]"):
        assert f"mfad.yaml:{line_of(one.mfad, key)}: {key}: " in bad.stderr

    one.configure(tls={"certificate_file": "absent", "key_file": "absent"})
    bad = check(one.mfad)
    assert bad.returncode == EX_CONFIG
    absent = one.mfad.config_path.parent / "absent"
    assert f"doors.ldap.tls: certificate_file {absent} with key_file {absent} cannot be used: No such file" in bad.stderr

    one.configure(upstream=["ldaps://127.0.0.1:1"], upstream_tls={"ca_file": "absent"})
    bad = check(one.mfad)
    assert bad.returncode == EX_CONFIG
    assert "doors.ldap.upstream_tls.ca_file" in bad.stderr

    one.configure(compare_password=True, confirm="as_bound")
    weak = check(one.mfad)
    assert weak.returncode == 0
    assert "mfad: warning: LDAP application 'ldap': passwords can be tried without a code" in weak.stderr
    assert "mfad: warning: LDAP door: who is behind a DN is not asked" in weak.stderr


def line_of(mfad: Mfad, key: str) -> int:
    """Where the configuration, as the tests write it, has a key: its line, or that of the list's item."""
    name = key.rpartition(".")[2].removesuffix("[0]")
    lines = mfad.config_path.read_text().splitlines()
    found = next(number for number, line in enumerate(lines, 1) if line.strip().startswith(f"{name}:"))
    return found + key.endswith("]")


def test_a_good_door_passes_the_check_and_nothing_is_touched(installed: Mfad, directory: Slapd, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    ours = authority.issue("ldap.example", server=True)
    one = Door(tmp_path / "m", installed, directory)
    one.configure(
        tls={"certificate_file": str(ours.certificate), "key_file": str(ours.key), "client_ca_file": str(authority.path),
             "client_certificate": "request"},
        upstream=["ldaps://127.0.0.1:1"], upstream_tls={"ca_file": str(authority.path)},
    )  # fmt: skip
    good = check(one.mfad)
    assert (good.returncode, good.stderr) == (0, "")
    assert not (one.mfad.directory / "binds.json").exists()


# Several processes


def test_two_processes_serve_one_port_and_a_code_is_good_once(shared: Door) -> None:
    assert len(shared.workers()) == 2
    for _ in range(6):
        person = shared.mfad.person()
        typed = f"{PASSWORD},{person.next_code()}"
        assert [shared.bind(person.name, typed) for _ in range(3)] == [OK, INVALID_CREDENTIALS, INVALID_CREDENTIALS]
    wait_until(lambda: len(shared.lines()) == 18, "both write to the log")
    wanted = {
        'mfad_ldap_binds_total{application="ldap",outcome="accepted"} 6.0',
        'mfad_ldap_binds_total{application="ldap",outcome="rejected"} 12.0',
        "mfad_ldap_processes 2.0",
    }
    wait_until(lambda: wanted <= set(shared.metrics()), "their counters are added up")


def test_a_process_that_is_killed_is_started_again_and_nobody_is_turned_away(shared: Door) -> None:
    """Its sockets are the daemon's: who comes meanwhile waits in the kernel."""
    before = shared.workers()
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    assert [shared.log_in(shared.mfad.person()) for _ in range(4)] == [OK] * 4
    wait_until(lambda: len(shared.workers()) == 2, "both are there again")
    assert not set(before) & set(shared.workers())
    assert shared.mfad.log().count("LDAP worker 0 ended with -9; it is started again") == 1


def test_a_reload_reaches_every_process_and_a_stop_ends_them(shared: Door) -> None:
    shared.configure(workers=2, separator=";")
    shared.mfad.reload()
    # The daemon has read it; a worker may be about to.
    wait_until(lambda: all(shared.log_in(shared.mfad.person(), ";") == OK for _ in range(4)), "both split at the new separator")
    pids = shared.workers()
    assert shared.mfad.stop() == 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_nothing_is_remembered_among_several_processes_whatever_a_reload_says(shared: Door) -> None:
    """A refusal at one could not reach what another one remembers. `workers` needs a restart, and `remember` with it."""
    shared.configure(workers=1, remember="apache", separator=";")
    shared.mfad.reload()
    assert "restart mfad for doors.ldap.workers\n" in shared.mfad.log()
    wait_until(lambda: all(shared.log_in(shared.mfad.person(), ";") == OK for _ in range(4)), "both have read it")
    for _ in range(3):
        person = shared.mfad.person()
        typed = f"{PASSWORD};{person.next_code()}"
        assert [shared.bind(person.name, typed) for _ in range(3)] == [OK, INVALID_CREDENTIALS, INVALID_CREDENTIALS]


def test_what_is_remembered_in_one_process_is_good_again(installed: Mfad, directory: Slapd, tmp_path: Path) -> None:
    """The very text, from the same source; and it is counted."""
    one = Door(tmp_path / "m", installed, directory, remember="apache")
    try:
        one.mfad.start()
        person = one.mfad.person()
        typed = f"{PASSWORD},{person.next_code()}"
        assert [one.bind(person.name, typed) for _ in range(3)] == [OK] * 3
        assert {"mfad_ldap_remember_hits_total 2.0", "mfad_ldap_remembered 1.0"} <= set(one.metrics())
    finally:
        one.mfad.close()


def test_both_doors_have_their_processes(installed: Mfad, directory: Slapd, tmp_path: Path) -> None:
    """Neither takes the other's sockets."""
    one = Door(tmp_path / "m", installed, directory)
    secret = one.mfad.directory / "nas.secret"
    secret.write_text("a secret of the test, long enough")
    secret.chmod(0o400)
    clients = [{"name": "nas", "network": "127.0.0.0/8", "secret_file": str(secret), "mode": "mfa_only"}]
    radius = {"listen": [f"127.0.0.1:{free_port()}"], "clients": clients, "workers": 2}
    one.configure(workers=2, doors={"radius": radius})
    try:
        one.mfad.start()
        assert len(one.workers()) == 4
        assert one.log_in(one.mfad.person()) == OK
        wanted = {"mfad_ldap_processes 2.0", "mfad_radius_processes 2.0"}
        wait_until(lambda: wanted <= set(one.metrics()), "both are counted")
        assert one.mfad.stop() == 0
    finally:
        one.mfad.close()


def test_an_exempt_account_of_an_application_needs_no_code(installed: Mfad, directory: Slapd, tmp_path: Path) -> None:
    """By the file alone: a named application, its exemption, its line in the log."""
    wiki = {"name": "wiki", "network": "127.0.0.1", "exempt": {"dn": SERVICE_DN}}
    one = Door(tmp_path / "m", installed, directory, applications=[wiki])
    try:
        one.mfad.start()
        assert one.bind(SERVICE_DN, SERVICE_PASSWORD) == OK
        assert one.log_in(one.mfad.person()) == OK
        wait_until(lambda: len(one.lines()) == 2, "two lines")
        assert [(line["application"], line["outcome"]) for line in one.lines()] == [("wiki", "exempt"), ("wiki", "accepted")]
    finally:
        one.mfad.close()


# Room


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[int, int]]:
    """What the process may open, soft and hard, under ``now``; the test's own limits stay as they are."""
    held = {"now": (1024, 4096)}
    monkeypatch.setattr(resource, "getrlimit", lambda _: held["now"])
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: held.update(now=limits))
    return held


@pytest.mark.parametrize(
    ("connections", "now", "then", "told"),
    [
        (100, (1024, 4096), (1024, 4096), False),
        (1000, (1024, 4096), (2256, 4096), False),
        (1000, (1024, resource.RLIM_INFINITY), (2256, resource.RLIM_INFINITY), False),
        (5000, (1024, 4096), (4096, 4096), True),
    ],
)
def test_room_for_connections_is_made_or_missed_aloud(
    limits: dict[str, tuple[int, int]], caplog: pytest.LogCaptureFixture,
    connections: int, now: tuple[int, int], then: tuple[int, int], told: bool,
) -> None:  # fmt: skip
    limits["now"] = now
    settings = LdapDoorSettings((), UpstreamSettings(servers=()), limits=Limits(connections=connections))

    make_room_for_connections(settings)

    assert limits["now"] == then
    assert ("raise LimitNOFILE" in caplog.text) is told


def test_a_container_that_forbids_more_room_is_told(
    limits: dict[str, tuple[int, int]], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(resource, "setrlimit", forbidden)

    make_room_for_connections(LdapDoorSettings((), UpstreamSettings(servers=())))

    assert "this process may have 1024" in caplog.text
