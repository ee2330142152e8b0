"""Alertmanager in memory."""

from __future__ import annotations

from ops_pipeline.core.alert import Alert
from ops_pipeline.errors import Transient
from ops_pipeline.ports import Alerts


def identity(alert: Alert) -> tuple[str, str, str, int, str]:
    """What makes two alerts one."""
    return alert.name, alert.environment, alert.service, alert.release, alert.severity


class FakeAlerts(Alerts):
    """`firing` is what people see now; `fired` and `resolved` list every call. `down` makes every call fail."""

    def __init__(self) -> None:
        self.firing: dict[tuple[str, str, str, int, str], Alert] = {}
        self.fired: list[Alert] = []
        self.resolved: list[Alert] = []
        self.down = ""

    def fire(self, alert: Alert) -> None:
        self._reach()
        self.fired.append(alert)
        self.firing[identity(alert)] = alert

    def resolve(self, alert: Alert) -> None:
        self._reach()
        self.resolved.append(alert)
        self.firing.pop(identity(alert), None)

    def names(self) -> list[str]:
        """Names of what is firing, sorted."""
        return sorted(alert.name for alert in self.firing.values())

    def _reach(self) -> None:
        if self.down:
            raise Transient(f"Alertmanager does not answer: {self.down}")
