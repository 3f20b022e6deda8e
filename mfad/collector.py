"""When does Python look for garbage that holds on to itself?

Room rule: one call, at the end of a start. Attempts leave none behind, they are freed by counting; what the collector finds are
tracebacks and closed connections, which can wait.
"""

from __future__ import annotations

import gc

YOUNG_OBJECTS = 10_000
"""So many more objects than before make it look. The attempts under way are a few thousand: with Python's own 700 they are
walked through several times each, which is a twentieth of an attempt's processor time."""


def let_the_collector_rest() -> None:
    """What start-up has made stays: it need not be walked again and again while somebody waits to be let in."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, *gc.get_threshold()[1:])
