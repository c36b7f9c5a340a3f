"""TensorRT, or TensorRT for RTX, on an NVIDIA GPU.

Both have one API. TensorRT builds for the GPU that is there; TensorRT for RTX builds for others too, without any GPU,
and finishes its kernels where the engine runs. Networks are strongly typed in both: what the ONNX file computes in is
what the engine computes in, so export ``typed(part, "fp16")`` for one in half precision.
"""

from __future__ import annotations

import copy
import functools
import hashlib
import importlib
import json
import logging
import os
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from streamfx.core.errors import UsageError
from streamfx.engines.base import Part

Precision = Literal["fp32", "fp16", "bf16", "fp8"]
Shape = tuple[int, ...]

_LOG = logging.getLogger(__name__)
_BUILDING = threading.Lock()
_MOST = 8
"""Sets of shapes that CUDA graphs are kept for."""
_ALIGNED = 256
"""Bytes that an address given to TensorRT is a multiple of."""
_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
TORCH_NAMES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "BF16": "bfloat16",
    "INT32": "int32",
    "INT64": "int64",
    "UINT8": "uint8",
    "BOOL": "bool",
}
_COMPUTES = {"CONVOLUTION", "DECONVOLUTION", "MATRIX_MULTIPLY"}
_NEEDS: dict[str, tuple[int, int]] = {"bf16": (8, 0), "fp8": (8, 9)}
_UNTIMED = frozenset({"tensorrt_rtx"})
"""Modules that measure nothing while they build, so that a timing cache does nothing for them."""
_FORMAT = b"streamfx tensorrt 1"
"""Of the files that are kept."""
_FP8 = "quantise it with NVIDIA's Model Optimizer, or take fp16"


@dataclass(frozen=True, slots=True)
class Options:
    """``ranges``: least, usual and most of each length of ``Part.dynamic``. ``capability``: of the GPU that it is for,
    (8, 9) for Ada; None is the one of this machine. ``refit``: its weights can be changed later."""

    ranges: Mapping[str, tuple[int, int, int]] = field(default_factory=dict)
    precision: Precision = "fp16"
    capability: tuple[int, int] | None = None
    refit: bool = False


@dataclass(frozen=True, slots=True)
class Binding:
    """A tensor that goes in or comes out. ``dtype``: torch's name. A dimension of -1 is any in the profile's range."""

    name: str
    output: bool
    dtype: str
    shape: Shape


