"""``ring_attention`` in Triton: FlashAttention (T. Dao, arXiv 2307.08691) whose keys come from the slots of a ring."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton import knobs

from streamfx_kernels.ring_attention import Ring, Rows

_CONFIGS = [
    triton.Config({"BLOCK_M": m, "BLOCK_N": n}, num_warps=warps, num_stages=stages)
    for m, n, warps, stages in (
        (64, 32, 4, 3),
        (64, 64, 4, 3),
        (128, 32, 4, 3),
        (128, 64, 4, 3),
        (128, 64, 8, 3),
        (128, 128, 8, 2),
    )
]
_SMALL = [triton.Config({"BLOCK_M": 16, "BLOCK_N": 16})]
_LEAST = 32


@triton.jit
def _frame(
    total, most, weight, q_even, q_odd, k_ptr, v_ptr, k_scale_ptr, v_scale_ptr, log_ptr, turns_ptr,
    place, tokens, heads, dim, pairs, sharpness,
    PACKED: tl.constexpr, COUNTED: tl.constexpr, EXACT: tl.constexpr, BLOCK_N: tl.constexpr, DIM: tl.constexpr,
):  # fmt: skip
    """The softmax goes on over the tokens of one frame at ``place``. Pointers are at its first token of this head."""
    pair = tl.arange(0, DIM // 2)
    column = tl.arange(0, DIM)
    turn = turns_ptr + (place * pairs + pair) * 2
    cosine = tl.load(turn, mask=pair < pairs, other=1.0)[None, :]
    sine = tl.load(turn + 1, mask=pair < pairs, other=0.0)[None, :]
    for start in range(0, tokens, BLOCK_N):
        token = start + tl.arange(0, BLOCK_N)
        there = token < tokens
        at = token[:, None] * (heads * dim) + column[None, :]
        inside = there[:, None] & (column[None, :] < dim)
        key = tl.load(k_ptr + at, mask=inside, other=0.0).to(tl.float32)
        even, odd = tl.split(tl.reshape(key, (BLOCK_N, DIM // 2, 2)))
        turned_even = (even * cosine - odd * sine).to(q_even.dtype)
        turned_odd = (odd * cosine + even * sine).to(q_even.dtype)
        precision: tl.constexpr = "ieee" if EXACT else "tf32"
        scores = tl.dot(q_even, tl.trans(turned_even), input_precision=precision)
        scores = tl.dot(q_odd, tl.trans(turned_odd), scores, input_precision=precision) * sharpness
        if PACKED:
            scores *= tl.load(k_scale_ptr + token * heads, mask=there, other=0.0)[None, :]
        if COUNTED:
            scores += 1.4426950408889634 * tl.load(log_ptr + token, mask=there, other=0.0)[None, :]
        scores = tl.where(there[None, :], scores, float("-inf"))
        most_now = tl.maximum(most, tl.max(scores, 1))
        shrink = tl.exp2(most - most_now)
        shares = tl.exp2(scores - most_now[:, None])
        weight = weight * shrink + tl.sum(shares, 1)
        value = tl.load(v_ptr + at, mask=inside, other=0.0).to(q_even.dtype)
        if PACKED:
            shares *= tl.load(v_scale_ptr + token * heads, mask=there, other=0.0)[None, :]
        total = tl.dot(shares.to(q_even.dtype), value, total * shrink[:, None], input_precision=precision)
        most = most_now
    return total, most, weight


@triton.autotune(_SMALL if knobs.runtime.interpret else _CONFIGS, key=["tokens", "dim", "frames", "PACKED"])
@triton.jit
def _kernel(
    q_ptr, k_ptr, v_ptr, ring_k_ptr, ring_v_ptr, k_scale_ptr, v_scale_ptr, log_ptr, turns_ptr,
    row_ptr, filled_ptr, positions_ptr, out_ptr,
    frames, slots, tokens, heads, dim, pairs, sharpness,
    PACKED: tl.constexpr, COUNTED: tl.constexpr, EXACT: tl.constexpr, DIM: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    head = tl.program_id(1)
    n = tl.program_id(2)
    row = tl.load(row_ptr + n).to(tl.int64)
    filled = tl.load(filled_ptr + n)
    asking = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    asks = asking < frames * tokens
    pair = tl.arange(0, DIM // 2)[None, :]
    here = (n.to(tl.int64) * frames * tokens * heads + head) * dim
    at = here + asking[:, None] * (heads * dim) + 2 * pair
    inside = asks[:, None] & (2 * pair < dim)
    even = tl.load(q_ptr + at, mask=inside, other=0.0)
    odd = tl.load(q_ptr + at + 1, mask=inside & (2 * pair + 1 < dim), other=0.0)
    turn = turns_ptr + ((filled + asking // tokens)[:, None] * pairs + pair) * 2
    turning = asks[:, None] & (pair < pairs)
    cosine = tl.load(turn, mask=turning, other=1.0)
    sine = tl.load(turn + 1, mask=turning, other=0.0)
    q_even = (even * cosine - odd * sine).to(q_ptr.dtype.element_ty)
    q_odd = (odd * cosine + even * sine).to(q_ptr.dtype.element_ty)
    if EXACT:
        q_even, q_odd = q_even.to(tl.float32), q_odd.to(tl.float32)

    total = tl.zeros([BLOCK_M, DIM], tl.float32)
    most = tl.full([BLOCK_M], -1.0e38, tl.float32)
    weight = tl.zeros([BLOCK_M], tl.float32)
    for slot in range(0, filled):
        frame = (row * slots + slot) * tokens * heads + head
        total, most, weight = _frame(
            total, most, weight, q_even, q_odd, ring_k_ptr + frame * dim, ring_v_ptr + frame * dim,
            k_scale_ptr + frame, v_scale_ptr + frame, log_ptr + (n * slots + slot) * tokens, turns_ptr,
            tl.load(positions_ptr + n * slots + slot), tokens, heads, dim, pairs, sharpness,
            PACKED, COUNTED, EXACT, BLOCK_N, DIM,
        )  # fmt: skip
    for frame in range(0, frames):
        new = here + frame * tokens * heads * dim
        total, most, weight = _frame(
            total, most, weight, q_even, q_odd, k_ptr + new, v_ptr + new,
            k_scale_ptr, v_scale_ptr, log_ptr, turns_ptr, filled + frame, tokens, heads, dim, pairs, sharpness,
            False, False, EXACT, BLOCK_N, DIM,
        )  # fmt: skip
    column = tl.arange(0, DIM)[None, :]
    place = here + asking[:, None] * (heads * dim) + column
    found = (total / weight[:, None]).to(out_ptr.dtype.element_ty)
    tl.store(out_ptr + place, found, mask=asks[:, None] & (column < dim))


def launch(query: Tensor, key: Tensor, value: Tensor, ring: Ring, rows: Rows, turns: Tensor) -> Tensor:
    """As ``streamfx_kernels.ring_attention.reference``."""
    count, frames, tokens, heads, dim = query.shape
    query, key, value = (x.contiguous() for x in (query, key, value))
    if not (ring.keys.is_contiguous() and ring.values.is_contiguous()):
        raise ValueError("a ring has to lie in one piece")
    out = torch.empty_like(query)
    nothing: Any = turns  # a pointer that is never followed
    _kernel[lambda chosen: (triton.cdiv(frames * tokens, chosen["BLOCK_M"]), heads, count)](
        query,
        key,
        value,
        ring.keys,
        ring.values,
        nothing if ring.key_scales is None else ring.key_scales,
        nothing if ring.value_scales is None else ring.value_scales,
        nothing if rows.log_counts is None else rows.log_counts.float().contiguous(),
        turns.float().contiguous(),
        rows.row,
        rows.filled,
        rows.positions.contiguous(),
        out,
        frames,
        int(ring.keys.shape[1]),
        tokens,
        heads,
        dim,
        int(turns.shape[1]),
        1.4426950408889634 * dim**-0.5,
        PACKED=ring.key_scales is not None,
        COUNTED=rows.log_counts is not None,
        EXACT=query.dtype is torch.float32 or knobs.runtime.interpret,  # it has no products of bfloat16
        DIM=max(_LEAST, triton.next_power_of_2(dim)),
    )
    return out
