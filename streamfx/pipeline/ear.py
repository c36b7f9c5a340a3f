"""The sound that a filter has not been given yet."""

from __future__ import annotations

from collections import deque

import numpy as np

from streamfx.core.frames import AUDIO_RATE, Samples, silence


class Ear:
    """Gathers sound on the media timeline, and gives it in one run; holes are silence. Keeps the last ``longest``
    seconds."""

    def __init__(self, longest: float) -> None:
        self._most = int(longest * AUDIO_RATE)
        self._pieces: deque[Samples] = deque()
        self._start = self._end = 0
        self._fresh = True

    def put(self, start: int, samples: Samples) -> None:
        """``(2, N) float32`` from sample index ``start`` on. What was heard before is not heard again."""
        if self._fresh or start > self._end + self._most:
            self.clear()
            self._start = self._end = start
            self._fresh = False
        if start > self._end:
            self._add(silence(start - self._end))
        self._add(samples[:, max(0, self._end - start) :])

    def take(self) -> tuple[Samples, float] | None:
        """All that came since the last call, with the seconds of its first sample; None if nothing did."""
        if self._start == self._end:
            return None
        found = np.concatenate(self._pieces, axis=1)[:, -self._most :], max(self._start, self._end - self._most)
        self._pieces.clear()
        self._start = self._end
        return found[0], found[1] / AUDIO_RATE

    def clear(self) -> None:
        """Forgets all: what comes next is not joined to what came before."""
        self._pieces.clear()
        self._start = self._end = 0
        self._fresh = True

    def _add(self, samples: Samples) -> None:
        if not samples.shape[1]:
            return
        self._pieces.append(samples)
        self._end += samples.shape[1]
        while self._end - self._start - self._pieces[0].shape[1] >= self._most:
            self._start += self._pieces.popleft().shape[1]
