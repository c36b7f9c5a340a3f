"""``guided_step`` in Triton: every element is read and written once."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 1024


@triton.jit
def _clean(of, said, alpha, sigma, c_skip, c_out, FLOW: tl.constexpr):
    straight = of - sigma * said
    if FLOW:
        out = straight
    else:
        out = c_out * straight / alpha + c_skip * of
    return out


@triton.jit
def _kernel(
    x_ptr, said_ptr, other_ptr, noise_ptr, clean_ptr, following_ptr, table_ptr,
    size, going_on, scale, delta,
    FLOW: tl.constexpr, GUIDANCE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < size
    place = row.to(tl.int64) * size + column
    alpha = tl.load(table_ptr + 5 * row)
    sigma = tl.load(table_ptr + 5 * row + 1)
    c_skip = tl.load(table_ptr + 5 * row + 2)
    c_out = tl.load(table_ptr + 5 * row + 3)
    x = tl.load(x_ptr + place, mask=inside, other=0.0).to(tl.float32)
    said = tl.load(said_ptr + place, mask=inside, other=0.0).to(tl.float32)
    if GUIDANCE == 1:
        negative = tl.load(other_ptr + place, mask=inside, other=0.0).to(tl.float32)
        said = negative + scale * (said - negative)
    if GUIDANCE == 2:
        residual = tl.load(other_ptr + place, mask=inside, other=0.0).to(tl.float32)
        meant = said
        if FLOW:
            meant = x + alpha * said
        guided = delta * residual + scale * (meant - delta * residual)
        alone = sigma * residual
        said = guided
        of_alone = guided
        if FLOW:
            said = (guided - x) / alpha
            of_alone = (guided - alone) / alpha
        ahead = tl.load(table_ptr + 5 * row + 4)
        stays = inside & (tl.zeros([BLOCK], tl.int32) + row < going_on)
        noise = tl.load(noise_ptr + place, mask=stays, other=0.0).to(tl.float32)
        moved = _clean(alone, of_alone, alpha, sigma, c_skip, c_out, FLOW)
        tl.store(following_ptr + place, noise + ahead * moved, mask=stays)
    tl.store(clean_ptr + place, _clean(x, said, alpha, sigma, c_skip, c_out, FLOW), mask=inside)


def launch(
    x: Tensor,
    prediction: Tensor,
    other: Tensor | None,
    next_noise: Tensor | None,
    coefficients: Tensor,
    kind: str,
    mode: str,
    scale: float,
    delta: float,
) -> tuple[Tensor, Tensor | None]:
    """As ``streamfx_kernels.guided_step.reference``."""
    x, prediction = x.contiguous(), prediction.contiguous()
    clean = torch.empty_like(x)
    following = None if next_noise is None else torch.empty_like(next_noise, dtype=x.dtype)
    size = x[0].numel()
    nothing: Any = x  # a pointer that is never followed
    grid = len(x), triton.cdiv(size, _BLOCK)
    _kernel[grid](
        x,
        prediction,
        nothing if other is None else other.contiguous(),
        nothing if next_noise is None else next_noise.contiguous(),
        clean,
        nothing if following is None else following,
        coefficients.float().contiguous(),
        size,
        0 if next_noise is None else len(next_noise),
        scale,
        delta,
        FLOW=kind == "flow",
        GUIDANCE=("none", "full", "residual").index(mode),
        BLOCK=_BLOCK,
    )
    return clean, following
