"""The codec of PROTOCOL.md: the shared vectors, and properties over all values and all bytes."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mfa_core.errors import PeerProtocolError
from mfa_core.secret import Secret
from pam_mfa.wire import (
    BYTES_MAX,
    FAIL_DELAY_MAX_US,
    MESSAGE_MAX,
    SHOWN_MAX,
    TEXT_MAX,
    WAIT_MAX_S,
    Answer,
    Ask,
    Begin,
    Cancel,
    Echo,
    Error,
    FailDelay,
    Fault,
    Info,
    Level,
    Log,
    MessageRefused,
    Op,
    Ops,
    Phase,
    PutEnv,
    Result,
    SetAuthtok,
    Wait,
    decode_from_module,
    decode_ops,
    encode_answer,
    encode_begin,
    encode_ops,
)
from tests.pam_mfa.wire_vectors import Vector, escape, read_vectors

VECTORS = read_vectors()
HEADER = b"MFA1\x00\x01\x00"


def spell_op(op: Op) -> str:
    """The operation as the vectors write it."""
    match op:
        case Ask(text, echo):
            return f"PROMPT_{echo.name}:{escape(text.encode())}"
        case Info(text):
            return f"INFO:{escape(text.encode())}"
        case Error(text):
            return f"ERROR:{escape(text.encode())}"
        case Wait(seconds):
            return f"WAIT:{seconds}"
        case SetAuthtok(password):
            return f"SET_AUTHTOK:{escape(password.reveal())}"
        case PutEnv(assignment):
            return f"PUTENV:{escape(assignment.encode())}"
        case FailDelay(microseconds):
            return f"FAIL_DELAY:{microseconds}"
        case Log(level, text):
            return f"LOG:{int(level)}:{escape(text.encode())}"
        case Result(code):
            return f"RESULT:{code}"


def spell_begin(begin: Begin) -> dict[str, list[bytes]]:
    """The fields of BEGIN by the names of the vectors."""
    fields: dict[str, list[bytes]] = {
        "PHASE": [b"%d" % begin.phase],
        "FLAGS": [b"%d" % begin.flags],
        "USER": [begin.user],
        "SERVICE": [begin.service],
        "UID": [b"%d" % begin.uid],
        "EUID": [b"%d" % begin.euid],
    }
    optional = {
        "TTY": begin.tty,
        "RHOST": begin.rhost,
        "RUSER": begin.ruser,
        "SSH_CONNECTION": begin.ssh_connection,
        "SSH_AUTH_INFO_0": begin.ssh_auth_info,
        "MODULE": begin.module.encode(),
    }
    fields |= {name: [value] for name, value in optional.items() if value}
    if begin.authtok is not None:
        fields["AUTHTOK"] = [begin.authtok.reveal()]
    if begin.options:
        fields["OPTION"] = list(begin.options)
    return fields


def selected(kind: str, *, refused: bool) -> list[Vector]:
    kinds = (kind, "any") if refused else (kind,)
    return [vector for vector in VECTORS if vector.refused == refused and vector.kind in kinds]


@pytest.mark.parametrize("vector", selected("ops", refused=False), ids=lambda vector: vector.name)
def test_ops_of_the_vectors_are_read_and_written_alike(vector: Vector) -> None:
    ops = decode_ops(vector.message)

    assert " ".join(["ops", *map(spell_op, ops)]) == vector.expected
    assert encode_ops(ops) == vector.message


@pytest.mark.parametrize("vector", selected("begin", refused=False), ids=lambda vector: vector.name)
def test_begin_of_the_vectors_is_read_as_they_say(vector: Vector) -> None:
    begin = decode_from_module(vector.message)

    assert isinstance(begin, Begin)
    expected: dict[str, list[bytes]] = {}
    for name, value in vector.fields:
        expected.setdefault(name, []).append(value)
    always = {"USER", "SERVICE", "AUTHTOK", "OPTION"}  # an empty item is for mfad the same as none
    assert spell_begin(begin) == {name: value for name, value in expected.items() if name in always or value != [b""]}


@pytest.mark.parametrize("vector", selected("answer", refused=False), ids=lambda vector: vector.name)
def test_answers_of_the_vectors_are_read_and_written_alike(vector: Vector) -> None:
    answer = decode_from_module(vector.message)

    assert isinstance(answer, Answer | Cancel)
    if isinstance(answer, Cancel):
        assert vector.fields == [("CANCEL", b"%d" % answer.code)]
    else:
        assert vector.fields == [("RESP", one.reveal()) for one in answer.responses]
    assert encode_answer(answer) == vector.message


@pytest.mark.parametrize(
    "vector",
    [v for v in VECTORS if v.refused and v.kind in ("begin", "answer", "any")],
    ids=lambda vector: vector.name,
)
def test_messages_that_mfad_must_refuse_are_refused(vector: Vector) -> None:
    with pytest.raises(MessageRefused):
        decode_from_module(vector.message)


@pytest.mark.parametrize("vector", selected("ops", refused=True), ids=lambda vector: vector.name)
def test_messages_that_the_module_must_refuse_are_refused(vector: Vector) -> None:
    with pytest.raises(MessageRefused):
        decode_ops(vector.message)


# Properties

c_strings = st.binary(max_size=200).map(lambda raw: raw.replace(b"\0", b"."))
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=200)
secrets = c_strings.map(Secret)
u32 = st.integers(0, 2**32 - 1)
begins = st.builds(
    Begin,
    phase=st.sampled_from(Phase),
    flags=u32,
    user=c_strings,
    service=c_strings,
    uid=u32,
    euid=u32,
    tty=c_strings,
    rhost=c_strings,
    ruser=c_strings,
    ssh_connection=c_strings,
    ssh_auth_info=c_strings,
    authtok=st.none() | secrets,
    options=st.lists(c_strings, max_size=10).map(tuple),
    module=texts,
)
acts = st.one_of(
    st.builds(Info, texts),
    st.builds(Error, texts),
    st.builds(PutEnv, texts.map(lambda text: f"MFA_X={text}!")),
    st.builds(Log, st.sampled_from(Level), texts),
)
endings = st.one_of(
    st.builds(Result, st.integers(0, 255)).map(lambda op: (op,)),
    st.tuples(st.builds(Ask, texts, st.sampled_from(Echo))),
    st.tuples(st.builds(Wait, st.integers(1, WAIT_MAX_S))),
    st.tuples(st.builds(SetAuthtok, secrets), st.builds(FailDelay, st.integers(0, FAIL_DELAY_MAX_US)), st.just(Result(0))),
)
ops_messages = st.tuples(st.lists(acts, max_size=8), endings).map(lambda parts: (*parts[0], *parts[1]))


@given(begins)
def test_begin_survives_the_wire(begin: Begin) -> None:
    decoded = decode_from_module(encode_begin(begin))

    assert isinstance(decoded, Begin)
    assert decoded == begin
    assert spell_begin(decoded) == spell_begin(begin)  # == leaves the password out


@given(st.lists(secrets, min_size=1, max_size=10))
def test_answers_survive_the_wire(responses: list[Secret]) -> None:
    decoded = decode_from_module(encode_answer(Answer(tuple(responses))))

    assert isinstance(decoded, Answer)
    assert [one.reveal() for one in decoded.responses] == [one.reveal() for one in responses]


@given(st.integers(0, 255))
def test_cancel_survives_the_wire(code: int) -> None:
    assert decode_from_module(encode_answer(Cancel(code))) == Cancel(code)


@given(ops_messages)
def test_ops_survive_the_wire(ops: Ops) -> None:
    decoded = decode_ops(encode_ops(ops))

    assert list(map(spell_op, decoded)) == list(map(spell_op, ops))


@given(st.binary(max_size=300) | st.binary(max_size=300).map(lambda raw: HEADER + raw))
@example(b"")
@example(HEADER)
@example(b"x" * (MESSAGE_MAX + 1))
def test_any_bytes_are_a_value_or_a_peer_protocol_error(message: bytes) -> None:
    """Never another exception: whatever connects, the daemon answers SERVICE_ERR and goes on."""
    for decode in (decode_from_module, decode_ops):
        with contextlib.suppress(PeerProtocolError):
            decode(message)


@given(begins, st.data())
def test_a_mutated_begin_is_a_value_or_a_peer_protocol_error(begin: Begin, data: st.DataObject) -> None:
    """Bytes that are nearly right reach deeper than random ones."""
    message = bytearray(encode_begin(begin))
    for _ in range(data.draw(st.integers(1, 4))):
        message[data.draw(st.integers(0, len(message) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(message[: data.draw(st.integers(0, len(message)))])
    for mutant in (bytes(message), cut):
        with contextlib.suppress(PeerProtocolError):
            decode_from_module(mutant)


@given(begins)
def test_every_cut_of_begin_is_refused_or_lacks_its_tail(begin: Begin) -> None:
    message = encode_begin(begin)
    faults = set()
    for size in range(len(message)):
        try:
            decode_from_module(message[:size])
        except MessageRefused as refused:
            faults.add(refused.fault)
    assert faults == {Fault.HEADER, Fault.TRUNCATED, Fault.MISSING}


@pytest.mark.parametrize(
    "ops",
    [
        (Info("x" * (SHOWN_MAX + 1)), Result(0)),
        (Ask("x" * (TEXT_MAX + 1)),),
        (Info("a\0b"), Result(0)),
        (SetAuthtok(Secret(b"x" * (BYTES_MAX + 1))), Result(0)),
        (Wait(0),),
        (Wait(301),),
        (PutEnv("PATH=/tmp"), Result(0)),
        (PutEnv("MFA_=x"), Result(0)),
        (PutEnv("MFA_A="), Result(0)),
        (FailDelay(5_000_001), Result(0)),
        (*[Info("")] * 64, Result(0)),
        (Info("x" * 8_000), Info("x" * 8_000), Info("x" * 400), Result(0)),
    ],
    ids=lambda ops: type(ops[0]).__name__,
)
def test_what_the_wire_cannot_carry_is_a_mistake_of_ours(ops: Ops) -> None:
    with pytest.raises(ValueError, match=r"expected|takes|more than"):
        encode_ops(ops)


@pytest.mark.parametrize(("version", "older"), [(0, "pam_mfa.so"), (2, "mfad")])
def test_another_version_says_which_package_is_older(version: int, older: str) -> None:
    message = b"MFA1" + version.to_bytes(2) + b"\x00\x01"

    with pytest.raises(MessageRefused, match=f"the package of {older} is older") as refused:
        decode_from_module(message)

    assert refused.value.seen_version == version
    assert refused.value.fault is Fault.VERSION


def test_a_password_has_no_place_in_a_repr() -> None:
    begin = decode_from_module(encode_begin(Begin(Phase.AUTHENTICATE, 0, b"alice", b"sshd", 0, 0, authtok=Secret(b"hunter2"))))

    assert "hunter2" not in repr(begin)
    assert "hunter2" not in repr(Answer((Secret(b"hunter2"),)))
