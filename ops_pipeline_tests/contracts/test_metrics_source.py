"""One suite for every MetricsSource: the one in memory, and a real Prometheus that scrapes a small exporter."""

from __future__ import annotations

import http.server
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Protocol
from urllib.parse import parse_qs, urlsplit

import pytest

from ops_pipeline.adapters.prometheus import DURATION, NAMES, Prometheus
from ops_pipeline.core.measurement import Counted, Metric, Sample, SeriesKey
from ops_pipeline.errors import Permanent, Transient
from ops_pipeline.ports import MetricsSource
from ops_pipeline_tests.fakes.clock import FakeClock
from ops_pipeline_tests.fakes.metrics import FakeMetrics
from ops_pipeline_tests.testbed.prometheus import RunningPrometheus, exporter, prometheus

REQUESTS, ERRORS, WITHIN = Metric(Counted.REQUESTS), Metric(Counted.ERRORS), Metric(Counted.WITHIN, 2.0)
BOUNDS = ("1.0", "2.0", "5.0", "+Inf")  # as the exporter writes them; the one of prod/web writes Go's way
EVERY = 0.5
Values = dict[tuple[str, str, int, str], tuple[float, float, float]]  # series → requests, errors, within 2 s


class Stage(Protocol):
    """A source and what the edges count."""

    source: MetricsSource
    every: float

    def count(self, environment: str, service: str, release: int, requests: int, errors: int, slow: int) -> None:
        """Let a release finish so many requests, and all of it be scraped."""

    def wait(self, seconds: float) -> None:
        """Let time pass."""

    def now(self) -> datetime:
        """The time."""


class MemoryStage:
    every = 1.0

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.source = self.metrics = FakeMetrics(self.clock)

    def count(self, environment: str, service: str, release: int, requests: int, errors: int, slow: int) -> None:
        total = max(requests, 1)
        self.metrics.serve(
            environment, service, release, requests, errors=errors / total, slow=slow / total, instance="edge"
        )
        self.clock.advance(1)
        self.metrics.serve(environment, service, release, 0, instance="edge")
        self.clock.advance(1)

    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    def now(self) -> datetime:
        return self.clock.now()


class PrometheusStage:
    every = EVERY

    def __init__(self, stack: ExitStack) -> None:
        self.values: Values = {}
        target = stack.enter_context(exporter(self._text))
        self.server: RunningPrometheus = stack.enter_context(prometheus([target], scrape_seconds=EVERY))
        self.source = Prometheus(self.server.url, 5.0)

    def count(self, environment: str, service: str, release: int, requests: int, errors: int, slow: int) -> None:
        key = environment, service, release, "stable"
        if key not in self.values:
            self.values = {**self.values, key: (0.0, 0.0, 0.0)}
            self.until_scraped(key)
        total, bad, fast = self.values[key]
        self.values = {**self.values, key: (total + requests, bad + errors, fast + requests - slow)}
        self.until_scraped(key)

    def until_scraped(self, key: tuple[str, str, int, str]) -> None:
        """Wait until all three counters of a series show what they are."""
        environment, service, release, _ = key
        deadline = time.monotonic() + 30
        for metric, value in zip((REQUESTS, ERRORS, WITHIN), self.values[key], strict=True):
            while True:
                found = self.source.samples(metric, 30, targets=[(environment, service)])
                newest = [samples[-1].value for name, samples in found.items() if name.release == release]
                if newest == [value]:
                    break
                assert time.monotonic() < deadline, (key, newest)
                time.sleep(0.1)

    def wait(self, seconds: float) -> None:
        time.sleep(seconds)

    def now(self) -> datetime:
        return datetime.now(UTC)

    def _text(self) -> str:
        lines = []
        for (environment, service, release, track), (total, bad, fast) in self.values.items():
            labels = f'environment="{environment}",service="{service}",release="{release}",track="{track}"'
            for bound in BOUNDS:
                value = fast if bound in ("1.0", "2.0") else total
                written = bound.removesuffix(".0") if service == "web" else bound
                lines.append(f'{DURATION}_bucket{{{labels},le="{written}"}} {value}')
            lines += [f"{DURATION}_count{{{labels}}} {total}", f"{DURATION}_sum{{{labels}}} 1"]
            lines.append(f"{NAMES[Counted.ERRORS]}{{{labels}}} {bad}")
        return "\n".join(lines) + "\n"


