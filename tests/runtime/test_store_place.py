"""Where the configuration says that the store is."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from mfa_core.errors import MfaError
from mfa_runtime.config import DEFAULTS, ConfigurationProblems, load_config_text
from mfa_runtime.config.store_section import StoreSection
from mfa_runtime.store.place import StorePlace

BASE = Path("/etc/mfad")


def place(url: str, **more: object) -> StorePlace:
    """As the configuration reads it."""
    lines = "".join(f"  {name}: {value}\n" for name, value in more.items())
    return load_config_text(f"store:\n  url: {url!r}\n{lines}", name="mfad.yaml", base=BASE).store_place


def test_without_a_word_it_is_a_file_in_the_state_directory() -> None:
    """Of this machine, and nobody else's."""
    assert DEFAULTS.store_place == StorePlace(Path("/var/lib/mfad"))
    assert DEFAULTS.store_place.file == Path("/var/lib/mfad/mfad.sqlite")


def test_a_database_and_its_password() -> None:
    """The file of the password starts at the configuration's folder."""
    found = place("postgresql://mfad@db.example.org/mfad", password_file="db.password", connections=4, timeout="2s")

    assert found == StorePlace(
        Path("/var/lib/mfad"), "postgresql://mfad@db.example.org/mfad", BASE / "db.password", connections=4, timeout_s=2.0
    )
    assert found.file is None


@pytest.mark.parametrize(
    ("url", "mode", "near"),
    [
        ("postgresql://mfad@db.example.org/mfad", "verify-full", False),
        ("postgresql://mfad@10.0.0.1:5433/mfad", "verify-full", False),
        ("postgresql://mfad@db1,db2:5433/mfad", "verify-full", False),
        ("postgresql://mfad@localhost,db2/mfad", "verify-full", False),
        ("postgresql://mfad@[2001:db8::1]/mfad", "verify-full", False),
        ("postgresql://mfad@localhost.example.org/mfad", "verify-full", False),
        ("postgresql://mfad@/mfad?host=db.example.org", "verify-full", False),
        ("postgresql://mfad@db.example.org/mfad?sslmode=require", "require", False),
        ("postgresql://mfad@127.0.0.1/mfad", "disable", True),
        ("postgresql://mfad@[::1]:5433/mfad", "disable", True),
        ("postgresql://mfad@localhost:5433/mfad", "disable", True),
        ("postgresql:///mfad", "disable", True),
        ("postgresql://mfad@/mfad?host=/run/postgresql", "disable", True),
        ("postgres://mfad@127.0.0.1/mfad?sslmode=verify-ca", "verify-ca", True),
    ],
)
def test_a_server_elsewhere_must_prove_who_it_is(url: str, mode: str, near: bool) -> None:
    """Unless somebody wrote otherwise."""
    found = place(url)

    assert (found.ssl_mode, found.is_near) == (mode, near)
    assert f"sslmode={mode}" in found.connection_url()
    assert ("sslrootcert=" in found.connection_url()) is mode.startswith("verify")


def test_what_people_see_of_it() -> None:
    """Not how TLS is set up."""
    assert str(place("postgresql://mfad@db1,db2/mfad?sslmode=require&sslrootcert=/ca.pem")) == "postgresql://mfad@db1,db2/mfad"
    assert str(place("postgresql://mfad@/mfad?host=/run/pg")) == "postgresql://mfad@/mfad?host=/run/pg"


@pytest.mark.parametrize(
    ("url", "seen"),
    [
        ("postgresql://mfad:hunter2@db.example.org/mfad", "a password"),
        ("postgresql://mfad:hunter2@db.example.org", "a password"),
        ("postgresql://mfad@db.example.org/mfad?password=hunter2", "password"),
        ("postgresql://mfad@db.example.org/mfad?sslpassword=hunter2", "sslpassword"),
        ("postgresql://mfad@db.example.org/mfad?passfile=/hunter2", "passfile"),
        ("postgresql://mfad@db.example.org/mfad?options=-csynchronous_commit%3Doff", "options"),
        ("postgresql://mfad@db.example.org/mfad?sslmode=prefer", "another sslmode"),
        ("postgresql://mfad@db.example.org/mfad?sslmode=", "an empty sslmode"),
        ("postgresql://mfad@db.example.org/mfad?hunter2", "something else"),
        ("postgresql://mfad@db.example.org", "no database"),
        ("postgresql://mfad@db.example.org/", "no database"),
        ("postgresql://mfad@db.example.org/one/two", "no database"),
        ("postgresql://mfad@db.example.org:99999/mfad", "another port"),
        ("postgresql://mfad@db example.org/mfad", "something else"),
        ("postgresql://mfad@db;example/mfad", "no such host"),
        ("postgresql://mfad@[::1/mfad", "no URL"),
        ("postgresql://@db.example.org/mfad", "an empty user"),
        ("mysql://mfad@db.example.org/hunter2", "mysql scheme"),
        ("mfad.sqlite", "no scheme"),
        ("postgresql://mfad@db.example.org/" + "m" * 2000, "something else"),
    ],
)
def test_what_is_no_place_is_refused_without_showing_a_password(url: str, seen: str) -> None:
    """The cure says where a password belongs."""
    with pytest.raises(ConfigurationProblems) as found:
        place(url)

    (problem,) = found.value.problems
    assert (problem.key, problem.line) == ("store.url", 2)
    assert seen in problem.seen
    assert "hunter2" not in str(found.value)
    if "password" in seen or "passfile" in seen:
        assert "password_file" in problem.cure


_PIECES = (
    "postgresql://",
    "mfad",
    ":",
    "@",
    "hunter2",
    "/",
    "?",
    "host=",
    "sslmode=",
    "&",
    ",",
    "[",
    "]",
    "::1",
    "%",
    "#",
    "=",
    "\0",
    "é",
)


@given(st.lists(st.sampled_from(_PIECES), max_size=12).map("".join) | st.text(max_size=40))
def test_any_text_is_a_place_without_a_password_or_a_mistake(text: str) -> None:
    """And whoever opens the place can take it apart."""
    try:
        section = StoreSection.model_validate({"url": text})
    except ValidationError:
        return
    found = StorePlace(Path("/s"), section.url)
    if not found.is_file:
        assert urlsplit(found.connection_url()).password is None
        assert found.hosts()
        assert str(found)


def test_a_password_file_without_a_database_is_a_mistake() -> None:
    """Somebody forgot the URL, and would write to a file of his own."""
    with pytest.raises(MfaError, match="url"):
        load_config_text("store: {password_file: x}\n", name="mfad.yaml", base=BASE)
