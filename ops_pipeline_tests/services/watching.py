"""A desk at which the watch is tried: a bed, a judge that says what the test wants, and ticks."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pytest

from ops_pipeline.core.judgement.verdict import Outcome
from ops_pipeline.core.release import Release
from ops_pipeline.services.deploy import deploy
from ops_pipeline.services.journal import read_journal
from ops_pipeline.services.ledger import releases
from ops_pipeline.services.watch import Handled, Memory, tick
from ops_pipeline_tests.fakes.judging import ScriptedJudging
from ops_pipeline_tests.fakes.platform import Bed, Lifeline, catalogue, quiet

API = ("prod", "api")
FLAGS = {"new-cart": {"on": True, "guards": "api"}, "other": {"on": True, "guards": "web"}}


def book(**environment: Any) -> Any:
    document = catalogue().model_dump(mode="json", exclude_unset=True)
    document["environments"]["prod"] |= environment
    return catalogue(**{name: document[name] for name in ("environments", "services")})


class Desk:
    """A bed, a judge that says what the test wants, and ticks."""

    def __init__(self, **environment: Any) -> None:
        self.bed = Bed(book(**environment))
        self.judging = ScriptedJudging(self.bed.clock.now)
        self.memory = Memory()
        self.lines: list[str] = []
        self.delivered: set[str] = set()

    def ship(self, version: str, service: str = "api") -> Release:
        self.bed.image(version, service=service)
        return deploy(self.bed.platform(), "prod", service, progress=quiet)

    def says(self, outcome: Outcome, service: str = "api", *, incident: bool = False) -> None:
        self.judging.says["prod", service] = outcome
        self.judging.incident = incident

    def tick(self, *, lifeline: Lifeline | None = None, delivered: Collection[str] | None = None) -> list[Handled]:
        return list(
            tick(
                self.bed.platform("sensor:1", lifeline=lifeline),
                self.judging,
                delivered=self.delivered if delivered is None else delivered,
                memory=self.memory,
                progress=self.lines.append,
            )
        )

    def only(self) -> Handled:
        (one,) = self.tick()
        return one

    def live(self, service: str = "api") -> int:
        journal = read_journal(self.bed.platform(), "prod", service)
        assert journal.live is not None
        return journal.live.release

    def release(self, number: int, service: str = "api") -> Release:
        return next(one for one in releases(self.bed.store, "prod", service) if one.number == number)


@pytest.fixture
def desk() -> Desk:
    made = Desk()
    made.ship("1.0.0")
    made.bed.clock.advance(3600)
    made.ship("2.0.0")
    return made
