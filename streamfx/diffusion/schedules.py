"""Noise schedules for few-step denoising, as tables of one row a step.

Two families, one face: a latent at row ``i`` is ``alpha[i] x0 + sigma[i] noise``.

- ``epsilon``: Stable Diffusion's variance-preserving schedule; the model predicts the noise. With the consistency
  boundary of latent consistency models (arXiv 2310.04378): ``x0 = c_out (x - sigma eps) / alpha + c_skip x``.
- ``flow``: rectified flow (arXiv 2210.02747); ``alpha = 1 - s``, ``sigma = s``, the model predicts ``noise - x0``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Prediction = Literal["epsilon", "flow"]

TRAIN_STEPS = 1000
LCM_GRID = 50
"""Steps of the grid that latent consistency models were distilled on; ``lcm`` takes indices into it."""

_BETA_FIRST, _BETA_LAST = 0.00085, 0.012
_SIGMA_DATA = 0.5
_TIMESTEP_SCALING = 10.0


@dataclass(frozen=True, slots=True)
class Schedule:
    """The steps of one way to denoise, noisiest first.

    ``timesteps``: ``(T,)``, what the model is told. ``alpha``, ``sigma``, ``c_skip``, ``c_out``: ``(T,)``, of the
    latents' dtype. All on one device.
    """

    kind: Prediction
    timesteps: Tensor
    alpha: Tensor
    sigma: Tensor
    c_skip: Tensor
    c_out: Tensor

    @property
    def steps(self) -> int:
        """T."""
        return int(self.timesteps.shape[0])

    def to(self, device: torch.device | str, dtype: torch.dtype) -> Schedule:
        """The same on another device, for latents of another dtype."""
        tables = (table.to(device, dtype) for table in (self.alpha, self.sigma, self.c_skip, self.c_out))
        return Schedule(self.kind, self.timesteps.to(device), *tables)

    @property
    def coefficients(self) -> Tensor:
        """``(T, 5)`` float32, for ``streamfx_kernels.guided_step``: alpha, sigma, c_skip, c_out, and alpha / sigma of
        the step after (0 for the last)."""
        ahead = torch.cat([self.alpha[1:] / self.sigma[1:], torch.zeros_like(self.alpha[:1])])
        return torch.stack([self.alpha, self.sigma, self.c_skip, self.c_out, ahead], 1).float()

    def noised(self, x0: Tensor, noise: Tensor, rows: slice | Tensor) -> Tensor:
        """``x0`` and ``noise``: ``(B, …)`` → the latent at the noise level of ``rows``, one row each."""
        return wide(self.alpha[rows], x0) * x0 + wide(self.sigma[rows], x0) * noise

    def x0(self, x: Tensor, prediction: Tensor, rows: slice | Tensor) -> Tensor:
        """The clean latent that follows from the model's ``prediction`` for ``x``, both ``(B, …)`` at ``rows``."""
        sigma = wide(self.sigma[rows], x)
        if self.kind == "flow":
            return x - sigma * prediction
        estimate = (x - sigma * prediction) / wide(self.alpha[rows], x)
        return wide(self.c_out[rows], x) * estimate + wide(self.c_skip[rows], x) * x

    def noise_of(self, x: Tensor, prediction: Tensor, rows: slice | Tensor) -> Tensor:
        """The noise in ``x`` that the model's prediction means: itself for ``epsilon``."""
        if self.kind == "epsilon":
            return prediction
        return x + wide(self.alpha[rows], x) * prediction

    def prediction_of(self, x: Tensor, noise: Tensor, rows: slice | Tensor) -> Tensor:
        """What the model would have predicted if it meant ``noise``; the inverse of ``noise_of``. For ``flow`` not at
        the very first step of pure noise, where alpha is 0 and every prediction means the same noise."""
        if self.kind == "epsilon":
            return noise
        return (noise - x) / wide(self.alpha[rows], x)


def wide(table: Tensor, like: Tensor) -> Tensor:
    """``(B,)`` as ``(B, 1, 1, …)``, to be multiplied with ``like``."""
    return table.reshape(-1, *[1] * (like.ndim - 1))


