"""The MetricsSource port over Prometheus: raw samples of the counters the edges' exporters keep."""

from __future__ import annotations

import contextlib
import json
import math
import re
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from ops_pipeline.core.measurement import Counted, Metric, Sample, SeriesKey
from ops_pipeline.errors import Permanent, Transient
from ops_pipeline.ports import MetricsSource

if TYPE_CHECKING:
    from prometheus_api_client.prometheus_connect import PrometheusConnect

DURATION = "ops_edge_request_duration_seconds"
NAMES = {
    Counted.REQUESTS: f"{DURATION}_count",
    Counted.ERRORS: "ops_edge_request_errors_total",
    Counted.WITHIN: f"{DURATION}_bucket",
}
FEW = 20
"""Up to so many targets are named in a query; for more it is cheaper to take all there are."""

KNOWN_KEYS = 200_000
HINT = "Start it, or correct `prometheus.url` in the catalogue."


class Prometheus(MetricsSource):
    """One Prometheus server. Contacts nothing, and loads no SDK, before the first call; safe to share by threads."""

    def __init__(self, url: str, timeout_seconds: float = 5.0) -> None:
        """`timeout_seconds` bounds each call as a whole: connecting, waiting and reading."""
        self._url = url.rstrip("/")
        self._seconds = timeout_seconds
        self._lock = threading.Lock()
        self._client: PrometheusConnect | None = None
        self._keys: dict[tuple[str, ...], SeriesKey] = {}

    def samples(
        self,
        metric: Metric,
        seconds: float,
        *,
        targets: Sequence[tuple[str, str]] = (),
        until: datetime | None = None,
    ) -> Mapping[SeriesKey, tuple[Sample, ...]]:
        """Every scraped sample of the last `seconds` in one query. Raise Transient, Permanent (no such boundary)."""
        if metric.counted is Counted.WITHIN:
            found = self.within((metric.seconds,), seconds, targets=targets, until=until)
            if metric.seconds not in found:
                self._see_boundary(metric.seconds)
            return found.get(metric.seconds, {})
        answer = self._ask(_range(_selector(NAMES[metric.counted], targets), seconds), until)
        with self._understanding():
            return self._series(answer)

    def within(
        self,
        bounds: Sequence[float],
        seconds: float,
        *,
        targets: Sequence[tuple[str, str]] = (),
        until: datetime | None = None,
    ) -> Mapping[float, Mapping[SeriesKey, tuple[Sample, ...]]]:
        """The buckets of several boundaries in one query. Raise Transient."""
        wanted = sorted(set(bounds))
        query = _range(_selector(NAMES[Counted.WITHIN], targets, wanted), seconds)
        answer = self._ask(query, until)
        by_bound: dict[float, list[Any]] = {}
        with self._understanding():
            if len(wanted) == 1:
                return {wanted[0]: self._series(answer)} if answer else {}
            for entry in answer:
                by_bound.setdefault(float(entry["metric"]["le"]), []).append(entry)
            return {bound: self._series(entries) for bound, entries in by_bound.items()}

    def expression(self, metric: Metric, environment: str, service: str, release: int) -> str:
        """The query in PromQL: a release's raw counters now."""
        bounds = [metric.seconds] if metric.counted is Counted.WITHIN else []
        return _selector(NAMES[metric.counted], [(environment, service)], bounds, release)

    def link(self, environment: str, service: str, release: int, seconds: float) -> str:
        """Prometheus's own graph page: shares of failed requests and of requests over 2 s, and requests per second."""
        target = [(environment, service)]
        requests, errors = (_selector(NAMES[c], target, (), release) for c in (Counted.REQUESTS, Counted.ERRORS))
        fast = _selector(NAMES[Counted.WITHIN], target, [2.0], release)
        total = f"sum(rate({requests}[30s]))"
        panels = (f"sum(rate({errors}[30s])) / {total}", f"1 - sum(rate({fast}[30s])) / {total}", total)
        span = f"{max(math.ceil(seconds), 60)}s"
        arguments = [
            pair
            for number, panel in enumerate(panels)
            for pair in ((f"g{number}.expr", panel), (f"g{number}.tab", "0"), (f"g{number}.range_input", span))
        ]
        return f"{self._url}/graph?{urlencode(arguments)}"

    # ---------------------------------------------------------------------------------------------- asking

    def _see_boundary(self, seconds: float) -> None:
        """Raise Permanent when the histogram has boundaries and none of them is `seconds`."""
        answer = self._ask(f"count by (le) ({NAMES[Counted.WITHIN]})", None)
        with self._understanding():
            bounds = sorted({float(entry["metric"]["le"]) for entry in answer})
        finite = [bound for bound in bounds if math.isfinite(bound)]
        if finite and seconds not in finite:
            raise Permanent(
                f"the edges' histogram has no boundary at {seconds:g} s; "
                f"it has {', '.join(f'{bound:g}' for bound in finite)}",
                hint="Set the service's thresholds.p95_seconds to one of them.",
            )

    def _ask(self, query: str, until: datetime | None) -> list[Any]:
        client = self._connected()
        import requests.exceptions
        import urllib3.exceptions
        from prometheus_api_client.exceptions import PrometheusApiClientException

        from ops_pipeline.adapters.bounded_http import words_of

        parameters = {"timeout": f"{round(self._seconds * 1000)}ms"}
        if until is not None:
            parameters["time"] = f"{until.timestamp():.3f}"
        try:
            with self._understanding():
                answer = client.custom_query(query, parameters)
        except PrometheusApiClientException as error:
            raise Transient(f"Prometheus at {self._url} refused a query: {_short(error)}") from error
        except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            raise Transient(f"Prometheus at {self._url} does not answer: {words_of(error)}", hint=HINT) from error
        if not isinstance(answer, list):
            raise Transient(f"Prometheus at {self._url} answered something else than series")
        return answer

    def _connected(self) -> PrometheusConnect:
        with self._lock:
            if self._client is None:
                # Here, because it costs 0.15 s that a process which judges nothing need not spend.
                from prometheus_api_client.prometheus_connect import PrometheusConnect
                from urllib3.util.retry import Retry

                from ops_pipeline.adapters.bounded_http import BoundedSession

                # Its own three attempts with growing waits would stretch a call far beyond its time-out.
                session = BoundedSession(self._url, self._seconds)
                self._client = PrometheusConnect(self._url, session=session, retry=Retry(False))
            return self._client

    @contextlib.contextmanager
    def _understanding(self) -> Iterator[None]:
        """Turn the ways in which an answer can have the wrong shape into Transient."""
        try:
            yield
        except OSError as error:  # requests' own «no JSON» is both
            if not isinstance(error, json.JSONDecodeError):
                raise
            raise Transient(f"Prometheus at {self._url} answered something that is no JSON") from error
        except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
            raise Transient(f"Prometheus at {self._url} answered something that is no result of a query") from error

    # ---------------------------------------------------------------------------------------------- reading

    def _series(self, answer: Iterable[Any]) -> dict[SeriesKey, tuple[Sample, ...]]:
        found: dict[SeriesKey, tuple[Sample, ...]] = {}
        keys, finite = self._keys, math.isfinite
        for entry in answer:
            labels = entry["metric"]
            name = (labels["environment"], labels["service"], labels["release"], labels["track"], labels["instance"])
            key = keys.get(name)
            if key is None:
                if not labels["release"].isdigit():
                    continue
                if len(keys) >= KNOWN_KEYS:
                    keys.clear()
                key = keys[name] = SeriesKey(*name[:2], int(name[2]), *name[3:])
            samples = tuple([Sample(at, float(value)) for at, value in entry["values"]])
            for _, value in samples:
                if not finite(value):
                    samples = tuple([each for each in samples if finite(each.value)])
                    break
            # The same edge scraped by two jobs is counted once.
            if samples and len(samples) > len(found.get(key, ())):
                found[key] = samples
        return found


