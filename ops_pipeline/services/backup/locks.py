"""Who may change the sets of an environment: one at a time, be it a backup, a prune or a restore.

The leases of `services/lease.py`, kept in the vault's state (`locks/<environment>/data.json`) because machines that
take backups and machines that prune may share nothing else. A dead holder frees itself after a term.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from ops_pipeline.core.lease import Lease
from ops_pipeline.ports import Progress, Vault
from ops_pipeline.services.lease import HeldLease, acquire, read_lease
from ops_pipeline.services.platform import Platform

FOLDER, DATA = "locks", "data"
TERM_SECONDS = 120.0
HINT = "Nothing that counts was changed: a set exists only once it is whole. Start again."


def lock(
    platform: Platform,
    vault: Vault,
    environment: str,
    *,
    run_id: str,
    reason: str,
    wait_seconds: float = 0.0,
    term_seconds: float = TERM_SECONDS,
    progress: Progress | None = None,
) -> HeldLease:
    """Take the lock of an environment's data; use the result in a `with` statement and `check()` before what counts.

    Raise LeaseHeld naming holder, run, reason and since when; StoreDamaged; Unavailable.
    """
    return acquire(
        replace(platform, store=vault.state),
        environment,
        DATA,
        run_id=run_id,
        reason=reason,
        term_seconds=term_seconds,
        wait_seconds=wait_seconds,
        progress=progress,
        folder=FOLDER,
        hint=HINT,
    )


@contextmanager
def lock_all(
    platform: Platform,
    vault: Vault,
    environments: Sequence[str],
    *,
    run_id: str,
    reason: str,
    wait_seconds: float = 0.0,
    progress: Progress | None = None,
) -> Iterator[tuple[HeldLease, ...]]:
    """The locks of several environments, taken in the order of their names, so that two callers never wait crosswise.

    For what concerns objects that environments share. Raise as `lock`; those taken by then are given back.
    """
    with ExitStack() as stack:
        held = [
            stack.enter_context(
                lock(
                    platform,
                    vault,
                    environment,
                    run_id=run_id,
                    reason=reason,
                    wait_seconds=wait_seconds,
                    progress=progress,
                )
            )
            for environment in sorted(set(environments))
        ]
        yield tuple(held)


def who_holds(platform: Platform, vault: Vault, environment: str) -> Lease | None:
    """The lock's record when somebody holds it now, else None. Raise StoreDamaged, Unavailable."""
    lease = read_lease(replace(platform, store=vault.state), environment, DATA, folder=FOLDER)
    return lease if lease is not None and lease.held(platform.clock.now()) else None
