"""The key file is ours alone, whole, and never quoted."""

from __future__ import annotations

import base64
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfa_core.errors import ConfigurationError
from mfa_core.secret import Secret
from mfa_runtime.key_file import (
    KeyEncryptionKeys,
    format_key_file,
    load_key_source,
    new_key,
    parse_key_file,
    write_key_file,
)
from mfa_runtime.sealing import key_id

KEY, OLD = Secret(bytes(range(32))), Secret(bytes(range(32, 64)))
KEYS = KeyEncryptionKeys((KEY, OLD))
TEXT = format_key_file(KEYS)
LINE = next(line for line in TEXT.decode().splitlines() if not line.startswith("#"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A good key file."""
    write_key_file(tmp_path / "kek", KEYS)
    return tmp_path / "kek"


def test_what_is_written_is_read(path: Path) -> None:
    """Both keys, the current one first."""
    loaded = load_key_source(str(path), credentials_directory=None)

    assert [k.reveal() for k in loaded.keys] == [KEY.reveal(), OLD.reveal()]
    assert loaded.current.same_as(KEY)
    assert loaded.by_id(key_id(OLD)).same_as(OLD)


def test_it_is_written_for_its_owner_alone_and_in_one_piece(path: Path) -> None:
    """Mode 0400, and nothing is left beside it; also over an older one and over a file that a crash left."""
    (path.parent / "kek.new").write_text("half")
    write_key_file(path, KeyEncryptionKeys((OLD,)))

    assert stat.S_IMODE(path.stat().st_mode) == 0o400
    assert [p.name for p in path.parent.iterdir()] == ["kek"]
    assert load_key_source(str(path), credentials_directory=None).current.same_as(OLD)


@pytest.mark.parametrize("mode", [0o400, 0o600, 0o500])
def test_a_file_for_its_owner_alone_is_read(path: Path, mode: int) -> None:
    """Editors leave 0600."""
    path.chmod(mode)

    assert load_key_source(str(path), credentials_directory=None).current.same_as(KEY)


@pytest.mark.parametrize("mode", [0o440, 0o404, 0o420, 0o401, 0o644, 0o666, 0o777])
def test_a_file_that_others_can_reach_is_refused(path: Path, mode: int) -> None:
    """core-5-59: with the mode and the command that mends it."""
    path.chmod(mode)

    with pytest.raises(ConfigurationError, match=f"{mode:04o}") as refused:
        load_key_source(str(path), credentials_directory=None)

    assert "chmod 0400" in refused.value.cure


def test_what_is_no_plain_file_is_refused(path: Path) -> None:
    """A link (to a file that its owner may change), a directory, a pipe that never answers, a device."""
    link, pipe = path.with_name("link"), path.with_name("pipe")
    link.symlink_to(path)
    os.mkfifo(pipe, 0o400)

    for wrong in (link, path.parent, pipe, Path("/dev/null")):
        with pytest.raises(ConfigurationError):
            load_key_source(str(wrong), credentials_directory=None)


def test_a_missing_file_says_what_to_do(tmp_path: Path) -> None:
    """core-5-59."""
    with pytest.raises(ConfigurationError, match="no key file") as refused:
        load_key_source(str(tmp_path / "none"), credentials_directory=None)

    assert refused.value.cure.startswith("restore the key file from where it was kept")
    assert "mfactl init" in refused.value.cure


def test_a_credential_of_systemd_is_read(tmp_path: Path) -> None:
    """Its mode is systemd's business."""
    (tmp_path / "mfad-kek").write_bytes(TEXT)
    (tmp_path / "mfad-kek").chmod(0o440)

    assert load_key_source("systemd-creds:mfad-kek", credentials_directory=str(tmp_path)).current.same_as(KEY)


@pytest.mark.parametrize("directory", [None, ""])
def test_a_credential_without_systemd_says_what_to_do(directory: str | None) -> None:
    """core-5-59."""
    with pytest.raises(ConfigurationError) as refused:
        load_key_source("systemd-creds:mfad-kek", credentials_directory=directory)

    assert "LoadCredentialEncrypted=mfad-kek" in refused.value.cure


_ID, _BODY = LINE.split()[1:]


@pytest.mark.parametrize(
    "text",
    [
        "", "# only a comment\n", LINE[:-1], LINE[:30], f"mfad-key-2 {_ID} {_BODY}", f"mfad-key-1 {_BODY}", f"{LINE} more",
        f"mfad-key-1 {'0' * 16} {_BODY}", f"mfad-key-1 {_ID} {base64.b64encode(b'x' * 31).decode()}",
        f"mfad-key-1 {_ID} {_BODY[:-4]}",
        f"mfad-key-1 {_ID} {_BODY[1:] + _BODY[0]}", f"mfad-key-1 {_ID} -{_BODY[1:]}", f"{LINE}\nrubbish", _BODY,
    ],
    ids=["empty", "comment", "cut", "half", "other-format", "no-id", "more-words", "wrong-id", "31-bytes", "short", "rotated",
         "url-alphabet", "second-line", "key-alone"],
)  # fmt: skip
def test_a_damaged_file_is_refused_and_not_quoted(text: str) -> None:
    """core-5-59, core-5-62: the line number is enough to find it."""
    with pytest.raises(ConfigurationError) as refused:
        parse_key_file(text.encode(), where="/etc/mfad/kek")

    said = str(refused.value) + refused.value.cure
    assert "/etc/mfad/kek" in said
    assert _BODY[:8] not in said
    assert refused.value.cure


def test_a_key_that_is_not_here_is_named_by_its_id() -> None:
    """Which says nothing about the key."""
    with pytest.raises(ConfigurationError) as refused:
        KEYS.by_id("0123456789abcdef")

    assert key_id(KEY) in str(refused.value)
    assert base64.b64encode(KEY.reveal()).decode() not in str(refused.value)


def test_new_keys_are_random() -> None:
    """32 bytes from the source that is given."""
    assert len(new_key(os.urandom)) == 32
    assert not new_key(os.urandom).same_as(new_key(os.urandom))


def test_keys_show_nothing() -> None:
    """core-5-62."""
    assert "Secret(...)" in repr(KEYS)


@given(st.binary(max_size=300))
def test_any_bytes_are_keys_or_a_refusal(text: bytes) -> None:
    """No other error."""
    with pytest.raises(ConfigurationError):
        parse_key_file(text, where="kek")
