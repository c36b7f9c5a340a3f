"""Who tells the teacher's pictures from the student's: small heads on what a frozen network sees.

On features of a trained network a critic is good at once, at every scale (A. Sauer et al., "Projected GANs Converge
Faster", arXiv 2111.01007). The network is the style encoder, which tells styles apart.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

SEEN = (16, 24, 32, 64, 96)
"""Channels of the style encoder's features."""

_WIDTH = 64
_NOISE, _SMOOTH = 0.1, 5.0


class Critic(nn.Module):
    """A head for each of ``SEEN``; ``dim``: of the style."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.heads = nn.ModuleList(_Head(given, dim) for given in SEEN)

    def forward(self, features: Sequence[Tensor], style: Tensor) -> list[Tensor]:
        """``(B, C, h, w)`` at each depth, ``(B, dim)`` → ``(B, 1, h', w')`` at each: above 0 for the teacher's."""
        return [head(seen, style) for head, seen in zip(self.heads, features, strict=True)]

    def judge(self) -> Critic:
        """One with the same weights, whatever becomes of them, that does not learn."""
        twin = copy.deepcopy(self).requires_grad_(False)
        for still, learnt in zip(twin.parameters(), self.parameters(), strict=True):
            still.data = learnt.data
        return twin


class _Head(nn.Module):
    def __init__(self, given: int, dim: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(given, _WIDTH, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(_WIDTH, _WIDTH, 3, padding=1),
            nn.LeakyReLU(0.2),
        )
        self.real = nn.Conv2d(_WIDTH, 1, 1)
        self.of_style = nn.Linear(dim, _WIDTH)

    def forward(self, seen: Tensor, style: Tensor) -> Tensor:
        found = self.body(seen)
        # Whether it is real, and whether of this style (T. Miyato, M. Koyama, arXiv 1802.05637).
        fits = (found * self.of_style(style)[..., None, None]).sum(1, keepdim=True) / _WIDTH**0.5
        return cast(Tensor, self.real(found) + fits)


def tells_apart(
    critic: Critic, ours: Sequence[Tensor], theirs: Sequence[Tensor], style: Tensor, chance: torch.Generator
) -> Tensor:
    """What the critic has to lessen: hinge, and being unsteady under noise, which is the gradient penalty R1 without
    second derivatives (S. Lin et al., arXiv 2501.08316). Nothing of it reaches the student."""
    seen = [x.detach() for x in ours]
    real, made = critic(theirs, style), critic(seen, style)
    shaken = critic([x + _NOISE * torch.randn(x.shape, generator=chance) for x in theirs], style)
    total = torch.zeros(())
    for yes, no, near in zip(*(map(Tensor.float, found) for found in (real, made, shaken)), strict=True):
        total = total + functional.relu(1 - yes).mean() + functional.relu(1 + no).mean()
        total = total + _SMOOTH * (near - yes).square().mean()
    return total / len(real)


def deceives(judge: Critic, ours: Sequence[Tensor], style: Tensor) -> Tensor:
    """What the student has to lessen, by a ``judge`` that learns nothing from it."""
    return -torch.stack([made.float().mean() for made in judge(ours, style)]).mean()
