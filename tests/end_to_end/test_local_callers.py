"""Callers that are not root, and clients and backends that are PAM themselves."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable

import pytest

from tests.end_to_end.conftest import USERS
from tests.end_to_end.daemon import Mfad, Person
from tests.end_to_end.host import PASSWORD, Host, private_host
from tests.end_to_end.programs import REPOSITORY, run
from tests.pam_mfa.pam_harness import Items, PamCode, Phase, Style, account_line, auth_line, run_pam

LOCKER = """
import json, os, sys
from tests.pam_mfa.pam_harness import PamTransaction
uid, times, name, *answers = sys.argv[1:]
os.setgroups([]); os.setresgid(int(uid), int(uid), int(uid)); os.setresuid(int(uid), int(uid), int(uid))
codes = []
for _ in range(int(times)):
    with PamTransaction(["auth required pam_mfa.so"], name, answers, service="screenlocker") as pam:
        seen = pam.authenticate()
        codes.append(seen.code)
print(json.dumps([codes, seen.prompts]))
"""
"""What a screen locker is: a process of the user that asks PAM. It loads its code first, as the repository may be root's."""


def lock_screen(host: Host, caller: str, name: str, *answers: str, times: int = 1) -> tuple[list[int], list[str]]:
    said = run(
        host.inside(
            "env", f"PYTHONPATH={REPOSITORY}", "TMPDIR=/tmp", sys.executable, "-c", LOCKER,
            str(host.uid(caller)), str(times), name, *answers,
        )
    )  # fmt: skip
    codes, prompts = json.loads(said)
    return codes, prompts


def test_screen_locker_verifies_its_own_user(host: Host, person: Person) -> None:
    """Row 35: through user.sock, with the same single use."""
    code = person.next_code()

    assert lock_screen(host, person.name, person.name, code) == ([PamCode.SUCCESS], ["Verification code: "])
    assert lock_screen(host, person.name, person.name, code)[0] == [PamCode.AUTH_ERR]


def test_screen_locker_cannot_ask_about_another_user(host: Host, person: Person, another: Person, mfad: Mfad) -> None:
    """Row 35: refused before a prompt, and the code is not spent."""
    code = another.next_code()

    assert lock_screen(host, person.name, another.name) == ([PamCode.PERM_DENIED], [])
    assert lock_screen(host, person.name, "root") == ([PamCode.PERM_DENIED], [])
    assert run_pam([auth_line(socket_dir=mfad.socket_dir)], another.name, [code]).code == PamCode.SUCCESS


def test_screen_locker_is_slowed_down(host: Host, person: Person) -> None:
    """Row 35: a burst, then one every few seconds."""
    codes, _ = lock_screen(host, person.name, "root", times=30)

    assert codes[0] == PamCode.PERM_DENIED
    assert codes[-1] == PamCode.AUTHINFO_UNAVAIL


@pytest.mark.parametrize(
    ("service", "code"),
    [
        pytest.param("cron", PamCode.SUCCESS, id="cron"),
        pytest.param("systemd-user", PamCode.SUCCESS, id="systemd-user"),
        pytest.param("atd", PamCode.SUCCESS, id="atd"),
        pytest.param("sshd", PamCode.PERM_DENIED, id="sshd"),
        pytest.param("cron2", PamCode.PERM_DENIED, id="a-name-like-it"),
    ],
)
def test_account_line_lets_services_without_people_pass(mfad: Mfad, service: str, code: int) -> None:
    """Row 22."""
    line = account_line("require_mfa", socket_dir=mfad.socket_dir)

    assert run_pam([line], "tokenless", phase=Phase.ACCOUNT, service=service).code == code


def test_unknown_and_tokenless_users_see_the_same(mfad: Mfad, person: Person) -> None:
    """Row 15: where our module is asked without a password before it, texts and codes are those of a wrong code."""
    line = auth_line(socket_dir=mfad.socket_dir)
    items = Items(rhost="192.0.2.77")
    wrong = run_pam([line], person.name, [person.wrong_code()], items=items)
    for name in ("nosuchuser", "tokenless", "\xff\xfe", "a" * 300, "../../etc/passwd", "-rf", "Alice@elsewhere"):
        seen = run_pam([line], name, [person.wrong_code()], items=items)
        assert (seen.code, seen.shown) == (wrong.code, wrong.shown), name


