"""Which clients have signed, ever: learnt once, by all workers, over restarts, and never forgotten by mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from radius_plugin.signers import SignersOnDisk


@pytest.mark.parametrize("name", ["vpn", "a/b", "..", "ü" * 300, "\udcff", "a\0b", ""])
def test_what_is_learnt_holds_for_all_workers_and_after_a_restart(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "state" / "signers"
    one, another = SignersOnDisk(folder), SignersOnDisk(folder)
    assert not one.has_signed(name)
    assert not another.has_signed(name)
    one.remember(name)
    for signers in (one, another, SignersOnDisk(folder)):
        assert signers.has_signed(name)
        assert not signers.has_signed(f"{name}2")
    (file,) = folder.iterdir()
    assert file == one.file_of(name)
    assert file.stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700


def test_names_that_differ_have_files_that_differ(tmp_path: Path) -> None:
    signers = SignersOnDisk(tmp_path)
    names = ["vpn", "VPN", "vpn ", "vp", "\udcff", "?"]
    assert len({signers.file_of(name) for name in names}) == len(names)


def test_what_cannot_be_written_is_said_and_known_until_the_restart(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "signers"
    folder.write_text("a file stands in the way")
    signers = SignersOnDisk(folder)
    signers.remember("vpn")
    assert signers.has_signed("vpn")
    assert "cannot be kept over a restart" in caplog.text


def test_what_cannot_be_read_counts_as_signed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Fail closed: else whoever fills the disk or its table of files opens the door to unsigned requests."""

    def fails(_: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    signers = SignersOnDisk(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "exists", fails)
        assert signers.has_signed("vpn")
    assert "so that it must" in caplog.text
    assert not signers.has_signed("vpn"), "nothing was learnt by it"
