"""Which engine is to be made of a part, and how: a recipe's files are made once, and loaded in no time after that."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor

from streamfx.core.errors import UsageError
from streamfx.engines.base import Engine, Part
from streamfx.engines.eager import Eager

Backend = Literal["eager", "compile", "onnxruntime", "openvino", "tensorrt"]
Precision = Literal["fp32", "bf16", "fp16", "int8"]
Samples = Sequence[tuple[Tensor, ...]]
"""Inputs of a part, as a stream gave them."""

_TYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_ON_CPU: tuple[Backend, ...] = ("onnxruntime", "openvino")
_PRECISIONS: dict[Backend, tuple[Precision, ...]] = {
    "eager": ("fp32", "bf16", "fp16"),
    "compile": ("fp32", "bf16", "fp16"),
    "onnxruntime": ("fp32", "int8"),
    "openvino": ("fp32", "bf16", "int8"),
    "tensorrt": ("fp32", "bf16", "fp16"),
}
_PACKAGES: dict[str, tuple[str, ...]] = {
    "eager": ("torch",),
    "compile": ("torch",),
    "onnx": ("torch", "onnx", "onnxscript", "onnxruntime"),
    "tensorrt": ("torch", "onnx", "onnxscript", "tensorrt", "tensorrt-rtx-cu13"),
}
_MODEL, _ARTIFACTS, _PLAN = "model.onnx", "inductor.bin", "plan.bin"


@dataclass(frozen=True, slots=True)
class Recipe:
    """A backend, and the precision that it computes in."""

    backend: Backend
    precision: Precision = "fp32"

    def __post_init__(self) -> None:
        if self.precision not in _PRECISIONS[self.backend]:
            raise UsageError(
                f"{self.backend} does not compute in {self.precision} here; it has "
                f"{', '.join(_PRECISIONS[self.backend])}"
            )

    @classmethod
    def parse(cls, text: str) -> Recipe:
        """``openvino``, ``openvino-bf16`` … Raises ``UsageError``."""
        backend, _, precision = text.partition("-")
        if backend not in get_args(Backend) or (precision or "fp32") not in get_args(Precision):
            raise UsageError(f"there is no engine {text!r}; choose one of {', '.join(names())}")
        return cls(cast(Backend, backend), cast(Precision, precision or "fp32"))

    @classmethod
    def plain(cls, dtype: torch.dtype) -> Recipe:
        """Of a model that torch runs in ``dtype``."""
        return cls("eager", next(precision for precision, one in _TYPES.items() if one == dtype))

    def __str__(self) -> str:
        return self.backend if self.precision == "fp32" else f"{self.backend}-{self.precision}"

    @property
    def artefact(self) -> str:
        """What is made for it: several recipes may run the same file."""
        if self.backend in ("onnxruntime", "openvino"):
            return "onnx-int8" if self.precision == "int8" else "onnx"
        return str(self)

    @property
    def versions(self) -> dict[str, str]:
        """Of the packages that its artefact is made by; those that are not installed are left out."""
        found = {}
        for name in _PACKAGES[self.artefact.partition("-")[0]]:
            try:
                found[name] = version(name)
            except PackageNotFoundError:
                continue
        return found

    @property
    def installed(self) -> bool:
        """Whether what it runs with is there."""
        if self.backend == "tensorrt":
            return any(importlib.util.find_spec(name) is not None for name in ("tensorrt", "tensorrt_rtx"))
        return self.backend in ("eager", "compile") or importlib.util.find_spec(self.backend) is not None

    def check(self, device: str) -> None:
        """Raises ``UsageError`` if it cannot run on ``device``, or if what it runs with is not installed."""
        if device != "cpu" and self.backend in _ON_CPU:
            raise UsageError(
                f"{self.backend} runs on a CPU; with device {device} take compile-fp16 or tensorrt-fp16 or auto"
            )
        if device == "cpu" and self.backend == "tensorrt":
            raise UsageError("tensorrt runs on an NVIDIA GPU; with device cpu take onnxruntime or openvino or auto")
        if not self.installed:
            extra = "tensorrt" if self.backend == "tensorrt" else "engines"
            raise UsageError(f"{self.backend} is not installed; run: pip install 'streamfx[{extra}]'")


def names() -> list[str]:
    """All recipes by their names."""
    return [str(Recipe(backend, precision)) for backend, some in _PRECISIONS.items() for precision in some]


def make(part: Part, recipe: Recipe, folder: Path, samples: Samples, device: str = "cpu") -> None:
    """Writes what ``load`` wants into ``folder``. May take minutes. ``samples``: of all shapes that are in use; int8
    scales by them. ``device``: where the engine will run. Raises ``UsageError`` if a package is missing."""
    with _on(device):
        _make(part, recipe, folder, samples, device)


def _make(part: Part, recipe: Recipe, folder: Path, samples: Samples, device: str) -> None:
    if recipe.backend == "eager":
        return
    if recipe.backend == "compile":
        from streamfx.engines.compiled import artifacts

        (folder / _ARTIFACTS).write_bytes(artifacts(part, _TYPES[recipe.precision], samples, device))
        return
    if recipe.backend == "tensorrt":
        _make_plan(part, recipe, folder, samples)
        return
    from streamfx.engines.export import export

    export(part, folder / _MODEL)
    if recipe.precision == "int8":
        from streamfx.engines.quantise import quantise

        quantise(part, folder / _MODEL, samples)


def load(
    part: Part, recipe: Recipe, folder: Path, threads: int, shapes: Sequence[Sequence[Any]], device: str = "cpu"
) -> Engine:
    """An engine of what ``make`` wrote, ready for inputs of ``shapes``: of each input, for each way to call it. What it
    is given lies on ``device``, and so does what it gives."""
    with _on(device):
        engine = _loaded(part, recipe, folder, threads, shapes, device)
    engine.name = str(recipe)
    return engine


def _on(device: str) -> AbstractContextManager[Any]:
    """What is made for the present GPU is made for this one."""
    return nullcontext() if device == "cpu" else torch.cuda.device(device)


def _loaded(
    part: Part, recipe: Recipe, folder: Path, threads: int, shapes: Sequence[Sequence[Any]], device: str
) -> Engine:
    if recipe.backend == "eager":
        return Eager(part, _TYPES[recipe.precision], device)
    if recipe.backend == "compile":
        from streamfx.engines.compiled import Compiled

        return Compiled(part, _TYPES[recipe.precision], (folder / _ARTIFACTS).read_bytes(), shapes, device)
    if recipe.backend == "onnxruntime":
        from streamfx.engines.onnxruntime import OnnxRuntime

        return OnnxRuntime(part, folder / _MODEL, threads)
    if recipe.backend == "tensorrt":
        return _load_plan(part, recipe, folder, shapes)
    from streamfx.engines.openvino import OpenVino

    engine = OpenVino(part, folder / _MODEL, "bf16" if recipe.precision == "bf16" else "fp32", threads)
    for some in shapes:
        engine.prepare(*(tuple(shape) for shape in some))
    return engine


def _make_plan(part: Part, recipe: Recipe, folder: Path, samples: Samples) -> None:
    from streamfx.engines.export import export
    from streamfx.engines.tensorrt_build import Options, build, typed

    exact = typed(part, _trt_precision(recipe))
    export(exact, folder / _MODEL)
    plan = build(exact, folder / _MODEL, Options(_ranges(part, samples), _trt_precision(recipe)))
    plan.save(folder / _PLAN)
    (folder / _MODEL).unlink()


def _load_plan(part: Part, recipe: Recipe, folder: Path, shapes: Sequence[Sequence[Any]]) -> Engine:
    from streamfx.engines.tensorrt import TensorRt
    from streamfx.engines.tensorrt_build import Plan, typed

    plan = Plan.load(folder / _PLAN)
    if plan is None:
        raise UsageError(f"{folder / _PLAN} is damaged; remove it with streamfx engines rm {folder.name}")
    engine = TensorRt(typed(part, _trt_precision(recipe)), plan, graphs=True, cache=folder.with_suffix(".kernels"))
    for some in shapes:
        engine.prepare(*(tuple(shape) for shape in some))
    engine.keep()
    return engine


def _trt_precision(recipe: Recipe) -> Literal["fp32", "fp16", "bf16"]:
    return cast(Literal["fp32", "fp16", "bf16"], recipe.precision)


def _ranges(part: Part, samples: Samples) -> dict[str, tuple[int, int, int]]:
    """Least, usual (of the first of them) and most of each length that may change."""
    found: dict[str, list[int]] = {}
    for given in samples:
        for (name, _), x in zip(part.example.items(), given, strict=True):
            for dim, length in part.dynamic.get(name, {}).items():
                found.setdefault(length.name, []).append(int(x.shape[dim]) // length.times)
    return {name: (min(some), some[0], max(some)) for name, some in found.items()}
