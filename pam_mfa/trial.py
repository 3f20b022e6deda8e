"""A login as a program would do it: real libpam, the real module, one stack in a directory of its own.

Room rule: the only file of the product that calls libpam as an application does. It changes nothing under /etc/pam.d
(``pam_start_confdir``, Linux-PAM 1.4) and decides nothing: it shows what the module asks and returns what libpam says.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import sysconfig
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mfa_core.errors import InvalidInput, NotFound
from mfa_core.secret import Secret

PROMPT_OFF, PROMPT_ON, ERROR, INFO = 1, 2, 3, 4
_PAM_RHOST, _PAM_CONV_ERR, _PAM_BUF_ERR = 4, 19, 5

MEANINGS = {
    0: "PAM_SUCCESS: let in",
    3: "PAM_SERVICE_ERR: the module or mfad is misconfigured; see the log of mfad and of this program (authpriv)",
    6: "PAM_PERM_DENIED: refused by policy, or nothing else in the stack said yes (an exempt user gives PAM_IGNORE)",
    7: "PAM_AUTH_ERR: wrong, used or malformed code",
    8: "PAM_CRED_INSUFFICIENT: this user must enrol first",
    9: "PAM_AUTHINFO_UNAVAIL: mfad is not reachable on this socket directory",
    11: "PAM_MAXTRIES: too many wrong codes: wait, or `mfactl user unlock`",
    13: "PAM_ACCT_EXPIRED: the account or its factor has expired",
    28: "PAM_MODULE_UNKNOWN: libpam could not load the module from this path",
}
"""What libpam's answers mean here."""


class _Message(ctypes.Structure):
    _fields_ = (("style", ctypes.c_int), ("text", ctypes.c_char_p))


class _Response(ctypes.Structure):
    _fields_ = (("text", ctypes.c_void_p), ("code", ctypes.c_int))


_Converse = ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.c_int,
    ctypes.POINTER(ctypes.POINTER(_Message)),
    ctypes.POINTER(ctypes.POINTER(_Response)),
    ctypes.c_void_p,
)


class _Conversation(ctypes.Structure):
    _fields_ = (("converse", _Converse), ("data", ctypes.c_void_p))


Talk = Callable[[int, str], Secret | None]
"""Gets a style and a text; returns the answer to a prompt, None to give up (and for texts that are only shown)."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What libpam said. ``code`` is its number; ``text`` its own words; ``meaning`` ours."""

    code: int
    text: str
    meaning: str


def find_module(named: Path | None) -> Path:
    """The module to load: the one named, the installed one, or the one built in this source tree.

    Raises:
        NotFound: there is none.
    """
    installed = Path("/lib") / str(sysconfig.get_config_var("MULTIARCH") or "") / "security" / "pam_mfa.so"
    built = Path(__file__).parent / "module" / "build" / "pam_mfa.so"
    for path in (named,) if named is not None else (installed, built):
        if path.is_file():
            return path.absolute()
    raise NotFound("pam_mfa.so was not found", cure="name it with --module, or build it: `make -C pam_mfa/module`")


def authenticate(user: str, *, service: str, module: Path, arguments: Sequence[str], rhost: str, talk: Talk) -> Outcome:
    """Run one ``pam_authenticate`` over a stack that holds ``module`` alone.

    Raises:
        InvalidInput: a name or argument that no PAM file can hold.
        NotFound: this machine has no libpam with pam_start_confdir.
    """
    if not service.replace("-", "").replace("_", "").replace(".", "").isalnum() or service.startswith("."):
        raise InvalidInput("the service must be a plain name, such as sshd")
    if any(c in word for word in (str(module), *arguments) for c in " []\n\\\0"):
        raise InvalidInput("a path or argument holds a blank or bracket, which a PAM file cannot hold")
    try:
        libpam = ctypes.CDLL(ctypes.util.find_library("pam") or "libpam.so.0")
        start = libpam.pam_start_confdir
    except (OSError, AttributeError) as err:
        raise NotFound("this machine has no Linux-PAM 1.4 or newer", cure="apt-get install libpam0g") from err
    libpam.pam_strerror.restype = ctypes.c_char_p
    libc = ctypes.CDLL(None)
    libc.calloc.restype = ctypes.c_void_p
    libc.calloc.argtypes = (ctypes.c_size_t, ctypes.c_size_t)
    libc.strdup.restype = ctypes.c_void_p

    def converse(count: int, messages: Any, responses: Any, _data: object) -> int:
        block = libc.calloc(count, ctypes.sizeof(_Response))  # libpam frees it
        if not block:
            return _PAM_BUF_ERR
        answers = ctypes.cast(block, ctypes.POINTER(_Response))
        for i in range(count):
            message = messages[i].contents
            answer = talk(int(message.style), (message.text or b"").decode("utf-8", "replace"))
            if message.style in {PROMPT_OFF, PROMPT_ON}:
                if answer is None:
                    return _PAM_CONV_ERR
                answers[i].text = libc.strdup(ctypes.c_char_p(answer.reveal()))
        responses[0] = answers
        return 0

    conversation = _Conversation(_Converse(converse), None)
    handle = ctypes.c_void_p()
    with tempfile.TemporaryDirectory(prefix="mfactl-pam-") as directory:
        line = " ".join(("auth", "required", str(module), *arguments))
        (Path(directory) / service).write_text(line + "\n")
        code = start(
            service.encode(),
            user.encode("utf-8", "surrogateescape"),
            ctypes.byref(conversation),
            directory.encode(),
            ctypes.byref(handle),
        )
        if code == 0:
            if rhost:
                libpam.pam_set_item(handle, _PAM_RHOST, rhost.encode())
            code = libpam.pam_authenticate(handle, 0)
        text = (libpam.pam_strerror(handle, code) or b"").decode("utf-8", "replace")
        libpam.pam_end(handle, code)
    return Outcome(code, text, MEANINGS.get(code, f"PAM result {code}"))
