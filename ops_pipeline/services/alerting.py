"""Telling people. Failing to do so is said in the progress and never fails the work."""

from __future__ import annotations

from ops_pipeline.core.alert import Alert
from ops_pipeline.errors import OpsError
from ops_pipeline.ports import Progress
from ops_pipeline.services.platform import Platform


def tell(platform: Platform, alert: Alert, progress: Progress) -> bool:
    """Fire or refresh an alert and return whether it got out. Never raises for a failure outside."""
    try:
        platform.alerts.fire(alert)
    except OpsError as error:
        progress(f"nobody could be alerted of {alert.name} ({alert.summary}): {error.message}")
        return False
    return True


def settle(platform: Platform, alert: Alert, progress: Progress) -> bool:
    """End an alert and return whether that got out; it ends by itself otherwise. Never raises for a failure outside."""
    try:
        platform.alerts.resolve(alert)
    except OpsError as error:
        progress(f"the alert {alert.name} could not be ended and ends by itself: {error.message}")
        return False
    return True
