"""What an administrator types, what comes back, and how it ends."""

from __future__ import annotations

import json
import os
import pwd
import re
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mfa_core.errors import MfaError
from mfa_core.model import Credential, CredentialState, FactorKind
from mfa_core.oath import code_at, step_at
from mfa_core.otpauth import decode_base32, decode_key_uri
from mfa_runtime.config import load_config, load_config_text
from mfactl.exit_codes import ExitCode, exit_code_of
from mfactl.pam import meaning_for
from mfactl.session import SKELETON, SYSTEM_CONFIG, skeleton_for
from pam_mfa.trial import MEANINGS, Outcome

if TYPE_CHECKING:
    from tests.mfactl.conftest import Command

REPOSITORY = Path(__file__).parents[2]


def code(secret: str, *, offset: int = 0) -> str:
    credential = Credential(1, FactorKind.TOTP, CredentialState.ACTIVE, decode_base32(secret))
    return code_at(credential, step_at(time.time(), 30) + offset)


def test_init_makes_what_is_missing_and_overwrites_nothing(mfactl: Command, tmp_path: Path) -> None:
    """A second one changes no byte of configuration and key."""
    before = {path: path.read_bytes() for path in (tmp_path / "mfad.yaml", tmp_path / "var/kek")}

    again = mfactl("init", "--json")

    assert again.status == 0
    assert (again.json["key"], again.json["store"]) == ("present", "present")
    assert {path: path.read_bytes() for path in before} == before
    assert stat.S_IMODE((tmp_path / "var/kek").stat().st_mode) == 0o400
    assert stat.S_IMODE((tmp_path / "var/state/mfad.sqlite").stat().st_mode) == 0o600


def test_init_makes_no_new_key_for_a_store_that_has_one(mfactl: Command, tmp_path: Path) -> None:
    """It would open nothing and hide that the right one is missing."""
    (tmp_path / "var/kek").unlink()

    answer = mfactl("init")

    assert answer.status == ExitCode.UNAVAILABLE
    assert not (tmp_path / "var/kek").exists()


def test_provisioning_prints_exactly_the_contract(mfactl: Command) -> None:
    """``enrol NAME --no-confirm --json`` adds the user and has five keys, the secret in base32."""
    answer = mfactl("enrol", "Alice", "--no-confirm", "--json")

    assert answer.status == 0
    assert list(answer.json) == ["user", "credential", "otpauth_uri", "secret", "recovery_key"]
    assert answer.json["user"] == "alice"
    assert len(decode_base32(answer.json["secret"])) == 20
    assert decode_key_uri(answer.json["otpauth_uri"]).secret.same_as(decode_base32(answer.json["secret"]))


def test_the_list_has_the_keys_of_the_contract(mfactl: Command) -> None:
    """A JSON list of objects; grace is null where there is none."""
    mfactl("enrol", "alice", "--no-confirm")
    mfactl("user", "require", "alice", "--days", "3")
    mfactl("user", "add", "bob")

    alice, bob = mfactl("user", "list", "--json").json

    assert {"name", "state", "factors", "grace_until", "locked"} <= set(alice)
    assert (alice["state"], alice["factors"], alice["locked"]) == ("active", ["totp"], False)
    assert alice["grace_until"] > time.time() + 2 * 86_400
    assert (bob["state"], bob["factors"], bob["grace_until"]) == ("none", [], None)


def test_an_empty_list_is_a_list(mfactl: Command) -> None:
    """Programs read it."""
    assert mfactl("user", "list", "--json").json == []


def test_enrolling_is_finished_by_a_code(mfactl: Command) -> None:
    """Pending, a wrong code, the right one, and the recovery key."""
    secret = mfactl("enrol", "alice", "--json").json["secret"]

    wrong = mfactl("confirm", "alice", "000000" if code(secret) != "000000" else "000001")
    right = mfactl("confirm", "alice", code(secret), "--json")
    again = mfactl("confirm", "alice", code(secret))

    assert (wrong.status, right.status, again.status) == (ExitCode.REFUSED, 0, ExitCode.CONFLICT)
    assert re.fullmatch(r"(?:[0-9A-Z]{4}-){5}[0-9A-Z]{4}", right.json["recovery_key"])


