"""Causal Wan as a workload for engines: its transformer, what a stream calls it with, and how an engine takes over."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from streamfx.diffusion.guidance import Guidance, Mode
from streamfx.diffusion.kv_cache import LayerCache
from streamfx.diffusion.rope import Rope3D
from streamfx.engines.base import Engine, Part
from streamfx.engines.build import Frames, Order, Workload
from streamfx.engines.recipe import Recipe
from streamfx.engines.takeover import EngineTakeover, Inputs, noted, thinned
from streamfx.models.causal_wan.dit import TEXT_TOKENS, CausalWan, Denoises, Prompt, WanSize, sinusoid
from streamfx.models.causal_wan.load import load_generator
from streamfx.models.causal_wan.lora import fuse
from streamfx.models.causal_wan.parts import Asked, EngineWan, denoiser, inputs
from streamfx.models.causal_wan.vae import load_vae
from streamfx.models.causal_wan.video import CHUNK, Memory, VideoLook, WanVideo

_LATENT, _SLOTS = (4, 6), 4
"""Of the example that the transformer is exported with: a small one, for all lengths may be others later."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A generator with its LoRAs, in JSON values: places are resolved. ``dtype``: ``bfloat16`` …"""

    place: str
    loras: Sequence[tuple[str, float]]
    device: str
    dtype: str

    def loaded(self) -> CausalWan:
        """As the stream has it. Raises as ``load_generator`` and ``fuse`` do."""
        return self._on(self.device, getattr(torch, self.dtype))

    def exact(self) -> CausalWan:
        """In single precision, on the CPU."""
        return self._on("cpu", torch.float32)

    @property
    def is_exact(self) -> bool:
        return (self.device, self.dtype) == ("cpu", "float32")

    def _on(self, device: str, dtype: torch.dtype) -> CausalWan:
        model = load_generator(self.place, device=device, dtype=dtype)
        for place, weight in self.loras:
            fuse(model, place, weight)
        return model


def order(
    checkpoint: Checkpoint,
    vae: str,
    memory: Memory,
    size: tuple[int, int],
    steps: Sequence[int],
    guidance: Mode,
    engine: str,
    threads: int,
    offline: bool = False,
) -> Order:
    """``vae``: its place, as ``load_vae`` takes it. ``size``: (width, height) of the network's pictures. ``steps``: at
    each level of quality, the best first."""
    about = asdict(checkpoint) | {"loras": [[place, weight] for place, weight in checkpoint.loras]}
    given: dict[str, Any] = {
        "checkpoint": about,
        "vae": vae,
        "memory": asdict(memory),
        "size": list(size),
        "steps": list(steps),
    }
    given |= {"guidance": guidance, "threads": threads, "offline": offline}
    return Order("streamfx.models.causal_wan.engines:workload", given, engine, threads, checkpoint.device)


def workload(
    checkpoint: Mapping[str, Any],
    vae: str,
    memory: Mapping[str, Any],
    size: Sequence[int],
    steps: Sequence[int],
    guidance: Mode,
    threads: int,
    offline: bool,
) -> Workload:
    """Of ``order``. Prompts are noise: the text encoder is not needed."""
    torch.set_num_threads(threads)
    known = Checkpoint(**checkpoint)
    usual = known.loaded()
    exact = usual if known.is_exact else known.exact()
    weight = usual.patch_embedding.weight
    width, height = size

    def noise(*shape: int) -> Tensor:
        chance = torch.Generator().manual_seed(sum(shape))
        return torch.randn(*shape, generator=chance).to(weight.device, weight.dtype)

    prompts = [_prompt(usual, noise(TEXT_TOKENS, usual.size.text_dim) * n) for n in (1, 0)]
    looks = [
        VideoLook(calm=0.0, cuts=False, steps=count, guidance=Guidance(guidance)) for count in dict.fromkeys(steps)
    ]
    shown = noise(CHUNK, 3, height, width).clamp(-1, 1)

    def stream() -> WanVideo:
        codes = load_vae(vae, device=known.device, dtype=weight.dtype, offline=offline)
        negative = prompts[1] if guidance in ("full", "onetime") else None
        return WanVideo(usual, codes, prompts[0], memory=Memory(**memory), negative=negative)

    def samples(_: Frames) -> Inputs:
        found: Inputs = {}
        subject = stream()
        for look in looks:
            for _n in range(look.steps + 1):
                with recorded(subject) as some:
                    subject.step(shown, [0.0] * CHUNK, look)
                found["denoise"] = thinned([*found.get("denoise", ()), *some.get("denoise", ())])
        return found

    def run(engines: Mapping[str, Engine]) -> Callable[[], object]:
        subject = stream()
        use(subject, engines)
        return lambda: subject.step(shown, [0.0] * CHUNK, looks[0])

    return Workload(all_parts(exact), samples, run, Recipe.plain(weight.dtype))


def all_parts(exact: CausalWan) -> dict[str, Part]:
    """Of ``denoiser``; the autoencoder stays in torch. ``exact``: in single precision, on the CPU."""
    return {"denoise": denoiser(exact, _LATENT, slots=_SLOTS)}


def use(stream: WanVideo, engines: Mapping[str, Engine]) -> None:
    """From the next chunk on. For shapes that the engine is not ready for, the model runs as it did."""
    if "denoise" in engines:
        stream.denoise = EngineWan(engines["denoise"], stream.denoise, stream.size)


def takeover(
    stream: WanVideo, model: CausalWan, checkpoint: Checkpoint, wanted: Order, told: Callable[[str], None]
) -> EngineTakeover:
    """Engines for a stream that runs, of ``model``, which is ``checkpoint``. ``told``: see ``EngineTakeover``. Unless
    it is in single precision on the CPU, it is loaded once more so, to hold the engines against."""
    of = all_parts(model if checkpoint.is_exact else checkpoint.exact())
    return EngineTakeover(wanted, of, partial(use, stream), partial(recorded, stream), told)


@contextmanager
def recorded(stream: WanVideo) -> Iterator[Inputs]:
    """What the transformer is called with meanwhile, as an engine would be."""
    found: Inputs = {}
    before = stream.denoise
    stream.denoise = _Record(before, found, stream.size)
    try:
        yield found
    finally:
        stream.denoise = before


class _Record:
    def __init__(self, denoise: Denoises, found: Inputs, size: WanSize) -> None:
        self._denoise, self._found, self._size = denoise, found, size
        self._asked = Asked()

    def __call__(
        self,
        x: Tensor,
        timesteps: Tensor,
        prompt: Prompt,
        caches: Sequence[LayerCache],
        rope: Rope3D,
        rows: Sequence[int] | None = None,
        remember: bool = False,
    ) -> Tensor:
        of = range(len(x)) if rows is None else rows
        waves = sinusoid(timesteps, self._size.time_dim)
        noted(self._found, "denoise", inputs(x, waves, self._asked(prompt), caches, rope, of))
        return self._denoise(x, timesteps, prompt, caches, rope, rows, remember)


@torch.no_grad()
def _prompt(model: CausalWan, text: Tensor) -> Prompt:
    return model.prepare(text)
