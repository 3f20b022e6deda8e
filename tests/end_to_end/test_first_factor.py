"""Password and code in one answer, through the real module and daemon, with the password checked by a real directory."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.end_to_end.daemon import Mfad, Person
from tests.end_to_end.programs import PATIENCE_S, clean_environment, must_be_root, must_have, wait_until
from tests.end_to_end.slapd import PEOPLE, PROGRAMS, Slapd

ACCEPTED, REFUSED, UNKNOWN = "0 PAM_SUCCESS", "7 PAM_AUTH_ERR", "9 PAM_AUTHINFO_UNAVAIL"
PASSWORD = "correct horse battery"


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slapd]:
    must_be_root()
    must_have(*PROGRAMS)
    one = Slapd(tmp_path_factory.mktemp("directory") / "slapd", {"alice": PASSWORD, "bob": PASSWORD})
    yield one.start()
    one.stop()


def settings(primary: dict[str, object]) -> dict[str, object]:
    return {"doors": {"pam": {"mode": "combined", "primary": primary}}}


@pytest.fixture(scope="module")
def mfad(tmp_path_factory: pytest.TempPathFactory, directory: Slapd) -> Iterator[Mfad]:
    """Its passwords are those of :func:`directory`, over the Unix socket."""
    one = Mfad(tmp_path_factory.mktemp("mfad") / "mfad", settings(ldap(directory)))
    one.init()
    one.start()
    yield one
    one.close()


def ldap(directory: Slapd) -> dict[str, object]:
    return {"type": "ldap", "servers": directory.ipc_url, "user_dn": f"uid={{user}},{PEOPLE}", "timeout": "1s"}


def login(mfad: Mfad, person: Person, typed: str) -> str:
    """Log in through libpam and pam_mfa.so; the last line that `mfactl pam test` says."""
    done = subprocess.run(
        [sys.executable, "-m", "mfactl", "--config", str(mfad.config_path), "pam", "test", person.name],
        input=typed + "\n", capture_output=True, text=True, check=False, timeout=2 * PATIENCE_S, env=clean_environment(),
    )  # fmt: skip
    assert done.stdout, done.stderr
    return done.stdout.strip().splitlines()[-1]


def test_both_must_be_right(mfad: Mfad, directory: Slapd) -> None:
    """A wrong password with a right code, and the reverse, are refused alike; only the code counts against the account."""
    alice = mfad.enrol("alice")
    code = alice.next_code()

    assert login(mfad, alice, f"wrong password{code}").startswith(REFUSED)
    assert login(mfad, alice, f"{PASSWORD}{alice.wrong_code()}").startswith(REFUSED)
    directory.freeze()
    try:
        assert login(mfad, alice, f"{PASSWORD}{code}").startswith(UNKNOWN)
    finally:
        directory.thaw()
    assert mfad.failures("alice") == 1
    assert login(mfad, alice, f"{PASSWORD}{code}").startswith(ACCEPTED)


def test_a_reload_changes_who_is_asked(mfad: Mfad, directory: Slapd) -> None:
    """To our own passwords and back; a broken section leaves the one that holds."""
    bob = mfad.enrol("bob")
    mfad.mfactl("user", "password", "bob", "--stdin", stdin="another password\n")
    mfad.configure(settings({"type": "local"}))
    mfad.reload()
    assert login(mfad, bob, f"another password{bob.next_code()}").startswith(ACCEPTED)

    mfad.configure(settings({**ldap(directory), "ca_file": "./absent.pem"}))
    mfad.signal_reload()
    wait_until(lambda: "absent.pem" in mfad.log(), "the log tells of the broken reload")
    assert login(mfad, bob, f"another password{bob.next_code()}").startswith(ACCEPTED)
    mfad.configure(settings(ldap(directory)))
    mfad.reload()
