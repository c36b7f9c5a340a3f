"""What a frame is: pixels or samples with the moment they belong to and the moment they are due."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
"""``(H, W, 3) uint8`` RGB, full range, C-contiguous. Not written to once it is in a frame."""

Samples = NDArray[np.float32]
"""``(channels, N) float32`` in [-1, 1]."""

AUDIO_RATE = 48_000
"""Sample rate, in Hz, of all audio inside the pipeline."""

AUDIO_CHANNELS = 2
"""Channels of all audio inside the pipeline: left, right."""


@dataclass(frozen=True, slots=True)
class VideoFrame:
    """One picture.

    ``pts``: seconds on the stream's media timeline. ``captured_at``: when it entered this process, in
    ``Clock`` seconds. ``deadline``: when its rendering is due, in ``Clock`` seconds (``inf``: whenever).
    ``sequence``: counts the frames of one source from 0.
    """

    pixels: Pixels
    pts: float
    captured_at: float
    sequence: int = 0
    deadline: float = math.inf

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return int(self.pixels.shape[1]), int(self.pixels.shape[0])

    def at(self, pts: float, deadline: float | None = None) -> VideoFrame:
        """The same picture at another moment of the media timeline."""
        return replace(self, pts=pts, deadline=self.deadline if deadline is None else deadline)


@dataclass(frozen=True, slots=True)
class AudioFrame:
    """A run of samples at ``AUDIO_RATE`` with ``AUDIO_CHANNELS`` channels.

    ``pts``: seconds on the media timeline of the first sample. ``captured_at``: ``Clock`` seconds.
    """

    samples: Samples
    pts: float
    captured_at: float

    @property
    def duration(self) -> float:
        """Seconds."""
        return float(self.samples.shape[1] / AUDIO_RATE)

    def at(self, pts: float) -> AudioFrame:
        """The same samples at another moment of the media timeline."""
        return replace(self, pts=pts)


Frame = VideoFrame | AudioFrame


def silence(samples: int) -> Samples:
    """``(AUDIO_CHANNELS, samples)`` zeros."""
    return np.zeros((AUDIO_CHANNELS, samples), np.float32)
