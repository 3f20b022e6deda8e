"""The section of the LDAP door: every key has its effect, every mistake its line, key and cure."""

from __future__ import annotations

import ipaddress
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfa_core.model import Door, Grammar, SplitMode
from mfa_runtime.config import Config, ConfigurationProblems, Problem, load_config, load_config_text
from mfa_runtime.config.ldap_address import LdapAddress, LdapScheme
from mfa_runtime.config.ldap_door import (
    REMEMBER_PRESETS,
    AnonymousPolicy,
    ApplicationKeys,
    ClientCertificates,
    ConfirmBy,
    LdapApplication,
    LdapDoor,
    LdapExempt,
    LdapLimits,
    LdapLookup,
    LdapRemember,
    LdapTls,
    LdapUser,
    RememberFor,
    RememberWhat,
    UpstreamTls,
    UserMapping,
)
from mfa_runtime.config.primary import Verify
from mfa_runtime.config.tls import TlsVersion

ROOT = Path(__file__).parents[2]
BASE = Path("/etc/mfad")
DOOR = "doors.ldap"
APPLICATION = f"{DOOR}.applications[0]"
FINGERPRINT = ":".join(["AB"] * 32)


def load(text: str) -> Config:
    """Load ``text`` as if it stood in /etc/mfad."""
    return load_config_text(text, name="mfad.yaml", base=BASE)


def says(keys: str, *, more: str = "") -> str:
    """A file whose door has ``keys``, in line 4."""
    return f"doors:\n  ldap:\n    upstream: ['ldaps://dc1']\n    {keys}\n{more}"


def application_says(keys: str, *, more: str = "") -> str:
    """A file whose door has an application with ``keys``, in line 5."""
    return f"doors:\n  ldap:\n    upstream: ['ldaps://dc1']\n    applications:\n    - {{{keys}}}\n{more}"


def door_of(text: str) -> LdapDoor:
    """The door of a file."""
    door = load(text).doors.ldap
    assert door is not None
    return door


def with_door(keys: str) -> LdapDoor:
    """The door of a file in which it has ``keys``."""
    return door_of(says(keys))


def behind(server: str) -> LdapAddress:
    """The directory of a door that listens elsewhere."""
    [read] = door_of(f"doors: {{ldap: {{listen: 'ldap://127.0.0.1:9', upstream: '{server}'}}}}").upstream
    return read


def problems_of(text: str) -> list[Problem]:
    """What is complained of."""
    with pytest.raises(ConfigurationProblems) as refused:
        load(text)
    for problem in refused.value.problems:
        assert str(problem).isprintable()
    return list(refused.value.problems)


def test_the_door_is_off_unless_it_is_there() -> None:
    """And is enough by itself."""
    assert load("").doors.ldap is None
    assert load("doors: {ldap: {upstream: ldap://a}}").enabled_doors == {Door.LDAP}
    assert load("doors: {pam: , ldap: {upstream: ldap://a}}").enabled_doors == {Door.PAM, Door.LDAP}


def test_the_shortest_door() -> None:
    """As an administrator writes it first."""
    door = door_of(
        """
doors:
  ldap:
    listen: ["ldap://127.0.0.1:13890"]
    upstream: ["ldap://127.0.0.1:13891"]
"""
    )

    assert door.listen == (LdapAddress(LdapScheme.LDAP, "127.0.0.1", 13890),)
    assert door.upstream == (LdapAddress(LdapScheme.LDAP, "127.0.0.1", 13891),)
    assert door.remember.mode is RememberWhat.OFF
    assert door.exempt.is_empty
    assert door.bind_log == Path("-")


