"""Classifier-free guidance, and residual guidance that does without its second model call.

StreamDiffusion (arXiv 2312.12491), section 3.2: the unconditional prediction is replaced by the noise that would lead
from the source to the present latent. That noise is known: it is what was added, corrected after each step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from streamfx.diffusion.schedules import Schedule, wide

Mode = Literal["none", "full", "self", "onetime"]


@dataclass(frozen=True, slots=True)
class Guidance:
    """How strongly the prompt pulls.

    ``mode``: none; full (an unconditional row beside each); self-negative (no extra row); onetime-negative (one extra
    row a call, for the first step). ``scale``: g, 1 leaves the prediction as it is. ``delta``: weight of the residual;
    less of it, with more scale, means more style.
    """

    mode: Mode = "none"
    scale: float = 1.2
    delta: float = 1.0

    @property
    def residual(self) -> bool:
        """Whether rows carry a residual noise from step to step."""
        return self.mode in ("self", "onetime")


def combine(conditional: Tensor, negative: Tensor, scale: float) -> Tensor:
    """``negative + scale (conditional - negative)``."""
    return torch.lerp(negative, conditional, scale)


def next_residual(
    schedule: Schedule, guided_noise: Tensor, residual: Tensor, next_noise: Tensor, steps: Tensor
) -> Tensor:
    """The residual noise of rows at ``steps`` ``(R,)`` for the step after: it is to point back at the source.

    ``guided_noise``, ``residual``: ``(R, …)``, of the step that was just done. ``next_noise``: ``(R, …)``, the fixed
    noise that each row is renoised with next. No row may be at the last step.
    """
    alone = wide(schedule.sigma[steps], residual) * residual
    # What the step makes of the residual noise alone: how far it moves the latent off its source.
    moved = schedule.x0(alone, schedule.prediction_of(alone, guided_noise, steps), steps)
    return next_noise + wide(schedule.alpha[steps + 1] / schedule.sigma[steps + 1], residual) * moved
