"""How much noise a chunk of video is given: less the more it moves.

StreamDiffusionV2 (arXiv 2511.07399), section 3.3: fast motion needs the source to be followed, still pictures bear more
style.
"""

from __future__ import annotations

import torch
from torch import Tensor

_FULL_MOTION = 0.2
"""RMS difference of consecutive frames, of pixels in [-1, 1], that counts as all motion there can be."""


class NoiseController:
    """Gives a strength for each chunk, smoothed: ``s ← λ (most - (most - least) m) + (1 - λ) s``.

    ``most``, ``least``: strengths in (0, 1] for still pictures and for fast ones. ``follow``: λ.
    """

    def __init__(self, most: float = 0.8, least: float = 0.7, follow: float = 0.9) -> None:
        if not 0 < least <= most <= 1 or not 0 < follow <= 1:
            raise ValueError("strengths must be 0 < least <= most <= 1, and 0 < follow <= 1")
        self._most, self._least, self._follow = most, least, follow
        self._strength = most
        self._last: Tensor | None = None

    @property
    def strength(self) -> float:
        """Of the last chunk."""
        return self._strength

    def reset(self) -> None:
        """Another scene."""
        self._strength, self._last = self._most, None

    def update(self, frames: Tensor) -> float:
        """The strength for a chunk of ``(F, C, H, W)`` pixels in [-1, 1]; its first frame is compared with the last of
        the chunk before."""
        joined = frames if self._last is None else torch.cat([self._last, frames])
        self._last = frames[-1:].clone()
        wanted = self._most - (self._most - self._least) * motion(joined)
        self._strength = self._follow * wanted + (1 - self._follow) * self._strength
        return self._strength

    @property
    def first_timestep(self) -> float:
        """Where a flow-matching model begins, by the paper: ``1000 s - 100``, at least 1."""
        return max(1.0, 1000 * self._strength - 100)


def motion(frames: Tensor) -> float:
    """0 … 1: the largest RMS difference of consecutive ``(F, C, H, W)`` frames, as a share of what counts as fast."""
    if frames.shape[0] < 2:
        return 0.0
    steps = frames[1:].float() - frames[:-1].float()
    return min(1.0, float(steps.flatten(1).square().mean(1).sqrt().max()) / _FULL_MOTION)
