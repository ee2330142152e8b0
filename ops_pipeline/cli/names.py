"""Names a person types: checked together, with the nearest ones that exist, and completed by the shell."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from ops_pipeline.catalogue.model import Catalogue
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


def check_known(catalogue: Catalogue, service: str = "", environment: str = "", others: Sequence[Problem] = ()) -> None:
    """The same against a catalogue, named together with `others`, other things wrong with the arguments."""
    try:
        check_names(
            services=list(catalogue.services),
            environments=list(catalogue.environments),
            service=service,
            environment=environment,
        )
    except BadInput as error:
        raise BadInput([*error.problems, *others], subject="arguments", hint=error.hint) from None
    if others:
        raise BadInput(others, subject="arguments")


def check_services(catalogue: Catalogue, services: Sequence[str], environment: str) -> None:
    """The same for several services; one that is named twice is a problem too."""
    problems: dict[str, Problem] = {}
    for service in services:
        try:
            check_known(catalogue, service, environment)
        except BadInput as error:
            problems |= {str(problem): problem for problem in error.problems}
    twice = dict.fromkeys(service for service in services if services.count(service) > 1)
    found = [*problems.values(), *(Problem("SERVICE", f"`{service}` is named twice") for service in twice)]
    if found:
        raise BadInput(
            found, subject="arguments", hint="The environment comes last: ops deploy api web prod --together"
        )


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


def complete_service_or_environment(incomplete: str) -> list[str]:
    """Shell completion where services stand first and the environment last."""
    return complete_service(incomplete) + complete_environment(incomplete)


def _complete(section: str, incomplete: str) -> list[str]:
    from ops_pipeline.cli.project import Project

    try:
        known = getattr(Project().catalogue, section)
    except (OpsError, OSError):
        return []
    return [name for name in known if name.startswith(incomplete)]


def complete_flag(incomplete: str) -> list[str]:
    """Shell completion of a feature flag's name, of any environment."""
    from ops_pipeline.cli.project import Project

    try:
        environments = Project().catalogue.environments.values()
    except (OpsError, OSError):
        return []
    return sorted({name for one in environments for name in one.flags if name.startswith(incomplete)})


def complete_quarantined(incomplete: str) -> list[str]:
    """Shell completion of a digest in quarantine."""
    from ops_pipeline.cli.project import Project
    from ops_pipeline.services.quarantine import quarantined

    try:
        digests = [one.digest for one in quarantined(Project().platform)]
    except (OpsError, OSError):
        return []
    plain = incomplete.removeprefix("sha256:")
    return [digest for digest in digests if digest.removeprefix("sha256:").startswith(plain)]


def complete_backed_up(incomplete: str) -> list[str]:
    """Shell completion of an environment whose data are backed up."""
    from ops_pipeline.cli.project import Project
    from ops_pipeline.services.backup.wanted import backed_up

    try:
        known = backed_up(Project().catalogue)
    except (OpsError, OSError):
        return []
    return [name for name in known if name.startswith(incomplete)]


def complete_source(incomplete: str) -> list[str]:
    """Shell completion of a data source's name, of any environment."""
    from ops_pipeline.cli.project import Project

    try:
        kept = [one.backup for one in Project().catalogue.environments.values() if one.backup is not None]
    except (OpsError, OSError):
        return []
    return sorted({name for one in kept for name in one.sources if name.startswith(incomplete)})


def complete_set(incomplete: str) -> list[str]:
    """Shell completion of the id of a backup set, of any environment, newest first."""
    from ops_pipeline.cli.project import Project
    from ops_pipeline.services.backup.sets import backup_sets
    from ops_pipeline.services.backup.wanted import backed_up

    opened = Project()
    try:
        ids = [one.id for name in backed_up(opened.catalogue) for one in backup_sets(opened.platform, name)]
    except (OpsError, OSError):
        return []
    return [one for one in sorted(ids, reverse=True) if one.startswith(incomplete.upper())]
