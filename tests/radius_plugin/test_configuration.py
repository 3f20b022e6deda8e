"""The section of the configuration becomes the door's settings, or every problem that only the files could show."""

from __future__ import annotations

import ipaddress
from dataclasses import fields, replace
from pathlib import Path

import pytest

from mfa_core.model import FirstFactor
from mfa_runtime.config import Config, ConfigurationProblems, Problem, load_config_text
from mfa_runtime.config.radius_door import ClientKeys, RadiusLimits
from radius_plugin.attributes import MAX_REPLY_OCTETS
from radius_plugin.configuration import ANY_ADDRESS, build_radius_settings, policy_warnings, warnings
from radius_plugin.presets import PRESETS
from radius_plugin.settings import (
    AttributeName,
    ClientSettings,
    EmptyPassword,
    FreeRadiusSettings,
    Listen,
    Mode,
    Purpose,
    RadiusDoorSettings,
    Refusal,
    ReplyRule,
    RequireSignature,
    SignReplies,
    Split,
    TlsSettings,
    Transport,
)

GOOD = "a shared secret of 29 octets."
JANUARY = 1_800_000_000.0
"""15 January 2027, 08:00 UTC."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with secrets: ``good``, ``old``, ``short`` (15 octets), ``weak`` (7), ``open`` (anybody may read it)."""
    for name, secret in (("good", GOOD), ("old", f"{GOOD} once"), ("short", "x" * 15), ("weak", "hunter2"), ("open", GOOD)):
        (tmp_path / name).write_text(f"{secret}\n")
        (tmp_path / name).chmod(0o644 if name == "open" else 0o400)
    return tmp_path


def load(folder: Path, text: str) -> Config:
    """Load ``text`` as if it stood in ``folder``."""
    return load_config_text(text, name="mfad.yaml", base=folder)


def settings_of(config: Config, *, now: float = JANUARY) -> RadiusDoorSettings:
    """The settings of the door."""
    assert config.doors.radius is not None
    return build_radius_settings(config, config.doors.radius, clock=lambda: now)


def built(folder: Path, text: str, *, now: float = JANUARY) -> RadiusDoorSettings:
    """The settings of a file."""
    return settings_of(load(folder, text), now=now)


def client_of(folder: Path, keys: str = "", *, door: str = "", now: float = JANUARY) -> ClientSettings:
    """The settings of the one client that has ``keys``."""
    text = f"doors: {{radius: {{clients: [{{name: nas, network: 192.0.2.1, secret_file: good, {keys}}}], {door}}}}}"
    [client] = built(folder, text, now=now).clients
    return client


def problems_of(folder: Path, text: str) -> list[Problem]:
    """What is complained of when the settings are built; the file itself is sound."""
    config = load(folder, text)
    with pytest.raises(ConfigurationProblems) as refused:
        settings_of(config)
    assert "hunter2" not in str(refused.value)
    return list(refused.value.problems)


PLAIN = ClientSettings("nas", ipaddress.ip_network("192.0.2.1"), ())


def test_the_defaults_are_the_doors_own(folder: Path) -> None:
    """What stands as a default in the file is what the door's settings have."""
    settings = built(folder, "doors: {radius: {clients: [{name: nas, network: 192.0.2.1, secret_file: good}]}}")

    assert settings == RadiusDoorSettings(listen=(Listen("*", 1812),), clients=settings.clients)
    assert replace(settings.clients[0], secrets=()) == PLAIN
    assert [secret.reveal().decode() for secret in settings.clients[0].secrets] == [GOOD]


