"""A causal diffusion transformer of a few million parameters: one latent frame at a time, with a past in a KV cache.

Each token is a patch of 2x2 latents, so 16x16 pixels: noisy ones and those of the source, side by side. Style, share
of style, and noise level come in by adaptive layer norm (DiT, arXiv 2212.09748). Like the causal Wan of this package, a
row has a past of its own, of frames at its own noise level (StreamDiffusionV2, arXiv 2511.07399).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from streamfx.diffusion.attention import attend_rows
from streamfx.diffusion.kv_cache import LayerCache
from streamfx.diffusion.rope import Rope3D

PATCH = 2
STYLE_DIM = 100
"""Of the vectors that Magenta's style encoder makes of pictures."""

_TIME_DIM = 64
_REFINED = 64


@dataclass(frozen=True, slots=True)
class TinySize:
    """``dim``: width; ``heads``; ``layers``; ``channels``: of the latents; ``named``: styles that have a vector of
    their own."""

    dim: int = 256
    heads: int = 4
    layers: int = 6
    channels: int = 16
    named: int = 25

    @property
    def head_dim(self) -> int:
        return self.dim // self.heads


class _Block(nn.Module):
    def __init__(self, size: TinySize) -> None:
        super().__init__()
        self.size = size
        # Strokes and contours are a local matter; a convolution learns that sooner than attention does.
        self.local = nn.Conv2d(size.dim, size.dim, 3, padding=1, groups=size.dim)
        self.norm1 = nn.LayerNorm(size.dim, elementwise_affine=False)
        self.qkv = nn.Linear(size.dim, 3 * size.dim)
        self.norm_q, self.norm_k = nn.RMSNorm(size.head_dim), nn.RMSNorm(size.head_dim)
        # What a token takes of the others, by head: with nothing to ask for it can close, where attention must sum to 1
        # (Z. Qiu et al., "Gated Attention for Large Language Models", arXiv 2505.06708).
        self.gate = nn.Linear(size.dim, size.heads)
        self.out = nn.Linear(size.dim, size.dim)
        self.norm2 = nn.LayerNorm(size.dim, elementwise_affine=False)
        self.feed = nn.Sequential(nn.Linear(size.dim, 4 * size.dim), nn.GELU("tanh"), nn.Linear(4 * size.dim, size.dim))
        self.modulation = nn.Linear(size.dim, 6 * size.dim)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)
        nn.init.zeros_(self.local.weight)
        nn.init.zeros_(self.gate.weight)
        nn.init.zeros_(self.gate.bias)

    def forward(self, x: Tensor, style: Tensor, attention: Attention, grid: tuple[int, int]) -> Tensor:
        """``x``: ``(R, F, S, dim)``, ``style``: ``(R, dim)``, ``grid``: rows and columns of the S tokens."""
        picture = x.reshape(-1, *grid, self.size.dim).permute(0, 3, 1, 2)
        x = x + self.local(picture).permute(0, 2, 3, 1).reshape(x.shape)
        parts = self.modulation(functional.silu(style))[:, None, None].chunk(6, dim=-1)
        shift, scale, gate, shift2, scale2, gate2 = parts
        given = torch.addcmul(shift, self.norm1(x), 1 + scale)
        q, k, v = self.qkv(given).chunk(3, dim=-1)
        q, k, v = (part.reshape(*part.shape[:3], self.size.heads, self.size.head_dim) for part in (q, k, v))
        mixed = attention(self.norm_q(q), self.norm_k(k), v) * (2 * self.gate(given).sigmoid())[..., None]
        x = torch.addcmul(x, gate, self.out(mixed.flatten(-2)))
        return torch.addcmul(x, gate2, self.feed(torch.addcmul(shift2, self.norm2(x), 1 + scale2)))