@pytest.fixture(scope="module", params=["memory", pytest.param("prometheus", marks=pytest.mark.real)])
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    with ExitStack() as stack:
        yield MemoryStage() if request.param == "memory" else PrometheusStage(stack)


def last(stage: Stage, metric: Metric, service: str, seconds: float = 60.0) -> dict[int, float]:
    """Newest value by release."""
    found = stage.source.samples(metric, seconds, targets=[("prod", service)])
    return {key.release: samples[-1].value for key, samples in found.items() if key.service == service}


def test_counters_come_raw_with_their_keys(stage: Stage) -> None:
    stage.count("prod", "api", 7, 20, 2, 5)
    found = stage.source.samples(REQUESTS, 60, targets=[("prod", "api")])
    ((key, samples),) = found.items()
    assert (key.environment, key.service, key.release, key.track) == ("prod", "api", 7, "stable") and key.instance
    assert samples[0].value == 0 and samples[-1].value == 20
    assert last(stage, ERRORS, "api") == {7: 2}
    assert last(stage, WITHIN, "api") == {7: 15}
    assert last(stage, Metric(Counted.WITHIN, 5.0), "api") == {7: 20}


def test_every_scrape_is_there_once_oldest_first(stage: Stage) -> None:
    stage.count("prod", "steady", 1, 10, 0, 0)
    stage.wait(6 * stage.every)
    (samples,) = stage.source.samples(REQUESTS, 60, targets=[("prod", "steady")]).values()
    gaps = [after.at - before.at for before, after in pairwise(samples)]
    assert len(samples) >= 5 and all(gap > 0.5 * stage.every for gap in gaps), gaps
    assert abs(samples[-1].at - stage.now().timestamp()) < 8 * stage.every
    assert [sample.value for sample in samples] == sorted(sample.value for sample in samples)


def test_the_three_counters_of_a_scrape_have_one_time(stage: Stage) -> None:
    stage.count("prod", "moment", 1, 10, 1, 1)
    end = stage.now()
    moments = []
    for metric in (REQUESTS, ERRORS, WITHIN):
        (samples,) = stage.source.samples(metric, 30, targets=[("prod", "moment")], until=end).values()
        moments.append([sample.at for sample in samples])
    assert moments[0] == moments[1] == moments[2]


def test_a_window_ends_where_asked_and_begins_so_much_earlier(stage: Stage) -> None:
    stage.count("prod", "window", 1, 10, 0, 0)
    middle = stage.now()
    stage.wait(4 * stage.every)
    seconds = 2 * stage.every
    (samples,) = stage.source.samples(REQUESTS, seconds, targets=[("prod", "window")], until=middle).values()
    assert 1 <= len(samples) <= 3
    assert all(middle - timedelta(seconds=seconds + 0.01) <= at(sample) <= middle for sample in samples)


def test_several_releases_and_services_come_in_one_answer(stage: Stage) -> None:
    for service, release in (("one", 1), ("one", 2), ("two", 3)):
        stage.count("prod", service, release, release, 0, 0)
    found = stage.source.samples(REQUESTS, 60, targets=[("prod", "one"), ("prod", "two")])
    assert {(key.service, key.release): samples[-1].value for key, samples in found.items()} == {
        ("one", 1): 1, ("one", 2): 2, ("two", 3): 3,
    }  # fmt: skip
    everything = {(key.service, key.release) for key in stage.source.samples(REQUESTS, 60)}
    assert {("one", 1), ("one", 2), ("two", 3)} <= everything


def test_several_boundaries_come_in_one_answer_and_unknown_ones_are_left_out(stage: Stage) -> None:
    stage.count("prod", "bounds", 4, 10, 0, 3)
    found = stage.source.within((1.0, 2.0, 5.0, 3.3), 60, targets=[("prod", "bounds")])
    newest = {
        bound: [samples[-1].value for key, samples in series.items() if key.service == "bounds"]
        for bound, series in found.items()
    }
    assert newest == {1.0: [7], 2.0: [7], 5.0: [10]}


