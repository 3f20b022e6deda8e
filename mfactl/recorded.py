"""What has mfad recorded of a trial that was made just now?"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mfa_core.errors import MfaError

if TYPE_CHECKING:
    import typer

NEWEST_EVENTS = 50


def newest_event(context: typer.Context, began: float, wanted: Mapping[str, object]) -> dict[str, Any] | None:
    """The newest event since ``began`` (Unix seconds) with these fields; None for none, or where the log is not ours to see."""
    from mfa_runtime.store import audit_log
    from mfactl.session import open_session

    try:
        with open_session(context) as session, session.reading() as connection:
            entries = audit_log.tail(connection, limit=NEWEST_EVENTS)
    except MfaError:
        # Whoever tries the door need not be who may read the store.
        return None
    bodies: list[dict[str, Any]] = [json.loads(entry.body) for entry in entries]
    # Times in the log are of mfad's clock, which is ours.
    found = [one for one in bodies if wanted.items() <= one.items() and float(one.get("at", 0)) >= began - 1]
    return found[-1] if found else None
