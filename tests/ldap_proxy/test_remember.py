"""Binds that are accepted again without the factor: which, for how long, and what is kept of them."""

from __future__ import annotations

import gc
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ldap_proxy.remember import MAX_PER_USER, Remember, Remembered
from ldap_proxy.settings import Application, RememberMode, RememberScope, RememberSettings
from mfa_core.secret import Secret
from tests.doubles import FakeClock

SAME = Application("wiki", remember=RememberSettings(RememberMode.SAME_CREDENTIAL, ttl_s=600.0))
PASSWORD = Application("wiki", remember=RememberSettings(RememberMode.PASSWORD_ONLY, ttl_s=600.0))
BIND: dict[str, Any] = {"listener": "ldap://*:389", "source": "192.0.2.1", "user": "alice"}
TYPED, PART = Secret(b"pass,word,123456"), Secret(b"pass,word")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def remember(clock: FakeClock) -> Remember:
    return Remember(key=Secret(bytes(32)), monotonic=clock)


def store(remember: Remember, application: Application = SAME, **other: Any) -> None:
    remember.store(application, **{**BIND, "typed": TYPED, "password": PART, "credential": "totp:12", **other})


def recall(
    remember: Remember, application: Application = SAME, *, typed: Secret = TYPED, **other: Any
) -> tuple[bytes, str] | None:
    found: Remembered | None = remember.recall(application, **{**BIND, **other}, typed=typed)
    return None if found is None else (found.password.reveal(), found.credential)


def test_the_same_text_gives_its_password_back(remember: Remember) -> None:
    """The code is cut off again, and the credential is named; any other text is an ordinary bind."""
    assert recall(remember) is None
    store(remember)
    assert recall(remember) == (b"pass,word", "totp:12")
    for other in (b"pass,word", b"pass,word,123457", b"pass,word,1234567", b"", b"Pass,word,123456"):
        assert recall(remember, typed=Secret(other)) is None


def test_the_password_alone_where_that_is_wanted(remember: Remember) -> None:
    """And the very text again; a text with a fresh code is an ordinary bind."""
    store(remember, PASSWORD)
    assert recall(remember, PASSWORD, typed=PART) == (b"pass,word", "totp:12")
    assert recall(remember, PASSWORD) == (b"pass,word", "totp:12")
    for other in (b"pass,wor", b"pass,word,", b"pass,word,123457"):
        assert recall(remember, PASSWORD, typed=Secret(other)) is None


def test_the_password_and_the_text_are_used_up_together(remember: Remember) -> None:
    """They are one login."""
    twice = replace(PASSWORD, remember=replace(PASSWORD.remember, max_uses=2))
    store(remember, twice)
    assert recall(remember, twice, typed=PART) is not None
    assert recall(remember, twice) is not None
    assert recall(remember, twice, typed=PART) is None
    assert recall(remember, twice) is None


@pytest.mark.parametrize(
    "other",
    [{"listener": "ldaps://*:636"}, {"source": "192.0.2.2"}, {"source": ""}, {"user": "bob"}],
    ids=lambda other: next(iter(other)),
)
def test_from_elsewhere_it_is_not_the_same(remember: Remember, other: dict[str, str]) -> None:
    """Another address with the same text is a replay."""
    store(remember)
    store(remember, user="bob", typed=Secret(b"other,123456"), password=Secret(b"other"))
    assert recall(remember, **other) is None
    assert recall(remember) is not None


def test_another_application_is_another_bind(remember: Remember) -> None:
    """Also where it has the same settings."""
    store(remember)
    assert recall(remember, replace(SAME, name="mail")) is None


def test_scopes_may_be_left_out_but_not_the_user(remember: Remember) -> None:
    """For applications behind many addresses."""
    wide = replace(SAME, remember=replace(SAME.remember, scope=frozenset()))
    store(remember, wide)
    assert recall(remember, wide, listener="ldaps://*:636", source="2001:db8::1") is not None
    assert recall(remember, wide, user="bob") is None
    by_source = replace(SAME, remember=replace(SAME.remember, scope=frozenset({RememberScope.SOURCE})))
    store(remember, by_source)
    assert recall(remember, by_source, listener="ldaps://*:636") is not None
    assert recall(remember, by_source, source="2001:db8::1") is None


def test_the_time_runs_from_the_factor(remember: Remember, clock: FakeClock) -> None:
    """Uses do not prolong it."""
    store(remember)
    clock.advance(599)
    assert recall(remember) is not None
    clock.advance(1)
    assert recall(remember) is None
    assert len(remember) == 0


def test_uses_are_counted(remember: Remember) -> None:
    """0 is without a bound."""
    twice = replace(SAME, remember=replace(SAME.remember, max_uses=2))
    store(remember, twice)
    assert [recall(remember, twice) is not None for _ in range(4)] == [True, True, False, False]
    store(remember)
    assert all(recall(remember) is not None for _ in range(100))


def test_a_factor_that_is_shown_again_starts_afresh(remember: Remember, clock: FakeClock) -> None:
    """With its own time, uses and credential."""
    store(remember, PASSWORD)
    clock.advance(500)
    store(remember, PASSWORD, credential="totp:13")
    clock.advance(500)
    assert recall(remember, PASSWORD, typed=PART) == (b"pass,word", "totp:13")
    assert recall(remember, PASSWORD) == (b"pass,word", "totp:13")
    assert len(remember) == 2


