"""What does the module say about a login, and what does it keep to itself?"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.pam_mfa import fake_mfad as wire
from tests.pam_mfa.fake_mfad import Begin, FakeMfad, ops, result
from tests.pam_mfa.pam_harness import (
    DISALLOW_NULL_AUTHTOK,
    NO_ITEMS,
    Expect,
    Fails,
    Items,
    PamCode,
    Style,
    auth_line,
    probe_line,
    run_pam,
)


def begin_of(
    directory: Path,
    *words: str,
    user: str | bytes | None = "alice",
    flags: int = 0,
    items: Items = NO_ITEMS,
    env: Mapping[str, str] | None = None,
) -> Begin:
    """The BEGIN of one login with these words on the PAM line."""
    with FakeMfad(directory, [ops(result(0))]) as mfad:
        seen = run_pam([auth_line(*words, socket_dir=directory)], user, flags=flags, items=items, env=env, service="mfad-begin")
    assert seen.code == PamCode.SUCCESS
    (begin,) = mfad.begins
    return begin


def test_all_that_is_known_is_said(directory: Path) -> None:
    """Every field of BEGIN, and all module arguments in order, blanks and all."""
    begin = begin_of(
        directory,
        "timeout=30",
        "prompt=Your code: ",
        "try_first_pass",
        "[odd]",
        flags=DISALLOW_NULL_AUTHTOK,
        items=Items(rhost="client.example.org", tty="ssh", ruser="bob", authtok="secret"),
        env={"SSH_CONNECTION": "192.0.2.1 51234 192.0.2.2 22", "SSH_AUTH_INFO_0": "publickey ssh-ed25519 AAAA", "OTHER": "x"},
    )

    assert [tag for tag, _ in begin.fields if tag != wire.OPTION] == [*range(0x0101, 0x010D), 0x010E]
    assert begin.number(wire.PHASE) == 1
    assert begin.number(wire.FLAGS) == DISALLOW_NULL_AUTHTOK
    assert begin.get(wire.USER) == b"alice"
    assert begin.get(wire.SERVICE) == b"mfad-begin"
    assert begin.get(wire.TTY) == b"ssh"
    assert begin.get(wire.RHOST) == b"client.example.org"
    assert begin.get(wire.RUSER) == b"bob"
    assert begin.get(wire.SSH_CONNECTION) == b"192.0.2.1 51234 192.0.2.2 22"
    assert begin.get(wire.SSH_AUTH_INFO_0) == b"publickey ssh-ed25519 AAAA"
    assert (begin.number(wire.UID), begin.number(wire.EUID)) == (os.getuid(), os.geteuid())
    assert begin.get(wire.AUTHTOK) == b"secret"
    assert begin.get(wire.MODULE) == b"0.1.0"
    options = [option for option in begin.all(wire.OPTION) if not option.startswith(b"server_uid=")]
    assert options == [
        f"socket_dir={directory}".encode(),
        b"timeout=30",
        b"prompt=Your code: ",
        b"try_first_pass",
        b"[odd]",
    ]


def test_what_is_not_known_is_left_out(directory: Path) -> None:
    """Items and variables that are not set have no field."""
    begin = begin_of(directory)

    for tag in (wire.TTY, wire.RHOST, wire.RUSER, wire.SSH_CONNECTION, wire.SSH_AUTH_INFO_0, wire.AUTHTOK):
        assert begin.get(tag) is None


@pytest.mark.parametrize("word", ["use_first_pass", "try_first_pass"])
def test_password_of_the_stack_is_sent_when_asked_for(directory: Path, word: str) -> None:
    """PAM_AUTHTOK travels with use_first_pass and try_first_pass, and with nothing else."""
    with_word = begin_of(directory, word, items=Items(authtok="s ecret"))
    without = begin_of(directory, "use_first_pass=1", items=Items(authtok="s ecret"))

    assert with_word.get(wire.AUTHTOK) == b"s ecret"
    assert without.get(wire.AUTHTOK) is None


@pytest.mark.parametrize(("size", "sent"), [(0, b""), (4096, b"a" * 4096), (4097, None), (100_000, None)])
def test_password_that_is_too_long_is_left_out_not_cut(directory: Path, size: int, sent: bytes | None) -> None:
    """A cut password would be another one; mfad asks for it instead."""
    lines = [probe_line(f"set_long={size}"), auth_line("try_first_pass", socket_dir=directory)]
    with FakeMfad(directory, [ops(result(0))]) as mfad:
        assert run_pam(lines, "alice").code == PamCode.SUCCESS

    assert mfad.begins[0].get(wire.AUTHTOK) == sent


def test_long_key_information_is_cut(directory: Path) -> None:
    """SSH_AUTH_INFO_0 of many keys is cut at 4,096 bytes."""
    begin = begin_of(directory, env={"SSH_AUTH_INFO_0": "k" * 5000})

    assert begin.get(wire.SSH_AUTH_INFO_0) == b"k" * 4096


def test_environment_of_the_process_is_never_read(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """environ belongs to the caller of a setuid program: only the PAM environment counts."""
    for name in ("SSH_CONNECTION", "SSH_AUTH_INFO_0", "MFA_SOCKET_DIR", "SOCKET_DIR", "TTY", "RHOST"):
        monkeypatch.setenv(name, "from environ")

    begin = begin_of(directory)

    assert all(b"environ" not in value for _, value in begin.fields)


@pytest.mark.parametrize("user", ["", "root", b"al\xff\xfeice", "a" * 256, " blank ", "\x1b[2J"], ids=repr)
def test_user_name_is_sent_byte_for_byte(directory: Path, user: str | bytes) -> None:
    """Whatever the network sent as a name is mfad's to judge."""
    assert begin_of(directory, user=user).get(wire.USER) == (user if isinstance(user, bytes) else user.encode())


