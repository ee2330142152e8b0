"""Whatever stands in the file, `load` returns a catalogue or raises BadInput with places; and it is quick."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ops_pipeline.catalogue.document import parse
from ops_pipeline.catalogue.load import load
from ops_pipeline.errors import BadInput

SAMPLE = (Path(__file__).parents[2] / "deploy/services.yaml").read_text(encoding="utf-8")
QUICK = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])


def loads_or_says_why(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    try:
        load(path)
    except BadInput as refused:
        assert refused.problems
        for problem in refused.problems:
            assert str(path) in problem.place
            assert problem.text


@QUICK
@given(st.binary(max_size=300))
@example(b'"\\ud800": "\\udfff"')
@example(b"version: 1e999\n? {a: b}\n: c\n<<: 5\n")
def test_any_bytes(tmp_path: Path, content: bytes) -> None:
    loads_or_says_why(tmp_path / "c.yaml", content)


@QUICK
@given(st.data())
def test_damaged_sample(tmp_path: Path, data: st.DataObject) -> None:
    text = SAMPLE
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(start, min(len(text), start + 40)))
        piece = data.draw(st.one_of(
            st.text(alphabet="ab1 :-#&*!|>'\"%@`{}[],\n\t?<~\\", max_size=12),
            st.sampled_from(["\n", "  ", "null", "[]", "{}", "true", "1e9", "<<: *a", "&a ", "*a", "é", "- ", ": "]),
        ))  # fmt: skip
        text = text[:start] + piece + text[end:]
    loads_or_says_why(tmp_path / "c.yaml", text.encode())


def values_with(text: st.SearchStrategy[str]) -> st.SearchStrategy[Any]:
    """Values as YAML has them, with this kind of text in them."""
    return st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), text, st.just("env:X"), st.just("/")),
        lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(text, inner, max_size=3)),
        max_leaves=6,
    )


# PyYAML's own writer changes other characters (U+0085 becomes a line end), so only these come back as they went.
PLAIN = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=8)
VALUES = values_with(st.text(max_size=8))


def places(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    if isinstance(node, dict):
        for key, value in node.items():
            found += places(value, (*path, key))
    elif isinstance(node, list):
        for index, value in enumerate(node):
            found += places(value, (*path, index))
    return found


@QUICK
@given(st.data())
def test_any_value_anywhere(tmp_path: Path, data: st.DataObject) -> None:
    document = json.loads(json.dumps(parse(SAMPLE).data))
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(places(document)))
        parent = document
        for part in path[:-1]:
            parent = parent[part]
        if data.draw(st.booleans()) and isinstance(parent, dict):
            del parent[path[-1]]
        else:
            parent[path[-1]] = data.draw(VALUES)
        if not places(document):
            break
    loads_or_says_why(tmp_path / "c.yaml", yaml.safe_dump(document, allow_unicode=True).encode("utf-8", "replace"))


@QUICK
@given(st.dictionaries(PLAIN, values_with(PLAIN), max_size=4))
@example({"a": "0E0", "b": "12e5", "c": "1.0e5", "d": "-.5", "e": "010", "f": "12:30", "g": "on", "h": "1_0", "i": "="})
def test_values_are_what_yaml_says(data: dict[str, Any]) -> None:
    """What a YAML 1.1 writer quotes or not, we read back: text stays text, numbers stay numbers."""
    text = yaml.safe_dump(data, allow_unicode=True)
    parsed = parse(text)
    if parsed.faults:  # characters that YAML itself refuses
        with pytest.raises(yaml.YAMLError):
            yaml.safe_load(text)
        return
    for (path, mine), (_, theirs) in zip(leaves(parsed.data), leaves(data), strict=True):
        if not isinstance(theirs, (float, int)) or (isinstance(theirs, int) and len(str(theirs)) <= 18):
            assert mine == theirs, path


def leaves(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[tuple[Any, ...], Any]]:
    if isinstance(node, dict) and node:
        return [leaf for key in sorted(node) for leaf in leaves(node[key], (*path, key))]
    if isinstance(node, list) and node:
        return [leaf for index, value in enumerate(node) for leaf in leaves(value, (*path, index))]
    return [(path, node)]


def large(count: int) -> str:
    head, _, rest = SAMPLE.partition("\nservices:\n")
    body = rest.partition("  frontend:")[0]
    services = "".join(
        body.replace("  api:", f"  api-{number}:").replace("path: /api", f"path: /api-{number}")
        for number in range(count)
    )
    head = head.replace("10.213.0.0/22", "10.64.0.0/14").replace("10.213.4.0/22", "10.68.0.0/14")
    head = head.replace("      api:", "      api-0:").replace("guards: api\n", "guards: api-0\n")
    return f"{head}\nservices:\n{services}"


def test_a_thousand_services_load_quickly(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(large(1000))
    started = time.process_time()
    catalogue = load(path)
    assert len(catalogue.services) == 1000
    assert time.process_time() - started < 3  # seconds of processor time; usually 0.4


def test_a_thousand_broken_services_are_named_quickly(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    lines = large(1000).splitlines()
    broken = random.Random(1)
    for index in broken.sample(range(120, len(lines)), 3000):
        lines[index] = lines[index].replace(": ", "_: ", 1)
    path.write_text("\n".join(lines))
    started = time.process_time()
    with pytest.raises(BadInput):
        load(path)
    assert time.process_time() - started < 10