def test_a_refusal_forgets_all_of_the_user(remember: Remember) -> None:
    """At every application and address; nobody else is concerned."""
    for number in range(10):
        store(remember, source=f"192.0.2.{number}")
    store(remember, PASSWORD)
    store(remember, user="bob")
    remember.forget("alice")
    remember.forget("alice")
    remember.forget("nobody")
    assert recall(remember) is None
    assert recall(remember, PASSWORD, typed=PART) is None
    assert recall(remember, user="bob") is not None
    assert len(remember) == 1


def test_it_is_off_unless_it_is_wanted(remember: Remember) -> None:
    """Also for what was stored while it was on."""
    off = Application("wiki")
    store(remember, off)
    assert len(remember) == 0
    store(remember)
    assert recall(remember, off) is None
    assert recall(remember, PASSWORD, typed=PART) is None  # another mode


@pytest.mark.parametrize(
    "other",
    [
        {"user": ""},
        {"password": Secret(b"")},
        {"credential": ""},
        {"password": Secret(b"word")},
        {"password": Secret(b"pass,word,1234567")},
    ],
    ids=["no user", "no password", "no credential", "not the beginning", "longer than the text"],
)
@pytest.mark.parametrize("application", [SAME, PASSWORD], ids=["same", "password"])
def test_what_cannot_be_told_apart_is_not_kept(remember: Remember, application: Application, other: dict[str, Any]) -> None:
    """A password that nobody can find in the text again, or a login without a credential that could be revoked."""
    store(remember, application, **other)
    assert len(remember) == 0


def test_it_is_bounded_for_one_and_for_all(clock: FakeClock) -> None:
    """The oldest goes first; one user takes no more than his share."""
    remember = Remember(key=Secret(bytes(32)), monotonic=clock, max_entries=MAX_PER_USER + 2)
    store(remember, user="bob")
    for number in range(3 * MAX_PER_USER):
        store(remember, source=f"host {number}")
    assert len(remember) == MAX_PER_USER + 1
    assert recall(remember, user="bob") is not None
    assert recall(remember, source=f"host {3 * MAX_PER_USER - 1}") is not None
    assert recall(remember, source="host 0") is None

    for number in range(3 * MAX_PER_USER):
        store(remember, user=f"user {number}")
    assert len(remember) == MAX_PER_USER + 2
    assert recall(remember, user="bob") is None
    assert sum(map(len, remember._by_user.values())) == len(remember)


def test_clear_forgets_everybody(remember: Remember) -> None:
    """When the settings change."""
    store(remember)
    remember.clear()
    assert (len(remember), recall(remember), remember._by_user) == (0, None, {})


def test_parts_do_not_run_into_each_other(remember: Remember) -> None:
    """``ab`` and ``c`` is not ``a`` and ``bc``."""
    store(remember, listener="ab", source="c")
    assert recall(remember, listener="a", source="bc") is None
    assert recall(remember, listener="ab", source="c") is not None


def test_nothing_of_the_text_is_kept_and_the_key_matters(remember: Remember) -> None:
    """Neither password nor code, in whatever the table holds."""
    store(remember)
    seen: list[Any] = [remember._entries, remember._by_user]
    for at_most in range(100_000):
        if at_most >= len(seen):
            break
        seen.extend(one for one in gc.get_referents(seen[at_most]) if isinstance(one, dict | tuple | list | bytes | str))
        entry = seen[at_most]
        if isinstance(entry, dict):
            seen.extend(value.__getstate__() for value in entry.values() if hasattr(value, "credential"))
    octets = [one.encode() if isinstance(one, str) else one for one in seen if isinstance(one, bytes | str)]
    assert octets
    assert not any(b"pass" in one or b"123456" in one for one in octets)

    other = Remember(key=Secret(b"\1" + bytes(31)), monotonic=FakeClock())
    store(other)
    assert set(other._entries).isdisjoint(remember._entries)


@given(
    st.lists(
        st.tuples(st.sampled_from(["store", "recall", "forget"]), st.integers(0, 3), st.integers(0, 3), st.integers(0, 400)),
        max_size=60,
    )
)
def test_a_hit_is_always_a_bind_that_was_stored(steps: list[tuple[str, int, int, int]]) -> None:
    """Against the simplest table there is: what was stored, and since when."""
    clock = FakeClock()
    remember = Remember(key=Secret(bytes(32)), monotonic=clock)
    model: dict[tuple[str, int], float] = {}
    for what, user, code, wait in steps:
        clock.advance(wait)
        name, typed = f"u{user}", Secret(b"password,%06d" % code)
        if what == "store":
            store(remember, user=name, typed=typed, password=Secret(b"password"))
            model[name, code] = clock.now
        elif what == "forget":
            remember.forget(name)
            model = {key: since for key, since in model.items() if key[0] != name}
        else:
            since = model.get((name, code))
            expected = (b"password", "totp:12") if since is not None and clock.now < since + 600 else None
            assert recall(remember, user=name, typed=typed) == expected
