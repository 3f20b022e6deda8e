"""The listener for Prometheus: right text, and nobody who asks for nonsense, slowly or too often, is anybody's trouble."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import pytest
from prometheus_client.parser import text_string_to_metric_families

from mfa_core.errors import ConfigurationError
from mfa_runtime import metrics
from mfa_runtime.metrics import Family, Kind, MetricsServer, Reading, exposition

LOGINS = Family("mfad_logins_total", Kind.COUNTER, "Logins.", ("client",))
WAITING = Family("mfad_waiting", Kind.GAUGE, "Who waits.")


def readings() -> Iterable[Reading]:
    return [Reading(LOGINS, 3, ('a "b"\\\n',)), Reading(WAITING, 2), Reading(LOGINS, 4, ("c",))]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def listening(read: metrics.Read = readings) -> AsyncIterator[int]:
    port = free_port()
    server = MetricsServer("127.0.0.1", port, read)
    await server.start()
    try:
        yield port
    finally:
        await server.stop()


async def ask(port: int, request: bytes | None = None) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(GOOD if request is None else request)
    try:
        return await reader.read()
    except ConnectionResetError:  # closed before all of the request was read
        return b""
    finally:
        writer.close()
        with contextlib.suppress(ConnectionResetError):
            await writer.wait_closed()


def test_text_is_what_prometheus_reads() -> None:
    """Whatever a client is called."""
    text, content_type = exposition(list(readings()))
    found = {family.name: family for family in text_string_to_metric_families(text.decode())}

    assert content_type.startswith("text/plain")
    assert [(one.labels["client"], one.value) for one in found["mfad_logins"].samples] == [('a "b"\\\n', 3), ("c", 4)]
    assert found["mfad_waiting"].samples[0].value == 2
    assert "process_cpu_seconds" in found


def test_openmetrics_is_spoken_to_who_asks_for_it() -> None:
    """As Prometheus does."""
    text, content_type = exposition([Reading(WAITING, 1)], "application/openmetrics-text; version=1.0.0")

    assert content_type.startswith("application/openmetrics-text")
    assert text.endswith(b"# EOF\n")


def scrape(*requests: bytes, read: metrics.Read = readings) -> list[bytes]:
    """What a new listener says to these requests, one after another, each on a connection of its own."""

    async def inside() -> list[bytes]:
        async with listening(read) as port:
            return [await ask(port, one) for one in requests]

    return asyncio.run(inside())


GOOD = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"


def test_scrape_is_answered_and_closed() -> None:
    """With a length."""
    head, _, body = scrape(GOOD)[0].partition(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 200 OK")
    assert f"Content-Length: {len(body)}".encode() in head
    assert b'mfad_logins_total{client="c"} 4.0' in body


@pytest.mark.parametrize(
    ("request_line", "status"),
    [(b"GET /else HTTP/1.1", b"404"), (b"POST /metrics HTTP/1.1", b"405"), (b"\xff\xfe", b"405"), (b"HEAD / HTTP/1.1", b"200")],
)
def test_other_requests_are_refused(request_line: bytes, status: bytes) -> None:
    """There is one thing to read here."""
    assert scrape(request_line + b"\r\n\r\n")[0].split()[1] == status


def test_endless_request_is_cut_off() -> None:
    """At 8 KiB, whatever comes."""
    cut, good = scrape(b"GET /metrics HTTP/1.1\r\nX: " + b"x" * 20_000, GOOD)

    assert cut == b""
    assert b" 200 " in good


def test_silent_ones_cannot_keep_others_out_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one over the bound is closed at once; those who say nothing, in time."""
    monkeypatch.setattr(metrics, "REQUEST_S", 0.2)

    async def inside() -> tuple[bytes, list[bytes], bytes]:
        async with listening() as port:
            silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(metrics.MAX_CONNECTIONS)]
            over = await ask(port)
            ends = [await reader.read() for reader, _ in silent]
            after = await ask(port)
            for _, writer in silent:
                writer.close()
                await writer.wait_closed()
            return over, ends, after

    over, ends, after = asyncio.run(inside())

    assert over == b""
    assert ends == [b""] * metrics.MAX_CONNECTIONS
    assert b" 200 " in after


def test_failure_of_a_reading_ends_one_scrape(caplog: pytest.LogCaptureFixture) -> None:
    """The daemon goes on."""

    def fails() -> Iterable[Reading]:
        raise ZeroDivisionError

    assert scrape(GOOD, GOOD, read=fails) == [b"", b""]
    assert "a scrape failed" in caplog.text


def test_address_that_is_taken_is_told() -> None:
    """With the key that is to be changed."""

    async def inside() -> None:
        async with listening() as port:
            await MetricsServer("127.0.0.1", port, readings).start()

    with pytest.raises(ConfigurationError, match=r"metrics\.listen"):
        asyncio.run(inside())
