"""An agent beside a fake authority: join, sync, logins with it and without it, and what is told when it is back."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.doubles import ALICE, BOB, T0, FakeClock
from tests.runtime.agent.agent_host import AgentHost, until
from tests.runtime.agent.fake_authority import FakeAuthority


def test_online_then_offline_then_back(tmp_path: Path) -> None:
    """The whole way: a code at the authority, the next one alone, a replay refused, and the journal there in the end."""

    async def scenario() -> None:
        clock = FakeClock()
        authority = FakeAuthority(tmp_path, clock)
        authority.add(ALICE)
        host = AgentHost(tmp_path / "host", clock)
        async with authority.serve():
            await host.join(authority)
            async with host.running():
                await host.online()
                assert host.names() == ["alice"]
                assert await host.says("alice", ALICE.code(T0)) == "accepted"
                assert authority.users["alice"].last_step == host.watermark("alice")
                await authority.stop()
                clock.advance(60)
                assert await host.says("alice", ALICE.code(clock())) == "accepted"
                assert await host.says("alice", ALICE.code(clock())) == "replayed"
                assert await host.says("bob", BOB.code(clock())) != "accepted"
                await authority.start()
                await host.online()
                assert authority.users["alice"].last_step == int(clock() // 30)
                assert [one["outcome"] for one in authority.events() if one["event"] == "attempt"][:2] == ["accepted"] * 2
                clock.advance(60)
                assert await host.says("alice", ALICE.code(clock())) == "accepted"
                await until(lambda: len(authority.events()) >= 5, "the journal is complete")

    asyncio.run(scenario())
