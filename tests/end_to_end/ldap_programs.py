"""How does a test use OpenLDAP's own tools, and what did they say?"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

from tests.end_to_end.programs import PATIENCE_S, clean_environment


@dataclass(frozen=True, slots=True)
class Said:
    """``status`` is the exit status: for these tools the LDAP result code. ``screen`` is all that was printed."""

    status: int
    output: str
    screen: str


def tool(*words: str, stdin: str = "", env: Mapping[str, str] | None = None) -> Said:
    """Run ldapsearch and the like to its end, without any configuration of this machine."""
    done = subprocess.run(
        words,
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=2 * PATIENCE_S,
        env=clean_environment(LDAPCONF="/dev/null") if env is None else env,
    )
    return Said(done.returncode, done.stdout, done.stdout + done.stderr)


def as_who(url: str, dn: str = "", typed: str = "") -> list[str]:
    """The words for a simple bind; without ``dn`` there is none."""
    return ["-x", "-H", url, *(["-D", dn, "-w", typed] if dn else [])]


def ldif(output: str) -> str:
    """Without comments, where the tools tell how many there were and in what time."""
    return re.sub(r"(?m)^# .*\n", "", output)
