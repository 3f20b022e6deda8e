"""How does a test log in through the real libpam and the real pam_mfa.so, without root and without touching /etc/pam.d?

``pam_start_confdir`` takes the directory of the service file, so every transaction brings its own stack in a directory of its
own. Nothing is shared between transactions: use as many at once as you like, from threads (libpam runs without the
interpreter lock) and from processes.

One call, most of the time::

    from tests.pam_mfa.pam_harness import auth_line, run_pam

    seen = run_pam([auth_line(socket_dir=directory)], "alice", ["123456"])
    assert seen.code == PamCode.SUCCESS
    assert seen.prompts == ["Verification code: "]

The answers are a script: one for each prompt, in order. A script that is not consumed, a prompt without an answer, or a prompt
that an ``Expect`` did not expect, raises ``ScriptError`` when the transaction closes: a test cannot pass by accident. An
answer is a ``str`` or ``bytes``, a function of the prompt (for instance to read a number out of it), ``Fails(code)``, or one
of ``Broken``, the ways in which callers are known to be wrong; ``Always(answer)`` at the end answers whatever is asked.

For more than one phase::

    with PamTransaction([auth_line(...), account_line(...)], "alice", ["123456"], items=Items(rhost="192.0.2.1")) as pam:
        assert pam.authenticate().code == PamCode.SUCCESS
        assert pam.acct_mgmt().code == PamCode.SUCCESS

``module_path()`` names the .so: the environment variable ``PAM_MFA_MODULE`` if set (the suites under sanitizers use it), else
pam_mfa/module/build/pam_mfa.so, which ``build()`` makes on first use. ``probe_line`` stacks a small module that puts or
reports PAM_AUTHTOK: see ``Seen.authtok``.
"""

from __future__ import annotations

import contextlib
import ctypes
import enum
import fcntl
import functools
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

MODULE_SOURCE = Path(__file__).resolve().parents[2] / "pam_mfa" / "module"
BUILD = MODULE_SOURCE / "build"
SERVICE = "mfad-test"


class PamCode(enum.IntEnum):
    """The return codes of Linux-PAM that occur here."""

    SUCCESS = 0
    SERVICE_ERR = 3
    SYSTEM_ERR = 4
    BUF_ERR = 5
    PERM_DENIED = 6
    AUTH_ERR = 7
    CRED_INSUFFICIENT = 8
    AUTHINFO_UNAVAIL = 9
    USER_UNKNOWN = 10
    MAXTRIES = 11
    ACCT_EXPIRED = 13
    CONV_ERR = 19
    IGNORE = 25
    MODULE_UNKNOWN = 28
    CONV_AGAIN = 30
    INCOMPLETE = 31


class Style(enum.IntEnum):
    """How a message of the conversation is to be shown."""

    PROMPT_OFF = 1
    PROMPT_ON = 2
    ERROR = 3
    INFO = 4


SILENT = 0x8000
DISALLOW_NULL_AUTHTOK = 0x0001


class ScriptError(AssertionError):
    """The conversation did not go as the test wrote it."""


class Broken(enum.Enum):
    """Callers that are wrong."""

    NULL_TEXT = "SUCCESS and a response without a text (python-pam, for echo-on prompts)"
    NULL_ARRAY = "SUCCESS and no response at all"
    DANGLING = "CONV_ERR, and a pointer that is not to be touched"


@dataclass(frozen=True, slots=True)
class Fails:
    """The conversation function returns ``code``."""

    code: int = PamCode.CONV_ERR


Answer = str | bytes | Fails | Broken | Callable[[str], str | bytes]
"""What the conversation function can do about one prompt."""


@dataclass(frozen=True, slots=True)
class Expect:
    """An answer for this prompt and no other."""

    prompt: str
    answer: Answer
    style: Style = Style.PROMPT_OFF


@dataclass(frozen=True, slots=True)
class Always:
    """This answer to every prompt from here on, be there none or many: for callers like sshd's password method."""

    answer: str | bytes | Fails | Broken


Step = Answer | Expect | Always


@dataclass(frozen=True, slots=True)
class Shown:
    """One message that the conversation function was given; bytes that are not UTF-8 come as surrogates."""

    style: Style
    text: str


@dataclass(frozen=True, slots=True)
class Items:
    """What the application knows about the login. None is an item that is not set."""

    rhost: str | None = None
    tty: str | None = None
    ruser: str | None = None
    authtok: str | None = None
    """Set from within the stack, as an application may not: a probe line is put in front."""


NO_ITEMS = Items()


