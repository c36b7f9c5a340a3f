"""Sound by the slot: exact length, exact place, silence in the holes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamfx.core.frames import AUDIO_RATE, AudioFrame
from streamfx.media.audio_clock import AudioClock
from streamfx.pipeline.audio_lane import AudioLane

SLOT = 1600


def frame(pts: float, count: int = 960, level: float = 0.5) -> AudioFrame:
    return AudioFrame(np.full((2, count), level, np.float32), pts, 0.0)


def ramp(first: int, count: int) -> AudioFrame:
    """Each sample is a value of its own, so that a shift by one shows."""
    values = ((np.arange(first, first + count) % 4000) / 8000 + 0.1).astype(np.float32)
    return AudioFrame(np.stack([values, -values]), first / AUDIO_RATE, 0.0)


def test_gives_each_slot_the_samples_of_its_own_moment() -> None:
    lane = AudioLane()
    for index in range(100):
        lane.put(ramp(index * 960, 960))
    out = np.concatenate([lane.take(slot * SLOT, SLOT) for slot in range(50)], axis=1)
    expected = ((np.arange(50 * SLOT) % 4000) / 8000 + 0.1).astype(np.float32)
    assert out.dtype == np.float32
    np.testing.assert_allclose(out[0][240:], expected[240:], atol=1e-5)
    np.testing.assert_allclose(out[1], -out[0], atol=1e-5)
    assert lane.silent == lane.late == 0


def test_without_sound_there_is_silence() -> None:
    lane = AudioLane()
    assert not lane.take(0, SLOT).any()
    assert lane.silent == SLOT


def test_sound_fades_in_and_out_at_a_hole() -> None:
    lane = AudioLane()
    lane.put(frame(0.0, 4800))
    lane.restart()
    lane.put(frame(0.2, 4800))
    out = np.concatenate([lane.take(slot * SLOT, SLOT) for slot in range(9)], axis=1)[0]
    assert not out[4800 + 240 : 9600].any()
    assert np.abs(np.diff(out)).max() < 0.01, "no click"
    assert out[2000] == out[12000] == pytest.approx(0.5)
    assert lane.silent == 4800


def test_sound_after_its_slot_is_left_out_and_counted() -> None:
    lane = AudioLane()
    lane.take(0, SLOT)
    lane.put(frame(0.0, 960))
    lane.put(frame(960 / AUDIO_RATE, 960))
    out = lane.take(SLOT, SLOT)[0]
    assert lane.late == SLOT
    assert out[:320].any()
    assert not out[320:].any()


def test_is_bounded() -> None:
    lane = AudioLane(longest=1.0)
    for index in range(500):
        lane.put(frame(index * 0.02))
    assert sum(samples.shape[1] for _, samples in lane._runs) <= 1.1 * AUDIO_RATE


def test_slow_drift_is_stretched_away_without_a_hole() -> None:
    """A sound card 200 ppm slow for two minutes: 24 ms, a hole or a crackle if it were cut."""
    lane, drift = AudioLane(), 1 + 200e-6
    levels = []
    for index in range(6000):
        lane.put(frame(index * 0.02 * drift))
        if index >= 10:
            levels.append(lane.take((index - 10) * 960, 960)[0])
    track = np.concatenate(levels)
    assert lane.silent == 0
    assert track[2000:].min() > 0.45


def test_a_clock_restart_begins_at_the_new_place() -> None:
    clock = AudioClock()
    first = list(clock.push(frame(5.0)))
    clock.restart()
    second = list(clock.push(frame(1.0)))
    assert first[0][0] == 5 * AUDIO_RATE
    assert second[0][0] == AUDIO_RATE


@settings(max_examples=40)
@given(st.lists(st.tuples(st.floats(0, 0.5), st.integers(1, 3000)), max_size=20), st.integers(1, 4000))
def test_whatever_comes_every_slot_has_its_length(frames: list[tuple[float, int]], count: int) -> None:
    lane, pts = AudioLane(), 0.0
    for gap, samples in frames:
        pts += gap
        lane.put(frame(pts, samples))
        pts += samples / AUDIO_RATE
    for slot in range(8):
        out = lane.take(slot * count, count)
        assert out.shape == (2, count)
        assert np.abs(out).max() <= 0.6
