"""A Scanner in memory: knows findings by digest, and can be broken."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from ops_pipeline.core.image import ImageRef
from ops_pipeline.core.scan import DatabaseInfo, Finding, ScanReport
from ops_pipeline.errors import OpsError, Unavailable
from ops_pipeline.ports import Progress, Scanner


class FakeScanner(Scanner):
    """`known` digests have findings; any other image cannot be scanned unless `anything` is set."""

    def __init__(self, *, now: Callable[[], datetime] = lambda: datetime.now(UTC), anything: bool = False) -> None:
        self.known: dict[str, tuple[Finding, ...]] = {}
        self.anything = anything
        self.broken: OpsError | None = None
        self.sample = False
        self.database_at: datetime | None = None
        self.scanned: list[ImageRef] = []
        self._now = now

    def add(self, digest: str, findings: Sequence[Finding] = ()) -> None:
        """Make an image scannable."""
        self.known[digest] = tuple(findings)

    def scan(self, image: ImageRef, progress: Progress) -> ScanReport:
        findings = self._look(image)
        now = self._now()
        database = DatabaseInfo(self.database_at or now, self.sample, "sample" if self.sample else "fake")
        return ScanReport(image.digest, "fake 1.0", now, database, findings)

    def sbom(self, image: ImageRef, progress: Progress) -> bytes:
        self._look(image)
        subject = {"component": {"name": str(image)}}
        return json.dumps({"bomFormat": "CycloneDX", "metadata": subject, "components": []}).encode()

    def _look(self, image: ImageRef) -> tuple[Finding, ...]:
        if self.broken is not None:
            raise self.broken
        if image.digest not in self.known and not self.anything:
            raise Unavailable(f"could not scan {image}: it cannot be read")
        self.scanned.append(image)
        return self.known.get(image.digest, ())