@dataclass(frozen=True, slots=True)
class Seen:
    """What one phase returned, and all that the transaction has shown until then."""

    code: int
    shown: tuple[Shown, ...]
    env: Mapping[str, str]
    user: str | None
    elapsed_s: float
    fail_delay_us: int
    """As libpam would have slept: up to half more or less than was asked for. Nobody sleeps in a test."""

    @property
    def prompts(self) -> list[str]:
        return [one.text for one in self.shown if one.style in (Style.PROMPT_OFF, Style.PROMPT_ON)]

    @property
    def infos(self) -> list[str]:
        return [one.text for one in self.shown if one.style == Style.INFO]

    @property
    def errors(self) -> list[str]:
        return [one.text for one in self.shown if one.style == Style.ERROR]

    @property
    def authtok(self) -> str | None:
        """PAM_AUTHTOK as ``probe_line("report")`` behind the module saw it; None when it was not set."""
        return self.env.get("PROBE_AUTHTOK")


# Building and naming the modules


@functools.cache
def build(*targets: str) -> Path:
    """Run make once per process and set of targets; processes wait for one another. Returns the build directory."""
    BUILD.mkdir(exist_ok=True)
    with (BUILD / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = subprocess.run(
            ["make", "-C", str(MODULE_SOURCE), *(targets or ("all", "test-tools"))],
            env={name: value for name, value in os.environ.items() if name not in ("LD_PRELOAD", "MAKEFLAGS")},
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode != 0:
        raise RuntimeError(f"make {' '.join(targets)} failed:\n{done.stdout}\n{done.stderr}")
    return BUILD


def module_path() -> Path:
    """The pam_mfa.so under test, absolute."""
    named = os.environ.get("PAM_MFA_MODULE")
    return Path(named) if named else build() / "pam_mfa.so"


def _line(phase: str, control: str, module: Path, words: Sequence[str]) -> str:
    # Linux-PAM takes [words with blanks] in brackets, and a ] in them behind a backslash.
    quoted = ["[" + word.replace("]", "\\]") + "]" if any(c in word for c in " []\t") else word for word in words]
    return " ".join([phase, control, str(module), *quoted])


def _mfa_words(socket_dir: Path | str | None, words: Sequence[str]) -> list[str]:
    all_words = list(words)
    if socket_dir is not None:
        all_words.insert(0, f"socket_dir={socket_dir}")
    if os.geteuid() != 0 and not any(word.startswith("server_uid=") for word in words):
        all_words.append(f"server_uid={os.geteuid()}")
    return all_words


def auth_line(*words: str, socket_dir: Path | str | None = None, control: str = "required") -> str:
    """The line that stacks pam_mfa.so in the auth phase; without root it trusts sockets of the own uid."""
    return _line("auth", control, module_path(), _mfa_words(socket_dir, words))


def account_line(*words: str, socket_dir: Path | str | None = None, control: str = "required") -> str:
    """The same for the account phase."""
    return _line("account", control, module_path(), _mfa_words(socket_dir, words))


def probe_line(*words: str) -> str:
    """``set_authtok=TEXT`` in front of the module, ``report`` behind it (pam_probe.c)."""
    return _line("auth", "optional", build() / "pam_probe.so", words)


# libpam


class _Message(ctypes.Structure):
    _fields_ = (("style", ctypes.c_int), ("text", ctypes.c_char_p))


class _Response(ctypes.Structure):
    _fields_ = (("text", ctypes.c_void_p), ("code", ctypes.c_int))


_ConvFunction = ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.c_int,
    ctypes.POINTER(ctypes.POINTER(_Message)),
    ctypes.POINTER(ctypes.c_void_p),
    ctypes.c_void_p,
)
_DelayFunction = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_uint, ctypes.c_void_p)


class _Conv(ctypes.Structure):
    _fields_ = (("function", _ConvFunction), ("data", ctypes.c_void_p))


@functools.cache
def _libpam() -> ctypes.CDLL:
    libpam = ctypes.CDLL("libpam.so.0")
    handle = ctypes.c_void_p
    libpam.pam_start_confdir.argtypes = [
        ctypes.c_char_p,
        ctypes.c_char_p,
        ctypes.POINTER(_Conv),
        ctypes.c_char_p,
        ctypes.POINTER(handle),
    ]
    libpam.pam_end.argtypes = [handle, ctypes.c_int]
    libpam.pam_set_item.argtypes = [handle, ctypes.c_int, ctypes.c_void_p]
    libpam.pam_get_item.argtypes = [handle, ctypes.c_int, ctypes.POINTER(ctypes.c_void_p)]
    libpam.pam_putenv.argtypes = [handle, ctypes.c_char_p]
    libpam.pam_getenvlist.argtypes = [handle]
    libpam.pam_getenvlist.restype = ctypes.POINTER(ctypes.c_void_p)
    for name in ("pam_authenticate", "pam_acct_mgmt", "pam_setcred", "pam_open_session", "pam_chauthtok"):
        getattr(libpam, name).argtypes = [handle, ctypes.c_int]
    return libpam


