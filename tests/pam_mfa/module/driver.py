"""How does a test run the C program of pam_driver.c, and read what it prints?"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.pam_mfa.pam_harness import SERVICE, build, module_path, socket_directory

NOBODY: Final = 65534


@dataclass(slots=True)
class Driven:
    """What pam_driver printed; see the top of pam_driver.c."""

    auth: list[int] = field(default_factory=list)
    account: list[int] = field(default_factory=list)
    logs: list[tuple[int, str]] = field(default_factory=list)
    shown: list[tuple[int, str]] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)
    errors: str = ""
    """Standard error: the reports of valgrind and of the sanitizers."""


def read(output: str) -> Driven:
    """Read the lines of pam_driver."""
    driven = Driven()
    for line in output.splitlines():
        word, _, rest = line.partition(" ")
        if word == "auth":
            driven.auth.append(int(rest))
        elif word == "account":
            driven.account.append(int(rest))
        elif word in ("log", "shown"):
            number, _, text = rest.partition(" ")
            if word == "shown":
                driven.shown.append((int(number), text))
            elif text.startswith("pam_mfa("):  # libpam itself has things to say, too
                driven.logs.append((int(number), text))
        elif word in ("signals", "fds", "stdin", "stack"):
            driven.facts[word] = rest
    return driven


def drive(
    lines: Sequence[str],
    user: str,
    answers: Sequence[str] = (),
    *,
    options: Sequence[str] = (),
    uid: int | None = None,
    env: Mapping[str, str] | None = None,
    under: Sequence[str] = (),
    timeout_s: float = 120,
) -> Driven:
    """Run pam_driver; ``under`` is a command before it (valgrind), ``uid`` whose program it is (root only)."""
    with socket_directory() as confdir:
        sanitized = module_path().parent.name == "asan"  # a program without the runtime cannot load that module
        program = build("driver-asan") / "asan" if sanitized else build()
        binary = Path(shutil.copy(program / "pam_driver", confdir))
        # Another uid may not be able to reach the checkout.
        module = Path(shutil.copy(module_path(), confdir / "pam_mfa.so"))
        (confdir / SERVICE).write_text("".join(line.replace(str(module_path()), str(module)) + "\n" for line in lines))
        done = subprocess.run(
            [*under, binary, *options, confdir, SERVICE, user, *answers],
            env={"PATH": os.environ["PATH"], **(env or {})},
            user=uid,
            group=uid,
            extra_groups=None if uid is None else [],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="surrogateescape",
            timeout=timeout_s,
            check=False,
        )
    if done.returncode != 0:
        raise AssertionError(f"pam_driver ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    driven = read(done.stdout)
    driven.errors = done.stderr
    return driven
