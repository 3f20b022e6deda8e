"""Whose files are they? What root makes in the daemon's directories belongs to the daemon's user.

Room rule: the only file that changes owners. ``mfactl`` runs as root, mfad as a user of its own: a store, a lock or a key file
that root leaves behind as root's would keep mfad from starting. (SQLite does the same for the files beside a database.)
"""

from __future__ import annotations

import os
import stat
from pathlib import Path


def belong_like(path: Path, wanted: os.stat_result) -> None:
    """Give the file ``path`` the owner and group of what ``wanted`` describes, if this process is root; else it is ours anyway.

    The directory may be somebody else's, who could have put a link there: nothing but a plain file of one name is given away,
    and it is the one that was looked at. Else root would make a present of /etc/shadow.
    """
    if os.geteuid() != 0:
        return
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.fstat(fd)
        if (wanted.st_uid, wanted.st_gid) == (found.st_uid, found.st_gid):
            return
        if stat.S_ISREG(found.st_mode) and found.st_nlink == 1:
            os.fchown(fd, wanted.st_uid, wanted.st_gid)
    finally:
        os.close(fd)
