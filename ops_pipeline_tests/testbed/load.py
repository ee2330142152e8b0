"""Steady mixed load that counts every lost request. Runs as its own process and never retries anything.

    with Load(LoadPlan(port=8080)) as load:
        ...
    report = load.report
    assert report.lost == 0, report

A request counts as lost when it could not be connected, was written and not answered, or was answered with anything
but 2xx. A connection closed while it was idle, noticed before the next request is written, is no loss. A WebSocket
closed by a close frame is fine; one that just ends is lost. Raw sockets on purpose: HTTP libraries retry silently.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import struct
import subprocess
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any


@dataclass(frozen=True)
class LoadPlan:
    """What to send. Rates are totals per second; an empty path or a zero switches a kind off."""

    port: int
    host: str = "127.0.0.1"
    host_header: str = "localhost"
    get_path: str = "/load"
    post_path: str = "/load"
    post_body: str = '{"text":"a request that must not be sent twice"}'
    clients: int = 60
    rate: float = 200.0
    slow_path: str = "/slow?seconds=5"
    slow_rate: float = 1.0
    slow_timeout: float = 20.0
    websocket_path: str = "/ws"
    websockets: int = 5
    upload_path: str = ""
    upload_rate: float = 0.5
    upload_bytes: int = 1_000_000
    timeout: float = 10.0
    release_header: str = "x-release"
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class LoadReport:
    """What happened. `ok` and `lost` count by kind: get, post, slow, websocket, upload."""

    seconds: float = 0.0
    ok: dict[str, int] = field(default_factory=dict)
    lost: dict[str, int] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    releases: dict[str, int] = field(default_factory=dict)
    websocket_closes: dict[str, int] = field(default_factory=dict)
    longest_gap: float = 0.0
    p50_ms: float = 0.0
    p95_ms: float = 0.0
    max_ms: float = 0.0

    @property
    def total_ok(self) -> int:
        return sum(self.ok.values())

    @property
    def total_lost(self) -> int:
        return sum(self.lost.values())

    def __str__(self) -> str:
        first = "".join(f"\n  {error}" for error in self.errors[:5])
        return (
            f"{self.total_lost} lost of {self.total_ok + self.total_lost} in {self.seconds:.1f} s "
            f"(ok {self.ok}, lost {self.lost}; by release {self.releases}; WebSocket closes {self.websocket_closes}; "
            f"longest gap {self.longest_gap * 1000:.0f} ms, p50 {self.p50_ms:.1f} ms, p95 {self.p95_ms:.1f} ms, "
            f"max {self.max_ms:.0f} ms){first}"
        )


class Load:
    """The load process, seen from the test: start, look, stop. A context manager."""

    def __init__(self, plan: LoadPlan) -> None:
        self.plan = plan
        self.report = LoadReport()
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> Load:
        """Start and return once the first requests are under way."""
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__)), json.dumps(asdict(self.plan))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._read()
        return self

    def snapshot(self) -> LoadReport:
        """Counts up to now; the load goes on."""
        assert self._process is not None and self._process.stdin is not None
        self._process.stdin.write("report\n")
        self._process.stdin.flush()
        return self._read()

    def stop(self) -> LoadReport:
        """Send nothing new, wait for what is under way, return the final counts. May be called twice."""
        if self._process is not None:
            process, self._process = self._process, None
            assert process.stdin is not None and process.stdout is not None
            try:
                process.stdin.close()
                self.report = LoadReport(**json.loads(process.stdout.readline()))
                process.wait(timeout=10)
            finally:
                if process.poll() is None:
                    process.kill()
                    process.wait()
                process.stdout.close()
        return self.report

    def _read(self) -> LoadReport:
        assert self._process is not None and self._process.stdout is not None
        return LoadReport(**json.loads(self._process.stdout.readline()))

    def __enter__(self) -> Load:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class _Lost(Exception):
    """A request that did not get its answer."""


class _Counts:
    def __init__(self) -> None:
        self.begin = time.monotonic()
        self.last_ok = self.begin
        self.report = LoadReport()
        self.ok: Counter[str] = Counter()
        self.lost: Counter[str] = Counter()
        self.releases: Counter[str] = Counter()
        self.closes: Counter[str] = Counter()
        self.durations: list[float] = []

    def good(self, kind: str, release: str = "", seconds: float | None = None) -> None:
        self.ok[kind] += 1
        if release:
            self.releases[release] += 1
        if seconds is not None:
            now = time.monotonic()
            self.report.longest_gap = max(self.report.longest_gap, now - self.last_ok)
            self.last_ok = now
            self.durations.append(seconds)

    def bad(self, kind: str, error: object) -> None:
        self.lost[kind] += 1
        if len(self.report.errors) < 20:
            self.report.errors.append(f"{time.monotonic() - self.begin:.2f} s: {kind}: {error}")

    def show(self) -> str:
        report = self.report
        report.seconds = time.monotonic() - self.begin
        report.ok, report.lost = dict(self.ok), dict(self.lost)
        report.releases, report.websocket_closes = dict(self.releases), dict(self.closes)
        ordered = sorted(self.durations)
        if ordered:
            report.p50_ms = ordered[len(ordered) // 2] * 1000
            report.p95_ms = ordered[int(len(ordered) * 0.95)] * 1000
            report.max_ms = ordered[-1] * 1000
        return json.dumps(asdict(report))


class _Connection:
    """One keep-alive connection that is opened when there is none."""

    def __init__(self, plan: LoadPlan, agent: str) -> None:
        self.plan = plan
        self.agent = agent
        self.reader: asyncio.StreamReader | None = None
        self.writer: asyncio.StreamWriter | None = None

    async def request(self, method: str, path: str, body: bytes, timeout: float) -> str:
        """Send once; return the release that answered. Raise _Lost."""
        try:
            return await asyncio.wait_for(self._request(method, path, body), timeout)
        except TimeoutError:
            self.close()
            raise _Lost(f"no answer within {timeout} s") from None
        except (OSError, asyncio.IncompleteReadError, ValueError) as error:
            self.close()
            raise _Lost(f"{type(error).__name__}: {error}") from None

    async def _request(self, method: str, path: str, body: bytes) -> str:
        if self.reader is None or self.reader.at_eof() or self.writer is None or self.writer.is_closing():
            self.close()
            self.reader, self.writer = await asyncio.open_connection(self.plan.host, self.plan.port)
        extra = "".join(f"{name}: {value}\r\n" for name, value in self.plan.headers.items())
        length = f"Content-Length: {len(body)}\r\nContent-Type: application/json\r\n" if method == "POST" else ""
        head = f"{method} {path} HTTP/1.1\r\nHost: {self.plan.host_header}\r\nUser-Agent: {self.agent}\r\n"
        self.writer.write(f"{head}{length}{extra}\r\n".encode() + body)
        status, headers = await read_head(self.reader)
        await read_rest(self.reader, headers)
        if headers.get("connection", "").lower() == "close":
            self.close()
        if not 200 <= status < 300:
            raise _Lost(f"answered {status}")
        return headers.get(self.plan.release_header, "")

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()
        self.reader = self.writer = None


async def read_head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    """Status and headers (lower-case names) of an answer."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {}
    for line in head[1:]:
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    return int(head[0].split(" ")[1]), headers


