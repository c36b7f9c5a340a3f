"""The embedded restyler by engine: milliseconds and error of each part, frames a second of the stream.

    pip install -c constraints-cpu.txt '.[engines,restyle]'
    python -m benchmarks.engines
    ONEDNN_MAX_CPU_ISA=AVX2 python -m benchmarks.engines

Engines are measured by turns in one run; error is the largest of the part's outputs against torch in single precision,
in parts of the largest value. Int8 is scaled by frames of the bundled clip. ONNX Runtime heeds no
``ONEDNN_MAX_CPU_ISA``. torch.compile is left out where there is no C++ compiler. Engines are kept in the cache of
``streamfx engines``.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from itertools import islice

import av
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.machine import describe
from streamfx.engines import Eager, Engine, Part, error_of
from streamfx.engines.build import ready
from streamfx.engines.cache import EngineCache
from streamfx.engines.recipe import Recipe, load
from streamfx.models.devices import multiplies_half
from streamfx.models.tiny.engines import workload

_SIDE, _FRAMES, _FIRST = 256, 20, 5
_THREADS = 2
_CLIP = "examples/media/big-buck-bunny.mp4"


def recipes(half: bool) -> list[Recipe]:
    """All that are looked at here."""
    found = [Recipe("eager"), Recipe("compile"), Recipe("onnxruntime"), Recipe("openvino")]
    found += [Recipe("onnxruntime", "int8"), Recipe("openvino", "int8")]
    if half:
        found += [Recipe("eager", "bf16"), Recipe("compile", "bf16"), Recipe("openvino", "bf16")]
    return found


def clip(count: int) -> list[NDArray[np.uint8]]:
    with av.open(_CLIP) as container:
        frames = islice(container.decode(video=0), 0, 10 * count, 10)
        return [np.asarray(frame.to_ndarray(format="rgb24"), np.uint8) for frame in frames]


def by_turns(runs: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Milliseconds a call, the medians."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for n in range(_FIRST + _FRAMES):
        for name, run in runs.items():
            began = time.perf_counter()
            run()
            if n >= _FIRST:
                times[name].append(1e3 * (time.perf_counter() - began))
    return {name: statistics.median(some) for name, some in times.items()}


def made(part: Part, recipe: Recipe, samples: Sequence[tuple[Tensor, ...]], cache: EngineCache) -> Engine | None:
    try:
        if recipe.backend == "eager":
            return load(part, recipe, cache.folder, _THREADS, ())
        return ready(part, recipe, samples, cache, _THREADS, {})
    except Exception as error:
        print(f"{part.name} by {recipe}: {' '.join(str(error).split())[:200]}", file=sys.stderr)
        return None


def main() -> None:
    torch.set_num_threads(_THREADS)
    half, cache = multiplies_half("cpu"), EngineCache()
    work = workload([((_SIDE, _SIDE), _SIDE)], 1, _THREADS)
    samples = work.samples(clip(12))
    print(describe(), f"torch {torch.__version__}\n", sep=", ")
    print("| part | engine | ms | error |\n|---|---|---:|---:|")
    engines: dict[str, dict[str, Engine]] = {str(recipe): {} for recipe in recipes(half)}
    for name, part in work.parts.items():
        given = samples[name][0]
        wanted = Eager(part)(*given)
        for recipe in recipes(half):
            engine = made(part, recipe, samples[name], cache)
            if engine is not None:
                engines[str(recipe)][name] = engine
        here = {recipe: some[name] for recipe, some in engines.items() if name in some}
        times = by_turns(
            {recipe: (lambda engine=engine, given=given: engine(*given)) for recipe, engine in here.items()}
        )
        for recipe in sorted(times, key=times.__getitem__):
            error = error_of(here[recipe](*given), wanted)
            print(f"| {name} | {recipe} | {times[recipe]:.1f} | {error:.1e} |", flush=True)
    print("\n| the stream with | frames a second |\n|---|---:|")
    runs = {f"torch as it is ({work.usual})": work.run({})}
    runs |= {f"{name}, all parts": work.run(some) for name, some in engines.items() if len(some) == len(work.parts)}
    runs |= {
        f"{name}, the transformer": work.run({"denoise": some["denoise"]}) for name, some in engines.items() if some
    }
    for name, milliseconds in by_turns(runs).items():
        print(f"| {name} | {1e3 / milliseconds:.1f} |")


if __name__ == "__main__":
    main()
