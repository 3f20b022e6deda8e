"""What `make run` prints can be pasted, and does what stands beside it."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.end_to_end.programs import clean_environment, must_have, start, stop, wait_until
from tests.end_to_end.radius_programs import free_port

REPOSITORY = Path(__file__).parents[2]
STEP_S = 30.0
SPARE_S = 12.0
"""Of a time step that must be left: two programs are started in it."""
STARTS_S = 120.0
"""How long it may take on a loaded machine: five programs in Python, one after the other."""


@dataclass(frozen=True, slots=True)
class Demo:
    """The folder of a checkout in which the demo runs, and what it has said."""

    directory: Path
    said: str

    def paste(self, under: str) -> subprocess.CompletedProcess[str]:
        """Run the line that stands under the one that begins so."""
        lines = self.said.splitlines()
        (at,) = (number for number, line in enumerate(lines) if line.strip().startswith(under))
        done = subprocess.run(
            ["/bin/bash", "-c", lines[at + 1]], cwd=self.directory, env=clean_environment(),
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        self._spent.write_text(str(time.time() // STEP_S))
        return done

    @property
    def _spent(self) -> Path:
        """The step of the last code that may have been spent."""
        return self.directory / "step-of-the-last-code"

    def paste_twice(self, under: str) -> tuple[subprocess.CompletedProcess[str], subprocess.CompletedProcess[str]]:
        """Run the line twice with one code, which no test before it has spent: a code is good for one login at all doors."""
        def fresh() -> bool:
            step, into = divmod(time.time(), STEP_S)
            return into < STEP_S - SPARE_S and (not self._spent.exists() or float(self._spent.read_text()) < step)

        wait_until(fresh, "a new code", patience_s=3 * STEP_S)
        return self.paste(under), self.paste(under)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """Started twice: a demo that is there already goes on."""
    must_have("radclient", "slapd", "ldapwhoami", "setpriv")
    directory = tmp_path_factory.mktemp("checkout")
    (directory / "packaging").mkdir()
    shutil.copy(REPOSITORY / "packaging" / "run-demo.sh", directory / "packaging")
    (directory / ".venv" / "bin").mkdir(parents=True)
    for name in ("python", "mfactl", "mfad"):
        path = directory / ".venv" / "bin" / name
        module = "" if name == "python" else f"-m {name} "
        path.write_text(f'#!/bin/sh\nexec {sys.executable} {module}"$@"\n')
        path.chmod(0o755)
    environment = clean_environment(
        DEMO_RADIUS=f"127.0.0.1:{free_port()}", DEMO_LDAP=f"127.0.0.1:{free_port(kind=socket.SOCK_STREAM)}"
    )
    for number in (1, 2):
        log = directory / f"said-{number}"
        with log.open("wb") as out:
            program = start([directory / "packaging" / "run-demo.sh"], stdout=out, stderr=out, env=environment)
        try:
            wait_until(
                lambda log=log, one=program: "mfad: ready" in log.read_text() or one.poll() is not None,
                "the demo",
                patience_s=STARTS_S,
            )
            assert program.poll() is None, log.read_text()
            if number == 2:
                yield Demo(directory, log.read_text())
        finally:
            stop(program)
        # The directory ends with it.
        wait_until(lambda: not _slapd_of(directory), "slapd has ended")


def _slapd_of(directory: Path) -> list[int]:
    """Processes that serve the demo's directory."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            with suppress(OSError):
                words = (process / "cmdline").read_bytes().split(b"\0")
                if words[0].endswith(b"slapd") and os.fsencode(directory / "var/demo/directory/slapd.conf") in words:
                    found.append(int(process.name))
    return found


def test_ldapwhoami_takes_password_and_code_once(demo: Demo) -> None:
    """The same line twice."""
    first, second = demo.paste_twice("an LDAP login with password and code")

    assert first.returncode == 0, first.stdout + first.stderr
    assert re.fullmatch(r"dn:uid=\w+,ou=people,dc=example,dc=org\n", first.stdout)
    assert (second.returncode, "Invalid credentials (49)" in second.stderr) == (49, True)


