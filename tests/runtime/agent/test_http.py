"""Connections to the authority: what the kernel is told to watch, and when another try makes sense."""

from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path

import pytest

from mfa_runtime.agent import http
from mfa_runtime.agent.http import PROBE_AFTER_S, PROBE_EVERY_S, SILENT_S, Answer, Authorities, Unreachable, probed_socket
from mfa_runtime.protocol.words import HEALTH
from tests.doubles import FakeClock
from tests.runtime.agent.fake_authority import FakeAuthority, trusting


def test_the_kernel_watches_every_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one on which nothing is said: a host that waits for news would not notice a cut for more than a minute."""
    seen: list[tuple[int, ...]] = []
    made: list[socket.socket] = []

    def watched(info: tuple[object, ...]) -> socket.socket:
        made.append(probed_socket(info))
        return made[-1]

    monkeypatch.setattr(http, "probed_socket", watched)
    authority = FakeAuthority(tmp_path, FakeClock())

    async def scenario() -> None:
        context = trusting(authority.ca)
        async with authority.serve():
            asked = Authorities([authority.url], lambda: context)
            await asked.get(HEALTH, try_s=8.0, budget_s=16.0)
            for one in made:
                if one.fileno() >= 0:  # of two addresses of a name the one that answers
                    tcp = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_USER_TIMEOUT, socket.TCP_NODELAY)
                    seen.append((
                        one.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
                        *(one.getsockopt(socket.IPPROTO_TCP, name) for name in tcp),
                    ))  # fmt: skip
            await asked.close()

    asyncio.run(scenario())
    assert seen == [(1, PROBE_AFTER_S, PROBE_EVERY_S, SILENT_S * 1000, 1)]


@pytest.mark.parametrize(("connect_s", "urls", "tries"), [(0.0, 1, 1), (60.0, 1, 2), (0.0, 2, 2)])
def test_who_waited_long_in_vain_is_not_asked_again_at_once(
    monkeypatch: pytest.MonkeyPatch, connect_s: float, urls: int, tries: int
) -> None:
    """A lost packet is worth another try; the end of a connection that waited for news tells that its authority is gone."""
    asked: list[str] = []

    class Silent(Authorities):
        async def _try(self, url: str, *_: object) -> Answer:
            asked.append(url)
            await asyncio.sleep(0.001)
            raise Unreachable("it says nothing")

    monkeypatch.setattr(http, "CONNECT_S", connect_s)
    of = Silent([f"https://authority{number}" for number in range(urls)], lambda: ssl.create_default_context())
    with pytest.raises(Unreachable):
        asyncio.run(of.get(HEALTH, try_s=80.0, budget_s=160.0))
    assert len(asked) == tries
    assert len(set(asked)) == urls