class Attention:
    """How a layer's tokens see each other: by a cache (``Cached``), or all frames of a clip at once (``Whole``), or as
    an engine is given it (``parts``)."""

    def __call__(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """``(R, F, S, H, D)`` each."""
        raise NotImplementedError


class Cached(Attention):
    """A frame at a time: to the past of its row in ``cache``, and to itself; it joins the past. ``weight``: how much
    the past counts, 1 as in training; 0 not at all."""

    def __init__(self, cache: LayerCache, rows: Sequence[int], rope: Rope3D, weight: float = 1.0) -> None:
        self._cache, self._rows, self._rope, self._weight = cache, rows, rope, weight

    def __call__(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        query, key = self._rope.space(query), self._rope.space(key)
        found = attend_rows(query, key, value, self._cache, self._rows, self._rope, self._weight)
        for row, keys, values in zip(self._rows, key, value, strict=True):
            for frame_key, frame_value in zip(keys, values, strict=True):
                self._cache.append(frame_key, frame_value, row)
        return found


class Whole(Attention):
    """All frames of a clip at once, each to itself and those before it that a window of ``window`` frames after
    ``sinks`` would have kept: for training, where it is what ``Cached`` does frame after frame."""

    def __init__(self, frames: int, tokens: int, rope: Rope3D, sinks: int, window: int) -> None:
        self._rope = rope
        self._here = torch.arange(frames)
        asked, seen = self._here[:, None], self._here[None]
        kept = (seen <= asked) & ((seen < sinks) | (seen >= asked - window))
        self._mask = kept.repeat_interleave(tokens, 0).repeat_interleave(tokens, 1)

    def __call__(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        rows, frames, tokens = query.shape[:3]
        query, key = (self._rope.time(self._rope.space(x), self._here) for x in (query, key))
        q, k, v = (x.flatten(1, 2).transpose(1, 2) for x in (query, key, value))
        mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=self._mask.to(query.device))
        return mixed.transpose(1, 2).reshape(rows, frames, tokens, *query.shape[3:])


class TinyDiT(nn.Module):
    """Predicts the clean latents of stylised frames from noisy ones and those of the source."""

    def __init__(self, size: TinySize | None = None) -> None:
        super().__init__()
        self.size = size = size or TinySize()
        patch = PATCH**2 * size.channels
        self.open = nn.Linear(2 * patch, size.dim)
        self.time = nn.Sequential(nn.Linear(_TIME_DIM, size.dim), nn.SiLU(), nn.Linear(size.dim, size.dim))
        self.named = nn.Embedding(size.named, size.dim)
        self.from_picture = nn.Sequential(nn.Linear(STYLE_DIM, size.dim), nn.SiLU(), nn.Linear(size.dim, size.dim))
        self.share = nn.Sequential(nn.Linear(1, size.dim), nn.SiLU(), nn.Linear(size.dim, size.dim))
        self.blocks = nn.ModuleList(_Block(size) for _ in range(size.layers))
        self.norm = nn.LayerNorm(size.dim, elementwise_affine=False)
        self.close_modulation = nn.Linear(size.dim, 2 * size.dim)
        self.close = nn.Linear(size.dim, patch)
        # Over the borders of the tokens, which are drawn each by itself.
        self.refine = nn.Sequential(
            nn.Conv2d(3 * size.channels, _REFINED, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(_REFINED, size.channels, 3, padding=1),
        )
        for layer in (self.close, self.refine[-1]):
            nn.init.zeros_(cast(Tensor, layer.weight))
            nn.init.zeros_(cast(Tensor, layer.bias))

    def style(self, named: Tensor | None = None, vector: Tensor | None = None) -> Tensor:
        """A style: of a named one (``(R,)`` numbers), or of a picture's vector ``(R, 100)``. ``(R, dim)``; styles are
        blended by blending these."""
        if named is not None:
            return cast(Tensor, self.named(named))
        if vector is None:
            raise ValueError("a style is a number or a vector; give one")
        return cast(Tensor, self.from_picture(vector))

    def forward(
        self, x: Tensor, sigma: Tensor, source: Tensor, style: Tensor, share: Tensor, attention: Sequence[Attention]
    ) -> Tensor:
        """``x``, ``source``: ``(R, F, C, H, W)`` normalised latents, noisy and of the source, H and W even. ``sigma``:
        ``(R,)`` share of noise, 0 … 1. ``style``: ``(R, dim)``. ``share``: ``(R,)``, 0 (the source) … 1 (the style).
        ``attention``: one a layer. Returns the clean latents, like ``x``."""
        height, width = x.shape[-2] // PATCH, x.shape[-1] // PATCH
        tokens = self.open(torch.cat([_patched(x), _patched(source)], dim=-1))
        condition = self.time(sinusoid(sigma).type_as(x)) + share[:, None] * style + self.share(share[:, None])
        for block, see in zip(self.blocks, attention, strict=True):
            tokens = block(tokens, condition, see, (height, width))
        shift, scale = self.close_modulation(functional.silu(condition))[:, None, None].chunk(2, dim=-1)
        change = _unpatched(self.close(self.norm(tokens) * (1 + scale) + shift), height, width)
        seen = torch.cat([x.to(change.dtype), source.to(change.dtype), change], dim=2)
        return source + change + cast(Tensor, self.refine(seen.flatten(0, 1))).reshape(change.shape)


def sinusoid(sigma: Tensor) -> Tensor:
    """``(R,)`` in 0 … 1 → ``(R, 64)``."""
    rates = torch.exp(torch.linspace(0, 6, _TIME_DIM // 2, device=sigma.device))
    angles = sigma.float()[:, None] * rates
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def _patched(x: Tensor) -> Tensor:
    """``(R, F, C, H, W)`` → ``(R, F, S, 4 C)``."""
    tokens = functional.pixel_unshuffle(x.flatten(0, 1), PATCH).flatten(2).transpose(1, 2)
    return tokens.reshape(*x.shape[:2], *tokens.shape[1:])


def _unpatched(x: Tensor, height: int, width: int) -> Tensor:
    flat = x.flatten(0, 1).transpose(1, 2)
    pictures = functional.pixel_shuffle(flat.reshape(*flat.shape[:2], height, width), PATCH)
    return pictures.reshape(*x.shape[:2], *pictures.shape[1:])
