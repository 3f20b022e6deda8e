"""YAML text into plain values, each with the line on which it stands.

Room rule: the only file that imports yaml. It knows no key by name; it refuses what makes a file mean something else than
what it shows: duplicate keys, tags, dates, expanding aliases. Every bound is here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

import yaml

from mfa_runtime.config.problem import ConfigurationProblems, Problem, key_of

MAX_FILE_BYTES = 1 << 20
MAX_DEPTH = 24
"""The deepest key of ours lies at 6."""
MAX_NODES = 50_000
"""Aliases counted as often as they are used: 20 lines of them can stand for gigabytes."""

Path = tuple[str | int, ...]
Plain = dict[str, "Plain"] | list["Plain"] | str | int | float | bool | None

_WRITTEN_PLAINLY = {
    f"tag:yaml.org,2002:{name}": read
    for name, read in {
        "str": "construct_yaml_str",
        "int": "construct_yaml_int",
        "float": "construct_yaml_float",
        "bool": "construct_yaml_bool",
        "null": "construct_yaml_null",
    }.items()
}
_QUOTED = re.compile(r"""(['"])(?!<[a-z ]+>\1).{2,}\1""")
"""A piece of the file, but not the name of a token (``'<block mapping start>'``)."""
_READING = re.compile("while (?:parsing|scanning) (.+)").fullmatch


@dataclass(frozen=True, slots=True)
class Document:
    """What a file says. ``lines`` gives the line of each path; of a key it is the key's, not the value's."""

    name: str
    root: dict[str, Plain]
    lines: dict[Path, int] = field(default_factory=dict)

    def line_of(self, path: Path) -> int:
        """Return the line of ``path``, or of the nearest thing around it that stands in the file; 0 if nothing does."""
        for length in range(len(path), 0, -1):
            line = self.lines.get(path[:length])
            if line is not None:
                return line
        return 0


class _TooMuch(Exception):
    def __init__(self, line: int, of: str) -> None:
        self.line = line
        self.of = of


class _Loader(yaml.SafeLoader):
    """Composes nodes only as deep as a configuration can be: the composer recurses, and so does every reader of its nodes."""

    depth = 0
    nodes = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self.depth += 1
        self.nodes += 1
        if self.depth > MAX_DEPTH or self.nodes > MAX_NODES:
            raise _TooMuch(self.get_mark().line + 1, "levels" if self.depth > MAX_DEPTH else "values")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def read_document(text: bytes, *, name: str) -> tuple[Document, list[Problem]]:
    """Read ``text``; ``name`` stands in the problems. What is only doubled or oddly typed is noted, and the rest still read.

    Raises: ConfigurationProblems, when no values can be had at all (not UTF-8, not YAML, over a bound).
    """

    def refuse(line: int, seen: str, expected: str, cure: str) -> ConfigurationProblems:
        return ConfigurationProblems([Problem(name, line, "", seen, expected, cure)])

    if len(text) > MAX_FILE_BYTES:
        raise refuse(0, f"more than {MAX_FILE_BYTES} bytes", "at most 1 MiB", "keep lists of users in the store or in groups")
    try:
        decoded = text.decode("utf-8-sig")
    except UnicodeDecodeError as err:
        line = text.count(b"\n", 0, err.start) + 1
        raise refuse(line, "a byte that is not UTF-8", "UTF-8 text", "save the file as UTF-8") from None
    try:
        loader = _Loader(decoded)
        node = loader.get_single_node()
    except yaml.reader.ReaderError as err:
        line = decoded.count("\n", 0, err.position) + 1
        raise refuse(line, "a control character", "printable text", "delete it") from None
    except yaml.MarkedYAMLError as err:
        mark = err.problem_mark or err.context_mark
        raise refuse(
            mark.line + 1 if mark is not None else 0,
            f"the file is not YAML: {_told(err)}",
            "",
            "indent with blanks, and put texts that hold : # { [ * & ! % in quotes",
        ) from None
    except yaml.YAMLError:
        raise refuse(0, "the file is not YAML", "", "compare it with config/mfad.yaml") from None
    except _TooMuch as err:
        bounds = f"at most {MAX_DEPTH} levels and {MAX_NODES} values"
        raise refuse(err.line, f"too many {err.of}", bounds, "keep lists of users in the store or in groups") from None
    if node is None:
        return Document(name, {}), []
    return _Reading(name, loader).document(node)


def _told(err: yaml.MarkedYAMLError) -> str:
    """What the parser stumbled over, and in what. Snippet and quoted words may be pieces of a secret."""

    def plain(text: str | None) -> str:
        return _QUOTED.sub("a name", (text or "").replace(r"character '\t'", "a tab"))

    problem, context, begun = plain(err.problem), plain(err.context), err.context_mark
    reading = _READING(context)
    if reading is None:
        return ", ".join(filter(None, (context, problem)))
    if begun is None:
        return problem
    return f"{problem} (while reading {reading[1]} that begins in line {begun.line + 1})"


@dataclass(slots=True)
class _Reading:
    name: str
    loader: _Loader
    problems: list[Problem] = field(default_factory=list)
    lines: dict[Path, int] = field(default_factory=dict)
    nodes: int = 0

    def document(self, node: yaml.Node) -> tuple[Document, list[Problem]]:
        root = self.value(node, ())
        if root is None:
            root = {}
        if not isinstance(root, dict):
            self.note((), node, "no keys", "keys and values", "begin with for instance `role: standalone`")
            raise ConfigurationProblems(self.problems)
        return Document(self.name, root, self.lines), self.problems

    def value(self, node: yaml.Node, path: Path) -> Plain:
        self.nodes += 1
        if self.nodes > MAX_NODES or len(path) > MAX_DEPTH:
            # An alias inside its own anchor, or aliases of aliases.
            self.problems = []
            self.note(path[:4], node, "aliases that stand for too much", f"at most {MAX_NODES} values", "write the values out")
            raise ConfigurationProblems(self.problems)
        if isinstance(node, yaml.MappingNode) and node.tag == "tag:yaml.org,2002:map":
            return self.mapping(node, path)
        if isinstance(node, yaml.SequenceNode) and node.tag == "tag:yaml.org,2002:seq":
            items: list[Plain] = []
            for index, item in enumerate(node.value):
                self.lines.setdefault((*path, index), item.start_mark.line + 1)
                items.append(self.value(item, (*path, index)))
            return items
        return self.scalar(node, path)

    def mapping(self, node: yaml.MappingNode, path: Path) -> Plain:
        values: dict[str, Plain] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self.note(path, key_node, "a list or mapping as a key", "a name", "put it on the right of a key")
                continue
            key: str = key_node.value
            place = (*path, key)
            if key in values:
                first = self.lines[place]
                self.note(place, key_node, "the key a second time", "each key once", f"merge it with the one in line {first}")
                continue
            self.lines[place] = key_node.start_mark.line + 1
            values[key] = self.value(value_node, place)
        return values

    def scalar(self, node: yaml.Node, path: Path) -> Plain:
        read_name = _WRITTEN_PLAINLY.get(node.tag)
        if read_name is None or not isinstance(node, yaml.ScalarNode):
            seen = "a date" if node.tag == "tag:yaml.org,2002:timestamp" else "a tag, or a special kind of value"
            self.note(path, node, seen, "a plain value", "put it in quotes if it is text")
            return None
        read: Callable[[yaml.ScalarNode], Hashable] = getattr(self.loader, read_name)
        try:
            value = read(node)
        except ValueError:
            self.note(path, node, "a number that cannot be read", "a number of sensible size", "put it in quotes if it is text")
            return None
        assert value is None or isinstance(value, str | int | float | bool)  # noqa: S101  what these five tags make
        return value

    def note(self, path: Path, node: yaml.Node, seen: str, expected: str, cure: str) -> None:
        self.problems.append(Problem(self.name, node.start_mark.line + 1, key_of(path), seen, expected, cure))
