"""Where do the modules find us? (priv.sock and user.sock)

Room rule: everything that makes, checks, inherits and removes the two listening sockets lives here. Their owners and modes are
the door's lock: pam_mfa.so refuses to talk to a socket in a directory that somebody else could write to.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from operator import methodcaller
from pathlib import Path

from mfa_core.errors import ConfigurationError
from mfa_runtime import seqpacket

PRIVILEGED = "priv.sock"
USER = "user.sock"
MODES = {PRIVILEGED: 0o600, USER: 0o666}
BACKLOG = 1_024
"""A full queue makes connect() wait in the login process: let it be longer than any burst of logins."""
LISTEN_FDS_START = 3


@dataclass(frozen=True, slots=True)
class Listeners:
    """The two sockets, listening and non-blocking. ``inodes`` are of the ones that we made, by path: to be removed by us."""

    privileged: socket.socket
    user: socket.socket
    inodes: Mapping[Path, int]

    def close(self) -> None:
        """Stop listening, and remove what we made, unless another mfad has put its own there meanwhile."""
        for path, inode in self.inodes.items():
            seqpacket.remove(path, inode)
        self.privileged.close()
        self.user.close()


def open_listeners(directory: Path) -> Listeners:
    """Make both sockets in ``directory``, and the directory when it is missing.

    Raises: ConfigurationError when the place is not safe, is too long a path, or another mfad answers there.
    """
    _prepare(directory)
    made: dict[str, socket.socket] = {}
    inodes: dict[Path, int] = {}
    try:
        for name in (PRIVILEGED, USER):
            path = directory / name
            seqpacket.clear(path, cure="stop it, or choose another socket_dir")
            lock = methodcaller("chmod", MODES[name])
            made[name] = seqpacket.listen(path, lock, backlog=BACKLOG, cure="let mfad's user write to socket_dir")
            inodes[path] = path.lstat().st_ino
    except BaseException:
        for one in made.values():
            one.close()
        raise
    return Listeners(made[PRIVILEGED], made[USER], inodes)


def inherited_listeners(environment: Mapping[str, str], pid: int) -> Listeners | None:
    """Return the sockets that systemd made for us (sd_listen_fds(3)), None when it made none.

    They are told apart by the file names of their addresses. SO_PEERCRED of the module then names root, who called listen().

    Raises: ConfigurationError when they are not the two that mfad needs.
    """
    if environment.get("LISTEN_PID") != str(pid):
        return None
    found: dict[str, socket.socket] = {}
    for descriptor in range(LISTEN_FDS_START, LISTEN_FDS_START + int(environment.get("LISTEN_FDS", "0"))):
        os.set_inheritable(descriptor, False)
        one = socket.socket(fileno=descriptor)
        name = Path(os.fsdecode(one.getsockname())).name if one.family == socket.AF_UNIX else ""
        if one.type != socket.SOCK_SEQPACKET or name not in MODES or name in found:
            raise ConfigurationError(
                f"systemd handed over descriptor {descriptor},"
                f" expected one SOCK_SEQPACKET socket each for {PRIVILEGED} and {USER}",
                cure="use ListenSequentialPacket= in mfad.socket",
            )
        one.setblocking(False)
        found[name] = one
    if not found:
        return None
    if len(found) != len(MODES):
        raise ConfigurationError(
            f"systemd handed over {', '.join(found)} alone",
            cure=f"list {PRIVILEGED} and {USER} with ListenSequentialPacket= in mfad.socket",
        )
    return Listeners(found[PRIVILEGED], found[USER], {})


def _prepare(directory: Path) -> None:
    if not seqpacket.fits(directory / PRIVILEGED):
        raise ConfigurationError(
            f"{directory}: a socket in it has a path of more than {seqpacket.PATH_MAX} bytes",
            cure="choose a shorter socket_dir",
        )
    try:
        directory.mkdir(mode=0o755, parents=True)
        directory.chmod(0o755)  # whatever the umask is: user processes have to reach user.sock
    except FileExistsError:
        pass
    except OSError as error:
        raise ConfigurationError(f"{directory}: {error.strerror}", cure="create socket_dir, owned by mfad's user") from error
    seqpacket.check_directory(
        directory,
        danger="pam_mfa.so will not trust a socket there",
        cure=f"chown {os.geteuid()} {directory} && chmod 0755 {directory}",
    )
