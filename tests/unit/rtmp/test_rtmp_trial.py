"""The trial of a target, against our own server and ones that behave badly."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from streamfx.core.errors import SinkError
from streamfx.media.rtmp.chunks import ChunkLimits
from streamfx.media.rtmp.connection import RtmpConnection
from streamfx.media.rtmp.handshake import server_handshake
from streamfx.media.rtmp.publish import Publisher, negotiate
from streamfx.media.rtmp.server import RtmpServer
from streamfx.media.rtmp.trial import try_target

KEY = "s3cr3t-stream-key"


async def test_accepted_and_left_without_a_word_more() -> None:
    seen: list[Publisher] = []

    async def on_publish(publisher: Publisher) -> None:
        seen.append(publisher)
        assert [tag async for tag in publisher.tags()] == []

    async with RtmpServer(port=0) as server:
        server.add_route("app", KEY, on_publish)
        await try_target(f"rtmp://127.0.0.1:{server.port}/app/{KEY}?bandwidthtest=true")
        with pytest.raises(SinkError, match="unknown application or stream key") as raised:
            await try_target(f"rtmp://127.0.0.1:{server.port}/app/{KEY}-wrong")
    assert KEY not in str(raised.value)
    assert [publisher.ended for publisher in seen] == ["unpublished"]


async def test_a_server_that_changes_its_mind() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server_handshake(reader, writer, within=5)
        connection = RtmpConnection(reader, writer, limits=ChunkLimits())
        request = await negotiate(connection, 5)
        connection.status("status", "NetStream.Publish.Start", "welcome", stream_id=request.stream_id)
        await connection.flush()
        await connection.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(SinkError, match="closed the connection at once; check the stream key"):
            await try_target(f"rtmp://127.0.0.1:{port}/app/{KEY}")


async def test_a_server_that_says_nothing() -> None:
    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await reader.read(-1)
        writer.close()

    async with await asyncio.start_server(mute, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(SinkError, match="did not answer the handshake"):
            await try_target(f"rtmp://127.0.0.1:{port}/app/{KEY}", timeout=0.3)
    with pytest.raises(SinkError, match="refused the connection"):
        await try_target(f"rtmp://127.0.0.1:{port}/app/{KEY}", timeout=0.3)
