"""The functions of ``streamfx_kernels.pixels`` in Triton: a program for some pixels of a frame, in all its colours."""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from streamfx_kernels.pixels import BLACK, CHROMA, GREY, WEIGHTS, WHITE, Axis, Matrix, chroma_of, evenly, to_chroma

_BLOCK = 256


@triton.jit
def _weight(place, at, reach, length):
    """Of pixel ``at`` for a sample at ``place``."""
    share = 1.0 - tl.abs(at.to(tl.float32) + 0.5 - place) / reach
    return tl.where((at >= 0) & (at < length), tl.maximum(share, 0.0), 0.0)


@triton.jit
def _three(
    ptr, y, x, reach_y, reach_x, height, width, of_channel, of_row, of_column, inside,
    DOWN: tl.constexpr, ACROSS: tl.constexpr,
):  # fmt: skip
    """Samples of three channels."""
    top, left = tl.floor(y - reach_y).to(tl.int32), tl.floor(x - reach_x).to(tl.int32)
    first, second, third, total = y * 0.0, y * 0.0, y * 0.0, y * 0.0
    for down in range(0, DOWN):
        row = top + down
        vertical = _weight(y, row, reach_y, height)
        for across in range(0, ACROSS):
            column = left + across
            weight = vertical * _weight(x, column, reach_x, width)
            used = inside & (weight > 0)
            at = ptr + row * of_row + column * of_column
            first += weight * tl.load(at, mask=used, other=0).to(tl.float32)
            second += weight * tl.load(at + of_channel, mask=used, other=0).to(tl.float32)
            third += weight * tl.load(at + 2 * of_channel, mask=used, other=0).to(tl.float32)
            total += weight
    total = tl.maximum(total, 1e-20)  # beyond the last pixel nothing is reached
    return first / total, second / total, third / total


@triton.jit
def _one(
    ptr, y, x, reach_y, reach_x, height, width, of_row, of_column, inside, DOWN: tl.constexpr, ACROSS: tl.constexpr
):  # fmt: skip
    """Samples of one channel."""
    top, left = tl.floor(y - reach_y).to(tl.int32), tl.floor(x - reach_x).to(tl.int32)
    found, total = y * 0.0, y * 0.0
    for down in range(0, DOWN):
        row = top + down
        vertical = _weight(y, row, reach_y, height)
        for across in range(0, ACROSS):
            column = left + across
            weight = vertical * _weight(x, column, reach_x, width)
            at = ptr + row * of_row + column * of_column
            found += weight * tl.load(at, mask=inside & (weight > 0), other=0).to(tl.float32)
            total += weight
    return found / tl.maximum(total, 1e-20)


@triton.jit
def _byte(value):
    """Rounded, halves to even, within 0 … 255."""
    return tl.minimum(tl.maximum((value + 12582912.0) - 12582912.0, 0.0), 255.0).to(tl.uint8)


