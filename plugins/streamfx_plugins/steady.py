"""Steadies drawn pictures: each takes a share of the one before, moved along the optical flow of their sources.

What a camera or a hand carries along is carried along in the drawing, as in temporal reprojection (L. Yang et al., "A
Survey of Temporal Antialiasing Techniques", 2020). Where the source is not what was there before, moved, so in what
comes into sight and at cuts, nothing is taken.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]

SHARE = 0.5
"""Of the one before: halves what is left of flicker; more than that blurs strokes."""

_SIDE = 160
"""Pixels: flow is looked for at about the area of a square of this side."""

_LEAST = 16

_ALIKE = 8.0
"""Levels by which the source may differ from what is moved there, until half as much is taken."""


class Steady:
    """Of one stream of pictures."""

    def __init__(self) -> None:
        self._flow: Any = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
        self._drawn: NDArray[np.float32] | None = None
        self._seen: NDArray[Any] | None = None

    def reset(self) -> None:
        """The next picture has none before it."""
        self._drawn = self._seen = None

    def __call__(self, drawn: Picture, source: NDArray[Any], share: float) -> Picture:
        """``drawn``, and its ``source``, ``(H, W, 3) uint8`` of one size. ``share``: of the one before, 0 … below 1."""
        seen, now = _small(cv2.cvtColor(source, cv2.COLOR_RGB2GRAY)), drawn.astype(np.float32)
        if share > 0 and self._drawn is not None and self._seen is not None and self._drawn.shape == now.shape:
            height, width = now.shape[:2]
            flow = self._flow.calc(seen, self._seen, None)
            alike = _alike(seen, _moved(self._seen, flow))
            flow = cv2.resize(flow, (width, height)) * (width / seen.shape[1], height / seen.shape[0])
            taken = cv2.resize(share * alike, (width, height))[..., None]
            now += taken * (_moved(self._drawn, flow) - now)
        self._drawn, self._seen = now, seen
        return np.asarray(np.clip(now, 0, 255).round(), np.uint8)


def _moved(picture: NDArray[Any], flow: NDArray[Any]) -> NDArray[Any]:
    """``flow``: ``(H, W, 2)``, from each place to where it was in ``picture``."""
    rows, columns = (np.arange(length, dtype=np.float32) for length in flow.shape[:2])
    places = np.stack([flow[..., 0] + columns, flow[..., 1] + rows[:, None]], -1, dtype=np.float32)
    return cv2.remap(picture, places, np.empty(0), cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)


def _alike(seen: NDArray[Any], moved: NDArray[Any]) -> NDArray[np.float32]:
    """How sure it is that a place shows what was moved there, 0 … 1."""
    apart = cv2.blur(cv2.absdiff(seen, moved), (3, 3)) / _ALIKE
    return np.asarray(1 / (1 + apart**2), np.float32)


def _small(grey: NDArray[Any]) -> NDArray[Any]:
    """The flow wants no shape that is too narrow."""
    height, width = grey.shape
    share = min(1.0, _SIDE / (height * width) ** 0.5)
    size = (round(share * max(width, height / 4, _LEAST)), round(share * max(height, width / 4, _LEAST)))
    return cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
