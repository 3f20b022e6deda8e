"""A real sshd while mfad is down, killed, restarted, and while accounts are locked."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.end_to_end.conftest import USERS
from tests.end_to_end.daemon import Mfad, Person
from tests.end_to_end.host import PASSWORD, Host, Sshd, private_host
from tests.end_to_end.ssh import CODE_PROMPT, KEYBOARD, PASSWORD_PROMPT, Outcome, SshLogin, log_in

TRIES = 3


@pytest.fixture(scope="module")
def own_host(tmp_path_factory: pytest.TempPathFactory, template: Mfad) -> Iterator[Host]:
    place = tmp_path_factory.mktemp("fragile")
    with private_host(place / "host", place / "mfad" / "run", users=USERS, pam={"sshd": "sshd-keyboard-interactive"}) as host:
        yield host


@pytest.fixture(scope="module")
def fragile(own_host: Host, template: Mfad) -> Iterator[Mfad]:
    """An mfad to be stopped and killed, that locks an account after TRIES wrong codes in a row."""
    mfad = Mfad(own_host.socket_dir.parent, {"throttle": {"free": 10, "hard_cap": TRIES}}, prefix=own_host.inside())
    mfad.copy_from(template)
    mfad.start()
    yield mfad
    mfad.close()


@pytest.fixture(scope="module")
def sshd(own_host: Host, fragile: Mfad) -> Sshd:
    return own_host.start_sshd("mfad-keyboard-interactive.conf")


@pytest.fixture
def someone(fragile: Mfad) -> Person:
    if not fragile.running:
        fragile.start()
    return fragile.person()


def enter(sshd: Sshd, person: Person, code: str) -> Outcome:
    return log_in(sshd, person.name, (PASSWORD_PROMPT, PASSWORD), (CODE_PROMPT, code))


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_login_is_refused_while_mfad_is_down_and_works_when_it_is_back(
    sshd: Sshd, fragile: Mfad, someone: Person, how: str
) -> None:
    """Row 27: no prompt for a code is shown, and the log has the cause. After a kill the dead socket is still there."""
    getattr(fragile, how)()
    assert (fragile.socket_dir / "priv.sock").exists() is (how == "kill")
    refused = log_in(sshd, someone.name, (PASSWORD_PROMPT, PASSWORD))
    fragile.start()

    assert not refused.accepted
    assert CODE_PROMPT not in refused.screen
    assert "/run/mfad/priv.sock" in sshd.host.syslog()
    assert enter(sshd, someone, someone.next_code()).accepted


def test_mfad_killed_in_mid_dialogue_ends_the_login_at_once(sshd: Sshd, fragile: Mfad, someone: Person) -> None:
    """Row 29: the code that is typed then goes nowhere, and is good for the next login."""
    with SshLogin(sshd, someone.name, KEYBOARD) as ssh:
        ssh.answer(PASSWORD_PROMPT, PASSWORD)
        ssh.see(CODE_PROMPT)
        fragile.kill()
        code = someone.next_code()
        ssh.child.sendline(code)
        assert not ssh.end().accepted
    fragile.start()

    assert enter(sshd, someone, code).accepted


def test_spent_code_stays_spent_over_a_kill(sshd: Sshd, fragile: Mfad, someone: Person) -> None:
    """Row 5: durable when the login was let in."""
    code = someone.next_code()
    assert enter(sshd, someone, code).accepted
    fragile.kill()
    fragile.start()
    again = enter(sshd, someone, code)

    assert not again.accepted
    assert "already used" in again.screen


def test_clean_stop_ends_with_status_0_and_takes_the_sockets_away(fragile: Mfad, someone: Person) -> None:
    assert fragile.stop() == 0
    assert list(fragile.socket_dir.iterdir()) == []


def test_wrong_codes_lock_the_account_until_somebody_unlocks_it(sshd: Sshd, fragile: Mfad, someone: Person) -> None:
    """Row 11: over a restart too; and nobody else is touched (row 12)."""
    other = fragile.person()
    for _ in range(TRIES):
        assert not enter(sshd, someone, someone.wrong_code()).accepted
    code = someone.next_code()
    locked = enter(sshd, someone, code)
    fragile.kill()
    fragile.start()
    still_locked = enter(sshd, someone, code)

    assert not locked.accepted
    assert "this account is locked" in locked.screen
    assert not still_locked.accepted
    assert enter(sshd, other, other.next_code()).accepted
    fragile.mfactl("user", "unlock", someone.name)
    assert enter(sshd, someone, code).accepted


def test_locked_account_ends_the_connection(sshd: Sshd, fragile: Mfad, someone: Person) -> None:
    """Row 11: MAXTRIES, so that sshd offers no further try, though the client would take three."""
    for _ in range(TRIES):
        enter(sshd, someone, someone.wrong_code())
    outcome = log_in(sshd, someone.name, (PASSWORD_PROMPT, PASSWORD), (CODE_PROMPT, someone.next_code()), tries=3)

    assert not outcome.accepted
    assert outcome.screen.count(PASSWORD_PROMPT) == 1


def test_recovery_codes_open_once_and_clear_a_lock(sshd: Sshd, fragile: Mfad, someone: Person) -> None:
    """Row 9."""
    batch = fragile.mfactl_json("recovery", "new", someone.name)
    first, second = (str(code) for code in batch["recovery_codes"][:2])
    for _ in range(TRIES):
        enter(sshd, someone, someone.wrong_code())

    let_in = enter(sshd, someone, first)
    assert let_in.accepted
    assert "9 of your recovery codes are left." in let_in.screen
    assert not enter(sshd, someone, first).accepted
    assert enter(sshd, someone, someone.next_code()).accepted
    assert enter(sshd, someone, second.lower()).accepted


def test_bypass_code_of_an_administrator_opens_once(sshd: Sshd, fragile: Mfad, someone: Person) -> None:
    """The phone is at home."""
    code = fragile.mfactl_json("bypass", "issue", someone.name, "--reason", "phone at home")["code"]

    assert enter(sshd, someone, code).accepted
    assert not enter(sshd, someone, code).accepted
