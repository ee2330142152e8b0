"""The API with everything it needs: what users see on a good day."""

from __future__ import annotations

import asyncio
import hashlib
import json
import uuid
from pathlib import Path

import aiohttp
import pytest
from conftest import PNG, Stage, Start, connect

CHAIR = {"title": "Chair", "description": "Oak, four legs", "price_cents": 4900}


async def test_listings_are_added_shown_and_paged(stage: Stage) -> None:
    ids = []
    for number in range(3):
        async with stage.client.post("/api/listings", json={**CHAIR, "title": f"Chair {number}"}) as answer:
            assert answer.status == 201
            listing = await answer.json()
            assert answer.headers["Location"] == f"/api/listings/{listing['id']}"
            ids.append(listing["id"])
    async with stage.client.get("/api/listings") as answer:
        assert [item["title"] for item in (await answer.json())["listings"]] == ["Chair 2", "Chair 1", "Chair 0"]
    async with stage.client.get("/api/listings", params={"limit": 1, "before": ids[2]}) as answer:
        assert [item["id"] for item in (await answer.json())["listings"]] == [ids[1]]


async def test_reading_one_goes_through_the_cache(stage: Stage) -> None:
    async with stage.client.post("/api/listings", json=CHAIR) as answer:
        listing = await answer.json()
    async with stage.client.get(f"/api/listings/{listing['id']}") as answer:
        assert (await answer.json(), answer.headers["X-Source"]) == (listing, "cache")
    for missing in (uuid.uuid4(), "nonsense"):
        async with stage.client.get(f"/api/listings/{missing}") as answer:
            assert answer.status == 404


async def test_idempotency_key_makes_one_listing(stage: Stage) -> None:
    headers = {"Idempotency-Key": uuid.uuid4().hex}
    found = []
    for _ in range(2):
        async with stage.client.post("/api/listings", json=CHAIR, headers=headers) as answer:
            found.append((answer.status, (await answer.json())["id"]))
    assert found == [(201, found[0][1]), (200, found[0][1])]
    async with stage.client.post("/api/listings", json={**CHAIR, "title": "Table"}, headers=headers) as answer:
        assert answer.status == 409


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"{", 400), (b"[]", 422), (b"\xff\xfe", 400), (b'{"title": "x"}', 422), (b"[" * 60000, 400), (b" " * 70000, 413)],
)
async def test_bad_bodies_are_refused_with_a_reason(stage: Stage, body: bytes, status: int) -> None:
    async with stage.client.post("/api/listings", data=body) as answer:
        assert answer.status == status
        assert (await answer.json())["error"]


async def test_photo_raw_and_as_form_have_one_name(stage: Stage) -> None:
    name = hashlib.sha256(PNG).hexdigest() + ".png"
    async with stage.client.post("/api/photos", data=PNG, headers={"Content-Type": "image/png"}) as answer:
        assert (answer.status, (await answer.json())["photo"]) == (201, name)
    form = aiohttp.FormData()
    form.add_field("note", "first field")
    form.add_field("photo", PNG, filename="../../x.png", content_type="image/png")
    async with stage.client.post("/api/photos", data=form) as answer:
        assert (answer.status, (await answer.json())["photo"]) == (200, name)
    async with stage.client.get(f"/api/photos/{name}") as answer:
        assert await answer.read() == PNG
        assert answer.headers["Content-Type"] == "image/png"
        assert "immutable" in answer.headers["Cache-Control"]
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
    async with stage.client.post("/api/listings", json={**CHAIR, "photo": name}) as answer:
        assert (await answer.json())["photo_url"] == f"/api/photos/{name}"


async def test_photos_that_are_none_leave_nothing_behind(stage: Stage, settings: object) -> None:
    folder: Path = stage.api.settings.photos
    for data, status in (
        (b"<svg onload='alert(1)'>", 415),
        (b"\x89PN", 415),
        (b"", 415),
        (b"\xff\xd8\xff" + bytes(300_000), 413),
    ):
        async with stage.client.post("/api/photos", data=data, headers={"Content-Type": "image/png"}) as answer:
            assert answer.status == status
    async with stage.client.post("/api/photos", data={"other": "x"}) as answer:
        assert answer.status in (400, 415)
    async with stage.client.post("/api/listings", json={**CHAIR, "photo": "0" * 64 + ".png"}) as answer:
        assert answer.status == 422
    for name in ("%2e%2e%2fsecret", "0" * 64 + ".png", ".upload-x"):
        async with stage.client.get(f"/api/photos/{name}") as answer:
            assert answer.status == 404
    assert list(folder.iterdir()) == []


async def test_request_ids_are_taken_or_made(stage: Stage) -> None:
    async with stage.client.get("/api/version", headers={"X-Request-Id": "given-1"}) as answer:
        assert answer.headers["X-Request-Id"] == "given-1"
    for bad in ("no spaces please", "x" * 65, "a\u00e9"):
        async with stage.client.get("/api/version", headers={"X-Request-Id": bad}) as answer:
            assert answer.headers["X-Request-Id"] not in ("", bad)
    async with stage.client.get("/nowhere") as answer:
        assert answer.status == 404
        assert (await answer.json())["request_id"] == answer.headers["X-Request-Id"]


