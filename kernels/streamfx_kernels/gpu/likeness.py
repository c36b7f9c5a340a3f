"""``likeness`` in Triton: a program for a row of the thumbnail of a channel; their sums are added up after."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _kernel(
    frame_ptr, other_ptr, small_ptr, sums_ptr, height, width, rows, columns, channel_stride, row_stride, column_stride,
    WIDEST: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    channel, row = tl.program_id(0), tl.program_id(1)
    column = tl.arange(0, COLUMNS)
    used = column < columns
    first = column * width // columns
    last = ((column + 1) * width + columns - 1) // columns
    top = row * height // rows
    bottom = ((row + 1) * height + rows - 1) // rows
    total = tl.zeros([COLUMNS], tl.float32)
    for y in range(top, bottom):
        line = frame_ptr + channel.to(tl.int64) * channel_stride + y * row_stride
        for n in range(0, WIDEST):
            x = first + n
            total += tl.load(line + x * column_stride, mask=used & (x < last), other=0.0).to(tl.float32)
    small = total / ((last - first) * (bottom - top)).to(tl.float32)
    small = tl.where(used, small, 0.0)
    place = (channel * rows + row) * columns + column
    tl.store(small_ptr + place, small, mask=used)
    other = tl.load(other_ptr + place, mask=used, other=0.0)
    out = sums_ptr + 5 * (channel * rows + row)
    tl.store(out, tl.sum(small, 0))
    tl.store(out + 1, tl.sum(other, 0))
    tl.store(out + 2, tl.sum(small * other, 0))
    tl.store(out + 3, tl.sum(small * small, 0))
    tl.store(out + 4, tl.sum(other * other, 0))


def launch(frame: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """As ``streamfx_kernels.likeness.reference``."""
    channels, height, width = frame.shape
    rows, columns = int(other.shape[1]), int(other.shape[2])
    small = torch.empty(channels, rows, columns, dtype=torch.float32, device=frame.device)
    sums = torch.empty(channels * rows, 5, dtype=torch.float32, device=frame.device)
    _kernel[channels, rows](
        frame,
        other.float().contiguous(),
        small,
        sums,
        height,
        width,
        rows,
        columns,
        *frame.stride(),
        WIDEST=-(-width // columns) + 1,
        COLUMNS=triton.next_power_of_2(columns),
    )
    return small, sums.sum(0)
