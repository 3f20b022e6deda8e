"""An import is done once, however often it is run, and in batches that stand for themselves."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence

import pytest

from mfa_core.errors import StoreUnavailable
from mfa_core.identity import IdentityRules
from mfa_core.model import CredentialState, FactorKind
from mfa_core.secret import Secret
from mfa_core.verdict import Accepted
from mfa_runtime.administration import importing, users
from mfa_runtime.administration.importing import ImportCounts, RowOutcome, RowStatus, import_rows
from mfa_runtime.imports.row import ImportedCredential, ImportRow, RowNote, RowProblem
from tests.doubles import ALICE, Installation, Person, attempt

CAROL = Person("carol")


def credential(line: int, name: str, secret: bytes | None = None) -> ImportedCredential:
    return ImportedCredential(line, name, Secret(Person(name.lower()).secret if secret is None else secret))


def run(
    installed: Installation, rows: Sequence[ImportRow], *, dry_run: bool = False
) -> tuple[ImportCounts, list[RowOutcome]]:
    heard: list[RowOutcome] = []
    counts = import_rows(
        installed.store, installed.act, rows, rules=IdentityRules(), source="test list", dry_run=dry_run, report=heard.extend
    )
    return counts, heard


def actions(installed: Installation) -> list[str]:
    return [json.loads(str(row["body"]))["action"] for row in installed.rows("audit")]


def test_an_imported_user_logs_in(installed: Installation) -> None:
    """With the code that the old product would have taken."""
    counts, _ = run(installed, [credential(1, "Carol")])

    (verdict,) = installed.decide(attempt("carol", CAROL.code(installed.clock())))

    assert counts == ImportCounts(imported=1, users_added=1)
    assert isinstance(verdict, Accepted)


def test_running_it_again_imports_nothing(installed: Installation) -> None:
    """The same secret of the same user is known by its tag."""
    rows = [credential(1, "carol"), credential(2, "dave")]
    run(installed, rows)

    counts, heard = run(installed, [*rows, credential(3, "erin")])

    assert counts == ImportCounts(imported=1, present=2, users_added=1)
    assert [outcome.status for outcome in heard] == [RowStatus.PRESENT, RowStatus.PRESENT, RowStatus.IMPORTED]


def test_a_revoked_credential_is_not_brought_back(installed: Installation) -> None:
    """Running an old import again must not undo a revocation."""
    run(installed, [credential(1, "carol")])
    with installed.store.writing() as connection:
        users.reset(connection, installed.act(), "carol")

    counts, _ = run(installed, [credential(1, "carol")])

    assert counts.present == 1
    assert installed.credential_of("carol")["state"] == CredentialState.REVOKED


def test_the_same_row_twice_in_one_file_is_imported_once(installed: Installation) -> None:
    """Also under two spellings of the name."""
    counts, _ = run(installed, [credential(1, "carol"), credential(2, "CAROL"), credential(3, "carol", b"x" * 20)])

    assert counts == ImportCounts(imported=2, present=1, users_added=1)


def test_a_rehearsal_keeps_nothing(installed: Installation) -> None:
    """It says what would happen."""
    counts, heard = run(installed, [credential(1, "carol"), RowProblem(2, "bad")], dry_run=True)

    assert counts == ImportCounts(imported=1, problems=1, users_added=1)
    assert len(heard) == 2
    assert actions(installed) == []
    assert len(installed.rows("users")) == 2


def test_names_go_through_the_identity_rules(installed: Installation) -> None:
    """What could not log in is not imported, and the report says so."""
    counts, heard = run(installed, [credential(1, "al ice"), credential(2, "Аlice"), RowNote(3, "left out")])  # noqa: RUF001  Cyrillic on purpose

    assert counts == ImportCounts(problems=2)
    assert [outcome.status for outcome in heard] == [RowStatus.PROBLEM, RowStatus.PROBLEM, RowStatus.NOTE]


def test_every_batch_and_the_whole_are_audited(installed: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two batches, one end."""
    monkeypatch.setattr(importing, "BATCH_ROWS", 2)

    run(installed, [credential(n, f"user{n}") for n in range(1, 4)])

    assert actions(installed) == ["import.batch", "import.batch", "import.done"]


def test_an_import_that_breaks_off_leaves_whole_batches(installed: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    """And running it again does the rest."""
    monkeypatch.setattr(importing, "BATCH_ROWS", 2)
    rows = [credential(n, f"user{n}") for n in range(1, 6)]

    def stop(outcomes: Sequence[RowOutcome]) -> None:
        if outcomes[-1].line == 4:
            raise StoreUnavailable("the power went")

    with pytest.raises(StoreUnavailable):
        import_rows(
            installed.store, installed.act, rows, rules=IdentityRules(), source="x", dry_run=False, report=stop
        )
    counts, _ = run(installed, rows)

    assert counts == ImportCounts(imported=1, present=4, users_added=1)


def test_an_import_gives_an_existing_user_another_credential(installed: Installation) -> None:
    """The one before goes on working."""
    run(installed, [credential(1, "alice", os.urandom(20))])

    (verdict,) = installed.decide(attempt("alice", ALICE.code(installed.clock())))

    assert isinstance(verdict, Accepted)


def test_counters_go_on_where_they_were(installed: Installation) -> None:
    """A counter-based token brings its watermark."""
    row = ImportedCredential(1, "carol", Secret(CAROL.secret), FactorKind.HOTP, period_s=0, last_step=6)

    run(installed, [row])

    assert installed.credential_of("carol")["last_step"] == 6
