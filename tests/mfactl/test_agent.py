"""mfactl agent on both sides; status and doctor of authorities and agents; what an agent refuses."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import typer
from sqlalchemy import Connection, insert

from mfa_core.errors import ConfigurationError
from mfa_core.secret import Secret
from mfa_runtime.administration.act import Act
from mfa_runtime.administration.hosts import admit_host, quarantine_host, reserve_host
from mfa_runtime.agent.clock import HostClock, boot_id
from mfa_runtime.agent.trouble import Trouble, What
from mfa_runtime.config import load_config
from mfa_runtime.config.sections import Role
from mfa_runtime.key_file import load_key_source
from mfa_runtime.protocol.syncing import rules_digest
from mfa_runtime.protocol.words import KeyProtection as WireProtection
from mfa_runtime.protocol.words import protection_of
from mfa_runtime.store import agent_state, hosts, key_pairs, shared_rules
from mfa_runtime.store.agent_state import AgentState
from mfa_runtime.store.alarms import AlarmKind, raise_alarm
from mfa_runtime.store.hosts import HostMaterial, HostState, KeyProtection
from mfa_runtime.store.key_pairs import KeyPair
from mfa_runtime.store.key_table import load_keyring
from mfa_runtime.store.opening import open_store
from mfa_runtime.store.schema import users
from mfactl.__main__ import run
from mfactl.agent_groups import MaterialWord, ProtectionWord
from mfactl.agent_hosts import ALARMS, StateWord
from mfactl.app import app
from mfactl.doctor.agent_host import check_agent
from mfactl.doctor.authority import check_authority
from mfactl.doctor.finding import Finding, Weight
from mfactl.init import RoleWord
from mfactl.session import SYSTEM_CONFIG, Options, open_session, skeleton_for
from mfactl.spans import span
from mfad.build import build
from tests.mfactl.conftest import Answer

DAY_S = 86_400.0
NOWHERE = "https://127.0.0.1:1"
"""Nobody listens on port 1."""


@dataclass(frozen=True, slots=True)
class Place:
    """An installation, and commands for it."""

    config: Path
    type: Callable[..., Answer] = field(repr=False)

    def __call__(self, *words: str, stdin: str = "") -> Answer:
        return self.type(self.config, *words, stdin=stdin)

    def ok(self, *words: str, stdin: str = "") -> Answer:
        answer = self(*words, stdin=stdin)
        assert answer.status == 0, answer
        return answer

    @contextmanager
    def writing(self) -> Iterator[tuple[Connection, Act]]:
        """What a test puts into the store."""
        config = load_config(self.config)
        store = open_store(config.store_place)
        try:
            keks = load_key_source(config.key_source, credentials_directory=None)
            with store.writing() as connection:
                keyring = load_keyring(connection, keks, random=os.urandom)
                yield connection, Act("test", time.time(), os.urandom, keyring)
        finally:
            store.close()

    def found(self, place: str) -> list[Finding]:
        """What the doctor says of one thing in this role, without what is good."""
        context = typer.Context(typer.main.get_command(app), obj=Options(self.config))
        with open_session(context) as session:
            check = check_authority if session.config.role is Role.AUTHORITY else check_agent
            return [one for one in check(session) if one.place == place and one.weight is not Weight.GOOD]


@pytest.fixture(scope="session")
def templates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh installation of each role, to be copied: making one takes as long as a test."""
    place = tmp_path_factory.mktemp("templates")
    web = (("agent", "group", "add", "web"), ("agent", "entitle", "web", "staff"))
    for role, more in (("standalone", ()), ("authority", web), ("agent", ())):
        (place / role).mkdir()
        for words in (("init", "--role", role), *more):
            with redirect_stdout(io.StringIO()):
                assert run([*words, f"--config={place / role / 'mfad.yaml'}"]) == 0
    return place


@pytest.fixture
def installed(
    tmp_path: Path, templates: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], Place]:
    """Give an installation of a role."""
    monkeypatch.delenv("MFAD_CONFIG", raising=False)

    def type_(config: Path, *words: str, stdin: str = "") -> Answer:
        capsys.readouterr()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        status = run([*words, f"--config={config}"])
        said = capsys.readouterr()
        return Answer(int(status), said.out, said.err)

    def make(role: str) -> Place:
        return Place(shutil.copytree(templates / role, tmp_path / role) / "mfad.yaml", type_)

    return make


