"""Decoding in hardware as far as it goes without any: what is refused, what is done in software instead, and that what
comes back from a device has the colours it had."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from pathlib import Path

import av
import numpy as np
import pytest

from streamfx.core.clock import MonotonicClock
from streamfx.core.errors import SourceError, StreamFXError, UsageError
from streamfx.core.frames import Frame, VideoFrame
from streamfx.media.base import SourceRequest, open_source
from streamfx.media.convert import VideoConverter
from streamfx.media.hardware import likely
from streamfx.media.hwaccel import DEVICES, find_device, hwaccel_option
from streamfx.media.rtmp.decode import TagDecoder
from streamfx.media.url import MediaUrl
from streamfx.server.settings import source_from_outside
from tests.support import Clip
from tests.unit.media.test_rtmp_source import make_tags

nothing_here = pytest.mark.skipif(likely(), reason="there may be a device that really decodes")


async def frames_of(place: str) -> list[Frame]:
    async with open_source(MediaUrl.parse(place), SourceRequest(clock=MonotonicClock())) as source:
        frames: AsyncIterator[Frame] = source.frames()
        return [frame async for frame in frames]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Clip((96, 64), codec="libx264", frames=8).write(tmp_path_factory.mktemp("hwaccel") / "clip.mp4")


@pytest.mark.parametrize("place", ["clip.mp4?hwaccel={}", "rtmp://127.0.0.1/live/key?hwaccel={}"])
def test_option(place: str) -> None:
    for name in ("none", "auto", *DEVICES):
        assert hwaccel_option(MediaUrl.parse(place.format(name))) == name
    assert hwaccel_option(MediaUrl.parse(place.partition("?")[0])) == "none"
    with pytest.raises(UsageError, match="option hwaccel is 'cude'; did you mean cuda"):
        hwaccel_option(MediaUrl.parse(place.format("cude")))
    with pytest.raises(UsageError, match="choose none, auto, cuda"):
        hwaccel_option(MediaUrl.parse(place.format("qqqq")))


def test_not_over_http() -> None:
    with pytest.raises(UsageError, match="hwaccel"):
        source_from_outside("rtmp://127.0.0.1/live/key?hwaccel=cuda")


@nothing_here
def test_none_and_auto_without_a_device() -> None:
    assert find_device("none", "h264") is None
    assert find_device("auto", "h264") is None
    assert find_device("auto", "mpeg4") is None


@nothing_here
@pytest.mark.parametrize("name", list(DEVICES))
@pytest.mark.parametrize("codec", ["h264", "hevc", "mpeg4", "mjpeg"])
def test_named_without_a_device(name: str, codec: str) -> None:
    with pytest.raises(UsageError) as caught:
        find_device(name, codec)
    said = str(caught.value)
    assert said.startswith(f"hwaccel={name} cannot decode {codec} here: it ")
    assert said.endswith("; take hwaccel=auto or none")
    assert "\n" not in said


@nothing_here
async def test_file_in_software_instead(clip: Path) -> None:
    plain, auto = await frames_of(str(clip)), await frames_of(f"{clip}?hwaccel=auto")
    assert len(plain) == len(auto) == 8
    for one, other in zip(plain, auto, strict=True):
        assert isinstance(one, VideoFrame)
        assert isinstance(other, VideoFrame)
        assert (one.pixels == other.pixels).all()


@nothing_here
async def test_file_by_a_named_device(clip: Path) -> None:
    with pytest.raises(UsageError, match="hwaccel=cuda cannot decode h264 here"):
        await frames_of(f"{clip}?hwaccel=cuda")


@nothing_here
@pytest.mark.parametrize("options", ["hwaccel=cuda", "listen=1&hwaccel=cuda"])
async def test_rtmp_by_a_named_device(options: str) -> None:
    """Before anybody is called, or let in."""
    with pytest.raises(UsageError, match="hwaccel=cuda cannot decode h264 here"):
        await frames_of(f"rtmp://127.0.0.1:9/live/k3y?{options}")


@nothing_here
async def test_rtmp_in_software_instead() -> None:
    with pytest.raises(StreamFXError) as caught:
        await frames_of("rtmp://127.0.0.1:9/live/k3y?hwaccel=auto")
    assert isinstance(caught.value, SourceError), "nobody is there: it came as far as calling"


@nothing_here
def test_publisher_whose_codec_the_device_does_not_know(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tags = make_tags(tmp_path, frames=10)
    caplog.clear()
    decoder = TagDecoder(None, "cuda")
    with caplog.at_level(logging.WARNING):
        frames = [frame for tag in tags for frame in decoder.decode(tag)]
    assert sum(isinstance(frame, VideoFrame) for frame in frames) == 10
    assert decoder.broken == 0
    assert ["in software" in record.getMessage() for record in caplog.records] == [True]


# --- pictures as devices give them


def smooth(width: int, height: int) -> np.ndarray:
    across, down = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    planes = np.stack([across, down, 1 - (across + down) / 2], axis=2)
    return np.ascontiguousarray((30 + 190 * planes).astype(np.uint8))


@pytest.mark.parametrize("form", ["nv12", "p010le"])
@pytest.mark.parametrize("tag", [1, 6])
@pytest.mark.parametrize("size", [None, (64, 48), (200, 200)])
def test_colours_of_a_device(form: str, tag: int, size: tuple[int, int] | None) -> None:
    """NV12 and P010 are what decoders in hardware give; they are to look as the planar picture does, but for how
    FFmpeg rounds in each."""
    matrix = "ITU709" if tag == 1 else "ITU601"
    rgb = av.VideoFrame.from_ndarray(smooth(130, 94), "rgb24")
    converted = []
    for pixels in ("yuv420p", form):
        frame = rgb.reformat(format=pixels, dst_colorspace=matrix, dst_color_range="MPEG")
        frame.colorspace = tag
        converted.append(VideoConverter(size).convert(frame).astype(int))
    assert converted[0].shape == converted[1].shape
    assert np.abs(converted[0] - converted[1]).max() <= 6
    assert np.abs(converted[0] - converted[1]).mean() < 1.5
    if size is None:
        assert np.abs(converted[1] - smooth(130, 94)).mean() < 2.5
