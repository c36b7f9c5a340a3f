"""Pictures to another size, for filters that work at a size of their own."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray


def resize_block(video: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """``(F, H, W, 3) uint8`` → ``(F, height, width, 3) uint8`` with ``size = (width, height)``; area-averaged
    when shrinking, bicubic when growing. The array itself when nothing is to be done."""
    width, height = size
    if video.shape[1:3] == (height, width):
        return video
    shrinks = width * height < video.shape[1] * video.shape[2]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    result = np.empty((video.shape[0], height, width, 3), np.uint8)
    for source, target in zip(video, result, strict=True):
        cv2.resize(source, (width, height), dst=target, interpolation=method)
    return result


def working_size(frame: tuple[int, int], sizes: tuple[tuple[int, int], ...], scale: float) -> tuple[int, int]:
    """(width, height) a filter is to work at: of the ``sizes`` it offers the one nearest to the frame in area
    (the frame's own if it takes any), times ``scale`` per side."""
    if sizes:
        area = frame[0] * frame[1] * scale * scale
        return min(sizes, key=lambda size: abs(size[0] * size[1] - area))
    return max(1, round(frame[0] * scale)), max(1, round(frame[1] * scale))
