"""The real su, sudo and login with the shipped files, driven at a terminal."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pexpect
import pytest

from tests.end_to_end.conftest import VPN
from tests.end_to_end.daemon import Mfad, Person
from tests.end_to_end.host import PAM_FILES, PASSWORD, Host
from tests.end_to_end.programs import PATIENCE_S, REPOSITORY, clean_environment, must_have, run
from tests.end_to_end.ssh import CODE_PROMPT, PASSWORD_PROMPT

SUDO_PROMPT = "password for"
PROVOKED = """
#include <stdio.h>
__attribute__((constructor)) static void loaded(void) { FILE *f = fopen(MARKER, "a"); if (f) fclose(f); }
"""


def at_terminal(command: Sequence[str], *dialogue: tuple[str, str], env: Mapping[str, str] | None = None) -> tuple[int, str]:
    """Run a program at a terminal, answering its prompts; exit status and screen."""
    child = pexpect.spawn(
        command[0], list(command[1:]), env=clean_environment(**(env or {})), encoding="utf-8", codec_errors="replace",
        timeout=PATIENCE_S,
    )  # fmt: skip
    child.delaybeforesend = None
    child.ptyproc.delayafterclose = child.ptyproc.delayafterterminate = 0.02
    screen = []
    try:
        for prompt, reply in dialogue:
            if child.expect_exact([prompt, pexpect.EOF]) != 0:
                raise AssertionError(f"{prompt!r} was not shown: {''.join(screen)}{child.before}")
            screen += [str(child.before), prompt]
            child.sendline(reply)
        child.expect_exact([pexpect.EOF])
        screen.append(str(child.before))
    finally:
        child.close(force=True)
    return int(child.exitstatus if child.exitstatus is not None else -1), "".join(screen)


def su(host: Host, caller: Person, target: Person, *dialogue: tuple[str, str], login: bool = False) -> tuple[int, str]:
    words = ["su", *(["-"] if login else []), target.name, "-c", "echo I-AM-$(id -un)"]
    return at_terminal(host.as_user(caller.name, *words), *dialogue)


@pytest.mark.parametrize("login", [False, True], ids=["su", "su-l"])
def test_su_asks_for_password_and_code_of_the_target(host: Host, person: Person, another: Person, login: bool) -> None:
    """Row 1. su-l includes su."""
    status, screen = su(host, person, another, (PASSWORD_PROMPT, PASSWORD), (CODE_PROMPT, another.next_code()), login=login)

    assert (status, f"I-AM-{another.name}" in screen) == (0, True), screen


def test_su_with_a_wrong_code_or_the_callers_is_refused(host: Host, person: Person, another: Person) -> None:
    """Row 3."""
    for code in (another.wrong_code(), person.next_code()):
        status, screen = su(host, person, another, (PASSWORD_PROMPT, PASSWORD), (CODE_PROMPT, code))
        assert status != 0
        assert "I-AM" not in screen


def test_su_of_root_is_not_asked(host: Host, mfad: Mfad, another: Person) -> None:
    """pam_rootok stands before us, and account has no require_mfa: boot scripts use su."""
    status, screen = at_terminal(host.inside("su", another.name, "-c", "echo I-AM-$(id -un)"))

    assert (status, screen.strip()) == (0, f"I-AM-{another.name}")


def sudo(
    host: Host, caller: str, *dialogue: tuple[str, str], words: Sequence[str] = (), env: Mapping[str, str] | None = None
) -> tuple[int, str]:
    return at_terminal(host.as_user(caller, "sudo", *words, "sh", "-c", "echo I-AM-$(id -un)"), *dialogue, env=env)


def test_sudo_asks_for_password_and_code_of_the_caller(host: Host, person: Person) -> None:
    """Row 1."""
    status, screen = sudo(host, person.name, (SUDO_PROMPT, PASSWORD), (CODE_PROMPT, person.next_code()))

    assert (status, "I-AM-root" in screen) == (0, True), screen


def test_sudo_with_a_used_code_is_refused(host: Host, person: Person) -> None:
    """Row 5. sudo asks three times; the code that is spent stays spent. sudo is silent (row 43): the log says why."""
    code = person.next_code()
    assert sudo(host, person.name, (SUDO_PROMPT, PASSWORD), (CODE_PROMPT, code))[0] == 0
    status, screen = sudo(host, person.name, *([(SUDO_PROMPT, PASSWORD), (CODE_PROMPT, code)] * 3))

    assert status != 0
    assert "I-AM" not in screen
    host.wait_for_log(f'refused: user="{person.name}" service="sudo" source=unknown reason=replayed')


def test_nopasswd_passes_because_sudo_is_an_exempt_service(host: Host, mfad: Mfad) -> None:
    """Row 42: no auth phase ran, `account ... require_mfa` asks mfad, and the configuration names sudo."""
    status, screen = sudo(host, "nopasswd1")

    assert (status, screen.strip()) == (0, "I-AM-root")


def test_nopasswd_is_refused_where_the_service_is_not_exempt(host: Host, mfad: Mfad) -> None:
    """Row 42: `sudo -i` is the PAM service sudo-i, which the configuration does not name."""
    status, screen = sudo(host, "nopasswd1", words=["-i"])

    assert status != 0
    assert "I-AM" not in screen
    host.wait_for_log('login without a second factor refused: user="nopasswd1" service="sudo-i"')


@pytest.fixture
def provocation(tmp_path: Path, host: Host) -> tuple[dict[str, str], Path]:
    """An environment that would like to have a say, and the file that exists if it had."""
    must_have("cc")
    home = host.directory / "home"
    library, marker = home / "evil.so", home / "marker"
    source = tmp_path / "evil.c"
    source.write_text(PROVOKED)
    run(["cc", "-shared", "-fPIC", '-DMARKER="/home/marker"', "-o", library, source])
    home.chmod(0o777)
    package = home / "mfad"
    package.mkdir(exist_ok=True)
    (package / "__init__.py").write_text("open('/home/marker', 'a').close()\n")
    empty = home / "sockets"
    empty.mkdir(mode=0o755, exist_ok=True)
    environment = {
        "LD_PRELOAD": "/home/evil.so",
        "LD_LIBRARY_PATH": "/home",
        "LD_AUDIT": "/home/evil.so",
        "PYTHONPATH": "/home",
        "PYTHONSTARTUP": "/home/mfad/__init__.py",
        "PYTHONHOME": "/home",
        "HOME": "/home",
        "MFAD_CONFIG": "/home/mfad.yaml",
        "MFA_SOCKET_DIR": "/home/sockets",
        "MFAD_SOCKET_DIR": "/home/sockets",
        "PAM_MFA_OPTIONS": "socket_dir=/home/sockets",
        "SSH_CONNECTION": "10.0.0.1 1 10.0.0.2 22",
        "SSH_AUTH_INFO_0": "publickey sk-ssh-ed25519@openssh.com AAAA",
        "LANG": "tlh_QX.UTF-8",
        "MALLOC_PERTURB_": "165",
        "TMPDIR": "/home/sockets",
    }
    return environment, marker


@pytest.mark.parametrize("program", ["su", "sudo"])
def test_hostile_environment_has_no_effect(
    host: Host, person: Person, another: Person, provocation: tuple[dict[str, str], Path], program: str
) -> None:
    """Row 36: the same prompts, a wrong code refused, the right one taken, and nothing of it loaded."""
    environment, marker = provocation
    # the environment is for the setuid program, not for the ones that come before it
    assignments = [f"{name}={value}" for name, value in environment.items()]
    target = another if program == "su" else person
    words = ["su", target.name, "-c", "true"] if program == "su" else ["sudo", "-k", "true"]
    command = host.as_user(person.name, "env", *assignments, *words)
    prompt = PASSWORD_PROMPT if program == "su" else SUDO_PROMPT
    tries = 1 if program == "su" else 3

    refused, _ = at_terminal(command, *([(prompt, PASSWORD), (CODE_PROMPT, target.wrong_code())] * tries))
    taken, screen = at_terminal(command, (prompt, PASSWORD), (CODE_PROMPT, target.next_code()))

    assert refused != 0
    assert taken == 0, screen
    assert not marker.exists()
    # the provocation works where it may
    subprocess.run(host.inside("env", "LD_PRELOAD=/home/evil.so", "/bin/true"), check=True)
    assert marker.exists()
    marker.unlink()


CONSOLE = """
import json, sys
from pathlib import Path
from tests.pam_mfa.pam_harness import Items, PamTransaction
name, service, tty, lines, *answers = sys.argv[1:]
with PamTransaction(Path(lines).read_text().splitlines(), name, answers, items=Items(tty=tty), service=service) as pam:
    seen = pam.authenticate()
    print(json.dumps([seen.code, seen.prompts]))
