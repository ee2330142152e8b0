"""A judge that says what a test wants: the tick is tested apart from the statistics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from ops_pipeline.core.judgement.verdict import MetricEvidence, Outcome, Verdict
from ops_pipeline.services.judging import Case, Judging


@dataclass
class ScriptedJudging(Judging):
    """`says[environment, service]` is the outcome; what is not in it is INCONCLUSIVE. `looks` lists what was asked."""

    now: object
    says: dict[tuple[str, str], Outcome] = field(default_factory=dict)
    incident: bool = False
    looks: list[tuple[Case, ...]] = field(default_factory=list)

    def look(self, cases: Sequence[Case]) -> Mapping[Case, Verdict]:
        self.looks.append(tuple(cases))
        return {case: self._verdict(case) for case in cases}

    def _verdict(self, case: Case) -> Verdict:
        outcome = self.says.get((case.environment, case.service), Outcome.INCONCLUSIVE)
        now = self.now()  # type: ignore[operator]
        assert isinstance(now, datetime)
        bad = 40 if outcome is Outcome.FAIL else 1
        errors = MetricEvidence(
            "errors", 0.05, bad, 400, 20, 5000.0, 50.0, 30.0, 0.1, 0.0002, 0.07, 1, 400, 1.0, "query"
        )
        reason = {
            Outcome.FAIL: f"{bad} of 400 requests failed",
            Outcome.BLIND: "no scrape for 12 s",
            Outcome.PASS: "1 of 400 requests failed, which is below 5 %",
        }.get(outcome, "not enough requests yet")
        metrics = () if outcome is Outcome.BLIND else (errors,)
        return Verdict(outcome, reason, now, case.since, case.release, case.stable, 2.0, self.incident, metrics)
