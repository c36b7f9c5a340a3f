"""Parts, their export, and the backends that run here, each against torch as it is."""

from __future__ import annotations

import builtins
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from streamfx.core.errors import UsageError
from streamfx.engines import Eager, Engine, Part, choose, error_of
from streamfx.engines.base import Length
from streamfx.engines.export import export
from streamfx.engines.onnxruntime import OnnxRuntime
from streamfx.engines.openvino import OpenVino


class Net(nn.Module):
    """A picture and a vector to a picture twice as large, and to a mean."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.told = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 12, 1), nn.Linear(5, 8)

    def forward(self, picture: Tensor, vector: Tensor) -> tuple[Tensor, Tensor]:
        x = self.second(torch.nn.functional.silu(self.first(picture) + self.told(vector)[..., None, None]))
        return torch.nn.functional.pixel_shuffle(x, 2), x.mean((2, 3))


@pytest.fixture(scope="module")
def part() -> Part:
    torch.manual_seed(0)
    free = {"picture": {2: Length("height", 4), 3: Length("width", 4)}}
    example = {"picture": torch.randn(1, 3, 16, 24), "vector": torch.randn(1, 5)}
    return Part("net", Net().eval(), example, ("large", "mean"), free)


@pytest.fixture(scope="module")
def file(part: Part, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("engines") / "deep" / "net.onnx"
    export(part, path)
    assert [found.name for found in path.parent.iterdir()] == ["net.onnx"]
    return path


def given(height: int, width: int) -> tuple[Tensor, Tensor]:
    chance = torch.Generator().manual_seed(height * width)
    return torch.randn(1, 3, height, width, generator=chance), torch.randn(1, 5, generator=chance)


BACKENDS: dict[str, tuple[Callable[[Part, Path], Engine], float]] = {
    "eager": (lambda part, _: Eager(part), 1e-6),
    "eager-bf16": (lambda part, _: Eager(part, torch.bfloat16), 3e-2),
    "onnxruntime": (OnnxRuntime, 1e-4),
    "openvino": (OpenVino, 1e-4),
}


@pytest.mark.parametrize("name", BACKENDS)
def test_each_backend_computes_what_torch_does_at_any_size(name: str, part: Part, file: Path) -> None:
    make, most = BACKENDS[name]
    engine = make(part, file)
    assert engine.name == name
    kept = []
    for size in ((16, 24), (8, 8), (40, 12), (16, 24)):
        tensors = given(*size)
        found = engine(*tensors)
        with torch.inference_mode():
            wanted = part.module(*tensors)
        assert [x.dtype for x in found] == [torch.float32] * 2
        assert error_of(found, wanted) < most
        kept.append((found, [x.clone() for x in found]))
    # What was given stays the caller's.
    assert all(torch.equal(a, b) for now, then in kept for a, b in zip(now, then, strict=True))


@pytest.mark.parametrize("name", BACKENDS)
def test_other_shapes_are_refused(name: str, part: Part, file: Path) -> None:
    engine = BACKENDS[name][0](part, file)
    picture, vector = given(16, 24)
    with pytest.raises(ValueError, match="1 tensors were given"):
        engine(picture)
    with pytest.raises(ValueError, match="picture has 3 dimensions, not 4"):
        engine(picture[0], vector)
    with pytest.raises(ValueError, match="dimension 1 of vector is 4, not 5"):
        engine(picture, vector[:, :4])
    with pytest.raises(ValueError, match="dimension 2 of picture is 15, not 12"):
        engine(picture[:, :, :15], vector)


def test_lengths_of_one_name_are_the_same(part: Part) -> None:
    both = {"a": {0: Length("n")}, "b": {0: Length("n", 2)}}
    two = Part("two", part.module, {"a": torch.zeros(2), "b": torch.zeros(4)}, ("c",), both)
    two.check([torch.zeros(3), torch.zeros(6)])
    with pytest.raises(ValueError, match="dimension 0 of b is 4, not 6"):
        two.check([torch.zeros(3), torch.zeros(4)])


def test_openvino_is_ready_ahead(part: Part, file: Path) -> None:
    engine = OpenVino(part, file)
    engine.prepare((1, 3, 32, 32), (1, 5))
    ready = dict(engine._ready)
    engine(*given(32, 32))
    assert engine._ready == ready
    for side in range(4, 84, 4):
        engine(*given(side, 4))
    assert len(engine._ready) == 16


def test_what_is_measured_and_taken(part: Part) -> None:
    class Slow(Eager):
        def __call__(self, *given: Tensor) -> tuple[Tensor, ...]:
            for _ in range(20):
                super().__call__(*given)
            return super().__call__(*given)

    class Wrong(Eager):
        def __call__(self, *given: Tensor) -> tuple[Tensor, ...]:
            return tuple(2 * x for x in super().__call__(*given))

    def broken() -> Engine:
        raise UsageError("openvino is not installed")

    tensors = given(16, 24)
    wanted = Eager(part)(*tensors)
    engines: dict[str, Callable[[], Engine]] = {
        "slow": lambda: Slow(part),
        "wrong": lambda: Wrong(part),
        "broken": broken,
        "eager": lambda: Eager(part),
    }
    found = choose(engines, wanted, tensors)
    assert type(found.engine) is Eager
    assert [one.name for one in found.measured] == ["eager", "slow", "wrong", "broken"]
    told = str(found)
    assert told.startswith("eager is taken (eager ")
    assert "wrong is wrong by 1" in told
    assert "broken does not run: openvino is not installed" in told
    with pytest.raises(UsageError, match="no engine runs here: wrong is wrong by 1; broken does not run"):
        choose({name: engines[name] for name in ("wrong", "broken")}, wanted, tensors)


def test_errors_are_seen() -> None:
    one = torch.ones(3)
    assert error_of([one, 10 * one], [one, 11 * one]) == pytest.approx(1 / 11)
    assert error_of([one.log() / 0], [one]) == float("inf")
    assert error_of([one[:2]], [one]) == float("inf")
    assert error_of([one[:0]], [one[:0]]) == 0


@pytest.mark.parametrize(("missing", "make"), [("onnxruntime", OnnxRuntime), ("openvino", OpenVino)])
def test_a_missing_backend_is_named(
    missing: str, make: Callable[..., Any], part: Part, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.import_module

    def without(name: str, package: str | None = None) -> Any:
        if name == missing:
            raise ImportError(name=name)
        return found(name, package)

    monkeypatch.setattr(importlib, "import_module", without)
    with pytest.raises(UsageError, match=rf"{missing} is not installed; run: pip install 'streamfx\[engines\]'"):
        make(part, file)


def test_nothing_is_left_of_an_export_that_fails(part: Part, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("no such operator")

    monkeypatch.setattr(torch.onnx, "export", broken)
    with pytest.raises(RuntimeError, match="no such operator"):
        export(part, tmp_path / "net.onnx")
    assert not list(tmp_path.iterdir())
    imported = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name == "onnxscript":
            raise ImportError(name=name)
        return imported(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UsageError, match="onnxscript is not installed, which engines are made with"):
        export(part, tmp_path / "net.onnx")
