"""Large pixels: a mosaic that hides, or the look of an LED wall."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from streamfx.filters import Block, Filter, FilterInfo, Params


class PixelateParams(Params):
    """How large the pixels are, and how they look."""

    cell: int = Field(16, ge=2, le=256, title="Cell", description="side of a large pixel, in pixels of the frame")
    shape: Literal["square", "round"] = Field("square", title="Shape", description="square tiles or round lamps")
    tones: int = Field(0, ge=0, le=64, title="Tones", description="steps of each colour; 0 keeps them all")


class Pixelate(Filter[PixelateParams]):
    """The mosaic filter."""

    name = "pixelate"
    info = FilterInfo(summary="Large pixels: a mosaic that hides, or the look of an LED wall.", min_scale=1.0)

    def process(self, block: Block, params: PixelateParams) -> Block:
        return block.with_video(np.stack([_mosaic(frame, params) for frame in block.frames]))


def _mosaic(frame: NDArray[np.uint8], params: PixelateParams) -> NDArray[np.uint8]:
    """``(H, W, 3) uint8`` → the same shape; each cell has the mean of what it covers."""
    height, width = frame.shape[:2]
    columns, rows = max(1, round(width / params.cell)), max(1, round(height / params.cell))
    cells = cv2.resize(frame, (columns, rows), interpolation=cv2.INTER_AREA)
    if params.tones:
        cells = cv2.LUT(cells, _steps(params.tones))
    picture = cv2.resize(cells, (width, height), interpolation=cv2.INTER_NEAREST)
    if params.shape == "round":
        picture = cv2.multiply(picture, _lamps(width, height, columns, rows), scale=1 / 255)
    return np.asarray(picture, np.uint8)


@lru_cache(maxsize=8)
def _steps(tones: int) -> NDArray[np.uint8]:
    count = max(2, tones)
    return np.asarray(np.round(np.round(np.arange(256) / 255 * (count - 1)) / (count - 1) * 255), np.uint8)


@lru_cache(maxsize=4)
def _lamps(width: int, height: int, columns: int, rows: int) -> NDArray[np.uint8]:
    """``(H, W, 3) uint8``: how bright each point of the wall is; a round lamp in each cell, dark between them."""
    x = (np.arange(width) + 0.5) * columns / width % 1 - 0.5
    y = (np.arange(height) + 0.5) * rows / height % 1 - 0.5
    distance = np.hypot(x[None, :], y[:, None])
    edge = columns / width  # a pixel of the frame, in cells: the width over which the lamp's rim is smoothed
    light = np.clip((0.46 - distance) / edge + 0.5, 0.06, 1.0) * (1.08 - 0.35 * distance)
    return np.repeat(np.clip(255 * light, 0, 255).astype(np.uint8)[..., None], 3, axis=2)
