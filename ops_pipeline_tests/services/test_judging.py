"""Judging: one door to the judges, whatever the source and the engines do."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ops_pipeline.core.judgement.verdict import Outcome, Thresholds, Verdict
from ops_pipeline.core.measurement import Counted, Metric
from ops_pipeline.core.rollout import Rollout
from ops_pipeline.ports import Clock, ContainerSpec
from ops_pipeline.services.judging import Case, Judging, requests_per_second
from ops_pipeline_tests.fakes.clock import FakeClock
from ops_pipeline_tests.fakes.platform import Bed, catalogue
from ops_pipeline_tests.fakes.runtime import Behaviour


class Scene:
    """Release 7 beside release 6 of prod/api, each getting `rate` requests a second on each of the hosts."""

    def __init__(self, rate: float = 20, *, errors: float = 0.0, slow: float = 0.0, stable_errors: float = 0.0) -> None:
        self.bed = Bed()
        self.clock, self.metrics = self.bed.clock, self.bed.metrics
        self.clock.advance(0.3)  # off the scrapes' grid
        self.serve(6, rate, errors=stable_errors)
        self.clock.advance(30)
        self.serve(7, rate, errors=errors, slow=slow)
        self.case = case(self.clock)
        self.judging = Judging(self.bed.platform())

    def serve(self, release: int, rate: float, *, errors: float = 0.0, slow: float = 0.0) -> None:
        for host in ("h1", "h2"):
            self.metrics.serve("prod", "api", release, rate / 2, errors=errors, slow=slow, instance=host)

    def look(self, after: float = 0.0) -> Verdict:
        self.clock.advance(after)
        return self.judging.look([self.case])[self.case]

    def until(self, outcome: Outcome, seconds: float, every: float = 1.0) -> float:
        """Look until an outcome comes; return the seconds that took."""
        began = self.clock.monotonic()
        while self.look(every).outcome is not outcome:
            assert self.clock.monotonic() - began < seconds, self.look()
        return self.clock.monotonic() - began


def case(clock: Clock, release: int = 7, service: str = "api", **changes: object) -> Case:
    made = Case("prod", service, release, release - 1, Rollout(), 2, clock.now())
    return replace(made, **changes)  # type: ignore[arg-type]


# --------------------------------------------------------------------------------------------- what is measured


def test_a_good_release_passes_and_the_evidence_says_where_the_numbers_are() -> None:
    scene = Scene()
    took = scene.until(Outcome.PASS, 150)
    verdict = scene.look()
    errors, slow, _ = verdict.metrics
    assert took >= 60 and errors.bad == 0 and errors.total >= 1000 and errors.stable_total >= 1000
    assert errors.query == scene.metrics.expression(Metric(Counted.ERRORS), "prod", "api", 7)
    assert slow.query == scene.metrics.expression(Metric(Counted.WITHIN, 2.0), "prod", "api", 7)
    assert "prod/api/7" in verdict.link and verdict.release == 7 and verdict.stable == 6


@pytest.mark.parametrize(("errors", "within"), [(0.10, 35), (0.5, 12), (1.0, 9)])
def test_a_bad_release_fails_soon(errors: float, within: float) -> None:
    assert Scene(errors=errors).until(Outcome.FAIL, within) <= within


def test_a_slow_release_fails_on_latency() -> None:
    scene = Scene(slow=0.5)
    scene.until(Outcome.FAIL, 90)
    assert scene.look().metrics[1].bad > 0 and scene.look().metrics[0].bad == 0


def test_when_both_are_bad_it_is_the_environment() -> None:
    scene = Scene(errors=0.3, stable_errors=0.3)
    for _ in range(60):
        verdict = scene.look(1)
        assert verdict.outcome is not Outcome.FAIL
    assert verdict.incident


@given(
    st.lists(st.floats(0.2, 40), min_size=1, max_size=25),
    st.floats(0, 0.3),
    st.sampled_from([3, 20, 120]),
    st.integers(0, 40),
)
@settings(max_examples=40)
def test_however_slow_and_uneven_the_looks_nothing_is_missed_and_a_new_judge_says_the_same(
    pauses: list[float], errors: float, rate: int, restart: int
) -> None:
    scene = Scene(rate, errors=errors)
    for number, pause in enumerate(pauses):
        if number == restart:
            scene.metrics.restart("h1")
        verdict = scene.look(pause)
    again = Judging(scene.bed.platform()).look([scene.case])[scene.case]
    assert (again.outcome, again.metrics) == (verdict.outcome, verdict.metrics)


def test_a_release_judged_from_the_past_is_replayed_in_bounded_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ops_pipeline.services.judging.CHUNK_SAMPLES", 400)
    scene = Scene()
    scene.clock.advance(400)
    verdict = scene.look()
    assert verdict.outcome is Outcome.PASS
    windows = [seconds for _, seconds, _ in scene.metrics.queries]
    assert max(windows) <= 101 and len(windows) == 3 * 5
    whole = Judging(scene.bed.platform())
    monkeypatch.undo()
    assert whole.look([scene.case])[scene.case].metrics == verdict.metrics


def test_a_long_past_is_replayed_over_several_looks_and_no_pass_comes_before_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ops_pipeline.services.judging.CHUNK_SAMPLES", 400)
    scene = Scene()
    scene.clock.advance(1000)
    platform = replace(scene.bed.platform(), clock=Ticking(scene.clock, 1.4))
    judging, outcomes = Judging(platform), []
    for _ in range(20):
        verdict = judging.look([scene.case])[scene.case]
        outcomes.append(verdict.outcome)
        if verdict.outcome is Outcome.PASS:
            break
        assert "still being replayed" in verdict.reason
    assert 2 < len(outcomes) < 10 and set(outcomes[:-1]) == {Outcome.INCONCLUSIVE}


class Ticking(Clock):
    """A clock whose monotonic time goes on with every reading, as work takes time."""

    def __init__(self, true: FakeClock, step: float) -> None:
        self._true, self._step, self._read = true, step, 0.0

    def now(self) -> datetime:
        return self._true.now()

    def monotonic(self) -> float:
        self._read += self._step
        return self._read

    def sleep(self, seconds: float) -> None:
        self._true.sleep(seconds)


# --------------------------------------------------------------------------------------------- one look for all


def test_a_look_costs_three_queries_for_any_number_of_cases_and_thresholds() -> None:
    services = {
        f"s{number}": {"build": {"context": "x"}, "port": 80, "route": {"path": f"/{number}"}} for number in range(40)
    }
    bed = Bed(catalogue(services=services, environments=_environments()))
    cases = []
    for environment in ("dev", "prod"):
        for number in range(40):
            bed.metrics.serve(environment, f"s{number}", 7, 5, errors=0.5 if number == 3 else 0.0)
            limit = Thresholds(p95_seconds=(0.5, 1.0, 2.0)[number % 3])
            cases.append(Case(environment, f"s{number}", 7, None, Rollout(thresholds=limit), 1, bed.clock.now()))
    judging = Judging(bed.platform())
    for _ in range(20):
        bed.clock.advance(2)
        bed.metrics.queries.clear()
        verdicts = judging.look(cases)
        assert len(bed.metrics.queries) == 3
        assert all(seconds < 12 for _, seconds, _ in bed.metrics.queries)
    failed = {(case.environment, case.service) for case, v in verdicts.items() if v.outcome is Outcome.FAIL}
    assert failed == {("dev", "s3"), ("prod", "s3")}
    calls = [runtime.calls.count("exits") for runtimes in bed.runtimes.values() for runtime in runtimes]
    assert calls == [20] * len(calls)


def test_an_idle_look_asks_nobody() -> None:
    scene = Scene()
    assert scene.judging.look([]) == {}
    assert scene.metrics.queries == [] and "exits" not in scene.bed.runtimes["prod"][0].calls


def test_a_new_case_among_old_ones_does_not_make_their_windows_long() -> None:
    scene = Scene()
    scene.bed.metrics.serve("prod", "web", 3, 5)
    late = case(scene.clock, 3, "web", stable=None)
    for _ in range(60):
        scene.look(1)
    scene.metrics.queries.clear()
    verdicts = scene.judging.look([scene.case, late])
    assert len(verdicts) == 2 and 270 <= verdicts[late].metrics[0].total <= 300
    assert [(seconds > 20, targets) for _, seconds, targets in scene.metrics.queries] == [
        *[(True, (("prod", "web"),))] * 3,
        *[(False, (("prod", "api"), ("prod", "web")))] * 3,
    ]


def test_cases_not_asked_about_are_forgotten() -> None:
    scene = Scene()
    scene.look(5)
    scene.judging.look([])
    scene.metrics.queries.clear()
    verdict = scene.look(30)
    assert verdict.metrics[0].total > 500  # counted again from the start


# --------------------------------------------------------------------------------------------- the source fails


def test_prometheus_down_is_blind_says_so_and_resumes_by_itself() -> None:
    scene = Scene(errors=0.0)
    scene.look(10)
    scene.metrics.down = "connection refused"
    for _ in range(30):
        verdict = scene.look(1)
        assert verdict.outcome is Outcome.BLIND and "connection refused" in verdict.reason
    scene.metrics.down = ""
    verdict = scene.look(1)
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert verdict.metrics[0].total >= 20 * 38  # what was scraped meanwhile counts


def test_a_release_that_turned_bad_while_nobody_could_look_fails_at_the_first_look() -> None:
    scene = Scene()
    scene.look(10)
    scene.metrics.down = "no answer in time"
    scene.serve(7, 20, errors=0.5)
    assert scene.look(60).outcome is Outcome.BLIND
    scene.metrics.down = ""
    assert scene.look(1).outcome is Outcome.FAIL


@pytest.mark.parametrize("how", ["empty", "nothing is scraped", "one of two hosts is not scraped", "never any series"])
def test_lack_of_data_is_never_a_verdict(how: str) -> None:
    scene = Scene(errors=0.02)
    if how != "never any series":
        scene.look(10)
    match how:
        case "empty" | "never any series":
            scene.metrics.empty = True
        case "nothing is scraped":
            scene.metrics.pause()
        case _:
            scene.metrics.pause("h2")
    outcomes = [scene.look(1).outcome for _ in range(40)]
    if how == "one of two hosts is not scraped":
        assert set(outcomes) <= {Outcome.INCONCLUSIVE, Outcome.BLIND}
    else:
        assert set(outcomes[8:]) == {Outcome.BLIND}, outcomes
        assert scene.look().reason
    scene.metrics.empty = False
    scene.metrics.resume()
    scene.clock.advance(2)
    assert scene.look(1).outcome is not Outcome.BLIND
    assert Outcome.FAIL not in outcomes and Outcome.PASS not in outcomes[:8]


def test_a_limit_of_latency_that_is_no_boundary_is_named() -> None:
    scene = Scene()
    scene.case = replace(scene.case, rollout=Rollout(thresholds=Thresholds(p95_seconds=1.7)))
    right = case(scene.clock)
    verdicts = scene.judging.look([scene.case, right])
    scene.clock.advance(8)
    verdicts = scene.judging.look([scene.case, right])
    assert verdicts[scene.case].outcome is Outcome.BLIND
    assert "no boundary at 1.7 s; it has" in verdicts[scene.case].reason
    assert verdicts[right].outcome is Outcome.INCONCLUSIVE


def test_our_clock_behind_the_source_loses_no_counts() -> None:
    scene = Scene(errors=0.5)
    behind = Behind(scene.clock, timedelta(seconds=3))
    judging = Judging(replace(scene.bed.platform(), clock=behind))
    mine = replace(scene.case, since=behind.now())
    for _ in range(20):
        scene.clock.advance(1)
        verdict = judging.look([mine])[mine]
    assert verdict.outcome is Outcome.FAIL


class Behind(Clock):
    def __init__(self, true: FakeClock, by: timedelta) -> None:
        self._true, self._by = true, by

    def now(self) -> datetime:
        return self._true.now() - self._by

    def monotonic(self) -> float:
        return self._true.monotonic()

    def sleep(self, seconds: float) -> None:
        self._true.sleep(seconds)


# --------------------------------------------------------------------------------------------- the engines


def boxed(scene: Scene, host: int = 0, release: int = 7) -> str:
    """A running container of the release; its name."""
    runtime, name = scene.bed.runtimes["prod"][host], f"ops-prod-api-{release}-{host}"
    runtime.images["x@sha256:1"] = Behaviour()
    runtime.present.add("x@sha256:1")
    runtime.networks["net"] = "10.9.5.0/24"
    labels = {"ops.environment": "prod", "ops.service": "api", "ops.release": str(release)}
    runtime.start(runtime.create(ContainerSpec(name, "x@sha256:1", labels, "net", f"10.9.5.{10 + host + release}")))
    return name


def test_a_crash_in_the_first_minute_fails_within_one_look() -> None:
    scene = Scene()
    name = boxed(scene)
    scene.look(10)
    scene.bed.runtimes["prod"][0].crash(name, 3)
    verdict = scene.look(1)
    assert verdict.outcome is Outcome.FAIL and name in verdict.reason and "code 3" in verdict.reason


def test_a_crash_counts_also_while_prometheus_is_away() -> None:
    scene = Scene()
    name = boxed(scene)
    scene.look(10)
    scene.metrics.down = "connection refused"
    assert scene.look(1).outcome is Outcome.BLIND
    scene.bed.runtimes["prod"][0].crash(name, oom_killed=True)
    verdict = scene.look(1)
    assert verdict.outcome is Outcome.FAIL and "memory" in verdict.reason


def test_stops_by_somebody_and_crashes_of_others_count_nothing() -> None:
    scene = Scene()
    runtime = scene.bed.runtimes["prod"][0]
    for release in (6, 7):
        name = boxed(scene, release=release)
        runtime.stop(runtime.named(name).id, 5)
    other = boxed(scene, 1, 5)
    scene.look(5)
    for _ in range(3):
        scene.bed.runtimes["prod"][1].crash(other)
    scene.until(Outcome.PASS, 150)


def test_an_engine_that_is_away_is_named_and_does_not_make_blind() -> None:
    scene = Scene()
    scene.bed.host_down("prod", "h2")
    for _ in range(120):
        verdict = scene.look(1)
        assert verdict.outcome is Outcome.INCONCLUSIVE and "no crash data from h2" in verdict.reason
    scene.bed.host_up("prod", "h2")
    scene.until(Outcome.PASS, 30)


def test_what_an_engine_tells_after_it_was_away_still_counts() -> None:
    scene = Scene()
    name = boxed(scene, 1)
    scene.look(5)
    scene.bed.host_down("prod", "h2")
    scene.bed.runtimes["prod"][1].crash(name)
    scene.look(30)
    scene.bed.host_up("prod", "h2")
    assert scene.look(30).outcome is Outcome.FAIL


def test_an_exit_told_twice_with_times_that_differ_by_milliseconds_is_one() -> None:
    scene = Scene()
    name = boxed(scene)
    runtime = scene.bed.runtimes["prod"][0]
    scene.look(61)
    runtime.crash(name)
    scene.look(2)
    first = runtime.gone[-1]
    runtime.gone[-1] = replace(first, at=first.at + timedelta(milliseconds=20))
    runtime.gone.append(replace(first, at=first.at + timedelta(milliseconds=40)))
    for _ in range(5):
        assert scene.look(1).outcome is not Outcome.FAIL
    runtime.crash(name)
    assert scene.look(1).outcome is Outcome.FAIL


# --------------------------------------------------------------------------------------------- forecasts


def test_the_rate_of_a_service_is_counted_over_hosts_releases_and_restarts() -> None:
    bed = Bed()
    assert requests_per_second(bed.platform(), "prod", "api") is None
    for host in ("h1", "h2"):
        bed.metrics.serve("prod", "api", 6, 8, instance=host)
        bed.metrics.serve("prod", "web", 6, 1000, instance=host)
    bed.clock.advance(400)
    assert requests_per_second(bed.platform(), "prod", "api") == pytest.approx(16)
    bed.metrics.restart("h1")
    bed.clock.advance(100)
    assert requests_per_second(bed.platform(), "prod", "api") == pytest.approx(16, rel=0.02)
    bed.metrics.down = "gone"
    assert requests_per_second(bed.platform(), "prod", "api") is None


def test_users_follow_the_routing_of_the_edges() -> None:
    """The bed's own traffic, which other tests rely on: half of it to the candidate, whose image fails every tenth."""
    from ops_pipeline.core.routing import Pool, Routing, Server
    from ops_pipeline.services.topology import topology_of

    bed = Bed()
    for runtime, edge in zip(bed.runtimes["prod"], bed.edges["prod"], strict=True):
        pools = {}
        for number, (pool, errors) in enumerate((("a", 0.0), ("b", 0.1))):
            image = f"x@sha256:{number}"
            runtime.images[image] = Behaviour(errors=errors)
            runtime.present.add(image)
            runtime.networks["net"] = "10.9.5.0/24"
            labels = {"ops.release": str(number), "ops.environment": "prod", "ops.service": "api"}
            spec = ContainerSpec(f"c{number}", image, labels, "net", f"10.9.5.{10 + number}")
            runtime.start(runtime.create(spec))
            pools[pool] = Pool(number, (Server(spec.address, 80),))
        edge.ensure(topology_of(bed.catalogue, "prod"))
        edge.apply("api", Routing("a", "b", 50, pools), 1)
    bed.users(40)
    bed.clock.advance(100)
    counted = {
        metric.counted: {
            (key.release, key.track, key.instance): samples[-1].value
            for key, samples in bed.metrics.samples(metric, 200).items()
            if samples[-1].value
        }
        for metric in (Metric(Counted.REQUESTS), Metric(Counted.ERRORS))
    }
    assert counted[Counted.REQUESTS] == {
        (release, track, host): 1000 for release, track in ((0, "stable"), (1, "canary")) for host in ("h1", "h2")
    }
    assert counted[Counted.ERRORS] == {(1, "canary", host): 100 for host in ("h1", "h2")}


def _environments() -> dict[str, object]:
    return {
        "dev": {"hosts": [{"name": "h1"}], "url": "http://127.0.0.1:8081", "subnet": "10.9.4.0/24"},
        "prod": {
            "hosts": [{"name": "h1"}, {"name": "h2"}],
            "url": "http://127.0.0.1:8080",
            "subnet": "10.9.5.0/24",
        },
    }
