"""Sound that keeps to its timestamps: slow drift is resampled away, real holes are filled with silence."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import av
import numpy as np
from av.filter import Graph

from streamfx.core.frames import AUDIO_RATE, AudioFrame, Samples

_HOLE = 0.15
"""Seconds of disagreement from which samples are inserted or cut instead of stretched."""

_MOST_STRETCH = 500
"""Samples per second by which sound may be stretched or squeezed: 1 %, under what is heard as a wrong pitch."""


class AudioClock:
    """Makes sample ``n`` of its output belong to media time ``n / 48000``, whatever the source's clock does.

    A thin wrapper of FFmpeg's ``aresample`` filter in its asynchronous mode.
    """

    def __init__(self) -> None:
        self._graph: Graph | None = None

    def push(self, frame: AudioFrame) -> Iterator[tuple[int, Samples]]:
        """Takes sound in media time; gives (index of the first sample, ``(2, N) float32``) in order."""
        graph = self._graph or self._build(frame.pts)
        self._graph = graph
        source = av.AudioFrame.from_ndarray(np.ascontiguousarray(frame.samples), "fltp", "stereo")
        source.sample_rate = AUDIO_RATE
        source.pts, source.time_base = round(frame.pts * AUDIO_RATE), Fraction(1, AUDIO_RATE)
        graph.push(source)
        while True:
            try:
                out = graph.pull()
            except (av.BlockingIOError, av.EOFError):
                return
            assert isinstance(out, av.AudioFrame)
            if out.pts is not None:
                yield out.pts, np.ascontiguousarray(out.to_ndarray(), np.float32)

    def restart(self) -> None:
        """The stream was interrupted: what comes next is not joined to what came before."""
        self._graph = None

    @staticmethod
    def _build(first: float) -> Graph:
        graph = Graph()
        source = graph.add_abuffer(
            sample_rate=AUDIO_RATE, format="fltp", layout="stereo", time_base=Fraction(1, AUDIO_RATE)
        )
        options = {
            "async": str(_MOST_STRETCH),
            "min_hard_comp": str(_HOLE),
            "first_pts": str(round(first * AUDIO_RATE)),
        }
        resample = graph.add("aresample", args=":".join(f"{key}={value}" for key, value in options.items()))
        sink = graph.add("abuffersink")
        source.link_to(resample)
        resample.link_to(sink)
        graph.configure()
        return graph
