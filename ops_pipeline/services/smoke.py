"""Smoke tests: what a new release must pass after the switch and before it counts as live."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from ops_pipeline.catalogue.model import Catalogue
from ops_pipeline.core.numbering import smoke_name
from ops_pipeline.core.redaction import redact
from ops_pipeline.core.release import Release
from ops_pipeline.core.rollout import SmokeTest
from ops_pipeline.core.routing import Server
from ops_pipeline.core.world import Replica
from ops_pipeline.errors import OpsError
from ops_pipeline.ports import Answer, ContainerRuntime, ContainerSpec, Edge, Progress
from ops_pipeline.services.configuration import read_secrets
from ops_pipeline.services.fleet import Fleet, fleet_of, on_each
from ops_pipeline.services.instances import Launch, find_replicas
from ops_pipeline.services.platform import Platform
from ops_pipeline.services.retrying import retried

LABEL = "ops.smoke"
"""Label of one-shot containers: the release they test. They carry no `ops.release`, so none is taken for a replica."""

SAFE = frozenset({"GET", "HEAD"})
TRIES = 2
"""A request that changes nothing is sent again once, so that one unlucky answer condemns no release."""
PAUSE_SECONDS = 0.5
SHOWN = 200
TIMED_OUT = 124


@dataclass(frozen=True)
class _Place:
    """Somewhere a request is sent to. `server` None = through the edge, as a user of `host` would."""

    name: str
    edge: Edge
    path: str
    server: Server | None = None
    host: str = ""


def smoke_faults(
    platform: Platform, environment: str, service: str, release: Release, *, progress: Progress
) -> tuple[str, ...]:
    """Run a release's smoke tests and return one sentence for each that failed; empty = all passed.

    Requests go to every replica of the release on every host, from where the edge stands, and through each host's
    edge where users could ask the same; commands run once, in a container of the release's image. Every test is run,
    also after one has failed. Bounded by the tests' time-outs; what cannot be asked is a fault, never an error.
    """
    tests = release.rollout.smoke
    if not tests:
        return ()
    fleet = fleet_of(platform, environment)
    faults: list[str] = []
    replicas, unseen = _replicas(platform, fleet, release)
    faults += unseen
    secrets: Mapping[str, str] = {}
    try:
        secrets = read_secrets(platform, release.configuration.secrets)
    except OpsError as error:
        faults.append(f"smoke tests: {error.message}")
    for test in tests:
        found = (
            _command_faults(fleet, release, test, secrets)
            if test.command
            else _request_faults(platform, fleet, release, test, replicas, secrets.values())
        )
        found = [redact(fault, secrets.values()) for fault in found]
        progress(f"smoke test «{test.name}»: {'passed' if not found else '; '.join(found)}")
        faults += [f"smoke test «{test.name}»: {fault}" for fault in found]
    return tuple(faults)


def users_path(catalogue: Catalogue, service: str, path: str) -> str | None:
    """What a user asks the edge for so that the service sees `path`; None when no user can."""
    route = catalogue.services[service].route
    prefix = route.path.rstrip("/")
    asked = f"{prefix}{path}" if route.strip_prefix else path
    plain = asked.partition("?")[0]

    def covers(other: str) -> bool:
        return f"{plain}/".startswith(f"{other.rstrip('/')}/")

    if not covers(route.path):
        return None
    # The longest prefix wins: another service may answer what lies below a longer one.
    rivals = (
        other.route.path.rstrip("/")
        for name, other in catalogue.services.items()
        if name != service and other.route.host == route.host
    )
    return None if any(len(rival) > len(prefix) and covers(rival) for rival in rivals) else asked


def _replicas(platform: Platform, fleet: Fleet, release: Release) -> tuple[list[tuple[Edge, Replica]], list[str]]:
    """The release's replicas with the edge that stands beside each, and what could not be seen."""
    number = release.number if release.containers_of is None else release.containers_of

    def on_host(host: str) -> tuple[list[tuple[Edge, Replica]], str]:
        try:
            found = find_replicas(platform.clock, fleet.runtimes[host], release.environment, release.service)
        except OpsError as error:
            return [], f"smoke tests: host {host} could not be asked for its replicas: {error.message}"
        mine = [(fleet.edges[host], replica) for replica in found if replica.release == number]
        return mine, "" if mine else f"smoke tests: host {host} has no replica of #{number}"

    seen = on_each(fleet.hosts, on_host)
    return [pair for pairs, _ in seen for pair in pairs], [fault for _, fault in seen if fault]


