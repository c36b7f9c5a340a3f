"""Pictures for sound that has none: what a filter that is driven by sound draws on."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from fractions import Fraction

import numpy as np

from streamfx.core.clock import Clock
from streamfx.core.frames import AUDIO_RATE, AudioFrame, Frame, Pixels, VideoFrame, silence
from streamfx.media.base import MediaInfo, Source

SIZE = (512, 512)
"""(width, height), unless the session asks for another."""

FPS = Fraction(25)

_GRACE = 0.2
"""Seconds that sound may be late before silence stands in for it."""

_ASTRAY = 0.3
"""Seconds by which timestamps may disagree with the clock after such a silence before they are anchored anew."""

_STANDSTILL = 1.0
"""Seconds of silence that are still owed at most."""

_LONGEST_HOLE = 60.0
"""Seconds by which timestamps of a file may jump; longer jumps are damage, and are closed."""

_EPSILON = 1e-6


class Canvas:
    """A source of sound, with a blank picture for every moment of it.

    A live one that falls silent for a moment, because its publisher left or its network failed, goes on in silence.
    """

    def __init__(self, source: Source, size: tuple[int, int], fps: Fraction, clock: Clock) -> None:
        self._source = source
        self._clock = clock
        self._period = float(1 / fps)
        self._fps = fps
        self._blank: Pixels = np.zeros((size[1], size[0], 3), np.uint8)
        self.info: MediaInfo = replace(source.info, size=size, fps=fps, video=True)
        self._shift = 0.0
        self._first: float | None = None
        self._count = 0
        self._end = 0.0
        self._heard_at = 0.0

    def stats(self) -> dict[str, int]:
        return self._source.stats()

    async def frames(self) -> AsyncIterator[Frame]:
        """Pictures and sound; a picture comes before the sound of its moment."""
        sound = self._source.frames()
        while True:
            waiting = asyncio.ensure_future(anext(sound, None))
            try:
                while not (await asyncio.wait((waiting,), timeout=self._patience))[0]:
                    # Beside the clock itself: what the wait took is not to gather.
                    for frame in self._silence():
                        yield frame
                heard = waiting.result()
            finally:
                if not waiting.done():
                    waiting.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await waiting
            if heard is None:
                return
            if isinstance(heard, AudioFrame) and heard.samples.shape[1]:
                for frame in self._with_pictures(heard):
                    yield frame

    @property
    def _patience(self) -> float | None:
        """Seconds until silence is due; None while nothing was heard yet, and for files."""
        if not self.info.live or self._first is None:
            return None
        return max(0.0, self._heard_at + _GRACE + self._period - self._clock.now())

    def _silence(self) -> list[Frame]:
        """That of one picture."""
        samples = silence(round(self._period * AUDIO_RATE))
        # After a standstill of the whole machine, what was missed is not made up for.
        self._heard_at = max(self._heard_at + self._period, self._clock.now() - _STANDSTILL)
        return self._stretch(AudioFrame(samples, self._end, self._heard_at))

    def _with_pictures(self, frame: AudioFrame) -> list[Frame]:
        pts = frame.pts + self._shift
        if self._first is None:
            self._first = self._end = pts
        elif self.info.live:
            expected = self._end + frame.captured_at - frame.duration - self._heard_at
            if abs(pts - expected) > _ASTRAY:
                pts = max(self._end, expected)
        elif not -_LONGEST_HOLE < pts - self._end < _LONGEST_HOLE:
            pts = self._end
        self._shift = pts - frame.pts
        self._heard_at = frame.captured_at
        return self._stretch(frame.at(pts))

    def _stretch(self, frame: AudioFrame) -> list[Frame]:
        """The sound, after the pictures of all moments up to its end."""
        found: list[Frame] = []
        self._end = max(self._end, frame.pts + frame.duration)
        while (pts := self._moment(self._count)) < self._end - _EPSILON:
            found.append(VideoFrame(self._blank, pts, frame.captured_at, self._count))
            self._count += 1
        return [*found, frame]

    def _moment(self, count: int) -> float:
        assert self._first is not None
        return self._first + float(count / self._fps)