def test_the_commented_file_says_what_the_defaults_are() -> None:
    """config/ldap.yaml has every key, each with its default where it has one."""
    text = (ROOT / "config/ldap.yaml").read_text()
    door = load_config(ROOT / "config/ldap.yaml").doors.ldap
    assert door is not None

    plain = LdapDoor.model_validate({"upstream": "ldap://a"})
    for name in LdapDoor.model_fields:
        if name not in ("upstream", "applications"):
            assert getattr(door, name) == getattr(plain, name), name
    sections = (
        LdapDoor, ApplicationKeys, LdapApplication, LdapExempt, LdapRemember, LdapTls, UpstreamTls, LdapUser, LdapLookup,
        LdapLimits,
    )  # fmt: skip
    keys = {name for section in sections for name in section.model_fields}
    assert {key for key in keys if f"{key}:" not in text and f"{key}," not in text} == set()
    kinds = (AnonymousPolicy, ConfirmBy, UserMapping, ClientCertificates, RememberFor, RememberWhat, TlsVersion, LdapScheme)
    words = {one.value for kind in kinds for one in kind} | set(REMEMBER_PRESETS)
    assert {word for word in words if word not in text} == set()


@pytest.mark.parametrize("commented", ["tls:", "attribute)", "pins:", "bind_dn:", "refusal_text:"])
def test_what_is_commented_out_in_the_sample_can_be_used(commented: str) -> None:
    """Examples that would be refused are worse than none."""
    text = (ROOT / "config/ldap.yaml").read_text()
    assert commented in text
    lines = text.splitlines()
    if commented == "tls:":
        begin = next(number for number, line in enumerate(lines) if line.strip() == "#   tls:")
        lines = [line if line.strip() != "tls: null" else "" for line in lines]
        for number in range(begin, begin + 7):
            lines[number] = lines[number].replace("#   ", "", 1).replace("none  ", "request  ", 1)
    elif commented == "pins:":
        lines = [line.replace("# pins: [\"AB:CD:...\"]", f"pins: ['{FINGERPRINT}']") for line in lines]
    elif commented == "bind_dn:":
        lines = [line for line in lines if line.strip() not in {"bind_dn: null", "bind_password_file: null"}]
        lines = [line.replace("# bind_dn:", "bind_password_file: x\n      bind_dn:") for line in lines]
    elif commented == "refusal_text:":
        lines = [line.replace("# refusal_text:", "refusal_text:") for line in lines if line.strip() != 'refusal_text: ""']
    else:
        lines = [line.replace("attributes: [uid, cn]", "attribute: sAMAccountName") for line in lines]
        lines = [line.replace("mapping: rdn", "mapping: attribute") for line in lines]
    changed = "\n".join(lines)
    assert changed != text

    door = load_config_text(changed, name="ldap.yaml", base=BASE).doors.ldap

    assert door is not None
    plain = load_config(ROOT / "config/ldap.yaml").doors.ldap
    assert door != plain


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("ldap://127.0.0.1:13890", LdapAddress(LdapScheme.LDAP, "127.0.0.1", 13890)),
        ("ldap://127.0.0.1", LdapAddress(LdapScheme.LDAP, "127.0.0.1", 389)),
        ("ldap://127.0.0.1/", LdapAddress(LdapScheme.LDAP, "127.0.0.1", 389)),
        ("ldap://*:1389", LdapAddress(LdapScheme.LDAP, "*", 1389)),
        ("ldap://[2001:0DB8:0::1]", LdapAddress(LdapScheme.LDAP, "2001:db8::1", 389)),
        ("ldapi:///run/mfad/ldapi", LdapAddress(LdapScheme.LDAPI, "/run/mfad/ldapi")),
        ("ldapi://%2Frun%2Fmfad%2fldapi", LdapAddress(LdapScheme.LDAPI, "/run/mfad/ldapi")),
        ("ldapi://run/ldapi", LdapAddress(LdapScheme.LDAPI, "/etc/mfad/run/ldapi")),
    ],
)
def test_an_address_is_read(written: str, read: LdapAddress) -> None:
    """For listeners and for servers alike; the usual port where none is said."""
    assert with_door(f"listen: '{written}'").listen == (read,)
    if read.host != "*":
        assert behind(written) == behind(str(read)) == read


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("ldaps://dc1.example.org", LdapAddress(LdapScheme.LDAPS, "dc1.example.org", 636)),
        ("ldap://dc1", LdapAddress(LdapScheme.LDAP, "dc1", 389)),
        ("ldaps://[::1]:1636", LdapAddress(LdapScheme.LDAPS, "::1", 1636)),
    ],
)
def test_a_server_may_have_a_name(written: str, read: LdapAddress) -> None:
    assert behind(written) == read


