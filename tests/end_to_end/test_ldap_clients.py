"""Do the libraries that applications are written with notice anything? python-ldap, bonsai, ldap3 and PHP's."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.daemon import Mfad, Person
from tests.end_to_end.ldap_directory import PASSWORDS, SERVICE, THING_COUNT, THINGS, dn_of, password_of
from tests.end_to_end.ldap_door import LdapDoor, Setting, full, ldap_setting
from tests.end_to_end.programs import PATIENCE_S, clean_environment, must_have
from tests.end_to_end.radius_certificates import Authority

LISTEN = ("ldap://127.0.0.1:{plain}", "ldaps://127.0.0.1:{tls}")
SYSTEM_PYTHON = "/usr/bin/python3"

# Each program reads its question as JSON and says: who it was after each bind, what a refusal was, what it found.
PYTHON_LDAP = """
import json, sys, ldap
from ldap.controls import SimplePagedResultsControl
q = json.load(sys.stdin)
told = {"who": [], "refused": "", "found": 0, "pages": 0}
def connect():
    link = ldap.initialize(q["url"])
    link.set_option(ldap.OPT_X_TLS_CACERTFILE, q["ca"])
    link.set_option(ldap.OPT_X_TLS_NEWCTX, 0)
    if q["starttls"]:
        link.start_tls_s()
    return link
link = connect()
link.simple_bind_s(q["service"], q["service_password"])
told["who"].append(link.whoami_s())
link.simple_bind_s(q["user"], q["typed"])
told["who"].append(link.whoami_s())
try:
    link.simple_bind_s(q["user"], q["password"])
except ldap.INVALID_CREDENTIALS as err:
    told["refused"] = err.args[0]["desc"]
told["who"].append(link.whoami_s())
link.simple_bind_s(q["service"], q["service_password"])
told["who"].append(link.whoami_s())
page = SimplePagedResultsControl(True, size=10, cookie=b"")
while True:
    asked = link.search_ext(q["base"], ldap.SCOPE_ONELEVEL, serverctrls=[page])
    _, found, _, controls = link.result3(asked)
    told["found"] += len(found)
    told["pages"] += 1
    page.cookie = controls[0].cookie
    if not page.cookie:
        break
assert link.compare_s(q["base"], "ou", b"things")
link.unbind_s()
json.dump(told, sys.stdout)
"""
BONSAI = """
import json, sys, bonsai
q = json.load(sys.stdin)
told = {"who": [], "refused": "", "found": 0, "pages": 0}
def client(user, password):
    one = bonsai.LDAPClient(q["url"], tls=q["starttls"])
    one.set_ca_cert(q["ca"])
    one.set_credentials("SIMPLE", user=user, password=password)
    return one
with client(q["service"], q["service_password"]).connect() as link:
    told["who"].append(link.whoami())
with client(q["user"], q["typed"]).connect() as link:
    told["who"].append(link.whoami())
try:
    client(q["user"], q["password"]).connect()
except bonsai.AuthenticationError as err:
    told["refused"] = str(err)
