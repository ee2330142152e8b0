"""The words of the release plan: what may be done next, and what has to be looked at to decide it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from ops_pipeline.core.journal import Journal


class Do(StrEnum):
    """Kinds of action."""

    PULL = "pull"
    START = "start"
    WAIT = "wait"
    ROUTE = "route"  # make every edge equal the wanted routing
    REMOVE = "remove"  # stop and remove the containers of a release
    RECORD = "record"  # nothing but the journal and the manifests
    BLOCKED = "blocked"  # cannot go on while a host does not answer
    DONE = "done"


@dataclass(frozen=True)
class Step:
    """One action. `then` is the journal to write before it, None when the journal already announces it.

    `text` says what is done, once; `detail` how it stands while that goes on, every now and then.
    """

    do: Do
    text: str
    then: Journal | None = None
    release: int = 0
    hosts: tuple[str, ...] = ()
    replicas: tuple[tuple[str, int], ...] = ()
    containers: tuple[tuple[str, str], ...] = ()  # (host, id)
    grace_seconds: float = 0.0
    wait_seconds: float = 0.25
    detail: str = ""


@dataclass(frozen=True)
class Probing:
    """Replicas to ask on their health path: the release whose label they carry, and how."""

    release: int
    port: int
    path: str


@dataclass(frozen=True)
class Needs:
    """What the next decision must know, so that nothing is looked at in vain. Containers are always listed."""

    routing: bool = False
    probes: tuple[Probing, ...] = ()
    image: str = ""  # repository@digest that hosts should have
    route: bool = False
    connections: str = ""  # pool whose open connections count, as long as `drains` has containers
    drains: int = 0  # release whose containers are in that pool
    patient: bool = False  # ask a silent replica again before believing it
    verdict: bool = False  # on the release being made
    decision: bool = False  # of a person about its canary
    smoke: bool = False  # run its smoke tests, when all else that was looked at is well
