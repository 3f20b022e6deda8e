"""What every test of the module starts from: a directory for the sockets, on a path short enough for one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pam_mfa.pam_harness import socket_directory


@pytest.fixture
def directory() -> Iterator[Path]:
    """An empty socket directory that the module accepts."""
    with socket_directory() as path:
        yield path
