"""The section of the RADIUS door: every key has its effect, every mistake its line, key and cure."""

from __future__ import annotations

import ipaddress
import json
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfa_core.model import Door
from mfa_runtime.config import Config, ConfigurationProblems, Problem, load_config, load_config_text
from mfa_runtime.config.listen import Endpoint, ListenAt, Wire
from mfa_runtime.config.radius_door import (
    ClientKeys,
    EmptyPassword,
    FreeRadius,
    NasFamily,
    PasswordChecked,
    RadiusClient,
    RadiusDoor,
    RadiusLimits,
    RadiusMode,
    RadiusSplit,
    Refusal,
    ReplyRule,
    ReplyWhen,
    RequireSignature,
    SignReplies,
    Tls,
    TlsIdentity,
    Until,
)
from mfa_runtime.config.tls import TlsVersion

ROOT = Path(__file__).parents[2]
BASE = Path("/etc/mfad")
NAS = "{name: nas, network: 192.0.2.1, secret_file: s}"
FINGERPRINT = ":".join(["AB"] * 32)


def load(text: str | bytes) -> Config:
    """Load ``text`` as if it stood in /etc/mfad."""
    return load_config_text(text, name="mfad.yaml", base=BASE)


def door_of(text: str) -> RadiusDoor:
    """The door of a file."""
    door = load(text).doors.radius
    assert door is not None
    return door


def with_client(keys: str) -> RadiusClient:
    """The client of a file whose only client has ``keys``."""
    return door_of(f"doors: {{radius: {{clients: [{{name: nas, network: 192.0.2.1, secret_file: s, {keys}}}]}}}}").clients[0]


def with_door(keys: str) -> RadiusDoor:
    """The door of a file in which it has ``keys`` and one client."""
    return door_of(f"doors: {{radius: {{clients: [{NAS}], {keys}}}}}")


def problems_of(text: str) -> list[Problem]:
    """What is complained of."""
    with pytest.raises(ConfigurationProblems) as refused:
        load(text)
    for problem in refused.value.problems:
        assert str(problem).isprintable()
    return list(refused.value.problems)


def test_the_door_is_off_unless_it_is_there() -> None:
    """And any one door is enough."""
    assert load("").doors.radius is None
    assert load(f"doors: {{radius: {{clients: [{NAS}]}}}}").enabled_doors == {Door.RADIUS}
    assert load(f"doors: {{pam: , radius: {{clients: [{NAS}]}}}}").enabled_doors == {Door.PAM, Door.RADIUS}


def test_the_shortest_door() -> None:
    """As an administrator writes it first."""
    door = door_of(
        """
doors:
  radius:
    listen: ["127.0.0.1:18120"]
    clients:
      - {name: nas, network: 127.0.0.0/8, secret_file: ./var/nas.secret, mode: auto}
    primary: {type: none}
"""
    )

    assert door.listen == (ListenAt("127.0.0.1", 18120),)
    [client] = door.clients
    assert client.network == ipaddress.ip_network("127.0.0.0/8")
    assert client.secret_file == BASE / "var/nas.secret"
    assert not door.checks_passwords


def test_the_commented_file_says_what_the_defaults_are() -> None:
    """config/radius.yaml has every key, each with its default where it has one."""
    text = (ROOT / "config/radius.yaml").read_text()
    door = load_config(ROOT / "config/radius.yaml").doors.radius
    assert door is not None

    plain = RadiusDoor.model_validate(MINIMAL)
    for name in RadiusDoor.model_fields:
        if name not in ("listen", "clients", "reply"):
            assert getattr(door, name) == getattr(plain, name), name
    assert door.limits == RadiusLimits()
    sections = (RadiusDoor, RadiusClient, ClientKeys, RadiusLimits, FreeRadius, Tls, TlsIdentity, ReplyRule, ReplyWhen)
    keys = {name for section in sections for name in section.model_fields}
    assert {key for key in keys if key not in text} == set()
    assert {family.value for family in NasFamily if family.value not in text} == set()


MINIMAL = {"clients": [{"name": "nas", "network": "192.0.2.1", "secret_file": "/s"}]}


def test_the_example_has_a_client_of_each_kind() -> None:
    """Ready to be copied."""
    door = load_config(ROOT / "config/examples/radius-clients.yaml").doors.radius
    assert door is not None

    assert [client.preset for client in door.clients if client.preset is not None] == list(NasFamily)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("127.0.0.1:18120", ListenAt("127.0.0.1", 18120)),
        ("192.0.2.1", ListenAt("192.0.2.1", 1812)),
        ("*", ListenAt("*", 1812)),
        ("*:1645", ListenAt("*", 1645)),
        ("udp://*:1812", ListenAt("*", 1812)),
        ("[::1]:1812", ListenAt("::1", 1812)),
        ("[2001:0DB8:0::1]", ListenAt("2001:db8::1", 1812)),
        ("acct://*", ListenAt("*", 1813, Wire.ACCOUNTING)),
        ("acct://[::]:1646", ListenAt("::", 1646, Wire.ACCOUNTING)),
        ("tls://192.0.2.1", ListenAt("192.0.2.1", 2083, Wire.TLS)),
        ("tls://*:2084", ListenAt("*", 2084, Wire.TLS)),
    ],
)
def test_an_address_to_listen_on_is_read(written: str, read: ListenAt) -> None:
    """Family, port and wire; the usual port where none is said."""
    tls = "tls: {certificate_file: a, key_file: b, client_ca_file: c}" if read.wire is Wire.TLS else ""
    client = f"{{name: nas, network: 192.0.2.1, secret_file: s{', tls: {subject: a}' if tls else ''}}}"
    # A second address, so that the client over UDP has one.
    other = "192.0.2.9:9" if tls else ""
    listen = json.dumps([one for one in (written, other) if one])

    door = door_of(f"doors: {{radius: {{listen: {listen}, clients: [{client}], {tls}}}}}")

    assert door.listen[0] == read