@pytest.mark.parametrize(
    ("written", "stays"),
    [
        ("ldap://127.0.0.1", True), ("ldap://127.9.9.9", True), ("ldap://[::1]", True), ("ldap://localhost", True),
        ("ldapi:///x", True), ("ldap://LOCALHOST", True), ("ldap://10.0.0.1", False), ("ldap://dc1", False),
        ("ldap://localhost.example.org", False),
    ],
)  # fmt: skip
def test_what_stays_on_this_host(written: str, stays: bool) -> None:
    assert behind(written).is_of_this_host is stays


@pytest.mark.parametrize(
    ("written", "name", "value"),
    [
        ("3s", "connect_timeout", 3),
        ("1m", "health_interval", 60),
        ("0", "dead_time", 0),
        ("true", "spread", True),
        ("0", "warm", 0),
        ("10.0.0.0/8", "proxy_protocol", (ipaddress.ip_network("10.0.0.0/8"),)),
        ("[10.0.0.1, '::1']", "proxy_protocol", (ipaddress.ip_network("10.0.0.1"), ipaddress.ip_network("::1"))),
        ("as_bound", "confirm", ConfirmBy.AS_BOUND),
        ("0", "identity_cache", 0),
        ("4", "workers", 4),
        ("./binds.json", "bind_log", BASE / "binds.json"),
        ("'-'", "bind_log", Path("-")),
        ("null", "bind_log", None),
        ("deny", "anonymous", AnonymousPolicy.DENY),
        ("'::'", "separator", "::"),
        ("1.2.840.113556.1.4.417", "extended_operations", ("1.2.840.113556.1.4.417",)),
        ("[GSSAPI, SCRAM-SHA-256]", "sasl_mechanisms", ("GSSAPI", "SCRAM-SHA-256")),
        ("true", "compare_password", True),
        ("true", "proxied_authorization", True),
        ("'data 52e'", "refusal_text", "data 52e"),
        ("nextcloud", "remember", LdapRemember(mode=RememberWhat.PASSWORD_ONLY, ttl="12h")),  # type: ignore[arg-type]
        ("apache", "remember", LdapRemember(mode=RememberWhat.SAME_CREDENTIAL, ttl="10m")),  # type: ignore[arg-type]
        ("double_bind", "remember", LdapRemember(mode=RememberWhat.SAME_CREDENTIAL, ttl="10s")),  # type: ignore[arg-type]
        ("off", "remember", LdapRemember()),
        ("'off'", "remember", LdapRemember()),
        ("", "remember", LdapRemember()),
        ("{mode: off}", "remember", LdapRemember()),
    ],
)
def test_a_key_has_its_effect(written: str, name: str, value: object) -> None:
    assert getattr(with_door(f"{name}: {written}"), name) == value


def test_remembering_in_words_of_its_own() -> None:
    remember = with_door("remember: {mode: same_credential, scope: source_ip, ttl: 1h, max_uses: 5}").remember

    assert remember.mode is RememberWhat.SAME_CREDENTIAL
    assert remember.scope == (RememberFor.SOURCE,)
    assert (remember.ttl, remember.max_uses) == (3600, 5)
    assert with_door("remember: {mode: same_credential, scope: []}").remember.scope == ()


@pytest.mark.parametrize("mode", list(SplitMode))
def test_how_password_and_code_are_split(mode: SplitMode) -> None:
    """Only where a password is left to bind with."""
    if mode in {SplitMode.SEPARATOR, SplitMode.APPEND, SplitMode.KEYWORD}:
        assert with_door(f"split: {mode}").grammar == Grammar(mode, ",")
    else:
        [problem] = problems_of(says(f"split: {mode}"))
        assert (problem.line, problem.key) == (4, f"{DOOR}.split")


