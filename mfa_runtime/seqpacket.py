"""How does a local socket come to stand where only the right processes find it, and who is at its other end?

Room rule: AF_UNIX, SOCK_SEQPACKET, the file that names it and the directory around that; what is said over it belongs to the
doors. A socket appears in one step, ready and locked, and never takes the place of one that somebody answers on.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import struct
from collections.abc import Callable
from pathlib import Path

from mfa_core.errors import ConfigurationError

PATH_MAX = 107
"""Bytes of sun_path without its NUL (unix(7))."""

_UCRED = struct.Struct("iII")  # struct ucred: pid, uid, gid (unix(7))


def peer_uid(connection: socket.socket) -> int:
    """Return the effective uid that the peer had when it connected."""
    _, uid, _ = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return int(uid)


def draft_of(path: Path) -> Path:
    """The name that a socket has until it is ready; the longer one of the two."""
    return path.with_name(f".{path.name}.{os.getpid()}")


def fits(path: Path) -> bool:
    """Whether the kernel takes ``path`` as a socket's name."""
    return len(os.fsencode(draft_of(path))) <= PATH_MAX


def check_directory(directory: Path, *, danger: str, cure: str) -> None:
    """Refuse a directory in which somebody else could put a socket.

    Raises: ConfigurationError; ``danger`` says what would come of it.
    """
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise ConfigurationError(f"{directory} is no directory", cure="name a directory, not a link")
    if found.st_uid not in (0, os.geteuid()) or found.st_mode & 0o022:
        raise ConfigurationError(
            f"{directory} is owned by uid {found.st_uid} with mode {stat.S_IMODE(found.st_mode):04o}: {danger}", cure=cure
        )


def clear(path: Path, *, cure: str) -> None:
    """Make sure that ``path`` may be replaced: nothing is there, or a socket of ours that nobody answers.

    Raises: ConfigurationError; ``cure`` says where else a socket may stand.
    """
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
    raise ConfigurationError(f"another mfad answers on {path}", cure=cure)


def listen(path: Path, lock: Callable[[Path], None], *, backlog: int, cure: str) -> socket.socket:
    """Bind under another name, ``lock`` that (its mode, its group), listen, then rename: who opens ``path`` finds it ready.

    The listener does not block. Raises: ConfigurationError.
    """
    draft = draft_of(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        listener.setblocking(False)
        draft.unlink(missing_ok=True)
        listener.bind(os.fspath(draft))
        lock(draft)
        listener.listen(backlog)
        draft.rename(path)
    except OSError as error:
        listener.close()
        raise ConfigurationError(f"{path}: {error.strerror}", cure=cure) from error
    return listener


def remove(path: Path, inode: int) -> None:
    """Remove the socket, unless another mfad has put its own there meanwhile."""
    with contextlib.suppress(OSError):
        if path.lstat().st_ino == inode:
            path.unlink()
