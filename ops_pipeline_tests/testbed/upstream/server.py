"""A small upstream for tests: HTTP/1.1 with keep-alive, streams, uploads, WebSockets; standard library only.

Environment: RELEASE (shown in every answer), PORT (8080), FAIL_HEALTH=1 (never ready), START_DELAY (seconds before
it listens), EXIT_AFTER (seconds until it exits with code 1), and how it misbehaves: ERROR_RATE (share of ordinary
requests answered 500, drawn at random with ERROR_SEED), ERROR_EVERY (exactly every n-th one), LATENCY (seconds an
ordinary answer waits), BREAK_RATE (share broken off without an answer), TURN_AFTER (seconds from the start until all
of this begins; 0 = at once).

Paths: `/health/ready` 200 or 503; `/health/set?ready=0|1` turns it; `/slow?seconds=5`; `/secret` SHA-256 of
/run/secrets/TOKEN or 404; `/ws` WebSocket echo; `/events?period=0.5` server-sent events without end; `/headers` the
request's headers as JSON; `/control?error_rate=0.1&error_every=0&latency=0&break_rate=0&exit=7` changes how it
misbehaves from now on, or exits; POST anywhere else echoes the body's length and SHA-256; anything else answers a line
of JSON with the release.

SIGTERM: stops listening, closes WebSockets with code 1001, ends streams, answers what is under way, then exits 0.
"""

import asyncio
import base64
import contextlib
import hashlib
import json
import os
import random
import signal
import struct
import sys
import time
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

RELEASE = os.environ.get("RELEASE", "none")
REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 500: "Internal Server Error", 503: "Service Unavailable"}
WEBSOCKET_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class State:
    ready = os.environ.get("FAIL_HEALTH") != "1"
    stopping = False
    error_rate = float(os.environ.get("ERROR_RATE", "0"))
    error_every = int(os.environ.get("ERROR_EVERY", "0"))
    break_rate = float(os.environ.get("BREAK_RATE", "0"))
    latency = float(os.environ.get("LATENCY", "0"))
    turns_at = time.monotonic() + float(os.environ.get("TURN_AFTER", "0"))
    asked = 0


STATE = State()
CHANCE = random.Random(os.environ.get("ERROR_SEED") or None)
STOP = asyncio.Event()
IDLE = set()  # writers of keep-alive connections that wait for a request
TASKS = set()


async def read_body(reader, headers, writer):
    if headers.get("expect", "").lower() == "100-continue":
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    digest, length = hashlib.sha256(), 0
    if "chunked" in headers.get("transfer-encoding", "").lower():
        while True:
            size = int((await reader.readline()).split(b";")[0], 16)
            digest.update(await reader.readexactly(size))
            length += size
            await reader.readexactly(2)
            if size == 0:
                return length, digest.hexdigest()
    left = int(headers.get("content-length", "0"))
    while left:
        piece = await reader.read(min(left, 65536))
        if not piece:
            raise ConnectionError("body cut")
        digest.update(piece)
        length += len(piece)
        left -= len(piece)
    return length, digest.hexdigest()


def secret():
    file = Path("/run/secrets/TOKEN")
    if not file.is_file():
        return 404, {"release": RELEASE, "error": "no secret"}
    return 200, {"release": RELEASE, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}


def control(query):
    for name in ("error_rate", "break_rate", "latency"):
        setattr(STATE, name, float(query.get(name, getattr(STATE, name))))
    STATE.error_every = int(query.get("error_every", STATE.error_every))
    STATE.turns_at = 0.0
    if "exit" in query:
        asyncio.get_running_loop().call_later(0.05, os._exit, int(query["exit"]))
    return 200, {"release": RELEASE, "asked": STATE.asked}


async def misbehave():
    """Whether an ordinary request is to fail. Raise ConnectionError when its connection is to break."""
    if time.monotonic() < STATE.turns_at:
        return False
    STATE.asked += 1
    if STATE.latency:
        await asyncio.sleep(STATE.latency)
    if STATE.break_rate and CHANCE.random() < STATE.break_rate:
        raise ConnectionError("as asked for")
    if STATE.error_every and STATE.asked % STATE.error_every == 0:
        return True
    return CHANCE.random() < STATE.error_rate


async def answer(method, target, headers, body):
    parts = urlsplit(target)
    query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
    if parts.path.endswith("/health/ready"):
        return (200, {"ready": True}) if STATE.ready else (503, {"ready": False})
    if parts.path.endswith("/health/set"):
        STATE.ready = query.get("ready") == "1"
        return 200, {"ready": STATE.ready}
    if parts.path.endswith("/slow"):
        await asyncio.sleep(float(query.get("seconds", "5")))
        return 200, {"release": RELEASE, "slow": True}
    if parts.path.endswith("/secret"):
        return secret()
    if parts.path.endswith("/headers"):
        return 200, {"release": RELEASE, "path": target, "headers": headers}
    if parts.path.endswith("/control"):
        return control(query)
    if await misbehave():
        return 500, {"release": RELEASE, "error": "as asked for"}
    if method in {"POST", "PUT"}:
        return 200, {"release": RELEASE, "length": body[0], "sha256": body[1]}
    return 200, {"release": RELEASE, "path": parts.path}