def test_password_alone_is_refused_which_the_directory_takes(demo: Demo) -> None:
    """That it is right is shown by asking slapd itself."""
    refused = demo.paste("with the password alone")
    lines = demo.said.splitlines()
    (at,) = (number for number, line in enumerate(lines) if line.strip().startswith("with the password alone"))
    own = "ldapi://" + str(demo.directory / "var/demo/directory/ldapi").replace("/", "%2F")
    straight = re.sub(r"-H \S+", f"-H {own}", lines[at + 1])
    taken = subprocess.run(["/bin/sh", "-c", straight], env=clean_environment(), capture_output=True, text=True, timeout=60)

    assert (refused.returncode, "Invalid credentials (49)" in refused.stderr) == (49, True)
    assert taken.returncode == 0, taken.stderr


def test_ldap_trial_explains_itself(demo: Demo) -> None:
    """The code may have been used by another test meanwhile: then it says so."""
    done = demo.paste("an LDAP login, explained")

    assert "as application ldap" in done.stdout, done.stdout + done.stderr
    assert re.search(r"outcome +(let in|refused)", done.stdout)


def test_demo_without_a_directory_says_so(demo: Demo, tmp_path: Path) -> None:
    """Where slapd is not installed: everything else is served, and a configuration that has LDAP is kept aside."""
    for name in ("packaging", ".venv"):
        shutil.copytree(demo.directory / name, tmp_path / name, symlinks=True)
    script = tmp_path / "packaging" / "run-demo.sh"
    # what stands for "not installed" here: the same script, looking for another program
    script.write_text(script.read_text().replace("command -v slapd", "command -v slapd-that-is-not-here"))
    (tmp_path / "var" / "demo").mkdir(parents=True)
    old = (demo.directory / "var" / "demo" / "mfad.yaml").read_text()
    (tmp_path / "var" / "demo" / "mfad.yaml").write_text(old)
    log = tmp_path / "said"
    with log.open("wb") as out:
        program = start([script], stdout=out, stderr=out, env=clean_environment(DEMO_RADIUS=f"127.0.0.1:{free_port()}"))
    try:
        wait_until(lambda: "mfad: ready" in log.read_text() or program.poll() is not None, "the demo", patience_s=STARTS_S)
        said = log.read_text()
        assert program.poll() is None, said
    finally:
        stop(program)

    assert "(LDAP is not served: slapd is not installed here: apt-get install" in said
    assert "LDAP on" not in said.partition("mfad: ready")[2].splitlines()[0]
    assert (tmp_path / "var" / "demo" / "mfad.yaml.before").read_text() == old


def test_radclient_is_accepted_then_rejected(demo: Demo) -> None:
    """The same line twice."""
    first, second = demo.paste_twice("a RADIUS login")

    assert "Received Access-Accept" in first.stdout, first.stdout + first.stderr
    assert "Received Access-Reject" in second.stdout


def test_a_second_demo_leaves_the_codes_of_the_first_alone(demo: Demo) -> None:
    """It says that one runs, and gives the user no other secret."""
    script = demo.directory / "packaging" / "run-demo.sh"
    demo_itself = demo.directory / "var" / "demo" / "mfad.yaml"
    status = [demo.directory / ".venv" / "bin" / "mfactl", "--config", demo_itself, "status", "--json"]

    def credentials() -> object:
        shown = subprocess.run(status, env=clean_environment(), capture_output=True, timeout=60, check=True)
        return json.loads(shown.stdout)["credentials"]

    before = credentials()
    second = subprocess.run([script], env=clean_environment(), capture_output=True, text=True, timeout=60)

    assert (second.returncode, second.stderr.count("the demo runs already")) == (1, 1), second.stdout + second.stderr
    assert credentials() == before


def test_trial_says_that_the_code_was_used(demo: Demo) -> None:
    """The one for those without radclient, after the other."""
    done = demo.paste("the same, explained")

    assert "as client demo" in done.stdout, done.stdout + done.stderr
    assert re.search(r"outcome +(accepted|rejected)", done.stdout)


def test_secret_is_nobody_elses_and_on_no_command_line(demo: Demo) -> None:
    """It is made at the first start, and named by its file."""
    secret = demo.directory / "var" / "demo" / "radius.secret"

    assert secret.stat().st_mode & 0o777 == 0o400
    assert secret.read_text().strip() not in demo.said