def test_an_unknown_boundary_alone_names_those_there_are(stage: Stage) -> None:
    stage.count("prod", "wrong", 4, 1, 0, 0)
    with pytest.raises(Permanent, match=r"no boundary at 3.3 s.*1, 2, 5"):
        stage.source.samples(Metric(Counted.WITHIN, 3.3), 60, targets=[("prod", "wrong")])


def test_of_a_service_nobody_scraped_there_is_nothing(stage: Stage) -> None:
    for metric in (REQUESTS, ERRORS, WITHIN):
        assert stage.source.samples(metric, 60, targets=[("prod", "nobody")]) == {}


def test_the_link_and_the_expression_name_the_release(stage: Stage) -> None:
    assert "api" in stage.source.link("prod", "api", 7, 600) and "7" in stage.source.link("prod", "api", 7, 600)
    assert stage.source.expression(ERRORS, "prod", "api", 7) != stage.source.expression(WITHIN, "prod", "api", 7)


def at(sample: Sample) -> datetime:
    return datetime.fromtimestamp(sample.at, UTC)


# ------------------------------------------------------------------------------------------ Prometheus only


@pytest.fixture(scope="module")
def real() -> Iterator[PrometheusStage]:
    with ExitStack() as stack:
        yield PrometheusStage(stack)


@pytest.mark.real
def test_boundaries_written_as_go_writes_them_are_found(real: PrometheusStage) -> None:
    real.count("prod", "web", 1, 10, 0, 4)
    assert last(real, WITHIN, "web") == {1: 6}
    assert real.source.within((2.0, 5.0), 60, targets=[("prod", "web")]).keys() == {2.0, 5.0}


@pytest.mark.real
def test_nan_and_stale_series_leave_gaps_and_no_values(real: PrometheusStage) -> None:
    key = ("prod", "gaps", 1, "stable")
    real.count("prod", "gaps", 1, 10, 0, 0)
    real.values = {**real.values, key: (float("nan"), float("nan"), float("nan"))}
    real.wait(3 * EVERY)
    real.values = {name: value for name, value in real.values.items() if name != key}  # now it goes stale
    real.wait(3 * EVERY)
    real.values = {**real.values, key: (12.0, 0.0, 12.0)}
    real.until_scraped(key)
    (samples,) = real.source.samples(REQUESTS, 60, targets=[("prod", "gaps")]).values()
    assert {sample.value for sample in samples} == {0.0, 10.0, 12.0}
    assert max(after.at - before.at for before, after in pairwise(samples)) > 4 * EVERY


@pytest.mark.real
def test_its_own_expression_and_link_work_in_prometheus(real: PrometheusStage) -> None:
    real.count("prod", "linked", 9, 8, 1, 2)
    answer = real.source._ask(real.source.expression(ERRORS, "prod", "linked", 9), None)
    assert [entry["value"][1] for entry in answer] == ["1"]
    arguments = parse_qs(urlsplit(real.source.link("prod", "linked", 9, 600)).query)
    assert arguments["g0.range_input"] == ["600s"]
    for panel in ("g0.expr", "g1.expr", "g2.expr"):
        assert len(real.source._ask(arguments[panel][0], None)) == 1


@pytest.mark.real
def test_prometheus_away_held_and_back(real: PrometheusStage) -> None:
    real.count("prod", "back", 1, 5, 0, 0)
    source = Prometheus(real.server.url, 0.7)
    assert source.samples(REQUESTS, 30, targets=[("prod", "back")])
    real.server.pause()
    try:
        began = time.monotonic()
        with pytest.raises(Transient, match="no answer in time"):
            source.samples(REQUESTS, 30)
        assert time.monotonic() - began < 1.5
    finally:
        real.server.resume()
    assert source.samples(REQUESTS, 30, targets=[("prod", "back")])
    real.server.stop()
    try:
        with pytest.raises(Transient, match=r"does not answer: connection refused"):
            source.samples(REQUESTS, 30)
    finally:
        real.server.start()
    (samples,) = source.samples(REQUESTS, 30, targets=[("prod", "back")]).values()
    assert samples[0].value == 0 and samples[-1].value == 5


