"""An installation that ``mfactl init`` made, and a way to type commands."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mfactl.__main__ import run


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command said and how it ended."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Command = Callable[..., Answer]


@pytest.fixture
def mfactl(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Type a command; ``stdin`` is what is piped in. The installation stands in ``tmp_path``."""
    monkeypatch.delenv("MFAD_CONFIG", raising=False)
    monkeypatch.chdir(tmp_path)
    config = str(tmp_path / "mfad.yaml")

    def command(*arguments: str, stdin: str = "") -> Answer:
        capsys.readouterr()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        status = run([*arguments, f"--config={config}"])
        said = capsys.readouterr()
        return Answer(int(status), said.out, said.err)

    assert command("init").status == 0
    return command
