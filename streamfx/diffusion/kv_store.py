"""Where keys or values lie: preallocated, and on request in eight bits."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Storage = Literal["same", "int8", "fp8"]

_LARGEST = {torch.int8: 127.0, torch.float8_e4m3fn: 448.0}
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
        self._packed = _TYPES.get(storage)
        self._data = torch.zeros(shape, dtype=self._packed or dtype, device=device)
        self._scale = torch.zeros((*shape[:-1], 1), dtype=torch.float32, device=device) if self._packed else None

    @property
    def bytes(self) -> int:
        """Memory it takes."""
        tensors = [self._data] if self._scale is None else [self._data, self._scale]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    def write(self, row: int, slot: slice | int, value: Tensor) -> None:
        """Puts ``(S, H, D)`` into a slot, or ``(N, S, H, D)`` into several."""
        if self._packed is None or self._scale is None:
            self._data[row, slot] = value
            return
        largest = _LARGEST[self._packed]
        scale = value.float().abs().amax(-1, keepdim=True).clamp_min(1e-12) / largest
        scaled = value.float() / scale
        self._data[row, slot] = (scaled.round() if self._packed is torch.int8 else scaled).to(self._packed)
        self._scale[row, slot] = scale

    def read(self, row: int, slots: slice | int) -> Tensor:
        """``(N, S, H, D)`` (or ``(S, H, D)`` of one slot), a view if it is stored as it is."""
        data = self._data[row, slots]
        if self._scale is None:
            return data
        return (data.float() * self._scale[row, slots]).to(self.dtype)
