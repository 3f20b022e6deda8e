"""How does a test call the module that runs inside FreeRADIUS? It gets a ``radiusd`` that remembers what was logged."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import radius_plugin.freeradius

PATH = Path(radius_plugin.freeradius.__file__).with_name("mfad_freeradius.py")
REJECT, FAIL, OK, HANDLED = 0, 1, 2, 3
L_ERR = 4


@contextmanager
def module(config: Mapping[str, str] | None = None) -> Iterator[tuple[Any, list[str]]]:
    """The module, loaded anew, and the lines that it logs."""
    lines: list[str] = []
    fake = ModuleType("radiusd")
    words = SimpleNamespace(
        RLM_MODULE_REJECT=REJECT,
        RLM_MODULE_FAIL=FAIL,
        RLM_MODULE_OK=OK,
        RLM_MODULE_HANDLED=HANDLED,
        L_ERR=L_ERR,
        config=dict(config or {}),
        radlog=lambda level, text: lines.append(text),
    )
    vars(fake).update(vars(words))
    sys.modules["radiusd"] = fake
    spec = importlib.util.spec_from_file_location("mfad_freeradius_under_test", PATH)
    assert spec is not None
    assert spec.loader is not None
    loaded: Any = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(loaded)
    finally:
        del sys.modules["radiusd"]
    try:
        yield loaded, lines
    finally:
        if getattr(loaded, "_plugin", None) is not None:
            loaded._plugin.connections.drop()
