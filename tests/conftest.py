"""What holds for every test: properties are tried on the same examples each time, and no example is timed."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.doubles import Installation, install
from tests.end_to_end.postgresql import Cluster, cluster

# Derandomized: a machine that builds must not fail by chance. `HYPOTHESIS_PROFILE=search` looks for new examples.
settings.register_profile("ci", derandomize=True, deadline=None, max_examples=60, database=None)
settings.register_profile("search", deadline=None, max_examples=2_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.fixture
def installed(tmp_path: Path) -> Iterator[Installation]:
    """A store with alice and bob, and the parts to verify against it."""
    installation = install(tmp_path)
    yield installation
    installation.close()


@pytest.fixture
def new_installed(tmp_path: Path) -> Callable[..., Installation]:
    """Makes such a store with the people that the test names."""
    return functools.partial(install, tmp_path)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Cluster]:
    """A running PostgreSQL server for tests that do not break it; each takes databases of its own."""
    with cluster() as one:
        yield one


_UMASK = os.umask(0o022)
os.umask(_UMASK)


@pytest.fixture(autouse=True)
def umask_of_its_own() -> Iterator[None]:
    """A restore makes files private from there on, which must not reach tests that act as another user.

    Set before each test too: a fixture of a whole module may have been at work since the last one.
    """
    os.umask(_UMASK)
    yield
    os.umask(_UMASK)
