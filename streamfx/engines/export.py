"""A part as an ONNX file, which the other backends read."""

from __future__ import annotations

import logging
import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from streamfx.core.errors import UsageError
from streamfx.engines.base import Part


def export(part: Part, path: Path) -> None:
    """Writes ``path``, whole or not at all. Raises ``UsageError`` if a package for it is missing."""
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UsageError(
            f"{error.name} is not installed, which engines are made with; run: pip install 'streamfx[engines]'"
        ) from error
    names = {length.name for free in part.dynamic.values() for length in free.values()}
    symbols = {name: torch.export.Dim(name, min=1) for name in sorted(names)}
    shapes: list[dict[int, Any]] = [
        {dim: length.times * symbols[length.name] for dim, length in part.dynamic.get(name, {}).items()}
        for name in part.example
    ]
    with _quiet():
        program = torch.onnx.export(
            part.module.eval(),
            tuple(part.example.values()),
            dynamo=True,
            input_names=list(part.example),
            output_names=list(part.outputs),
            dynamic_shapes=shapes if symbols else None,
            verbose=False,
        )
    if program is None:
        raise RuntimeError(f"{part.name}: torch made no ONNX program")
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    try:
        program.save(name, external_data=False)
        Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter tells of packages that nobody needs."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
