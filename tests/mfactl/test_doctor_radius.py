"""What the doctor reads out of the kernel's tables, certificates and versions."""

from __future__ import annotations

import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfa_runtime.config.listen import ListenAt
from mfa_runtime.config.radius_door import Tls
from mfactl.doctor.finding import Weight
from mfactl.doctor.kernel_sockets import Bound, Owner, holders, read_table
from mfactl.doctor.radius_listeners import check_buffer, check_certificates, check_listener, check_version
from tests.end_to_end.radius_certificates import Authority

if TYPE_CHECKING:
    from tests.mfactl.conftest import Command

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n"
UDP = (
    " 1437: 0100007F:46C8 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 41201 2 0 17\n"
    " 1438: 00000000:0714 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 41202 2 0 0\n"
    " 1439: 0100007F:9999 0100007F:0714 01 00000000:00000000 00:00000000 00000000     0        0 41203 2 0 0\n"
)
UDP6 = (
    "  12: 00000000000000000000000001000000:0714 00000000000000000000000000000000:0000 07 00000000:00000000"
    " 00:00000000 00000000     0        0 41204 2 0 3\n"
)


def test_tables_of_the_kernel_are_read() -> None:
    """Connected sockets wait for nobody else."""
    assert read_table(HEAD + UDP, 4, tcp=False) == [Bound("127.0.0.1", 18120, 41201, 17), Bound("0.0.0.0", 1812, 41202, 0)]
    assert read_table(HEAD + UDP6, 6, tcp=False) == [Bound("::1", 1812, 41204, 3)]


@given(st.text())
def test_any_text_is_read(text: str) -> None:
    """A kernel may write more columns, or others."""
    read_table(text, 4, tcp=False)
    read_table(HEAD + text, 6, tcp=True)


def test_own_socket_is_found_where_it_is() -> None:
    """Against the kernel itself."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
        found = read_table(Path("/proc/net/udp").read_text(), 4, tcp=False)

        assert [held.host for held in holders(found, "127.0.0.1", port)] == ["127.0.0.1"]
    assert holders(read_table(Path("/proc/net/udp").read_text(), 4, tcp=False), "127.0.0.1", port) == []


@pytest.mark.parametrize(
    ("host", "count"), [("*", 2), ("127.0.0.1", 1), ("192.0.2.1", 1), ("::1", 1), ("2001:db8::1", 1), ("0.0.0.0", 1)]
)
def test_a_wildcard_holds_every_address_of_its_family(host: str, count: int) -> None:
    """As the kernel delivers."""
    bound = [Bound("0.0.0.0", 1812, 1, 0), Bound("::", 1812, 2, 0), Bound("0.0.0.0", 1813, 3, 0)]

    assert len(holders(bound, host, 1812)) == count


MFAD, ANOTHER = Owner(7, "python3", True, 0), Owner(8, "freeradius", False, 0)
LISTEN = ListenAt("127.0.0.1", 1812)


@pytest.mark.parametrize(
    ("bound", "owners", "weights"),
    [
        ([], {}, [Weight.PROBLEM]),
        ([Bound("127.0.0.1", 1812, 1, 0)], {1: MFAD}, [Weight.GOOD]),
        ([Bound("127.0.0.1", 1812, 1, 0)], {}, [Weight.UNKNOWN]),
        ([Bound("127.0.0.1", 1812, 1, 0)], {1: ANOTHER}, [Weight.PROBLEM]),
        ([Bound("127.0.0.1", 1812, 1, 3), Bound("127.0.0.1", 1812, 2, 4)], {1: MFAD, 2: MFAD}, [Weight.GOOD, Weight.WARNING]),
    ],
    ids=["nobody", "mfad", "not ours to see", "freeradius", "lost packets"],
)
def test_whoever_has_the_port_is_told(bound: list[Bound], owners: dict[int, Owner], weights: list[Weight]) -> None:
    """And what the kernel had to throw away, of all workers together."""
    found = list(check_listener(LISTEN, {False: bound, True: []}, owners))

    assert [finding.weight for finding in found] == weights
    if Weight.WARNING in weights:
        assert found[-1].seen.startswith("7 packets")


def test_tcp_is_another_table() -> None:
    """A web server on the same number is nobody's trouble."""
    tables = {False: [], True: [Bound("127.0.0.1", 1812, 1, 0)]}

    assert [finding.weight for finding in check_listener(LISTEN, tables, {1: ANOTHER})] == [Weight.PROBLEM]


