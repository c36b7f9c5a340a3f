"""The past of a causal model as plain tensors, for engines that keep no state: the ring goes in, what is new comes out.

Everything in here is real arithmetic on tensors of shapes that are known from the inputs, so that it can be exported.
The caches stay who they are: an engine and the model itself may take turns at any frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from streamfx.diffusion.kv_cache import LayerCache
from streamfx.diffusion.rope import Rope3D

_NOTHING = -1e4
"""Added to the logits of slots that are empty; finite in half precision too."""


@dataclass(frozen=True, slots=True)
class ExplicitPast:
    """Of R rows and L layers, P tokens long: all slots, filled or not. ``keys``, ``values``: ``(R, L, P, H, D)``, keys
    not turned by frame. ``bias``: ``(R, L, P)``, to be added to the logits. ``turns``: ``(R, L, P, pairs, 2)``, cosine
    and sine of each token's place in time, seen from the first new frame."""

    keys: Tensor
    values: Tensor
    bias: Tensor
    turns: Tensor


def gathered(caches: Sequence[LayerCache], rows: Sequence[int], rope: Rope3D, weight: float = 1.0) -> ExplicitPast:
    """What the next frames of ``rows`` may attend to, by all layers, in single precision. ``weight``: as in
    ``attention.attend_rows``."""
    layers = [_of_layer(cache, rows, rope, weight) for cache in caches]
    keys, values, bias, turns = (torch.stack(some, 1) for some in zip(*layers, strict=True))
    return ExplicitPast(keys, values, bias, turns)


def _of_layer(
    cache: LayerCache, rows: Sequence[int], rope: Rope3D, weight: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    sees, (slots, tokens) = cache.rows(rows, weight), (cache.size.slots, cache.size.tokens)
    filled = torch.arange(slots, device=cache.positions.device)[None] < sees.filled[:, None]
    counts = sees.log_counts if sees.log_counts is not None else torch.zeros(1, 1, tokens, device=filled.device)
    bias = torch.where(filled[..., None], counts, _NOTHING)
    # Slots that are empty stand anywhere.
    places = torch.where(filled, sees.positions - sees.filled[:, None], 0)
    turns = rope.turns_at(places)[:, :, None].expand(-1, -1, tokens, -1, -1)
    keys, values = (
        torch.stack([store.read(row, slice(None)) for row in rows]).float() for store in (cache.keys, cache.values)
    )
    return keys.flatten(1, 2), values.flatten(1, 2), bias.flatten(1), turns.flatten(1, 2)


def remember(caches: Sequence[LayerCache], rows: Sequence[int], keys: Tensor, values: Tensor) -> None:
    """Puts what an engine gave, ``(R, L, F, S, H, D)`` each, into the caches."""
    for n, row in enumerate(rows):
        for layer, cache in enumerate(caches):
            for key, value in zip(keys[n, layer], values[n, layer], strict=True):
                cache.append(key.to(cache.keys.dtype), value.to(cache.values.dtype), row)


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    past: tuple[Tensor, Tensor],
    bias: Tensor,
    turns: Tensor,
    time: Tensor | None = None,
) -> Tensor:
    """``query``, ``key``, ``value``: ``(R, F, S, H, D)`` of new frames, with rows and columns applied. ``past``: keys
    and values ``(R, P, H, D)`` of a layer; ``bias`` ``(R, P)`` and ``turns`` ``(R, P, pairs, 2)``: its part of
    ``ExplicitPast``. ``time``: ``(F, pairs, 2)``, turns of the new frames, the first of which stands at zero; None for
    a single one. Returns ``(R, F, S, H, D)``."""
    asking, new = query, key
    if time is not None:
        asking, new = (turned(x, time[:, None, None], 0) for x in (query, key))
    keys = torch.cat([turned(past[0], turns[:, :, None], 0), new.flatten(1, 2)], 1)
    values = torch.cat([past[1], value.flatten(1, 2)], 1)
    whole = functional.pad(bias, (0, key.shape[1] * key.shape[2]))[:, None, None]
    q, k, v = (x.transpose(1, 2) for x in (asking.flatten(1, 2), keys, values))
    mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=whole)
    return mixed.transpose(1, 2).reshape(query.shape)


def turned(x: Tensor, turns: Tensor, first: int) -> Tensor:
    """Pairs ``(x[2i], x[2i + 1])`` of the last dimension from ``first`` on turned by ``(…, pairs, 2)`` cosines and
    sines; what is before and after them stays."""
    last = first + 2 * turns.shape[-2]
    even, odd = x[..., first:last:2], x[..., first + 1 : last : 2]
    cosine, sine = turns[..., 0], turns[..., 1]
    moved = torch.stack([even * cosine - odd * sine, odd * cosine + even * sine], -1).flatten(-2)
    return torch.cat([x[..., :first], moved, x[..., last:]], -1)
