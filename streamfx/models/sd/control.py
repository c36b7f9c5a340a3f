"""What a ControlNet goes by, made from the pictures of the stream: contours, or depths."""

from __future__ import annotations

from typing import Any, Protocol

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from streamfx.models.explained import explained

_FOLLOW = 0.2
"""How fast the range of depths follows the picture; a range taken anew for every frame would flicker."""

_DEPTH_SIDE = 252


class Hint(Protocol):
    """Makes what a ControlNet wants of ``(F, 3, H, W)`` in [-1, 1]: the same shape in [0, 1]."""

    def __call__(self, pictures: Tensor) -> Tensor: ...

    def reset(self) -> None:
        """Another scene."""
        ...


class Canny:
    """White contours on black (J. Canny, 1986). ``low``, ``high``: gradients between which an edge goes on."""

    def __init__(self, low: float = 100, high: float = 200) -> None:
        self._low, self._high = low, high

    def __call__(self, pictures: Tensor) -> Tensor:
        frames = ((pictures.float() + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()
        edges = np.stack([cv2.Canny(np.ascontiguousarray(frame), self._low, self._high) for frame in frames])
        found = torch.from_numpy(edges).to(pictures.device, pictures.dtype) / 255
        return found[:, None].expand(-1, 3, -1, -1)

    def reset(self) -> None: ...


class Depth:
    """Depths by a network of transformers (Depth Anything, DPT), white near and black far.

    ``place``: a folder or a hub name. Raises ``UsageError`` if it cannot be loaded.
    """

    def __init__(self, place: str, device: torch.device | str, dtype: torch.dtype, offline: bool = False) -> None:
        from transformers import AutoModelForDepthEstimation
        from transformers.image_processing_base import ImageProcessingMixin

        with explained(place, "the depth network"):
            network: Any = AutoModelForDepthEstimation.from_pretrained(
                place,
                local_files_only=offline,
                adapter_kwargs={"local_files_only": offline},  # it looks for adapters by rules of their own
                dtype=dtype,
            )
            how, _ = ImageProcessingMixin.get_image_processor_dict(place, local_files_only=offline)
        self._network = network.eval().to(device)
        self._multiple = int(how.get("ensure_multiple_of") or 14)
        mean, deviation = (torch.tensor(how[name]).reshape(3, 1, 1).to(device) for name in ("image_mean", "image_std"))
        self._mean, self._deviation = mean, deviation
        self._range: Tensor | None = None

    @torch.no_grad()
    def __call__(self, pictures: Tensor) -> Tensor:
        height, width = int(pictures.shape[-2]), int(pictures.shape[-1])
        share = _DEPTH_SIDE / min(height, width)
        size = [max(1, round(side * share / self._multiple)) * self._multiple for side in (height, width)]
        small = functional.interpolate(
            (pictures.float() + 1) / 2, size, mode="bilinear", align_corners=False, antialias=True
        )
        given = ((small - self._mean) / self._deviation).to(self._network.dtype)
        near: Tensor = self._network(pixel_values=given).predicted_depth.float()
        present = torch.stack([near.min(), near.max()])
        self._range = present if self._range is None else torch.lerp(self._range, present, _FOLLOW)
        low, high = self._range
        shown = ((near - low) / (high - low).clamp_min(1e-6)).clamp(0, 1)[:, None]
        grown = functional.interpolate(shown, (height, width), mode="bilinear", align_corners=False)
        return grown.to(pictures.dtype).expand(-1, 3, -1, -1)

    def reset(self) -> None:
        self._range = None
