"""A join token goes to nobody but the authority that issued it; what comes back is held against what was asked for."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from pathlib import Path

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from mfa_core.errors import ConfigurationError, Conflict, InvalidInput, StoreUnavailable
from mfa_core.secret import Secret
from mfa_runtime.agent.identity import check_certificate, new_host_key, pinned, private_pem, read_certificate
from mfa_runtime.agent.joining import read_token
from mfa_runtime.protocol.joining import read_join_answer
from mfa_runtime.protocol.message import ProtocolError
from mfa_runtime.protocol.words import JOIN, Refusal
from mfa_runtime.store import key_pairs
from tests.doubles import FakeClock
from tests.runtime.agent.agent_host import AgentHost
from tests.runtime.agent.certificates import Ca, raw_public
from tests.runtime.agent.fake_authority import TOKEN, FakeAuthority


@pytest.fixture
def authority(tmp_path: Path) -> FakeAuthority:
    return FakeAuthority(tmp_path, FakeClock())


@pytest.fixture
def host(tmp_path: Path) -> AgentHost:
    return AgentHost(tmp_path / "host", FakeClock())


def test_a_join_leaves_keys_and_what_is_trusted(authority: FakeAuthority, host: AgentHost) -> None:
    async def scenario() -> None:
        async with authority.serve():
            joined = await host.join(authority)
            assert (joined.host_id, joined.host_group, joined.url) == (7, "edge", authority.url)

    asyncio.run(scenario())
    state = host.state
    assert state.trust.decode() == authority.ca.pem
    assert state.signers == {authority.signer.key_id: authority.signer.public}
    with host.store.reading() as connection:
        assert key_pairs.names(connection) == ["hpke", "tls"]
        rows = connection.exec_driver_sql("SELECT private FROM key_pairs").scalars().all()
        pair = key_pairs.load(connection, host.keyring(), "tls")
    assert pair is not None
    assert all(pair.private.reveal() not in bytes(row) for row in rows)
    assert host.actions() == ["agent.join"]


def test_the_token_is_sent_to_nobody_else(authority: FakeAuthority, host: AgentHost, tmp_path: Path) -> None:
    """A server with a certificate of another CA, good for the name: the handshake shows it, and nothing is sent."""
    impostor = FakeAuthority(tmp_path, FakeClock(), ca=Ca("impostor"))

    async def scenario() -> None:
        async with impostor.serve():
            authority.port = impostor.port
            with pytest.raises(ConfigurationError, match="not the authority that issued the token") as refused:
                await host.join(authority)
            assert "still good" in refused.value.cure

    asyncio.run(scenario())
    assert impostor.asked == []


def test_a_server_that_merely_shows_the_right_ca_is_not_believed(
    authority: FakeAuthority, host: AgentHost, tmp_path: Path
) -> None:
    """The CA's certificate is no secret: who shows it must have been signed by it."""
    impostor = FakeAuthority(tmp_path, FakeClock(), ca=Ca("impostor"))
    real = authority.ca.pem
    made = impostor.ca.server_context

    def with_both(folder: Path) -> object:
        context = made(folder, with_ca=False)
        path = folder / "both.pem"
        newest = max(folder.glob("server-*.pem"), key=lambda one: one.stat().st_mtime_ns)
        path.write_bytes(newest.read_bytes() + real.encode())
        context.load_cert_chain(path)
        return context

    impostor.ca.server_context = with_both  # type: ignore[method-assign,assignment]

    async def scenario() -> None:
        async with impostor.serve():
            authority.port = impostor.port
            with pytest.raises(StoreUnavailable, match="certificate"):
                await host.join(authority)

    asyncio.run(scenario())
    assert impostor.asked == []


def test_nobody_there_is_said(authority: FakeAuthority, host: AgentHost) -> None:
    authority.port = 1

    with pytest.raises(StoreUnavailable, match="cannot be reached"):
        asyncio.run(host.join(authority))


def test_a_token_that_is_over_is_said(authority: FakeAuthority, host: AgentHost) -> None:
    async def over(_request: web.Request, _body: bytes) -> web.StreamResponse:
        return authority.refuse(Refusal.BAD_TOKEN, "unknown or used")

    async def scenario() -> None:
        authority.standing_faults[JOIN] = over
        async with authority.serve():
            with pytest.raises(Conflict, match="unknown or used"):
                await host.join(authority)

    asyncio.run(scenario())


def test_a_certificate_for_another_key_is_refused(authority: FakeAuthority) -> None:
    ours, other = new_host_key("edge-1"), authority.ca.host()

    with pytest.raises(ProtocolError, match="another key"):
        check_certificate(other.pem.decode(), public=ours.public, trust=authority.ca.pem)


def test_a_certificate_of_another_authority_is_refused() -> None:
    shown = Ca().host()

    with pytest.raises(ProtocolError, match="not signed"):
        check_certificate(shown.pem.decode(), public=raw_public(shown.key), trust=Ca("another").pem)


def test_a_certificate_is_renewed_when_two_thirds_of_its_life_are_over() -> None:
    found = read_certificate(Ca().host().der)

    assert found.renewal_at() == pytest.approx(found.not_before + (found.not_after - found.not_before) * 2 / 3)


def test_the_private_key_opens_as_tls_wants_it() -> None:
    assert private_pem(new_host_key("edge-1").private).reveal().startswith(b"-----BEGIN PRIVATE KEY-----")


def token(octets: bytes, fingerprint: bytes, magic: bytes = b"mfad1") -> Secret:
    return Secret(b".".join([magic, *(base64.urlsafe_b64encode(one).rstrip(b"=") for one in (octets, fingerprint))]))


def test_a_token_is_read() -> None:
    read = read_token(Secret(token(TOKEN, bytes(32)).reveal() + b"\n"))

    assert (read.octets.reveal(), read.fingerprint) == (TOKEN, bytes(32))


@pytest.mark.parametrize(
    "bad",
    [token(TOKEN[:19], bytes(32)), token(TOKEN, bytes(31)), token(TOKEN, bytes(32), b"mfad2"), Secret(b""), Secret(b"mfad1..")],
)
def test_what_is_no_token_is_refused_and_not_quoted(bad: Secret) -> None:
    with pytest.raises(InvalidInput) as refused:
        read_token(bad)

    assert base64.urlsafe_b64encode(TOKEN).decode().rstrip("=")[:10] not in str(refused.value)


@given(text=st.one_of(st.binary(max_size=120), st.text(max_size=80).map(lambda one: b"mfad1." + one.encode() + b".AAAA")))
def test_any_octets_are_a_token_or_refused(text: bytes) -> None:
    try:
        read = read_token(Secret(text))
    except InvalidInput:
        return
    assert len(read.octets) == 20


@given(chain=st.lists(st.binary(max_size=40), max_size=4), fingerprint=st.binary(min_size=32, max_size=32))
def test_what_is_pinned_is_in_the_chain(chain: list[bytes], fingerprint: bytes) -> None:
    with pytest.raises(ConfigurationError):
        pinned(chain, fingerprint)
    for der in chain:
        assert "CERTIFICATE" in pinned(chain, hashlib.sha256(der).digest())


def test_an_answer_is_read_strictly() -> None:
    with pytest.raises(ProtocolError):
        read_join_answer(b"{}")
