"""Pictures to small latents and back; the way back sees the source, so that its contours stay sharp.

The encoder shrinks by 8. The decoder draws a latent in the detail of ``Features`` of the source picture, at whatever
size that has: latents of a smaller picture, grown, may be drawn on the source at full size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

SHRINK = 8


@dataclass(frozen=True, slots=True)
class AutoencoderSize:
    """``channels``: of the latent. ``widths``: at a half, a quarter and an eighth of the picture's size. ``style``: of
    what the decoder is told of the style."""

    channels: int = 16
    widths: tuple[int, int, int] = (24, 48, 96)
    style: int = 256


@dataclass(frozen=True, slots=True)
class Features:
    """What the decoder sees of the source: ``half`` ``(B, 12, H/2, W/2)``, ``quarter`` ``(B, C, H/4, W/4)``."""

    half: Tensor
    quarter: Tensor


class _Block(nn.Module):
    """Two 3x3 convolutions around what passes by."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, x + self.second(functional.silu(self.first(functional.silu(x)))))


class Encoder(nn.Module):
    """``(B, 3, H, W)`` in [-1, 1], sides multiples of 8, to ``(B, C, H/8, W/8)``."""

    def __init__(self, size: AutoencoderSize) -> None:
        super().__init__()
        _, quarter, eighth = size.widths
        self.open = nn.Conv2d(48, quarter, 3, padding=1)
        self.quarter = _Block(quarter)
        self.down = nn.Conv2d(quarter, eighth, 2, stride=2)
        self.eighth = nn.Sequential(_Block(eighth), _Block(eighth))
        self.out = nn.Conv2d(eighth, size.channels, 1)

    def features(self, pictures: Tensor) -> Features:
        """What the decoder wants of the source."""
        half = functional.pixel_unshuffle(pictures, 2)
        return Features(half, self.quarter(self.open(functional.pixel_unshuffle(half, 2))))

    def latents(self, quarter: Tensor) -> Tensor:
        """The latent that belongs to features."""
        return cast(Tensor, self.out(self.eighth(self.down(quarter))))

    def forward(self, pictures: Tensor) -> Tensor:
        return self.latents(self.features(pictures).quarter)


class Decoder(nn.Module):
    """``(B, C, h, w)`` with the features of a source of ``8 h x 8 w`` to ``(B, 3, 8 h, 8 w)``, about [-1, 1].

    A style, ``(B, dim)``, scales and shifts what goes on at each size: strokes are finer than latents tell.
    """

    def __init__(self, size: AutoencoderSize) -> None:
        super().__init__()
        half, quarter, eighth = size.widths
        self._widths = eighth, quarter, half
        self.by_style = nn.Linear(size.style, 2 * sum(size.widths))
        nn.init.zeros_(self.by_style.weight)
        nn.init.zeros_(self.by_style.bias)
        self.open = nn.Conv2d(size.channels, eighth, 3, padding=1)
        self.eighth = nn.Sequential(_Block(eighth), _Block(eighth))
        self.to_quarter = nn.Conv2d(eighth, 4 * quarter, 1)
        self.see_quarter = nn.Conv2d(quarter, quarter, 1)
        self.quarter = nn.Sequential(_Block(quarter), _Block(quarter))
        self.to_half = nn.Conv2d(quarter, 4 * half, 1)
        self.see_half = nn.Conv2d(12, half, 3, padding=1)
        self.fine = _Block(half)
        self.out = nn.Conv2d(half, 12, 3, padding=1)

    def forward(self, latents: Tensor, source: Features, style: Tensor) -> Tensor:
        scales, shifts = self.by_style(style)[..., None, None].chunk(2, dim=1)
        eighth, quarter, half = zip(scales.split(self._widths, 1), shifts.split(self._widths, 1), strict=True)
        x = self.eighth(_styled(self.open(latents), *eighth))
        x = functional.pixel_shuffle(self.to_quarter(x), 2) + self.see_quarter(source.quarter)
        x = self.quarter(_styled(x, *quarter))
        x = functional.pixel_shuffle(self.to_half(x), 2) + self.see_half(source.half)
        return functional.pixel_shuffle(self.out(functional.silu(self.fine(_styled(x, *half)))), 2)


def _styled(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    return torch.addcmul(shift, x, 1 + scale)


class Autoencoder(nn.Module):
    """Both, with the latents' scale: ``mean`` and ``deviation`` of each channel, measured after training."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, size: AutoencoderSize | None = None) -> None:
        super().__init__()
        self.size = size or AutoencoderSize()
        self.encoder, self.decoder = Encoder(self.size), Decoder(self.size)
        self.register_buffer("mean", torch.zeros(self.size.channels, 1, 1))
        self.register_buffer("deviation", torch.ones(self.size.channels, 1, 1))

    def encode(self, pictures: Tensor) -> tuple[Tensor, Features]:
        """Normalised latents ``(B, C, H/8, W/8)``, and what the decoder wants to see."""
        features = self.features(pictures)
        return self.latents(features), features

    def features(self, pictures: Tensor) -> Features:
        """What is seen of ``(B, 3, H, W)`` in [-1, 1], sides multiples of 8."""
        return self.encoder.features(pictures)

    def latents(self, features: Features) -> Tensor:
        """Normalised, ``(B, C, H/8, W/8)``."""
        return (self.encoder.latents(features.quarter) - self.mean) / self.deviation

    def decode(self, latents: Tensor, source: Features, style: Tensor) -> Tensor:
        """Normalised latents to ``(B, 3, H, W)`` in [-1, 1]; grown first if the source is larger than theirs.
        ``style``: ``(B, dim)``, that of the transformer times its share; zeros for a picture as it is."""
        return self.drawn(fitting(latents, source), source, style)

    def drawn(self, latents: Tensor, source: Features, style: Tensor) -> Tensor:
        """``decode``, of latents that have the source's size."""
        return cast(Tensor, self.decoder(latents * self.deviation + self.mean, source, style).clamp(-1, 1))


def fitting(latents: Tensor, source: Features) -> Tensor:
    """Grown to the source's size, if theirs is another."""
    height, width = (4 * int(side) // SHRINK for side in source.quarter.shape[-2:])
    if tuple(latents.shape[-2:]) == (height, width):
        return latents
    return functional.interpolate(latents, (height, width), mode="bilinear", align_corners=False)
