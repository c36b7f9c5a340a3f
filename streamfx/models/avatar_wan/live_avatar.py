"""Live Avatar (arXiv 2512.04677): blocks of latent frames in few steps, each with the past as that step saw it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from streamfx.core.errors import UsageError
from streamfx.diffusion.kv_cache import CacheSize, LayerCache
from streamfx.diffusion.kv_store import Storage
from streamfx.diffusion.rope import Rope3D
from streamfx.diffusion.schedules import Schedule, flow
from streamfx.models.avatar_wan.anchor import MOTION, Anchored
from streamfx.models.avatar_wan.injection import FRAMES, LEAD
from streamfx.models.avatar_wan.speaker import SpeakingWan
from streamfx.models.causal_wan.dit import PATCH, Prompt
from streamfx.models.causal_wan.vae import VideoVae

BLOCK = 3
"""Latent frames that are drawn together."""

WINDOW = 9
"""Latent frames before a block that it sees: with its own, the twelve of a clip in training."""

_LAST = 1000 * 0.003 / 1.002
"""Where the steps end, in unshifted time: diffusers' Euler scheduler, which the model was distilled with, begins its
even steps at 1000 and ends them where the noise that it knows is least, at the shift of 3."""


_LEAST = 64
"""Pixels of a side: motion that is packed by four has a token for each 64."""


def live_schedule(steps: int = 4, shift: float = 3.0) -> Schedule:
    """The steps of Live Avatar. Raises ``ValueError`` for fewer than 2."""
    if steps < 2:
        raise ValueError(f"Live Avatar takes 2 steps or more, not {steps}")
    return flow([1000 - (1000 - _LAST) * n / (steps - 1) for n in range(steps)], shift)


class LiveAvatar:
    """Draws a person to sound. ``picture``: ``(3, H, W)`` in [-1, 1], of the person, H and W multiples of 16. ``vae``:
    steady. ``fps``: 25 for Live Avatar; Wan2.2-S2V by itself was trained at 16.

    The reference is the picture at first, and the model's own first frame once the window has been filled ("adaptive
    attention sink"): nobody then changes back into a picture that was lit another way. Every step has a row of the
    cache of its own, so that each may run on a GPU of its own.
    """

    def __init__(
        self,
        model: SpeakingWan,
        vae: VideoVae,
        prompt: Prompt,
        picture: Tensor,
        *,
        schedule: Schedule | None = None,
        fps: int = 25,
        block: int = BLOCK,
        window: int = WINDOW,
        storage: Storage = "same",
        seed: int = 0,
    ) -> None:
        self.fps = fps
        self.frames = FRAMES * block
        self.hears = LEAD + self.frames
        self._model, self._vae, self._prompt, self._seed = model, vae, prompt, seed
        self._block, self._adapts_at = block, window + block
        weight = model.patch_embedding.weight
        self._schedule = (schedule or live_schedule()).to(weight.device, weight.dtype)
        if min(picture.shape[-2:]) < _LEAST:
            sides = f"{picture.shape[-1]} x {picture.shape[-2]}"
            raise UsageError(f"the picture is {sides}; both sides must be {_LEAST} pixels at least: take a larger side")
        vae.reset()
        # Of a still picture, and so is the latent that it opens with, which is the reference.
        still = vae.encode(picture.expand(MOTION * FRAMES, -1, -1, -1)).to(weight.device, weight.dtype)
        self._motion = still
        grid = still.shape[-2] // PATCH, still.shape[-1] // PATCH
        size = CacheSize(self._schedule.steps, 0, window, grid[0] * grid[1], model.size.heads, model.size.head_dim)
        self.caches: Sequence[LayerCache] = [
            LayerCache(size, dtype=weight.dtype, device=weight.device, storage=storage) for _ in model.blocks
        ]
        self._rope = Rope3D(model.size.head_dim, grid, window + block, device=weight.device)
        self.reset()

    def takes(self, layers: int, dim: int) -> bool:
        """As ``Draws``."""
        return (layers, dim) == (self._model.sound.layers, self._model.sound.dim)

    @torch.no_grad()
    def draw(self, features: Tensor) -> Tensor:
        """As ``Draws``."""
        heard = self._model.listen(features, self._block)
        x = torch.randn(
            (self._block, *self._motion.shape[1:]),
            generator=self._draw,
            device=self._motion.device,
            dtype=self._motion.dtype,
        )
        tables, steps = self._schedule, self._schedule.steps
        for step in range(steps):
            see = [
                Anchored(anchor, cache, step, self._rope)
                for anchor, cache in zip(self._anchor.layers, self.caches, strict=True)
            ]
            velocity = self._model.speak(x, tables.timesteps[step : step + 1], self._prompt, heard, see)
            here, ahead = slice(step, step + 1), slice(step + 1, step + 2)
            clean = tables.x0(x, velocity, here)
            # The noise stays the one that it was: a step of Euler's.
            x = clean if step == steps - 1 else tables.noised(clean, tables.noise_of(x, velocity, here), ahead)
        self._remember(x)
        return self._vae.decode(x)

    @torch.no_grad()
    def set_prompt(self, prompt: Prompt) -> None:
        """From the next chunk on."""
        self._prompt = prompt
        self._anchor = self._model.anchor(self._reference, self._motion, prompt)

    @torch.no_grad()
    def reset(self) -> None:
        """As ``Draws``."""
        self._draw = torch.Generator(self._motion.device).manual_seed(self._seed)
        self._made = 0
        self._first: Tensor | None = None
        self._reference = self._motion[0]
        for cache in self.caches:
            cache.reset()
        self._vae.reset()
        # The stream goes on from the picture, which is not shown: a video's first latent is of a single frame.
        self._vae.decode(self._motion[:1])
        self.set_prompt(self._prompt)

    def _remember(self, clean: Tensor) -> None:
        """Notes the first frame of all, and holds on to it once the window has been filled."""
        if self._made >= self._adapts_at:
            return
        if self._first is None:
            self._first = clean[0].clone()
        self._made += self._block
        if self._made >= self._adapts_at:
            self._reference = self._first
            self.set_prompt(self._prompt)
