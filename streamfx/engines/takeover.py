"""When a stream that runs asks for engines, shows them a frame, and takes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from streamfx.engines.base import Engine, Part
from streamfx.engines.build import Frames, Order
from streamfx.engines.hotswap import HotSwap

Inputs = dict[str, list[tuple[Tensor, ...]]]
"""What parts were called with, in single precision, on the CPU."""

_MOST_SAMPLES = 24


class EngineTakeover:
    """Engines for a stream that runs: taken when they are built and found right, between two frames.

    ``parts``: in single precision, on the CPU. ``use``: has the stream run by engines from its next step on.
    ``recorded``: what the parts are called with meanwhile. ``told``: what there is to say, from a thread. ``frames``:
    real ones for int8, RGB of one size; if there are less than ``wanted_frames``, the stream's own first ones are
    taken.
    """

    def __init__(
        self,
        order: Order,
        parts: Mapping[str, Part],
        use: Callable[[Mapping[str, Engine]], None],
        recorded: Callable[[], AbstractContextManager[Inputs]],
        told: Callable[[str], None],
        frames: Frames = (),
        wanted_frames: int = 0,
    ) -> None:
        self._order, self._parts, self._told = order, parts, told
        self._use, self._recorded = use, recorded
        self._frames, self._lacking = list(frames), max(0, wanted_frames - len(frames))
        self._swap: HotSwap | None = None
        if not self._lacking:
            self._begin()

    @contextmanager
    def frame(self, picture: NDArray[np.uint8] | None = None) -> Iterator[None]:
        """Around the stream's step. ``picture``: what it is of, ``(H, W, 3)`` RGB, where frames are wanted."""
        if self._lacking and picture is not None:
            self._frames.append(picture.copy())
            self._lacking -= 1
            if not self._lacking:
                self._begin()
        swap = self._swap
        if swap is not None and (engines := swap.take()) is not None:
            self._use(engines)
            self._told("the stream runs by engines now: " + ", ".join(f"{n} by {e.name}" for n, e in engines.items()))
            self._swap = swap = None
        if swap is None or not swap.wants_inputs:
            yield
            return
        with self._recorded() as inputs:
            yield
        if all(inputs.get(name) for name in self._parts):  # not a frame that was skipped, or drawn as the one before
            swap.give(inputs)

    def _begin(self) -> None:
        self._swap = HotSwap(self._order, self._parts, self._told, frames=self._frames)
        self._frames = []

    def close(self) -> None:
        """Ends what is still being built."""
        if self._swap is not None:
            self._swap.close()


def noted(found: Inputs, name: str, given: Sequence[Tensor]) -> None:
    """Puts down what a part was called with. Copies on the CPU, for a GPU that runs a stream has no room for them; and
    none of inference mode, which torch.compile does not take."""
    with torch.inference_mode(False):
        copies = tuple(x.detach().to("cpu", torch.float32, copy=True) for x in given)
    found.setdefault(name, []).append(copies)


def thinned(some: Sequence[tuple[Tensor, ...]], real: bool = False) -> list[tuple[Tensor, ...]]:
    """One of each shape, the last (when there is a past); of ``real`` frames some more."""
    by_shape = {tuple(x.shape for x in given): given for given in some}
    rest = [given for given in some if all(given is not one for one in by_shape.values())]
    return [*by_shape.values(), *(rest[:: max(1, len(rest) // _MOST_SAMPLES)] if real else [])]
