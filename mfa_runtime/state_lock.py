"""Who uses a state directory: many at a time, or one alone who replaces it.

Room rule: the one file lock of the state directory. ``mfad`` and every ``mfactl`` command hold it shared as long as they have
the store open; ``mfactl restore`` holds it alone. The kernel frees it when a process dies, however it dies.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mfa_core.errors import Conflict, StoreUnavailable
from mfa_runtime.ownership import belong_like

LOCK_FILE = "mfad.lock"
ROTATION_LOCK_FILE = "key-rotation.lock"


class StateLock:
    """A lock of one file in the state directory."""

    def __init__(self, state_dir: Path, name: str = LOCK_FILE) -> None:
        self.path = state_dir / name

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Hold the lock together with others.

        Raises:
            StoreUnavailable: somebody holds it alone (a restore), or the directory cannot be written.
        """
        fd = self._open()
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError as err:
                raise StoreUnavailable(
                    f"{self.path}: the store is being replaced{self._holders()}", cure="wait until `mfactl restore` is done"
                ) from err
            yield
        finally:
            os.close(fd)

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the lock alone.

        Raises:
            Conflict: somebody else has it.
            StoreUnavailable: the directory cannot be written.
        """
        fd = self._open()
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as err:
                raise Conflict(
                    f"{self.path}: in use{self._holders()}",
                    cure="stop mfad (`systemctl stop mfad`) and end other mfactl commands, then try again",
                ) from err
            yield
        finally:
            os.close(fd)

    def holders(self) -> tuple[int, ...]:
        """The process ids that hold the lock now, as far as the kernel tells (``/proc/locks``)."""
        try:
            status = self.path.stat()
            lines = Path("/proc/locks").read_text("ascii").splitlines()
        except (OSError, ValueError):
            return ()
        wanted = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
        found = {
            int(words[4])
            for words in (line.split() for line in lines)
            if len(words) >= 6 and words[1] == "FLOCK" and words[5] == wanted and words[4].isdigit()
        }
        return tuple(sorted(found - {0}))

    def _holders(self) -> str:
        pids = self.holders()
        return f" by process {', '.join(map(str, pids))}" if pids else ""

    def _open(self) -> int:
        try:
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except FileNotFoundError as err:
            raise StoreUnavailable(f"{self.path.parent}: there is no state directory", cure="run `mfactl init`") from err
        except OSError as err:
            raise StoreUnavailable(
                f"{self.path}: cannot be opened: {err.strerror}", cure="check state_dir, its owner and its mode"
            ) from err
        belong_like(self.path, self.path.parent.stat())
        return fd
