"""The doctor at a RADIUS door that runs, that does not, and whose port somebody else has."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.end_to_end.daemon import Mfad
from tests.end_to_end.programs import clean_environment
from tests.end_to_end.radius_door import Door, radius_door

CLIENTS = [{"name": "vpn", "network": "127.0.0.1"}]


@pytest.fixture(scope="module")
def door(template: Mfad, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    listen = ("127.0.0.1:{auth}", "acct://127.0.0.1:{acct}")
    with radius_door(template, tmp_path_factory.mktemp("door"), CLIENTS, listen=listen) as one:
        yield one


def seen(door: Door) -> dict[str, str]:
    """What the doctor says of the RADIUS door, and how much it weighs."""
    done = subprocess.run(
        [sys.executable, "-m", "mfactl", "--config", str(door.mfad.config_path), "doctor", "--json"],
        capture_output=True, text=True, check=False, env=clean_environment(), timeout=60,
    )  # fmt: skip
    return {one["seen"]: one["weight"] for one in json.loads(done.stdout) if one["place"] in ("radius", "socket")}


def test_listeners_are_told_from_nobody_and_from_strangers(door: Door) -> None:
    """One after another, over one mfad that stops in between."""
    auth, acct = (f"{kind}://127.0.0.1:{door.ports[name]}" for kind, name in (("udp", "auth"), ("acct", "acct")))
    running, listening = seen(door), door.mfad.mfactl_json("status")
    door.mfad.stop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.bind(("127.0.0.1", door.ports["acct"]))
        stopped = seen(door)

    assert (listening["mfad_listens"], listening["sockets"][auth]) == (True, True)
    assert door.mfad.mfactl_json("status")["sockets"][auth] is False
    assert (running[f"mfad listens on {auth}"], running[f"mfad listens on {acct}"]) == ("ok", "ok")
    assert stopped[f"nobody listens on {auth}: mfad is not running"] == "problem"
    assert any(one.startswith(f"{acct} is held by python") for one, weight in stopped.items() if weight == "problem")


def test_secret_that_others_can_read_is_a_problem(door: Door) -> None:
    """mfad would not start with it."""
    secret = door.directory / "vpn.secret"
    secret.chmod(0o644)
    try:
        found = seen(door)
    finally:
        secret.chmod(0o600)

    assert any("mode 0644" in one for one, weight in found.items() if weight == "problem")
