"""What the doctor says of the LDAP door without asking a directory."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ldap_proxy.settings import ClientCertificate, LdapDoorSettings, Listen, Scheme, Server, ServerTls, UpstreamSettings
from mfactl.doctor.finding import Weight
from mfactl.doctor.ldap_door import check_patience, check_tls
from tests.end_to_end.radius_certificates import Authority

if TYPE_CHECKING:
    from tests.mfactl.conftest import Command


def settings(servers: int, connect_timeout_s: float) -> LdapDoorSettings:
    several = tuple(Server(Scheme.LDAPS, f"dc{number}.example.org", 636) for number in range(servers))
    upstream = UpstreamSettings(several, connect_timeout_s=connect_timeout_s)
    return LdapDoorSettings((Listen(Scheme.LDAP, "127.0.0.1", 389),), upstream)


@pytest.mark.parametrize(("servers", "timeout_s", "warned"), [(1, 3, False), (3, 3, False), (4, 3, True), (1, 60, True)])
def test_binds_that_outlast_applications_are_warned_of(servers: int, timeout_s: float, warned: bool) -> None:
    """While the directory does not answer."""
    assert bool(list(check_patience(settings(servers, timeout_s)))) is warned


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> ServerTls:
    """Certificates that are good for a day."""
    authority = Authority(tmp_path_factory.mktemp("ca"))
    server = authority.issue("ldap.example.org", server=True)
    return ServerTls(server.certificate, server.key, authority.path, ClientCertificate.REQUEST)


@pytest.mark.parametrize(("days", "weight"), [(-60, Weight.GOOD), (0, Weight.WARNING), (5, Weight.PROBLEM)])
def test_the_end_of_certificates_is_told_in_time(tls: ServerTls, days: int, weight: Weight) -> None:
    """Our own one, and that of the clients' CA."""
    found = list(check_tls(tls, now=datetime.now(UTC) + timedelta(days=days)))

    assert [finding.weight for finding in found] == [weight, weight]


def test_key_of_another_certificate_is_a_problem(tls: ServerTls, tmp_path: Path) -> None:
    """mfad would not start with it."""
    other = Authority(tmp_path).issue("another.example.org", server=True)

    assert [one.weight for one in check_tls(replace(tls, key_file=other.key), now=datetime.now(UTC))] == [Weight.PROBLEM]


def with_door(tmp_path: Path, text: str) -> None:
    config = tmp_path / "mfad.yaml"
    config.write_text(config.read_text().replace("doors:\n", f"doors:\n  ldap: {text}\n", 1))


def test_door_without_a_directory_is_a_problem(mfactl: Command, tmp_path: Path) -> None:
    """Said for the door that nobody listens at, and for the server that nobody is."""
    with socket.create_server(("127.0.0.1", 0)) as one:
        port = one.getsockname()[1]
    path = tmp_path / "ldapi"
    with_door(tmp_path, f"{{listen: 'ldapi://{path}', upstream: 'ldap://127.0.0.1:{port}'}}")

    problems = [one["seen"] for one in mfactl("doctor", "--json").json if one["weight"] == "problem"]

    assert f"nobody answers at ldapi://{path}" in problems
    assert any(f"ldap://127.0.0.1:{port}" in seen for seen in problems)
    assert mfactl("status", "--json").json["sockets"][f"ldapi://{path}"] is False


def test_what_works_of_servers_that_are_all_dead_is_no_problem(mfactl: Command, tmp_path: Path) -> None:
    """They take connections and no TLS: the second is the problem, of each."""
    with socket.create_server(("127.0.0.1", 0)) as one, ThreadPoolExecutor(1) as pool:
        pool.submit(hang_up, one)
        server = f"ldaps://127.0.0.1:{one.getsockname()[1]}"
        other = server.replace("127.0.0.1", "localhost")
        with_door(tmp_path, f"{{listen: 'ldapi://{tmp_path}/ldapi', upstream: ['{server}', '{other}']}}")
        found = {one["seen"]: one["weight"] for one in mfactl("doctor", "--json").json if one["place"] == "upstream"}
        one.shutdown(socket.SHUT_RDWR)

    for url in (server, other):
        assert found.pop(f"{url} takes connections") == "ok"
    assert len(found) == 2
    assert set(found.values()) == {"problem"}


def hang_up(listener: socket.socket) -> None:
    """On whoever comes, until it is shut down."""
    while True:
        try:
            listener.accept()[0].close()
        except OSError:
            return


def test_what_is_wrong_with_its_settings_is_told(mfactl: Command, tmp_path: Path) -> None:
    """A password file that is not there is a problem; a listener in clear is weak."""
    with_door(
        tmp_path,
        "{listen: 'ldap://*:1389', upstream: 'ldaps://127.0.0.1:1', lookup: {bind_dn: 'cn=x', bind_password_file: ./none}}",
    )
    broken = [one for one in mfactl("doctor", "--json").json if one["place"] == "ldap"]
    (tmp_path / "none").touch(0o600)
    (tmp_path / "none").write_text("x")
    weak = [one for one in mfactl("doctor", "--json").json if one["place"] == "ldap"]

    assert [one["weight"] for one in broken] == ["problem"]
    assert any("in clear" in one["seen"] and one["weight"] == "warning" for one in weak)
