"""The doctor knows the mistakes that administrators make."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfa_core.verdict import Exemption, Reason, Unready
from mfactl.doctor.finding import Weight
from mfactl.doctor.pam_files import check_pam_files, check_sshd, read_pam_file
from mfactl.reasons import DEEDS, EXEMPTIONS, REFUSALS, UNREADY, advice

if TYPE_CHECKING:
    from tests.mfactl.conftest import Command

REPOSITORY = Path(__file__).parents[2]
CONFIG = REPOSITORY / "config"
GOOD = """\
auth     required  pam_unix.so
auth     required  pam_mfa.so socket_dir=/run/mfad
account  required  pam_mfa.so require_mfa socket_dir=/run/mfad
account  required  pam_unix.so
"""


def problems(text: str) -> list[str]:
    found = check_pam_files({"sshd": text}, socket_dir="/run/mfad", module_found=True)
    return [finding.seen for finding in found if finding.weight is not Weight.GOOD]


def test_a_good_file_is_good() -> None:
    """Required under auth and account."""
    assert problems(GOOD) == []


@pytest.mark.parametrize("control", ["requisite", "[success=ok default=die]", "[success=ok ignore=ignore default=bad]"])
def test_controls_whose_refusal_counts_are_good(control: str) -> None:
    """In either spelling."""
    assert problems(GOOD.replace("auth     required  pam_mfa.so", f"auth {control} pam_mfa.so")) == []


@pytest.mark.parametrize(
    "control",
    [
        "optional",
        "sufficient",
        "[success=1 default=ignore]",
        "[default=ignore]",
        "[success=ok authinfo_unavail=ignore default=die]",
    ],
)
def test_a_control_that_lets_a_wrong_code_through_is_a_problem(control: str) -> None:
    """The factor would be off, and nobody would notice."""
    (seen,) = problems(GOOD.replace("auth     required  pam_mfa.so", f"auth {control} pam_mfa.so"))

    assert "wrong code lets people in" in seen


@pytest.mark.parametrize("earlier", ["sufficient", "[success=2 default=ignore]", "[success=done default=ignore]"])
def test_a_line_that_jumps_over_the_module_is_a_problem(earlier: str) -> None:
    """A right password would be enough."""
    text = GOOD.replace("auth     required  pam_unix.so", f"auth {earlier} pam_unix.so\nauth requisite pam_deny.so")

    (seen,) = problems(text)

    assert "skips it" in seen


def test_a_jump_that_lands_on_the_module_is_good() -> None:
    """The layout of Debian's common-auth."""
    text = GOOD.replace(
        "auth     required  pam_unix.so", "auth [success=1 default=ignore] pam_unix.so\nauth requisite pam_deny.so"
    )

    assert problems(text) == []


def test_a_missing_account_line_is_found() -> None:
    """SSH keys and cron pass the auth stack by."""
    text = "\n".join(line for line in GOOD.splitlines() if not line.startswith("account  required  pam_mfa"))

    (seen,) = problems(text)

    assert "not under account" in seen


def test_another_socket_directory_is_found() -> None:
    """The module would look where nobody listens."""
    assert "looks for mfad in /tmp" in problems(GOOD.replace("/run/mfad", "/tmp", 1))[0]


def test_the_default_socket_directory_counts_too() -> None:
    """A line that names none looks in /run/mfad, wherever mfad listens."""
    assert problems(GOOD.replace(" socket_dir=/run/mfad", "")) == []
    found = check_pam_files({"sshd": GOOD.replace(" socket_dir=/run/mfad", "")}, socket_dir="/srv/run", module_found=True)
    assert any("looks for mfad in /run/mfad, not in /srv/run" in finding.seen for finding in found)


def test_an_account_line_that_refuses_nobody_is_found() -> None:
    """Without require_mfa the module has no opinion in that phase."""
    (seen,) = problems(GOOD.replace("require_mfa ", ""))

    assert "refuses nobody" in seen


def test_su_as_it_is_shipped_is_good() -> None:
    """Root is not asked, and an account line would refuse him."""
    text = "auth sufficient pam_rootok.so\nauth required pam_unix.so\nauth required pam_mfa.so\n"
    found = check_pam_files({"su": text}, socket_dir="/run/mfad", module_found=True)

    assert [finding.weight for finding in found] == [Weight.GOOD]


