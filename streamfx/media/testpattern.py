"""``testpattern://``: a picture whose frame number can be read from its pixels, and a tone that clicks each second."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from fractions import Fraction

from streamfx.core.frames import AUDIO_RATE, AudioFrame, VideoFrame
from streamfx.media.base import MediaInfo, Source, SourceRequest
from streamfx.media.pattern import Pattern
from streamfx.media.threaded import Outlet, threaded_source
from streamfx.media.url import MediaUrl, parse_size


def open_pattern(url: MediaUrl, request: SourceRequest) -> AbstractAsyncContextManager[Source]:
    """The test pattern. Options: ``size=1280x720``, ``fps=30``, ``duration=SECONDS`` (default: no end), ``audio=1``,
    ``realtime=1`` (0: as fast as possible). Raises ``UsageError``."""
    url.allow(("size", "fps", "duration", "audio", "realtime"))
    size = request.size or parse_size(url.options.get("size", "1280x720"))
    fps = Fraction(url.number("fps", 30, 1, 240)).limit_denominator(1001)
    duration = url.number("duration", 0, 0, 1e9)
    realtime = url.flag("realtime", True)
    audio = url.flag("audio", True)
    clock = request.clock

    def produce(outlet: Outlet) -> None:
        pattern = Pattern(size, float(fps))
        outlet.announce(MediaInfo(size, fps, audio, realtime, duration or None))
        zero = clock.now()
        total = int(duration * fps) if duration else None
        n = 0
        while total is None or n < total:
            pts = float(n / fps)
            if realtime:
                outlet.wait(zero + pts - clock.now())
            if audio:
                start, end = (int(i * AUDIO_RATE / fps) for i in (n, n + 1))
                outlet.send(AudioFrame(pattern.sound(start, end - start), start / AUDIO_RATE, clock.now()))
            outlet.send(VideoFrame(pattern.picture(n), pts, clock.now(), n))
            n += 1

    return threaded_source(produce, "the test pattern")