@pytest.fixture
def authority(installed: Callable[[str], Place]) -> Place:
    """An authority with the host group web, where staff may log in."""
    return installed("authority")


@pytest.fixture
def agent(installed: Callable[[str], Place]) -> Place:
    """An agent that has joined nothing yet."""
    return installed("agent")


def admit(connection: Connection, act: Act, name: str, **heard: Any) -> int:
    """A host that has joined."""
    number = reserve_host(connection)
    admit_host(
        connection, act, number=number, name=name, host_group="web", certificate=os.urandom(32), hpke_public=bytes(32),
        key_protection="file", software="mfad 0.0.1", address="192.0.2.9",
    )  # fmt: skip
    host = hosts.find(connection, number)
    assert host is not None
    after = hosts.heard(host, now=heard.pop("now", act.now), **heard)
    hosts.save_heard(connection, [after] if after is not None else [])
    return number


def join_rows(place: Place, **more: Any) -> None:
    """What `mfactl agent join` and a first sync leave, without an authority."""
    now = time.time()
    moment = HostClock(boot_id())(now)
    terms = {
        "host_group": "web", "material": "seed", "max_offline_s": DAY_S, "offline_after_s": 0.0, "offline_services": ["sshd"],
        "key_protection": more.pop("key_protection", "any"),
    }  # fmt: skip
    certificate_until = more.pop("certificate_until", now + 30 * DAY_S)
    values: dict[str, Any] = {
        "host_id": 7, "host_name": "web1", "authority_id": "authority-one", "authorities": (NOWHERE,), "trust": _anchor(),
        "signers": {}, "generation": "1", "cursor": 5, "not_after": now + DAY_S, "floor": now, "synced_at": now,
        "boot_id": moment.boot_id, "boottime_s": moment.boottime_s, "host": json.dumps(terms | more.pop("terms", {})),
    }  # fmt: skip
    with place.writing() as (connection, act):
        agent_state.save(connection, AgentState(**(values | more)))
        pair = KeyPair("tls", Secret(b"key"), b"", b"certificate", now, certificate_until)
        key_pairs.save(connection, act.keyring, pair)


def _anchor() -> bytes:
    from authority.certificate_authority import make_authority

    made = make_authority("test", now=time.time())
    from ssl import DER_cert_to_PEM_cert

    return DER_cert_to_PEM_cert(made.certificate).encode()


# -- words that stand twice, because the other place is slow to load ----------------------------------------------------------


def test_words_are_those_of_the_store() -> None:
    """And of the protocol."""
    assert [*MaterialWord] == [one.value for one in HostMaterial]
    assert [*ProtectionWord] == [one.value for one in KeyProtection]
    assert [*StateWord] == [one.value for one in HostState]
    assert [*RoleWord] == [one.value for one in Role]
    assert {"any", *WireProtection} == set(ProtectionWord)
    assert set(ALARMS) == {one.value for one in AlarmKind}


# -- init ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", RoleWord)
@pytest.mark.parametrize("place", [Path("here/mfad.yaml"), SYSTEM_CONFIG], ids=["here", "system"])
def test_the_first_configuration_of_each_role_loads(role: RoleWord, place: Path, tmp_path: Path) -> None:
    """With the role that was asked for, and the same places."""
    file = tmp_path / "mfad.yaml"
    file.write_text(skeleton_for(place, role))

    config = load_config(file)

    assert config.role.value == role
    assert config.state_dir == (Path("/var/lib/mfad") if place == SYSTEM_CONFIG else tmp_path / "var" / "state")
    assert bool(config.enabled_doors) is (role != "authority")


def test_init_makes_the_keys_of_an_authority_once(authority: Place) -> None:
    """A second time they are there."""
    before = authority.ok("agent", "token", "web", "--json").json["token"].rpartition(".")[2]

    assert authority.ok("init", "--json").json["authority"] == "present"
    assert authority.ok("agent", "token", "web", "--json").json["token"].rpartition(".")[2] == before


