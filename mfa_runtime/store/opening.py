"""Open a store that is there, and only one that this program understands."""

from __future__ import annotations

from pathlib import Path

from mfa_core.errors import StoreUnavailable
from mfa_runtime.store.database import Store, connect_to
from mfa_runtime.store.place import StorePlace
from mfa_runtime.store.versions import check_version


def open_store(place: StorePlace | Path) -> Store:
    """Open the store at ``place``; it must exist (``mfactl init`` makes it). A path is the state directory of a SQLite store.

    Raises:
        StoreUnavailable: absent, unreadable, or its server does not answer.
        StoreCorrupt: not a store of mfad, or of another schema version.
        ConfigurationError: the password file cannot be used.
    """
    if isinstance(place, Path):
        place = StorePlace(place)
    if place.file is not None and not place.file.exists():
        raise StoreUnavailable(f"{place.file}: there is no store", cure="run `mfactl init`")
    store = connect_to(place)
    try:
        check_version(store)
    except BaseException:
        store.close()
        raise
    return store
