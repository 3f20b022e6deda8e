"""The section of the file in the door's own terms: what is read from files, what is told together, what is warned of."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import fields
from pathlib import Path

import pytest

from ldap_proxy.configuration import build_ldap_settings, warnings
from ldap_proxy.dn import Dn, parse_dn
from ldap_proxy.settings import (
    STANDARD_EXTENDED,
    Anonymous,
    Application,
    ClientCertificate,
    Confirm,
    ExemptSettings,
    LdapDoorSettings,
    Limits,
    Listen,
    LookupSettings,
    MappingKind,
    MappingSettings,
    OperationsSettings,
    RememberMode,
    RememberScope,
    RememberSettings,
    Scheme,
    Server,
    ServerTls,
    UpstreamSettings,
    Verify,
)
from mfa_core.model import Grammar, SplitMode
from mfa_runtime.config import ConfigurationProblems, Problem, load_config_text

PASSWORD = "the service account's own"
FINGERPRINT = "ab" * 32


def built(keys: str, tmp_path: Path = Path("/etc/mfad")) -> LdapDoorSettings:
    """The settings of a door with ``keys``, indented by four."""
    config = load_config_text(f"doors:\n  ldap:\n{keys}\n", name="mfad.yaml", base=tmp_path)
    assert config.doors.ldap is not None
    return build_ldap_settings(config, config.doors.ldap)


def with_keys(keys: str) -> LdapDoorSettings:
    """As :func:`built`, of a door that nothing is to be said against."""
    return built(f"    upstream: ldap://127.0.0.1:13891\n{keys}")


def problems_of(keys: str, tmp_path: Path = Path("/etc/mfad")) -> list[Problem]:
    with pytest.raises(ConfigurationProblems) as refused:
        built(keys, tmp_path)
    return list(refused.value.problems)


def test_the_defaults_of_the_file_are_the_doors_own() -> None:
    """Two places know them: the sample is held to one, the code to the other, and here the two meet."""
    settings = with_keys("")

    assert settings == LdapDoorSettings(
        listens=(Listen(Scheme.LDAP, "127.0.0.1", 389),),
        upstream=UpstreamSettings(servers=(Server(Scheme.LDAP, "127.0.0.1", 13891),)),
    )
    assert warnings(settings) == []


def test_every_key_reaches_its_setting(tmp_path: Path) -> None:
    (tmp_path / "password").write_text(PASSWORD + "\n")
    (tmp_path / "password").chmod(0o400)
    settings = built(
        f"""
    listen: ["ldaps://*:1636", "ldap://[::1]:1389", "ldapi://run/ldapi"]
    upstream: ["ldap://dc1", "ldap://dc2:1389"]
    upstream_tls: {{start_tls: true, ca_file: ca, verify: none, pins: "{FINGERPRINT}", minimum_version: "1.3",
                   certificate_file: c, key_file: k}}
    connect_timeout: 1s
    health_interval: 2s
    dead_time: 3s
    spread: true
    warm: 5
    tls: {{certificate_file: a, key_file: b, client_ca_file: d, client_certificate: request, minimum_version: "1.3",
          required: true}}
    proxy_protocol: 10.0.0.1
    user: {{mapping: attribute, attribute: sAMAccountName, base_dn: ["OU=People, DC=example"], bind_names: true}}
    lookup: {{bind_dn: "cn=mfad,dc=example", bind_password_file: password, timeout: 4s, cache: 5s, cache_entries: 6,
             connections: 7}}
    confirm: as_bound
    identity_cache: 8s
    exempt: {{dn: "CN=svc,DC=example", subtree: "ou=svc,dc=example", group: "cn=g,dc=example", network: 10.0.0.2,
             member_attributes: memberUid}}
    anonymous: deny
    split: append
    separator: ":"
    remember: {{mode: same_credential, scope: listener, ttl: 9s, max_uses: 10}}
    extended_operations: "1.2.3"
    sasl_mechanisms: GSSAPI
    compare_password: true
    proxied_authorization: true
    refusal_text: data 52e
    bind_log: binds
    limits: {{connections: 11, connections_per_source: 12, pdu_anonymous: 8192, pdu_bound: 8193, pdu_upstream: 65537,
             queued: 4097, write_buffer: 16385, header: 13s, tls_handshake: 14s, idle: 15s, bind: 16s, operations: 17,
             drain: 18s, failed_binds: 19}}
