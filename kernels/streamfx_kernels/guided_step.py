"""Guidance and the scheduler's step in one pass over the rows of a stream batch.

The mathematics is that of ``streamfx.diffusion`` (StreamDiffusion, arXiv 2312.12491, section 3.2): with it in eager
torch, a step reads and writes the latents some fifteen times.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from streamfx_kernels.switch import by_kernel

Kind = Literal["epsilon", "flow"]
Mode = Literal["none", "full", "residual"]

COEFFICIENTS = 5
"""alpha, sigma, c_skip, c_out, and alpha / sigma of the step after."""


def guided_step(
    x: Tensor,
    prediction: Tensor,
    other: Tensor | None,
    next_noise: Tensor | None,
    coefficients: Tensor,
    kind: Kind,
    mode: Mode,
    scale: float = 1.0,
    delta: float = 1.0,
) -> tuple[Tensor, Tensor | None]:
    """From noisy latents and what the model says of them to clean ones, and the residual noise of the step after.

    ``x``, ``prediction``: ``(R, …)`` float32, float16 or bfloat16. ``other``: like them; for "full" the unconditional
    prediction, for "residual" the residual noise; None for "none". ``next_noise``: ``(N, …)``, N ≤ R, what the first N
    rows are renoised with next; for "residual" alone. ``coefficients``: ``(R, 5)`` float32.

    Returns ``(R, …)`` and, for "residual", ``(N, …)``, both like ``x``; computed in float32.
    """
    if (other is None) != (mode == "none") or (next_noise is None) != (mode != "residual"):
        raise ValueError(f"guidance {mode!r} does not go with the tensors that are given")
    given = x, prediction, other, next_noise, coefficients
    if by_kernel(x):
        from streamfx_kernels.gpu.guided_step import launch

        return launch(*given, kind, mode, scale, delta)
    return reference(*given, kind, mode, scale, delta)


def reference(
    x: Tensor,
    prediction: Tensor,
    other: Tensor | None,
    next_noise: Tensor | None,
    coefficients: Tensor,
    kind: Kind,
    mode: Mode,
    scale: float,
    delta: float,
) -> tuple[Tensor, Tensor | None]:
    """As ``guided_step``."""
    columns = coefficients.float().reshape(len(x), COEFFICIENTS, *[1] * (x.ndim - 1)).unbind(1)
    alpha, sigma, c_skip, c_out, ahead = columns
    latents, said = x.float(), prediction.float()

    def clean(of: Tensor, said: Tensor) -> Tensor:
        if kind == "flow":
            return of - sigma * said
        return c_out * (of - sigma * said) / alpha + c_skip * of

    if other is None:
        return clean(latents, said).to(x.dtype), None
    if mode == "full":
        return clean(latents, torch.lerp(other.float(), said, scale)).to(x.dtype), None
    residual = other.float()
    meant = said if kind == "epsilon" else latents + alpha * said
    guided = torch.lerp(delta * residual, meant, scale)
    found = clean(latents, guided if kind == "epsilon" else (guided - latents) / alpha)
    if next_noise is None:
        raise ValueError("residual guidance wants the noise of the step after")
    going_on = len(next_noise)
    alone = sigma * residual
    moved = clean(alone, guided if kind == "epsilon" else (guided - alone) / alpha)
    following = next_noise.float() + ahead[:going_on] * moved[:going_on]
    return found.to(x.dtype), following.to(x.dtype)
