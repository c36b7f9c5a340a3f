"""ONNX Runtime on a CPU, in single precision."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from streamfx.core.errors import UsageError
from streamfx.engines.base import Part

_ERRORS = 3


class OnnxRuntime:
    """Of a file that ``export`` made of ``part``. ``threads``: 0 takes what the machine has. Raises ``UsageError`` if
    the package is missing."""

    name: str = "onnxruntime"

    def __init__(self, part: Part, path: Path, threads: int = 0) -> None:
        try:
            runtime: Any = importlib.import_module("onnxruntime")
        except ImportError as error:
            raise UsageError("onnxruntime is not installed; run: pip install 'streamfx[engines]'") from error
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = _ERRORS
        # Threads that wait by spinning take the processor from whoever decodes and encodes.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._part = part
        self._session: Any = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def takes(self, *given: Tensor) -> bool:
        return True

    def __call__(self, *given: Tensor) -> tuple[Tensor, ...]:
        self._part.check(given)
        named = zip(self._part.example, given, strict=True)
        found = self._session.run(None, {name: x.detach().contiguous().numpy() for name, x in named})
        return tuple(torch.from_numpy(x) for x in found)