""",
        tmp_path,
    )

    password = settings.lookup.bind_password
    assert password is not None
    assert password.reveal() == PASSWORD.encode()
    assert settings == LdapDoorSettings(
        listens=(
            Listen(Scheme.LDAPS, "*", 1636), Listen(Scheme.LDAP, "::1", 1389), Listen(Scheme.LDAPI, str(tmp_path / "run/ldapi"))
        ),
        upstream=UpstreamSettings(
            servers=(Server(Scheme.LDAP, "dc1", 389), Server(Scheme.LDAP, "dc2", 1389)), start_tls=True,
            ca_file=tmp_path / "ca", verify=Verify.NONE, pins=frozenset({FINGERPRINT}), minimum_version="1.3",
            certificate_file=tmp_path / "c", key_file=tmp_path / "k", connect_timeout_s=1.0, health_interval_s=2.0,
            dead_time_s=3.0, spread=True, warm=5,
        ),
        applications=(
            Application(
                grammar=Grammar(SplitMode.APPEND, ":"),
                exempt=ExemptSettings(
                    dns=frozenset({parse_dn("cn=svc,dc=example")}), subtrees=(parse_dn("ou=svc,dc=example"),),
                    groups=(parse_dn("cn=g,dc=example"),), networks=(ipaddress.ip_network("10.0.0.2"),),
                    member_attributes=("memberUid",),
                ),
                anonymous=Anonymous.DENY,
                remember=RememberSettings(RememberMode.SAME_CREDENTIAL, frozenset({RememberScope.LISTENER}), 9.0, 10),
                operations=OperationsSettings(STANDARD_EXTENDED | {"1.2.3"}, frozenset({"GSSAPI"}), True, True),
                refusal_text="data 52e",
            ),
        ),
        mapping=MappingSettings(
            MappingKind.ATTRIBUTE, ("samaccountname",), (parse_dn("ou=people,dc=example"),), bind_names=True
        ),
        lookup=LookupSettings("cn=mfad,dc=example", password, 4.0, 5.0, 6, 7),
        tls=ServerTls(tmp_path / "a", tmp_path / "b", tmp_path / "d", ClientCertificate.REQUEST, "1.3", True),
        proxy_protocol=(ipaddress.ip_network("10.0.0.1"),),
        confirm=Confirm.AS_BOUND,
        identity_keep_s=8.0,
        bind_log=tmp_path / "binds",
        limits=Limits(11, 12, 8192, 8193, 65537, 4097, 16385, 13.0, 14.0, 15.0, 16.0, 17, 18.0, 19),
    )  # fmt: skip


def test_no_setting_is_left_to_chance() -> None:
    """A field that somebody adds to the settings and not here keeps its default whatever the file says: name it."""
    told = (Path(__file__).parents[2] / "ldap_proxy/configuration.py").read_text()

    for kind in (LdapDoorSettings, UpstreamSettings, ServerTls, MappingSettings, LookupSettings, ExemptSettings,
                 RememberSettings, OperationsSettings, Application, Limits):  # fmt: skip
        missing = [one.name for one in fields(kind) if not re.search(rf"\b{one.name}=", told)]
        assert missing == [], kind.__name__


def test_applications_have_their_own_keys_and_the_doors() -> None:
    settings = with_keys(
        """
    anonymous: deny
    exempt: {dn: "cn=door,dc=b"}
    applications:
    - {name: wiki, network: [10.0.0.1, 10.1.0.0/16], exempt: {dn: "cn=wiki,dc=b"}}
    - {name: cloud, listen: "ldap://127.0.0.1", remember: nextcloud}