def test_sections_have_their_keys() -> None:
    door = door_of(
        f"""
doors:
  ldap:
    listen: ["ldaps://*:636", "ldap://*:389"]
    upstream: ["ldap://dc1", "ldap://dc2:1389"]
    upstream_tls:
      start_tls: true
      ca_file: ca.pem
      verify: none
      pins: ["{FINGERPRINT}"]
      minimum_version: 1.3
      certificate_file: our.crt
      key_file: our.key
    tls: {{certificate_file: a.crt, key_file: a.key, client_ca_file: c.pem, client_certificate: require, minimum_version: 1.3,
           required: true}}
    user: {{mapping: attribute, attribute: sAMAccountName, base_dn: "dc=example,dc=org", bind_names: true}}
    lookup: {{bind_dn: "cn=mfad,dc=example,dc=org", bind_password_file: pw, timeout: 1s, cache: 1m, cache_entries: 5,
              connections: 1}}
    exempt: {{dn: "cn=a,dc=b", subtree: ["ou=c,dc=b"], group: ["cn=d,dc=b", "cn=e,dc=b"], network: 10.0.0.1,
              member_attributes: memberUid}}
    limits: {{connections: 5, drain: 0, pdu_bound: 1048576}}
"""
    )

    tls = door.upstream_tls
    assert (tls.start_tls, tls.ca_file, tls.verify, tls.minimum_version) == (True, BASE / "ca.pem", Verify.NONE, "1.3")
    assert (tls.pins, tls.certificate_file, tls.key_file) == (("ab" * 32,), BASE / "our.crt", BASE / "our.key")
    assert door.tls is not None
    assert (door.tls.client_ca_file, door.tls.client_certificate) == (BASE / "c.pem", ClientCertificates.REQUIRE)
    assert (door.tls.minimum_version, door.tls.required) == (TlsVersion.V1_3, True)
    user = door.user
    assert (user.mapping, user.attributes, user.bind_names) == (UserMapping.ATTRIBUTE, ("sAMAccountName",), True)
    assert user.base_dn == ("dc=example,dc=org",)
    assert (door.lookup.bind_dn, door.lookup.bind_password_file) == ("cn=mfad,dc=example,dc=org", BASE / "pw")
    assert (door.lookup.timeout, door.lookup.cache, door.lookup.cache_entries, door.lookup.connections) == (1, 60, 5, 1)
    assert (door.exempt.dn, door.exempt.subtree, len(door.exempt.group)) == (("cn=a,dc=b",), ("ou=c,dc=b",), 2)
    assert (door.exempt.network, door.exempt.member_attributes) == ((ipaddress.ip_network("10.0.0.1"),), ("memberUid",))
    assert (door.limits.connections, door.limits.drain, door.limits.pdu_bound) == (5, 0, 1 << 20)


def test_a_pattern_finds_the_user_in_the_whole_dn() -> None:
    user = with_door("user: {mapping: pattern, pattern: 'UID=(?P<user>[^,+]+),ou=people,dc=b'}").user

    assert user.pattern is not None
    found = user.pattern.fullmatch("uid=alice,ou=people,dc=b")
    assert found is not None
    assert found["user"] == "alice"


def test_an_application_has_its_own_settings_and_the_doors_for_the_rest() -> None:
    door = door_of(
        """
doors:
  ldap:
    upstream: ldap://127.0.0.1:1
    anonymous: deny
    separator: ":"
    exempt: {dn: "cn=a,dc=b"}
    applications:
    - {name: wiki, network: [192.0.2.10, 192.0.2.11], separator: ";", exempt: {network: 192.0.2.10}}
    - {name: local, listen: "ldap://127.0.0.1"}
"""
    )
    wiki, local = door.applications

    assert door.settings_for(wiki).grammar == Grammar(SplitMode.SEPARATOR, ";")
    assert door.settings_for(wiki).anonymous is AnonymousPolicy.DENY
    assert door.settings_for(wiki).exempt.dn == (), "a section counts as a whole"
    assert door.settings_for(local).exempt.dn == ("cn=a,dc=b",)
    assert door.settings_for(local).grammar == Grammar(SplitMode.SEPARATOR, ":")
    assert local.listen == door.listen


@pytest.mark.parametrize("mode", ["append", "separator", "keyword"])
def test_a_rule_of_the_policy_may_split_as_the_door_can(mode: str) -> None:
    load(says("warm: 0", more=f"policy:\n- {{id: a, when: {{door: ldap}}, split: {mode}}}\n"))


