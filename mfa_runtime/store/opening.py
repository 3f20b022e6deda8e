"""Open a store that is there, and only one that this program understands."""

from __future__ import annotations

from pathlib import Path

from mfa_core.errors import StoreUnavailable
from mfa_runtime.store.database import STORE_FILE, Store, connect
from mfa_runtime.store.versions import check_version


def open_store(state_dir: Path) -> Store:
    """Open the SQLite store of a state directory; it must exist (``mfactl init`` makes it).

    Raises:
        StoreUnavailable: absent or unreadable.
        StoreCorrupt: not a store of mfad, or of another schema version.
    """
    path = state_dir / STORE_FILE
    if not path.exists():
        raise StoreUnavailable(f"{path}: there is no store", cure="run `mfactl init`")
    store = connect(path)

    check_version(store)
    return store
