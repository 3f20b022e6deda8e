"""``mfactl pam test``: log in as a program would, and explain the answer."""

from __future__ import annotations

import getpass
import os
import pwd
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mfa_core.secret import Secret
from mfactl.options import Name
from mfactl.output import say

if TYPE_CHECKING:
    from pam_mfa.trial import Outcome

app = typer.Typer(help="Try the PAM door.", no_args_is_help=True)


@app.callback()
def pam() -> None:
    """Try the PAM door."""


@app.command("test")
def try_login(
    context: typer.Context,
    name: Name,
    service: Annotated[str, typer.Option(help="The PAM service to log in as.")] = "mfactl-test",
    module: Annotated[Path | None, typer.Option(help="pam_mfa.so (else the installed one, else the built one).")] = None,
    rhost: Annotated[str, typer.Option(help="The address that the login seems to come from.")] = "",
    argument: Annotated[list[str] | None, typer.Option("--argument", help="A further module argument.")] = None,
) -> None:
    """Log NAME in through libpam and pam_mfa.so, as sshd would. Answers are asked for, or read from standard input by line.

    The code is spent by it. As root any user can be tried, else only yourself.
    """
    from mfa_core.errors import Conflict
    from mfactl.session import read_configuration
    from pam_mfa.trial import PROMPT_OFF, PROMPT_ON, authenticate, find_module

    door = read_configuration(context).doors.pam
    if door is None:
        raise Conflict("the PAM door is not configured", cure="add `pam: {}` under doors")

    def talk(style: int, text: str) -> Secret | None:
        if style not in {PROMPT_OFF, PROMPT_ON}:
            say(text)
            return None
        if sys.stdin.isatty():
            return Secret.from_text(getpass.getpass(text) if style == PROMPT_OFF else input(text))
        line = sys.stdin.readline(4096)
        say(text)
        return Secret.from_text(line.rstrip("\n")) if line else None

    words = [f"socket_dir={door.socket_dir}", *(argument or [])]
    if os.geteuid() != 0:
        words.append(f"server_uid={os.geteuid()}")  # an mfad of one's own, such as the one that `make run` starts
    outcome = authenticate(
        name, service=service, module=find_module(module), arguments=words, rhost=rhost, talk=talk
    )
    say(f"{outcome.code} {meaning_for(outcome, name, os.geteuid())}")
    raise typer.Exit(0 if outcome.code == 0 else 1)


_PERM_DENIED = 6


def meaning_for(outcome: Outcome, name: str, uid: int) -> str:
    """What libpam's answer means to somebody of this uid who tried ``name``."""
    if outcome.code == _PERM_DENIED and uid != 0 and name not in _names_of(uid):
        return "PAM_PERM_DENIED: only yourself can be tried without root"
    return outcome.meaning


def _names_of(uid: int) -> tuple[str, ...]:
    try:
        return (pwd.getpwuid(uid).pw_name,)
    except KeyError:
        return ()
