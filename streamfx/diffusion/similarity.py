"""Skips frames that hardly differ from the last one processed, and sees scene cuts. For any filter.

StreamDiffusion (arXiv 2312.12491), section 3.4: the likelier to be skipped, the more alike; by chance, so that a slow
change is followed without a beat.
"""

from __future__ import annotations

import random
from typing import Literal

from torch import Tensor
from torch.nn import functional

from streamfx_kernels.likeness import correlation, cosine, likeness

Verdict = Literal["process", "skip", "cut"]

_SIDE = 32


class SimilarityFilter:
    """Judges frames one after the other.

    ``threshold``: η, cosine similarity below which nothing is skipped. ``most_skips``: in a row. ``cut_below``:
    correlation with the last frame under which it is another scene. ``seed``: of the draw.
    """

    def __init__(self, threshold: float = 0.98, most_skips: int = 10, cut_below: float = 0.3, seed: int = 0) -> None:
        if not 0 <= threshold < 1:
            raise ValueError(f"threshold {threshold} must be from 0 to below 1")
        self._threshold = threshold
        self._most_skips = most_skips
        self._cut_below = cut_below
        self._draw = random.Random(seed)
        self._reference: Tensor | None = None
        self._skipped = 0

    def reset(self) -> None:
        """Forgets the frame it compares with."""
        self._reference = None
        self._skipped = 0

    def judge(self, frame: Tensor) -> Verdict:
        """``frame``: ``(C, H, W)`` of any range and dtype. "cut": process it, and reset what remembers the scene."""
        size = (int(frame.shape[0]), *_small(frame))
        if self._reference is None or self._reference.shape != size:
            return self._take(thumbnail(frame), "process")
        small, found = likeness(frame, self._reference)
        sums = found.tolist()
        if correlation(sums, small.numel()) < self._cut_below:
            return self._take(small, "cut")
        chance = max(0.0, (cosine(sums) - self._threshold) / (1 - self._threshold))
        if self._skipped < self._most_skips and self._draw.random() < chance:
            self._skipped += 1
            return "skip"
        return self._take(small, "process")

    def _take(self, small: Tensor, verdict: Verdict) -> Verdict:
        self._reference = small
        self._skipped = 0
        return verdict


def thumbnail(frame: Tensor) -> Tensor:
    """``(C, H, W)`` to ``(C, h, w)`` float32 with a shorter side of at most 32: enough to tell pictures apart."""
    return functional.adaptive_avg_pool2d(frame[None].float(), _small(frame))[0]


def _small(frame: Tensor) -> tuple[int, int]:
    height, width = int(frame.shape[-2]), int(frame.shape[-1])
    share = min(1.0, _SIDE / min(height, width))
    return max(1, round(height * share)), max(1, round(width * share))
