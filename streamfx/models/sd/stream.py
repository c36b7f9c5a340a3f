"""Stable Diffusion on a stream of pictures: similarity filter, encoder, stream batch, decoder."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import lru_cache

import torch
from torch import Tensor

from streamfx.diffusion.guidance import Guidance
from streamfx.diffusion.labels import Labels
from streamfx.diffusion.noise import NoiseController
from streamfx.diffusion.schedules import LCM_GRID, Schedule, lcm, lcm_indices
from streamfx.diffusion.similarity import SimilarityFilter
from streamfx.diffusion.stream_batch import StreamBatch
from streamfx.models.sd.control import Hint
from streamfx.models.sd.load import TextEncoder
from streamfx.models.sd.network import StableDiffusion, TextEmbedding

MOST_STEPS = 4


@dataclass(frozen=True, slots=True)
class Look:
    """What the pictures are to be like. All of it may change from call to call.

    ``prompt``, ``other``: blended, ``share`` of the way to the other. ``negative``: with full and onetime guidance.
    ``strength``: 0 (hardly changed) to 1 (only the prompt). ``calm``: by what share fast motion lowers it.
    ``steps``: 1 … 4. ``seed``: of the noise. ``threshold``: cosine similarity above which frames may be skipped; 1
    skips none. ``control``: weight of the ControlNet.
    """

    prompt: str = ""
    other: str = ""
    share: float = 0.0
    negative: str = ""
    strength: float = 0.5
    calm: float = 0.0
    steps: int = 1
    guidance: Guidance = field(default_factory=Guidance)
    seed: int = 0
    threshold: float = 1.0
    control: float = 1.0


class SdStream:
    """Restyles pictures one after the other, each with a label; results come out ``steps - 1`` pictures later.

    ``fade``: pictures over which a new prompt comes in.
    """

    def __init__(self, model: StableDiffusion, text: TextEncoder, hint: Hint | None = None, fade: int = 8) -> None:
        if model.controlled and hint is None:
            raise ValueError("a model with a ControlNet needs something that makes its hints")
        self._model, self._text, self._hint = model, text, hint
        self._fade = fade
        self._look: Look | None = None
        self._words: TextEmbedding | None = None
        self._goal: TextEmbedding | None = None
        self._left = 0
        self._batch: StreamBatch | None = None
        self._similarity = SimilarityFilter()
        self._noise = NoiseController()
        self._labels: Labels[float] = Labels()
        self._shown: Tensor | None = None

    def reset(self) -> None:
        """Another scene, another stream."""
        if self._batch is not None:
            self._batch.reset()
        self._labels.clear()
        self._similarity.reset()
        self._noise.reset()
        self._shown = None
        if self._hint is not None:
            self._hint.reset()

    def step(self, picture: Tensor, label: float, look: Look) -> tuple[Tensor, float] | None:
        """Takes ``(3, H, W)`` in [-1, 1], H and W multiples of 8 times the deepest layer's stride. Returns a picture of
        the same shape and range with the label of the one it was made of; None while the steps fill up."""
        batch = self._prepared(picture, look)
        self._labels.push(label)
        if look.threshold < 1 and self._judge(picture) == "skip" and self._shown is not None:
            # What is in flight is of the same scene: the last picture stands for all of it.
            return self._given(self._shown, batch)
        batch.set_schedule(_schedule(look.steps, self._strength(picture, look)))
        self._speak()
        if self._hint is not None:
            self._model.hint(self._hint(picture[None]))
        finished = batch.step(self._model.encode(picture[None]))
        if finished is None:
            return None
        self._shown = self._model.decode(finished)[0]
        return self._given(self._shown, batch)

    def _given(self, picture: Tensor, batch: StreamBatch) -> tuple[Tensor, float] | None:
        label = self._labels.pop(batch.lag)
        return None if label is None else (picture, label)

    def _judge(self, picture: Tensor) -> str:
        verdict = self._similarity.judge(picture)
        if verdict == "cut":
            self._noise.reset()
            if self._hint is not None:
                self._hint.reset()
        return verdict

    def _strength(self, picture: Tensor, look: Look) -> float:
        return self._noise.update(picture[None]) if look.calm > 0 else look.strength

    def _prepared(self, picture: Tensor, look: Look) -> StreamBatch:
        before, self._look = self._look, look
        if before is None or (before.strength, before.calm) != (look.strength, look.calm):
            self._noise = NoiseController(look.strength, look.strength * (1 - 0.9 * look.calm))
        if before is None or before.threshold != look.threshold:
            self._similarity = SimilarityFilter(min(look.threshold, 0.9999))
        if before is None or _of_words(before) != _of_words(look):
            self._ask(look)
        self._model.control_scale = look.control
        size = (int(picture.shape[-2]) // self._model.shrink, int(picture.shape[-1]) // self._model.shrink)
        batch = self._batch
        if batch is None or before is None or before.seed != look.seed or batch.latent != size:
            batch = StreamBatch(self._model, _schedule(look.steps, look.strength), self._drawn(look.seed, size))
            self._labels.clear()
            self._batch = batch
        batch.guidance = look.guidance
        return batch

    def _ask(self, look: Look) -> None:
        """Sets out for another prompt; the first is there at once."""
        goal = self._text.embed(look.prompt)
        if look.share > 0:
            goal = goal.blended(self._text.embed(look.other), look.share)
        self._goal = goal
        self._left = self._fade if self._words is not None else 1

    def _speak(self) -> None:
        """Brings the prompt a step nearer to what is asked for."""
        if self._left == 0 or self._goal is None or self._look is None:
            return
        self._words = self._goal if self._words is None else self._words.blended(self._goal, 1 / self._left)
        self._left -= 1
        negative = self._text.embed(self._look.negative) if self._look.negative else None
        self._model.set_prompt(self._words, negative)

    def _drawn(self, seed: int, size: tuple[int, int]) -> Tensor:
        """Drawn on the CPU, so that a seed means the same everywhere."""
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(MOST_STEPS, 1, self._model.channels, *size, generator=generator)
        return noise.to(self._model.device, self._model.dtype)


def quicker(look: Look, level: int) -> Look:
    """A cheaper way to about the same: at ``level`` 1 half the steps (and no unconditional row), at 2 a single one."""
    if level == 0:
        return look
    guidance = look.guidance
    if guidance.mode in ("full", "onetime"):
        guidance = replace(guidance, mode="self")
    return replace(look, steps=1 if level > 1 else (look.steps + 1) // 2, guidance=guidance)


def _of_words(look: Look) -> tuple[str, str, float, str]:
    return look.prompt, look.other, look.share, look.negative


def _schedule(steps: int, strength: float) -> Schedule:
    """As many of the steps as a small strength has room for."""
    first = min(LCM_GRID - 1, round(LCM_GRID * (1 - strength)))
    return _made(min(steps, LCM_GRID - first), first)


@lru_cache(maxsize=LCM_GRID * MOST_STEPS)
def _made(steps: int, first: int) -> Schedule:
    return lcm(lcm_indices(steps, 1 - first / LCM_GRID))
