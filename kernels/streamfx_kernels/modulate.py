"""What stands between the large products of a diffusion transformer's attention: adaptive layer norm before them; RMS
norm and rotary positions of queries and keys after them."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor
from torch.nn import functional

from streamfx_kernels.switch import by_kernel


def modulated_norm(x: Tensor, scale: Tensor, shift: Tensor, eps: float = 1e-6) -> Tensor:
    """Layer norm without weights, times ``1 + scale``, plus ``shift`` (AdaLN; DiT, arXiv 2212.09748).

    ``x``: ``(R, F, S, C)`` float32, float16 or bfloat16. ``scale``, ``shift``: ``(R, 1 or F, 1, C)``. Computed in
    float32, returned like ``x``.
    """
    if by_kernel(x):
        from streamfx_kernels.gpu.modulate import launch_norm

        return launch_norm(x, scale, shift, eps)
    return norm_reference(x, scale, shift, eps)


def norm_reference(x: Tensor, scale: Tensor, shift: Tensor, eps: float) -> Tensor:
    """As ``modulated_norm``."""
    normed = functional.layer_norm(x.float(), x.shape[-1:], eps=eps)
    return (normed * (1 + scale.float()) + shift.float()).to(x.dtype)


def normed_and_turned(
    query: Tensor, key: Tensor, query_weight: Tensor, key_weight: Tensor, turns: Tensor, still: int, eps: float = 1e-6
) -> tuple[Tensor, Tensor]:
    """RMS norm of queries and keys, then rows and columns as rotary positions (RoFormer, arXiv 2104.09864).

    ``query``, ``key``: ``(R, F, S, H, D)`` float32, float16 or bfloat16. Weights: ``(D,)``, each head by itself, or
    ``(H D,)``, all heads of a token together (Wan). ``turns``: ``(S, P, 2)`` float32, cosine and sine for each of the P
    pairs after the first ``still`` of the D dimensions: ``still + 2 P = D``. Returns both like they were given.
    """
    if still + 2 * turns.shape[1] != query.shape[-1]:
        raise ValueError(f"{still} dimensions that stay and {turns.shape[1]} pairs are not {query.shape[-1]}")
    if by_kernel(query):
        from streamfx_kernels.gpu.modulate import launch_turned

        return launch_turned(query, key, query_weight, key_weight, turns, still, eps)
    turned = (
        turned_reference(x, weight, turns, still, eps) for x, weight in ((query, query_weight), (key, key_weight))
    )
    return cast(tuple[Tensor, Tensor], tuple(turned))


def turned_reference(x: Tensor, weight: Tensor, turns: Tensor, still: int, eps: float) -> Tensor:
    """One of what ``normed_and_turned`` gives."""
    heads, dim = x.shape[-2:]
    given = x.float() if len(weight) == dim else x.float().flatten(-2)
    normed = functional.rms_norm(given, given.shape[-1:], weight.float(), eps).reshape(*x.shape[:-2], heads, dim)
    pairs = torch.view_as_complex(normed[..., still:].reshape(*normed.shape[:-1], -1, 2).contiguous())
    turned = torch.view_as_real(pairs * torch.view_as_complex(turns.float().contiguous())[:, None]).flatten(-2)
    return torch.cat([normed[..., :still], turned], -1).to(x.dtype)
