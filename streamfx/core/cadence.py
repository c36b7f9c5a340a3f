"""When a device that wants pictures at a constant rate gets the next one. Pure: time comes in as numbers."""

from __future__ import annotations

import math


class Cadence:
    """A picture goes out when it comes, but never sooner than half a period after the one before; when none has come
    for one and a half, the last one is repeated, and then once a period."""

    def __init__(self, fps: float) -> None:
        self._period = 1.0 / fps
        self._soonest = -math.inf
        self._latest = math.inf

    def due(self, waiting: bool) -> float:
        """When the next is to be written. ``waiting``: whether there is a new one."""
        return self._soonest if waiting else self._latest

    def wrote(self, now: float, new: bool) -> None:
        """One was written; ``new``: not a repeated one."""
        self._soonest = now + 0.5 * self._period
        # A standstill of the machine is not made up for.
        self._latest = now + 1.5 * self._period if new else max(self._latest + self._period, self._soonest)
