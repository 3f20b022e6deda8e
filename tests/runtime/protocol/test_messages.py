"""Octets become a message or a ProtocolError; a message becomes the same octets again."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from mfa_core.secret import Secret
from mfa_runtime.protocol import joining, reporting, syncing, verifying
from mfa_runtime.protocol.message import Message, ProtocolError, decode_octets, encode_octets, wire_text
from mfa_runtime.protocol.words import STATUS, KeyProtection, Refusal

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "authority" / "messages.json").read_text())["messages"]
KINDS: dict[str, type[Message]] = {
    kind.__name__: kind
    for kind in (
        joining.JoinRequest,
        joining.JoinAnswer,
        joining.RenewRequest,
        joining.RenewAnswer,
        syncing.SyncRequest,
        syncing.SyncAnswer,
        verifying.VerifyRequest,
        verifying.VerifyAnswer,
        reporting.JournalRequest,
        reporting.JournalHead,
        reporting.Health,
        reporting.Refused,
    )
}
READERS = {
    "JoinRequest": joining.read_join_request,
    "JoinAnswer": joining.read_join_answer,
    "RenewRequest": joining.read_renew_request,
    "RenewAnswer": joining.read_renew_answer,
    "SyncRequest": syncing.read_sync_request,
    "SyncAnswer": syncing.read_sync_answer,
    "VerifyRequest": verifying.read_verify_request,
    "VerifyAnswer": verifying.read_verify_answer,
    "JournalRequest": reporting.read_journal_request,
    "JournalHead": reporting.read_journal_answer,
    "Health": reporting.read_health,
    "Refused": reporting.read_refused,
}


def octets_of(name: str) -> bytes:
    """The sample of a kind as it travels."""
    return json.dumps(VECTORS[name]).encode()


def holes(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of everything in a JSON value."""
    found = [path] if path else []
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        found += holes(value[key], (*path, key))
    return found


def with_at(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """A copy of a JSON value with something else at ``path``."""
    copy = json.loads(json.dumps(value))
    place = copy
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = new
    return copy


def test_there_is_a_sample_of_every_kind() -> None:
    """A message that is added without one is found here."""
    assert set(VECTORS) == set(KINDS) == set(READERS)


@pytest.mark.parametrize("name", sorted(KINDS))
def test_a_sample_is_read_and_written_again(name: str) -> None:
    """To the same JSON."""
    assert json.loads(READERS[name](octets_of(name)).octets()) == VECTORS[name]


@pytest.mark.parametrize("name", sorted(KINDS))
def test_a_sample_that_is_cut_is_refused(name: str) -> None:
    """After any octet."""
    whole = octets_of(name)

    for end in range(len(whole)):
        with pytest.raises(ProtocolError):
            READERS[name](whole[:end])


@pytest.mark.parametrize("name", sorted(KINDS))
def test_a_key_that_is_not_known_is_passed_over(name: str) -> None:
    """A newer side may say more."""
    newer = json.dumps(VECTORS[name] | {"news": [1, {"a": None}]}).encode()

    assert READERS[name](newer).octets() == READERS[name](octets_of(name)).octets()


@pytest.mark.parametrize("name", sorted(KINDS))
def test_nothing_is_guessed(name: str) -> None:
    """Another type in any place is refused, or is one that may stand there."""
    for path in holes(VECTORS[name]):
        for strange in (True, "x" * 20_000, [[]], {"a": {}}, -1.5, 10**30, "\x00"):
            octets = json.dumps(with_at(VECTORS[name], path, strange)).encode()
            told = ""
            try:
                read = READERS[name](octets)
            except ProtocolError as err:
                told = f"{err}; {err.cure}"
            else:
                place = json.loads(read.octets())
                for part in path:
                    place = place[part]
                assert place == strange
            assert told.isprintable()
            assert len(told) < 600


@pytest.mark.parametrize("name", sorted(KINDS))
def test_more_octets_than_a_message_may_have_are_not_looked_into(name: str) -> None:
    """Bounds come first."""
    with pytest.raises(ProtocolError, match="expected at most"):
        READERS[name](b" " * (KINDS[name].LIMIT + 1))


@given(name=st.sampled_from(sorted(KINDS)), octets=st.binary(max_size=200))
def test_any_octets_are_a_message_or_an_error(name: str, octets: bytes) -> None:
    """Nothing else is raised."""
    with suppress(ProtocolError):
        READERS[name](octets)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(
    data=st.data(),
    name=st.sampled_from(sorted(KINDS)),
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=5,
    ),
)
def test_a_message_with_anything_in_it_is_one_or_an_error(data: st.DataObject, name: str, value: object) -> None:
    """Whatever parses is written again as something that parses to the same."""
    changed = with_at(VECTORS[name], data.draw(st.sampled_from(holes(VECTORS[name]))), value)
    try:
        read = READERS[name](json.dumps(changed).encode())
    except ProtocolError:
        return
    again = READERS[name](read.octets())

    assert again.octets() == read.octets()


