"""What the pages about LDAP say is what the program does: samples load; words, metrics and options are those of the source."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from ldap_proxy import bind, metrics
from ldap_proxy.bind_log import BindLog
from ldap_proxy.configuration import build_ldap_settings
from ldap_proxy.message import ResultCode
from ldap_proxy.results import Outcome
from mfa_runtime.config import load_config_text
from mfa_runtime.config.ldap_door import REMEMBER_PRESETS
from mfactl.app import app
from mfactl.ldap import app as ldap_app
from mfactl.ldap_meaning import AD_DATA
from tests.end_to_end import ldap_apache, test_ldap_nslcd

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted(DOCS.glob("ldap*.md"))
SAMPLES = [
    (page.name, number, text)
    for page in PAGES
    for number, text in enumerate(re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL))
]
MAIN = (DOCS / "ldap.md").read_text()


def test_there_are_samples() -> None:
    """Else the next test would look at nothing."""
    assert {name for name, _, _ in SAMPLES} == {page.name for page in PAGES}


@pytest.mark.parametrize(("page", "number", "text"), SAMPLES, ids=[f"{page}-{number}" for page, number, _ in SAMPLES])
def test_samples_load(page: str, number: int, text: str, tmp_path: Path) -> None:
    """And become settings of the door."""
    secret = tmp_path / "lookup.password"
    secret.touch(0o600)
    secret.write_text("x")
    config = load_config_text(text.replace("/etc/mfad/lookup.password", str(secret)), name=f"{page} {number}", base=tmp_path)
    door = config.doors.ldap
    assert door is not None

    assert build_ldap_settings(config, door).upstream.servers


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_links_lead_somewhere(page: Path) -> None:
    """Of the pages here, and files of the repository that are named with their folder."""
    text = page.read_text()

    for target in re.findall(r"\]\(([a-z-]+\.md)\)", text):
        assert (DOCS / target).exists(), target
    for target in re.findall(r"`((?:config|tests|ldap_proxy)/[a-z0-9_/.-]+)`", text):
        assert (DOCS.parent / target).exists(), target


def test_every_metric_and_outcome_is_explained() -> None:
    """A dashboard is made from this page."""
    families = {one.name for one in vars(metrics).values() if isinstance(one, metrics.Family)}

    assert [name for name in sorted(families) if name not in MAIN] == []
    assert [word for word in Outcome if f"`{word}`" not in MAIN] == []


def test_every_field_of_the_bind_log_is_named(tmp_path: Path) -> None:
    """By a line of it."""
    log = BindLog(tmp_path / "log", clock=lambda: 0.0)
    log.start()
    log.write(
        event="E", listener="L", application="ldap", source="192.0.2.1", dn="uid=alice", user="alice", way="factor",
        outcome="rejected", reason="mismatch", code=49, server="S", directory_s=0.0, took_s=0.0,
    )  # fmt: skip
    log.close()
    fields = set(json.loads((tmp_path / "log").read_text())) - {"kind", "time"}

    assert [one for one in sorted(fields) if f"`{one}`" not in MAIN] == []


def test_every_way_of_a_bind_is_named() -> None:
    """`none` is one that was refused before anything was asked."""
    assert [way.value for way in bind._Way if f"`{way.value}`" not in MAIN] == []


def test_result_codes_have_their_names() -> None:
    """A number and its name stand together."""
    written = re.findall(r"\b(\d+) ([a-z]+[A-Z][A-Za-z]+)\b", MAIN)
    names = {"".join(code.name.lower().split("_")): int(code) for code in ResultCode}

    assert len(written) >= 7
    assert [one for one in written if names[one[1].lower()] != int(one[0])] == []


def test_every_preset_is_named_with_what_it_is() -> None:
    """In the main page; each page of an application says the same."""
    for name, keys in REMEMBER_PRESETS.items():
        assert re.search(rf"`{name}`\s\(`{keys['mode']}`", MAIN), name


def test_options_that_are_named_exist() -> None:
    """Of `mfactl ldap test`, on all pages."""
    (command,) = (one for one in ldap_app.registered_commands if one.name == "test")
    assert command.callback is not None
    known = {"--" + name.replace("_", "-") for name in command.callback.__annotations__}
    named = {
        option for page in PAGES for line in page.read_text().splitlines() if "mfactl ldap test" in line
        for option in re.findall(r"(--[a-z-]+)", line.partition("mfactl ldap test")[2].partition("`")[0])
    }  # fmt: skip
    block = MAIN.partition("**Try it without")[2].partition("**The application.**")[0]

    assert len(named) >= 6
    assert named | set(re.findall(r"`(--[a-z-]+)", block)) <= known
    assert any(group.name == "ldap" for group in app.registered_groups)


def test_numbers_of_active_directory_are_those_that_are_explained() -> None:
    """On the page, and by the command."""
    page = (DOCS / "ldap-active-directory.md").read_text().partition("| data | means |")[2].partition("\n\n")[0]
    numbers = set(re.findall(r"\b(5[23][0-9a-e]|[57]\d\d)\b", page))

    assert len(numbers) == 9
    assert numbers <= set(AD_DATA)


def test_apache_page_has_the_lines_that_are_tried() -> None:
    """Those of tests/end_to_end/ldap_apache.py that hold no address, DN or secret."""
    page = (DOCS / "ldap-apache.md").read_text()
    source = ldap_apache._CONFIGURATION.partition("<Directory")[2].partition("</Directory>")[0]
    fixed = [line.strip() for line in source.splitlines()[1:] if line.strip() and "{" not in line]
    directives = {line.split()[0] for line in source.splitlines()[1:] if line.strip()}

    assert {"Require valid-user", "AuthBasicProvider ldap"} <= set(fixed)
    assert [line for line in fixed if f"        {line}\n" not in page] == []
    assert [one for one in directives if f"        {one} " not in page] == []


def test_nslcd_page_has_the_keys_that_are_tried() -> None:
    """Those of tests/end_to_end/test_ldap_nslcd.py without which it does not work."""
    page = (DOCS / "ldap-sssd-nslcd.md").read_text()
    keys = {line.split()[0] for line in test_ldap_nslcd.NSLCD.splitlines() if line.strip()}

    needed = {"uid", "gid", "uri", "base", "binddn", "bindpw"}
    assert needed <= keys
    assert [one for one in sorted(needed) if f"    {one} " not in page] == []


def test_the_certificate_of_the_guide_is_a_servers(tmp_path: Path) -> None:
    """Made by the commands as they stand: for the name and the address, of that CA, and no CA itself."""
    [commands] = re.findall(r"```sh\n(make\(\) \{.*?)```", MAIN, re.DOTALL)
    subprocess.run(["sh", "-euc", commands], cwd=tmp_path, check=True, capture_output=True)

    for host in (("-verify_ip", "192.0.2.9"), ("-verify_hostname", "ldap.example.org")):
        verify = ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", *host, "-CAfile", "ca.pem", "ldap.pem"]
        assert subprocess.run(verify, cwd=tmp_path, capture_output=True, text=True).stdout == "ldap.pem: OK\n"
    shown = subprocess.run(["openssl", "x509", "-noout", "-text", "-in", "ldap.pem"], cwd=tmp_path, capture_output=True)
    assert b"CA:FALSE" in shown.stdout
    assert (tmp_path / "ldap.key").stat().st_mode & 0o077 == 0
