"""A little of tests/fuzz/ldap_session_fuzz.py, with every run of the tests."""

from __future__ import annotations

import random

from tests.fuzz.ldap_session_fuzz import run


def test_nobody_gets_through_a_session_what_the_gate_has_not_allowed() -> None:
    """Two thousand messages at least of each, clients and directories that send anything; each kind of ending is among them."""
    counted = run(random.Random(20), count=2_000)

    assert all(counted[state] > 20 for state in ("anonymous", "binding", "bound", "closing"))
