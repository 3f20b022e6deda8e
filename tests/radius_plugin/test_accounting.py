"""What an Accounting-Request tells: the fields of its line, whatever stands in it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from radius_plugin.accounting import accounting_line
from radius_plugin.wire import parse
from tests.end_to_end.radius_packets import Attribute
from tests.radius_plugin.door_doubles import accounting


def line(*attributes: Attribute) -> dict[str, object]:
    return accounting_line(parse(accounting(*attributes)), "vpn")


def number(value: int) -> bytes:
    return value.to_bytes(4, "big")


def test_a_stop_has_what_it_used() -> None:
    assert line(
        (40, number(2)), (1, b"alice"), (44, b"s1"), (31, b"192.0.2.7"), (46, number(60)), (42, number(1)), (43, number(2)),
        (49, number(1)),
    ) == {
        "kind": "accounting", "client": "vpn", "status": "stop", "user": "alice", "session": "s1", "source": "192.0.2.7",
        "session_seconds": 60, "input_octets": 1, "output_octets": 2, "terminate_cause": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("value", "status"),
    [
        (number(1), "start"), (number(3), "interim_update"), (number(99), "99"), (b"\1", "none"), (b"", "none"),
        (b"x" * 5, "none"),
    ],
)
def test_a_status_has_a_name_or_its_number(value: bytes, status: str) -> None:
    assert line((40, value))["status"] == status


def test_nothing_in_it_is_a_line_as_well() -> None:
    assert line() == {"kind": "accounting", "client": "vpn", "status": "none", "user": "", "session": "", "source": None}


@given(st.lists(st.tuples(st.sampled_from([1, 31, 40, 42, 43, 44, 46, 49, 80]), st.binary(max_size=253)), max_size=8))
def test_whatever_stands_in_it_the_line_is_short_and_can_be_written(attributes: list[tuple[int, bytes]]) -> None:
    told = line(*((kind, value) for kind, value in attributes if kind != 80))
    text = json.dumps(told, ensure_ascii=True)
    assert len(text) < 4000
    assert text.isascii()