async def test_version_slow_methods_and_probes(stage: Stage) -> None:
    async with stage.client.get("/api/version") as answer:
        body = await answer.json()
        assert (body["version"], body["commit"], body["release"]) == ("1.2.3", "abc1234", None)
    async with stage.client.get("/api/slow", params={"seconds": "0.05"}) as answer:
        assert (await answer.json())["slept"] == 0.05
    for seconds in ("31", "-1", "nan", "x"):
        async with stage.client.get("/api/slow", params={"seconds": seconds}) as answer:
            assert answer.status == 400
    async with stage.client.delete("/api/listings") as answer:
        assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD, POST")
    for path in ("/health/live", "/health/ready", "/api/health/ready"):
        async with stage.client.get(path) as answer:
            assert answer.status == 200


async def test_metrics_count_requests_by_route_not_by_path(stage: Stage) -> None:
    for path in ("/api/listings/1", "/api/listings/2", "/made/up", "/made/up/too"):
        async with stage.client.get(path):
            pass
    async with stage.client.get("/metrics") as answer:
        text = await answer.text()
    assert 'http_requests_total{method="GET",route="/api/listings/{id}",status="404"} 2.0' in text
    assert 'http_requests_total{method="any",route="unmatched",status="404"} 2.0' in text
    assert "made/up" not in text
    assert 'http_request_duration_seconds_bucket{le="2.0",method="GET",route="/api/listings/{id}"} 2.0' in text
    assert 'storefront_build_info{commit="abc1234",version="1.2.3"} 1.0' in text


async def test_live_says_hello_echoes_ticks_and_tells_of_listings(stage: Stage) -> None:
    async with stage.client.ws_connect("/api/live") as socket:
        assert (await socket.receive_json())["type"] == "hello"
        await socket.send_str("hi")
        async with stage.client.post("/api/listings", json=CHAIR):
            pass
        seen: dict[str, dict[str, object]] = {}
        while seen.keys() != {"echo", "listing", "tick"}:
            message = await socket.receive_json(timeout=5)
            seen[message["type"]] = message
        assert seen["echo"]["text"] == "hi"
        assert seen["tick"]["version"] == "1.2.3"


async def test_events_say_hello_tick_and_tell_of_listings(stage: Stage) -> None:
    async with stage.client.get("/api/events") as answer:
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        async with stage.client.post("/api/listings", json=CHAIR) as added:
            listing = await added.json()
        seen: dict[str, dict[str, object]] = {}
        while seen.keys() != {"hello", "listing", "tick"}:
            lines = (await asyncio.wait_for(answer.content.readuntil(b"\n\n"), 5)).decode().splitlines()
            fields = dict(line.split(": ", 1) for line in lines if line)
            seen[fields["event"]] = json.loads(fields["data"])
        assert seen["listing"] == listing
        assert seen["hello"]["version"] == seen["tick"]["version"] == "1.2.3"
    async with stage.client.get("/metrics") as answer:
        assert "event_streams" in await answer.text()


async def test_a_photo_of_five_megabytes_goes_up_and_comes_back(start: Start) -> None:
    stage = await start(photo_max_bytes=5 * 1024 * 1024)
    photo = b"\xff\xd8\xff" + bytes(5 * 1024 * 1024 - 3)
    async with stage.client.post("/api/photos", data=photo) as answer:
        stored = await answer.json()
        assert (answer.status, stored["bytes"]) == (201, len(photo))
    async with stage.client.get(stored["url"]) as answer:
        assert await answer.read() == photo
    async with stage.client.post("/api/photos", data=photo + b"x") as answer:
        assert answer.status == 413


async def test_many_replicas_starting_at_once_make_one_schema(start: Start, postgres: int) -> None:
    stages = await asyncio.gather(*(start() for _ in range(5)))
    assert all(stage.api.health.schema == 1 for stage in stages)
    connection = await connect(postgres)
    assert await connection.fetchval("SELECT count(*) FROM schema_steps") == 1
    await connection.close()


async def test_faults_cannot_be_reached_unless_set(stage: Stage) -> None:
    async with stage.client.put("/api/faults", json={"error_rate": 1}) as answer:
        assert answer.status == 404
    async with stage.client.get("/api/version") as answer:
        assert answer.status == 200


async def test_faults_strike_when_set_and_switch_at_run_time(start: Start) -> None:
    stage = await start(faults="error_rate=1")
    async with stage.client.get("/api/version") as answer:
        assert answer.status == 500
    assert await stage.status() == "ready"
    async with stage.client.put("/api/faults", json={"fail_health": 1}) as answer:
        assert json.loads(await answer.text())["error_rate"] == 0
    assert await stage.status() == "not ready"
    async with stage.client.put("/api/faults", json={"bug": 1}) as answer:
        assert answer.status == 422
    async with stage.client.delete("/api/faults") as answer:
        assert answer.status == 200
    assert await stage.status() == "ready"
