"""The diffusion transformer of Wan 2.1, causal: frames of a block see each other and what is in their row's cache.

Parameter names are those of the original code, which the distilled generators (CausVid, Self-Forcing, LongLive,
StreamDiffusionV2, Krea) keep; ``keys.py`` maps others to them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from streamfx.diffusion.attention import attend_rows
from streamfx.diffusion.kv_cache import LayerCache
from streamfx.diffusion.rope import Rope3D
from streamfx_kernels.modulate import modulated_norm, normed_and_turned

TEXT_TOKENS = 512
"""Length that prompts are padded to, with zeros, before they are embedded."""

PATCH = 2


@dataclass(frozen=True, slots=True)
class WanSize:
    """``dim``: width; ``heads``: of ``dim / heads`` each; ``hidden``: of the feed-forward part; ``channels``: of the
    latent; ``text_dim``: of the text encoder; ``time_dim``: of the sinusoidal time embedding."""

    dim: int
    heads: int
    hidden: int
    layers: int
    channels: int = 16
    text_dim: int = 4096
    time_dim: int = 256
    eps: float = 1e-6

    @property
    def head_dim(self) -> int:
        return self.dim // self.heads


WAN_1_3B = WanSize(dim=1536, heads=12, hidden=8960, layers=30)
WAN_14B = WanSize(dim=5120, heads=40, hidden=13824, layers=40)
TINY = WanSize(dim=48, heads=2, hidden=96, layers=2, channels=4, text_dim=32, time_dim=32)
"""For tests: the same layers, a few thousand parameters."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt made ready: keys and values of every layer's cross attention, ``(512, H, D)`` each."""

    layers: tuple[tuple[Tensor, Tensor], ...]


class Denoises(Protocol):
    """What a stream wants of a transformer: ``CausalWan``, or an engine in its place."""

    def __call__(
        self,
        x: Tensor,
        timesteps: Tensor,
        prompt: Prompt,
        caches: Sequence[LayerCache],
        rope: Rope3D,
        rows: Sequence[int] | None = None,
        remember: bool = False,
    ) -> Tensor:
        """As ``CausalWan.forward``."""
        ...


