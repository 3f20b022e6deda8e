"""A secret is read as it stands, from a file that others can neither read nor change, and never told."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mfa_core.errors import ConfigurationError
from mfa_runtime.secret_file import MAX_BYTES, read_secret_file


def write(path: Path, content: bytes, mode: int = 0o400) -> Path:
    """A file of that mode."""
    path.write_bytes(content)
    path.chmod(mode)
    return path


@pytest.mark.parametrize(
    ("content", "secret"),
    [
        pytest.param(b"hunter2", b"hunter2", id="plain"),
        pytest.param(b"hunter2\n", b"hunter2", id="line end"),
        pytest.param(b"hunter2\r\n", b"hunter2", id="line end of another system"),
        pytest.param(b"hunter2\n\n", b"hunter2\n", id="only one line end"),
        pytest.param(b"hunter2\r", b"hunter2\r", id="no line end"),
        pytest.param(b" hunter2 \n", b" hunter2 ", id="blanks belong to it"),
        pytest.param(b"\x00\xff#x", b"\x00\xff#x", id="any octets"),
        pytest.param(b"x" * MAX_BYTES + b"\r\n", b"x" * MAX_BYTES, id="longest"),
    ],
)
def test_one_line_end_is_taken_off(tmp_path: Path, content: bytes, secret: bytes) -> None:
    """Nothing else."""
    assert read_secret_file(write(tmp_path / "s", content)).reveal() == secret


@pytest.mark.parametrize("mode", [0o400, 0o600, 0o440, 0o640])
def test_the_group_may_read_it(tmp_path: Path, mode: int) -> None:
    """That is how root gives a secret to a daemon."""
    assert read_secret_file(write(tmp_path / "s", b"hunter2", mode)).reveal() == b"hunter2"


@pytest.mark.parametrize("mode", [0o404, 0o402, 0o420, 0o660, 0o644, 0o601, 0o610])
def test_what_others_can_read_or_change_is_refused(tmp_path: Path, mode: int) -> None:
    """With the command that mends it."""
    with pytest.raises(ConfigurationError, match=f"mode {mode:04o}") as refused:
        read_secret_file(write(tmp_path / "s", b"hunter2", mode))

    assert "chmod 0400" in refused.value.cure


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_file_of_somebody_else_is_refused(tmp_path: Path) -> None:
    """He could write another secret into it."""
    path = write(tmp_path / "s", b"hunter2")
    os.chown(path, 65_534, 0)

    with pytest.raises(ConfigurationError, match="owner 65534"):
        read_secret_file(path)


def test_what_is_no_secret_is_refused(tmp_path: Path) -> None:
    """Absent, a folder, a pipe that nobody writes to, empty, nothing but a line end, too long."""
    os.mkfifo(tmp_path / "pipe", 0o400)
    cases = {
        tmp_path / "absent": "No such file",
        tmp_path: "not a plain file",
        tmp_path / "pipe": "not a plain file",
        write(tmp_path / "empty", b""): "empty",
        write(tmp_path / "newline", b"\n"): "empty",
        write(tmp_path / "long", b"x" * (MAX_BYTES + 1)): "has over",
    }

    for path, told in cases.items():
        with pytest.raises(ConfigurationError, match=told) as refused:
            read_secret_file(path)
        assert str(path) in str(refused.value)
        assert refused.value.cure


def test_a_link_leads_to_the_file_that_counts(tmp_path: Path) -> None:
    """Orchestrators mount secrets so; the target's mode is looked at."""
    (tmp_path / "good").symlink_to(write(tmp_path / "s", b"hunter2"))
    (tmp_path / "bad").symlink_to(write(tmp_path / "t", b"hunter2", 0o644))

    assert read_secret_file(tmp_path / "good").reveal() == b"hunter2"
    with pytest.raises(ConfigurationError, match="0644"):
        read_secret_file(tmp_path / "bad")


def test_the_key_is_told_and_the_secret_is_not(tmp_path: Path) -> None:
    """Not even a piece of one that is too long."""
    with pytest.raises(ConfigurationError) as refused:
        read_secret_file(write(tmp_path / "s", b"hunter2" * 200), key="primary.secret_file")

    assert str(refused.value).startswith("primary.secret_file: ")
    assert "hunter2" not in str(refused.value) + refused.value.cure