def _request_faults(
    platform: Platform,
    fleet: Fleet,
    release: Release,
    test: SmokeTest,
    replicas: Sequence[tuple[Edge, Replica]],
    hidden: Collection[str],
) -> list[str]:
    port = release.configuration.port
    places = [_Place(replica.key, edge, test.path, Server(replica.address, port)) for edge, replica in replicas]
    asked = users_path(platform.catalogue, release.service, test.path)
    if asked is not None:
        host = platform.catalogue.services[release.service].route.host
        places += [_Place(f"the edge of {name}", fleet.edges[name], asked, host=host) for name in fleet.hosts]

    def one(place: _Place) -> str:
        fault = _fault(platform, test, place, hidden)
        for _ in range(TRIES - 1):
            if not fault or test.method not in SAFE:
                break
            platform.clock.sleep(PAUSE_SECONDS)
            fault = _fault(platform, test, place, hidden)
        return fault

    return [fault for fault in on_each(places, one) if fault]


def _fault(platform: Platform, test: SmokeTest, place: _Place, hidden: Collection[str]) -> str:
    """What is wrong with one answer; "" = it is as expected."""

    def ask() -> Answer:
        return place.edge.ask(
            place.path, test.method, server=place.server, host=place.host, timeout_seconds=test.timeout_seconds
        )

    begin = f"{place.name}: {test.method} {place.path}"
    try:
        answer = retried(platform.clock, f"ask {place.name}", ask, attempts=2)
    except OpsError as error:
        return f"{begin} could not be sent: {error.message}"
    if answer.status == 0:
        return f"{begin} got no answer ({answer.detail or 'no reason given'}), expected {test.status}"
    if answer.status != test.status:
        return f"{begin} answered {answer.status}, expected {test.status}"
    if test.contains and test.contains not in answer.body:
        where = "beginning of the body" if answer.cut else "body"
        got = _shown(redact(answer.body, hidden))
        return f"{begin} answered {answer.status}, expected «{test.contains}» in the {where}, got {got}"
    if answer.detail:
        return f"{begin} answered {answer.status} and broke off ({answer.detail}), expected all of it"
    return ""


def _command_faults(fleet: Fleet, release: Release, test: SmokeTest, secrets: Mapping[str, str]) -> list[str]:
    """What went wrong with a command, in a container like a replica's on the first host."""
    runtime = fleet.runtimes[fleet.hosts[0]]
    begin = f"{runtime.host}: {shlex.join(test.command)}"
    try:
        _sweep(runtime, release)
        code, output = runtime.run_once(_spec(fleet, release, test, secrets), test.timeout_seconds)
    except OpsError as error:
        return [f"{begin} could not be run: {error.message}"]
    if code == 0:
        return []
    words = _shown(redact(output, secrets.values()), last=True)
    if code == TIMED_OUT:
        return [f"{begin} did not end within {test.timeout_seconds:g} s, expected exit code 0; it said {words}"]
    return [f"{begin} ended with exit code {code}, expected 0; it said {words}"]


def _spec(fleet: Fleet, release: Release, test: SmokeTest, secrets: Mapping[str, str]) -> ContainerSpec:
    """A container like a replica's, but with the test's command, an address of the engine's choice and other labels."""
    launch = Launch(
        environment=release.environment,
        service=release.service,
        release=release.number,
        version=release.version,
        image=release.image,
        pool="",
        generation=0,
        configuration=release.configuration,
        secrets=secrets,
    )
    position = release.rollout.smoke.index(test)
    return replace(
        launch.spec(fleet.network, "", 0),
        name=smoke_name(release.environment, release.service, release.number, position),
        labels={
            "ops.environment": release.environment,
            "ops.service": release.service,
            "ops.digest": release.digest,
            LABEL: str(release.number),
        },
        command=test.command,
    )


def _sweep(runtime: ContainerRuntime, release: Release) -> None:
    """Remove what a controller left that died while a test of this service ran; its lease is ours now."""
    labels = {"ops.environment": release.environment, "ops.service": release.service}
    for left in runtime.containers(labels):
        if LABEL in left.labels:
            runtime.remove(left.id)


def _shown(text: str, *, last: bool = False) -> str:
    """A text in one short piece: its beginning, or its end."""
    words = " ".join(text.split())
    if not words:
        return "nothing"
    short = words if len(words) <= SHOWN else f"…{words[-SHOWN:]}" if last else f"{words[:SHOWN]}…"
    return f"«{short}»"
