"""Engines that TensorRT for RTX builds, which takes no GPU; what runs them is tested where there is one."""

from __future__ import annotations

import contextlib
import copy
import ctypes
import importlib
import importlib.util
import logging
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from streamfx.core.errors import UsageError
from streamfx.engines import Eager, Part, error_of
from streamfx.engines import tensorrt as engine
from streamfx.engines import tensorrt_build as building
from streamfx.engines.base import Length
from streamfx.engines.export import export
from streamfx.engines.onnxruntime import OnnxRuntime
from streamfx.engines.tensorrt import TensorRt
from streamfx.engines.tensorrt_build import Binding, Options, Place, Plan, Precision, build, typed
from streamfx.models.sd.parts import parts as stable_diffusion
from streamfx.models.tiny.load import networks
from streamfx.models.tiny.parts import parts
from tests.unit.models import sdkit

_MISSING = importlib.util.find_spec("tensorrt_rtx") is None
_REQUIRED = os.environ.get("STREAMFX_REQUIRE_PROGRAMS") == "1"
pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(_MISSING and not _REQUIRED, reason="tensorrt_rtx is not installed"),
]
_GPU = torch.cuda.get_device_capability() if torch.cuda.is_available() else (0, 0)
# TensorRT for RTX runs on neither Hopper nor the Blackwell of data centres.
_RUNS = _GPU >= (7, 5) and (_GPU[0] not in (9, 10) or importlib.util.find_spec("tensorrt") is not None)
needs_gpu = pytest.mark.skipif(not _RUNS, reason="there is no NVIDIA GPU that the TensorRT here runs on")

ADA = (8, 9)
RANGES = {"height": (2, 8, 16), "width": (2, 16, 32)}
EIGHTHS = {"height": (16, 32, 64), "width": (16, 32, 64)}

Exported = Callable[[Part, Precision], Path]


class Net(nn.Module):
    """A picture and a vector to a picture twice as large, and to a mean."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.told = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 12, 1), nn.Linear(5, 8)

    def forward(self, picture: Tensor, vector: Tensor) -> tuple[Tensor, Tensor]:
        x = self.second(torch.nn.functional.silu(self.first(picture) + self.told(vector)[..., None, None]))
        return torch.nn.functional.pixel_shuffle(x, 2), x.mean((2, 3))


class Tokens(nn.Module):
    """Of layers whose weights the export folds; ``same`` are two that cannot be told apart."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down, self.norm = nn.Linear(6, 6, bias=False), nn.Linear(6, 6), nn.LayerNorm(6)
        self.same = nn.ModuleList(nn.Linear(6, 6, bias=False) for _ in range(2))
        self.same[1].load_state_dict(self.same[0].state_dict())

    def forward(self, x: Tensor) -> tuple[Tensor]:
        x = self.norm(self.down(torch.nn.functional.gelu(self.up(x))))
        return (self.same[1](torch.relu(self.same[0](x))),)


@pytest.fixture(scope="module")
def part() -> Part:
    torch.manual_seed(0)
    free = {"picture": {2: Length("height", 4), 3: Length("width", 4)}}
    example = {"picture": torch.randn(1, 3, 16, 24), "vector": torch.randn(1, 5)}
    return Part("net", Net().eval(), example, ("large", "average"), free)


@pytest.fixture(scope="module")
def tokens() -> Part:
    torch.manual_seed(0)
    return Part("tokens", Tokens().eval(), {"x": torch.randn(2, 7, 6)}, ("y",), {"x": {1: Length("count")}})


