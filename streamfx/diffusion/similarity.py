"""Skips frames that hardly differ from the last one processed, and sees scene cuts. For any filter.

StreamDiffusion (arXiv 2312.12491), section 3.4: the likelier to be skipped, the more alike; by chance, so that a slow
change is followed without a beat.
"""

from __future__ import annotations

import random
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

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
        small = thumbnail(frame)
        if self._reference is None or self._reference.shape != small.shape:
            return self._take(small, "process")
        likeness = float(functional.cosine_similarity(small.flatten(), self._reference.flatten(), 0))
        if correlation(small, self._reference) < self._cut_below:
            return self._take(small, "cut")
        chance = max(0.0, (likeness - self._threshold) / (1 - self._threshold))
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
    height, width = int(frame.shape[-2]), int(frame.shape[-1])
    share = min(1.0, _SIDE / min(height, width))
    size = max(1, round(height * share)), max(1, round(width * share))
    return functional.adaptive_avg_pool2d(frame[None].float(), size)[0]


def correlation(a: Tensor, b: Tensor) -> float:
    """Pearson's r of two pictures: unlike their cosine, it does not take two bright pictures for alike. 1 for two plain
    ones, which differ in nothing but their level."""
    left, right = (x - x.mean() for x in (a.flatten().float(), b.flatten().float()))
    scale = float(left.norm() * right.norm())
    return 1.0 if scale < 1e-6 * a.numel() else float(torch.dot(left, right)) / scale
