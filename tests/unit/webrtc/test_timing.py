"""Sound and picture of one sender on one timeline."""

from __future__ import annotations

import pytest

from streamfx.media.webrtc.timing import SenderTimes


def test_a_lane_begins_with_its_arrival() -> None:
    times = SenderTimes()
    assert times.pts("video", 90_000, arrived_at=50.0) == 50.0
    assert times.pts("video", 180_000, arrived_at=51.3) == 51.0
    assert times.captured("video", 180_000) is None


def test_reports_put_sound_where_it_belongs() -> None:
    times = SenderTimes()
    times.pts("video", 0, 100.0)
    times.pts("audio", 480_000, 100.25)  # a quarter of a second late through its jitter buffer
    times.report("video", 0, 1_000.0)
    assert times.pts("audio", 480_000, 101.0) == 100.25
    times.report("audio", 480_000, 1_000.05)
    assert times.pts("audio", 480_000, 101.0) == pytest.approx(100.05)
    assert times.captured("video", 9_000) == pytest.approx(1_000.1)


def test_small_corrections_are_left_alone() -> None:
    times = SenderTimes()
    times.pts("video", 0, 100.0)
    times.pts("audio", 0, 100.01)
    times.report("video", 0, 5.0)
    times.report("audio", 0, 5.0)
    assert times.pts("audio", 0, 0.0) == 100.01


def test_reports_wrap_with_the_timestamps() -> None:
    times = SenderTimes()
    ticks = (1 << 32) + 45_000
    times.pts("video", ticks, 10.0)
    times.report("video", 90_000, 77.0)
    assert times.captured("video", ticks) == pytest.approx(76.5)


def test_a_report_before_any_frame_is_of_no_use() -> None:
    times = SenderTimes()
    times.report("video", 1, 1.0)
    assert times.captured("video", 1) is None
