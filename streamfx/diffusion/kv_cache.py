"""The past of a causal video model: keys and values of earlier frames in a ring, with some kept for good.

One cache a layer. The ring is preallocated and overwritten in place, so cost and memory a frame are the same for ever.
Slots are not in order of time, and need not be: attention does not care for the order of keys, only for their
positions, and those are given with them (``Past.positions``), relative to the window. Sinks stand right before it.

Policies say which frame goes where:

- ``Rolling``: the last frames, nothing else.
- ``Sink``: the first frames stay for good (attention sinks; LongLive, arXiv 2509.22622). A reference picture written
  there with ``anchor`` is Live Avatar's rolling sink frame (arXiv 2512.04677): its distance stays as trained.
- ``AdaptiveSink``: a sink that has come to differ from the present is given up for it (StreamDiffusionV2,
  arXiv 2511.07399).
- ``EmaSink``: frames that leave the window are folded into the sinks (Reward Forcing).
- ``TempCache``: tokens that leave the window are merged with what they repeat, and counted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from streamfx.diffusion.kv_store import Storage, Store
from streamfx_kernels.ring_attention import Ring, Rows

_STALE = -1e6


@dataclass(frozen=True, slots=True)
class CacheSize:
    """``rows``: independent streams or steps. ``sinks``, ``window``: frames kept for good, and those that pass.
    ``tokens``, ``heads``, ``dim``: of one frame's keys."""

    rows: int
    sinks: int
    window: int
    tokens: int
    heads: int
    dim: int

    def __post_init__(self) -> None:
        if min(self.rows, self.window, self.tokens, self.heads, self.dim) < 1 or self.sinks < 0:
            raise ValueError(f"{self}: all sizes must be at least 1, sinks at least 0")

    @property
    def slots(self) -> int:
        return self.sinks + self.window


@dataclass(frozen=True, slots=True)
class Past:
    """What a frame may attend to. ``keys``, ``values``: ``(N, S, H, D)``, keys not turned by frame. ``positions``:
    ``(N,)``, places in the window; ``here``: that of the frame which asks. ``log_counts``: ``(N, S)``, logarithms of
    how many tokens each one stands for, to be added to the logits; None where each stands for itself."""

    keys: Tensor
    values: Tensor
    positions: Tensor
    here: int
    log_counts: Tensor | None = None


class Policy(Protocol):
    """Decides over the sinks of one cache."""

    def sink_for(self, cache: LayerCache, row: int, key: Tensor, value: Tensor) -> int | None:
        """The sink slot that this frame is to go into although all sinks are taken; None: into the window."""
        ...

    def leaving(self, cache: LayerCache, row: int, slot: int) -> None:
        """The frame in window slot ``slot`` is about to be overwritten."""
        ...

    def log_counts(self, row: int, filled: int) -> Tensor | None:
        """``(filled, S)``, for ``Past.log_counts``."""
        ...

    def forget(self, row: int) -> None:
        """The row begins anew."""
        ...


class Sink:
    """The first frames stay for good."""

    def sink_for(self, cache: LayerCache, row: int, key: Tensor, value: Tensor) -> int | None:
        return None

    def leaving(self, cache: LayerCache, row: int, slot: int) -> None: ...

    def log_counts(self, row: int, filled: int) -> Tensor | None:
        return None

    def forget(self, row: int) -> None: ...


class Rolling(Sink):
    """For a cache without sinks: the last frames, nothing else."""


class AdaptiveSink(Sink):
    """Gives up the sink least like the new frame when its likeness falls below ``threshold``: mean of the cosines of
    mean key and mean value; -1 never does."""

    def __init__(self, threshold: float = 0.2) -> None:
        self._threshold = threshold

    def sink_for(self, cache: LayerCache, row: int, key: Tensor, value: Tensor) -> int | None:
        sinks = slice(0, cache.size.sinks)
        likeness = (_likeness(cache.keys.read(row, sinks), key) + _likeness(cache.values.read(row, sinks), value)) / 2
        least = int(likeness.argmin())
        return least if float(likeness[least]) < self._threshold else None


