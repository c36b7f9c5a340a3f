"""The transformer at work on one stream: with its caches, its prompt, and the frames that are in the caches."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import torch
from torch import Tensor

from streamfx.diffusion.kv_cache import CacheSize, LayerCache, Policy, Sink
from streamfx.diffusion.kv_store import Storage
from streamfx.diffusion.rope import Rope3D
from streamfx.diffusion.stream_batch import Call
from streamfx.models.causal_wan.dit import CausalWan, Denoises, Prompt

_PATCH = 2


class _WithCaches:
    """What both ways to stream share. ``latent``: (height, width) of the latents, even. ``most_frames``: that may see
    each other in a call."""

    def __init__(
        self,
        model: CausalWan,
        prompt: Prompt,
        latent: tuple[int, int],
        rows: int,
        sinks: int,
        window: int,
        most_frames: int,
        policy: Callable[[], Policy],
        storage: Storage,
    ) -> None:
        grid = latent[0] // _PATCH, latent[1] // _PATCH
        weight = model.patch_embedding.weight
        shape = CacheSize(rows, sinks, window, grid[0] * grid[1], model.size.heads, model.size.head_dim)
        self.denoise: Denoises = model
        self.prompt = prompt
        self.caches = [
            LayerCache(shape, policy(), weight.dtype, weight.device, storage) for _ in range(model.size.layers)
        ]
        self._rope = Rope3D(model.size.head_dim, grid, shape.slots + most_frames, device=weight.device)

    def reset(self) -> None:
        """Forgets the past: another scene, another stream."""
        for cache in self.caches:
            cache.reset()


class SteppedWan(_WithCaches):
    """For ``StreamBatch``: every step has a cache row of its own, which holds keys and values as that step saw them
    (StreamDiffusionV2, arXiv 2511.07399). Unconditional rows have rows of their own as well."""

    def __init__(
        self,
        model: CausalWan,
        prompt: Prompt,
        latent: tuple[int, int],
        *,
        most_steps: int = 4,
        frames: int = 1,
        sinks: int = 3,
        window: int = 3,
        negative: Prompt | None = None,
        policy: Callable[[], Policy] = Sink,
        storage: Storage = "same",
    ) -> None:
        rows = most_steps * (2 if negative else 1)
        super().__init__(model, prompt, latent, rows, sinks, window, frames, policy, storage)
        self._negative = negative
        self._most_steps = most_steps

    def __call__(self, x: Tensor, timesteps: Tensor, call: Call) -> Tensor:
        extra = call.unconditional
        conditional = self._run(x[extra:], timesteps[extra:], self.prompt, call.steps)
        if not extra:
            return conditional
        if self._negative is None:
            raise ValueError("guidance with unconditional rows needs a negative prompt; give one, or use none or self")
        rows = tuple(self._most_steps + step for step in call.steps[:extra])
        return torch.cat([self._run(x[:extra], timesteps[:extra], self._negative, rows), conditional])

    def _run(self, x: Tensor, timesteps: Tensor, prompt: Prompt, rows: tuple[int, ...]) -> Tensor:
        return self.denoise(x, timesteps, prompt, self.caches, self._rope, rows, remember=True)


class JointWan(_WithCaches):
    """For ``RollingWindow``, and for denoising block after block: the past is of finished frames, run once more without
    noise. A change of prompt may run those again (KV-recache of LongLive, arXiv 2509.22622), so that the past does not
    hold on to the old one."""

    def __init__(
        self,
        model: CausalWan,
        prompt: Prompt,
        latent: tuple[int, int],
        *,
        most_frames: int = 12,
        sinks: int = 3,
        window: int = 6,
        policy: Callable[[], Policy] = Sink,
        storage: Storage = "same",
    ) -> None:
        super().__init__(model, prompt, latent, 1, sinks, window, most_frames, policy, storage)
        self._first: list[Tensor] = []
        self._last: deque[Tensor] = deque(maxlen=window)
        self._sinks = sinks

    def __call__(self, x: Tensor, timesteps: Tensor) -> Tensor:
        return self.denoise(x[None], timesteps[None], self.prompt, self.caches, self._rope)[0]

    def remember(self, clean: Tensor) -> None:
        for frame in clean:
            self._take(frame)
            if len(self._first) < self._sinks:
                self._first.append(frame)
            else:
                self._last.append(frame)

    def _take(self, frame: Tensor) -> None:
        still = torch.zeros(1, device=frame.device)
        self.denoise(frame[None, None], still, self.prompt, self.caches, self._rope, remember=True)

    @torch.no_grad()
    def set_prompt(self, prompt: Prompt, recache: bool = True) -> None:
        """Another prompt from the next call on.

        ``recache``: the frames of the past are run again with it, which costs a call for each. With sinks that change
        by themselves, the first frames take their places again.
        """
        self.prompt = prompt
        if recache:
            for cache in self.caches:
                cache.reset()
            for frame in (*self._first, *self._last):
                self._take(frame)

    def forget(self) -> None:
        self.reset()
        self._first.clear()
        self._last.clear()
