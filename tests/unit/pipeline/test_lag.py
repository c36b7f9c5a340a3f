"""Whose rendering it is."""

from __future__ import annotations

import numpy as np
import pytest

from streamfx.core.frames import VideoFrame
from streamfx.pipeline.lag import LagLine

FRAMES = [VideoFrame(np.zeros((1, 1, 3), np.uint8), float(n), 0.0, n) for n in range(10)]


@pytest.mark.parametrize("lag", [0, 1, 3])
def test_owner_is_the_frame_that_many_before(lag: int) -> None:
    line = LagLine(lag)
    owners = [line.owner(frame) for frame in FRAMES]
    assert owners == [None] * lag + FRAMES[: 10 - lag]


def test_after_a_reset_what_was_owed_is_lost() -> None:
    line = LagLine(2)
    for frame in FRAMES[:5]:
        line.owner(frame)
    line.clear()
    assert [line.owner(frame) for frame in FRAMES[5:8]] == [None, None, FRAMES[5]]