@pytest.mark.parametrize(
    ("name", "path", "value"),
    [
        ("VerifyRequest", ("attempts",), []),
        ("VerifyRequest", ("attempts",), VECTORS["VerifyRequest"]["attempts"][:1] * 65),
        ("VerifyRequest", ("attempts", 0, "readings"), VECTORS["VerifyRequest"]["attempts"][0]["readings"] * 5),
        ("VerifyRequest", ("attempts", 0, "event_id"), "a b"),
        ("VerifyRequest", ("attempts", 0, "groups"), ["g"] * 4_097),
        ("VerifyAnswer", ("rulings", 0, "outcome"), "let in"),
        ("SyncRequest", ("nonce",), encode_octets(b"x" * 15)),
        ("SyncRequest", ("nonce",), "AAECAwQFBgcICQoLDA0ODx=="),
        ("SyncRequest", ("nonce",), "AAECAwQFBgcICQoLDA0ODw"),
        ("SyncRequest", ("wait_s",), 50.5),
        ("SyncRequest", ("seq",), 2**63),
        ("SyncRequest", ("digest",), "AB" * 32),
        ("SyncAnswer", ("authority_id",), "a|b"),
        ("SyncAnswer", ("users",), VECTORS["SyncAnswer"]["users"][:1] * 501),
        ("SyncAnswer", ("users", 0, "credentials", 0, "material"), "seeds"),
        ("SyncAnswer", ("journal",), "forked"),
        ("JournalRequest", ("bodies",), []),
        ("JournalRequest", ("bodies",), ["{}"] * 501),
        ("JournalRequest", ("bodies", 0), "{\n}"),
        ("JournalRequest", ("bodies", 0), '{"a":"\u00e9"}'),
        ("JournalHead", ("hash",), encode_octets(b"x" * 31)),
        ("JoinAnswer", ("signers",), {}),
        ("JoinAnswer", ("signers",), {"00": encode_octets(b"x" * 32)}),
        ("Health", ("now",), "now"),
    ],
)
def test_a_bound_is_a_bound(name: str, path: tuple[Any, ...], value: object) -> None:
    """What is one too many, or spelt otherwise, is refused."""
    with pytest.raises(ProtocolError):
        READERS[name](json.dumps(with_at(VECTORS[name], path, value)).encode())


def test_numbers_that_are_none_are_refused() -> None:
    """JSON has no NaN; a time of one would compare as nothing does."""
    for text in (b"NaN", b"Infinity", b"-Infinity", b"1e999"):
        with pytest.raises(ProtocolError):
            reporting.read_health(b'{"authority_id":"a","now":' + text + b"}")


