"""OpenVINO on a CPU, in single precision or in bfloat16."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from streamfx.core.errors import UsageError
from streamfx.engines.base import Part

_MOST = 16
"""Shapes that are kept ready."""


class OpenVino:
    """Of a file that ``export`` made of ``part``; compiled for each shape it meets, in a fraction of a second, or ahead
    by ``prepare``. ``threads``: 0 takes what the machine has. Raises ``UsageError`` if the package is missing."""

    def __init__(self, part: Part, path: Path, precision: Literal["fp32", "bf16"] = "fp32", threads: int = 0) -> None:
        # Importing openvino sends word of it to its makers, unless the package for that cannot be found.
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
        try:
            openvino: Any = importlib.import_module("openvino")
        except ImportError as error:
            raise UsageError("openvino is not installed; run: pip install 'streamfx[engines]'") from error
        self.name = "openvino-bf16" if precision == "bf16" else "openvino"
        self._part = part
        self._core: Any = openvino.Core()
        self._shape: Any = openvino.PartialShape
        self._model: Any = self._core.read_model(str(path))
        self._settings: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
            "INFERENCE_NUM_THREADS": threads,
            # What was compiled lies beside the file: the next process that wants it is not kept from its frames.
            "CACHE_DIR": str(path.parent / "compiled"),
        }
        self._ready: dict[tuple[tuple[int, ...], ...], Any] = {}

    def prepare(self, *shapes: tuple[int, ...]) -> None:
        """So that the first call with these shapes, one an input, is as quick as any."""
        self._request(shapes)

    def takes(self, *given: Tensor) -> bool:
        return tuple(tuple(x.shape) for x in given) in self._ready

    def __call__(self, *given: Tensor) -> tuple[Tensor, ...]:
        self._part.check(given)
        request = self._request(tuple(tuple(x.shape) for x in given))
        found = request.infer([x.detach().contiguous().numpy() for x in given], share_inputs=True)
        return tuple(torch.from_numpy(found[n]) for n in range(len(self._part.outputs)))

    def _request(self, shapes: tuple[tuple[int, ...], ...]) -> Any:
        if shapes not in self._ready:
            if len(self._ready) >= _MOST:
                self._ready.pop(next(iter(self._ready)))
            model = self._model.clone()
            model.reshape(dict(enumerate(self._shape(list(shape)) for shape in shapes)))
            self._ready[shapes] = self._core.compile_model(model, "CPU", self._settings).create_infer_request()
        return self._ready[shapes]
