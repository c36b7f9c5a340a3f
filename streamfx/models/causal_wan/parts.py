"""The causal DiT as one piece that an engine can run: its past goes in, keys and values of the new frames come out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from streamfx.diffusion import explicit_past
from streamfx.diffusion.kv_cache import LayerCache
from streamfx.diffusion.rope import Rope3D, space_turns
from streamfx.engines.base import Engine, Length, Part
from streamfx.models.causal_wan.dit import PATCH, TEXT_TOKENS, Attention, CausalWan, Projections, Prompt

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
        half = model.size.time_dim // 2
        self._rates = [10_000.0 ** -(n / half) for n in range(half)]

    def forward(
        self,
        x: Tensor,
        timesteps: Tensor,
        keys: Tensor,
        values: Tensor,
        bias: Tensor,
        past_turns: Tensor,
        turns: Tensor,
        prompt_keys: Tensor,
        prompt_values: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        angles = timesteps.float()[:, None] * torch.tensor(self._rates, device=x.device)
        waves = torch.cat([angles.cos(), angles.sin()], 1)
        layers = range(self.model.size.layers)
        grid = x.shape[-2] // PATCH, x.shape[-1] // PATCH
        space = space_turns(grid, self.model.size.head_dim, device=x.device).to(x.dtype)
        seen = [_Given((keys[:, n], values[:, n]), bias[:, n], _Turns(past_turns[:, n], turns, space)) for n in layers]
        velocity = self.model.denoise(x, waves, [(prompt_keys[n], prompt_values[n]) for n in layers], seen)
        return velocity, torch.stack([one.key for one in seen], 1), torch.stack([one.value for one in seen], 1)


def denoiser(model: CausalWan, latent: tuple[int, int], frames: int = 3, slots: int = 6) -> Part:
    """The whole transformer with its past as inputs and outputs.

    Takes ``x`` ``(R, F, C, H, W)``, H and W even; ``timesteps`` ``(R,)`` in [0, 1000]; ``keys``, ``values``, ``bias``
    and ``past_turns``, the four of ``ExplicitPast``; ``turns`` ``(F, pairs, 2)``, those of the new frames, the first of
    which stands at zero; ``prompt_keys`` and ``prompt_values`` ``(L, 512, heads, D)``. Gives the velocity, like x, and
    keys (rows and columns applied, not turned by frame) and values ``(R, L, F, S, heads, D)`` of the new frames.

    ``latent``, ``frames``, ``slots``: (H, W), F and how many frames the past has in the example; all may be others
    later. ``model``: in single precision, on the CPU.
    """
    size, chance = model.size, torch.Generator().manual_seed(0)
    past = slots * (latent[0] // PATCH) * (latent[1] // PATCH)
    pairs = size.head_dim // 2 - 2 * (size.head_dim // 6)
    shapes = {
        "x": (_ROWS, frames, size.channels, *latent),
        "timesteps": (_ROWS,),
        "keys": (_ROWS, size.layers, past, size.heads, size.head_dim),
        "values": (_ROWS, size.layers, past, size.heads, size.head_dim),
        "bias": (_ROWS, size.layers, past),
        "past_turns": (_ROWS, size.layers, past, pairs, 2),
        "turns": (frames, pairs, 2),
        "prompt_keys": (size.layers, TEXT_TOKENS, size.heads, size.head_dim),
        "prompt_values": (size.layers, TEXT_TOKENS, size.heads, size.head_dim),
    }
    example = {name: torch.randn(*shape, generator=chance) for name, shape in shapes.items()}
    example["timesteps"] = torch.full((_ROWS,), 500.0)
    rows, tokens, new = Length("rows"), Length("past"), Length("frames")
    dynamic = {
        "x": {0: rows, 1: new, 3: Length("height", PATCH), 4: Length("width", PATCH)},
        "timesteps": {0: rows},
        "keys": {0: rows, 2: tokens},
        "values": {0: rows, 2: tokens},
        "bias": {0: rows, 2: tokens},
        "past_turns": {0: rows, 2: tokens},
        "turns": {0: new},
    }
    return Part("denoise", _Denoise(model), example, ("velocity", "new_keys", "new_values"), dynamic)


class EngineWan:
    """Called like a ``CausalWan``, by an engine of ``denoiser``."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._prompt: Prompt | None = None
        self._asked: tuple[Tensor, Tensor] | None = None

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
        """As ``CausalWan.forward``, with one timestep a row."""
        rows = range(len(x)) if rows is None else rows
        past = explicit_past.gathered(caches, rows, rope)
        turns = rope.turns_at(torch.arange(x.shape[1], device=x.device))
        given = (x.float().contiguous(), timesteps.float(), past.keys, past.values, past.bias, past.turns, turns)
        velocity, keys, values = self._engine(*given, *self._layers(prompt))
        if remember:
            explicit_past.remember(caches, rows, keys, values)
        return velocity.to(x.dtype)

    def _layers(self, prompt: Prompt) -> tuple[Tensor, Tensor]:
        """The prompt's keys and values, stacked once for each prompt."""
        if self._asked is None or self._prompt is not prompt:
            keys, values = zip(*prompt.layers, strict=True)
            self._prompt, self._asked = prompt, (torch.stack(keys).float(), torch.stack(values).float())
        return self._asked
