"""Attention of one frame over its past and itself, in plain torch: what a kernel has to match."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from streamfx.diffusion.kv_cache import Past
from streamfx.diffusion.rope import Rope3D


def attend(query: Tensor, key: Tensor, value: Tensor, past: Past, rope: Rope3D) -> Tensor:
    """``query``, ``key``, ``value``: ``(F, S, H, D)`` of F frames that see each other and everything before, with rows
    and columns applied and not turned by frame. Returns ``(F, S, H, D)``."""
    frames = int(query.shape[0])
    here = torch.arange(past.here, past.here + frames, device=query.device)
    keys = torch.cat([rope.time(past.keys, past.positions), rope.time(key, here)])
    values = torch.cat([past.values, value])
    bias = None
    if past.log_counts is not None:
        bias = functional.pad(past.log_counts.flatten(), (0, frames * int(key.shape[1]))).to(query.dtype)[None]
    # With a batch of one: without, the fused kernels are not taken.
    query, keys, values = (_heads(x)[None] for x in (rope.time(query, here), keys, values))
    mixed = functional.scaled_dot_product_attention(query, keys, values, attn_mask=bias)
    return mixed[0].transpose(0, 1).reshape(value.shape)


def _heads(x: Tensor) -> Tensor:
    """``(N, S, H, D)`` → ``(H, N S, D)``."""
    return x.flatten(0, 1).transpose(0, 1)
