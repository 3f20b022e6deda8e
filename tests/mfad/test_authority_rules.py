"""By which rules an authority goes is said where others share its store."""

from __future__ import annotations

from pathlib import Path

import pytest

from mfa_runtime.config import load_config_text
from mfa_runtime.protocol.syncing import rules_digest
from mfa_runtime.store.database import Store
from mfa_runtime.store.shared_rules import EVERY_S, noted
from mfad.authority import RulesNote
from tests.doubles import ALICE, install

TEXT = "role: authority\nauthority: {name: mfa1}\n"


def rules(more: str = "") -> str:
    """The digest of a file."""
    return rules_digest(load_config_text(TEXT + more, name="mfad.yaml", base=Path("/")).rules)


def said(store: Store) -> list[tuple[str, str, float]]:
    """What stands in the store."""
    with store.reading() as connection:
        return [(one.authority, one.digest, one.at) for one in noted(connection, since=0.0)]


def test_it_is_said_when_it_changes_and_every_hour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not in between: nothing is written then."""
    installed = install(tmp_path, ALICE)
    monkeypatch.setattr(installed.store, "several_writers", True)
    note = RulesNote(installed.store)
    config = load_config_text(TEXT, name="mfad.yaml", base=Path("/"))
    other = load_config_text(TEXT + "time_zone: Europe/Berlin\n", name="mfad.yaml", base=Path("/"))
    try:
        note.say(config, 1_000.0)
        note.say(config, 1_000.0 + EVERY_S - 1)
        assert said(installed.store) == [("mfa1", rules(), 1_000.0)]

        note.say(config, 1_000.0 + EVERY_S)
        assert said(installed.store) == [("mfa1", rules(), 1_000.0 + EVERY_S)]

        note.say(other, 1_001.0 + EVERY_S)
        assert said(installed.store) == [("mfa1", rules("time_zone: Europe/Berlin\n"), 1_001.0 + EVERY_S)]
    finally:
        installed.close()


def test_a_store_of_one_authority_says_nothing(tmp_path: Path) -> None:
    """There is nobody to compare with."""
    installed = install(tmp_path, ALICE)
    try:
        RulesNote(installed.store).say(load_config_text(TEXT, name="mfad.yaml", base=Path("/")), 1_000.0)
        assert said(installed.store) == []
    finally:
        installed.close()
