"""How near a kernel has to come to its reference."""

from __future__ import annotations

import torch
from torch import Tensor

TOLERANCE = {torch.float32: 2e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}
"""In parts of the largest value: two of the last bits of a number of that size."""

DTYPES = tuple(TOLERANCE)


def assert_close(found: Tensor, wanted: Tensor, slack: float = 1.0) -> None:
    assert found.shape == wanted.shape
    assert found.dtype == wanted.dtype
    largest = max(1.0, float(wanted.float().abs().max())) if wanted.numel() else 1.0
    apart = float((found.float() - wanted.float()).abs().max()) if wanted.numel() else 0.0
    assert apart <= slack * TOLERANCE.get(wanted.dtype, 1.0) * largest, f"{apart} apart of {largest}"
