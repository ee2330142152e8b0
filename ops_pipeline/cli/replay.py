"""`ops replay`: what other thresholds would have done to past releases."""

from __future__ import annotations

import re
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from ops_pipeline.cli.app import app, project
from ops_pipeline.cli.arguments import AsJson, Environment, Service
from ops_pipeline.cli.evidence import percent
from ops_pipeline.cli.names import check_known
from ops_pipeline.cli.output import err, out, plain, print_json, said
from ops_pipeline.core.judgement.verdict import Thresholds
from ops_pipeline.errors import Problem

AGE = re.compile(r"(\d+(?:\.\d+)?)(min|h|d|w)")
UNITS = {"min": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}


@app.command()
def replay(
    service: Service,
    environment: Environment,
    since: Annotated[
        str, typer.Option("--since", help="How far back: `2026-11-01`, a time in UTC, `12h`, `7d`")
    ] = "7d",
    thresholds: Annotated[
        str,
        typer.Option(
            "--thresholds",
            help="`error_rate=0.03,p95_seconds=1,crash_rate=0.02`, any of them; the catalogue's for the others",
        ),
    ] = "",
    as_json: AsJson = False,
) -> None:
    """What other thresholds would have rolled back, and when.

    Changes nothing. Judges what Prometheus still has of each release by the same rules, with other thresholds.
    Measurements that are gone are said to be gone: no data is never «it would have been fine».
    """
    from ops_pipeline.catalogue.resolve import resolve_rollout
    from ops_pipeline.services.replay import replay as replay_of

    problems: list[Problem] = []
    begin = _since(since, datetime.now(UTC), problems)
    changes = _thresholds(thresholds, problems)
    check_known(project.catalogue, service, environment, problems)
    platform = project.platform
    current = resolve_rollout(platform.catalogue, environment, service).thresholds
    wanted = replace(current, **changes)
    told = (lambda line: None) if as_json else (lambda line: err.print(line, markup=False))
    found = replay_of(platform, environment, service, begin, wanted, progress=told)
    if as_json:
        print_json({"environment": environment, "service": service, "since": begin, "thresholds": plain(wanted),
                    "catalogue": plain(current), "releases": plain(found)})  # fmt: skip
        return
    out.print(f"{environment}/{service} since {begin:%Y-%m-%d %H:%M} UTC, judged by {_words(wanted, current)}",
              markup=False)  # fmt: skip
    if not found:
        out.print("  no release of that time got any traffic")
        return
    for one in found:
        out.print(f"#{one.release} {one.version}, {one.began:%Y-%m-%d %H:%M:%S} UTC, {one.happened}", markup=False)
        said(out, one.sentence, first="  ", indent=4)
    other = [f"#{one.release}" for one in found if one.differs]
    out.print(f"would have ended otherwise: {', '.join(other)}" if other else "nothing would have ended otherwise")


def _since(text: str, now: datetime, problems: list[Problem]) -> datetime:
    age = AGE.fullmatch(text.strip())
    if age:
        return now - timedelta(seconds=float(age[1]) * UNITS[age[2]])
    try:
        found = datetime.fromisoformat(text.strip())
    except ValueError:
        words = f"`{text}` is neither a time (2026-11-01, 2026-11-01T12:00) nor an age (90min, 12h, 7d, 2w)"
        problems.append(Problem("--since", words))
        return now
    found = found.replace(tzinfo=UTC) if found.tzinfo is None else found
    if found > now:
        problems.append(Problem("--since", f"`{text}` has not come yet"))
    return found


def _thresholds(text: str, problems: list[Problem]) -> dict[str, float]:
    known = asdict(Thresholds())
    changes: dict[str, float] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, sign, value = (piece.strip() for piece in part.partition("="))
        if name not in known or not sign:
            words = f"`{part}` is not one of {', '.join(f'{one}=…' for one in known)}"
            problems.append(Problem("--thresholds", words))
            continue
        if name in changes:
            problems.append(Problem("--thresholds", f"{name} stands there twice"))
        try:
            changes[name] = float(value)
        except ValueError:
            problems.append(Problem("--thresholds", f"{name}: `{value}` is not a number"))
    return changes


def _words(wanted: Thresholds, current: Thresholds) -> str:
    """The thresholds, and which of them the catalogue has otherwise."""

    def one(words: str, value: float, now: float, shown: str) -> str:
        return f"{words} {shown}" + ("" if value == now else " (changed)")

    return ", ".join(
        (
            one("errors", wanted.error_rate, current.error_rate, percent(wanted.error_rate)),
            one("p95", wanted.p95_seconds, current.p95_seconds, f"{wanted.p95_seconds:g} s"),
            one("crashes", wanted.crash_rate, current.crash_rate, percent(wanted.crash_rate)),
        )
    )