class Projections(nn.Module):
    """Of one attention, with queries and keys normalised over all heads together."""

    def __init__(self, size: WanSize) -> None:
        super().__init__()
        self.size = size
        self.q, self.k, self.v, self.o = (nn.Linear(size.dim, size.dim) for _ in range(4))
        self.norm_q, self.norm_k = (nn.RMSNorm(size.dim, eps=size.eps) for _ in range(2))

    def queries(self, x: Tensor) -> Tensor:
        """``(…, dim)`` → ``(…, H, D)``."""
        return self._split(self.norm_q(self.q(x)))

    def keys_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self._split(self.norm_k(self.k(x))), self._split(self.v(x))

    def turned(self, x: Tensor, rope: Rope3D) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of ``(R, F, S, dim)``, ``(R, F, S, H, D)`` each; the first two with rows and columns
        applied."""
        query, key = self._split(self.q(x)), self._split(self.k(x))
        weights = self.norm_q.weight, self.norm_k.weight
        query, key = normed_and_turned(query, key, *weights, rope.turns, rope.time_dim, self.size.eps)
        return query, key, self._split(self.v(x))

    def _split(self, x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:-1], self.size.heads, self.size.head_dim)

    def out(self, x: Tensor) -> Tensor:
        """``(…, H, D)`` → ``(…, dim)``."""
        return cast(Tensor, self.o(x.flatten(-2)))


class Attention:
    """How the tokens of a layer see each other: by a cache (``Cached``), or as an engine is given it (``parts``)."""

    def __call__(self, of: Projections, x: Tensor) -> Tensor:
        """``x``: ``(R, F, S, dim)``, normalised; → ``(R, F, S, H, D)``."""
        raise NotImplementedError


class Cached(Attention):
    """New frames of ``rows`` of ``cache``: to the past of their row, and to each other. ``remember``: they join the
    past."""

    def __init__(self, cache: LayerCache, rows: Sequence[int], rope: Rope3D, remember: bool = False) -> None:
        self._cache, self._rows, self._rope, self._remember = cache, rows, rope, remember

    def __call__(self, of: Projections, x: Tensor) -> Tensor:
        query, key, value = of.turned(x, self._rope)
        found = attend_rows(query, key, value, self._cache, self._rows, self._rope)
        if self._remember:
            for row, row_keys, row_values in zip(self._rows, key, value, strict=True):
                for frame_key, frame_value in zip(row_keys, row_values, strict=True):
                    self._cache.append(frame_key, frame_value, row)
        return found


class _Block(nn.Module):
    def __init__(self, size: WanSize) -> None:
        super().__init__()
        self.eps = size.eps
        self.self_attn = Projections(size)
        self.norm3 = nn.LayerNorm(size.dim, eps=size.eps)
        self.cross_attn = Projections(size)
        self.ffn = nn.Sequential(nn.Linear(size.dim, size.hidden), nn.GELU("tanh"), nn.Linear(size.hidden, size.dim))
        self.modulation = nn.Parameter(torch.randn(1, 6, size.dim) / size.dim**0.5)

    def forward(self, x: Tensor, time: Tensor, prompt: tuple[Tensor, Tensor], attention: Attention) -> Tensor:
        """``x``: ``(R, F, S, dim)``, ``time``: ``(R, 1 or F, 6, dim)``."""
        shift, scale, gate, ff_shift, ff_scale, ff_gate = (self.modulation + time)[:, :, :, None].unbind(2)
        normed = modulated_norm(x, scale, shift, self.eps)
        mixed = self.self_attn.out(attention(self.self_attn, normed))
        x = (x.float() + mixed * gate).type_as(x)
        x = x + self._ask(_float(self.norm3, x).type_as(x), prompt)
        normed = modulated_norm(x, ff_scale, ff_shift, self.eps)
        fed = cast(Tensor, self.ffn(normed))
        return (x.float() + fed.float() * ff_gate).type_as(x)

    def _ask(self, x: Tensor, prompt: tuple[Tensor, Tensor]) -> Tensor:
        """Cross attention of every token to the prompt."""
        query = self.cross_attn.queries(x).flatten(1, 2).transpose(1, 2)
        keys, values = (part.transpose(0, 1)[None].expand(x.shape[0], -1, -1, -1) for part in prompt)
        mixed = functional.scaled_dot_product_attention(query, keys, values)
        return self.cross_attn.out(mixed.transpose(1, 2).reshape(*x.shape[:3], *query.shape[1:2], query.shape[-1]))


class _Head(nn.Module):
    def __init__(self, size: WanSize) -> None:
        super().__init__()
        self.eps = size.eps
        self.head = nn.Linear(size.dim, size.channels * PATCH**2)
        self.modulation = nn.Parameter(torch.randn(1, 2, size.dim) / size.dim**0.5)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """``x``: ``(R, F, S, dim)``, ``time``: ``(R, 1 or F, dim)`` → ``(R, F, S, 4 C)``."""
        shift, scale = (self.modulation + time[:, :, None])[:, :, :, None].unbind(2)
        return cast(Tensor, self.head(modulated_norm(x, scale, shift, self.eps)))


class CausalWan(nn.Module):
    """The whole transformer. Rows are independent: steps of a stream batch, or streams."""

    def __init__(self, size: WanSize) -> None:
        super().__init__()
        self.size = size
        self.patch_embedding = nn.Conv3d(size.channels, size.dim, (1, PATCH, PATCH), (1, PATCH, PATCH))
        self.text_embedding = nn.Sequential(
            nn.Linear(size.text_dim, size.dim), nn.GELU("tanh"), nn.Linear(size.dim, size.dim)
        )
        self.time_embedding = nn.Sequential(
            nn.Linear(size.time_dim, size.dim), nn.SiLU(), nn.Linear(size.dim, size.dim)
        )
        self.time_projection = nn.Sequential(nn.SiLU(), nn.Linear(size.dim, 6 * size.dim))
        self.blocks = nn.ModuleList(_Block(size) for _ in range(size.layers))
        self.head = _Head(size)

    def prepare(self, text: Tensor) -> Prompt:
        """Embeds a prompt: ``(512, text_dim)`` from the text encoder, padded with zeros. Once for each prompt."""
        embedded = self.text_embedding(text.to(self.patch_embedding.weight.dtype))
        return Prompt(tuple(cast(_Block, block).cross_attn.keys_values(embedded) for block in self.blocks))

    def forward(
        self,
        x: Tensor,
        timesteps: Tensor,
        prompt: Prompt,
        caches: Sequence[LayerCache],
        rope: Rope3D,
        rows: Sequence[int] | None = None,
        remember: bool = False,
    ) -> Tensor:
        """``x``: ``(R, F, C, H, W)`` latents, H and W even; ``timesteps``: ``(R,)`` in [0, 1000], or
        ``(R, F)`` for frames that are at different steps.

        ``caches``: one a layer. ``rows``: the cache row of each row of ``x``, by default 0 … R - 1. ``remember``: puts
        the frames into the caches. Returns the velocity, like ``x``.
        """
        rows = range(len(x)) if rows is None else rows
        waves = sinusoid(timesteps.flatten(), self.size.time_dim)
        return self.denoise(x, waves, prompt.layers, [Cached(cache, rows, rope, remember) for cache in caches])

    def denoise(
        self, x: Tensor, waves: Tensor, prompt: Sequence[tuple[Tensor, Tensor]], attention: Sequence[Attention]
    ) -> Tensor:
        """``forward``, with the ``sinusoid`` of the timesteps, and an attention and the prompt's keys and values for
        each layer."""
        height, width = x.shape[-2] // PATCH, x.shape[-1] // PATCH
        tokens = self.patch_embedding(x.transpose(1, 2)).flatten(3).permute(0, 2, 3, 1).contiguous()
        time = self.time_embedding(waves.type_as(x))
        modulation = self.time_projection(time).reshape(x.shape[0], -1, 6, self.size.dim).float()
        for block, asked, see in zip(self.blocks, prompt, attention, strict=True):
            tokens = block(tokens, modulation, asked, see)
        return _unpatched(self.head(tokens, time.reshape(x.shape[0], -1, self.size.dim).float()), (height, width))


def sinusoid(timesteps: Tensor, dim: int) -> Tensor:
    """``(R,)`` → ``(R, dim)`` float32: cosines, then sines."""
    half = dim // 2
    rates = 10_000.0 ** -(torch.arange(half, dtype=torch.float64, device=timesteps.device) / half)
    angles = timesteps.double()[:, None] * rates
    return torch.cat([angles.cos(), angles.sin()], dim=1).float()


def _float(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    """Layer norm in float32, whatever the weights are."""
    weight = None if norm.weight is None else norm.weight.float()
    bias = None if norm.bias is None else norm.bias.float()
    return functional.layer_norm(x.float(), norm.normalized_shape, weight, bias, norm.eps)


def _unpatched(x: Tensor, grid: tuple[int, int]) -> Tensor:
    """``(R, F, h w, 4 C)`` → ``(R, F, C, 2 h, 2 w)``."""
    rows, frames = x.shape[:2]
    parts = x.reshape(rows, frames, *grid, PATCH, PATCH, -1)
    return parts.permute(0, 1, 6, 2, 4, 3, 5).reshape(rows, frames, -1, PATCH * grid[0], PATCH * grid[1])