def test_init_does_not_change_a_role(authority: Place) -> None:
    """A file that says another one is refused, with what to do."""
    answer = authority("init", "--role", "agent")

    assert answer.status == 4
    assert "role: authority" in answer.err


# -- groups and entitlement ---------------------------------------------------------------------------------------------------


def test_a_host_group_is_made_changed_listed_and_removed(authority: Place) -> None:
    """Times with units, services with commas."""
    made = authority.ok(
        "agent", "group", "add", "edge", "--material", "codebook", "--max-offline", "3d", "--offline-after", "30s",
        "--services", "sshd, sudo", "--key-protection", "systemd-creds", "--json",
    ).json  # fmt: skip
    changed = authority.ok("agent", "group", "set", "edge", "--max-offline", "0", "--json").json

    assert made == {
        "name": "edge", "material": "codebook", "max_offline_s": 259_200.0, "offline_after_s": 30.0,
        "offline_services": ["sshd", "sudo"], "key_protection": "systemd-creds",
    }  # fmt: skip
    assert changed == made | {"max_offline_s": 0.0}
    assert [one["name"] for one in authority.ok("agent", "group", "list", "--json").json] == ["edge", "web"]
    assert "never" in authority.ok("agent", "group", "list").out
    authority.ok("agent", "group", "remove", "edge")
    assert [one["name"] for one in authority.ok("agent", "group", "list", "--json").json] == ["web"]


def test_who_may_log_in_where(authority: Place) -> None:
    """Entitled, entitled again, withdrawn, withdrawn again."""
    assert authority.ok("agent", "entitle", "web", "*", "--json").json["changed"] is True
    assert authority.ok("agent", "entitle", "web", "*", "--json").json["changed"] is False
    assert authority.ok("agent", "group", "list", "--json").json[0]["user_groups"] == ["*", "staff"]
    assert "Nobody is in staff yet" in authority.ok("agent", "entitle", "web", "staff").out
    assert "no users yet: mfactl enrol" in authority.ok("agent", "entitle", "web", "*").out
    authority.ok("agent", "withdraw", "web", "*")
    assert authority("agent", "withdraw", "web", "*").status == 3


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (("agent", "group", "add", "web"), 4),
        (("agent", "group", "add", "x", "--max-offline", "3"), 2),
        (("agent", "group", "add", "x", "--max-offline", "15d"), 2),
        (("agent", "group", "add", "x", "--material", "seeds"), 2),
        (("agent", "group", "set", "web"), 2),
        (("agent", "group", "set", "nowhere", "--max-offline", "1h"), 3),
        (("agent", "group", "remove", "nowhere"), 3),
        (("agent", "entitle", "nowhere", "staff"), 3),
        (("agent", "token", "nowhere"), 3),
        (("agent", "token"), 2),
        (("agent", "token", "web", "--list"), 2),
        (("agent", "token", "web", "--ttl", "25h"), 2),
        (("agent", "token", "web", "--name", "a b"), 2),
        (("agent", "token", "--cancel", "9"), 3),
        (("agent", "revoke", "nobody"), 3),
        (("agent", "release", "nobody"), 3),
        (("agent", "forget", "nobody"), 3),
        (("agent", "status", "nobody"), 3),
        (("agent", "holders", "9"), 3),
        (("agent", "alarms", "--ack", "9"), 3),
        (("agent", "join", "https://a", "--token", "x"), 4),
        (("enrol", "alice", "--host", "nobody"), 3),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_mistake_ends_as_documented(authority: Place, words: tuple[str, ...], status: int) -> None:
    """With a cause, and nothing changed."""
    answer = authority(*words)

    assert answer.status == status
    assert answer.err


# -- tokens --------------------------------------------------------------------------------------------------------------------


def test_a_token_is_the_whole_of_the_answer(authority: Place) -> None:
    """What is for people stands on stderr; it names no authority but by the digest of its certificate."""
    answer = authority.ok("agent", "token", "web", "--name", "web1")

    assert re.fullmatch(r"mfad1\.[A-Za-z0-9_-]{27}\.[A-Za-z0-9_-]{43}\n", answer.out)
    assert "web1" in answer.err


