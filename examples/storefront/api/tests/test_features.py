"""Feature flags through OpenFeature's SDK: shares, hot reload, and what happens without a file."""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import pytest
from conftest import Start

from storefront.badges import badge_of
from storefront.features import BADGES, COOKIE, Features

FILES = Path(__file__).parent / "flags"  # as the control plane renders them: its tests hold them equal
VISITORS = [f"{number:032x}" for number in range(10_000)]


def publish(share: str, file: Path) -> None:
    """Put a file of flags in place as the control plane does: a reader sees the old one or the new one."""
    shutil.copy(FILES / f"{share}.json", file.with_name("next"))
    file.with_name("next").touch()
    file.with_name("next").rename(file)


def until(condition: object, seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.02)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "flags.json"


@pytest.fixture
def features(file: Path) -> Iterator[Features]:
    made = Features(file)
    yield made
    made.close()


def members(file: Path, share: str) -> set[str]:
    publish(share, file)
    features = Features(file)
    features.start()
    found = {visitor for visitor in VISITORS if features.on(BADGES, visitor)}
    features.close()
    return found


def test_shares_are_right_stable_and_only_grow(file: Path) -> None:
    groups = {share: members(file, share) for share in ("0", "1", "10", "50", "100")}
    assert (len(groups["0"]), len(groups["100"])) == (0, len(VISITORS))
    for share, tolerated in (("1", 50), ("10", 150), ("50", 250)):  # five standard deviations
        assert abs(len(groups[share]) - 100 * int(share)) < tolerated
    assert groups["1"] < groups["10"] < groups["50"] < groups["100"]
    assert members(file, "10") == groups["10"]


def test_without_a_file_all_is_off_and_one_that_comes_is_read(
    features: Features, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    features.start()
    assert features.of(VISITORS[0]) == ()
    time.sleep(1.2)
    assert features.of(VISITORS[0]) == ()
    assert [record.name for record in caplog.records] == ["storefront.features"]
    publish("100", file)
    until(lambda: features.of(VISITORS[0]) == (BADGES,))


def test_a_file_that_changes_is_read_again_and_a_damaged_or_missing_one_changes_nothing(
    features: Features, file: Path
) -> None:
    publish("100", file)
    features.start()
    assert features.on(BADGES, VISITORS[0])
    publish("0", file)
    until(lambda: not features.on(BADGES, VISITORS[0]))
    publish("100", file)
    until(lambda: features.on(BADGES, VISITORS[0]))
    file.write_text("{")
    time.sleep(0.8)
    assert features.on(BADGES, VISITORS[0])
    file.unlink()
    time.sleep(0.8)
    assert features.on(BADGES, VISITORS[0])
    publish("0", file)
    until(lambda: not features.on(BADGES, VISITORS[0]))


def test_a_flag_nobody_declared_is_off(features: Features, file: Path) -> None:
    file.write_text(json.dumps({"flags": {}}))
    features.start()
    assert not features.on(BADGES, VISITORS[0])


@pytest.mark.parametrize(
    ("cents", "hours", "badge"), [(999, 0, "bargain"), (999, 48, "bargain"), (1000, 23, "new"), (1000, 25, None)]
)
def test_badges(cents: int, hours: int, badge: str | None) -> None:
    now = datetime.now(UTC)
    listing = {"price_cents": cents, "created_at": (now - timedelta(hours=hours)).isoformat()}
    assert badge_of(listing, now) == badge


async def test_a_visitor_keeps_what_it_has_seen(start: Start, file: Path) -> None:
    publish("50", file)
    stage = await start(flags=file)
    async with stage.client.post("/api/listings", json={"title": "Lamp", "price_cents": 900}) as answer:
        assert "badge" not in await answer.json()
    seen = set()
    for _ in range(40):
        async with aiohttp.ClientSession(stage.url, cookie_jar=aiohttp.CookieJar(unsafe=True)) as browser:
            async with browser.get("/api/listings") as answer:
                first = (await answer.json())["listings"][0]
                assert answer.cookies[COOKIE]["httponly"]
                on = answer.headers.get("X-Features") == BADGES
                assert first.get("badge") == ("bargain" if on else None)
            for path in ("/api/listings", f"/api/listings/{first['id']}"):
                async with browser.get(path) as answer:
                    assert (answer.headers.get("X-Features") == BADGES) == on
                    assert COOKIE not in answer.cookies
            async with browser.get("/api/features") as answer:
                assert await answer.json() == {BADGES: on}
            seen.add(on)
    assert seen == {True, False}


async def test_without_the_flag_answers_are_what_they_were(start: Start, file: Path) -> None:
    stage = await start(flags=file)
    async with stage.client.post("/api/listings", json={"title": "Lamp", "price_cents": 900}) as answer:
        listing = await answer.json()
    async with stage.client.get("/api/listings") as answer:
        assert await answer.json() == {"listings": [listing], "degraded": False}
        assert "X-Features" not in answer.headers
    async with stage.client.get("/api/features") as answer:
        assert await answer.json() == {BADGES: False}


async def test_a_fault_of_the_feature_ends_with_the_feature(start: Start, file: Path) -> None:
    publish("100", file)
    stage = await start(flags=file, faults="error_rate=1,with_flag=1")

    async def status() -> int:
        async with stage.client.get("/api/listings") as answer:
            return answer.status

    assert await status() == 500
    publish("0", file)
    end = time.monotonic() + 5
    while await status() != 200:
        assert time.monotonic() < end
        await asyncio.sleep(0.05)
