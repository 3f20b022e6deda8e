"""How does a test log in with the real ssh client and see what a person would see?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import pexpect

from tests.end_to_end.host import Sshd
from tests.end_to_end.programs import PATIENCE_S, clean_environment

IN = "LOGGED-IN-AS"
PASSWORD_PROMPT = "Password: "
CODE_PROMPT = "Verification code: "
COMBINED_PROMPT = "Password and verification code: "
SSH_PASSWORD_PROMPT = "'s password: "
"""What the client itself asks for the ``password`` method."""

KEYBOARD = ("-o", "PreferredAuthentications=keyboard-interactive")
PASSWORD_METHOD = ("-o", "PreferredAuthentications=password")
PUBLIC_KEY = ("-o", "PreferredAuthentications=publickey")
KEY_THEN_KEYBOARD = ("-o", "PreferredAuthentications=publickey,keyboard-interactive")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a login ended. ``screen`` is all that the person saw."""

    accepted: bool
    screen: str


class SshLogin:
    """One ssh client at a terminal. A context manager: the client is gone afterwards."""

    def __init__(self, sshd: Sshd, user: str, methods: Sequence[str] = KEYBOARD, *, tries: int = 1) -> None:
        key = sshd.host.private_key
        uses_keys = "publickey" in methods[-1]
        self._shown: list[str] = []
        self._user = user
        program, *words = sshd.host.beside("ssh")
        self.child = pexpect.spawn(
            program,
            [
                *words,
                "-F", "none", "-p", str(sshd.port), "-l", user, *methods,
                "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "GlobalKnownHostsFile=/dev/null",
                "-o", "LogLevel=INFO", "-o", f"NumberOfPasswordPrompts={tries}", "-o", "IdentityAgent=none",
                "-o", "IdentitiesOnly=yes", "-o", f"IdentityFile={key}" if uses_keys else "IdentityFile=none",
                "127.0.0.1", f"echo {IN}-$(id -un)",
            ],
            env=clean_environment(HOME=str(sshd.host.directory)),
            encoding="utf-8", codec_errors="replace", timeout=PATIENCE_S, dimensions=(50, 200),
        )  # fmt: skip
        self.child.delaybeforesend = None
        self.child.ptyproc.delayafterclose = self.child.ptyproc.delayafterterminate = 0.02

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.child.close(force=True)

    def answer(self, prompt: str, reply: str) -> str:
        """Wait for ``prompt`` and type ``reply``; what was shown before the prompt."""
        before = self.see(prompt)
        self.child.sendline(reply)
        return before

    def see(self, text: str) -> str:
        """Wait for ``text``; what was shown before it."""
        try:
            self.child.expect_exact(text)
        except (pexpect.EOF, pexpect.TIMEOUT) as error:
            raise AssertionError(f"{text!r} was not shown; the screen: {''.join(self._shown)}{self.child.before}") from error
        before = str(self.child.before)
        self._shown += [before, text]
        return before

    def end(self) -> Outcome:
        """Wait for the end of the client."""
        self.child.expect_exact([pexpect.EOF])
        self._shown.append(str(self.child.before))
        self.child.close()
        screen = "".join(self._shown).replace("\r\n", "\n")
        accepted = self.child.exitstatus == 0 and f"{IN}-{self._user}" in screen
        assert accepted or IN not in screen, f"a shell, but not as {self._user}: {screen}"
        return Outcome(accepted, screen)


def log_in(sshd: Sshd, user: str, *dialogue: tuple[str, str], methods: Sequence[str] = KEYBOARD, tries: int = 1) -> Outcome:
    """Log in, answering each prompt in ``dialogue`` when it comes, in this order."""
    with SshLogin(sshd, user, methods, tries=tries) as ssh:
        for prompt, reply in dialogue:
            ssh.answer(prompt, reply)
        return ssh.end()
