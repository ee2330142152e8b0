"""Commands that only read: the ledger and the engines, directly."""

from __future__ import annotations

import queue
import threading
from typing import Annotated

import typer

from ops_pipeline.cli.app import app, project
from ops_pipeline.cli.arguments import AsJson, Environment, MaybeEnvironment, MaybeService, Service
from ops_pipeline.cli.canary import standing_words
from ops_pipeline.cli.names import check_known
from ops_pipeline.cli.output import ago, out, plain, print_json, said, short, table
from ops_pipeline.core.release import Phase, Release
from ops_pipeline.errors import NotFound
from ops_pipeline.ports import Container, ContainerRuntime

LEFT = (Phase.RETIRED, Phase.FAILED, Phase.ROLLED_BACK)
"""Phases without containers."""


@app.command()
def status(service: MaybeService = "", environment: MaybeEnvironment = "", as_json: AsJson = False) -> None:
    """What runs where: version, digest, age, phase, health."""
    from ops_pipeline.services.status import status as status_of

    check_known(project.catalogue, service, environment)
    found = status_of(project.platform, environment or None, service or None)
    if as_json:
        print_json([{**plain(one), "healthy": one.healthy} for one in found])
        return
    now = project.platform.clock.now()
    shown = table("env", "service", "release", "version", "digest", "live for", "phase", "ready", "standby")
    notes = []
    for one in found:
        live, standby = one.live, one.standby
        ready = f"{one.ready}/{one.wanted}" if live else ""
        shown.add_row(
            one.environment,
            one.service,
            f"#{live.number}" if live else "",
            live.version if live else "",
            short(live.digest) if live else "",
            ago(live.since, now) if live else "",
            one.phase if live or one.phase != "nothing deployed" else "none",
            f"[green]{ready}[/green]" if one.healthy else f"[red]{ready}[/red]",
            f"#{standby.number} {standby.version}" if standby else "",
        )
        place = f"{one.environment}/{one.service}"
        notes += [f"{place}: {problem}" for problem in one.problems]
        notes += [f"{place}: {standing_words(one.judged)}"] if one.judged else []
        notes += [f"{place}: {text}" for text in (one.working and f"{one.working} is at work", one.unfinished) if text]
    out.print(shown)
    for note in notes:
        said(out, note, first="  ", indent=4)


@app.command()
def releases(
    service: Service,
    environment: Environment,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many, newest first")] = 20,
    as_json: AsJson = False,
) -> None:
    """History of a service somewhere: what, when, who and why."""
    from ops_pipeline.services.ledger import releases as releases_of

    check_known(project.catalogue, service, environment)
    found = releases_of(project.platform.store, environment, service, limit=limit)
    if as_json:
        print_json([{**plain(release), "phase": release.phase.value} for release in found])
        return
    shown = table("release", "action", "version", "digest", "when", "phase", "who", "why")
    now = project.platform.clock.now()
    for release in found:
        shown.add_row(
            f"#{release.number}",
            _action(release),
            release.version,
            short(release.digest),
            f"{ago(release.phases[0].at, now)} ago" if release.phases else release.timestamp,
            release.phase.value,
            release.who,
            release.why or (release.phases[-1].reason if release.phase in LEFT else ""),
        )
    out.print(shown if found else f"nothing was ever released of {service} in {environment}")


@app.command()
def logs(
    service: Service,
    environment: Environment,
    release: Annotated[int, typer.Option("--release", help="Number; default what is live", min=0)] = 0,
    tail: Annotated[int, typer.Option("--tail", "-n", min=1, max=10_000, help="Lines of each container")] = 50,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C")] = False,
    as_json: AsJson = False,
) -> None:
    """Last lines of a service's containers on every host."""
    check_known(project.catalogue, service, environment)
    places = _containers(service, environment, release)
    if follow and not as_json:
        _follow(places, tail)
        return
    if as_json:
        print_json(
            [
                {"host": runtime.host, "container": one.name, "lines": runtime.logs(one.id, tail).splitlines()}
                for runtime, one in places
            ]
        )
        return
    for runtime, one in places:
        for line in runtime.logs(one.id, tail).splitlines():
            out.print(f"{runtime.host}/{one.name} | {line}", markup=False)


def _containers(service: str, environment: str, release: int) -> list[tuple[ContainerRuntime, Container]]:
    from ops_pipeline.services.ledger import find_release, read_current

    platform = project.platform
    if not release:
        current = read_current(platform.store, environment, service)
        if current is None:
            raise NotFound(f"nothing is live of {service} in {environment}")
        release = current.number
    found = find_release(platform.store, environment, service, release)
    # A roll-back to a warm standby is served by the containers of the release it returned to.
    number = found.containers_of or found.number
    labels = {"ops.environment": environment, "ops.service": service, "ops.release": str(number)}
    places = [(runtime, one) for runtime in platform.runtimes(environment) for one in runtime.containers(labels)]
    if not places:
        raise NotFound(f"{found.label} has no containers any more ({found.phase})")
    return places


def _follow(places: list[tuple[ContainerRuntime, Container]], tail: int) -> None:
    lines: queue.Queue[str | None] = queue.Queue(maxsize=10_000)

    def read(runtime: ContainerRuntime, one: Container) -> None:
        for line in runtime.follow_logs(one.id, tail):
            lines.put(f"{runtime.host}/{one.name} | {line}")
        lines.put(None)

    for runtime, one in places:
        threading.Thread(target=read, args=(runtime, one), daemon=True).start()
    ended = 0
    try:
        while ended < len(places):
            line = lines.get()
            if line is None:
                ended += 1
            else:
                out.print(line, markup=False)
    except KeyboardInterrupt:
        return


def _action(release: Release) -> str:
    return f"{release.action} to #{release.restores}" if release.restores else release.action.value
