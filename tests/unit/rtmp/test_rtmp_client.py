"""The player against a server of the test's own making."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from streamfx.core.clock import FakeClock
from streamfx.core.errors import SourceError, UsageError
from streamfx.media.rtmp import amf0, chunks
from streamfx.media.rtmp.client import RtmpPlayer, RtmpUrl
from streamfx.media.rtmp.connection import FlvTag, parse_command
from streamfx.media.rtmp.handshake import server_handshake
from streamfx.media.rtmp.server import RtmpServer

pytestmark = pytest.mark.usefixtures("no_leaks")

Script = Callable[[Any], Awaitable[None]]


@contextlib.asynccontextmanager
async def serving(peer_class: Any, script: Script) -> AsyncIterator[str]:
    """A server that runs ``script`` with each client, and its URL."""
    done: set[asyncio.Task[None]] = set()

    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await script(peer_class(reader, writer))
        except (ConnectionError, AssertionError, TimeoutError):
            pass
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        done.add(asyncio.get_running_loop().create_task(run(reader, writer)))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield f"rtmp://127.0.0.1:{server.sockets[0].getsockname()[1]}/live/eu/the-name?token=secret"
    finally:
        server.close()
        await asyncio.gather(*done)
        await server.wait_closed()


async def answer(peer: Any, name: str, *values: object) -> list[object]:
    """Waits for a command and answers it with a result."""
    arguments: list[object] = await peer.until(name)
    peer.command("_result", *values, transaction=arguments[1])
    return arguments


async def start(peer: Any) -> None:
    await server_handshake(peer.reader, peer.writer, within=5)
    connect = await answer(peer, "connect", {}, {"code": "NetConnection.Connect.Success"})
    assert connect[2]["app"] == "live/eu"
    peer.command("onBWDone", None)
    await answer(peer, "createStream", None, 7.0)
    play = await peer.until("play")
    assert play[3:] == ["the-name?token=secret", -2000.0]


def status(peer: Any, code: str, description: str = "", level: str = "status") -> None:
    peer.command("onStatus", None, {"level": level, "code": code, "description": description}, stream_id=7)


async def play(url: str, **options: Any) -> list[FlvTag]:
    async with RtmpPlayer(url, timeout=0.5, **options) as player:
        return [tag async for tag in player.tags()]


def unpublish(peer: Any) -> None:
    status(peer, "NetStream.Play.UnpublishNotify")


def stream_eof(peer: Any) -> None:
    peer.send(chunks.USER_CONTROL, struct.pack(">HI", 1, 7), stream_id=0, csid=2)


@pytest.mark.parametrize("end", [unpublish, stream_eof, lambda peer: None])
async def test_a_stream_with_each_ending(peer_class: Any, end: Callable[[Any], None]) -> None:
    async def script(peer: Any) -> None:
        await start(peer)
        status(peer, "NetStream.Play.Reset")
        peer.send(chunks.DATA_AMF0, amf0.encode("|RtmpSampleAccess", True, True))
        status(peer, "NetStream.Play.Start")
        peer.send(chunks.DATA_AMF0, amf0.encode("onMetaData", {"width": 2.0}))
        peer.send(chunks.VIDEO, b"\x17\x00v", 5)
        end(peer)
        await peer.writer.drain()
        if end in (unpublish, stream_eof):
            await peer.closed()

    async with serving(peer_class, script) as url:
        tags = await play(url, clock=FakeClock(3.0))
    assert [(tag.kind, tag.timestamp_ms, tag.received_at) for tag in tags[1:]] == [("data", 0, 3.0), ("video", 5, 3.0)]


async def test_media_without_a_status_is_played(peer_class: Any) -> None:
    async def script(peer: Any) -> None:
        await start(peer)
        peer.send(chunks.VIDEO, b"\x17\x00v", 5)

    async with serving(peer_class, script) as url:
        assert len(await play(url)) == 1


@pytest.mark.parametrize(
    ("code", "level", "words"),
    [
        ("NetStream.Play.StreamNotFound", "error", r"does not play this stream: no \*\*\*\* here"),
        ("NetStream.Play.Failed", "status", "does not play this stream"),
        ("NetStream.Play.UnpublishNotify", "status", "ended before it began"),
    ],
)
async def test_refusals(peer_class: Any, code: str, level: str, words: str) -> None:
    async def script(peer: Any) -> None:
        await start(peer)
        status(peer, code, "no the-name?token=secret here", level)
        await peer.closed()

    async with serving(peer_class, script) as url:
        with pytest.raises(SourceError, match=words) as error:
            await play(url)
    assert "secret" not in str(error.value)
    assert "the-name" not in str(error.value)


async def test_a_refused_connect(peer_class: Any) -> None:
    async def script(peer: Any) -> None:
        await server_handshake(peer.reader, peer.writer, within=5)
        await peer.until("connect")
        peer.command("_error", None, {"description": "not today\n\x1b[0m"}, transaction=1)
        await peer.closed()

    async with serving(peer_class, script) as url:
        with pytest.raises(SourceError, match="the server refused: not today"):
            await play(url)


@pytest.mark.parametrize("stage", ["handshake", "connect", "play", "playing"])
async def test_silence_ends_with_a_sentence(peer_class: Any, stage: str) -> None:
    async def script(peer: Any) -> None:
        if stage == "connect":
            await server_handshake(peer.reader, peer.writer, within=5)
        elif stage != "handshake":
            await start(peer)
        if stage == "playing":
            status(peer, "NetStream.Play.Start")
        await peer.closed()

    async with serving(peer_class, script) as url:
        with pytest.raises(SourceError, match=r"(sent nothing for|handshake within) 0\.5 s"):
            await play(url)


@pytest.mark.parametrize("stage", ["handshake", "connect", "play"])
async def test_a_server_that_leaves(peer_class: Any, stage: str) -> None:
    async def script(peer: Any) -> None:
        if stage == "connect":
            await server_handshake(peer.reader, peer.writer, within=5)
        elif stage == "play":
            await start(peer)

    async with serving(peer_class, script) as url:
        with pytest.raises(SourceError, match=r"left during|closed the connection|was lost"):
            await play(url)


@pytest.mark.parametrize("seed", range(8))
async def test_random_bytes_from_the_server(peer_class: Any, seed: int) -> None:
    rng = random.Random(seed)

    async def script(peer: Any) -> None:
        if seed % 3 == 1:
            await server_handshake(peer.reader, peer.writer, within=5)
        elif seed % 3 == 2:
            await start(peer)
            status(peer, "NetStream.Play.Start")
        peer.writer.write(rng.randbytes(5000))
        await peer.closed()

    async with serving(peer_class, script) as url:
        with pytest.raises(SourceError):
            await play(url)


async def test_nobody_listens_or_the_name_is_none() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with pytest.raises(SourceError, match=f"127.0.0.1:{port} refused the connection; "):
        await play(f"rtmp://127.0.0.1:{port}/live/secret")
    with pytest.raises(SourceError, match=r"cannot connect to a\.\.b:1935"):
        await play("rtmp://a..b/live/secret")


async def test_our_own_server_refuses_players() -> None:
    async with RtmpServer(port=0) as server:
        with pytest.raises(SourceError, match="plays none"):
            await play(f"rtmp://127.0.0.1:{server.port}/live/key")


async def test_cancelling_a_player_closes_it(peer_class: Any) -> None:
    async def script(peer: Any) -> None:
        await start(peer)
        status(peer, "NetStream.Play.Start")
        await peer.closed()

    async with serving(peer_class, script) as url:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await play(url)


def test_urls() -> None:
    url = RtmpUrl.parse("rtmps://[::1]:444/live/eu/name?a=b")
    assert (url.host, url.port, url.app, url.name) == ("::1", 444, "live/eu", "name?a=b")
    assert url.tc_url == "rtmps://[::1]:444/live/eu"
    assert "name" not in repr(url)
    assert RtmpUrl.parse("rtmp://host/app/name").port == 1935
    assert RtmpUrl.parse("rtmps://host/app/name").port == 443


@pytest.mark.parametrize(
    "url",
    ["http://h/a/secret", "rtmp://h/secret", "rtmp:///a/secret", "rtmp://h:x/a/secret", "rtmp://u:secret@h/a/b", ""],
)
def test_bad_urls(url: str) -> None:
    with pytest.raises(UsageError, match=r"not an RTMP URL; write|user names") as error:
        RtmpPlayer(url)
    assert "secret" not in str(error.value)


def test_commands_of_other_messages() -> None:
    assert parse_command(chunks.Message(chunks.VIDEO, 1, 0, b"x")) is None
