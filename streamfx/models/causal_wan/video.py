"""Wan on a stream of pictures: chunks of four frames through the autoencoder, the stepper, and back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

from streamfx.diffusion.guidance import Guidance
from streamfx.diffusion.kv_cache import AdaptiveSink, EmaSink, Policy, Rolling, Sink, TempCache
from streamfx.diffusion.kv_store import Storage
from streamfx.diffusion.labels import Labels
from streamfx.diffusion.noise import NoiseController
from streamfx.diffusion.rolling import RollingWindow
from streamfx.diffusion.schedules import Schedule, flow_from
from streamfx.diffusion.similarity import SimilarityFilter
from streamfx.diffusion.stream_batch import StreamBatch
from streamfx.models.causal_wan.dit import CausalWan, Denoises, Prompt, WanSize
from streamfx.models.causal_wan.stream import JointWan, SteppedWan
from streamfx.models.causal_wan.vae import VideoVae

CHUNK = 4
"""Frames a latent frame stands for."""

MOST_STEPS = 4

PolicyName = Literal["rolling", "sink", "adaptive", "ema", "tempcache"]

POLICIES: dict[PolicyName, Callable[[], Policy]] = {
    "rolling": Rolling,
    "sink": Sink,
    "adaptive": AdaptiveSink,
    "ema": EmaSink,
    "tempcache": TempCache,
}


@dataclass(frozen=True, slots=True)
class Memory:
    """How the past is kept. ``sinks``, ``window``: latent frames; ``rolling`` has no sinks."""

    policy: PolicyName = "sink"
    sinks: int = 3
    window: int = 3
    storage: Storage = "same"


@dataclass(frozen=True, slots=True)
class VideoLook:
    """What the video is to be like; all of it may change from call to call.

    ``strength``: share of noise that the source is given, above 0, to 1; at 1 only the prompt counts. ``calm``: by what
    share fast motion lowers it. ``steps``: 1 … 4. ``shift``: of the schedule. ``cuts``: whether the past is forgotten
    where the scene changes.
    """

    strength: float = 0.8
    calm: float = 0.2
    steps: int = 4
    shift: float = 5.0
    guidance: Guidance = field(default_factory=Guidance)
    cuts: bool = True


class WanVideo:
    """Restyles chunks of four pictures, each picture with a label.

    ``joint``: the blocks of the window are denoised together (Rolling Forcing), by as many steps as the first look has;
    else as a stream batch with a KV cache for each step (StreamDiffusionV2). ``negative``: what guidance with
    unconditional rows leaves out. ``vae``: steady.
    """

    def __init__(
        self,
        model: CausalWan,
        vae: VideoVae,
        prompt: Prompt,
        *,
        memory: Memory | None = None,
        joint: bool = False,
        negative: Prompt | None = None,
        seed: int = 0,
    ) -> None:
        self._model, self._vae = model, vae
        self._denoise: Denoises = model
        self._prompt, self._negative = prompt, negative
        self._memory = memory or Memory()
        self._joint = joint
        self._seed = seed
        self._noise = NoiseController()
        self._look: VideoLook | None = None
        self._cuts = SimilarityFilter(threshold=0.9999)
        self._labels: Labels[list[float | None]] = Labels()
        self._tail: list[float | None] = []
        self._size: tuple[int, int] | None = None
        self._stepper: _Batched | _Rolled | None = None
        self.cut = False
        """Whether the last chunk began another scene."""

    @property
    def lag(self) -> int:
        """Chunks by which the output is behind the input."""
        return self._stepper.lag if self._stepper else 0

    @property
    def size(self) -> WanSize:
        """Of the transformer."""
        return self._model.size

    @property
    def denoise(self) -> Denoises:
        """What draws from the next chunk on: the model, or an engine in its place."""
        return self._denoise

    @denoise.setter
    def denoise(self, denoise: Denoises) -> None:
        self._denoise = denoise
        if self._stepper is not None:
            self._stepper.model.denoise = denoise

    def reset(self) -> None:
        """Another scene, another stream: nothing is left of the past."""
        if self._stepper is not None:
            self._stepper.reset()
        self._vae.reset()
        self._labels.clear()
        self._tail = [None] * self._vae.lag
        self._cuts.reset()
        self._noise.reset()

    def set_prompt(self, prompt: Prompt) -> None:
        """From the next chunk on. With joint denoising the past is run again with it (KV-recache)."""
        self._prompt = prompt
        if self._stepper is not None:
            self._stepper.set_prompt(prompt)

    def step(self, pictures: Tensor, labels: list[float], look: VideoLook) -> tuple[Tensor, list[float]]:
        """Takes ``(4, 3, H, W)`` in [-1, 1], H and W multiples of 16. Returns as many pictures as are ready, up to
        four, with the labels of those they were made of."""
        if len(pictures) != CHUNK or len(labels) != CHUNK:
            raise ValueError(f"a chunk is of {CHUNK} pictures, each with its label, not of {len(pictures)}")
        stepper = self._prepared(pictures, look)
        # The pictures that come of this chunk's latent are those of these frames.
        shown = (self._tail + labels)[:CHUNK]
        self._tail = (self._tail + labels)[CHUNK:]
        self._labels.push(shown)
        strength = self._noise.update(pictures) if look.calm > 0 else look.strength
        latents = self._vae.encode(pictures)
        finished = stepper.step(latents, strength, look)
        if finished is None:
            return pictures[:0], []
        decoded = self._vae.decode(finished)
        of = self._labels.pop(stepper.lag)
        ready = [n for n, label in enumerate(of or []) if label is not None]
        return decoded[ready], [label for label in of or [] if label is not None]

    def _prepared(self, pictures: Tensor, look: VideoLook) -> _Batched | _Rolled:
        size = int(pictures.shape[-2]) // self._vae.shrink, int(pictures.shape[-1]) // self._vae.shrink
        before, self._look = self._look, look
        if before is None or (before.strength, before.calm) != (look.strength, look.calm):
            self._noise = NoiseController(look.strength, look.strength * (1 - 0.9 * look.calm))
        self.cut = look.cuts and self._cuts.judge(pictures[0]) == "cut"
        if self._stepper is None or size != self._size:
            self._size = size
            self._stepper = self._made(size, look)
            self._stepper.model.denoise = self._denoise
            self.reset()
        elif self.cut:
            self.reset()
            self._cuts.judge(pictures[0])
        return self._stepper

    def _made(self, size: tuple[int, int], look: VideoLook) -> _Batched | _Rolled:
        memory = self._memory
        sinks = 0 if memory.policy == "rolling" else memory.sinks
        policy, storage = POLICIES[memory.policy], memory.storage
        weight = self._model.patch_embedding.weight
        like = torch.empty(MOST_STEPS, 1, self._vae.channels, *size, device=weight.device, dtype=weight.dtype)
        first = schedule_for(look.strength, look.steps, look.shift)
        if self._joint:
            joint = JointWan(
                self._model,
                self._prompt,
                size,
                most_frames=look.steps,
                sinks=sinks,
                window=memory.window,
                policy=policy,
                storage=storage,
            )
            return _Rolled(joint, RollingWindow(joint, first, like, self._seed))
        stepped = SteppedWan(
            self._model,
            self._prompt,
            size,
            most_steps=MOST_STEPS,
            sinks=sinks,
            window=memory.window,
            negative=self._negative,
            policy=policy,
            storage=storage,
        )
        return _Batched(stepped, StreamBatch(stepped, first, like, seed=self._seed))


class _Batched:
    """The stream batch, as ``WanVideo`` drives it."""

    def __init__(self, model: SteppedWan, batch: StreamBatch) -> None:
        self.model, self._batch = model, batch

    @property
    def lag(self) -> int:
        return self._batch.lag

    def step(self, latents: Tensor, strength: float, look: VideoLook) -> Tensor | None:
        self._batch.set_schedule(schedule_for(strength, look.steps, look.shift))
        self._batch.guidance = look.guidance
        return self._batch.step(latents)

    def set_prompt(self, prompt: Prompt) -> None:
        self.model.prompt = prompt

    def reset(self) -> None:
        self._batch.reset()
        self.model.reset()


class _Rolled:
    """The rolling window, as ``WanVideo`` drives it. Its number of steps is what it began with."""

    def __init__(self, model: JointWan, window: RollingWindow) -> None:
        self.model, self._window = model, window

    @property
    def lag(self) -> int:
        return self._window.lag

    def step(self, latents: Tensor, strength: float, look: VideoLook) -> Tensor | None:
        self._window.set_schedule(schedule_for(strength, self._window.lag + 1, look.shift))
        return self._window.step(latents)

    def set_prompt(self, prompt: Prompt) -> None:
        self.model.set_prompt(prompt)

    def reset(self) -> None:
        self._window.reset()


def schedule_for(strength: float, steps: int, shift: float) -> Schedule:
    """The same object for about the same strength, so that nothing is copied to a device without need."""
    return _made(max(1, round(100 * strength)), steps, shift)


@lru_cache(maxsize=512)
def _made(percent: int, steps: int, shift: float) -> Schedule:
    return flow_from(percent / 100, steps, shift)
