"""torch.compile, with what it made kept as bytes, so that another process need not compile again."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from streamfx.core.errors import UsageError
from streamfx.engines.base import Part

_MOST = 64
"""Shapes."""


class Compiled:
    """Compiled for each of ``shapes``, and for others when they come, which takes seconds. On CUDA as CUDA graphs.
    ``device``: where it runs, and what it is given lies.
    ``made``: of ``artifacts``. Raises ``UsageError`` where there is no compiler."""

    def __init__(
        self,
        part: Part,
        dtype: torch.dtype,
        made: bytes = b"",
        shapes: Sequence[Sequence[Sequence[int]]] = (),
        device: str = "cpu",
    ) -> None:
        self.name = {torch.float32: "compile", torch.bfloat16: "compile-bf16", torch.float16: "compile-fp16"}[dtype]
        self._device = torch.device(device)
        if self._device.type == "cpu" and not any(shutil.which(name) for name in ("g++", "clang++", "cl")):
            raise UsageError("torch.compile wants a C++ compiler on a CPU; install g++")
        # A stream has more shapes than the eight that torch.compile takes before it gives up.
        config: Any = torch._dynamo.config
        config.recompile_limit = max(config.recompile_limit, _MOST)
        if made:
            torch.compiler.load_cache_artifacts(made)
        self._part, self._dtype = part, dtype
        module = copy.deepcopy(part.module).eval().requires_grad_(False).to(self._device, dtype)
        mode = "reduce-overhead" if self._device.type == "cuda" else None
        self._run: Any = torch.compile(module, dynamic=False, mode=mode)
        self._ready: set[tuple[torch.Size, ...]] = set()
        for some in shapes:
            self(*(torch.zeros(tuple(shape), device=self._device) for shape in some))

    def takes(self, *given: Tensor) -> bool:
        return tuple(x.shape for x in given) in self._ready

    @torch.inference_mode()
    def __call__(self, *given: Tensor) -> tuple[Tensor, ...]:
        self._part.check(given)
        self._ready.add(tuple(x.shape for x in given))
        found = self._run(*(x.to(self._dtype) if x.is_floating_point() else x for x in given))
        # A CUDA graph writes to the same memory again in its next run.
        return tuple(x.float().clone() if x.is_floating_point() else x.clone() for x in found)


def artifacts(part: Part, dtype: torch.dtype, samples: Sequence[tuple[Tensor, ...]], device: str = "cpu") -> bytes:
    """Compiles for the shapes of ``samples``; what another process wants to do so without compiling."""
    Compiled(part, dtype, shapes=[[tuple(x.shape) for x in given] for given in samples], device=device)
    found = torch.compiler.save_cache_artifacts()
    return b"" if found is None else found[0]
