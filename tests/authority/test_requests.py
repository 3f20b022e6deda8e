"""What strangers and broken hosts send is refused in JSON, within bounds, and tells nothing."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from authority.http_connection import Patience
from authority.server import Bounds
from mfa_core.errors import StoreUnavailable
from mfa_runtime.protocol.reporting import Health, Refused
from mfa_runtime.protocol.words import HEALTH, JOIN, JOURNAL, RENEW, SYNC, VERIFY
from tests.authority.agent_double import AgentDouble, HostKey, Refusal
from tests.authority.served import Served, run, served

ASKED_WITH_A_CERTIFICATE = (RENEW, SYNC, VERIFY, JOURNAL)


async def request(agent: AgentDouble, method: str, path: str, **more: Any) -> tuple[int, dict[str, Any], Any]:
    """Status, body and headers of an answer."""
    session = await agent.connect()
    async with session.request(method, agent.url + path, **more) as answer:
        return answer.status, json.loads(await answer.read()), answer.headers


def test_health_needs_nothing_and_says_who_is_there(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as authority:
            status, said, headers = await request(authority.stranger(), "GET", HEALTH)
            assert status == 200
            health = Health.read(json.dumps(said).encode())
            assert health.now == authority.clock()
            assert "server" not in headers
            assert headers["content-type"] == "application/json"

    run(scenario())


def test_what_needs_a_certificate_is_refused_without(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as authority:
            for path in ASKED_WITH_A_CERTIFICATE:
                status, said, _ = await request(authority.stranger(), "POST", path, data=b"{}")
                assert (status, said["error"]) == (401, "no_certificate")

    run(scenario())


def test_other_paths_and_methods_are_not_found(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as authority:
            agent = authority.stranger()
            for method, path in (
                ("GET", "/"), ("POST", HEALTH), ("GET", JOIN), ("DELETE", SYNC), ("GET", "/v1/sync/"), ("POST", "/v1/%2e%2e/x"),
            ):  # fmt: skip
                status, said, _ = await request(agent, method, path)
                assert (status, said["error"]) == (404, "not_found"), path

    run(scenario())


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"{}",
        b'{"attempts":[]}',
        b'{"attempts":[{"event_id":1}]}',
        b"\xff\xfe",
        b'{"epoch":"1"}',
        b"[" * 50_000,
        b'{"cursor":{"generation":"1","seq":-1}}',
        b'{"nonce":"AA==","wait_s":1e999}',
    ],
)
def test_what_is_no_message_is_refused_without_its_text(tmp_path: Path, body: bytes) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as authority:
            agent = await authority.agent()
            for path in ASKED_WITH_A_CERTIFICATE:
                status, said, _ = await request(agent, "POST", path, data=body)
                assert (status, said["error"]) == (400, "bad_request"), path
                assert "Traceback" not in said["text"]
                assert len(said["text"]) < 300

    run(scenario())


def test_a_body_over_the_bound_is_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as authority:
            agent = await authority.agent()
            status, said, headers = await request(agent, "POST", SYNC, data=b" " * (64 * 1024 + 1))
            assert (status, said["error"]) == (413, "too_large")
            assert headers["connection"] == "close"

            async def pieces() -> Any:
                for _ in range(70):
                    yield b" " * 1024

            status, said, _ = await request(agent, "POST", SYNC, data=pieces())  # chunked: nobody says how long
            assert (status, said["error"]) == (413, "too_large")

    run(scenario())


def test_a_bug_is_an_internal_error_and_tells_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as authority:
            agent = await authority.agent()

            async def broken(*_: object) -> None:
                raise KeyError("a secret of the program")

            parts = authority.door._parts
            assert parts is not None
            parts.journals.standing = broken  # type: ignore[method-assign,assignment]
            with pytest.raises(Refusal, match="500 internal: the authority could not answer") as seen:
                await agent.sync()
            assert "secret" not in seen.value.said.text
            assert "a secret of the program" in caplog.text  # in the log of the authority

    run(scenario())


def test_a_store_that_is_away_is_503(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as authority:
            agent = await authority.agent()
            parts = authority.door._at
            assert parts is not None

            async def away(_: object) -> None:
                raise StoreUnavailable("/secret/path is locked", cure="look")

            parts.glance = away  # type: ignore[method-assign,assignment]
            for path, body in ((HEALTH, None), (SYNC, agent.request().octets())):
                method = "GET" if body is None else "POST"
                status, said, _ = await request(agent, method, path, data=body)
                assert (status, said["error"]) == (503, "unavailable")
                assert "secret" not in said["text"]

    run(scenario())


# -- TLS ----------------------------------------------------------------------------------------------------------------------


def _client(trust: str, *, key: HostKey | None = None, folder: Path | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=trust)
    if key is not None and folder is not None:
        return key.context(trust, folder)
    return context


async def talk(authority: Served, context: ssl.SSLContext, octets: bytes) -> bytes:
    """What the server answers until it hangs up; b"" where it says nothing at all."""
    host, port = authority.door.addresses[0]
    try:
        reader, writer = await asyncio.open_connection(host, port, ssl=context, server_hostname="localhost")
    except ConnectionError:
        return b""
    try:
        writer.write(octets)
        return await reader.read()
    except (ConnectionError, ssl.SSLError):
        return b""
    finally:
        writer.close()


def test_no_older_tls_is_spoken(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as authority:
            context = _client(authority.trust)
            context.maximum_version = ssl.TLSVersion.TLSv1_2
            assert await talk(authority, context, b"GET /v1/health HTTP/1.1\r\nHost: x\r\n\r\n") == b""
            assert authority.door.counters()["events"]["handshake_failed"] == 1

    run(scenario())


def test_a_certificate_of_another_authority_is_no_certificate(tmp_path: Path) -> None:
    async def scenario() -> None:
        (tmp_path / "one").mkdir()
        (tmp_path / "two").mkdir()
        async with served(tmp_path / "one") as first, served(tmp_path / "two") as second:
            agent = await first.agent()
            context = agent.key.context(second.trust, tmp_path)
            assert await talk(second, context, b"GET /v1/health HTTP/1.1\r\nHost: x\r\n\r\n") == b""
            assert second.door.counters()["events"]["handshake_failed"] == 1

    run(scenario())


def test_a_server_of_another_authority_is_not_believed(tmp_path: Path) -> None:
    async def scenario() -> None:
        (tmp_path / "one").mkdir()
        (tmp_path / "two").mkdir()
        async with served(tmp_path / "one") as first, served(tmp_path / "two") as second:
            with pytest.raises(ssl.SSLCertVerificationError):
                await talk(second, _client(first.trust), b"")

    run(scenario())


def test_a_head_without_end_is_cut_off(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as authority:
            context = _client(authority.trust)
            for octets in (
                b"GET /v1/health HTTP/1.1\r\nHost: x\r\nX-Long: " + b"a" * 20_000 + b"\r\n\r\n",
                b"GET /v1/health HTTP/1.1\r\n" + b"X: y\r\n" * 5_000,
                b"GET /" + b"a" * 20_000,
            ):
                answer = await talk(authority, context, octets)
                assert answer.startswith((b"HTTP/1.1 431 ", b"HTTP/1.1 400 ")), answer[:40]
            assert authority.door.counters()["events"]["head_too_long"] >= 3

    run(scenario())


def test_what_is_no_http_is_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as authority:
            negative = b"POST /v1/join HTTP/1.1\r\nContent-Length: -1\r\n\r\n"
            for octets in (b"\x16\x03\x01\x00\n\r\n\r\n", b"GET\r\n\r\n", negative):
                answer = await talk(authority, _client(authority.trust), octets)
                assert answer.startswith(b"HTTP/1.1 400 ")

    run(scenario())


def test_somebody_slow_is_hung_up_on(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as authority:
            parts = authority.door._parts
            assert parts is not None
            connections = parts.server.connections
            connections.patience = Patience(request_s=0.0, idle_s=0.0)
            context = _client(authority.trust)
            head = b"POST /v1/join HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"
            for octets in (b"", b"GET /v1/hea", head):  # says nothing, half a request, half a body
                assert await talk(authority, context, octets) == b""
            assert connections.events["too_slow"] == 3

    run(scenario())


def test_a_connection_that_is_kept_and_not_used_is_hung_up_on(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as authority:
            parts = authority.door._parts
            assert parts is not None
            parts.server.connections.patience = replace(Patience(), idle_s=0.0)
            await talk(authority, _client(authority.trust), b"GET /v1/health HTTP/1.1\r\nHost: x\r\n\r\n")
            assert parts.server.connections.events["idle"] == 1

    run(scenario())


def test_no_more_connections_than_there_is_room_for(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as authority:
            parts = authority.door._parts
            assert parts is not None
            parts.server._bounds = Bounds(connections=1)
            host, port = authority.door.addresses[0]
            context = _client(authority.trust)
            _, first = await asyncio.open_connection(host, port, ssl=context, server_hostname="localhost")
            with pytest.raises(OSError):
                await asyncio.open_connection(host, port, ssl=context, server_hostname="localhost")
            first.close()
            assert parts.server.connections.events["too_many_connections"] == 1

    run(scenario())


def test_an_address_that_is_taken_is_named(tmp_path: Path) -> None:
    from mfa_core.errors import ConfigurationError
    from mfa_runtime.config.listen import Endpoint
    from tests.authority.served import SETTINGS

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        async def scenario() -> None:
            async with served(tmp_path, settings=replace(SETTINGS, listen=(Endpoint("127.0.0.1", port),))):
                pass

        with pytest.raises(ConfigurationError, match=rf"authority.listen: 127.0.0.1:{port} cannot be listened on"):
            run(scenario())


def test_a_refusal_is_read_by_every_agent(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as authority:
            _, said, _ = await request(authority.stranger(), "GET", "/nowhere")
            assert Refused.read(json.dumps(said).encode()).refusal is not None

    run(scenario())
