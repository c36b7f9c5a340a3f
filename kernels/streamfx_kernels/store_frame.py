"""Keys or values of a frame into a ring's slot in eight bits: largest value, scaling, rounding, storing in one pass."""

from __future__ import annotations

import torch
from torch import Tensor

from streamfx_kernels.switch import by_kernel

LARGEST = {torch.int8: 127.0, torch.float8_e4m3fn: 448.0}
_LEAST = 1e-12


def store_frame(value: Tensor, slot: Tensor, scale: Tensor) -> None:
    """``value``: ``(S, H, D)`` float32, float16 or bfloat16. ``slot``: ``(S, H, D)`` int8 or float8_e4m3fn, ``scale``:
    ``(S, H, 1)`` float32; both are written. Each token of each head is scaled by its largest value. Halves are rounded
    to even."""
    if slot.dtype not in LARGEST:
        raise ValueError(f"a slot of {slot.dtype} is none of eight bits")
    if by_kernel(value):
        from streamfx_kernels.gpu.store_frame import launch

        launch(value, slot, scale)
    else:
        reference(value, slot, scale)


def reference(value: Tensor, slot: Tensor, scale: Tensor) -> None:
    """As ``store_frame``."""
    found = value.float().abs().amax(-1, keepdim=True).clamp_min(_LEAST) / LARGEST[slot.dtype]
    scaled = value.float() / found
    slot.copy_((scaled.round() if slot.dtype is torch.int8 else scaled).to(slot.dtype))
    scale.copy_(found)
