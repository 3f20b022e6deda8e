"""The messages that the door takes part in: the shared vectors, and properties of reading and building."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ldap_proxy import message
from ldap_proxy.ber import Malformed, head, wrapped
from ldap_proxy.message import (
    BindRequest,
    Result,
    ResultCode,
    Scope,
    abandoned,
    all_of,
    any_of,
    build_abandon,
    build_bind,
    build_extended_request,
    build_extended_response,
    build_result,
    build_sasl_bind,
    build_search,
    build_unbind,
    compare_attribute,
    control_oids,
    equal,
    extended_oid,
    notice_of_disconnection,
    parse_bind,
    parse_entry,
    parse_result,
    present,
)
from mfa_core.secret import Secret
from tests.ldap_proxy.ldap_vectors import BrokenBody, Message, read_broken_bodies, read_messages

READERS: dict[str, Callable[[bytes], object]] = {
    "bind": parse_bind,
    "result": parse_result,
    "extended": extended_oid,
    "controls": control_oids,
    "compare": compare_attribute,
    "abandon": abandoned,
    "entry": parse_entry,
}
EVERY = read_messages()
BINDS = read_messages("bind")
RESULTS = read_messages("result")
CONTROL = wrapped(0xA0, wrapped(0x30, wrapped(0x04, b"1.3.6.1.4.1.42.2.27.8.5.1")))

message_ids = st.one_of(st.integers(0, 300), st.integers(0, 2**31 - 1))
octets_of_any_size = st.one_of(st.binary(max_size=300), st.sampled_from([115, 127, 128, 255, 256, 65_536]).map(bytes))
controls_or_none = st.sampled_from([b"", CONTROL, wrapped(0xA0, b"")])


def named(cases: list[Message]) -> Any:
    """Each case under its own name."""
    return pytest.mark.parametrize("case", cases, ids=lambda case: case.name)


def revealed(secret: Secret | None) -> bytes | None:
    """What a secret holds, to compare."""
    return None if secret is None else secret.reveal()


def plain(bind: BindRequest) -> tuple[object, ...]:
    """A bind whose secrets compare."""
    return (*bind[:3], revealed(bind.password), bind.mechanism, revealed(bind.credentials), bind.controls)


def encoded(text: str | None) -> bytes | None:
    """A text of the vectors as octets."""
    return None if text is None else text.encode()


@named(BINDS)
def test_a_bind_is_read(case: Message) -> None:
    """Every bind of the vectors, whatever its lengths look like."""
    expected = case.read["bind"]
    assert plain(parse_bind(case.octets)) == (
        case.message_id,
        expected["version"],
        expected["name"].encode(),
        encoded(expected.get("password")),
        expected.get("mechanism", ""),
        encoded(expected.get("credentials")),
        case.controls,
    )


@named([case for case in BINDS if case.canonical])
def test_a_canonical_bind_is_built_to_the_octet(case: Message) -> None:
    """What libldap sends is what we send; controls stand inside the SEQUENCE."""
    bind = parse_bind(case.octets)
    if bind.password is not None:
        assert build_bind(bind.message_id, bind.name, bind.password.reveal(), bind.controls) == case.octets
    else:
        credentials = revealed(bind.credentials)
        assert build_sasl_bind(bind.message_id, bind.name, bind.mechanism, credentials, bind.controls) == case.octets


@named(RESULTS)
def test_a_result_is_read(case: Message) -> None:
    """Every response of the vectors that has a result, with what came beside it."""
    expected = case.read["result"]
    behind = case.controls[:1] == b"\x8a"  # a responseName behind the operation is no control
    assert parse_result(case.octets) == Result(
        case.message_id,
        case.tag,
        expected["code"],
        expected.get("matched", "").encode(),
        expected.get("diagnostic", "").encode(),
        b"" if behind else case.controls,
        expected.get("oid", "").encode(),
        encoded(expected.get("value")),
        encoded(expected.get("sasl")),
    )


@named([case for case in RESULTS if case.canonical])
def test_a_canonical_result_is_built_to_the_octet(case: Message) -> None:
    """What slapd answers is what we answer."""
    result = parse_result(case.octets)
    diagnostic = result.diagnostic.decode()
    if result.oid or result.value is not None:
        built = build_extended_response(
            result.message_id, result.code, diagnostic, oid=result.oid.decode(), value=result.value, controls=result.controls
        )
    else:
        built = build_result(
            result.message_id, result.tag, result.code, diagnostic, matched=result.matched, controls=result.controls
        )
    assert built == case.octets


@named(read_messages("extended"))
def test_an_extended_request_says_which(case: Message) -> None:
    """Its OID, with a value or without."""
    assert extended_oid(case.octets) == case.read["extended"]
    if case.canonical:
        assert build_extended_request(case.message_id, case.read["extended"], controls=case.controls) == case.octets


@named(read_messages("controls"))
def test_controls_are_named_with_their_criticality(case: Message) -> None:
    """BOOLEANs are true for whatever is not 0, and false where they are left out."""
    assert [list(control) for control in control_oids(case.controls)] == case.read["controls"]


def test_no_controls() -> None:
    """A message without them has none."""
    assert control_oids(b"") == ()


@named(read_messages("compare"))
def test_a_compare_names_its_attribute(case: Message) -> None:
    """As it is written."""
    assert compare_attribute(case.octets) == case.read["compare"]


@named(read_messages("abandoned"))
def test_an_abandon_names_its_operation(case: Message) -> None:
    """And is built so."""
    assert abandoned(case.octets) == case.read["abandoned"]
    assert build_abandon(case.message_id, case.read["abandoned"]) == case.octets


@named(read_messages("entry"))
def test_an_entry_is_read(case: Message) -> None:
    """Name and values, by descriptions in small letters; one that comes twice has the values of both."""
    expected = case.read["entry"]
    attributes = {kind: [value.encode() for value in values] for kind, values in expected["attributes"].items()}
    assert parse_entry(case.octets) == (expected["name"].encode(), attributes)


def test_a_search_is_built_as_libldap_builds_it() -> None:
    """To the octet, with the paging control inside."""
    (case,) = read_messages("search")
    wanted = case.read["search"]
    built = build_search(
        case.message_id,
        wanted["base"].encode(),
        wanted["scope"],
        equal(wanted["equal"][0], wanted["equal"][1].encode()),
        wanted["attributes"],
        controls=case.controls,
    )
    # libldap's derefAliases, sizeLimit, timeLimit and typesOnly are ours as well
    assert built == case.octets


def test_a_notice_of_disconnection_is_slapds() -> None:
    """To the octet."""
    (case,) = [case for case in EVERY if case.name.endswith("2.5.13: notice of disconnection")]
    assert notice_of_disconnection(ResultCode.PROTOCOL_ERROR, "unknown LDAP request") == case.octets


def test_an_unbind_is_libldaps() -> None:
    """To the octet."""
    (case,) = [case for case in EVERY if case.tag == message.UNBIND_REQUEST]
    assert build_unbind(case.message_id) == case.octets


@pytest.mark.parametrize("broken", read_broken_bodies(), ids=lambda broken: f"{broken.reader}: {broken.name}")
def test_a_body_that_is_not_accounted_for_is_refused(broken: BrokenBody) -> None:
    """Every such vector, with a text that quotes nothing of it."""
    with pytest.raises(Malformed) as refused:
        READERS[broken.reader](broken.octets)
    for quoted in ("wonder", "alice", "PLAIN", "1.2"):
        assert quoted not in refused.value.text


@named(EVERY)
def test_a_message_is_read_by_no_other_reader(case: Message) -> None:
    """A reader of one operation refuses all others."""
    tags = {
        "bind": {0x60},
        "extended": {0x77},
        "compare": {0x6E},
        "abandon": {0x50},
        "entry": {0x64},
        "result": message._FINAL_TAGS,
    }
    for name, own in tags.items():
        if case.tag not in own:
            with pytest.raises(Malformed, match="operation 0x"):
                READERS[name](case.octets)


@named(EVERY)
def test_a_message_cut_anywhere_is_refused(case: Message) -> None:
    """Readers take whole messages only; one octet too many is no better than one too few."""
    own = {"bind", "extended", "compare", "abandoned", "entry", "result"} & case.read.keys()
    for name in own:
        reader = READERS["abandon" if name == "abandoned" else name]
        for size in range(len(case.octets)):
            with pytest.raises(Malformed):
                reader(case.octets[:size])
        with pytest.raises(Malformed):
            reader(case.octets + b"\x00")


@named([case for case in BINDS if case.controls])
def test_controls_are_copied_inside_the_sequence(case: Message) -> None:
    """A rebuilt message with controls is one message, whose end is the controls' end: behind it they would be the next one."""
    for built in (
        build_bind(case.message_id, b"uid=bob", b"hunter2", case.controls),
        build_bind(case.message_id, b"uid=bob" * 40, b"hunter2", case.controls),
        build_sasl_bind(case.message_id, b"", "EXTERNAL", None, case.controls),
        build_result(case.message_id, message.BIND_RESPONSE, 49, controls=case.controls),
        build_extended_request(case.message_id, message.WHO_AM_I, controls=case.controls),
        build_extended_response(case.message_id, 0, value=b"", controls=case.controls),
        build_search(case.message_id, b"", Scope.BASE, present("cn"), controls=case.controls),
    ):
        found = head(built, 0, len(built))
        assert found is not None
        assert found[0] == len(built)
        assert built[found[4] :] == case.controls


