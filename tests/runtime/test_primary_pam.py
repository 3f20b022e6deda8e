"""The first factor through PAM: yes, no, or nobody knows; never for longer than it may take."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mfa_core.secret import Secret
from mfa_runtime.primary import PrimaryUnavailable
from mfa_runtime.primary_pam import PamPrimary
from tests.doubles import attempt


class SlowPam(PamPrimary):
    """A stack that answers when it is told to."""

    def __init__(self, *, workers: int = 2, timeout_s: float = 0.05) -> None:
        super().__init__("mfad-test", workers=workers, timeout_s=timeout_s)
        self.go = threading.Event()
        self.answers: dict[str, bool | Exception] = {}

    def _authenticate(self, name: str, password: Secret) -> bool:
        self.go.wait(10)
        found = self.answers.get(name, False)
        if isinstance(found, Exception):
            raise found
        return found


def check(backend: PamPrimary, name: str = "alice") -> object:
    """Ask about a password."""
    return backend.check(name, Secret(b"hunter2"), attempt(name, source=None))


def test_the_answer_is_passed_on() -> None:
    """Yes, no, and a failure as one."""

    async def run() -> None:
        backend = SlowPam(timeout_s=5)
        backend.go.set()
        backend.answers = {"alice": True, "carol": PrimaryUnavailable("down")}
        assert await check(backend) is True  # type: ignore[misc]
        assert await check(backend, "bob") is False  # type: ignore[misc]
        with pytest.raises(PrimaryUnavailable, match="down"):
            await check(backend, "carol")  # type: ignore[misc]
        backend.close()

    asyncio.run(run())


def test_a_stack_that_hangs_is_given_up_on_and_bounded() -> None:
    """core-5-59, core-5-65: each caller waits its time; calls that hang are counted, and over the bound nobody waits."""

    async def run() -> None:
        backend = SlowPam(workers=2)
        calls = [check(backend, f"user{number}") for number in range(20)]
        found = await asyncio.gather(*calls, return_exceptions=True)  # type: ignore[call-overload]
        backend.go.set()
        backend.close()
        assert all(isinstance(one, PrimaryUnavailable) for one in found)
        # Two have the threads, sixteen wait, and two find no place.
        assert sum("no answer" in str(one) for one in found) == 2
        assert sum("no thread" in str(one) for one in found) == 16
        assert sum("wait already" in str(one) for one in found) == 2

    asyncio.run(run())


@pytest.mark.parametrize("password", [b"a\0b", b"\xff\xfe"], ids=["nul", "undecodable"])
def test_bytes_that_no_password_holds_are_a_no(password: bytes) -> None:
    """The real python-pam, which would cut at the NUL or raise: refused before PAM is asked, or by it."""

    async def run() -> bool:
        backend = PamPrimary("mfad-no-such-service", timeout_s=30)
        try:
            return await backend.check("nobody-by-this-name", Secret(password), attempt())
        finally:
            backend.close()

    with contextlib.suppress(PrimaryUnavailable):  # a host without /etc/pam.d/other
        assert asyncio.run(run()) is False


GUESS = """
import asyncio
from mfa_core.secret import Secret
from mfa_runtime.primary_pam import PamPrimary
from tests.doubles import attempt
print(asyncio.run(PamPrimary("mfad-test", timeout_s=20).check("root", Secret(b"wrong"), attempt())))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can put a service into /etc/pam.d, in a mount namespace")
def test_a_wrong_password_holds_no_thread_while_libpam_would_sleep(tmp_path: Path) -> None:
    """pam_unix asks for two seconds after each: a handful of guesses would refuse everybody's password."""
    (tmp_path / "mfad-test").write_text("auth optional pam_faildelay.so delay=60000000\nauth required pam_deny.so\n")

    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", 'mount --bind "$0" /etc/pam.d && exec "$@"', tmp_path, sys.executable, "-c", GUESS],
        capture_output=True, text=True, timeout=60, cwd=Path(__file__).parents[2],
    )  # fmt: skip

    assert done.stdout == "False\n", done.stderr
