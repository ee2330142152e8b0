"""The process as the image runs it: start, SIGTERM, crash, refusal."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import Awaitable, Callable

import aiohttp
import pytest
from conftest import PASSWORD, Process

Launch = Callable[..., Awaitable[Process]]


async def test_starts_quickly(launch: Launch) -> None:
    began = time.monotonic()
    await launch()
    assert time.monotonic() - began < 5.0


async def test_sigterm_finishes_requests_and_closes_sockets(launch: Launch) -> None:
    running = await launch()
    async with aiohttp.ClientSession(running.url) as client:
        socket = await client.ws_connect("/api/live")
        await socket.receive_json()
        events = await client.get("/api/events")
        assert (await events.content.readuntil(b"\n\n")).startswith(b"retry: 1000\nevent: hello\n")
        # A keep-alive connection, idle when the signal comes.
        async with client.get("/api/version") as answer:
            await answer.read()
        slow = asyncio.create_task(client.get("/api/slow", params={"seconds": "2"}))
        uploading = asyncio.Event()

        async def trickle():  # type: ignore[no-untyped-def]
            yield b"\xff\xd8\xff" + bytes(100)
            uploading.set()
            await asyncio.sleep(1)
            yield bytes(1000)

        upload = asyncio.create_task(client.post("/api/photos", data=trickle()))
        await uploading.wait()
        await asyncio.sleep(0.3)
        began = time.monotonic()
        running.process.send_signal(signal.SIGTERM)
        while (message := await socket.receive(timeout=3)).type is aiohttp.WSMsgType.TEXT:
            pass
        assert message.type is aiohttp.WSMsgType.CLOSE
        assert socket.close_code == 1012
        rest = await asyncio.wait_for(events.content.read(), 3)  # to its proper end
        assert rest.rsplit(b"event: ", 1)[1].startswith(b"bye\n")
        assert time.monotonic() - began < 2.0
        with pytest.raises(aiohttp.ClientConnectorError):
            async with aiohttp.ClientSession() as other:
                await other.get(f"{running.url}/api/version")
        async with await upload as answer:
            assert answer.status == 201
        async with await slow as answer:
            assert (answer.status, answer.headers["Connection"]) == (200, "close")
            assert (await answer.json())["slept"] == 2
    assert await asyncio.wait_for(running.process.wait(), 5) == 0
    assert time.monotonic() - began < 7.0
    lines = [json.loads(line) for line in (await running.output()).splitlines()]
    assert [line["message"] for line in lines][-1] == "stopped"
    assert PASSWORD not in json.dumps(lines)
    assert all(line["request_id"] for line in lines if line["logger"] == "storefront.request")


async def test_grace_has_an_end(launch: Launch) -> None:
    running = await launch(STOP_GRACE_SECONDS="0.5")
    async with aiohttp.ClientSession(running.url) as client:
        slow = asyncio.create_task(client.get("/api/slow", params={"seconds": "20"}))
        await asyncio.sleep(0.3)
        running.process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(running.process.wait(), 15)
        with pytest.raises(aiohttp.ClientError):
            await slow


async def test_crash_after_plays_a_crash(launch: Launch) -> None:
    running = await launch(wait=False, STOREFRONT_FAULTS="crash_after=0.5")
    assert await asyncio.wait_for(running.process.wait(), 15) == 70


@pytest.mark.parametrize(
    "environment",
    [{"DATABASE_PASSWORD_FILE": "/nowhere/at/all"}, {"STOREFRONT_PORT": "x"}, {"STOREFRONT_FAULTS": "nonsense=1"}],
)
async def test_settings_that_cannot_be_used_are_one_line_and_exit_code_two(
    launch: Launch, environment: dict[str, str]
) -> None:
    running = await launch(wait=False, **environment)
    assert await asyncio.wait_for(running.process.wait(), 15) == 2
    (line,) = (await running.output()).splitlines()
    assert json.loads(line)["problems"]