@pytest.mark.parametrize(
    ("key", "written", "field", "value"),
    [
        ("require_message_authenticator", "no", "", RequireSignature.NO),
        ("require_message_authenticator", "auto", "", RequireSignature.AUTO),
        ("reply_message_authenticator", "never", "", SignReplies.NEVER),
        ("limit_proxy_state", "false", "", False),
        ("mode", "mfa_only", "", Mode.MFA_ONLY),
        ("mode", "concat", "", Mode.CONCAT),
        ("mode", "challenge", "", Mode.CHALLENGE),
        ("mode", "keyword", "", Mode.KEYWORD),
        ("split", "separator", "", Split.SEPARATOR),
        ("separator", "';'", "", ";"),
        ("challenges", "false", "", False),
        ("empty_password", "challenge", "", EmptyPassword.CHALLENGE),
        ("first_factor", "done", "", FirstFactor.DONE),
        ("source_attribute", "PaloAlto-Client-Source-IP", "", AttributeName(7, vendor=25461)),
        ("source_attribute", "nas-ip-address", "", AttributeName(4)),
        ("realms", "[CORP]", "", ("corp",)),
        ("password_encoding", "latin-1", "", "iso8859-1"),
        ("join_retries", "true", "", True),
        ("attempts", "5", "", 5),
        ("wait", "55s", "wait_s", 55.0),
        ("on_timeout", "silence", "", Refusal.SILENCE),
        ("on_unavailable", "reject", "", Refusal.REJECT),
        ("retry_budget", "60s", "retry_budget_s", 60.0),
        ("prompt", "'Code: '", "", "Code: "),
        ("requests_per_second", "10", "requests_per_s", 10.0),
    ],
)
def test_a_key_of_a_client_arrives(folder: Path, key: str, written: str, field: str, value: object) -> None:
    """From the client and from the door; nothing else changes."""
    expected = replace(PLAIN, **{field or key: value})  # type: ignore[arg-type]

    assert replace(client_of(folder, f"{key}: {written}"), secrets=()) == expected
    assert replace(client_of(folder, door=f"{key}: {written}"), secrets=()) == expected


def test_every_key_of_a_client_is_mapped() -> None:
    """One that is added to the file and not to the test above is found here."""
    [marker] = [mark for mark in test_a_key_of_a_client_arrives.pytestmark if mark.name == "parametrize"]

    assert {row[0] for row in marker.args[1]} == set(ClientKeys.model_fields)


@pytest.mark.parametrize(
    ("key", "written", "field", "value"),
    [
        ("in_flight", "7", "max_in_flight", 7),
        ("cached_replies", "2048", "max_cached_replies", 2048),
        ("attributes", "50", "max_attributes", 50),
        ("tls_connections", "8", "max_tls_connections", 8),
        ("requests_per_connection", "9", "max_requests_per_connection", 9),
        ("tls_idle", "1m", "tls_idle_s", 60.0),
        ("tls_handshake", "5s", "tls_handshake_s", 5.0),
        ("receive_buffer_bytes", "65536", "receive_buffer_bytes", 65_536),
        ("state_lifetime", "5m", "state_lifetime_s", 300.0),
        ("decision", "7s", "decision_s", 7.0),
        ("join", "3s", "join_s", 3.0),
    ],
)
def test_a_bound_arrives(folder: Path, key: str, written: str, field: str, value: object) -> None:
    """Each as the one that it names."""
    plain = "doors: {radius: {clients: [{name: nas, network: 192.0.2.1, secret_file: good}]"
    settings = built(folder, f"{plain}, limits: {{{key}: {written}}}}}}}")

    assert settings == replace(built(folder, f"{plain}}}}}"), clients=settings.clients, **{field: value})  # type: ignore[arg-type]
    assert len(RadiusLimits.model_fields) == 11


def test_the_door_as_a_whole(folder: Path) -> None:
    """Addresses, certificates, realms, clients over UDP and TLS."""
    settings = built(
        folder,
        f"""
identity: {{realms: [example.org]}}
doors:
  radius:
    listen: ["*:1812", "acct://192.0.2.9", "tls://[2001:db8::9]:2084"]
    tls: {{certificate_file: cert, key_file: /k, client_ca_file: ca, minimum_version: "1.3"}}
    clients:
      - {{name: udp, network: 10.0.0.0/8, secret_file: good}}
      - {{name: both, network: 192.0.2.1, secret_file: good, mode: concat, tls: {{subject: [VPN.example.org]}}}}
      - {{name: tls, tls: {{fingerprint: {'AB' * 32}}}, require_message_authenticator: yes, limit_proxy_state: true}}
""",
    )

    assert settings.listen == (
        Listen("*", 1812),
        Listen("192.0.2.9", 1813, Transport.UDP, Purpose.ACCOUNTING),
        Listen("2001:db8::9", 2084, Transport.TLS),
    )
    assert settings.tls == TlsSettings(str(folder / "cert"), "/k", str(folder / "ca"), "1.3")
    assert settings.realms == ("example.org",)
    assert [client.name for client in settings.clients] == ["udp", "both"]
    both, tls = settings.tls_clients
    assert (both.client.name, both.subject_names, both.fingerprints) == ("both", {"VPN.example.org"}, frozenset())
    assert (tls.client.name, tls.subject_names, tls.fingerprints) == ("tls", frozenset(), {"ab" * 32})
    assert [secret.reveal() for one in settings.tls_clients for secret in one.client.secrets] == [b"radsec"] * 2
    assert (both.client.network, tls.client.network) == (ipaddress.ip_network("192.0.2.1"), ANY_ADDRESS)
    # TLS vouches for packets; a signature is asked for only where the client's own key says so.
    assert settings.clients[1].require_message_authenticator is RequireSignature.YES
    assert (both.client.require_message_authenticator, both.client.limit_proxy_state) == (RequireSignature.NO, False)
    assert (tls.client.require_message_authenticator, tls.client.limit_proxy_state) == (RequireSignature.YES, True)
    assert both.client.mode is Mode.CONCAT
    assert warnings(settings) == []


