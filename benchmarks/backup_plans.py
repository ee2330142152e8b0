"""A retention plan over 100,000 sets and the listing of a month, against their limits in seconds."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

from ops_pipeline.core.backup.retention import Candidate, Keep, plan

SETS = 100_000


def plans() -> bool:
    """Print both; return whether they hold."""
    now = datetime(2026, 11, 21, tzinfo=UTC)
    sets = [Candidate(f"{number:026d}", now - timedelta(hours=6 * (SETS - number))) for number in range(SETS)]
    began = time.process_time()
    made = plan(sets, Keep(keep_days=30, daily=60, weekly=20, monthly=24), now)
    seconds = time.process_time() - began
    print(f"   retention plan over {SETS} sets: {seconds:.2f} s (limit 2 s), {len(made.kept)} kept", flush=True)
    return seconds <= 2
