"""What the end-to-end tests share: one mfad and one host for whatever spoils neither, and people to log in as."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.end_to_end.daemon import CROWD, Mfad, Person
from tests.end_to_end.host import SSHD, Host, Sshd, private_host
from tests.end_to_end.programs import must_be_root, must_have

PEOPLE = {**{f"{CROWD}{number:02}": 6 for number in range(90)}, "root": 6, "keyholder1": 6, "eight": 8, "nopasswd1": 6}
"""Who has an authenticator, with how many digits."""
OTHERS = ("newcomer1", "newcomer2", "newcomer3", "exempt1", "tokenless")
"""Users of the host without one: see SETTINGS for what the policy says of them."""
USERS = (*(name for name in PEOPLE if name != "root"), *OTHERS)
SUDOERS = """
ALL ALL=(ALL:ALL) ALL
nopasswd1 ALL=(ALL:ALL) NOPASSWD: ALL
"""
VPN = """
auth requisite pam_mfa.so mode=combined
auth required pam_unix.so use_first_pass nodelay
account required pam_permit.so
"""
"""A service for clients that answer one prompt."""

SETTINGS = {
    # the host's view of the directory that the other hosts share
    "doors": {"pam": {"socket_dir": "/run/mfad", "account_exempt_services": ["cron", "crond", "atd", "systemd-user", "sudo"]}},
    "limits": {"connections_per_user": 64},
    "enrolment": {"enrol_networks": ["127.0.0.0/8"]},
    "policy": [
        {"id": "newcomers-enrol", "when": {"user": ["newcomer*"]}, "enrol": "at_login"},
        {"id": "exempt", "when": {"user": ["exempt*"]}, "exempt": True},
        {"id": "hardware-key", "when": {"user": ["keyholder*"], "methods": ["publickey sk-*"]}, "exempt": True},
    ],
}


@pytest.fixture(scope="session")
def _real_programs() -> None:
    must_be_root()
    must_have(SSHD, "ssh", "ssh-keygen", "unshare", "nsenter", "setpriv", "openssl", "su", "sudo")


@pytest.fixture(scope="session")
def place(_real_programs: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory for the session that other uids may pass through."""
    return tmp_path_factory.mktemp("e2e")


@pytest.fixture(scope="session")
def template(place: Path) -> Mfad:
    """An installation with everybody in it that never runs, to be copied."""
    one = Mfad(place / "template", SETTINGS)
    one.init()
    one.import_people(PEOPLE)
    return one


@pytest.fixture(scope="session")
def host(place: Path) -> Iterator[Host]:
    """sshd with keyboard-interactive, sudo, su and login, all with the shipped files, in front of :func:`mfad`."""
    with private_host(
        place / "host",
        place / "mfad" / "run",
        users=USERS,
        pam={"sshd": "sshd-keyboard-interactive", "sudo": "sudo", "sudo-i": "sudo", "su": "su", "login": "login", "vpn": VPN},
        sudoers=SUDOERS,
    ) as one:
        yield one


@pytest.fixture(scope="session")
def mfad(place: Path, host: Host, template: Mfad) -> Iterator[Mfad]:
    """The mfad of the session. Do not stop it: :func:`make_mfad` is for that."""
    one = Mfad(place / "mfad", SETTINGS, prefix=host.inside())
    one.copy_from(template)
    one.start()
    yield one
    one.close()


@pytest.fixture
def person(mfad: Mfad) -> Person:
    """Somebody enrolled whom no other test has used."""
    return mfad.person()


@pytest.fixture
def another(mfad: Mfad) -> Person:
    """And one more."""
    return mfad.person()


@pytest.fixture(scope="session")
def keyboard(host: Host, mfad: Mfad) -> Sshd:
    """sshd that asks for password and code at two prompts."""
    return host.start_sshd("mfad-keyboard-interactive.conf")


@pytest.fixture(scope="session")
def key_and_code(place: Path, host: Host, mfad: Mfad) -> Iterator[Sshd]:
    """sshd that asks for a key and a code."""
    with private_host(place / "host-key", mfad.socket_dir, users=host.users, pam={"sshd": "sshd-publickey-and-code"}) as one:
        yield one.start_sshd("mfad-publickey-and-code.conf")


@pytest.fixture(scope="session")
def one_line(place: Path, host: Host, mfad: Mfad) -> Iterator[Sshd]:
    """sshd that takes password and code in one line."""
    with private_host(
        place / "host-line", mfad.socket_dir, users=host.users, pam={"sshd": "sshd-password-and-code-one-line"}
    ) as one:
        yield one.start_sshd("mfad-password-and-code-one-line.conf")


@pytest.fixture
def make_sshd(tmp_path: Path, mfad: Mfad) -> Iterator[Callable[..., Sshd]]:
    """An sshd with a PAM stack of one's own, in front of :func:`mfad`: ``make_sshd("auth ...", recipe, *lines)``."""
    with ExitStack() as hosts:

        def make(pam: str, recipe: str = "", *lines: str) -> Sshd:
            own = private_host(tmp_path / "host", mfad.socket_dir, users=USERS, pam={"sshd": pam})
            return hosts.enter_context(own).start_sshd(recipe, *lines)

        yield make


@pytest.fixture
def make_mfad(template: Mfad, tmp_path: Path) -> Iterator[Callable[..., Mfad]]:
    """Copies of the template, to be broken: ``make_mfad(settings, prefix=host.inside())``. Not started; stopped afterwards."""
    made: list[Mfad] = []

    def make(settings: Mapping[str, object] | None = None, *, prefix: Sequence[str] = (), copy: bool = True) -> Mfad:
        one = Mfad(tmp_path / f"mfad{len(made)}", settings, prefix=prefix)
        made.append(one)
        if copy:
            one.copy_from(template)
        return one

    yield make
    for one in made:
        one.close()