def test_clients_of_freeradius_have_the_doors_keys(folder: Path) -> None:
    """Those that are no clients here by name; FreeRADIUS knows their addresses and secrets."""
    settings = built(
        folder,
        "doors: {radius: {listen: [], clients: [], mode: concat, primary: {type: pam}, "
        "freeradius: {socket: r.sock, users: a}}}",
    )

    assert settings.freeradius == FreeRadiusSettings(
        folder / "r.sock",
        ("a",),
        replace(PLAIN, name="freeradius", network=ANY_ADDRESS, mode=Mode.CONCAT, first_factor=FirstFactor.OURS),
    )
    assert (settings.listen, settings.clients) == ((), ())


@pytest.mark.parametrize(
    ("keys", "door", "first"),
    [
        ("", "primary: {type: none}", FirstFactor.ELSEWHERE),
        ("first_factor: done", "primary: {type: none}", FirstFactor.DONE),
        ("", "primary: {type: pam}", FirstFactor.OURS),
        ("", "primary: {type: pam}, first_factor: done", FirstFactor.OURS),
        ("mode: mfa_only", "primary: {type: pam}", FirstFactor.ELSEWHERE),
        ("mode: mfa_only, first_factor: done", "primary: {type: pam}", FirstFactor.DONE),
        ("", "primary: {type: pam}, mode: mfa_only", FirstFactor.ELSEWHERE),
    ],
)
def test_who_checks_the_password(folder: Path, keys: str, door: str, first: FirstFactor) -> None:
    """Ours wherever there is one and a password is sent: no written default can switch it off."""
    assert client_of(folder, keys, door=door).first_factor is first


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_applied_and_beaten(folder: Path, name: str) -> None:
    """By the client's own keys, not by the door's."""
    chosen = PRESETS[name].settings()

    assert replace(client_of(folder, f"preset: {name}"), secrets=()) == replace(PLAIN, **chosen)  # type: ignore[arg-type]
    door = "challenges: true, join_retries: false, reply_message_authenticator: always, require_message_authenticator: yes"
    assert replace(client_of(folder, f"preset: {name}", door=door), secrets=()) == replace(PLAIN, **chosen)  # type: ignore[arg-type]
    own = client_of(
        folder,
        f"preset: {name}, challenges: true, join_retries: false, reply_message_authenticator: always, retry_budget: 30s, "
        "require_message_authenticator: yes, source_attribute: Calling-Station-Id",
    )
    assert replace(own, secrets=()) == PLAIN


def test_a_secret_is_rotated(folder: Path) -> None:
    """Both are valid up to the end, the new one first; then the old file is not read any more."""
    keys = "previous_secret_file: old, previous_secret_until: '2027-01-31'"
    # Midnight behind 31 January in Berlin.
    end = 1_801_436_400.0
    berlin = "time_zone: Europe/Berlin\ndoors: {radius: {clients: [{name: n, network: 192.0.2.1, secret_file: good, %s}]}}"

    before_end = built(folder, berlin % keys, now=end - 1)
    (folder / "old").unlink()
    past_end = built(folder, berlin % keys, now=end)
    [during], [after] = before_end.clients, past_end.clients

    assert [secret.reveal().decode() for secret in during.secrets] == [GOOD, f"{GOOD} once"]
    assert (during.previous_secret_until, after.previous_secret_until) == (end, end)
    assert [secret.reveal().decode() for secret in after.secrets] == [GOOD]
    assert warnings(before_end) == []
    [warning] = warnings(past_end)
    assert "past its end" in warning


def test_a_previous_secret_without_an_end_is_warned_of(folder: Path) -> None:
    """It is forgotten otherwise."""
    client = "{name: n, network: 192.0.2.1, secret_file: good, previous_secret_file: old}"

    settings = built(folder, f"doors: {{radius: {{clients: [{client}]}}}}")

    assert len(settings.clients[0].secrets) == 2
    assert settings.clients[0].previous_secret_until == 0.0
    [warning] = warnings(settings)
    assert "previous_secret_until" in warning


