"""Where a model runs, and in which precision."""

from __future__ import annotations

import os

import torch

from streamfx.core.errors import UsageError


def choose(wanted: str, half: torch.dtype) -> tuple[str, torch.dtype]:
    """``wanted``: "auto", or a torch device. Returns the device and the precision there: ``half`` on a GPU, single on a
    CPU. Raises ``UsageError`` if there is no such device."""
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(wanted)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"there is no device {wanted!r} here; choose auto or cpu") from error
    return wanted, torch.float32 if device.type == "cpu" else half


def multiplies_half(device: str) -> bool:
    """Whether bfloat16 is quicker than single precision there. On a CPU: whether it has instructions for it, and oneDNN
    is not told to leave them alone (``ONEDNN_MAX_CPU_ISA``)."""
    if torch.device(device).type != "cpu":
        return True
    allowed = os.environ.get("ONEDNN_MAX_CPU_ISA", "DEFAULT").upper()
    if not any(word in allowed for word in ("DEFAULT", "ALL", "BF16", "AMX")):
        return False
    return bool(torch.cpu.get_capabilities().get("avx512_bf16"))
