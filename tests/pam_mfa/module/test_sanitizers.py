"""Do all the scripted logins, and bytes that nobody would write, go through the module under ASan and UBSan?

The suites of this folder are run once more with the module's sanitizer build, in a Python that has the runtime preloaded, and
the fuzzer is run shortly; ``make -C pam_mfa/module fuzz-run`` runs it for long.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pam_mfa.pam_harness import MODULE_SOURCE, build

ROOT = MODULE_SOURCE.parents[1]
CORPUS = ROOT / "tests" / "fuzz" / "corpus" / "pam_module"


def runtime() -> str:
    """The path of libasan, as the compiler knows it."""
    done = subprocess.run(["cc", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.skipif("LD_PRELOAD" in os.environ, reason="this is the run under sanitizers")
@pytest.mark.parametrize("suite", ["account", "begin", "dialogue", "options", "refusals", "trust"])
def test_suite_passes_under_sanitizers(suite: str) -> None:
    """No report of ASan or UBSan; what they find ends the process, and so the suite."""
    asan = build("asan") / "asan" / "pam_mfa.so"
    build()

    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-x",
            "-p",
            "no:cacheprovider",
            str(Path(__file__).with_name(f"test_{suite}.py")),
        ],
        env={
            **os.environ,
            "LD_PRELOAD": runtime(),
            "PAM_MFA_MODULE": str(asan),
            "ASAN_OPTIONS": "detect_leaks=0:halt_on_error=1",  # Python does not free all; pam_driver counts leaks
            "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
        },
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )

    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "runtime error" not in done.stderr


def test_fuzzer_finds_nothing_in_a_short_run(tmp_path: Path) -> None:
    """20,000 inputs that grow out of the seed corpus, the same ones each time."""
    fuzzer = build("fuzz") / "fuzz" / "pam_module_fuzz"

    done = subprocess.run(
        [fuzzer, "-runs=20000", "-seed=1", "-max_len=65536", f"-artifact_prefix={tmp_path}/", tmp_path, CORPUS],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )

    assert done.returncode == 0, done.stderr[-3000:]
    assert "Done 20000 runs" in done.stderr