TWO = "{certificate_file: a, key_file: b}"
MISTAKES: list[tuple[str, int, str, str, str, str]] = [
    # file, line, key, seen, expected, cure
    ("doors:\n  ldap:\n", 2, f"{DOOR}.upstream", "nothing", "a value", ""),
    ("doors:\n  ldap: {upstream: }\n", 2, f"{DOOR}.upstream", "nothing", "1 to 8", ""),
    ("doors:\n  ldap: {upstream: []}\n", 2, f"{DOOR}.upstream", "a list of 0", "1 to 8", ""),
    (f"doors:\n  ldap: {{upstream: {json.dumps([f'ldap://s{n}' for n in range(9)])}}}\n", 2, f"{DOOR}.upstream", "a list of 9",
     "1 to 8", ""),
    *(
        (f"doors:\n  ldap:\n    upstream:\n    - ldap://a\n    - '{one}'\n", 5, f"{DOOR}.upstream[1]", "",
         "servers such as", "")
        for one in ("", "a", "http://a", "ldap://", "ldap://a:0", "ldap://a:65536", "ldap://a b", "ldap://a/dc=b", "ldap://::1",
                    "ldap://[1.2.3.4]", "ldap://[dc1]", "ldap://1.2.3", "ldap://300.1.1.1", "ldap://*", "ldap://0.0.0.0",
                    "ldap://[::]:1", "ldapi://", "LDAP://a", "ldap://u:p@a", "ldapi://%C3%BC")
    ),
    (f"doors:\n  ldap: {{upstream: 'ldapi:///{'x' * 110}'}}\n", 2, f"{DOOR}.upstream[0]", "", "short enough", "107 bytes"),
    ("doors:\n  ldap: {upstream: [ldap://a, ldap://a:389]}\n", 2, f"{DOOR}.upstream[1]", "ldap://a:389 a second time",
     "each server once", ""),
    (says("primary: {type: none}"), 4, f"{DOOR}.primary", "an unknown key", "one of", ""),
    (says("lisen: x"), 4, f"{DOOR}.lisen", "an unknown key", "one of", "perhaps listen"),
    (says("exempt: {dn: cn=a,dc=b}"), 4, f"{DOOR}.exempt.dc=b", "an unknown key", "one of dn", "a DN in quotes"),
    (says("listen: []"), 4, f"{DOOR}.listen", "a list of 0", "1 to 64", ""),
    *(
        (says(f"listen: ['{one}']"), 4, f"{DOOR}.listen[0]", "", "listeners such as", "")
        for one in ("127.0.0.1:389", "ldap://localhost", "ldap://::1", "ldap://*:0", "ldap://[fe80::1%eth0]", "ldapis://x")
    ),
    (says(f"listen: 'ldapi:///{'x' * 98}'"), 4, f"{DOOR}.listen[0]", "", "short enough", "98 bytes"),
    (says("listen: ['ldap://*:389', 'ldap://127.0.0.1:389']"), 4, f"{DOOR}.listen[1]",
     "ldap://127.0.0.1:389 beside ldap://*:389", "addresses that differ", "* holds"),
    (says(f"listen: ['ldap://*:636', 'ldaps://*:636']\n    tls: {TWO}"), 4, f"{DOOR}.listen[1]",
     "ldaps://*:636 beside", "differ", "ports of their own"),
    (says("listen: ['ldapi:///a', 'ldapi://%2Fa']"), 4, f"{DOOR}.listen[1]", "ldapi:///a beside", "differ", ""),
    ("doors:\n  ldap:\n    upstream: ldap://127.0.0.1\n", 3, f"{DOOR}.upstream", "where the door listens", "the directory",
     "ask itself"),
    (says("listen: 'ldapi:///a'\n    workers: 2"), 4, f"{DOOR}.listen[0]", "ldapi:///a, and 2 workers", "workers: 1", ""),
    # TLS
    (says("listen: ['ldap://*:389', 'ldaps://*:636']"), 4, f"{DOOR}.listen[1]", "no certificate", "a section tls", ""),
    (says("tls: {required: true, key_file: k}"), 4, f"{DOOR}.tls.certificate_file", "nothing", "a value", ""),
    (says("tls: {certificate_file: a, key_file: b, client_certificate: require}"), 4, f"{DOOR}.tls",
     "client_certificate: require", "client_ca_file", "CA certificates"),
    (says("tls: {certificate_file: a, key_file: b, client_ca_file: c}"), 4, f"{DOOR}.tls", "no client is asked",
     "client_certificate", "request or require"),
    (says("tls: {certificate_file: a, key_file: b, minimum_version: 1.1}"), 4, f"{DOOR}.tls.minimum_version",
     "1.1", "'1.2'", ""),
    (says("upstream_tls: {start_tls: true}"), 4, f"{DOOR}.upstream_tls.start_tls", "true, and ldaps://dc1:636",
     "ldap:// servers alone", "first byte"),
    ("doors:\n  ldap:\n    upstream: ldapi:///x\n    upstream_tls: {start_tls: true}\n", 4, f"{DOOR}.upstream_tls.start_tls",
     "ldapi:///x", "ldap:// servers alone", "socket of this host"),
    ("doors:\n  ldap:\n    upstream: ldap://a\n    upstream_tls: {ca_file: x, verify: full}\n", 4,
     f"{DOOR}.upstream_tls.ca_file", "ca_file, verify, and no TLS", "TLS", "start_tls: true"),
    (says("upstream_tls: {certificate_file: a}"), 4, f"{DOOR}.upstream_tls", "one of", "both or neither", ""),
    (says("upstream_tls: {pins: []}"), 4, f"{DOOR}.upstream_tls.pins", "a list of 0", "one SHA-256", ""),
    (says("upstream_tls: {pins: abc}"), 4, f"{DOOR}.upstream_tls.pins", "'abc'", "64 hexadecimal", "openssl"),
    # users
    (says("user: {mapping: pattern}"), 4, f"{DOOR}.user", "without one", "both or neither", "(?P<user>"),
    (says("user: {pattern: '(?P<user>.*)'}"), 4, f"{DOOR}.user", "a pattern, and mapping: rdn", "both or neither", ""),
    (says("user: {mapping: pattern, pattern: 'uid=(.*)'}"), 4, f"{DOOR}.user.pattern", "", "a group (?P<user>", "for instance"),
    (says("user: {mapping: pattern, pattern: 'uid=(?P<user>.*'}"), 4, f"{DOOR}.user.pattern", "", "a regular", "re says"),
    (says("user: {mapping: pattern, pattern: '(?P<user>.)', attributes: uid}"), 4, f"{DOOR}.user",
     "both pattern and attributes", "one of them", ""),
    (says("user: {mapping: attribute}"), 4, f"{DOOR}.user", "no attribute", "one attribute", "sAMAccountName"),
    (says("user: {mapping: attribute, attributes: [a, b]}"), 4, f"{DOOR}.user", "2 attributes", "one attribute", ""),
    (says("user: {attributes: []}"), 4, f"{DOOR}.user", "no attribute", "at least one", ""),
    (says("user: {attributes: ['a b']}"), 4, f"{DOOR}.user.attributes[0]", "'a b'", "the name of an attribute", ""),
    (says("user: {base_dn: people}"), 4, f"{DOOR}.user.base_dn[0]", "'people'", "a DN", "quotes"),
    (says("lookup: {bind_dn: 'cn=a'}"), 4, f"{DOOR}.lookup", "one of the two", "both or neither", ""),
    (says("lookup: {bind_dn: '', bind_password_file: x}"), 4, f"{DOOR}.lookup.bind_dn", "an empty bind_dn", "a DN",
     "anonymous"),
    # exemptions
    (says("exempt: {dn: ['']}"), 4, f"{DOOR}.exempt.dn[0]", "''", "a DN", ""),
    (says("exempt: {network: 0.0.0.0/0}"), 4, f"{DOOR}.exempt", "every address", "somebody", "dn, subtree or group"),
    (says("exempt: {network: ['::/0']}"), 4, f"{DOOR}.exempt", "every address", "somebody", ""),
    (says("exempt: {network: 10.0.0.1/8}"), 4, f"{DOOR}.exempt.network[0]", "", "a network", "10.0.0.0/8"),
    # operations
    (says("extended_operations: [1.3]"), 4, f"{DOOR}.extended_operations[0]", "1.3", "an OID", "quotes"),
    (says("extended_operations: ['1.02']"), 4, f"{DOOR}.extended_operations[0]", "'1.02'", "an OID", ""),
    (says("extended_operations: ['1.3.6.1.4.1.1466.20037']"), 4, f"{DOOR}.extended_operations[0]", "", "of the directory",
     "StartTLS"),
    (says("sasl_mechanisms: [plain]"), 4, f"{DOOR}.sasl_mechanisms[0]", "'plain'", "a SASL mechanism", ""),
    (says("sasl_mechanisms: [GSSAPI, EXTERNAL]"), 4, f"{DOOR}.sasl_mechanisms[1]", "'EXTERNAL'", "the client says",
     "mfad that binds"),
    (says("refusal_text: \"a\\nb\""), 4, f"{DOOR}.refusal_text", "", "printable", ""),
    (says(f"refusal_text: {'x' * 201}"), 4, f"{DOOR}.refusal_text", "", "200", ""),
    (says("compare_password: 1"), 4, f"{DOOR}.compare_password", "", "true or false", ""),
    # remember
    (says("remember: gitlab"), 4, f"{DOOR}.remember", "'gitlab'", "off, or a preset: nextcloud, apache, double_bind", ""),
    (says("remember: {ttl: 25h}"), 4, f"{DOOR}.remember.ttl", "'25h'", "1s to 24h", ""),
    (says("remember: {scope: user}"), 4, f"{DOOR}.remember.scope[0]", "'user'", "'listener' or 'source_ip'", ""),
    (says("remember: apache\n    workers: 2"), 4, f"{DOOR}.remember", "same_credential, and 2 workers", "workers: 1", ""),
    (application_says("name: a, network: 10.0.0.1, remember: nextcloud").replace("    appl", "    workers: 2\n    appl"), 6,
     f"{APPLICATION}.remember", "password_only, and 2 workers", "workers: 1", ""),
    # applications
    (application_says("network: 10.0.0.1"), 5, f"{APPLICATION}.name", "nothing", "a value", ""),
    (application_says("name: a"), 5, APPLICATION, "neither", "network, listen, or both", ""),
    (application_says("name: a, network: []"), 5, APPLICATION, "neither", "network, listen, or both", ""),
    (application_says("name: a, listen: []"), 5, f"{APPLICATION}.listen", "a list of 0", "1 to 64", ""),
    (application_says("name: a, workers: 2, network: 10.0.0.1"), 5, f"{APPLICATION}.workers", "an unknown key", "", ""),
    (application_says("name: ldap, network: 10.0.0.1"), 5, f"{APPLICATION}.name", "'ldap' a second time", "differ",
     "no application"),
    (application_says("name: a, listen: ldap://127.0.0.1:390"), 5, f"{APPLICATION}.listen", "ldap://127.0.0.1:390",
     "a listener of this door", "ldap://127.0.0.1:389"),
    (application_says("name: a, network: 10.0.0.1}\n    - {name: a, network: 10.0.0.2"), 6, f"{DOOR}.applications[1].name",
     "'a' a second time", "names that differ", ""),
    (application_says("name: a, network: 10.0.0.1}\n    - {name: b, network: [10.0.0.2, 10.0.0.1]"), 6,
     f"{DOOR}.applications[1].network", "10.0.0.1/32, which 'a' has", "each once", "longest prefix"),
    (application_says("name: a, listen: ldap://127.0.0.1}\n    - {name: b, listen: ldap://127.0.0.1"), 6,
     f"{DOOR}.applications[1].listen", "ldap://127.0.0.1:389, which 'a' has", "each once", ""),
    (says("applications: {wiki: 1}"), 4, f"{DOOR}.applications", "a mapping", "a list", ""),
    # limits
    (says("limits: {pdu_bound: 65536}"), 4, f"{DOOR}.limits.pdu_bound",
     "pdu_bound 65536, and pdu_anonymous 262144", "at least as much", "raise"),
    (says("limits: {pdu_anonymous: 8388608}"), 4, f"{DOOR}.limits.pdu_anonymous", "pdu_bound 4194304",
     "at least as much", ""),
    (says("limits: {bind: 65}"), 4, f"{DOOR}.limits.bind", "65", "a time with its unit", ""),
    (says("workers: 65"), 4, f"{DOOR}.workers", "65", "1 to 64", ""),
    # the policy
    (says("warm: 0", more="policy:\n- {id: a, when: {door: ldap}, split: otp_only}\n"), 6, "policy[0].split",
     "split: otp_only for LDAP application 'ldap'", "separator, append or keyword", "directory's password"),
    (says("warm: 0", more="policy:\n- {id: a, when: {door: ldap}, enrol: at_login}\n"), 6, "policy[0].enrol",
     "enrol: at_login for the LDAP door alone", "enrol: refuse", "mfactl enrol"),
    (application_says("name: wiki, network: 10.0.0.1", more="policy:\n- {id: a, when: {nas: w*}, split: separate}\n"), 7,
     "policy[0].split", "for LDAP application 'wiki'", "separator, append or keyword", ""),
]  # fmt: skip