@pytest.mark.parametrize("one", ["127.0.0.1:1812", "*:1812"])
def test_one_address_needs_no_list(one: str) -> None:
    """As with all lists of names."""
    assert len(with_door(f"listen: '{one}'").listen) == 1


@pytest.mark.parametrize(
    ("written", "name", "value"),
    [
        ("yes", "require_message_authenticator", RequireSignature.YES),
        ("no", "require_message_authenticator", RequireSignature.NO),
        ("'no'", "require_message_authenticator", RequireSignature.NO),
        ("auto", "require_message_authenticator", RequireSignature.AUTO),
        ("never", "reply_message_authenticator", SignReplies.NEVER),
        ("false", "limit_proxy_state", False),
        ("mfa_only", "mode", RadiusMode.MFA_ONLY),
        ("concat", "mode", RadiusMode.CONCAT),
        ("challenge", "mode", RadiusMode.CHALLENGE),
        ("keyword", "mode", RadiusMode.KEYWORD),
        ("separator", "split", RadiusSplit.SEPARATOR),
        ("'::'", "separator", "::"),
        ("false", "challenges", False),
        ("challenge", "empty_password", EmptyPassword.CHALLENGE),
        ("done", "first_factor", PasswordChecked.DONE),
        ("PaloAlto-Client-Source-IP", "source_attribute", "PaloAlto-Client-Source-IP"),
        ("CORP", "realms", ("corp",)),
        ("[example.org, CORP]", "realms", ("example.org", "corp")),
        ("latin-1", "password_encoding", "iso8859-1"),
        ("CP1252", "password_encoding", "cp1252"),
        ("utf8", "password_encoding", "utf-8"),
        ("true", "join_retries", True),
        ("5", "attempts", 5),
        ("55s", "wait", 55),
        ("2m", "retry_budget", 120),
        ("silence", "on_timeout", Refusal.SILENCE),
        ("reject", "on_unavailable", Refusal.REJECT),
        ("'Code: '", "prompt", "Code: "),
        ("100", "requests_per_second", 100),
    ],
)
def test_a_key_stands_at_the_client_or_at_the_door(written: str, name: str, value: object) -> None:
    """The door's holds for a client that does not say; the client's own beats it."""
    plain = getattr(ClientKeys(), name)
    at_the_client = with_door(f"{name}: {json.dumps(plain) if not isinstance(plain, int) else _file(name, plain)}")
    door = with_door(f"{name}: {written}")
    client = with_client(f"{name}: {written}")

    assert getattr(door.settings_for(door.clients[0]), name) == value
    assert getattr(client, name) == value
    assert getattr(at_the_client.settings_for(client), name) == value
    assert getattr(at_the_client.settings_for(at_the_client.clients[0]), name) == plain


def _file(name: str, value: int) -> str:
    """A number as the file has it."""
    return f"{value}s" if name in ("wait", "retry_budget") else json.dumps(value)


@pytest.mark.parametrize(
    ("written", "name", "value"),
    [
        ("acme", "name", "acme"),
        ("'Zürich, 2. Stock'", "name", "Zürich, 2. Stock"),
        ("2001:db8::1", "network", ipaddress.ip_network("2001:db8::1/128")),
        ("10.0.0.0/8", "network", ipaddress.ip_network("10.0.0.0/8")),
        ("0.0.0.0/0", "network", ipaddress.ip_network("0.0.0.0/0")),
        ("other", "secret_file", BASE / "other"),
        ("old", "previous_secret_file", BASE / "old"),
        ("true", "allow_weak_secret", True),
        ("openvpn", "preset", NasFamily.OPENVPN),
    ],
)
def test_a_key_of_a_client(written: str, name: str, value: object) -> None:
    """What only a client has."""
    keys = {"name": "nas", "network": "192.0.2.1", "secret_file": "s"} | {name: written}
    text = ", ".join(f"{key}: {one}" for key, one in keys.items())

    assert getattr(door_of(f"doors: {{radius: {{clients: [{{{text}}}]}}}}").clients[0], name) == value


