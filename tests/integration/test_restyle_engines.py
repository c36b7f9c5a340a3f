"""The embedded restyler by engines: the same pictures, whoever draws them, and a stream that engines take over."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from streamfx.engines import Engine, Part, error_of
from streamfx.engines.export import export
from streamfx.engines.onnxruntime import OnnxRuntime
from streamfx.engines.openvino import OpenVino
from streamfx.models.tiny.autoencoder import Autoencoder, AutoencoderSize
from streamfx.models.tiny.engines import all_parts, recorded, use
from streamfx.models.tiny.load import Networks
from streamfx.models.tiny.stream import TinyLook, TinyStream
from tests.unit.models.test_tiny import SIZE, dit

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def exact() -> Networks:
    """Small and untrained, for an export of all layers takes a minute."""
    torch.manual_seed(3)
    codes = Autoencoder(AutoencoderSize(SIZE.channels, (8, 12, 16), style=SIZE.dim)).eval()
    return Networks(codes, dit())


@pytest.fixture(scope="module")
def files(exact: Networks, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Part, Path]]:
    folder = tmp_path_factory.mktemp("parts")
    found = {name: (part, folder / name) for name, part in all_parts(exact).items()}
    for part, path in found.values():
        export(part, path)
    return found


def picture(n: int, size: tuple[int, int]) -> Tensor:
    base = torch.rand(3, 104, 136, generator=torch.Generator().manual_seed(2)) * 2 - 1
    return base[:, n : n + size[0], n : n + size[1]]


class Counted:
    """An engine, and how often it ran."""

    def __init__(self, engine: Engine) -> None:
        self.name, self.takes = engine.name, engine.takes
        self._engine = engine
        self.calls = 0

    def __call__(self, *given: Tensor) -> tuple[Tensor, ...]:
        self.calls += 1
        return self._engine(*given)


@pytest.mark.parametrize("kind", [OnnxRuntime, OpenVino])
@pytest.mark.parametrize("steps", [1, 2])
def test_a_stream_is_the_same_when_engines_take_over(
    kind: Callable[[Part, Path], Any], steps: int, exact: Networks, files: dict[str, tuple[Part, Path]]
) -> None:
    with torch.inference_mode():
        look = TinyLook(exact.dit.style(named=torch.tensor([0]))[0], side=64, steps=steps)
    plain, changed = (TinyStream(exact.autoencoder, exact.dit) for _ in range(2))
    counts: list[int] = []
    engines = {name: Counted(kind(part, path)) for name, (part, path) in files.items()}
    for n in range(9):
        # Of the last pictures' shape OpenVINO has nothing ready, and nobody waits for that.
        given = picture(n, (96, 128) if n < 7 else (80, 80))
        with recorded(plain) as inputs:
            wanted = plain.step(given, n / 30, look)
        if n == 3:
            use(changed, engines)
            if kind is OpenVino:
                for name, (some, *_) in inputs.items():
                    engines[name]._engine.prepare(*(x.shape for x in some))  # type: ignore[attr-defined]
        ours = changed.step(given, n / 30, look)
        assert (wanted is None) == (ours is None)
        if wanted is not None and ours is not None:
            assert ours[1] == wanted[1]
            assert error_of([ours[0]], [wanted[0]]) < 1e-3
        if n == 6:
            counts = [engine.calls for engine in engines.values()]
            assert min(counts) >= 4
    more = [engine.calls > before for engine, before in zip(engines.values(), counts, strict=True)]
    assert all(more) if kind is OnnxRuntime else not any(more)
