"""Sound as a stream brings it, for networks that hear speech: joined, and resampled to 16 kHz, mono."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
from numpy.typing import NDArray

from streamfx.core.frames import AUDIO_RATE

RATE = 16_000
"""Sample rate, in Hz, of what the networks hear."""

_SEAM = 0.02
_LONGEST_FILL = 1.0


class Hearing:
    """Sound as a stream brings it, joined and resampled: 16 kHz, mono."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """What comes next is not joined to what came before."""
        self._resampler = av.AudioResampler("flt", "mono", RATE)
        self.start: float | None = None
        """Seconds of the first sample; None while there is none."""
        self._taken = 0

    def hear(self, samples: NDArray[np.float32], pts: float) -> tuple[NDArray[np.float32], bool]:
        """``(2, N) float32`` at 48 kHz from ``pts`` seconds on → the samples ``(M,) float32`` that it gives, and
        whether it begins anew: at first, after a hole of more than a second, and after a step back. A shorter hole is
        silence."""
        if self.start is not None:
            hole = pts - (self.start + self._taken / AUDIO_RATE)
            if -_SEAM <= hole <= _LONGEST_FILL:
                samples = np.pad(samples, ((0, 0), (max(0, round(hole * AUDIO_RATE)), 0)))
            else:
                self.restart()
        anew = self.start is None
        if anew:
            self.start = pts
        # Here, as the resampler's own mix of float channels is louder than they are, and would be clipped.
        middle = np.ascontiguousarray(samples.mean(0, keepdims=True), np.float32)
        frame = av.AudioFrame.from_ndarray(middle, "fltp", "mono")
        frame.sample_rate, frame.time_base, frame.pts = AUDIO_RATE, Fraction(1, AUDIO_RATE), self._taken
        self._taken += samples.shape[1]
        parts = [part.to_ndarray()[0] for part in self._resampler.resample(frame)]
        mono = np.concatenate(parts) if parts else np.zeros(0)
        return np.nan_to_num(np.clip(mono, -1, 1)).astype(np.float32), anew
