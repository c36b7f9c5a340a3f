"""The restyler as a workload for engines: its parts, what a stream calls them with, and how engines take over."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import cycle

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from streamfx.engines.base import Engine, Part
from streamfx.engines.build import Frames, Order, Workload
from streamfx.engines.hotswap import HotSwap
from streamfx.engines.recipe import Recipe
from streamfx.models.devices import multiplies_half
from streamfx.models.tiny.autoencoder import Features, fitting
from streamfx.models.tiny.load import Networks, networks
from streamfx.models.tiny.parts import (
    Codes,
    Denoises,
    EngineCodes,
    EngineDenoiser,
    Frame,
    denoiser,
    parts,
)
from streamfx.models.tiny.stream import TinyLook, TinyStream

_FRAMES = 3
_NEEDED = ("see", "encode", "decode", "denoise")
_MOST_SAMPLES = 24

Inputs = dict[str, list[tuple[Tensor, ...]]]


def all_parts(exact: Networks) -> dict[str, Part]:
    """Of ``parts`` and ``denoiser``. ``exact``: in single precision, on the CPU."""
    return {**parts(exact.autoencoder), "denoise": denoiser(exact.dit)}


def order(sizes: Sequence[tuple[tuple[int, int], int]], steps: int, engine: str, threads: int) -> Order:
    """``sizes``: (width, height) that is drawn, and the side of the transformer, for each level of quality; ``steps``:
    at the first of them."""
    given = {"sizes": [[list(size), side] for size, side in sizes], "steps": steps, "threads": threads}
    return Order("streamfx.models.tiny.engines:workload", given, engine, threads)


def workload(sizes: Sequence[tuple[Sequence[int], int]], steps: int, threads: int) -> Workload:
    """Of ``order``."""
    torch.set_num_threads(threads)
    half = multiplies_half("cpu")
    exact, usual = networks(), networks("cpu", torch.bfloat16 if half else torch.float32)

    def stream() -> TinyStream:
        return TinyStream(usual.autoencoder, usual.dit)

    def looks() -> Iterator[tuple[tuple[int, int], TinyLook]]:
        with torch.inference_mode():
            style = usual.dit.style(named=torch.tensor([0]))[0]
        for n, ((width, height), side) in enumerate(sizes):
            yield (width, height), TinyLook(style, side=side, steps=1 if n else steps)

    def samples(frames: Frames) -> Inputs:
        found: Inputs = {}
        for size, look in looks():
            subject = stream()
            for n, picture in zip(range(max(_FRAMES + look.steps, len(frames))), _pictures(frames, size), strict=False):
                with recorded(subject) as inputs:
                    subject.step(picture, float(n), look)
                for name, some in inputs.items():
                    found.setdefault(name, []).extend(some)
        return {name: _thinned(some, bool(len(frames))) for name, some in found.items()}

    def run(engines: Mapping[str, Engine]) -> Callable[[], object]:
        subject, (size, look) = stream(), next(looks())
        use(subject, engines)
        pictures = _pictures((), size)
        return lambda: subject.step(next(pictures), 0.0, look)

    return Workload(all_parts(exact), samples, run, Recipe("eager", "bf16" if half else "fp32"))


def use(stream: TinyStream, engines: Mapping[str, Engine]) -> None:
    """From the next picture on. What has no engine, or none that is ready for its shape, runs as it did."""
    plain_codes, plain_denoise = stream.codes, stream.denoise
    stream.codes = EngineCodes(engines, plain_codes, stream.dtype)
    if "denoise" in engines:
        stream.denoise = EngineDenoiser(engines["denoise"], plain_denoise)


class EngineTakeover:
    """Engines for a stream that runs: taken when they are built and found right, between two frames.

    ``told``: what there is to say, from a thread. ``frames``: real ones for int8, RGB of one size; if there are less
    than ``wanted_frames``, the stream's own first ones are taken.
    """

    def __init__(
        self,
        stream: TinyStream,
        wanted: Order,
        told: Callable[[str], None],
        frames: Frames = (),
        wanted_frames: int = 0,
    ) -> None:
        self._stream, self._order, self._told = stream, wanted, told
        self._parts = all_parts(networks())
        self._frames, self._lacking = list(frames), max(0, wanted_frames - len(frames))
        self._swap: HotSwap | None = None
        if not self._lacking:
            self._begin()

    @contextmanager
    def frame(self, picture: NDArray[np.uint8]) -> Iterator[None]:
        """Around the stream's step for ``picture``, ``(H, W, 3)`` RGB."""
        if self._lacking:
            self._frames.append(picture.copy())
            self._lacking -= 1
            if not self._lacking:
                self._begin()
        swap = self._swap
        if swap is not None and (engines := swap.take()) is not None:
            use(self._stream, engines)
            self._told("the stream runs by engines now: " + ", ".join(f"{n} by {e.name}" for n, e in engines.items()))
            self._swap = swap = None
        if swap is None or not swap.wants_inputs:
            yield
            return
        with recorded(self._stream) as inputs:
            yield
        if all(inputs.get(name) for name in _NEEDED):  # not a frame that was skipped, or drawn as the one before was
            swap.give(inputs)

    def _begin(self) -> None:
        self._swap = HotSwap(self._order, self._parts, self._told, frames=self._frames)
        self._frames = []

    def close(self) -> None:
        """Ends what is still being built."""
        if self._swap is not None:
            self._swap.close()


