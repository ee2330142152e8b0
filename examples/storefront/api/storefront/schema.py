"""The tables, as numbered steps that run once each, whichever replica comes first.

Two releases use the database at the same time during every deploy, so a step only ever adds: the release before it
must go on working. A column is dropped one release after the last one that reads it.
"""

from __future__ import annotations

from typing import Any

LOCK = 0x53544F5245  # the same for all replicas; any fixed number does

STEPS: tuple[tuple[int, str], ...] = (
    (
        1,
        """
        CREATE TABLE listings (
            id          uuid PRIMARY KEY,
            title       text NOT NULL,
            description text NOT NULL DEFAULT '',
            price_cents integer NOT NULL CHECK (price_cents >= 0),
            photo       text,
            created_at  timestamptz NOT NULL DEFAULT now()
        );
        CREATE INDEX listings_newest ON listings (created_at DESC, id DESC);
        """,
    ),
)


async def migrate(connection: Any) -> int:
    """Bring the schema up to date and return its version. Safe to run from any number of replicas at once."""
    async with connection.transaction():
        # Held until the transaction ends, so the others wait here and then find nothing left to do.
        await connection.execute("SET LOCAL lock_timeout = '5s'")
        await connection.execute("SET LOCAL statement_timeout = '60s'")
        await connection.execute("SELECT pg_advisory_xact_lock($1)", LOCK, timeout=10)
        await connection.execute(
            "CREATE TABLE IF NOT EXISTS schema_steps "
            "(step integer PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())"
        )
        done = {row["step"] for row in await connection.fetch("SELECT step FROM schema_steps")}
        for step, statements in STEPS:
            if step not in done:
                await connection.execute(statements, timeout=60)
                await connection.execute("INSERT INTO schema_steps (step) VALUES ($1)", step)
        return max(done | {step for step, _ in STEPS})
