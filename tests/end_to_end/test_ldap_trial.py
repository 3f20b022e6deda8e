"""``mfactl ldap test`` against a real mfad and a real slapd: what an administrator is told."""

from __future__ import annotations

import io
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from mfactl.__main__ import run as mfactl
from tests.end_to_end.daemon import Mfad, Person
from tests.end_to_end.ldap_directory import ADMIN, BASE, PASSWORDS, PEOPLE, SERVICE, dn_of, password_of
from tests.end_to_end.ldap_door import LdapDoor, Setting, full, ldap_setting
from tests.end_to_end.programs import clean_environment
from tests.end_to_end.radius_certificates import Authority

APPLICATIONS = [
    {"name": "cloud", "listen": "ldap://127.0.0.1:{other}", "remember": "nextcloud"},
    {"name": "glued", "listen": "ldapi://{socket}", "split": "append"},
]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def setting(template: Mfad, authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    place = tmp_path_factory.mktemp("ldap")
    certificate = authority.issue("localhost", server=True)
    names = ("plain", "tls", "other", "metrics")
    ports = {name: _free() for name in names}
    known = {**ports, "socket": place / "door" / "ldapi"}
    applications = [{**one, "listen": one["listen"].format(**known)} for one in APPLICATIONS]
    door = {
        "user": {"base_dn": PEOPLE},
        "exempt": {"dn": [SERVICE, ADMIN]},
        "tls": {"certificate_file": str(certificate.certificate), "key_file": str(certificate.key)},
        "applications": applications,
    }
    listen = ("ldap://127.0.0.1:{plain}", "ldap://127.0.0.1:{other}", "ldapi://{socket}")
    with ldap_setting(template, place, door=door, listen=listen, ports=ports) as one:
        yield one


def _free() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def door(setting: Setting) -> LdapDoor:
    return setting.door


@pytest.fixture
def person(door: LdapDoor) -> Person:
    return door.person()


def run(door: LdapDoor, *words: object, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """The command, in this process: a new Python for each would cost more than all that it does."""
    arguments = ["--config", str(door.mfad.config_path), "ldap", "test", "--stdin", *map(str, words)]
    typed, out, err = io.TextIOWrapper(io.BytesIO(stdin.encode())), io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patched, redirect_stdout(out), redirect_stderr(err):
        patched.setattr(sys, "stdin", typed)
        status = mfactl(arguments)
    return subprocess.CompletedProcess(arguments, int(status), out.getvalue(), err.getvalue())


def typed_in_a_shell(door: LdapDoor, *words: str, stdin: str) -> subprocess.CompletedProcess[str]:
    """The command as people start it."""
    return subprocess.run(
        [sys.executable, "-m", "mfactl", "--config", str(door.mfad.config_path), "ldap", "test", "--stdin", *words],
        input=stdin, env=clean_environment(), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def ask(door: LdapDoor, *words: object, stdin: str = "") -> tuple[int, Any]:
    done = run(door, *words, "--json", stdin=stdin)
    return done.returncode, json.loads(done.stdout)


def other(door: LdapDoor) -> tuple[str, str]:
    """The listener of the application that binds again and again."""
    return "--server", f"ldap://127.0.0.1:{door.ports['other']}"


def test_code_is_accepted_once_and_the_refusal_explained(door: LdapDoor, person: Person) -> None:
    """With who it is, and the reason out of the audit log; neither password nor code is shown."""
    typed = full(person)

    first = typed_in_a_shell(door, "--user", person.name, stdin=f"{typed}\n")
    status, again = ask(door, "--user", person.name, stdin=f"{typed}\n")

    assert first.returncode == 0, first.stdout + first.stderr
    for words in ("as application ldap", f"dn:{dn_of(person.name)}", "outcome      let in"):
        assert words in first.stdout
    assert not any(part in first.stdout for part in typed.split(","))
    assert (status, again["accepted"], again["code"], again["reason"]) == (1, False, 49, "replayed")
    assert door.mfad.mfactl_json("why", again["event"])[0]["user"] == person.name


def test_search_goes_before_as_applications_do(door: LdapDoor, person: Person, tmp_path: Path) -> None:
    """By the exempt account, whose password stands in a file or is asked for first."""
    secret = tmp_path / "secret"
    secret.touch(0o600)
    secret.write_text(PASSWORDS[SERVICE] + "\n")
    search = ("--user", person.name, "--bind-dn", SERVICE, "--search-base", BASE)

    status, told = ask(door, *search, "--bind-password-file", secret, stdin=f"{full(person)}\n")
    refused, asked = ask(door, *search, stdin=f"{PASSWORDS[SERVICE]}\n{password_of(person.name)}\n")

    assert (status, told["dn"]) == (0, dn_of(person.name))
    steps = [one["step"] for one in told["steps"]]
    assert steps == ["connect", "service bind", "search", "bind", "who am i"]
    assert (refused, asked["reason"]) == (1, "no_code")


def test_account_that_is_not_exempt_is_named(door: LdapDoor) -> None:
    """The commonest mistake."""
    done = run(door, "--user", "x", "--bind-dn", f"uid=person1000,{PEOPLE}", "--search-base", BASE, stdin="wrong\n")

    assert done.returncode == 1
    assert "is not exempt, so a code is asked of it" in done.stdout


def test_nobody_found_is_an_answer_of_its_own(door: LdapDoor) -> None:
    """Status 3, before anything is asked."""
    status, told = ask(door, "--user", "nobody", "--bind-dn", SERVICE, "--search-base", BASE, stdin=f"{PASSWORDS[SERVICE]}\n")

    assert (status, told["steps"][-1]["failure"]) == (3, "not_found")


def test_second_bind_shows_what_is_remembered(door: LdapDoor, person: Person) -> None:
    """Refused as an ordinary one, let in where the application is known to come again."""
    refused = run(door, "--user", person.name, "--again", stdin=f"{full(person)}\n")
    let_in = run(door, "--dn", dn_of(person.name), "--again", *other(door), stdin=f"{full(person)}\n")

    assert (refused.returncode, "needs `remember`" in refused.stdout) == (1, True)
    assert (let_in.returncode, "and again with the same text" in let_in.stdout) == (0, True), let_in.stdout


def test_nextcloud_goes_on_with_the_text_and_with_the_password(door: LdapDoor, person: Person) -> None:
    """docs/ldap-nextcloud.md: its own check every five minutes sends the one, its clients send the other."""
    typed, dn = full(person), dn_of(person.name)
    sent = [typed, typed, password_of(person.name), typed]

    assert [run(door, "--dn", dn, *other(door), stdin=f"{one}\n").returncode for one in sent] == [0, 0, 0, 0]


def test_listener_over_a_local_socket_and_another_form(door: LdapDoor, person: Person) -> None:
    """Password and code end to end."""
    url = f"ldapi://{door.socket_path}"
    status, _ = ask(door, "--dn", dn_of(person.name), "--server", url, stdin=full(person, separator="") + "\n")

    assert status == 0


def test_start_tls_and_its_certificate(door: LdapDoor, authority: Authority, person: Person) -> None:
    """The configured certificate needs no CA; another server's needs one, and the right name."""
    ours = run(door, "--user", person.name, "--start-tls", stdin=f"{full(person)}\n")
    url = ("--server", door.url, "--start-tls", "--dn", dn_of(person.name))
    unknown, told = ask(door, *url, stdin="x\n")
    wrong, name = ask(door, *url, "--ca-file", authority.path, "--tls-name", "ldap.example.org", stdin="x\n")
    right, _ = ask(door, *url, "--ca-file", authority.path, "--tls-name", "localhost", stdin=f"{full(person)}\n")

    assert (ours.returncode, "certificate the configured one" in ours.stdout) == (0, True), ours.stdout
    assert (unknown, wrong, right) == (1, 1, 0)
    assert {told["steps"][-1]["failure"], name["steps"][-1]["failure"]} == {"untrusted"}


def test_the_directory_itself_can_be_asked(setting: Setting, door: LdapDoor) -> None:
    """Without mfad, and without its configuration's exemptions."""
    name = "person1001"
    status, told = ask(door, "--server", setting.directory.url, "--dn", dn_of(name), stdin=f"{password_of(name)}\n")

    assert (status, told["application"]) == (0, None)


def test_empty_password_and_port_without_a_server(door: LdapDoor) -> None:
    """A login is neither."""
    empty, told = ask(door, "--dn", dn_of("person1002"), stdin="\n")
    nobody, _ = ask(door, "--server", f"ldap://127.0.0.1:{_free()}", "--dn", dn_of("person1002"), stdin="x\n")

    assert (empty, told["code"]) == (1, 53)
    assert nobody == 5


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--user", "a", "--dn", "uid=a"],
        ["--dn", "uid=a", "--search-base", BASE],
        ["--user", "a", "--bind-password-file", "x"],
        ["--user", "a", "--server", "no address"],
        ["--user", "a", "--server", "ldap://127.0.0.1:1"],
        ["--user", "a", "--search-base", BASE, "--search-attribute", "(uid="],
        ["--dn", "uid=a", "--server", "ldaps://127.0.0.1:1", "--start-tls"],
    ],
)
def test_misuse_is_refused(door: LdapDoor, words: list[str]) -> None:
    """With nothing sent."""
    assert run(door, *words, stdin="x\n").returncode == 2