async def read_rest(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
    """Body of an answer."""
    if "chunked" in headers.get("transfer-encoding", "").lower():
        body = b""
        while size := int((await reader.readline()).split(b";")[0], 16):
            body += await reader.readexactly(size)
            await reader.readexactly(2)
        await reader.readline()
        return body
    if "content-length" in headers:
        return await reader.readexactly(int(headers["content-length"]))
    return await reader.read()


async def _client(plan: LoadPlan, number: int, counts: _Counts, stop: asyncio.Event) -> None:
    connection = _Connection(plan, f"ops-load/{number}")
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
        except _Lost as error:
            counts.bad(kind, error)


async def _once(
    plan: LoadPlan, kind: str, method: str, path: str, body: bytes, timeout: float, counts: _Counts
) -> None:
    connection = _Connection(plan, f"ops-load/{kind}")
    try:
        counts.good(kind, await connection.request(method, path, body, timeout))
    except _Lost as error:
        counts.bad(kind, error)
    connection.close()


async def _every(seconds: float, stop: asyncio.Event, start: Any) -> None:
    running: set[asyncio.Task[None]] = set()
    while not stop.is_set():
        task = asyncio.ensure_future(start())
        running.add(task)
        task.add_done_callback(running.discard)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), seconds)
    if running:
        await asyncio.wait(running)


