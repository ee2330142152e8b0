"""Verdicts: what is said of which traffic, and what keeps a verdict from being given."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from time import process_time

import pytest

from ops_pipeline.core.judgement.account import HALF_LEVELS
from ops_pipeline.core.judgement.judge import WATCH_SECONDS, Judge, fresh_money
from ops_pipeline.core.judgement.units import Readings
from ops_pipeline.core.judgement.verdict import Outcome, Thresholds, Verdict
from ops_pipeline.core.measurement import ContainerExit, Counted, Sample, SeriesKey
from ops_pipeline.core.rollout import Rollout

SINCE = datetime(2026, 11, 21, 12, tzinfo=UTC)
START = SINCE.timestamp()
Traffic = Callable[[int], tuple[int, int, int]]  # second → requests, failed, slow


def constant(requests: int, failed: int = 0, slow: int = 0) -> Traffic:
    return lambda second: (requests, failed, slow)


def turning(at: int, before: Traffic, after: Traffic) -> Traffic:
    return lambda second: (before if second < at else after)(second)


def key(release: int, host: str = "one") -> SeriesKey:
    return SeriesKey("prod", "api", release, "canary" if release == 2 else "stable", f"{host}:8406")


def judge(stable: int | None = 1, hosts: int = 1, rollout: Rollout | None = None) -> Judge:
    return Judge(rollout or Rollout(), release=2, stable=stable, since=SINCE, replicas=2, hosts=hosts)


def scrapes(seconds: int, release: Traffic, stable: Traffic | None = None, hosts: Sequence[str] = ("one",)) -> Readings:
    """A scrape a second, from three before the start."""
    kinds: tuple[Counted, ...] = (Counted.REQUESTS, Counted.ERRORS, Counted.WITHIN)
    result: dict[Counted, dict[SeriesKey, tuple[Sample, ...]]] = {kind: {} for kind in kinds}
    for number, traffic in ((2, release), (1, stable)):
        for host in hosts if traffic else ():
            total, rows = [0, 0, 0], []
            for second in range(-3, seconds + 1):
                if second > 0 and traffic:
                    requests, failed, slow = traffic(second)
                    total = [total[0] + requests, total[1] + failed, total[2] + requests - slow]
                rows.append((START + second, tuple(total)))
            for index, kind in enumerate(kinds):
                result[kind][key(number, host)] = tuple(Sample(at, values[index]) for at, values in rows)
    return result


def until(readings: Readings, second: float, back: float = 1e9) -> Readings:
    return {
        kind: {
            k: tuple(s for s in samples if START + second - back <= s.at <= START + second)
            for k, samples in series.items()
        }
        for kind, series in readings.items()
    }


def at(second: float) -> datetime:
    return SINCE + timedelta(seconds=second)


def verdicts(
    seconds: int, release: Traffic, stable: Traffic | None = None, subject: Judge | None = None, every: int = 1
) -> list[Verdict]:
    """One verdict for each look."""
    subject = subject or judge()
    readings = scrapes(seconds, release, stable)
    result = []
    for second in range(every, seconds + 1, every):
        subject.feed(until(readings, second, every + 5), at(second + 0.3))
        subject.crashed([], at(second + 0.3))
        result.append(subject.verdict(at(second + 0.3)))
    return result


def first(outcome: Outcome, found: Sequence[Verdict]) -> float | None:
    return next((round((v.at - SINCE).total_seconds()) for v in found if v.outcome is outcome), None)


@pytest.mark.parametrize(
    ("name", "release", "stable", "fails_at"),
    [
        ("10 % of 10 a second, stable clean", constant(10, 1), constant(10), 16),
        ("10 % in 1 s units", constant(100, 10), constant(100), 8),
        ("half of all", constant(10, 5), constant(90), 6),
        ("all, without stable's traffic", constant(10, 10), None, 6),
        ("half of all, stable served nothing", constant(100, 50), constant(0), 4),
        ("bad after five minutes", turning(301, constant(20), constant(20, 4)), None, 320),
        ("bad after five minutes, 1 s units", turning(301, constant(100), constant(100, 10)), None, 320),
        ("2 %", constant(100, 2), constant(100), None),
        ("as bad as stable", constant(10, 3), constant(10, 3), None),
        ("no traffic", constant(0), constant(100), None),
    ],
)
def test_when_a_release_fails(name: str, release: Traffic, stable: Traffic | None, fails_at: int | None) -> None:
    found = verdicts(340, release, stable)
    seen = first(Outcome.FAIL, found)
    assert (seen is None) is (fails_at is None), found[-1].reason
    if seen is not None and fails_at is not None:
        assert abs(seen - fails_at) <= 2
        assert {v.outcome for v in found[seen:]} == {Outcome.FAIL}, "a FAIL stays one"


def test_the_reason_is_a_sentence_with_the_numbers() -> None:
    found = verdicts(40, constant(10, 1), constant(30))[-1]
    errors = found.metrics[0]
    share = 100 * errors.at_least
    assert 5 < share < 10
    assert found.reason == (
        f"{errors.bad} of {errors.total} requests failed (10.0 %, at least {share:.1f} % with 95 % certainty), "
        f"threshold 5 %; stable 0 of {errors.stable_total}"
    )
    assert errors.p_value == pytest.approx(1 / errors.against_half)
    assert errors.against_half >= HALF_LEVELS["errors"]


def test_a_release_that_turned_bad_is_told_by_its_bad_time() -> None:
    found = verdicts(340, turning(301, constant(20), constant(20, 4)))[-1]
    assert found.outcome is Outcome.FAIL
    assert "(20.0 %" in found.reason
    assert "requests of the last" in found.reason
    assert "since it began; stable served nothing to compare with" in found.reason


def test_a_healthy_release_passes_after_its_warm_up() -> None:
    found = verdicts(100, constant(10), constant(10))
    assert first(Outcome.PASS, found) == 80
    assert found[-1].outcome is Outcome.PASS
    assert found[-1].reason.startswith("0 of 1000 requests failed (0.0 %), 0 of 400 took longer than 2 s (0.0 %)")


def test_no_pass_before_the_edges_server_timeout_has_passed() -> None:
    subject = judge(rollout=Rollout(server_timeout_seconds=120))
    assert first(Outcome.PASS, verdicts(130, constant(10), constant(10), subject)) == 120


def test_no_pass_on_few_requests() -> None:
    found = verdicts(70, constant(1), constant(10))
    assert "too few requests to show fewer than 5 % failing" in found[-1].reason or found[-1].metrics[0].good >= 20
    assert {v.outcome for v in found} == {Outcome.INCONCLUSIVE}


def test_slow_requests_count_after_the_first_minute_only() -> None:
    found = verdicts(100, constant(20, 0, 6), constant(20))
    seen = first(Outcome.FAIL, found)
    assert seen is not None
    assert 62 < seen <= 76
    assert "took longer than 2 s (30.0 %" in found[-1].reason
    warm = verdicts(100, turning(58, constant(20, 0, 20), constant(20)), constant(20))
    assert first(Outcome.FAIL, warm) is None


def test_both_bad_is_the_environments_fault() -> None:
    found = verdicts(60, constant(10, 3), constant(30, 9))
    assert found[-1].outcome is Outcome.INCONCLUSIVE
    assert found[-1].incident
    assert found[-1].reason.endswith("stable is bad too, so it is the environment")


def test_worse_than_a_bad_stable_still_fails() -> None:
    assert first(Outcome.FAIL, verdicts(60, constant(10, 8), constant(30, 6))) is not None


# ------------------------------------------------------------------------------------------------------- blindness


def test_blind_without_any_measurement_and_not_before_three_ticks() -> None:
    subject = judge()
    assert subject.verdict(at(5)).outcome is Outcome.INCONCLUSIVE
    verdict = subject.verdict(at(30))
    assert verdict.outcome is Outcome.BLIND
    assert verdict.reason == "no measurements of release 2 in the 30 s since it got requests"


def test_blind_when_scrapes_stop_and_well_again_when_they_come_back() -> None:
    subject, readings = judge(), scrapes(200, constant(10), constant(10))
    subject.feed(until(readings, 20), at(20.3))
    assert subject.verdict(at(25)).outcome is Outcome.INCONCLUSIVE
    blind = subject.verdict(at(60))
    assert (blind.outcome, blind.reason) == (Outcome.BLIND, "no measurements of release 2 for 40 s")
    subject.feed(until(readings, 61), at(61.3))
    assert subject.verdict(at(61.3)).outcome is Outcome.INCONCLUSIVE
    assert subject.requests == 600, "what was scraped meanwhile is counted"


@pytest.mark.parametrize("missing", [Counted.ERRORS, Counted.WITHIN])
def test_blind_names_the_counter_that_is_missing(missing: Counted) -> None:
    subject, readings = judge(), dict(scrapes(30, constant(10, 5)))
    readings[missing] = {}
    subject.feed(readings, at(30.3))
    verdict = subject.verdict(at(30.3))
    assert verdict.outcome is Outcome.BLIND
    assert f"no counter of {missing.value}" in verdict.reason


@pytest.mark.parametrize(("there", "hosts", "blind"), [(1, 2, False), (1, 3, True), (2, 3, False), (2, 4, False)])
def test_blind_when_more_than_half_of_the_hosts_are_missing(there: int, hosts: int, blind: bool) -> None:
    subject = judge(hosts=hosts)
    subject.feed(scrapes(30, constant(10), None, [f"h{i}" for i in range(there)]), at(30.3))
    assert (subject.verdict(at(30.3)).outcome is Outcome.BLIND) is blind


def test_what_was_proven_bad_stays_so_when_measurements_stop() -> None:
    subject = judge()
    subject.feed(scrapes(40, constant(10, 5)), at(40.3))
    assert subject.verdict(at(200)).outcome is Outcome.FAIL


# ---------------------------------------------------------------------------------------------- replay, cost, memory


@pytest.mark.parametrize("every", [1, 7, 20])
def test_however_rarely_one_looks_every_unit_is_judged(every: int) -> None:
    """Twenty bad seconds between two looks, then good ones: the levels were reached, so it is a FAIL."""
    traffic = turning(21, constant(10, 5), constant(10))
    assert verdicts(140, traffic, None, every=every)[-1].outcome is Outcome.FAIL


def test_a_judge_made_anew_says_the_same() -> None:
    release, stable = turning(100, constant(12, 1), constant(12, 2)), constant(9)
    live, readings = judge(), scrapes(150, release, stable)
    for second in range(1, 151):
        live.feed(until(readings, second, 9), at(second + 0.3))
    anew = judge()
    anew.feed(readings, at(150.3))
    assert anew.verdict(at(151)) == live.verdict(at(151))
    assert list(anew.units) == list(live.units)


def test_a_feed_of_new_samples_and_a_verdict_cost_little() -> None:
    subject, readings = judge(), scrapes(400, constant(100, 1), constant(100))
    windows = [until(readings, second, 30) for second in range(100, 400)]
    began = process_time()
    for second, window in enumerate(windows, start=100):
        subject.feed(window, at(second + 0.3))
        subject.verdict(at(second + 0.3))
    assert (process_time() - began) / len(windows) < 500e-6, "about 60 µs on an idle machine"


def test_memory_of_a_judge_is_bounded() -> None:
    readings = scrapes(1500, constant(100, 1), constant(100))
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    subject = judge(rollout=Rollout(watch_seconds=None))
    for second in range(0, 1501, 50):
        subject.feed(until(readings, second, 60), at(second + 0.3))
    held = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert subject.requests > 149_000
    assert held < 60_000


@pytest.mark.parametrize("watch", [600.0, 1800.0, 7200.0, None])
def test_fresh_money_adds_up_to_what_is_left(watch: float | None) -> None:
    end = int(max(watch or 0, WATCH_SECONDS)) if watch else 400 * 1800
    paid = sum(fresh_money(second, 2.0, watch) for second in range(0, end, 2))
    assert paid == pytest.approx(0.3, rel=0.01)
    assert fresh_money(0, 2.0, 1800.0) == pytest.approx(0.3 / 900)


# ----------------------------------------------------------------------------------------------------------- crashes


def died(second: float, release: int = 2, *, index: int = 0, oom: bool = False, wanted: bool = False) -> ContainerExit:
    name = f"api-{release}-{index}"
    return ContainerExit("one", name, "prod", "api", release, at(second), 137 if oom else 1, oom, wanted)


@pytest.mark.parametrize(
    ("exits", "fails"),
    [
        ([died(10)], True),
        ([died(59, oom=True)], True),
        ([died(59, oom=True, wanted=True)], True),
        ([died(10, wanted=True)], False),
        ([died(61)], False),
        ([died(100), died(399)], True),
        ([died(100), died(100, index=1)], True),
        ([died(100), died(401)], False),
        ([died(10, 1), died(20, 1)], False),
        ([died(-5)], False),
        ([], False),
    ],
)
def test_hard_rules_of_crashes(exits: list[ContainerExit], fails: bool) -> None:
    subject = judge()
    subject.feed(scrapes(420, constant(10), constant(10)), at(420.3))
    for _ in range(2):  # repeats count once
        subject.crashed(exits, at(420.3))
    verdict = subject.verdict(at(420.3))
    assert (verdict.outcome is Outcome.FAIL) is fails, verdict.reason
    if exits and exits[0].release == 2 and not fails and not exits[0].wanted and exits[0].at > SINCE:
        assert "unwanted container exit" in verdict.reason, "no PASS after a crash"


def test_a_crash_needs_no_measurements() -> None:
    subject = judge()
    subject.crashed([died(3)], at(3.5))
    verdict = subject.verdict(at(3.5))
    assert verdict.outcome is Outcome.FAIL
    assert verdict.reason == (
        "container api-2-0 on one exited by itself with code 1 3 s after the release began to get requests"
    )


def test_crashes_that_hit_stable_too_are_the_environments_fault() -> None:
    subject = judge()
    subject.feed(scrapes(100, constant(10), constant(10)), at(100.3))
    subject.crashed([died(80), died(90), died(80, 1), died(91, 1)], at(100.3))
    verdict = subject.verdict(at(100.3))
    assert (verdict.outcome, verdict.incident) == (Outcome.INCONCLUSIVE, True)


def test_rare_crashes_add_up() -> None:
    """One container of two exits every six minutes: no hard rule, but 8 % of the instance-minutes."""
    subject = judge(rollout=Rollout(watch_seconds=None, thresholds=Thresholds(crash_rate=0.01)))
    exits = [died(90 + 360 * i) for i in range(20)]
    for minute in range(1, 100):
        known = [e for e in exits if e.at <= at(60 * minute)]
        subject.crashed(known, at(60 * minute))
    verdict = subject.verdict(at(6000))
    assert verdict.outcome is Outcome.FAIL
    assert "instance-minutes" in verdict.reason


def test_no_pass_while_an_engine_does_not_say_whether_containers_exited() -> None:
    subject = judge()
    subject.feed(scrapes(100, constant(10), constant(10)), at(100.3))
    subject.crashed(None, at(100.3))
    verdict = subject.verdict(at(100.3))
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "a Docker engine does not say" in verdict.reason
    subject.crashed([], at(100.4))
    assert subject.verdict(at(100.4)).outcome is Outcome.PASS
