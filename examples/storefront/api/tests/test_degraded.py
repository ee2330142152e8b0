"""Bad days: a cache or a database that is gone, or worse, hangs."""

from __future__ import annotations

import asyncio
import time
import uuid
from pathlib import Path

from conftest import Stage, Start

from storefront.resilience import State
from storefront.settings import Secret

CHAIR = {"title": "Chair", "price_cents": 4900}


async def timed(stage: Stage, method: str, path: str, **more: object) -> tuple[int, float, str, object]:
    began = time.monotonic()
    async with stage.client.request(method, path, **more) as answer:
        body = await answer.json()
        return answer.status, time.monotonic() - began, answer.headers.get("X-Source", ""), body


async def test_dead_cache_costs_nothing_but_hits(stage: Stage) -> None:
    _, _, _, listing = await timed(stage, "POST", "/api/listings", json=CHAIR)
    await stage.cache.cut()
    await stage.until_status("degraded")
    for _ in range(5):
        status, seconds, source, body = await timed(stage, "GET", f"/api/listings/{listing['id']}")
        assert (status, source, body) == (200, "database", listing)
    assert seconds < 0.8
    status, *_ = await timed(stage, "POST", "/api/listings", json=CHAIR)
    assert status == 201
    await stage.cache.open()
    await stage.until_status("ready")


async def test_hanging_cache_is_given_up_quickly(stage: Stage) -> None:
    _, _, _, listing = await timed(stage, "POST", "/api/listings", json=CHAIR)
    stage.cache.stall()
    await stage.until_status("degraded")
    times = []
    for _ in range(10):
        status, seconds, *_ = await timed(stage, "GET", f"/api/listings/{listing['id']}")
        times.append(seconds)
        assert status == 200
    assert max(times) < 2.0
    assert sorted(times)[5] < 0.2
    stage.cache.flow()
    await stage.until_status("ready")


async def test_dead_database_reads_from_copies_and_refuses_writes_at_once(stage: Stage) -> None:
    _, _, _, listing = await timed(stage, "POST", "/api/listings", json=CHAIR)
    await asyncio.gather(stage.database.cut(), stage.cache.cut())
    await stage.until_status("degraded")
    status, _, source, body = await timed(stage, "GET", "/api/listings")
    assert (status, source, body["degraded"]) == (200, "copy", True)
    assert body["listings"] == [listing]
    status, _, source, body = await timed(stage, "GET", f"/api/listings/{listing['id']}")
    assert (status, source, body) == (200, "copy", listing)
    status, *_ = await timed(stage, "GET", f"/api/listings/{uuid.uuid4()}")
    assert status == 503
    for _ in range(4):
        status, seconds, _, body = await timed(stage, "POST", "/api/listings", json=CHAIR)
        assert status == 503
    assert seconds < 0.8
    async with stage.client.get("/health/live") as answer:
        assert answer.status == 200
    async with stage.client.get("/health/ready") as answer:
        assert answer.status == 200
    async with stage.client.post("/api/listings", json=CHAIR) as answer:
        assert int(answer.headers["Retry-After"]) >= 1
    await asyncio.gather(stage.database.open(), stage.cache.open())
    await stage.until_status("ready")
    status, *_ = await timed(stage, "POST", "/api/listings", json=CHAIR)
    assert status == 201


async def test_hanging_database_under_load_keeps_answering(stage: Stage) -> None:
    stage.database.stall()
    answers = await asyncio.gather(*(timed(stage, "POST", "/api/listings", json=CHAIR) for _ in range(40)))
    assert {status for status, *_ in answers} == {503}
    assert max(seconds for _, seconds, *_ in answers) < 9.0
    reads = await asyncio.gather(*(timed(stage, "GET", "/api/listings") for _ in range(20)))
    assert {(status, source) for status, _, source, _ in reads} == {(200, "copy")}
    assert sorted(seconds for _, seconds, *_ in reads)[10] < 1.0
    _, seconds, *_ = await timed(stage, "GET", "/api/version")
    assert seconds < 0.8
    stage.database.flow()
    await stage.until_status("ready")
    status, *_ = await timed(stage, "POST", "/api/listings", json=CHAIR)
    assert status == 201


async def test_a_crowd_waits_for_connections_without_tripping_the_breaker(start: Start) -> None:
    stage = await start(database_pool=1)
    answers = await asyncio.gather(*(timed(stage, "POST", "/api/listings", json=CHAIR) for _ in range(200)))
    assert {status for status, *_ in answers} <= {201, 503}
    assert stage.api.database.breaker.state is State.CLOSED


async def test_connections_broken_between_requests_are_not_seen_by_users(stage: Stage) -> None:
    for _ in range(3):
        await stage.database.cut()
        await stage.database.open()
        status, *_ = await timed(stage, "POST", "/api/listings", json=CHAIR)
        assert status == 201


async def test_never_ready_without_having_reached_the_database_once(start: Start) -> None:
    stage = await start(wait=False, database_port=1)
    await asyncio.sleep(1.5)
    assert await stage.status() == "not ready"
    async with stage.client.get("/health/live") as answer:
        assert answer.status == 200
    status, *_ = await timed(stage, "GET", "/api/listings")
    assert status == 503


async def test_never_ready_with_a_wrong_password(start: Start, tmp_path: Path) -> None:
    stage = await start(wait=False, database_password=Secret("DATABASE_PASSWORD", tmp_path / "none", "wrong"))
    await asyncio.sleep(1.5)
    assert await stage.status() == "not ready"


async def test_missing_volume_is_said_and_listings_go_on(stage: Stage) -> None:
    stage.api.settings.photos.rmdir()
    status, *_ = await timed(stage, "POST", "/api/photos", data=b"\xff\xd8\xff" + bytes(100))
    assert status == 507
    await stage.until_status("degraded")
    status, *_ = await timed(stage, "POST", "/api/listings", json=CHAIR)
    assert status == 201
