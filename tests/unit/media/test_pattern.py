"""The test pattern can be read back: after scaling, after a real encoder, and through a filter."""

from __future__ import annotations

import io
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamfx.core.frames import AUDIO_RATE
from streamfx.filters import Block
from streamfx.media.convert import AudioConverter
from streamfx.media.pattern import Pattern, click_times, is_flash, read_counter
from streamfx_plugins.toon import Toon, ToonParams

SIZES = [(64, 36), (99, 57), (320, 180), (333, 201), (360, 640), (1280, 720)]


@pytest.mark.parametrize("size", SIZES)
def test_number_and_flash_are_read_back(size: tuple[int, int]) -> None:
    pattern = Pattern(size, 30)
    for n in (0, 1, 29, 30, 31, 12345, 2**20 - 1):
        picture = pattern.picture(n)
        assert picture.shape == (size[1], size[0], 3)
        assert picture.flags.c_contiguous
        assert read_counter(picture) == n
        assert is_flash(picture) == (n % 30 == 0)


@given(st.integers(0, 2**20 - 1))
def test_neighbouring_numbers_differ(n: int) -> None:
    pattern = Pattern((320, 180), 30)
    assert read_counter(pattern.picture(n)) == n


@given(st.integers(0, 2**31))
def test_noise_is_no_number(seed: int) -> None:
    noise = np.random.default_rng(seed).integers(0, 256, (36, 64, 3), np.uint8)
    assert read_counter(noise) is None


@pytest.mark.parametrize("scale", [0.5, 0.77, 1.5])
def test_number_survives_scaling(scale: float) -> None:
    picture = cv2.resize(Pattern((640, 360), 25).picture(987), None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    assert read_counter(np.asarray(picture, np.uint8)) == 987


def test_number_survives_the_cartoon() -> None:
    toon = Toon()
    pattern = Pattern((640, 360), 30)
    for n in range(20, 26):
        drawn = toon.process(Block(video=pattern.picture(n)[None], pts=(0.0,)), ToonParams())
        assert read_counter(drawn.frames[0]) == n


@pytest.mark.parametrize("size", [(320, 180), (640, 360)])
def test_number_and_flash_survive_200_kbps(size: tuple[int, int]) -> None:
    pattern = Pattern(size, 30)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska") as out:
        stream = out.add_stream("libx264", rate=30, options={"preset": "ultrafast", "tune": "zerolatency"})
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = *size, "yuv420p", 200_000
        for n in range(75):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(pattern.picture(n), "rgb24")))
        out.mux(stream.encode(None))
    buffer.seek(0)
    with av.open(buffer) as back:
        pictures = [frame.to_ndarray(format="rgb24") for frame in back.decode(video=0)]
    assert [read_counter(picture) for picture in pictures] == list(range(75))
    assert [n for n, picture in enumerate(pictures) if is_flash(picture)] == [0, 30, 60]


def test_flash_at_fractional_rates() -> None:
    pattern = Pattern((64, 36), 30000 / 1001)
    assert [n for n in range(100) if pattern.flashes(n)] == [0, 30, 60, 90]


def test_sound_is_continuous_and_clicks_each_second() -> None:
    whole = Pattern.sound(0, 3 * AUDIO_RATE)
    parts = np.concatenate([Pattern.sound(at, 1600) for at in range(0, 3 * AUDIO_RATE, 1600)], axis=1)
    assert np.array_equal(whole, parts)
    assert click_times(whole) == pytest.approx([0, 1, 2], abs=1e-3)
    assert click_times(Pattern.sound(4800, 40000)) == []


def test_clicks_survive_aac() -> None:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska") as out:
        stream = out.add_stream("aac", rate=AUDIO_RATE, layout="stereo")
        assert isinstance(stream, av.AudioStream)
        stream.bit_rate = 96_000
        frame = av.AudioFrame.from_ndarray(Pattern.sound(AUDIO_RATE // 2, 4 * AUDIO_RATE), "fltp", "stereo")
        frame.sample_rate, frame.pts, frame.time_base = AUDIO_RATE, 0, Fraction(1, AUDIO_RATE)
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    buffer.seek(0)
    converter = AudioConverter()
    with av.open(buffer) as back:
        frames = list(back.decode(audio=0))
        runs = [samples for frame in frames for samples in converter.convert(frame)]
        begin = frames[0].time or 0.0
    assert [begin + at for at in click_times(np.concatenate(runs, axis=1))] == pytest.approx(
        [0.5, 1.5, 2.5, 3.5], abs=1.5e-3
    )