@pytest.mark.parametrize(
    ("written", "utc"),
    [
        ("2027-03-31", "2027-03-31T22:00+00:00"),
        ("2027-01-31", "2027-01-31T23:00+00:00"),
        ("2027-03-31T18:00", "2027-03-31T16:00+00:00"),
        ("2027-03-31T18:00Z", "2027-03-31T18:00+00:00"),
        ("2027-03-31 18:00:30+05:30", "2027-03-31T12:30:30+00:00"),
    ],
)
def test_the_end_of_a_previous_secret(written: str, utc: str) -> None:
    """A day is inside as a whole; without an offset the zone of the file counts."""
    client = with_client(f"previous_secret_file: o, previous_secret_until: '{written}'")

    assert client.previous_secret_until is not None
    end = client.previous_secret_until.seconds(ZoneInfo("Europe/Berlin"))
    assert datetime.fromtimestamp(end, UTC) == datetime.fromisoformat(utc)


def test_a_client_over_tls() -> None:
    """Alone, or over UDP as well; certificates in any spelling."""
    door = door_of(
        f"""
doors:
  radius:
    listen: ["*:1812", "tls://*"]
    tls: {{certificate_file: a, key_file: b, client_ca_file: c, minimum_version: 1.3}}
    clients:
      - {{name: one, tls: {{subject: vpn.example.org}}}}
      - {{name: two, tls: {{subject: [x, y], fingerprint: ["SHA256:{FINGERPRINT}", {'cd' * 32}]}}}}
      - {{name: three, network: 192.0.2.1, secret_file: s, tls: {{fingerprint: {'ef' * 32}}}}}
"""
    )

    assert door.tls == Tls(
        certificate_file=str(BASE / "a"), key_file=str(BASE / "b"), client_ca_file=str(BASE / "c"),
        minimum_version=TlsVersion.V1_3
    )
    one, two, three = (client.tls for client in door.clients)
    assert one == TlsIdentity(subject=("vpn.example.org",))
    assert two is not None
    assert two.subject == ("x", "y")
    assert two.fingerprint == ("ab" * 32, "cd" * 32)
    assert three is not None
    assert door.clients[2].network is not None


def test_reply_rules_are_read() -> None:
    """Text stays text, octets are asked for, a list has several values."""
    door = with_door(
        """reply: [
      {attributes: {Filter-Id: vpn, Class: [a, "0x0102", {octets: "0x0102fF"}], Tunnel-Type:1: 13, Session-Timeout: "60"}},
      {attributes: {Filter-Id: x}, when: {client: nas, user: [alice, bob], group: staff, rule: default}, last: true}]"""
    )

    assert door.reply[0].attributes == {
        "Filter-Id": ("vpn",),
        "Class": ("a", "0x0102", b"\x01\x02\xff"),
        "Tunnel-Type:1": (13,),
        "Session-Timeout": ("60",),
    }
    assert (door.reply[0].when, door.reply[0].last) == (ReplyWhen(), False)
    assert door.reply[1].when == ReplyWhen(client=("nas",), user=("alice", "bob"), group=("staff",), rule=("default",))
    assert door.reply[1].last


@pytest.mark.parametrize(
    ("written", "name", "value"),
    [
        ("workers: 4", "workers", 4),
        ("dictionary_files: [d/one, /two]", "dictionary_files", (BASE / "d/one", Path("/two"))),
        ("authentication_log: log.json", "authentication_log", BASE / "log.json"),
        ("authentication_log: '-'", "authentication_log", Path("-")),
        ("authentication_log: null", "authentication_log", None),
        ("freeradius: {socket: f/r.sock}", "freeradius", FreeRadius(socket=str(BASE / "f/r.sock"), users=("freerad",))),
        ("freeradius: {socket: /r, users: [a, b]}", "freeradius", FreeRadius(socket="/r", users=("a", "b"))),
        ("limits: ", "limits", RadiusLimits()),
        ("reply: ", "reply", ()),
        ("dictionary_files: ", "dictionary_files", ()),
    ],
)
def test_a_key_of_the_door(written: str, name: str, value: object) -> None:
    """What only the door has; an empty list or section has its defaults."""
    assert getattr(with_door(written), name) == value


@pytest.mark.parametrize(
    ("name", "written", "value"),
    [
        ("in_flight", "1", 1),
        ("cached_replies", "1024", 1024),
        ("attributes", "20", 20),
        ("tls_connections", "7", 7),
        ("requests_per_connection", "8", 8),
        ("tls_idle", "1m", 60),
        ("tls_handshake", "3s", 3),
        ("receive_buffer_bytes", "65536", 65_536),
        ("state_lifetime", "5m", 300),
        ("decision", "5s", 5),
        ("join", "0", 0),
    ],
)
def test_a_bound_of_the_door(name: str, written: str, value: int) -> None:
    """Each in its unit."""
    assert getattr(with_door(f"limits: {{{name}: {written}}}").limits, name) == value
    assert set(RadiusLimits.model_fields) == {
        "in_flight", "cached_replies", "attributes", "tls_connections", "requests_per_connection", "tls_idle", "tls_handshake",
        "receive_buffer_bytes", "state_lifetime", "decision", "join",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("written", "read"),
    [("127.0.0.1:9464", Endpoint("127.0.0.1", 9464)), ("'[::1]:9464'", Endpoint("::1", 9464)), ("null", None), ("", None)],
)
def test_metrics_have_an_address_or_none(written: str, read: Endpoint | None) -> None:
    """None by default."""
    assert load(f"metrics: {{listen: {written}}}").metrics.listen == read
    assert load("").metrics.listen is None