def test_tokens_are_listed_without_the_token_and_taken_back(authority: Place) -> None:
    """By number."""
    made = authority.ok("agent", "token", "web", "--ttl", "1h", "--json").json
    [listed] = authority.ok("agent", "token", "--list", "--json").json

    assert (listed["id"], listed["host_group"], listed["host_name"]) == (made["id"], "web", None)
    assert listed["not_after"] == made["not_after"]
    assert "token" not in listed
    authority.ok("agent", "token", "--cancel", str(made["id"]))
    assert authority.ok("agent", "token", "--list", "--json").json == []


# -- hosts ---------------------------------------------------------------------------------------------------------------------


def test_hosts_are_listed_with_what_is_known_of_them(authority: Place) -> None:
    """State, last contact, lease, key, clock, whether they are behind."""
    with authority.writing() as (connection, act):
        admit(connection, act, "web1", cursor=10_000, lease_until=act.now + DAY_S, clock_offset_s=-7.0)
        admit(connection, act, "web2")

    first, second = authority.ok("agent", "list", "--json").json

    assert (first["host"], first["state"], first["behind"], first["clock_offset_s"]) == ("web1", "active", False, -7.0)
    assert first["lease_until"] >= time.time() + DAY_S - 60
    assert (second["host"], second["behind"], second["lease_until"]) == ("web2", True, None)
    assert authority.ok("agent", "list", "--state", "revoked", "--json").json == []
    assert authority.ok("agent", "status").out == authority.ok("agent", "list").out
    assert "web1 (number 1), active" in authority.ok("agent", "status", "web1").out
    assert "none yet" in authority.ok("agent", "status", "2").out


def test_a_host_is_revoked_and_forgotten(authority: Place) -> None:
    """Not before its lease is over: until then it may decide alone."""
    with authority.writing() as (connection, act):
        admit(connection, act, "gone")
        admit(connection, act, "far", lease_until=act.now + DAY_S)

    assert authority.ok("agent", "revoke", "gone", "--json").json["state"] == "revoked"
    assert authority("agent", "revoke", "gone").status == 4
    authority.ok("agent", "forget", "gone")
    assert "may decide alone until" in authority.ok("agent", "revoke", "far").out
    refused = authority("agent", "forget", "far")
    assert (refused.status, "wait until" in refused.err, "agent revoke" in refused.err) == (4, True, False)


def test_a_quarantine_ends_with_a_release_and_its_alarm_with_an_administrator(authority: Place) -> None:
    """The alarm says what it means."""
    with authority.writing() as (connection, act):
        host = hosts.find(connection, admit(connection, act, "twin"))
        assert host is not None
        quarantine_host(connection, act, host, AlarmKind.CLONE_SUSPECTED, reason="an older certificate")

    [alarm] = authority.ok("agent", "alarms", "--json").json
    assert (alarm["kind"], alarm["host"], alarm["acknowledged_at"]) == ("clone_suspected", "twin", None)
    assert "agent release" in alarm["cure"]
    assert [one.weight for one in authority.found("alarms")] == ["problem"]
    assert any("quarantine" in one.seen for one in authority.found("hosts"))
    assert authority.ok("agent", "release", "twin", "--json").json["state"] == "active"
    assert authority("agent", "release", "twin").status == 4
    authority.ok("agent", "alarms", "--ack", str(alarm["id"]))
    assert "No alarms" in authority.ok("agent", "alarms").out
    assert "(seen)" in authority.ok("agent", "alarms", "--all").out


def test_an_alarm_names_the_user(authority: Place) -> None:
    """By name, not by number."""
    authority.ok("user", "add", "alice")
    with authority.writing() as (connection, act):
        raise_alarm(connection, AlarmKind.REPLAY_SUSPECTED, now=act.now, user_id=1, details={"step": 5})

    assert "user alice step=5" in authority.ok("agent", "alarms").out


