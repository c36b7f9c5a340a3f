"""The restyler in pieces that an engine can run, and put together again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from streamfx.diffusion import explicit_past
from streamfx.diffusion.kv_cache import LayerCache
from streamfx.diffusion.rope import Rope3D, space_turns
from streamfx.engines.base import Engine, Length, Part
from streamfx.models.tiny.autoencoder import SHRINK, Autoencoder, Features, fitting
from streamfx.models.tiny.dit import PATCH, Attention, TinyDiT

_SIDE = 256
_SLOTS = 3


class Codes(Protocol):
    """What the stream wants of an autoencoder: see ``Autoencoder``."""

    def features(self, pictures: Tensor) -> Features: ...

    def latents(self, features: Features) -> Tensor: ...

    def decode(self, latents: Tensor, source: Features, style: Tensor) -> Tensor: ...


@dataclass(frozen=True, slots=True)
class Frame:
    """What the transformer is called with for a frame of R rows: ``x``, ``source`` ``(R, 1, C, H, W)``, ``sigma``,
    ``share`` ``(R,)``, ``style`` ``(R, dim)``, as ``TinyDiT.forward`` has them. ``caches``: one a layer; ``rows``: of
    them. ``weight``: how much the past counts."""

    x: Tensor
    sigma: Tensor
    source: Tensor
    style: Tensor
    share: Tensor
    caches: Sequence[LayerCache]
    rows: Sequence[int]
    rope: Rope3D
    weight: float = 1.0

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """For an engine of ``denoiser``."""
        past = explicit_past.gathered(self.caches, self.rows, self.rope, self.weight)
        own = (self.x, self.sigma, self.source, self.style, self.share)
        given = (*own, past.keys, past.values, past.bias, past.turns)
        return tuple(part.float().contiguous() for part in given)


class Denoises(Protocol):
    """What the stream wants of a transformer: the clean latents of a frame, which joins the past of its rows."""

    def __call__(self, frame: Frame) -> Tensor: ...


class _See(nn.Module):
    def __init__(self, codes: Autoencoder) -> None:
        super().__init__()
        self.codes = codes

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        seen = self.codes.features(pictures)
        return seen.half, seen.quarter


class _Encode(nn.Module):
    def __init__(self, codes: Autoencoder) -> None:
        super().__init__()
        self.codes = codes

    def forward(self, quarter: Tensor) -> tuple[Tensor]:
        return (self.codes.latents(Features(quarter, quarter)),)  # which looks at one of them


class _Decode(nn.Module):
    def __init__(self, codes: Autoencoder) -> None:
        super().__init__()
        self.codes = codes

    def forward(self, latents: Tensor, half: Tensor, quarter: Tensor, style: Tensor) -> tuple[Tensor]:
        return (self.codes.drawn(latents, Features(half, quarter), style),)


class _Given(Attention):
    """To a past that is given with the call, and to itself; what is new is kept for the caller."""

    def __init__(self, past: tuple[Tensor, Tensor], bias: Tensor, turns: Tensor, space: tuple[Tensor, int]) -> None:
        self._past, self._bias, self._turns, self._space = past, bias, turns, space
        self.key = self.value = bias

    def __call__(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        turns, first = self._space
        query, self.key = (explicit_past.turned(x, turns[:, None], first) for x in (query, key))
        self.value = value
        return explicit_past.attend(query, self.key, value, self._past, self._bias, self._turns)


class _Denoise(nn.Module):
    def __init__(self, dit: TinyDiT) -> None:
        super().__init__()
        self.dit = dit
        self._unmoved = dit.size.head_dim - 4 * (dit.size.head_dim // 6)

    def forward(
        self,
        x: Tensor,
        sigma: Tensor,
        source: Tensor,
        style: Tensor,
        share: Tensor,
        keys: Tensor,
        values: Tensor,
        bias: Tensor,
        turns: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        grid = x.shape[-2] // PATCH, x.shape[-1] // PATCH
        space = space_turns(grid, self.dit.size.head_dim, device=x.device).to(x.dtype), self._unmoved
        seen = [_Given((keys[:, n], values[:, n]), bias[:, n], turns[:, n], space) for n in range(self.dit.size.layers)]
        clean = self.dit(x, sigma, source, style, share, seen)
        return clean, torch.stack([one.key for one in seen], 1), torch.stack([one.value for one in seen], 1)


def denoiser(dit: TinyDiT) -> Part:
    """The transformer with its past as inputs and outputs: ``x``, ``source`` ``(R, 1, C, H, W)``, H and W even,
    ``sigma``, ``share`` ``(R,)``, ``style`` ``(R, dim)``, and the four of ``ExplicitPast``; → the clean latents, and
    keys and values ``(R, L, 1, S, heads, D)`` of the frame. In single precision, on the CPU."""
    size, side = dit.size, _SIDE // SHRINK
    tokens = (side // PATCH) ** 2
    chance = torch.Generator().manual_seed(0)
    rows = 2  # of a single one torch.export would think that there are never more
    shapes = {
        "x": (rows, 1, size.channels, side, side),
        "sigma": (rows,),
        "source": (rows, 1, size.channels, side, side),
        "style": (rows, size.dim),
        "share": (rows,),
        "keys": (rows, size.layers, _SLOTS * tokens, size.heads, size.head_dim),
        "values": (rows, size.layers, _SLOTS * tokens, size.heads, size.head_dim),
        "bias": (rows, size.layers, _SLOTS * tokens),
        "turns": (rows, size.layers, _SLOTS * tokens, size.head_dim // 2 - 2 * (size.head_dim // 6), 2),
    }
    example = {name: torch.randn(*shape, generator=chance) for name, shape in shapes.items()}
    example["sigma"], example["share"] = torch.full((rows,), 0.9), torch.ones(rows)
    picture = {0: Length("rows"), 3: Length("height", PATCH), 4: Length("width", PATCH)}
    dynamic = {name: {0: Length("rows")} for name in shapes}
    dynamic |= {"x": picture, "source": picture}
    dynamic |= {name: {0: Length("rows"), 2: Length("past")} for name in ("keys", "values", "bias", "turns")}
    return Part("denoise", _Denoise(dit), example, ("clean", "new_keys", "new_values"), dynamic)


class EngineDenoiser:
    """``Denoises`` by an engine of ``denoiser``; by ``otherwise`` where that has nothing ready."""

    def __init__(self, engine: Engine, otherwise: Denoises) -> None:
        self._engine, self._otherwise = engine, otherwise

    def __call__(self, frame: Frame) -> Tensor:
        given = frame.inputs
        if not self._engine.takes(*given):
            return self._otherwise(frame)
        clean, keys, values = self._engine(*given)
        explicit_past.remember(frame.caches, frame.rows, keys, values)
        return clean.to(frame.x.dtype)


def parts(codes: Autoencoder) -> dict[str, Part]:
    """``see``: ``(1, 3, H, W)`` → half, quarter. ``encode``: quarter → ``(1, C, H/8, W/8)``. ``decode``: latents, half,
    quarter, style ``(1, dim)`` → ``(1, 3, H, W)``. H and W are multiples of 8. ``codes``: in single precision, on the
    CPU."""
    chance = torch.Generator().manual_seed(0)
    pictures = torch.rand(1, 3, _SIDE, _SIDE, generator=chance) * 2 - 1
    style = torch.randn(1, codes.size.style, generator=chance)
    with torch.inference_mode():
        seen = codes.features(pictures)
        latents = codes.latents(seen)
    # Of their own, for what is made in inference mode cannot be exported with.
    half, quarter, latents = (x.clone() for x in (seen.half, seen.quarter, latents))

    def sides(shrunk: int) -> dict[int, Length]:
        return {2: Length("height", SHRINK // shrunk), 3: Length("width", SHRINK // shrunk)}

    whole, halves, quarters, eighths = (sides(shrunk) for shrunk in (1, 2, 4, SHRINK))
    seen_by_decoder = {"latents": latents, "half": half, "quarter": quarter, "style": style}
    return {
        "see": Part("see", _See(codes), {"pictures": pictures}, ("half", "quarter"), {"pictures": whole}),
        "encode": Part("encode", _Encode(codes), {"quarter": quarter}, ("latents",), {"quarter": quarters}),
        "decode": Part(
            "decode",
            _Decode(codes),
            seen_by_decoder,
            ("pictures",),
            {"latents": eighths, "half": halves, "quarter": quarters},
        ),
    }


class EngineCodes:
    """``Codes`` by engines of ``parts``; by ``otherwise`` where there is none, or none that is ready for a shape."""

    def __init__(self, engines: Mapping[str, Engine], otherwise: Codes, dtype: torch.dtype) -> None:
        self._engines, self._otherwise, self._dtype = engines, otherwise, dtype

    def features(self, pictures: Tensor) -> Features:
        found = self._run("see", pictures)
        return self._otherwise.features(pictures) if found is None else Features(*(x.to(self._dtype) for x in found))

    def latents(self, features: Features) -> Tensor:
        found = self._run("encode", features.quarter)
        return self._otherwise.latents(features) if found is None else found[0].to(self._dtype)

    def decode(self, latents: Tensor, source: Features, style: Tensor) -> Tensor:
        found = self._run("decode", fitting(latents.float(), source), source.half, source.quarter, style)
        return self._otherwise.decode(latents, source, style) if found is None else found[0]

    def _run(self, name: str, *given: Tensor) -> tuple[Tensor, ...] | None:
        engine = self._engines.get(name)
        if engine is None:
            return None
        single = tuple(x.float() for x in given)
        return engine(*single) if engine.takes(*single) else None
