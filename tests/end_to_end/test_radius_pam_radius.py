"""Logins through pam_radius_auth.so: Debian 12's neither signs nor expects a signature, and retransmits as RFC 5080 wants."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.daemon import Mfad, Person
from tests.end_to_end.host import module_directory
from tests.end_to_end.programs import must_have
from tests.end_to_end.radius_door import SECRET, Door, radius_door
from tests.end_to_end.radius_programs import PAM_RADIUS, pam_radius
from tests.pam_mfa.pam_harness import Expect, PamCode, Seen, Style

LOOPBACK = {"name": "loopback", "network": "127.0.0.1", "mode": "mfa_only", "require_message_authenticator": "no"}
FIRST_PROMPT, CODE_PROMPT = "Password: ", "Verification code: "


@pytest.fixture(scope="module")
def door(template: Mfad, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    must_have(str(module_directory() / PAM_RADIUS))
    client = {**LOOPBACK, "empty_password": "challenge"}
    with radius_door(template, tmp_path_factory.mktemp("door"), [client]) as one:
        yield one


@pytest.fixture
def person(door: Door) -> Person:
    return door.person()


def test_code_lets_in_once(door: Door, person: Person, tmp_path: Path) -> None:
    code = person.next_code()

    assert pam_radius(door.server, SECRET, tmp_path, person.name, [code]).code == PamCode.SUCCESS
    assert pam_radius(door.server, SECRET, tmp_path, person.name, [code]).code == PamCode.AUTH_ERR


def test_wrong_code_is_refused(door: Door, person: Person, tmp_path: Path) -> None:
    assert pam_radius(door.server, SECRET, tmp_path, person.name, [person.wrong_code()]).code == PamCode.AUTH_ERR


def test_challenge_is_shown_and_answered(door: Door, person: Person, tmp_path: Path) -> None:
    """The prompt is ours. State and Reply-Message are both there, or the module would not ask; what is typed it shows."""
    answers = [Expect(FIRST_PROMPT, ""), Expect(CODE_PROMPT, person.next_code(), Style.PROMPT_ON)]
    seen = pam_radius(door.server, SECRET, tmp_path, person.name, answers, "max_challenge=3")

    assert seen.code == PamCode.SUCCESS


def test_challenge_asks_again_after_a_wrong_code(door: Door, person: Person, tmp_path: Path) -> None:
    answers = ["", person.wrong_code(), person.next_code()]
    seen = pam_radius(door.server, SECRET, tmp_path, person.name, answers, "max_challenge=3")

    assert seen.code == PamCode.SUCCESS
    assert len(seen.prompts) == 3
    assert seen.prompts[2].endswith(CODE_PROMPT)


def test_retransmit_of_a_login_is_one_login(door: Door, person: Person, tmp_path: Path) -> None:
    """Rows 36, 37: mfad is frozen until the same datagram has arrived twice; one Accept, and the code was looked at once."""
    seen: list[Seen] = []
    login = threading.Thread(
        target=lambda: seen.append(
            pam_radius(door.server, SECRET, tmp_path, person.name, [person.next_code()], "retry=3", timeout_s=1)
        )
    )
    with door.frozen():
        login.start()
        first = door.wait_for_queue(above=0)
        # two of the same size: a retransmit
        assert door.wait_for_queue(above=first) == 2 * first
    login.join()

    assert seen[0].code == PamCode.SUCCESS
    assert door.mfad.failures(person.name) == 0


def test_door_that_is_down_lets_nobody_in(door: Door, person: Person, tmp_path: Path) -> None:
    """And the next login is as before."""
    code = person.next_code()
    door.mfad.stop()
    down = pam_radius(door.server, SECRET, tmp_path, person.name, [code], "retry=0", timeout_s=1)
    door.mfad.start()

    assert down.code != PamCode.SUCCESS
    assert pam_radius(door.server, SECRET, tmp_path, person.name, [code]).code == PamCode.SUCCESS
