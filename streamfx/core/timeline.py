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

    Audio and video of one source share the mapping, so they stay in sync. It is anchored anew, so that the next
    frame continues where the wall clock says the stream is, when

    - the timestamps jump (a publisher came back, a file looped, a clock was set);
    - frames come earlier than they should by more than the wall clock can have it, as in the burst of old frames
      with which many servers begin: what is behind that burst would be late for ever;
    - all of the last ``patience`` seconds came later than they should by ``tolerance`` (a stall never made up).

    A clock that merely drifts is followed. The first picture after an anchor is put on the grid of ``fps``, so that
    pictures keep falling on output slots.
    """

    _JUMP_BACK = 0.5
    _JUMP_AHEAD = 10.0
    _EARLY = 0.5
    _EARLY_AT_START = 0.1
    _LATE = 3.0

    def __init__(self, fps: float, tolerance: float = 0.3, patience: float = 3.0) -> None:
        self._fps = fps
        self._tolerance = tolerance
        self._patience = patience
        self._offset: float | None = None
        self._lag = 0.0
        self._lags = SlidingExtreme(patience)
        self._anchored_at = 0.0
        self._last: dict[str, float] = {}
        self._reached: dict[str, float] = {}
        self._on_grid = False
        self.anchors = 0
        """How often it was anchored; a burst at the beginning does not count again."""

    def map(self, pts: float, captured_at: float, lane: str = "video") -> float | None:
        """Media time in seconds of what carries ``pts`` (source seconds) and came at ``captured_at`` (clock).

        Grows with every call for one lane; None for what belongs to a moment that the lane has passed already.
        """
        if self._offset is None:
            self._anchor(pts, captured_at, media=0.0)
            self._lag = captured_at
            self.anchors = 1
        elif self._in_burst(pts, captured_at, lane):
            self._anchor(pts, captured_at, media=captured_at - self._lag)
        elif self._jumped(pts, captured_at, lane):
            self._anchor(pts, captured_at, media=captured_at - self._lag)
            self.anchors += 1
        self._last[lane] = pts
        assert self._offset is not None
        self._align(pts, lane)
        self._lags.add(captured_at, captured_at - (pts + self._offset))
        self._follow(pts, captured_at)
        self._align(pts, lane)
        media = pts + self._offset
        if media <= self._reached.get(lane, -math.inf):
            return None
        self._reached[lane] = media
        return media

    def _align(self, pts: float, lane: str) -> None:
        if lane == "video" and not self._on_grid:
            assert self._offset is not None
            self._offset = math.ceil((pts + self._offset) * self._fps - 1e-6) / self._fps - pts
            self._on_grid = True

    def _early(self, pts: float, captured_at: float) -> float:
        assert self._offset is not None
        return self._lag - (captured_at - (pts + self._offset))

    def _in_burst(self, pts: float, captured_at: float, lane: str) -> bool:
        """Whether this is one of the old frames that came at once at the beginning; no anchor of its own."""
        beginning = captured_at - self._anchored_at < self._patience
        last = self._last.get(lane, pts)
        return beginning and abs(pts - last) <= self._JUMP_BACK and self._early(pts, captured_at) > self._EARLY_AT_START

    def _jumped(self, pts: float, captured_at: float, lane: str) -> bool:
        last, early = self._last.get(lane), self._early(pts, captured_at)
        if early > self._EARLY:
            return True
        if last is None:
            return early < -self._LATE
        return not -self._JUMP_BACK <= pts - last <= self._JUMP_AHEAD

    def _follow(self, pts: float, captured_at: float) -> None:
        """Lets the lag follow a drifting clock; moves the anchor if it is a stall that stays."""
        least = self._lags.get()
        if least is None or captured_at - self._anchored_at < self._patience:
            return
        if least - self._lag > self._tolerance:
            self._anchor(pts, captured_at, media=captured_at - self._lag)
            self.anchors += 1
        else:
            # Early frames are believed at once (the network cannot make them early), late ones slowly.
            self._lag += (least - self._lag) * (1.0 if least < self._lag else 0.01)

    def _anchor(self, pts: float, captured_at: float, media: float) -> None:
        self._offset = media - pts
        self._on_grid = False
        self._anchored_at = captured_at
        self._lags.clear()
        self._last.clear()