def test_holders_of_a_credential(authority: Place) -> None:
    """The hosts that may verify it alone, until when; after it was revoked those that have not heard of it."""
    with authority.writing() as (connection, act):
        admit(connection, act, "web1", cursor=0, lease_until=act.now + DAY_S)
    authority.ok("user", "add", "alice")
    authority.ok("user", "group", "alice", "add", "staff")
    number = str(authority.ok("enrol", "alice", "--no-confirm", "--json").json["credential"])

    [holder] = authority.ok("agent", "holders", number, "--json").json
    authority.ok("cred", "revoke", number, "--force")
    [behind] = authority.ok("agent", "holders", number, "--json").json

    assert (holder["host"], holder["why"]) == ("web1", "entitled")
    assert (behind["host"], behind["why"], behind["until"]) == ("web1", "behind", holder["until"])
    with authority.writing() as (connection, _act):
        host = hosts.find_by_name(connection, "web1")
        assert host is not None
        heard = hosts.heard(host, now=time.time(), cursor=10_000)
        hosts.save_heard(connection, [heard] if heard is not None else [])
    assert "No host" in authority.ok("agent", "holders", number).out


def test_a_credential_for_one_host(authority: Place) -> None:
    """By the name of the host."""
    with authority.writing() as (connection, act):
        number = admit(connection, act, "laptop")

    made = authority.ok("enrol", "alice", "--host", "laptop", "--no-confirm", "--json").json

    assert made["user"] == "alice"
    with authority.writing() as (connection, _act):
        from mfa_runtime.store.schema import credentials

        assert connection.execute(credentials.select()).one().host_id == number


# -- the doctor of an authority -----------------------------------------------------------------------------------------------


def test_the_doctor_of_an_authority_finds_what_keeps_people_out(authority: Place) -> None:
    """Nobody entitled, nobody in a group, a user in none, hosts that are silent, old or wrong about the time."""
    authority.ok("user", "add", "alice")
    authority.ok("agent", "group", "add", "empty")
    with authority.writing() as (connection, act):
        admit(connection, act, "silent", now=act.now - 3600)
        admit(connection, act, "late", clock_offset_s=100.0, cursor=10_000)

    seen = [one.seen for one in authority.found("hosts") + authority.found("users") + authority.found("clock")]

    for words in (
        "nobody may log in on the hosts of empty", "nobody is in staff", "1 user in no group",
        "silent for more than 5 minutes: silent", "other software than this one", "with a wrong clock: late",
    ):  # fmt: skip
        assert any(words in one for one in seen), (words, seen)
    assert any("nobody listens" in one["seen"] for one in authority("doctor", "--json").json)
    assert all(one.cure for one in authority.found("hosts"))


def test_the_doctor_compares_the_rules_of_authorities(authority: Place) -> None:
    """Another one with other rules is a problem; one that has not spoken for hours, or has the same, is none."""
    own = rules_digest(load_config(authority.config).rules)
    with authority.writing() as (connection, act):
        shared_rules.note(connection, "mfa1", own, act.now)
        shared_rules.note(connection, "old", "0" * 64, act.now - DAY_S)
    assert authority.found("policy") == []

    with authority.writing() as (connection, act):
        shared_rules.note(connection, "mfa2", "0" * 64, act.now - 5)
        shared_rules.note(connection, "mfa2", "1" * 64, act.now)

    [found] = authority.found("policy")
    assert "the authority mfa2 goes by" in found.seen


def test_the_status_of_an_authority_counts_hosts_and_alarms(authority: Place) -> None:
    """By state, and who was heard lately."""
    with authority.writing() as (connection, act):
        admit(connection, act, "web1")
        admit(connection, act, "web2", now=act.now - 3600)
        raise_alarm(connection, AlarmKind.JOURNAL_FORK, now=act.now)

    status = authority.ok("status", "--json").json

    assert status["role"] == "authority"
    assert (status["hosts"], status["hosts_connected"], status["alarms"]) == ({"active": 2}, 1, 1)
    assert "mfactl agent alarms" in authority.ok("status").out