def test_no_code_is_shown() -> None:
    """Not in the form of a message, not in an error about one, not in a value that was taken out of it."""
    request = verifying.read_verify_request(octets_of("VerifyRequest"))
    code = request.attempts[0].readings[0].text.reveal().decode()
    broken = octets_of("VerifyRequest").replace(b'"digits"', b'"digit"')

    with pytest.raises(ProtocolError) as refused:
        verifying.read_verify_request(broken)

    for shown in (repr(request), str(request), repr(request.model_dump()), str(refused.value), repr(refused.value)):
        assert code not in shown
        assert encode_octets(code.encode()) not in shown
    assert refused.value.__cause__ is None


def test_no_seed_is_shown() -> None:
    """Neither whole nor broken."""
    entries = syncing.write_entries([syncing.SealedEntry(credential=1, first_step=-1, secret=Secret(b"seed seed seed"))])
    with pytest.raises(ProtocolError) as refused:
        syncing.read_entries(Secret(entries.reveal().replace(b'"credential":1', b'"credential":0')))

    assert "seed" not in repr(syncing.read_entries(entries))
    assert "c2Vl" not in str(refused.value)


def test_what_cannot_travel_cannot_be_made() -> None:
    """A mistake of ours is found where it is made."""
    with pytest.raises(ValidationError):
        reporting.Health(authority_id="a", now="soon")  # type: ignore[arg-type]
    with pytest.raises(ValidationError):
        reporting.Refused(error="x", text="\udc80")


@given(octets=st.binary(max_size=64))
def test_octets_have_one_spelling(octets: bytes) -> None:
    """Base64 there and back."""
    assert decode_octets(encode_octets(octets)) == octets


@given(text=st.text(alphabet=st.characters(), max_size=40), limit=st.integers(0, 30))
def test_a_text_from_outside_can_travel(text: str, limit: int) -> None:
    """Also one with octets that are no UTF-8."""
    broken = text + "\udc80"

    for made in (wire_text(text, limit), wire_text(broken, limit)):
        assert len(made) <= limit
        assert reporting.Refused(error="x", text=made).octets()


def test_every_refusal_has_its_status() -> None:
    """And an unknown one is a refusal all the same."""
    assert set(STATUS) == set(Refusal)
    assert reporting.Refused(error="quarantined").refusal is Refusal.QUARANTINED
    assert reporting.Refused(error="of a newer version").refusal is None


@pytest.mark.parametrize(
    ("has", "wanted", "enough"),
    [
        (KeyProtection.FILE, "any", True),
        (KeyProtection.FILE, "file", True),
        (KeyProtection.FILE, "systemd-creds", False),
        (KeyProtection.SYSTEMD_CREDS, "systemd-creds", True),
        (KeyProtection.SYSTEMD_CREDS, "file", True),
        (KeyProtection.SYSTEMD_CREDS, "something newer", False),
    ],
)
def test_a_host_group_may_ask_for_a_better_key(has: KeyProtection, wanted: str, enough: bool) -> None:
    """What is not known is not had."""
    assert has.is_enough(wanted) is enough


@given(versions=st.dictionaries(st.integers(1, 2**63 - 1), st.integers(0, 2**63 - 1), max_size=20), data=st.data())
def test_the_digest_of_a_set_does_not_depend_on_its_order(versions: dict[int, int], data: st.DataObject) -> None:
    """And on every version in it."""
    shuffled = data.draw(st.permutations(list(versions.items())))

    assert syncing.manifest_digest(shuffled) == syncing.manifest_digest(versions.items())
    if versions:
        user = data.draw(st.sampled_from(sorted(versions)))
        assert syncing.manifest_digest((versions | {user: versions[user] + 1}).items()) != syncing.manifest_digest(shuffled)


@pytest.mark.parametrize(
    "one", json.loads((Path(__file__).parents[2] / "vectors" / "authority" / "manifest.json").read_text())["sets"]
)
def test_the_digest_is_that_of_the_vectors(one: dict[str, Any]) -> None:
    """Both sides agree for ever."""
    assert syncing.manifest_digest((user, version) for user, version in one["versions"]) == one["digest"]
