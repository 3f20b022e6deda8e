"""DNs: the shared vectors, properties of the normal form, and OpenLDAP's own parser as the judge of what a text names."""

from __future__ import annotations

import contextlib
import json
import subprocess
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ldap_proxy.dn import TEXT_MAX, Dn, NotADn, parse_dn
from tests.end_to_end.programs import must_have
from tests.ldap_proxy.ldap_vectors import Name, read_names

SYSTEM_PYTHON = "/usr/bin/python3"
NAMES = read_names()
GOOD = [name for name in NAMES if name.rdns is not None]
Judge = Callable[[str], list[list[list[str]]] | None]


def shown(name: Name) -> str:
    """The text, as the name of a test."""
    return ascii(name.text)


# Names that mean something to a DN, and characters that do.
types = st.sampled_from(["cn", "CN", "uid", "Dc", "2.5.4.3", "oid.2.5.4.11", "OID.0.9.2342.19200300.100.1.1", "x-y", "1.2.3"])
telling = st.sampled_from(
    [*' \\"#+,;<=>\0\t\n/', "\\2C", "\\,", "\\20", "\\C3\\A9", "\\c3", "é", "é", "İ", "ß", "Σ", "a", "B", "F0"]
)
soup = st.lists(st.one_of(telling, st.characters(codec="utf-8")), max_size=12).map("".join)
values = st.one_of(soup, st.text(st.characters(codec="utf-8"), min_size=1, max_size=10))


def written(value: str, way: int) -> str:
    """A value in one of the ways that RFC 4514 and RFC 2253 know."""
    if way == 0:
        return "".join(f"\\{octet:02x}" for octet in value.encode())
    if way == 1 and value.isprintable():
        return '"' + "".join(f"\\{character}" if character in '"\\' else character for character in value) + '"'
    if way == 2 and len(value.encode()) < 0x80:
        octets = value.encode()
        return "#" + (bytes((0x04, len(octets))) + octets).hex()
    escaped = "".join(f"\\{character}" if character in ' "#+,;<=>\\' else character for character in value)
    return "".join(c if c >= " " and c != "\x7f" else f"\\{ord(c):02X}" for c in escaped)


@pytest.mark.parametrize("name", GOOD, ids=shown)
def test_a_dn_is_read_however_it_is_spelt(name: Name) -> None:
    """Every vector, and its normal form reads the same."""
    read = parse_dn(name.text)
    assert read.rdns == name.rdns
    assert parse_dn(read.text) == read


@pytest.mark.parametrize("name", [name for name in NAMES if name.rdns is None], ids=shown)
def test_what_is_no_dn_is_refused_and_not_quoted(name: Name) -> None:
    """Every such vector, with a text that does not repeat it."""
    with pytest.raises(NotADn) as refused:
        parse_dn(name.text)
    assert len(name.text) < 4 or name.text not in str(refused.value)


def test_the_normal_form_is_escaped() -> None:
    """As RFC 4514 section 2.4 has it; control characters in hexadecimal, so that it stays one line wherever it is told."""
    dn = parse_dn('CN="#a, \\"b\\" + c;<d>=\\\\e" + SN = \\0AX , dc=example')
    assert (
        dn.text == str(dn) == "\\".join(["cn=", "#a", ", ", '"b', '" ', "+ c", ";", "<d", ">=", "", "e+sn=", "0ax,dc=example"])
    )


def test_the_leaf_is_the_first_rdn() -> None:
    """Its pairs in their order; the root has none."""
    assert parse_dn("uid=Alice+cn=A,dc=x").leaf == (("cn", "a"), ("uid", "alice"))
    assert parse_dn("").leaf == ()


@pytest.mark.parametrize(
    ("text", "base", "under"),
    [
        ("uid=a,ou=people,dc=x", "dc=x", True),
        ("uid=a,ou=people,dc=x", "OU=People, DC=X", True),
        ("ou=people,dc=x", "ou=people,dc=x", True),
        ("uid=a,ou=people,dc=x", "", True),
        ("", "", True),
        ("dc=x", "ou=people,dc=x", False),
        ("uid=a,ou=people,dc=xx", "dc=x", False),
        ("uid=a,ou=peoples,dc=x", "ou=people,dc=x", False),
        ("uid=a\\,dc=x", "dc=x", False),
        ("uid=a\\,ou=people,dc=x", "ou=people,dc=x", False),
        ('uid="a,ou=people,dc=x"', "ou=people,dc=x", False),
        ("ou=people,dc=x,dc=y", "ou=people,dc=x", False),
        ("", "dc=x", False),
    ],
)
def test_what_is_under_a_base(text: str, base: str, under: bool) -> None:
    """By RDNs, never by the text: an escaped comma divides nothing."""
    assert parse_dn(text).is_under(parse_dn(base)) is under


def test_a_dn_longer_than_slapds_bound_is_refused() -> None:
    """Before anything of it is looked at."""
    assert parse_dn("cn=" + "a" * (TEXT_MAX - 3)).leaf[0][0] == "cn"
    with pytest.raises(NotADn, match="8193"):
        parse_dn("cn=" + "a" * (TEXT_MAX - 2))