def client_says(keys: str) -> str:
    """A file whose client, in line 5, has ``keys``."""
    return f"doors:\n  radius:\n    clients:\n\n    - {{name: nas, network: 192.0.2.1, secret_file: s, {keys}}}\n"


def door_says(keys: str) -> str:
    """A file whose door says ``keys`` from line 4 on."""
    return f"doors:\n  radius:\n    clients: [{NAS}]\n    {keys}\n"


CLIENT = "doors.radius.clients[0]"


@pytest.mark.parametrize(
    ("text", "line", "key", "seen", "expected", "cure"),
    [
        # addresses
        (door_says("listen: []"), 4, "doors.radius.listen", "a list of 0", "at least one address", "*:1812"),
        *(
            (door_says(f"listen: ['{one}']"), 4, "doors.radius.listen[0]", "", "an address and a port", "")
            for one in ("", "localhost:1812", "::1", "::1:1812", "127.0.0.1:0", "127.0.0.1:65536", "127.0.0.1:", "1.2.3:1",
            "[1.2.3.4]:1",
                        "http://*:1", "tcp://*:1", "*:1812 ", "[fe80::1%eth0]:1", "256.1.1.1:1", "01.2.3.4:1", "[::1]:+1",
                        "[*]:1", "*:1:2")
        ),
        (door_says("listen: [1812]"), 4, "doors.radius.listen[0]", "1812", "an address and a port", "literals"),
        (door_says("listen: ['*:1812', '192.0.2.1:1812']"), 4, "doors.radius.listen[1]", "udp://192.0.2.1:1812 beside udp://*:1812",
         "addresses that differ", "all addresses"),
        (door_says("listen: ['*:1812', 'acct://[::1]:1812']"), 4, "doors.radius.listen[1]", "acct://[::1]:1812",
         "that differ", ""),
        (door_says("listen: ['[::1]:1', '[0::1]:1']"), 4, "doors.radius.listen[1]", "udp://[::1]:1 beside", "that differ", ""),
        # clients
        ("doors:\n  radius:\n", 2, "doors.radius.clients", "nothing", "a value", ""),
        ("doors:\n  radius:\n    clients:\n", 3, "doors.radius.clients", "nothing", "at least one client", "answers nobody"),
        ("doors:\n  radius:\n    clients: []\n", 3, "doors.radius.clients", "a list of 0", "at least one client", ""),
        ("doors:\n  radius:\n    clients: {nas: 1}\n", 3, "doors.radius.clients", "a mapping", "a list", ""),
        ("doors:\n  radius:\n    clients: [nas]\n", 3, CLIENT, "'nas'", "keys and values", ""),
        ("doors:\n  radius:\n    clients: [{network: 192.0.2.1, secret_file: s}]\n", 3, f"{CLIENT}.name", "nothing",
         "a value", ""),
        (client_says("nam: x"), 5, f"{CLIENT}.nam", "an unknown key", "one of", "perhaps name"),
        *(
            (f"doors:\n  radius:\n    clients: [{{name: {one}, network: 192.0.2.1, secret_file: s}}]\n", 3, f"{CLIENT}.name",
             "",
             "1 to 64 printable", "logs")
            for one in ("''", "' a'", '"a\\n"', "x" * 65, "5", "true", "[a]")
        ),
        *(
            (f"doors:\n  radius:\n    clients: [{{name: nas, network: '{one}', secret_file: s}}]\n", 3, f"{CLIENT}.network", "",
             "an address or a network", "")
            for one in ("", "vpn.example.org", "10.0.0.0/33", "10.0.0.0/255.0.0.0", "10.0.0.1/8", "10/8", "fe80::1%eth0",
            "::ffff:10.0.0.1",
                        "2001:db8::1/32", "1", "10.0.0.0/ 8", "*")
        ),
        ("doors:\n  radius:\n    clients: [{name: nas, network: 10.1.2.3/8, secret_file: s}]\n", 3, f"{CLIENT}.network",
         "'10.1.2.3/8'",
         "a network", "10.0.0.0/8 is perhaps meant"),
        ("doors:\n  radius:\n    clients: [{name: nas, network: '::ffff:10.0.0.0/104', secret_file: s}]\n", 3,
         f"{CLIENT}.network", "", "a network", "write it as IPv4: 10.0.0.0/8"),
        ("doors:\n  radius:\n    clients: [{name: nas}]\n", 3, CLIENT, "neither", "network and secret_file, or tls", ""),
        ("doors:\n  radius:\n    clients: [{name: nas, network: 10.0.0.1}]\n", 3, CLIENT, "without secret_file", "both", ""),
        ("doors:\n  radius:\n    clients: [{name: nas, secret_file: s, tls: {subject: a}}]\n", 3, CLIENT, "without network",
         "both", ""),
        ("doors:\n  radius:\n    clients: [{name: nas, tls: {subject: a}, previous_secret_file: s}]\n", 3, CLIENT,
         "previous_secret_file alone", "secret_file beside", "no secrets to rotate"),
        (client_says("previous_secret_until: '2027-01-01'"), 5, CLIENT, "previous_secret_until alone", "previous_secret_file",
         ""),
        *(
            (client_says(f"previous_secret_file: o, previous_secret_until: {one}"), 5, f"{CLIENT}.previous_secret_until", "",
             "a date", "")
            for one in ("tomorrow", "'2027-13-01'", "'2027-02-30'", "7d", "20270101", "'9999-12-31'", "'1998-12-31'", "[a]",
            "''",
                        "'0001-01-01T00:00+23:00'")
        ),
        (client_says("secret: hunter2hunter2"), 5, f"{CLIENT}.secret", "an unknown key", "secret_file", ""),
        (client_says("preset: acme"), 5, f"{CLIENT}.preset", "'acme'", "'fortigate'", ""),
        (client_says("allow_weak_secret: 1"), 5, f"{CLIENT}.allow_weak_secret", "a value that is not shown", "", ""),
        (f"doors:\n  radius:\n    clients:\n    - {NAS}\n    - {{name: nas, network: 10.0.0.1, secret_file: s}}\n", 5,
         "doors.radius.clients[1].name", "'nas' a second time", "names that differ", "policy and logs"),
        (f"doors:\n  radius:\n    clients:\n    - {NAS}\n    - {{name: b, network: 192.0.2.1/32, secret_file: s}}\n", 5,
         "doors.radius.clients[1].network", "192.0.2.1/32, which 'nas' has", "each network once", "longest prefix"),
        # keys of clients
        (client_says("require_message_authenticator: perhaps"), 5, f"{CLIENT}.require_message_authenticator", "'perhaps'",
         "'yes', 'no' or 'auto'", ""),
        (client_says("require_message_authenticator: 1"), 5, f"{CLIENT}.require_message_authenticator", "1", "'yes'", ""),
        (client_says("reply_message_authenticator: no"), 5, f"{CLIENT}.reply_message_authenticator", "false",
         "'always' or 'never'", ""),
        (client_says("limit_proxy_state: 1"), 5, f"{CLIENT}.limit_proxy_state", "1", "", ""),
        (client_says("mode: push"), 5, f"{CLIENT}.mode", "'push'", "'mfa_only'", ""),
        (client_says("split: middle"), 5, f"{CLIENT}.split", "'middle'", "'append' or 'separator'", ""),
        (client_says("separator: '-'"), 5, f"{CLIENT}.separator", "'-'", "1 to 8 characters", "comma"),
        (client_says("empty_password: accept"), 5, f"{CLIENT}.empty_password", "a value that is not shown", "'reject'", ""),
        (client_says("first_factor: ours"), 5, f"{CLIENT}.first_factor", "'ours'", "'elsewhere' or 'done'", ""),
        (client_says("source_attribute: 31"), 5, f"{CLIENT}.source_attribute", "31", "the name of an attribute", ""),
        (client_says("source_attribute: 'a b'"), 5, f"{CLIENT}.source_attribute", "'a b'", "the name of an attribute", ""),
        (client_says("realms: [a@b]"), 5, f"{CLIENT}.realms", "realm", "realms such as", ""),
        (client_says("password_encoding: klingon"), 5, f"{CLIENT}.password_encoding", "", "a text encoding", ""),
        (client_says("password_encoding: rot13"), 5, f"{CLIENT}.password_encoding", "", "a text encoding", ""),
        (client_says("password_encoding: utf-16"), 5, f"{CLIENT}.password_encoding", "", "a text encoding", ""),
        (client_says("password_encoding: 1252"), 5, f"{CLIENT}.password_encoding", "", "a text encoding", ""),
        (client_says("attempts: 0"), 5, f"{CLIENT}.attempts", "0", "from 1 to 10", ""),
        (client_says("wait: 25"), 5, f"{CLIENT}.wait", "25", "a time with its unit", "90s"),
        (client_says("wait: 11m"), 5, f"{CLIENT}.wait", "'11m'", "from 1s to 10m", ""),
        (client_says("retry_budget: 1s"), 5, f"{CLIENT}.retry_budget", "'1s'", "from 5s to 10m", ""),
        (client_says("on_timeout: accept"), 5, f"{CLIENT}.on_timeout", "'accept'", "'reject' or 'silence'", ""),
        (client_says("on_unavailable: accept"), 5, f"{CLIENT}.on_unavailable", "'accept'", "'reject' or 'silence'", ""),
        (client_says("prompt: ''"), 5, f"{CLIENT}.prompt", "''", "1 to 120", ""),
        (client_says("requests_per_second: 1.5"), 5, f"{CLIENT}.requests_per_second", "1.5", "a whole number", ""),
        (door_says("mode: push"), 4, "doors.radius.mode", "'push'", "'mfa_only'", ""),
        (door_says("name: x"), 4, "doors.radius.name", "an unknown key", "one of", ""),
        (door_says("preset: openvpn"), 4, "doors.radius.preset", "an unknown key", "one of", ""),
        # what does not go together
        (("doors:\n  radius:\n    clients:\n    - {name: n, network: 10.0.0.0/31, secret_file: s, "
          "require_message_authenticator: auto}\n"), 4,
         f"{CLIENT}.require_message_authenticator", "auto for 10.0.0.0/31", "yes or no", "one by one"),
        (("doors:\n  radius:\n    clients: [{name: n, network: 10.0.0.0/8, secret_file: s}]\n"
         "    require_message_authenticator: auto\n"), 4,
         "doors.radius.require_message_authenticator", "auto for 10.0.0.0/8", "yes or no", "say it at 'n'"),
        (client_says("join_retries: true") + "    workers: 2", 5, f"{CLIENT}.join_retries", "true, and 2 workers",
         "workers: 1", "port"),
        (door_says("{join_retries: true, workers: 2}".strip("{}").replace(", ", "\n    ")), 4, "doors.radius.join_retries",
         "2 workers",
         "workers: 1", ""),
        (client_says("mode: challenge, challenges: false"), 5, f"{CLIENT}.challenges", "false, and mode: challenge", "",
         "concat"),
        (client_says("first_factor: done") + "    primary: {type: pam}", 5, f"{CLIENT}.first_factor", "a primary that checks",
         "mfa_only", ""),
        # TLS
        ("doors:\n  radius:\n    clients: [{name: nas, tls: {subject: a}}]\n    listen: 'tls://*'", 4, "doors.radius.listen",
         "no certificate", "a section tls", ""),
        (door_says("tls: {certificate_file: a, key_file: b, client_ca_file: c}"), 4, "doors.radius.tls", "no tls:// address",
         "", ""),
        (client_says("tls: {subject: a}"), 5, f"{CLIENT}.tls", "a client over TLS", "a tls:// address", ""),
        (client_says("tls: {}"), 5, f"{CLIENT}.tls", "neither", "subject or fingerprint", ""),
        (client_says("tls: {subject: []}"), 5, f"{CLIENT}.tls.subject", "a list of 0", "at least one", ""),
        (client_says("tls: {subject: '*.example.org'}"), 5, f"{CLIENT}.tls.subject", "", "names as they stand", "patterns"),
        (client_says("tls: {fingerprint: abcd}"), 5, f"{CLIENT}.tls.fingerprint", "", "64 hexadecimal digits", "openssl"),
        (client_says("tls: {fingerprint: []}"), 5, f"{CLIENT}.tls.fingerprint", "", "one SHA-256", ""),
        (door_says("tls: {certificate_file: a, key_file: b}"), 4, "doors.radius.tls.client_ca_file", "nothing", "a value", ""),
        (door_says("tls: {certificate_file: a, key_file: b, client_ca_file: c, minimum_version: '1.1'}"), 4,
         "doors.radius.tls.minimum_version", "'1.1'", "'1.2' or '1.3'", ""),
        # replies
        (door_says("reply: {Filter-Id: x}"), 4, "doors.radius.reply", "a mapping", "a list", ""),
        (door_says("reply: [{}]"), 4, "doors.radius.reply[0].attributes", "nothing", "a value", ""),
        (door_says("reply: [{attributes: {}}]"), 4, "doors.radius.reply[0].attributes", "a mapping of 0", "such as", ""),
        (door_says("reply: [{attributes: [Filter-Id]}]"), 4, "doors.radius.reply[0].attributes", "a list", "such as", ""),
        (door_says("reply:\n    - attributes:\n        Class: a\n        Filter-Id: yes"), 7,
         "doors.radius.reply[0].attributes.Filter-Id",
         "true", "text or a whole number", "in quotes"),
        *(
            (door_says(f"reply: [{{attributes: {{Class: {one}}}}}]"), 4, "doors.radius.reply[0].attributes.Class", "", "", "")
            for one in ("", "[]", "[a, null]", "1.5", "{octets: 0x01}", "{octets: '01'}", "{octets: '0x0'}", "{octets: '0x'}",
            "{text: a}",
                        "[[a]]", "{}")
        ),
        (door_says("reply: [{attributes: {Class: a}, when: }]"), 4, "doors.radius.reply[0].when", "nothing", "conditions",
         "everybody"),
        (door_says("reply: [{attributes: {Class: a}, when: {user: []}}]"), 4, "doors.radius.reply[0].when.user", "",
         "at least one", ""),
        (door_says("reply: [{attributes: {Class: a}, when: {user: a@b}}]"), 4, "doors.radius.reply[0].when.user", "'a@b'",
         "canonical", ""),
        (door_says("reply: [{attributes: {Class: a}, when: {nas: x}}]"), 4, "doors.radius.reply[0].when.nas", "unknown key",
         "client", ""),
        (door_says("reply: [{attributes: {Class: a}, when: {client: x}}]"), 4, "doors.radius.reply[0].when.client", "'x'",
         "a client of this door", "'nas'"),
        (door_says("reply: [{attributes: {Class: a}, when: {rule: x}}]"), 4, "doors.radius.reply[0].when.rule", "'x'",
         "the id of a policy rule", "'default'"),
        (door_says("reply: [{attributes: {Class: a}, when: {group: x}}]") + "directory: {groups: none}", 4,
         "doors.radius.reply[0].when.group", "groups: none", "groups that are known", "nss"),
        (door_says("reply: [{attributes: {Class: a}, last: 1}]"), 4, "doors.radius.reply[0].last", "1", "", ""),
        # the rest
        (door_says("workers: 0"), 4, "doors.radius.workers", "0", "from 1 to 64", ""),
        (door_says("workers: 65"), 4, "doors.radius.workers", "65", "from 1 to 64", ""),
        (door_says("freeradius: {}"), 4, "doors.radius.freeradius.socket", "nothing", "a value", ""),
        (door_says(f"freeradius: {{socket: /{'x' * 98}}}"), 4, "doors.radius.freeradius.socket", "", "short enough", "98"),
        (door_says("freeradius: {socket: s}\n    workers: 2"), 4, "doors.radius.freeradius", "2 workers", "workers: 1", ""),
        (door_says("dictionary_files: d"), 4, "doors.radius.dictionary_files", "'d'", "a list", ""),
        (door_says("dictionary_files: ['']"), 4, "doors.radius.dictionary_files[0]", "''", "a path", ""),
        (door_says("authentication_log: ''"), 4, "doors.radius.authentication_log", "''", "a path", ""),
        (door_says("limits: {attributes: 19}"), 4, "doors.radius.limits.attributes", "19", "from 20 to 2000", ""),
        (door_says("limits: {requests_per_connection: 257}"), 4, "doors.radius.limits.requests_per_connection", "257",
         "from 1 to 256", ""),
        (door_says("limits: {join: 61s}"), 4, "doors.radius.limits.join", "'61s'", "from 0 to 60s", ""),
        *(
            (f"metrics: {{listen: '{one}'}}", 1, "metrics.listen", "", "an address and a port", "")
            for one in ("9464", "*:9464", "127.0.0.1", "localhost:9464", "tls://127.0.0.1:1", "127.0.0.1:0")
        ),
        # the policy
        (door_says("policy: []"), 4, "doors.radius.policy", "an unknown key", "one of", ""),
        (door_says("") + "policy:\n- id: office\n  when: {door: radius, network: 10.0.0.0/8}\n  exempt: true\n", 8,
         "policy[0].exempt",
         "nobody has checked", "a first factor", "office: such logins are refused"),
        (door_says("primary: {type: pam}\n    mode: mfa_only")
         + "policy:\n- id: office\n  when: {door: radius}\n  exempt: true\n", 9,
         "policy[0].exempt", "nobody has checked", "a first factor", ""),
        (door_says("mode: mfa_only\n    primary: {type: pam}") + "policy:\n- id: office\n  split: append\n", 8,
         "policy[0].split", "for RADIUS client 'nas'", "leaves such clients out", "nobody would check the password"),
    ],
)  # fmt: skip
def test_a_mistake_is_told(text: str, line: int, key: str, seen: str, expected: str, cure: str) -> None:
    """With line and key, what was seen, what was expected, how to mend it; nothing else is complained of."""
    [problem] = problems_of(text)

    assert (problem.line, problem.key) == (line, key)
    assert seen in problem.seen
    assert expected in problem.expected
    assert cure in problem.cure
    assert "hunter2" not in str(problem)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("policy: [{id: a, when: {door: radius}, exempt: true}]\n" + door_says("first_factor: done"), id="done"),
        pytest.param("policy: [{id: a, when: {door: radius}, exempt: true}]\n" + door_says("primary: {type: pam}"),
        id="primary"),
        pytest.param("policy: [{id: a, split: append}]\n" + door_says("primary: {type: pam}"), id="split in another mode"),
        pytest.param("policy: [{id: a, when: {door: [pam, radius]}, exempt: true}]\n" + door_says("") + "  pam:\n",
        id="two doors"),
        pytest.param("policy: [{id: a, when: {door: radius, nas: other}, exempt: true}]\n" + door_says(""),
        id="another client"),
        pytest.param(client_says("join_retries: false, preset: openvpn") + "    workers: 2", id="no join with two workers"),
        pytest.param(client_says("mode: mfa_only, first_factor: done") + "    primary: {type: pam}", id="done and mfa_only"),
        pytest.param(client_says("require_message_authenticator: auto"), id="auto for one host"),
        pytest.param("doors: {radius: {listen: [], clients: [], freeradius: {socket: s}}}", id="FreeRADIUS alone"),
        pytest.param(door_says("listen: []\n    freeradius: {socket: s}"), id="FreeRADIUS, with clients that it knows by name"),
        pytest.param(
            door_says("freeradius: {socket: s}\n    reply: [{attributes: {Class: a}, when: {client: freeradius}}]"),
            id="a reply rule for FreeRADIUS's clients",
        ),
        pytest.param(door_says("listen: ['0.0.0.0:1', '[::]:1', 'acct://*:2']"), id="both families one by one"),
    ],
)
def test_what_goes_together_is_taken(text: str) -> None:
    """The other side of the mistakes above."""
    assert load(text).doors.radius is not None


