"""Sound in, pictures out: chunk by chunk, at the same cost and in the same memory however long it lasts."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from streamfx.core.errors import UsageError
from streamfx.models.avatar.hearing import RATE
from streamfx.models.avatar_wan.audio import AudioContext


class Draws(Protocol):
    """A model that draws chunks to sound: ``LiveAvatar`` or ``FlashHead``."""

    fps: int
    """Pictures a second."""

    frames: int
    """Pictures of a chunk."""

    hears: int
    """Rows of features that a chunk is drawn to: those of its pictures, and of some before."""

    def takes(self, layers: int, dim: int) -> bool:
        """Whether it was trained with features of so many layers, so wide."""
        ...

    def draw(self, features: Tensor) -> Tensor:
        """The next chunk: ``(hears, layers, dim)`` features, up to its end → ``(frames, 3, H, W)`` in [-1, 1]."""
        ...

    def reset(self) -> None:
        """Begins anew, from the reference picture."""
        ...


class AvatarStream:
    """One avatar that speaks. ``audio``: of the frame rate that ``model`` has. Raises ``UsageError`` if its wav2vec 2.0
    is another than the model was trained with."""

    def __init__(self, model: Draws, audio: AudioContext) -> None:
        if not model.takes(audio.layers, audio.dim):
            raise UsageError(
                f"wav2vec 2.0 with {audio.layers} layers of {audio.dim} is not what the avatar was trained with; give"
                f" wav2vec2-large-xlsr-53-english for Wan2.2-S2V, facebook/wav2vec2-base-960h for SoulX-FlashHead"
            )
        self._model, self._audio = model, audio
        self._chunk = model.frames * RATE // model.fps
        self._waiting = torch.zeros(0)
        self._drawn = 0

    @property
    def fps(self) -> int:
        """Pictures a second."""
        return self._model.fps

    def step(self, samples: Tensor) -> tuple[Tensor, list[float]]:
        """Takes any number of samples, ``(N,)`` at 16 kHz in [-1, 1]. Returns the pictures of all chunks whose sound is
        complete, ``(F, 3, H, W)`` in [-1, 1], F 0 for none; and when each begins, in seconds of the sound since the
        beginning."""
        self._waiting = torch.cat([self._waiting, samples.cpu().float()])
        pictures = []
        while len(self._waiting) >= self._chunk:
            chunk, self._waiting = self._waiting[: self._chunk], self._waiting[self._chunk :].clone()
            pictures.append(self._model.draw(self._audio.hear(chunk, self._model.hears)))
        if not pictures:
            return torch.zeros(0, 3, 0, 0), []
        given = torch.cat(pictures)
        labels = [(self._drawn + n) / self._model.fps for n in range(len(given))]
        self._drawn += len(given)
        return given, labels

    def reset(self) -> None:
        """Other sound, that is not joined to what was heard."""
        self._model.reset()
        self._audio.reset()
        self._waiting = torch.zeros(0)
        self._drawn = 0
