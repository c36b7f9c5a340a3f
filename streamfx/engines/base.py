"""What an engine is: a module, made to run on tensors of known shapes by some backend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Length:
    """Of a dimension that is not always the same: ``times`` whole numbers of ``name``, which is one number for all
    dimensions that have it."""

    name: str
    times: int = 1


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a model that runs as one engine.

    ``module``: takes the tensors of ``example`` in this order, floating-point ones in single precision, and returns a
    tuple of them, one for each of ``outputs``. ``dynamic``: for an input, which of its dimensions may have other
    lengths than in the example.
    """

    name: str
    module: nn.Module
    example: Mapping[str, Tensor]
    outputs: Sequence[str]
    dynamic: Mapping[str, Mapping[int, Length]] = field(default_factory=dict)

    def check(self, given: Sequence[Tensor]) -> None:
        """Raises ``ValueError`` if these are not tensors that the part takes."""
        if len(given) != len(self.example):
            raise ValueError(f"{self.name} takes {', '.join(self.example)}; {len(given)} tensors were given")
        found: dict[str, int] = {}
        for (name, wanted), tensor in zip(self.example.items(), given, strict=True):
            if tensor.ndim != wanted.ndim:
                raise ValueError(f"{self.name}: {name} has {tensor.ndim} dimensions, not {wanted.ndim}")
            for dim, (length, usual) in enumerate(zip(tensor.shape, wanted.shape, strict=True)):
                free = self.dynamic.get(name, {}).get(dim)
                expected = usual if free is None else free.times * found.setdefault(free.name, length // free.times)
                if length != expected:
                    raise ValueError(f"{self.name}: dimension {dim} of {name} is {length}, not {expected}")


class Engine(Protocol):
    """Runs a part. Not for several threads at once."""

    name: str
    """Of the backend, with the precision it computes in: ``openvino-bf16``."""

    def takes(self, *given: Tensor) -> bool:
        """Whether a call with tensors of these shapes would be quick: nothing must be compiled for them first."""
        ...

    def __call__(self, *given: Tensor) -> tuple[Tensor, ...]:
        """Tensors of the part's example or, where that is dynamic, of other lengths; single precision. What is
        returned is in single precision too, and the caller's own. Raises ``ValueError`` for other shapes."""
        ...


def error_of(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> float:
    """The largest error over all outputs, each in parts of the largest value that was wanted of it; infinite where a
    number is not finite, or a shape is another one."""
    worst = 0.0
    for ours, theirs in zip(found, wanted, strict=True):
        if ours.shape != theirs.shape or not bool(torch.isfinite(ours).all()):
            return float("inf")
        if ours.numel():
            most = theirs.float().abs().max().clamp_min(torch.finfo(torch.float32).tiny)
            worst = max(worst, float((ours.float() - theirs.float()).abs().max() / most))
    return worst
