"""One presented name is one identity, or an explicit refusal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfa_core.errors import InvalidInput, UsernameRefused
from mfa_core.identity import IdentityRules, normalise

PLAIN = IdentityRules()
CORP = IdentityRules(realms=("CORP", "Example.org"))


@pytest.mark.parametrize(
    ("presented", "rules", "canonical"),
    [
        pytest.param("alice", PLAIN, "alice", id="plain"),
        pytest.param("Alice", PLAIN, "alice", id="case folded"),
        pytest.param("Alice", IdentityRules(fold_case=False), "Alice", id="case kept when asked"),
        pytest.param("a", PLAIN, "a", id="one character"),
        pytest.param("a" * 256, PLAIN, "a" * 256, id="256 characters"),
        pytest.param("svc-backup_1.x$", PLAIN, "svc-backup_1.x$", id="punctuation"),
        pytest.param("[x]^?", PLAIN, "[x]^?", id="neighbours of the realm marks"),
        pytest.param("CORP\\Alice", CORP, "alice", id="domain"),
        pytest.param("corp\\alice", CORP, "alice", id="domain in another case"),
        pytest.param("alice@EXAMPLE.ORG", CORP, "alice", id="realm"),
        pytest.param("Alice@example.org", IdentityRules(fold_case=False, realms=("EXAMPLE.org",)), "Alice", id="case kept"),
    ],
)
def test_a_name_has_one_canonical_form(presented: str, rules: IdentityRules, canonical: str) -> None:
    """Spellings that mean one person end in one name."""
    assert normalise(presented, rules) == canonical


@pytest.mark.parametrize(
    "presented",
    [
        pytest.param("", id="empty"),
        pytest.param("a" * 257, id="257 characters"),
        pytest.param("a" * 250 + "@example.org", id="257 characters with the realm"),
        pytest.param("alice ", id="trailing blank"),
        pytest.param("al ice", id="blank inside"),
        pytest.param("alice\n", id="newline"),
        pytest.param("alice\x00", id="NUL"),
        pytest.param("alice\x1b[2J", id="escape"),
        pytest.param("alice\x7f", id="DEL"),
        pytest.param("al\udcffice", id="undecodable byte"),
        pytest.param("\u0410lice", id="Cyrillic A"),
        pytest.param("\uff21\uff2c\uff29\uff23\uff25", id="full width"),
        pytest.param("al\ufb01", id="ligature"),
        pytest.param("al\u200bice", id="ZWSP"),
        pytest.param("al\u0130ce", id="dotted capital I"),
        pytest.param("\u212aelvin", id="Kelvin sign folds to k"),
        pytest.param("alice@elsewhere.org", id="unlisted realm"),
        pytest.param("OTHER\\alice", id="unlisted domain"),
        pytest.param("CORP\\alice@example.org", id="two realms"),
        pytest.param("alice@example.org@example.org", id="realm twice"),
        pytest.param("CORP\\CORP\\alice", id="domain twice"),
        pytest.param("@example.org", id="realm alone"),
        pytest.param("CORP\\", id="domain alone"),
        pytest.param("alice@", id="empty realm"),
        pytest.param("\\alice", id="empty domain"),
        pytest.param("alice@example.org\n", id="newline after the realm"),
        pytest.param("\u0410lice@example.org", id="Cyrillic with a good realm"),
    ],
)
def test_what_is_not_exactly_one_identity_is_refused(presented: str) -> None:
    """Refused with a cure, and without an echo of the name in the message."""
    with pytest.raises(UsernameRefused) as refusal:
        normalise(presented, CORP)

    assert refusal.value.cure
    assert not any(part in str(refusal.value) for part in ("lice", "LICE", "elvin"))


@given(st.text(st.characters(codec=None, exclude_categories=()), max_size=300))
def test_any_text_is_a_name_or_a_refusal(presented: str) -> None:
    """Never another exception, and a canonical name is its own canonical name."""
    try:
        name = normalise(presented, CORP)
    except UsernameRefused:
        return

    assert name.isascii()
    assert name.isprintable()
    assert " " not in name
    assert 1 <= len(name) <= 256
    assert normalise(name, CORP) == name


@pytest.mark.parametrize("realm", ["", "a b", "x@y", "x\\y", "\u00e9", "a\n"])
def test_a_realm_that_could_never_match_is_refused(realm: str) -> None:
    """A typing mistake in the list is found at load."""
    with pytest.raises(InvalidInput):
        IdentityRules(realms=(realm,))
