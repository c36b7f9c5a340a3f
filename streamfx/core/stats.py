"""Counters and latency histograms of one session; where they go is somebody else's business."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


class Histogram:
    """Durations in logarithmic buckets: constant memory however long the stream, quantiles within 2.5 %.

    Covers 10 µs to about 16 minutes; what lies outside counts in the first or last bucket.
    """

    _FIRST = 1e-5
    _GROWTH = 1.05
    _BUCKETS = 378

    def __init__(self) -> None:
        self._counts = [0] * self._BUCKETS
        self.count = 0
        self.total = 0.0
        self.largest = 0.0

    def add(self, seconds: float) -> None:
        bucket = 0 if seconds <= self._FIRST else int(math.log(seconds / self._FIRST) / math.log(self._GROWTH)) + 1
        self._counts[min(bucket, self._BUCKETS - 1)] += 1
        self.count += 1
        self.total += seconds
        self.largest = max(self.largest, seconds)

    def quantile(self, share: float) -> float:
        """Seconds below which ``share`` of all values lie; 0 if there are none."""
        if not self.count:
            return 0.0
        wanted = share * self.count
        seen = 0
        for bucket, count in enumerate(self._counts):
            seen += count
            if seen >= wanted and count:
                middle = self._FIRST * math.exp((bucket - 0.5) * math.log(self._GROWTH))
                return min(middle, self.largest)
        return self.largest

    def copy(self) -> Histogram:
        """As it is now."""
        return self._minus(None)

    def since(self, before: Histogram) -> Histogram:
        """What was added since ``before``, a copy of this one; ``largest`` is of all time."""
        return self._minus(before)

    def _minus(self, before: Histogram | None) -> Histogram:
        result = Histogram()
        result.largest = self.largest
        result.count = self.count - (before.count if before else 0)
        result.total = self.total - (before.total if before else 0.0)
        taken = before._counts if before else [0] * self._BUCKETS
        result._counts = [now - then for now, then in zip(self._counts, taken, strict=True)]
        return result

    def at_most(self, bounds: Sequence[float]) -> list[int]:
        """How many values are not above each of ``bounds`` (seconds, rising), to within a bucket."""
        counts, bucket, total = [], 0, 0
        for bound in bounds:
            while bucket < self._BUCKETS and self._FIRST * self._GROWTH**bucket <= bound * (1 + 1e-9):
                total += self._counts[bucket]
                bucket += 1
            counts.append(total)
        return counts

    def summary(self) -> dict[str, float]:
        """Milliseconds: p50, p95, p99, max; and the count."""
        quantiles = {f"p{round(share * 100)}_ms": 1e3 * self.quantile(share) for share in (0.5, 0.95, 0.99)}
        return {"count": self.count} | quantiles | {"max_ms": 1e3 * self.largest}


@dataclass(slots=True)
class SessionStats:
    """Everything counted in one session.

    ``counters``: frames by fate (``frames_in``, ``frames_out``, ``processed``, ``late``, ``dropped``, ``reused``,
    ``source_shown``, ``slate_shown``, …). ``rungs``: blocks by rung. ``moves``: (from, to) on the ladder.
    ``latency``: capture to output. ``stages``: seconds by stage.
    """

    counters: Counter[str] = field(default_factory=Counter)
    rungs: Counter[str] = field(default_factory=Counter)
    moves: Counter[tuple[str, str]] = field(default_factory=Counter)
    latency: Histogram = field(default_factory=Histogram)
    stages: dict[str, Histogram] = field(default_factory=dict)

    def count(self, name: str, by: int = 1) -> None:
        self.counters[name] += by

    def stage(self, name: str, seconds: float) -> None:
        self.stages.setdefault(name, Histogram()).add(seconds)

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "counters": dict(self.counters),
            "rungs": dict(self.rungs),
            "ladder_moves": [{"from": a, "to": b, "count": n} for (a, b), n in self.moves.items()],
            "latency": self.latency.summary(),
            "stages": {name: histogram.summary() for name, histogram in self.stages.items()},
        }
