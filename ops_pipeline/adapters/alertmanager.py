"""The Alerts port over Alertmanager's v2 API, and its counterpart for installations that have none."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from ops_pipeline.core.alert import Alert
from ops_pipeline.errors import Transient
from ops_pipeline.ports import Alerts, Clock

if TYPE_CHECKING:
    from ops_pipeline.adapters.bounded_http import BoundedSession

LASTS = timedelta(minutes=10)
"""An alert ends by itself so long after it was last fired: who judges anew fires it anew."""

HINT = "Start Alertmanager, or correct `alertmanager.url` in the catalogue; empty means that alerts go nowhere."


class Alertmanager(Alerts):
    """One Alertmanager. Contacts nothing before the first call; safe to share by threads."""

    def __init__(self, url: str, clock: Clock, timeout_seconds: float = 5.0, lasts: timedelta = LASTS) -> None:
        """`timeout_seconds` bounds each call as a whole."""
        self._url = url.rstrip("/")
        self._clock = clock
        self._seconds = timeout_seconds
        self._lasts = lasts
        self._lock = threading.Lock()
        self._session: BoundedSession | None = None

    def fire(self, alert: Alert) -> None:
        """Raise an alert, or refresh it. Raise Transient."""
        self._send(alert, self._clock.now() + self._lasts)

    def resolve(self, alert: Alert) -> None:
        """End it; no error when it does not fire. Raise Transient."""
        self._send(alert, self._clock.now())

    def _send(self, alert: Alert, ends: datetime) -> None:
        session = self._connected()
        import requests.exceptions
        import urllib3.exceptions

        from ops_pipeline.adapters.bounded_http import words_of

        try:
            answer = session.request("POST", f"{self._url}/api/v2/alerts", json=[_document(alert, ends)])
        except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            raise Transient(f"Alertmanager at {self._url} does not answer: {words_of(error)}", hint=HINT) from error
        if answer.status_code != 200:
            words = " ".join(answer.text.split())[:200]
            raise Transient(f"Alertmanager at {self._url} refused an alert: HTTP {answer.status_code} {words}")

    def _connected(self) -> BoundedSession:
        with self._lock:
            if self._session is None:
                from ops_pipeline.adapters.bounded_http import BoundedSession

                self._session = BoundedSession(self._url, self._seconds)
            return self._session


class NoAlertmanager(Alerts):
    """For an installation without Alertmanager: `told` gets one line per alert, so that it is not silently lost."""

    def __init__(self, told: Callable[[str], None] = lambda line: None) -> None:
        self._told = told

    def fire(self, alert: Alert) -> None:
        """Say that nobody was alerted."""
        self._told(f"no Alertmanager is configured, nobody was told: {alert.name}: {alert.summary}")

    def resolve(self, alert: Alert) -> None:
        """Nothing fires, so nothing ends."""


def _document(alert: Alert, ends: datetime) -> dict[str, object]:
    labels = {
        "alertname": alert.name,
        "environment": alert.environment,
        "service": alert.service,
        "release": str(alert.release) if alert.release else "",
        "severity": alert.severity,
    }
    return {
        "labels": {name: value for name, value in labels.items() if value},
        "annotations": {
            name: value for name, value in (("summary", alert.summary), ("description", alert.description)) if value
        },
        "generatorURL": alert.link,
        "endsAt": ends.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
    }
