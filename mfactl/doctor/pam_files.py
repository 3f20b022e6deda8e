"""PAM files: is pam_mfa.so asked, and does its answer count?

Room rule: pure functions over the text of files; reading them is the caller's. See pam.conf(5) for the grammar.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass

from mfa_core.errors import InvalidInput
from mfactl.doctor.finding import Finding, Weight
from pam_mfa.arguments import read_arguments

MODULE = "pam_mfa.so"
DEFAULT_SOCKET_DIR = "/run/mfad"
"""Where the module looks when its line does not say (PROTOCOL.md)."""
MEANT_TO_SKIP = "pam_rootok.so"
"""Root becomes anybody without being asked: su is shipped so, and boot scripts count on it."""
NO_FIRST_FACTOR = frozenset({
    "pam_env.so", "pam_faildelay.so", "pam_group.so", "pam_mfa.so", "pam_nologin.so", "pam_permit.so", "pam_securetty.so",
    "pam_succeed_if.so", "pam_warn.so",
})  # fmt: skip
"""Modules under ``auth`` that ask for nothing; any other one, and any include, is taken for the password."""
PASSWORD_MODULES = frozenset({
    "pam_deny.so", "pam_krb5.so", "pam_ldap.so", "pam_sss.so", "pam_systemd_home.so", "pam_unix.so", "pam_winbind.so",
})  # fmt: skip
"""Modules that fail when the password is wrong, and pam_deny, to which others jump then."""
_ARGUMENT = re.compile(r"\[[^\]]*\]|\S+")
_INCLUDE = re.compile(r"^[ \t]*@include[ \t]+(\S*auth\S*)", re.MULTILINE)
_LINE = re.compile(
    r"-?(?P<type>auth|account|password|session)\s+(?P<control>\[[^\]]*\]|\S+)\s+(?P<module>\S+)\s*(?P<args>.*)"
).fullmatch


@dataclass(frozen=True, slots=True)
class PamLine:
    """One line of a file. ``control`` as written, ``number`` from 1."""

    number: int
    type: str
    control: str
    module: str
    arguments: tuple[str, ...]

    @property
    def is_ours(self) -> bool:
        """Whether it names our module."""
        return self.module.rpartition("/")[2] == MODULE


def read_pam_file(text: str) -> list[PamLine]:
    """The lines of a PAM file; continued lines are joined, what cannot be read is passed over (PAM refuses it itself)."""
    lines: list[PamLine] = []
    pending, start = "", 0
    for number, raw in enumerate(text.splitlines(), start=1):
        start = start or number
        line = raw.split("#", 1)[0].rstrip()
        if line.endswith("\\"):
            pending += line[:-1] + " "
            continue
        found = _LINE((pending + line).strip())
        if found is not None:
            lines.append(
                PamLine(start, found["type"], found["control"], found["module"], _arguments(found["args"]))
            )
        pending, start = "", 0
    return lines


def _arguments(text: str) -> tuple[str, ...]:
    """As libpam divides them: brackets hold one argument together."""
    words = _ARGUMENT.findall(text)
    return tuple(word[1:-1] if word.startswith("[") and word.endswith("]") else word for word in words)


def asks_code_alone(text: str) -> bool:
    """Whether our module is all that the auth phase of this file asks (the recipe of *key, then code*)."""
    auth = [line for line in read_pam_file(text) if line.type == "auth"]
    others = any(line.module.rpartition("/")[2] not in NO_FIRST_FACTOR for line in auth)
    asks = any(line.is_ours and "mode=combined" not in line.arguments for line in auth)
    return asks and not others and not _included(text)


def _included(text: str) -> list[str]:
    """The files that the auth phase includes: Debian's ``@include common-auth``, or ``auth include`` and ``substack``."""
    lines = [line for line in read_pam_file(text) if line.type == "auth" and line.control in {"include", "substack"}]
    return _INCLUDE.findall(text) + [line.module for line in lines]


def refuses_keys(text: str) -> bool:
    """Whether the account phase refuses logins that were asked for nothing."""
    lines = read_pam_file(text)
    return any(line.is_ours and line.type == "account" and "require_mfa" in line.arguments for line in lines)


def check_pam_files(
    files: Mapping[str, str], *, socket_dir: str, module_found: bool, promised: Container[str] = ()
) -> Iterator[Finding]:
    """Look at every file (name to text) that names our module. ``promised`` are services of ``first_factor: done``."""
    ours = _with_ours(files)
    if not ours:
        yield Finding(
            Weight.WARNING,
            "pam",
            f"no file names {MODULE}: no login through PAM is asked for a second factor",
            f"`auth required {MODULE}` and `account required {MODULE} require_mfa` in the file of the service",
        )
        return
    if not module_found:
        yield Finding(Weight.PROBLEM, "pam", f"{MODULE} is not installed: its services refuse all", "install the package")
    for name, lines in ours.items():
        found = [*_check_file(name, lines, socket_dir=socket_dir), *_check_asked(name, files)]
        found += _check_promise(name, lines, files, promised=name in promised)
        yield from found or [Finding(Weight.GOOD, "pam", name)]


