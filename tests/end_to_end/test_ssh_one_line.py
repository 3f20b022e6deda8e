"""Clients that answer one prompt: sshd's password method, and python-pam (config/pam.d/sshd-password-and-code-one-line)."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from tests.end_to_end.daemon import Mfad, Person
from tests.end_to_end.host import PASSWORD, Host, Sshd
from tests.end_to_end.programs import run
from tests.end_to_end.ssh import (
    COMBINED_PROMPT,
    PASSWORD_METHOD,
    PASSWORD_PROMPT,
    PUBLIC_KEY,
    SSH_PASSWORD_PROMPT,
    log_in,
)

BOTH_METHODS = pytest.mark.parametrize(
    ("methods", "prompt"),
    [
        pytest.param(PASSWORD_METHOD, SSH_PASSWORD_PROMPT, id="password"),
        pytest.param(("-o", "PreferredAuthentications=keyboard-interactive"), COMBINED_PROMPT, id="keyboard-interactive"),
    ],
)
CLIENT = """
import pam, sys
client = pam.pam()
client.authenticate(sys.argv[1], sys.stdin.readline().rstrip(), service="vpn")
print(client.code)
"""
"""python-pam: gives one answer to whatever is asked."""


@BOTH_METHODS
def test_password_and_code_in_one_line_is_a_login(
    one_line: Sshd, person: Person, methods: tuple[str, str], prompt: str
) -> None:
    """Row 2."""
    assert log_in(one_line, person.name, (prompt, PASSWORD + person.next_code()), methods=methods).accepted


def test_eight_digits_in_one_line_are_a_login(one_line: Sshd, mfad: Mfad) -> None:
    """Row 2: the line is split by what this user's credential looks like."""
    person = mfad.person("eight")

    assert log_in(one_line, "eight", (SSH_PASSWORD_PROMPT, PASSWORD + person.next_code()), methods=PASSWORD_METHOD).accepted


@BOTH_METHODS
def test_wrong_password_wrong_code_or_none_is_refused(
    one_line: Sshd, person: Person, another: Person, methods: tuple[str, str], prompt: str
) -> None:
    for line in (PASSWORD, PASSWORD + person.wrong_code(), another.next_code(), "wrong" + person.next_code()):
        assert not log_in(one_line, person.name, (prompt, line), methods=methods).accepted, line
    assert log_in(one_line, person.name, (prompt, PASSWORD + person.next_code()), methods=methods).accepted


def test_code_in_one_line_is_taken_once(one_line: Sshd, person: Person) -> None:
    """Row 5."""
    line = (SSH_PASSWORD_PROMPT, PASSWORD + person.next_code())

    assert log_in(one_line, person.name, line, methods=PASSWORD_METHOD).accepted
    assert not log_in(one_line, person.name, line, methods=PASSWORD_METHOD).accepted


def test_key_alone_is_not_offered(one_line: Sshd, person: Person) -> None:
    assert not log_in(one_line, person.name, methods=PUBLIC_KEY).accepted


def test_password_method_gives_the_password_to_a_code_prompt(
    make_sshd: Callable[..., Sshd], mfad: Mfad, person: Person
) -> None:
    """Row 19: two prompts in the stack, and a client that has one answer: the password, even with a code behind it."""
    two_prompts = make_sshd("sshd-keyboard-interactive", "", "PasswordAuthentication yes")

    for answer in (PASSWORD, PASSWORD + person.next_code()):
        outcome = log_in(two_prompts, person.name, (SSH_PASSWORD_PROMPT, answer), methods=PASSWORD_METHOD)
        assert not outcome.accepted
    # The one line was wrong as a password, so its code was never looked at; the shipped drop-in avoids all of this.
    assert mfad.failures(person.name) == 1


def test_password_that_came_back_is_read_once_as_both(make_sshd: Callable[..., Sshd], mfad: Mfad, person: Person) -> None:
    """Row 19: with try_first_pass mfad knows the password, sees it come back as the code, and says what to set."""
    two_prompts = make_sshd(
        "@include common-auth\nauth required pam_mfa.so try_first_pass\naccount required pam_permit.so\n", "",
        "PasswordAuthentication yes",
    )  # fmt: skip
    outcome = log_in(two_prompts, person.name, (SSH_PASSWORD_PROMPT, PASSWORD), methods=PASSWORD_METHOD)

    assert not outcome.accepted
    two_prompts.host.wait_for_log("the password came back as the code")
    two_prompts.host.wait_for_log("set KbdInteractiveAuthentication yes")
    assert mfad.failures(person.name) == 0


def test_visible_prompt_and_password_method_do_not_go_together(make_sshd: Callable[..., Sshd], person: Person) -> None:
    """Row 20: sshd cannot answer a prompt with echo; the log says so."""
    visible = make_sshd(
        "@include common-auth\nauth required pam_mfa.so echo\naccount required pam_permit.so\n", "",
        "PasswordAuthentication yes",
    )  # fmt: skip
    outcome = log_in(visible, person.name, (SSH_PASSWORD_PROMPT, PASSWORD), methods=PASSWORD_METHOD)

    assert not outcome.accepted
    visible.host.wait_for_log("with echo on, sshd's password method cannot answer this prompt")


def as_python_pam(host: Host, name: str, line: str) -> int:
    return int(run(host.inside(sys.executable, "-c", CLIENT, name), stdin=line + "\n"))


def test_python_pam_logs_in_with_one_line(host: Host, mfad: Mfad, person: Person) -> None:
    """The same service file as a VPN would have: combined entry is all that such a client can do."""
    code = person.next_code()

    assert as_python_pam(host, person.name, PASSWORD + code) == 0
    assert as_python_pam(host, person.name, PASSWORD + code) == 7
    assert as_python_pam(host, person.name, PASSWORD) == 7
    assert as_python_pam(host, person.name, PASSWORD + person.next_code()) == 0


def test_prompts_of_the_password_are_unused(one_line: Sshd, person: Person) -> None:
    """pam_unix behind use_first_pass asks nothing of its own."""
    outcome = log_in(
        one_line, person.name, (COMBINED_PROMPT, PASSWORD + person.next_code()),
        methods=("-o", "PreferredAuthentications=keyboard-interactive"),
    )  # fmt: skip

    assert outcome.accepted
    assert PASSWORD_PROMPT not in outcome.screen.replace(COMBINED_PROMPT, "")
