"""Nothing of an answer is used that the authority of this host has not made, for this host, now."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mfa_core.secret import Secret
from mfa_runtime.agent.snapshot import Expected, Snapshot, SnapshotRefused, Why, clock_offset_s, read_snapshot
from mfa_runtime.protocol.message import ProtocolError
from mfa_runtime.protocol.sealed import new_private_key, public_of
from mfa_runtime.protocol.signed import Signer, new_signing_key
from mfa_runtime.protocol.syncing import SyncAnswer, read_sync_request
from tests.doubles import ALICE, BOB, T0, FakeClock
from tests.runtime.agent.fake_authority import AUTHORITY_ID, HOST_ID, FakeAuthority
from tests.runtime.agent.pages import sync_request

NONCE = b"0123456789abcdef"
SEQ = 1000
PRIVATE = new_private_key()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> FakeAuthority:
    made = FakeAuthority(tmp_path_factory.mktemp("authority"), FakeClock(), hpke_public=public_of(PRIVATE))
    made.add(ALICE)
    made.add(BOB)
    return made


def expected(authority: FakeAuthority, **other: object) -> Expected:
    usual = Expected(HOST_ID, AUTHORITY_ID, {authority.signer.key_id: authority.signer.public}, NONCE, SEQ)
    return replace(usual, **other)  # type: ignore[arg-type]


def answer(authority: FakeAuthority) -> SyncAnswer:
    return authority.sync_answer(sync_request(nonce=NONCE, seq=SEQ))


def read(authority: FakeAuthority, made: SyncAnswer, wanted: Expected, private: Secret = PRIVATE) -> Snapshot:
    body = made.octets()
    return read_snapshot(body, authority.signer.sign(body), wanted, private)


def test_a_good_answer_is_read_and_opened(authority: FakeAuthority) -> None:
    found = read(authority, answer(authority), expected(authority))

    assert [user.name for user in found.answer.users] == ["alice", "bob"]
    assert {entry.secret.reveal() for entry in found.entries.values()} == {ALICE.secret, BOB.secret}
    assert clock_offset_s(found.answer, T0 + 5) == 5.0


TWISTS: dict[Why, Callable[[SyncAnswer], SyncAnswer]] = {
    Why.FOREIGN_HOST: lambda one: one.model_copy(update={"host_id": HOST_ID + 1}),
    Why.FOREIGN_AUTHORITY: lambda one: one.model_copy(update={"authority_id": "another"}),
    Why.REPLAYED: lambda one: one.model_copy(update={"nonce": b"an older nonce.."}),
    Why.REORDERED: lambda one: one.model_copy(update={"seq": SEQ}),
    Why.UNREADABLE: lambda one: one.model_copy(update={"more": True}),
}


@pytest.mark.parametrize("why", TWISTS, ids=str)
def test_an_answer_that_the_authority_signed_for_something_else_is_refused(authority: FakeAuthority, why: Why) -> None:
    with pytest.raises(SnapshotRefused) as refused:
        read(authority, TWISTS[why](answer(authority)), expected(authority))

    assert refused.value.why is why
    assert refused.value.cure


def test_a_lease_that_no_host_honours_is_refused(authority: FakeAuthority) -> None:
    with pytest.raises(SnapshotRefused):
        read(authority, answer(authority).model_copy(update={"not_after": T0 + 366 * 86_400}), expected(authority))


def test_a_last_page_may_have_no_digest_and_a_page_before_it_has_none(authority: FakeAuthority) -> None:
    made = answer(authority)
    assert read(authority, made.model_copy(update={"digest": None}), expected(authority)).answer.users
    with pytest.raises(SnapshotRefused):
        read(authority, made.model_copy(update={"more": True, "page": "2"}), expected(authority))


def test_an_answer_of_another_key_is_refused(authority: FakeAuthority) -> None:
    body = answer(authority).octets()

    with pytest.raises(SnapshotRefused) as refused:
        read_snapshot(body, Signer(new_signing_key()).sign(body), expected(authority), PRIVATE)

    assert refused.value.why is Why.TAMPERED


def test_secrets_that_were_sealed_to_another_host_do_not_open(authority: FakeAuthority) -> None:
    with pytest.raises(SnapshotRefused) as refused:
        read(authority, answer(authority), expected(authority), new_private_key())

    assert refused.value.why is Why.UNREADABLE


def test_secrets_of_another_answer_do_not_open_in_this_one(authority: FakeAuthority) -> None:
    older, newer = answer(authority), answer(authority)

    with pytest.raises(SnapshotRefused):
        read(authority, newer.model_copy(update={"sealed": older.sealed}), expected(authority))


@settings(max_examples=150, deadline=None)
@given(at=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_a_changed_bit_is_refused(authority: FakeAuthority, at: int, bit: int) -> None:
    body = answer(authority).octets()
    signature = authority.signer.sign(body)
    spoilt = bytearray(body)
    spoilt[at % len(body)] ^= 1 << bit

    with pytest.raises(SnapshotRefused) as refused:
        read_snapshot(bytes(spoilt), signature, expected(authority), PRIVATE)

    assert refused.value.why is Why.TAMPERED


def test_every_cut_is_refused(authority: FakeAuthority) -> None:
    body = answer(authority).octets()
    signature = authority.signer.sign(body)

    for length in range(0, len(body), 7):
        with pytest.raises(SnapshotRefused):
            read_snapshot(body[:length], signature, expected(authority), PRIVATE)


@settings(max_examples=200, deadline=None)
@given(body=st.binary(max_size=300), signature=st.text(max_size=120))
def test_octets_that_are_no_answer_raise_what_is_documented(authority: FakeAuthority, body: bytes, signature: str) -> None:
    for header in (signature, authority.signer.sign(body)):
        with pytest.raises(SnapshotRefused):
            read_snapshot(body, header, expected(authority), PRIVATE)


def test_what_is_refused_is_a_fault_of_the_peer() -> None:
    assert issubclass(SnapshotRefused, ProtocolError)
    assert read_sync_request(sync_request(nonce=NONCE).octets()).nonce == NONCE
