"""How pictures and sound lie in the memory shared with an output's process."""

from __future__ import annotations

import numpy as np

from streamfx.core.frames import AUDIO_CHANNELS, Pixels, Samples
from streamfx.ipc.arena import Arena

VIDEO_SLOTS = 8
AUDIO_SLOTS = 128
AUDIO_SLOT_SAMPLES = 2048


class SlotLayout:
    """``VIDEO_SLOTS`` pictures of ``size`` = (width, height), then ``AUDIO_SLOTS`` runs of at most
    ``AUDIO_SLOT_SAMPLES`` samples: some seconds of sound, so that a hiccup of the network costs pictures only."""

    def __init__(self, size: tuple[int, int]) -> None:
        self._shape = (size[1], size[0], 3)
        # Float arrays want an aligned start.
        self._picture = -(-size[0] * size[1] * 3 // 64) * 64
        self._run = AUDIO_CHANNELS * AUDIO_SLOT_SAMPLES * 4
        self.size = VIDEO_SLOTS * self._picture + AUDIO_SLOTS * self._run

    def video(self, arena: Arena, slot: int) -> Pixels:
        """``(H, W, 3) uint8``, a view."""
        return arena.array(slot * self._picture, self._shape)

    def audio(self, arena: Arena, slot: int, samples: int) -> Samples:
        """``(2, samples) float32``, a view."""
        offset = VIDEO_SLOTS * self._picture + slot * self._run
        return arena.array(offset, (AUDIO_CHANNELS, samples), np.float32)
