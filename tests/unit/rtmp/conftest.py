"""A minimal RTMP client for the tests: speaks well, or as badly as a test wants."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from streamfx.media.rtmp import amf0, chunks
from streamfx.media.rtmp.chunks import ChunkReader, ChunkWriter, Message
from streamfx.media.rtmp.handshake import client_handshake


class Peer:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.chunk_reader, self.chunk_writer = ChunkReader(), ChunkWriter()

    def send(self, type_id: int, payload: bytes, timestamp: int = 0, stream_id: int = 1, csid: int = 4) -> None:
        self.writer.write(self.chunk_writer.write(Message(type_id, stream_id, timestamp, payload, csid)))

    def command(self, name: str, *values: object, transaction: float = 0, stream_id: int = 0) -> None:
        self.send(chunks.COMMAND_AMF0, amf0.encode(name, transaction, *values), stream_id=stream_id, csid=3)

    async def receive(self) -> Message | None:
        async with asyncio.timeout(5):
            while (message := self.chunk_reader.pop()) is None:
                data = await self.reader.read(65536)
                if not data:
                    return None
                self.chunk_reader.feed(data)
            return message

    async def until(self, name: str) -> list[object]:
        """The next command called ``name``; fails at the end of the stream."""
        while (message := await self.receive()) is not None:
            if message.type_id == chunks.COMMAND_AMF0:
                values = amf0.decode(message.payload)
                if values[0] == name:
                    return values
        raise AssertionError(f"closed before {name}")

    async def status(self) -> str:
        return str((await self.until("onStatus"))[3]["code"])

    async def connect(self, app: str = "live", **more: object) -> list[object]:
        await client_handshake(self.reader, self.writer, within=5)
        self.command("connect", {"app": app, **more}, transaction=1)
        return await self.until("_result")

    async def publish(self, app: str = "live", name: str = "key") -> str:
        await self.connect(app)
        self.command("releaseStream", None, name, transaction=2)
        self.command("FCPublish", None, name, transaction=3)
        self.command("createStream", None, transaction=4)
        for _ in range(3):
            await self.until("_result")
        self.command("publish", None, name, "live", transaction=5, stream_id=1)
        return await self.status()

    async def closed(self) -> bool:
        """Waits until the other side closes; fails after 5 s."""
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(5):
                while await self.reader.read(65536):
                    pass
        return True


@pytest.fixture
async def dial() -> AsyncIterator[Callable[[int], Awaitable[Peer]]]:
    """Opens connections to a local port, and closes them after the test."""
    writers: list[asyncio.StreamWriter] = []

    async def open_peer(port: int) -> Peer:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writers.append(writer)
        return Peer(reader, writer)

    yield open_peer
    for writer in writers:
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def count_files() -> int:
    """Open file descriptors of this process; 0 where the system does not say."""
    with contextlib.suppress(OSError):
        return sum(1 for _ in Path("/proc/self/fd").iterdir())
    return 0


def others() -> set[asyncio.Task[object]]:
    """The tasks of this loop but the one that asks."""
    return {task for task in asyncio.all_tasks() if task is not asyncio.current_task()}


@pytest.fixture
async def no_leaks() -> AsyncIterator[None]:
    """Fails a test that leaves tasks or file descriptors behind."""
    files, tasks = count_files(), others()
    yield
    for _ in range(20):
        if others() <= tasks and count_files() <= files:
            break
        await asyncio.sleep(0.01)
    assert others() <= tasks
    assert count_files() <= files


@pytest.fixture
def peer_class() -> type[Peer]:
    return Peer
