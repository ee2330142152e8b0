"""Reads the catalogue, or names everything wrong with it at once.

`load` judges the shape and what must hold between fields. Whether folders, Dockerfiles and secrets exist is `check`
(check.py), because Dagster's definitions must load even while somebody is renaming a folder.
"""

from __future__ import annotations

import json
from pathlib import Path as FilePath
from typing import Any

from pydantic import ValidationError

from ops_pipeline.catalogue.consistency import Finding, inconsistencies
from ops_pipeline.catalogue.document import MAX_BYTES, Document, Path, parse
from ops_pipeline.catalogue.model import Catalogue
from ops_pipeline.catalogue.wording import dotted, known_keys, place_of, words_of
from ops_pipeline.errors import BadInput, Problem

_MAX_PROBLEMS = 100
_STAND_INS: dict[str, Any] = {
    "version": 1,
    "project": "x",
    "registry": {"address": "localhost"},
    "address": "localhost",
    "store": {"directory": "x"},
    "container": "xxx",
    "environments": {"x": {"hosts": [{"name": "x"}], "url": "http://localhost", "subnet": "10.0.0.0/8"}},
    "hosts": [{"name": "x"}],
    "name": "x",
    "url": "http://localhost",
    "subnet": "10.0.0.0/8",
    "services": {"x": {"build": {"context": "."}, "port": 1}},
    "build": {"context": "."},
    "context": ".",
    "port": 1,
    "id": "x",
    "reason": "x" * 10,
    "owner": "xx",
    "expires": "2000-01-01",
}
"""A valid value for every required field: what the consistency check sees in place of a wrong one."""


def load(path: FilePath) -> Catalogue:
    """Given the catalogue's path, return it. Raise BadInput naming every problem with file, line and path."""
    document, catalogue = read(path)
    if catalogue is None or document.faults:
        raise BadInput(problems_of(path, document), subject="catalogue", hint="Nothing was changed.")
    return catalogue


def read(path: FilePath) -> tuple[Document, Catalogue | None]:
    """Given the catalogue's path, return the parsed file with all its faults, and the catalogue if its shape is right.

    Never raises for what a person wrote.
    """
    text, fault = _text(path)
    if text is None:
        document = Document(None)
        document.add((), fault)
        return document, None
    document = parse(text)
    if document.data is None and document.faults:
        return document, None
    if not isinstance(document.data, dict):
        document.add((), "must be a mapping (`key: value` lines) with services, environments and the rest")
        return document, None
    errors, catalogue = _validated(document.data)
    for error in errors:
        document.add(place_of(error), words_of(error))
    if catalogue is not None:
        found = list(inconsistencies(catalogue))
    else:
        found = _inconsistencies_of_the_rest(document.data, errors)
    for finding in found:
        document.add(finding.path, finding.text)
    return document, catalogue


def problems_of(path: FilePath, document: Document) -> tuple[Problem, ...]:
    """The faults of a document as problems, in the order of their lines."""
    faults = sorted(document.faults, key=lambda fault: fault.line)
    problems = [Problem(place(path, fault.line, fault.path), fault.text) for fault in faults[:_MAX_PROBLEMS]]
    if len(faults) > _MAX_PROBLEMS:
        problems.append(Problem(shown(path), f"and {len(faults) - _MAX_PROBLEMS} more"))
    return tuple(problems)


def place(path: FilePath, line: int, inside: Path) -> str:
    """`deploy/services.yaml:12 services.api.port`; line 0 is the file as a whole."""
    return f"{shown(path)}{f':{line}' if line else ''} {dotted(inside)}".rstrip()


def shown(path: FilePath) -> str:
    """The path as people can click it: relative to where they are, if it is below."""
    try:
        return str(path.absolute().relative_to(FilePath.cwd()))
    except (ValueError, OSError):
        return str(path)


def _text(path: FilePath) -> tuple[str | None, str]:
    """Text of the file, or None and what is wrong with it."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return None, "does not exist; is OPS_CATALOGUE right?"
    except IsADirectoryError:
        return None, "is a folder; the catalogue is a file"
    except (OSError, ValueError) as error:
        return None, f"cannot be read: {getattr(error, 'strerror', None) or error}"
    if len(data) > MAX_BYTES:
        return None, f"is larger than {MAX_BYTES // 1024 // 1024} MiB"
    try:
        return data.decode("utf-8-sig"), ""
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        return None, f"is not UTF-8 (line {line}); save it as UTF-8"


def _validated(data: dict[str, Any]) -> tuple[list[Any], Catalogue | None]:
    try:
        # As JSON and strictly: lists become tuples and text becomes dates, but `true` is no number and "8000" neither.
        return [], Catalogue.model_validate_json(json.dumps(data), strict=True)
    except ValidationError as error:
        return list(error.errors(include_url=False)), None


def _inconsistencies_of_the_rest(data: dict[str, Any], errors: list[Any]) -> list[Finding]:
    """With every wrong part left out or replaced, what else is wrong: so that a person needs not come twice."""
    data = json.loads(json.dumps(data))
    touched: set[Path] = set()
    catalogue = None
    for _ in range(4):  # taking a part out may show the next one missing
        for error in errors:
            touched.add(_mend(data, place_of(error), missing=error["type"] == "missing"))
        errors, catalogue = _validated(data)
        if catalogue is not None:
            break
    if catalogue is None:
        return []

    def rests_on_touched(path: Path) -> bool:
        return any(path[: len(part)] == part or part[: len(path)] == path for part in touched)

    return [
        finding
        for finding in inconsistencies(catalogue)
        if not any(finding.path[: len(part)] == part for part in touched)
        and not any(rests_on_touched(path) for path in finding.involves)
    ]


def _mend(data: Any, path: Path, *, missing: bool) -> Path:
    """Take the part at `path` out, or put a stand-in there when it is required; return the path touched."""
    if not path:
        return path
    parent = data
    for part in path[:-1]:
        try:
            parent = parent[part]
        except (KeyError, IndexError, TypeError):
            return path
    last = path[-1]
    required = isinstance(last, str) and last in _STAND_INS and last in known_keys(path[:-1])
    if isinstance(parent, dict):
        if missing or (required and last in parent):
            parent[last] = json.loads(json.dumps(_STAND_INS.get(str(last))))
        else:
            parent.pop(last, None)
    elif isinstance(parent, list) and isinstance(last, int) and last < len(parent):
        parent[last] = json.loads(json.dumps(parent[last - 1 if last else 0]))
    return path
