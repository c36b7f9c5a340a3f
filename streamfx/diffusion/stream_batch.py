"""The stream batch: one model call a frame denoises several consecutive frames, each at another step.

StreamDiffusion (arXiv 2312.12491), section 3.1. Of T steps, the newest frame is at step 0 (the noisiest) and the oldest
at step T - 1; a call moves every frame on by one. The output is T - 1 calls late, and a call costs a batch of T rows
instead of T calls.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from streamfx.diffusion.guidance import Guidance
from streamfx.diffusion.schedules import Schedule
from streamfx_kernels.guided_step import Mode, guided_step


@dataclass(frozen=True, slots=True)
class Call:
    """What the rows of a model call are. ``steps``: step of each row; a causal model keeps a KV cache for each.
    ``frames``: latents a row has. ``unconditional``: how many rows there are besides, before the others, that leave the
    prompt out: none, one (a copy of row 0), or as many as ``steps``."""

    steps: tuple[int, ...]
    frames: int
    unconditional: int = 0


class Model(Protocol):
    """A denoiser. It may keep a state (a KV cache) by ``Call.steps``, which ``reset`` clears."""

    def __call__(self, x: Tensor, timesteps: Tensor, call: Call) -> Tensor:
        """``x``: ``(R, F, C, H, W)``, ``timesteps``: ``(R,)``, R rows with the unconditional ones first. Returns the
        prediction, ``(R, F, C, H, W)``."""
        ...


_MODES: dict[str, Mode] = {"none": "none", "full": "full", "self": "residual", "onetime": "residual"}


class StreamBatch:
    """Denoises a stream of latents: each frame comes out ``lag`` calls after it went in.

    ``noise``: ``(T_max, F, C, H, W)``, the fixed noise of each step: the stream keeps it, so that still pictures stay
    still. ``F``: latents a call, which go through the steps together. ``seed``: noise is drawn anew for every row and
    step instead, as video models that are distilled with it want; of ``noise`` only shape and place count then.

    Between calls it holds clean estimates, not noisy latents, so schedule and guidance may change at any time without
    making wrong what is in flight.
    """

    def __init__(
        self,
        model: Model,
        schedule: Schedule,
        noise: Tensor,
        guidance: Guidance | None = None,
        seed: int | None = None,
    ) -> None:
        if noise.ndim != 5 or noise.shape[0] < schedule.steps:
            raise ValueError(f"noise of shape {tuple(noise.shape)} must be (steps or more, F, C, H, W)")
        self.guidance = guidance or Guidance()
        self._model = model
        self._noise = noise
        self._seed = seed
        self._indices: dict[tuple[int, ...], Tensor] = {}
        self._take(schedule)
        self.reset()

    @property
    def schedule(self) -> Schedule:
        return self._schedule

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of the latents of a call: (F, C, H, W)."""
        frames, channels, height, width = self._noise.shape[1:]
        return frames, channels, height, width

    @property
    def lag(self) -> int:
        """Calls by which the output is behind the input: T - 1."""
        return self._schedule.steps - 1

    @property
    def in_flight(self) -> int:
        """Frames (of F latents) that went in and have not come out."""
        return len(self._done)

    def reset(self) -> None:
        """Forgets what is in flight: a scene cut, another stream."""
        self._done: tuple[int, ...] = ()  # the last step of each row in flight
        self._clean = self._residual = self._ahead = self._noise[:0]
        if self._seed is not None:
            self._draw = torch.Generator(self._noise.device).manual_seed(self._seed)

    def set_schedule(self, schedule: Schedule) -> None:
        """Other steps from the next call on, perhaps more or fewer. What is in flight goes on from where it is, by the
        number of steps it has had; with fewer steps, frames that would be finished are left out, with more, as many
        calls give nothing. Raises ``ValueError`` if there is no noise for so many."""
        if schedule is self._given:
            return
        if schedule.steps > self._noise.shape[0]:
            raise ValueError(f"{schedule.steps} steps are more than the {self._noise.shape[0]} there is noise for")
        self._take(schedule)
        kept = sum(step < schedule.steps - 1 for step in self._done)
        self._done = self._done[:kept]
        self._clean, self._residual, self._ahead = self._clean[:kept], self._residual[:kept], self._ahead[:kept]

    def _take(self, schedule: Schedule) -> None:
        self._given = schedule
        self._schedule = schedule.to(self._noise.device, self._noise.dtype)
        self._coefficients = schedule.coefficients.to(self._noise.device)

    @torch.no_grad()
    def step(self, source: Tensor | None) -> Tensor | None:
        """Takes the clean latents of the newest frame, ``(F, C, H, W)``, and gives a finished one, or None while there
        is none. ``source`` None: the stream has ended, what is in flight goes on."""
        steps = (*([] if source is None else [0]), *(step + 1 for step in self._done))
        if not steps:
            return None
        rows = self._index(steps)
        fresh = len(steps) - len(self._done)
        noise = torch.cat([self._drawn(rows[:fresh]), self._ahead])
        clean = self._clean if source is None else torch.cat([source[None], self._clean])
        residual = self._residual
        if len(residual) != len(self._done):  # residual guidance was just switched on
            residual = noise[fresh:]
        residual = torch.cat([noise[:fresh], residual])
        x = self._schedule.noised(clean, noise, rows)
        prediction, other = self._predict(x, residual, rows, steps)
        unfinished = len(steps) - (steps[-1] == self._schedule.steps - 1)
        self._ahead = self._drawn(rows[:unfinished] + 1)
        guidance = self.guidance
        clean, following = guided_step(
            x,
            prediction,
            other,
            self._ahead if guidance.residual else None,
            self._coefficients[rows],
            self._schedule.kind,
            _MODES[guidance.mode],
            guidance.scale,
            guidance.delta,
        )
        self._done, self._clean = steps[:unfinished], clean[:unfinished]
        self._residual = self._noise[:0] if following is None else following
        return clean[-1] if unfinished < len(steps) else None

    def drain(self) -> list[Tensor]:
        """Finishes what is in flight, oldest first: ``(F, C, H, W)`` each."""
        out: list[Tensor] = []
        while self._done:
            finished = self.step(None)
            if finished is not None:
                out.append(finished)
        return out

    def _predict(
        self, x: Tensor, residual: Tensor, rows: Tensor, steps: tuple[int, ...]
    ) -> tuple[Tensor, Tensor | None]:
        """The model's prediction for rows ``x``, and what it is guided away from: the prediction without the prompt, or
        the residual noise."""
        guidance, frames = self.guidance, int(x.shape[1])
        extra = {"full": len(steps), "onetime": int(steps[0] == 0)}.get(guidance.mode, 0)
        timesteps = self._schedule.timesteps[rows]
        whole = torch.cat([x[:extra], x]) if extra else x
        times = torch.cat([timesteps[:extra], timesteps]) if extra else timesteps
        answer = self._model(whole, times, Call(steps, frames, extra))
        negative, conditional = answer[:extra], answer[extra:]
        if guidance.mode == "none":
            return conditional, None
        if guidance.mode == "full":
            return conditional, negative
        if extra:
            # From here on the newest row's residual is what the model itself says without the prompt.
            residual = torch.cat([self._schedule.noise_of(x[:1], negative, rows[:1]), residual[1:]])
        return conditional, residual

    def _drawn(self, rows: Tensor) -> Tensor:
        """The noise that rows are given for their steps ``rows``."""
        if self._seed is None:
            return self._noise[rows]
        shape = (len(rows), *self._noise.shape[1:])
        return torch.randn(shape, generator=self._draw, device=self._noise.device, dtype=self._noise.dtype)

    def _index(self, steps: tuple[int, ...]) -> Tensor:
        """``steps`` as a tensor, made once for each set of rows: a steady stream copies nothing to the device."""
        if steps not in self._indices:
            self._indices[steps] = torch.tensor(steps, device=self._noise.device)
        return self._indices[steps]
