"""How do numbers of mfad reach Prometheus?

Room rule: the only file that imports prometheus_client. Numbers are read when they are asked for, on the event loop, and turned
into text in a thread: nothing is paid for them where a login waits. The listener speaks no more HTTP than a scrape needs: a few
connections at once, a small request, an answer, the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from mfa_core.errors import ConfigurationError

MAX_CONNECTIONS = 16
MAX_HEAD_OCTETS = 8192
REQUEST_S = 5.0
"""How long somebody may take to ask."""
ANSWER_S = 30.0
"""How long somebody may take to read the answer."""

log = logging.getLogger(__name__)


class Kind(enum.Enum):
    """Whether a number only grows."""

    COUNTER = "counter"
    GAUGE = "gauge"


@dataclass(frozen=True, slots=True)
class Family:
    """Numbers of one name. Counters' names end in ``_total``. ``labels`` are their names, in the order of the values."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Reading:
    """One number. ``labels`` are the values of the family's labels."""

    family: Family
    value: float
    labels: tuple[str, ...] = ()


Read = Callable[[], Iterable[Reading]]


class _Readings(Collector):
    """What was read a moment ago, for one scrape."""

    def __init__(self, readings: Sequence[Reading]) -> None:
        self._readings = readings

    def collect(self) -> Iterator[Metric]:
        found: dict[Family, CounterMetricFamily | GaugeMetricFamily] = {}
        for one in self._readings:
            family = one.family
            metric = found.get(family)
            if metric is None:
                made = CounterMetricFamily if family.kind is Kind.COUNTER else GaugeMetricFamily
                metric = found[family] = made(family.name, family.help, labels=family.labels)
            metric.add_metric(one.labels, one.value)
        yield from found.values()


def exposition(readings: Sequence[Reading], accept: str = "") -> tuple[bytes, str]:
    """The text of a scrape, with the processor time and memory of this process, and its Content-Type.

    ``accept`` is the header of that name: Prometheus asks for OpenMetrics.
    """
    registry = CollectorRegistry(auto_describe=False)
    ProcessCollector(registry=registry)
    registry.register(_Readings(readings))
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


class MetricsServer:
    """Answers ``GET /metrics`` on one address. ``read`` is called on the event loop."""

    def __init__(self, host: str, port: int, read: Read) -> None:
        self._host = host
        self._port = port
        self._read = read
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen. Raises: ConfigurationError, when the address cannot be had."""
        try:
            self._server = await asyncio.start_server(
                self._connected, self._host, self._port, limit=MAX_HEAD_OCTETS, reuse_address=True
            )
        except OSError as err:
            raise ConfigurationError(
                f"metrics.listen: {self._host} port {self._port} cannot be listened on: {err.strerror or err}",
                cure="see who has it (`ss -tlpn`), or choose an address of this host and a free port",
            ) from err

    async def stop(self) -> None:
        """Listen no more; whoever is being answered is cut off."""
        if self._server is not None:
            self._server.close()
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  asyncio calls this in a task
        try:
            if len(self._connections) >= MAX_CONNECTIONS:
                return
            self._connections.add(task)
            async with asyncio.timeout(REQUEST_S):
                head = await reader.readuntil(b"\r\n\r\n")
            async with asyncio.timeout(ANSWER_S):
                writer.write(await self._answer(head))
                await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as err:
            log.debug("a scrape broke off: %s", type(err).__name__)
        except Exception:
            log.exception("a scrape failed")
        finally:
            self._connections.discard(task)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _answer(self, head: bytes) -> bytes:
        request, *fields = head.decode("latin-1").split("\r\n")
        method, _, rest = request.partition(" ")
        if method not in {"GET", "HEAD"}:
            return _response("405 Method Not Allowed", b"GET /metrics\n")
        if rest.partition(" ")[0].partition("?")[0] not in {"/metrics", "/"}:
            return _response("404 Not Found", b"GET /metrics\n")
        parts = (one.partition(":") for one in fields)
        accept = ", ".join(value.strip() for name, _, value in parts if name.lower() == "accept")
        readings = list(self._read())
        text, content_type = await asyncio.get_running_loop().run_in_executor(None, exposition, readings, accept)
        return _response("200 OK", text if method == "GET" else b"", content_type)


def _response(status: str, body: bytes, content_type: str = "text/plain; charset=utf-8") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return head.encode("latin-1") + body
