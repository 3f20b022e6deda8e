"""The tests of the ledger and of the administration once more, on PostgreSQL: the same code, the same answers."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.doubles import Installation
from tests.end_to_end.postgresql import Cluster
from tests.runtime import (
    test_administration_enrolment,
    test_administration_users,
    test_audit_log,
    test_authority_rows,
    test_changes,
    test_entitlement,
    test_hosts,
    test_import_into_store,
    test_ledger,
)
from tests.runtime.on_postgresql import install_on

ONLY_SQLITE = {
    # They look into the file, or at SQLite's own connections, locks and statements.
    "test_a_removed_chain_is_seen_by_the_high_water",
    "test_a_topic_is_a_range_of_the_index",
    "test_no_statement_reads_a_whole_table",
    "test_users_that_are_not_entitled_cost_nothing",
    "test_a_batch_is_judged_while_another_process_writes",
    "test_a_connection_that_does_not_wait_for_the_disk_is_nobody_elses",
    "test_a_damaged_file_refuses",
    "test_a_disk_that_refuses_a_flush_is_not_believed_again",
    "test_a_store_that_cannot_be_written_refuses_and_the_next_login_works",
    "test_a_store_whose_commit_fails_has_spent_nothing",
    "test_an_answer_that_was_not_decided_spends_no_challenge",
    "test_nothing_is_told_before_the_log_is_on_the_disk",
    "test_other_attempts_do_not_ask_about_challenges",
    # A server is never asked on a thread that must not wait.
    "test_what_need_not_wait_is_decided_at_once",
    "test_who_must_not_wait_does_not_wait_for_another_process",
    "test_who_must_not_wait_does_not_wait_for_the_writers_thread",
    # They hardly ask the store, or ask it what the others ask.
    "test_a_group_has_a_name_that_can_be_typed",
    "test_a_group_may_demand_how_keys_are_kept",
    "test_a_host_is_called_as_hosts_are",
    "test_a_state_that_cannot_be_read_is_named",
    "test_a_store_without_an_authority_notes_nothing",
    "test_terms_have_bounds",
    "test_two_manifests_have_one_digest_only_if_they_are_equal",
    # No column of PostgreSQL takes a text for a number.
    "test_a_row_of_rubbish_is_its_own_trouble",
}
MODULES = (
    test_administration_enrolment, test_administration_users, test_audit_log, test_authority_rows, test_changes,
    test_entitlement, test_hosts, test_import_into_store, test_ledger,
)  # fmt: skip


@pytest.fixture
def installed(postgresql: Cluster, tmp_path: Path) -> Iterator[Installation]:
    """As everywhere, on a server."""
    installation = install_on(postgresql, tmp_path)
    yield installation
    installation.close()


@pytest.fixture
def new_installed(postgresql: Cluster, tmp_path: Path) -> Callable[..., Installation]:
    """As everywhere, on a server."""
    return functools.partial(install_on, postgresql, tmp_path)


def _taken_over() -> dict[str, object]:
    """Tests, named for their module, and fixtures; ``installed`` is the one above."""
    found: dict[str, object] = {}
    for module in MODULES:
        short = module.__name__.rpartition(".")[2].removeprefix("test_")
        for name, value in vars(module).items():
            if name.startswith("test_") and name not in ONLY_SQLITE and callable(value):
                found[f"test_{short}__{name.removeprefix('test_')}"] = value
            elif type(value).__name__ == "FixtureFunctionDefinition" and name != "installed":
                found[name] = value
    return found


globals().update(_taken_over())


def test_there_is_something_to_take_over() -> None:
    """So that the names above cannot empty this file, nor name what has gone."""
    assert len(_taken_over()) > 90
    assert {name for module in MODULES for name in vars(module)} >= ONLY_SQLITE
