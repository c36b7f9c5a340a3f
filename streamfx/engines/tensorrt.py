"""Engines of TensorRT, or TensorRT for RTX, on an NVIDIA GPU."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from streamfx.core.errors import UsageError
from streamfx.engines.base import Part
from streamfx.engines.tensorrt_build import (
    TORCH_NAMES,
    Binding,
    Place,
    Plan,
    Shape,
    imported,
    is_rtx,
    log_of,
    one_line,
    seal,
    unseal,
)

_LOG = logging.getLogger(__name__)
_MOST = 8
"""Sets of shapes that CUDA graphs are kept for."""
_ALIGNED = 256
"""Bytes that an address given to TensorRT is a multiple of."""


@dataclass(frozen=True, slots=True)
class _Recorded:
    """A graph, and the context and tensors that it works on: it holds their addresses."""

    context: Any
    graph: torch.cuda.CUDAGraph
    inputs: Sequence[Tensor]
    outputs: Sequence[Tensor]


class TensorRt:
    """Of a plan that ``build`` made of ``part``, on torch's present GPU and stream. Takes tensors that lie there, and
    gives such. ``graphs``: a set of shapes is recorded when it is met, and replayed from then on; the last eight are
    kept, each with memory of its own. ``cache``: a file that ``keep`` writes, so that TensorRT for RTX need not make
    its kernels anew. Raises ``UsageError`` without a GPU, without the module that made the plan, or for a plan that
    does not run here."""

    def __init__(self, part: Part, plan: Plan, graphs: bool = False, cache: Path | None = None) -> None:
        if not torch.cuda.is_available():
            raise UsageError("TensorRT engines run on an NVIDIA GPU, and there is none here; take another engine")
        trt = imported(plan.module)
        if trt is None:
            raise UsageError(f"{plan.module}, which made this engine, is not installed; build the engine anew")
        self.name = "tensorrt" if plan.precision == "fp32" else f"tensorrt-{plan.precision}"
        self._part, self._plan, self._graphs, self._path, self._trt = part, plan, graphs, cache, trt
        self._device = torch.device("cuda", torch.cuda.current_device())
        self._inputs = [binding for binding in plan.bindings if not binding.output]
        self._outputs = [binding for binding in plan.bindings if binding.output]
        if [binding.name for binding in self._inputs] != list(part.example):
            raise UsageError(f"{part.name}: this engine is of another part; build it anew")
        self._ready: dict[tuple[Shape, ...], _Recorded] = {}
        self._changed: dict[str, Tensor] = {}
        self._runtime: Any = trt.Runtime(log_of(trt))
        self._engine: Any = self._runtime.deserialize_cuda_engine(plan.data)
        if self._engine is None:
            raise UsageError(f"{part.name}: this engine does not run here; build it anew: {one_line(log_of(trt).last)}")
        self._settings: list[Any] = []
        self._kernels: Any = self._use_cache() if is_rtx(trt) else None
        self._context: Any = self._new_context()

    def prepare(self, *shapes: Shape) -> None:
        """So that the first call with these shapes, one an input, is as quick as any."""
        with torch.cuda.device(self._device):
            made = zip(shapes, self._inputs, strict=True)
            self(*(torch.zeros(x, dtype=getattr(torch, one.dtype), device=self._device) for x, one in made))
            torch.cuda.synchronize()

    def takes(self, *given: Tensor) -> bool:
        shapes = tuple(tuple(x.shape) for x in given)
        return shapes in self._ready if self._graphs else not any(self._outside(shapes))

    @torch.inference_mode()
    def __call__(self, *given: Tensor) -> tuple[Tensor, ...]:
        self._part.check(given)
        self._check(given)
        with torch.cuda.device(self._device):
            inside = [self._inside(x, binding) for x, binding in zip(given, self._inputs, strict=True)]
            if self._graphs:
                return self._replay(inside)
            outputs = self._bind(self._context, inside)
            self._execute(self._context)
            return tuple(x.float() if x.is_floating_point() else x for x in outputs)

    def refit(self, weights: Mapping[str, Tensor]) -> None:
        """Changes these weights, by their names in the module's ``state_dict``, and waits for the GPU. Raises
        ``ValueError`` for a weight that the engine does not have, or of another shape; ``UsageError`` if the engine was
        not built for it."""
        if not self._plan.places:
            raise UsageError(f"{self._part.name}: this engine's weights are fixed; build it with Options(refit=True)")
        with torch.cuda.device(self._device):
            refitter = self._trt.Refitter(self._engine, log_of(self._trt))
            sent = {place.name: self._send(refitter, place, x) for place, x in self._placed(weights)}
            for name in refitter.get_missing_weights():
                sent[name] = self._send(refitter, *self._before(name))
            torch.cuda.synchronize()
            self._ready.clear()
            if not refitter.refit_cuda_engine():
                raise RuntimeError(f"{self._part.name}: the weights were not taken: {one_line(log_of(self._trt).last)}")
            self._changed |= sent

    def keep(self) -> None:
        """Writes ``cache``: call it once the engine has run with the shapes to come."""
        if self._kernels is not None and self._path is not None:
            seal(self._path, bytes(self._kernels.serialize()))

    def _use_cache(self) -> Any:
        settings = self._engine.create_runtime_config()
        kernels = settings.create_runtime_cache()
        known = None if self._path is None else unseal(self._path)
        if known is not None and not kernels.deserialize(known):
            _LOG.warning("%s was made on another GPU or by another version; it is not used", self._path)
        settings.set_runtime_cache(kernels)
        if self._graphs:
            # A graph keeps the kernels that it was recorded with: none that stand in for better ones.
            eager = self._trt.DynamicShapesKernelSpecializationStrategy.EAGER
            settings.dynamic_shapes_kernel_specialization_strategy = eager
        self._settings.append(settings)
        return kernels

    def _new_context(self) -> Any:
        context = self._engine.create_execution_context(*self._settings)
        if context is None:
            raise RuntimeError(f"{self._part.name}: no engine could be started: {one_line(log_of(self._trt).last)}")
        return context

    def _check(self, given: Sequence[Tensor]) -> None:
        for x, binding in zip(given, self._inputs, strict=True):
            if x.device != self._device:
                raise ValueError(f"{self._part.name}: {binding.name} is on {x.device}, not on {self._device}")
        for told in self._outside([tuple(x.shape) for x in given]):
            raise ValueError(f"{self._part.name}: {told}")

    def _outside(self, shapes: Sequence[Shape]) -> Iterator[str]:
        """What is smaller or larger than the engine was built for."""
        for shape, binding in zip(shapes, self._inputs, strict=True):
            for profile in self._plan.profiles:
                least, _, most = profile.get(binding.name, (shape,) * 3)
                if not all(a <= length <= b for a, length, b in zip(least, shape, most, strict=True)):
                    yield f"{binding.name} is {shape}, not from {least} to {most}"

    def _inside(self, x: Tensor, binding: Binding) -> Tensor:
        x = x.to(getattr(torch, binding.dtype)).contiguous()
        return x.clone() if x.data_ptr() % _ALIGNED else x

    def _bind(self, context: Any, inside: Sequence[Tensor]) -> list[Tensor]:
        """Gives the context its inputs, and outputs that are made for them."""
        for x, binding in zip(inside, self._inputs, strict=True):
            context.set_input_shape(binding.name, tuple(x.shape))
            context.set_tensor_address(binding.name, x.data_ptr())
        outputs = []
        for binding in self._outputs:
            shape = tuple(context.get_tensor_shape(binding.name))
            x = torch.empty(shape, dtype=getattr(torch, binding.dtype), device=self._device)
            context.set_tensor_address(binding.name, x.data_ptr())
            outputs.append(x)
        return outputs

    def _execute(self, context: Any) -> None:
        if not context.execute_async_v3(torch.cuda.current_stream().cuda_stream):
            raise RuntimeError(f"{self._part.name}: the engine failed: {one_line(log_of(self._trt).last)}")

    def _replay(self, inside: Sequence[Tensor]) -> tuple[Tensor, ...]:
        shapes = tuple(tuple(x.shape) for x in inside)
        found = self._ready.pop(shapes, None) or self._record(inside)
        self._ready[shapes] = found
        if len(self._ready) > _MOST:
            torch.cuda.synchronize()
            self._ready.pop(next(iter(self._ready)))
        for buffer, x in zip(found.inputs, inside, strict=True):
            buffer.copy_(x)
        found.graph.replay()
        return tuple(x.to(torch.float32 if x.is_floating_point() else x.dtype, copy=True) for x in found.outputs)

    def _record(self, inside: Sequence[Tensor]) -> _Recorded:
        context = self._new_context()
        inputs = [x.clone() for x in inside]
        outputs = self._bind(context, inputs)
        # What is made at the first run with these shapes must not become part of the graph.
        self._execute(context)
        torch.cuda.current_stream().synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            self._execute(context)
        return _Recorded(context, graph, inputs, outputs)

    def _placed(self, weights: Mapping[str, Tensor]) -> Iterator[tuple[Place, Tensor]]:
        known = self._part.module.state_dict()
        for name, x in weights.items():
            place = self._plan.places.get(name)
            if place is None:
                raise ValueError(f"{self._part.name} has no weight {name} that can be changed")
            if x.shape != known[name].shape:
                raise ValueError(f"{self._part.name}: {name} is {tuple(x.shape)}, not {tuple(known[name].shape)}")
            yield place, x

    def _before(self, name: str) -> tuple[Place, Tensor]:
        """A weight that must be given with others, as it is now."""
        if name in self._changed:
            return Place(name), self._changed[name]
        for ours, place in self._plan.places.items():
            if place.name == name:
                return place, self._part.module.state_dict()[ours]
        raise UsageError(f"{self._part.name}: {name} must be changed with these weights, and is none of the module's")

    def _send(self, refitter: Any, place: Place, x: Tensor) -> Tensor:
        """Gives a weight to the refitter, and returns what must stay until that is done."""
        dtype = refitter.get_weights_prototype(place.name).dtype
        laid = x.detach().to(self._device, getattr(torch, TORCH_NAMES[dtype.name]), copy=True)
        laid = (laid.T if place.transposed else laid).contiguous()
        weights = self._trt.Weights(dtype, laid.data_ptr(), laid.numel())
        if not refitter.set_named_weights(place.name, weights, self._trt.TensorLocation.DEVICE):
            raise RuntimeError(f"{self._part.name}: {place.name} was not taken: {one_line(log_of(self._trt).last)}")
        return laid
