"""How sound comes into the transformer: encoded for each latent frame, and asked for after some of the layers.

As in Wan2.2-S2V (arXiv 2508.18621), whose names the parameters have.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from streamfx.models.avatar_wan.tokens import attended
from streamfx.models.causal_wan.dit import Projections, WanSize
from streamfx_kernels.modulate import modulated_norm

FRAMES = 4
"""Video frames a latent frame stands for."""

LEAD = 2 * FRAMES + 1
"""Frames before a block that its features are made of too: the reach of the causal convolutions, and one that lets
their strides end with the block."""

_EPS = 1e-6
_ADAPTED_EPS = 1e-5


@dataclass(frozen=True, slots=True)
class SoundSize:
    """``layers``, ``dim``: of the features, as ``AudioContext`` gives them. ``tokens``: that are made of them for each
    latent frame. ``after``: layers of the transformer after which they are asked for."""

    layers: int
    dim: int
    tokens: int
    after: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Heard:
    """Of F latent frames. ``tokens``: ``(F, T, dim)``; ``whole``: ``(F, dim)``, the frame as one."""

    tokens: Tensor
    whole: Tensor


class AudioEncoder(nn.Module):
    """Features of video frames to tokens of latent frames. What belongs to a latent frame looks back eight frames, and
    not ahead: block by block, with ``LEAD`` frames before each, is what a whole clip at once is."""

    def __init__(self, sound: SoundSize, dim: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.full((1, sound.layers, 1, 1), 0.01))
        self.encoder = _Convolutions(sound, dim)

    def forward(self, features: Tensor) -> Heard:
        """``(1 + 4 n, layers, dim)`` → of 1 + n latent frames; the first of them stands for one frame."""
        share = functional.silu(self.weights).reshape(1, -1, 1)
        mixed = (features.to(share.dtype) * share).sum(1) / share.sum()
        return cast(Heard, self.encoder(mixed))


class _Convolutions(nn.Module):
    """``MotionEncoder_tc`` of Wan2.2-S2V."""

    def __init__(self, sound: SoundSize, dim: int) -> None:
        super().__init__()
        self._tokens = sound.tokens
        self.conv1_local = _Causal(sound.dim, dim // 4 * sound.tokens, 1)
        self.conv1_global = _Causal(sound.dim, dim // 4, 1)
        self.conv2 = _Causal(dim // 4, dim // 2, 2)
        self.conv3 = _Causal(dim // 2, dim, 2)
        self.final_linear = nn.Linear(dim, dim)
        self.padding_tokens = nn.Parameter(torch.zeros(1, 1, 1, dim))

    def forward(self, x: Tensor) -> Heard:
        """``(T, dim)``."""
        x = x.T[None]
        local = self._shrunk(self.conv1_local(x).unflatten(1, (self._tokens, -1))[0]).transpose(0, 1)
        padding = self.padding_tokens[0].expand(len(local), -1, -1)
        whole = self.final_linear(self._shrunk(self.conv1_global(x))[0])
        return Heard(torch.cat([local, padding], 1), whole)

    def _shrunk(self, x: Tensor) -> Tensor:
        """``(N, dim / 4, T)`` → ``(N, 1 + (T - 1) // 4, dim)``."""
        return _activated(self.conv3(_activated(self.conv2(_activated(x))))).mT


def _activated(x: Tensor) -> Tensor:
    """``(N, C, T)``, each frame normalised over C."""
    return functional.silu(functional.layer_norm(x.mT, x.shape[1:2], eps=_EPS)).mT


class _Causal(nn.Module):
    """A convolution over three frames up to now; before the first, that one counts."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(before, after, 3, stride)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.conv(functional.pad(x, (2, 0), mode="replicate")))


class AudioInjector(nn.Module):
    """What the tokens of the noisy frames ask of what is heard at their frame, after some of the layers."""

    def __init__(self, size: WanSize, after: tuple[int, ...]) -> None:
        super().__init__()
        self._numbers = {layer: number for number, layer in enumerate(after)}
        self.injector = nn.ModuleList(Projections(size) for _ in after)
        self.injector_adain_layers = nn.ModuleList(_Adapted(size.dim) for _ in after)

    def forward(self, layer: int, x: Tensor, heard: Heard) -> Tensor:
        """``x``: ``(1, F, S, dim)``, what the layer gave; as it is after the layers that nothing is asked after."""
        number = self._numbers.get(layer)
        if number is None:
            return x
        of = cast(Projections, self.injector[number])
        query = of.queries(self.injector_adain_layers[number](x, heard.whole))[0]
        return x + of.out(attended(query, *of.keys_values(heard.tokens)))[None]


class _Adapted(nn.Module):
    """A norm whose scale and shift are those of the sound (diffusers' ``AdaLayerNorm``)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, 2 * dim)

    def forward(self, x: Tensor, whole: Tensor) -> Tensor:
        shift, scale = self.linear(functional.silu(whole))[None, :, None].chunk(2, dim=-1)
        return modulated_norm(x, scale, shift, _ADAPTED_EPS)
