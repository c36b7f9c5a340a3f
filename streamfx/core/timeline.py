"""One media timeline for a stream whose source may jump, stall, wrap and come back."""

from __future__ import annotations

import math
from collections import deque


class SlidingExtreme:
    """Smallest value of the last ``window`` seconds, in constant time a value. For the largest, negate."""

    def __init__(self, window: float) -> None:
        self._window = window
        self._rising: deque[tuple[float, float]] = deque()

    def add(self, now: float, value: float) -> None:
        while self._rising and self._rising[-1][1] >= value:
            self._rising.pop()
        self._rising.append((now, value))
        while self._rising[0][0] < now - self._window:
            self._rising.popleft()

    def get(self) -> float | None:
        return self._rising[0][1] if self._rising else None

    def clear(self) -> None:
        self._rising.clear()


class Timeline:
    """Maps a source's timestamps to media time, which starts at 0 and runs on whatever the source does.

    Audio and video of one source share the mapping, so they stay in sync. It is anchored anew when the
    timestamps jump (a publisher came back, a file looped, a clock was set) or when all of the last
    ``patience`` seconds came later than they should by ``tolerance`` (a stall that was never made up): the
    next frame then continues where the wall clock says the stream is. A clock that merely drifts is followed.
    The first picture after an anchor is put on the grid of ``fps``, so that pictures keep falling on output slots.
    """

    _JUMP_BACK = 0.5
    _JUMP_AHEAD = 3.0

    def __init__(self, fps: float, tolerance: float = 0.3, patience: float = 3.0) -> None:
        self._fps = fps
        self._tolerance = tolerance
        self._patience = patience
        self._offset: float | None = None
        self._lag = 0.0
        self._lags = SlidingExtreme(patience)
        self._anchored_at = 0.0
        self._last: dict[str, float] = {}
        self._on_grid = False
        self.anchors = 0

    def map(self, pts: float, captured_at: float, lane: str = "video") -> float:
        """Media time in seconds of what carries ``pts`` (source seconds) and came at ``captured_at`` (clock)."""
        if self._offset is None:
            self._anchor(pts, captured_at, media=0.0)
            self._lag = captured_at
        elif self._jumped(pts, captured_at, lane):
            self._anchor(pts, captured_at, media=captured_at - self._lag)
        self._last[lane] = pts
        assert self._offset is not None
        if lane == "video" and not self._on_grid:
            self._offset = math.ceil((pts + self._offset) * self._fps - 1e-6) / self._fps - pts
            self._on_grid = True
        media = pts + self._offset
        self._lags.add(captured_at, captured_at - media)
        self._follow(pts, captured_at)
        return pts + self._offset

    def _jumped(self, pts: float, captured_at: float, lane: str) -> bool:
        assert self._offset is not None
        last = self._last.get(lane)
        early = self._lag - (captured_at - (pts + self._offset))
        if last is None:
            return abs(early) > self._JUMP_AHEAD
        step = pts - last
        return step < -self._JUMP_BACK or early > self._JUMP_AHEAD or step > 10.0

    def _follow(self, pts: float, captured_at: float) -> None:
        """Lets the lag follow a drifting clock; moves the anchor if it is a stall that stays."""
        least = self._lags.get()
        if least is None or captured_at - self._anchored_at < self._patience:
            return
        if least - self._lag > self._tolerance:
            self._anchor(pts, captured_at, media=captured_at - self._lag)
        else:
            # Early frames are believed at once (the network cannot make them early), late ones slowly.
            self._lag += (least - self._lag) * (1.0 if least < self._lag else 0.01)

    def _anchor(self, pts: float, captured_at: float, media: float) -> None:
        self._offset = media - pts
        self._on_grid = False
        self._anchored_at = captured_at
        self._lags.clear()
        self._last.clear()
        self.anchors += 1
