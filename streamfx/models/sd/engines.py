"""Stable Diffusion as a workload for engines: its parts, what a stream calls them with, and how engines take over."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from streamfx.diffusion.guidance import Guidance, Mode
from streamfx.engines.base import Engine, Part
from streamfx.engines.build import Frames, Order, Workload
from streamfx.engines.recipe import Recipe
from streamfx.engines.takeover import EngineTakeover, Inputs, noted, thinned
from streamfx.models.sd.load import TextEncoder, load
from streamfx.models.sd.network import StableDiffusion
from streamfx.models.sd.parts import EnginePiece, parts
from streamfx.models.sd.stream import Look, SdStream, quicker

_LEVELS = 3


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What ``load`` reads, in JSON values: places are resolved. ``dtype``: ``float16`` …"""

    place: str
    vae: str
    loras: Sequence[tuple[str, float]]
    device: str
    dtype: str
    offline: bool

    def loaded(self, control: str | None = None) -> tuple[StableDiffusion, TextEncoder]:
        """As the stream has it. ``control``: a ControlNet's place. Raises as ``load`` does."""
        return self._on(self.device, getattr(torch, self.dtype), control)

    def exact(self) -> StableDiffusion:
        """In single precision, on the CPU."""
        return self._on("cpu", torch.float32)[0]

    @property
    def is_exact(self) -> bool:
        return (self.device, self.dtype) == ("cpu", "float32")

    def _on(self, device: str, dtype: torch.dtype, control: str | None = None) -> tuple[StableDiffusion, TextEncoder]:
        return load(
            self.place,
            vae=self.vae,
            loras=[(place, weight) for place, weight in self.loras],
            control=control,
            device=device,
            dtype=dtype,
            offline=self.offline,
        )


def order(
    checkpoint: Checkpoint,
    size: tuple[int, int],
    frames: Sequence[int],
    steps: int,
    guidance: Mode,
    engine: str,
    threads: int,
) -> Order:
    """``size``: (width, height) of the network's pictures. ``frames``: all numbers of them that a step may take.
    ``steps``, ``guidance``: at the best level of quality; those of the others follow."""
    about = asdict(checkpoint) | {"loras": [[place, weight] for place, weight in checkpoint.loras]}
    given = {"checkpoint": about, "size": list(size), "frames": list(frames), "steps": steps, "guidance": guidance}
    given |= {"threads": threads}
    return Order("streamfx.models.sd.engines:workload", given, engine, threads, checkpoint.device)


def workload(
    checkpoint: Mapping[str, Any],
    size: Sequence[int],
    frames: Sequence[int],
    steps: int,
    guidance: Mode,
    threads: int,
) -> Workload:
    """Of ``order``."""
    torch.set_num_threads(threads)
    known = Checkpoint(**checkpoint)
    usual, text = known.loaded()
    exact = usual if known.is_exact else known.exact()
    width, height = size
    best = Look(steps=steps, guidance=Guidance(guidance))

    def stream() -> SdStream:
        return SdStream(StableDiffusion(usual.unet, usual.vae, usual.device, usual.dtype), text)

    def pictures(count: int) -> Tensor:
        chance = torch.Generator().manual_seed(count)
        return (torch.rand(count, 3, height, width, generator=chance) * 2 - 1).to(usual.device, usual.dtype)

    def samples(_: Frames) -> Inputs:
        found: Inputs = {}
        for count in frames:
            subject, shown = stream(), pictures(count)
            for look in dict.fromkeys(quicker(best, level) for level in range(_LEVELS)):
                subject.reset()
                for n in range(look.steps):
                    with recorded(subject) as inputs:
                        subject.step(shown, [float(n)] * count, look)
                    for name, some in inputs.items():
                        found[name] = thinned([*found.get(name, ()), *some])
        return found

    def run(engines: Mapping[str, Engine]) -> Callable[[], object]:
        subject, shown = stream(), pictures(1)
        use(subject, engines)
        return lambda: subject.step(shown, [0.0], best)

    return Workload(all_parts(exact), samples, run, Recipe.plain(usual.dtype))


def all_parts(exact: StableDiffusion) -> dict[str, Part]:
    """Of ``parts``. ``exact``: in single precision, on the CPU."""
    return parts(exact.unet, exact.vae)


def use(stream: SdStream, engines: Mapping[str, Engine]) -> None:
    """From the next picture on. What has no engine, or none that is ready for its shape, runs as it did."""
    pieces, dtype = stream.model.pieces, stream.model.dtype
    for name, engine in engines.items():
        pieces[name] = EnginePiece(engine, pieces[name], dtype)


def takeover(stream: SdStream, checkpoint: Checkpoint, wanted: Order, told: Callable[[str], None]) -> EngineTakeover:
    """Engines for a stream of ``checkpoint`` that runs. ``told``: see ``EngineTakeover``. Unless the stream is in
    single precision on the CPU, the model is loaded once more so, to hold the engines against."""
    of = all_parts(stream.model if checkpoint.is_exact else checkpoint.exact())
    return EngineTakeover(wanted, of, partial(use, stream), partial(recorded, stream), told)


@contextmanager
def recorded(stream: SdStream) -> Iterator[Inputs]:
    """What the parts are called with meanwhile, as engines would be."""
    found: Inputs = {}
    pieces = stream.model.pieces
    before = dict(pieces)

    def noting(name: str, piece: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def call(*given: Tensor) -> Tensor:
            noted(found, name, given)
            return piece(*given)

        return call

    pieces.update({name: noting(name, piece) for name, piece in before.items()})
    try:
        yield found
    finally:
        pieces.update(before)