@functools.cache
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None)
    libc.calloc.argtypes = [ctypes.c_size_t, ctypes.c_size_t]
    libc.calloc.restype = ctypes.c_void_p
    libc.strdup.argtypes = [ctypes.c_char_p]
    libc.strdup.restype = ctypes.c_void_p
    libc.free.argtypes = [ctypes.c_void_p]
    return libc


# Who frees this, crashes. (libpam does so itself, when it asks for the user name.)
_NOT_ON_THE_HEAP = ctypes.create_string_buffer(64)

_PAM_USER, _PAM_TTY, _PAM_RHOST, _PAM_RUSER, _PAM_FAIL_DELAY = 2, 3, 4, 8, 10


def _bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode(errors="surrogateescape")


def _text(value: bytes) -> str:
    return value.decode(errors="surrogateescape")


@dataclass(slots=True)
class _Conversation:
    """Plays the script; what goes wrong is kept and raised later, as no exception may cross C."""

    answers: list[Step]
    shown: list[Shown] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    fail_delay_us: int = 0

    def answer(self, style: Style, text: str) -> bytes | Fails | Broken:
        self.shown.append(Shown(style, text))
        if style in (Style.ERROR, Style.INFO):
            return Broken.NULL_TEXT
        if not self.answers:
            self.wrong.append(f"no answer in the script for the prompt {text!r}")
            return Fails()
        step = self.answers[0] if isinstance(self.answers[0], Always) else self.answers.pop(0)
        if isinstance(step, Expect):
            if (step.prompt, step.style) != (text, style):
                self.wrong.append(f"the prompt {text!r} ({style.name}), expected {step.prompt!r} ({step.style.name})")
                return Fails()
            step = step.answer
        if isinstance(step, Always):
            step = step.answer
        if isinstance(step, Fails | Broken):
            return step
        return _bytes(step(text) if callable(step) else step)

    def converse(self, count: int, messages: object, responses: object, _data: object) -> int:
        try:
            if count != 1:
                self.wrong.append(f"{count} messages in one call: callers exist that crash on two")
                return PamCode.CONV_ERR
            message = messages[0].contents  # type: ignore[index]
            answer = self.answer(Style(message.style), _text(message.text))
            if isinstance(answer, Fails):
                return answer.code
            if answer is Broken.DANGLING:
                responses[0] = ctypes.addressof(_NOT_ON_THE_HEAP)  # type: ignore[index]
                return PamCode.CONV_ERR
            if answer is Broken.NULL_ARRAY:
                responses[0] = None  # type: ignore[index]
                return PamCode.SUCCESS
            array = _libc().calloc(1, ctypes.sizeof(_Response))
            if isinstance(answer, bytes):
                ctypes.cast(array, ctypes.POINTER(_Response)).contents.text = _libc().strdup(answer)
            responses[0] = array  # type: ignore[index]
        except Exception as error:  # noqa: BLE001 - C is the caller: everything is told, by close()
            self.wrong.append(f"the conversation raised {error!r}")
            return PamCode.CONV_ERR
        return PamCode.SUCCESS

    def delay(self, _code: int, delay_us: int, _data: object) -> None:
        self.fail_delay_us = max(self.fail_delay_us, delay_us)


