"""Do the measurements of authority and agents say what they have seen? Made-up runs, and requests as the protocol has them."""

from __future__ import annotations

import pytest

from bench.authority_login import TOGETHER, request_of
from bench.authority_privacyidea import totp
from bench.offline_outage import Outage, report
from bench.radius_stage import Login
from mfa_runtime.protocol.verifying import read_verify_request


def outage(**seen: list[float]) -> Outage:
    return Outage("an outage", lambda: None, lambda: None, **seen)


@pytest.mark.parametrize(
    ("seen", "heard", "missed"),
    [
        ({"first": [3.4], "later": [0.049], "back": [4.9]}, [1.9], []),
        ({"first": [0.1, 3.6], "later": [0.049], "back": [4.9]}, [1.9], ["an outage: first login 3.60 s"]),
        ({"first": [3.4], "later": [0.01] * 98 + [0.06] * 2, "back": [4.9]}, [1.9], ["an outage: later ones 60.00 ms"]),
        ({"first": [3.4], "later": [0.01], "back": [0.1, 5.1]}, [1.9], ["an outage: back after 5.10 s"]),
        ({"first": [3.4], "later": [0.01], "back": [0.1]}, [0.1, 2.1], ["a lock is heard of after 2.10 s"]),
    ],
)
def test_a_bar_is_missed_by_the_worst_of_all_rounds(
    seen: dict[str, list[float]], heard: list[float], missed: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert report([outage(**seen, alone=[0.005])], heard) == missed
    assert "an outage" in capsys.readouterr().out


def test_a_request_of_the_bench_is_one_of_the_protocol() -> None:
    logins = [Login(f"user{number}", f"{number:06d}") for number in range(TOGETHER)]
    request = read_verify_request(request_of(logins))
    assert [(one.name, one.readings[0].text.reveal()) for one in request.attempts] == [
        (login.name, login.password.encode()) for login in logins
    ]
    assert len({one.event_id for one in request.attempts}) == TOGETHER


@pytest.mark.parametrize(("now", "code"), [(59, "287082"), (1_111_111_109, "081804"), (20_000_000_000, "353130")])
def test_codes_for_the_peer_are_those_of_rfc_6238(now: int, code: str) -> None:
    """Appendix B, the last six digits of eight."""
    assert totp(b"12345678901234567890", now) == code
