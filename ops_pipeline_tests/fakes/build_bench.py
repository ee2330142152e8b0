"""A platform for building and scanning: a store in memory, and a project folder with one service `api`."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from ops_pipeline.catalogue.model import Catalogue
from ops_pipeline.errors import BadInput, Problem
from ops_pipeline.ports import ImageBuilder, Registry, Scanner
from ops_pipeline.services.platform import Platform
from ops_pipeline_tests.fakes.alerts import FakeAlerts
from ops_pipeline_tests.fakes.builder import FakeBuilder
from ops_pipeline_tests.fakes.clock import FakeClock
from ops_pipeline_tests.fakes.metrics import FakeMetrics
from ops_pipeline_tests.fakes.registry import InMemoryRegistry
from ops_pipeline_tests.fakes.scanner import FakeScanner
from ops_pipeline_tests.fakes.store import InMemoryStore
from ops_pipeline_tests.testbed.sample_images import GOOD, write_context


class StepClock(FakeClock):
    """Two readings are never the same, and sleeps are written down."""

    def __init__(self) -> None:
        super().__init__()
        self.slept: list[float] = []

    def now(self) -> datetime:
        self.advance(0.001)
        return super().now()

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        super().sleep(seconds)


def _secret(reference: str) -> str:
    values = {"env:NPM_TOKEN": "hunter22"}
    if reference not in values:
        raise BadInput([Problem(reference, "is not set")], subject="secret")
    return values[reference]


@dataclass
class BuildBench:
    """Everything a test of builds and scans wants to reach into."""

    platform: Platform
    store: InMemoryStore
    clock: StepClock
    folder: Path  # the build context of `api`
    lines: list[str] = field(default_factory=list)

    @property
    def fake_registry(self) -> InMemoryRegistry:
        assert isinstance(self.platform.registry, InMemoryRegistry)
        return self.platform.registry

    @property
    def fake_builder(self) -> FakeBuilder:
        assert isinstance(self.platform.builder, FakeBuilder)
        return self.platform.builder

    @property
    def fake_scanner(self) -> FakeScanner:
        assert isinstance(self.platform.scanner, FakeScanner)
        return self.platform.scanner

    def progress(self, line: str) -> None:
        """Where progress goes."""
        self.lines.append(line)

    def configure(self, **settings: Any) -> None:
        """Change the catalogue: `configure(build={…}, scan={…}, policy={…}, registry={…})`."""
        document = self.platform.catalogue.model_dump()
        document["services"]["api"]["build"] |= settings.get("build", {})
        document["scan"] |= settings.get("scan", {})
        document["registry"] |= settings.get("registry", {})
        document["environments"]["prod"]["policy"] |= settings.get("policy", {})
        self.platform = replace(self.platform, catalogue=Catalogue.model_validate(document))


def build_bench(
    root: Path,
    *,
    dockerfile: str = GOOD,
    address: str = "fake:5000/shop",
    builder: ImageBuilder | None = None,
    registry: Registry | None = None,
    scanner: Scanner | None = None,
) -> BuildBench:
    """Make a bench in `root`; without other components it works on fakes."""
    folder = write_context(root / "api", dockerfile)
    clock, store = StepClock(), InMemoryStore()
    catalogue = Catalogue.model_validate(
        {
            "version": 1,
            "project": "shop",
            "source_url": "https://example.org/shop",
            "registry": {"address": address},
            "store": {"directory": ".ops/store"},
            "environments": {
                name: {
                    "hosts": [{"name": "local"}],
                    "url": "http://127.0.0.1:8080",
                    "subnet": "10.213.0.0/22",
                    "policy": {"allow_sample_database": name == "dev"},
                }
                for name in ("dev", "prod")
            },
            "services": {"api": {"build": {"context": "api"}, "port": 8000}},
        }
    )
    images = InMemoryRegistry()
    platform = Platform(
        root=root,
        catalogue=catalogue,
        store=store,
        clock=clock,
        registry=registry or images,
        builder=builder or FakeBuilder(images),
        scanner=scanner or FakeScanner(now=clock.now, anything=True),
        metrics=FakeMetrics(clock),
        alerts=FakeAlerts(),
        runtimes=lambda environment: (),
        edges=lambda environment: (),
        secret=_secret,
        controller="test:1",
    )
    return BuildBench(platform, store, clock, folder)
