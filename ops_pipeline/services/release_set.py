"""Release sets: services that are released together, in the order of their dependencies, and go back together."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from ops_pipeline.core.judgement.verdict import Verdict
from ops_pipeline.core.numbering import release_timestamp
from ops_pipeline.core.release import Action, Release
from ops_pipeline.core.watch_decision import dependencies_first, dependents_first
from ops_pipeline.errors import BadInput, DeployFailed, OpsError, PolicyRefused, Problem, RolledBack
from ops_pipeline.ports import Progress
from ops_pipeline.services import ledger
from ops_pipeline.services.configuration import check_names
from ops_pipeline.services.deploy import deploy, image_to_deploy
from ops_pipeline.services.gates import refusals
from ops_pipeline.services.journal import read_journal
from ops_pipeline.services.platform import Platform
from ops_pipeline.services.retrying import retried
from ops_pipeline.services.rollback import roll_back
from ops_pipeline.services.standby import target_of

FEWEST = 2


@dataclass(frozen=True)
class SetMember:
    """A service whose live release belongs to a set."""

    service: str
    release: int


def deploy_set(
    platform: Platform,
    environment: str,
    services: Sequence[str],
    *,
    who: str = "",
    why: str = "",
    run_id: str = "",
    progress: Progress,
    lease_wait_seconds: float = 0.0,
) -> tuple[Release, ...]:
    """Deploy the latest images of several services together, dependencies first, and return their releases.

    All gates are asked before anything is touched. When one service fails, those that were released before it go back
    in reverse order, and what is raised says so: RolledBack when the failed one was judged bad, else DeployFailed. An
    interruption does the same and passes on. A service whose image is live already stays as it is.

    Raise BadInput (names), NotFound (nothing built), PolicyRefused naming every service that is refused, and, when the
    first service fails, whatever `deploy` raises.
    """
    ordered = _checked(platform, environment, services)
    now = platform.clock.now()
    set_id = f"{release_timestamp(now)}-{(run_id or platform.controller).replace(':', '-')[:12]}"
    progress(f"release set {set_id}: {', '.join(ordered)}")
    done: list[Release] = []
    for service in ordered:
        try:
            release = deploy(
                platform,
                environment,
                service,
                who=who,
                why=why or f"released together with {_others(ordered, service)}",
                run_id=run_id,
                progress=progress,
                lease_wait_seconds=lease_wait_seconds,
                set_id=set_id,
            )
        except OpsError as error:
            back = _take_back(platform, environment, ordered, set_id, service, who, run_id, progress)
            if not back:
                raise
            raise _set_failed(environment, service, error, back) from error
        except BaseException:
            _take_back(platform, environment, ordered, set_id, service, who, run_id, progress)
            raise
        done.append(release)
    return tuple(done)


def set_members(platform: Platform, environment: str, set_id: str) -> tuple[SetMember, ...]:
    """Services of an environment whose live release belongs to a set, in the catalogue's order.

    Raise StoreDamaged, Unavailable.
    """
    found = []
    for service in platform.catalogue.services:
        record = _live(platform, environment, service)
        if record is not None and record.set_id == set_id and record.action is not Action.ROLLBACK:
            found.append(SetMember(service, record.number))
    return tuple(found)


def roll_back_set(
    platform: Platform,
    environment: str,
    members: Sequence[SetMember],
    *,
    verdicts: Mapping[str, Verdict],
    why: str,
    who: str = "",
    run_id: str = "",
    progress: Progress,
) -> dict[str, Release | OpsError]:
    """Roll several services back by themselves, dependents first; return each one's release, or why it did not work.

    Only the services in `verdicts` are blamed. One that fails does not hold up the others.
    """
    catalogue = platform.catalogue
    depends_on = {name: service.depends_on for name, service in catalogue.services.items()}
    results: dict[str, Release | OpsError] = {}
    for service in dependents_first((member.service for member in members), depends_on):
        release = next(member.release for member in members if member.service == service)
        reason = why if service in verdicts else f"its release set is rolled back: {why}"
        try:
            results[service] = roll_back(
                platform,
                environment,
                service,
                to=target_of(platform, environment, service, release),
                automatic=True,
                verdict=verdicts.get(service),
                who=who,
                why=reason,
                run_id=run_id,
                progress=progress,
            )
        except OpsError as error:
            results[service] = error
    return results


def _checked(platform: Platform, environment: str, services: Sequence[str]) -> tuple[str, ...]:
    """The services in the order of their dependencies; raises what speaks against the set, all of it at once."""
    known, problems = platform.catalogue.services, []
    if environment not in platform.catalogue.environments:
        environments = ", ".join(platform.catalogue.environments)
        problems.append(Problem("environment", f"no environment `{environment}` (there are: {environments})"))
    for index, service in enumerate(services):
        if service not in known:
            problems.append(Problem("services", f"no service `{service}` (there are: {', '.join(known)})"))
        elif service in services[:index]:
            problems.append(Problem("services", f"`{service}` is named twice"))
    if len(services) < FEWEST:
        problems.append(Problem("services", f"a set has at least {FEWEST} services; use `deploy` for one"))
    if problems:
        raise BadInput(problems, subject="release set")
    depends_on = {name: service.depends_on for name, service in known.items()}
    ordered = dependencies_first(services, depends_on)
    reasons = []
    for service in ordered:
        check_names(platform.catalogue, environment, service)
        digest = image_to_deploy(platform, service, None).ref.digest
        outcome = refusals(platform, environment, service, digest, Action.DEPLOY)
        reasons += [f"{service}: {reason}" for reason in outcome.reasons]
    if reasons:
        raise PolicyRefused(f"release set for {environment}", reasons, hint="Nothing was touched.")
    return ordered


def _take_back(
    platform: Platform,
    environment: str,
    ordered: Sequence[str],
    set_id: str,
    failed: str,
    who: str,
    run_id: str,
    progress: Progress,
) -> dict[str, str]:
    """Roll back what is live of a set of which one service failed, newest first; say what became of each."""
    words: dict[str, str] = {}
    for service in reversed(ordered):
        place = f"{environment}/{service}"
        try:
            # What is live counts, not what was returned: an interruption may come after the commit.
            release = _live(platform, environment, service)
            if release is None or release.set_id != set_id or release.action is Action.ROLLBACK:
                continue
            if release.previous is None:
                words[service] = f"{release.label} stays: there was nothing before it"
            else:
                back = roll_back(
                    platform,
                    environment,
                    service,
                    to=target_of(platform, environment, service, release.number),
                    why=f"its release set failed at {failed}",
                    who=who,
                    run_id=run_id,
                    progress=progress,
                    lease_wait_seconds=5.0,
                )
                words[service] = f"{place} is back at #{back.root} (as #{back.number})"
        except OpsError as error:
            words[service] = f"{place} could not go back: {error.message}"
        progress(words[service])
    return words


def _live(platform: Platform, environment: str, service: str) -> Release | None:
    live = read_journal(platform, environment, service).live
    if live is None:
        return None
    return retried(
        platform.clock,
        f"read the live release of {environment}/{service}",
        lambda: ledger.read_release(platform.store, environment, service, live.timestamp),
    )


def _set_failed(environment: str, service: str, error: OpsError, back: Mapping[str, str]) -> DeployFailed:
    kind = RolledBack if isinstance(error, RolledBack) else DeployFailed
    first, _, rest = error.message.partition("\n")
    text = f"release set: {environment}/{service} failed, so the set went back ({'; '.join(back.values())}): {first}"
    return kind(f"{text}\n{rest}" if rest else text, hint=error.hint)


def _others(services: Collection[str], service: str) -> str:
    return ", ".join(other for other in services if other != service) or service
