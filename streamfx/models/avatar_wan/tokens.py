"""What the transformers here do alike with their tokens."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn
from torch.nn import functional

from streamfx.models.causal_wan.dit import PATCH


def patched(embedding: nn.Module, x: Tensor) -> Tensor:
    """Latents ``(F, C, h, w)`` → tokens ``(1, F, S, dim)``."""
    return cast(Tensor, embedding(x.transpose(0, 1)[None]).flatten(3).permute(0, 2, 3, 1).contiguous())


def unpatched(x: Tensor, like: Tensor) -> Tensor:
    """``(1, F, S, 4 C)`` → latents ``(F, C, h, w)``, of the height and width of ``like``."""
    height, width = like.shape[-2] // PATCH, like.shape[-1] // PATCH
    parts = x[0].reshape(x.shape[1], height, width, PATCH, PATCH, -1)
    return parts.permute(0, 5, 1, 3, 2, 4).reshape(x.shape[1], -1, PATCH * height, PATCH * width)


def attended(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """``(B, N, H, D)``, and ``(B, M, H, D)`` both → ``(B, N, H, D)``."""
    query, keys, values = (part.transpose(1, 2) for part in (query, keys, values))
    return functional.scaled_dot_product_attention(query, keys, values).transpose(1, 2)
