"""Verdicts in one plain sentence, with the numbers in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log

from ops_pipeline.core.judgement.verdict import MetricEvidence


@dataclass(frozen=True)
class Spell:
    """The time in which a release was bad: its last `seconds`, with the counts of both sides."""

    seconds: float
    bad: int
    total: int
    stable_bad: int
    stable_total: int


def bad_spell(rows: Sequence[tuple[float, int, int, int, int]], threshold: float) -> Spell:
    """The end of recorded rows (seconds, bad, total, stable's bad, stable's total) that speaks most against the share.

    Without it, a release that turns bad late would be blamed with a share that looks healthy.
    """
    weight = best = 0.0
    start = len(rows)
    for index in range(len(rows) - 1, -1, -1):
        _, bad, total, _, _ = rows[index]
        weight += log(1 + 0.2 * (bad / total / threshold - 1)) if total else 0.0
        if weight > best:
            best, start = weight, index
    chosen = rows[start:] or rows
    return Spell(
        sum(row[0] for row in chosen),
        sum(row[1] for row in chosen),
        sum(row[2] for row in chosen),
        sum(row[3] for row in chosen),
        sum(row[4] for row in chosen),
    )


def percent(share: float) -> str:
    """A share with one decimal."""
    return f"{100 * share:.1f} %"


def did(name: str, p95_seconds: float) -> str:
    """What the bad requests of a metric did."""
    return "failed" if name == "errors" else f"took longer than {p95_seconds:g} s"


def bad_sentence(evidence: MetricEvidence, spell: Spell, p95_seconds: float) -> str:
    """27 of 270 requests failed (10.0 %, at least 6.2 % with 95 % certainty), threshold 5 %; stable 0 of 812."""
    share = spell.bad / spell.total if spell.total else 0.0
    certain = f", at least {percent(evidence.at_least)} with 95 % certainty" if evidence.at_least else ""
    whole = spell.total >= 0.8 * evidence.total
    which = "requests" if whole else f"requests of the last {spell.seconds:.0f} s"
    text = (
        f"{spell.bad} of {spell.total} {which} {did(evidence.name, p95_seconds)} ({percent(share)}{certain}), "
        f"threshold {100 * evidence.threshold:g} %"
    )
    if not whole:
        text += f"; {evidence.bad} of {evidence.total} since it began"
    stable = f"stable {spell.stable_bad} of {spell.stable_total}"
    return f"{text}; {stable if spell.stable_total else 'stable served nothing to compare with'}"


def counts_sentence(metrics: Sequence[MetricEvidence], p95_seconds: float) -> str:
    """3 of 150 requests failed (2.0 %), 0 of 90 took longer than 2 s (0.0 %)."""
    parts: list[str] = []
    for metric in metrics:
        if metric.name != "crashes" and (metric.total or not parts):
            noun = "" if parts else "requests "
            words = did(metric.name, p95_seconds)
            parts.append(f"{metric.bad} of {metric.total} {noun}{words} ({percent(metric.share)})")
    return ", ".join(parts)