def _with_ours(files: Mapping[str, str]) -> dict[str, list[PamLine]]:
    read = {name: read_pam_file(text) for name, text in sorted(files.items())}
    return {name: lines for name, lines in read.items() if any(line.is_ours for line in lines)}


def _check_arguments(name: str, lines: Sequence[PamLine]) -> Iterator[Finding]:
    """The module refuses a line whose arguments it does not know."""
    for line in lines:
        if not line.is_ours:
            continue
        try:
            read_arguments(tuple(word.encode("utf-8", "surrogateescape") for word in line.arguments))
        except InvalidInput as err:
            yield Finding(Weight.PROBLEM, "pam", f"{name}:{line.number}: {err}: it refuses everybody", err.cure)
        for word in line.arguments:
            if word.startswith("socket_dir=") and word.endswith("/"):
                yield Finding(
                    Weight.PROBLEM, "pam", f"{name}:{line.number}: {word}: it refuses everybody", "take off the last slash"
                )


def _check_file(name: str, lines: Sequence[PamLine], *, socket_dir: str) -> Iterator[Finding]:
    yield from _check_arguments(name, lines)
    auth = [line for line in lines if line.type == "auth"]
    for at, line in enumerate(auth):
        if not line.is_ours:
            continue
        place = f"{name}:{line.number}"
        if not _refusal_counts(line.control):
            yield Finding(
                Weight.PROBLEM, "pam", f"{place}: with control {line.control} a wrong code lets people in", "write `required`"
            )
        for before, earlier in enumerate(auth[:at]):
            if earlier.module.rpartition("/")[2] != MEANT_TO_SKIP and _jumps_over(earlier.control, at - before):
                yield Finding(
                    Weight.PROBLEM,
                    "pam",
                    f"{place}: {earlier.module} in line {earlier.number} ({earlier.control}) skips it when it succeeds",
                    f"put {MODULE} before that line's target, or after the stack that it ends",
                )
        words = (word for word in line.arguments if word.startswith("socket_dir="))
        wanted = next(words, f"socket_dir={DEFAULT_SOCKET_DIR}").removeprefix("socket_dir=")
        if wanted.rstrip("/") != socket_dir.rstrip("/"):
            yield Finding(
                Weight.PROBLEM,
                "pam",
                f"{place}: looks for mfad in {wanted}, not in {socket_dir}",
                f"give the line socket_dir={socket_dir}, or change doors.pam.socket_dir",
            )
    account = [line for line in lines if line.is_ours and line.type == "account"]
    for line in account:
        if "require_mfa" not in line.arguments:
            yield Finding(
                Weight.WARNING,
                "pam",
                f"{name}:{line.number}: without require_mfa the account line refuses nobody",
                "add `require_mfa` to it",
            )
    # Only sshd lets people in whom the auth phase never saw; in su the line would refuse root.
    if any(line.is_ours for line in auth) and not account and name.startswith("sshd"):
        yield Finding(
            Weight.WARNING,
            "pam",
            f"{name}: {MODULE} stands under auth but not under account: SSH keys pass it by",
            f"add `account required {MODULE} require_mfa`",
        )


def _check_asked(name: str, files: Mapping[str, str]) -> Iterator[Finding]:
    """An account line that wants a code, in a file whose auth phase asks for none: a misspelt module name, for instance."""
    included = _included(files[name])
    if not included and all(line.type != "auth" for line in read_pam_file(files[name])):
        return  # a part for others to include
    if refuses_keys(files[name]) and not any(_asks(files.get(part, "")) for part in (name, *included)):
        yield Finding(
            Weight.PROBLEM,
            "pam",
            f"{name}: {MODULE} stands under account but not under auth: nobody is asked for a code, and all are refused",
            f"add `auth required {MODULE}`, or mend the line that was meant to be it",
        )


def _check_promise(
    name: str, lines: Sequence[PamLine], files: Mapping[str, str], *, promised: bool
) -> Iterator[Finding]:
    """``first_factor=done`` says that nobody comes to our line with a wrong password. Does the stack end before it?"""
    for line in lines:
        if not line.is_ours or line.type != "auth" or not (promised or "first_factor=done" in line.arguments):
            continue
        for where, earlier in _before(name, line, files):
            if earlier.module.rpartition("/")[2] in PASSWORD_MODULES and _goes_on(earlier.control):
                yield Finding(
                    Weight.WARNING,
                    "pam",
                    f"{name}:{line.number}: first_factor=done, but after a wrong password {earlier.module} in "
                    f"{where}:{earlier.number} ({earlier.control}) goes on to it",
                    "write `requisite` there, or take first_factor=done out (*Password, then code* in docs/pam.md)",
                )