@pytest.mark.parametrize(("text", "line", "key", "seen", "expected", "cure"), MISTAKES)
def test_a_mistake_is_told_with_its_place_and_its_cure(
    text: str, line: int, key: str, seen: str, expected: str, cure: str
) -> None:
    [problem] = problems_of(text)

    assert (problem.line, problem.key) == (line, key)
    assert seen in problem.seen
    assert expected in problem.expected
    assert cure in problem.cure


@pytest.mark.parametrize(
    "rule",
    [
        "when: {door: [pam, console]}, split: otp_only",
        "when: {application: other}, split: separate",
        "when: {door: ldap}, exempt: true",
        "when: {door: [pam, ldap]}, enrol: at_login",
    ],
)
def test_a_rule_that_is_for_others_is_no_mistake(rule: str) -> None:
    load(f"doors: {{pam: , ldap: {{upstream: ldap://a}}}}\npolicy:\n- {{id: a, {rule}}}\n")


def test_networks_may_lie_inside_one_another_and_listeners_part_them() -> None:
    door = door_of(
        "doors: {ldap: {upstream: ldap://a, listen: [ldap://127.0.0.1:1, ldap://127.0.0.1:2], applications: ["
        "{name: a, network: 10.0.0.0/8}, {name: b, network: 10.0.0.0/16}, "
        "{name: c, network: 10.0.0.0/8, listen: ldap://127.0.0.1:1}, {name: d, network: 10.0.0.0/8, listen: ldap://127.0.0.1:2}]}}"
    )

    assert [one.name for one in door.applications] == ["a", "b", "c", "d"]


