"""Classifier-free guidance, and residual guidance that does without its second model call.

StreamDiffusion (arXiv 2312.12491), section 3.2: the unconditional prediction is replaced by the noise that would lead
from the source to the present latent. That noise is known: it is what was added, corrected after each step. The
mathematics is in ``streamfx_kernels.guided_step``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

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