class PamTransaction:
    """One PAM handle from pam_start to pam_end. A context manager; leaving it checks that the script was consumed.

    ``lines`` are those of a service file, without its name. ``env`` is the PAM environment (pam_putenv), as where sshd keeps
    SSH_CONNECTION, never ``environ``. A ``user`` of None leaves PAM_USER unset.
    """

    def __init__(
        self,
        lines: Sequence[str],
        user: str | bytes | None,
        answers: Sequence[Step] = (),
        *,
        items: Items = NO_ITEMS,
        env: Mapping[str, str] | None = None,
        service: str = SERVICE,
    ) -> None:
        self._conversation = _Conversation(list(answers))
        # ctypes keeps no reference to these: they must live as long as the handle.
        self._conv = _Conv(_ConvFunction(self._conversation.converse), None)
        self._delay = _DelayFunction(self._conversation.delay)
        self._handle = ctypes.c_void_p()
        self._last = int(PamCode.SUCCESS)
        self._confdir = Path(tempfile.mkdtemp(prefix="pam-"))
        try:
            front = [] if items.authtok is None else [probe_line(f"set_authtok={items.authtok}")]
            (self._confdir / service).write_bytes(b"".join(_bytes(line) + b"\n" for line in [*front, *lines]))
            name = None if user is None else _bytes(user)
            code = _libpam().pam_start_confdir(
                service.encode(), name, ctypes.byref(self._conv), os.fsencode(self._confdir), ctypes.byref(self._handle)
            )
            if code != PamCode.SUCCESS:
                raise ScriptError(f"pam_start_confdir returned {code}")
            for item, value in ((_PAM_RHOST, items.rhost), (_PAM_TTY, items.tty), (_PAM_RUSER, items.ruser)):
                if value is not None:
                    self._must(_libpam().pam_set_item(self._handle, item, _bytes(value)))
            self._must(_libpam().pam_set_item(self._handle, _PAM_FAIL_DELAY, ctypes.cast(self._delay, ctypes.c_void_p)))
            for variable, value in (env or {}).items():
                self._must(_libpam().pam_putenv(self._handle, _bytes(f"{variable}={value}")))
        except BaseException:
            self._end()
            raise

    @staticmethod
    def _must(code: int) -> None:
        if code != PamCode.SUCCESS:
            raise ScriptError(f"preparing the transaction failed with PAM code {code}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._end()
        if kind is None:
            self.check_script()

    def close(self) -> None:
        """End the transaction. Raises: ScriptError."""
        self.__exit__(None, None, None)

    def check_script(self) -> None:
        """Raises: ScriptError when the conversation so far was not the script's."""
        wrong = list(self._conversation.wrong)
        left = [answer for answer in self._conversation.answers if not isinstance(answer, Always)]
        if left:
            wrong.append(f"{len(left)} answers of the script were not asked for")
        if wrong:
            raise ScriptError("; ".join(wrong) + f"; shown: {self._conversation.shown}")

    def _end(self) -> None:
        if self._handle.value is not None:
            _libpam().pam_end(self._handle, self._last)
            self._handle = ctypes.c_void_p()
        shutil.rmtree(self._confdir, ignore_errors=True)

    def authenticate(self, flags: int = 0) -> Seen:
        return self._run("pam_authenticate", flags)

    def acct_mgmt(self, flags: int = 0) -> Seen:
        return self._run("pam_acct_mgmt", flags)

    def setcred(self, flags: int = 0) -> Seen:
        return self._run("pam_setcred", flags)

    def open_session(self, flags: int = 0) -> Seen:
        return self._run("pam_open_session", flags)

    def chauthtok(self, flags: int = 0) -> Seen:
        return self._run("pam_chauthtok", flags)

    def add_answers(self, *answers: Step) -> None:
        """Continue the script, for the next phase on the same handle."""
        self._conversation.answers.extend(answers)

    def set_user(self, user: str) -> None:
        """Do what an application should not: change PAM_USER between phases."""
        self._must(_libpam().pam_set_item(self._handle, _PAM_USER, _bytes(user)))

    def _run(self, function: str, flags: int) -> Seen:
        started = time.monotonic()
        self._last = getattr(_libpam(), function)(self._handle, flags)
        elapsed = time.monotonic() - started
        return Seen(
            self._last,
            tuple(self._conversation.shown),
            dict(self._environment()),
            self._user(),
            elapsed,
            self._conversation.fail_delay_us,
        )

    def _user(self) -> str | None:
        found = ctypes.c_void_p()
        self._must(_libpam().pam_get_item(self._handle, _PAM_USER, ctypes.byref(found)))
        return None if found.value is None else _text(ctypes.string_at(found.value))

    def _environment(self) -> Iterator[tuple[str, str]]:
        entries = _libpam().pam_getenvlist(self._handle)
        at = 0
        while entries[at] is not None:
            name, _, value = _text(ctypes.string_at(entries[at])).partition("=")
            _libc().free(entries[at])
            at += 1
            yield name, value
        _libc().free(ctypes.cast(entries, ctypes.c_void_p))


class Phase(enum.Enum):
    """Which entry points run_pam calls."""

    AUTHENTICATE = "authenticate"
    ACCOUNT = "account"
    AUTHENTICATE_AND_ACCOUNT = "authenticate, and account if that succeeded"


def run_pam(
    lines: Sequence[str],
    user: str | bytes | None,
    answers: Sequence[Step] = (),
    *,
    phase: Phase = Phase.AUTHENTICATE,
    flags: int = 0,
    items: Items = NO_ITEMS,
    env: Mapping[str, str] | None = None,
    service: str = SERVICE,
) -> Seen:
    """Run one transaction and return what the last phase saw.

    Raises: ScriptError when the conversation was not the script's.
    """
    with PamTransaction(lines, user, answers, items=items, env=env, service=service) as pam:
        if phase is Phase.ACCOUNT:
            return pam.acct_mgmt(flags)
        seen = pam.authenticate(flags)
        if phase is Phase.AUTHENTICATE_AND_ACCOUNT and seen.code == PamCode.SUCCESS:
            return pam.acct_mgmt(flags)
        return seen


@contextlib.contextmanager
def socket_directory(mode: int = 0o755) -> Iterator[Path]:
    """A directory that the module accepts, with a path short enough for a socket; gone afterwards."""
    directory = Path(tempfile.mkdtemp(prefix="mfad-"))
    try:
        directory.chmod(mode)
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
