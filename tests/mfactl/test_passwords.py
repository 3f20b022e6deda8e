"""`mfactl user password`, and what the doctor says of those who check passwords."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest
import yaml

from mfa_runtime.config.loading import load_config
from mfactl.doctor.finding import Weight
from mfactl.doctor.primaries import check_primaries
from tests.end_to_end.freeradius import PROGRAMS as FREERADIUS
from tests.end_to_end.freeradius import SECRET, FreeRadius
from tests.end_to_end.programs import clean_environment, must_have
from tests.end_to_end.slapd import BASE, SERVICE_DN, SERVICE_PASSWORD, Slapd
from tests.end_to_end.slapd import PROGRAMS as SLAPD
from tests.mfactl.conftest import Command

GOOD = "correct horse battery"


@pytest.fixture
def alice(mfactl: Command) -> Command:
    """An installation with alice."""
    assert mfactl("user", "add", "alice").status == 0
    return mfactl


def configure(place: Path, primary: dict[str, object]) -> Path:
    """Give the PAM door of the installation in ``place`` this backend."""
    path = place / "mfad.yaml"
    settings = yaml.safe_load(path.read_text())
    settings["doors"]["pam"]["primary"] = primary
    path.write_text(yaml.safe_dump(settings))
    return path


def test_a_password_from_standard_input(alice: Command, tmp_path: Path) -> None:
    """Set, told, checked, taken away."""
    configure(tmp_path, {"type": "local"})
    assert alice("user", "list", "--json").json[0]["has_password"] is False

    done = alice("user", "password", "Alice", "--stdin", "--json", stdin=GOOD + "\n")
    assert (done.status, done.json) == (0, {"name": "alice", "has_password": True})
    assert alice("user", "list", "--json").json[0]["has_password"] is True
    assert alice("user", "show", "alice", "--json").json["has_password"] is True
    assert "password" in alice("user", "show", "alice").out

    right = alice("user", "password", "alice", "--check", "pam", "--stdin", "--json", stdin=GOOD)
    assert (right.status, right.json) == (0, {"name": "alice", "door": "pam", "backend": "local", "right": True})
    wrong = alice("user", "password", "alice", "--check", "pam", "--stdin", stdin="something else\n")
    assert wrong.status == 1
    assert "wrong" in wrong.out

    assert alice("user", "password", "alice", "--remove").status == 0
    assert alice("user", "list", "--json").json[0]["has_password"] is False
    assert alice("user", "password", "alice", "--remove").status == 3


@pytest.mark.parametrize(
    ("arguments", "typed", "status"),
    [
        (["nobody", "--stdin"], GOOD, 3),
        (["alice", "--stdin"], "short", 2),
        (["alice", "--stdin"], "", 2),
        (["alice", "--stdin"], "x" * 2000, 2),
        (["alice"], GOOD, 2),
        (["alice", "--stdin", "--remove"], GOOD, 2),
        (["alice", "--check", "pam", "--stdin"], GOOD, 2),
        (["alice", "--check", "radius", "--stdin"], GOOD, 2),
    ],
)
def test_what_is_refused(arguments: list[str], typed: str, status: int, alice: Command) -> None:
    """With a status that programs can tell apart, and never with what was typed."""
    done = alice("user", "password", *arguments, stdin=typed)

    assert done.status == status
    assert GOOD not in done.out + done.err
    assert alice("user", "list", "--json").json[0]["has_password"] is False


def test_what_was_done_is_told(alice: Command) -> None:
    """In the log, without the password."""
    alice("user", "password", "alice", "--stdin", stdin=GOOD)
    alice("user", "password", "alice", "--remove")
    told = alice("audit", "tail").out

    assert "user.password.set alice" in told
    assert "user.password.remove alice" in told
    assert GOOD not in told


@pytest.mark.parametrize("again", [GOOD, "something else"], ids=["the same", "another"])
def test_at_a_terminal_it_is_asked_twice_and_not_shown(again: str, alice: Command, tmp_path: Path) -> None:
    """A real one."""
    child = pexpect.spawn(
        sys.executable,
        ["-m", "mfactl", "--config", str(tmp_path / "mfad.yaml"), "user", "password", "alice"],
        env=clean_environment(),  # type: ignore[arg-type]
        encoding="utf-8",
        timeout=30,
    )
    child.expect_exact("New password for alice: ")
    child.sendline(GOOD)
    child.expect_exact("Again: ")
    child.sendline(again)
    child.expect(pexpect.EOF)
    child.close()

    assert GOOD not in str(child.before)
    same = again == GOOD
    assert child.exitstatus == (0 if same else 2)
    assert alice("user", "list", "--json").json[0]["has_password"] is same


def findings(path: Path, **pam_files: str) -> list[tuple[Weight, str]]:
    return [(found.weight, found.seen) for found in check_primaries(load_config(path), pam_files=pam_files)]


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Slapd]:
    must_have(*SLAPD)
    one = Slapd(tmp_path / "slapd", {"alice": GOOD})
    yield one.start()
    one.stop()


def secret(path: Path, text: str, mode: int = 0o400) -> str:
    path.write_text(text)
    path.chmod(mode)
    return str(path)


def test_the_doctor_asks_a_directory(alice: Command, directory: Slapd, tmp_path: Path) -> None:
    """Good, in clear, one server down, all down, the service account refused, a password for everybody's eyes."""
    file = secret(tmp_path / "bind", SERVICE_PASSWORD)
    search = {"type": "ldap", "base_dn": BASE, "bind_dn": SERVICE_DN, "bind_password_file": file, "timeout": "1s"}
    dead = "ldap://127.0.0.1:1"

    assert findings(configure(tmp_path, search | {"servers": directory.ipc_url})) == [
        (Weight.GOOD, f"{directory.ipc_url} answers")
    ]
    both = findings(configure(tmp_path, search | {"servers": [directory.url, dead]}))
    assert [weight for weight, _ in both] == [Weight.GOOD, Weight.WARNING, Weight.WARNING, Weight.WARNING]
    assert "in clear" in both[-1][1]
    assert findings(configure(tmp_path, search | {"servers": dead}))[0][0] is Weight.PROBLEM
    assert alice("user", "password", "alice", "--check", "pam", "--stdin", stdin=GOOD).status == 5

    wrong = secret(tmp_path / "wrong", "not it")
    refused = findings(configure(tmp_path, search | {"servers": directory.ipc_url, "bind_password_file": wrong}))
    assert refused[0][0] is Weight.PROBLEM
    assert "bind as" in refused[0][1]

    public = secret(tmp_path / "public", SERVICE_PASSWORD, 0o644)
    open_file = findings(configure(tmp_path, search | {"servers": directory.ipc_url, "bind_password_file": public}))
    assert open_file[0][0] is Weight.PROBLEM


