"""From RTMP tags to frames: decoding, what is skipped, what an overflow throws away, and how a source ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from fractions import Fraction
from pathlib import Path

import pytest

from streamfx.core.clock import MonotonicClock
from streamfx.core.errors import SourceError
from streamfx.core.frames import AudioFrame, Frame, VideoFrame
from streamfx.media.base import EncodeSettings, OutputFormat, SourceRequest
from streamfx.media.encoder import Encoder
from streamfx.media.pattern import Pattern, read_counter
from streamfx.media.rtmp.connection import FlvTag
from streamfx.media.rtmp.decode import TagDecoder
from streamfx.media.rtmp.flv import parse_video
from streamfx.media.rtmp.source import RtmpSource, nearest_rate
from streamfx.media.rtmp.tag_queue import TagQueue

KINDS = {8: "audio", 9: "video", 18: "data"}


def make_tags(folder: Path, size: tuple[int, int] = (320, 180), frames: int = 60) -> list[FlvTag]:
    """The tags of a short encoded test pattern: a key frame every half second."""
    path = folder / f"{size[0]}x{size[1]}.flv"
    output = OutputFormat(size, Fraction(30), True, False, EncodeSettings(video_bitrate=600_000, gop_seconds=0.5))
    encoder, pattern = Encoder(str(path), "flv", output, push=True), Pattern(size, 30)
    for n in range(frames):
        prepared = encoder.prepare(pattern.picture(n), n / 30)
        assert prepared is not None
        encoder.write_video(prepared)
        encoder.write_audio(pattern.sound(1600 * n, 1600), 1600 * n)
    encoder.finish()
    return list(read_flv(path.read_bytes()))


def read_flv(data: bytes) -> Iterator[FlvTag]:
    at = 13
    while at < len(data):
        size = int.from_bytes(data[at + 1 : at + 4], "big")
        time = int.from_bytes(data[at + 4 : at + 7], "big") | data[at + 7] << 24
        yield FlvTag(KINDS[data[at]], time, data[at + 11 : at + 11 + size], float(time) / 1e3)  # type: ignore[arg-type]
        at += size + 15


@pytest.fixture(scope="module")
def tags(tmp_path_factory: pytest.TempPathFactory) -> list[FlvTag]:
    return make_tags(tmp_path_factory.mktemp("tags"))


def decode(decoder: TagDecoder, tags: list[FlvTag]) -> list[Frame]:
    return [frame for tag in tags for frame in decoder.decode(tag)]


def counters(frames: list[Frame]) -> list[int | None]:
    return [read_counter(frame.pixels) for frame in frames if isinstance(frame, VideoFrame)]


def test_every_picture_and_all_sound_come_out_at_once(tags: list[FlvTag]) -> None:
    frames = decode(TagDecoder(None), tags)
    assert counters(frames) == list(range(60))
    pictures = [frame for frame in frames if isinstance(frame, VideoFrame)]
    assert [frame.pts - pictures[0].pts for frame in pictures] == pytest.approx([n / 30 for n in range(60)], abs=1.1e-3)
    # No picture waits in the decoder for the next tag.
    assert [frame.captured_at for frame in pictures] == pytest.approx([frame.pts for frame in pictures], abs=2e-3)
    sound = [frame for frame in frames if isinstance(frame, AudioFrame)]
    assert sum(frame.samples.shape[1] for frame in sound) > 1.9 * 48_000


def test_nothing_before_the_first_key_frame(tags: list[FlvTag]) -> None:
    config = next(tag for tag in tags if tag.kind == "video")
    later = [tag for tag in tags if tag.kind == "video" and tag.timestamp_ms > 200]
    assert counters(decode(TagDecoder(None), [config, *later]))[0] == 15


def test_damage_is_skipped_and_counted(tags: list[FlvTag]) -> None:
    video = [tag for tag in tags if tag.kind == "video"]
    broken = FlvTag("video", 100, b"\x27\x01\x00\x00\x00\xff\xff\xff\xff junk", 0.1)
    unknown = FlvTag("video", 100, b"\x12junk", 0.1)
    decoder = TagDecoder(None)
    seen = counters(decode(decoder, [video[0], *video[1:6], broken, unknown, *video[16:]]))
    assert decoder.broken >= 2
    assert seen[-1] == 59


def test_the_next_publisher_is_fitted_into_the_size_of_the_first(tmp_path: Path, tags: list[FlvTag]) -> None:
    decoder = TagDecoder(None)
    decode(decoder, tags)
    decoder.restart()
    frames = decode(decoder, make_tags(tmp_path, (240, 240), 20))
    assert {frame.size for frame in frames if isinstance(frame, VideoFrame)} == {(320, 180)}
    last = next(frame for frame in reversed(frames) if isinstance(frame, VideoFrame))
    assert last.pixels[:, :60].max() == 0, "black beside a square picture"
    assert last.pixels[:, 100:220].max() > 200


async def test_overflow_goes_on_at_a_key_frame(tags: list[FlvTag]) -> None:
    queue = TagQueue()
    for tag in tags * 8:
        queue.put(tag)
    assert queue.dropped > 0
    queue.close()
    kept = []
    while (item := await queue.get()) is not None:
        assert item != "restart"
        kept.append(item)
    kinds = [
        (packet := parse_video(tag.body)).kind + ("!" if packet.keyframe else "") for tag in kept if tag.kind == "video"
    ]
    assert kinds[0] == "config"
    assert next(kind for kind in kinds if kind.startswith("frame")) == "frame!"
    assert len(kept) <= 400


async def source_of(tags: list[FlvTag]) -> RtmpSource:
    source = RtmpSource(SourceRequest(clock=MonotonicClock()))

    async def sender() -> AsyncIterator[FlvTag]:
        for tag in tags:
            yield tag

    class Sender:
        metadata: dict[str, object] = {"framerate": 30.0}  # noqa: RUF012

    source.begin("on")
    await source.feed(sender(), Sender())  # type: ignore[arg-type]
    source.end(None)
    return source


async def test_sound_before_the_first_picture_does_not_keep_it_out(tags: list[FlvTag]) -> None:
    sound = [tag for tag in tags if tag.kind == "audio"]
    source = await source_of([*sound, *(tag for tag in tags if tag.kind != "audio")])
    task = asyncio.create_task(source.decode())
    await source.opened(5)
    assert source.info.fps == 30
    assert source.info.size == (320, 180)
    assert len([frame async for frame in source.frames()]) >= 58
    await task
    source.close()


async def test_a_failing_decoder_ends_the_stream_with_a_sentence(
    tags: list[FlvTag], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = await source_of(tags)

    def fail(self: TagDecoder, tag: FlvTag) -> list[Frame]:
        raise RuntimeError("out of luck")

    monkeypatch.setattr(TagDecoder, "decode", fail)
    await source.decode()
    with pytest.raises(SourceError, match="decoding failed"):
        await source.opened(5)
    with pytest.raises(SourceError, match="out of luck"):
        async for _ in source.frames():
            pass
    source.close()


@pytest.mark.parametrize(
    ("measured", "rate"),
    [
        (29.99, Fraction(30)),
        (29.96, Fraction(30000, 1001)),
        (24.9, Fraction(25)),
        (0.2, Fraction(1)),
        (999, Fraction(240)),
    ],
)
def test_rates_become_the_usual_ones(measured: float, rate: Fraction) -> None:
    assert nearest_rate(measured) == rate
