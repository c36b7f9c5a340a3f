"""The causal DiT as one piece that an engine can run: its past goes in, keys and values of the new frames come out."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from streamfx.diffusion import explicit_past
from streamfx.diffusion.kv_cache import LayerCache
from streamfx.diffusion.rope import Rope3D, space_turns
from streamfx.engines.base import Engine, Length, Part
from streamfx.models.causal_wan.dit import (
    PATCH,
    TEXT_TOKENS,
    Attention,
    CausalWan,
    Denoises,
    Projections,
    Prompt,
    WanSize,
    sinusoid,
)

_ROWS = 2  # one would be taken for the only number there is


@dataclass(frozen=True, slots=True)
class _Turns:
    """Cosines and sines ``(…, pairs, 2)``: of the past's places in time, the new frames', and of rows and columns."""

    past: Tensor
    time: Tensor
    space: Tensor


class _Given(Attention):
    """Of new frames to a past that is given with the call, and to each other. ``key``, ``value``: of the last call, for
    the cache."""

    def __init__(self, past: tuple[Tensor, Tensor], bias: Tensor, turns: _Turns) -> None:
        self._past, self._bias, self._turns = past, bias, turns
        self.key = self.value = bias

    def __call__(self, of: Projections, x: Tensor) -> Tensor:
        turns, still = self._turns, of.size.head_dim - 2 * self._turns.space.shape[-2]
        key, self.value = of.keys_values(x)
        query, self.key = (explicit_past.turned(part, turns.space[:, None], still) for part in (of.queries(x), key))
        past = self._past, self._bias, turns.past
        return explicit_past.attend(query, self.key, self.value, *past, turns.time)


class _Denoise(nn.Module):
    def __init__(self, model: CausalWan) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        x: Tensor,
        waves: Tensor,
        keys: Tensor,
        values: Tensor,
        bias: Tensor,
        past_turns: Tensor,
        turns: Tensor,
        prompt_keys: Tensor,
        prompt_values: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        layers = range(self.model.size.layers)
        grid = x.shape[-2] // PATCH, x.shape[-1] // PATCH
        space = space_turns(grid, self.model.size.head_dim, device=x.device).to(x.dtype)
        seen = [_Given((keys[:, n], values[:, n]), bias[:, n], _Turns(past_turns[:, n], turns, space)) for n in layers]
        velocity = self.model.denoise(x, waves, [(prompt_keys[n], prompt_values[n]) for n in layers], seen)
        return velocity, torch.stack([one.key for one in seen], 1), torch.stack([one.value for one in seen], 1)


def denoiser(model: CausalWan, latent: tuple[int, int], frames: int = 3, slots: int = 6) -> Part:
    """The whole transformer with its past as inputs and outputs.

    Takes ``x`` ``(R, F, C, H, W)``, H and W even; ``waves`` ``(R, time_dim)``, the ``sinusoid`` of timesteps, which
    half precision would round; ``keys``, ``values``, ``bias`` and ``past_turns``, the four of ``ExplicitPast``;
    ``turns`` ``(F, pairs, 2)``, those of the new frames, the first of which stands at zero; ``prompt_keys`` and
    ``prompt_values`` ``(L, 512, heads, D)``. Gives the velocity, like x, and keys (rows and columns applied, not turned
    by frame) and values ``(R, L, F, S, heads, D)`` of the new frames.

    ``latent``, ``frames``, ``slots``: (H, W), F and how many frames the past has in the example; all may be others
    later. ``model``: in single precision, on the CPU.
    """
    size, chance = model.size, torch.Generator().manual_seed(0)
    past = slots * (latent[0] // PATCH) * (latent[1] // PATCH)
    pairs = size.head_dim // 2 - 2 * (size.head_dim // 6)
    shapes = {
        "x": (_ROWS, frames, size.channels, *latent),
        "waves": (_ROWS, size.time_dim),
        "keys": (_ROWS, size.layers, past, size.heads, size.head_dim),
        "values": (_ROWS, size.layers, past, size.heads, size.head_dim),
        "bias": (_ROWS, size.layers, past),
        "past_turns": (_ROWS, size.layers, past, pairs, 2),
        "turns": (frames, pairs, 2),
        "prompt_keys": (size.layers, TEXT_TOKENS, size.heads, size.head_dim),
        "prompt_values": (size.layers, TEXT_TOKENS, size.heads, size.head_dim),
    }
    example = {name: torch.randn(*shape, generator=chance) for name, shape in shapes.items()}
    rows, tokens, new = Length("rows"), Length("past"), Length("frames")
    dynamic = {
        "x": {0: rows, 1: new, 3: Length("height", PATCH), 4: Length("width", PATCH)},
        "waves": {0: rows},
        "keys": {0: rows, 2: tokens},
        "values": {0: rows, 2: tokens},
        "bias": {0: rows, 2: tokens},
        "past_turns": {0: rows, 2: tokens},
        "turns": {0: new},
    }
    return Part("denoise", _Denoise(model), example, ("velocity", "new_keys", "new_values"), dynamic)


class EngineWan:
    """``Denoises`` by an engine of ``denoiser``; by ``otherwise`` where that has nothing ready, and for frames of a row
    that are at different steps. ``size``: of the transformer."""

    def __init__(self, engine: Engine, otherwise: Denoises, size: WanSize) -> None:
        self._engine, self._otherwise, self._size = engine, otherwise, size
        self._asked = Asked()

    def __call__(
        self,
        x: Tensor,
        timesteps: Tensor,
        prompt: Prompt,
        caches: Sequence[LayerCache],
        rope: Rope3D,
        rows: Sequence[int] | None = None,
        remember: bool = False,
    ) -> Tensor:
        rows = range(len(x)) if rows is None else rows
        if timesteps.ndim == 1:
            waves = sinusoid(timesteps, self._size.time_dim)
            given = inputs(x, waves, self._asked(prompt), caches, rope, rows)
            if self._engine.takes(*given):
                velocity, keys, values = self._engine(*given)
                if remember:
                    explicit_past.remember(caches, rows, keys, values)
                return velocity.to(x.dtype)
        return self._otherwise(x, timesteps, prompt, caches, rope, rows, remember)


def inputs(
    x: Tensor,
    waves: Tensor,
    asked: tuple[Tensor, Tensor],
    caches: Sequence[LayerCache],
    rope: Rope3D,
    rows: Sequence[int],
) -> tuple[Tensor, ...]:
    """For an engine of ``denoiser``, in single precision: of a call as ``CausalWan.forward`` has it, with one timestep
    a row, of which ``waves`` is the ``sinusoid``. ``asked``: of the prompt."""
    past = explicit_past.gathered(caches, rows, rope)
    turns = rope.turns_at(torch.arange(x.shape[1], device=x.device))
    given = (x, waves, past.keys, past.values, past.bias, past.turns, turns, *asked)
    return tuple(one.float().contiguous() for one in given)


class Asked:
    """Keys and values of prompts, ``(L, 512, heads, D)`` each: stacked once for each prompt, and that without it."""

    def __init__(self) -> None:
        self._known: deque[tuple[Prompt, tuple[Tensor, Tensor]]] = deque(maxlen=2)

    def __call__(self, prompt: Prompt) -> tuple[Tensor, Tensor]:
        for known, asked in self._known:
            if known is prompt:
                return asked
        keys, values = zip(*prompt.layers, strict=True)
        asked = torch.stack(keys).float(), torch.stack(values).float()
        self._known.append((prompt, asked))
        return asked
