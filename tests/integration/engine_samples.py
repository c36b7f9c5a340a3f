"""A small network as a workload for engines, that misbehaves on request, and a filter that runs by it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from streamfx.engines.base import Engine, Length, Part
from streamfx.engines.build import Frames, Order, Workload
from streamfx.engines.eager import Eager
from streamfx.engines.hotswap import HotSwap
from streamfx.engines.recipe import Recipe
from streamfx.filters import Block, Context, Filter, FilterInfo, Params, at_setup

SIDE = 32


class Net(nn.Module):
    """A picture to one like it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 3, 3, padding=1)

    def forward(self, picture: Tensor) -> tuple[Tensor]:
        return (picture + 0.1 * self.second(nn.functional.silu(self.first(picture))),)


def net() -> Part:
    free = {"picture": {2: Length("height"), 3: Length("width")}}
    return Part("net", Net().eval(), {"picture": torch.zeros(1, 3, SIDE, SIDE)}, ("out",), free)


def noise(count: int = 2) -> list[tuple[Tensor, ...]]:
    chance = torch.Generator().manual_seed(1)
    return [(torch.rand(1, 3, SIDE, SIDE, generator=chance) * 2 - 1,) for _ in range(count)]


def workload(trick: str = "none") -> Workload:
    if trick == "hang":
        time.sleep(3600)
    if trick == "crash":
        os._exit(7)
    if trick == "raise":
        raise RuntimeError("no such operator")
    part = net()

    def samples(frames: Frames) -> Mapping[str, Sequence[tuple[Tensor, ...]]]:
        if len(frames):
            return {"net": [(_tensor(frame),) for frame in frames]}
        return {"net": noise()}

    def run(engines: Mapping[str, Engine]) -> Callable[[], object]:
        engine = engines.get("net") or Eager(part)
        return lambda: engine(*noise(1)[0])

    return Workload({"net": part}, samples, run, Recipe("eager"))


def order(engine: str = "onnxruntime", trick: str = "none") -> Order:
    return Order("tests.integration.engine_samples:workload", {"trick": trick}, engine, 1)


class SwappedParams(Params):
    add: int = Field(0, ge=0, le=100)
    trick: str = at_setup("none", "what the build does")


class Swapped(Filter[SwappedParams]):
    """Begins in torch; goes on by an engine as soon as there is one, and marks its pictures then."""

    name = "swapped"
    info = FilterInfo(block=1)

    def setup(self, context: Context, params: SwappedParams) -> None:
        torch.set_num_threads(1)
        self._part = net()
        self._engine: Engine = Eager(self._part)
        self._engine(*noise(1)[0])
        self._tell = context.tell
        self._swap = HotSwap(order(trick=params.trick), {"net": self._part}, context.tell)

    def process(self, block: Block, params: SwappedParams) -> Block:
        engines = self._swap.take()
        if engines is not None:
            self._engine = engines["net"]
            self._tell(f"runs by {self._engine.name}")
        given = _tensor(block.frames[0])
        if self._swap.wants_inputs:
            self._swap.give({"net": [(given,)]})
        (out,) = self._engine(given)
        picture = ((out[0].permute(1, 2, 0).numpy() + 1) * 127.5).clip(0, 255).astype(np.uint8)
        return block.with_video(picture[None])

    def close(self) -> None:
        self._swap.close()


def _tensor(frame: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> Tensor:
    return torch.from_numpy(np.array(frame)).permute(2, 0, 1).float()[None] / 127.5 - 1
