"""A portrait that talks, drawn by the diffusion renderer: a character of the family that it was trained on."""

from __future__ import annotations

from dataclasses import astuple

import cv2
import numpy as np
import numpy.typing as npt
import torch

from streamfx.models.avatar.drawing_pose import Pose
from streamfx.models.avatar.renderer import GRID, Renderer
from streamfx.models.avatar.renderer_stream import PortraitStream

SIDE = 256
"""Pixels: what the renderer was trained at."""


class PortraitPainter:
    """Draws one portrait at one size, a picture after the other: each goes on from those before."""

    def __init__(self, networks: Renderer, picture: npt.NDArray[np.uint8], side: int = SIDE) -> None:
        """``picture``: (H, W, 3) RGB, of which the square in the middle is taken: head and shoulders of somebody who
        looks ahead with a closed mouth, framed as the drawn characters are. ``side``: of the drawings, at most
        ``SIDE``; the next smaller multiple of 16 is taken."""
        self.side = max(4 * GRID, min(side, SIDE) // GRID * GRID)
        height, width = picture.shape[:2]
        square = min(height, width)
        top, left = (height - square) // 2, (width - square) // 2
        cut = picture[top : top + square, left : left + square]
        how = cv2.INTER_AREA if square > self.side else cv2.INTER_CUBIC
        small = cv2.resize(cut, (self.side, self.side), interpolation=how)
        reference = torch.from_numpy(np.ascontiguousarray(small)).movedim(-1, 0).float() / 127.5 - 1
        self._stream = PortraitStream(networks, reference)

    def draw(self, coefficients: npt.ArrayLike) -> npt.NDArray[np.uint8]:
        """The portrait in a pose: ``coefficients`` (17,), clipped to their ranges; (side, side, 3) RGB.

        Raises ``ValueError`` for another shape and for what is no finite number.
        """
        return self._stream.draw(astuple(Pose.of(coefficients)))
