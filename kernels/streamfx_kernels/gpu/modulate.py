"""``modulated_norm`` and ``normed_and_turned`` in Triton: a program for a token."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _norm_kernel(
    x_ptr, scale_ptr, shift_ptr, out_ptr, tokens, frames, width, row_stride, frame_stride, eps, WIDTH: tl.constexpr
):  # fmt: skip
    token = tl.program_id(0)
    frame = token // tokens
    column = tl.arange(0, WIDTH)
    inside = column < width
    place = token.to(tl.int64) * width + column
    x = tl.load(x_ptr + place, mask=inside, other=0.0).to(tl.float32)
    mean = tl.sum(x, 0) / width
    away = tl.where(inside, x - mean, 0.0)
    normed = away / tl.sqrt(tl.sum(away * away, 0) / width + eps)
    by = (frame // frames) * row_stride + (frame % frames) * frame_stride + column
    scale = tl.load(scale_ptr + by, mask=inside, other=0.0).to(tl.float32)
    shift = tl.load(shift_ptr + by, mask=inside, other=0.0).to(tl.float32)
    tl.store(out_ptr + place, (normed * (1 + scale) + shift).to(out_ptr.dtype.element_ty), mask=inside)


def launch_norm(x: Tensor, scale: Tensor, shift: Tensor, eps: float) -> Tensor:
    """As ``streamfx_kernels.modulate.norm_reference``."""
    rows, frames, tokens, width = x.shape
    x, out = x.contiguous(), torch.empty(x.shape, dtype=x.dtype, device=x.device)
    by = [table.expand(rows, table.shape[1], 1, width).contiguous() for table in (scale, shift)]
    each = by[0].shape[1]
    _norm_kernel[(rows * frames * tokens,)](
        x,
        *by,
        out,
        tokens,
        frames,
        width,
        each * width,
        width if each > 1 else 0,
        eps,
        WIDTH=triton.next_power_of_2(width),
        num_warps=4 if width <= 2048 else 8,
    )
    return out


@triton.jit
def _turned_kernel(
    query_ptr, key_ptr, query_weight_ptr, key_weight_ptr, turns_ptr, query_out_ptr, key_out_ptr,
    tokens, heads, dim, still, query_stride, key_stride, eps,
    TOGETHER: tl.constexpr, HEADS: tl.constexpr, HALF: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64)
    x_ptr, weight_ptr, out_ptr, stride = query_ptr, query_weight_ptr, query_out_ptr, query_stride
    if tl.program_id(1) == 1:
        x_ptr, weight_ptr, out_ptr, stride = key_ptr, key_weight_ptr, key_out_ptr, key_stride
    head = tl.arange(0, HEADS)[:, None]
    pair = tl.arange(0, HALF)[None, :]
    inside = (head < heads) & (2 * pair < dim)
    place = head * dim + 2 * pair
    even = tl.load(x_ptr + token * stride + place, mask=inside, other=0.0).to(tl.float32)
    odd = tl.load(x_ptr + token * stride + place + 1, mask=inside, other=0.0).to(tl.float32)
    square = tl.sum(even * even + odd * odd, 1)
    if TOGETHER:
        size = 1.0 / tl.sqrt(tl.sum(square, 0) / (heads * dim) + eps)
        even, odd = even * size, odd * size
        of = place
    else:
        size = 1.0 / tl.sqrt(square / dim + eps)
        even, odd = even * size[:, None], odd * size[:, None]
        of = 2 * pair + 0 * head
    even *= tl.load(weight_ptr + of, mask=inside, other=0.0).to(tl.float32)
    odd *= tl.load(weight_ptr + of + 1, mask=inside, other=0.0).to(tl.float32)
    turning = inside & (2 * pair >= still)
    turn = turns_ptr + (token % tokens) * (dim - still) + 2 * pair - still + 0 * head
    cosine = tl.load(turn, mask=turning, other=1.0)
    sine = tl.load(turn + 1, mask=turning, other=0.0)
    out = out_ptr + token * heads * dim + place
    tl.store(out, (even * cosine - odd * sine).to(out_ptr.dtype.element_ty), mask=inside)
    tl.store(out + 1, (odd * cosine + even * sine).to(out_ptr.dtype.element_ty), mask=inside)


def launch_turned(
    query: Tensor, key: Tensor, query_weight: Tensor, key_weight: Tensor, turns: Tensor, still: int, eps: float
) -> tuple[Tensor, Tensor]:
    """As ``streamfx_kernels.modulate.turned_reference``, of both."""
    rows, frames, tokens, heads, dim = query.shape
    given = [_in_rows(x) for x in (query, key)]
    outs = [torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (query, key)]
    _turned_kernel[rows * frames * tokens, 2](
        given[0],
        given[1],
        query_weight.contiguous(),
        key_weight.contiguous(),
        turns.float().contiguous(),
        *outs,
        tokens,
        heads,
        dim,
        still,
        given[0].stride(2),
        given[1].stride(2),
        eps,
        TOGETHER=len(query_weight) != dim,
        HEADS=triton.next_power_of_2(heads),
        HALF=triton.next_power_of_2(dim) // 2,
        num_warps=4 if heads * dim <= 2048 else 8,
    )
    return outs[0], outs[1]


def _in_rows(x: Tensor) -> Tensor:
    """As it is if tokens lie evenly apart, each in one piece, as a part of a joint projection does."""
    rows, frames, tokens, _, dim = x.shape
    stride = x.stride(2)
    even = x.stride(1) == tokens * stride and (rows == 1 or x.stride(0) == frames * tokens * stride)
    return x if even and x.stride(4) == 1 and x.stride(3) == dim else x.contiguous()