def frame(opcode, payload):
    head = bytes([0x80 | opcode])
    if len(payload) < 126:
        return head + bytes([len(payload)]) + payload
    return head + bytes([126]) + struct.pack(">H", len(payload)) + payload


async def read_frame(reader):
    first, second = await reader.readexactly(2)
    length = second & 0x7F
    if length == 126:
        (length,) = struct.unpack(">H", await reader.readexactly(2))
    elif length == 127:
        (length,) = struct.unpack(">Q", await reader.readexactly(8))
    mask = await reader.readexactly(4) if second & 0x80 else b"\0\0\0\0"
    payload = await reader.readexactly(length)
    return first & 0x0F, bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))


async def websocket(reader, writer, headers):
    accept = base64.b64encode(hashlib.sha1(headers["sec-websocket-key"].encode() + WEBSOCKET_GUID).digest()).decode()
    writer.write(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {accept}\r\nX-Release: {RELEASE}\r\n\r\n".encode()
    )
    writer.write(frame(1, RELEASE.encode()))
    stop = asyncio.ensure_future(STOP.wait())
    closing = False
    pending = None
    try:
        while True:
            pending = pending or asyncio.ensure_future(read_frame(reader))
            wait = {pending} if closing else {pending, stop}
            done, _ = await asyncio.wait(wait, return_when=asyncio.FIRST_COMPLETED)
            if pending in done:
                opcode, payload = pending.result()
                pending = None
                if opcode == 8:
                    if not closing:
                        writer.write(frame(8, payload[:2]))
                        await writer.drain()
                    return
                if opcode in (1, 2) and not closing:
                    writer.write(frame(opcode, payload))
                elif opcode == 9:
                    writer.write(frame(10, payload))
            elif not closing:
                closing = True
                writer.write(frame(8, struct.pack(">H", 1001) + b"going away"))
                await writer.drain()
    finally:
        stop.cancel()
        if pending is not None:
            pending.cancel()


async def events(writer, target):
    """Server-sent events until SIGTERM; the last one says goodbye and the body ends as it should."""
    period = float(parse_qs(urlsplit(target).query).get("period", ["0.5"])[-1])
    writer.write(
        f"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\nX-Release: {RELEASE}\r\n"
        "Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n".encode()
    )
    number = 0
    while not STOP.is_set():
        number += 1
        data = f"id: {number}\ndata: {RELEASE}\n\n".encode()
        writer.write(b"%x\r\n%b\r\n" % (len(data), data))
        await writer.drain()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(STOP.wait(), period)
    data = b"event: bye\ndata: bye\n\n"
    writer.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data))
    await writer.drain()


async def serve(reader, writer):
    task = asyncio.current_task()
    TASKS.add(task)
    try:
        while True:
            IDLE.add(writer)
            line = await reader.readline()
            IDLE.discard(writer)
            if not line:
                return
            method, target, _ = line.decode("latin-1").split(" ", 2)
            headers = {}
            while (raw := await reader.readline()) not in (b"\r\n", b""):
                name, _, value = raw.decode("latin-1").partition(":")
                headers[name.strip().lower()] = value.strip()
            if headers.get("upgrade", "").lower() == "websocket":
                await websocket(reader, writer, headers)
                return
            body = await read_body(reader, headers, writer)
            if urlsplit(target).path.endswith("/events"):
                await events(writer, target)
                return
            status, document = await answer(method, target, headers, body)
            data = json.dumps(document).encode() + b"\n"
            close = STATE.stopping or headers.get("connection", "").lower() == "close"
            writer.write(
                f"HTTP/1.1 {status} {REASONS[status]}\r\nContent-Type: application/json\r\nX-Release: {RELEASE}\r\n"
                f"Content-Length: {len(data)}\r\nConnection: {'close' if close else 'keep-alive'}\r\n\r\n".encode()
                + (b"" if method == "HEAD" else data)
            )
            await writer.drain()
            if close:
                return
    except (ConnectionError, asyncio.IncompleteReadError, ValueError, KeyError):
        return
    finally:
        IDLE.discard(writer)
        TASKS.discard(task)
        writer.close()
        with contextlib.suppress(Exception):
            await writer.wait_closed()


async def main():
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, STOP.set)
    if "EXIT_AFTER" in os.environ:
        loop.call_later(float(os.environ["EXIT_AFTER"]), os._exit, 1)
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(STOP.wait(), float(os.environ.get("START_DELAY", "0")))
        return
    server = await asyncio.start_server(serve, "0.0.0.0", int(os.environ.get("PORT", "8080")), backlog=512)
    print(f"release {RELEASE} listens", flush=True)
    await STOP.wait()
    STATE.stopping = True
    server.close()
    for writer in list(IDLE):
        writer.close()
    if TASKS:
        await asyncio.wait(set(TASKS), timeout=30)
    print(f"release {RELEASE} stopped", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
    sys.exit(0)