@given(message_ids, octets_of_any_size, octets_of_any_size, controls_or_none)
def test_a_bind_that_was_built_is_read_as_it_was_meant(message_id: int, name: bytes, password: bytes, controls: bytes) -> None:
    """Any name, any password, any size."""
    built = build_bind(message_id, name, password, controls)
    assert plain(parse_bind(built)) == (message_id, 3, name, password, "", None, controls)
    content = b"\x02\x01\x03" + wrapped(0x04, name) + wrapped(0x80, password)
    assert built == message.message(message_id, message.BIND_REQUEST, content, controls)


@pytest.mark.parametrize("controls", [b"", CONTROL], ids=["without", "with"])
def test_a_bind_of_any_size_has_the_shortest_lengths(controls: bytes) -> None:
    """Around the sizes where a length needs another octet, one by one."""
    for size in (*range(60, 160), *range(225, 270)):
        for message_id in (1, 127, 128):
            content = b"\x02\x01\x03" + wrapped(0x04, b"uid=a") + wrapped(0x80, bytes(size))
            expected = message.message(message_id, message.BIND_REQUEST, content, controls)
            assert build_bind(message_id, b"uid=a", bytes(size), controls) == expected
            assert plain(parse_bind(expected)) == (message_id, 3, b"uid=a", bytes(size), "", None, controls)


