"""A host comes to belong by a token that works once, and to a new certificate by the one that it has."""

from __future__ import annotations

import asyncio
import base64
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import Connection

from mfa_core.secret import Secret
from mfa_runtime.administration import hosts as administration
from mfa_runtime.administration.act import Act
from mfa_runtime.protocol.joining import JoinRequest
from mfa_runtime.protocol.sealed import public_of
from mfa_runtime.protocol.words import JOIN, KeyProtection
from mfa_runtime.store import hosts
from mfa_runtime.store.alarms import AlarmKind, list_alarms
from mfa_runtime.store.hosts import HostState
from tests.authority.agent_double import HostKey, Refusal
from tests.authority.served import SETTINGS, Served, run, served


def host_of(authority: Served, name: str) -> hosts.Host:
    with authority.installed.store.reading() as connection:
        found = hosts.find_by_name(connection, name)
    assert found is not None
    return found


def alarms_of(authority: Served) -> list[AlarmKind]:
    with authority.installed.store.reading() as connection:
        return [alarm.kind for alarm in list_alarms(connection)]


def test_a_host_joins_with_a_token_and_is_known_by_its_certificate(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as authority:
            agent = authority.stranger()
            answer = await agent.join(authority.token("db"))
            host = host_of(authority, "web1.example")
            assert (answer.host_id, answer.host_name, answer.host_group) == (host.id, "web1.example", "db")
            certificate = x509.load_pem_x509_certificate(answer.certificate.encode())
            # Of the request nothing counts but its key: it asked for another name.
            assert certificate.subject.rfc4514_string() == f"CN=host {host.id}"
            assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
            assert (host.state, host.key_protection, host.address) == (HostState.ACTIVE, "file", "127.0.0.1")
            await agent.sync()

    run(scenario())


def test_one_token_lets_one_of_sixteen_in(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as authority:
            token = authority.token()
            racers = [authority.stranger(f"web{n}.example") for n in range(16)]
            results = await asyncio.gather(*(one.join(token) for one in racers), return_exceptions=True)
            refused = [one for one in results if isinstance(one, Refusal)]
            assert len(refused) == 15
            assert {(one.status, one.said.error) for one in refused} == {(403, "bad_token")}
            with authority.installed.store.reading() as connection:
                assert len(list(hosts.every(connection))) == 1

    run(scenario())


@pytest.mark.parametrize("what", ["unknown", "over", "another host's", "used"])
def test_a_token_that_is_not_good_is_refused_with_one_answer_and_told_of(
    tmp_path: Path, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as authority:
            agent = authority.stranger()
            token = Secret(b"t" * 20)
            if what == "over":
                token = authority.token(ttl_s=60.0)
                authority.clock.advance(61.0)
            elif what == "another host's":
                token = authority.token(name="db9.example")
            elif what == "used":
                token = authority.token()
                await authority.stranger("web2.example").join(token)
            with pytest.raises(Refusal, match="403 bad_token: this token does not let this host join"):
                await agent.join(token)
            assert f"127.0.0.1 may not join as {agent.name!a}: this token does not" in caplog.text

    run(scenario())


def test_a_join_that_fails_leaves_the_token(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as authority:
            await authority.agent("web1.example")
            token = authority.token()
            again = authority.stranger("web1.example")
            with pytest.raises(Refusal, match="409 name_taken"):
                await again.join(token)
            again.name = "Not A Name"
            with pytest.raises(Refusal, match="400 bad_request"):
                await again.join(token)
            again.name = "web2.example"
            assert (await again.join(token)).host_name == "web2.example"

    run(scenario())


def test_no_more_hosts_join_than_there_is_room_for(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path, settings=replace(SETTINGS, max_hosts=1)) as authority:
            await authority.agent()
            with pytest.raises(Refusal, match="409 no_room"):
                await authority.stranger("web2.example").join(authority.token())

    run(scenario())


def test_an_address_that_tries_without_end_has_to_wait(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as authority:
            agent = authority.stranger()
            seen = []
            for _ in range(101):
                try:
                    await agent.post(JOIN, b"{}")
                except Refusal as refusal:
                    seen.append(refusal.said.error)
            assert seen == ["bad_request"] * 100 + ["overloaded"]

    run(scenario())


def _with(agent_name: str, token: Secret, csr: str) -> bytes:
    return JoinRequest(
        token=token, host_name=agent_name, csr=csr, hpke_public=public_of(Secret(b"p" * 32)), key_protection=KeyProtection.FILE,
        software="",
    ).octets()  # fmt: skip


def test_a_request_to_sign_must_prove_its_key(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as authority:
            agent, token = authority.stranger(), authority.token()
            good = x509.load_pem_x509_csr(HostKey().csr().encode())
            another = x509.load_pem_x509_csr(HostKey().csr().encode())
            # What was signed with one key, under the signature of another.
            stolen = good.public_bytes(Encoding.DER).replace(good.signature, another.signature)
            lines = base64.encodebytes(stolen).decode()
            for csr in (
                "nonsense",
                f"-----BEGIN CERTIFICATE REQUEST-----\n{lines}-----END CERTIFICATE REQUEST-----\n",
                "x" * 9_000,
            ):
                with pytest.raises(Refusal, match="400 bad_request"):
                    await agent.post(JOIN, _with(agent.name, token, csr))
            assert (await agent.join(token)).host_id  # the token is still good

    run(scenario())


# -- certificates -------------------------------------------------------------------------------------------------------------


def test_a_renewed_certificate_is_the_only_one_once_it_was_shown(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as authority:
            agent = await authority.agent()
            old, new = agent.key, await agent.renew()
            await agent.sync()  # the old one is good until then
            assert host_of(authority, agent.name).next_certificate
            await agent.use(new)
            await agent.sync()
            assert host_of(authority, agent.name).next_certificate == b""
            await agent.use(old)
            with pytest.raises(Refusal, match="403 quarantined"):
                await agent.sync()
            assert alarms_of(authority) == [AlarmKind.CLONE_SUSPECTED]
            await agent.use(new)
            with pytest.raises(Refusal, match="403 quarantined"):
                await agent.sync()
            authority.change(lambda connection, act: administration.release_host(connection, act, agent.name))
            await agent.sync()

    run(scenario())


def test_a_connection_from_before_the_new_certificate_is_no_copy(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as authority:
            agent = await authority.agent()
            await agent.sync()
            new = await agent.renew()
            other = authority.stranger()
            other.__dict__ |= {k: v for k, v in agent.__dict__.items() if k != "_session"}
            other.key = new
            await other.sync()  # shows the new one; the first connection is still there
            with pytest.raises(Refusal, match="401 no_certificate: this connection is from before"):
                await agent.sync()
            assert host_of(authority, agent.name).state is HostState.ACTIVE
            assert alarms_of(authority) == []

    run(scenario())


def test_a_certificate_that_is_over_is_refused_with_a_word(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path, settings=replace(SETTINGS, host_certificate_s=3600.0)) as authority:
            agent = await authority.agent()
            await agent.sync()
            authority.clock.advance(3601.0)
            with pytest.raises(Refusal, match="401 no_certificate: the certificate of this host is over"):
                await agent.sync()  # on the connection that was made before
            await agent.close()
            with pytest.raises(Refusal, match="401 no_certificate: the certificate of this host is over"):
                await agent.sync()
            assert host_of(authority, agent.name).state is HostState.ACTIVE

    run(scenario())


def test_a_revoked_host_is_refused_on_the_connection_that_it_has(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as authority:
            agent = await authority.agent()
            await agent.sync()
            authority.change(lambda connection, act: administration.revoke_host(connection, act, agent.name))
            for ask in (agent.sync, agent.renew):
                with pytest.raises(Refusal, match="403 revoked"):
                    await ask()
            again = authority.stranger(agent.name)
            await again.join(authority.token())  # its name is free, and its number is another
            assert again.host_id != agent.host_id
            await again.sync()

    run(scenario())


def test_a_host_that_was_forgotten_is_unknown(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as authority:
            agent = await authority.agent()

            def gone(connection: Connection, act: Act) -> None:
                administration.revoke_host(connection, act, agent.name)
                administration.forget_host(connection, act, agent.name)

            authority.change(gone)
            with pytest.raises(Refusal, match="403 unknown_host"):
                await agent.sync()

    run(scenario())