"""
    )
    own, wiki, cloud = settings.applications

    assert [one.name for one in settings.applications] == ["ldap", "wiki", "cloud"]
    assert own.networks == own.listens == ()
    assert wiki.networks == (ipaddress.ip_network("10.0.0.1"), ipaddress.ip_network("10.1.0.0/16"))
    assert wiki.exempt.dns == {parse_dn("cn=wiki,dc=b")}
    assert cloud.exempt.dns == {parse_dn("cn=door,dc=b")}
    assert cloud.listens == settings.listens
    assert {one.anonymous for one in settings.applications} == {Anonymous.DENY}
    assert (cloud.remember.mode, cloud.remember.ttl_s) == (RememberMode.PASSWORD_ONLY, 12 * 3600.0)
    assert wiki.remember.mode is RememberMode.OFF


def test_a_pattern_arrives_ready_to_be_matched() -> None:
    settings = with_keys("    user: {mapping: pattern, pattern: 'UID=(?P<user>[^,]+),dc=b'}")

    assert settings.mapping.pattern is not None
    assert settings.mapping.pattern.fullmatch(parse_dn("uid=Alice,dc=B").text)


@pytest.mark.parametrize(
    ("user", "told"),
    [
        ("", True),
        ("    user: {mapping: pattern, pattern: 'uid=(?P<user>[a-z]+),.*'}", True),
        ("    user: {mapping: attribute, attribute: uid, bind_names: true}", True),
        ("    user: {mapping: attribute, attribute: uid}", False),
    ],
)
def test_case_of_names_counts_only_where_it_arrives(user: str, told: bool) -> None:
    """A DN says "alice" of somebody enrolled as "Alice": to a policy of `enrolled_only` she would have no factor."""
    lines = f"identity:\n  fold_case: false\ndoors:\n  ldap:\n    upstream: ldap://127.0.0.1:13891\n{user}\n"
    config = load_config_text(lines, name="mfad.yaml", base=Path("/etc/mfad"))
    assert config.doors.ldap is not None

    if not told:
        assert build_ldap_settings(config, config.doors.ldap).mapping.kind is MappingKind.ATTRIBUTE
        return
    with pytest.raises(ConfigurationProblems) as refused:
        build_ldap_settings(config, config.doors.ldap)
    assert [(one.line, one.key) for one in refused.value.problems] == [(2, "identity.fold_case")]


def test_everything_that_is_wrong_is_told_at_once_with_its_line(tmp_path: Path) -> None:
    found = problems_of(
        """    upstream: ldap://127.0.0.1:1
    user: {base_dn: "a=b=c,"}
    lookup: {bind_dn: "cn=a,,", bind_password_file: missing}
    exempt:
      dn:
      - cn=good,dc=b
      - "cn=a,b"
      subtree: "x y=z"
    applications:
    - {name: wiki, network: 10.0.0.1}
    - {name: blog, network: 10.0.0.2, exempt: {group: "=xy"}}
