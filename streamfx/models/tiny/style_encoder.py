"""The style of any picture as a vector: Magenta's style prediction network, a MobileNetV2 (arXiv 1801.04381).

The network is that of G. Ghiasi et al. (arXiv 1705.06830). Its weights are Magenta's (Apache-2.0), converted; only the
transformer that draws in a style is trained here. What it sees on the way, ``features``, tells how alike two pictures
are in structure and in texture.
"""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn
from torch.nn import functional

STYLE_SIDE = 256
"""Pixels: the network was trained on squares of this side."""

_STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""Expansion, width, blocks, and stride of the first block: table 2 of the paper."""

_SEEN = (0, 2, 5, 9, 12)
"""Blocks whose output is a feature: at a half, a quarter, an eighth, a sixteenth twice."""


class _Conv(nn.Sequential):
    """A convolution padded as TensorFlow's SAME on even sides, with ReLU6 unless ``linear``."""

    def __init__(self, given: int, out: int, kernel: int = 1, stride: int = 1, groups: int = 1, linear: bool = False):
        pad = (0, 1, 0, 1) if stride == 2 else (kernel // 2,) * 4
        layers: list[nn.Module] = [nn.ZeroPad2d(pad), nn.Conv2d(given, out, kernel, stride, groups=groups)]
        super().__init__(*layers, *([] if linear else [nn.ReLU6()]))


class _Inverted(nn.Module):
    def __init__(self, given: int, out: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = given * expansion
        opened = [] if expansion == 1 else [_Conv(given, width)]
        self.body = nn.Sequential(*opened, _Conv(width, width, 3, stride, groups=width), _Conv(width, out, linear=True))
        self._stays = stride == 1 and given == out

    def forward(self, x: Tensor) -> Tensor:
        out = self.body(x)
        return cast(Tensor, x + out if self._stays else out)


class StyleEncoder(nn.Module):
    """``(B, 3, 256, 256)`` in [-1, 1] to style vectors ``(B, 100)``."""

    def __init__(self) -> None:
        super().__init__()
        self.open = _Conv(3, 32, 3, stride=2)
        blocks: list[nn.Module] = []
        width = 32
        for expansion, out, count, stride in _STAGES:
            for n in range(count):
                blocks.append(_Inverted(width, out, stride if n == 0 else 1, expansion))
                width = out
        self.blocks = nn.ModuleList(blocks)
        self.close = _Conv(width, 1280)
        self.out = nn.Linear(1280, 100)

    def forward(self, pictures: Tensor) -> Tensor:
        x = self.open((pictures + 1) / 2)
        for block in self.blocks:
            x = block(x)
        return cast(Tensor, self.out(self.close(x).mean((2, 3))))

    def features(self, pictures: Tensor) -> list[Tensor]:
        """What early and middle layers see of ``(B, 3, H, W)``, sides multiples of 16: ``(B, C, h, w)`` each."""
        x = self.open((pictures + 1) / 2)
        found = []
        for block in self.blocks[: _SEEN[-1] + 1]:
            x = block(x)
            found.append(x)
        return [found[n] for n in _SEEN]


def fitted(picture: Tensor) -> Tensor:
    """``(3, H, W)`` of any size to ``(1, 3, 256, 256)``: the middle square, shrunk or grown."""
    side = min(picture.shape[-2:])
    top, left = ((length - side) // 2 for length in picture.shape[-2:])
    square = picture[None, :, top : top + side, left : left + side]
    return functional.interpolate(square, (STYLE_SIDE, STYLE_SIDE), mode="bilinear", antialias=True).clamp(-1, 1)
