"""Makes the engines of a model, looks whether they compute the same, and measures which are worth having.

An ``Order`` is plain values, so that another process can be given it. What comes of it, a ``Fit``, is kept in the cache
beside the engines: the next stream of that kind has them at once.
"""

from __future__ import annotations

import importlib
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from streamfx.core.errors import UsageError
from streamfx.engines.base import Engine, Part, error_of
from streamfx.engines.cache import EngineCache, hash_of, key_of, machine, weights_of
from streamfx.engines.choose import choose, settle
from streamfx.engines.eager import Eager
from streamfx.engines.recipe import Precision, Recipe, load, make

Frames = Sequence[NDArray[np.uint8]]
"""RGB, ``(H, W, 3)`` each."""

MOST_ERROR: dict[Precision, float] = {"fp32": 1e-3, "fp16": 0.03, "bf16": 0.05, "int8": 0.2}
"""By which outputs may differ from those of torch in single precision, in parts of the largest value."""

_GAIN = 0.97
_ROUNDS, _FIRST = 9, 3
_FIT = "fit.json"


@dataclass(frozen=True, slots=True)
class Workload:
    """A model in parts, and how a stream calls them.

    ``samples``: inputs of each part, of every shape a stream comes to use, on the CPU; from real frames if there are
    any. ``run``:
    a stream whose parts run by the engines given, and all others as they do without; each call is a frame. ``usual``:
    how parts run without an engine.
    """

    parts: Mapping[str, Part]
    samples: Callable[[Frames], Mapping[str, Sequence[tuple[Tensor, ...]]]]
    run: Callable[[Mapping[str, Engine]], Callable[[], object]]
    usual: Recipe


@dataclass(frozen=True, slots=True)
class Order:
    """``workload``: ``module:function``, which gives a ``Workload`` for ``given``. ``engine``: a recipe's name, or
    ``auto``. ``threads``: for each engine. ``device``: "cpu", or a CUDA device: where the stream runs, and the engines
    will. All of it JSON values."""

    workload: str
    given: Mapping[str, Any]
    engine: str
    threads: int
    device: str = "cpu"

    def made(self) -> Workload:
        """Loads the model."""
        module, _, name = self.workload.partition(":")
        return cast(Workload, getattr(importlib.import_module(module), name)(**self.given))


@dataclass(frozen=True, slots=True)
class Fit:
    """``engines``: for each part the recipe and the key of its entry; those that are best without are missing.
    ``shapes``: that each part is called with. ``told``: what was taken, and why."""

    engines: Mapping[str, tuple[str, str]]
    shapes: Mapping[str, Sequence[Sequence[Sequence[int]]]]
    told: Sequence[str] = field(default_factory=tuple)

    def loaded(
        self, parts: Mapping[str, Part], cache: EngineCache, threads: int, device: str = "cpu"
    ) -> dict[str, Engine] | None:
        """The engines; None if an entry is gone or damaged."""
        found = {}
        for name, (recipe, key) in self.engines.items():
            folder = cache.find(key)
            if folder is None:
                return None
            found[name] = load(parts[name], Recipe.parse(recipe), folder, threads, self.shapes[name], device)
        return found


def candidates(engine: str, usual: Recipe, device: str = "cpu") -> list[Recipe]:
    """What is looked at for ``engine`` on ``device``. Raises ``UsageError`` for one that does not exist, does not run
    there, or is not installed."""
    if engine != "auto":
        wanted = Recipe.parse(engine)
        wanted.check(device)
        return [wanted]
    if device != "cpu":
        found = [Recipe("compile", usual.precision), Recipe("tensorrt", usual.precision)]
        return [recipe for recipe in found if recipe.installed]
    found = [Recipe("onnxruntime"), Recipe("openvino")]
    if usual.precision == "bf16":
        found.append(Recipe("openvino", "bf16"))
    return [recipe for recipe in found if recipe.installed]


def fit_key(order: Order, parts: Mapping[str, Part]) -> str:
    """Of the entry that has what came of an order."""
    versions = {str(one): one.versions for one in candidates(order.engine, Recipe("eager"), order.device)}
    weights = {name: weights_of(part) for name, part in parts.items()}
    return hash_of({"order": asdict(order), "weights": weights, "machine": machine(), "versions": versions})


def known(order: Order, parts: Mapping[str, Part], cache: EngineCache) -> Fit | None:
    """What came of an order before, if all of it is there."""
    folder = cache.find(fit_key(order, parts))
    if folder is None:
        return None
    about = json.loads((folder / _FIT).read_text())
    fit = Fit({name: (recipe, key) for name, (recipe, key) in about["engines"].items()}, about["shapes"], about["told"])
    return fit if all(cache.find(key) for _, key in fit.engines.values()) else None


