"""What the load process keeps open: WebSockets and streams of server-sent events."""

from __future__ import annotations

import asyncio
import os
import struct

from ops_pipeline_tests.testbed.load import LoadPlan
from ops_pipeline_tests.testbed.load_counts import Counts, Lost
from ops_pipeline_tests.testbed.load_http import answered_by, connect, read_chunk, read_head


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


async def websocket(plan: LoadPlan, number: int, counts: Counts, stop: asyncio.Event) -> None:
    """Keep one WebSocket open; say something every second; open a new one when the server closes it properly."""
    while not stop.is_set():
        opened: asyncio.StreamWriter | None = None
        try:
            reader, writer = await asyncio.wait_for(connect(plan, number), plan.timeout)
            opened = writer
            writer.write(
                f"GET {plan.websocket_path} HTTP/1.1\r\nHost: {plan.host_header}\r\nUser-Agent: ops-load/ws{number}\r\n"
                "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
            )
            status, headers = await asyncio.wait_for(read_head(reader), plan.timeout)
            if status != 101:
                raise Lost(f"answered {status}", answered_by(plan, headers))
            counts.closes[await _talk(reader, writer, stop)] += 1
            counts.good("websocket")
        except (OSError, TimeoutError, asyncio.IncompleteReadError, Lost) as error:
            counts.failed("websocket", error)
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
                raise Lost("no answer to the close frame")
            elif stop.is_set():
                closing = True
                writer.write(_masked(8, struct.pack(">H", 1000)))
            else:
                writer.write(_masked(1, b"still here"))
    finally:
        pending.cancel()


async def events(plan: LoadPlan, number: int, counts: Counts, stop: asyncio.Event) -> None:
    """Keep one stream of events open, as a browser's EventSource: again and again when its body ends as it should."""
    stopped = asyncio.ensure_future(stop.wait())
    while not stop.is_set():
        opened: asyncio.StreamWriter | None = None
        try:
            reader, writer = await asyncio.wait_for(connect(plan, number), plan.timeout)
            opened = writer
            writer.write(
                f"GET {plan.events_path} HTTP/1.1\r\nHost: {plan.host_header}\r\nAccept: text/event-stream\r\n"
                f"User-Agent: ops-load/events{number}\r\n\r\n".encode()
            )
            status, headers = await asyncio.wait_for(read_head(reader), plan.timeout)
            if status != 200:
                raise Lost(f"answered {status}", answered_by(plan, headers))
            while True:
                piece = asyncio.ensure_future(read_chunk(reader))
                await asyncio.wait({piece, stopped}, timeout=plan.timeout, return_when=asyncio.FIRST_COMPLETED)
                if not piece.done():
                    piece.cancel()
                    if stop.is_set():
                        break
                    raise Lost(f"no event for {plan.timeout} s")
                if not piece.result():
                    break
                counts.report.events += 1
            counts.good("events")
        except (OSError, TimeoutError, asyncio.IncompleteReadError, ValueError, Lost) as error:
            counts.failed("events", error)
            await asyncio.sleep(0.2)
        finally:
            if opened is not None:
                opened.close()
    stopped.cancel()
