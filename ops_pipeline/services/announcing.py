"""Telling people about a release that is being made. Failing to alert is said and never fails the work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ops_pipeline.core.alert import Alert
from ops_pipeline.core.delivery_alerts import news, standing
from ops_pipeline.core.journal import Journal, containers_of
from ops_pipeline.errors import OpsError
from ops_pipeline.ports import Progress
from ops_pipeline.services.platform import Platform

REFRESH_SECONDS = 240.0
"""An alert ends by itself some ten minutes after it was last fired."""

LINK_SECONDS = 900.0


class Announcer:
    """Collects what has changed while the work goes on, and tells it when there is time."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._standing: dict[str, Alert] = {}
        self._calls: list[tuple[Callable[[Alert], None], Alert]] = []
        self._fired = platform.clock.monotonic()

    def changed(self, before: Journal, after: Journal) -> None:
        """Take note of a new document. Contacts nobody."""
        alerts = self._platform.alerts
        known, holds = standing(before) | self._standing, standing(after)
        self._calls += [(alerts.resolve, alert) for name, alert in known.items() if name not in holds]
        fresh = [alert for name, alert in holds.items() if name not in known]
        self._calls += [(alerts.fire, self._linked(after, alert)) for alert in (*fresh, *news(before, after))]
        self._standing = {name: known.get(name, alert) for name, alert in holds.items()}

    def tell(self, progress: Progress) -> None:
        """Send what was collected, and refresh what still holds. Takes as long as the alerts' time-out at worst."""
        now = self._platform.clock.monotonic()
        if self._standing and now - self._fired > REFRESH_SECONDS and not self._calls:
            self._calls = [(self._platform.alerts.fire, alert) for alert in self._standing.values()]
        calls, self._calls = self._calls, []
        for send, alert in calls:
            self._fired = now
            try:
                send(alert)
            except OpsError as error:
                progress(f"nobody could be told about {alert.name}: {error.message}")
                return  # the others would fail alike, each after its time-out

    def _linked(self, journal: Journal, alert: Alert) -> Alert:
        work = journal.work
        if work is None:
            return alert
        link = self._platform.metrics.link(alert.environment, alert.service, containers_of(work), LINK_SECONDS)
        return replace(alert, link=link)
