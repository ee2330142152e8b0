"""Requests counted at the edge at 2,000 a second and more, against what the client sent; delay and cost of counting."""

from __future__ import annotations

import time
from statistics import median

from ops_pipeline.core.routing import EdgeService, EdgeTopology, RouteRule, Routing
from ops_pipeline_tests.testbed.edge import EdgeBed, edge_bed
from ops_pipeline_tests.testbed.flood import Flood

SECONDS = 12.0
RATES = (2000.0, 4000.0, 20000.0)
SERVICES = 30
WEB = EdgeService("web", RouteRule("/"), 2, "/health/ready")
OTHERS = tuple(EdgeService(f"s{number}", RouteRule(f"/s{number}"), 2, "/health/ready") for number in range(1, SERVICES))
TOPOLOGY = EdgeTopology("test", (WEB, *OTHERS))


def cpu_seconds(bed: EdgeBed, name: str) -> float:
    """Processor time of the edge's programs whose command line has this word, in seconds."""
    script = (
        "for p in /proc/[0-9]*; do tr '\\0' ' ' <$p/cmdline | grep -q '^[^ ]*" + name + " ' "
        "&& cut -d' ' -f14,15 $p/stat; done; true"
    )
    return sum(int(word) for word in bed.shell(script).split()) / 100


def haproxy_total(bed: EdgeBed) -> int:
    """Requests that HAProxy's own counter of the backend says."""
    rows = bed.shell("printf 'show stat web__a 2 -1\\n' | socat - UNIX-CONNECT:/run/ops-edge/admin.sock").splitlines()
    position = rows[0].lstrip("# ").split(",").index("req_tot")
    return int(rows[1].split(",")[position])


def counted(bed: EdgeBed) -> int:
    """Requests of the service that the exporter says."""
    return int(bed.counted("ops_edge_request_duration_seconds_count", service="web", release="1"))


def flooded(bed: EdgeBed, rate: float) -> None:
    """Print counts and costs at one rate, scraped every second as by Prometheus."""
    before = counted(bed), haproxy_total(bed), cpu_seconds(bed, "python3"), cpu_seconds(bed, "haproxy")
    scrapes: list[float] = []
    with Flood(bed.port, rate, SECONDS) as flood:
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            began = time.monotonic()
            counted(bed)
            scrapes.append(time.monotonic() - began)
            time.sleep(1 - min(1.0, scrapes[-1]))
        flood.wait()
    time.sleep(0.2)
    ours, theirs = counted(bed) - before[0], haproxy_total(bed) - before[1]
    exporter = (cpu_seconds(bed, "python3") - before[2]) / flood.seconds
    haproxy = (cpu_seconds(bed, "haproxy") - before[3]) / flood.seconds
    print(
        f"   {flood.rate:6.0f} requests/s for {flood.seconds:.1f} s: {flood.requests} answered, "
        f"HAProxy counted {theirs}, the exporter {ours} ({ours / flood.requests:.6f}); "
        f"of one core: exporter {exporter:.1%}, HAProxy {haproxy:.1%}; "
        f"scrape median {median(scrapes) * 1000:.0f} ms, slowest {max(scrapes) * 1000:.0f} ms"
    )


def delay(bed: EdgeBed, times: int = 50) -> None:
    """Print how long after its answer a request is on /metrics."""
    delays = []
    for _ in range(times):
        before = counted(bed)
        bed.request("/x")
        began = time.monotonic()
        while counted(bed) == before:
            pass
        delays.append(time.monotonic() - began)
    print(f"   visible after its answer: median {median(delays) * 1000:.1f} ms, latest {max(delays) * 1000:.1f} ms")


def idle(bed: EdgeBed, seconds: float = 10.0) -> None:
    """Print what the exporter costs when nothing happens but a scrape a second."""
    before = cpu_seconds(bed, "python3")
    for _ in range(int(seconds)):
        counted(bed)
        time.sleep(1)
    cost = (cpu_seconds(bed, "python3") - before) / seconds
    memory = bed.shell("for p in /proc/[0-9]*; do grep -q '^python3' $p/comm && grep VmRSS $p/status; done; true")
    print(f"   idle, {SERVICES} services, a scrape a second: exporter {cost:.1%} of one core, {memory.strip()}")


def main() -> None:
    """Print everything."""
    with edge_bed() as bed:
        bed.edge.ensure(TOPOLOGY)
        pool = bed.pool(1, bed.quick_upstream())
        bed.edge.apply("web", Routing("a", pools={"a": pool}), 1)
        for service in OTHERS:
            bed.edge.apply(service.name, Routing("a", pools={"a": pool}), 1)
        idle(bed)
        delay(bed)
        for rate in RATES:
            flooded(bed, rate)
        left = bed.shell(
            "ls -s /dev/shm/ops-edge-requests.log | cut -d' ' -f1; stat -c %s /dev/shm/ops-edge-requests.log"
        )
        kept, written = left.split()
        print(f"   log written: {int(written) / 1e6:.0f} MB, memory it takes now: {kept} KiB")


if __name__ == "__main__":
    main()
