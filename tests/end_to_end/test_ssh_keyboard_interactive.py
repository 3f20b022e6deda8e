"""A real sshd that asks for password and code at two prompts (config/pam.d/sshd-keyboard-interactive)."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from tests.end_to_end.daemon import Mfad, Person
from tests.end_to_end.host import PASSWORD, Host, Sshd
from tests.end_to_end.programs import wait_until
from tests.end_to_end.ssh import CODE_PROMPT, KEYBOARD, PASSWORD_PROMPT, PUBLIC_KEY, SshLogin, log_in


def dialogue(code: str, password: str = PASSWORD) -> tuple[tuple[str, str], tuple[str, str]]:
    return (PASSWORD_PROMPT, password), (CODE_PROMPT, code)


def test_password_then_code_is_a_login(keyboard: Sshd, person: Person) -> None:
    """Row 1."""
    assert log_in(keyboard, person.name, *dialogue(person.next_code())).accepted


def test_wrong_code_is_refused_and_the_next_one_is_taken(keyboard: Sshd, person: Person) -> None:
    """Row 3. sshd asks again on the same connection: a typing mistake costs no new login."""
    outcome = log_in(keyboard, person.name, *dialogue(person.wrong_code()), *dialogue(person.next_code()), tries=2)

    assert outcome.accepted
    assert "Access denied." in outcome.screen


def test_code_is_taken_once(keyboard: Sshd, person: Person) -> None:
    """Row 5."""
    code = person.next_code()
    first = log_in(keyboard, person.name, *dialogue(code))
    again = log_in(keyboard, person.name, *dialogue(code))
    other = log_in(keyboard, person.name, *dialogue(person.next_code()))

    assert (first.accepted, again.accepted, other.accepted) == (True, False, True)
    assert "This code was already used: wait" in again.screen


def test_one_code_at_twenty_logins_at_once_lets_one_in(keyboard: Sshd, person: Person) -> None:
    """Row 6, through sshd. bench/ has the 16 x 16 of the reference."""
    code = person.next_code()
    with ThreadPoolExecutor(20) as clients:
        waiting = [clients.submit(log_in, keyboard, person.name, *dialogue(code)) for _ in range(20)]
        outcomes = [one.result() for one in waiting]

    assert sum(one.accepted for one in outcomes) == 1
    assert sum("already used" in one.screen for one in outcomes) == 19


def test_wrong_password_is_never_asked_for_a_code(keyboard: Sshd, person: Person) -> None:
    """What it would have been is not learnt, nothing is spent, nothing is counted."""
    outcome = log_in(keyboard, person.name, (PASSWORD_PROMPT, "wrong"))

    assert not outcome.accepted
    assert CODE_PROMPT not in outcome.screen
    assert log_in(keyboard, person.name, *dialogue(person.next_code())).accepted


def test_unknown_user_sees_what_a_wrong_password_sees(keyboard: Sshd, person: Person) -> None:
    """Row 15, with this stack."""
    known = log_in(keyboard, person.name, (PASSWORD_PROMPT, "wrong"))
    unknown = log_in(keyboard, "nosuchuser", (PASSWORD_PROMPT, PASSWORD))

    assert not unknown.accepted
    assert known.screen.replace(person.name, "X") == unknown.screen.replace("nosuchuser", "X")


def test_user_without_a_token_is_refused_after_the_same_prompts(keyboard: Sshd, mfad: Mfad) -> None:
    """Row 13: the default policy requires a code of everyone."""
    assert not log_in(keyboard, "tokenless", *dialogue("123456")).accepted


def test_exempt_user_is_let_in_by_the_rest_of_the_stack(keyboard: Sshd, mfad: Mfad) -> None:
    """Row 13: IGNORE, so the password alone decides."""
    assert log_in(keyboard, "exempt1", (PASSWORD_PROMPT, PASSWORD)).accepted
    refused = log_in(keyboard, "exempt1", (PASSWORD_PROMPT, "wrong"))

    assert not refused.accepted
    assert CODE_PROMPT not in refused.screen


def test_key_alone_is_refused_before_anything_is_asked(keyboard: Sshd, person: Person) -> None:
    """The drop-in names keyboard-interactive as the only method."""
    outcome = log_in(keyboard, person.name, methods=PUBLIC_KEY)

    assert not outcome.accepted
    assert "Permission denied (keyboard-interactive)" in outcome.screen


def test_forbidden_root_gets_nowhere(keyboard: Sshd, mfad: Mfad, make_sshd: Callable[..., Sshd]) -> None:
    """Rows 16 and 17: sshd lets the dialogue run and gives PAM junk for what was typed. No code is judged, none is counted
    against the real root, and the right code is no way in."""
    root = mfad.person("root")
    both_asked = make_sshd(
        "auth required pam_unix.so nodelay\nauth required pam_mfa.so\naccount required pam_permit.so\n",
        "mfad-keyboard-interactive.conf",
        "PermitRootLogin no",
    )
    code = root.next_code()
    shown = log_in(both_asked, "root", *dialogue(code))
    hidden = log_in(both_asked, "root", *dialogue(root.wrong_code()))

    assert not shown.accepted
    assert not hidden.accepted
    assert mfad.failures("root") == 0
    # and the shipped stack does not even come to the question
    shipped = both_asked.host
    shipped.set_pam("sshd", "sshd-keyboard-interactive")
    outcome = log_in(both_asked, "root", (PASSWORD_PROMPT, PASSWORD))
    assert not outcome.accepted
    assert CODE_PROMPT not in outcome.screen
    # the code was not spent by any of that
    shipped.set_pam("sshd", "auth required pam_mfa.so\naccount required pam_permit.so\n")
    allowed = shipped.start_sshd("mfad-keyboard-interactive.conf", "PermitRootLogin yes")
    assert log_in(allowed, "root", (CODE_PROMPT, code)).accepted


def test_login_grace_time_ends_a_dialogue(host: Host, keyboard: Sshd, mfad: Mfad, person: Person) -> None:
    """Row 37: SIGTERM ends the module; mfad has its slot back, and nothing was spent."""
    hasty = host.start_sshd("mfad-keyboard-interactive.conf", "LoginGraceTime 2")
    before = mfad.connections()
    with SshLogin(hasty, person.name, KEYBOARD) as ssh:
        ssh.answer(PASSWORD_PROMPT, PASSWORD)
        ssh.see(CODE_PROMPT)
        assert mfad.connections() == before + 1
        wait_until(lambda: mfad.connections() == before, "mfad has forgotten the dialogue")
        code = person.next_code()
        ssh.child.sendline(code)  # the client has not looked at the network while it waited for the terminal
        assert not ssh.end().accepted
    assert log_in(keyboard, person.name, *dialogue(code)).accepted


def test_client_that_vanishes_leaves_nothing_behind(keyboard: Sshd, mfad: Mfad, person: Person) -> None:
    """Row 37: the terminal was closed at the prompt."""
    before = mfad.connections()
    with SshLogin(keyboard, person.name, KEYBOARD) as ssh:
        ssh.answer(PASSWORD_PROMPT, PASSWORD)
        ssh.see(CODE_PROMPT)
        assert mfad.connections() == before + 1
    wait_until(lambda: mfad.connections() == before, "mfad has forgotten the dialogue")
    assert log_in(keyboard, person.name, *dialogue(person.next_code())).accepted
