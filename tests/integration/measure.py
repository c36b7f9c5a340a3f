"""What a recording of the test pattern shows: frame numbers, gaps, and the offset between flash and click."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import av
import numpy as np

from streamfx.core.frames import AUDIO_RATE
from streamfx.media.convert import AudioConverter
from streamfx.media.pattern import click_times, is_flash, read_counter


@dataclass(frozen=True, slots=True)
class Recording:
    """``counters`` and ``times`` (seconds) of every picture; ``clicks`` and ``flashes`` in seconds."""

    counters: list[int | None]
    times: list[float]
    clicks: list[float]
    flashes: list[float]

    def steps(self, skip: int = 0) -> list[int]:
        """Differences between the numbers of neighbouring pictures, ``skip`` left out at the start."""
        seen = [counter for counter in self.counters[skip:] if counter is not None]
        return [b - a for a, b in pairwise(seen)]

    def offsets(self) -> list[float]:
        """Seconds by which each click comes after its flash."""
        if not self.clicks:
            return []
        pairs = [min(self.clicks, key=lambda click: abs(click - flash)) - flash for flash in self.flashes]
        return [offset for offset in pairs if abs(offset) < 0.4]

    def gaps(self) -> list[float]:
        """Seconds between neighbouring pictures."""
        return [b - a for a, b in pairwise(self.times)]


def measure(path: Path) -> Recording:
    """Decodes a whole recording."""
    counters: list[int | None] = []
    times: list[float] = []
    flashes: list[float] = []
    runs = []
    begin: float | None = None
    converter = AudioConverter()
    with av.open(str(path)) as container:
        lit = False
        for frame in container.decode(video=0, audio=0):
            if isinstance(frame, av.VideoFrame):
                pixels = frame.to_ndarray(format="rgb24")
                counters.append(read_counter(pixels))
                times.append(float(frame.time or 0))
                if is_flash(pixels) and not lit:
                    flashes.append(times[-1])
                lit = is_flash(pixels)
            elif isinstance(frame, av.AudioFrame):
                begin = float(frame.time or 0) if begin is None else begin
                runs.extend(converter.convert(frame))
    sound = np.concatenate(runs, axis=1) if runs else np.zeros((2, 0), np.float32)
    clicks = [(begin or 0) + at for at in click_times(sound)] if sound.shape[1] > AUDIO_RATE // 10 else []
    return Recording(counters, times, clicks, flashes)
