"""Hot values: frozen to the type checker, equal by their fields, without a dictionary."""

from __future__ import annotations

import pytest
from mypy import api

from mfa_core.value import hot_value

_ASSIGNS = """
from mfa_core.model import EnrolmentState, User
user = User(1, "alice", EnrolmentState.ACTIVE)
user.name = "bob"
"""


@hot_value
class _Point:
    x: int
    y: int = 0


def test_the_type_checker_refuses_an_assignment() -> None:
    """What does not stand between a bug and a value at run time stands before it."""
    told, _, status = api.run(["--config-file=", "--cache-dir=/dev/null", "--follow-imports=silent", "-c", _ASSIGNS])

    assert status == 1
    assert "read-only" in told


def test_values_are_equal_by_their_fields_and_can_be_keys() -> None:
    assert _Point(1) == _Point(1, 0) != _Point(1, 2)
    assert {_Point(1): "here"}[_Point(1, 0)] == "here"


def test_a_value_has_no_other_fields() -> None:
    with pytest.raises(AttributeError):
        _Point(1).z = 3  # type: ignore[attr-defined]
