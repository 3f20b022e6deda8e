"""Somebody sets up an authenticator in the ssh dialogue, and is asked for a code from then on."""

from __future__ import annotations

import re
import time

from tests.end_to_end.daemon import Mfad, Person
from tests.end_to_end.host import PASSWORD, Sshd
from tests.end_to_end.ssh import CODE_PROMPT, KEY_THEN_KEYBOARD, KEYBOARD, PASSWORD_PROMPT, SshLogin, log_in

ENROLMENT_PROMPT = "Code shown by your authenticator: "
ACKNOWLEDGE_PROMPT = "Last four characters of the recovery key: "


def read_secret(shown: str) -> str:
    """What an app reads out of the QR code, and a person types from the line under it."""
    key = re.search(r"Key: ([A-Z2-7 ]+)", shown)
    assert key is not None, shown
    return key.group(1).replace(" ", "")


def read_recovery_key(shown: str) -> str:
    key = re.search(r"keep it safe:\s+((?:[0-9A-Z]{4} ?){6})", shown)
    assert key is not None, shown
    return key.group(1).strip()


def state_of(mfad: Mfad, name: str) -> str:
    listed = mfad.mfactl_json("user", "list", "--name", name)
    return str(listed[0]["state"]) if listed else "none"


def test_key_holder_enrols_at_the_first_login(key_and_code: Sshd, mfad: Mfad) -> None:
    """Row 13: QR, code, recovery key; and the next login asks for a code."""
    with SshLogin(key_and_code, "newcomer1", KEY_THEN_KEYBOARD) as ssh:
        shown = ssh.see(ENROLMENT_PROMPT)
        assert "Scan with an authenticator app (mfad: newcomer1)" in shown
        drawn = [line for line in shown.splitlines() if set(line) & set("\u2580\u2584\u2588")]
        assert 15 <= len(drawn) <= 22, shown
        person = Person("newcomer1", read_secret(shown))
        ssh.child.sendline(person.wrong_code())
        assert "This is not the code of the new entry." in ssh.see(ENROLMENT_PROMPT)
        ssh.child.sendline(person.next_code())
        key = read_recovery_key(ssh.see(ACKNOWLEDGE_PROMPT))
        ssh.child.sendline(key[-4:].lower())
        assert ssh.end().accepted

    assert state_of(mfad, "newcomer1") == "active"
    assert log_in(key_and_code, "newcomer1", (CODE_PROMPT, person.next_code()), methods=KEY_THEN_KEYBOARD).accepted
    # the recovery key opens the door once
    assert log_in(key_and_code, "newcomer1", (CODE_PROMPT, key), methods=KEY_THEN_KEYBOARD).accepted
    assert not log_in(key_and_code, "newcomer1", (CODE_PROMPT, key), methods=KEY_THEN_KEYBOARD).accepted


def test_password_holder_enrols_at_the_first_login(keyboard: Sshd, mfad: Mfad) -> None:
    """The shipped line promises first_factor=done; a wrong password never comes to the offer."""
    refused = log_in(keyboard, "newcomer2", (PASSWORD_PROMPT, "wrong"))
    assert "Scan with" not in refused.screen
    assert state_of(mfad, "newcomer2") == "none"
    with SshLogin(keyboard, "newcomer2", KEYBOARD) as ssh:
        ssh.answer(PASSWORD_PROMPT, PASSWORD)
        person = Person("newcomer2", read_secret(ssh.see(ENROLMENT_PROMPT)))
        ssh.child.sendline(person.next_code())
        key = read_recovery_key(ssh.see(ACKNOWLEDGE_PROMPT))
        ssh.child.sendline(key[-4:])
        assert ssh.end().accepted
    assert log_in(keyboard, "newcomer2", (PASSWORD_PROMPT, PASSWORD), (CODE_PROMPT, person.next_code())).accepted


def test_enrolment_that_is_not_finished_leaves_no_way_in(keyboard: Sshd, mfad: Mfad) -> None:
    """Who walks away is offered another secret next time; the first one never was a factor."""
    with SshLogin(keyboard, "newcomer3", KEYBOARD) as ssh:
        ssh.answer(PASSWORD_PROMPT, PASSWORD)
        first = Person("newcomer3", read_secret(ssh.see(ENROLMENT_PROMPT)))
    assert state_of(mfad, "newcomer3") == "pending"
    with SshLogin(keyboard, "newcomer3", KEYBOARD) as ssh:
        ssh.answer(PASSWORD_PROMPT, PASSWORD)
        second = Person("newcomer3", read_secret(ssh.see(ENROLMENT_PROMPT)))
        assert second.secret != first.secret
        ssh.child.sendline(first.code_at(int(time.time()) // 30))
        assert "This is not the code of the new entry." in ssh.see(ENROLMENT_PROMPT)
