"""The hosts of an environment, and doing one thing on all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from ops_pipeline.ports import ContainerRuntime, Edge
from ops_pipeline.services.platform import Platform

T = TypeVar("T")
R = TypeVar("R")

AT_ONCE = 8


@dataclass(frozen=True)
class Fleet:
    """Engines and edges of an environment by host name, in the catalogue's order."""

    hosts: tuple[str, ...]
    runtimes: dict[str, ContainerRuntime]
    edges: dict[str, Edge]
    network: str
    subnet: str


def fleet_of(platform: Platform, environment: str) -> Fleet:
    """The fleet of an environment."""
    settings = platform.catalogue.environments[environment]
    return Fleet(
        hosts=tuple(host.name for host in settings.hosts),
        runtimes={runtime.host: runtime for runtime in platform.runtimes(environment)},
        edges={edge.host: edge for edge in platform.edges(environment)},
        network=platform.catalogue.network(environment),
        subnet=settings.subnet,
    )


def on_each(items: Iterable[T], action: Callable[[T], R]) -> list[R]:
    """Results of `action` in the order of the items, several at once.

    Every item is tried also when another one fails; the first error is raised at the end.
    """
    todo: Sequence[T] = tuple(items)
    if len(todo) <= 1:
        return [action(item) for item in todo]
    with ThreadPoolExecutor(max_workers=min(AT_ONCE, len(todo))) as pool:
        futures = [pool.submit(action, item) for item in todo]
    return [future.result() for future in futures]
