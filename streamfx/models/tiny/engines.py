"""The restyler as a workload for engines: its parts, what a stream calls them with, and how engines take over."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import cycle

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from streamfx.engines.base import Engine, Part
from streamfx.engines.build import Frames, Order, Workload
from streamfx.engines.recipe import Recipe
from streamfx.engines.takeover import EngineTakeover, Inputs, noted, thinned
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


def all_parts(exact: Networks) -> dict[str, Part]:
    """Of ``parts`` and ``denoiser``. ``exact``: in single precision, on the CPU."""
    return {**parts(exact.autoencoder), "denoise": denoiser(exact.dit)}


def order(
    sizes: Sequence[tuple[tuple[int, int], int]], steps: int, engine: str, threads: int, device: str = "cpu"
) -> Order:
    """``sizes``: (width, height) that is drawn, and the side of the transformer, for each level of quality; ``steps``:
    at the first of them."""
    given = {"sizes": [[list(size), side] for size, side in sizes], "steps": steps, "threads": threads}
    given |= {"device": device}
    return Order("streamfx.models.tiny.engines:workload", given, engine, threads, device)


def workload(sizes: Sequence[tuple[Sequence[int], int]], steps: int, threads: int, device: str = "cpu") -> Workload:
    """Of ``order``."""
    torch.set_num_threads(threads)
    dtype = torch.bfloat16 if multiplies_half(device) else torch.float32
    exact, usual = networks(), networks(device, dtype)

    def stream() -> TinyStream:
        return TinyStream(usual.autoencoder, usual.dit)

    def looks() -> Iterator[tuple[tuple[int, int], TinyLook]]:
        with torch.inference_mode():
            style = usual.dit.style(named=torch.tensor([0], device=device))[0]
        for n, ((width, height), side) in enumerate(sizes):
            yield (width, height), TinyLook(style, side=side, steps=1 if n else steps)

    def samples(frames: Frames) -> Inputs:
        found: Inputs = {}
        for size, look in looks():
            subject = stream()
            for n, picture in zip(range(max(_FRAMES + look.steps, len(frames))), _pictures(frames, size), strict=False):
                with recorded(subject) as inputs:
                    subject.step(picture.to(device), float(n), look)
                for name, some in inputs.items():
                    found.setdefault(name, []).extend(some)
        return {name: thinned(some, bool(len(frames))) for name, some in found.items()}

    def run(engines: Mapping[str, Engine]) -> Callable[[], object]:
        subject, (size, look) = stream(), next(looks())
        use(subject, engines)
        pictures = _pictures((), size)
        return lambda: subject.step(next(pictures).to(device), 0.0, look)

    return Workload(all_parts(exact), samples, run, Recipe.plain(dtype))


def use(stream: TinyStream, engines: Mapping[str, Engine]) -> None:
    """From the next picture on. What has no engine, or none that is ready for its shape, runs as it did."""
    plain_codes, plain_denoise = stream.codes, stream.denoise
    stream.codes = EngineCodes(engines, plain_codes, stream.dtype)
    if "denoise" in engines:
        stream.denoise = EngineDenoiser(engines["denoise"], plain_denoise)


def takeover(
    stream: TinyStream, wanted: Order, told: Callable[[str], None], frames: Frames = (), wanted_frames: int = 0
) -> EngineTakeover:
    """Engines for a stream that runs. ``told``, ``frames``, ``wanted_frames``: see ``EngineTakeover``."""
    of = all_parts(networks())
    return EngineTakeover(wanted, of, partial(use, stream), partial(recorded, stream), told, frames, wanted_frames)


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
        noted(self._found, "see", (pictures,))
        return self._codes.features(pictures)

    def latents(self, features: Features) -> Tensor:
        noted(self._found, "encode", (features.quarter,))
        return self._codes.latents(features)

    def decode(self, latents: Tensor, source: Features, style: Tensor) -> Tensor:
        noted(self._found, "decode", (fitting(latents.float(), source), source.half, source.quarter, style))
        return self._codes.decode(latents, source, style)


class _DenoiseRecord:
    def __init__(self, denoise: Denoises, found: Inputs) -> None:
        self._denoise, self._found = denoise, found

    def __call__(self, frame: Frame) -> Tensor:
        noted(self._found, "denoise", frame.inputs)
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
