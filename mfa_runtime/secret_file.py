"""What does a file with a shared secret hold?

Room rule: one secret a file, read as it stands but for one line end behind it; never a part of it in a message. A symbolic link
is followed, because that is how secrets are mounted; what counts is the file at its end.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from mfa_core.errors import ConfigurationError
from mfa_core.secret import Secret

MAX_BYTES = 1024
"""No peer takes a longer one: FreeRADIUS stops at 1,000."""


def read_secret_file(path: Path, *, key: str = "") -> Secret:
    """Read the secret at ``path``; ``key``, where given, is the key of the configuration that names it, for the messages.

    Raises:
        ConfigurationError: absent, unreadable, empty, too long, or readable by others.
    """
    where = f"{key}: {path}" if key else str(path)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as err:
        raise ConfigurationError(
            f"{where}: cannot be read: {err.strerror}", cure="write the secret there, and let mfad alone read it"
        ) from err
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        os.close(fd)
        raise ConfigurationError(f"{where}: is not a plain file", cure="name the file itself")
    with os.fdopen(fd, "rb") as source:
        # The group may read it: that is how root gives a secret to a daemon.
        if status.st_mode & 0o037 or status.st_uid not in {0, os.geteuid()}:
            raise ConfigurationError(
                f"{where}: mode {status.st_mode & 0o777:04o}, owner {status.st_uid}: others could read or change the secret",
                cure=f"chown it to root (or the uid of mfad) and `chmod 0400 {path}`",
            )
        text = source.read(MAX_BYTES + 3)
    # One line end, which editors and `echo` leave behind; a blank before it belongs to the secret.
    secret = Secret(text.removesuffix(b"\n").removesuffix(b"\r") if text.endswith(b"\n") else text)
    if not secret:
        raise ConfigurationError(f"{where}: is empty", cure="`openssl rand -base64 24` makes a good secret")
    if len(secret) > MAX_BYTES:
        raise ConfigurationError(f"{where}: has over {MAX_BYTES} octets", cure="name the file that holds the secret alone")
    return secret
