"""The RTMP library against real programs: FFmpeg publishes to it, nginx-rtmp plays to it."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import socket
import ssl
import time
from pathlib import Path

import pytest

from streamfx.core.errors import SourceError
from streamfx.media.rtmp.client import RtmpPlayer
from streamfx.media.rtmp.connection import FlvTag
from streamfx.media.rtmp.flv import parse_audio, parse_video
from streamfx.media.rtmp.server import Publisher, RtmpLimits, RtmpServer
from tests.integration.programs import ffmpeg, needs_ffmpeg, needs_nginx, program

pytestmark = pytest.mark.integration


class Recorder:
    def __init__(self) -> None:
        self.tags: list[FlvTag] = []
        self.publishers: list[Publisher] = []
        self.flowing = asyncio.Event()
        self.ended = asyncio.Event()

    async def __call__(self, publisher: Publisher) -> None:
        self.publishers.append(publisher)
        async for tag in publisher.tags():
            self.tags.append(tag)
            if len(self.tags) > 20:
                self.flowing.set()
        self.ended.set()


@needs_ffmpeg
async def test_ffmpeg_publishes() -> None:
    handler = Recorder()
    async with RtmpServer(port=0) as server:
        server.add_route("live/eu", "key", handler)
        async with ffmpeg(f"rtmp://127.0.0.1:{server.port}/live/eu/key", 3, realtime=False) as process:
            _, errors = await asyncio.wait_for(process.communicate(), 30)
            assert process.returncode == 0, errors
        await asyncio.wait_for(handler.ended.wait(), 5)
    publisher = handler.publishers[0]
    assert publisher.ended == "unpublished"
    assert publisher.metadata["width"] == 320
    assert handler.tags[0].kind == "data"
    video = [(tag, parse_video(tag.body)) for tag in handler.tags if tag.kind == "video"]
    audio = [(tag, parse_audio(tag.body)) for tag in handler.tags if tag.kind == "audio"]
    assert [packet.kind for _, packet in video[:2]] == ["config", "frame"]
    assert [packet.kind for _, packet in audio[:2]] == ["config", "frame"]
    assert video[1][1].keyframe
    assert {packet.codec for _, packet in video} == {"h264"}
    assert {packet.codec for _, packet in audio} == {"aac"}
    assert sum(packet.kind == "frame" for _, packet in video) == 90
    assert sum(packet.kind == "frame" for _, packet in audio) in range(138, 146)
    for lane in (video, audio):
        times = [tag.timestamp_ms for tag, packet in lane if packet.kind == "frame"]
        assert times == sorted(times)
        assert 2900 <= times[-1] - times[0] <= 3050


@needs_ffmpeg
@pytest.mark.parametrize("path", ["live/wrong", "nowhere/key"])
async def test_ffmpeg_is_told_of_a_wrong_key(path: str) -> None:
    handler = Recorder()
    async with RtmpServer(port=0) as server:
        server.add_route("live", "key", handler)
        async with ffmpeg(f"rtmp://127.0.0.1:{server.port}/{path}") as process:
            _, errors = await asyncio.wait_for(process.communicate(), 10)
            assert process.returncode != 0
    assert b"unknown application or stream key" in errors
    assert not handler.publishers


@needs_ffmpeg
async def test_ffmpeg_takes_over_from_ffmpeg() -> None:
    first, handlers = Recorder(), []

    async def handler(publisher: Publisher) -> None:
        handlers.append(Recorder() if handlers else first)
        await handlers[-1](publisher)

    async with RtmpServer(port=0) as server:
        server.add_route("live", "key", handler)
        url = f"rtmp://127.0.0.1:{server.port}/live/key"
        async with ffmpeg(url) as old:
            await asyncio.wait_for(first.flowing.wait(), 10)
            async with ffmpeg(url):
                await asyncio.wait_for(first.ended.wait(), 10)
                assert "took this stream over" in (first.publishers[0].ended or "")
                await asyncio.wait_for(old.communicate(), 10)
                async with asyncio.timeout(10):
                    while len(handlers) < 2:  # noqa: ASYNC110
                        await asyncio.sleep(0.01)
                    await handlers[1].flowing.wait()


@needs_ffmpeg
async def test_killed_ffmpeg_ends_the_tags_at_once() -> None:
    handler = Recorder()
    async with RtmpServer(port=0) as server:
        server.add_route("live", "key", handler)
        async with ffmpeg(f"rtmp://127.0.0.1:{server.port}/live/key") as process:
            await asyncio.wait_for(handler.flowing.wait(), 10)
            process.send_signal(signal.SIGKILL)
            killed = time.monotonic()
            await asyncio.wait_for(handler.ended.wait(), 5)
            assert time.monotonic() - killed < 1.0


@needs_ffmpeg
async def test_frozen_ffmpeg_is_noticed_by_its_silence() -> None:
    handler = Recorder()
    async with RtmpServer(port=0, limits=RtmpLimits(idle_timeout=1.0)) as server:
        server.add_route("live", "key", handler)
        async with ffmpeg(f"rtmp://127.0.0.1:{server.port}/live/key") as process:
            await asyncio.wait_for(handler.flowing.wait(), 10)
            process.send_signal(signal.SIGSTOP)
            await asyncio.wait_for(handler.ended.wait(), 5)
    assert handler.publishers[0].ended == "silent for 1 s"


@needs_ffmpeg
async def test_several_ffmpegs_at_once() -> None:
    handlers = [Recorder() for _ in range(4)]
    async with RtmpServer(port=0) as server, contextlib.AsyncExitStack() as stack:
        for index, handler in enumerate(handlers):
            server.add_route("live", f"key{index}", handler)
            await stack.enter_async_context(ffmpeg(f"rtmp://127.0.0.1:{server.port}/live/key{index}", 2))
        for handler in handlers:
            await asyncio.wait_for(handler.ended.wait(), 20)
            assert sum(tag.kind == "video" for tag in handler.tags) >= 60


@needs_ffmpeg
@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
async def test_ffmpeg_publishes_over_tls(tmp_path: Path) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    async with program(
        "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=127.0.0.1",
        "-keyout", str(key), "-out", str(certificate),
    ) as process:  # fmt: skip
        await process.communicate()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    handler = Recorder()
    async with RtmpServer(port=0, ssl=context) as server:
        server.add_route("live", "key", handler)
        async with ffmpeg(f"rtmps://127.0.0.1:{server.port}/live/key", 2, realtime=False) as process:
            _, errors = await asyncio.wait_for(process.communicate(), 30)
            assert process.returncode == 0, errors
        await asyncio.wait_for(handler.ended.wait(), 5)
        assert sum(tag.kind == "video" for tag in handler.tags) >= 60
        with pytest.raises(SourceError, match="no secure connection"):
            async with RtmpPlayer(f"rtmps://127.0.0.1:{server.port}/live/key"):
                pass
        trust = ssl.create_default_context(cafile=str(certificate))
        trust.check_hostname = False
        with pytest.raises(SourceError, match="plays none"):
            async with RtmpPlayer(f"rtmps://127.0.0.1:{server.port}/live/key", ssl=trust):
                pass


@needs_nginx
async def test_nginx_plays(nginx: int) -> None:
    url = f"rtmp://127.0.0.1:{nginx}/live/key"
    async with ffmpeg(url) as process:
        tags: list[FlvTag] = []
        async with asyncio.timeout(20):
            await asyncio.sleep(1.5)
            async with RtmpPlayer(url) as player:
                async for tag in player.tags():
                    tags.append(tag)
                    if len(tags) == 100:
                        process.terminate()
                assert player.metadata["width"] == 320
    video = [parse_video(tag.body) for tag in tags if tag.kind == "video"]
    audio = [parse_audio(tag.body) for tag in tags if tag.kind == "audio"]
    assert video[0].kind == "config"
    assert audio[0].kind == "config"
    assert next(packet for packet in video if packet.kind == "frame").keyframe
    assert len(tags) >= 100


@needs_ffmpeg
@pytest.mark.parametrize("offset", [16_776, 100_000])
async def test_ffmpeg_with_extended_timestamps(offset: int) -> None:
    handler = Recorder()
    async with RtmpServer(port=0) as server:
        server.add_route("live", "key", handler)
        url = f"rtmp://127.0.0.1:{server.port}/live/key"
        async with ffmpeg(url, 3, realtime=False, offset=offset) as process:
            await asyncio.wait_for(handler.ended.wait(), 20)
            await asyncio.wait_for(process.communicate(), 10)
    assert handler.publishers[0].ended == "unpublished"
    times = [tag.timestamp_ms for tag in handler.tags if tag.kind == "video" and tag.body[1] == 1]
    assert len(times) == 90
    assert times == sorted(times)
    assert abs(times[0] - offset * 1000) < 100
    assert 2900 <= times[-1] - times[0] <= 3050


@needs_nginx
async def test_nginx_plays_extended_timestamps(nginx: int) -> None:
    url = f"rtmp://127.0.0.1:{nginx}/live/key"
    async with ffmpeg(url, offset=100_000), asyncio.timeout(20):
        await asyncio.sleep(1.5)
        times: list[int] = []
        async with RtmpPlayer(url) as player:
            async for tag in player.tags():
                if tag.kind == "video" and parse_video(tag.body).kind == "frame":
                    times.append(tag.timestamp_ms)
                if len(times) == 40:
                    break
    assert times == sorted(times)
    assert times[-1] - times[0] < 3000


@needs_nginx
async def test_nginx_without_a_publisher(nginx: int) -> None:
    async def play() -> None:
        async with RtmpPlayer(f"rtmp://127.0.0.1:{nginx}/live/nobody", timeout=1.0) as player:
            async for _ in player.tags():
                pass

    with pytest.raises(SourceError, match="No such stream") as error:
        await play()
    assert "nobody" not in str(error.value)


@needs_nginx
async def test_nginx_without_the_application(nginx: int) -> None:
    with pytest.raises(SourceError):
        async with RtmpPlayer(f"rtmp://127.0.0.1:{nginx}/elsewhere/key", timeout=2.0):
            pass


@needs_nginx
async def test_killed_publisher_behind_nginx(nginx: int) -> None:
    url = f"rtmp://127.0.0.1:{nginx}/live/key"
    async with ffmpeg(url) as process:
        await asyncio.sleep(1.5)
        seen = 0
        async with asyncio.timeout(20), RtmpPlayer(url) as player:
            async for _ in player.tags():
                seen += 1
                if seen == 30:
                    process.kill()
    assert seen >= 30


async def test_a_server_that_accepts_and_says_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        started = time.monotonic()
        with pytest.raises(SourceError, match=r"did not answer the handshake within 0\.5 s") as error:
            async with RtmpPlayer(f"rtmp://127.0.0.1:{silent.getsockname()[1]}/live/secret", timeout=0.5):
                pass
        assert time.monotonic() - started < 1.5
        assert "secret" not in str(error.value)