@pytest.fixture(scope="module")
def exported(part: Part, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Of a part in a precision, made once."""
    folder = tmp_path_factory.mktemp("tensorrt")

    def of(part: Part, precision: Precision) -> Path:
        path = folder / f"{part.name}-{precision}.onnx"
        if not path.exists():
            export(typed(part, precision), path)
        return path

    of(part, "fp32")  # before any test, for the first export starts a thread that stays
    return of


def given(height: int, width: int, device: str = "cpu") -> tuple[Tensor, Tensor]:
    chance = torch.Generator().manual_seed(height * width)
    return torch.randn(1, 3, height, width, generator=chance).to(device), torch.randn(1, 5, generator=chance).to(device)


def test_tensorrt_is_not_imported_before_it_is_needed() -> None:
    told = "import sys, streamfx.engines.tensorrt; print([name for name in sys.modules if name.startswith('tensorrt')])"
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True, timeout=50)
    assert done.stdout.strip() == "[]"


@pytest.mark.timeout(200)
@pytest.mark.parametrize("name", ["denoise", "decode"])
def test_a_small_stable_diffusion_for_all_stream_batches(name: str, tmp_path: Path) -> None:
    part = stable_diffusion(sdkit.unet(), sdkit.tiny_vae())[name]
    half = typed(part, "fp16")
    export(half, tmp_path / "part.onnx")
    names = sorted({length.name for free in part.dynamic.values() for length in free.values()})
    ranges = {length: (1, 2, 4) if length == "rows" else (4, 8, 16) for length in names}
    plan = build(half, tmp_path / "part.onnx", Options(ranges, "fp16", ADA))
    assert len(plan.data) > 10_000
    assert [binding.name for binding in plan.bindings] == [*part.example, *part.outputs]
    (profile,) = plan.profiles
    least, usual, most = profile[next(iter(part.example))]
    assert [shape[0] for shape in (least, usual, most)] == [1, 2, 4]
    plan.save(tmp_path / "plan")
    assert Plan.load(tmp_path / "plan") == plan


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_an_engine_is_built_in_each_precision(precision: Precision, part: Part, exported: Exported) -> None:
    plan = build(typed(part, precision), exported(part, precision), Options(RANGES, precision, ADA))
    assert len(plan.data) > 10_000
    assert (plan.module, plan.precision, plan.capability, plan.places) == ("tensorrt_rtx", precision, ADA, {})
    assert plan.bindings == [
        Binding("picture", False, "float32", (1, 3, -1, -1)),
        Binding("vector", False, "float32", (1, 5)),
        Binding("large", True, "float32", (1, 3, -1, -1)),
        Binding("average", True, "float32", (1, 12)),
    ]
    assert plan.profiles == [{"picture": ((1, 3, 8, 8), (1, 3, 32, 64), (1, 3, 64, 128))}]


def test_the_typed_file_computes_what_torch_does(part: Part, exported: Exported) -> None:
    before = [x.clone() for x in part.module.state_dict().values()]
    half = typed(part, "fp16")
    wanted = part.module(*given(16, 24))
    for found in (half.module(*given(16, 24)), OnnxRuntime(half, exported(part, "fp16"))(*given(16, 24))):
        assert [x.dtype for x in found] == [torch.float32] * 2
        assert 0 < error_of(found, [x.detach() for x in wanted]) < 5e-3
    assert all(torch.equal(a, b) for a, b in zip(before, part.module.state_dict().values(), strict=True))
    assert {x.dtype for x in half.module.parameters()} == {torch.float16}
    assert list(half.module.state_dict()) == list(part.module.state_dict())
    assert typed(part, "fp32") is part


@pytest.mark.parametrize("name", ["see", "encode", "decode"])
def test_the_embedded_model_is_built(name: str, exported: Exported) -> None:
    half = parts(networks().autoencoder)[name]
    plan = build(half, exported(half, "fp16"), Options(EIGHTHS, "fp16", ADA))
    assert [binding.name for binding in plan.bindings] == [*half.example, *half.outputs]
    (profile,) = plan.profiles
    assert set(profile) == set(half.dynamic)
    for binding in plan.bindings[: len(half.example)]:
        free = half.dynamic.get(binding.name, {})
        shape = tuple(half.example[binding.name].shape)
        assert binding.shape == tuple(-1 if dim in free else length for dim, length in enumerate(shape))
        for n, shapes in enumerate(profile.get(binding.name, ())):
            least = {dim: length.times * EIGHTHS[length.name][n] for dim, length in free.items()}
            assert shapes == tuple(least.get(dim, length) for dim, length in enumerate(shape))


@pytest.mark.parametrize("capability", [(7, 5), (8, 6), (12, 0)])
def test_other_gpus_can_be_built_for(capability: tuple[int, int], part: Part, exported: Exported) -> None:
    assert build(part, exported(part, "fp16"), Options(RANGES, "fp16", capability)).capability == capability


def quantised(path: Path) -> Part:
    """A product of two matrices, both in fp8."""
    weights = torch.eye(16).flatten().tolist()
    nodes = []
    for name in ("x", "w"):
        nodes.append(helper.make_node("QuantizeLinear", [name, "scale", "zero"], [f"{name}8"]))
        nodes.append(helper.make_node("DequantizeLinear", [f"{name}8", "scale", "zero"], [f"{name}0"]))
    nodes.append(helper.make_node("MatMul", ["x0", "w0"], ["y"]))
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [4, 16]) for name in ("x", "y"))
    known = [
        helper.make_tensor("w", TensorProto.FLOAT, [16, 16], weights),
        helper.make_tensor("scale", TensorProto.FLOAT, [], [0.01]),
        helper.make_tensor("zero", TensorProto.FLOAT8E4M3FN, [], [0.0]),
    ]
    graph = helper.make_graph(nodes, "quantised", [x], [y], known)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return Part("quantised", nn.Identity(), {"x": torch.zeros(4, 16)}, ("y",))


def test_fp8_is_built_of_a_quantised_file_only(part: Part, exported: Exported, tmp_path: Path) -> None:
    path = tmp_path / "quantised.onnx"
    plan = build(quantised(path), path, Options({}, "fp8", ADA))
    assert (plan.precision, plan.profiles) == ("fp8", [])
    advice = r"quantise it with NVIDIA's Model Optimizer, or take fp16"
    with pytest.raises(UsageError, match=rf"net: nothing in .*net-fp16.onnx is quantised to fp8; {advice}"):
        build(part, exported(part, "fp16"), Options(RANGES, "fp8", ADA))
    with pytest.raises(UsageError, match=rf"net cannot be exported in fp8; {advice}"):
        typed(part, "fp8")
    with pytest.raises(UsageError, match=r"a GPU of compute capability 8\.6 does not compute in fp8; take fp16"):
        build(part, path, Options({}, "fp8", (8, 6)))


def test_a_plan_is_kept_in_a_file(part: Part, exported: Exported, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "net.plan"
    plan = replace(build(part, exported(part, "fp16"), Options(RANGES, "fp16", ADA)), places={"a": Place("b", True)})
    assert Plan.load(path) is None
    plan.save(path)
    assert Plan.load(path) == plan
    assert [found.name for found in path.parent.iterdir()] == ["net.plan"]
    path.write_bytes(path.read_bytes()[:-1])
    assert Plan.load(path) is None


@pytest.mark.filterwarnings("ignore:Use Deprecated in TensorRT-RTX:DeprecationWarning")
def test_the_timing_cache_is_reused_and_mended(
    part: Part,
    exported: Exported,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path, options = tmp_path / "deep" / "times", Options(RANGES, "fp16", ADA)
    build(part, exported(part, "fp16"), options, path)
    assert not path.exists()  # TensorRT for RTX measures nothing
    # It still has what TensorRT reads and writes its cache with.
    monkeypatch.setattr(building, "_UNTIMED", frozenset())
    build(part, exported(part, "fp16"), options, path)
    first = path.read_bytes()
    assert building.unseal(path)
    assert build(part, exported(part, "fp16"), options, path).data
    assert path.read_bytes() == first
    assert "damaged" not in caplog.text
    for broken in (b"", b"rubbish", first[:-1], bytes([first[0] ^ 1]) + first[1:]):
        path.write_bytes(broken)
        caplog.clear()
        assert build(part, exported(part, "fp16"), options, path).data
        assert f"{path} is damaged or of another version, and is made anew" in caplog.text
        assert path.read_bytes() == first
    assert [found.name for found in path.parent.iterdir()] == ["times"]


def test_files_that_cannot_be_read(part: Part, tokens: Part, exported: Exported, tmp_path: Path) -> None:
    options, path = Options(RANGES, "fp16", ADA), tmp_path / "net.onnx"
    with pytest.raises(UsageError, match=r"net: there is no .*net\.onnx; export the part to it$"):
        build(part, path, options)
    path.write_bytes(b"rubbish")
    with pytest.raises(
        UsageError, match=r"net: TensorRT cannot read .*net\.onnx: .*Failed to parse the ONNX model"
    ) as a:
        build(part, path, options)
    path.write_bytes(b"")
    with pytest.raises(UsageError, match=r"net\.onnx holds another network, from nothing to nothing; export the part"):
        build(part, path, options)
    with pytest.raises(UsageError, match=r"tokens-fp32\.onnx holds another network, from x to y; export the part"):
        build(part, exported(tokens, "fp32"), options)
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in ("x", "y"))
    odd = helper.make_graph([helper.make_node("Frobnicate", ["x"], ["y"], name="odd")], "odd", [x], [y])
    path.write_bytes(helper.make_model(odd, ir_version=10).SerializeToString())
    with pytest.raises(
        UsageError, match=r"net: TensorRT cannot read .*: operator Frobnicate \(odd\): .*not found"
    ) as b:
        build(part, path, options)
    assert not any("\n" in str(found.value) for found in (a, b))


def test_options_that_do_not_fit(part: Part, exported: Exported) -> None:
    path = exported(part, "fp16")
    with pytest.raises(UsageError, match=r"nothing in .* computes in bf16; export typed\(part, 'bf16'\)"):
        build(part, path, Options(RANGES, "bf16", ADA))
    with pytest.raises(UsageError, match="net: lengths that ranges are given for must be height, width, not height"):
        build(part, path, Options({"height": (1, 2, 3)}, "fp16", ADA))
    with pytest.raises(UsageError, match=r"net: width has the range \(4, 3, 9\); give the least, usual and most"):
        build(part, path, Options(RANGES | {"width": (4, 3, 9)}, "fp16", ADA))
    with pytest.raises(
        UsageError, match=r"no engines for compute capability 9\.0; on such a GPU, run: pip install ten"
    ):
        build(part, path, Options(RANGES, "fp16", (9, 0)))
    with pytest.raises(UsageError, match=r"a GPU of compute capability 7\.5 does not compute in bf16"):
        build(part, path, Options(RANGES, "bf16", (7, 5)))


def test_no_gpu_is_said_in_a_sentence(
    part: Part, exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = build(part, exported(part, "fp16"), Options(RANGES, "fp16", ADA))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match="run on an NVIDIA GPU, and there is none here; take another engine"):
        TensorRt(part, plan)
    with pytest.raises(UsageError, match=r"no NVIDIA GPU here; say with Options\(capability=\.\.\.\) which one"):
        build(part, exported(part, "fp16"), Options(RANGES))
    with pytest.raises(UsageError, match="whose weights can change is built on the GPU it is for"):
        build(part, exported(part, "fp16"), Options(RANGES, "fp16", ADA, refit=True))


def test_a_missing_module_is_named(part: Part, exported: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    path, found = exported(part, "fp16"), importlib.import_module

    def without(name: str, package: str | None = None) -> Any:
        if name.startswith("tensorrt"):
            raise ImportError(name=name)
        return found(name, package)

    monkeypatch.setattr(importlib, "import_module", without)
    with pytest.raises(UsageError, match=r"TensorRT is not installed; run: pip install 'streamfx\[tensorrt\]'"):
        build(part, path, Options(RANGES, "fp16", ADA))


def test_a_build_that_fails_says_why(
    part: Part, exported: Exported, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if torch.cuda.is_available():
        pytest.skip("with a GPU this build does not fail")
    monkeypatch.setattr(building, "_fits", lambda *_: None)
    with (
        caplog.at_level(logging.DEBUG, "streamfx.engines.tensorrt_build"),
        pytest.raises(RuntimeError, match=r"net: TensorRT made no engine: .*CUDA_SUCCESS") as failed,
    ):
        build(part, exported(part, "fp16"), Options(RANGES, "fp16", ADA, refit=True))
    assert "\n" not in str(failed.value)
    levels = {record.levelno for record in caplog.records if record.name == "streamfx.engines.tensorrt_build"}
    assert {logging.DEBUG, logging.ERROR} <= levels


def test_nothing_is_printed(part: Part, exported: Exported, capfd: pytest.CaptureFixture[str]) -> None:
    path = exported(part, "fp16")
    capfd.readouterr()
    build(part, path, Options(RANGES, "fp16", ADA))
    assert capfd.readouterr() == ("", "")


def test_weights_are_found_in_the_file(part: Part, tokens: Part, exported: Exported) -> None:
    assert building._places(part, exported(part, "fp16"), "fp16") == {
        name: Place(name) for name in part.module.state_dict()
    }
    found = building._places(tokens, exported(tokens, "fp32"), "fp32")
    assert {name for name, place in found.items() if place == Place(name)} == {"down.bias", "norm.weight", "norm.bias"}
    folded = {name: place for name, place in found.items() if place != Place(name)}
    assert set(folded) == {"up.weight", "down.weight"}
    kept = {one.name: one for one in onnx.load(str(exported(tokens, "fp32"))).graph.initializer}
    for name, place in folded.items():
        assert place.transposed
        assert torch.equal(
            torch.from_numpy(numpy_helper.to_array(kept[place.name]).copy()).T, tokens.module.state_dict()[name]
        )


def memory(address: int, shape: Sequence[int]) -> Tensor:
    """Single precision that lies there."""
    there = (ctypes.c_float * math.prod(shape)).from_address(address)
    return torch.frombuffer(there, dtype=torch.float32).view(tuple(shape))


class Standin:
    """What of tensorrt_rtx needs a GPU: runtime, engine and settings in one. Its contexts run an ONNX file by ONNX
    Runtime, on the memory whose addresses they are given; refitting changes the file's constants."""

    def __init__(self, path: Path) -> None:
        self.model = onnx.load(str(path))
        self.recording: list[Callable[[], None]] | None = None
        self.deserialize_cuda_engine = self.create_runtime_config = self.create_runtime_cache = lambda *_: self
        self.cached: bytes | None = None

    def set_runtime_cache(self, cache: Any) -> None:
        assert cache is self

    def deserialize(self, data: bytes) -> bool:
        self.cached = data
        return True

    def serialize(self) -> bytes:
        return b"kernels"

    def create_execution_context(self, settings: Any) -> StandinContext:
        assert settings is self
        return StandinContext(self)

    def computed(self, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        session = onnxruntime.InferenceSession(self.model.SerializeToString(), providers=["CPUExecutionProvider"])
        found = session.run(None, {name: x.numpy() for name, x in given.items()})
        return {one.name: torch.from_numpy(x) for one, x in zip(session.get_outputs(), found, strict=True)}


class StandinContext:
    def __init__(self, engine: Standin) -> None:
        self.engine, self.shapes, self.addresses = engine, dict[str, tuple[int, ...]](), dict[str, int]()
        self.set_input_shape, self.set_tensor_address = self.shapes.__setitem__, self.addresses.__setitem__

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        found = self.engine.computed({one: torch.zeros(shape) for one, shape in self.shapes.items()})
        return tuple(found[name].shape)

    def execute_async_v3(self, stream: int) -> bool:
        assert all(address % 64 == 0 for address in self.addresses.values())
        if self.engine.recording is None:
            self.run()
        else:
            self.engine.recording.append(self.run)
        return True

    def run(self) -> None:
        given = {name: memory(self.addresses[name], shape) for name, shape in self.shapes.items()}
        for name, made in self.engine.computed(given).items():
            memory(self.addresses[name], made.shape).copy_(made)


class StandinRefitter:
    """Wants a bias with the weight before it."""

    def __init__(self, engine: Standin, _: Any) -> None:
        self.kept = {one.name: one for one in engine.model.graph.initializer}
        self.sent: dict[str, Any] = {}

    def get_weights_prototype(self, name: str) -> Any:
        return SimpleNamespace(dtype=SimpleNamespace(name="FLOAT"))

    def set_named_weights(self, name: str, weights: tuple[Any, int, int], location: str) -> bool:
        assert weights[2] == math.prod(self.kept[name].dims)
        self.sent[name] = weights[1]
        return location == "device"

    def get_missing_weights(self) -> list[str]:
        return [] if "down.bias" in self.sent else ["down.bias"]

    def refit_cuda_engine(self) -> bool:
        for name, address in self.sent.items():
            self.kept[name].raw_data = memory(address, self.kept[name].dims).numpy().tobytes()
        return True


@pytest.fixture
def standin(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], Standin]:
    """Makes ``TensorRt`` run a file here."""

    def of(path: Path) -> Standin:
        stand = Standin(path)

        @contextlib.contextmanager
        def record(graph: Any, capture_error_mode: str) -> Iterator[None]:
            stand.recording = []
            yield
            (graph.replay,) = stand.recording
            stand.recording = None

        real = importlib.import_module("tensorrt_rtx")
        module = SimpleNamespace(
            __name__="tensorrt_rtx",
            Runtime=lambda _: stand,
            Refitter=StandinRefitter,
            Weights=lambda *given: given,
            TensorLocation=SimpleNamespace(DEVICE="device"),
            DynamicShapesKernelSpecializationStrategy=real.DynamicShapesKernelSpecializationStrategy,
        )
        stream = SimpleNamespace(cuda_stream=0, synchronize=lambda: None)
        monkeypatch.setattr(engine, "imported", lambda _: module)
        monkeypatch.setattr(engine, "log_of", lambda _: engine_log)
        for name, value in {
            "is_available": lambda: True,
            "current_device": lambda: 0,
            "device": lambda _: contextlib.nullcontext(),
            "current_stream": lambda: stream,
            "synchronize": lambda: None,
            "CUDAGraph": SimpleNamespace,
            "graph": record,
        }.items():
            monkeypatch.setattr(torch.cuda, name, value)
        return stand

    engine_log = building.log_of(importlib.import_module("tensorrt_rtx"))
    return of


@pytest.mark.parametrize("graphs", [False, True])
def test_what_runs_an_engine(
    graphs: bool, part: Part, exported: Exported, tmp_path: Path, standin: Callable[[Path], Standin]
) -> None:
    path, cache = exported(part, "fp32"), tmp_path / "kernels"
    plan = build(part, path, Options(RANGES, "fp32", ADA))
    standin(path)
    found = TensorRt(part, plan, graphs, cache)
    found._device = torch.device("cpu")
    assert found.name == "tensorrt"
    assert found.takes(*given(16, 24)) is not graphs
    found.prepare((1, 3, 16, 24), (1, 5))
    assert found.takes(*given(16, 24))
    assert not found.takes(*given(80, 24))
    kept = []
    for n, size in enumerate(((16, 24), (8, 8), (40, 12), (16, 24), *((8, side) for side in range(12, 44, 4)))):
        tensors = [x * (1 + n) for x in given(*size)]
        made = found(*tensors)
        with torch.inference_mode():
            assert error_of(made, part.module(*tensors)) < 1e-4
        kept.append((made, [x.clone() for x in made]))
    assert all(torch.equal(a, b) for now, then in kept for a, b in zip(now, then, strict=True))
    assert len(found._ready) == (8 if graphs else 0)
    with pytest.raises(ValueError, match=r"net: picture is \(1, 3, 80, 24\), not from \(1, 3, 8, 8\) to"):
        found(*given(80, 24))
    with pytest.raises(ValueError, match="dimension 1 of vector is 4, not 5"):
        found(given(16, 24)[0], given(16, 24)[1][:, :4])
    found.keep()
    assert cache.read_bytes().endswith(b"kernels")
    again = standin(path)
    TensorRt(part, plan, graphs, cache)
    assert again.cached == b"kernels"
    found._device = torch.device("cuda", 0)
    with pytest.raises(ValueError, match="net: picture is on cpu, not on cuda:0"):
        found(*given(16, 24))


@pytest.mark.parametrize("graphs", [False, True])
def test_what_is_refitted(graphs: bool, tokens: Part, exported: Exported, standin: Callable[[Path], Standin]) -> None:
    path = exported(tokens, "fp32")
    plan = build(tokens, path, Options({"count": (1, 7, 16)}, "fp32", ADA))
    standin(path)
    found = TensorRt(tokens, replace(plan, places=building._places(tokens, path, "fp32")), graphs)
    found._device = torch.device("cpu")
    (x,) = tokens.example.values()
    torch.manual_seed(1)
    wanted, other = copy.deepcopy(tokens.module), Tokens().state_dict()
    for names in ((), ("down.weight", "up.weight"), ("down.bias",), ("norm.weight",)):
        changed = {name: other[name] + 0.5 for name in names}
        found.refit(changed)
        wanted.load_state_dict(wanted.state_dict() | changed)
        for value in changed.values():
            value.zero_()  # they are the caller's
        with torch.inference_mode():
            assert error_of(found(x), wanted(x)) < 1e-4
            assert (error_of(found(x), tokens.module(x)) > 1e-2) == bool(names)
    with pytest.raises(ValueError, match="tokens has no weight nobody that can be changed"):
        found.refit({"nobody": x})
    with pytest.raises(ValueError, match=r"tokens: up.weight is \(2, 7, 6\), not \(6, 6\)"):
        found.refit({"up.weight": x})
    with pytest.raises(UsageError, match=r"weights are fixed; build it with Options\(refit=True\)"):
        TensorRt(tokens, plan).refit({})


@needs_gpu
@pytest.mark.parametrize("graphs", [False, True])
def test_the_engine_computes_what_torch_does(graphs: bool, part: Part, exported: Exported, tmp_path: Path) -> None:
    cache = tmp_path / "kernels"
    plan = build(part, exported(part, "fp16"), Options(RANGES))
    found = TensorRt(part, plan, graphs, cache)
    assert found.name == "tensorrt-fp16"
    on_gpu = Eager(replace(part, module=part.module.cuda()))
    part.module.cpu()
    kept = []
    for n, size in enumerate(((16, 24), (8, 8), (40, 12), (16, 24), *((8, side) for side in range(12, 52, 4)))):
        tensors = [x * (1 + n / 4) for x in given(*size, "cuda")]
        made = found(*tensors)
        assert [x.dtype for x in made] == [torch.float32] * 2
        assert error_of(made, on_gpu(*tensors)) < 2e-2
        kept.append((made, [x.clone() for x in made]))
    assert all(torch.equal(a, b) for now, then in kept for a, b in zip(now, then, strict=True))
    assert len(found._ready) == (8 if graphs else 0)
    # Where it begins is not where TensorRT would have it.
    picture, vector = given(16, 24, "cuda")
    moved = torch.cat([vector.new_zeros(1), vector[0]])[1:][None]
    assert error_of(found(picture, moved), on_gpu(picture, vector)) < 2e-2
    with pytest.raises(ValueError, match="picture is on cpu, not on cuda:0"):
        found(*given(16, 24))
    with pytest.raises(ValueError, match=r"picture is \(1, 3, 80, 24\), not from \(1, 3, 8, 8\) to \(1, 3, 64, 128\)"):
        found(*given(80, 24, "cuda"))
    found.keep()
    if plan.module == "tensorrt_rtx":
        assert error_of(TensorRt(part, plan, graphs, cache)(picture, vector), on_gpu(picture, vector)) < 2e-2


@needs_gpu
def test_a_graph_gives_the_same(part: Part, exported: Exported) -> None:
    plan = build(part, exported(part, "fp16"), Options(RANGES))
    plainly, graphs = TensorRt(part, plan), TensorRt(part, plan, graphs=True)
    for _ in range(3):
        for size in ((16, 24), (8, 8)):
            tensors = given(*size, "cuda")
            assert error_of(graphs(*tensors), plainly(*tensors)) < 2e-3


@needs_gpu
@pytest.mark.parametrize("graphs", [False, True])
def test_refit_changes_the_answer(graphs: bool, tokens: Part, exported: Exported) -> None:
    half = typed(tokens, "fp16")
    plan = build(half, exported(tokens, "fp16"), Options({"count": (1, 7, 16)}, refit=True))
    found = TensorRt(half, plan, graphs)
    (x,) = (x.cuda() for x in tokens.example.values())
    first = found(x)
    torch.manual_seed(1)
    other = Tokens().eval()
    changed = {name: value for name, value in other.state_dict().items() if name in plan.places}
    found.refit(changed)
    expected = Tokens().eval()
    expected.load_state_dict(tokens.module.state_dict() | changed)
    wanted = Eager(replace(tokens, module=expected.cuda()))(x)
    assert error_of(found(x), wanted) < 2e-2
    assert error_of(first, wanted) > 1e-1
    with pytest.raises(ValueError, match="tokens has no weight nobody that can be changed"):
        found.refit({"nobody": x})
    with pytest.raises(ValueError, match=r"tokens: up.weight is \(2, 7, 6\), not \(6, 6\)"):
        found.refit({"up.weight": x})
    with pytest.raises(UsageError, match="this engine's weights are fixed"):
        TensorRt(half, replace(plan, places={})).refit({})


@needs_gpu
def test_a_plan_that_does_not_run_here(part: Part, exported: Exported) -> None:
    plan = build(part, exported(part, "fp16"), Options(RANGES))
    with pytest.raises(UsageError, match="net: this engine does not run here; build it anew"):
        TensorRt(part, replace(plan, data=plan.data[:100]))
    with pytest.raises(UsageError, match="net: this engine is of another part"):
        TensorRt(part, replace(plan, bindings=plan.bindings[1:]))
