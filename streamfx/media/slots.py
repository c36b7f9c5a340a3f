"""How pictures and sound lie in the memory shared with a process that encodes, and which of its slots are free."""

from __future__ import annotations

import numpy as np

from streamfx.core.frames import AUDIO_CHANNELS, Pixels, Samples
from streamfx.ipc.arena import Arena
from streamfx.ipc.child import Child

VIDEO_SLOTS = 8
AUDIO_SLOTS = 128
AUDIO_SLOT_SAMPLES = 2048
_SPARE_AUDIO = 8


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


class Slots:
    """The stream's side of the memory: it writes into free slots and tells the child, which gives them back."""

    def __init__(self, size: tuple[int, int]) -> None:
        """Reserves the memory. Raises ``StreamFXError`` or ``OSError`` if there is none."""
        self._layout = SlotLayout(size)
        self._free = {"video": list(range(VIDEO_SLOTS)), "audio": list(range(AUDIO_SLOTS))}
        self.arena = Arena.create(self._layout.size)

    @property
    def waiting(self) -> int:
        """Pictures that the child has not read yet."""
        return VIDEO_SLOTS - len(self._free["video"])

    @property
    def room(self) -> bool:
        """Whether a picture with its sound can be written."""
        return bool(self._free["video"]) and len(self._free["audio"]) >= _SPARE_AUDIO

    def free(self, lane: str, slot: int) -> None:
        """The child has read it."""
        self._free[lane].append(slot)

    def write_video(self, child: Child, pixels: Pixels, pts: float, key: bool = False) -> bool:
        """Hands a picture over, ``key`` asking for a key frame. Returns False if no slot is free."""
        if not self._free["video"]:
            return False
        slot = self._free["video"].pop()
        self._layout.video(self.arena, slot)[:] = pixels
        child.send({"kind": "video", "slot": slot, "pts": pts, "key": key})
        return True

    def write_audio(self, child: Child, samples: Samples, start: int) -> None:
        """Hands over what there are free slots for."""
        for first in range(0, samples.shape[1], AUDIO_SLOT_SAMPLES):
            if not self._free["audio"]:
                return
            slot = self._free["audio"].pop()
            part = samples[:, first : first + AUDIO_SLOT_SAMPLES]
            self._layout.audio(self.arena, slot, part.shape[1])[:] = part
            child.send({"kind": "audio", "slot": slot, "start": start + first, "samples": part.shape[1]})
