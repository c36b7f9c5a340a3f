"""Pictures waiting for their output slot."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from streamfx.core.frames import Pixels


@dataclass(frozen=True, slots=True)
class Picture:
    """``media``: seconds on the media timeline; ``captured_at``: clock seconds its source frame came in."""

    pixels: Pixels
    media: float
    captured_at: float


class Shelf:
    """The newest pictures by media time. Bounded: of too many, the oldest go."""

    def __init__(self, capacity: int = 64) -> None:
        self._pictures: deque[Picture] = deque(maxlen=capacity)

    def add(self, picture: Picture) -> None:
        """Takes a picture; one that is older than the newest here is of no use any more."""
        if not self._pictures or picture.media > self._pictures[-1].media:
            self._pictures.append(picture)

    def newest_at(self, media: float) -> Picture | None:
        """The newest picture that belongs to ``media`` or earlier; what came before it is let go."""
        while len(self._pictures) > 1 and self._pictures[1].media <= media:
            self._pictures.popleft()
        return self._pictures[0] if self._pictures and self._pictures[0].media <= media else None
