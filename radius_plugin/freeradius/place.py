"""Where does FreeRADIUS's module find us? (radius.sock)

Room rule: what makes, checks and removes that one listening socket lives here, and who may speak on it. The uid that the kernel
names is the lock; the directory's group only keeps others from knocking, where we may give it to one.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import socket
import stat
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mfa_core.errors import ConfigurationError

BACKLOG = 256
PATH_MAX = 107
"""Bytes of sun_path without its NUL (unix(7))."""

_UCRED = struct.Struct("iII")  # struct ucred: pid, uid, gid (unix(7))


@dataclass(frozen=True, slots=True)
class Place:
    """The socket, listening and non-blocking, and the inode by which it is known as ours."""

    listener: socket.socket
    path: Path
    inode: int

    def close(self) -> None:
        """Stop listening, and remove the socket unless another mfad has put its own there meanwhile."""
        with contextlib.suppress(OSError):
            if self.path.lstat().st_ino == self.inode:
                self.path.unlink()
        self.listener.close()


def peer_uid(connection: socket.socket) -> int:
    """Return the effective uid that the peer had when it connected."""
    _, uid, _ = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return int(uid)


def allowed_uids(users: Sequence[str]) -> frozenset[int]:
    """Return root, our own uid, and those of ``users`` that exist: mfad may be installed before FreeRADIUS is."""
    return frozenset({0, os.geteuid(), *(entry.pw_uid for entry in _entries(users))})


def open_place(path: Path, users: Sequence[str]) -> Place:
    """Make the socket at ``path``, and its directory when it is missing: root's and ours, entered by the group of ``users``.

    Raises: ConfigurationError when the place is not safe, is too long a path, or another mfad answers there.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    if len(os.fsencode(draft)) > PATH_MAX:
        raise ConfigurationError(f"{path}: a path of more than {PATH_MAX} bytes", cure="choose a shorter path for the socket")
    groups = [entry.pw_gid for entry in _entries(users)]
    group = groups[0] if groups and os.geteuid() == 0 else -1
    _prepare(path.parent, group)
    _clear(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        listener.setblocking(False)
        draft.unlink(missing_ok=True)
        listener.bind(os.fspath(draft))
        draft.chmod(0o660 if _gave(draft, group) else 0o666)
        listener.listen(BACKLOG)
        draft.rename(path)
        return Place(listener, path, path.lstat().st_ino)
    except OSError as error:
        listener.close()
        raise ConfigurationError(f"{path}: {error.strerror}", cure="let mfad's user write to the directory") from error


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
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise ConfigurationError(f"{directory} is no directory", cure="name a directory, not a link")
    if found.st_uid not in (0, os.geteuid()) or found.st_mode & 0o022:
        raise ConfigurationError(
            f"{directory} is owned by uid {found.st_uid} with mode {stat.S_IMODE(found.st_mode):04o}:"
            " somebody else could put a socket there",
            cure=f"chown {os.geteuid()} {directory} && chmod go-w {directory}",
        )


def _clear(path: Path) -> None:
    """Make sure that ``path`` may be replaced: nothing is there, or a socket of ours that nobody answers."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode) or found.st_uid not in (0, os.geteuid()):
        raise ConfigurationError(f"{path} is in the way and is no socket of ours", cure=f"look at it and remove it: {path}")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
        probe.setblocking(False)
        try:
            probe.connect(os.fspath(path))
        except (ConnectionRefusedError, FileNotFoundError, ConnectionResetError):
            return
        except OSError:
            pass  # EAGAIN: its queue is full, so somebody listens; EPROTOTYPE: another kind of daemon does
    raise ConfigurationError(f"another mfad answers on {path}", cure="stop it, or choose another path for the socket")
