"""Do the rows say what the audit log says? A watermark that lies behind an accepted step was put back by hand.

Room rule: reads both, writes neither. The chain proves that the log is whole (:mod:`.audit_log`); this compares the rows, which
no seal covers, with it.
"""

from __future__ import annotations

import json

from sqlalchemy import Connection, select

from mfa_runtime.store.audit_log import every
from mfa_runtime.store.schema import credentials

MAX_PROBLEMS = 20


def find_rolled_back(connection: Connection) -> list[str]:
    """Credentials whose watermark is lower than a step that was accepted: codes up to there would be good again."""
    accepted: dict[int, tuple[int, str]] = {}
    for entry in every(connection):
        # Most events accept nothing; parsing only these keeps a million events to seconds.
        if '"step":' not in entry.body:
            continue
        event = json.loads(entry.body)
        number = str(event.get("credential", "")).partition(":")[2]
        if event.get("outcome") != "accepted" or not number.isdigit():
            continue
        if event["step"] > accepted.get(int(number), (-1, ""))[0]:
            accepted[int(number)] = event["step"], event["id"]
    problems: list[str] = []
    for row in connection.execute(select(credentials.c.id, credentials.c.last_step).order_by(credentials.c.id)):
        step, event_id = accepted.get(row.id, (-1, ""))
        if row.last_step < step:
            problems.append(
                f"credential {row.id}: its watermark is {row.last_step}, but step {step} was accepted (event {event_id}): "
                "the row was put back"
            )
            if len(problems) == MAX_PROBLEMS:
                break
    return problems