""",
        tmp_path,
    )

    assert [(one.line, one.key) for one in found] == [
        (4, "doors.ldap.user.base_dn[0]"),
        (5, "doors.ldap.lookup.bind_dn"),
        (5, "doors.ldap.lookup.bind_password_file"),
        (9, "doors.ldap.exempt.dn[1]"),
        (10, "doors.ldap.exempt.subtree[0]"),
        (13, "doors.ldap.applications[1].exempt.group[0]"),
    ]
    assert all("RFC 4514" in one.expected for one in found if "password" not in one.key)
    assert "No such file" in found[2].seen


def test_a_password_that_others_can_read_is_refused_and_not_quoted(tmp_path: Path) -> None:
    (tmp_path / "password").write_text(PASSWORD)
    (tmp_path / "password").chmod(0o644)

    [problem] = problems_of(
        "    upstream: ldap://127.0.0.1:1\n    lookup: {bind_dn: cn=a, bind_password_file: password}", tmp_path
    )

    assert "0644" in problem.seen
    assert "chmod 0400" in problem.cure
    assert PASSWORD not in str(problem)


def test_a_name_of_active_directory_is_no_broken_dn(tmp_path: Path) -> None:
    """It takes ``user@realm`` in the place of a DN."""
    (tmp_path / "p").write_text("x")
    (tmp_path / "p").chmod(0o400)

    settings = built(
        "    upstream: ldap://127.0.0.1:1\n    lookup: {bind_dn: mfad@example.org, bind_password_file: p}", tmp_path
    )

    assert settings.lookup.bind_dn == "mfad@example.org"


GOOD = "    upstream: ldap://127.0.0.1:13891\n"
WEAK: list[tuple[str, str, str]] = [
    ("    upstream: ldap://10.0.0.1", "LDAP directory ldap://10.0.0.1:389: passwords go there in clear", "start_tls"),
    ("    upstream: ldap://dc1", "LDAP directory ldap://dc1:389: passwords go there in clear", "ldaps://"),
    ("    upstream: ldaps://dc1\n    upstream_tls: {verify: none}", "its certificate is not looked at", "ca_file"),
    (f"{GOOD}    listen: ldap://*:1389", "LDAP listener ldap://*:1389: passwords and codes may come in clear", "certificates"),
    (f"{GOOD}    listen: ldap://10.0.0.1\n    tls: {{certificate_file: a, key_file: b}}", "may come in clear",
     "tls.required: true"),
    (f"{GOOD}    proxy_protocol: 0.0.0.0/0", "whoever connects may say", "load balancers"),
    (f"{GOOD}    confirm: as_bound", "confirm: as_bound", "whoami"),
    (f"{GOOD}    user: {{mapping: attribute, attribute: uid}}", "user.mapping: attribute looks entries up anonymously",
     "bind_dn"),
    (f"{GOOD}    exempt: {{group: cn=g}}", "exempt.group of application 'ldap' looks entries up anonymously", "lookup.bind_dn"),
    (f"{GOOD}    user: {{base_dn: 'ou=people,dc=b'}}\n    exempt: {{subtree: 'dc=b'}}",
     "exempt.subtree 'dc=b' frees all users under 'ou=people,dc=b'", "accounts that are meant"),
    (f"{GOOD}    user: {{base_dn: 'ou=people,dc=b'}}\n    exempt: {{subtree: 'OU=People, DC=b'}}", "frees all users", ""),
    (f"{GOOD}    exempt: {{subtree: 'dc=example,dc=org'}}", "frees what looks like the whole directory", ""),
    (f"{GOOD}    remember: {{mode: password_only, scope: listener}}", "the password alone is enough from everywhere",
     "source_ip"),
    (f"{GOOD}    compare_password: true", "tried without a code (compare_password: true)", "false"),
    (f"{GOOD}    extended_operations: '1.3.6.1.4.1.4203.666.6.5'", "Verify Credentials", "take it out"),
    (f"{GOOD}    extended_operations: '1.2.840.113556.1.4.1781'", "Fast Bind", "take it out"),
    (f"{GOOD}    sasl_mechanisms: GSSAPI", "sasl_mechanisms is for those who are exempt, and nobody is", "under exempt"),
    (f"{GOOD}    proxied_authorization: true", "proxied_authorization is for those who are exempt", "take"),
    (f"{GOOD}    applications: [{{name: a, network: 10.0.0.1, compare_password: true}}]", "LDAP application 'a'", ""),
]  # fmt: skip


@pytest.mark.parametrize(("keys", "told", "cure"), WEAK)
def test_what_is_weak_is_told_with_its_cure(keys: str, told: str, cure: str) -> None:
    """One line, which the doctor parts at its last semicolon."""
    [line] = warnings(built(keys))

    what, semicolon, how = line.rpartition("; ")
    assert semicolon
    assert told in what
    assert cure in how
    assert line.isprintable()


@pytest.mark.parametrize(
    "keys",
    [
        "    upstream: ldap://dc1\n    upstream_tls: {start_tls: true}",
        "    upstream: ldaps://dc1",
        f"    upstream: ldaps://dc1\n    upstream_tls: {{verify: none, pins: '{FINGERPRINT}'}}",
        "    upstream: ldapi:///run/slapd/ldapi",
        f"{GOOD}    listen: ldap://10.0.0.1\n    tls: {{certificate_file: a, key_file: b, required: true}}",
        f"{GOOD}    listen: ldaps://10.0.0.1\n    tls: {{certificate_file: a, key_file: b}}",
        f"{GOOD}    listen: ldapi:///run/mfad/ldapi",
        f"{GOOD}    proxy_protocol: 10.0.0.1",
        f"{GOOD}    user: {{base_dn: 'ou=people,dc=b'}}\n    exempt: {{subtree: 'ou=services,dc=b'}}",
        f"{GOOD}    exempt: {{subtree: 'ou=services,dc=b'}}",
        f"{GOOD}    exempt: {{dn: cn=a}}\n    sasl_mechanisms: GSSAPI\n    proxied_authorization: true",
        f"{GOOD}    remember: nextcloud",
    ],
)
def test_what_is_right_is_not_warned_of(keys: str) -> None:
    assert warnings(built(keys)) == []


def test_no_dn_of_the_settings_is_the_root() -> None:
    """Everything is under it."""
    assert Dn() not in with_keys('    exempt: {subtree: "cn=a", dn: "cn=b"}').applications[0].exempt.dns
    for text in ('""', "''", "' '"):
        with pytest.raises(ConfigurationProblems):
            with_keys(f"    exempt: {{subtree: {text}}}")
