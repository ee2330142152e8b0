"""What a person asked for, from the UI or the command line, checked before anything is touched."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from ops_pipeline.catalogue.model import Catalogue
from ops_pipeline.errors import BadInput, Problem

SET_ID = re.compile(r"[0-9A-HJKMNP-TV-Z]{4,26}")
"""A ULID (https://github.com/ulid/spec), or the beginning of one."""

TOKEN = re.compile(r"[a-z0-9]{4,12}")
DAY = re.compile(r"\d{4}-\d{2}-\d{2}")


@dataclass(frozen=True)
class Places:
    """What the fields are called where the person typed them."""

    environment: str = "run config: environment"
    date: str = "run config: date"
    set: str = "run config: set"
    source: str = "run config: sources"
    into: str = "run config: into"


def backed_up(catalogue: Catalogue) -> list[str]:
    """Environments that have a `backup` section, in the catalogue's order."""
    return [name for name, environment in catalogue.environments.items() if environment.backup is not None]


def check_backed_up(catalogue: Catalogue, environment: str, place: str, others: Sequence[Problem] = ()) -> None:
    """Raise BadInput when the environment is unknown or has no backups, together with what else is wrong."""
    problems = [*environment_problems(catalogue, environment, place), *others]
    if problems:
        raise BadInput(problems, subject="arguments")


def environment_problems(catalogue: Catalogue, environment: str, place: str) -> list[Problem]:
    """What is wrong with the name of an environment that is to be backed up or restored."""
    known = backed_up(catalogue)
    if environment in known:
        return []
    if environment in catalogue.environments:
        there = f"; these have: {', '.join(known)}" if known else ""
        return [Problem(place, f"`{environment}` has no `backup` in the catalogue{there}")]
    near = difflib.get_close_matches(environment, catalogue.environments, n=1, cutoff=0.5)
    guess = f"did you mean `{near[0]}`?" if near else f"there are: {', '.join(catalogue.environments)}"
    return [Problem(place, f"no environment `{environment}`; {guess}")]


def source_problems(catalogue: Catalogue, environment: str, sources: Sequence[str], place: str) -> list[Problem]:
    """One problem for each name that is no data source of the environment, or is named twice."""
    known = _sources(catalogue, environment)
    problems = [
        Problem(place, f"{environment} has no data source `{name}` (there are: {', '.join(known) or 'none'})")
        for name in dict.fromkeys(sources)
        if name not in known
    ]
    twice = dict.fromkeys(name for name in sources if sources.count(name) > 1)
    return problems + [Problem(place, f"`{name}` is named twice") for name in twice]


def set_problems(set_id: str, place: str) -> list[Problem]:
    """What is wrong with the id of a set; an empty one is none."""
    if not set_id or set_id.lower() == "latest" or SET_ID.fullmatch(set_id.upper()):
        return []
    words = "is not the id of a set: 26 digits and capital letters, or the first 4 or more of them"
    return [Problem(place, f"`{set_id}` {words}")]


def token_problems(token: str, place: str) -> list[Problem]:
    """What is wrong with the token of a restore; an empty one is none."""
    if not token or TOKEN.fullmatch(token):
        return []
    return [Problem(place, f"`{token}` is not the token of a restore: 4 to 12 small letters and digits")]


def restore_problems(
    catalogue: Catalogue,
    environment: str,
    *,
    date: str,
    set_id: str,
    sources: Sequence[str],
    into: str,
    places: Places,
) -> list[Problem]:
    """Everything that keeps these from naming one restore of a known environment."""
    problems: list[Problem] = []
    if date:
        try:
            moment(date)
        except ValueError as error:
            problems.append(Problem(places.date, str(error)))
    if date and set_id:
        problems.append(Problem(places.set, f"cannot be used together with {places.date.rpartition(' ')[2]}"))
    problems += set_problems(set_id, places.set)
    problems += source_problems(catalogue, environment, sources, places.source)
    if into and len(sources) != 1 and len(_sources(catalogue, environment)) != 1:
        problems.append(Problem(places.into, "means one data source; name it"))
    return problems


def moment(text: str) -> datetime:
    """The moment up to which sets count. A date means that day's end; without an offset a time is UTC.

    Raise ValueError in words.
    """
    try:
        found = datetime.fromisoformat(text.strip())
    except ValueError:
        raise ValueError(f"`{text}` is no date; write 2026-11-20 or 2026-11-20T14:30 (UTC)") from None
    aware = found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    try:
        return aware + timedelta(days=1) if DAY.fullmatch(text.strip()) else aware
    except OverflowError:
        raise ValueError(f"`{text}` lies too far ahead") from None


def _sources(catalogue: Catalogue, environment: str) -> list[str]:
    settings = catalogue.environments[environment].backup
    return list(settings.sources) if settings else []