@dataclass(frozen=True, slots=True)
class Place:
    """Where a weight of the module is: its name in the engine, and whether it lies there transposed."""

    name: str
    transposed: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """An engine as ``build`` makes it. ``profiles``: for inputs that are dynamic the least, usual and largest shape.
    ``places``: the weights that ``refit`` may change, by their names in the module's ``state_dict``."""

    data: bytes
    module: str
    precision: Precision
    capability: tuple[int, int]
    bindings: Sequence[Binding]
    profiles: Sequence[Mapping[str, tuple[Shape, Shape, Shape]]]
    places: Mapping[str, Place] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Writes ``path``, whole or not at all."""
        told = asdict(replace(self, data=b""))
        del told["data"]
        seal(path, json.dumps(told).encode() + b"\n" + self.data)

    @classmethod
    def load(cls, path: Path) -> Plan | None:
        """None if ``save`` has not written this file, or if it is damaged."""
        found = unseal(path)
        if found is None:
            return None
        told, _, data = found.partition(b"\n")
        known = json.loads(told)
        known["capability"] = tuple(known["capability"])
        known["bindings"] = [Binding(**one | {"shape": tuple(one["shape"])}) for one in known["bindings"]]
        known["places"] = {name: Place(**one) for name, one in known["places"].items()}
        known["profiles"] = [
            {name: tuple(tuple(shape) for shape in shapes) for name, shapes in one.items()} for one in known["profiles"]
        ]
        return cls(data=data, **known)


def typed(part: Part, precision: Precision) -> Part:
    """A part that computes in ``precision``, on a copy of the module; its inputs and outputs stay in single precision.
    Raises ``UsageError`` for fp8, which takes scales that only real pictures can give."""
    if precision == "fp32":
        return part
    if precision == "fp8":
        raise UsageError(f"{part.name} cannot be exported in fp8; {_FP8}")
    dtype = _DTYPES[precision]

    def to(tensors: tuple[Tensor, ...], dtype: torch.dtype) -> tuple[Tensor, ...]:
        return tuple(x.to(dtype) if x.is_floating_point() else x for x in tensors)

    # Hooks, for a module around it would hide the names of the inputs and change those of the weights.
    module = copy.deepcopy(part.module).eval().requires_grad_(False).to(dtype)
    module.register_forward_pre_hook(lambda _, given: to(given, dtype))
    module.register_forward_hook(lambda _, given, found: to(found, torch.float32))
    return replace(part, module=module)


def build(part: Part, path: Path, options: Options, timing_cache: Path | None = None) -> Plan:
    """The engine of the file that ``export`` made of ``part``, or of ``typed(part, ...)``. ``timing_cache``: a file of
    what was measured while building, read and written; damaged, it is made anew; TensorRT for RTX does not need one.
    Takes minutes with TensorRT, a second with TensorRT for RTX. Raises ``UsageError`` if TensorRT is not installed, if
    the file cannot be read, or for options that do not fit them; ``RuntimeError`` if no engine comes of it."""
    trt, capability = _chosen(options.capability)
    _fits(trt, capability, options)
    with _BUILDING:
        log = log_of(trt)
        log.last = ""
        builder = trt.Builder(log)
        strong = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
        network = builder.create_network(0 if strong is None else 1 << int(strong))
        # The weights are the parser's, as long as it lives.
        parser = _parsed(trt, log, network, part, path)
        _check_precision(network, part, path, options.precision)
        config = builder.create_builder_config()
        profiles = _profiles(part, options)
        for shapes in profiles:
            profile = builder.create_optimization_profile()
            for name, three in shapes.items():
                profile.set_shape(name, *three)
            config.add_optimization_profile(profile)
        if is_rtx(trt):
            config.num_compute_capabilities = 1
            config.set_compute_capability(_target(trt, capability), 0)
        if options.refit:
            config.set_flag(trt.BuilderFlag.REFIT)
        known = _start_times(trt, config, timing_cache)
        data = builder.build_serialized_network(network, config)
        del parser
        if data is None:
            raise RuntimeError(f"{part.name}: TensorRT made no engine: {one_line(log.last)}")
        _keep_times(trt, config, timing_cache, known)
    places = _places(part, path, options.precision) if options.refit else {}
    return Plan(
        bytes(data), trt.__name__, options.precision, capability, list(_bindings(network)), list(profiles), places
    )


@functools.cache
def log_of(trt: Any) -> Any:
    """TensorRT takes one logger a process: ours, which keeps the last error in ``last``."""
    severity = trt.ILogger.Severity
    levels = {
        severity.INTERNAL_ERROR: logging.ERROR,
        severity.ERROR: logging.ERROR,
        severity.WARNING: logging.WARNING,
        severity.INFO: logging.DEBUG,
    }

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.last = ""

        def log(self, severity: Any, message: str) -> None:
            level = levels.get(severity)
            if level is None:
                return
            if level == logging.ERROR:
                self.last = message
            _LOG.log(level, "%s", one_line(message))

    return Log()


def one_line(text: str) -> str:
    return " ".join(text.split()) or "it does not say why"


def imported(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except (ImportError, OSError):
        return None


def _chosen(wanted: tuple[int, int] | None) -> tuple[Any, tuple[int, int]]:
    """The module to build with, and the compute capability to build for."""
    present = torch.cuda.get_device_capability() if torch.cuda.is_available() else None
    capability = wanted or present
    if capability is None:
        raise UsageError("there is no NVIDIA GPU here; say with Options(capability=...) which one the engine is for")
    if capability == present and (trt := imported("tensorrt")) is not None:
        return trt, capability
    trt = imported("tensorrt_rtx")
    if trt is None:
        raise UsageError("TensorRT is not installed; run: pip install 'streamfx[tensorrt]'")
    return trt, capability


def is_rtx(trt: Any) -> bool:
    return str(trt.__name__) == "tensorrt_rtx"


def _target(trt: Any, capability: tuple[int, int]) -> Any:
    return getattr(trt.ComputeCapability, "SM{}{}".format(*capability), None)


def _fits(trt: Any, capability: tuple[int, int], options: Options) -> None:
    """Raises ``UsageError`` if there are no such engines."""
    told = "compute capability {}.{}".format(*capability)
    if is_rtx(trt) and _target(trt, capability) is None:
        raise UsageError(f"TensorRT for RTX makes no engines for {told}; on such a GPU, run: pip install tensorrt")
    if capability < _NEEDS.get(options.precision, (0, 0)):
        raise UsageError(f"a GPU of {told} does not compute in {options.precision}; take fp16")
    if is_rtx(trt) and options.refit and not torch.cuda.is_available():
        raise UsageError("an engine whose weights can change is built on the GPU it is for, and there is none here")


def _parsed(trt: Any, log: Any, network: Any, part: Part, path: Path) -> Any:
    """The parser of a file that it read into ``network``."""
    if not path.is_file():
        raise UsageError(f"{part.name}: there is no {path}; export the part to it")
    parser = trt.OnnxParser(network, log)
    if not parser.parse_from_file(str(path)):
        errors = [parser.get_error(n) for n in range(parser.num_errors)]
        named = [error for error in errors if error.node_operator()]
        error = (named or errors or [None])[0]
        why = one_line(log.last if error is None else error.desc())
        operator = f"operator {error.node_operator()} ({error.node_name()}): " if named and error is not None else ""
        raise UsageError(f"{part.name}: TensorRT cannot read {path}: {operator}{why}")
    found = [network.get_input(n).name for n in range(network.num_inputs)]
    made = [network.get_output(n).name for n in range(network.num_outputs)]
    if found != list(part.example) or made != list(part.outputs):
        told = f"from {', '.join(found) or 'nothing'} to {', '.join(made) or 'nothing'}"
        raise UsageError(f"{part.name}: {path} holds another network, {told}; export the part to it")
    return parser


def _check_precision(network: Any, part: Part, path: Path, precision: Precision) -> None:
    layers = [network.get_layer(n) for n in range(network.num_layers)]
    if precision == "fp8":
        if not any(one.type.name == "QUANTIZE" and one.get_output(0).dtype.name == "FP8" for one in layers):
            raise UsageError(f"{part.name}: nothing in {path} is quantised to fp8; {_FP8}")
        return
    computing = {TORCH_NAMES.get(one.get_output(0).dtype.name) for one in layers if one.type.name in _COMPUTES}
    if computing and str(_DTYPES[precision]).removeprefix("torch.") not in computing:
        raise UsageError(f"{part.name}: nothing in {path} computes in {precision}; export typed(part, '{precision}')")


def _profiles(part: Part, options: Options) -> list[dict[str, tuple[Shape, Shape, Shape]]]:
    """None for a part whose shapes are fixed, else one: what is usual is what TensorRT is quickest for."""
    names = {length.name for free in part.dynamic.values() for length in free.values()}
    if names != set(options.ranges):
        wanted, given = (", ".join(sorted(some)) or "none" for some in (names, options.ranges))
        raise UsageError(f"{part.name}: lengths that ranges are given for must be {wanted}, not {given}")
    for name, three in options.ranges.items():
        if not 1 <= three[0] <= three[1] <= three[2]:
            raise UsageError(f"{part.name}: {name} has the range {three}; give the least, usual and most, from 1 up")
    shapes: dict[str, tuple[Shape, Shape, Shape]] = {}
    for name, free in part.dynamic.items():
        least, usual, most = (list(part.example[name].shape) for _ in range(3))
        for dim, length in free.items():
            least[dim], usual[dim], most[dim] = (length.times * n for n in options.ranges[length.name])
        shapes[name] = tuple(least), tuple(usual), tuple(most)
    return [shapes] if shapes else []


def _bindings(network: Any) -> Iterator[Binding]:
    for n in range(network.num_inputs):
        one = network.get_input(n)
        yield Binding(one.name, False, TORCH_NAMES[one.dtype.name], tuple(one.shape))
    for n in range(network.num_outputs):
        one = network.get_output(n)
        yield Binding(one.name, True, TORCH_NAMES[one.dtype.name], tuple(one.shape))


def _places(part: Part, path: Path, precision: Precision) -> dict[str, Place]:
    """The export keeps the names of most weights, and folds the others, transposed, into constants without one, which
    are known by their values. Those that are alike cannot be told apart, and are left out."""
    onnx: Any = importlib.import_module("onnx")
    numbers: Any = importlib.import_module("onnx.numpy_helper")
    kept = {one.name: numbers.to_array(one) for one in onnx.load(str(path)).graph.initializer}
    state = {name: x.detach().cpu() for name, x in part.module.state_dict().items()}
    places = {name: Place(name) for name, x in state.items() if name in kept and kept[name].shape == tuple(x.shape)}
    nameless: dict[bytes, list[str]] = {}
    for name, values in kept.items():
        if name not in places and values.ndim:
            nameless.setdefault(_digest(values), []).append(name)
    claims: dict[bytes, list[tuple[str, bool]]] = {}
    for name, x in state.items():
        if name not in places and x.is_floating_point():
            values = x.to(_DTYPES.get(precision, x.dtype)).float().numpy()
            for transposed in (False, True) if x.ndim == 2 else (False,):
                claims.setdefault(_digest(values.T if transposed else values), []).append((name, transposed))
    for digest, names in nameless.items():
        if len(names) == len(claims.get(digest, ())) == 1:
            ((name, transposed),) = claims[digest]
            places[name] = Place(names[0], transposed)
    return places


def _digest(values: Any) -> bytes:
    return _mark(str(values.shape).encode() + values.astype("float32").tobytes())


def _start_times(trt: Any, config: Any, path: Path | None) -> bytes | None:
    """Gives the builder what was measured before, and returns that."""
    if path is None or trt.__name__ in _UNTIMED:
        return None
    known = unseal(path)
    if known is not None and config.set_timing_cache(config.create_timing_cache(known), False):
        return known
    config.set_timing_cache(config.create_timing_cache(b""), False)
    return None


def _keep_times(trt: Any, config: Any, path: Path | None, known: bytes | None) -> None:
    if path is None or trt.__name__ in _UNTIMED:
        return
    data = bytes(config.get_timing_cache().serialize())
    if data != known:
        seal(path, data)


def seal(path: Path, data: bytes) -> None:
    """Writes a file by which ``unseal`` sees that nothing of it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(_mark(data) + data)
        Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)


def unseal(path: Path) -> bytes | None:
    """None if there is no such file, or if it is damaged."""
    try:
        found = path.read_bytes()
    except FileNotFoundError:
        return None
    mark, data = found[: len(_mark(b""))], found[len(_mark(b"")) :]
    if mark != _mark(data):
        _LOG.warning("%s is damaged or of another version, and is made anew", path)
        return None
    return data


def _mark(data: bytes) -> bytes:
    mark = hashlib.sha256(_FORMAT)
    mark.update(data)
    return mark.digest()
