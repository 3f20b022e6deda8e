"""An event is one line of ASCII whatever stood in it, and the chain holds it in its place."""

from __future__ import annotations

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfa_core.audit import GENESIS, MAX_TEXT, Administered, AttemptDecided, By, Event, Outcome, canonical, link


def decided(**changes: object) -> AttemptDecided:
    """An event of a refused login."""
    values: dict[str, object] = {
        "event_id": "e1", "at": 1.5, "door": "pam", "service": "sshd", "user": "bob", "outcome": Outcome.REJECTED,
    }  # fmt: skip
    return AttemptDecided(**(values | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "user",
    ['bob\n{"event":"login_ok"}',
     "bob\r\nx", "\x1b[2J\x1b]0;owned\x07", "a\x00b", "\u2028\u2029\x85", "\udcff\udc80", "\u0410lice", '"},{"'],
    ids=["newline", "crlf", "ansi", "nul", "unicode-lines", "undecodable", "cyrillic", "json"],
)  # fmt: skip
def test_text_from_outside_cannot_forge_a_line(user: str) -> None:
    """core-5-27: one escaped line of printable ASCII, that reads back as what was sent."""
    line = canonical(decided(user=user, service=user, client=user))

    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line)["user"] == user
    assert json.loads(line)["event"] == "attempt"


def test_a_name_of_a_megabyte_is_cut() -> None:
    """core-5-27: in every field that comes from outside."""
    flood = "x" * 1_000_000

    line = canonical(decided(user=flood, service=flood, client=flood, source=flood, note=flood))
    other = canonical(Administered("e", 1.0, flood, "user.lock", flood, {"reason": flood}))

    assert len(line) < 6 * MAX_TEXT
    assert len(other) < 6 * MAX_TEXT


def test_what_is_empty_is_left_out_and_what_is_zero_is_not() -> None:
    """A spent counter 0 is a step; "no step" is -1."""
    assert "step" not in canonical(decided())
    assert json.loads(canonical(decided(step=0)))["step"] == 0


def test_the_text_of_an_event_is_the_same_everywhere() -> None:
    """The hash is over this text: it may never change for events that are stored."""
    event = decided(user="böb", reason="mismatch", rule="r1", source="192.0.2.1", client="tty1", failures=2, note="n")

    assert canonical(event) == (
        '{"at":1.5,"client":"tty1","door":"pam","event":"attempt","failures":2,"id":"e1","note":"n","outcome":"rejected",'
        '"reason":"mismatch","rule":"r1","service":"sshd","source":"192.0.2.1","user":"b\\u00f6b"}'
    )


def test_a_link_is_sha_256_over_the_previous_hash_and_the_text() -> None:
    """So that anybody can check an export with a few lines of script."""
    assert link(GENESIS, "{}") == hashlib.sha256(b"\0" * 32 + b"{}").digest()


def test_numbers_that_json_has_not_are_refused() -> None:
    """A broken clock must not write a log that nobody can read."""
    with pytest.raises(ValueError, match="JSON"):
        canonical(decided(at=float("nan")))


@given(st.text(st.characters(), max_size=600), st.text(st.characters(), max_size=600))
def test_any_text_is_one_line(user: str, client: str) -> None:
    """core-5-27: surrogates and all."""
    line = canonical(decided(user=user, client=client))

    assert "\n" not in line
    assert line.isascii()
    assert json.loads(line)["user"] == user[:MAX_TEXT]


@pytest.mark.parametrize(
    "event",
    [
        decided(),
        decided(reason="mismatch", source="192.0.2.1", client="tty1", failures=3, note='n"\x1b', user="al\nice\udc80"),
        decided(factor="totp", credential="totp:7", step=0, at=1795312370.3536215),
        decided(by=By.HOST, client="tty1", failures=3, host="web1.example"),
        Administered("e", 1.0, "root", "user.lock", "bob", {"z": 1, "a": "ä", "f": 0.25}),
        Administered("e", 1.0, "root", "store.create"),
    ],
)
def test_the_canonical_text_is_what_the_json_library_gives_with_sorted_keys(event: Event) -> None:
    """Other programs recompute the chain from parsed events: the text must be the one that they get."""
    assert canonical(event) == json.dumps(event.fields(), sort_keys=True, separators=(",", ":"))


@given(
    st.fixed_dictionaries(
        {"at": st.floats(allow_nan=False, allow_infinity=False), "outcome": st.sampled_from(Outcome)},
        optional={name: st.text(max_size=300) for name in ("reason", "rule", "source", "client", "factor", "credential", "note",
                                                            "door", "service", "user", "event_id", "by", "host")}
        | {"step": st.integers(-1, 1 << 40), "failures": st.integers(0, 100)},
    )
)  # fmt: skip
def test_every_attempt_has_the_json_librarys_text(fields: dict[str, object]) -> None:
    """Whatever is there and whatever is not."""
    event = decided(**fields)

    assert canonical(event) == json.dumps(event.fields(), sort_keys=True, separators=(",", ":"))
