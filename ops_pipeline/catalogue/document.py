"""A YAML file as plain data, with the line of every part of it.

PyYAML's C parser composes the tree of nodes, which know their lines; the values are made here. So duplicate keys are
seen, and plain words mean what they say: only `true` and `false` are truth values (YAML 1.1 turns `on`, `no` and
`12:30` into something else), a number with a leading zero is text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

Path = tuple[str | int, ...]
"""Where something stands: ("services", "api", "owners", 0)."""

MAX_BYTES = 4 * 1024 * 1024
MAX_VALUES = 500_000
MAX_DEPTH = 60

_LOADER: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_FLOAT = re.compile(r"([-+]?[0-9]+\.[0-9]*|\.[0-9]+)([eE][-+][0-9]+)?")  # 12e5 may be a commit: text
_WORDS: dict[str, bool | None] = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
}  # fmt: skip
_PLAIN_TAGS = ("tag:yaml.org,2002:str", "tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")
_NESTED_ON_ONE_LINE = re.compile(r"(?:[-?:][ \t]+){60}")
_SYNTAX_WORDS = (
    ("cannot start any token", "this character cannot start a value; put the value in quotes"),
    ("mapping values are not allowed", "unexpected `:`; is the line indented wrongly, or a value without quotes?"),
    ("did not find expected key", "expected `key: value` here; is the line indented wrongly?"),
    ("could not find expected ':'", "expected `key: value` here; is a `:` missing?"),
    ("did not find expected '-' indicator", "expected a list item `- …` here; is the line indented wrongly?"),
    ("unexpected end of stream", "a quote that is opened is never closed"),
    ("found undefined alias", "this alias `*name` has no anchor `&name` before it"),
    ("but found another document", "a second document (`---`) starts here; the catalogue is one"),
    ("did not find expected ',' or", "a bracket or brace that is opened is never closed, or a comma is missing"),
    ("did not find expected node content", "a value is missing here"),
    ("did not find expected <document start>", "this cannot stand outside the mapping; is the line indented wrongly?"),
)


@dataclass(frozen=True)
class Fault:
    """One thing wrong, where (a path into the data) and on which line (counted from 1)."""

    path: Path
    text: str
    line: int


@dataclass
class Document:
    """Parsed YAML. `data` is made of dict (keys are text), list, str, int, float, bool and None."""

    data: Any
    faults: list[Fault] = field(default_factory=list)
    root: yaml.Node | None = None
    _keys: dict[int, dict[str, tuple[yaml.Node, yaml.Node]]] = field(default_factory=dict)

    def add(self, path: Path, text: str) -> None:
        """Note a fault at `path`."""
        self.faults.append(Fault(path, text, self.line(path)))

    def line(self, path: Path) -> int:
        """Line of the deepest part of `path` that exists: of the key in a mapping, of the item in a list.

        0 when there is no text at all.
        """
        node, line = self.root, int(self.root is not None)
        for part in path:
            found = None
            if isinstance(node, yaml.MappingNode):
                found = self._entries_of(node).get(str(part))
            elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
                found = (node.value[part], node.value[part])
            if found is None:
                return line
            line, node = found[0].start_mark.line + 1, found[1]
        return line

    def _entries_of(self, node: yaml.Node) -> dict[str, tuple[yaml.Node, yaml.Node]]:
        # A large file can have thousands of faults in one mapping: look its keys up, do not search each time.
        if id(node) not in self._keys:
            entries = self._keys[id(node)] = {}
            for name, key, value in _entries(node):
                entries.setdefault(name, (key, value))
        return self._keys[id(node)]


def parse(text: str) -> Document:
    """Given YAML text, return its data, or faults when it has none. Never raises."""
    too_deep = _nested_too_deep(text)
    if too_deep:
        return Document(None, [Fault((), f"nested more than {MAX_DEPTH} levels deep", too_deep)])
    try:
        root = yaml.compose(text, Loader=_LOADER)
    except yaml.MarkedYAMLError as error:
        return Document(None, [_syntax_fault(error, text)])
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, int(error.position)) + 1 if isinstance(error.position, int) else 1
        return Document(None, [Fault((), "holds a control character that YAML does not allow", line)])
    except (yaml.YAMLError, RecursionError) as error:
        return Document(None, [Fault((), f"is not YAML: {type(error).__name__}", 1)])
    if root is None:
        return Document(None, [Fault((), "is empty", 1)])
    document = Document(None, root=root)
    conversion = _Conversion(document.faults)
    try:
        document.data = conversion.value(root, ())
    except _TooMuch as excess:
        document.faults.append(Fault((), str(excess), 1))
    return document


def _nested_too_deep(text: str) -> int:
    """Line on which nesting passes the limit, or 0. The C parser would run out of stack on what is far beyond it."""
    depth = 0
    for match in re.finditer(r"[\[\]{}]", text):
        depth = depth + 1 if match.group() in "[{" else max(0, depth - 1)
        if depth > MAX_DEPTH:
            return text.count("\n", 0, match.start()) + 1
    chain = _NESTED_ON_ONE_LINE.search(text)
    return text.count("\n", 0, chain.start()) + 1 if chain else 0


def _syntax_fault(error: yaml.MarkedYAMLError, text: str) -> Fault:
    mark = error.problem_mark or error.context_mark
    problem = str(error.problem or error.context or "is not YAML")
    index = mark.line if mark else 0
    lines = text.splitlines()
    for near in (index, index - 1):
        if 0 <= near < len(lines) and "\t" in lines[near][: len(lines[near]) - len(lines[near].lstrip())]:
            return Fault((), "is indented with a tab; YAML takes spaces only", near + 1)
    words = next((words for sign, words in _SYNTAX_WORDS if sign in problem), problem)
    opened = error.context_mark
    if opened is not None and opened.line != index and "never closed" in words:
        words += f" (opened on line {opened.line + 1})"
    return Fault((), f"YAML syntax: {words}", index + 1)


class _TooMuch(Exception):
    """The data passes a limit."""


class _Conversion:
    """Makes values of nodes and notes what is wrong with them."""

    def __init__(self, faults: list[Fault]) -> None:
        self._faults = faults
        self._values = 0

    def value(self, node: yaml.Node, path: Path) -> Any:
        self._values += 1
        if self._values > MAX_VALUES:  # aliases of aliases multiply without making the file longer
            raise _TooMuch(f"grows to more than {MAX_VALUES:,} values; do its aliases multiply one another?")
        if len(path) > MAX_DEPTH:
            raise _TooMuch(f"nested more than {MAX_DEPTH} levels deep, or an alias holds itself")
        if node.tag not in _PLAIN_TAGS:
            self._faults.append(Fault(path, f"YAML tags such as `{node.tag}` mean nothing here", _line(node)))
            return None
        if isinstance(node, yaml.ScalarNode):
            return _scalar(node)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*path, index)) for index, item in enumerate(node.value)]
        return self._mapping(node, path)

    def _mapping(self, node: yaml.Node, path: Path) -> dict[str, Any]:
        data: dict[str, Any] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self._faults.append(Fault(path, "a key must be a plain word", _line(key)))
        lines: dict[str, int] = {}
        for name, key, value in _entries(node):
            if name in lines:
                text = f"given twice; the first one is on line {lines[name]}"
                self._faults.append(Fault((*path, name), text, _line(key)))
                continue
            lines[name] = _line(key)
            data[name] = self.value(value, (*path, name))
        return data


def _entries(node: yaml.Node, depth: int = 0) -> Iterator[tuple[str, yaml.Node, yaml.Node]]:
    """(name, key, value) of a mapping; what `<<: *anchor` merges in comes last and never over the mapping's own."""
    merged: list[yaml.Node] = []
    own = set()
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            continue
        if key.value == "<<" and not key.style:
            merged += value.value if isinstance(value, yaml.SequenceNode) else [value]
            continue
        own.add(key.value)
        yield key.value, key, value
    for mapping in merged:
        if isinstance(mapping, yaml.MappingNode) and depth < 10:
            for name, key, value in _entries(mapping, depth + 1):
                if name not in own:
                    own.add(name)
                    yield name, key, value


def _scalar(node: yaml.ScalarNode) -> str | int | float | bool | None:
    text: str = node.value
    if node.style:
        return text
    if text in _WORDS:
        return _WORDS[text]
    if len(text) <= 18 and _INTEGER.fullmatch(text):
        return int(text)
    if len(text) <= 40 and _FLOAT.fullmatch(text):
        number = float(text)
        return number if math.isfinite(number) else text
    return text


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1
