"""Eight-bit integers for the large products of an ONNX file, scaled by what real inputs give.

Static quantisation with Q and DQ nodes (B. Jacob et al., arXiv 1712.05877), which ONNX Runtime and OpenVINO both run:
weights by channel, activations by tensor, symmetric. Only products with constant weights; attention stays as it is.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from streamfx.core.errors import UsageError
from streamfx.engines.base import Part

_PRODUCTS = ["MatMul", "Gemm", "Conv"]


def quantise(part: Part, path: Path, samples: Sequence[tuple[Tensor, ...]]) -> None:
    """Replaces the file at ``path`` by one in int8. ``samples``: inputs of the part as a stream gives them. Raises
    ``UsageError`` if the package is missing."""
    try:
        tools: Any = importlib.import_module("onnxruntime.quantization")
        shapes: Any = importlib.import_module("onnxruntime.quantization.shape_inference")
    except ImportError as error:
        raise UsageError(
            "onnxruntime is not installed, which makes int8; run: pip install 'streamfx[engines]'"
        ) from error
    waiting = iter([{name: x.numpy() for name, x in zip(part.example, given, strict=True)} for given in samples])

    class Reader(tools.CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> dict[str, Any] | None:
            return next(waiting, None)

    log = logging.getLogger()
    level = log.level
    log.setLevel(logging.ERROR)  # it tells of each node by the root's log
    ready, out = path.with_name("ready.onnx"), path.with_name("int8.onnx")
    try:
        shapes.quant_pre_process(str(path), str(ready), skip_symbolic_shape=True)
        tools.quantize_static(
            str(ready),
            str(out),
            Reader(),
            quant_format=tools.QuantFormat.QDQ,
            op_types_to_quantize=_PRODUCTS,
            per_channel=True,
            activation_type=tools.QuantType.QInt8,
            weight_type=tools.QuantType.QInt8,
            # Without VNNI, sums of two products of eight bits may overflow sixteen.
            reduce_range=True,
            extra_options={"MatMulConstBOnly": True, "ActivationSymmetric": True},
        )
        out.replace(path)
    finally:
        log.setLevel(level)
        for left in (ready, out):
            left.unlink(missing_ok=True)
