"""Trouble on demand, for demonstrations: off unless STOREFRONT_FAULTS is set.

`STOREFRONT_FAULTS="error_rate=0.1,latency=0.5"` starts with these faults, `STOREFRONT_FAULTS=on` with none; either way
`PUT /api/faults` changes them while running. Without the variable there is no way to switch anything on.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields

log = logging.getLogger("storefront.faults")

_HIGHEST = {
    "error_rate": 1.0,
    "latency": 60.0,
    "fail_health": 1.0,
    "crash_after": 86400.0,
    "after": 86400.0,
    "with_flag": 1.0,
}


class BadFaults(Exception):
    """Names every fault that cannot be used."""


@dataclass(frozen=True)
class Faults:
    """error_rate: share of requests answered 500; latency: seconds added to each; fail_health: never ready;
    crash_after: seconds until the process dies (0 = never). Both first ones wait until `after` seconds have passed
    since the first user's request, and with `with_flag` they only meet visitors for whom the flagged feature is on."""

    error_rate: float = 0.0
    latency: float = 0.0
    fail_health: float = 0.0
    crash_after: float = 0.0
    after: float = 0.0
    with_flag: float = 0.0


def parse(text: str) -> Faults:
    """Faults from `name=value,…`, or `on`. Raises BadFaults."""
    text = text.strip()
    if text.lower() in {"", "on", "1", "true"}:
        return Faults()
    pairs = [part.partition("=") for part in text.split(",") if part.strip()]
    return from_mapping({name.strip(): value.strip() for name, _, value in pairs})


def from_mapping(values: Mapping[str, object]) -> Faults:
    """Faults from names and values. Raises BadFaults with all problems."""
    known = {field.name for field in fields(Faults)}
    problems, found = [], {}
    for name, value in values.items():
        if name not in known:
            problems.append(f"{name}: unknown, one of {', '.join(sorted(known))}")
            continue
        try:
            number = float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            number = -1.0
        if 0 <= number <= _HIGHEST[name]:
            found[name] = number
        else:
            problems.append(f"{name}: must be a number from 0 to {_HIGHEST[name]:g}")
    if problems:
        raise BadFaults("; ".join(problems))
    return Faults(**found)


def _die() -> None:
    os._exit(70)  # no clean-up: this plays a crash


class FaultSwitch:
    """The faults in force. `enabled` is decided once, at start."""

    def __init__(
        self,
        setting: str | None,
        *,
        chance: Callable[[], float] = random.random,
        die: Callable[[], None] = _die,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.enabled = setting is not None
        self.now = parse(setting) if setting is not None else Faults()
        self._chance = chance
        self._die = die
        self._clock = clock
        self._first: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Arm the crash timer. Call with the event loop running."""
        self.switch(self.now)

    def switch(self, faults: Faults) -> None:
        """Put other faults in force."""
        if not self.enabled:
            return
        self.now = faults
        self._first = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if faults.crash_after:
            self._timer = asyncio.get_running_loop().call_later(faults.crash_after, self._crash)
        log.warning("fault switch", extra={"faults": asdict(faults)})

    async def strike(self, flagged: Callable[[], bool]) -> bool:
        """Wait the added latency; true when this request is to fail.

        `flagged` tells whether the flagged feature is on for whoever asks.
        """
        faults = self.now
        if self._first is None:
            self._first = self._clock()
        if self._clock() - self._first < faults.after or (faults.with_flag and not flagged()):
            return False
        if faults.latency:
            await asyncio.sleep(faults.latency)
        return bool(faults.error_rate) and self._chance() < faults.error_rate

    def _crash(self) -> None:
        log.critical("crashing, as the fault switch says")
        self._die()
