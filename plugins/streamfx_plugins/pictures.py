"""What filters around models share: frames as tensors and back, sizes, picture files, lists of LoRAs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from streamfx.core.errors import UsageError

if TYPE_CHECKING:
    import torch


def network_size(frame: tuple[int, int], side: int, multiple: int) -> tuple[int, int]:
    """(width, height) for a network that was trained on squares of ``side``: about that area in the shape of the frame,
    both multiples of ``multiple``."""
    share = side / math.sqrt(frame[0] * frame[1])
    width, height = (max(1, round(length * share / multiple)) * multiple for length in frame)
    return width, height


def to_tensor(frames: NDArray[np.uint8], size: tuple[int, int], device: str, dtype: torch.dtype) -> torch.Tensor:
    """``(F, H, W, 3) uint8`` to ``(F, 3, height, width)`` in [-1, 1], resized on the device."""
    from streamfx.models.transfer import upload

    return upload(device)(frames, size, dtype)


def to_frames(pictures: torch.Tensor) -> NDArray[np.uint8]:
    """``(F, 3, H, W)`` in [-1, 1] to ``(F, H, W, 3) uint8``."""
    from streamfx.models.transfer import download

    return download(pictures.device)(pictures)


def parse_loras(text: str) -> list[tuple[str, float]]:
    """ "a, b=0.6" → [("a", 1.0), ("b", 0.6)]. Raises ``UsageError``."""
    found: list[tuple[str, float]] = []
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        place, equals, weight = part.rpartition("=")
        try:
            found.append((place, float(weight)) if equals else (part, 1.0))
        except ValueError:
            raise UsageError(f"loras: {part!r} is not possible; write PLACE or PLACE=WEIGHT, as style=0.8") from None
    return found


def read_picture(path: str, parameter: str) -> NDArray[np.uint8]:
    """A picture file as RGB, upright. Raises ``UsageError``, naming the parameter that named the file."""
    try:
        picture = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
    except (OSError, cv2.error) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is empty"
        raise UsageError(f"{parameter} {path} cannot be read: {reason}") from error
    if picture is None:
        raise UsageError(f"{parameter} {path} is not a picture; give a PNG, JPEG or WebP file")
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), np.uint8)
