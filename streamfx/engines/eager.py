"""Torch as it is, in single or in half precision."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from streamfx.engines.base import Part


class Eager:
    """A copy of the module in ``dtype`` on ``device``, where what it is given lies. Convolutions have their channels
    last."""

    def __init__(self, part: Part, dtype: torch.dtype = torch.float32, device: str = "cpu") -> None:
        self.name = {torch.float32: "eager", torch.bfloat16: "eager-bf16", torch.float16: "eager-fp16"}[dtype]
        self._part, self._dtype = part, dtype
        module = copy.deepcopy(part.module).eval().requires_grad_(False).to(device, dtype)
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
