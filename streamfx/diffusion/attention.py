"""Attention of new frames over the past of their row and themselves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from streamfx.diffusion.kv_cache import LayerCache, Past
from streamfx.diffusion.rope import Rope3D
from streamfx_kernels.ring_attention import ring_attention
from streamfx_kernels.switch import by_kernel


def attend_rows(
    query: Tensor, key: Tensor, value: Tensor, cache: LayerCache, rows: Sequence[int], rope: Rope3D, weight: float = 1.0
) -> Tensor:
    """``query``, ``key``, ``value``: ``(R, F, S, H, D)``, new frames of ``rows`` of the cache, with rows and columns
    applied and not turned by frame. ``weight``: how much the past counts, 1 as it is; 0 not at all. Returns
    ``(R, F, S, H, D)``; the cache stays as it is."""
    if by_kernel(query):
        return ring_attention(query, key, value, cache.ring, cache.rows(rows, weight), rope.time_turns)
    pasts = (weighted(cache.past(row), weight) for row in rows)
    return torch.stack([attend(q, k, v, past, rope) for q, k, v, past in zip(query, key, value, pasts, strict=True)])


def weighted(past: Past, weight: float) -> Past:
    """The past, counting ``weight`` times as much."""
    if weight == 1 or past.here == 0:
        return past
    if weight == 0:
        return Past(past.keys[:0], past.values[:0], past.positions[:0], past.here)
    counts = past.log_counts
    counts = torch.zeros(past.keys.shape[:2], device=past.keys.device) if counts is None else counts
    return replace(past, log_counts=counts + math.log(weight))


def attend(query: Tensor, key: Tensor, value: Tensor, past: Past, rope: Rope3D) -> Tensor:
    """``query``, ``key``, ``value``: ``(F, S, H, D)`` of F frames that see each other and everything before, with rows
    and columns applied and not turned by frame. Returns ``(F, S, H, D)``."""
    frames = int(query.shape[0])
    tokens = int(key.shape[1])
    keys = rope.time(past.keys, past.positions - past.here)
    if frames > 1:  # the first of them stands at zero, and a single one need not be turned
        here = torch.arange(frames, device=query.device)
        query, key = rope.time(query, here), rope.time(key, here)
    keys = torch.cat([keys, key])
    values = torch.cat([past.values, value])
    bias = None
    if past.log_counts is not None:
        bias = functional.pad(past.log_counts.flatten(), (0, frames * tokens)).to(query.dtype)[None]
    # With a batch of one: without, the fused kernels are not taken.
    query, keys, values = (_heads(x)[None] for x in (query, keys, values))
    mixed = functional.scaled_dot_product_attention(query, keys, values, attn_mask=bias)
    return mixed[0].transpose(0, 1).reshape(value.shape)


def _heads(x: Tensor) -> Tensor:
    """``(N, S, H, D)`` → ``(H, N S, D)``."""
    return x.flatten(0, 1).transpose(0, 1)
