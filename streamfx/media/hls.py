"""A running result as HLS (RFC 8216): encoded once, in a temporary folder, for as long as somebody asks for it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import tempfile
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import numpy as np

from streamfx.core.clock import Clock
from streamfx.core.errors import StreamFXError
from streamfx.core.frames import AUDIO_CHANNELS, AUDIO_RATE, Pixels, Samples
from streamfx.media.base import EncodeSettings, OutputFormat, Sink, SinkState
from streamfx.media.encoder import HLS
from streamfx.media.output import ProcessOutput
from streamfx.media.url import MediaUrl

logger = logging.getLogger(__name__)

PLAYLIST = "index.m3u8"
_FILE = re.compile(r"index\.m3u8|index\d{1,9}\.ts")

_IDLE_AFTER = 30.0
"""Seconds without a request after which nobody is taken to watch."""
_FIRST_SEGMENT = 8.0
"""Seconds that a first request waits for something to show; a segment is two."""
_LOOK_EVERY = 0.1
_FINISH_TIMEOUT = 2.0
_RETRY_AFTER = 1.0
_LONGEST_HOLE = 5.0
_SOUND_PATIENCE = 0.5
"""Seconds by which sound may come after its picture before silence takes its place."""


class NotYetError(StreamFXError):
    """There is nothing to show yet; it is being made."""


class Tap(Protocol):
    """Takes what viewers are shown: each picture and all sound, on one timeline in seconds."""

    def picture(self, pixels: Pixels, seconds: float) -> None: ...

    def sound(self, samples: Samples, start: int) -> None: ...


class Watched(Protocol):
    """What is shown to viewers."""

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the newest picture."""
        ...

    def tapped(self, tap: Tap) -> contextlib.AbstractContextManager[None]:
        """Gives all that is shown to ``tap`` for the length of the block."""
        ...


class HlsPreview:
    """Keep it going with ``run``; ``read`` starts it, and keeps it from ending.

    ``rate``: frames per second to write at. ``bitrate``: bits per second for pictures of a size.
    """

    def __init__(
        self, watched: Watched, clock: Clock, rate: Callable[[], Fraction], bitrate: Callable[[tuple[int, int]], int]
    ) -> None:
        self._watched = watched
        self._clock = clock
        self._rate = rate
        self._bitrate = bitrate
        self._asked = asyncio.Event()
        self._asked_at = float("-inf")
        self._folder: Path | None = None

    @property
    def wanted(self) -> bool:
        """Whether somebody watches."""
        return self._clock.now() - self._asked_at < _IDLE_AFTER

    async def read(self, name: str) -> bytes | None:
        """A file of the stream; None if there is none of this name (any more). Raises ``NotYetError`` if the first is
        not there in time."""
        if not _FILE.fullmatch(name):
            return None
        if name != PLAYLIST and self._folder is None:
            return None
        self._asked_at = self._clock.now()
        self._asked.set()
        patience = _FIRST_SEGMENT if name == PLAYLIST else 0.0
        while (data := await asyncio.to_thread(self._read, name)) is None:
            if self._clock.now() - self._asked_at >= patience:
                if name == PLAYLIST:
                    raise NotYetError("the first seconds are still being made; ask again in a moment")
                return None
            await asyncio.sleep(_LOOK_EVERY)
        return data

    def _read(self, name: str) -> bytes | None:
        folder = self._folder
        try:
            return (folder / name).read_bytes() if folder else None
        except OSError:
            return None

    async def run(self) -> None:
        """Makes the stream whenever somebody wants it, until cancelled."""
        while True:
            self._asked.clear()
            await self._asked.wait()
            with tempfile.TemporaryDirectory(prefix="streamfx-hls-", ignore_cleanup_errors=True) as folder:
                self._folder = Path(folder)
                try:
                    while self.wanted:
                        await self._write(self._folder / PLAYLIST)
                finally:
                    self._folder = None

    async def _write(self, playlist: Path) -> None:
        """Writes while somebody watches and the pictures keep their size; what is there already is gone on with."""
        size, rate = self._watched.size, self._rate()
        encode = EncodeSettings(self._bitrate(size), preset="superfast", encoder="software")
        # Times of a live output begin at 0; here they go on over a change of size, as most players like it better.
        output = OutputFormat(size, rate, audio=True, live=False, encode=encode)
        sink = ProcessOutput(MediaUrl.parse(str(playlist)), output, container=HLS, go_on=True)
        feed = EvenFeed(sink, size, rate)
        async with asyncio.TaskGroup() as group:
            running = group.create_task(sink.run(), name="hls output")
            try:
                with self._watched.tapped(feed):
                    while self.wanted and not feed.outgrown and not running.done():
                        await asyncio.wait([running], timeout=_LOOK_EVERY)
            finally:
                await asyncio.shield(sink.finish(_FINISH_TIMEOUT))
        if sink.state is SinkState.FAILED:
            logger.warning("hls failed error=%s", sink.error)
            await asyncio.sleep(_RETRY_AFTER)


class EvenFeed:
    """A tap that writes to a sink at an even rate: holes are filled with the last picture and with silence, or segments
    would not be as long as they are to be. ``outgrown``: pictures of another size than ``size`` have come."""

    def __init__(self, sink: Sink, size: tuple[int, int], rate: Fraction) -> None:
        self._sink = sink
        self._size = size
        self._rate = rate
        self._last: Pixels | None = None
        self._next_slot = 0
        self._next_sample = 0
        self.outgrown = False

    def picture(self, pixels: Pixels, seconds: float) -> None:
        if (pixels.shape[1], pixels.shape[0]) != self._size:
            self.outgrown = True
        if self.outgrown:
            return
        slot = round(seconds * self._rate)
        if self._last is None or slot - self._next_slot > _LONGEST_HOLE * self._rate:
            self._next_slot = slot
        if self._last is None:
            self._next_sample = round(slot / self._rate * AUDIO_RATE)
        for n in self._slots_to(slot):
            self._sink.write_video(self._last if n < slot and self._last is not None else pixels, float(n / self._rate))
        self._last = pixels
        self._silence_to(round((seconds - _SOUND_PATIENCE) * AUDIO_RATE))

    def _slots_to(self, slot: int) -> Iterator[int]:
        yield from range(self._next_slot, slot + 1)
        self._next_slot = max(self._next_slot, slot + 1)

    def sound(self, samples: Samples, start: int) -> None:
        if self._last is None or self.outgrown:
            return
        self._silence_to(start)
        samples = samples[:, max(0, self._next_sample - start) :]
        if samples.shape[1]:
            self._sink.write_audio(samples, self._next_sample)
            self._next_sample += samples.shape[1]

    def _silence_to(self, sample: int) -> None:
        missing = sample - self._next_sample
        if missing > _LONGEST_HOLE * AUDIO_RATE:
            self._next_sample = sample
        elif missing > 0:
            self._sink.write_audio(np.zeros((AUDIO_CHANNELS, missing), np.float32), self._next_sample)
            self._next_sample = sample
