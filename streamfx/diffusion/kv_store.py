"""Where keys or values lie: preallocated, and on request in eight bits."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from streamfx_kernels.store_frame import store_frame

Storage = Literal["same", "int8", "fp8"]

_TYPES = {"int8": torch.int8, "fp8": torch.float8_e4m3fn}


class Store:
    """``(rows, slots, S, H, D)`` of ``dtype``: a frame of S tokens a slot.

    With "int8" and "fp8" each token of each head is scaled by the largest of its D values; an error is at most 1/254 of
    that (int8), or 1/16 of each value (fp8).
    """

    def __init__(
        self,
        shape: tuple[int, int, int, int, int],
        dtype: torch.dtype,
        device: torch.device | str = "cpu",
        storage: Storage = "same",
    ) -> None:
        self.dtype = dtype
        packed = _TYPES.get(storage)
        self.data = torch.zeros(shape, dtype=packed or dtype, device=device)
        self.scale = torch.zeros((*shape[:-1], 1), dtype=torch.float32, device=device) if packed else None

    @property
    def bytes(self) -> int:
        """Memory it takes."""
        tensors = [self.data] if self.scale is None else [self.data, self.scale]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    def write(self, row: int, slot: slice | int, value: Tensor) -> None:
        """Puts ``(S, H, D)`` into a slot, or ``(N, S, H, D)`` into several."""
        if self.scale is None:
            self.data[row, slot] = value
            return
        data, scale = self.data[row, slot], self.scale[row, slot]
        frames = zip(value, data, scale, strict=True) if value.ndim == data.ndim == 4 else [(value, data, scale)]
        for each in frames:
            store_frame(*each)

    def read(self, row: int, slots: slice | int) -> Tensor:
        """``(N, S, H, D)`` (or ``(S, H, D)`` of one slot), a view if it is stored as it is."""
        data = self.data[row, slots]
        if self.scale is None:
            return data
        return (data.float() * self.scale[row, slots]).to(self.dtype)
