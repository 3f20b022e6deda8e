"""How do these tests start programs, wait for things, and leave nothing behind?"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PATIENCE_S = 30.0
"""How long anything may take before a test gives up. No test asserts that something was fast: shared machines are not."""
_PR_SET_PDEATHSIG = 1


def wait_until(
    condition: Callable[[], object], what: str | Callable[[], str], *, patience_s: float = PATIENCE_S
) -> None:
    """Return as soon as ``condition`` holds.

    Raises: AssertionError after ``patience_s``, saying ``what`` did not come; a function says it as things are then.
    """
    give_up_at = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() > give_up_at:
            missed = what if isinstance(what, str) else what()
            raise AssertionError(f"waited {patience_s:.0f} s in vain: {missed}")
        time.sleep(0.02)


def must_have(*names: str) -> None:
    """Skip the test when a program is missing; in CI that is a failure."""
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    missing = [name for name in names if not (Path(name).exists() if "/" in name else shutil.which(name, path=path))]
    if missing:
        _missing(f"{', '.join(missing)} not installed")


def must_be_root() -> None:
    """Skip the test without root; in CI that is a failure."""
    if os.geteuid() != 0:
        _missing("only root can make a mount namespace and run sshd, su and sudo in it")


def _missing(what: str) -> None:
    if os.environ.get("CI"):
        pytest.fail(f"CI must run this test: {what}", pytrace=False)
    pytest.skip(what)


def _die_with_parent() -> None:
    # Also when pytest itself is killed, nothing is left running.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def start(
    command: Sequence[str | Path],
    *,
    stdin: int | None = subprocess.DEVNULL,
    stdout: IO[bytes] | int | None = subprocess.DEVNULL,
    stderr: IO[bytes] | int | None = subprocess.DEVNULL,
    env: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Start a program that must not outlive this process."""
    return subprocess.Popen(
        [os.fspath(word) for word in command],
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        env=dict(clean_environment() if env is None else env),
        preexec_fn=_die_with_parent,
    )


def stop(program: subprocess.Popen[bytes], number: int = signal.SIGTERM) -> int:
    """End a program that we started; its exit status."""
    if program.poll() is None:
        program.send_signal(number)
    try:
        status = program.wait(PATIENCE_S)
    except subprocess.TimeoutExpired:
        program.kill()
        program.wait()
        raise
    finally:
        for pipe in (program.stdin, program.stdout, program.stderr):
            if pipe is not None:
                pipe.close()
    return status


def run(command: Sequence[str | Path], *, stdin: str = "", env: Mapping[str, str] | None = None) -> str:
    """Run a program to its end; its standard output. Raises: AssertionError with its words when it fails."""
    done = subprocess.run(
        [os.fspath(word) for word in command],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=2 * PATIENCE_S,
        env=dict(clean_environment() if env is None else env),
    )
    words = " ".join(os.fspath(word) for word in command)
    assert done.returncode == 0, f"{words}: exit {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def clean_environment(**more: str) -> dict[str, str]:
    """An environment of our own making, with the package importable and a terminal that takes UTF-8."""
    return {
        "PATH": f"{Path(sys.executable).parent}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "PYTHONPATH": str(REPOSITORY),
        "LANG": "C.UTF-8",
        "TERM": "xterm",
        **more,
    }