def test_the_doctor_asks_a_radius_server(alice: Command, tmp_path: Path) -> None:
    """By Status-Server; silence proves nothing."""
    must_have(*FREERADIUS)
    upstream = FreeRadius(tmp_path / "radius", {"alice": GOOD}).start()
    try:
        file = secret(tmp_path / "upstream.secret", SECRET)
        radius = {"type": "radius", "servers": [upstream.address, "127.0.0.1:1"], "secret_file": file, "timeout": "1s"}
        found = findings(configure(tmp_path, radius))
        assert [weight for weight, _ in found] == [Weight.GOOD, Weight.UNKNOWN]
        assert alice("user", "password", "alice", "--check", "pam", "--stdin", stdin=GOOD).status == 0
        assert alice("user", "password", "alice", "--check", "pam", "--stdin", stdin="wrong one").status == 1
    finally:
        upstream.stop()


def test_the_doctor_looks_at_pam_and_at_our_own(alice: Command, tmp_path: Path) -> None:
    """A service that is not there, or asks us again; nobody with a password."""
    path = configure(tmp_path, {"type": "pam", "service": "vpn-password"})
    assert findings(path)[0][0] is Weight.WARNING
    assert findings(path, **{"vpn-password": "auth required pam_mfa.so\n"})[0][0] is Weight.PROBLEM
    assert findings(path, **{"vpn-password": "# not pam_mfa.so\nauth required pam_unix.so\n"})[0][0] is Weight.GOOD

    path = configure(tmp_path, {"type": "local"})
    assert findings(path)[0][0] is Weight.WARNING
    alice("user", "password", "alice", "--stdin", stdin=GOOD)
    assert findings(path) == [(Weight.GOOD, "passwords of our own: 1")]

    assert findings(configure(tmp_path, {"type": "none"})) == []
