"""Requests of the load process: one keep-alive connection that never sends anything twice."""

from __future__ import annotations

import asyncio

from ops_pipeline_tests.testbed.load import LoadPlan
from ops_pipeline_tests.testbed.load_counts import Lost

PIECES = 20
"""In so many pieces a slow upload is sent."""


async def connect(plan: LoadPlan, number: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a connection to the target whose turn it is."""
    host, _, port = plan.targets[number % len(plan.targets)].rpartition(":")
    return await asyncio.open_connection(host, int(port))


def answered_by(plan: LoadPlan, headers: dict[str, str]) -> tuple[str, ...]:
    """Who answered: the release by its own word, and by its number as the edge says it."""
    own, numbered = headers.get(plan.release_header, ""), headers.get("x-ops-release", "")
    return tuple(name for name in (own, f"#{numbered}" if numbered else "") if name)


class Connection:
    """One keep-alive connection that is opened when there is none."""

    def __init__(self, plan: LoadPlan, agent: str, number: int) -> None:
        self.plan = plan
        self.number = number
        self.reader: asyncio.StreamReader | None = None
        self.writer: asyncio.StreamWriter | None = None
        extra = "".join(f"{name}: {value}\r\n" for name, value in plan.headers.items())
        if plan.buckets:
            extra += f"Cookie: ops_bucket={number * 100 // plan.clients % 100}\r\n"
        self._head = f"Host: {plan.host_header}\r\nUser-Agent: {agent}\r\n{extra}"

    async def request(self, method: str, path: str, body: bytes, timeout: float, seconds: float = 0.0) -> str:
        """Send once, the body over so many seconds; return the release that answered. Raise Lost."""
        try:
            return await asyncio.wait_for(self._request(method, path, body, seconds), timeout)
        except TimeoutError:
            self.close()
            raise Lost(f"no answer within {timeout} s") from None
        except (OSError, asyncio.IncompleteReadError, ValueError) as error:
            self.close()
            raise Lost(f"{type(error).__name__}: {error}") from None

    async def _request(self, method: str, path: str, body: bytes, seconds: float) -> str:
        if self.reader is None or self.reader.at_eof() or self.writer is None or self.writer.is_closing():
            self.close()
            self.reader, self.writer = await connect(self.plan, self.number)
        length = f"Content-Length: {len(body)}\r\nContent-Type: application/json\r\n" if method == "POST" else ""
        self.writer.write(f"{method} {path} HTTP/1.1\r\n{self._head}{length}\r\n".encode())
        await self._send(body, seconds)
        status, headers = await read_head(self.reader)
        answer = await read_rest(self.reader, headers)
        if headers.get("connection", "").lower() == "close":
            self.close()
        by = answered_by(self.plan, headers)
        if not 200 <= status < 300:
            raise Lost(f"answered {status}", by)
        if len(body) > 100_000 and f'"length": {len(body)}'.encode() not in answer:
            raise Lost(f"sent {len(body)} bytes, answered {answer[:100]!r}", by)
        return by[0] if by else ""

    async def _send(self, body: bytes, seconds: float) -> None:
        assert self.writer is not None
        if not seconds:
            self.writer.write(body)
            return
        size = -(-len(body) // PIECES)
        for begin in range(0, len(body), size):
            self.writer.write(body[begin : begin + size])
            await self.writer.drain()
            await asyncio.sleep(seconds / PIECES)

    def close(self) -> None:
        """The next request opens a new one."""
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


async def read_chunk(reader: asyncio.StreamReader) -> bytes:
    """The next chunk of a chunked body; b"" = its proper end."""
    size = int((await reader.readline()).split(b";")[0], 16)
    data = await reader.readexactly(size)
    await reader.readexactly(2)
    return data


async def read_rest(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
    """Body of an answer."""
    if "chunked" in headers.get("transfer-encoding", "").lower():
        body = b""
        while piece := await read_chunk(reader):
            body += piece
        return body
    if "content-length" in headers:
        return await reader.readexactly(int(headers["content-length"]))
    return await reader.read()
