"""Whose files are they? What root makes in the daemon's directories belongs to the daemon's user.

Room rule: the only file that changes owners. ``mfactl`` runs as root, mfad as a user of its own: a store, a lock or a key file
that root leaves behind as root's would keep mfad from starting. (SQLite does the same for the files beside a database.)
"""

from __future__ import annotations

import os
from pathlib import Path


def belong_like(path: Path, wanted: os.stat_result) -> None:
    """Give ``path`` the owner and group of what ``wanted`` describes, if this process is root; else it is ours anyway."""
    if os.geteuid() != 0:
        return
    found = path.stat(follow_symlinks=False)
    if (wanted.st_uid, wanted.st_gid) != (found.st_uid, found.st_gid):
        os.chown(path, wanted.st_uid, wanted.st_gid, follow_symlinks=False)