def test_every_mistake_is_told_at_once() -> None:
    """Within the door and beside it, in the order of the lines."""
    text = """\
doors:
  radius:
    listen: [nowhere, "*:1812"]
    clients:
      - {name: nas, network: 192.0.2.1/8, secret_file: s}
      - {name: nas, network: 192.0.2.1, secret_file: s, mode: x, wait: 5}
    workers: 0
    reply:
      - attributes:
          Filter-Id: 1.0
          Class: {octets: 1}
        when: {users: x}
    limits: {foo: 1}
    primary: {type: ldapp}
totp: {window: 9}
"""
    assert [(problem.line, problem.key) for problem in problems_of(text)] == [
        (3, "doors.radius.listen[0]"),
        (5, "doors.radius.clients[0].network"),
        (6, "doors.radius.clients[1].mode"),
        (6, "doors.radius.clients[1].wait"),
        (7, "doors.radius.workers"),
        (10, "doors.radius.reply[0].attributes.Filter-Id"),
        (11, "doors.radius.reply[0].attributes.Class"),
        (12, "doors.radius.reply[0].when.users"),
        (13, "doors.radius.limits.foo"),
        (14, "doors.radius.primary.type"),
        (15, "totp.window"),
    ]


def outcome_of(values: object) -> Config | ConfigurationProblems:
    """Load it; another exception fails the test."""
    try:
        return load(json.dumps(values).encode())
    except ConfigurationProblems as refused:
        return refused


