"""Media time runs on whatever the source does."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamfx.core.timeline import SlidingExtreme, Timeline

FPS = 30.0
SLOT = 1 / FPS


def feed(timeline: Timeline, seconds: float, at: float, pts: float, lane: str = "video") -> list[tuple[float, float]]:
    """Steady frames; returns (wall, media) of each."""
    pairs = []
    for index in range(round(seconds * FPS)):
        wall = at + index * SLOT
        media = timeline.map(pts + index * SLOT, wall, lane)
        if media is not None:
            pairs.append((wall, media))
    return pairs


def lags(pairs: list[tuple[float, float]]) -> list[float]:
    return [wall - media for wall, media in pairs]


@given(st.lists(st.tuples(st.floats(0, 2), st.floats(-1e3, 1e3)), min_size=1, max_size=200), st.floats(0.1, 5))
def test_sliding_extreme_is_the_smallest_of_the_window(steps: list[tuple[float, float]], window: float) -> None:
    extreme, now, seen = SlidingExtreme(window), 0.0, []
    for pause, value in steps:
        now += pause
        seen.append((now, value))
        extreme.add(now, value)
        assert extreme.get() == min(v for t, v in seen if t >= now - window)


def test_sliding_extreme_begins_and_can_be_made_empty() -> None:
    extreme = SlidingExtreme(1.0)
    assert extreme.get() is None
    extreme.add(0.0, 1.0)
    extreme.clear()
    assert extreme.get() is None


def test_starts_at_zero_whatever_the_source_calls_it() -> None:
    timeline = Timeline(FPS)
    assert timeline.map(86_400.0, 5.0) == 0.0
    assert timeline.map(86_400.5, 5.5) == pytest.approx(0.5)
    assert timeline.anchors == 1


@pytest.mark.parametrize("pts", [0.0, 1e5, -3.0])
def test_a_publisher_that_comes_back_continues_by_the_wall_clock(pts: float) -> None:
    timeline = Timeline(FPS)
    before = feed(timeline, 10, at=100, pts=20.0)
    after = feed(timeline, 10, at=118, pts=pts)
    assert timeline.anchors == 2
    assert after[0][1] == pytest.approx(18.0, abs=SLOT)
    assert max(abs(lag - 100.0) for lag in lags(before + after)) <= SLOT + 1e-6


def test_a_publisher_that_left_and_kept_its_clock_needs_no_anchor() -> None:
    timeline = Timeline(FPS)
    feed(timeline, 10, at=100, pts=0.0)
    after = feed(timeline, 10, at=118, pts=18.0)
    assert after[0][1] == pytest.approx(18.0, abs=1e-6)


def test_a_wrap_of_the_timestamps_is_not_seen() -> None:
    wrap = 2**32 / 1000
    timeline = Timeline(FPS)
    before = feed(timeline, 10, at=0, pts=wrap - 10)
    after = feed(timeline, 10, at=10, pts=0.0)
    assert after[0][1] == pytest.approx(before[-1][1] + SLOT, abs=SLOT)
    assert max(abs(lag) for lag in lags(after)) <= SLOT + 1e-6


def test_a_file_that_loops_runs_on() -> None:
    timeline, pairs = Timeline(FPS), []
    for loop in range(50):
        pairs += feed(timeline, 5, at=5 * loop, pts=0.0)
    assert timeline.anchors == 50
    media = [m for _, m in pairs]
    assert all(b > a for a, b in itertools.pairwise(media))
    assert max(abs(lag) for lag in lags(pairs)) <= SLOT + 1e-6, "the rounding does not add up"


def test_anchors_lie_on_the_slots() -> None:
    timeline = Timeline(FPS)
    feed(timeline, 2, at=0, pts=0.0)
    media = timeline.map(777.123, 10.4567)
    assert media is not None
    assert media * FPS == pytest.approx(round(media * FPS), abs=1e-6)


def test_a_stall_made_up_by_a_burst_changes_nothing() -> None:
    timeline = Timeline(FPS)
    feed(timeline, 10, at=0, pts=0.0)
    for index in range(60):
        assert timeline.map(10 + index * SLOT, 12.0 + index * 1e-4) == pytest.approx(10 + index * SLOT)
    after = feed(timeline, 5, at=12.0 + 60e-4, pts=12.0)
    assert timeline.anchors == 1
    assert after[-1][1] == pytest.approx(after[-1][0], abs=0.02)


def test_a_shift_that_stays_is_taken_up_after_patience() -> None:
    timeline = Timeline(FPS)
    feed(timeline, 10, at=0, pts=0.0)
    after = feed(timeline, 10, at=12.0, pts=10.0)
    assert timeline.anchors == 2
    assert after[0][1] == pytest.approx(10.0)
    late = [wall for wall, media in after if wall - media > 0.3]
    assert late[-1] == pytest.approx(10 + 3, abs=0.1), "three seconds without a frame in time"
    assert abs(after[-1][0] - after[-1][1]) <= SLOT + 1e-6


def test_a_jump_ahead_waits_for_nobody() -> None:
    timeline = Timeline(FPS)
    feed(timeline, 10, at=0, pts=0.0)
    after = feed(timeline, 10, at=10.0, pts=12.0)
    assert max(abs(lag) for lag in lags(after)) <= SLOT + 1e-6


@pytest.mark.parametrize("old", [0.25, 1.0, 2.5, 8.0])
def test_the_burst_of_old_frames_with_which_servers_begin_leaves_no_delay(old: float) -> None:
    """All but the newest of it is outdated; what follows must not carry its age for minutes."""
    timeline, now = Timeline(FPS), 50.0
    for index in range(round(old * FPS)):
        timeline.map(index * SLOT, now)
        timeline.map(index * SLOT, now, "audio")
    after = feed(timeline, 10, at=now, pts=round(old * FPS) * SLOT)
    assert timeline.anchors == 1, "it is one beginning, not many"
    tail = [wall - now - media for wall, media in after if wall > now + 1]
    assert min(tail) == pytest.approx(max(tail), abs=1e-6)
    assert -0.11 <= tail[-1] <= SLOT


def test_audio_and_video_share_one_mapping_through_everything() -> None:
    timeline, at = Timeline(FPS), 0.0
    for pts in (500.0, 0.0, 33.3):
        for index in range(150):
            wall, here = at + index * SLOT, pts + index * SLOT
            video, audio = timeline.map(here, wall, "video"), timeline.map(here, wall, "audio")
            assert video == audio
        at += 5 + 8


def test_sound_that_jumps_first_takes_the_picture_along() -> None:
    timeline = Timeline(FPS)
    for index in range(150):
        timeline.map(100 + index * SLOT, index * SLOT, "video")
        timeline.map(100 + index * SLOT, index * SLOT, "audio")
    audio = timeline.map(0.0, 13.0, "audio")
    video = timeline.map(0.02, 13.02, "video")
    assert audio is not None
    assert video is not None
    assert 0 < video - audio <= 0.02 + SLOT + 1e-6, "the first picture is put on its slot"
    assert timeline.map(0.04, 13.04, "audio") == pytest.approx(video + 0.02)
    assert timeline.anchors == 2


@pytest.mark.parametrize("drift", [200e-6, -200e-6])
def test_ten_hours_of_drift_need_no_anchor(drift: float) -> None:
    timeline, fps = Timeline(2.0), 2.0
    for index in range(int(36_000 * fps)):
        pts = index / fps
        media = timeline.map(pts, pts * (1 + drift))
        assert media == pytest.approx(pts)
    assert timeline.anchors == 1
    # And a publisher that then comes back is where the wall clock is, not ten hours of drift away.
    media = timeline.map(0.0, 36_000 * (1 + drift) + 10)
    assert media == pytest.approx(36_010, abs=1.0)


def test_jitter_of_the_network_needs_no_anchor() -> None:
    timeline, noise = Timeline(FPS), random.Random(2)
    for index in range(3000):
        assert timeline.map(index * SLOT, index * SLOT + noise.uniform(0, 0.09)) == pytest.approx(index * SLOT)
    assert timeline.anchors == 1


@given(
    st.lists(
        st.tuples(st.floats(0.001, 3.0), st.floats(-20.0, 20.0), st.sampled_from(["video", "audio"])),
        min_size=1,
        max_size=100,
    )
)
def test_media_time_of_a_lane_only_rises_and_is_never_ahead(steps: list[tuple[float, float, str]]) -> None:
    timeline, wall, pts = Timeline(FPS), 10.0, 1000.0
    reached: dict[str, float] = {}
    for pause, step, lane in steps:
        wall, pts = wall + pause, pts + step
        media = timeline.map(pts, wall, lane)
        if media is None:
            continue
        assert media > reached.get(lane, -1e9)
        reached[lane] = media
        assert media <= wall - 10.0 + 2 * Timeline._EARLY + 1.0 + 2 * SLOT
