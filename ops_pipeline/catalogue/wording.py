"""Pydantic's findings in words for people: what is wrong, what was found, what to write instead."""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel

from ops_pipeline.catalogue.document import Path
from ops_pipeline.catalogue.model import Catalogue

_MAY_HOLD_SECRETS = {
    "secrets",
    "connection_string",
    "sas_url",
    "environment",
    "args",
    "password",
    "recipients",
    "identity",
    "signing_key",
    "heartbeat_url",
}
_PATTERNS = {
    "^[a-z][a-z0-9-]{0,30}$": "must be lower-case letters, digits and hyphens, start with a letter and have at most "
    "31 characters",
    r"^(env:[A-Za-z_][A-Za-z0-9_]*|file:.+)$": "must be a reference, `env:NAME` or `file:PATH`, "
    "never the secret itself",
    "^/": "must start with `/`",
    "^(/.*)?$": "must start with `/`",
}
_SOURCES = ("postgres", "mysql", "mariadb", "mongodb", "redis", "volume", "directory")
_KINDS_OF_SOURCES = ", ".join(f"`{kind}`" for kind in _SOURCES)
_KINDS = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing_size": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a number",
    "bool_type": "`true` or `false`",
    "bool_parsing": "`true` or `false`",
    "string_type": "text",
    "dict_type": "a mapping (`key: value` lines)",
    "model_type": "a mapping (`key: value` lines)",
    "tuple_type": "a list (`- item` lines)",
    "list_type": "a list (`- item` lines)",
}
_BOUNDS = {
    "greater_than_equal": ("at least", "ge"),
    "greater_than": ("more than", "gt"),
    "less_than_equal": ("at most", "le"),
    "less_than": ("less than", "lt"),
}


def dotted(path: Path) -> str:
    """`services.api.owners[0]`; "" for the whole file."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif part.replace("-", "").replace("_", "").isalnum():
            text += f".{part}"
        else:
            text += f".{part[:60]!r}"  # a key with dots, spaces or worse: quoted, so that the path stays readable
    return text.removeprefix(".")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean X?` with the nearest known name, else `; known: …`, else ""."""
    names = sorted(known)
    by_form = {other.lower().replace("-", "_"): other for other in names}
    near = difflib.get_close_matches(name.lower().replace("-", "_"), by_form, n=1, cutoff=0.6)
    if near:
        return f"; did you mean `{by_form[near[0]]}`?"
    return f"; known: {', '.join(names[:30])}{', …' if len(names) > 30 else ''}" if names else ""


def place_of(error: Mapping[str, Any]) -> Path:
    """Path of the part a pydantic error is about, as it stands in the file."""
    return _untagged(_tagged_place_of(error))


def _tagged_place_of(error: Mapping[str, Any]) -> Path:
    return tuple(part for part in error["loc"] if part != "[key]")


def _untagged(path: Path) -> Path:
    """Without the kind that pydantic puts behind a data source's name: `…backup.sources.shop.postgres.database`."""
    for index in range(2, len(path)):
        if path[index - 2 : index] == ("backup", "sources") and len(path) > index + 1:
            return (*path[: index + 1], *path[index + 2 :])
    return path


