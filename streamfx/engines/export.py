"""A part as an ONNX file, which the other backends read."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from streamfx.core.errors import UsageError
from streamfx.engines.base import Part

_MOST_INSIDE = 1_800_000_000
"""Bytes of weights that go into the file itself; ONNX files end at 2 GB, and larger weights lie beside."""


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
        given = tuple(part.example.values())
        traced = torch.export.export(
            part.module.eval(), given, dynamic_shapes=tuple(shapes) if symbols else None, strict=False
        )
        program = torch.onnx.export(
            traced,
            dynamo=True,
            input_names=list(part.example),
            output_names=list(part.outputs),
            verbose=False,
        )
    if program is None:
        raise RuntimeError(f"{part.name}: torch made no ONNX program")
    outputs = program.model.graph.outputs
    for node in program.model.graph:
        for value in node.outputs:
            if value.name in part.outputs and all(value is not output for output in outputs):
                value.name = f"{value.name}_inside"  # each name may stand for one value only
    path.parent.mkdir(parents=True, exist_ok=True)
    large = sum(x.numel() * x.element_size() for x in part.module.state_dict().values()) > _MOST_INSIDE
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as begun:
        program.save(str(Path(begun) / path.name), external_data=large)
        # The weights first, if they are a file of their own: a model that is there is whole.
        for file in sorted(Path(begun).iterdir(), key=lambda file: file.name == path.name):
            file.replace(path.parent / file.name)


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter tells of packages that nobody needs, and its progress bars leave a thread behind."""
    with suppress(ImportError):
        import tqdm

        tqdm.tqdm.monitor_interval = 0
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
