"""The restyler's autoencoder in pieces."""

from __future__ import annotations

import torch

from streamfx.engines import Eager, error_of
from streamfx.models.tiny.load import networks
from streamfx.models.tiny.parts import EngineCodes, parts


def test_pieces_are_the_whole() -> None:
    codes = networks().autoencoder
    pictures = torch.rand(1, 3, 48, 80, generator=torch.Generator().manual_seed(1)) * 2 - 1
    style = torch.randn(1, codes.size.style)
    cut = EngineCodes({name: Eager(part) for name, part in parts(codes).items()}, codes, torch.float32)
    with torch.inference_mode():
        seen, ours = codes.features(pictures), cut.features(pictures)
        latents = codes.latents(seen)
        assert error_of([cut.latents(ours)], [latents]) < 1e-5
        # As well with latents of a smaller picture.
        for some in (latents, latents[..., :4, :6]):
            assert error_of([cut.decode(some, ours, style)], [codes.decode(some, seen, style)]) < 1e-5
