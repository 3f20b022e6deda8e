"""Where the key-encryption key comes from: a root-only file, or a systemd credential.

Room rule: the only file that reads or writes key-encryption keys. A key file holds one line for each key, the current one
first; during ``mfactl key rotate`` it holds two, so that a crash at any point leaves a store that opens::

    mfad-key-1 <16 hex digits of its id> <32 bytes in base64>
"""

from __future__ import annotations

import base64
import binascii
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from mfa_core.errors import ConfigurationError
from mfa_core.secret import Secret
from mfa_runtime.sealing import KEY_BYTES, RandomBytes, key_id

_MAGIC = "mfad-key-1"
_MAX_BYTES = 4096
_RESTORE = "restore the key file from where it was kept; for a new installation, which has no store yet, run `mfactl init`"


@dataclass(frozen=True, slots=True)
class KeyEncryptionKeys:
    """The keys that unwrap a store's data keys; the first one wraps new ones."""

    keys: tuple[Secret, ...]

    @property
    def current(self) -> Secret:
        """The key that wraps."""
        return self.keys[0]

    def by_id(self, wanted: str) -> Secret:
        """The key with this id.

        Raises:
            ConfigurationError: it is not here.
        """
        for key in self.keys:
            if key_id(key) == wanted:
                return key
        raise ConfigurationError(
            f"the store was sealed under key {wanted}, but the key file holds {', '.join(key_id(k) for k in self.keys)}",
            cure="point key_file at the key file that belongs to this store, or restore it from where it was kept",
        )


def load_key_source(source: str, *, credentials_directory: str | None) -> KeyEncryptionKeys:
    """Load keys from ``systemd-creds:NAME`` (read from ``credentials_directory``) or from the path of a key file.

    Raises:
        ConfigurationError: absent, unreadable, readable by others, or not a key file.
    """
    if source.startswith("systemd-creds:"):
        name = source.removeprefix("systemd-creds:")
        if not credentials_directory:
            raise ConfigurationError(
                f"key: {source} needs a credential from systemd, and this process was given none",
                cure=f"add LoadCredentialEncrypted={name}:... to the unit, or use key_file",
            )
        return parse_key_file(_read(Path(credentials_directory) / name, ours_only=False), where=source)
    return parse_key_file(_read(Path(source), ours_only=True), where=source)


def parse_key_file(text: bytes, *, where: str) -> KeyEncryptionKeys:
    """Parse the text of a key file.

    Raises:
        ConfigurationError: it is not one. The message never holds a part of it.
    """
    keys: list[Secret] = []
    for number, line in enumerate(text.decode("ascii", "replace").splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        words = line.split()
        try:
            if len(words) != 3 or words[0] != _MAGIC:
                raise ValueError
            key = Secret(base64.b64decode(words[2], validate=True))
        except (ValueError, binascii.Error) as err:
            raise ConfigurationError(
                f"{where}:{number}: not a line of a key file (expected `{_MAGIC} ID BASE64`)",
                cure="restore the key file from its backup; without it the sealed secrets are lost",
            ) from err
        if len(key) != KEY_BYTES or key_id(key) != words[1]:
            raise ConfigurationError(
                f"{where}:{number}: the key does not match its id: the line is damaged",
                cure="restore the key file from its backup",
            )
        keys.append(key)
    if not keys:
        raise ConfigurationError(f"{where}: holds no key", cure=_RESTORE)
    return KeyEncryptionKeys(tuple(keys))


def format_key_file(keys: KeyEncryptionKeys) -> bytes:
    """The text of a key file."""
    lines = ["# The key-encryption key of mfad. Without it the store is unreadable: keep a copy apart from backups."]
    lines += [f"{_MAGIC} {key_id(key)} {base64.b64encode(key.reveal()).decode()}" for key in keys.keys]
    return ("\n".join(lines) + "\n").encode()


def new_key(random: RandomBytes) -> Secret:
    """A fresh 256-bit key."""
    return Secret(random(KEY_BYTES))


def write_key_file(path: Path, keys: KeyEncryptionKeys) -> None:
    """Replace the key file atomically and durably, mode 0400."""
    temporary = path.with_name(path.name + ".new")
    temporary.unlink(missing_ok=True)
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o400)
    try:
        with os.fdopen(fd, "wb") as out:
            out.write(format_key_file(keys))
            out.flush()
            os.fsync(out.fileno())
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _read(path: Path, *, ours_only: bool) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError as err:
        raise ConfigurationError(f"{path}: there is no key file", cure=_RESTORE) from err
    except OSError as err:
        raise ConfigurationError(
            f"{path}: cannot be opened as a key file: {err.strerror}", cure="it must be a plain file that mfad may read"
        ) from err
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        os.close(fd)
        raise ConfigurationError(f"{path}: is not a plain file", cure="point key_file at the key file itself")
    with os.fdopen(fd, "rb") as source:
        if ours_only and (status.st_mode & 0o077 or status.st_uid not in {0, os.geteuid()}):
            raise ConfigurationError(
                f"{path}: mode {status.st_mode & 0o777:04o}, owner {status.st_uid}: others could read the key",
                cure=f"chown it to root (or the uid of mfad) and `chmod 0400 {path}`",
            )
        return source.read(_MAX_BYTES)
