"""What the pages about RADIUS say is what the program does: samples load; words, metrics, presets are those of the source."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from mfa_runtime.config import load_config_text
from mfactl.app import app
from mfactl.radius import app as radius_app
from radius_plugin import metrics
from radius_plugin.attributes import Dictionaries
from radius_plugin.presets import PRESETS
from radius_plugin.request import Unasked
from radius_plugin.results import Outcome
from tests.end_to_end import openvpn, radsecproxy

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted(DOCS.glob("radius*.md"))
SAMPLES = [
    (page.name, number, text)
    for page in PAGES
    for number, text in enumerate(re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL))
]
MAIN = (DOCS / "radius.md").read_text()


def test_there_are_samples() -> None:
    """Else the next test would look at nothing."""
    assert {name for name, _, _ in SAMPLES} == {page.name for page in PAGES}


@pytest.mark.parametrize(("page", "number", "text"), SAMPLES, ids=[f"{page}-{number}" for page, number, _ in SAMPLES])
def test_samples_load(page: str, number: int, text: str, tmp_path: Path) -> None:
    """And their reply attributes can be encoded."""
    config = load_config_text(text, name=f"{page} {number}", base=tmp_path)
    door = config.doors.radius
    assert door is not None
    names = Dictionaries.load()

    for rule in door.reply:
        for name, values in rule.attributes.items():
            assert names.encode(name, values)


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_links_lead_somewhere(page: Path) -> None:
    """Of the pages here, and files of the repository that are named with their folder."""
    text = page.read_text()

    for target in re.findall(r"\]\(([a-z-]+\.md)\)", text):
        assert (DOCS / target).exists(), target
    for target in re.findall(r"`((?:config|tests|radius_plugin)/[a-z0-9_/.-]+)`", text):
        assert (DOCS.parent / target).exists(), target


def test_every_metric_and_reason_is_explained() -> None:
    """A dashboard is made from this page."""
    families = {one.name for one in vars(metrics).values() if isinstance(one, metrics.Family)} - {metrics.OTHER.name}
    words = {*map(str, Unasked), *map(str, Outcome)}

    assert [name for name in sorted(families) if name not in MAIN] == []
    assert [word for word in sorted(words) if f"`{word}`" not in MAIN] == []


def test_every_preset_is_in_the_table() -> None:
    """And no other one."""
    assert set(re.findall(r"^\| `([a-z_]+)` \| .*(?:documents|reports|itself)", MAIN, re.MULTILINE)) == set(PRESETS)


def test_options_that_are_named_exist() -> None:
    """Of `mfactl radius test`."""
    (command,) = (one for one in radius_app.registered_commands if one.name == "test")
    assert command.callback is not None
    known = {"--" + name.replace("_", "-") for name in command.callback.__annotations__}
    block = MAIN.partition("## What people type")[0]

    assert set(re.findall(r"`(--[a-z-]+)", block)) - {"--check"} <= known
    assert any(group.name == "radius" for group in app.registered_groups)


def test_openvpn_page_has_the_lines_that_are_tried() -> None:
    """Those of tests/end_to_end/openvpn.py, but for addresses, paths and secrets."""
    page = (DOCS / "radius-openvpn.md").read_text()
    source = Path(str(openvpn.__file__)).read_text().partition("class VpnServer")[2].partition("class VpnClient")[0]
    settings = re.findall(r"^([A-Za-z-]+)=([A-Za-z0-9.-]+)$", source, re.MULTILINE)
    fixed = re.findall(r'^ {12}"([a-z-]+(?: [a-z0-9 -]+)?)",$', source, re.MULTILINE)

    assert len(settings) >= 6
    assert {"auth-gen-token", "username-as-common-name"} <= set(fixed)
    assert [f"{key}={value}" for key, value in settings if f"{key}={value}" not in page] == []
    assert [line for line in fixed if f"    {line}\n" not in page] == []


def test_radsecproxy_sample_has_the_lines_that_are_tried() -> None:
    """Those of tests/end_to_end/radsecproxy.py that hold no address, path, secret or name."""
    source = Path(str(radsecproxy.__file__)).read_text().partition("class UdpToTls")[2].partition("class TlsToUdp")[0]
    block = source.partition('f"""')[2].partition('"""')[0]
    fixed = {line.strip() for line in block.replace("{{", "\x01").replace("}}", "\x02").splitlines() if "{" not in line}
    written = {line.strip().replace("{", "\x01").replace("}", "\x02") for line in MAIN.splitlines()}

    assert {"RetryCount 0", "accountingServer mfad"} <= fixed
    assert fixed - {""} <= written


def test_the_certificates_of_the_guide_are_good_for_both_sides(tmp_path: Path) -> None:
    """Made by the commands as they stand: a server's and a client's, of that CA, neither of them a CA itself."""
    [commands] = re.findall(r"```sh\n(make\(\) \{.*?)```", MAIN, re.DOTALL)
    subprocess.run(["sh", "-euc", commands], cwd=tmp_path, check=True, capture_output=True)

    for name, purpose, host in (
        ("radius", "sslserver", ("-verify_ip", "192.0.2.9")),
        ("radius", "sslserver", ("-verify_hostname", "radius.example.org")),
        ("campus", "sslclient", ("-verify_hostname", "radsec.campus.example.org")),
    ):
        verify = ["openssl", "verify", "-x509_strict", "-purpose", purpose, *host, "-CAfile", "ca.pem", f"{name}.pem"]
        assert subprocess.run(verify, cwd=tmp_path, capture_output=True, text=True).stdout == f"{name}.pem: OK\n"
        shown = subprocess.run(["openssl", "x509", "-noout", "-text", "-in", f"{name}.pem"], cwd=tmp_path, capture_output=True)
        assert b"CA:FALSE" in shown.stdout
        assert (tmp_path / f"{name}.key").stat().st_mode & 0o077 == 0


def test_the_certificate_of_the_openvpn_page_is_one_that_its_clients_take(tmp_path: Path) -> None:
    """`remote-cert-tls server` asks for both usages (openvpn(8))."""
    page = (DOCS / "radius-openvpn.md").read_text()
    [commands] = re.findall(r"```sh\ncd /etc/openvpn/server\n(make\(\) \{.*?)```", page, re.DOTALL)
    subprocess.run(["sh", "-euc", commands], cwd=tmp_path, check=True, capture_output=True)

    verify = ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", "ca.pem", "server.pem"]
    assert subprocess.run(verify, cwd=tmp_path, capture_output=True, text=True).stdout == "server.pem: OK\n"
    shown = subprocess.run(["openssl", "x509", "-noout", "-text", "-in", "server.pem"], cwd=tmp_path, capture_output=True)
    for words in (b"CA:FALSE", b"Digital Signature", b"TLS Web Server Authentication"):
        assert words in shown.stdout
