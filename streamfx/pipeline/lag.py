"""Which frame a result belongs to, when a filter gives its results some frames late."""

from __future__ import annotations

from collections import deque

from streamfx.core.frames import VideoFrame


class LagLine:
    """A filter with a lag of N (``frames``) gives, for each frame, the rendering of the frame N before."""

    def __init__(self, lag: int) -> None:
        self.frames = lag
        self._waiting: deque[VideoFrame] = deque()

    def owner(self, frame: VideoFrame) -> VideoFrame | None:
        """The frame whose rendering came out when ``frame`` went in; None for the first N."""
        self._waiting.append(frame)
        return self._waiting.popleft() if len(self._waiting) > self.frames else None

    def clear(self) -> None:
        """The filter was reset, or died: what it owed is lost."""
        self._waiting.clear()
