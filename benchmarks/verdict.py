"""Verdicts on simulated releases: how many are rolled back, how soon, beside the rules others use on the same series.

`make bench-verdict` runs 10,000 releases a cell (about ten minutes on two cores); ARGS="--quick" 1,000, as `make bench`
does; ARGS="--json FILE" also writes all figures as they come, one line a cell, and does not repeat what stands there.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from math import isfinite
from pathlib import Path

from benchmarks.verdict_simulation import RULES, Cell, Result, simulate

SHARES = (0.001, 0.01, 0.02, 0.025, 0.04, 0.05, 0.06, 0.08, 0.10, 0.20, 0.50)
TRAFFIC = (0.1, 1.0, 10.0, 100.0)
ERRORS = ("independent", "moderate", "hard")
LONG_WATCH = 3 * 3600.0
"""At 0.1 requests/s only a watch as long as this sees 1,000 requests."""
WALD = 141
"""Requests that any rule with these two levels needs on average at a true 10 % (Wald 1945)."""


def cells() -> list[Cell]:
    """Every combination, then the long watches, then bursts that hit one side only."""
    grid = [
        Cell(share, traffic, errors, stable, late)
        for stable in ("clean", "bad")
        for late in (False, True)
        for errors in ERRORS
        for share in SHARES
        for traffic in TRAFFIC
    ]
    long = [Cell(0.1, 0.1, errors, watch=LONG_WATCH) for errors in ERRORS]
    apart = [Cell(0.1, traffic, errors, "apart") for errors in ERRORS[1:] for traffic in TRAFFIC]
    return grid + long + apart


def timed(cell: Cell) -> bool:
    """Whether a promise is about this cell's median: it is looked at with five times as many releases."""
    usual = cell.traffic in (1.0, 10.0) or cell.watch == LONG_WATCH
    return (cell.share, cell.errors, cell.stable, cell.late) == (0.1, "independent", "clean", False) and usual


def run(task: tuple[int, Cell, int]) -> tuple[int, Result]:
    """One cell, seeded by its place in the list, and that place."""
    seed, cell, releases = task
    return seed, simulate(cell, seed, releases)


def known(path: Path | None, releases: Mapping[int, int]) -> dict[int, Result]:
    """What an earlier run wrote, by seed, as far as it looked at as many releases."""
    found: dict[int, Result] = {}
    if path and path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            seed, cell = row.pop("seed"), Cell(**row.pop("cell"))
            if releases.get(seed) == row["releases"]:
                found[seed] = Result(cell, **row)
    return found


def percent(share: float) -> str:
    """A share in percent, with as many digits as it needs."""
    value = 100 * share
    return "0" if not value else f"{value:.2f}" if value < 1 else f"{value:.1f}" if value < 99.95 else "100"


def number(value: float) -> str:
    """A rounded number, a dash for none."""
    return f"{value:.0f}" if isfinite(value) else "-"


def row(results: Sequence[Result], text: Callable[[Result], str]) -> str:
    """One figure of a row of cells, by traffic."""
    return " / ".join(text(result) for result in results)


def tables(results: Sequence[Result]) -> Iterable[str]:
    """The lines of the tables."""
    grid = {(r.cell.stable, r.cell.late, r.cell.errors, r.cell.share, r.cell.traffic): r for r in results[::-1]}
    yield f"Columns: {' / '.join(f'{traffic:g}' for traffic in TRAFFIC)} requests/s to the release, as many to stable."
    for stable in ("clean", "bad"):
        for late in (False, True):
            for errors in ERRORS:
                begin = "after 5.5 minutes" if late else "from the start"
                yield f"\nStable {'clean' if stable == 'clean' else 'equally bad'}, bad {begin}, errors {errors}"
                yield f"{'true':>6} | {'rolled back within 30 minutes, % of releases':^105} | verdict: s, requests"
                yield f"{'':>6} | " + " | ".join(f"{rule:^24}" for rule in RULES) + " | passed first, %"
                for share in SHARES:
                    cells_ = [grid[stable, late, errors, share, traffic] for traffic in TRAFFIC]
                    shares = [row(cells_, lambda r, rule=rule: percent(r.rolled_back[rule])) for rule in RULES]
                    seconds = row(cells_, lambda r: number(r.seconds["verdict"]))
                    requests = row(cells_, lambda r: number(r.requests["verdict"]))
                    passed = row(cells_, lambda r: percent(r.passed))
                    yield (
                        f"{100 * share:>4g} % | "
                        + " | ".join(f"{text:^24}" for text in shares)
                        + f" | {seconds} s, {requests} | {passed}"
                    )
    yield "\nBursts of its own for each side, both at 10 %: rolled back, % (a limit of the comparison, no promise)"
    for errors in ERRORS[1:]:
        apart = [r for r in results if r.cell.stable == "apart" and r.cell.errors == errors]
        yield f"  {errors}: {row(apart, lambda r: percent(r.rolled_back['verdict']))}"
    yield "\n10 % at 0.1 requests/s, watched for 3 hours: found, %; median s; median requests"
    for result in results:
        if result.cell.watch == LONG_WATCH:
            figures = number(result.seconds["verdict"]), number(result.requests["verdict"])
            yield f"  {result.cell.errors}: {percent(result.rolled_back['verdict'])}; {'; '.join(figures)}"
    strict = [
        r
        for r in results
        if (r.cell.share, r.cell.errors, r.cell.stable, r.cell.late) == (0.1, "independent", "clean", False)
    ]
    yield "\n10 % from the start, independent: found before its 1,000th request, %"
    for result in strict:
        hours = f", watched for {result.cell.watch / 3600:g} h" if result.cell.watch == LONG_WATCH else ""
        yield f"  {result.cell.traffic:g} requests/s{hours}: {percent(result.found_within)}"