class EmaSink(Sink):
    """Folds frames that leave the window into the sinks, in turn: ``S ← keep S + (1 - keep) leaving``."""

    def __init__(self, keep: float = 0.99) -> None:
        if not 0 <= keep <= 1:
            raise ValueError(f"keep {keep} must be from 0 to 1")
        self._keep = keep
        self._next: dict[int, int] = {}

    def leaving(self, cache: LayerCache, row: int, slot: int) -> None:
        sink = self._next.get(row, 0)
        self._next[row] = (sink + 1) % cache.size.sinks
        for store in (cache.keys, cache.values):
            folded = torch.lerp(store.read(row, slot).float(), store.read(row, sink).float(), self._keep)
            store.write(row, sink, folded.to(store.dtype))

    def forget(self, row: int) -> None:
        self._next.pop(row, None)


class TempCache(Sink):
    """Merges what repeats ("Fast Autoregressive Video Diffusion and World Models with Temporal Cache Compression and
    Sparse Attention"): the sinks are a store of tokens that each may stand for many.

    A token that leaves the window joins the stored one whose key is nearest to its own, if their cosine over all heads
    is at least ``alike``: key and value become means, the count goes up, and its logarithm is added to the logits, so
    that attention is as if all were there. One that is like none takes the place of the token that has gone longest
    without a match. So a still background is remembered for ever, in constant memory. Counts end at ``most``, from
    where on means follow slowly: a past without end would outweigh the present.
    """

    def __init__(self, alike: float = 0.9, most: int = 32) -> None:
        if not -1 <= alike <= 1 or most < 1:
            raise ValueError(f"alike {alike} must be from -1 to 1, and most {most} at least 1")
        self._alike = alike
        self._most = most
        self._counts: dict[int, Tensor] = {}
        self._matched: dict[int, Tensor] = {}
        self._tokens = 0

    def leaving(self, cache: LayerCache, row: int, slot: int) -> None:
        sinks, device = slice(0, cache.size.sinks), cache.positions.device
        size = cache.size.sinks * cache.size.tokens
        if row not in self._counts:
            self._tokens = cache.size.tokens
            self._counts[row] = torch.ones(size, device=device)
            self._matched[row] = torch.zeros(size, device=device)
        counts, matched = self._counts[row], self._matched[row]
        keys = cache.keys.read(row, sinks).flatten(0, 1).float()
        values = cache.values.read(row, sinks).flatten(0, 1).float()
        key, value = cache.keys.read(row, slot).float(), cache.values.read(row, slot).float()
        unit, stored = (functional.normalize(x.flatten(1), dim=1) for x in (key, keys))
        likeness, nearest = (unit @ stored.T).max(dim=1)
        alike = likeness >= self._alike
        # Fixed shapes all the way, so that a GPU is never waited for: a stored token is aged where nothing matched it.
        matched.sub_(1).clamp_(min=_STALE)
        matched.scatter_reduce_(0, nearest, torch.where(alike, 0.0, -torch.inf), "amax")
        stalest = torch.argsort(matched, stable=True)
        place = torch.where(alike, nearest, stalest[(~alike).cumsum(0).clamp_min(1) - 1])
        replaced = torch.zeros_like(counts).scatter_reduce_(0, place, (~alike).float(), "amax") > 0
        matched.masked_fill_(replaced, 0.0)
        counts.masked_fill_(replaced, 0.0)
        total = counts.index_add(0, place, torch.ones_like(likeness))
        for store, old, new in ((cache.keys, keys, key), (cache.values, values, value)):
            merged = (old * counts[:, None, None]).index_add_(0, place, new) / total[:, None, None]
            store.write(row, sinks, merged.reshape(cache.size.sinks, *new.shape).to(store.dtype))
        counts.copy_(total.clamp(max=self._most))

    def log_counts(self, row: int, filled: int) -> Tensor | None:
        if row not in self._counts:
            return None
        logs = self._counts[row].log().reshape(-1, self._tokens)
        return functional.pad(logs, (0, 0, 0, filled - len(logs)))

    def forget(self, row: int) -> None:
        self._counts.pop(row, None)
        self._matched.pop(row, None)