def _before(name: str, ours: PamLine, files: Mapping[str, str]) -> Iterator[tuple[str, PamLine]]:
    """The auth lines that are asked before ours, each with its file; what is included there is read one level deep."""
    above = "\n".join(files[name].splitlines()[: ours.number - 1])
    for where in (name, *_included(above)):
        text = above if where == name else files.get(where, "")
        yield from ((where, line) for line in read_pam_file(text) if line.type == "auth")


def _goes_on(control: str) -> bool:
    """Whether a failure here is remembered, and the rest asked all the same."""
    if not control.startswith("["):
        return control == "required"
    actions = _actions(control)
    return actions.get("auth_err", actions.get("default", "bad")) == "bad"


def _asks(text: str) -> bool:
    return any(line.is_ours and line.type == "auth" for line in read_pam_file(text))


def _refusal_counts(control: str) -> bool:
    """Whether a failure of the module ends in a refusal."""
    if not control.startswith("["):
        return control in {"required", "requisite"}
    actions = _actions(control)
    failing = {actions.get(code, actions.get("default", "bad")) for code in ("auth_err", "authinfo_unavail", "service_err")}
    return failing <= {"bad", "die"}


def _jumps_over(control: str, distance: int) -> bool:
    """Whether a success here keeps the line ``distance`` further on from being asked."""
    if control == "sufficient":
        return True
    if not control.startswith("["):
        return False
    action = _actions(control).get("success", _actions(control).get("default", "bad"))
    return action == "done" or (action.isdigit() and int(action) >= distance)


def _actions(control: str) -> dict[str, str]:
    return dict(pair.split("=", 1) for pair in control.strip("[]").split() if "=" in pair)


def check_sshd(settings: Mapping[str, str] | str, *, pam_file: str) -> Iterator[Finding]:
    """Does sshd run the dialogue?

    ``settings`` are those of ``sshd -T`` in lower case, or what it complains of; ``pam_file`` is the text of /etc/pam.d/sshd.
    """
    if not any(line.is_ours for line in read_pam_file(pam_file)):
        return
    if isinstance(settings, str):
        if settings:
            yield Finding(Weight.PROBLEM, "sshd", f"`sshd -T`: {settings}", "mend /etc/ssh/sshd_config: sshd does not start so")
        else:
            yield Finding(Weight.UNKNOWN, "sshd", "`sshd -T` does not answer", "run the doctor as root")
        return
    good = True
    if settings.get("usepam", "no") != "yes":
        good = False
        yield Finding(Weight.PROBLEM, "sshd", "UsePAM is no: nothing of PAM is asked", "`UsePAM yes`, restart sshd")
    if settings.get("kbdinteractiveauthentication", settings.get("challengeresponseauthentication", "no")) != "yes":
        good = False
        yield Finding(
            Weight.PROBLEM,
            "sshd",
            "KbdInteractiveAuthentication is no (the default of Debian and RHEL): nobody is asked for a code",
            "`KbdInteractiveAuthentication yes`, restart sshd",
        )
    methods = settings.get("authenticationmethods", "any")
    code_alone = asks_code_alone(pam_file)
    if code_alone and not all("publickey" in way for way in methods.split()):
        good = False
        yield Finding(
            Weight.PROBLEM,
            "sshd",
            f"the code alone is a login: /etc/pam.d/sshd asks no password, and AuthenticationMethods ({methods}) no key",
            "`AuthenticationMethods publickey,keyboard-interactive:pam`, restart sshd; or have PAM ask the password",
        )
    if methods == "any" and settings.get("pubkeyauthentication", "yes") == "yes":
        good = False
        seen = (
            "a public key alone is tried first, and turned away by the account line: nobody with a key is asked for a code"
            if refuses_keys(pam_file)
            else "a public key alone lets people in without a code"
        )
        ways = "publickey,keyboard-interactive:pam" if code_alone else "keyboard-interactive:pam"
        yield Finding(Weight.WARNING, "sshd", seen, f"`AuthenticationMethods {ways}`, restart sshd")
    if settings.get("passwordauthentication") == "yes" and methods == "any":
        good = False
        yield Finding(
            Weight.WARNING,
            "sshd",
            "PasswordAuthentication is yes: sshd answers every prompt with the password, so that codes fail there",
            "`PasswordAuthentication no` (people are still asked for their password, by PAM)",
        )
    if good:
        yield Finding(Weight.GOOD, "sshd", "asks")