def build(order: Order, cache: EngineCache, frames: Frames = ()) -> Fit:
    """Makes what is missing, and measures. Takes minutes. Raises ``UsageError`` if nothing asked for can be made."""
    workload = order.made()
    recipes = candidates(order.engine, workload.usual, order.device)
    samples = workload.samples(frames)
    engines: dict[str, tuple[str, str]] = {}
    quickest: dict[str, Engine] = {}
    told: list[str] = []
    for name, part in workload.parts.items():
        keys: dict[str, str] = {}
        makers: dict[str, Callable[[], Engine]] = {
            str(recipe): partial(ready, part, recipe, samples[name], cache, order.threads, keys, order.device)
            for recipe in recipes
        }
        if order.engine == "auto":
            makers[str(workload.usual)] = partial(load, part, workload.usual, Path(), order.threads, (), order.device)
        given = samples[name][0]
        there = [x.to(order.device) for x in given]
        found = choose(makers, Eager(part)(*given), there, max(MOST_ERROR.values()))
        told.append(f"{name}: {found}")
        taken = found.measured[0].name
        if taken in keys:
            engines[name], quickest[name] = (taken, keys[taken]), found.engine
    if order.engine == "auto" and quickest:
        plain, with_them = _by_turns(order.device, workload.run({}), workload.run(quickest))
        told.append(f"the stream: {with_them:.1f} ms a frame with engines, {plain:.1f} ms without")
        if with_them > _GAIN * plain:
            told.append("no engine is taken: they gain nothing here")
            engines = {}
    fit = Fit(engines, {name: _shapes(samples[name]) for name in engines}, told)
    with cache.making(fit_key(order, workload.parts), "fit", order.engine) as folder:
        (folder / _FIT).write_text(json.dumps(asdict(fit)))
    return fit


def check(part: Part, engine: Engine, samples: Sequence[tuple[Tensor, ...]], most: float, device: str = "cpu") -> None:
    """Raises ``ValueError`` if the engine, which runs on ``device``, does not compute what torch does. ``samples``: on
    the CPU."""
    exact = Eager(part)
    for given in samples:
        error = error_of([x.cpu() for x in engine(*(x.to(device) for x in given))], exact(*given))
        if not error <= most:
            raise ValueError(f"it is wrong by {error:.3g} where {most:g} is allowed")


def ready(
    part: Part,
    recipe: Recipe,
    samples: Sequence[tuple[Tensor, ...]],
    cache: EngineCache,
    threads: int,
    keys: dict[str, str],
    device: str = "cpu",
) -> Engine:
    """An engine that computes what torch does; the key of its entry goes to ``keys``."""
    key, folder = _entry(part, recipe, samples, cache, device)
    engine = load(part, recipe, folder, threads, _shapes(samples), device)
    check(part, engine, samples, MOST_ERROR[recipe.precision], device)
    keys[str(recipe)] = key
    return engine


def _entry(
    part: Part, recipe: Recipe, samples: Sequence[tuple[Tensor, ...]], cache: EngineCache, device: str
) -> tuple[str, Path]:
    """The key and the folder of an engine, made if it is missing."""
    more: dict[str, Any] = {"shapes": _shapes(samples)} if recipe.backend in ("compile", "tensorrt") else {}
    if recipe.precision == "int8":
        more = {"samples": [float(x.float().sum()) for given in samples for x in given]}
    if device != "cpu":
        more["device"] = device
    key = key_of(part, recipe, **more)
    folder = cache.find(key)
    if folder is None:
        with cache.making(key, part.name, recipe.artefact) as begun:
            make(part, recipe, begun, samples, device)
        folder = cache.find(key)
    if folder is None:
        raise UsageError(f"{cache.folder} takes no engines; set STREAMFX_ENGINES to a folder that can be written")
    return key, folder


def _shapes(samples: Sequence[tuple[Tensor, ...]]) -> list[list[list[int]]]:
    """Each that occurs, once."""
    found = []
    for given in samples:
        shapes = [list(x.shape) for x in given]
        if shapes not in found:
            found.append(shapes)
    return found


def _by_turns(device: str, *runs: Callable[[], object]) -> list[float]:
    """Milliseconds a call of each on ``device``, the medians."""
    times: list[list[float]] = [[] for _ in runs]
    for n in range(_FIRST + _ROUNDS):
        for run, some in zip(runs, times, strict=True):
            began = time.perf_counter()
            run()
            settle(device)
            if n >= _FIRST:
                some.append(1e3 * (time.perf_counter() - began))
    return [statistics.median(some) for some in times]