def test_reply_rules_are_encoded(folder: Path) -> None:
    """Attributes in the order of the file; users in the case of canonical names."""
    text = """
doors:
  radius:
    clients: [{name: nas, network: 192.0.2.1, secret_file: good}]
    reply:
      - attributes: {Filter-Id: vpn, Class: [a, "1234", {octets: "0x0102"}], Tunnel-Type:1: VLAN}
      - {attributes: {Session-Timeout: 60}, when: {client: nas, user: Alice, group: [staff, it], rule: default}, last: true}
"""
    rules = built(folder, text).reply_rules

    assert rules == (
        ReplyRule(bytes.fromhex("0b0576706e 190361 190631323334 19040102 40060100000d")),
        ReplyRule(b"\x1b\x06\x00\x00\x00\x3c", frozenset({"nas"}), frozenset({"alice"}), frozenset({"staff", "it"}),
                  frozenset({"default"}), last=True),
    )  # fmt: skip
    assert built(folder, text + "identity: {fold_case: false}").reply_rules[1].users == {"Alice"}


def test_a_dictionary_of_ones_own_is_read(folder: Path) -> None:
    """Relative to the file."""
    (folder / "acme").write_text("VENDOR Acme 99999\nBEGIN-VENDOR Acme\nATTRIBUTE Acme-Role 1 string\nEND-VENDOR Acme\n")

    [rule] = built(
        folder,
        "doors: {radius: {clients: [{name: nas, network: 192.0.2.1, secret_file: good}], dictionary_files: [acme], "
        "reply: [{attributes: {Acme-Role: x}}]}}",
    ).reply_rules

    assert rule.attributes == bytes.fromhex("1a090001869f0103") + b"x"


def test_everything_is_told_at_once(folder: Path) -> None:
    """Each with its line, its key and its cure; no secret, and no door's key twice."""
    problems = problems_of(
        folder,
        """\
doors:
  radius:
    source_attribute: Caling-Station-Id
    workers: 2
    clients:
      - {name: a, network: 192.0.2.1, secret_file: weak}
      - {name: b, network: 192.0.2.2, secret_file: absent, source_attribute: Foo}
      - name: c
        network: 192.0.2.3
        secret_file: open
        previous_secret_file: weak
      - {name: d, network: 192.0.2.4, secret_file: good, preset: openvpn, mode: challenge}
    reply:
      - attributes:
          Filtr-Id: x
          Tunnel-Type:1: VLAM
          User-Password: x
        last: true
""",
    )

    assert [(problem.line, problem.key) for problem in problems] == [
        (3, "doors.radius.source_attribute"),
        (6, "doors.radius.clients[0].secret_file"),
        (7, "doors.radius.clients[1].secret_file"),
        (7, "doors.radius.clients[1].source_attribute"),
        (10, "doors.radius.clients[2].secret_file"),
        (11, "doors.radius.clients[2].previous_secret_file"),
        (12, "doors.radius.clients[3].preset"),
        (12, "doors.radius.clients[3].preset"),
        (15, "doors.radius.reply[0].attributes.Filtr-Id"),
        (16, "doors.radius.reply[0].attributes.Tunnel-Type:1"),
        (17, "doors.radius.reply[0].attributes.User-Password"),
    ]
    assert all(problem.cure for problem in problems)
    assert "perhaps Calling-Station-Id" in problems[0].cure
    assert "allow_weak_secret" in problems[1].cure


def test_a_broken_dictionary_is_one_problem(folder: Path) -> None:
    """Names that it might have held are not complained of."""
    (folder / "acme").write_text("ATTRIBUTE Acme-Role 1 colour\n")

    [problem] = problems_of(
        folder,
        "doors:\n  radius:\n    clients: [{name: nas, network: 192.0.2.1, secret_file: good, source_attribute: Acme-Role}]\n"
        "    dictionary_files: [acme]\n    reply: [{attributes: {Acme-Role: x}}]\n",
    )

    assert (problem.line, problem.key) == (4, "doors.radius.dictionary_files")
    assert str(folder / "acme") in problem.seen


ELEVEN = "[" + ", ".join(["x" * 253] * 11) + "]"
"""2,805 octets: more than one reply may have."""
SIX = "[" + ", ".join(["x" * 253] * 6) + "]"