@contextmanager
def recorded(stream: TinyStream) -> Iterator[Inputs]:
    """What the parts are called with meanwhile, as engines would be."""
    found: Inputs = {}
    before = stream.codes, stream.denoise
    stream.codes, stream.denoise = _CodesRecord(before[0], found), _DenoiseRecord(before[1], found)
    try:
        yield found
    finally:
        stream.codes, stream.denoise = before


class _CodesRecord:
    def __init__(self, codes: Codes, found: Inputs) -> None:
        self._codes, self._found = codes, found

    def features(self, pictures: Tensor) -> Features:
        self._note("see", pictures)
        return self._codes.features(pictures)

    def latents(self, features: Features) -> Tensor:
        self._note("encode", features.quarter)
        return self._codes.latents(features)

    def decode(self, latents: Tensor, source: Features, style: Tensor) -> Tensor:
        self._note("decode", fitting(latents.float(), source), source.half, source.quarter, style)
        return self._codes.decode(latents, source, style)

    def _note(self, name: str, *given: Tensor) -> None:
        # Copies that were not made in inference mode: torch.compile takes no others.
        with torch.inference_mode(False):
            self._found.setdefault(name, []).append(tuple(x.detach().float().clone() for x in given))


class _DenoiseRecord:
    def __init__(self, denoise: Denoises, found: Inputs) -> None:
        self._denoise, self._found = denoise, found

    def __call__(self, frame: Frame) -> Tensor:
        given = frame.inputs
        with torch.inference_mode(False):
            self._found.setdefault("denoise", []).append(tuple(part.clone() for part in given))
        return self._denoise(frame)


def _pictures(frames: Frames, size: tuple[int, int]) -> Iterator[Tensor]:
    """``(3, H, W)`` in [-1, 1] for ever; of ``frames``, or soft noise under a camera that moves."""
    width, height = size
    if len(frames):
        for frame in cycle(frames):
            yield _resized(frame, size)
    chance = torch.Generator().manual_seed(0)
    whole = torch.rand(1, 3, height + 64, width + 64, generator=chance)
    soft = torch.nn.functional.avg_pool2d(whole, 9, 1, 4)[0] * 2 - 1
    for n in cycle([*range(64), *range(64, 0, -1)]):
        yield soft[:, n : n + height, n : n + width].contiguous()


def _resized(frame: NDArray[np.uint8], size: tuple[int, int]) -> Tensor:
    picture = torch.from_numpy(np.array(frame)).permute(2, 0, 1).float()[None] / 127.5 - 1
    return torch.nn.functional.interpolate(picture, (size[1], size[0]), mode="bilinear", antialias=True)[0]


def _thinned(some: Sequence[tuple[Tensor, ...]], real: bool) -> list[tuple[Tensor, ...]]:
    """One of each shape, the last (when there is a past); of real frames some more."""
    by_shape = {tuple(x.shape for x in given): given for given in some}
    rest = [given for given in some if all(given is not one for one in by_shape.values())]
    return [*by_shape.values(), *(rest[:: max(1, len(rest) // _MOST_SAMPLES)] if real else [])]