PIECES = st.sampled_from(["*", "[", "]", ":", "::", "1812", "127.0.0.1", "/", "//", "tls", "acct", "udp", ".", "%", "0", "8",
"-", "é",
                          "2027-03-31", "T", "18:00", "+02:00", "Z", "0x", "ab", " ", "\n", "sha256:"])  # fmt: skip
NOTATIONS = st.lists(PIECES, max_size=7).map("".join) | st.text(max_size=12)


@given(NOTATIONS)
def test_any_notation_is_read_or_refused(text: str) -> None:
    """Of addresses, networks, dates, fingerprints, encodings, octets and names: never another exception."""
    client = {"name": "nas", "network": "192.0.2.1", "secret_file": "s"}
    for key in ("name", "network", "password_encoding", "source_attribute", "realms", "preset", "wait"):
        outcome_of({"doors": {"radius": {"clients": [client | {key: text}]}}})
    outcome_of({"doors": {"radius": {"clients": [client | {"previous_secret_file": "o", "previous_secret_until": text}]}}})
    outcome_of({"doors": {"radius": {"clients": [client | {"tls": {"subject": text, "fingerprint": [text]}}]}}})
    outcome_of({"doors": {"radius": {"clients": [client], "reply": [{"attributes": {text: {"octets": text}}}]}}})
    outcome_of({"metrics": {"listen": text}})
    read = outcome_of({"doors": {"radius": {"clients": [client], "listen": [text]}}})

    if isinstance(read, Config):
        assert read.doors.radius is not None
        [listen] = read.doors.radius.listen
        # What was read is read again as the same.
        again = outcome_of({"doors": {"radius": {"clients": [client], "listen": [str(listen)]}}})
        assert isinstance(again, Config)
        assert again.doors == read.doors