@pytest.mark.parametrize(
    ("rules", "key"),
    [
        (f"{{attributes: {{Class: {ELEVEN}}}}}", "doors.radius.reply[0].attributes"),
        (f"{{attributes: {{Class: {SIX}}}}}, {{attributes: {{Class: {SIX}}}}}", "doors.radius.reply"),
        (f"{{attributes: {{Class: {SIX}}}, when: {{group: a}}}}, {{attributes: {{Class: {SIX}}}, when: {{group: b}}}}",
         "doors.radius.reply"),
        (f"{{attributes: {{Class: {SIX}}}, when: {{group: a}}, last: true}}, {{attributes: {{Class: {SIX}}}}}", ""),
        (f"{{attributes: {{Class: {SIX}}}, when: {{user: a}}}}, {{attributes: {{Class: {SIX}}}, when: {{user: b}}}}", ""),
    ],
)  # fmt: skip
def test_replies_that_would_not_fit_are_refused(folder: Path, rules: str, key: str) -> None:
    """When the configuration is loaded: one rule, or rules that can meet at one login."""
    text = f"doors: {{radius: {{clients: [{{name: nas, network: 192.0.2.1, secret_file: good}}], reply: [{rules}]}}}}"

    if not key:
        assert len(built(folder, text).reply_rules) == 2
        return
    [problem] = problems_of(folder, text)
    assert problem.key == key
    assert str(MAX_REPLY_OCTETS) in problem.expected


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ("", []),
        ("require_message_authenticator: no", ["require_message_authenticator: no"]),
        ("require_message_authenticator: no, limit_proxy_state: false", ["need no Message-Authenticator", "limit_proxy_state"]),
        ("limit_proxy_state: false", []),
        ("require_message_authenticator: auto", ["until its first signed request"]),
        ("reply_message_authenticator: never", ["reply_message_authenticator: never"]),
        ("file: short", ["15 octets"]),
        ("file: weak, allow_weak_secret: true", ["7 octets"]),
        ("previous_secret_file: short, previous_secret_until: '2027-12-31'", ["its previous secret has 15 octets"]),
        ("preset: openvpn", ["require_message_authenticator: no"]),
        ("preset: checkpoint", ["reply_message_authenticator: never"]),
        ("preset: fortigate", []),
    ],
)
def test_what_is_weak_is_warned_of(folder: Path, keys: str, told: list[str]) -> None:
    """A sentence each, with the client's name and never its secret."""
    file = f"secret_{keys}" if keys.startswith("file") else f"secret_file: good, {keys}"

    found = warnings(built(folder, f"doors: {{radius: {{clients: [{{name: nas, network: 192.0.2.1, {file}}}]}}}}"))

    assert len(found) == len(told)
    for sentence, words in zip(found, told, strict=True):
        assert words in sentence
        assert "RADIUS client 'nas' (192.0.2.1/32)" in sentence
        assert "hunter2" not in sentence


@pytest.mark.parametrize(
    ("rule", "clients"),
    [
        ("{id: office, exempt: true}", "'far', 'near'"),
        ("{id: office, when: {network: 10.0.0.0/8}, exempt: true}", "'far', 'near'"),
        ("{id: office, when: {nas: ne*}, exempt: true}", "'near'"),
        ("{id: office, when: {nas: done}, exempt: true}", ""),
        ("{id: office, when: {door: pam}, exempt: true}", ""),
        ("{id: office, deny: true}", ""),
        ("{id: office}", ""),
    ],
)
def test_an_exemption_that_lets_nobody_in_is_warned_of(folder: Path, rule: str, clients: str) -> None:
    """Where nobody has checked a password, who needs no second factor is refused."""
    config = load(
        folder,
        f"""
doors:
  pam:
  radius:
    clients:
      - {{name: near, network: 192.0.2.1, secret_file: good}}
      - {{name: far, network: 192.0.2.2, secret_file: good}}
      - {{name: done, network: 192.0.2.3, secret_file: good, first_factor: done}}
policy: [{rule}]
""",
    )
    assert config.doors.radius is not None

    found = policy_warnings(config.doors.radius, config.policy)

    assert len(found) == bool(clients)
    assert all("'office'" in sentence and f"RADIUS client {clients}:" in sentence for sentence in found)


def test_no_field_of_the_door_is_forgotten() -> None:
    """A setting that no key reaches is found here."""
    reached = {"listen", "clients", "tls", "tls_clients", "reply_rules", "realms", "max_in_flight", "max_cached_replies",
               "max_attributes", "max_tls_connections", "max_requests_per_connection", "tls_idle_s", "tls_handshake_s",
               "receive_buffer_bytes", "state_lifetime_s", "decision_s", "join_s", "freeradius"}  # fmt: skip

    assert {one.name for one in fields(RadiusDoorSettings)} == reached
