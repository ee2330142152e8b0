"""What an image is made of: reading a Dockerfile's outline, and the hash that tells whether a build is needed."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

PROVENANCE_ARGS = ("VERSION", "REVISION", "SOURCE", "CREATED")
"""Build arguments that say where an image comes from. They change with every commit and never force a build."""

_DIRECTIVE = re.compile(r"#\s*escape\s*=\s*(?P<char>[\\`])\s*", re.IGNORECASE)
_HEREDOC = re.compile(r"<<-?\s*(?P<quote>['\"]?)(?P<word>[A-Za-z_][A-Za-z0-9_]*)(?P=quote)")
_VARIABLE = re.compile(r"\$(?:(?P<plain>\w+)|\{(?P<name>\w+)(?::(?P<op>[-+])(?P<word>[^}]*))?\})")
_FORMAT = 1  # raise when the recipe of the hash changes: every image is then built again


@dataclass(frozen=True)
class Outline:
    """What a Dockerfile declares. Instructions without meaning here are left out."""

    stages: tuple[str, ...] = ()  # names given with AS, lower case
    args: frozenset[str] = frozenset()  # names declared with ARG anywhere
    bases: tuple[str, ...] = ()  # external images of FROM and COPY --from, variables filled in, sorted
    final_base: str = ""  # external image under the last stage; "" for scratch
    problems: tuple[str, ...] = ()  # e.g. a FROM whose variable has no value


@dataclass(frozen=True)
class BuildInputs:
    """All that decides what an image contains. Secret values are left out on purpose: they must not stay in it."""

    files: Mapping[str, str]  # path in the context → hash of content and mode
    dockerfile: str
    args: Mapping[str, str] = field(default_factory=dict)
    target: str | None = None
    test_target: str | None = None
    platforms: tuple[str, ...] = ()
    secret_ids: tuple[str, ...] = ()
    bases: Mapping[str, str] = field(default_factory=dict)  # base image → digest


def inputs_hash(inputs: BuildInputs) -> str:
    """Return the SHA-256 (hexadecimal) of the inputs. Equal hash = nothing to build."""
    document = {
        "format": _FORMAT,
        "files": dict(inputs.files),
        "dockerfile": inputs.dockerfile,
        "args": {name: value for name, value in inputs.args.items() if name not in PROVENANCE_ARGS},
        "target": inputs.target,
        "test_target": inputs.test_target,
        "platforms": sorted(inputs.platforms),
        "secret_ids": sorted(inputs.secret_ids),
        "bases": dict(inputs.bases),
    }
    return hashlib.sha256(json.dumps(document, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def outline(dockerfile: str, args: Mapping[str, str]) -> Outline:
    """Given a Dockerfile's text and build arguments, return its outline. Never raises: the builder judges syntax."""
    stages: list[str] = []
    declared: set[str] = set()
    values: dict[str, str] = {}  # ARGs before the first FROM; only those count in FROM
    bases: set[str] = set()
    under: dict[str, str] = {}  # stage → external image it rests on
    problems: list[str] = []
    count, final = 0, ""
    for word, rest in _instructions(dockerfile):
        if word == "ARG":
            for name, default in _arguments(rest):
                declared.add(name)
                if not count:
                    values[name] = args.get(name, _fill(default, values) if default is not None else "")
        elif word == "FROM":
            parts = [part for part in rest.split() if not part.startswith("--")]
            image = _fill(parts[0], values) if parts else ""
            name = parts[2].lower() if len(parts) > 2 and parts[1].upper() == "AS" else ""
            if not image:
                problems.append(f"FROM {rest}: the image name is empty; give its ARG a value")
            final = under.get(image.lower(), "" if image == "scratch" else image)
            if image and image.lower() not in under and image != "scratch":
                bases.add(image)
            under[str(count)] = final
            if name:
                stages.append(name)
                under[name] = final
            count += 1
        elif word in ("COPY", "ADD"):
            for part in rest.split():
                if part.startswith("--from=") and (image := part.removeprefix("--from=")).lower() not in under:
                    bases.add(_fill(image, values))
    return Outline(tuple(stages), frozenset(declared), tuple(sorted(bases)), final, tuple(problems))


def _instructions(dockerfile: str) -> Sequence[tuple[str, str]]:
    """Instructions with line continuations joined; comments and here-document bodies left out."""
    lines = dockerfile.splitlines()
    escape = "\\"
    if lines and (directive := _DIRECTIVE.fullmatch(lines[0].strip())):
        escape = directive["char"]
    found: list[tuple[str, str]] = []
    pending = ""
    ends: list[str] = []  # words that end the here-documents of the last instruction
    for line in lines:
        if ends:
            if line.strip() == ends[0]:
                ends.pop(0)
            continue
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        text = line.rstrip()
        if text.endswith(escape):
            pending += text[:-1] + " "
            continue
        word, _, rest = (pending + text).strip().partition(" ")
        pending = ""
        found.append((word.upper(), rest.strip()))
        if word.upper() in ("RUN", "COPY", "ADD"):
            ends = [match["word"] for match in _HEREDOC.finditer(rest)]
    return found


def _arguments(rest: str) -> Sequence[tuple[str, str | None]]:
    pairs: list[tuple[str, str | None]] = []
    for part in rest.split():
        name, equals, value = part.partition("=")
        pairs.append((name, value.strip("'\"") if equals else None))
    return pairs


def _fill(text: str, values: Mapping[str, str]) -> str:
    def value(match: re.Match[str]) -> str:
        known = values.get(match["plain"] or match["name"], "")
        if match["op"] == "-":
            return known or match["word"]
        if match["op"] == "+":
            return match["word"] if known else ""
        return known

    return _VARIABLE.sub(value, text)
