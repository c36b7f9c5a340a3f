"""The restyler's autoencoder in pieces that an engine can run, and put together again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor, nn

from streamfx.engines.base import Engine, Length, Part
from streamfx.models.tiny.autoencoder import SHRINK, Autoencoder, Features, fitting

_SIDE = 256


class Codes(Protocol):
    """What the stream wants of an autoencoder: see ``Autoencoder``."""

    def features(self, pictures: Tensor) -> Features: ...

    def latents(self, features: Features) -> Tensor: ...

    def decode(self, latents: Tensor, source: Features, style: Tensor) -> Tensor: ...


class _See(nn.Module):
    def __init__(self, codes: Autoencoder) -> None:
        super().__init__()
        self.codes = codes

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        seen = self.codes.features(pictures)
        return seen.half, seen.quarter


class _Encode(nn.Module):
    def __init__(self, codes: Autoencoder) -> None:
        super().__init__()
        self.codes = codes

    def forward(self, quarter: Tensor) -> tuple[Tensor]:
        return (self.codes.latents(Features(quarter, quarter)),)  # which looks at one of them


class _Decode(nn.Module):
    def __init__(self, codes: Autoencoder) -> None:
        super().__init__()
        self.codes = codes

    def forward(self, latents: Tensor, half: Tensor, quarter: Tensor, style: Tensor) -> tuple[Tensor]:
        return (self.codes.drawn(latents, Features(half, quarter), style),)


def parts(codes: Autoencoder) -> dict[str, Part]:
    """``see``: ``(1, 3, H, W)`` → half, quarter. ``encode``: quarter → ``(1, C, H/8, W/8)``. ``decode``: latents, half,
    quarter, style ``(1, dim)`` → ``(1, 3, H, W)``. H and W are multiples of 8. ``codes``: in single precision, on the
    CPU."""
    chance = torch.Generator().manual_seed(0)
    pictures = torch.rand(1, 3, _SIDE, _SIDE, generator=chance) * 2 - 1
    style = torch.randn(1, codes.size.style, generator=chance)
    with torch.inference_mode():
        seen = codes.features(pictures)
        latents = codes.latents(seen)
    # Of their own, for what is made in inference mode cannot be exported with.
    half, quarter, latents = (x.clone() for x in (seen.half, seen.quarter, latents))

    def sides(shrunk: int) -> dict[int, Length]:
        return {2: Length("height", SHRINK // shrunk), 3: Length("width", SHRINK // shrunk)}

    whole, halves, quarters, eighths = (sides(shrunk) for shrunk in (1, 2, 4, SHRINK))
    seen_by_decoder = {"latents": latents, "half": half, "quarter": quarter, "style": style}
    return {
        "see": Part("see", _See(codes), {"pictures": pictures}, ("half", "quarter"), {"pictures": whole}),
        "encode": Part("encode", _Encode(codes), {"quarter": quarter}, ("latents",), {"quarter": quarters}),
        "decode": Part(
            "decode",
            _Decode(codes),
            seen_by_decoder,
            ("pictures",),
            {"latents": eighths, "half": halves, "quarter": quarters},
        ),
    }


class EngineCodes:
    """``Codes`` by an engine for each of ``parts``. Answers are of ``dtype``."""

    def __init__(self, engines: Mapping[str, Engine], dtype: torch.dtype) -> None:
        self._see, self._encode, self._decode = (engines[name] for name in ("see", "encode", "decode"))
        self._dtype = dtype

    def features(self, pictures: Tensor) -> Features:
        return Features(*self._see(pictures.float()))

    def latents(self, features: Features) -> Tensor:
        (found,) = self._encode(features.quarter)
        return found.to(self._dtype)

    def decode(self, latents: Tensor, source: Features, style: Tensor) -> Tensor:
        (found,) = self._decode(fitting(latents.float(), source), source.half, source.quarter, style.float())
        return found