@triton.jit
def _to_network(
    in_ptr, out_ptr, height, width, rows, columns, step_y, step_x, reach_y, reach_x,
    DOWN: tl.constexpr, ACROSS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    frame = tl.program_id(1).to(tl.int64)
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = pixel < rows * columns
    y = ((pixel // columns).to(tl.float32) + 0.5) * step_y
    x = ((pixel % columns).to(tl.float32) + 0.5) * step_x
    red, green, blue = _three(
        in_ptr + frame * height * width * 3,
        y,
        x,
        reach_y,
        reach_x,
        height,
        width,
        1,
        3 * width,
        3,
        inside,
        DOWN,
        ACROSS,
    )
    out = out_ptr + frame * 3 * rows * columns + pixel
    tl.store(out, (red / 127.5 - 1.0).to(out_ptr.dtype.element_ty), mask=inside)
    tl.store(out + rows * columns, (green / 127.5 - 1.0).to(out_ptr.dtype.element_ty), mask=inside)
    tl.store(out + 2 * rows * columns, (blue / 127.5 - 1.0).to(out_ptr.dtype.element_ty), mask=inside)


@triton.jit
def _to_frames(
    in_ptr, out_ptr, height, width, rows, columns, step_y, step_x, reach_y, reach_x,
    DOWN: tl.constexpr, ACROSS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    frame = tl.program_id(1).to(tl.int64)
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = pixel < rows * columns
    y = ((pixel // columns).to(tl.float32) + 0.5) * step_y
    x = ((pixel % columns).to(tl.float32) + 0.5) * step_x
    area = height * width
    red, green, blue = _three(
        in_ptr + frame * 3 * area, y, x, reach_y, reach_x, height, width, area, width, 1, inside, DOWN, ACROSS
    )
    out = out_ptr + (frame * rows * columns + pixel) * 3
    tl.store(out, _byte((red + 1.0) * 127.5), mask=inside)
    tl.store(out + 1, _byte((green + 1.0) * 127.5), mask=inside)
    tl.store(out + 2, _byte((blue + 1.0) * 127.5), mask=inside)


@triton.jit
def _nv12_to_network(
    luma_ptr, chroma_ptr, out_ptr, height, width, rows, columns, step_y, step_x, reach_y, reach_x,
    chroma_y, chroma_x, chroma_reach_y, chroma_reach_x, of_red, of_blue, black, white, grey, chroma,
    DOWN: tl.constexpr, ACROSS: tl.constexpr, CHROMA_DOWN: tl.constexpr, CHROMA_ACROSS: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    frame = tl.program_id(1).to(tl.int64)
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = pixel < rows * columns
    row, column = (pixel // columns).to(tl.float32), (pixel % columns).to(tl.float32)
    bright = _one(
        luma_ptr + frame * height * width, (row + 0.5) * step_y, (column + 0.5) * step_x, reach_y, reach_x,
        height, width, width, 1, inside, DOWN, ACROSS,
    )  # fmt: skip
    y, x = chroma_y + 0.5 * step_y * row, chroma_x + 0.5 * step_x * column
    colours = chroma_ptr + frame * height * width // 2
    blue_away = _one(
        colours, y, x, chroma_reach_y, chroma_reach_x, height // 2, width // 2, width, 2, inside,
        CHROMA_DOWN, CHROMA_ACROSS,
    )  # fmt: skip
    red_away = _one(
        colours + 1, y, x, chroma_reach_y, chroma_reach_x, height // 2, width // 2, width, 2, inside,
        CHROMA_DOWN, CHROMA_ACROSS,
    )  # fmt: skip
    bright = (bright - black) / white
    red = bright + 2.0 * (1.0 - of_red) * (red_away - grey) / chroma
    blue = bright + 2.0 * (1.0 - of_blue) * (blue_away - grey) / chroma
    green = (bright - of_red * red - of_blue * blue) / (1.0 - of_red - of_blue)
    out = out_ptr + frame * 3 * rows * columns + pixel
    kind = out_ptr.dtype.element_ty
    tl.store(out, (2.0 * tl.minimum(tl.maximum(red, 0.0), 1.0) - 1.0).to(kind), mask=inside)
    tl.store(out + rows * columns, (2.0 * tl.minimum(tl.maximum(green, 0.0), 1.0) - 1.0).to(kind), mask=inside)
    tl.store(out + 2 * rows * columns, (2.0 * tl.minimum(tl.maximum(blue, 0.0), 1.0) - 1.0).to(kind), mask=inside)


@triton.jit
def _to_nv12(
    in_ptr, out_ptr, height, width, rows, columns, first_y, first_x, step_y, step_x, reach_y, reach_x,
    of_red, of_blue, base, scale, LUMA: tl.constexpr, DOWN: tl.constexpr, ACROSS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    frame = tl.program_id(1).to(tl.int64)
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = pixel < rows * columns
    y = first_y + (pixel // columns).to(tl.float32) * step_y
    x = first_x + (pixel % columns).to(tl.float32) * step_x
    area = height * width
    red, green, blue = _three(
        in_ptr + frame * 3 * area, y, x, reach_y, reach_x, height, width, area, width, 1, inside, DOWN, ACROSS
    )
    red, green, blue = (red + 1.0) / 2.0, (green + 1.0) / 2.0, (blue + 1.0) / 2.0
    bright = of_red * red + (1.0 - of_red - of_blue) * green + of_blue * blue
    if LUMA:
        tl.store(out_ptr + frame * rows * columns + pixel, _byte(base + scale * bright), mask=inside)
    else:
        out = out_ptr + (frame * rows * columns + pixel) * 2
        tl.store(out, _byte(base + scale * (blue - bright) / (2.0 * (1.0 - of_blue))), mask=inside)
        tl.store(out + 1, _byte(base + scale * (red - bright) / (2.0 * (1.0 - of_red))), mask=inside)


def to_network(frames: Tensor, size: tuple[int, int], dtype: torch.dtype) -> Tensor:
    count, height, width = (int(length) for length in frames.shape[:3])
    out = torch.empty(count, 3, size[1], size[0], dtype=dtype, device=frames.device)
    rows, columns = evenly(height, size[1]), evenly(width, size[0])
    _to_network[_grid(out, rows, columns)](
        frames.contiguous(),
        out,
        height,
        width,
        *_plan(rows, columns),
        DOWN=_taps(rows),
        ACROSS=_taps(columns),
        BLOCK=_BLOCK,
    )
    return out


def to_frames(pictures: Tensor, size: tuple[int, int]) -> Tensor:
    count, _, height, width = (int(length) for length in pictures.shape)
    out = torch.empty(count, size[1], size[0], 3, dtype=torch.uint8, device=pictures.device)
    rows, columns = evenly(height, size[1]), evenly(width, size[0])
    _to_frames[_grid(out, rows, columns)](
        _clamped(pictures),
        out,
        height,
        width,
        *_plan(rows, columns),
        DOWN=_taps(rows),
        ACROSS=_taps(columns),
        BLOCK=_BLOCK,
    )
    return out


def nv12_to_network(luma: Tensor, chroma: Tensor, size: tuple[int, int], dtype: torch.dtype, matrix: Matrix) -> Tensor:
    count, height, width = (int(length) for length in luma.shape)
    out = torch.empty(count, 3, size[1], size[0], dtype=dtype, device=luma.device)
    rows, columns = evenly(height, size[1]), evenly(width, size[0])
    colour_rows, colour_columns = chroma_of(height, size[1], left=False), chroma_of(width, size[0], left=True)
    _nv12_to_network[_grid(out, rows, columns)](
        luma.contiguous(),
        chroma.contiguous(),
        out,
        height,
        width,
        *_plan(rows, columns),
        colour_rows.first,
        colour_columns.first,
        colour_rows.reach,
        colour_columns.reach,
        *WEIGHTS[matrix],
        BLACK,
        WHITE,
        GREY,
        CHROMA,
        DOWN=_taps(rows),
        ACROSS=_taps(columns),
        CHROMA_DOWN=_taps(colour_rows),
        CHROMA_ACROSS=_taps(colour_columns),
        BLOCK=_BLOCK,
    )
    return out


def to_nv12(pictures: Tensor, size: tuple[int, int], matrix: Matrix) -> tuple[Tensor, Tensor]:
    count, _, height, width = (int(length) for length in pictures.shape)
    luma = torch.empty(count, size[1], size[0], dtype=torch.uint8, device=pictures.device)
    chroma = torch.empty(count, size[1] // 2, size[0] // 2, 2, dtype=torch.uint8, device=pictures.device)
    given = _clamped(pictures)
    for out, rows, columns, base, scale in (
        (luma, evenly(height, size[1]), evenly(width, size[0]), BLACK, WHITE),
        (chroma, to_chroma(height, size[1], left=False), to_chroma(width, size[0], left=True), GREY, CHROMA),
    ):
        _to_nv12[_grid(out, rows, columns)](
            given,
            out,
            height,
            width,
            rows.count,
            columns.count,
            rows.first,
            columns.first,
            rows.step,
            columns.step,
            rows.reach,
            columns.reach,
            *WEIGHTS[matrix],
            base,
            scale,
            LUMA=out is luma,
            DOWN=_taps(rows),
            ACROSS=_taps(columns),
            BLOCK=_BLOCK,
        )
    return luma, chroma


def _plan(rows: Axis, columns: Axis) -> tuple[int, int, float, float, float, float]:
    return rows.count, columns.count, rows.step, columns.step, rows.reach, columns.reach


def _grid(out: Tensor, rows: Axis, columns: Axis) -> tuple[int, int]:
    return triton.cdiv(rows.count * columns.count, _BLOCK), len(out)


def _taps(axis: Axis) -> int:
    """Pixels that a sample may reach."""
    return math.ceil(2 * axis.reach) + 1


def _clamped(pictures: Tensor) -> Tensor:
    return pictures.clamp(-1, 1).contiguous()
