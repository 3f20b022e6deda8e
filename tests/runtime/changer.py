"""A process of its own that notes changes: ``python -m tests.runtime.changer STATE_DIR USER_ID COUNT URL``.

It waits for a line on stdin before it begins, holds each number for a moment before it commits, and prints the numbers it took.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from mfa_runtime.store import changes
from mfa_runtime.store.opening import open_store
from mfa_runtime.store.place import StorePlace

HELD_S = 0.002


def main() -> None:
    """See the module."""
    directory, user_id, count = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    store = open_store(StorePlace(directory, sys.argv[4]))
    print("here", flush=True)
    sys.stdin.readline()
    numbers = []
    for at in range(count):
        with store.writing() as connection:
            numbers.append(changes.note_user(connection, user_id, float(at)))
            time.sleep(HELD_S * (at % 3))
    print(" ".join(map(str, numbers)), flush=True)
    store.close()


if __name__ == "__main__":
    main()
