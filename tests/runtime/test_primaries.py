"""A section in, a backend out; and what the gate makes of its answers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from mfa_core.errors import ConfigurationError
from mfa_core.model import FirstFactor, Grammar, SplitMode
from mfa_core.secret import Secret
from mfa_core.throttle import ThrottleRules
from mfa_core.verdict import Accepted, Rejected, Unavailable, Unready
from mfa_runtime.administration.passwords import set_password
from mfa_runtime.config.primary import CLASSES, Primary
from mfa_runtime.primaries import open_primary
from tests.doubles import ALICE, BOB, Installation, attempt, install

PASSWORD = "correct horse battery"
SECTIONS: dict[str, dict[str, object]] = {
    "none": {},
    "pam": {"service": "mfad-no-such-service"},
    "ldap": {"servers": "ldap://127.0.0.1:1", "base_dn": "dc=x", "bind_dn": "cn=x", "bind_password_file": "secret"},
    "radius": {"servers": "127.0.0.1:1", "secret_file": "secret", "timeout": "1s", "retries": 1},
    "local": {},
}


@pytest.fixture
def installed(tmp_path: Path) -> Iterator[Installation]:
    """alice has a password, bob has none."""
    (tmp_path / "state").mkdir()
    one = install(tmp_path / "state", ALICE, BOB)
    with one.store.writing() as connection:
        set_password(connection, one.act(), "alice", Secret(PASSWORD.encode()))
    yield one
    one.store.close()


def section(kind: str, place: Path) -> Primary:
    return Primary.model_validate({"type": kind, **SECTIONS[kind]}, context={"base": place})


@pytest.mark.parametrize("kind", SECTIONS)
def test_every_type_opens_and_closes(kind: str, installed: Installation, tmp_path: Path) -> None:
    """Without asking anybody. None is no backend."""
    assert set(SECTIONS) == {one.value for one in CLASSES}
    (tmp_path / "secret").write_text("s3cret s3cret s3cret")
    (tmp_path / "secret").chmod(0o400)
    backend = open_primary(section(kind, tmp_path), store=installed.store, keyring=installed.keyring, throttle=ThrottleRules())

    assert (backend is None) is (kind == "none")
    if backend is not None:
        backend.close()
        with pytest.raises(Exception, match="closed"):
            asyncio.run(backend.check("alice", Secret(b"password"), attempt()))


@pytest.mark.parametrize("kind", ["ldap", "radius"])
def test_a_secret_that_cannot_be_read_stops_the_start(kind: str, installed: Installation, tmp_path: Path) -> None:
    """Or the reload, which then leaves everything as it was."""
    with pytest.raises(ConfigurationError, match="primary"):
        open_primary(section(kind, tmp_path), store=installed.store, keyring=installed.keyring, throttle=ThrottleRules())


def login(installed: Installation, kind: str, place: Path, typed: str) -> object:
    """One login of alice with password and code in one answer."""
    backend = open_primary(section(kind, place), store=installed.store, keyring=installed.keyring, throttle=ThrottleRules())
    assert backend is not None
    installed.primary = backend
    try:
        grammar = Grammar(SplitMode.APPEND, ",")
        return installed.decide(attempt("alice", typed, first_factor=FirstFactor.OURS, grammar=grammar))[0]
    finally:
        backend.close()


def test_both_factors_are_needed(installed: Installation, tmp_path: Path) -> None:
    """Right password and code: in. A wrong password: rejected. A backend that is away: nobody knows, and nothing is counted."""
    code = ALICE.code(installed.clock())
    (tmp_path / "secret").write_text("s3cret s3cret s3cret")
    (tmp_path / "secret").chmod(0o400)

    assert isinstance(login(installed, "local", tmp_path, f"another one{code}"), Rejected)
    for away in ("ldap", "radius"):
        unready = login(installed, away, tmp_path, PASSWORD + code)
        assert isinstance(unready, Unavailable)
        assert unready.reason is Unready.BACKEND
    assert isinstance(login(installed, "local", tmp_path, PASSWORD + code), Accepted)