def test_comments_continuations_and_silent_lines_are_read() -> None:
    """pam.conf(5)."""
    text = "# auth optional pam_mfa.so\n-auth \\\n  required \\\n  /lib/security/pam_mfa.so debug # why\n@include x\n"

    lines = read_pam_file(text)

    assert [(line.number, line.control, line.is_ours, line.arguments) for line in lines] == [(2, "required", True, ("debug",))]


@given(st.text(max_size=300))
def test_any_text_can_be_looked_at(text: str) -> None:
    """A broken PAM file does not break the doctor."""
    list(check_pam_files({"x": text + "\nauth required pam_mfa.so"}, socket_dir="/run/mfad", module_found=False))


@pytest.mark.parametrize(
    ("changes", "seen"),
    [
        ({"usepam": "no"}, "UsePAM"),
        ({"kbdinteractiveauthentication": "no"}, "KbdInteractive"),
        ({"authenticationmethods": "any"}, "public key alone"),
        ({"authenticationmethods": "any", "passwordauthentication": "yes"}, "every prompt"),
    ],
)
def test_settings_of_sshd_that_ask_nobody_are_found(changes: dict[str, str], seen: str) -> None:
    """As ``sshd -T`` prints them."""
    settings = {
        "usepam": "yes", "kbdinteractiveauthentication": "yes", "passwordauthentication": "no",
        "authenticationmethods": "publickey,keyboard-interactive:pam",
    }  # fmt: skip

    assert [f.weight for f in check_sshd(settings, pam_file=GOOD)] == [Weight.GOOD]
    assert any(seen in finding.seen for finding in check_sshd(settings | changes, pam_file=GOOD))
    assert list(check_sshd(settings | changes, pam_file="auth required pam_unix.so")) == []


@pytest.mark.parametrize("methods", ["any", "keyboard-interactive:pam", "publickey,keyboard-interactive:pam password"])
@pytest.mark.parametrize(("recipe", "alone"), [("publickey-and-code", True), ("keyboard-interactive", False),
                                               ("password-and-code-one-line", False)])  # fmt: skip
def test_a_code_that_is_a_login_by_itself_is_found(methods: str, recipe: str, alone: bool) -> None:
    """The PAM file of *key, then code* without its drop-in; and no cure that would make it so."""
    pam_file = (CONFIG / "pam.d" / f"sshd-{recipe}").read_text()
    settings = {"usepam": "yes", "kbdinteractiveauthentication": "yes", "authenticationmethods": methods}

    found = list(check_sshd(settings, pam_file=pam_file))

    assert any("code alone is a login" in finding.seen for finding in found) is alone
    assert not any(alone and "`AuthenticationMethods keyboard" in finding.cure for finding in found)


def test_what_sshd_complains_of_is_told() -> None:
    """Methods that are switched off, for instance: sshd would not start."""
    (complaint,) = check_sshd("Disabled method in AuthenticationMethods", pam_file=GOOD)
    (nothing,) = check_sshd("", pam_file=GOOD)

    assert (complaint.weight, nothing.weight) == (Weight.PROBLEM, Weight.UNKNOWN)
    assert "Disabled method" in complaint.seen


@pytest.mark.parametrize("argument", ["requier_mfa", "socket_dir=/run/mfad/", "mode=both", "[prompt=Code: ] no"])
def test_an_argument_that_the_module_refuses_is_found(argument: str) -> None:
    """Everybody would be refused."""
    seen = problems(GOOD.replace("pam_mfa.so socket", f"pam_mfa.so {argument} socket", 1))

    assert any("refuses everybody" in one for one in seen)
    assert problems(GOOD.replace("pam_mfa.so socket", "pam_mfa.so [prompt=Code, please: ] socket", 1)) == []


def test_an_account_line_without_its_auth_line_is_found() -> None:
    """A misspelt module; not where an included file asks, and not in a part for others to include."""
    misspelt = GOOD.replace("auth     required  pam_mfa.so", "auth required pam_mfad.so")
    parts = {
        "sshd": "@include common-auth\naccount required pam_mfa.so require_mfa\n",
        "common-auth": "auth required pam_unix.so\nauth required pam_mfa.so\n",
        "common-account": "account required pam_mfa.so require_mfa\n",
    }
    found = check_pam_files(parts, socket_dir="/run/mfad", module_found=True)

    assert any("all are refused" in one for one in problems(misspelt))
    assert {finding.weight for finding in found} == {Weight.GOOD}


