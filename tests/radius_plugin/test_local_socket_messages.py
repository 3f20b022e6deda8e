"""The bytes between FreeRADIUS's module and mfad: both sides against the same vectors, and against everything else."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfa_core.secret import Secret
from radius_plugin.freeradius.messages import (
    MESSAGE_MAX,
    Fault,
    MessageRefused,
    PluginReply,
    ReplyKind,
    decode_from_plugin,
    encode_recorded,
    encode_reply,
)
from tests.radius_plugin.freeradius_module import module

VECTORS: dict[str, Any] = json.loads((Path(__file__).parents[1] / "vectors" / "freeradius_wire.json").read_text())
NUMBER = 7


def named(section: str) -> pytest.MarkDecorator:
    rows = VECTORS[section]
    assert rows, section
    return pytest.mark.parametrize("row", rows, ids=[row["name"] for row in rows])


def refused_by(reader: str) -> pytest.MarkDecorator:
    rows = [row for row in VECTORS["refused"] if row["reader"] == reader]
    assert rows, reader
    return pytest.mark.parametrize("row", rows, ids=[row["name"] for row in rows])


@pytest.fixture(name="plugin")
def _plugin() -> Iterator[Any]:
    with module() as (loaded, _):
        yield loaded


def shown(value: object) -> object:
    """A value of a decoded message as the vectors write it."""
    if isinstance(value, Secret):
        return value.reveal().hex()
    return value.hex() if isinstance(value, bytes) else value


@named("logins")
def test_the_module_makes_a_login_of_what_freeradius_hands_over(plugin: Any, row: Any) -> None:
    pairs = [(name, value) for name, value in row["pairs"]]
    assert plugin.message(plugin.LOGIN, NUMBER, plugin.login_fields(pairs, 25)).hex() == row["bytes"]


@named("accounting")
def test_the_module_makes_an_accounting_record_of_what_freeradius_hands_over(plugin: Any, row: Any) -> None:
    pairs = [(name, value) for name, value in row["pairs"]]
    assert plugin.message(plugin.ACCOUNTING, NUMBER, plugin.accounting_fields(pairs)).hex() == row["bytes"]


@pytest.mark.parametrize("row", VECTORS["logins"] + VECTORS["accounting"], ids=lambda row: row["name"])
def test_mfad_reads_the_values_of_a_request_and_nothing_more(row: Any) -> None:
    number, request = decode_from_plugin(bytes.fromhex(row["bytes"]))
    assert number == NUMBER
    given_values = row["values"]
    for one in fields(request):
        value = getattr(request, one.name)
        if one.name in given_values:
            assert shown(value) == given_values[one.name], one.name
        else:
            assert value in (b"", "", None), one.name


@named("verdicts")
def test_mfad_writes_a_verdict_that_the_module_reads(plugin: Any, row: Any) -> None:
    state, attributes = bytes.fromhex(row["state"]), bytes.fromhex(row["attributes"])
    reply = PluginReply(ReplyKind[row["kind"]], tuple(row["messages"]), state, attributes)
    message = encode_reply(NUMBER, reply)
    assert message.hex() == row["bytes"]
    assert plugin.read_verdict(message, NUMBER) == (int(reply.kind), list(reply.messages), state, attributes)


@named("recorded")
def test_mfad_acknowledges_a_record_and_the_module_understands(plugin: Any, row: Any) -> None:
    message = encode_recorded(NUMBER, recorded=row["recorded"])
    assert message.hex() == row["bytes"]
    assert plugin.read_recorded(message, NUMBER) is row["recorded"]


@refused_by("mfad")
def test_mfad_refuses_a_broken_request_and_says_which_rule_it_broke(row: Any) -> None:
    with pytest.raises(MessageRefused) as refused:
        decode_from_plugin(bytes.fromhex(row["bytes"]))
    assert refused.value.fault == Fault(row["fault"])


@refused_by("module")
def test_the_module_refuses_a_broken_verdict(plugin: Any, row: Any) -> None:
    with pytest.raises(plugin.Trouble):
        plugin.read_verdict(bytes.fromhex(row["bytes"]), NUMBER)


def test_messages_over_the_limit_are_refused_by_both_sides(plugin: Any) -> None:
    long = bytes.fromhex(VECTORS["verdicts"][0]["bytes"]) + bytes(MESSAGE_MAX)
    with pytest.raises(MessageRefused) as refused:
        decode_from_plugin(long)
    assert refused.value.fault is Fault.TOO_LONG
    with pytest.raises(plugin.Trouble):
        plugin.read_verdict(long, NUMBER)


def test_no_refusal_quotes_a_password() -> None:
    message = bytes.fromhex(VECTORS["logins"][1]["bytes"]) + b"\1\2\0\6secret"
    with pytest.raises(MessageRefused) as refused:
        decode_from_plugin(message)
    assert "secret" not in repr(refused.value)
    assert "secret" not in repr(decode_from_plugin(bytes.fromhex(VECTORS["logins"][1]["bytes"])))


@pytest.mark.parametrize(
    "reply",
    [
        PluginReply(ReplyKind.ACCEPT, state=b"s"),
        PluginReply(ReplyKind.CHALLENGE),
        PluginReply(ReplyKind.CHALLENGE, state=bytes(254)),
        PluginReply(ReplyKind.REJECT, attributes=b"\x0b\x03a"),
        PluginReply(ReplyKind.ACCEPT, attributes=bytes(4097)),
        PluginReply(ReplyKind.REJECT, ("x" * 254,)),
        PluginReply(ReplyKind.REJECT, ("x",) * 62),
    ],
    ids=["state", "no-state", "long-state", "attributes", "long-attributes", "long-message", "many-messages"],
)
def test_mfad_writes_no_verdict_that_the_module_would_refuse(reply: PluginReply) -> None:
    with pytest.raises(ValueError, match=r"expected|octets"):
        encode_reply(NUMBER, reply)


def _mangled(sections: tuple[str, ...]) -> st.SearchStrategy[bytes]:
    """Anything, and good messages with something of them cut, changed or added."""
    good = [bytes.fromhex(row["bytes"]) for section in sections for row in VECTORS[section]]

    @st.composite
    def mangle(draw: st.DrawFn) -> bytes:
        message = bytearray(draw(st.sampled_from(good)))
        for _ in range(draw(st.integers(1, 4))):
            at = draw(st.integers(0, len(message)))
            match draw(st.sampled_from(["cut", "change", "add"])):
                case "cut":
                    del message[at : at + draw(st.integers(0, 40))]
                case "change" if at < len(message):
                    message[at] = draw(st.integers(0, 255))
                case _:
                    message[at:at] = draw(st.binary(max_size=40))
        return bytes(message)

    return st.binary(max_size=64) | mangle()


@given(_mangled(("logins", "accounting")))
def test_mfad_reads_anything_or_raises_the_one_documented_error(message: bytes) -> None:
    with contextlib.suppress(MessageRefused):
        decode_from_plugin(message)


@pytest.fixture(scope="module", name="one_plugin")
def _one_plugin() -> Iterator[Any]:
    with module() as (loaded, _):
        yield loaded


@given(message=_mangled(("verdicts", "recorded")))
def test_the_module_reads_anything_or_raises_the_one_documented_error(one_plugin: Any, message: bytes) -> None:
    for read in (one_plugin.read_verdict, one_plugin.read_recorded):
        with contextlib.suppress(one_plugin.Trouble):
            read(message, NUMBER)


@pytest.mark.parametrize("section", ["logins", "accounting"])
def test_every_part_of_a_request_is_refused_or_means_less(section: str) -> None:
    """Cut byte by byte: never another error, and never a value that was not there."""
    for row in VECTORS[section]:
        whole = bytes.fromhex(row["bytes"])
        _, full = decode_from_plugin(whole)
        for end in range(len(whole)):
            try:
                _, part = decode_from_plugin(whole[:end])
            except MessageRefused:
                continue
            for one in fields(part):
                value = getattr(part, one.name)
                assert value in (b"", "", None) or shown(value) == shown(getattr(full, one.name))


def test_every_part_of_a_verdict_is_refused_or_says_the_same(plugin: Any) -> None:
    for row in VECTORS["verdicts"]:
        whole = bytes.fromhex(row["bytes"])
        for end in range(len(whole)):
            try:
                kind, *_ = plugin.read_verdict(whole[:end], NUMBER)
            except plugin.Trouble:
                continue
            assert ReplyKind(kind).name == row["kind"]
