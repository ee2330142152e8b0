"""A real PostgreSQL and a real Redis per test session, each reached through a line that tests can stall or cut."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import aiohttp
import asyncpg
import pytest
from aiohttp import web

from storefront.app import Api
from storefront.settings import Secret, Settings

PASSWORD = secrets.token_hex(12)
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 8
Client = aiohttp.ClientSession


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_port(port: int, process: subprocess.Popen[bytes], seconds: float = 40.0) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.5):
            return
        time.sleep(0.05)
    raise RuntimeError(f"{process.args!r} did not listen on {port}")


def end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@pytest.fixture(scope="session")
def postgres() -> Iterator[int]:
    """Port of a PostgreSQL that asks for PASSWORD."""
    binaries = Path("/usr/lib/postgresql/15/bin")
    folder = Path(tempfile.mkdtemp(prefix="storefront-postgres-"))
    password, port = folder / "password", free_port()
    password.write_text(PASSWORD)
    try:
        subprocess.run(
            [
                *(binaries / "initdb", "-D", folder / "data", "-U", "storefront", "-A", "scram-sha-256", "--no-sync"),
                *("--pwfile", password, "-E", "UTF8", "--locale=C.UTF-8"),
            ],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        with (folder / "log").open("wb") as log:
            server = subprocess.Popen(
                [
                    *(binaries / "postgres", "-D", folder / "data", "-p", str(port), "-k", folder),
                    *("-c", "fsync=off", "-c", "listen_addresses=127.0.0.1"),
                ],
                stdout=log,
                stderr=log,
            )
        try:
            wait_port(port, server)
            asyncio.run(make_database(port))
            yield port
        finally:
            server.send_signal(2)  # fast shutdown
            server.wait(20)
    finally:
        shutil.rmtree(folder)


async def make_database(port: int) -> None:
    for _ in range(50):
        try:
            connection = await connect(port, "postgres")
            break
        except asyncpg.CannotConnectNowError:
            await asyncio.sleep(0.1)
    await connection.execute("CREATE DATABASE storefront")
    await connection.close()


async def connect(port: int, database: str = "storefront") -> asyncpg.Connection:
    return await asyncpg.connect(
        host="127.0.0.1", port=port, user="storefront", password=PASSWORD, database=database, timeout=5
    )


@pytest.fixture(scope="session")
def redis() -> Iterator[int]:
    """Port of a Redis."""
    port = free_port()
    server = subprocess.Popen(
        ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--daemonize", "no"],
        stdout=subprocess.DEVNULL,
        cwd=tempfile.gettempdir(),
    )
    try:
        wait_port(port, server)
        yield port
    finally:
        end(server)


class Line:
    """A TCP line to a server. `stalled`: bytes stay in the pipe; `cut`: connections break, new ones are refused."""

    def __init__(self, target: int) -> None:
        self.port = free_port()
        self.connections = 0
        self._target = target
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", self.port)

    async def cut(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        self._flowing.set()
        for writer in tuple(self._writers):
            writer.transport.abort()

    def stall(self) -> None:
        self._flowing.clear()

    def flow(self) -> None:
        self._flowing.set()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        self._writers.add(far_writer)
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await asyncio.gather(self._pump(reader, far_writer), self._pump(far_reader, writer))
        self._writers -= {writer, far_writer}
        writer.close()
        far_writer.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            await self._flowing.wait()
            writer.write(data)
            await writer.drain()
        writer.close()


@dataclass
class Stage:
    """A running API, a client for it, and the lines to its database and cache."""

    api: Api
    client: Client
    url: str
    database: Line
    cache: Line

    async def until(self, wanted: Callable[[], Awaitable[bool]], seconds: float = 30.0) -> None:
        end = time.monotonic() + seconds
        while not await wanted():
            assert time.monotonic() < end, "did not happen in time"
            await asyncio.sleep(0.05)

    async def status(self) -> str:
        async with self.client.get("/health/ready") as answer:
            return str((await answer.json())["status"])

    async def until_status(self, wanted: str) -> None:
        async def reached() -> bool:
            return await self.status() == wanted

        await self.until(reached)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    photos = tmp_path / "photos"
    photos.mkdir()
    return Settings(
        database_password=Secret("DATABASE_PASSWORD", tmp_path / "none", PASSWORD),
        redis_password=Secret("REDIS_PASSWORD", tmp_path / "none"),
        host="127.0.0.1",
        database_host="127.0.0.1",
        redis_host="127.0.0.1",
        photos=photos,
        photo_max_bytes=200_000,
        tick=0.2,
        version="1.2.3",
        commit="abc1234",
    )


Start = Callable[..., Awaitable[Stage]]


@pytest.fixture
async def start(postgres: int, redis: int, settings: Settings) -> AsyncIterator[Start]:
    """Starts an API with other settings than the usual ones; by default waits until it is ready."""
    async with contextlib.AsyncExitStack() as stack:

        async def begin(*, wait: bool = True, **changes: object) -> Stage:
            lines = Line(postgres), Line(redis)
            for line in lines:
                await line.open()
                stack.push_async_callback(line.cut)
            changed = replace(
                settings,
                **{"database_port": lines[0].port, "redis_port": lines[1].port, "port": free_port(), **changes},
            )
            api = Api(changed)
            runner = web.AppRunner(api.application(), access_log=None, shutdown_timeout=2.0)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, "127.0.0.1", changed.port).start()
            url = f"http://127.0.0.1:{changed.port}"
            client = await stack.enter_async_context(
                aiohttp.ClientSession(url, timeout=aiohttp.ClientTimeout(total=20))
            )
            stage = Stage(api, client, url, *lines)
            if wait:
                await stage.until_status("ready")
            return stage

        connection = await connect(postgres)
        await connection.execute("DROP TABLE IF EXISTS listings, schema_steps")
        await connection.close()
        yield begin


@pytest.fixture
async def stage(start: Start) -> Stage:
    return await start()


@dataclass
class Process:
    """The API as the image runs it: a process of its own."""

    process: asyncio.subprocess.Process
    url: str

    async def output(self) -> str:
        assert self.process.stdout is not None
        return (await self.process.stdout.read()).decode()


@pytest.fixture
async def launch(postgres: int, redis: int, tmp_path: Path) -> AsyncIterator[Callable[..., Awaitable[Process]]]:
    """Starts the API as a process; keyword arguments are environment variables."""
    started: list[asyncio.subprocess.Process] = []

    async def begin(*, wait: bool = True, **environment: str) -> Process:
        password = tmp_path / "DATABASE_PASSWORD"
        password.write_text(PASSWORD + "\n")
        (tmp_path / "photos").mkdir(exist_ok=True)
        port = free_port()
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "storefront",
            env={
                "PATH": os.environ["PATH"],
                "STOREFRONT_HOST": "127.0.0.1",
                "STOREFRONT_PORT": str(port),
                "DATABASE_HOST": "127.0.0.1",
                "DATABASE_PORT": str(postgres),
                "DATABASE_PASSWORD_FILE": str(password),
                "REDIS_HOST": "127.0.0.1",
                "REDIS_PORT": str(redis),
                "PHOTOS_DIRECTORY": str(tmp_path / "photos"),
                "LIVE_TICK_SECONDS": "0.2",
                "LOG_LEVEL": "DEBUG",
                **environment,
            },
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        started.append(process)
        url = f"http://127.0.0.1:{port}"
        end = time.monotonic() + 30
        async with aiohttp.ClientSession() as client:
            while wait:
                assert time.monotonic() < end and process.returncode is None, "did not become ready"
                with contextlib.suppress(aiohttp.ClientError):
                    async with client.get(f"{url}/health/ready") as answer:
                        if answer.status == 200:
                            break
                await asyncio.sleep(0.05)
        return Process(process, url)

    yield begin
    for process in started:
        if process.returncode is None:
            process.kill()
        await process.wait()