def words_of(error: Mapping[str, Any]) -> str:
    """What one pydantic error (an entry of `ValidationError.errors()`) says, without ever quoting a secret."""
    kind, path, context = str(error["type"]), _tagged_place_of(error), error.get("ctx") or {}
    value = error.get("input")
    found = _found(value, path)
    if kind == "missing":
        return f"is missing{_purpose(path)}"
    if kind == "extra_forbidden":
        return _unknown_key(path)
    if kind == "union_tag_not_found":
        return f"{str(context.get('discriminator')).strip(chr(39))} is missing: what it is, one of {_KINDS_OF_SOURCES}"
    if kind == "union_tag_invalid":
        tag = str(context.get("tag"))
        near = did_you_mean(tag, _SOURCES)
        return f"kind must be one of {_KINDS_OF_SOURCES}; found `{tag[:60]}`{near if 'did you mean' in near else ''}"
    if kind == "literal_error":
        allowed = [word.strip("' ") for word in str(context.get("expected", "")).replace(" or ", ",").split(",")]
        listed = f"`{allowed[0]}`" if len(allowed) == 1 else "one of " + ", ".join(f"`{word}`" for word in allowed)
        near = did_you_mean(value, allowed) if isinstance(value, str) else ""
        return f"must be {listed}{found}{near if 'did you mean' in near else ''}"
    if kind == "string_pattern_mismatch":
        pattern = str(context.get("pattern", ""))
        return _PATTERNS.get(pattern, f"does not have the form {pattern}") + found
    if kind in _KINDS:
        if value is None:
            return f"has no value; give it {_KINDS[kind]} or remove the line"
        hint = ""
        if kind == "string_type" and isinstance(value, (bool, int, float)):
            hint = "; put it in quotes"
        elif isinstance(value, str) and ("int" in kind or "float" in kind) and _is_number(value):
            hint = "; write it without quotes" if not value.startswith("0") else "; write it without leading zeros"
        return f"must be {_KINDS[kind]}{found}{hint}"
    if kind in _BOUNDS:
        word, key = _BOUNDS[kind]
        return f"must be {word} {context.get(key, 0):g}{found}"
    if kind == "too_short":
        return "must have at least one entry"
    if kind == "string_too_short":
        return f"must have at least {context.get('min_length')} characters{found}"
    if kind.startswith("date_"):
        return f"must be a date, YYYY-MM-DD{found}"
    return str(error["msg"])[:1].lower() + str(error["msg"])[1:]


def known_keys(path: Path) -> tuple[str, ...]:
    """Keys the mapping at `path` may have; () where any are allowed or the path leads nowhere."""
    return tuple({field: None for model in _models_at(path) for field in model.model_fields})


def _unknown_key(path: Path) -> str:
    name, parent = str(path[-1]), path[:-1]
    # A key that is right elsewhere was most likely indented wrongly.
    for length in range(len(parent) - 1, -1, -1):
        if name in known_keys(parent[:length]):
            return f"unknown key; it belongs to {dotted(_untagged(parent[:length])) or 'the top level'}"
    for field in known_keys(parent):
        if name in known_keys((*parent, field)):
            return f"unknown key; it belongs to {dotted(_untagged((*parent, field)))}"
    return f"unknown key{did_you_mean(name, known_keys(parent))}"


def _purpose(path: Path) -> str:
    fields = [model.model_fields.get(str(path[-1])) for model in _models_at(path[:-1])]
    described = [field.description for field in fields if field is not None and field.description]
    return f" ({described[0]})" if described else ""


def _models_at(path: Path) -> tuple[type[BaseModel], ...]:
    """Walk the types of the catalogue's models; several where a kind decides which one it is."""
    kinds: tuple[Any, ...] = (Catalogue,)
    for part in path:
        models = _only_models(kinds)
        tagged = tuple(model for model in models if len(models) > 1 and part in _tags(model))
        if tagged:
            kinds = tagged
        elif models:
            fields = [model.model_fields[str(part)] for model in models if str(part) in model.model_fields]
            kinds = tuple(option for field in fields[:1] for option in _options(field.annotation))
        elif get_origin(kinds[0]) is dict:
            kinds = _options(get_args(kinds[0])[1])
        elif get_origin(kinds[0]) is tuple:
            kinds = _options(get_args(kinds[0])[0])
        else:
            return ()
        if not kinds:
            return ()
    return _only_models(kinds)


def _only_models(kinds: tuple[Any, ...]) -> tuple[type[BaseModel], ...]:
    return tuple(kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel))


def _tags(model: type[BaseModel]) -> tuple[str, ...]:
    """Kinds of the discriminated union that this model is one of."""
    field = model.model_fields.get("kind")
    return () if field is None else tuple(map(str, get_args(field.annotation)))


def _options(kind: Any) -> tuple[Any, ...]:
    """What a type may be, without Annotated and `None`."""
    origin = get_origin(kind)
    if origin is Annotated:
        return _options(get_args(kind)[0])
    if origin in (Union, types.UnionType):
        return tuple(found for option in get_args(kind) if option is not type(None) for found in _options(option))
    return (kind,)


def _found(value: object, path: Path) -> str:
    if any(part in _MAY_HOLD_SECRETS for part in path):
        return ""  # somebody may have written the secret itself
    if isinstance(value, Mapping):
        return "; found a mapping"
    if isinstance(value, (list, tuple)):
        return "; found a list"
    if isinstance(value, bool):
        return f"; found `{str(value).lower()}`"
    text = str(value)
    return f"; found `{text[:60]}{'…' if len(text) > 60 else ''}`".replace("\n", " ")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