def test_the_code_can_be_piped(mfactl: Command) -> None:
    """It then stands in no list of processes."""
    secret = mfactl("enrol", "alice", "--json").json["secret"]

    assert mfactl("confirm", "alice", stdin=code(secret) + "\n").status == 0


def test_the_qr_code_fits_a_small_terminal(mfactl: Command) -> None:
    """80 columns; the code and the line after it within 23 rows, so that the prompt stands below."""
    answer = mfactl("enrol", "somebody-with-a-long-name")

    rows = answer.out.rstrip("\n").split("\n")
    drawn = [at for at, row in enumerate(rows) if "█" in row or "▀" in row]
    assert drawn
    assert len(rows) - drawn[0] <= 23
    assert max(len(rows[at]) for at in drawn) <= 80
    assert len(rows[-1]) <= 80


def test_the_recovery_key_stands_below_a_large_qr_code(mfactl: Command) -> None:
    """It is shown only once, and must not scroll off."""
    answer = mfactl("enrol", "alice", "--no-confirm", "--digits", "8", "--digest", "sha256")

    rows = answer.out.rstrip("\n").split("\n")
    assert any("█" in row for row in rows[:-1])
    assert re.fullmatch(r"Recovery key, shown only now: (?:[0-9A-Z]{4}-){5}[0-9A-Z]{4}", rows[-1])


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (("user", "show", "nobody"), ExitCode.NOT_FOUND),
        (("user", "add", "al ice"), ExitCode.USAGE),
        (("user", "add"), ExitCode.USAGE),
        (("backup", "."), ExitCode.USAGE),
        (("user", "add", "alice", "alice"), ExitCode.CONFLICT),
        (("cred", "revoke", "99"), ExitCode.NOT_FOUND),
        (("confirm", "alice", "123456"), ExitCode.NOT_FOUND),
        (("bypass", "issue", "alice"), ExitCode.USAGE),
        (("why", "0000"), ExitCode.NOT_FOUND),
        (("restore", "/nowhere"), ExitCode.USAGE),
        (("no-such-command",), ExitCode.USAGE),
        (("import", "otpauth", "/nowhere"), ExitCode.USAGE),
    ],
)
def test_every_refusal_has_its_exit_status_and_no_traceback(
    mfactl: Command, arguments: tuple[str, ...], status: ExitCode
) -> None:
    """One line of cause, one of cure, on stderr; nothing on stdout."""
    answer = mfactl(*arguments)

    assert answer.status == status
    assert "Traceback" not in answer.err
    assert answer.err
    assert answer.out == ""


def test_grace_has_bounds(mfactl: Command) -> None:
    """1 to 365 days."""
    mfactl("user", "add", "alice")

    assert [mfactl("user", "require", "alice", "--days", days).status for days in ("0", "366", "365")] == [2, 2, 0]


def test_no_grace_says_what_is_the_shortest(mfactl: Command) -> None:
    """Leaving the option out would give a week."""
    mfactl("user", "add", "alice")

    said = mfactl("user", "require", "alice", "--days", "0").err

    assert "1 to 365 are possible" in said
    assert "`--days 1` is the shortest" in said


def test_a_refusal_says_cause_and_cure(mfactl: Command) -> None:
    """In two lines."""
    assert mfactl("user", "show", "nobody").err.splitlines() == [
        "mfactl: there is no user nobody",
        "  cure: see `mfactl user list`, or add the user with `mfactl user add NAME`",
    ]


def test_a_broken_configuration_is_unavailable(mfactl: Command, tmp_path: Path) -> None:
    """With file and line."""
    (tmp_path / "mfad.yaml").write_text("role: standalone\nstate_dri: x\n")

    answer = mfactl("user", "list")

    assert answer.status == ExitCode.UNAVAILABLE
    assert "mfad.yaml:2" in answer.err


def test_every_problem_of_a_configuration_has_a_line_of_its_own(mfactl: Command, tmp_path: Path) -> None:
    """One cure for all of them."""
    (tmp_path / "mfad.yaml").write_text("role: standalone\nstate_dri: x\ntotp: {digits: 7}\nlog_level: loud\n")

    said = mfactl("policy", "check").err.splitlines()

    assert [line.split("mfad.yaml:")[1][0] for line in said[:-1]] == ["2", "3", "4"]
    assert all(line.startswith("mfactl: ") for line in said[:-1])
    assert said[-1].startswith("  cure: ")


