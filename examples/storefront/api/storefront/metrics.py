"""What Prometheus sees of one process."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

# 1 s and 2 s are boundaries, so «how many took longer than 2 s» is counted, not guessed between two buckets.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """All instruments of one application, in a registry of its own."""

    def __init__(self, *, version: str = "", commit: str = "") -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self.requests = Counter(
            "http_requests", "Requests answered", ("method", "route", "status"), registry=self.registry
        )
        self.duration = Histogram(
            "http_request_duration_seconds",
            "From the request's head to the answer",
            ("method", "route"),
            buckets=BUCKETS,
            registry=self.registry,
        )
        self.in_flight = Gauge("http_requests_in_flight", "Requests being worked on", registry=self.registry)
        self.sockets = Gauge("live_sockets", "Open WebSockets", registry=self.registry)
        self.streams = Gauge("event_streams", "Open event streams", registry=self.registry)
        self.breaker = Gauge(
            "circuit_breaker_state", "0 closed, 1 half open, 2 open", ("dependency",), registry=self.registry
        )
        self.calls = Counter(
            "dependency_calls", "Calls to a dependency", ("dependency", "outcome"), registry=self.registry
        )
        self.cache = Counter("cache_reads", "Reads of the cache", ("outcome",), registry=self.registry)
        self.degraded = Counter(
            "degraded_answers",
            "Answers given from a copy because the database was away",
            ("route",),
            registry=self.registry,
        )
        build = Gauge("storefront_build_info", "Always 1", ("version", "commit"), registry=self.registry)
        build.labels(version, commit).set(1)

    def render(self) -> bytes:
        """The exposition text."""
        return generate_latest(self.registry)