ODD_ANSWERS: dict[str, tuple[str | bytes, int]] = {
    "five digits": ("12345", 1),
    "seven digits": ("1234567", 1),
    "letters": ("abcdef", 1),
    "full-width digits": ("\uff11\uff12\uff13\uff14\uff15\uff16", 1),
    "blank before": (" 123456", 1),
    "blank behind": ("123456 ", 1),
    "not UTF-8": (b"\xff\xfe\xfd", 1),
    "100 kB": ("x" * 100_000, 0),
    "escape sequence": ("\x1b]0;owned\x07", 1),
    "percent signs": ("%s%n%s%n", 1),
    "nothing": ("", 0),
    "sshd's junk": ("\b\n\r\x7fINCORRECT", 0),
    "sshd's junk, cut": ("\b\n\r\x7fIN", 0),
}


def test_odd_answers_are_refused_and_counted_as_they_should_be(mfad: Mfad, person: Person) -> None:
    """Rows 3, 4, 16, 26: AUTH_ERR for each; what a person did not type as a code is no failure of hers."""
    line, counted = auth_line(socket_dir=mfad.socket_dir), 0
    for what, (answer, counts) in ODD_ANSWERS.items():
        if counted + counts > 3:  # the fourth failure begins to cost time
            person, counted = mfad.person(), 0
        counted += counts
        seen = run_pam([line], person.name, [answer], flags=0x1)
        assert seen.code == PamCode.AUTH_ERR, what
    assert counted == mfad.failures(person.name)
    assert run_pam([line], person.name, [person.next_code()]).code == PamCode.SUCCESS
    mfad.mfactl("audit", "verify")
    assert "\x1b" not in mfad.mfactl("audit", "tail", "-n", "200") + mfad.log()


def test_clock_of_the_phone_may_be_one_step_off(mfad: Mfad, person: Person, another: Person) -> None:
    """Row 8: the next step is accepted, the one before it then is not, and far ones never were."""
    line = auth_line(socket_dir=mfad.socket_dir)
    person.next_code()
    ahead = person.next_code()

    assert run_pam([line], person.name, [ahead]).code == PamCode.SUCCESS
    assert run_pam([line], person.name, [person.code_at(person.last_step - 1)]).code == PamCode.AUTH_ERR
    another.next_code()
    assert run_pam([line], another.name, [another.code_at(another.last_step + 3)]).code == PamCode.AUTH_ERR
    assert run_pam([line], another.name, [another.code_at(another.last_step - 3)]).code == PamCode.AUTH_ERR


def test_silent_caller_and_one_without_a_user(mfad: Mfad, person: Person) -> None:
    """Row 43."""
    line = auth_line(socket_dir=mfad.socket_dir)
    silent = run_pam([line], person.name, [person.wrong_code()], flags=0x8000)
    asked = run_pam([line], None, [person.name, person.next_code()])

    assert [one for one in silent.shown if one.style not in (Style.PROMPT_OFF, Style.PROMPT_ON)] == []
    assert asked.code == PamCode.SUCCESS


def test_password_is_verified_by_another_pam_service(
    template: Mfad, make_mfad: Callable[..., Mfad], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """python-pam as first-factor backend: a wrong password spends no code, and is no failure of the second factor."""
    place = tmp_path_factory.mktemp("primary")
    sockets = place / "mfad" / "run"
    pam = {"mfad-primary": "@include common-auth\n@include common-account\n"}
    settings = {
        "doors": {"pam": {"primary": {"type": "pam", "service": "mfad-primary"}, "services": {"vpn": {"mode": "combined"}}}}
    }
    with private_host(place / "host", sockets, users=USERS, pam=pam) as host:
        mfad = Mfad(place / "mfad", settings, prefix=host.inside())
        mfad.copy_from(template)
        mfad.start()
        try:
            person = mfad.person()
            # as the shipped file has it: the mode on the line too
            line, code = auth_line("mode=combined", socket_dir=mfad.socket_dir), person.next_code()

            def answer(text: str) -> int:
                return run_pam([line], person.name, [text], service="vpn").code

            assert answer("wrong" + code) == PamCode.AUTH_ERR
            assert mfad.failures(person.name) == 0
            assert answer(PASSWORD + person.wrong_code()) == PamCode.AUTH_ERR
            assert answer(PASSWORD) == PamCode.AUTH_ERR
            assert answer(PASSWORD + code) == PamCode.SUCCESS
            assert answer(PASSWORD + code) == PamCode.AUTH_ERR
            host.set_pam("mfad-primary", "auth required pam_nosuchmodule.so\n")
            broken = run_pam([line], person.name, [PASSWORD + person.next_code()], service="vpn")
            assert broken.code == PamCode.AUTHINFO_UNAVAIL
        finally:
            mfad.close()
