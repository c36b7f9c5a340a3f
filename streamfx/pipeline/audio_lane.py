"""The parallel lane of the sound: a delay line that gives each output slot the samples of its own moment."""

from __future__ import annotations

from collections import deque

import numpy as np

from streamfx.core.frames import AUDIO_RATE, AudioFrame, Samples, silence
from streamfx.media.audio_clock import AudioClock

_FADE = 240
"""Samples (5 ms) over which sound comes in after a hole, and goes out before one."""


class AudioLane:
    """Takes sound in media time as it comes; gives exactly the samples asked for, with silence where there are none.

    Bounded by ``longest`` seconds. ``silent`` counts samples made up, ``late`` those that came after their slot.
    """

    def __init__(self, longest: float = 10.0) -> None:
        self._clock = AudioClock()
        self._runs: deque[tuple[int, Samples]] = deque()
        self._longest = int(longest * AUDIO_RATE)
        self._taken_to = 0
        self._sounding = False
        self._last = silence(1)
        self.silent = self.late = 0

    def put(self, frame: AudioFrame) -> list[tuple[int, Samples]]:
        """``frame.pts`` is media time. Returns what it became, each piece with the index of its first sample."""
        pieces = list(self._clock.push(frame))
        for start, samples in pieces:
            self._shelve(start, samples)
        return pieces

    def restart(self) -> None:
        """The source was interrupted: its timestamps were anchored anew."""
        self._clock.restart()

    def _shelve(self, start: int, samples: Samples) -> None:
        known = self._runs[-1][0] + self._runs[-1][1].shape[1] if self._runs else self._taken_to
        overlap = max(0, known - start)
        if overlap >= samples.shape[1]:
            self.late += samples.shape[1]
            return
        self.late += overlap
        self._runs.append((start + overlap, samples[:, overlap:]))
        while self._runs and self._runs[0][0] < start - self._longest:
            self._runs.popleft()

    def take(self, start: int, count: int) -> Samples:
        """``(2, count) float32`` from sample index ``start`` on. Calls go forward only."""
        out = silence(count)
        end = start + count
        self._taken_to = end
        covered: list[tuple[int, int]] = []
        while self._runs and self._runs[0][0] < end:
            first, samples = self._runs.popleft()
            last = first + samples.shape[1]
            low, high = max(first, start), min(last, end)
            if high > low:
                out[:, low - start : high - start] = samples[:, low - first : high - first]
                covered.append((low - start, high - start))
            if last > end:
                self._runs.appendleft((end, samples[:, end - first :]))
                break
        self._smooth(out, covered, count)
        return out

    def _smooth(self, out: Samples, covered: list[tuple[int, int]], count: int) -> None:
        """Fades at the edges of holes, so that they do not click."""
        cursor = 0
        sounding = self._sounding
        if sounding and (not covered or covered[0][0] > 0):
            # What came before is out already: let its last value die away.
            length = min(_FADE, covered[0][0] if covered else count)
            out[:, :length] = self._last * np.linspace(1.0, 0.0, length, dtype=np.float32)
        for low, high in covered:
            if low > cursor:
                sounding = False
            if not sounding:
                length = min(_FADE, high - low)
                out[:, low : low + length] *= np.linspace(0.0, 1.0, length, dtype=np.float32)
            sounding = True
            self.silent += low - cursor
            cursor = high
        if cursor < count:
            if cursor:
                length = min(_FADE, cursor)
                out[:, cursor - length : cursor] *= np.linspace(1.0, 0.0, length, dtype=np.float32)
            self.silent += count - cursor
            sounding = False
        self._sounding = sounding
        self._last = out[:, -1:].copy()