class LayerCache:
    """The ring of one layer, for ``size.rows`` independent rows."""

    def __init__(
        self,
        size: CacheSize,
        policy: Policy | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        storage: Storage = "same",
    ) -> None:
        self.size = size
        shape = (size.rows, size.slots, size.tokens, size.heads, size.dim)
        self.keys = Store(shape, dtype, device, storage)
        self.values = Store(shape, dtype, device, storage)
        self._policy = policy or Sink()
        self._filled = [0] * size.rows
        self._oldest = [0] * size.rows
        self.positions = _position_table(size).to(device)

    def past(self, row: int = 0) -> Past:
        """What the next frame of ``row`` may attend to; empty at the beginning."""
        filled = self._filled[row]
        taken = slice(0, filled)
        positions = self.positions[self._oldest[row]][taken]
        counts = self._policy.log_counts(row, filled)
        return Past(self.keys.read(row, taken), self.values.read(row, taken), positions, filled, counts)

    @property
    def ring(self) -> Ring:
        """Keys and values where they lie."""
        return Ring(self.keys.data, self.values.data, self.keys.scale, self.values.scale)

    def rows(self, rows: Sequence[int], weight: float = 1.0) -> Rows:
        """What the next frames of ``rows`` may attend to, for attention over the ring itself: ``past`` of each,
        counting ``weight`` times as much."""
        device = self.positions.device
        filled = [self._filled[row] if weight else 0 for row in rows]
        counts = [self._policy.log_counts(row, self.size.slots) for row in rows]
        logs = None
        if weight not in (0, 1) or any(count is not None for count in counts):
            nothing = torch.zeros(self.size.slots, self.size.tokens, device=device)
            logs = torch.stack([nothing if count is None else count for count in counts]) + math.log(weight or 1)
        oldest = torch.tensor([self._oldest[row] for row in rows], device=device)
        return Rows(
            torch.tensor(rows, dtype=torch.int32, device=device),
            torch.tensor(filled, dtype=torch.int32, device=device),
            self.positions[oldest].int(),
            logs,
        )

    def append(self, key: Tensor, value: Tensor, row: int = 0) -> None:
        """Takes a frame's keys (not turned by frame) and values, ``(S, H, D)`` each."""
        slot = self._slot_for(row, key, value)
        self.keys.write(row, slot, key)
        self.values.write(row, slot, value)

    def anchor(self, key: Tensor, value: Tensor, sink: int = 0, row: int = 0) -> None:
        """Writes a sink itself: a reference picture, or what takes its place. Raises ``ValueError`` if there is no such
        sink, or sinks before it are empty."""
        if not 0 <= sink < self.size.sinks or sink > self._filled[row]:
            raise ValueError(
                f"sink {sink} cannot be written: there are {self.size.sinks}, {self._filled[row]} slots filled"
            )
        self.keys.write(row, sink, key)
        self.values.write(row, sink, value)
        self._filled[row] = max(self._filled[row], sink + 1)

    def reset(self, row: int | None = None) -> None:
        """Forgets everything, of one row or of all: another scene, another prompt."""
        for each in range(self.size.rows) if row is None else (row,):
            self._filled[each] = self._oldest[each] = 0
            self._policy.forget(each)

    def _slot_for(self, row: int, key: Tensor, value: Tensor) -> int:
        filled, size = self._filled[row], self.size
        if size.sinks and filled >= size.sinks:
            sink = self._policy.sink_for(self, row, key, value)
            if sink is not None:
                return sink
        if filled < size.slots:
            self._filled[row] = filled + 1
            return filled
        slot = size.sinks + self._oldest[row]
        if size.sinks:
            self._policy.leaving(self, row, slot)
        self._oldest[row] = (self._oldest[row] + 1) % size.window
        return slot


def _position_table(size: CacheSize) -> Tensor:
    """``(window, slots)``: row ``o`` has the positions of all slots when window slot ``o`` is the oldest."""
    window = torch.arange(size.window)
    turned = (window[None] - window[:, None]) % size.window
    return torch.cat([torch.arange(size.sinks).expand(size.window, -1), size.sinks + turned], dim=1)


def _likeness(frames: Tensor, frame: Tensor) -> Tensor:
    """Cosine of each of ``(N, S, H, D)`` with ``(S, H, D)``, by their means over tokens: ``(N,)``."""
    return functional.cosine_similarity(frames.float().mean(1).flatten(1), frame.float().mean(0).flatten()[None])
