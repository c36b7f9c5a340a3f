"""A frame's thumbnail, and how alike it is to another: the frame is read once."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from streamfx_kernels.switch import by_kernel


def likeness(frame: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """``frame``: ``(C, H, W)`` of any range; ``other``: ``(C, h, w)`` float32, a thumbnail, h ≤ H and w ≤ W.

    Returns the frame's thumbnail like ``other`` (means over the areas that ``adaptive_avg_pool2d`` takes), and
    ``(5,)`` float32: the sums of it, of the other, of their product, and of the square of each; from these follow the
    cosine and Pearson's correlation (``cosine``, ``correlation``).
    """
    if by_kernel(frame):
        from streamfx_kernels.gpu.likeness import launch

        return launch(frame, other)
    return reference(frame, other)


def reference(frame: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """As ``likeness``."""
    small = functional.adaptive_avg_pool2d(frame[None].float(), (int(other.shape[1]), int(other.shape[2])))[0]
    sums = (small.sum(), other.sum(), (small * other).sum(), small.square().sum(), other.square().sum())
    return small, torch.stack(sums)


def cosine(sums: list[float]) -> float:
    """Of what ``likeness`` gives, as a list; 1 for two of nothing but zeros."""
    _, _, together, square, other_square = sums
    length = (square * other_square) ** 0.5
    return together / length if length > 0 else float(square == other_square)


def correlation(sums: list[float], count: int) -> float:
    """Pearson's r of ``count`` values; 1 for two plain pictures, which differ in nothing but their level."""
    total, other_total, together, square, other_square = sums
    spread = max(0.0, square - total**2 / count)
    other_spread = max(0.0, other_square - other_total**2 / count)
    scale = (spread * other_spread) ** 0.5
    return 1.0 if scale < 1e-6 * count else (together - total * other_total / count) / scale
