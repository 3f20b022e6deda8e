"""Every outcome of a trial at the RADIUS door is explained, and what the configuration shows is said as certain."""

from __future__ import annotations

import ipaddress
from dataclasses import replace

import pytest

from mfa_core.secret import Secret
from mfactl.radius_meaning import Circumstances, meaning_of, replies_are_signed
from radius_plugin.authenticators import Doubt, SharedSecret
from radius_plugin.settings import ClientSettings, Refusal, RequireSignature, SignReplies
from radius_plugin.trial import Believed, Doubted, Login, Protection, Signature, Silence, login_request
from radius_plugin.wire import Code, parse

SECRET = Secret(b"a secret of the test")
CLIENT = ClientSettings("vpn", ipaddress.ip_network("192.0.2.1"), (SECRET,))
SEEN = Circumstances("192.0.2.9:1812", "192.0.2.1", Protection.SIGNED, CLIENT, "vpn")


def believed(code: Code, signature: Signature = Signature.FIRST) -> Believed:
    login = Login("alice", Secret.from_text("1"))
    shared = SharedSecret(SECRET)
    request = parse(login_request(login, shared, identifier=1, protection=Protection.SIGNED, random=bytes))
    return Believed(parse(shared.reply(code, request)), signature, 1.0, 1)


@pytest.mark.parametrize("doubt", list(Doubt))
def test_every_doubt_has_a_sentence_and_a_cure(doubt: Doubt) -> None:
    """Nobody is left with a word of ours."""
    told = meaning_of(Doubted(doubt, "detail"), SEEN)

    assert len(told.sentence) > 20
    assert told.cures


@pytest.mark.parametrize("silence", list(Silence))
def test_silence_has_cures(silence: Silence) -> None:
    """The most likely first."""
    assert meaning_of(silence, SEEN).cures


def test_a_stranger_is_told_so_for_certain() -> None:
    """No guessing where the configuration shows it."""
    told = meaning_of(Silence.TIMED_OUT, replace(SEEN, holder=""))

    assert "strangers are not answered" in told.sentence
    assert "192.0.2.1" in told.cures[0]


def test_the_secret_of_another_client_is_told_for_certain() -> None:
    """Two entries, one address."""
    told = meaning_of(Silence.TIMED_OUT, replace(SEEN, holder="other"))

    assert "'other'" in told.sentence
    assert "'vpn'" in told.sentence


def test_an_unsigned_request_of_a_client_that_must_sign_is_told_for_certain() -> None:
    """The commonest outcome of an update that closes CVE-2024-3596."""
    told = meaning_of(Silence.TIMED_OUT, replace(SEEN, protection=Protection.UNSIGNED))

    assert "must sign" in told.sentence


def test_a_wrong_secret_comes_first_where_nothing_is_certain() -> None:
    """A signed request with another secret is not answered."""
    assert "secret" in meaning_of(Silence.TIMED_OUT, SEEN).cures[0]
    assert "secret" in meaning_of(Silence.TIMED_OUT, replace(SEEN, client=None, holder=None)).cures[1]


def test_what_the_client_may_hear_by_its_settings_is_listed() -> None:
    """Silence by choice, a rate, a lesson learnt."""
    client = replace(
        CLIENT,
        on_unavailable=Refusal.SILENCE,
        on_timeout=Refusal.SILENCE,
        requests_per_s=5.0,
        require_message_authenticator=RequireSignature.AUTO,
    )
    cures = " ".join(meaning_of(Silence.TIMED_OUT, replace(SEEN, client=client, protection=Protection.UNSIGNED)).cures)

    for words in ("on_unavailable", "on_timeout", "requests_per_second", "auto"):
        assert words in cures
    assert "on_timeout" not in " ".join(meaning_of(Silence.TIMED_OUT, SEEN).cures)


def test_good_answers_are_named_and_weak_ones_pointed_out() -> None:
    """An accept that a client of today would drop is worth a word."""
    assert meaning_of(believed(Code.ACCESS_ACCEPT), SEEN).sentence == "accepted"
    assert meaning_of(believed(Code.ACCESS_ACCEPT), SEEN).cures == ()
    assert meaning_of(believed(Code.ACCESS_REJECT), SEEN).sentence == "rejected"
    assert meaning_of(believed(Code.ACCOUNTING_RESPONSE), SEEN).sentence == "acknowledged"
    assert "no answer was given" in meaning_of(believed(Code.ACCESS_CHALLENGE), SEEN).sentence
    assert "no Message-Authenticator" in meaning_of(believed(Code.ACCESS_ACCEPT, Signature.NONE), SEEN).cures[0]
    assert "not the first" in meaning_of(believed(Code.ACCESS_ACCEPT, Signature.LATER), SEEN).cures[0]
    unsigned = replace(SEEN, protection=Protection.UNSIGNED)
    assert "request had no Message-Authenticator" in meaning_of(believed(Code.ACCESS_ACCEPT), unsigned).cures[0]


def test_unsigned_replies_are_expected_only_of_who_is_configured_so() -> None:
    """Check Point."""
    assert replies_are_signed(None)
    assert replies_are_signed(CLIENT)
    assert not replies_are_signed(replace(CLIENT, reply_message_authenticator=SignReplies.NEVER))