@given(message_ids, st.binary(max_size=200), st.from_regex(r"[A-Z0-9_-]{0,20}", fullmatch=True), st.none() | octets_of_any_size)
def test_a_sasl_bind_that_was_built_is_read_as_it_was_meant(
    message_id: int, name: bytes, mechanism: str, credentials: bytes | None
) -> None:
    """With credentials, with empty ones and without."""
    built = build_sasl_bind(message_id, name, mechanism, credentials)
    assert plain(parse_bind(built)) == (message_id, 3, name, None, mechanism, credentials, b"")


@given(
    message_ids,
    st.sampled_from(sorted(message._FINAL_TAGS)),
    st.integers(0, 2**31 - 1),
    st.text(max_size=200),
    st.binary(max_size=200),
    controls_or_none,
)
def test_a_result_that_was_built_is_read_as_it_was_meant(
    message_id: int, tag: int, code: int, diagnostic: str, matched: bytes, controls: bytes
) -> None:
    """Any code and text; what UTF-8 cannot carry is told by a question mark."""
    built = build_result(message_id, tag, code, diagnostic, matched=matched, controls=controls)
    assert parse_result(built) == Result(message_id, tag, code, matched, diagnostic.encode("utf-8", "replace"), controls)


def test_a_text_that_utf_8_cannot_carry_is_told_by_question_marks() -> None:
    """Half a character in a configured text must not stop an answer."""
    assert parse_result(build_result(1, message.BIND_RESPONSE, 49, "caf\udce9")).diagnostic == b"caf?"


