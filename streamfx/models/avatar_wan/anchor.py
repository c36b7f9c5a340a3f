"""What an avatar is held to: its picture, and what was before, as keys and values that move along with the present.

The rolling sink frame of Live Avatar (arXiv 2512.04677): tokens of the reference picture stand 30 latent frames ahead
of the block that is drawn, where Wan2.2-S2V (arXiv 2508.18621) was trained with them, and keep that distance however
long the stream is. Those of earlier frames stand right before it, packed the smaller the longer ago (FramePack,
arXiv 2504.12626). Both are seen without noise, see each other and nothing else, and so are computed once for a picture
and a prompt. Since positions are relative, "moving along" needs nothing: their keys are turned once, as seen from the
first frame of the block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from streamfx.diffusion.explicit_past import turned
from streamfx.diffusion.kv_cache import LayerCache
from streamfx.diffusion.rope import Rope3D
from streamfx.models.avatar_wan.tokens import attended
from streamfx.models.causal_wan.dit import PATCH, Attention, Projections

AHEAD = 30
"""Latent frames from a block's first one to where the reference stands."""

BUCKETS = (1, 2, 16)
"""Latent frames of the past that are packed by 1, 2 and 4, from the latest on."""

MOTION = sum(BUCKETS)
"""Latent frames of the past that an anchor is made with."""


@dataclass(frozen=True, slots=True)
class Anchor:
    """Keys, turned to their places as seen from a block's first frame, and values of each layer: ``(S, H, D)`` each."""

    layers: tuple[tuple[Tensor, Tensor], ...]


@dataclass(frozen=True, slots=True)
class Placed:
    """``tokens``: ``(S, dim)``; ``places``: ``(S, 3)``, of frame, row and column, seen from a block's first frame."""

    tokens: Tensor
    places: Tensor


class FramePacker(nn.Module):
    """``FramePackMotioner`` of Wan2.2-S2V."""

    def __init__(self, channels: int, dim: int) -> None:
        super().__init__()
        self.proj, self.proj_2x, self.proj_4x = (
            nn.Conv3d(channels, dim, (by, PATCH * by, PATCH * by), (by, PATCH * by, PATCH * by)) for by in (1, 2, 4)
        )

    def forward(self, motion: Tensor) -> list[Placed]:
        """``(MOTION, C, h, w)``, oldest first, h and w even."""
        grid = motion.shape[-2] // PATCH, motion.shape[-1] // PATCH
        end, found = MOTION, []
        for convolution, count in zip((self.proj, self.proj_2x, self.proj_4x), BUCKETS, strict=True):
            packed = convolution(motion[end - count : end].transpose(0, 1)[None])[0]
            places = _spread(-(MOTION - end + count), count, grid, tuple(packed.shape[1:]))
            found.append(Placed(packed.flatten(1).T, places.to(motion.device)))
            end -= count
        return found


def reference_places(grid: tuple[int, int]) -> Tensor:
    """``(S, 3)``, of the reference's tokens on a grid (height, width)."""
    return _spread(AHEAD, 1, grid, (1, *grid))


def _spread(first: int, span: int, grid: tuple[int, int], shape: Sequence[int]) -> Tensor:
    """``(S, 3)`` whole numbers: places of ``shape`` (frames, rows, columns) tokens over ``span`` frames from ``first``
    on and over the whole grid, rounded towards zero as in training."""
    frames, rows, columns = shape
    times = np.linspace(first, first + span - 1, frames).astype(int)
    down, across = (np.linspace(0, grid[n] - 1, count).astype(int) for n, count in enumerate((rows, columns)))
    return torch.from_numpy(np.stack(np.meshgrid(times, down, across, indexing="ij"), -1).reshape(-1, 3))


def turns_of(places: Tensor, dim: int, theta: float = 10_000.0) -> Tensor:
    """``(S, 3)`` → ``(S, 1, dim / 2, 2)``: cosines and sines of rotary positions, by axis as in ``Rope3D``, for
    ``explicit_past.turned`` with heads of ``dim``."""
    axis = 2 * (dim // 6)
    angles = [
        place.double()[:, None] * theta ** -(torch.arange(0, width, 2, device=place.device).double() / width)
        for place, width in zip(places.unbind(1), (dim - 2 * axis, axis, axis), strict=True)
    ]
    together = torch.cat(angles, 1)[:, None]
    return torch.stack([together.cos(), together.sin()], -1).float()


class Still(Attention):
    """Of an anchor's tokens, to each other. ``found``: their keys, turned, and values ``(S, H, D)``, for the anchor."""

    def __init__(self, turns: Tensor) -> None:
        self._turns = turns
        self.found: tuple[Tensor, Tensor] | None = None

    def __call__(self, of: Projections, x: Tensor) -> Tensor:
        """``x``: ``(1, 1, S, dim)``."""
        keys, values = of.keys_values(x)
        query, keys = (turned(part.float(), self._turns, 0).to(values.dtype) for part in (of.queries(x), keys))
        self.found = keys[0, 0], values[0, 0]
        return attended(query[0], keys[0], values[0])[None]


class Anchored(Attention):
    """Of a block's frames to the anchor, to what is in a row of the cache, and to each other; they join the cache."""

    def __init__(self, anchor: tuple[Tensor, Tensor], cache: LayerCache, row: int, rope: Rope3D) -> None:
        self._anchor, self._cache, self._row, self._rope = anchor, cache, row, rope

    def __call__(self, of: Projections, x: Tensor) -> Tensor:
        """``x``: ``(1, F, S, dim)``."""
        query, key, value = (part[0] for part in of.turned(x, self._rope))
        past, here = self._cache.past(self._row), torch.arange(len(query), device=x.device)
        earlier = self._rope.time(past.keys, past.positions - past.here)
        keys = [self._anchor[0][None], earlier.flatten(0, 1)[None], self._rope.time(key, here).flatten(0, 1)[None]]
        values = [self._anchor[1][None], past.values.flatten(0, 1)[None], value.flatten(0, 1)[None]]
        asking = self._rope.time(query, here).flatten(0, 1)[None]
        found = attended(asking, torch.cat(keys, 1), torch.cat(values, 1)).reshape(1, *query.shape)
        for frame_key, frame_value in zip(key, value, strict=True):
            self._cache.append(frame_key, frame_value, self._row)
        return found