"""
"""What login(1) does, without a getty."""


def console(host: Host, file: Path, name: str, tty: str, *answers: str) -> tuple[int, list[str]]:
    client = ("env", f"PYTHONPATH={REPOSITORY}", sys.executable, "-c", CONSOLE)
    said = run(host.inside(*client, name, "login", tty, file, *answers))
    code, prompts = json.loads(said)
    return code, prompts


def absolute(text: str) -> str:
    """An include by path: libpam looks for names in the directory of the harness."""
    return text.replace("@include common-", "@include /etc/pam.d/common-")


def test_console_asks_for_both(host: Host, person: Person) -> None:
    """config/pam.d/login."""
    code = person.next_code()
    file = host.directory / "login-lines"
    file.write_text(absolute((host.directory / "pam.d" / "login").read_text()))

    assert console(host, file, person.name, "tty1", PASSWORD, code) == (0, [PASSWORD_PROMPT, CODE_PROMPT])
    assert console(host, file, person.name, "tty1", PASSWORD, code)[0] == 7


def test_break_glass_lines_let_the_password_in_on_tty1_only_while_mfad_is_down(host: Host, mfad: Mfad, person: Person) -> None:
    """The lines that config/pam.d/login ships commented out, with an mfad that runs and with none."""
    shipped = (host.directory / "pam.d" / "login").read_text()
    on = [line.partition("#break-glass# ")[2] for line in shipped.splitlines() if line.startswith("#break-glass# ")]
    assert len(on) == 3
    lines = shipped.replace("auth       required   pam_mfa.so first_factor=done\n", "\n".join(on) + "\n")
    up, down = host.directory / "glass-up", host.directory / "glass-down"
    up.write_text(absolute(lines))
    down.write_text(absolute(lines.replace("pam_mfa.so", "pam_mfa.so socket_dir=/run/nowhere")))

    assert console(host, down, person.name, "tty1", PASSWORD) == (0, [PASSWORD_PROMPT])
    assert console(host, down, person.name, "/dev/tty1", PASSWORD)[0] == 0
    assert console(host, down, person.name, "tty1", "wrong")[0] != 0
    assert console(host, down, person.name, "tty2", PASSWORD)[0] == 9
    for tty in ("tty1", "tty2"):
        assert console(host, up, person.name, tty, PASSWORD, person.wrong_code())[0] == 7
        assert console(host, up, person.name, tty, PASSWORD, person.next_code())[0] == 0


def test_every_shipped_file_names_the_module_as_it_is_installed() -> None:
    """No path, no socket_dir: the defaults of module and daemon fit each other."""
    for file in PAM_FILES.iterdir():
        lines = [line for line in file.read_text().splitlines() if "pam_mfa.so" in line and not line.startswith("#")]
        assert lines, file
        assert all("/" not in line.split("pam_mfa.so")[0] and "socket_dir" not in line for line in lines), file
    assert "mode=combined" in VPN
