"""What is judged, and deciding about it: status, verdict, resume, abort, replay, and what following a canary shows."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ops_pipeline.cli.app import project
from ops_pipeline.cli.canary import Standing, show_taken_back, standing_words, taken_back
from ops_pipeline.cli.evidence import number, percent, show_verdict
from ops_pipeline.core.judgement.verdict import MetricEvidence, Outcome, Verdict
from ops_pipeline.core.release import Phase
from ops_pipeline.errors import BadInput, NotFound, RolledBack
from ops_pipeline.services.deploy import deploy
from ops_pipeline.services.judged import Judged
from ops_pipeline.services.ledger import releases
from ops_pipeline_tests.cli.typing_ops import data, ops, refusal, said, shown, terminal, use
from ops_pipeline_tests.fakes.platform import Bed, quiet
from ops_pipeline_tests.fakes.runtime import Behaviour
from ops_pipeline_tests.services.test_strategies import QUICK, Story, bed_with, roll_out

NOW = datetime(2026, 11, 21, 10, 15, 32, tzinfo=UTC)
PAUSED = ({"weight": 10, "pause": True}, {"weight": 100})
QUERY = 'ops_edge_request_errors_total{environment="prod",service="api",release="7"}'

FAIL = Verdict(
    outcome=Outcome.FAIL,
    reason="34 of 310 requests failed (11.0 %, at least 6.2 % with 95 % certainty), threshold 5 %; stable 2 of 2810",
    at=NOW,
    since=NOW - timedelta(seconds=42),
    release=7,
    stable=6,
    unit_seconds=2.0,
    metrics=(
        MetricEvidence("errors", 0.05, 34, 310, 21, 126922.0, 150.957, 27.7, 0.001, 8e-6, 0.062, 2, 2810, 1.0, QUERY),
        MetricEvidence("slow", 0.05, 3, 310, 21, 0.34, 0.12, 1.2, 14.2, 1.0, 0.0, 20, 2810, 0.2),
        MetricEvidence("crashes", 0.01, 0, 4, 4, 0.98, 0.98, 1.0, 1.0, 1.0, 0.0),
    ),
)


def canary(folder: Path, steps: object = QUICK) -> Bed:
    return use(bed_with(hosts=1, strategy="canary", canary=steps, verify={"seconds": 0}), folder)


def gone_bad(bed: Bed) -> str:
    """Deploy a canary that fails, and return the id of its run."""
    bed.image("2.0.0", Behaviour(errors=0.2))
    with pytest.raises(RolledBack):
        deploy(bed.platform(), "prod", "api", run_id="run-7", progress=quiet)
    return "run-7"


# ------------------------------------------------------------------------------------------------ verdicts


@pytest.mark.parametrize("width", [80, 120])
def test_a_verdict_fits_the_terminal(width: int) -> None:
    screen = terminal(width)
    show_verdict(screen, "prod/api #7", FAIL, NOW + timedelta(minutes=12), link="http://prometheus/graph?g0")
    text = shown(screen)
    for line in text.splitlines():
        assert len(line.rstrip()) <= width or "query:" in line, line
    table = [
        re.split(r"  +", line.strip()) for line in text.splitlines() if re.match(r"metric|errors|slow|crash", line)
    ]
    assert table == [
        ["metric", "bad/all", "share", "T", ">T/2", ">T", "worse", "true", "stable"],
        ["errors", "34/310", "11 %", "5 %", "127k/1250", "151", "27.7", "≥6.2 %", "2/2810"],
        ["slow", "3/310", "0.97 %", "5 %", "0.34/10k", "0.12", "1.2", "20/2810"],
        ["crashes", "0/4", "0 %", "1 %", "0.98/10k", "0.98"],
    ]
    assert "judged from 10:14:50 to 10:15:32 UTC (12 min ago), units of 2 s, against #6" in " ".join(text.split())
    assert QUERY in text and "http://prometheus/graph?g0" in text


@pytest.mark.parametrize(
    ("value", "words"),
    [(0.0, "0"), (0.0004, "0"), (0.31415, "0.314"), (27.69, "27.7"), (1250, "1250"), (126922, "127k"), (1e12, "1T")],
)
def test_evidence_is_short(value: float, words: str) -> None:
    assert number(value) == words


@pytest.mark.parametrize(("share", "words"), [(0, "0 %"), (0.0012, "0.12 %"), (0.062, "6.2 %"), (0.5, "50 %")])
def test_shares_are_short(share: float, words: str) -> None:
    assert percent(share) == words


def test_the_newest_verdict_is_shown_with_its_numbers(tmp_path: Path) -> None:
    bed = canary(tmp_path)
    assert "no release of prod/api was ever judged" in refusal("verdict", "api", "prod").message
    gone_bad(bed)
    text = said("verdict", "api", "prod")
    assert "prod/api #2: FAIL" in text and "requests failed" in text and "graph: http" in text
    document = data("verdict", "api", "prod")
    assert document["outcome"] == "FAIL" and document["release"] == 2 and document["service"] == "api"
    assert {one["name"] for one in document["metrics"]} == {"errors", "slow", "crashes"}
    error = refusal("verdict", "api", "prod", "--release", "1")
    assert isinstance(error, NotFound) and "#1 was never judged" in error.message


# ------------------------------------------------------------------------------------------------ status


def test_status_says_what_is_judged_and_for_how_long(tmp_path: Path) -> None:
    bed = canary(tmp_path)
    assert "prod/api: #1 is watched for 29 min more; no verdict yet" in said("status", "api", "prod")
    seen: list[str] = []

    def during(seconds: float) -> None:
        if seconds > 40 and not seen:
            seen.append(said("status", "api", "prod"))

    roll_out(bed, during=during)
    assert "prod/api: #2 has 10 % of the users: INCONCLUSIVE, " in seen[0] and " requests, 0 % errors" in seen[0]
    text = said("status", "api", "prod")
    assert "prod/api: #2 is watched for 30 min more: PASS, " in text
    (judged,) = [one["judged"] for one in data("status", "api", "prod")]
    assert judged["release"] == 2 and judged["left_seconds"] == 1800 and judged["verdict"]["outcome"] == "PASS"
    bed.clock.advance(1801)
    assert data("status", "api", "prod")[0]["judged"] is None


@pytest.mark.parametrize(
    ("standing", "words"),
    [
        (Judged(7, None, None, False, "", None), "#7 is watched for good; no verdict yet"),
        (Judged(7, 10, None, True, "", None), "#7 has 10 % of the users, waits for a person (ops resume, ops abort)"),
        (
            Judged(7, 10, None, False, "", FAIL),
            "#7 has 10 % of the users: FAIL, 310 requests, 11 % errors, 0.97 % slow, evidence 127k of 1250",
        ),
        (Judged(7, 0, None, False, "its users were returned to stable", None), "users were returned to stable"),
    ],
)
def test_how_a_judged_release_stands_in_one_line(standing: Judged, words: str) -> None:
    assert words in standing_words(standing)


# ------------------------------------------------------------------------------------------------ resume, abort


def while_paused(bed: Bed, act: Callable[[], None]) -> Story:
    """Roll a canary out; act once it waits for a person."""
    done: list[bool] = []

    def during(seconds: float) -> None:
        if not done and seconds > 80 and "waits for a person" in said("status", "api", "prod"):
            done.append(True)
            act()

    story = roll_out(bed, during=during)
    assert done
    return story


def test_a_person_lets_a_canary_go_on(tmp_path: Path) -> None:
    bed = canary(tmp_path, PAUSED)

    def resume() -> None:
        before = sorted(info.key for info in bed.store.list(""))
        assert "would be told that it goes on" in said("resume", "api", "prod", "--dry-run")
        assert sorted(info.key for info in bed.store.list("")) == before
        text = said("resume", "api", "prod", "--why", "looks fine")
        assert "prod/api #2 (2.0.0), step 1 at 10 %: it goes on" in text

    story = while_paused(bed, resume)
    assert story.release is not None and story.release.phase is Phase.LIVE
    assert any("looks fine" in line for line in story.lines)


def test_a_person_takes_a_canary_away_and_it_is_not_blamed(tmp_path: Path) -> None:
    bed = canary(tmp_path, PAUSED)

    def abort() -> None:
        document = data("abort", "api", "prod", "--why", "wrong button")
        assert (document["go"], document["step"], document["paused"], document["dry_run"]) == (False, 0, True, False)

    story = while_paused(bed, abort)
    assert story.error is not None and not isinstance(story.error, RolledBack)
    assert "wrong button" in story.error.message
    assert "nothing is in quarantine" in said("quarantine", "list")


def test_there_is_nothing_to_decide_about(tmp_path: Path) -> None:
    bed = canary(tmp_path)
    for command in ("resume", "abort"):
        error = refusal(command, "api", "prod")
        assert isinstance(error, NotFound) and "nothing is being released (#1 is live)" in error.message
    assert "nothing was ever deployed" in refusal("resume", "web", "prod").message
    seen: list[str] = []

    def during(seconds: float) -> None:
        if seconds > 5 and not seen:
            seen.append(refusal("resume", "api", "prod").message)

    roll_out(bed, during=during)
    assert "does not wait for a person: step 1 of 3, at 10 %, goes on by its verdict alone" in seen[0]


# ------------------------------------------------------------------------------------------------ following


def test_a_rollback_is_told_with_its_evidence_and_where_to_look(tmp_path: Path) -> None:
    bed = canary(tmp_path)
    run = gone_bad(bed)
    found = taken_back(project, run)
    assert found is not None and found.release.number == 2
    screen = terminal(120)
    show_taken_back(screen, project, found, "http://127.0.0.1:3000/runs/7")
    text = shown(screen)
    for words in (
        "prod/api #2: FAIL",
        "requests failed",
        ">T/2",
        "graph: http://prometheus.example",
        "run: http://127.0.0.1:3000/runs/7",
        "again: ops verdict api prod --release 2",
        "quarantine: ops quarantine list",
    ):
        assert words in text, text
    assert taken_back(project, "another") is None
    bed.store.write(f"releases/prod/api/{releases(bed.store, 'prod', 'api')[0].timestamp}/manifest.json", b"{")
    assert taken_back(project, run) is None, "a ledger that cannot be read takes nothing away from the error itself"


def test_the_standing_of_a_canary_is_read_beside_its_run(tmp_path: Path) -> None:
    bed = canary(tmp_path)
    seen: list[str] = []
    with Standing(project, "prod", "api", every_seconds=0.01) as standing:

        def during(seconds: float) -> None:
            if seconds > 40 and not seen:
                seen.append(standing.now() or "")

        roll_out(bed, during=during)
    assert "#2 has 10 % of the users: INCONCLUSIVE, " in seen[0]


# ------------------------------------------------------------------------------------------------ replay


def test_a_replay_reads_like_a_history(tmp_path: Path) -> None:
    bed = canary(tmp_path)
    gone_bad(bed)
    bed.image("3.0.0")
    deploy(bed.platform(), "prod", "api", progress=quiet)
    text = said("replay", "api", "prod", "--since", "2026-11-01", "--thresholds", "error_rate=0.5")
    lines = text.splitlines()
    assert lines[0].endswith("judged by errors 50 % (changed), p95 2 s, crashes 1 %")
    assert re.fullmatch(r"#3 3\.0\.0, 2026-11-21 10:\d\d:\d\d UTC, live", lines[1]) and lines[2] == "  nothing"
    assert lines[3].endswith("rolled back by its verdict after 10 s")
    assert lines[4].startswith("  nothing until then (evidence ")
    assert lines[-1] == "would have ended otherwise: #2"
    document = data("replay", "api", "prod", "--since", "2026-11-01")
    assert [(one["release"], one["rolled_back"]) for one in document["releases"]] == [(3, False), (2, True), (1, False)]
    assert document["thresholds"] == document["catalogue"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--since", "yesterday"), ["--since: `yesterday` is neither a time"]),
        (("--since", "2099-01-01"), ["--since: `2099-01-01` has not come yet"]),
        (
            ("--since", "x", "--thresholds", "error=1,p95_seconds=fast,crash_rate"),
            ["--since", "`error=1` is not one of", "p95_seconds: `fast` is not a number", "`crash_rate` is not one of"],
        ),
        (("--thresholds", "error_rate=0.1,error_rate=0.2"), ["error_rate stands there twice"]),
        (("--thresholds", "error_rate=5,p95_seconds=3"), ["5 is not a share", "3 s was not counted at the edge"]),
    ],
)
def test_bad_arguments_of_a_replay_are_all_named(tmp_path: Path, arguments: tuple[str, ...], words: list[str]) -> None:
    canary(tmp_path)
    error = refusal("replay", "api", "prod", *arguments)
    assert isinstance(error, BadInput)
    for word in words:
        assert word in str(error)


def test_reading_changes_nothing(tmp_path: Path) -> None:
    bed = canary(tmp_path)
    gone_bad(bed)
    before = {info.key: bed.store.read(info.key) for info in bed.store.list("")}
    for command in ("status", "verdict", "replay", "releases", "plan"):
        assert ops(command, "api", "prod").exit_code in (0, 1), command
    assert {info.key: bed.store.read(info.key) for info in bed.store.list("")} == before


def test_a_verdict_in_words_for_an_incident() -> None:
    screen = terminal(80)
    show_verdict(screen, "prod/api #7", replace(FAIL, outcome=Outcome.INCONCLUSIVE, incident=True, metrics=()), NOW)
    assert "the environment itself is bad" in shown(screen)
