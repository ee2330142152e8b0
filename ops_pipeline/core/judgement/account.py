"""The books of one metric of a judged release: every test of judgement on the same units."""

from __future__ import annotations

from ops_pipeline.core.judgement.comparison import Pairing
from ops_pipeline.core.judgement.evidence import Evidence, Good, Worse
from ops_pipeline.core.judgement.verdict import MetricEvidence

HALF_LEVELS = {"errors": 1250.0, "slow": 10_000.0, "crashes": 10_000.0}
"""E(T/2) for a FAIL. 1/1250 + 1/10000 + 1/10000 = 0.1 %: all metrics together roll back at most so many of the releases
that are at or below half of every threshold."""
THRESHOLD_LEVEL = 14.0
"""E(T) for a FAIL: of the releases between half the threshold and the threshold, at most 1/14 = 7.1 % a metric."""
THRESHOLD_FIRST = 0.55
"""E(T)'s money at the first unit. With more left for later, what turns bad late is found in time; see
docs/judgement.md."""
WORSE_LEVEL = 50.0
"""W for a FAIL: of the releases as bad as stable, at most 2 % a metric."""
GOOD_LEVEL = 20.0
STABLE_LEVEL = 20.0
"""Stable's own E(T/2) from which both being bad is the environment's fault."""


class Account:
    """One metric: errors or slow requests. `threshold` is the share from which a release is bad; `query` is shown."""

    def __init__(self, name: str, threshold: float, query: str = "") -> None:
        self.name = name
        self.query = query
        self.threshold = threshold
        self.against_half = Evidence(threshold / 2)
        self.against_threshold = Evidence(threshold, THRESHOLD_FIRST)
        self._pairing = Pairing()
        self.good = Good(threshold)
        self.stable_half = Evidence(threshold / 2)
        self.stable_bad = 0
        self.stable_total = 0

    def add(self, bad: int, total: int, stable_bad: int, stable_total: int, pay: float) -> None:
        """Take one unit of both sides with its fresh money."""
        self.against_half.add(bad, total, pay)
        self.against_threshold.add(bad, total, pay)
        self.stable_half.add(stable_bad, stable_total, pay)
        self._pairing.add(bad, total, stable_bad, stable_total)
        self.good.add(bad, total)
        self.stable_bad += stable_bad
        self.stable_total += stable_total

    @property
    def worse(self) -> Worse:
        """The comparison with stable."""
        return self._pairing.worse

    @property
    def suspected(self) -> bool:
        """One of the two levels of a FAIL is reached."""
        return self.against_half.value >= HALF_LEVELS[self.name] or self.against_threshold.value >= THRESHOLD_LEVEL

    @property
    def reached(self) -> bool:
        """Both levels of a FAIL are reached; what is open is whether stable does likewise."""
        return self.against_half.value >= HALF_LEVELS[self.name] and self.against_threshold.value >= THRESHOLD_LEVEL

    def evidence(self, at_least: float = 0.0) -> MetricEvidence:
        """The numbers now. `at_least` is worked out from the stored units, because that costs milliseconds."""
        half = self.against_half.value
        return MetricEvidence(
            name=self.name,
            threshold=self.threshold,
            bad=self.good.bad,
            total=self.good.total,
            units=self.good.units,
            against_half=half,
            against_threshold=self.against_threshold.value,
            worse=self.worse.value,
            good=self.good.value,
            p_value=min(1.0, 1 / half) if half > 0 else 1.0,
            at_least=at_least,
            stable_bad=self.stable_bad,
            stable_total=self.stable_total,
            stable_against_half=self.stable_half.value,
            query=self.query,
        )
