"""A real sshd with a key and a code (config/pam.d/sshd-publickey-and-code), and what a key alone is good for."""

from __future__ import annotations

from collections.abc import Callable

from tests.end_to_end.daemon import Mfad, Person
from tests.end_to_end.host import PAM_FILES, Sshd
from tests.end_to_end.ssh import CODE_PROMPT, KEY_THEN_KEYBOARD, KEYBOARD, PUBLIC_KEY, log_in
from tests.pam_mfa.pam_harness import PamCode, auth_line, run_pam

DROP_IN = "mfad-publickey-and-code.conf"


def test_key_then_code_is_a_login(key_and_code: Sshd, person: Person) -> None:
    """Row 21, second half. No password is asked."""
    outcome = log_in(key_and_code, person.name, (CODE_PROMPT, person.next_code()), methods=KEY_THEN_KEYBOARD)

    assert outcome.accepted
    assert "Password" not in outcome.screen


def test_key_with_a_wrong_code_is_refused(key_and_code: Sshd, person: Person) -> None:
    assert not log_in(key_and_code, person.name, (CODE_PROMPT, person.wrong_code()), methods=KEY_THEN_KEYBOARD).accepted


def test_code_without_the_key_is_never_asked(key_and_code: Sshd, person: Person) -> None:
    outcome = log_in(key_and_code, person.name, methods=KEYBOARD)

    assert not outcome.accepted
    assert CODE_PROMPT not in outcome.screen


def test_unknown_user_is_never_asked(key_and_code: Sshd) -> None:
    """sshd itself ends it at the key."""
    assert not log_in(key_and_code, "nosuchuser", methods=KEY_THEN_KEYBOARD).accepted


def test_key_alone_is_refused_by_the_account_line(key_and_code: Sshd, person: Person) -> None:
    """Row 21, first half: somebody has taken the code out of AuthenticationMethods."""
    key_alone = key_and_code.host.start_sshd(DROP_IN, "AuthenticationMethods publickey")
    outcome = log_in(key_alone, person.name, methods=PUBLIC_KEY)

    assert not outcome.accepted
    assert "This login needs a second factor, and it was not asked for one." in outcome.screen
    key_and_code.host.wait_for_log("login without a second factor refused")


def test_key_alone_is_enough_for_the_exempt(key_and_code: Sshd) -> None:
    """The account line asks the policy, not only whether a code was typed."""
    key_alone = key_and_code.host.start_sshd(DROP_IN, "AuthenticationMethods publickey")

    assert log_in(key_alone, "exempt1", methods=PUBLIC_KEY).accepted


def test_nobody_else_says_yes_for_the_exempt(key_and_code: Sshd, make_sshd: Callable[..., Sshd]) -> None:
    """Row 14: with pam_mfa alone in the stack IGNORE is a refusal, until the line says exempt=success."""
    refused = log_in(key_and_code, "exempt1", methods=KEY_THEN_KEYBOARD)
    text = (PAM_FILES / "sshd-publickey-and-code").read_text()
    answered = make_sshd(text.replace("pam_mfa.so\n", "pam_mfa.so exempt=success\n", 1), DROP_IN)

    assert not refused.accepted
    assert log_in(answered, "exempt1", methods=KEY_THEN_KEYBOARD).accepted
    assert not log_in(answered, "exempt1", methods=KEYBOARD).accepted


def test_plain_key_is_no_hardware_key(key_and_code: Sshd, mfad: Mfad) -> None:
    """Row 23: the rule exempts sk- keys, and sshd says which key it was."""
    person = mfad.person("keyholder1")
    outcome = log_in(key_and_code, person.name, (CODE_PROMPT, person.next_code()), methods=KEY_THEN_KEYBOARD)

    assert outcome.accepted


def test_hardware_key_is_enough(key_and_code: Sshd, mfad: Mfad) -> None:
    """Row 23: no such key can be had here, so this is what sshd would have put into the PAM environment for one."""

    def login(auth_info: str, user: str, *answers: str) -> int:
        line = auth_line(socket_dir=mfad.socket_dir)
        return run_pam([line], user, answers, env={"SSH_AUTH_INFO_0": auth_info}).code

    # alone in its stack IGNORE becomes PERM_DENIED in libpam; with an answer left over the script would complain
    assert login("publickey sk-ssh-ed25519@openssh.com AAAA\n", "keyholder1") == PamCode.PERM_DENIED
    # what only looks like one, and a user whom the rule does not name, are asked
    assert login("publickey ssh-ed25519 sk-ssh-ed25519@openssh.com\n", "keyholder1", "no") == PamCode.AUTH_ERR
    assert login("publickey sk-ssh-ed25519@openssh.com AAAA\n", "unlisted", "no") == PamCode.AUTH_ERR