@pytest.mark.parametrize("text", ["cn=\udce9", "cn=\ud800,dc=x"])
def test_half_a_character_is_no_value(text: str) -> None:
    """Octets that came in as surrogates name nobody."""
    with pytest.raises(NotADn):
        parse_dn(text)


@pytest.mark.parametrize(
    "text", ["," * 8192, "\\" * 8192, '"' * 8192, "cn=" + '"' * 8189, "a=" + "\\," * 4000, "+" * 8000, "cn=a+" * 1600]
)
def test_no_text_costs_more_than_its_length(text: str) -> None:
    """Patterns that back up would never come back from these."""
    with contextlib.suppress(NotADn):
        parse_dn(text)


@given(st.one_of(soup, st.builds("{}={}".format, types, soup), st.text()))
def test_any_text_is_a_dn_or_not(text: str) -> None:
    """A value, or NotADn; and the normal form of a value is its own."""
    try:
        read = parse_dn(text)
    except NotADn:
        return
    assert parse_dn(read.text) == read
    assert parse_dn(read.text).text == read.text
    for rdn in read.rdns:
        assert rdn
        assert all(kind and value and value == value.strip(" ") for kind, value in rdn)


@given(st.lists(st.tuples(types, values, st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=4), st.sampled_from(",;"))
def test_every_way_to_write_a_value_names_the_same(rdns: list[tuple[str, str, int, int]], comma: str) -> None:
    """Escaped, quoted, in hexadecimal: one value, and blanks around it change nothing."""
    if not all(value.strip(" ") for _, value, _, _ in rdns):
        return
    one = ",".join(f"{kind}={written(value, way)}" for kind, value, way, _ in rdns)
    other = f" {comma} ".join(f" {kind.swapcase()} = {written(value, way)}" for kind, value, _, way in rdns)
    assert parse_dn(one) == parse_dn(other)


@given(values)
@example("ŉ")
@example("ǰ")
@example("ΐ")
@example("İ")
@example("ΣΑΣ")
@example("\u2126\u0342")
def test_capitals_and_small_letters_compare_by_character(value: str) -> None:
    """The small letter of each character, composed: neither the place in a word nor the neighbours matter."""
    if not value.strip(" "):
        return
    lower = "".join(character.lower() for character in value)
    assert parse_dn(f"cn={written(value, 0)}") == parse_dn(f"cn={written(lower, 3)}")
    decomposed = unicodedata.normalize("NFD", value)
    assert parse_dn(f"cn={written(value, 0)}") == parse_dn(f"cn={written(decomposed, 3)}")


@pytest.fixture(scope="module")
def libldap() -> Iterator[Judge]:
    """OpenLDAP's ldap_str2dn, in a process of the system's Python."""
    must_have(SYSTEM_PYTHON, "/usr/lib/python3/dist-packages/ldap/dn.py")  # Debian's python3-ldap
    script = Path(__file__).with_name("libldap_names.py")
    with subprocess.Popen(
        [SYSTEM_PYTHON, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        questions, answers = process.stdin, process.stdout
        assert questions is not None
        assert answers is not None

        def ask(text: str) -> list[list[list[str]]] | None:
            questions.write(json.dumps(text) + "\n")
            questions.flush()
            answer = answers.readline()
            assert answer, "the system's Python needs python-ldap (Debian: python3-ldap)"
            read: list[list[list[str]]] | None = json.loads(answer)
            return read

        yield ask
        questions.close()


def judged(text: str, libldap: Judge) -> None:
    """See that a text which is a DN here is the same one to libldap. Two things it does not know may be read here alone."""
    try:
        read = parse_dn(text)
    except NotADn:
        return
    theirs = libldap(text)
    if theirs is None:
        assert "#" in text or "oid." in text.lower()  # BER in hexadecimal, and the prefix of RFC 2253 section 4
        return
    plainly = [
        "+".join(f"{kind}={''.join(f'{chr(92)}{octet:02x}' for octet in value.encode())}" for kind, value in rdn)
        for rdn in theirs
    ]
    assert parse_dn(",".join(plainly)) == read


@pytest.mark.parametrize("name", NAMES, ids=shown)
def test_libldap_reads_the_vectors_in_the_same_way(name: Name, libldap: Judge) -> None:
    """What is a DN here names the same entry to OpenLDAP."""
    judged(name.text, libldap)


@settings(max_examples=600, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.one_of(
        soup,
        st.lists(st.tuples(types, soup, st.sampled_from([",", ";", "+", " , ", " + "])), min_size=1, max_size=4).map(
            lambda parts: "".join(f"{comma}{kind}={value}" for kind, value, comma in parts)[1:]
        ),
        st.lists(st.tuples(types, values, st.integers(0, 3), st.sampled_from(",;+")), min_size=1, max_size=4).map(
            lambda parts: "".join(f"{comma}{kind} = {written(value, way)}" for kind, value, way, comma in parts)[1:]
        ),
    )
)
def test_libldap_reads_any_text_in_the_same_way(libldap: Judge, text: str) -> None:
    """Nothing is a DN here that OpenLDAP refuses or takes for another one."""
    if "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text):
        judged(text, libldap)


def test_dns_are_values() -> None:
    """They compare, hash and say what they are."""
    assert {parse_dn("CN=a"), parse_dn("2.5.4.3=A")} == {Dn(((("cn", "a"),),))}
