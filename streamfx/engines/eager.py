"""Torch as it is, in single precision or in bfloat16."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from streamfx.engines.base import Part


class Eager:
    """The module itself, or a copy in ``dtype``. Convolutions have their channels last."""

    def __init__(self, part: Part, dtype: torch.dtype = torch.float32) -> None:
        self.name = "eager-bf16" if dtype == torch.bfloat16 else "eager"
        self._part, self._dtype = part, dtype
        module = copy.deepcopy(part.module).eval().requires_grad_(False).to(dtype)
        for parameter in module.parameters():
            if parameter.ndim == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        self._module = module

    def takes(self, *given: Tensor) -> bool:
        return True

    @torch.inference_mode()
    def __call__(self, *given: Tensor) -> tuple[Tensor, ...]:
        self._part.check(given)
        inside = (x.to(self._dtype) if x.is_floating_point() else x for x in given)
        ordered = (x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x for x in inside)
        return tuple(x.float() if x.is_floating_point() else x for x in self._module(*ordered))
