"""Frames: sizes, moments, silence."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from streamfx.core.frames import AUDIO_CHANNELS, AUDIO_RATE, AudioFrame, VideoFrame, silence


def test_size_is_width_then_height() -> None:
    assert VideoFrame(np.zeros((36, 64, 3), np.uint8), 0.0, 0.0).size == (64, 36)


def test_another_moment_of_the_same_picture() -> None:
    frame = VideoFrame(np.zeros((2, 2, 3), np.uint8), 1.0, 2.0, sequence=7)
    assert frame.deadline == math.inf
    moved = frame.at(5.0, deadline=9.0)
    assert (moved.pts, moved.deadline, moved.captured_at, moved.sequence) == (5.0, 9.0, 2.0, 7)
    assert moved.pixels is frame.pixels
    assert moved.at(6.0).deadline == 9.0


def test_frames_do_not_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        VideoFrame(np.zeros((2, 2, 3), np.uint8), 0.0, 0.0).pts = 1.0  # type: ignore[misc]


def test_duration_and_moment_of_sound() -> None:
    frame = AudioFrame(silence(AUDIO_RATE // 50), 1.0, 2.0)
    assert frame.duration == pytest.approx(0.02)
    assert (frame.at(3.0).pts, frame.at(3.0).captured_at) == (3.0, 2.0)


def test_silence() -> None:
    samples = silence(5)
    assert samples.shape == (AUDIO_CHANNELS, 5)
    assert samples.dtype == np.float32
    assert not samples.any()