@pytest.mark.parametrize("control", ["required", "[success=ok default=bad]"])
@pytest.mark.parametrize("included", [False, True])
def test_a_promise_that_the_stack_does_not_keep_is_found(control: str, included: bool) -> None:
    """Who typed a wrong password would be told reasons, and offered an enrolment."""
    password = f"auth {control} pam_unix.so"
    files = {
        "sshd": GOOD.replace("auth     required  pam_unix.so", "@include common-auth" if included else password),
        "common-auth": password,
    }

    def seen(files: dict[str, str], promised: tuple[str, ...]) -> list[str]:
        found = check_pam_files(files, socket_dir="/run/mfad", module_found=True, promised=promised)
        return [finding.seen for finding in found if finding.weight is Weight.WARNING]

    in_line = files | {"sshd": files["sshd"].replace("pam_mfa.so socket", "pam_mfa.so first_factor=done socket", 1)}
    kept = {name: text.replace(password, "auth requisite pam_unix.so") for name, text in in_line.items()}

    assert seen(files, ()) == []
    for found in (seen(files, ("sshd",)), seen(in_line, ())):
        (told,) = found
        assert f"pam_unix.so in {'common-auth' if included else 'sshd'}:1 ({control}) goes on" in told
    assert seen(kept, ("sshd",)) == []


@pytest.mark.parametrize("recipe", ["sshd-keyboard-interactive", "sshd-publickey-and-code", "login", "su", "sudo"])
def test_shipped_promises_are_kept(recipe: str) -> None:
    """With Debian's common-auth."""
    debian = "auth [success=1 default=ignore] pam_unix.so nullok\nauth requisite pam_deny.so\nauth required pam_permit.so\n"
    files = {recipe: (CONFIG / "pam.d" / recipe).read_text(), "common-auth": debian}

    found = check_pam_files(files, socket_dir="/run/mfad", module_found=True)

    assert not any("first_factor" in finding.seen for finding in found)


def test_the_doctor_finds_that_mfad_is_down(mfactl: Command) -> None:
    """A problem, with status 1 and a cure."""
    answer = mfactl("doctor", "--json")

    assert answer.status == 1
    found = {(one["place"], one["weight"]) for one in answer.json}
    assert {("key", "ok"), ("store", "ok"), ("socket", "problem")} <= found
    assert all(one["cure"] for one in answer.json if one["weight"] != "ok")


def test_every_reason_is_explained() -> None:
    """For `mfactl why`."""
    assert set(REFUSALS) == set(Reason)
    assert set(UNREADY) == set(Unready)
    assert set(EXEMPTIONS) == set(Exemption)
    assert advice({"event": "attempt", "outcome": "accepted"}).meaning


@pytest.mark.parametrize("reason", [Reason.FIRST_FACTOR_FAILED, Reason.NO_CODE, Reason.UNKNOWN_USER])
def test_dn_that_is_no_user_is_not_taken_for_a_wrong_password(reason: Reason) -> None:
    """Over LDAP alone, and not where a refusal has another cause."""
    event = {"event": "attempt", "door": "ldap", "outcome": "rejected", "reason": reason, "user": "cn=wiki,dc=example,dc=org"}

    assert "gives no user" in advice(event).meaning
    assert "exempt.dn" in advice(event).cure
    for other in ({"user": "alice"}, {"door": "radius"}, {"reason": Reason.LOCKED}):
        told = event | other
        assert advice(told) == REFUSALS[told["reason"]]


def test_every_action_is_told_in_a_sentence() -> None:
    """As the source records them."""
    rooms = ("mfa_runtime", "mfactl", "authority", "mfad")
    sources = [path.read_text() for room in rooms for path in (REPOSITORY / room).rglob("*.py")]
    recorded = re.compile(r'(?:(?:record|_settle)\([^")]*|told_as=)"([a-z_]+\.[a-z_.]+)"')
    standings = {"agent.revoked", "agent.quarantined"}  # written by the standing that the host has from then on

    assert {action for text in sources for action in recorded.findall(text)} | standings == set(DEEDS)


def test_a_change_says_who_did_what_to_whom() -> None:
    """With its details; times as times, and nothing that moves the cursor."""
    lock = {"event": "admin", "action": "user.lock", "actor": "eve as root", "subject": "alice"}
    require = lock | {"action": "user.require", "details": {"grace_until": 1_800_000_000}}

    assert advice(lock | {"details": {"bypass_codes": 0, "reason": "left\x1b"}}).meaning == (
        r"eve as root locked alice (bypass codes 0, reason left\x1b)"
    )
    assert advice(require).meaning == "eve as root required a second factor of alice (grace until 2027-01-15 08:00:00Z)"