# -- an agent ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ("user", "add", "alice"),
        ("user", "lock", "alice"),
        ("enrol", "alice"),
        ("cred", "revoke", "1"),
        ("recovery", "new", "alice"),
        ("bypass", "issue", "alice", "--reason", "x"),
        ("agent", "list"),
        ("agent", "token", "web"),
        ("agent", "group", "add", "web"),
        ("agent", "revoke", "web1"),
        ("agent", "alarms"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_is_the_authoritys_is_refused_on_an_agent(agent: Place, words: tuple[str, ...]) -> None:
    """With its address."""
    join_rows(agent)

    answer = agent(*words)

    assert answer.status == 4
    assert f"administered at {NOWHERE}" in answer.err


def test_an_import_is_refused_on_an_agent(agent: Place, tmp_path: Path) -> None:
    """Before a row is read."""
    (tmp_path / "uris").write_text("otpauth://totp/a:b?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ\n")

    assert agent("import", "otpauth", str(tmp_path / "uris")).status == 4


def test_keys_of_an_agent_are_its_own(agent: Place) -> None:
    """Rotation is not refused, and its event stands in the journal of the epoch."""
    join_rows(agent, journal_epoch=2)

    agent.ok("key", "rotate")

    with agent.writing() as (connection, _act):
        from mfa_runtime.store import audit_log

        assert "local:2" in {entry.node for entry in audit_log.tail(connection, limit=5)}


def test_the_policy_of_an_agent_is_its_authoritys(agent: Place) -> None:
    """Explained by the rules that were heard; the group of this host is in them, and names are its authority's."""
    rules = {
        "format": 1, "identity": {"fold_case": True, "realms": ["example.org"]},
        "policy": [{"id": "here", "when": {"host_group": "web", "user": "ali*"}, "exempt": True}],
    }  # fmt: skip
    join_rows(agent)
    assert agent("policy", "explain", "--user", "alice").status == 4

    join_rows(agent, rules=json.dumps(rules))
    told = agent.ok("policy", "explain", "--user", "Alice@example.org", "--group", "x", "--json").json
    elsewhere = agent.ok("policy", "explain", "--user", "alice", "--group", "x", "--host-group", "db", "--json").json

    assert (told["user"], told["rule"], told["action"]) == ("alice", "here", "exempt")
    assert elsewhere["rule"] == "default"
    assert "the authority's" in agent.ok("policy", "check").out


def test_standalone_has_no_hosts(installed: Callable[[str], Place]) -> None:
    """It says which role has."""
    answer = installed("standalone")("agent", "list")

    assert answer.status == 4
    assert "role: authority" in answer.err


def test_an_agent_that_has_not_joined_says_so(agent: Place) -> None:
    """In status and doctor, with the command."""
    assert "agent join" in agent("agent", "status").err
    assert "agent join" in agent.ok("status").out
    assert any("joined no authority" in one["seen"] for one in agent("doctor", "--json").json)


@pytest.mark.parametrize("role", ["standalone", "authority"])
def test_the_store_of_an_agent_is_used_by_no_other_role(agent: Place, role: str) -> None:
    """It would let people in without an end. The daemon refuses it, too."""
    join_rows(agent)
    settings = [line for line in agent.config.read_text().splitlines() if not line.startswith(("role:", "agent:"))]
    agent.config.write_text("\n".join([f"role: {role}", *settings]))

    for words in [("status",), ("user", "list"), ("init",)]:
        refused = agent(*words)
        assert (refused.status, "store is that of the agent web1" in refused.err) == (5, True)
    [seen] = [one for one in agent("doctor", "--json").json if one["place"] == "store"]
    assert (seen["weight"], "role: agent" in seen["cure"]) == ("problem", True)
    with pytest.raises(ConfigurationError, match="store is that of the agent web1"):
        build(load_config(agent.config))


def test_an_agent_says_what_it_holds_and_until_when(agent: Place) -> None:
    """All in one answer for programs, and for people."""
    join_rows(agent)
    with agent.writing() as (connection, _act):
        values = {"name": "alice", "state": "active", "requirement": "inherit", "grace_until": 0.0, "locked": False}
        connection.execute(insert(users).values(id=1, created_at=0.0, **values))

    told = agent.ok("agent", "status", "--json").json

    assert (told["host"], told["standing"], told["online"], told["alone"]) == ("web1", "joined", True, True)
    assert (told["users"], told["offline_services"], told["key_protection"]) == (1, ["sshd"], "file")
    assert told["lease_until"] > time.time()
    assert told["journal"]["unsent"] >= 1
    assert [(one["url"], one["answers"]) for one in told["probes"]] == [(NOWHERE, False)]
    assert "for sshd" in agent.ok("agent", "status").out
    assert agent("agent", "status", "web2").status == 2


@pytest.mark.parametrize(
    ("rows", "place", "words", "weight"),
    [
        ({}, "agent", "127.0.0.1:1 cannot be reached", "problem"),
        ({"standing": "revoked"}, "agent", "has revoked this host", "problem"),
        ({"standing": "quarantined"}, "agent", "in quarantine", "problem"),
        ({"cursor": -1}, "agent", "never had an answer", "problem"),
        ({"not_after": time.time() - 60}, "agent", "the lease ended at", "problem"),
        ({"not_after": time.time() + 3600}, "agent", "may decide alone for", "warning"),
        ({"floor": time.time() + 3600}, "clock", "a time that has passed", "problem"),
        ({"synced_at": time.time() - 7200}, "clock", "was set by more than 90 s", "problem"),
        ({"digest": "0" * 64}, "agent", "not those that the authority sent", "problem"),
        ({"key_protection": "systemd-creds"}, "key", "the group asks for systemd-creds", "problem"),
        ({"certificate_until": time.time() - 60}, "tls", "certificate ended at", "problem"),
        ({"certificate_until": time.time() + DAY_S}, "tls", "certificate ends at", "warning"),
        ({"trouble": Trouble(What.STORE, 1.0, "no space", "make room").written()}, "disk", "could not be stored", "problem"),
        ({"trouble": Trouble(What.RULES, 1.0, "format 2", "update").written()}, "agent", "rules cannot be read", "problem"),
        ({"trouble": Trouble(What.ANSWER, 1.0, "old", "look").written()}, "agent", "was not used", "problem"),
        ({"trouble": Trouble(What.REFUSED, 1.0, "no", "join").written()}, "agent", "refuses this host", "problem"),
        ({"trouble": Trouble(What.CLOCK, 1.0, "an hour", "set").written()}, "clock", "not the authority's", "warning"),
        ({"trouble": Trouble(What.UNREACHABLE, 1.0, "gone", "").written()}, "agent", "it decides alone", "warning"),
    ],
    ids=lambda value: next(iter(value), "unreachable") if isinstance(value, dict) else "",
)
def test_the_doctor_of_an_agent_names_cause_and_cure(
    agent: Place, rows: dict[str, Any], place: str, words: str, weight: str
) -> None:
    """Each of what goes wrong."""
    join_rows(agent, **rows)

    found = [one for one in agent.found(place) if words in one.seen]

    assert [one.weight for one in found] == [weight], agent.found(place)
    assert all(one.cure for one in found)


def test_a_journal_that_does_not_go_is_found(agent: Place) -> None:
    """When its oldest event has waited for an hour."""
    join_rows(agent)
    assert agent.found("journal") == []

    with agent.writing() as (connection, act):
        Act("test", act.now - 7200, os.urandom, act.keyring, "local:2").record(connection, "user.lock", "alice")
        agent_state.change(connection, journal_epoch=2, journal_seq=0)

    [found] = agent.found("journal")
    assert "1 event not told" in found.seen


def test_a_host_that_never_decides_alone_is_no_problem(agent: Place) -> None:
    """Its group says so."""
    join_rows(agent, terms={"max_offline_s": 0.0})

    assert not any("lease" in one.seen or "alone" in one.seen for one in agent.found("agent"))
    assert agent.ok("agent", "status", "--json").json["alone_refused"] == "not_offline"


def test_the_status_of_an_agent_that_is_cut_off(agent: Place) -> None:
    """Since when, until when, and why."""
    join_rows(agent, trouble=Trouble(What.UNREACHABLE, time.time() - 90, "no route", "mend it").written())

    said = agent.ok("status").out

    assert "not reached since" in said
    assert "trouble      no route" in said
    assert agent.ok("status", "--json").json["agent"]["offline_since"]


def test_how_a_key_is_kept() -> None:
    """By where it comes from."""
    assert protection_of("systemd-creds:mfad") == WireProtection.SYSTEMD_CREDS
    assert protection_of("/etc/mfad/kek") == WireProtection.FILE


@pytest.mark.parametrize(
    ("words", "stdin", "status", "told"),
    [
        (("http://127.0.0.1:1",), "", 2, "https://"),
        (("https://127.0.0.1:1/x",), "", 2, "https://"),
        ((NOWHERE, "--token", "x", "--token-file", "y"), "", 2, "both"),
        ((NOWHERE, "--token-file", "/nowhere"), "", 2, "cannot be read"),
        ((NOWHERE,), "not a token\n", 2, "no join token"),
        ((NOWHERE, "--token-file", "-"), f"mfad1.{'A' * 27}.{'A' * 43}\n", 5, "cannot be reached"),
        ((NOWHERE, "--token", f"mfad1.{'A' * 27}.{'A' * 43}"), "", 5, "cannot be reached"),
    ],
)
def test_a_join_that_cannot_be(agent: Place, words: tuple[str, ...], stdin: str, status: int, told: str) -> None:
    """The reason, and never a part of the token."""
    answer = agent("agent", "join", *words, stdin=stdin)

    assert (answer.status, told in answer.err) == (status, True), answer
    assert "AAAA" not in answer.err + answer.out


def test_a_host_joins_an_authority(authority: Place, agent: Place) -> None:
    """A real one, with the token from a file; a second time the token is worth nothing. Then it is reached."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    text = authority.config.read_text().replace("0.0.0.0:18443", f"127.0.0.1:{port}")
    authority.config.write_text(re.sub("certificate_names: .*", "certificate_names: [127.0.0.1]", text))
    token = agent.config.parent / "token"
    token.write_text(authority.ok("agent", "token", "web").out)
    url = f"https://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mfad", "--config", str(authority.config)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as mfad:
        try:
            assert mfad.stderr is not None
            assert any("ready" in line for line in mfad.stderr)

            joined = agent.ok("agent", "join", url, "--token-file", str(token), "--name", "Web1", "--json").json
            again = agent("agent", "join", url, "--token-file", str(token))
            told = agent.ok("agent", "status", "--json").json

            assert (joined["host"], joined["host_group"], joined["authority"]) == ("web1", "web", url)
            assert again.status == 4
            assert (told["host"], told["probes"][0]["answers"]) == ("web1", True)
            assert [one["host"] for one in authority.ok("agent", "list", "--json").json] == ["web1"]
            assert not any("cannot be reached" in one.seen for one in agent.found("agent"))
            assert [one.seen for one in authority.found("listen") if "nobody" in one.seen] == []
        finally:
            mfad.terminate()


def test_why_says_from_which_host_an_event_came(authority: Place) -> None:
    """And that the host decided alone."""
    with authority.writing() as (connection, act):
        number = admit(connection, act, "web1")
        from mfa_core.audit import AttemptDecided, By, Outcome
        from mfa_runtime.store import audit_log

        event = AttemptDecided(
            "01ALONE0000000000000000000", act.now, "pam", "sshd", "alice", Outcome.REJECTED, reason="mismatch", by=By.HOST
        )
        audit_log.append(connection, [event], node=f"host:{number}:1", keyring=act.keyring)

    [told] = authority.ok("why", "01ALONE0000000000000000000", "--json").json

    assert told["host"] == "web1"
    assert "alice pam/sshd (journal of web1)" in authority.ok("audit", "tail").out
    assert told["advice"].startswith("no authority answered, this host decided alone")


def test_the_journal_of_a_host_that_joins_later_is_followed(authority: Place) -> None:
    """A chain that was not there when `audit tail -f` began."""
    command = [sys.executable, "-m", "mfactl", "audit", "tail", "-f", "-n", "1", "--json", "--config", str(authority.config)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as follower:
        try:
            assert follower.stdout is not None
            first = json.loads(follower.stdout.readline())
            with authority.writing() as (connection, act):
                act = Act("mfad", act.now, os.urandom, act.keyring, "host:1:1")
                act.record(connection, "agent.join", "web1")
            second = json.loads(follower.stdout.readline())
        finally:
            follower.terminate()

    assert (first["action"], second["action"]) == ("host_group.entitle", "agent.join")


@pytest.mark.parametrize(
    ("seconds", "words"), [(0, "0s"), (59, "59s"), (61, "1m 1s"), (86_399, "23h 59m"), (259_200, "3d"), (-90, "1m 30s")]
)
def test_lengths_of_time_for_people(seconds: float, words: str) -> None:
    """The two largest units."""
    assert span(seconds) == words


