"""Where does FreeRADIUS's module find us? (radius.sock)

Room rule: what makes, checks and removes that one listening socket lives here, and who may speak on it. The uid that the kernel
names is the lock; the directory's group only keeps others from knocking, where we may give it to one.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mfa_core.errors import ConfigurationError
from mfa_runtime import seqpacket

BACKLOG = 256


@dataclass(frozen=True, slots=True)
class Place:
    """The socket, listening and non-blocking, and the inode by which it is known as ours."""

    listener: socket.socket
    path: Path
    inode: int

    def close(self) -> None:
        """Stop listening, and remove the socket unless another mfad has put its own there meanwhile."""
        seqpacket.remove(self.path, self.inode)
        self.listener.close()


def allowed_uids(users: Sequence[str]) -> frozenset[int]:
    """Return root, our own uid, and those of ``users`` that exist: mfad may be installed before FreeRADIUS is."""
    return frozenset({0, os.geteuid(), *(entry.pw_uid for entry in _entries(users))})


def open_place(path: Path, users: Sequence[str]) -> Place:
    """Make the socket at ``path``, and its directory when it is missing: root's and ours, entered by the group of ``users``.

    Raises: ConfigurationError when the place is not safe, is too long a path, or another mfad answers there.
    """
    if not seqpacket.fits(path):
        raise ConfigurationError(
            f"{path}: a path of more than {seqpacket.PATH_MAX} bytes", cure="choose a shorter path for the socket"
        )
    groups = [entry.pw_gid for entry in _entries(users)]
    group = groups[0] if groups and os.geteuid() == 0 else -1
    _prepare(path.parent, group)
    seqpacket.clear(path, cure="stop it, or choose another path for the socket")

    def lock(draft: Path) -> None:
        draft.chmod(0o660 if _gave(draft, group) else 0o666)

    listener = seqpacket.listen(path, lock, backlog=BACKLOG, cure="let mfad's user write to the directory")
    return Place(listener, path, path.lstat().st_ino)


def _entries(users: Sequence[str]) -> list[pwd.struct_passwd]:
    found = []
    for name in users:
        with contextlib.suppress(KeyError):
            found.append(pwd.getpwnam(name))
    return found


def _gave(path: Path, group: int) -> bool:
    """Give ``path`` to ``group``. False where we may not (no root, the shipped systemd unit): the uid decides anyway."""
    if group == -1:
        return False
    try:
        os.chown(path, -1, group)
    except PermissionError:
        return False
    return True


def _prepare(directory: Path, group: int) -> None:
    try:
        for above in reversed(directory.parents):
            if not above.exists():
                above.mkdir()
                above.chmod(0o755)  # whatever the umask is: FreeRADIUS has to pass through it
        directory.mkdir(mode=0o700)
        directory.chmod(0o750 if _gave(directory, group) else 0o755)
    except FileExistsError:
        pass
    except OSError as error:
        cure = "create the directory, owned by mfad's user"
        raise ConfigurationError(f"{directory}: {error.strerror}", cure=cure) from error
    seqpacket.check_directory(
        directory,
        danger="somebody else could put a socket there",
        cure=f"chown {os.geteuid()} {directory} && chmod go-w {directory}",
    )
