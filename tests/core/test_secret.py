"""A secret has one way out."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
import traceback
from collections.abc import Callable

import pytest

from mfa_core.model import Attempt, Credential, CredentialState, Door, FactorKind, Grammar, SplitMode
from mfa_core.passcode import read_passcode
from mfa_core.secret import Secret
from mfa_core.split import CodeFormats, split
from mfa_core.verdict import Accepted, EnrolmentOffer

TEXT = "correct horse 123456"
SECRET = Secret.from_text(TEXT)


@pytest.mark.parametrize(
    "show", [str, repr, "{}".format, "{!r:>40}".format, "{:s}".format, "%s".__mod__, ascii],
    ids=["str", "repr", "format", "repr-format", "s-format", "percent", "ascii"],
)  # fmt: skip
def test_it_has_no_text(show: Callable[[object], str]) -> None:
    """core-5-62: whatever is done with it, a log line says Secret(...)."""
    assert "Secret(...)" in show(SECRET)
    assert TEXT not in show(SECRET)


@pytest.mark.parametrize(
    "leak",
    [pickle.dumps, json.dumps, lambda s: s == Secret.from_text(TEXT), lambda s: s == TEXT.encode(), hash, lambda s: {s: 1},
     lambda s: s < s, bytes, lambda s: s + b"", lambda s: s[0], list],
    ids=["pickle", "json", "equal", "equal-bytes", "hash", "dict-key", "order", "bytes", "add", "index", "iterate"],
)  # fmt: skip
def test_it_cannot_be_used_by_mistake(leak: Callable[[object], object]) -> None:
    """core-5-62: each of these is a TypeError that names no byte of it."""
    with pytest.raises(TypeError) as refused:
        leak(SECRET)

    assert TEXT not in "".join(traceback.format_exception(refused.value))


def test_it_has_no_dictionary() -> None:
    """``vars`` and debuggers that use it find nothing."""
    with pytest.raises(TypeError):
        vars(SECRET)


@pytest.mark.parametrize(
    "value",
    [
        Attempt("e", Door.PAM, "sshd", "alice", typed=SECRET),
        Credential(1, FactorKind.TOTP, CredentialState.ACTIVE, SECRET),
        Accepted("e", "totp", "totp:1", password=SECRET),
        EnrolmentOffer(SECRET, SECRET, "mfad", "alice"),
        read_passcode(b"123456"),
        split(b"correct horse,123456", Grammar(SplitMode.SEPARATOR), CodeFormats()),
    ],
    ids=lambda v: type(v).__name__,
)
def test_values_that_carry_one_do_not_show_it(value: object) -> None:
    """core-5-62: neither as text nor through ``asdict``."""
    shown = repr(value) + str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        shown += repr(dataclasses.asdict(value))

    assert "123456" not in shown
    assert "horse" not in shown


def test_copies_are_the_same_object() -> None:
    """Copying a value that holds one makes no second secret."""
    assert copy.copy(SECRET) is SECRET
    assert copy.deepcopy([SECRET])[0] is SECRET


def test_it_compares_and_measures() -> None:
    """What it can do."""
    assert SECRET.same_as(Secret.from_text(TEXT))
    assert not SECRET.same_as(Secret(b"x"))
    assert (len(SECRET), bool(SECRET), bool(Secret(b""))) == (len(TEXT), True, False)


def test_bytes_that_are_no_text_come_back_as_they_were() -> None:
    """Surrogates stand for them on the way in."""
    assert Secret.from_text(b"\xff\x00a".decode("utf-8", "surrogateescape")).reveal() == b"\xff\x00a"
