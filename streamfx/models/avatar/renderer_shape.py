"""The shape of a portrait's face in ten numbers, by a small network that sees the portrait once.

With them, what is known of the face's motion (``renderer_motion``, ``renderer_sketch``) fits the face. They are those
of the drawn characters, from which the network has learnt them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

SHAPE = (
    "head_size", "face_length", "mouth_width", "lip_upper", "lip_lower",
    "lip_bow", "eye_size", "eye_open", "eye_tilt", "eye_spacing",
)  # fmt: skip
"""Attributes of ``Character``, in this order."""

_MIDDLE = (1.0, 1.0, 1.0, 1.0, 1.0, 0.6, 1.02, 1.0, 0.15, 1.0)
_SPREAD = (0.02, 0.03, 0.045, 0.15, 0.15, 0.23, 0.06, 0.1, 0.3, 0.025)
_SIDE = 128
_WIDTHS = (24, 48, 72, 96, 96)


def named(shape: Tensor) -> dict[str, Tensor]:
    """``(R, 10, …)`` by name."""
    return dict(zip(SHAPE, shape.unbind(1), strict=True))


def plain(like: Tensor) -> Tensor:
    """The shape of nobody's face, ``(1, 10)``."""
    return like.new_tensor([_MIDDLE])


class ShapeNet(nn.Module):
    """``(R, 3, S, S)`` in [-1, 1], a face that looks ahead → its shape ``(R, 10)``."""

    middle: Tensor
    spread: Tensor

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in zip((5, *_WIDTHS), _WIDTHS, strict=False):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.GroupNorm(8, after), nn.SiLU()]
        self.layers = nn.Sequential(*layers)
        self.close = nn.Sequential(nn.Linear(16 * _WIDTHS[-1], 128), nn.SiLU(), nn.Linear(128, len(SHAPE)))
        self.register_buffer("middle", torch.tensor([_MIDDLE]), persistent=False)
        self.register_buffer("spread", torch.tensor([_SPREAD]), persistent=False)

    def forward(self, pictures: Tensor) -> Tensor:
        small = functional.interpolate(
            pictures.float(), (_SIDE, _SIDE), mode="bilinear", antialias=True, align_corners=False
        ).to(self.spread)
        line = torch.linspace(-1, 1, _SIDE, device=small.device, dtype=small.dtype)
        rows, columns = torch.meshgrid(line, line, indexing="ij")
        place = torch.stack([columns, rows]).expand(len(small), -1, -1, -1)
        found = self.close(self.layers(torch.cat([small, place], 1)).flatten(1))
        # Nobody is a caricature; and what is no drawn face must not fold the motion.
        shape: Tensor = self.middle + self.spread * found.clamp(-2.5, 2.5)
        return shape

    def apart(self, found: Tensor, true: Tensor) -> Tensor:
        """Differences of shapes in parts of how much people differ."""
        return (found - true) / self.spread
