"""The process that sends the load; `load.py` starts it and talks with it by lines."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import Awaitable, Callable

from ops_pipeline_tests.testbed.load import LoadPlan
from ops_pipeline_tests.testbed.load_counts import Counts, Lost
from ops_pipeline_tests.testbed.load_http import Connection
from ops_pipeline_tests.testbed.load_streams import events, websocket


async def _client(plan: LoadPlan, number: int, counts: Counts, stop: asyncio.Event) -> None:
    connection = Connection(plan, f"ops-load/{number}", number)
    period = plan.clients / plan.rate
    due = time.monotonic() + period * number / plan.clients
    turn = number
    while True:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), max(0.0, due - time.monotonic()))
        if stop.is_set():
            connection.close()
            return
        due = max(due + period, time.monotonic() - period)
        turn += 1
        post = bool(plan.post_path) and turn % 2 == 0
        kind, path, body = ("post", plan.post_path, plan.post_body.encode()) if post else ("get", plan.get_path, b"")
        begin = time.monotonic()
        try:
            release = await connection.request(kind.upper(), path, body, plan.timeout)
            counts.good(kind, release, time.monotonic() - begin)
        except Lost as error:
            counts.failed(kind, error)


async def _every(seconds: float, stop: asyncio.Event, start: Callable[[int], Awaitable[None]]) -> None:
    running: set[asyncio.Future[None]] = set()
    number = 0
    while not stop.is_set():
        task = asyncio.ensure_future(start(number))
        number += 1
        running.add(task)
        task.add_done_callback(running.discard)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), seconds)
    if running:
        await asyncio.wait(running)


def _tasks(plan: LoadPlan, counts: Counts, stop: asyncio.Event) -> list[Awaitable[None]]:
    async def once(kind: str, number: int, method: str, path: str, body: bytes, seconds: float = 0.0) -> None:
        connection = Connection(plan, f"ops-load/{kind}{number}", number)
        try:
            counts.good(kind, await connection.request(method, path, body, plan.slow_timeout, seconds))
        except Lost as error:
            counts.failed(kind, error)
        connection.close()

    tasks: list[Awaitable[None]] = [_client(plan, number, counts, stop) for number in range(plan.clients)]
    if plan.slow_path and plan.slow_rate:
        tasks.append(_every(1 / plan.slow_rate, stop, lambda number: once("slow", number, "GET", plan.slow_path, b"")))
    if plan.upload_path and plan.upload_rate:
        body = b"u" * plan.upload_bytes
        tasks.append(
            _every(
                1 / plan.upload_rate,
                stop,
                lambda number: once("upload", number, "POST", plan.upload_path, body, plan.upload_seconds),
            )
        )
    if plan.websocket_path:
        tasks += [websocket(plan, number, counts, stop) for number in range(plan.websockets)]
    if plan.events_path:
        tasks += [events(plan, number, counts, stop) for number in range(plan.event_streams)]
    return tasks


async def main(plan: LoadPlan) -> None:
    """Send until standard input ends; answer every line with a report."""
    stop, counts = asyncio.Event(), Counts(plan)
    running = [asyncio.ensure_future(task) for task in _tasks(plan, counts, stop)]
    commands = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    await asyncio.sleep(0.3)
    print(counts.show(), flush=True)
    while line := await commands.readline():
        word, *releases = line.decode().split()
        if word == "bad":
            counts.bad_releases |= set(releases)
        print(counts.show(), flush=True)
    stop.set()
    await asyncio.wait(running, timeout=plan.slow_timeout + 10)
    for task in running:
        if not task.done():
            counts.failed("stuck", Lost("did not end"))
        elif (error := task.exception()) is not None:
            counts.failed("load generator", Lost(repr(error)))
    print(counts.show(), flush=True)


if __name__ == "__main__":
    asyncio.run(main(LoadPlan(**json.loads(sys.argv[1]))))
