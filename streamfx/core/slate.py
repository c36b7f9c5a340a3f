"""What is shown while there is no source: its last picture, blurred and dimmed, with three breathing dots."""

from __future__ import annotations

import math

import numpy as np

from streamfx.core.frames import Pixels

_BLOCK = 16


class Slate:
    """Made from the last picture of a stream. Says "wait" in no language."""

    def __init__(self, last: Pixels) -> None:
        self._background = _dimmed(last)
        self._radius = max(2.0, min(last.shape[:2]) / 40)

    def picture(self, seconds: float) -> Pixels:
        """``(H, W, 3) uint8``, ``seconds`` into the animation."""
        picture = self._background.copy()
        height, width = picture.shape[:2]
        for index in range(3):
            glow = 0.25 + 0.75 * max(0.0, math.sin(2 * math.pi * (seconds / 1.6 - index / 6)))
            self._dot(picture, width / 2 + (index - 1) * 3.2 * self._radius, height / 2, glow)
        return picture

    def _dot(self, picture: Pixels, x: float, y: float, glow: float) -> None:
        reach = math.ceil(self._radius) + 1
        top, left = max(0, int(y) - reach), max(0, int(x) - reach)
        patch = picture[top : int(y) + reach + 1, left : int(x) + reach + 1]
        rows, columns = np.ogrid[top : top + patch.shape[0], left : left + patch.shape[1]]
        cover = np.clip(self._radius + 0.5 - np.hypot(rows - y, columns - x), 0.0, 1.0)[..., None] * glow
        patch[:] = (patch * (1 - cover) + 255 * cover).astype(np.uint8)


def _dimmed(picture: Pixels) -> Pixels:
    """A coarse, smooth, dark copy: block means, grown again with linear interpolation."""
    height, width = picture.shape[:2]
    rows, columns = max(1, height // _BLOCK), max(1, width // _BLOCK)
    cropped = picture[: rows * (height // rows), : columns * (width // columns)]
    small = cropped.reshape(rows, height // rows, columns, width // columns, 3).mean((1, 3), dtype=np.float32) * 0.3
    for axis, length in ((0, height), (1, width)):
        place = np.clip((np.arange(length) + 0.5) * small.shape[axis] / length - 0.5, 0, small.shape[axis] - 1)
        low = place.astype(int)
        high = np.minimum(low + 1, small.shape[axis] - 1)
        share = (place - low).astype(np.float32)
        share = share[:, None, None] if axis == 0 else share[None, :, None]
        small = np.take(small, low, axis) * (1 - share) + np.take(small, high, axis) * share
    return np.asarray(small, np.uint8)
