"""What an HLS playlist is fed with, and what is given out of its folder."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import pytest

from streamfx.core.clock import MonotonicClock
from streamfx.core.frames import AUDIO_RATE, Pixels, Samples
from streamfx.media import hls
from streamfx.media.hls import EvenFeed, HlsPreview, NotYetError, Tap
from tests.support import plain

SIZE = (64, 48)


class Written:
    """A sink that keeps what it is given."""

    def __init__(self) -> None:
        self.pictures: list[tuple[int, float]] = []
        self.sounds: list[tuple[int, int, float]] = []

    def write_video(self, pixels: Pixels, pts: float, captured_at: float | None = None) -> None:
        self.pictures.append((int(pixels[0, 0, 0]), pts))

    def write_audio(self, samples: Samples, start: int) -> None:
        self.sounds.append((start, samples.shape[1], float(samples[0, 0])))


def fed() -> tuple[EvenFeed, Written]:
    sink = Written()
    return EvenFeed(sink, SIZE, Fraction(10)), sink  # type: ignore[arg-type]


def grey(level: int) -> Pixels:
    return plain(SIZE, (level, level, level))


def tone(samples: int) -> Samples:
    return np.ones((2, samples), np.float32)


def test_holes_in_the_picture_are_filled_with_the_last_one() -> None:
    feed, sink = fed()
    for level, seconds in ((1, 5.0), (2, 5.1), (3, 5.41), (4, 5.42), (5, 5.5)):
        feed.picture(grey(level), seconds)
    assert [level for level, _ in sink.pictures] == [1, 2, 2, 2, 3, 5]
    assert [pts for _, pts in sink.pictures] == pytest.approx([5.0, 5.1, 5.2, 5.3, 5.4, 5.5])


def test_a_standstill_is_not_filled() -> None:
    feed, sink = fed()
    feed.picture(grey(1), 5.0)
    feed.picture(grey(2), 500.0)
    assert [pts for _, pts in sink.pictures] == [5.0, 500.0]
    assert sum(samples for _, samples, _ in sink.sounds) == 0


def test_holes_in_the_sound_are_silent() -> None:
    feed, sink = fed()
    feed.sound(tone(480), 100)  # before the first picture
    feed.picture(grey(1), 1.0)
    feed.sound(tone(4800), AUDIO_RATE)
    feed.sound(tone(4800), AUDIO_RATE + 9600)
    feed.sound(tone(4800), AUDIO_RATE + 9600)  # once more the same
    feed.picture(grey(2), 2.0)
    starts = [start - AUDIO_RATE for start, _, _ in sink.sounds]
    assert starts == [0, 4800, 9600, 14400]
    assert [level for _, _, level in sink.sounds] == [1, 0, 1, 0]
    start, samples, _ = sink.sounds[-1]
    assert start + samples == round(1.5 * AUDIO_RATE), "silence keeps half a second behind: sound may still come"


def test_another_size_ends_it() -> None:
    feed, sink = fed()
    feed.picture(grey(1), 0.0)
    feed.picture(plain((32, 32), (9, 9, 9)), 0.1)
    feed.picture(grey(2), 0.2)
    assert feed.outgrown
    assert len(sink.pictures) == 1


class NothingShown:
    size = SIZE

    @contextlib.contextmanager
    def tapped(self, tap: Tap) -> Iterator[None]:
        yield


async def test_only_files_of_the_stream_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hls, "_FIRST_SEGMENT", 0.3)
    preview = HlsPreview(NothingShown(), MonotonicClock(), lambda: Fraction(30), lambda size: 500_000)
    for name in ("", "index.m3u8.tmp", "../index.m3u8", "/etc/passwd", "index0.ts", "index.ts", "indexx.ts"):
        assert await preview.read(name) is None
    assert not preview.wanted
    running = asyncio.create_task(preview.run())
    with pytest.raises(NotYetError):
        await preview.read("index.m3u8")
    assert preview.wanted
    assert await preview.read("index0.ts") is None
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
