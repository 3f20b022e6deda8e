"""The words behind pam_mfa.so."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfa_core.errors import InvalidInput
from pam_mfa.arguments import FirstPass, ModuleArguments, read_arguments
from pam_mfa.settings import ExemptAnswer, Mode
from pam_mfa.wire import Echo


def test_every_argument_is_read() -> None:
    arguments = read_arguments(
        (
            b"socket_dir=/run/mfad",
            b"server_uid=997",
            b"timeout=30",
            b"try_first_pass",
            b"require_mfa",
            b"first_factor=done",
            b"exempt=success",
            b"mode=auto",
            b"prompt=One-time code: ",
            b"echo",
        )
    )

    assert arguments == ModuleArguments(
        first_pass=FirstPass.TRY,
        require_mfa=True,
        first_factor_done=True,
        exempt=ExemptAnswer.SUCCESS,
        mode=Mode.AUTO,
        prompt="One-time code: ",
        echo=Echo.ON,
        timeout_s=30,
    )


def test_the_last_of_two_wins() -> None:
    assert read_arguments((b"mode=code", b"mode=combined")).mode is Mode.COMBINED


@pytest.mark.parametrize(
    "option",
    [
        b"requre_mfa",
        b"require_mfa=yes",
        b"nullok",
        b"mode=both",
        b"timeout=4",
        b"timeout=601",
        b"timeout=-5",
        b"timeout=\xd9\xa5\xd9\xa0",
        b"timeout=" + b"9" * 5_000,
        b"first_factor=ours",
        b"exempt=",
        b"socket_dir=run",
        b"server_uid=root",
        b"prompt",
        b"",
        b"=",
        b"\xff\x1b[2J",
    ],
)
def test_a_misspelt_argument_is_refused_and_named_without_its_controls(option: bytes) -> None:
    """``requre_mfa`` must not be a hole, and a terminal that shows the log must not obey the line."""
    with pytest.raises(InvalidInput) as refused:
        read_arguments((option,))

    assert str(refused.value).isprintable()
    assert refused.value.cure


@given(st.lists(st.binary(max_size=30), max_size=4).map(tuple))
def test_any_bytes_are_arguments_or_invalid_input(options: tuple[bytes, ...]) -> None:
    text = ""
    try:
        read_arguments(options)
    except InvalidInput as refused:
        text = str(refused)
    assert text.isascii()
