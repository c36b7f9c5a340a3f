"""The embedded restyler on a stream of pictures: encoder, stream batch with a KV cache for each step, decoder."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

from streamfx.diffusion.guidance import Guidance
from streamfx.diffusion.kv_cache import CacheSize, LayerCache, Sink
from streamfx.diffusion.labels import Labels
from streamfx.diffusion.rope import Rope3D
from streamfx.diffusion.schedules import TRAIN_STEPS, Schedule, flow
from streamfx.diffusion.similarity import SimilarityFilter
from streamfx.diffusion.stream_batch import Call, StreamBatch
from streamfx.models.tiny.autoencoder import SHRINK, Features
from streamfx.models.tiny.dit import PATCH, Cached, TinyDiT
from streamfx.models.tiny.parts import Codes, Denoises, Frame

MOST_STEPS = 2
SINKS, WINDOW = 1, 2
GRID = SHRINK * PATCH
"""Pixels a token stands for, per side."""

_NEVER = 0.9999
"""Likeness above which frames are as good as the same."""

_STEPS = {1: (900.0,), 2: (900.0, 500.0)}


@dataclass(frozen=True, slots=True)
class TinyLook:
    """What the pictures are to be like; all of it may change from call to call.

    ``style``: of ``TinyDiT.style``, ``(dim,)``. ``strength``: 0 (the source) … 1 (the style). ``temporal``: how much
    the past counts, 0 … 1. ``steps``: 1 or 2. ``seed``: of the noise. ``threshold``: cosine similarity above which
    frames may be skipped; 1 skips none. ``side``: the transformer works on a picture of about the area of a square of
    this side, if that is less than what it is given. ``every``: the transformer sees each ``every``-th picture; those
    between are changed as the one before was. With a single step only.
    """

    style: Tensor
    strength: float = 1.0
    temporal: float = 1.0
    steps: int = 1
    guidance: Guidance = field(default_factory=Guidance)
    seed: int = 0
    threshold: float = 1.0
    side: int = 256
    every: int = 1

    def draws_like(self, other: TinyLook) -> bool:
        """Whether pictures of both may stand in one past."""
        return (
            self.strength == other.strength and self.guidance == other.guidance and torch.equal(self.style, other.style)
        )


@dataclass(frozen=True, slots=True)
class TinyMemory:
    """``sinks``: frames kept for good, ``window``: of the last ones; ``policy``: over the sinks, one a layer."""

    sinks: int = SINKS
    window: int = WINDOW
    policy: Callable[[], Sink] = Sink


class Direct:
    """``Denoises`` by the transformer itself, with torch."""

    def __init__(self, dit: TinyDiT) -> None:
        self._dit = dit

    def __call__(self, frame: Frame) -> Tensor:
        seen = [Cached(cache, frame.rows, frame.rope, frame.weight) for cache in frame.caches]
        found: Tensor = self._dit(frame.x, frame.sigma, frame.source, frame.style, frame.share, seen)
        return found


class _Denoiser:
    """``stream_batch.Model`` of the transformer. A row at step s is of the frame whose source came s calls ago."""

    def __init__(self, dit: TinyDiT, denoise: Denoises, grid: tuple[int, int], memory: TinyMemory) -> None:
        self.denoise = denoise
        weight = dit.close.weight
        rows = 2 * MOST_STEPS  # the second half without a style
        tokens = grid[0] * grid[1]
        size = CacheSize(rows, memory.sinks, memory.window, tokens, dit.size.heads, dit.size.head_dim)
        self._caches = [LayerCache(size, memory.policy(), weight.dtype, weight.device) for _ in range(dit.size.layers)]
        self._rope = Rope3D(dit.size.head_dim, grid, size.slots + 1, device=weight.device)
        self._sources: deque[Tensor] = deque(maxlen=MOST_STEPS)
        self.look: TinyLook | None = None

    def source(self, ago: int) -> Tensor:
        """The latent that was seen ``ago`` calls before the last."""
        return self._sources[ago]

    def see(self, source: Tensor) -> None:
        """The latent of the newest frame, ``(1, C, H, W)``; once before each call."""
        self._sources.appendleft(source)

    def reset(self) -> None:
        self._sources.clear()
        self.forget()

    def forget(self) -> None:
        """The past is of another scene or in another style; the pictures under way are not."""
        for cache in self._caches:
            cache.reset()

    def __call__(self, x: Tensor, timesteps: Tensor, call: Call) -> Tensor:
        if self.look is None:
            raise ValueError("no look was set; set it before the first call")
        plain = call.steps[: call.unconditional]
        steps = (*plain, *call.steps)
        rows = (*(MOST_STEPS + step for step in plain), *call.steps)
        sources = torch.stack([self._sources[step] for step in steps])
        share = torch.full((len(steps),), self.look.strength, device=x.device, dtype=x.dtype)
        share[: len(plain)] = 0
        style = self.look.style.to(x).expand(len(steps), -1)
        sigma = (timesteps / TRAIN_STEPS).to(x.dtype)
        clean = self.denoise(Frame(x, sigma, sources, style, share, self._caches, rows, self._rope, self.look.temporal))
        return (x - clean) / sigma[:, None, None, None, None]


class TinyStream:
    """Restyles pictures one after the other; results come out ``steps - 1`` pictures later.

    The decoder draws at the size of what it is given. Cuts are noticed, and begin a new past. ``codes`` and ``denoise``
    may be others, that do the same, from any picture on.
    """

    def __init__(self, codes: Codes, dit: TinyDiT, memory: TinyMemory | None = None) -> None:
        self.codes, self._dit, self._memory = codes, dit, memory or TinyMemory()
        self.denoise: Denoises = Direct(dit)
        weight = dit.close.weight
        self._device, self.dtype = weight.device, weight.dtype
        self._model: _Denoiser | None = None
        self._batch: StreamBatch | None = None
        self._seed = 0
        self._similarity = SimilarityFilter(_NEVER)
        self._threshold = _NEVER
        self._labels: Labels[float] = Labels()
        self._features: deque[Features] = deque(maxlen=MOST_STEPS)
        self._shown: Tensor | None = None
        self._look: TinyLook | None = None
        self._change: Tensor | None = None
        self._kept = 0

    def reset(self) -> None:
        """Another scene, another stream."""
        if self._model is not None and self._batch is not None:
            self._model.reset()
            self._batch.reset()
        self._labels.clear()
        self._features.clear()
        self._similarity.reset()
        self._shown = self._change = None

    @torch.inference_mode()
    def step(self, picture: Tensor, label: float, look: TinyLook) -> tuple[Tensor, float] | None:
        """Takes ``(3, H, W)`` in [-1, 1], sides multiples of 8. Returns a picture of the same shape and range with the
        label of the one it was made of; None while the steps fill up."""
        # Convolutions are twice as fast with the channels last.
        given = picture[None].to(self._device, self.dtype, memory_format=torch.channels_last)
        size = working_size((int(picture.shape[-1]), int(picture.shape[-2])), look.side)
        model, batch = self._prepared(size, look)
        verdict = self._similarity.judge(picture)
        if verdict == "cut":
            model.forget()
            self._change = None
        self._labels.push(label)
        if verdict == "skip" and look.threshold < 1 and self._shown is not None:
            return self._given(self._shown, batch)
        batch.set_schedule(_schedule(look.steps))
        batch.guidance = look.guidance
        model.look, model.denoise = look, self.denoise
        features = self.codes.features(given)
        self._features.appendleft(features)
        source = self._latent(given, features, size)
        finished = self._unchanged(source, look)
        if finished is None:
            model.see(source)
            finished = batch.step(source)
            if finished is None:
                return None
            self._change = finished - model.source(batch.lag)
        style = (look.strength * look.style[None]).to(finished)
        self._shown = self.codes.decode(finished, self._features[batch.lag], style)[0]
        return self._given(self._shown, batch)

    def _unchanged(self, source: Tensor, look: TinyLook) -> Tensor | None:
        """The latent of a picture between those that the transformer sees."""
        if look.steps > 1 or self._change is None or self._kept + 1 >= look.every:
            self._kept = 0
            return None
        self._kept += 1
        return source + self._change

    def _given(self, picture: Tensor, batch: StreamBatch) -> tuple[Tensor, float] | None:
        label = self._labels.pop(batch.lag)
        return None if label is None else (picture, label)

    def _latent(self, given: Tensor, features: Features, size: tuple[int, int]) -> Tensor:
        """The source's normalised latent at the transformer's size, ``(1, C, h, w)``."""
        if tuple(given.shape[-2:]) != (size[1], size[0]):
            small = functional.interpolate(given.float(), (size[1], size[0]), mode="bilinear", antialias=True)
            features = self.codes.features(small.to(given.dtype))
        return self.codes.latents(features)

    def _prepared(self, size: tuple[int, int], look: TinyLook) -> tuple[_Denoiser, StreamBatch]:
        threshold = min(look.threshold, _NEVER)
        if threshold != self._threshold:
            self._threshold = threshold
            self._similarity = SimilarityFilter(threshold)
        shape = (1, self._dit.size.channels, size[1] // SHRINK, size[0] // SHRINK)
        if self._model is None or self._batch is None or self._batch.shape != shape:
            self._model = _Denoiser(self._dit, self.denoise, (size[1] // GRID, size[0] // GRID), self._memory)
            self._batch = self._made(self._model, shape, look)
            self.reset()
        elif look.seed != self._seed:
            self._batch = self._made(self._model, shape, look)
            self.reset()
        elif self._look is not None and not look.draws_like(self._look):
            self._model.forget()
            self._shown = self._change = None
        self._look = look
        return self._model, self._batch

    def _made(self, model: _Denoiser, shape: tuple[int, ...], look: TinyLook) -> StreamBatch:
        self._seed = look.seed
        noise = torch.randn(MOST_STEPS, *shape, generator=torch.Generator().manual_seed(look.seed))
        return StreamBatch(model, _schedule(look.steps), noise.to(self._device, self.dtype), look.guidance)


def working_size(frame: tuple[int, int], side: int) -> tuple[int, int]:
    """(width, height) for the transformer: about the area of a square of ``side`` in the shape of the frame."""
    share = min(1.0, side / (frame[0] * frame[1]) ** 0.5)
    width, height = (max(1, round(share * length / GRID)) * GRID for length in frame)
    return width, height


_SCHEDULES = {steps: flow(positions) for steps, positions in _STEPS.items()}


def _schedule(steps: int) -> Schedule:
    return _SCHEDULES[min(max(1, steps), MOST_STEPS)]
