"""Whom root gives what it makes in the daemon's directories, and what it never gives away."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mfa_runtime.ownership import belong_like
from mfa_runtime.state_lock import LOCK_FILE, StateLock

MFAD = 4711

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A state directory of mfad's user."""
    made = tmp_path / "state"
    made.mkdir()
    os.chown(made, MFAD, MFAD)
    return made


@pytest.fixture
def shadow(tmp_path: Path) -> Path:
    """A file that is root's alone."""
    made = tmp_path / "shadow"
    made.write_text("root:*")
    made.chmod(0o600)
    return made


def test_what_root_makes_belongs_to_the_owner_of_the_directory(folder: Path) -> None:
    """Else mfad could not open its lock."""
    with StateLock(folder).shared():
        pass

    assert (folder / LOCK_FILE).stat().st_uid == MFAD


def test_a_link_to_a_file_of_roots_is_not_given_away(folder: Path, shadow: Path) -> None:
    """Whoever owns the directory can put a hard link in the place of the lock, where fs.protected_hardlinks is off."""
    os.link(shadow, folder / LOCK_FILE)

    with StateLock(folder).shared():
        pass

    assert shadow.stat().st_uid == 0


def test_a_symbolic_link_is_not_followed(folder: Path, shadow: Path) -> None:
    """Neither the file nor the link changes hands."""
    link = folder / "kek"
    link.symlink_to(shadow)

    with pytest.raises(OSError, match="symbolic links"):
        belong_like(link, folder.stat())

    assert (shadow.stat().st_uid, link.lstat().st_uid) == (0, 0)


def test_nothing_but_a_plain_file_is_given_away(folder: Path) -> None:
    """A queue or a directory is none of what root makes."""
    os.mkfifo(folder / "queue")
    (folder / "directory").mkdir()

    for name in ("queue", "directory"):
        belong_like(folder / name, folder.stat())

        assert (folder / name).stat().st_uid == 0