def test_user_name_that_fills_a_message_is_refused_without_a_connection(directory: Path) -> None:
    """BEGIN over 16,384 bytes is not sent, cut or not."""
    with FakeMfad(directory, [ops(result(0))]) as mfad:
        assert run_pam([auth_line(socket_dir=directory)], "a" * 17_000).code == PamCode.SERVICE_ERR

    assert mfad.begins == []


def test_more_options_than_fields_are_refused(directory: Path) -> None:
    """64 fields are the most that a message has."""
    with FakeMfad(directory, [ops(result(0))]):
        few = run_pam([auth_line(*["o"] * 40, socket_dir=directory)], "alice")
        many = run_pam([auth_line(*["o"] * 70, socket_dir=directory)], "alice")

    assert (few.code, many.code) == (PamCode.SUCCESS, PamCode.SERVICE_ERR)


def test_user_name_is_asked_for_when_unset(directory: Path) -> None:
    """login without a name: libpam's own prompt, then ours."""
    with FakeMfad(directory, [ops(wire.prompt()), ops(result(0))]) as mfad:
        seen = run_pam([auth_line(socket_dir=directory)], None, ["alice", Expect("Verification code: ", "123456")])

    assert seen.shown[0].style == Style.PROMPT_ON
    assert (seen.code, seen.user) == (PamCode.SUCCESS, "alice")
    assert mfad.begins[0].get(wire.USER) == b"alice"


@pytest.mark.parametrize(("fails", "code"), [(PamCode.CONV_ERR, PamCode.AUTH_ERR), (PamCode.CONV_AGAIN, PamCode.INCOMPLETE)])
def test_no_user_name_is_no_login(directory: Path, fails: PamCode, code: PamCode) -> None:
    """Who is cancelled at "login:" is refused, and mfad is not asked."""
    with FakeMfad(directory, [ops(result(0))]) as mfad:
        assert run_pam([auth_line(socket_dir=directory)], None, [Fails(fails)]).code == code

    assert mfad.begins == []


def test_user_name_is_never_changed(directory: Path) -> None:
    """PAM_USER after the phase is PAM_USER before it: sshd would log the wrong one in."""
    with FakeMfad(directory, [ops(wire.prompt()), ops(wire.putenv("MFA_USER=root"), result(0))]):
        assert run_pam([auth_line(socket_dir=directory)], "alice", ["123456"]).user == "alice"
