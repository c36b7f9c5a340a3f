"""``store_frame`` in Triton: a program for some tokens of some heads."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from streamfx_kernels.store_frame import LARGEST

_ROWS = 16


@triton.jit
def _kernel(
    value_ptr, slot_ptr, scale_ptr, rows, dim, largest,
    INTEGER: tl.constexpr, ROWS: tl.constexpr, DIM: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, DIM)
    inside = (row[:, None] < rows) & (column[None, :] < dim)
    place = row[:, None].to(tl.int64) * dim + column[None, :]
    value = tl.load(value_ptr + place, mask=inside, other=0.0).to(tl.float32)
    scale = tl.maximum(tl.max(tl.abs(value), 1), 1e-12) / largest
    scaled = value / scale[:, None]
    if INTEGER:
        # Adding and taking away 1.5 * 2 ** 23 rounds to the nearest integer, halves to even.
        scaled = (scaled + 12582912.0) - 12582912.0
    else:
        # Onto the grid of e4m3 here, as casts differ in how they round: three bits of mantissa, halves to even; below
        # 2 ** -6 steps are 2 ** -9 wide.
        bits = scaled.to(tl.int32, bitcast=True)
        coarse = (bits + 0x7FFFF + ((bits >> 20) & 1)) & -0x100000
        fine = (scaled + 24576.0) - 24576.0
        scaled = tl.where(tl.abs(scaled) < 0.015625, fine, coarse.to(tl.float32, bitcast=True))
    tl.store(slot_ptr + place, scaled.to(slot_ptr.dtype.element_ty), mask=inside)
    tl.store(scale_ptr + row, scale, mask=row < rows)


def launch(value: Tensor, slot: Tensor, scale: Tensor) -> None:
    """As ``streamfx_kernels.store_frame.reference``."""
    if not (slot.is_contiguous() and scale.is_contiguous()):
        raise ValueError("a slot has to lie in one piece")
    tokens, heads, dim = value.shape
    rows = tokens * heads
    _kernel[(triton.cdiv(rows, _ROWS),)](
        value.contiguous(),
        slot,
        scale,
        rows,
        dim,
        LARGEST[slot.dtype],
        INTEGER=slot.dtype is torch.int8,
        ROWS=_ROWS,
        DIM=triton.next_power_of_2(dim),
    )