@given(message_ids, message_ids)
def test_an_abandon_that_was_built_is_read_as_it_was_meant(message_id: int, other: int) -> None:
    """Both numbers."""
    assert abandoned(build_abandon(message_id, other)) == other


@pytest.mark.parametrize("message_id", [-1, 2**31])
@pytest.mark.parametrize(
    "build",
    [
        lambda message_id: build_bind(message_id, b"", b""),
        build_unbind,
        lambda message_id: build_abandon(1, message_id),
        lambda message_id: build_result(message_id, 0x61, 0),
    ],
)
def test_no_message_id_out_of_range_is_sent(build: Callable[[int], bytes], message_id: int) -> None:
    """RFC 4511 section 4.1.1.1: 0 to 2^31-1."""
    with pytest.raises(ValueError, match="message ID"):
        build(message_id)


def test_filters_nest_without_depth() -> None:
    """A filter is octets: four thousand around one another are built and framed."""
    nested = any_of(equal("member", b"uid=a"), equal("uniqueMember", b"uid=a"))
    for _ in range(4000):
        nested = all_of(nested)
    built = build_search(1, b"", Scope.SUBTREE, nested)
    assert head(built, 0, len(built)) is not None


def test_a_bind_shows_no_secret() -> None:
    """Neither its repr nor its dictionary holds what was typed."""
    for octets in (build_bind(1, b"uid=a", b"hunter2"), build_sasl_bind(1, b"", "PLAIN", b"hunter2")):
        bind = parse_bind(octets)
        assert "hunter2" not in repr(bind) + str(bind._asdict())


def test_more_controls_than_anybody_sends_are_refused() -> None:
    """A hundred pass; a message of megabytes full of them is not walked to its end."""
    one = wrapped(0x30, wrapped(0x04, b"1.2"))
    assert len(control_oids(wrapped(0xA0, one * message.MAX_CONTROLS))) == message.MAX_CONTROLS
    with pytest.raises(Malformed, match="more than 100"):
        control_oids(wrapped(0xA0, one * message.MAX_CONTROLS + b"\x00" * 1_000_000))


def test_every_operation_of_the_protocol_has_its_place() -> None:
    """RFC 4511 section 4.2 to 4.14: ten requests, eleven responses, and no tag in both."""
    assert len(message.REQUESTS) == 10
    assert len(message.RESPONSES) == 11
    assert not message.REQUESTS & message.RESPONSES
    assert message.FINAL.keys() == message.REQUESTS - {message.UNBIND_REQUEST, message.ABANDON_REQUEST}


@st.composite
def disturbed(draw: st.DrawFn) -> bytes:
    """A message of the vectors with some octets changed, put in or taken out."""
    octets = bytearray(draw(st.sampled_from(EVERY)).octets)
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(octets)))
        octets[at : at + draw(st.integers(0, 2))] = draw(st.binary(max_size=2))
    return bytes(octets)


@given(st.one_of(st.binary(max_size=60), disturbed()))
def test_readers_give_a_value_or_malformed(octets: bytes) -> None:
    """And what is read of a bind is, octet for octet, what stands there: built again it reads the same."""
    for reader in READERS.values():
        try:
            value = reader(octets)
        except Malformed:
            continue
        if isinstance(value, BindRequest):
            password, credentials = value.password, revealed(value.credentials)
            again = (
                build_bind(value.message_id, value.name, password.reveal(), value.controls)
                if password is not None
                else build_sasl_bind(value.message_id, value.name, value.mechanism, credentials, value.controls)
            )
            assert plain(parse_bind(again)) == plain(value._replace(version=3))