def test_the_first_configuration_of_a_system_is_where_the_module_looks() -> None:
    """`mfactl --config /etc/mfad/mfad.yaml init` writes the documented defaults, not paths beside the file."""
    written = load_config_text(skeleton_for(SYSTEM_CONFIG), name="first", base=SYSTEM_CONFIG.parent)

    documented = load_config(REPOSITORY / "config" / "mfad.yaml")
    assert (written.state_dir, written.key_source, written.doors) == (
        documented.state_dir,
        documented.key_source,
        documented.doors,
    )
    assert skeleton_for(Path("here/mfad.yaml")) == SKELETON


def test_a_socket_that_nobody_answers_is_no_daemon(mfactl: Command, tmp_path: Path) -> None:
    """It stays behind after `kill -9`."""
    sockets = tmp_path / "var" / "run"
    sockets.mkdir()
    for name in ("priv.sock", "user.sock"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as left:
            left.bind(str(sockets / name))

    assert mfactl("status", "--json").json["mfad_listens"] is False


def test_a_refused_name_of_many_is_named(mfactl: Command, tmp_path: Path) -> None:
    """A file may have thousands."""
    (tmp_path / "names").write_text("alice\nal ice\n")

    answer = mfactl("user", "add", "--file", "names")

    assert answer.status == ExitCode.USAGE
    assert "'al ice'" in answer.err


def test_every_error_has_an_exit_status() -> None:
    """No subclass falls through to a wrong one."""
    plain = [kind for kind in MfaError.__subclasses__() if kind.__init__ is MfaError.__init__]

    assert {exit_code_of(kind("x")) for kind in plain} <= set(ExitCode)


def test_users_are_required_in_bulk_or_not_at_all(mfactl: Command, tmp_path: Path) -> None:
    """A file of names is one transaction."""
    mfactl("user", "add", "alice", "bob")
    (tmp_path / "names").write_text("# team\nalice\nnobody\n")

    refused = mfactl("user", "require", "--file", "names")
    listed = {user["name"]: user["requirement"] for user in mfactl("user", "list", "--json").json}
    done = mfactl("user", "require", "alice", "bob", "--json")

    assert refused.status == ExitCode.NOT_FOUND
    assert listed == {"alice": "inherit", "bob": "inherit"}
    assert [user["requirement"] for user in done.json] == ["required", "required"]


def test_a_revoked_user_is_enrolled_again_by_an_administrator(mfactl: Command) -> None:
    """`enrol` is an invitation then, and the log says so."""
    number = mfactl("enrol", "alice", "--no-confirm", "--json").json["credential"]
    mfactl("cred", "revoke", str(number))

    assert mfactl("user", "show", "alice", "--json").json["state"] == "revoked"
    assert mfactl("enrol", "alice").status == 0
    assert "user.invite" in mfactl("audit", "tail", "--json").out


def test_a_token_is_brought_back_with_two_codes_from_a_pipe(mfactl: Command) -> None:
    """Eight steps off; then again with the same codes, which are spent."""
    made = mfactl("enrol", "alice", "--no-confirm", "--json").json
    codes = f"{code(made['secret'], offset=8)}\n{code(made['secret'], offset=9)}\n"

    first = mfactl("cred", "resync", str(made["credential"]), stdin=codes)
    second = mfactl("cred", "resync", str(made["credential"]), stdin=codes)

    assert (first.status, second.status) == (0, ExitCode.REFUSED)


def test_the_log_is_shown_verified_exported_and_explained(mfactl: Command, tmp_path: Path) -> None:
    """From the newest events to one of them in words."""
    mfactl("user", "add", "alice")
    mfactl("user", "lock", "alice", "--reason", "left\x1b[31m")

    events = mfactl("audit", "tail", "--json").json
    plain = mfactl("audit", "tail")
    exported = mfactl("audit", "export", "log.jsonl")

    assert [event["action"] for event in events] == ["store.create", "user.add", "user.lock"]
    assert "\x1b" not in plain.out
    assert mfactl("audit", "verify").status == 0
    assert exported.status == 0
    assert [json.loads(line)["body"] for line in (tmp_path / "log.jsonl").read_text().splitlines()] == events
    told = mfactl("why", events[2]["id"].lower(), "--json")
    assert told.json[0]["subject"] == "alice"
    assert mfactl("why", events[2]["id"]).status == 0


def test_the_log_is_followed(mfactl: Command, tmp_path: Path) -> None:
    """An event that is written by another process appears, as one line of JSON."""
    words = ["audit", "tail", "-f", "--json", "--config", str(tmp_path / "mfad.yaml")]
    with subprocess.Popen(
        [sys.executable, "-m", "mfactl", *words], stdout=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
    ) as follower:  # fmt: skip
        assert follower.stdout is not None
        first = json.loads(follower.stdout.readline())
        mfactl("user", "add", "alice")
        second = json.loads(follower.stdout.readline())
        follower.terminate()

    assert (first["action"], second["action"]) == ("store.create", "user.add")


def test_a_policy_is_checked_and_explained(mfactl: Command) -> None:
    """The default rule requires a code of everyone."""
    assert mfactl("policy", "check").status == 0
    told = mfactl("policy", "explain", "--user", "alice", "--source", "192.0.2.1", "--group", "staff", "--json")
    assert (told.json["rule"], told.json["action"]) == ("default", "require")
    assert mfactl("policy", "explain", "--user", "alice").status == 0
    assert mfactl("policy", "explain", "--user", "alice", "--source", "nowhere").status == ExitCode.USAGE


@pytest.mark.parametrize(
    ("commands", "follows"),
    [
        ((), "refused: nobody here has this name"),
        (("user add alice",), "refused: the user has no factor that the rule accepts"),
        (("enrol alice --no-confirm",), "asked for a code"),
        (("enrol alice --no-confirm", "user lock alice"), "refused: an administrator locked this user"),
        (("user add alice", "user exempt alice"), "let in without a code: an administrator exempted this user"),
        (("user add alice", "user require alice --days 3"), "let in without a code: the user still has days to enrol"),
    ],
)
def test_an_explanation_knows_the_user(mfactl: Command, commands: tuple[str, ...], follows: str) -> None:
    """The same rule means something else for somebody who is locked, exempt or in his days of grace."""
    for words in commands:
        assert mfactl(*words.split()).status == 0

    told = mfactl("policy", "explain", "--user", "alice", "--json").json

    assert told["follows"] == follows
    assert f"so: {follows}" in mfactl("policy", "explain", "--user", "alice").out
    assert mfactl("audit", "tail", "-n", "1", "--json").json[0]["event"] == "admin"


def test_an_explanation_shows_enrolment_and_trust(mfactl: Command, tmp_path: Path) -> None:
    """And does without the store when it must."""
    config = tmp_path / "mfad.yaml"
    rule = "policy: [{id: here, when: {service: sshd}, enrol: at_login, trust_window: 1h}]"
    config.write_text(config.read_text().replace("policy: []", rule))

    shown = mfactl("policy", "explain", "--user", "alice")
    (tmp_path / "var/kek").unlink()
    without = mfactl("policy", "explain", "--user", "alice", "--json")

    assert "enrol at_login, trust window 3600 s" in shown.out
    assert (without.status, without.json["record"], without.json["enrol"]) == (0, None, "at_login")
    assert "not taken into account" in without.err


def test_a_trial_of_somebody_else_is_explained() -> None:
    """mfad lets an ordinary user ask about herself only; root, and her own refusal, mean what they meant."""
    refused = Outcome(6, "Permission denied", MEANINGS[6])
    wrong = Outcome(7, "Authentication failure", MEANINGS[7])
    nobody = pwd.getpwnam("nobody").pw_uid

    assert "only yourself can be tried without root" in meaning_for(refused, "alice", nobody)
    assert meaning_for(refused, "nobody", nobody) == meaning_for(refused, "alice", 0) == MEANINGS[6]
    assert meaning_for(wrong, "alice", nobody) == MEANINGS[7]


def test_one_rule_is_counted_as_one(mfactl: Command, tmp_path: Path) -> None:
    """And the doctor says of which file."""
    config = tmp_path / "mfad.yaml"
    config.write_text(config.read_text().replace("policy: []", "policy: [{id: only, when: {user: bob}}]"))

    assert "1 rule," in mfactl("policy", "check").out
    assert f"{config}: 1 rule\n" in mfactl("doctor").out


def test_a_list_of_uris_is_imported_once(mfactl: Command, tmp_path: Path) -> None:
    """Rehearsed, done, done again; a bad row ends with status 1 and a report of every row."""
    (tmp_path / "list").write_text(f"otpauth://totp/A:carol?secret={'A' * 32}\n")
    (tmp_path / "bad").write_text("rubbish\n")

    rehearsed = mfactl("import", "otpauth", "list", "--dry-run", "--json")
    first = mfactl("import", "otpauth", "list", "--json")
    again = mfactl("import", "otpauth", "list", "--json")
    bad = mfactl("import", "otpauth", "bad", "--report", "report.jsonl")

    assert (rehearsed.json["imported"], rehearsed.json["dry_run"]) == (1, True)
    assert (first.json["imported"], again.json["imported"], again.json["present"]) == (1, 0, 1)
    assert bad.status == ExitCode.REFUSED
    assert json.loads((tmp_path / "report.jsonl").read_text())["status"] == "problem"


def test_the_user_of_a_google_authenticator_file_is_its_folder(mfactl: Command, tmp_path: Path) -> None:
    """Or the one that is named."""
    home = tmp_path / "dave"
    home.mkdir()
    (home / ".google_authenticator").write_text(f'{"A" * 32}\n" TOTP_AUTH\n')

    mfactl("import", "google-authenticator", "dave/.google_authenticator")
    mfactl("import", "google-authenticator", "dave/.google_authenticator", "--user", "erin")

    assert [user["name"] for user in mfactl("user", "list", "--json").json] == ["dave", "erin"]


def test_a_table_from_a_pipe_is_imported(mfactl: Command) -> None:
    """``-`` is standard input."""
    answer = mfactl("import", "csv", "-", "--json", stdin=f"user,secret\ncarol,{'A' * 32}\n")

    assert answer.json["imported"] == 1


def test_backup_rotation_and_restore_go_together(mfactl: Command, tmp_path: Path) -> None:
    """A backup of before a rotation needs the key of before."""
    mfactl("enrol", "alice", "--no-confirm")
    assert mfactl("backup", "old.db").status == 0
    assert mfactl("key", "rotate", "--data", "--save-old", "old.kek").status == 0
    assert mfactl("backup", "new.db").status == 0

    with_another_key = mfactl("restore", "old.db")
    restored = mfactl("restore", "new.db", "--json")

    assert with_another_key.status == ExitCode.UNAVAILABLE
    assert restored.json["replaced_store_was_read"] is True
    assert mfactl("key", "status", "--json").json["unfinished_rotation"] is False
    assert (tmp_path / "old.kek").exists()


def test_a_backup_replaces_a_file_only_when_told_to(mfactl: Command, tmp_path: Path) -> None:
    """It may be the only good one."""
    (tmp_path / "old.db").write_text("precious")

    refused = mfactl("backup", "old.db")
    kept = (tmp_path / "old.db").read_text()
    forced = mfactl("backup", "old.db", "--force")

    assert (refused.status, kept, forced.status) == (ExitCode.CONFLICT, "precious", 0)
    assert "--force" in refused.err
    assert "backup.make" in mfactl("audit", "tail", "-n", "1").out


def test_status_counts(mfactl: Command) -> None:
    """And says that mfad does not listen."""
    mfactl("enrol", "alice", "--no-confirm")

    told = mfactl("status", "--json").json

    assert (told["users"], told["credentials"], told["mfad_listens"]) == ({"active": 1}, {"totp active": 1}, False)
    assert mfactl("status").status == 0


def test_no_secret_is_printed_but_where_it_is_asked_for(mfactl: Command, tmp_path: Path) -> None:
    """Every other command, the log, its export and the report of an import, for every kind of secret."""
    made = mfactl("enrol", "alice", "--no-confirm", "--json").json
    batch = mfactl("recovery", "new", "alice", "--json").json
    bypass = mfactl("bypass", "issue", "alice", "--reason", "lost", "--json").json
    (tmp_path / "list").write_text(f"otpauth://totp/A:carol?secret={'B' * 32}\nX{made['otpauth_uri']}\n")
    secrets = [made["secret"], made["recovery_key"], batch["recovery_key"], bypass["code"], "B" * 32, *batch["recovery_codes"]]

    said = [
        mfactl(*words)
        for words in (
            ("import", "otpauth", "list", "--report", "report"), ("user", "list", "--json"), ("user", "show", "alice"),
            ("user", "show", "alice", "--json"), ("cred", "list", "alice", "--json"), ("audit", "tail"), ("audit", "export"),
            ("audit", "tail", "--json"), ("key", "status", "--json"), ("status",), ("doctor",), ("backup", "b.db"),
        )
    ]  # fmt: skip

    everything = "".join(answer.out + answer.err for answer in said) + (tmp_path / "report").read_text()
    for secret in secrets:
        assert secret not in everything
        assert secret.replace("-", "") not in everything


def test_help_and_completion_do_not_load_the_store(tmp_path: Path) -> None:
    """`mfactl --help` answers at once: neither SQLAlchemy nor cryptography nor pydantic is imported for it."""
    program = (
        "import sys; from mfactl.__main__ import run; run(['--help']);"
        "print(sorted({'sqlalchemy', 'cryptography', 'pydantic', 'yaml', 'rich.progress', 'alembic'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
    )  # fmt: skip

    assert done.stdout.splitlines()[-1] == "[]"


def test_config_may_stand_anywhere_and_in_the_environment(
    mfactl: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the command, after it, or in MFAD_CONFIG; not behind ``--``."""
    from mfactl.__main__ import config_first, run

    assert config_first(["user", "list", "--config", "x"]) == ["--config", "x", "user", "list"]
    assert config_first(["user", "add", "--", "--config=x"]) == ["user", "add", "--", "--config=x"]
    monkeypatch.chdir("/")
    monkeypatch.setenv("MFAD_CONFIG", str(tmp_path / "mfad.yaml"))
    assert run(["user", "list"]) == 0


RADIUS_DOOR = """
  radius:
    clients: [{name: nas, network: 192.0.2.1, secret_file: nas.secret, require_message_authenticator: no}]
    reply: [{attributes: {Filter-Id: vpn}}]
"""


def test_a_radius_door_is_checked_with_its_files(mfactl: Command, tmp_path: Path) -> None:
    """By `policy check` and the doctor: what is broken ends with its line, what is weak is said."""
    config = tmp_path / "mfad.yaml"
    secret = tmp_path / "nas.secret"
    secret.write_text("a shared secret of 29 octets.\n")
    secret.chmod(0o400)
    config.write_text(config.read_text().replace("doors:\n", f"doors:{RADIUS_DOOR}", 1))

    sound = mfactl("policy", "check")
    weak = [one for one in mfactl("doctor", "--json").json if one["place"] == "radius"]
    config.write_text(config.read_text().replace("Filter-Id", "Filtr-Id"))
    broken = mfactl("policy", "check")
    problems = [one for one in mfactl("doctor", "--json").json if one["place"] == "radius"]

    assert (sound.status, "doors pam, radius" in sound.out) == (0, True)
    assert "warning: RADIUS client 'nas' (192.0.2.1/32): requests need no Message-Authenticator" in sound.err
    assert [(one["weight"], bool(one["cure"])) for one in weak] == [("warning", True)]
    assert broken.status != 0
    assert "doors.radius.reply[0].attributes.Filtr-Id" in broken.err
    assert [one["weight"] for one in problems] == ["problem"]
    assert "Filtr-Id" in problems[0]["seen"]


def test_a_radius_door_is_checked_with_its_certificates(mfactl: Command, tmp_path: Path) -> None:
    """They would end a start of mfad and refuse a reload."""
    config = tmp_path / "mfad.yaml"
    door = """
  radius:
    listen: ["tls://127.0.0.1:2083"]
    clients: [{name: nas, tls: {subject: [nas.example.org]}}]
    tls: {certificate_file: absent.pem, key_file: absent.key, client_ca_file: absent-ca.pem}
"""
    config.write_text(config.read_text().replace("doors:\n", f"doors:{door}", 1))

    checked = mfactl("policy", "check")

    assert (checked.status, "doors.radius.tls: certificate_file and key_file cannot be used" in checked.err) == (5, True)
