"""Lips and voice leave together: a filter that shows the clicks it hears, by a clock the test moves."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from functools import partial

import numpy as np
import pytest

from streamfx.core.frames import AUDIO_RATE, AudioFrame
from streamfx.filters.base import Block
from streamfx.media.base import MediaInfo
from streamfx.pipeline.canvas import Canvas
from tests.unit.pipeline.flowkit import Arrival, FakeRunner, Stage, live_stage

pytestmark = [pytest.mark.soak, pytest.mark.timeout(600)]

FPS = 25
EACH = 0.04
"""Seconds of a frame of sound."""
MINUTES = 20
MOST_OFF = 0.04
CLICK = 0.02
"""Seconds of a click, one a second."""


class Clicking(FakeRunner):
    """Draws red the pictures of moments at which a click is heard, ``lag`` pictures late."""

    clicks: list[float]

    def _filtered(self, block: Block) -> Block:
        if block.audio is not None:
            loud = np.flatnonzero(block.audio[0] > 0.5)
            edges = loud[np.flatnonzero(np.diff(loud, prepend=-10_000) > AUDIO_RATE // 10)]
            self.clicks += [block.audio_pts + int(edge) / AUDIO_RATE for edge in edges]
        answer = super()._filtered(block)
        for picture, pts in zip(answer.frames, answer.pts, strict=True):
            hit = any(pts - 0.5 / FPS <= click < pts + 0.5 / FPS for click in self.clicks[-4:])
            picture[..., 0] = 255 if hit else 0
        return answer


def clicks(minutes: float, skew: float) -> Iterator[Arrival]:
    """Sound whose clock runs fast by ``skew``, with a click each second of its own."""
    for n in range(round(minutes * 60 / EACH)):
        samples = np.zeros((2, round(EACH * AUDIO_RATE)), np.float32)
        if n % 25 == 12:
            samples[:, : round(CLICK * AUDIO_RATE)] = 0.9
        yield Arrival((n + 1) * EACH / (1 + skew), partial(AudioFrame, samples, n * EACH))


def offsets(stage: Stage) -> list[float]:
    """Seconds by which each click is seen after it is heard, at the output."""
    seen, red = [], False
    for picture in stage.sink.pictures:
        here = picture.pixels[0, 0, 0] > 200
        if here and not red:
            seen.append(picture.pts)
        red = bool(here)
    heard, last = [], -AUDIO_RATE
    for _, start, samples in stage.sink.sounds:
        loud = np.flatnonzero(samples[0] > 0.4)
        if len(loud) and start + int(loud[0]) - last > AUDIO_RATE // 2:
            last = start + int(loud[0])
            heard.append(last / AUDIO_RATE)
    nearest = [min(seen, key=lambda at, click=click: abs(at - click)) - click for click in heard[3:-3]]  # type: ignore[misc]
    assert len(nearest) > 60 * MINUTES * 0.97
    return nearest


async def test_twenty_minutes_with_a_clock_that_drifts() -> None:
    stage = live_stage([], lambda block, scale: 0.02, takes="audio", lookahead=0.2, lag=4, fps=FPS)
    runner = Clicking(stage.clock, lambda block, scale: 0.02, lag=4)
    runner.clicks = []
    lane = stage.flow._lane
    assert lane is not None
    lane._runner = runner
    source = stage.source
    source.info = MediaInfo.of_sound(live=True)
    source._arrivals = clicks(MINUTES, 200e-6)
    stage.source = Canvas(source, (32, 32), Fraction(FPS), stage.clock)  # type: ignore[assignment]
    await stage.play(step=1.0)
    found = offsets(stage)
    assert max(map(abs, found)) <= MOST_OFF
    assert stage.counters().get("late", 0) == 0