def outcome_of(values: object) -> Config | ConfigurationProblems:
    try:
        return load(json.dumps({"doors": {"ldap": values}}))
    except ConfigurationProblems as problems:
        return problems


@given(st.ip_addresses().filter(lambda one: getattr(one, "scope_id", None) is None), st.integers(1, 65_535))
def test_every_address_can_be_written(address: ipaddress.IPv4Address, port: int) -> None:
    """And is read as itself."""
    listen = LdapAddress(LdapScheme.LDAP, str(address), port)

    assert with_door(f"listen: '{listen}'").listen == (listen,)


NOTATIONS = st.sampled_from(
    ["", "off", "-", "ldap://a", "ldapi:///x", "ldaps://*", "10.0.0.0/8", "dc=a", "uid", "nextcloud", "1.3.6", "GSSAPI", "5s",
     "1.2", "user"],
)  # fmt: skip
SECTIONS = (
    LdapDoor, LdapApplication, LdapExempt, LdapRemember, LdapTls, UpstreamTls, LdapUser, LdapLookup, LdapLimits
)  # fmt: skip
PLAIN: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | NOTATIONS | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(sorted({name for one in SECTIONS for name in one.model_fields})), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from([*LdapDoor.model_fields, "x"]), PLAIN, max_size=5))
def test_any_values_are_a_door_or_its_problems(values: dict[str, object]) -> None:
    """Any type in any place; what is told fits on a terminal."""
    outcome = outcome_of(values)

    if isinstance(outcome, ConfigurationProblems):
        assert outcome.problems
        assert all(line.isprintable() for line in str(outcome).split("\n"))
    else:
        assert outcome.doors.ldap is not None