@pytest.mark.parametrize(
    ("rmem_max", "owners", "count"),
    [
        ("212992\n", [MFAD], 1),
        ("212992\n", [MFAD, Owner(9, "other", False, 1 << 12)], 1),
        ("212992\n", [Owner(7, "python3", True, 1 << 12)], 0),
        ("4194304\n", [MFAD], 0),
        ("", [MFAD], 0),
    ],
)
def test_a_buffer_that_the_kernel_cuts_is_told(rmem_max: str, owners: list[Owner], count: int) -> None:
    """Unless mfad may have more than others (CAP_NET_ADMIN)."""
    assert len(list(check_buffer(4_194_304, rmem_max, owners))) == count


@pytest.mark.parametrize(
    ("said", "weight"),
    [
        ("radiusd: FreeRADIUS Version 3.2.1, for host x86_64-pc-linux-gnu\n", Weight.WARNING),
        ("FreeRADIUS Version 3.0.27", Weight.WARNING),
        ("FreeRADIUS Version 3.2.5", Weight.GOOD),
        ("FreeRADIUS Version 4.0.0", Weight.GOOD),
        ("no idea", Weight.UNKNOWN),
        ("", Weight.UNKNOWN),
    ],
)
def test_freeradius_without_protection_is_warned_of(said: str, weight: Weight) -> None:
    """Debian 12 ships 3.2.1."""
    assert [finding.weight for finding in check_version(said)] == [weight]


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    """Certificates that are good for a day."""
    authority = Authority(tmp_path_factory.mktemp("ca"))
    server = authority.issue("radius.example.org", server=True)
    return Tls.model_construct(certificate_file=server.certificate, key_file=server.key, client_ca_file=authority.path)


@pytest.mark.parametrize(("days", "weight"), [(-60, Weight.GOOD), (0, Weight.WARNING), (5, Weight.PROBLEM)])
def test_the_end_of_certificates_is_told_in_time(tls: Tls, days: int, weight: Weight) -> None:
    """Our own one, and the CA's."""
    found = list(check_certificates(tls, now=datetime.now(UTC) + timedelta(days=days)))

    assert [finding.weight for finding in found] == [weight, weight]


def test_files_that_cannot_be_used_are_told(tls: Tls, tmp_path: Path) -> None:
    """A key of another certificate, and one that everybody may read."""
    other = Authority(tmp_path / "other").issue("another.example.org", server=True)
    swapped = tls.model_copy(update={"key_file": other.key})
    tls.key_file.chmod(0o644)

    (broken,) = check_certificates(swapped, now=datetime.now(UTC))
    open_to_all = next(check_certificates(tls, now=datetime.now(UTC)))

    assert broken.weight is Weight.PROBLEM
    assert "certificate_file and key_file" in broken.seen
    assert (open_to_all.weight, "mode 0644" in open_to_all.seen) == (Weight.PROBLEM, True)


def test_freeradius_without_its_mfad_is_found(mfactl: Command, tmp_path: Path) -> None:
    """By the doctor, and in the status."""
    config = tmp_path / "mfad.yaml"
    door = "\n  radius: {listen: [], clients: [], freeradius: {socket: ./radius.sock}}\n"
    config.write_text(config.read_text().replace("doors:\n", f"doors:{door}", 1))
    path = str(tmp_path / "radius.sock")

    problems = [one["seen"] for one in mfactl("doctor", "--json").json if one["weight"] == "problem"]

    assert f"nobody answers FreeRADIUS at {path}" in problems
    assert mfactl("status", "--json").json["sockets"][path] is False
