"""YAML text becomes plain values with their lines; what means something else than it shows is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from mfa_runtime.config import ConfigurationProblems, load_config_text
from mfa_runtime.config.document import MAX_FILE_BYTES, read_document

BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join(['*' + previous] * 9)}]\n" for previous, name in zip("abcdefghi", "bcdefghij", strict=True)
)


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        pytest.param(b"role: standalone\ndoors:\n  pam: {mode: code", 3, "begins in line 3", id="half-written, bracket"),
        pytest.param(b"role: standalone\nissuer: 'mf", 2, "end of stream", id="half-written, quote"),
        pytest.param(b"role: standalone\ndoors", 2, "could not find", id="half-written, key"),
        pytest.param(b"totp:\n\twindow: 1\n", 2, "cannot start any token", id="tab"),
        pytest.param(b"totp:\n  window: 1\n period: 30s\n", 3, "expected", id="indentation"),
        pytest.param(b"role: standalone\n\xff\n", 2, "not UTF-8", id="Latin-1"),
        pytest.param(b"role: standalone\nissuer: a\x07\n", 2, "control character", id="control character"),
        pytest.param(b"role: standalone\n---\nrole: agent\n", 2, "another document", id="two documents"),
        pytest.param(b"- role\n", 1, "no keys", id="list"),
        pytest.param(b"standalone\n", 1, "no keys", id="word"),
        pytest.param(b"a: *b\n", 1, "undefined alias", id="alias of nothing"),
        pytest.param(b"a: &a [*a]\n", 1, "aliases that stand for too much", id="alias of itself"),
        pytest.param(BOMB.encode(), 1, "aliases that stand for too much", id="bomb"),
        pytest.param(b"a: " + b"[" * 5000, 1, "too many levels", id="deep brackets"),
        pytest.param(b"a:\n" + b"- x\n" * 60_000, 50_000, "too many values", id="many values"),
        pytest.param(b"#" * (MAX_FILE_BYTES + 1), 0, "more than 1048576 bytes", id="too long"),
    ],
)
def test_a_text_without_values_is_refused(text: bytes, line: int, words: str) -> None:
    """With the line, in bounded time."""
    with pytest.raises(ConfigurationProblems) as refused:
        read_document(text, name="mfad.yaml")

    [problem] = refused.value.problems
    assert problem.line == line
    assert words in problem.seen
    assert problem.cure


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "a:\n  - x\n y: 1\n",
            "mfad.yaml:3: the file is not YAML: expected <block end>, but found '<block mapping start>' (while ",
        ),
        ("a:\n\tb: 1\n", "mfad.yaml:2: the file is not YAML: found a tab that cannot start any token; "),
        ("a: 1\n---\nb: 1\n", "mfad.yaml:2: the file is not YAML: expected a single document in the stream, but found "),
        ("password: *hunter2\n", "mfad.yaml:1: the file is not YAML: found undefined alias a name; "),
    ],
)
def test_what_is_no_yaml_is_told_in_a_sentence(text: str, told: str) -> None:
    """And quotes nothing of the file."""
    with pytest.raises(ConfigurationProblems) as refused:
        read_document(text.encode(), name="mfad.yaml")

    assert str(refused.value).startswith(told)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "line", "key", "seen"),
    [
        pytest.param("a: 1\nb: 2\na: 3", 3, "a", "the key a second time", id="duplicate"),
        pytest.param("a: {b: 1, b: 1}", 1, "a.b", "the key a second time", id="duplicate inside"),
        pytest.param("a: 2026-01-01", 1, "a", "a date", id="date"),
        pytest.param("a: !!binary eA==", 1, "a", "a tag, or a special kind of value", id="binary"),
        pytest.param("a: !!python/object:os.system x", 1, "a", "a tag, or a special kind of value", id="python"),
        pytest.param("a: !!set {x}", 1, "a", "a tag, or a special kind of value", id="set"),
        pytest.param("? [a]\n: 1", 1, "", "a list or mapping as a key", id="list as a key"),
        pytest.param("a: " + "9" * 5000, 1, "a", "a number that cannot be read", id="long number"),
        pytest.param("a: !!int x", 1, "a", "a number that cannot be read", id="word as a number"),
    ],
)
def test_an_odd_value_is_noted_and_the_rest_is_read(text: str, line: int, key: str, seen: str) -> None:
    """So that it can be told together with other mistakes."""
    document, [problem] = read_document(f"{text}\nlast: 1\n".encode(), name="mfad.yaml")

    assert (problem.line, problem.key, problem.seen) == (line, key, seen)
    assert document.root["last"] == 1


def test_lines_are_those_of_the_keys() -> None:
    """And a path that is not there has the line of what is around it."""
    document, problems = read_document(b"\xef\xbb\xbfa:\n  b:\n    - x\n    - c: 1\n", name="mfad.yaml")

    assert problems == []
    assert document.root == {"a": {"b": ["x", {"c": 1}]}}
    paths = [("a",), ("a", "b"), ("a", "b", 0), ("a", "b", 1, "c"), ("a", "b", 1, "d"), ("z",)]
    assert [document.line_of(path) for path in paths] == [1, 2, 3, 4, 4, 0]


def test_merging_is_no_key(tmp_path: Path) -> None:
    """``<<`` would hide where a value comes from."""
    with pytest.raises(ConfigurationProblems, match="<<: seen an unknown key"):
        load_config_text("totp: &a {window: 1}\n<<: *a\n", name="mfad.yaml", base=tmp_path)
