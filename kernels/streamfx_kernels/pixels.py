"""Frames as cameras and decoders have them to tensors as networks want them, and back, resized on the way.

Resizing is by a triangle as wide as what a pixel takes the place of, which is ``interpolate`` of torch, bilinear with
``antialias``. NV12 is ITU-R BT.709 or BT.601 with video levels, chroma sited as in H.264 (left).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from streamfx_kernels.switch import by_kernel

Matrix = Literal["bt709", "bt601"]

WEIGHTS: dict[str, tuple[float, float]] = {"bt709": (0.2126, 0.0722), "bt601": (0.299, 0.114)}
"""Of red and of blue in brightness."""

BLACK, WHITE, GREY, CHROMA = 16.0, 219.0, 128.0, 224.0


@dataclass(frozen=True, slots=True)
class Axis:
    """Where ``count`` samples lie along an axis: at ``first + n step`` pixels from its border, each over ``reach``
    pixels to either side."""

    count: int
    first: float
    step: float
    reach: float


def evenly(given: int, wanted: int) -> Axis:
    """``given`` pixels to ``wanted``."""
    step = given / wanted
    return Axis(wanted, 0.5 * step, step, max(1.0, step))


def _same(count: int) -> Axis:
    return evenly(count, count)


def chroma_of(given: int, wanted: int, left: bool) -> Axis:
    """``wanted`` pixels from the half as many chroma samples of ``given``; ``left``: on every other pixel, not between
    two."""
    step = given / wanted
    return Axis(wanted, 0.25 * step + (0.25 if left else 0.0), 0.5 * step, max(1.0, 0.5 * step))


def to_chroma(given: int, wanted: int, left: bool) -> Axis:
    """The chroma samples of ``wanted`` pixels, from ``given`` whole ones."""
    step = given / wanted
    return Axis(wanted // 2, (0.5 if left else 1.0) * step, 2 * step, max(1.0, 2 * step))


def to_network(frames: Tensor, size: tuple[int, int], dtype: torch.dtype = torch.float16) -> Tensor:
    """``(F, H, W, 3) uint8`` RGB to ``(F, 3, height, width)`` in [-1, 1]; ``size``: (width, height)."""
    if by_kernel(frames):
        from streamfx_kernels.gpu import pixels

        return pixels.to_network(frames, size, dtype)
    planes = _resampled(frames.permute(0, 3, 1, 2).float(), *_axes(frames.shape[1:3], size))
    return (planes / 127.5 - 1).to(dtype)


def to_frames(pictures: Tensor, size: tuple[int, int]) -> Tensor:
    """``(F, 3, h, w)`` in [-1, 1] to ``(F, height, width, 3) uint8`` RGB; ``size``: (width, height)."""
    if by_kernel(pictures):
        from streamfx_kernels.gpu import pixels

        return pixels.to_frames(pictures, size)
    planes = _resampled(pictures.float().clamp(-1, 1), *_axes(pictures.shape[2:], size))
    return ((planes + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def nv12_to_network(
    luma: Tensor, chroma: Tensor, size: tuple[int, int], dtype: torch.dtype = torch.float16, matrix: Matrix = "bt709"
) -> Tensor:
    """NV12, ``(F, H, W)`` and ``(F, H / 2, W / 2, 2)`` uint8, to ``(F, 3, height, width)`` RGB in [-1, 1]."""
    height, width = _even(luma.shape[1:3])
    if by_kernel(luma):
        from streamfx_kernels.gpu import pixels

        return pixels.nv12_to_network(luma, chroma, size, dtype, matrix)
    bright = (_resampled(luma[:, None].float(), *_axes((height, width), size)) - BLACK) / WHITE
    sited = chroma_of(height, size[1], left=False), chroma_of(width, size[0], left=True)
    colour = (_resampled(chroma.permute(0, 3, 1, 2).float(), *sited) - GREY) / CHROMA
    red_weight, blue_weight = WEIGHTS[matrix]
    red = bright + 2 * (1 - red_weight) * colour[:, 1:]
    blue = bright + 2 * (1 - blue_weight) * colour[:, :1]
    green = (bright - red_weight * red - blue_weight * blue) / (1 - red_weight - blue_weight)
    return (torch.cat([red, green, blue], 1).clamp(0, 1) * 2 - 1).to(dtype)


def to_nv12(pictures: Tensor, size: tuple[int, int], matrix: Matrix = "bt709") -> tuple[Tensor, Tensor]:
    """``(F, 3, h, w)`` RGB in [-1, 1] to NV12 of ``size`` (width, height), both even: ``(F, height, width)`` and
    ``(F, height / 2, width / 2, 2)`` uint8."""
    height, width = _even((size[1], size[0]))
    if by_kernel(pictures):
        from streamfx_kernels.gpu import pixels

        return pixels.to_nv12(pictures, size, matrix)
    given = (pictures.float().clamp(-1, 1) + 1) / 2
    here = int(given.shape[2]), int(given.shape[3])
    luma = BLACK + WHITE * _brightness(_resampled(given, *_axes(here, size)), matrix)
    sited = to_chroma(here[0], height, left=False), to_chroma(here[1], width, left=True)
    whole = _resampled(given, *sited)
    bright, (red_weight, blue_weight) = _brightness(whole, matrix), WEIGHTS[matrix]
    blue = (whole[:, 2:] - bright) / (2 * (1 - blue_weight))
    red = (whole[:, :1] - bright) / (2 * (1 - red_weight))
    colour = (GREY + CHROMA * torch.cat([blue, red], 1)).round().clamp(0, 255).to(torch.uint8)
    return luma[:, 0].round().to(torch.uint8), colour.permute(0, 2, 3, 1).contiguous()


def _brightness(given: Tensor, matrix: Matrix) -> Tensor:
    red, blue = WEIGHTS[matrix]
    weights = torch.tensor([red, 1 - red - blue, blue], device=given.device)[:, None, None]
    return (weights * given).sum(1, keepdim=True)


def _axes(given: torch.Size | tuple[int, ...], size: tuple[int, int]) -> tuple[Axis, Axis]:
    return evenly(int(given[0]), size[1]), evenly(int(given[1]), size[0])


def _even(shape: torch.Size | tuple[int, ...]) -> tuple[int, int]:
    height, width = (int(side) for side in shape)
    if height % 2 or width % 2:
        raise ValueError(f"NV12 of {width}x{height} is not possible; both sides have to be even")
    return height, width


def _resampled(planes: Tensor, rows: Axis, columns: Axis) -> Tensor:
    """``(F, C, H, W)`` float32 to ``(F, C, rows, columns)``."""
    if columns != _same(int(planes.shape[3])):
        planes = planes @ _table(int(planes.shape[3]), columns, planes.device).T
    if rows != _same(int(planes.shape[2])):
        planes = _table(int(planes.shape[2]), rows, planes.device) @ planes
    return planes


def _table(given: int, axis: Axis, device: torch.device) -> Tensor:
    """``(count, given)``: how much of each pixel a sample takes."""
    places = axis.first + axis.step * torch.arange(axis.count, device=device, dtype=torch.float32)
    centres = torch.arange(given, device=device) + 0.5
    weights = (1 - (centres[None] - places[:, None]).abs() / axis.reach).clamp_min(0)
    return weights / weights.sum(1, keepdim=True)
