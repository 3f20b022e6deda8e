"""The section `primary`: each type with its own keys, every mistake with its place, and a sample that says the defaults."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from mfa_runtime.config.loading import load_config_text
from mfa_runtime.config.primary import (
    CLASSES,
    LdapSection,
    LocalSection,
    NoneSection,
    PamSection,
    Primary,
    PrimaryType,
    RadiusSection,
    SentName,
    Verify,
)
from mfa_runtime.config.problem import ConfigurationProblems

BASE = Path("/etc/mfad")
SAMPLE = (Path(__file__).parents[2] / "config" / "mfad.yaml").read_text()
LDAP = {"type": "ldap", "servers": "ldaps://dc1.example.org", "user_dn": "uid={user},dc=example,dc=org"}
RADIUS = {"type": "radius", "servers": "10.0.0.1", "secret_file": "secret"}


def read(section: object) -> Primary:
    """The section as the file would give it."""
    config = load_config_text(json.dumps({"doors": {"pam": {"primary": section}}}), name="mfad.yaml", base=BASE)
    assert config.doors.pam is not None
    return config.doors.pam.primary


def problems(section: object) -> dict[str, str]:
    """What is wrong, by key."""
    with pytest.raises(ConfigurationProblems) as refused:
        read(section)
    return {problem.key.removeprefix("doors.pam.primary").removeprefix("."): str(problem) for problem in refused.value.problems}


def test_each_type_has_its_own_section() -> None:
    """Chosen by `type`; none is the default."""
    assert read(None) == read({}) == NoneSection()
    assert read({"type": "pam"}) == PamSection(service="mfad-primary")
    assert read({"type": "local"}) == LocalSection()
    assert read(LDAP) == LdapSection(servers=["ldaps://dc1.example.org"], user_dn=LDAP["user_dn"])
    assert read(RADIUS) == RadiusSection(servers=["10.0.0.1"], secret_file="/etc/mfad/secret")


def test_paths_start_at_the_folder_of_the_file() -> None:
    """As everywhere."""
    search = {"base_dn": "dc=x", "bind_dn": "cn=mfad", "bind_password_file": "ldap.password", "ca_file": "ca.pem"}
    found = read({"type": "ldap", "servers": ["ldaps://x"], **search})

    assert isinstance(found, LdapSection)
    assert found.bind_password_file == BASE / "ldap.password"
    assert found.ca_file == BASE / "ca.pem"


@pytest.mark.parametrize("kind", [kind for kind in PrimaryType if kind is not PrimaryType.NONE])
def test_the_sample_has_every_key_with_its_default(kind: PrimaryType) -> None:
    """In the comment under the type; what has no default has an example that can be used."""
    _, _, after = SAMPLE.partition(f"      #   type: {kind.value}\n")
    block = re.match(r"(?:      #   .*\n)*", after)
    assert block is not None
    said = yaml.safe_load(re.sub(r"(?m)^      #   ", "", block[0])) or {}
    if kind is PrimaryType.PAM:
        said = {"service": "mfad-primary"}
    section = CLASSES[kind]

    assert set(said) == set(section.model_fields) - {"type"}
    ways = [{}] if "user_dn" not in said else [{"user_dn"}, {"bind_dn", "bind_password_file", "base_dn", "filter"}]
    for left_out in ways:
        kept = {key: value for key, value in said.items() if key not in left_out}
        found = section.model_validate(kept)
        fields = section.model_fields.items()
        with_default = {key for key, field in fields if not field.is_required() and field.default is not None}
        for key in with_default & set(kept):
            without = section.model_validate({other: value for other, value in kept.items() if other != key})
            assert getattr(found, key) == getattr(without, key), key


@pytest.mark.parametrize(
    ("section", "key", "hint"),
    [
        ({"type": "kerberos"}, "type", "'ldap'"),
        ({"type": None}, "type", "'ldap'"),
        ({"type": "ldap"}, "servers", "required"),
        ({"type": "radius", "servers": "x"}, "secret_file", "required"),
        ({**LDAP, "secret_file": "x"}, "secret_file", "belongs to type radius"),
        ({"type": "local", "servers": "x"}, "servers", "belongs to type ldap or radius"),
        ({"servers": "x"}, "servers", "belongs to type ldap or radius"),
        ({**RADIUS, "time_out": "3s"}, "time_out", "perhaps timeout is meant"),
        ({**LDAP, "servers": []}, "servers", "1 to 8"),
        ({**LDAP, "servers": ["ldaps://x"] * 9}, "servers", "1 to 8"),
        ({**LDAP, "servers": "x.example.org"}, "servers", "ldaps://"),
        ({**LDAP, "servers": "ldaps://x/dc=example"}, "servers", "base_dn"),
        ({**LDAP, "servers": "ldaps://user@x"}, "servers", "ldaps://"),
        ({**LDAP, "servers": "ldaps://x:99999"}, "servers", "ldaps://"),
        ({**LDAP, "servers": [1]}, "servers", "ldaps://"),
        ({**RADIUS, "servers": "x:0"}, "servers", "10.0.0.1"),
        ({**RADIUS, "servers": "2001:db8::1"}, "servers", "[2001:db8::1]"),
        ({**LDAP, "user_dn": "uid=x,dc=org"}, "user_dn", "{user}"),
        ({**LDAP, "user_dn": "{user}"}, "user_dn", "{user}"),
        ({**LDAP, "user_dn": "{user}=x,dc=org"}, "user_dn", "{user}"),
        ({**LDAP, "user_dn": "uid=a{user},dc=org"}, "user_dn", "{user}"),
        ({**LDAP, "user_dn": "uid={user},ou={user}"}, "user_dn", "{user}"),
        ({**LDAP, "user_dn": None}, "", "neither"),
        ({**LDAP, "base_dn": "dc=x"}, "", "both user_dn and a search"),
        ({**LDAP, "filter": "(uid={user})"}, "", "both user_dn and a search"),
        ({**LDAP, "bind_dn": "cn=x"}, "", "belong together"),
        ({**LDAP, "user_dn": None, "base_dn": "dc=x", "filter": "uid={user}"}, "filter", "(uid={user})"),
        ({**LDAP, "user_dn": None, "base_dn": "dc=x", "filter": "(uid=x)"}, "filter", "(uid={user})"),
        ({**LDAP, "user_dn": None, "base_dn": "dc=x", "filter": "({user}=x)"}, "filter", "(uid={user})"),
        ({**LDAP, "user_dn": None, "base_dn": "dc=x", "filter": "(uid=*{user}*)"}, "filter", "(uid={user})"),
        ({**LDAP, "user_dn": None, "base_dn": "dc=x", "filter": "(uid={user}"}, "filter", "(uid={user})"),
        ({**LDAP, "start_tls": True}, "start_tls", "inside TLS"),
        ({**LDAP, "verify": "sometimes"}, "verify", "'full'"),
        ({**LDAP, "timeout": "31s"}, "timeout", "30s"),
        ({**LDAP, "timeout": 5}, "timeout", "unit"),
        ({**LDAP, "connections": 0}, "connections", "1 to 64"),
        ({**RADIUS, "retries": 11}, "retries", "1 to 10"),
        ({**RADIUS, "nas_identifier": ""}, "nas_identifier", "1 to 63"),
        ({**RADIUS, "user_name": "both"}, "user_name", "'canonical'"),
        ("ldap", "", "keys and values"),
    ],
)
def test_mistakes(section: object, key: str, hint: str) -> None:
    """Which key, and what helps."""
    found = problems(section)

    assert list(found) == [key]
    assert hint in found[key]


def test_all_mistakes_are_told_at_once() -> None:
    """With the lines of their keys."""
    text = b"doors:\n  pam:\n    primary:\n      type: ldap\n      servers: here\n      secret_file: x\n      timeout: 99s\n"
    with pytest.raises(ConfigurationProblems) as refused:
        load_config_text(text, name="mfad.yaml", base=BASE)

    assert [(one.line, one.key.rpartition(".")[2]) for one in refused.value.problems] == [
        (5, "servers"), (6, "secret_file"), (7, "timeout"),
    ]  # fmt: skip


@pytest.mark.parametrize("key", ["password", "bind_password", "secret"])
def test_a_secret_in_the_file_is_not_quoted(key: str) -> None:
    """It is refused, as it is no key; files are named."""
    found = problems({**LDAP, key: "hunter2"})

    assert "hunter2" not in "".join(found.values())


@pytest.mark.parametrize(
    "servers", ["ldap://x", "ldaps://10.0.0.1:636", "ldaps://[2001:db8::1]", "ldaps://[2001:db8::1]:636/", "ldapi://%2Frun%2Fldapi"]
)
def test_ldap_servers(servers: str) -> None:
    """Names, both families, ports, the Unix socket."""
    found = read({**LDAP, "servers": servers})
    assert isinstance(found, LdapSection)
    assert found.servers == (servers.rstrip("/"),)
    assert found.verify is Verify.FULL


def test_radius_names() -> None:
    """Canonical unless something else is said."""
    found = read(RADIUS)
    assert isinstance(found, RadiusSection)
    assert found.user_name is SentName.CANONICAL


VALUES = st.none() | st.booleans() | st.integers() | st.text(max_size=12) | st.lists(st.text(max_size=8), max_size=3)
KEYS = sorted({key for section in CLASSES.values() for key in section.model_fields} | {"x"})


@given(st.dictionaries(st.sampled_from(KEYS), VALUES | st.sampled_from(list(PrimaryType)), max_size=6))
def test_any_values_are_a_section_or_its_problems(values: dict[str, object]) -> None:
    """Never another exception."""
    try:
        found: Primary | None = Primary.model_validate(values, context={"base": BASE})
    except ValidationError:
        found = None
    assert found is None or type(found) in CLASSES.values()