def _masked(opcode: int, payload: bytes) -> bytes:
    mask = os.urandom(4)
    return bytes([0x80 | opcode, 0x80 | len(payload)]) + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(payload))


async def _read_frame(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    first, length = await reader.readexactly(2)
    if length == 126:
        (length,) = struct.unpack(">H", await reader.readexactly(2))
    elif length == 127:
        (length,) = struct.unpack(">Q", await reader.readexactly(8))
    return first & 0x0F, await reader.readexactly(length)


async def _websocket(plan: LoadPlan, number: int, counts: _Counts, stop: asyncio.Event) -> None:
    """Keep one WebSocket open; say something every second; open a new one when the server closes it properly."""
    while not stop.is_set():
        opened: asyncio.StreamWriter | None = None
        try:
            reader, writer = await asyncio.wait_for(asyncio.open_connection(plan.host, plan.port), plan.timeout)
            opened = writer
            writer.write(
                f"GET {plan.websocket_path} HTTP/1.1\r\nHost: {plan.host_header}\r\nUser-Agent: ops-load/ws{number}\r\n"
                "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
            )
            status, _ = await asyncio.wait_for(read_head(reader), plan.timeout)
            if status != 101:
                raise _Lost(f"answered {status}")
            counts.closes[await _talk(reader, writer, stop)] += 1
            counts.good("websocket")
        except (OSError, TimeoutError, asyncio.IncompleteReadError, _Lost) as error:
            counts.bad("websocket", f"{type(error).__name__}: {error}")
            await asyncio.sleep(0.2)
        finally:
            if opened is not None:
                opened.close()


async def _talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, stop: asyncio.Event) -> str:
    closing = False
    pending = asyncio.ensure_future(_read_frame(reader))
    try:
        while True:
            done, _ = await asyncio.wait({pending}, timeout=5.0 if closing else 1.0)
            if pending in done:
                opcode, payload = pending.result()
                if opcode == 8:
                    if not closing:
                        writer.write(_masked(8, payload[:2]))
                        await writer.drain()
                    return "by client" if closing else f"by server {struct.unpack('>H', payload[:2])[0]}"
                if opcode == 9:
                    writer.write(_masked(10, payload))
                pending = asyncio.ensure_future(_read_frame(reader))
            elif closing:
                raise _Lost("no answer to the close frame")
            elif stop.is_set():
                closing = True
                writer.write(_masked(8, struct.pack(">H", 1000)))
            else:
                writer.write(_masked(1, b"still here"))
    finally:
        pending.cancel()


async def _main(plan: LoadPlan) -> None:
    stop, counts = asyncio.Event(), _Counts()
    tasks = [_client(plan, number, counts, stop) for number in range(plan.clients)]
    if plan.slow_path and plan.slow_rate:
        tasks.append(
            _every(
                1 / plan.slow_rate,
                stop,
                lambda: _once(plan, "slow", "GET", plan.slow_path, b"", plan.slow_timeout, counts),
            )
        )
    if plan.upload_path and plan.upload_rate:
        body = b"u" * plan.upload_bytes
        tasks.append(
            _every(
                1 / plan.upload_rate,
                stop,
                lambda: _once(plan, "upload", "POST", plan.upload_path, body, plan.slow_timeout, counts),
            )
        )
    if plan.websocket_path:
        tasks += [_websocket(plan, number, counts, stop) for number in range(plan.websockets)]
    running = [asyncio.ensure_future(task) for task in tasks]
    commands = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    await asyncio.sleep(0.3)
    print(counts.show(), flush=True)
    while await commands.readline():
        print(counts.show(), flush=True)
    stop.set()
    await asyncio.wait(running, timeout=plan.slow_timeout + 10)
    for task in running:
        if not task.done():
            counts.bad("stuck", "did not end")
        elif (error := task.exception()) is not None:
            counts.bad("load generator", repr(error))
    print(counts.show(), flush=True)


if __name__ == "__main__":
    asyncio.run(_main(LoadPlan(**json.loads(sys.argv[1]))))
