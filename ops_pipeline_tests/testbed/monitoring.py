"""The stack's own Prometheus and Alertmanager for a site of the bed, on free loopback ports; always removed."""

from __future__ import annotations

import contextlib
import json
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import docker
import httpx
from docker.models.containers import Container

from deploy.setup import stack_images
from ops_pipeline_tests.testbed import free_port
from ops_pipeline_tests.testbed.control_plane import until

SCRAPE = "1s"


@dataclass(frozen=True)
class Monitoring:
    """`prometheus` and `alertmanager` are the containers, `targets` what is scraped."""

    prometheus: Container
    prometheus_url: str
    alertmanager: Container
    alertmanager_url: str

    @property
    def settings(self) -> dict[str, object]:
        """For the catalogue."""
        return {"prometheus": {"url": self.prometheus_url}, "alertmanager": {"url": self.alertmanager_url}}

    def alerts(self) -> list[dict[str, str]]:
        """Labels of what fires now."""
        answer = httpx.get(f"{self.alertmanager_url}/api/v2/alerts", timeout=5)
        return [alert["labels"] for alert in answer.json()]

    def wait(self) -> None:
        """Until both answer."""
        for url in (self.prometheus_url, self.alertmanager_url):
            until(lambda url=url: _ready(url), 60, url)  # type: ignore[misc]


@contextlib.contextmanager
def monitoring(targets: Sequence[str], labels: dict[str, str]) -> Iterator[Monitoring]:
    """Scrape these exporters ("host:port") every second, as the local stack does."""
    stack_images.ensure(("prometheus", "alertmanager"))
    engine = docker.from_env(timeout=60)
    made: list[Container] = []
    with tempfile.TemporaryDirectory(prefix="ops-test-") as folder:
        Path(folder).chmod(0o755)
        configuration = Path(folder) / "prometheus.yml"
        job = {"job_name": "edge-requests", "honor_labels": True, "static_configs": [{"targets": list(targets)}]}
        document = {
            "global": {"scrape_interval": SCRAPE, "scrape_timeout": "900ms"},
            "scrape_configs": [job],
        }
        configuration.write_text(json.dumps(document))
        configuration.chmod(0o644)

        def start(name: str, command: list[str], volumes: dict[str, dict[str, str]]) -> Container:
            container = engine.containers.run(
                stack_images.tag(stack_images.image(name)),
                command,
                name=f"ops-testbed-{name}-{uuid.uuid4().hex[:8]}",
                labels=labels,
                detach=True,
                healthcheck={"test": ["NONE"]},
                # Targets are loopback ports and hosts that only this machine knows.
                network_mode="host",
                volumes=volumes,
                cap_drop=["ALL"],
            )
            made.append(container)
            return container

        ports = free_port(), free_port()
        try:
            prometheus = start(
                "prometheus",
                [f"--web.listen-address=127.0.0.1:{ports[0]}", "--log.level=warn"],
                {str(configuration): {"bind": "/etc/prometheus/prometheus.yml", "mode": "ro"}},
            )
            alertmanager = start(
                "alertmanager",
                [f"--web.listen-address=127.0.0.1:{ports[1]}", "--cluster.listen-address=", "--log.level=warn"],
                {},
            )
            running = Monitoring(
                prometheus, f"http://127.0.0.1:{ports[0]}", alertmanager, f"http://127.0.0.1:{ports[1]}"
            )
            running.wait()
            yield running
        finally:
            for container in made:
                with contextlib.suppress(docker.errors.NotFound):
                    container.remove(force=True, v=True)
            engine.close()


def _ready(url: str) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(f"{url}/-/ready", timeout=2).status_code == 200
    return False
