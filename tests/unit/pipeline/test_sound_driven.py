"""Filters that are driven by sound: what they hear, and the pictures they draw on where the source has none."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pytest

from streamfx.core.clock import MonotonicClock
from streamfx.core.frames import AUDIO_RATE, AudioFrame, VideoFrame
from streamfx.media.base import MediaInfo
from streamfx.pipeline.canvas import Canvas
from streamfx.pipeline.ear import Ear
from tests.unit.pipeline.flowkit import Arrival, FakeSource, Stage, camera, live_stage, merged, microphone

FPS = 25
START = 100.0


def run_of(value: float, count: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.full((2, count), value, np.float32)


def test_the_ear_gives_what_is_new_in_one_run() -> None:
    ear = Ear(1.0)
    assert ear.take() is None
    ear.put(480, run_of(0.1, 100))
    ear.put(580, run_of(0.2, 100))
    samples, pts = ear.take() or (None, 0.0)
    assert samples is not None
    assert pts == 0.01
    assert samples[0].tolist() == run_of(0.1, 100)[0].tolist() + run_of(0.2, 100)[0].tolist()
    assert ear.take() is None
    # A hole is silence, an overlap is heard once.
    ear.put(700, run_of(0.3, 50))
    ear.put(740, run_of(0.4, 20))
    samples, pts = ear.take() or (None, 0.0)
    assert samples is not None
    assert pts == 680 / AUDIO_RATE
    assert samples[0].tolist() == [0.0] * 20 + run_of(0.3, 50)[0].tolist() + run_of(0.4, 10)[0].tolist()


def test_the_ear_keeps_the_newest() -> None:
    ear = Ear(0.01)
    for n in range(100):
        ear.put(100 * n, run_of(n / 100, 100))
    samples, pts = ear.take() or (None, 0.0)
    assert samples is not None
    assert samples.shape == (2, 480)
    assert pts == pytest.approx((10_000 - 480) / AUDIO_RATE)
    assert samples[0, -1] == np.float32(0.99)
    # After a jump that is longer than it remembers, it begins anew.
    ear.put(1_000_000, run_of(0.5, 10))
    samples, pts = ear.take() or (None, 0.0)
    assert samples is not None
    assert samples.shape == (2, 10)
    assert pts == 1_000_000 / AUDIO_RATE


@dataclass
class Drawn:
    """What came off a canvas, with the time at which it came."""

    pictures: list[tuple[float, VideoFrame]]
    sounds: list[tuple[float, AudioFrame]]


def soundsource(stage: Stage, arrivals: Iterable[Arrival], live: bool = True) -> FakeSource:
    source = FakeSource(stage.clock, arrivals, live=live)
    source.info = MediaInfo.of_sound(live=live)
    return source


async def drawn(arrivals: Iterable[Arrival], live: bool = True) -> Drawn:
    """All frames of a canvas over sound that comes in ``arrivals``."""
    stage = live_stage([])
    canvas = Canvas(soundsource(stage, arrivals, live), (64, 48), Fraction(FPS), stage.clock)
    found = Drawn([], [])
    async for frame in canvas.frames():
        entry = stage.clock.now() - START, frame
        (found.pictures if isinstance(frame, VideoFrame) else found.sounds).append(entry)  # type: ignore[arg-type]
    assert canvas.info == MediaInfo((64, 48), Fraction(FPS), audio=True, live=live)
    return found


def assert_even(pictures: list[tuple[float, VideoFrame]]) -> None:
    """One picture for every moment."""
    steps = [b.pts - a.pts for (_, a), (_, b) in itertools.pairwise(pictures)]
    assert steps == pytest.approx([1 / FPS] * len(steps))
    assert [frame.sequence for _, frame in pictures] == list(range(len(pictures)))


async def test_a_picture_for_every_moment_of_a_file() -> None:
    found = await drawn(microphone(2.0, pts=5.0), live=False)
    assert len(found.pictures) == 50
    assert_even(found.pictures)
    assert found.pictures[0][1].pts == 5.0
    assert found.pictures[0][1].pixels.shape == (48, 64, 3)
    assert sum(frame.samples.shape[1] for _, frame in found.sounds) == 2 * AUDIO_RATE


async def test_a_hole_in_a_file_has_pictures_and_a_broken_timestamp_has_none() -> None:
    found = await drawn([*microphone(1.0), *microphone(1.0, pts=3.0), *microphone(1.0, pts=90_000.0)], live=False)
    assert_even(found.pictures)
    assert found.pictures[-1][1].pts == pytest.approx(5.0 - 1 / FPS)


async def test_silence_goes_on_when_the_sound_stops() -> None:
    clock = MonotonicClock()
    arrivals = [*microphone(0.4), *microphone(0.4, start=1.4, pts=0.4)]  # its clock stood still meanwhile
    source = FakeSource(clock, arrivals)
    source.info = MediaInfo.of_sound(live=True)
    canvas = Canvas(source, (64, 48), Fraction(FPS), clock)
    started = clock.now()
    frames = [(clock.now() - started, frame) async for frame in canvas.frames()]
    pictures = [(at, frame) for at, frame in frames if isinstance(frame, VideoFrame)]
    assert_even(pictures)
    assert pictures[-1][1].pts == pytest.approx(1.8, abs=0.15)
    # Never late by more than what it waits for sound, and a moment.
    assert max(at - frame.pts for at, frame in pictures) < 0.6
    sounds = [frame for _, frame in frames if isinstance(frame, AudioFrame)]
    silent = sum(frame.samples.shape[1] for frame in sounds if not frame.samples.any()) / AUDIO_RATE
    assert silent == pytest.approx(0.85, abs=0.25)
    ends = [frame.pts + frame.duration for frame in sounds]
    assert all(frame.pts >= end - 1e-6 for frame, end in zip(sounds[1:], ends, strict=False))


def heard(stage: Stage) -> tuple[np.ndarray[tuple[int, ...], np.dtype[np.float32]], float]:
    """All that the filter was given, checked to be one run, and where it begins."""
    assert stage.runner is not None
    blocks = [block for block in stage.runner.blocks if block.audio is not None]
    for one, following in itertools.pairwise(blocks):
        assert one.audio is not None
        assert following.audio_pts == pytest.approx(one.audio_pts + one.audio.shape[1] / AUDIO_RATE)
    return np.concatenate([block.audio for block in blocks if block.audio is not None], axis=1), blocks[0].audio_pts


async def test_the_filter_hears_all_of_the_sound_also_of_pictures_that_it_misses() -> None:
    arrivals = merged(camera(20, 6), microphone(6, loud=3.0))
    stage = live_stage(arrivals, lambda block, scale: 0.12, takes="audio", budget=0.5)
    await stage.play()
    assert stage.counters()["dropped"] > 20
    samples, start = heard(stage)
    assert samples.shape[1] / AUDIO_RATE == pytest.approx(6, abs=0.3)
    loud = start + np.flatnonzero(samples[0] > 0.5)[0] / AUDIO_RATE
    assert loud == pytest.approx(3.0, abs=0.01)


async def test_a_filter_of_pictures_hears_nothing() -> None:
    stage = live_stage(merged(camera(20, 2), microphone(2)), lambda block, scale: 0.02)
    await stage.play()
    assert stage.runner is not None
    assert all(block.audio is None for block in stage.runner.blocks)


async def test_picture_and_sound_of_a_moment_go_out_together_whatever_the_lookahead() -> None:
    stage = live_stage([], lambda block, scale: 0.03, takes="audio", lookahead=0.2, lag=4, fps=FPS, budget=0.15)
    canvas = Canvas(soundsource(stage, microphone(8, loud=4.0)), (32, 32), Fraction(FPS), stage.clock)
    stage.source = canvas  # type: ignore[assignment]
    await stage.play()
    counters = stage.counters()
    assert counters.get("late", 0) == 0
    shown = [picture for picture in stage.sink.pictures if picture.at - START > 2]
    assert {picture.kind for picture in shown} == {"filtered"}
    # The picture of the loud moment goes out in the slot of the loud sound.
    track, first = stage.sink.track(), stage.sink.sounds[0][1]
    loud = (first + int(np.flatnonzero(track > 0.5)[0])) / AUDIO_RATE
    assert loud == pytest.approx(4.0, abs=0.045)
    assert stage.flow.delay == pytest.approx(4 / FPS + 0.03, abs=0.05)


async def test_the_camera_is_not_shown_instead_of_a_filter_that_hangs() -> None:
    stage = live_stage(merged(camera(20, 12), microphone(12)), lambda block, scale: 0.03, takes="audio")
    assert stage.runner is not None
    stage.runner.fault = lambda now: 5.0 if now - START > 4 else 0.0
    await stage.play()
    assert "source" not in {picture.kind for picture in stage.sink.pictures}


async def test_another_publisher_is_heard_from_its_beginning() -> None:
    second = merged(camera(20, 3, 5.0, 500.0), microphone(3, 5.0, 500.0))
    arrivals = [*merged(camera(20, 3), microphone(3)), *second]
    stage = live_stage(arrivals, lambda block, scale: 0.03, takes="audio")
    await stage.play()
    assert stage.runner is not None
    assert len(stage.runner.resets) >= 2
    last = [block for block in stage.runner.blocks if block.audio is not None][-1]
    assert last.audio is not None
    assert last.audio.shape[1] < AUDIO_RATE


async def test_it_comes_back_after_it_was_too_slow_for_a_while() -> None:
    # Meanwhile blocks are left out but for a probe a second; that makes what it gives no later than four pictures.
    stage = live_stage(merged(camera(25, 20), microphone(20)), lambda block, scale: 0.03, takes="audio", lag=4, fps=FPS)
    assert stage.runner is not None
    stage.runner.fault = lambda now: 0.9 if 3 < now - START < 8 else 0.0
    await stage.play()
    late = [picture for picture in stage.sink.pictures if picture.at - START > 12]
    fresh = len({picture.number for picture in late})
    assert fresh > 0.95 * len(late)
