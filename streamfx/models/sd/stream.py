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
        self.model, self._text, self._hint = model, text, hint
        self._fade = fade
        self._look: Look | None = None
        self._words: TextEmbedding | None = None
        self._goal: TextEmbedding | None = None
        self._left = 0
        self._batch: StreamBatch | None = None
        self._similarity = SimilarityFilter()
        self._noise = NoiseController()
        self._labels: Labels[list[float]] = Labels()
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

    def step(self, pictures: Tensor, labels: list[float], look: Look) -> tuple[Tensor, list[float]] | None:
        """Takes ``(F, 3, H, W)`` in [-1, 1], H and W multiples of 8 times the deepest layer's stride, of frames that go
        through the steps together. Returns pictures of the same shape and range with the labels of those they were made
        of; None while the steps fill up. Another shape than before begins anew."""
        batch = self._prepared(pictures, look)
        self._labels.push(labels)
        if look.threshold < 1 and self._judge(pictures) == "skip" and self._shown is not None:
            # What is in flight is of the same scene: the last picture stands for all of it.
            return self._given(self._shown[-1:].expand_as(self._shown), batch)
        batch.set_schedule(_schedule(look.steps, self._strength(pictures, look)))
        self._speak()
        if self._hint is not None:
            self.model.hint(self._hint(pictures))
        finished = batch.step(self.model.encode(pictures))
        if finished is None:
            return None
        self._shown = self.model.decode(finished)
        return self._given(self._shown, batch)

    def _given(self, pictures: Tensor, batch: StreamBatch) -> tuple[Tensor, list[float]] | None:
        labels = self._labels.pop(batch.lag)
        return None if labels is None else (pictures, labels)

    def _judge(self, pictures: Tensor) -> str:
        verdict = self._similarity.judge(pictures[-1])
        if verdict == "cut":
            self._noise.reset()
            if self._hint is not None:
                self._hint.reset()
        return verdict

    def _strength(self, pictures: Tensor, look: Look) -> float:
        return self._noise.update(pictures) if look.calm > 0 else look.strength

    def _prepared(self, pictures: Tensor, look: Look) -> StreamBatch:
        before, self._look = self._look, look
        if before is None or (before.strength, before.calm) != (look.strength, look.calm):
            self._noise = NoiseController(look.strength, look.strength * (1 - 0.9 * look.calm))
        if before is None or before.threshold != look.threshold:
            self._similarity = SimilarityFilter(min(look.threshold, 0.9999))
        if before is None or _of_words(before) != _of_words(look):
            self._ask(look)
        self.model.control_scale = look.control
        height, width = (int(side) // self.model.shrink for side in pictures.shape[-2:])
        shape = len(pictures), self.model.channels, height, width
        batch = self._batch
        if batch is None or before is None or before.seed != look.seed or batch.shape != shape:
            batch = StreamBatch(self.model, _schedule(look.steps, look.strength), self._drawn(look.seed, shape))
            self._labels.clear()
            self._batch, self._shown = batch, None
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
        self.model.set_prompt(self._words, negative)

    def _drawn(self, seed: int, shape: tuple[int, int, int, int]) -> Tensor:
        """Drawn on the CPU, so that a seed means the same everywhere; the same for all frames of a call, so that still
        pictures stay still."""
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(MOST_STEPS, 1, *shape[1:], generator=generator).expand(-1, shape[0], -1, -1, -1)
        return noise.to(self.model.device, self.model.dtype)


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
