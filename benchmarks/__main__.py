"""`make bench`: run all benchmarks, or those named: `make bench ARGS="lost_requests deploy_speed"`."""

from __future__ import annotations

import importlib
import signal
import sys
import time

ALL = (
    "backup",
    "definitions_load",
    "blindness",
    "memory",
    "deploy_speed",
    "exporter",
    "idle_cost",
    "kills",
    "lost_requests",
    "strategies",
    "tick",
    "time_to_safety",
    "verdict",
)


def main(names: list[str]) -> int:
    """Run the benchmarks in order. Return 2 when a name is unknown, 1 when one of them missed a limit."""
    unknown = [name for name in names if name not in ALL]
    if unknown:
        print(f"no benchmark is called {', '.join(unknown)}; there are: {', '.join(ALL)}", file=sys.stderr)
        return 2
    # Whoever ends a benchmark wants what it started to be cleared away.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    missed = []
    for name in names or ALL:
        began = time.monotonic()
        module = importlib.import_module(f"benchmarks.{name}")
        print(f"\n== {name}: {(module.__doc__ or '').splitlines()[0]}", flush=True)
        if module.main():
            missed.append(name)
        print(f"   ({time.monotonic() - began:.0f} s)", flush=True)
    if missed:
        print(f"\na limit was missed: {', '.join(missed)}", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
