"""The live meter of a session: what its counters say about the last seconds."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass
from typing import Any

from streamfx.core.stats import Histogram, SessionStats

_WINDOW = 3.0


@dataclass(frozen=True, slots=True)
class _Reading:
    at: float
    counters: Counter[str]
    latency: Histogram


class Gauge:
    """Rates, shares and quantiles over the last ``window`` seconds."""

    def __init__(self, window: float = _WINDOW) -> None:
        self._window = window
        self._readings: deque[_Reading] = deque()

    def read(self, now: float, stats: SessionStats) -> dict[str, Any]:
        """A reading: frames per second in and out, latency in milliseconds, share of renderings in time."""
        new = _Reading(now, Counter(stats.counters), stats.latency.copy())
        if self._readings and new.counters["frames_out"] < self._readings[-1].counters["frames_out"]:
            self._readings.clear()  # another run of the pipeline
        self._readings.append(new)
        while len(self._readings) > 2 and self._readings[1].at <= now - self._window:
            self._readings.popleft()
        old = self._readings[0]
        span = new.at - old.at
        passed = Counter({name: count - old.counters[name] for name, count in new.counters.items()})
        latency = new.latency.since(old.latency)
        rendered = passed["processed"]
        return {
            "fps_in": round(passed["frames_in"] / span, 2) if span else 0.0,
            "fps_out": round(passed["frames_out"] / span, 2) if span else 0.0,
            "latency_ms": {f"p{q}": round(1e3 * latency.quantile(q / 100), 1) for q in (50, 95, 99)},
            "on_time": round(1 - passed["late"] / rendered, 4) if rendered else None,
        }

    def clear(self) -> None:
        self._readings.clear()
