"""`make demo-offline` does what it tells."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.end_to_end.namespaces import must_have_namespaces
from tests.end_to_end.programs import REPOSITORY, clean_environment
from tests.pam_mfa.pam_harness import module_path, socket_directory

PATIENCE_S = 300


def checkout(directory: Path) -> Path:
    """A folder with what the script looks for."""
    (directory / "packaging").mkdir()
    shutil.copy(REPOSITORY / "packaging" / "demo-offline.sh", directory / "packaging")
    (directory / ".venv" / "bin").mkdir(parents=True)
    for name in ("python", "mfactl", "mfad"):
        path = directory / ".venv" / "bin" / name
        module = "" if name == "python" else f"-m {name} "
        path.write_text(f'#!/bin/sh\nexec {sys.executable} {module}"$@"\n')
        path.chmod(0o755)
    return directory / "packaging" / "demo-offline.sh"


def left() -> set[str]:
    """Namespaces of demos."""
    return {name for name in os.listdir("/run/netns") if name.startswith("mfad-demo")} if Path("/run/netns").exists() else set()


def test_the_demo_plays_an_outage_and_leaves_nothing(tmp_path: Path) -> None:
    """It ends with 0 only if each login went as it tells."""
    must_have_namespaces()
    module_path()
    script = checkout(tmp_path)
    before = left()
    with socket_directory() as short:  # the demo's sockets lie below it
        done = subprocess.run(
            [script], env=clean_environment(TMPDIR=str(short)), capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )
        rest = list(short.glob("mfad-demo*"))

    assert done.returncode == 0, done.stdout + done.stderr
    assert "\033" not in done.stdout, "colours are for terminals"
    assert (done.stdout.count("Let in:"), done.stdout.count("Refused:")) == (2, 4)
    assert left() <= before
    assert not rest


def test_the_demo_is_for_root_alone(tmp_path: Path) -> None:
    """And says so."""
    must_have_namespaces()
    script = checkout(tmp_path)
    for path in (tmp_path, *tmp_path.parents):
        if path.is_relative_to("/tmp/") and path != Path("/tmp"):
            path.chmod(path.stat().st_mode | 0o011)
    done = subprocess.run(
        ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "sh", str(script)],
        env=clean_environment(), capture_output=True, text=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip

    assert done.returncode == 1
    assert "only root can make network namespaces" in done.stderr