def promises(results: Sequence[Result]) -> list[tuple[str, float, bool]]:
    """Each promise with the worst figure of all cells it speaks of, and whether it holds."""
    harmless = max(r.rolled_back["verdict"] for r in results if r.cell.share <= 0.02)
    ten = [r for r in results if r.cell.share == 0.1 and r.cell.stable == "clean"]
    ten = [r for r in ten if r.cell.traffic >= 1 or r.cell.watch == LONG_WATCH]
    found = min(r.found_of_served for r in ten if not r.cell.late)
    late = min(r.found_of_served for r in ten if r.cell.late)
    shared = max(r.rolled_back["verdict"] for r in results if r.cell.stable == "bad")
    needed = max(r.requests["verdict"] for r in results if timed(r.cell))
    limit = 1.8 * WALD
    return [
        (
            f"at most 2 % true errors: rolled back at most 0.1 %, worst {percent(harmless)} %",
            harmless,
            harmless <= 0.001,
        ),
        (
            f"a true 10 % that served 1,000 requests: found at least 99 %, worst {percent(found)} %",
            found,
            found >= 0.99,
        ),
        (f"the same when it turns bad late: found at least 99 %, worst {percent(late)} %", late, late >= 0.99),
        (f"stable equally bad: rolled back at most 2 %, worst {percent(shared)} %", shared, shared <= 0.02),
        (
            f"10 %, up to 10 requests/s: median requests at most {limit:.0f}, worst {needed:.0f}",
            needed,
            needed <= limit,
        ),
    ]


def main(arguments: Sequence[str] = ("--quick",)) -> int:
    """Print the tables and the promises. Return 1 when one is broken."""
    parser = argparse.ArgumentParser(prog="benchmarks.verdict")
    parser.add_argument("--quick", action="store_true", help="1,000 releases a cell instead of 10,000")
    parser.add_argument("--json", type=Path, help="write all figures to this file, go on from it")
    options = parser.parse_args(arguments)
    releases = 1000 if options.quick else 10_000
    began = time.monotonic()
    tasks = [(seed, cell, releases * (5 if timed(cell) else 1)) for seed, cell in enumerate(cells(), start=1)]
    found = known(options.json, {seed: count for seed, _, count in tasks})
    left = [task for task in tasks if task[0] not in found]
    with contextlib.ExitStack() as stack:
        pool = stack.enter_context(multiprocessing.Pool(os.cpu_count()))
        file = stack.enter_context(options.json.open("a", encoding="utf-8")) if options.json else None
        for seed, result in pool.imap_unordered(run, left):
            found[seed] = result
            if file:
                file.write(json.dumps({"seed": seed, **asdict(result)}) + "\n")
                file.flush()
    results = [found[seed] for seed, _, _ in tasks]
    for line in tables(results):
        print(line)
    kept = promises(results)
    print(f"\n{len(tasks)} cells of {releases} releases, {len(left)} of them now in {time.monotonic() - began:.0f} s")
    for text, _, holds in kept:
        print(f"{'kept  ' if holds else 'BROKEN'} {text}")
    return 0 if all(holds for _, _, holds in kept) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
