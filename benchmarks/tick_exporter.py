"""Serves the exposition of an edge's exporter for made-up services, and prints its address."""

from __future__ import annotations

import sys
import time

from ops_pipeline.core.measurement import BUCKETS
from ops_pipeline_tests.testbed.prometheus import exporter

NAME = "ops_edge_request_duration_seconds"
BOUNDS = (*(str(bound) for bound in BUCKETS), "+Inf")


def main(services: int, environment: str) -> None:
    """Serve until killed. Each release of each service gets 10 requests a second; its canary track gets none."""
    begin = time.monotonic()
    templates = []
    for number in range(services):
        for release in (1, 2):
            for track in ("stable", "canary"):
                labels = f'environment="{environment}",service="service-{number}",release="{release}",track="{track}"'
                value = "%d" if track == "stable" else "0"
                templates += [f'{NAME}_bucket{{{labels},le="{bound}"}} {value}\n' for bound in BOUNDS]
                templates.append(f"{NAME}_count{{{labels}}} {value}\n")
                templates.append(f"{NAME}_sum{{{labels}}} {value}\n")
                templates.append(f"ops_edge_request_errors_total{{{labels}}} 0\n")
                templates.append(f'ops_edge_requests_total{{{labels},code="2xx"}} {value}\n')
    template = "".join(templates)
    places = template.count("%d")

    def text() -> str:
        return template % ((int((time.monotonic() - begin) * 10),) * places)

    with exporter(text) as address:
        print(address, flush=True)
        while True:
            time.sleep(60)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
