"""A verdict as people read it: the sentence, the numbers of each metric, and where to look further."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from rich.console import Console
from rich.table import Table

from ops_pipeline.cli.output import ago, escaped, said, table
from ops_pipeline.core.judgement.account import GOOD_LEVEL, HALF_LEVELS, THRESHOLD_LEVEL, WORSE_LEVEL
from ops_pipeline.core.judgement.verdict import MetricEvidence, Outcome, Verdict

COLOURS = {Outcome.PASS: "green", Outcome.FAIL: "red", Outcome.INCONCLUSIVE: "yellow", Outcome.BLIND: "yellow"}
MEANINGS = (
    ">T/2: evidence for a share above half the threshold T, of what a FAIL needs;",
    f">T, worse: above T, above stable's; a FAIL needs {THRESHOLD_LEVEL:g} and {WORSE_LEVEL:g}",
)
GOOD = f"good: evidence that it is below T; a PASS needs {GOOD_LEVEL:g}"
TRUE = "true: the smallest share that the evidence leaves possible"


def show_verdict(console: Console, label: str, verdict: Verdict, now: datetime, *, link: str = "") -> None:
    """Print a verdict on `label` («prod/api #7»), with its evidence."""
    colour = COLOURS[verdict.outcome]
    against = f", against #{verdict.stable}" if verdict.stable is not None else ", with nothing to compare with"
    unit = f", units of {verdict.unit_seconds:g} s" if verdict.unit_seconds else ""
    judged = (
        f"judged from {verdict.since:%H:%M:%S} to {verdict.at:%H:%M:%S} UTC ({ago(verdict.at, now)} ago){unit}{against}"
    )
    console.print(f"{escaped(label)}: [{colour}]{verdict.outcome}[/{colour}]")
    said(console, verdict.reason, first="  ")
    if verdict.incident:
        said(console, "the environment itself is bad: nothing is rolled back, somebody has to look", first="  ")
    said(console, judged, first="  ")
    if verdict.metrics:
        console.print(evidence_table(verdict))
        for line in (*MEANINGS, TRUE if verdict.outcome is Outcome.FAIL else GOOD):
            console.print(f"  [dim]{line}[/dim]")
    for query in dict.fromkeys(one.query for one in verdict.metrics if one.query):
        console.print(f"  query: {query}", markup=False)
    if link:
        console.print(f"  graph: {link}", markup=False)


def evidence_table(verdict: Verdict) -> Table:
    """One line per metric. Fits 80 columns."""
    bad = verdict.outcome is Outcome.FAIL
    shown = table("metric", "bad/all", "share", "T", ">T/2", ">T", "worse", "true" if bad else "good", "stable")
    for one in verdict.metrics:
        true = f"≥{percent(one.at_least)}" if one.at_least else ""
        good = number(one.good) if one.name != "crashes" else ""
        shown.add_row(
            one.name,
            f"{one.bad}/{one.total}",
            percent(one.share),
            percent(one.threshold),
            f"{number(one.against_half)}/{number(HALF_LEVELS.get(one.name, 0.0))}",
            number(one.against_threshold),
            number(one.worse) if one.stable_total else "",
            true if bad else good,
            f"{one.stable_bad}/{one.stable_total}" if one.stable_total else "",
        )
    return shown


def one_line(verdict: Verdict) -> str:
    """What a verdict rests on so far, in one line: requests, shares, and how near a FAIL is."""
    return ", ".join(_short(verdict)) or verdict.reason


def _short(verdict: Verdict) -> Iterator[str]:
    first = next((one for one in verdict.metrics if one.name == "errors"), None)
    if first is not None:
        yield f"{first.total:,} requests"
        yield f"{percent(first.share)} errors"
    for one in verdict.metrics:
        if one is not first and one.bad:
            yield f"{percent(one.share)} {one.name}"
    worst = max(verdict.metrics, key=_nearness, default=None)
    if worst is not None:
        yield f"evidence {number(worst.against_half)} of {number(HALF_LEVELS.get(worst.name, 0.0))}"


def _nearness(one: MetricEvidence) -> float:
    return one.against_half / HALF_LEVELS.get(one.name, 1.0)


def percent(share: float) -> str:
    """A share, as short as its size allows."""
    value = 100 * share
    return (
        f"{value:.0f} %" if value >= 10 or value == round(value) else f"{value:.1f} %" if value >= 1 else _small(value)
    )


def _small(value: float) -> str:
    return f"{value:.2g} %"


def number(value: float) -> str:
    """An amount of evidence: three digits are plenty."""
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")):
        if value >= size:
            scaled = value / (1e3 if unit == "k" else size)
            return f"{scaled:.3g}{unit}"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}" if value >= 0.001 else "0"
