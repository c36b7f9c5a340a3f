"""Attention of new frames over a ring of earlier ones, where it lies: nothing is gathered, turned or unpacked before.

A frame's keys are turned to its place in the window as they are loaded (RoFormer, arXiv 2104.09864), eight-bit keys and
values are scaled on the way, and each row sees as many frames as it has. What it takes the place of is
``scaled_dot_product_attention`` over keys that are read, turned, written, joined and read again.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from streamfx_kernels.switch import by_kernel


@dataclass(frozen=True, slots=True)
class Ring:
    """Of one layer. ``keys``, ``values``: ``(B, N, S, H, D)`` like the query, or int8 or float8_e4m3fn with
    ``key_scales``, ``value_scales`` ``(B, N, S, H, 1)`` float32. N slots of a frame of S tokens each, the first ones
    filled."""

    keys: Tensor
    values: Tensor
    key_scales: Tensor | None = None
    value_scales: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Rows:
    """What the R rows of a query see. ``row``: ``(R,)`` of the ring; ``filled``: ``(R,)`` slots, which is also the
    place of the first new frame; ``positions``: ``(R, N)``, places of the slots. int32 all. ``log_counts``:
    ``(R, N, S)`` float32, added to the logits, for tokens that stand for several."""

    row: Tensor
    filled: Tensor
    positions: Tensor
    log_counts: Tensor | None = None


def ring_attention(query: Tensor, key: Tensor, value: Tensor, ring: Ring, rows: Rows, turns: Tensor) -> Tensor:
    """``query``, ``key``, ``value``: ``(R, F, S, H, D)`` float32, float16 or bfloat16 of F new frames, which see each
    other and all that their row has. ``turns``: ``(places, P, 2)`` float32, cosine and sine for the first P pairs of
    the D dimensions at each place. Returns ``(R, F, S, H, D)``."""
    if by_kernel(query):
        from streamfx_kernels.gpu.ring_attention import launch

        return launch(query, key, value, ring, rows, turns)
    return reference(query, key, value, ring, rows, turns)


def reference(query: Tensor, key: Tensor, value: Tensor, ring: Ring, rows: Rows, turns: Tensor) -> Tensor:
    """As ``ring_attention``: gathered, joined, and given to ``scaled_dot_product_attention``, row by row."""
    out = []
    frames, tokens = query.shape[1:3]
    for n, (row, filled) in enumerate(zip(rows.row.tolist(), rows.filled.tolist(), strict=True)):
        here = torch.arange(filled, filled + frames, device=query.device)
        past_keys = _unpacked(ring.keys, ring.key_scales, row, filled).to(query.dtype)
        past_values = _unpacked(ring.values, ring.value_scales, row, filled).to(query.dtype)
        places = rows.positions[n, :filled].long()
        keys = torch.cat([turned(past_keys, turns[places]), turned(key[n], turns[here])])
        bias = None
        if rows.log_counts is not None:
            bias = functional.pad(rows.log_counts[n, :filled].flatten(), (0, frames * tokens)).to(query.dtype)[None]
        q, k, v = (
            x.flatten(0, 1).transpose(0, 1)[None]
            for x in (turned(query[n], turns[here]), keys, torch.cat([past_values, value[n]]))
        )
        mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        out.append(mixed[0].transpose(0, 1).reshape(value.shape[1:]))
    return torch.stack(out)


def _unpacked(data: Tensor, scales: Tensor | None, row: int, filled: int) -> Tensor:
    kept = data[row, :filled]
    return kept if scales is None else kept.float() * scales[row, :filled]


def turned(x: Tensor, turns: Tensor) -> Tensor:
    """``(N, S, H, D)`` frames by ``(N, P, 2)``."""
    moving = 2 * turns.shape[1]
    pairs = torch.view_as_complex(x[..., :moving].float().reshape(*x.shape[:-1], moving // 2, 2).contiguous())
    by = torch.view_as_complex(turns.float().contiguous())[:, None, None]
    return torch.cat([torch.view_as_real(pairs * by).flatten(-2).to(x.dtype), x[..., moving:]], -1)
