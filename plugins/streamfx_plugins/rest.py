"""A face at rest costs nothing: its pictures are drawn once, and played to and fro until it speaks again."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Pose = NDArray[np.float32]
Picture = NDArray[np.uint8]

_EASE = 0.72
"""What is left, a picture later, of the way from where it rested to where it would be."""


class RestLoop:
    """Draws poses while a face is busy, and the first ``most`` of a rest; from then on it plays those."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: list[tuple[Pose, Picture]] = []
        self._at = 0
        self._step = -1
        self._playing = False
        self._off: Pose | None = None

    def clear(self) -> None:
        """The pictures are of somebody else."""
        self._kept.clear()
        self._playing = False
        self._off = None

    def picture(self, pose: Pose, at_rest: bool, draw: Callable[[Pose], Picture]) -> Picture:
        """For the next moment. ``pose``: where the face would be; it is come back to without a jump."""
        if at_rest and len(self._kept) == self._most:
            return self._played()
        if not at_rest:
            if self._playing:
                self._off = self._kept[self._at][0] - pose
            self._kept.clear()
            self._playing = False
        if self._off is not None:
            self._off = self._off * _EASE if np.abs(self._off).max() > 0.01 else None
        shown = pose if self._off is None else (pose + self._off).astype(np.float32)
        drawn = draw(shown)
        if at_rest:
            self._kept.append((shown, drawn))
        return drawn

    def _played(self) -> Picture:
        if not self._playing:
            self._playing, self._at, self._step = True, self._most - 1, -1
        if not 0 <= self._at + self._step < self._most:
            self._step = -self._step
        self._at += self._step
        return self._kept[self._at][1]
