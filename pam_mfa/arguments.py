"""What did the administrator write behind pam_mfa.so?

Room rule: everything that knows the spelling of a module argument lives here. The module itself acts on ``socket_dir``,
``server_uid`` and ``timeout`` and sends all of them; an argument that neither side knows is refused, because a misspelt
``require_mfa`` must not be a hole (GA and Duo refuse too; pam_u2f ignores silently).
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

from mfa_core.errors import InvalidInput
from pam_mfa.plain_text import quoted
from pam_mfa.settings import ExemptAnswer, Mode
from pam_mfa.wire import Echo


class FirstPass(enum.Enum):
    """What to do with the password that the stack already has (pam.conf(5))."""

    IGNORE = "ignore"
    TRY = "try"
    """Use it if it can be what we want; ask otherwise."""
    USE = "use"
    """Use it; never ask."""


@dataclass(frozen=True, slots=True)
class ModuleArguments:
    """The arguments of one PAM line. None means: as the service's settings say."""

    first_pass: FirstPass = FirstPass.IGNORE
    require_mfa: bool = False
    first_factor_done: bool = False
    exempt: ExemptAnswer | None = None
    mode: Mode | None = None
    prompt: str | None = None
    echo: Echo | None = None
    timeout_s: int = 100


_FLAGS: dict[str, Callable[[ModuleArguments], ModuleArguments]] = {
    "use_first_pass": lambda a: replace(a, first_pass=FirstPass.USE),
    "try_first_pass": lambda a: replace(a, first_pass=FirstPass.TRY),
    "require_mfa": lambda a: replace(a, require_mfa=True),
    "echo": lambda a: replace(a, echo=Echo.ON),
}


def _decimal(text: str, least: int, most: int) -> int:
    if not (text.isascii() and text.isdigit() and least <= int(text[:12]) <= most):
        raise ValueError(text)
    return int(text[:12])


def _first_factor(a: ModuleArguments, value: str) -> ModuleArguments:
    if value != "done":
        raise ValueError(value)
    return replace(a, first_factor_done=True)


def _socket_dir(a: ModuleArguments, value: str) -> ModuleArguments:
    if not value.startswith("/"):
        raise ValueError(value)
    return a  # the module used it: we are what it found there


def _server_uid(a: ModuleArguments, value: str) -> ModuleArguments:
    _decimal(value, 0, 2**32 - 2)
    return a  # the module checks it against us


# prompt= takes the text verbatim: pam.conf(5) has brackets for arguments with blanks, [prompt=One-time code: ].
_VALUES: dict[str, tuple[Callable[[ModuleArguments, str], ModuleArguments], str]] = {
    "socket_dir": (_socket_dir, "an absolute path"),
    "server_uid": (_server_uid, "a number"),
    "timeout": (lambda a, v: replace(a, timeout_s=_decimal(v, 5, 600)), "5 to 600"),
    "first_factor": (_first_factor, "done"),
    "exempt": (lambda a, v: replace(a, exempt=ExemptAnswer(v)), "success or ignore"),
    "mode": (lambda a, v: replace(a, mode=Mode(v)), "code, combined or auto"),
    "prompt": (lambda a, v: replace(a, prompt=v), "a text"),
}


@lru_cache(maxsize=64)  # a host has a handful of PAM lines and uses them for every login
def read_arguments(options: tuple[bytes, ...]) -> ModuleArguments:
    """Read the arguments in order; the last of two wins, as in other PAM modules.

    Raises: InvalidInput, naming the argument, escaped.
    """
    arguments = ModuleArguments()
    for option in options:
        text = option.decode("utf-8", "replace")
        name, equals, value = text.partition("=")
        if not equals and name in _FLAGS:
            arguments = _FLAGS[name](arguments)
        elif equals and name in _VALUES:
            read, expected = _VALUES[name]
            try:
                arguments = read(arguments, value)
            except ValueError:
                raise InvalidInput(
                    f"module argument {quoted(option)}: expected {name}={expected}", cure="mend the line in /etc/pam.d"
                ) from None
        else:
            raise InvalidInput(
                f"unknown module argument {quoted(option)}",
                cure="mend or remove it in /etc/pam.d: " + ", ".join([*_FLAGS, *(f"{one}=" for one in _VALUES)]),
            )
    return arguments