# ------------------------------------------------------------------------------- what a wrong or slow server answers


@contextmanager
def answering(answer: Callable[[http.server.BaseHTTPRequestHandler], None]) -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def body(status: int, content: bytes) -> Callable[[http.server.BaseHTTPRequestHandler], None]:
    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    return answer


@pytest.mark.parametrize(
    ("status", "content", "words"),
    [
        (500, b"oops", "refused a query"),
        (503, b"Service Unavailable", "refused a query"),
        (400, b'{"status":"error","error":"parse error"}', "refused a query"),
        (200, b"<html>a login page</html>", "no JSON"),
        (200, b"", "no JSON"),
        (200, b'{"data":', "no JSON"),
        (200, b"[]", "no result"),
        (200, b'{"data":{"result":7}}', "something else than series"),
        (200, b'{"data":{"result":[{"metric":{},"values":[]}]}}', "no result"),
        (200, b'{"data":{"result":[7]}}', "no result"),
        (302, b"", "refused a query"),
    ],
)
def test_garbage_is_transient_and_never_numbers(status: int, content: bytes, words: str) -> None:
    with answering(body(status, content)) as url, pytest.raises(Transient, match=words):
        Prometheus(url, 2.0).samples(REQUESTS, 10)


def test_a_server_that_sends_a_byte_now_and_then_is_cut_off_in_time() -> None:
    def drip(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        for _ in range(30):
            handler.wfile.write(b" ")
            handler.wfile.flush()
            time.sleep(0.2)

    with answering(drip) as url:
        began = time.monotonic()
        with pytest.raises(Transient, match="no answer in time"):
            Prometheus(url, 0.8).samples(REQUESTS, 10)
        assert time.monotonic() - began < 1.5


def test_one_question_is_one_request_also_when_it_fails() -> None:
    asked = []

    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        asked.append(handler.path)
        body(503, b"")(handler)

    with answering(answer) as url:
        source = Prometheus(url, 2.0)
        for call in (lambda: source.samples(REQUESTS, 10), lambda: source.within((1.0, 2.0), 10)):
            with pytest.raises(Transient):
                call()
    assert len(asked) == 2


def test_many_targets_are_asked_for_without_naming_them() -> None:
    asked = []

    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        asked.append(parse_qs(urlsplit(handler.path).query)["query"][0])
        body(200, b'{"data":{"result":[]}}')(handler)

    with answering(answer) as url:
        source = Prometheus(url, 2.0)
        source.samples(REQUESTS, 2.5, targets=[("prod", "api")])
        source.samples(ERRORS, 2.5, targets=[("prod", "api"), ("dev", "web")])
        source.within((2.0, 0.5), 2.5, targets=[("prod", str(number)) for number in range(1000)])
    assert asked == [
        'ops_edge_request_duration_seconds_count{environment="prod",service="api"}[2500ms]',
        'ops_edge_request_errors_total{environment=~"dev|prod",service=~"api|web"}[2500ms]',
        'ops_edge_request_duration_seconds_bucket{le=~"0\\\\.5|2(\\\\.0)?"}[2500ms]',
    ]


def test_loading_the_adapter_loads_no_sdk() -> None:
    import subprocess
    import sys

    script = (
        "import sys; from ops_pipeline.adapters.prometheus import Prometheus; "
        "from ops_pipeline.adapters.alertmanager import Alertmanager; Prometheus('http://x'); "
        "print([name for name in ('requests', 'prometheus_api_client', 'urllib3') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_series_of_the_same_key_are_counted_once() -> None:
    entry = (
        b'{"metric":{"environment":"prod","service":"api","release":"7","track":"stable","instance":"e","job":"%s"},'
        b'"values":[[1,"1"],[2,"2"]]}'
    )
    content = b'{"data":{"result":[' + entry % b"a" + b"," + entry % b"b" + b"]}}"
    with answering(body(200, content)) as url:
        found = Prometheus(url, 2.0).samples(REQUESTS, 10)
    assert found == {SeriesKey("prod", "api", 7, "stable", "e"): (Sample(1, 1.0), Sample(2, 2.0))}
