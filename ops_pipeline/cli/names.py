"""Names a person types: checked together, with the nearest ones that exist, and completed by the shell."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from ops_pipeline.errors import BadInput, OpsError, Problem


def check_names(
    *, services: Sequence[str] = (), environments: Sequence[str] = (), service: str = "", environment: str = ""
) -> None:
    """Raise BadInput naming each unknown name; empty names are not checked."""
    problems = [
        problem
        for problem in (
            _problem("SERVICE", "service", service, services, environments),
            _problem("ENV", "environment", environment, environments, services),
        )
        if problem
    ]
    if problems:
        swapped = service in environments and environment in services
        hint = f"The service comes first: {environment} {service}" if swapped else ""
        raise BadInput(problems, subject="arguments", hint=hint)


def _problem(place: str, kind: str, name: str, known: Sequence[str], others: Sequence[str]) -> Problem | None:
    if not name or name in known:
        return None
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if name in others:
        other = "an environment" if kind == "service" else "a service"
        return Problem(place, f"`{name}` is {other}, not {'a' if kind == 'service' else 'an'} {kind}")
    guess = f"did you mean `{near[0]}`?" if near else f"there are: {', '.join(known)}"
    return Problem(place, f"no {kind} `{name}`; {guess}")


def complete_service(incomplete: str) -> list[str]:
    """Shell completion of a service's name; nothing rather than an error."""
    return _complete("services", incomplete)


def complete_environment(incomplete: str) -> list[str]:
    """Shell completion of an environment's name."""
    return _complete("environments", incomplete)


def _complete(section: str, incomplete: str) -> list[str]:
    from ops_pipeline.cli.project import Project

    try:
        known = getattr(Project().catalogue, section)
    except (OpsError, OSError):
        return []
    return [name for name in known if name.startswith(incomplete)]
