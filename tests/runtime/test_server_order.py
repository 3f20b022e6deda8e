"""Which server is asked first, after some failed?"""

from __future__ import annotations

from mfa_runtime.server_order import ServerOrder
from tests.doubles import FakeClock


def test_a_server_that_failed_stands_aside_for_a_while() -> None:
    """The others keep their order; when its time is over it is the first again."""
    clock = FakeClock()
    order = ServerOrder(("a", "b", "c"), dead_time_s=30, monotonic=clock)

    assert order.to_ask() == ("a", "b", "c")
    assert order.failed("a") is True
    assert order.failed("a") is False
    assert order.to_ask() == ("b", "c")
    clock.advance(29.9)
    assert order.to_ask() == ("b", "c")
    clock.advance(0.1)
    assert order.to_ask() == ("a", "b", "c")


def test_when_all_failed_one_is_asked() -> None:
    """The one that failed first: one login waits for one server, not for all."""
    clock = FakeClock()
    order = ServerOrder(("a", "b"), dead_time_s=30, monotonic=clock)
    order.failed("b")
    clock.advance(1)
    order.failed("a")

    assert order.to_ask() == ("b",)
    assert order.answered("b") is True
    assert order.answered("b") is False
    assert order.to_ask() == ("b",)
