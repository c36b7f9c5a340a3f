"""The embedded restyler's networks, untrained: shapes, and that streaming is what was trained."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from streamfx.diffusion.kv_cache import CacheSize, LayerCache
from streamfx.diffusion.rope import Rope3D
from streamfx.models.tiny.autoencoder import SHRINK, Autoencoder, AutoencoderSize
from streamfx.models.tiny.dit import Cached, TinyDiT, TinySize, Whole

SIZE = TinySize(dim=32, heads=2, layers=2, channels=4, named=5)
GRID = (2, 3)


def dit() -> TinyDiT:
    torch.manual_seed(0)
    model = TinyDiT(SIZE).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def latents(rows: int, frames: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, frames, SIZE.channels, 2 * GRID[0], 2 * GRID[1], generator=generator)


@torch.no_grad()
def test_pictures_to_latents_and_back() -> None:
    model = Autoencoder(AutoencoderSize(4, (8, 12, 16))).eval()
    pictures = torch.rand(2, 3, 48, 64) * 2 - 1
    found, features = model.encode(pictures)
    assert tuple(found.shape) == (2, 4, 48 // SHRINK, 64 // SHRINK)
    drawn = model.decode(found, features)
    assert drawn.shape == pictures.shape
    assert float(drawn.abs().max()) <= 1
    model.mean.fill_(3.0)
    model.deviation.fill_(2.0)
    scaled, _ = model.encode(pictures)
    assert torch.allclose(scaled, (found - 3) / 2, atol=1e-5)
    assert torch.allclose(model.decode(scaled, features), drawn, atol=1e-5)
    large = torch.rand(2, 3, 96, 128) * 2 - 1
    assert model.decode(found, model.encoder.features(large)).shape == large.shape, "latents of a smaller picture"


@pytest.mark.parametrize(("sinks", "window", "frames"), [(0, 2, 5), (1, 3, 5), (1, 1, 6), (2, 4, 4)])
@torch.no_grad()
def test_frame_after_frame_is_the_whole_clip_of_the_training(sinks: int, window: int, frames: int) -> None:
    """But for places in time once frames have left the window; so only clips that fit are compared in all."""
    model, rows, tokens = dit(), 2, GRID[0] * GRID[1]
    x, source = latents(rows, frames), latents(rows, frames, 2)
    sigma, share = torch.tensor([0.9, 0.3]), torch.tensor([1.0, 0.5])
    style = model.style(named=torch.tensor([1, 4]))
    rope = Rope3D(SIZE.head_dim, GRID, frames + 1)
    whole = model(x, sigma, source, style, share, [Whole(frames, tokens, rope, sinks, window)] * SIZE.layers)
    size = CacheSize(rows, sinks, window, tokens, SIZE.heads, SIZE.head_dim)
    caches = [LayerCache(size) for _ in range(SIZE.layers)]
    for n in range(frames):
        here = slice(n, n + 1)
        seen = [Cached(cache, (0, 1), rope) for cache in caches]
        found = model(x[:, here], sigma, source[:, here], style, share, seen)
        if n <= sinks + window:
            assert torch.allclose(found, whole[:, here], atol=1e-5)


@torch.no_grad()
def test_all_that_it_is_told_counts() -> None:
    model = dit()
    rope = Rope3D(SIZE.head_dim, GRID, 4)
    see = [Whole(1, GRID[0] * GRID[1], rope, 1, 3)] * SIZE.layers

    def found(x: int = 1, source: int = 2, named: int = 0, sigma: float = 0.5, share: float = 1.0) -> Tensor:
        style = model.style(named=torch.tensor([named]))
        out = model(latents(1, 1, x), torch.tensor([sigma]), latents(1, 1, source), style, torch.tensor([share]), see)
        assert isinstance(out, Tensor)
        return out

    base = found()
    for other in (found(x=5), found(source=5), found(named=1), found(sigma=0.9), found(share=0.4)):
        assert not torch.allclose(other, base, atol=1e-4)
    assert torch.allclose(found(named=0, share=0.0), found(named=3, share=0.0), atol=1e-6), "no style is none of them"
    assert tuple(model.style(vector=torch.randn(2, 100)).shape) == (2, SIZE.dim)
    with pytest.raises(ValueError, match="a number or a vector"):
        model.style()


@torch.no_grad()
def test_untrained_it_gives_the_source() -> None:
    torch.manual_seed(0)
    model = TinyDiT(SIZE).eval()
    see = [Whole(2, GRID[0] * GRID[1], Rope3D(SIZE.head_dim, GRID, 4), 1, 3)] * SIZE.layers
    style, source = model.style(named=torch.tensor([0])), latents(1, 2, 2)
    assert torch.equal(model(latents(1, 2), torch.tensor([0.9]), source, style, torch.ones(1), see), source)
