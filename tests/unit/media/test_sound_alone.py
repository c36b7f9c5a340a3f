"""Sources without a picture: welcome where a filter is driven by sound, refused with a sentence elsewhere."""

from __future__ import annotations

import asyncio
import wave
from collections.abc import AsyncIterator
from pathlib import Path

import av
import numpy as np
import pytest

from streamfx.core.clock import MonotonicClock
from streamfx.core.errors import SourceError
from streamfx.core.frames import AUDIO_RATE, AudioFrame, VideoFrame, silence
from streamfx.media.base import MediaInfo, SourceRequest, open_source
from streamfx.media.door import Door
from streamfx.media.rtmp.connection import FlvTag
from streamfx.media.rtmp.source import RtmpSource
from streamfx.media.url import MediaUrl
from tests.unit.media.test_rtmp_source import make_tags


def tone(path: Path, seconds: float = 1.5, rate: int = 8000) -> Path:
    """Mono, 16 bit."""
    moments = np.arange(round(seconds * rate)) / rate
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", "not compressed"))
        file.writeframes((8000 * np.sin(2 * np.pi * 220 * moments)).astype("<i2").tobytes())
    return path


def with_cover(source: Path, path: Path) -> Path:
    """A sound file with the picture of an album in it."""
    with av.open(str(source)) as sound, av.open(str(path), "w") as out:
        audio = out.add_stream("aac", rate=44_100, layout="mono")
        cover = out.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 64, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        picture = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), "rgb24")
        out.mux(cover.encode(picture))
        out.mux(cover.encode(None))
        for frame in sound.decode(audio=0):
            out.mux(audio.encode(frame))
        out.mux(audio.encode(None))
    return path


def request(**more: bool) -> SourceRequest:
    return SourceRequest(clock=MonotonicClock(), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("cover", [False, True])
async def test_a_sound_file_is_read(tmp_path: Path, cover: bool) -> None:
    path = tone(tmp_path / "tone.wav")
    if cover:
        path = with_cover(path, tmp_path / "tone.mp4")
    async with open_source(MediaUrl.parse(str(path)), request(sound_will_do=True)) as source:
        assert (source.info.video, source.info.audio, source.info.live) == (False, True, False)
        assert source.info.duration == pytest.approx(1.5, abs=0.1)
        frames = [frame async for frame in source.frames()]
    assert all(isinstance(frame, AudioFrame) for frame in frames)
    assert sum(frame.samples.shape[1] for frame in frames if isinstance(frame, AudioFrame)) == pytest.approx(
        1.5 * AUDIO_RATE, abs=0.05 * AUDIO_RATE
    )


@pytest.mark.parametrize("cover", [False, True])
async def test_a_sound_file_is_refused_where_pictures_are_wanted(tmp_path: Path, cover: bool) -> None:
    path = tone(tmp_path / "tone.wav")
    if cover:
        path = with_cover(path, tmp_path / "tone.mp4")
    with pytest.raises(SourceError, match="has no video stream; give a file with a picture"):
        async with open_source(MediaUrl.parse(str(path)), request()):
            pass


def sound(pts: float) -> AudioFrame:
    return AudioFrame(silence(960), pts, pts)


def picture(pts: float) -> VideoFrame:
    return VideoFrame(np.zeros((48, 64, 3), np.uint8), pts, pts)


async def test_a_publisher_of_sound_alone_comes_through_the_door() -> None:
    door = Door()
    visit = door.enter("whip", video=False)
    opening = asyncio.create_task(_first(door, request(sound_will_do=True)))
    await asyncio.sleep(0)
    visit.deliver(sound(0.0))
    assert await opening == MediaInfo.of_sound(live=True)


async def test_the_stream_ends_when_the_next_publisher_has_a_picture() -> None:
    door = Door()
    visit = door.enter("whip", video=False)
    asyncio.get_running_loop().call_soon(visit.deliver, sound(0.0))
    async with asyncio.timeout(5), door.open(request(sound_will_do=True), 10) as source:
        door.enter("rtmp").deliver(picture(1.0))
        assert [frame.pts async for frame in source.frames()] == [0.0]


async def test_a_door_that_wants_pictures_says_so() -> None:
    door = Door()
    visit = door.enter("whip", video=False)
    opening = asyncio.create_task(_first(door, request()))
    await asyncio.sleep(0)
    visit.deliver(sound(0.0))
    with pytest.raises(SourceError, match="sends sound alone; send a picture too"):
        await opening


async def _first(door: Door, wanted: SourceRequest) -> MediaInfo:
    async with door.open(wanted, 10) as source:
        return source.info


@pytest.fixture(scope="module")
def tags(tmp_path_factory: pytest.TempPathFactory) -> list[FlvTag]:
    return make_tags(tmp_path_factory.mktemp("tags"), frames=90)


async def _each(tags: list[FlvTag]) -> AsyncIterator[FlvTag]:
    for tag in tags:
        yield tag


async def learned(tags: list[FlvTag], **more: bool) -> MediaInfo:
    """What an RTMP source says of itself."""
    source = RtmpSource(request(**more))
    decoding = asyncio.create_task(source.decode())
    try:
        source.begin("publishing")
        await source.feed(_each(tags), None)  # type: ignore[arg-type]
        source.end(None)
        await source.opened(10)
        return source.info
    finally:
        decoding.cancel()
        await asyncio.gather(decoding, return_exceptions=True)
        source.close()


async def test_rtmp_without_pictures(tags: list[FlvTag]) -> None:
    alone = [tag for tag in tags if tag.kind == "audio"]
    assert await learned(alone, sound_will_do=True) == MediaInfo.of_sound(live=True)
    with pytest.raises(SourceError, match="before its first picture"):
        await learned(alone)


async def test_rtmp_with_pictures_is_waited_for(tags: list[FlvTag]) -> None:
    late = [tag for tag in tags if tag.kind != "data"]
    late.sort(key=lambda tag: tag.timestamp_ms + 500 * (tag.kind == "video"))
    assert (await learned(late, sound_will_do=True)).video
