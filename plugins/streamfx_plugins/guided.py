"""Grows a picture that was drawn small, with the fine detail of the large source it was drawn from.

After K. He, J. Sun, "Fast Guided Filter" (arXiv 1505.00996): how the drawing's brightness goes with the source's is
found for every neighbourhood at the small size. What the source's brightness loses by shrinking is added in that
measure, so contours are as sharp as the source's, and areas that the drawing left plain stay plain.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[Any]
"""``(H, W, 3) uint8`` RGB."""

_RADIUS = 3
_CALM = 30.0
"""Variance of brightness, in grey levels squared, below which a neighbourhood is plain."""
_MOST = 1.5


def grow(drawn: Picture, source: Picture) -> Picture:
    """``drawn`` at the size of ``source``."""
    height, width = source.shape[:2]
    small = drawn.shape[1], drawn.shape[0]
    if small == (width, height):
        return drawn
    grown = cv2.resize(drawn, (width, height), interpolation=cv2.INTER_CUBIC)
    if small[0] >= width or small[1] >= height:
        return np.asarray(grown, np.uint8)
    bright = cv2.cvtColor(source, cv2.COLOR_RGB2GRAY)
    bright_small = cv2.resize(bright, small, interpolation=cv2.INTER_AREA)
    share = _share(bright_small.astype(np.float32), cv2.cvtColor(drawn, cv2.COLOR_RGB2GRAY).astype(np.float32))
    lost = cv2.subtract(
        bright, cv2.resize(bright_small, (width, height), interpolation=cv2.INTER_CUBIC), dtype=cv2.CV_32F
    )
    detail = cv2.multiply(lost, cv2.resize(share, (width, height), interpolation=cv2.INTER_LINEAR))
    return np.asarray(cv2.add(grown, cv2.cvtColor(detail, cv2.COLOR_GRAY2RGB), dtype=cv2.CV_8U), np.uint8)


def _share(source: NDArray[np.float32], drawn: NDArray[np.float32]) -> NDArray[np.float32]:
    """How much the drawing's brightness changes with the source's, around each place; it may be less than nothing."""
    side = (2 * _RADIUS + 1, 2 * _RADIUS + 1)
    mean, mean_drawn = cv2.blur(source, side), cv2.blur(drawn, side)
    variance = cv2.blur(source * source, side) - mean * mean
    together = cv2.blur(source * drawn, side) - mean * mean_drawn
    share = cv2.blur(together / (variance + _CALM), side)
    return np.asarray(np.clip(share, -_MOST, _MOST), np.float32)
