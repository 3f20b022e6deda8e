"""What ``doors.radius.freeradius`` may say, and what becomes of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from mfa_runtime.config import ConfigurationProblems, load_config
from radius_plugin.configuration import build_radius_settings
from radius_plugin.settings import FreeRadiusSettings, Mode


def written(tmp_path: Path, door: str) -> Path:
    path = tmp_path / "mfad.yaml"
    lines = "".join(f"    {line}\n" for line in door.splitlines())
    path.write_text(f"role: standalone\nstate_dir: ./state\nkey_file: ./kek\ndoors:\n  radius:\n{lines}")
    return path


def settings(tmp_path: Path, door: str) -> FreeRadiusSettings | None:
    config = load_config(written(tmp_path, door))
    assert config.doors.radius is not None
    return build_radius_settings(config, config.doors.radius).freeradius


def test_freeradius_alone_needs_neither_addresses_nor_clients(tmp_path: Path) -> None:
    found = settings(tmp_path, "listen: []\nclients: []\nmode: mfa_only\nwait: 20s\nfreeradius: {socket: ./run/radius.sock}")
    assert found is not None
    assert found.socket == tmp_path / "run" / "radius.sock"
    assert found.users == ("freerad",)
    assert (found.client.name, found.client.mode, found.client.wait_s) == ("freeradius", Mode.MFA_ONLY, 20.0)
    assert found.client.secrets == ()


def test_other_users_may_be_named(tmp_path: Path) -> None:
    found = settings(tmp_path, "listen: []\nclients: []\nfreeradius: {socket: ./r.sock, users: [radiusd, root]}")
    assert found is not None
    assert found.users == ("radiusd", "root")


def test_a_reply_rule_may_name_freeradius_s_clients(tmp_path: Path) -> None:
    rule = "reply: [{attributes: {Filter-Id: vpn}, when: {client: freeradius}}]"
    assert settings(tmp_path, f"listen: []\nclients: []\nfreeradius: {{socket: ./r.sock}}\n{rule}") is not None


@pytest.mark.parametrize(
    ("door", "key"),
    [
        ("listen: []\nclients: []", "doors.radius.listen"),
        ("clients: []", "doors.radius.clients"),
        ("listen: []\nclients: []\nfreeradius: {}", "doors.radius.freeradius.socket"),
        ("listen: []\nclients: []\nfreeradius: {socket: ./r.sock, user: x}", "doors.radius.freeradius.user"),
        (f"listen: []\nclients: []\nfreeradius: {{socket: /{'x' * 120}}}", "doors.radius.freeradius.socket"),
        ("listen: []\nclients: []\nworkers: 2\nfreeradius: {socket: ./r.sock}", "doors.radius.freeradius"),
        (
            ("listen: []\nclients: []\nfreeradius: {socket: ./r.sock}\n"
            "reply: [{attributes: {Filter-Id: vpn}, when: {client: wifi}}]"),
            "doors.radius.reply[0].when.client",
        ),
    ],
    ids=["no-address", "no-client", "no-socket", "unknown-key", "long", "workers", "unknown-client"],
)
def test_what_cannot_be_is_said_with_its_key(tmp_path: Path, door: str, key: str) -> None:
    with pytest.raises(ConfigurationProblems) as problems:
        settings(tmp_path, door)
    assert key in str(problems.value)
