"""Is what comes out of the Makefile what login programs may load?"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.pam_mfa.pam_harness import BUILD, MODULE_SOURCE, build

SOURCES = sorted([*MODULE_SOURCE.glob("*.c"), *MODULE_SOURCE.glob("*.h")])

# Everything that the module calls. None of it opens a file, reads the environment, looks up a user, starts a thread or a
# process, or changes what belongs to the whole process.
LIBC = {
    *("clock_gettime", "close", "connect", "fcntl", "fcntl64", "free", "geteuid", "getsockopt", "getuid", "lstat", "poll"),
    *("recv", "send", "snprintf", "socket", "strdup", "__errno_location", "__lxstat"),
    *("explicit_bzero", "memchr", "memcmp", "memcpy", "memset", "strcmp", "strlen", "strncmp", "strspn", "bcmp"),
}
LIBPAM = {
    *("pam_fail_delay", "pam_get_data", "pam_get_item", "pam_get_user", "pam_getenv", "pam_putenv", "pam_set_data"),
    *("pam_set_item", "pam_syslog"),
}
TOOLCHAIN = {"__stack_chk_fail", "__cxa_finalize", "__gmon_start__", "_ITM_deregisterTMCloneTable", "_ITM_registerTMCloneTable"}


def module() -> Path:
    return build("all") / "pam_mfa.so"


def symbols(*options: str) -> set[str]:
    output = subprocess.run(["nm", "-D", *options, module()], capture_output=True, text=True, check=True).stdout
    return {line.split()[-1].partition("@")[0] for line in output.splitlines()}


def test_module_exports_its_three_entry_points_and_nothing_else() -> None:
    """No session and no password phase, and no name that could meet one of the caller's."""
    assert symbols("--defined-only") == {"pam_sm_authenticate", "pam_sm_setcred", "pam_sm_acct_mgmt"}


def test_module_imports_nothing_that_it_has_no_business_with() -> None:
    """A list of what is allowed: no getenv, open, getpw*, setlocale, umask, chdir, fork, signal, pthread or dlopen."""
    imported = {re.sub(r"^__(\w+)_chk$", r"\1", name) for name in symbols("--undefined-only")}

    assert imported <= LIBC | LIBPAM | TOOLCHAIN


def test_module_needs_libc_and_libpam_only() -> None:
    """No other library comes into sshd with it."""
    output = subprocess.run(["readelf", "-d", module()], capture_output=True, text=True, check=True).stdout
    needed = set(re.findall(r"\(NEEDED\).*\[(.*)\]", output))

    assert {name.partition(".so")[0] for name in needed} == {"libpam", "libc"}
    assert "(RUNPATH)" not in output
    assert "(RPATH)" not in output


def test_module_is_hardened() -> None:
    """Full RELRO, a stack that is not executable, canaries, checked memory functions, and no writable data of its own."""
    output = subprocess.run(["readelf", "-W", "-d", "-l", "-S", module()], capture_output=True, text=True, check=True).stdout

    assert "BIND_NOW" in output or re.search(r"FLAGS.*NOW", output)
    assert "GNU_RELRO" in output
    assert re.search(r"GNU_STACK\s.*\sRW\s", output)
    assert "TEXTREL" not in output
    assert not re.search(r"\.t(data|bss)\s", output)
    assert {"__stack_chk_fail", "__memcpy_chk", "__explicit_bzero_chk"} <= symbols("--undefined-only")


def test_module_has_no_global_state() -> None:
    """Every object of ours is constant: libpam may run it in threads."""
    output = subprocess.run(["nm", module()], capture_output=True, text=True, check=True).stdout
    writable = [line.split()[-1] for line in output.splitlines() if re.search(r" [bBdDcC] ", line)]

    of_the_linker = ("__", "_DYNAMIC", "_GLOBAL_OFFSET_TABLE_", "completed.")
    assert [name for name in writable if not name.startswith(of_the_linker)] == []


def test_module_is_small() -> None:
    """At most 600 lines of C in all: this much code runs inside login programs."""
    assert sum(len(source.read_text().splitlines()) for source in SOURCES) <= 600


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
def test_every_file_says_first_which_question_it_answers(source: Path) -> None:
    """The first line is a comment: the name of the file, and a question."""
    first = source.read_text().split("*/", 1)[0]

    assert first.startswith(f"/* {source.name} - ")
    assert "?" in first


@pytest.mark.parametrize("target", ["all", "analyze", "check-exports", "check-size", "check"])
def test_make_target_passes(target: str) -> None:
    """Warnings are errors, those of gcc -fanalyzer too."""
    build(target)


def test_install_puts_one_file_where_it_is_told(tmp_path: Path) -> None:
    """DESTDIR and PAMDIR are the packager's."""
    build("install", f"DESTDIR={tmp_path}", "PAMDIR=/usr/lib/security")

    assert [path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()] == [
        Path("usr/lib/security/pam_mfa.so")
    ]
    assert (tmp_path / "usr/lib/security/pam_mfa.so").read_bytes() == module().read_bytes()


def test_build_output_stays_in_its_directory() -> None:
    """Nothing but sources lies beside the sources."""
    build()

    assert {path.name for path in MODULE_SOURCE.iterdir()} - {BUILD.name} == {
        *(source.name for source in SOURCES),
        "Makefile",
        "pam_mfa.map",
    }


def test_clang_builds_it_too(tmp_path: Path) -> None:
    """CC is overridable, and the code has no warning of clang's either."""
    build("all", "CC=clang", f"BUILD={tmp_path}")

    assert (tmp_path / "pam_mfa.so").exists()
