"""What `make run` prints can be pasted, and does what stands beside it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.end_to_end.programs import clean_environment, must_have, start, stop, wait_until
from tests.end_to_end.radius_programs import free_port

REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Demo:
    """The folder of a checkout in which the demo runs, and what it has said."""

    directory: Path
    said: str

    def paste(self, under: str) -> subprocess.CompletedProcess[str]:
        """Run the line that stands under the one that begins so."""
        lines = self.said.splitlines()
        (at,) = (number for number, line in enumerate(lines) if line.strip().startswith(under))
        return subprocess.run(
            ["/bin/bash", "-c", lines[at + 1]], cwd=self.directory, env=clean_environment(),
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """Started twice: a demo that is there already goes on."""
    must_have("radclient")
    directory = tmp_path_factory.mktemp("checkout")
    (directory / "packaging").mkdir()
    shutil.copy(REPOSITORY / "packaging" / "run-demo.sh", directory / "packaging")
    (directory / ".venv" / "bin").mkdir(parents=True)
    for name in ("python", "mfactl", "mfad"):
        path = directory / ".venv" / "bin" / name
        module = "" if name == "python" else f"-m {name} "
        path.write_text(f'#!/bin/sh\nexec {sys.executable} {module}"$@"\n')
        path.chmod(0o755)
    environment = clean_environment(DEMO_RADIUS=f"127.0.0.1:{free_port()}")
    for number in (1, 2):
        log = directory / f"said-{number}"
        with log.open("wb") as out:
            program = start([directory / "packaging" / "run-demo.sh"], stdout=out, stderr=out, env=environment)
        try:
            wait_until(lambda log=log, one=program: "mfad: ready" in log.read_text() or one.poll() is not None, "the demo")
            assert program.poll() is None, log.read_text()
            if number == 2:
                yield Demo(directory, log.read_text())
        finally:
            stop(program)


def test_radclient_is_accepted_then_rejected(demo: Demo) -> None:
    """The same line twice."""
    first, second = demo.paste("a RADIUS login"), demo.paste("a RADIUS login")

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