ADDRESSES = st.ip_addresses().filter(lambda one: getattr(one, "scope_id", None) is None)


@given(ADDRESSES, st.integers(1, 65_535), st.sampled_from([Wire.AUTHENTICATION, Wire.ACCOUNTING]))
def test_every_address_can_be_written(address: ipaddress.IPv4Address, port: int, wire: Wire) -> None:
    """And is read as itself."""
    listen = ListenAt(str(address), port, wire)

    assert with_door(f"listen: ['{listen}']").listen == (listen,)


@given(st.ip_addresses(), st.integers(0, 128))
def test_every_network_can_be_written(address: ipaddress.IPv4Address, prefix: int) -> None:
    """But those that only look like IPv6."""
    network = ipaddress.ip_network(f"{address}/{min(prefix, address.max_prefixlen)}", strict=False)

    outcome = outcome_of({"doors": {"radius": {"clients": [{"name": "n", "network": str(network), "secret_file": "s"}]}}})

    assert isinstance(outcome, Config)
    assert outcome.doors.radius is not None
    assert outcome.doors.radius.clients[0].network == network


@given(st.datetimes(datetime(2000, 1, 2), datetime(2999, 12, 30)), st.sampled_from([None, UTC, ZoneInfo("Asia/Tokyo")]))  # noqa: DTZ001
def test_every_moment_can_be_written(moment: datetime, zone: UTC | ZoneInfo | None) -> None:
    """With or without an offset."""
    moment = moment.replace(tzinfo=zone)

    client = with_client(f"previous_secret_file: o, previous_secret_until: '{moment.isoformat()}'")

    assert client.previous_secret_until is not None
    assert client.previous_secret_until.seconds(UTC) == Until(moment).seconds(UTC)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | NOTATIONS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from([*RadiusClient.model_fields, *ReplyRule.model_fields, *ReplyWhen.model_fields, "octets", "subject",
        "x"]),
        inner, max_size=4,
    ),
    max_leaves=12,
)  # fmt: skip


@given(st.dictionaries(st.sampled_from([*RadiusDoor.model_fields, "x"]), PLAIN, max_size=5))
def test_any_values_are_a_door_or_its_problems(values: dict[str, object]) -> None:
    """Any type in any place; what is told fits on a terminal."""
    outcome = outcome_of({"doors": {"radius": values}})

    if isinstance(outcome, ConfigurationProblems):
        assert outcome.problems
        assert all(line.isprintable() for line in str(outcome).split("\n"))
