"""The doctor on a host that was set up as the shipped files say, and on one that was not."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.end_to_end.daemon import Mfad
from tests.end_to_end.host import Host
from tests.end_to_end.programs import clean_environment

RECIPES = ("keyboard-interactive", "publickey-and-code", "password-and-code-one-line")


def complaints(host: Host, mfad: Mfad) -> list[str]:
    """What the doctor says of PAM and sshd that is not good."""
    done = subprocess.run(
        host.inside(sys.executable, "-m", "mfactl", "--config", mfad.config_path, "doctor", "--json"),
        capture_output=True, text=True, check=False, env=clean_environment(),
    )  # fmt: skip
    found = json.loads(done.stdout)
    assert {"pam", "sshd"} <= {one["place"] for one in found}, done.stderr
    return [one["seen"] for one in found if one["place"] in ("pam", "sshd", "socket") and one["weight"] != "ok"]


@pytest.fixture
def restored(host: Host) -> Iterator[None]:
    """The session's host has its recipe again afterwards."""
    yield
    host.set_pam("sshd", "sshd-keyboard-interactive")
    (host.directory / "ssh" / "sshd_config.d" / "mfad.conf").unlink(missing_ok=True)


@pytest.mark.parametrize("recipe", RECIPES)
def test_shipped_recipes_have_nothing_to_complain_of(host: Host, mfad: Mfad, restored: None, recipe: str) -> None:
    """sshd, sudo, su and login at once."""
    host.set_pam("sshd", f"sshd-{recipe}")
    host.install_drop_in(f"mfad-{recipe}.conf")

    assert complaints(host, mfad) == []


def test_recipe_without_its_drop_in_is_complained_of(host: Host, mfad: Mfad, restored: None) -> None:
    """Debian's sshd_config alone: nobody would be asked for a code, and a key would do."""
    seen = complaints(host, mfad)

    assert any("KbdInteractiveAuthentication is no" in one for one in seen)
    assert any("public key alone" in one for one in seen)