def lcm(indices: Sequence[int]) -> Schedule:
    """Steps of a latent consistency model: rising ``indices`` into its grid of 50 (0: nearly pure noise, 49: nearly
    clean). The usual ones: [32, 45] for two steps, [22, 32, 45] for three. Raises ``ValueError``."""
    if not indices or list(indices) != sorted(set(indices)) or not 0 <= indices[0] <= indices[-1] < LCM_GRID:
        raise ValueError(f"indices {list(indices)} must rise and be from 0 to {LCM_GRID - 1}")
    spacing = TRAIN_STEPS // LCM_GRID
    timesteps = torch.tensor([TRAIN_STEPS - 1 - spacing * index for index in indices])
    return _epsilon(timesteps)


def turbo(strength: float) -> Schedule:
    """The single step of SD-Turbo and SDXL-Turbo for image to image: ``strength`` from above 0 (keep the picture) to
    1 (only the prompt). Raises ``ValueError``."""
    return lcm(lcm_indices(1, strength))


def lcm_indices(steps: int, strength: float) -> list[int]:
    """``steps`` indices into the grid of 50, evenly from the noise level that ``strength`` (above 0, to 1) means down
    to nearly clean. Raises ``ValueError`` if there are not so many below it."""
    if not 0 < strength <= 1:
        raise ValueError(f"strength {strength} must be above 0 and at most 1")
    first = min(LCM_GRID - 1, round(LCM_GRID * (1 - strength)))
    if not 1 <= steps <= LCM_GRID - first:
        raise ValueError(f"strength {strength} leaves room for {LCM_GRID - first} steps, not {steps}")
    return [first + (LCM_GRID - first) * n // steps for n in range(steps)]


def _epsilon(timesteps: Tensor) -> Schedule:
    betas = torch.linspace(math.sqrt(_BETA_FIRST), math.sqrt(_BETA_LAST), TRAIN_STEPS, dtype=torch.float64) ** 2
    signal = torch.cumprod(1 - betas, 0)[timesteps]
    scaled = timesteps.double() * _TIMESTEP_SCALING
    c_skip = _SIGMA_DATA**2 / (scaled**2 + _SIGMA_DATA**2)
    c_out = scaled / (scaled**2 + _SIGMA_DATA**2).sqrt()
    tables = (table.float() for table in (signal.sqrt(), (1 - signal).sqrt(), c_skip, c_out))
    return Schedule("epsilon", timesteps, *tables)


def flow(steps: Sequence[float], shift: float = 1.0) -> Schedule:
    """Steps of a flow-matching model: falling positions in (0, 1000] of the unshifted time, as [1000, 750, 500, 250].

    ``shift`` moves them towards noise, ``s = shift u / (1 + (shift - 1) u)`` with ``u = position / 1000``: Wan 2.1 and
    what was distilled from it use 8 (5 at 480p). The model is told ``1000 s``. Raises ``ValueError``."""
    if not steps or list(steps) != sorted(set(steps), reverse=True) or not 0 < steps[-1] <= steps[0] <= TRAIN_STEPS:
        raise ValueError(f"steps {list(steps)} must fall and be above 0 and at most {TRAIN_STEPS}")
    if shift <= 0:
        raise ValueError(f"shift {shift} must be above 0")
    position = torch.tensor(list(steps), dtype=torch.float64) / TRAIN_STEPS
    sigma = shift * position / (1 + (shift - 1) * position)
    ones, zeros = torch.ones_like(sigma), torch.zeros_like(sigma)
    tables = (table.float() for table in (1 - sigma, sigma, zeros, ones))
    return Schedule("flow", (TRAIN_STEPS * sigma).float(), *tables)


def flow_from(strength: float, steps: int, shift: float = 1.0) -> Schedule:
    """``steps`` steps that begin where noise is the share ``strength`` (above 0, to 1) of the latent, evenly falling in
    unshifted time from there. Raises ``ValueError``."""
    if not 0 < strength <= 1:
        raise ValueError(f"strength {strength} must be above 0 and at most 1")
    first = strength / (shift - (shift - 1) * strength)
    return flow(flow_steps(TRAIN_STEPS * first, steps), shift)


def flow_steps(first: float, count: int) -> list[float]:
    """``count`` evenly falling positions from ``first`` (in (0, 1000]) on, for ``flow``: where video to video starts is
    what ``noise.NoiseController`` says. Raises ``ValueError``."""
    if not 0 < first <= TRAIN_STEPS or count < 1:
        raise ValueError(f"first {first} must be in (0, {TRAIN_STEPS}] and count {count} at least 1")
    return [first * (count - n) / count for n in range(count)]
