"""Rolling-window denoising: the frames in flight see each other.

Rolling Forcing (arXiv 2509.25161). As in the stream batch, every call takes in a block at the noisiest step and gives
out one that is finished; but all blocks of the window, each at its own noise level, go through the model together, so
that a frame is drawn with a view of what follows as well. What has left the window becomes the past.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from streamfx.diffusion.schedules import Schedule


class JointModel(Protocol):
    """A video model whose frames see each other and a past that it keeps."""

    def __call__(self, x: Tensor, timesteps: Tensor) -> Tensor:
        """``x``: ``(N, C, H, W)``, N consecutive frames, oldest first; ``timesteps``: ``(N,)``, one each. Returns the
        prediction, like ``x``, and remembers nothing."""
        ...

    def remember(self, clean: Tensor) -> None:
        """Finished frames ``(F, C, H, W)`` that have left the window are the past from now on."""
        ...

    def forget(self) -> None:
        """Another scene."""
        ...


class RollingWindow:
    """Denoises a stream of blocks of F latents; each comes out ``lag`` calls after it went in.

    ``seed``: of the noise, which is fresh for every block and step (a window that is denoised jointly would otherwise
    show the same pattern in every frame).
    """

    def __init__(self, model: JointModel, schedule: Schedule, like: Tensor, seed: int = 0) -> None:
        """``like``: a tensor of the latents' device and dtype."""
        self._model = model
        self._given = schedule
        self._schedule = schedule.to(like.device, like.dtype)
        self._like = like
        self._seed = seed
        self.reset()

    def set_schedule(self, schedule: Schedule) -> None:
        """Other noise levels from the next call on, of as many steps. Raises ``ValueError`` for another number."""
        if schedule is self._given:
            return
        if schedule.steps != self._schedule.steps:
            raise ValueError(f"a window of {self._schedule.steps} steps cannot go on with {schedule.steps}")
        self._given = schedule
        self._schedule = schedule.to(self._like.device, self._like.dtype)

    @property
    def lag(self) -> int:
        """Calls by which the output is behind the input: T - 1."""
        return self._schedule.steps - 1

    @property
    def in_flight(self) -> int:
        """Blocks that went in and have not come out."""
        return len(self._clean)

    def reset(self) -> None:
        """Forgets what is in flight, and the past."""
        self._clean: list[Tensor] = []  # newest first, as estimated so far
        self._draw = torch.Generator(self._like.device).manual_seed(self._seed)
        self._model.forget()

    @torch.no_grad()
    def step(self, source: Tensor) -> Tensor | None:
        """Takes the clean latents ``(F, C, H, W)`` of the newest block; gives a finished one, or None while the window
        fills. For text to video any source will do if the first step is pure noise."""
        return self._advance([source, *self._clean], first=0)

    def drain(self) -> list[Tensor]:
        """Finishes what is in flight, oldest first."""
        out: list[Tensor] = []
        first = 0
        while self._clean:
            first += 1
            finished = self._advance(self._clean, first)
            if finished is not None:
                out.append(finished)
        return out

    def _advance(self, blocks: list[Tensor], first: int) -> Tensor | None:
        """One call for ``blocks``, newest first, of which the newest is at step ``first``."""
        frames = int(blocks[0].shape[0])
        steps = torch.arange(first, first + len(blocks), device=self._like.device)
        clean = torch.stack(blocks)
        noise = torch.randn(clean.shape, generator=self._draw, device=clean.device, dtype=clean.dtype)
        x = self._schedule.noised(clean, noise, steps)
        # Oldest first, as time goes.
        timesteps = self._schedule.timesteps[steps].flip(0).repeat_interleave(frames)
        answer = self._model(x.flip(0).flatten(0, 1), timesteps).reshape(x.shape).flip(0)
        found: list[Tensor] = list(self._schedule.x0(x, answer, steps))
        if first + len(blocks) < self._schedule.steps:
            self._clean = found
            return None
        self._clean = found[:-1]
        self._model.remember(found[-1])
        return found[-1]
