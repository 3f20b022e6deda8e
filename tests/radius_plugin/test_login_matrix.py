"""A real gate behind the translation: whatever the client's mode and the policy's grammar, no password of ours is skipped."""

from __future__ import annotations

import base64
import ipaddress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from mfa_core.model import FirstFactor, Grammar, Requirement, SplitMode
from mfa_core.secret import Secret
from mfa_core.verdict import Accepted, Challenge, Exempt, Rejected, Verdict
from radius_plugin.authenticators import SharedSecret
from radius_plugin.request import RequestRefused, read_login
from radius_plugin.settings import ClientSettings, EmptyPassword, Mode, Split
from radius_plugin.state import KEY_SIZE, StateSeal
from radius_plugin.wire import parse
from tests.doubles import NO_WAITING, T0, Person, ScriptedPrimary, default_policy, install
from tests.radius_plugin.door_doubles import NAS, SECRET, login

SEAL = StateSeal([Secret(bytes(KEY_SIZE))], random=bytes)
PASSWORD = "correct horse"


@dataclass(frozen=True, slots=True)
class Case:
    """What ``person`` types to a client of this mode. ``has_password``: the right one stands in it, ``has_code`` likewise."""

    mode: Mode
    typed: str
    person: Person
    has_password: bool
    has_code: bool


def cases(requirement: Requirement) -> list[Case]:
    """Each with a person of its own, so that no code is spent twice."""
    found = []
    for mode in Mode:
        for number, (password, code) in enumerate(
            [(PASSWORD, True), (PASSWORD, False), (PASSWORD, None), ("wrong", True), ("wrong", None), ("", True)]
        ):
            for separator in (",", "", "scrv1"):
                name = f"p{mode.value}{number}{separator.replace(',', 'sep')}".replace("_", "")
                kind = None if requirement is Requirement.EXEMPT else Person("x").kind
                person = Person(name, kind, requirement=requirement)
                digits = "" if code is None else Person(name).code(T0)
                if code is False:
                    digits = f"{(int(digits) + 1) % 1_000_000:06d}"
                text = f"{password}{separator}{digits}"
                if separator == "scrv1":
                    text = "SCRV1:" + ":".join(base64.b64encode(part.encode()).decode() for part in (password, digits))
                if text:
                    found.append(Case(mode, text, person, password == PASSWORD, code is True))
    return found


def verdicts(directory: Path, found: list[Case], grammar: SplitMode | None, first: FirstFactor) -> list[Verdict | None]:
    """What the gate says to each; None where the door refused it before."""
    names = {one.person.name: PASSWORD for one in found}
    policy = default_policy(grammar=None if grammar is None else Grammar(grammar))
    people = [one.person for one in found]
    installed = install(directory, *people, policy=policy, settings=NO_WAITING, primary=ScriptedPrimary(**names))
    client = ClientSettings(
        "vpn", ipaddress.ip_network(NAS), (Secret(SECRET),), first_factor=first, empty_password=EmptyPassword.CHALLENGE
    )
    try:
        attempts = {}
        for number, one in enumerate(found):
            settings = replace(client, mode=one.mode, split=Split.SEPARATOR if "," in one.typed else Split.APPEND)
            packet, secret = parse(login(one.person.name, one.typed)), SharedSecret(Secret(SECRET))
            try:
                asked = read_login(packet, settings, secret, address=NAS, seal=SEAL, now=T0, event_id=f"{number:026d}")
            except RequestRefused:
                continue
            # A source of its own each: one throttle for all would decide in the place of the rules.
            attempts[number] = replace(asked.attempt, source=f"10.{number // 250}.{number % 250}.1")
        answers = dict(zip(attempts, installed.ask(*attempts.values()), strict=True))
        return [answers.get(number) for number in range(len(found))]
    finally:
        installed.close()


GRAMMARS = pytest.mark.parametrize("grammar", [None, *SplitMode], ids=str)


@GRAMMARS
def test_a_password_of_ours_is_always_checked(tmp_path: Path, grammar: SplitMode | None) -> None:
    found = cases(Requirement.INHERIT)
    seen = set()
    for one, verdict in zip(found, verdicts(tmp_path, found, grammar, FirstFactor.OURS), strict=True):
        seen.add(type(verdict))
        if one.mode is Mode.MFA_ONLY and not one.typed.startswith("SCRV1"):
            continue  # somebody else has checked it: what stands before the code is nobody's password
        if isinstance(verdict, Accepted):
            assert one.has_password, one
            assert one.has_code, one
        elif isinstance(verdict, Challenge):
            assert one.has_password, one
        else:
            assert isinstance(verdict, Rejected | None), (one, verdict)
    assert {Accepted, Rejected} <= seen


@GRAMMARS
def test_no_mode_lets_anybody_in_without_a_code(tmp_path: Path, grammar: SplitMode | None) -> None:
    found = cases(Requirement.INHERIT)
    for one, verdict in zip(found, verdicts(tmp_path, found, grammar, FirstFactor.ELSEWHERE), strict=True):
        assert not isinstance(verdict, Exempt), one
        if isinstance(verdict, Accepted):
            assert one.has_code, one


@GRAMMARS
def test_the_exempt_show_their_password_all_the_same(tmp_path: Path, grammar: SplitMode | None) -> None:
    found = cases(Requirement.EXEMPT)
    seen = set()
    for one, verdict in zip(found, verdicts(tmp_path, found, grammar, FirstFactor.OURS), strict=True):
        seen.add(type(verdict))
        if one.mode is Mode.MFA_ONLY and not one.typed.startswith("SCRV1"):
            continue
        assert not isinstance(verdict, Accepted | Challenge), one
        if one.typed.startswith("SCRV1") and one.has_password and one.has_code:
            # It shows its own parts: a grammar of the policy does not take them together again.
            assert isinstance(verdict, Exempt), one
        if isinstance(verdict, Exempt):
            assert one.has_password, one
    assert Exempt in seen
