"""Exits of containers, asked of every engine once per look and remembered for the judges."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from ops_pipeline.core.measurement import ContainerExit
from ops_pipeline.errors import OpsError
from ops_pipeline.services.platform import Platform

OVERLAP = timedelta(seconds=5)
"""Asked again, because an engine may tell of a stop only after the exit."""
REMEMBERED = timedelta(hours=1)
SAME = timedelta(milliseconds=90)
"""An exit told twice, by an event and by inspecting, differs by milliseconds; engines wait 100 ms to restart."""


@dataclass
class _Host:
    """What one engine has told of one environment."""

    since: datetime
    until: datetime
    exits: list[ContainerExit] = field(default_factory=list)


@dataclass(frozen=True)
class Reports:
    """`exits` by service, oldest first; `missing` says, by environment, which engines could not be asked and why."""

    exits: Mapping[tuple[str, str], Sequence[ContainerExit]]
    missing: Mapping[str, str]


class CrashReports:
    """Remembers what the engines told, so that each is asked only for what is new."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._hosts: dict[tuple[str, str], _Host] = {}

    def ask(self, executor: Executor, since: Mapping[str, datetime], now: datetime) -> Callable[[], Reports]:
        """Ask all engines of some environments at once, one call each; call the result to wait for the answers.

        `since` is the moment, by environment, from which exits matter. Engines that do not answer are named in the
        result; nothing is raised for them.
        """
        asked: list[tuple[str, str, datetime, Future[Sequence[ContainerExit]]]] = []
        for environment, begin in since.items():
            for runtime in self._platform.runtimes(environment):
                known = self._hosts.get((environment, runtime.host))
                first = begin if known is None or begin < known.since else known.until - OVERLAP
                asked.append((environment, runtime.host, first, executor.submit(runtime.exits, environment, first)))

        def wait() -> Reports:
            missing: dict[str, list[str]] = defaultdict(list)
            for environment, host, first, answer in asked:
                try:
                    self._remember(environment, host, since[environment], first, answer.result(), now)
                except OpsError as error:
                    missing[environment].append(f"{host}: {error.message}")
            return Reports(self._by_service(since), {name: "; ".join(words) for name, words in missing.items()})

        return wait

    def _remember(
        self,
        environment: str,
        host: str,
        since: datetime,
        first: datetime,
        exits: Sequence[ContainerExit],
        now: datetime,
    ) -> None:
        known = self._hosts.setdefault((environment, host), _Host(first, now))
        known.since, known.until = min(known.since, first), now
        oldest = max(since, now - REMEMBERED)
        kept = [exit_ for exit_ in known.exits if exit_.at >= oldest]
        for exit_ in exits:
            place = next((n for n, old in enumerate(kept) if _same(old, exit_)), None)
            if place is None:
                kept.append(exit_)
            elif exit_.wanted or exit_.oom_killed:  # learnt later: keep the first one's time, which the judges know
                kept[place] = _with(kept[place], exit_)
        known.exits = sorted(kept, key=lambda exit_: exit_.at)

    def _by_service(self, since: Mapping[str, datetime]) -> dict[tuple[str, str], list[ContainerExit]]:
        found: defaultdict[tuple[str, str], list[ContainerExit]] = defaultdict(list)
        for (environment, _), known in self._hosts.items():
            if environment in since:
                for exit_ in known.exits:
                    found[environment, exit_.service].append(exit_)
        return {target: sorted(exits, key=lambda exit_: exit_.at) for target, exits in found.items()}


def _same(one: ContainerExit, other: ContainerExit) -> bool:
    return one.container == other.container and abs(one.at - other.at) < SAME


def _with(old: ContainerExit, new: ContainerExit) -> ContainerExit:
    return replace(old, wanted=old.wanted or new.wanted, oom_killed=old.oom_killed or new.oom_killed)