told["who"].append("")
with client(q["service"], q["service_password"]).connect() as link:
    told["who"].append(link.whoami())
    found = list(link.paged_search(q["base"], bonsai.LDAPSearchScope.ONE, page_size=10))
    told["found"] = len(found)
    told["pages"] = -(-len(found) // 10)
json.dump(told, sys.stdout)
"""
PHP = """<?php
$q = json_decode(stream_get_contents(STDIN), true);
$told = ["who" => [], "refused" => "", "found" => 0, "pages" => 0];
ldap_set_option(null, LDAP_OPT_X_TLS_CACERTFILE, $q["ca"]);
$link = ldap_connect($q["url"]);
ldap_set_option($link, LDAP_OPT_PROTOCOL_VERSION, 3);
if ($q["starttls"] && !ldap_start_tls($link)) exit(1);
$who = function () use ($link) { return ldap_exop_whoami($link); };
ldap_bind($link, $q["service"], $q["service_password"]) or exit(2);
$told["who"][] = $who();
ldap_bind($link, $q["user"], $q["typed"]) or exit(3);
$told["who"][] = $who();
if (!@ldap_bind($link, $q["user"], $q["password"])) $told["refused"] = ldap_error($link);
$told["who"][] = $who();
ldap_bind($link, $q["service"], $q["service_password"]) or exit(4);
$told["who"][] = $who();
$cookie = "";
do {
    $page = [["oid" => LDAP_CONTROL_PAGEDRESULTS, "value" => ["size" => 10, "cookie" => $cookie]]];
    $found = ldap_list($link, $q["base"], "(objectClass=*)", ["cn"], 0, 0, 0, LDAP_DEREF_NEVER, $page);
    ldap_parse_result($link, $found, $code, $matched, $error, $referrals, $controls);
    $told["found"] += ldap_count_entries($link, $found);
    $told["pages"] += 1;
    $cookie = $controls[LDAP_CONTROL_PAGEDRESULTS]["value"]["cookie"] ?? "";
} while ($cookie !== "");
ldap_unbind($link);
echo json_encode($told);
"""
LDAP3 = """
import json, ssl, sys, ldap3
q = json.load(sys.stdin)
told = {"who": [], "refused": "", "found": 0, "pages": 3}
tls = ldap3.Tls(validate=ssl.CERT_REQUIRED, ca_certs_file=q["ca"])
link = ldap3.Connection(ldap3.Server(q["url"], get_info=ldap3.ALL, tls=tls), q["service"], q["service_password"])
def who():
    return link.extend.standard.who_am_i() or ""
if q["starttls"]:
    assert link.start_tls()
assert link.bind()
told["who"].append(who())
assert link.rebind(q["user"], q["typed"])
told["who"].append(who())
assert not link.rebind(q["user"], q["password"])
told["refused"] = link.result["description"]
told["who"].append(who())
assert link.rebind(q["service"], q["service_password"])
told["who"].append(who())
found = link.extend.standard.paged_search(q["base"], "(objectClass=device)", paged_size=10, generator=True)
told["found"] = len(list(found))
assert link.server.info.naming_contexts == ["dc=example,dc=org"]
link.unbind()
json.dump(told, sys.stdout)
"""


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def setting(template: Mfad, authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    server = authority.issue("localhost", server=True)
    tls = {"certificate_file": str(server.certificate), "key_file": str(server.key)}
    with ldap_setting(template, tmp_path_factory.mktemp("ldap"), door={"tls": tls}, listen=LISTEN) as one:
        yield one


@pytest.fixture
def door(setting: Setting) -> LdapDoor:
    return setting.door


def question(door: LdapDoor, authority: Authority, person: Person, how: str) -> dict[str, Any]:
    url = door.tls_url if how == "ldaps" else door.url
    return {
        "url": url, "starttls": how == "starttls", "ca": str(authority.path), "base": THINGS,
        "service": SERVICE, "service_password": PASSWORDS[SERVICE],
        "user": dn_of(person.name), "typed": full(person), "password": password_of(person.name),
    }  # fmt: skip


def answer(command: list[str], asked: Mapping[str, Any]) -> dict[str, Any]:
    done = subprocess.run(
        command, input=json.dumps(asked), capture_output=True, text=True, check=False, timeout=2 * PATIENCE_S,
        env={**clean_environment(LDAPCONF="/dev/null"), "PYTHONPATH": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return dict(json.loads(done.stdout))


@pytest.mark.parametrize("how", ["plain", "starttls", "ldaps"])
@pytest.mark.parametrize("library", ["python-ldap", "bonsai", "ldap3", "php"])
def test_bind_rebind_whoami_search(
    door: LdapDoor, authority: Authority, tmp_path: Path, library: str, how: str
) -> None:  # fmt: skip
    """Row 57: service, user, a refusal, service again, on one connection where the library can; then a paged search."""
    if library == "php":
        must_have("php")
        (tmp_path / "client.php").write_text(PHP)
        command = ["php", "-d", "display_errors=stderr", str(tmp_path / "client.php")]
    elif library == "ldap3":
        command = [sys.executable, "-c", LDAP3]
    else:
        must_have(SYSTEM_PYTHON)
        command = [SYSTEM_PYTHON, "-c", PYTHON_LDAP if library == "python-ldap" else BONSAI]
    person = door.person()

    told = answer(command, question(door, authority, person, how))

    who = [one.removeprefix("dn:") if one else "" for one in told["who"]]
    assert who == [SERVICE, dn_of(person.name), "", SERVICE]
    assert "nvalid" in told["refused"]
    assert (told["found"], told["pages"]) == (THING_COUNT, 3)