def _selector(
    name: str, targets: Sequence[tuple[str, str]], bounds: Sequence[float] = (), release: int | None = None
) -> str:
    matchers = []
    if 0 < len(targets) <= FEW:
        matchers.append(_matcher("environment", [environment for environment, _ in targets]))
        matchers.append(_matcher("service", [service for _, service in targets]))
    if release is not None:
        matchers.append(f'release="{release}"')
    if bounds:
        # Exporters in Go write le="2", those in Python le="2.0".
        forms = "|".join(_number(bound) for bound in bounds)
        matchers.append(f'le=~"{forms}"')
    return f"{name}{{{','.join(matchers)}}}" if matchers else name


def _matcher(label: str, values: Sequence[str]) -> str:
    different = sorted(set(values))
    if len(different) == 1 and re.fullmatch(r"[\w-]*", different[0]):
        return f'{label}="{different[0]}"'
    pattern = "|".join(value if re.fullmatch(r"[\w-]*", value) else re.escape(value) for value in different)
    return f'{label}=~"{pattern}"'.replace("\\", "\\\\")


def _number(bound: float) -> str:
    text = f"{bound:g}"
    return f"{text}(\\\\.0)?" if text.isdigit() else text.replace(".", "\\\\.")


def _range(selector: str, seconds: float) -> str:
    return f"{selector}[{max(math.ceil(seconds * 1000), 1)}ms]"


def _short(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
