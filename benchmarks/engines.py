"""The embedded restyler's autoencoder by engine: milliseconds and error of each part, frames a second of the stream.

    pip install -c constraints-cpu.txt '.[engines,restyle]'
    python -m benchmarks.engines
    ONEDNN_MAX_CPU_ISA=AVX2 python -m benchmarks.engines

Engines are measured by turns in one run; error is the largest of the part's outputs against torch in single precision,
in parts of the largest value. The transformer runs in eager torch in all of them. ONNX Runtime heeds no
``ONEDNN_MAX_CPU_ISA``.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.machine import describe
from streamfx.engines import Choice, Eager, Engine, Part, choose
from streamfx.engines.export import export
from streamfx.engines.onnxruntime import OnnxRuntime
from streamfx.engines.openvino import OpenVino
from streamfx.models.devices import multiplies_half
from streamfx.models.tiny.load import networks
from streamfx.models.tiny.parts import Codes, EngineCodes, parts
from streamfx.models.tiny.stream import TinyLook, TinyStream

_SIDE, _FRAMES, _FIRST = 256, 40, 8


def backends(half: bool) -> dict[str, Callable[[Part, Path], Engine]]:
    """Of each a function that makes the engine of an exported part."""
    found: dict[str, Callable[[Part, Path], Engine]] = {
        "eager": lambda part, _: Eager(part),
        "onnxruntime": OnnxRuntime,
        "openvino": OpenVino,
    }
    if half:
        found["eager-bf16"] = lambda part, _: Eager(part, torch.bfloat16)
        found["openvino-bf16"] = lambda part, path: OpenVino(part, path, "bf16")
    return found


def moving(count: int) -> list[torch.Tensor]:
    """Soft noise under a camera that moves, ``(3, H, W)`` each."""
    chance = torch.Generator().manual_seed(0)
    whole = torch.rand(1, 3, _SIDE + count, _SIDE + count, generator=chance)
    soft = torch.nn.functional.avg_pool2d(whole, 9, 1, 4)[0] * 2 - 1
    return [soft[:, n : n + _SIDE, n : n + _SIDE].contiguous() for n in range(count)]


def main() -> None:
    half = multiplies_half("cpu")
    dtype = torch.bfloat16 if half else torch.float32
    exact, quick = networks("cpu", torch.float32), networks("cpu", dtype)
    pieces, made = parts(exact.autoencoder), backends(half)
    print(describe(), f"torch {torch.__version__}\n", sep=", ")
    with tempfile.TemporaryDirectory() as folder:
        files = {name: Path(folder) / f"{name}.onnx" for name in pieces}
        for name, part in pieces.items():
            export(part, files[name])
        chosen = {name: _table(name, part, files[name], made) for name, part in pieces.items()}
        print("\n| the stream with | frames a second |\n|---|---:|")
        codes: dict[str, Codes] = {f"torch, {str(dtype).removeprefix('torch.')}": quick.autoencoder}
        for name, make in made.items():
            codes[name] = EngineCodes({each: make(part, files[each]) for each, part in pieces.items()}, dtype)
        codes["the quickest of each"] = EngineCodes({name: one.engine for name, one in chosen.items()}, dtype)
        with torch.inference_mode():
            look = TinyLook(quick.dit.style(named=torch.tensor([0]))[0])
        streams = {name: TinyStream(one, quick.dit) for name, one in codes.items()}
        times: dict[str, list[float]] = {name: [] for name in streams}
        for n, picture in enumerate(moving(_FIRST + _FRAMES)):
            for name, stream in streams.items():
                began = time.perf_counter()
                stream.step(picture.to(dtype), 0.0, look)
                if n >= _FIRST:
                    times[name].append(time.perf_counter() - began)
        for name, some in times.items():
            print(f"| {name} | {1 / statistics.median(some):.1f} |")
    for name, one in chosen.items():
        print(f"\n{name}: {one}")


def _table(name: str, part: Part, path: Path, made: dict[str, Callable[[Part, Path], Engine]]) -> Choice:
    given = tuple(part.example.values())
    wanted = Eager(part)(*given)
    found = choose({each: (lambda make=make: make(part, path)) for each, make in made.items()}, wanted, given)
    if name == "see":
        print("| part | engine | ms | error |\n|---|---|---:|---:|")
    for one in found.measured:
        print(f"| {name} | {one.name} | {one.milliseconds:.2f} | {one.error:.1e} |")
    return found


if __name__ == "__main__":
    main()
