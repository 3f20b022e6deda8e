"""Every outcome of a trial at the LDAP door is explained, and what the configuration shows is said as certain."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ldap_proxy.message import BIND_RESPONSE, Result, ResultCode
from ldap_proxy.settings import RememberMode
from ldap_proxy.trial import Act, Done, Failed, Failure, Step
from mfactl.ldap_meaning import AD_DATA, Circumstances, Meaning, meaning_of, named

SEEN = Circumstances("ldap://192.0.2.9:389", in_clear=True)
OURS = Circumstances("ldap://192.0.2.9:389", True, "ldap", False, False, RememberMode.OFF, ",")


def result(act: Act, code: int, text: str = "", seen: Circumstances = SEEN) -> Meaning:
    return meaning_of(Step(act, "", Done(1.0, "", Result(1, BIND_RESPONSE, code, b"", text.encode()))), seen)


@pytest.mark.parametrize("failure", list(Failure))
@pytest.mark.parametrize("act", list(Act))
def test_every_failure_has_a_sentence_and_a_cure(failure: Failure, act: Act) -> None:
    """Nobody is left with a word of ours."""
    told = meaning_of(Step(act, "", Failed(failure, "detail")), SEEN)

    assert len(told.sentence) > 20
    assert told.cures


@pytest.mark.parametrize("code", [one for one in ResultCode if one is not ResultCode.SUCCESS])
@pytest.mark.parametrize("act", [act for act in Act if act is not Act.CONNECT])
def test_every_code_is_named_and_has_a_cure(code: ResultCode, act: Act) -> None:
    """By the name and the number that others write."""
    told = result(act, code)

    assert named(code) in told.sentence
    assert told.cures


def test_codes_are_named_as_the_standard_does() -> None:
    """RFC 4511 appendix A; a directory may send others."""
    assert named(49) == "invalidCredentials (49)"
    assert named(8) == "strongerAuthRequired (8)"
    assert named(4096) == "result 4096"


@pytest.mark.parametrize("data", sorted(AD_DATA))
def test_numbers_of_active_directory_are_explained(data: str) -> None:
    """In the text as it writes it."""
    text = f"80090308: LdapErr: DSID-0C090439, comment: AcceptSecurityContext error, data {data.upper()}, v4563"

    assert AD_DATA[data] in result(Act.BIND, 49, text).cures[0]


def test_an_account_that_is_not_exempt_is_told_so_for_certain() -> None:
    """The commonest mistake of a first installation."""
    assert "exempt.dn" in result(Act.SERVICE_BIND, 49, seen=OURS).cures[0]
    assert "exempt.dn" not in result(Act.SERVICE_BIND, 49, seen=replace(OURS, exempt=True)).cures[0]


def test_the_form_of_the_application_is_shown() -> None:
    """With its own separator, or without one."""
    assert "secret;123456" in result(Act.BIND, 49, seen=replace(OURS, separator=";")).cures[0]
    assert "secret123456" in result(Act.BIND, 49, seen=replace(OURS, separator="")).cures[0]


def test_second_bind_speaks_of_remember() -> None:
    """What to do where it is off, and what it can be where it is on."""
    assert any("`remember`" in one for one in result(Act.BIND_AGAIN, 49, seen=OURS).cures)
    on = result(Act.BIND_AGAIN, 49, seen=replace(OURS, remember=RememberMode.SAME_CREDENTIAL))
    assert any("max_uses" in one for one in on.cures)


def test_good_outcomes_say_whether_a_code_was_needed() -> None:
    """An exempt DN is a hole if it should not be one."""
    assert result(Act.BIND, 0, seen=OURS).sentence == "let in"
    assert "without a code" in result(Act.BIND, 0, seen=replace(OURS, is_person_exempt=True)).sentence
    assert "again" in result(Act.BIND_AGAIN, 0, seen=OURS).sentence
    assert "no code" in result(Act.BIND_AGAIN, 0, seen=replace(OURS, is_person_exempt=True)).sentence


@pytest.mark.parametrize(
    ("code", "words"),
    [(ResultCode.UNAVAILABLE, "went away"), (ResultCode.BUSY, "limits"), (ResultCode.PROTOCOL_ERROR, "changes")],
)
def test_notice_of_disconnection_is_explained(code: ResultCode, words: str) -> None:
    """By its code."""
    failed = Failed(Failure.DISCONNECTED, "", Result(0, 0x78, code))

    assert words in meaning_of(Step(Act.BIND, "", failed), SEEN).cures[0]
