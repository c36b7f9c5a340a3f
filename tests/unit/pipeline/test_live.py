"""The live flow by a clock the test moves: hours in seconds, and every slot accounted for."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from streamfx.core.errors import FilterCrashedError, FilterError
from streamfx.core.frames import AUDIO_RATE
from streamfx.core.playout import GatePolicy, Playout
from tests.unit.pipeline.flowkit import (
    RecordingSink,
    Stage,
    Written,
    camera,
    live_stage,
    merged,
    microphone,
    video,
)

FPS = 20
PERIOD = 1 / FPS
START = 100.0


def intervals(pictures: list[Written]) -> list[float]:
    return [b.at - a.at for a, b in itertools.pairwise(pictures)]


def assert_never_paused(sink: RecordingSink) -> None:
    """Every slot once, in order, and none further from the last than the output's clock may stretch."""
    assert [round(p.pts * FPS) for p in sink.pictures] == list(range(len(sink.pictures)))
    gaps = intervals(sink.pictures)
    assert min(gaps) >= PERIOD * (1 - Playout.FASTER) - 1e-6
    assert max(gaps) <= PERIOD * (1 + Playout.SLOWER) + 1e-6


def kinds(sink: RecordingSink) -> list[str]:
    return [kind for kind, _ in itertools.groupby(picture.kind for picture in sink.pictures)]


def changes(sink: RecordingSink) -> dict[str, list[float]]:
    """When each kind of picture began to be shown, in seconds since the start."""
    begun: dict[str, list[float]] = {}
    last = ""
    for picture in sink.pictures:
        if picture.kind != last:
            begun.setdefault(picture.kind, []).append(picture.at - START)
            last = picture.kind
    return begun


def ages(stage: Stage, low: float, high: float) -> list[float]:
    """Seconds from capture to output of what was shown between two moments."""
    return [p.at - START - p.number / FPS for p in stage.sink.pictures if low <= p.at - START < high]


async def test_without_a_filter_the_source_goes_through_at_once() -> None:
    stage = live_stage(camera(FPS, 10), audio=False)
    await stage.play()
    assert [p.number for p in stage.sink.pictures] == list(range(200))
    assert_never_paused(stage.sink)
    assert max(ages(stage, 1, 10)) < 0.01
    assert stage.counters() == {"frames_in": 200, "frames_out": 200, "dropped": 0}


async def test_a_fast_filter_shows_every_frame_with_the_least_delay() -> None:
    stage = live_stage(camera(FPS, 20), lambda block, scale: 0.03, audio=False)
    await stage.play()
    assert_never_paused(stage.sink)
    assert kinds(stage.sink) == ["source", "filtered"]
    settled = [p.number for p in stage.sink.pictures if p.at - START > 2]
    assert settled == list(range(settled[0], 400))
    assert ages(stage, 2, 20) == pytest.approx([0.034] * len(ages(stage, 2, 20)), abs=1e-6)
    assert stage.flow.delay == pytest.approx(0.034, abs=1e-6)


async def test_three_times_too_slow_for_ten_minutes() -> None:
    stage = live_stage(camera(FPS, 600), lambda block, scale: 3 * PERIOD - 0.004, audio=False)
    seen: list[int] = []
    assert stage.runner is not None
    await stage.play((300.0, lambda: seen.append(len(stage.flow._lane._blocks._gathering))))
    assert_never_paused(stage.sink)
    assert len(stage.sink.pictures) == 600 * FPS
    settled = intervals([p for p in stage.sink.pictures if p.at - START > 5])
    assert sum(settled) / len(settled) == pytest.approx(PERIOD, rel=1e-4)
    assert sum(abs(gap - PERIOD) > 1e-6 for gap in settled) < 0.05 * len(settled), "the delay hardly moves"
    early, late = ages(stage, 9, 12), ages(stage, 597, 600)
    # A frame waits up to a period for the filter, and is shown for three slots.
    assert 3 * PERIOD <= min(early) <= 4 * PERIOD + Playout.GUARD
    assert max(early) <= min(early) + 2 * PERIOD + Playout.GUARD
    assert (min(late), max(late)) == pytest.approx((min(early), max(early)), abs=Playout.GUARD)
    assert stage.counters()["processed"] == pytest.approx(4000, rel=0.05)
    assert stage.counters()["processed"] + stage.counters()["dropped"] == pytest.approx(12_000, abs=2)
    assert seen == [0]
    assert kinds(stage.sink) == ["source", "filtered"]


async def test_three_times_too_slow_gets_smaller_pictures_if_the_filter_lets_it() -> None:
    stage = live_stage(camera(FPS, 120), lambda block, scale: 3 * PERIOD * scale**2, audio=False, min_scale=0.5)
    await stage.play()
    assert_never_paused(stage.sink)
    assert dict(stage.stats.moves) == {("full", "size-50"): 1}
    assert stage.flow.rung == "size-50"
    settled = [p.number for p in stage.sink.pictures if p.at - START > 6]
    assert settled == list(range(settled[0], 120 * FPS))


async def test_over_the_budget_the_source_is_shown_at_once_and_without_delay() -> None:
    stage = live_stage(camera(FPS, 60), lambda block, scale: 0.5, audio=False)
    await stage.play()
    assert_never_paused(stage.sink)
    assert kinds(stage.sink) == ["source", "filtered", "source"]
    assert max(ages(stage, 5, 60)) < 0.01
    assert stage.counters()["left_out"] > 500


async def test_a_rare_hang_costs_only_itself() -> None:
    stage = live_stage(camera(FPS, 60), lambda block, scale: 0.03, audio=False)
    assert stage.runner is not None
    stage.runner.fault = lambda now: 0.6 if 30.0 <= now - START < 30.04 else 0.0
    await stage.play()
    assert_never_paused(stage.sink)
    stuck = [p for p in stage.sink.pictures if p.at - START > 29 and p.at - START - p.number / FPS > 0.1]
    assert 10 <= len(stuck) <= 14
    assert stage.counters().get("left_out", 0) == 0
    assert stage.flow.delay == pytest.approx(0.034, abs=1e-3)


async def test_a_crashed_filter_gives_way_to_the_source_and_comes_back() -> None:
    stage = live_stage(camera(FPS, 30), lambda block, scale: 0.03, audio=False)
    runner = stage.runner
    assert runner is not None
    failed = False

    def fault(now: float) -> float:
        nonlocal failed
        if now - START >= 10 and not failed:
            failed = True
            runner._ready.clear()
            raise FilterCrashedError("died")
        return 0.0

    runner.fault = fault
    await stage.play((15.0, runner._ready.set))
    assert_never_paused(stage.sink)
    assert kinds(stage.sink) == ["source", "filtered", "source", "filtered"]
    begun = changes(stage.sink)
    assert begun["source"][1] == pytest.approx(11.0, abs=0.2), "held for a second"
    assert begun["filtered"][1] == pytest.approx(15.5, abs=0.3), "trusted again after 0.4 s"
    assert stage.counters()["filter_crashes"] == 1
    assert ages(stage, 20, 30) == pytest.approx([0.034] * len(ages(stage, 20, 30)), abs=1e-6)


async def test_a_filter_that_stalls_for_five_seconds() -> None:
    """The hang is noticed by the timeout; the runner says so by the same error as a crash."""
    stage = live_stage(camera(FPS, 30), lambda block, scale: 0.03, audio=False)
    assert stage.runner is not None
    stage.runner.fault = lambda now: 100.0 if 10.0 <= now - START < 15.0 else 0.0
    await stage.play()
    assert_never_paused(stage.sink)
    assert kinds(stage.sink) == ["source", "filtered", "source", "filtered"]
    assert stage.counters()["filter_crashes"] == 3, "each call is given two seconds"
    assert changes(stage.sink)["filtered"][1] < 17.5


async def test_errors_cost_one_block_each_and_are_told() -> None:
    stage = live_stage(camera(FPS, 10), lambda block, scale: 0.01, audio=False)
    assert stage.runner is not None

    def fault(now: float) -> float:
        if round((now - START) * FPS) % 10 == 5:
            raise FilterError("filter 'some' failed: ValueError: no")
        return 0.0

    stage.runner.fault = fault
    await stage.play()
    assert_never_paused(stage.sink)
    assert stage.counters()["filter_errors"] == 20
    assert stage.counters()["processed"] == 180
    assert ("filter", "filter 'some' failed: ValueError: no") in stage.events
    assert kinds(stage.sink) == ["source", "filtered"]


async def test_hold_shows_the_source_never() -> None:
    stage = live_stage(camera(FPS, 20), lambda block, scale: 0.03, audio=False, gate=GatePolicy(fallback="hold"))
    assert stage.runner is not None
    stage.runner.fault = lambda now: 100.0 if 5.0 <= now - START < 12.0 else 0.0
    await stage.play()
    assert_never_paused(stage.sink)
    assert "source" not in kinds(stage.sink)
    assert kinds(stage.sink) == ["slate", "filtered"]


def marked_offset(stage: Stage, number: int, after: float) -> float:
    """Seconds by which a marked frame is shown before the loud sound that was captured with it is heard."""
    shown = next(p for p in stage.sink.pictures if p.number == number)
    slots = {round(p.pts * FPS): p.at for p in stage.sink.pictures}
    for at, start, samples in stage.sink.sounds:
        if at - START > after and (np.abs(samples[0]) > 0.5).any():
            index = start + int(np.argmax(np.abs(samples[0]) > 0.5))
            slot = index * FPS // AUDIO_RATE
            return slots[slot] + (index / AUDIO_RATE - slot * PERIOD) - shown.at
    raise AssertionError("the loud sound was never put out")


async def test_a_publisher_gone_for_eight_seconds_comes_back_from_zero() -> None:
    arrivals = merged(
        camera(FPS, 10, pts=50.0),
        microphone(10, pts=50.0, loud=55.0),
        camera(FPS, 12, start=18.0, pts=0.0, first=360),
        microphone(12, start=18.0, pts=0.0, loud=6.0),
    )
    stage = live_stage(arrivals, lambda block, scale: 0.04)
    await stage.play()
    assert_never_paused(stage.sink)
    assert len(stage.sink.pictures) == 30 * FPS
    assert kinds(stage.sink) == ["source", "filtered", "slate", "filtered"]
    begun = changes(stage.sink)
    assert begun["slate"][0] == pytest.approx(13.0, abs=0.15)
    assert begun["filtered"][1] == pytest.approx(18.05, abs=0.15)
    assert stage.counters()["source_restarts"] == 1
    track = stage.sink.track()
    assert np.abs(track[round(10.1 * AUDIO_RATE) : round(17.9 * AUDIO_RATE)]).max() == 0.0
    assert np.abs(track[round(18.2 * AUDIO_RATE) : round(29.0 * AUDIO_RATE)]).min() > 0.05
    before, after = marked_offset(stage, 100, 0.0), marked_offset(stage, 480, 20.0)
    assert before == pytest.approx(0.0, abs=0.002)
    assert after == pytest.approx(before, abs=0.002)
    assert ages(stage, 8, 9.9) == pytest.approx([0.044] * len(ages(stage, 8, 9.9)), abs=1e-6)
    assert ages(stage, 25, 30) == pytest.approx([0.044] * len(ages(stage, 25, 30)), abs=1e-3)


async def test_sound_is_delayed_exactly_as_the_picture() -> None:
    for cost in (0.01, 0.2):
        stage = live_stage(merged(camera(FPS, 12), microphone(12, loud=8.0)), lambda block, scale, cost=cost: cost)
        await stage.play()
        shown = next(p for p in stage.sink.pictures if round(p.pts * FPS) == 160)
        assert shown.at - START == pytest.approx(8.0 + max(cost, 0.04) + Playout.GUARD, abs=0.001)
        at = next(at for at, _, samples in stage.sink.sounds if (samples > 0.5).any())
        assert at == shown.at
        track = stage.sink.track()
        assert int(np.argmax(track > 0.5)) == pytest.approx(8.0 * AUDIO_RATE, abs=2)


async def test_sound_that_comes_late_is_waited_for() -> None:
    arrivals = merged(camera(FPS, 20), microphone(19, start=0.6, pts=0.0))
    stage = live_stage(arrivals)
    await stage.play()
    assert_never_paused(stage.sink)
    track = stage.sink.track()
    assert np.abs(track[10 * AUDIO_RATE : 18 * AUDIO_RATE]).min() > 0.05


async def test_a_source_without_sound_gets_silence_of_the_right_length() -> None:
    stage = live_stage(camera(FPS, 5))
    await stage.play()
    track = stage.sink.track()
    assert len(track) == 5 * AUDIO_RATE
    assert not track.any()


async def test_blocks_of_four() -> None:
    stage = live_stage(camera(FPS, 20), lambda block, scale: 0.05, audio=False, block=4)
    await stage.play()
    assert stage.runner is not None
    assert {len(block.frames) for block in stage.runner.blocks} == {4}
    assert_never_paused(stage.sink)
    settled = [p.number for p in stage.sink.pictures if p.at - START > 5]
    assert settled == list(range(settled[0], 400))
    # The first of four waits for three more and the filter.
    assert ages(stage, 5, 19) == pytest.approx([0.204] * len(ages(stage, 5, 19)), abs=1e-6)


async def test_a_lag_of_two_belongs_to_the_frame_it_shows() -> None:
    stage = live_stage(camera(FPS, 20), lambda block, scale: 0.02, audio=False, lag=2)
    await stage.play()
    assert_never_paused(stage.sink)
    filtered = [p for p in stage.sink.pictures if p.kind == "filtered" and p.at - START > 4]
    assert all(p.number == round(p.pts * FPS) for p in filtered[:-3]), "each in the slot of its own frame"
    assert ages(stage, 5, 19) == pytest.approx([0.124] * len(ages(stage, 5, 19)), abs=1e-6)
    assert stage.counters().get("late", 0) == 0


@pytest.mark.parametrize("old", [1.0, 4.0])
async def test_a_burst_of_old_frames_at_the_beginning_leaves_no_delay(old: float) -> None:
    arrivals = [video(max(old, index / FPS), index / FPS, index) for index in range(30 * FPS)]
    stage = live_stage(arrivals, lambda block, scale: 0.02, audio=False)
    await stage.play()
    assert max(ages(stage, old + 2, 29)) < 0.1
    assert kinds(stage.sink) == ["source", "filtered"]


async def test_a_stall_of_two_seconds_is_bridged_and_leaves_no_delay() -> None:
    arrivals = [video(12.0 if 10 <= index / FPS < 12 else index / FPS, index / FPS, index) for index in range(30 * FPS)]
    stage = live_stage(arrivals, lambda block, scale: 0.02, audio=False)
    await stage.play()
    assert_never_paused(stage.sink)
    assert kinds(stage.sink) == ["source", "filtered"]
    assert max(ages(stage, 20, 29)) == pytest.approx(0.024, abs=1e-3)


async def test_timestamps_that_jump_ahead_leave_no_delay() -> None:
    arrivals = [video(index / FPS, index / FPS + (2.0 if index >= 200 else 0.0), index) for index in range(30 * FPS)]
    stage = live_stage(arrivals, lambda block, scale: 0.02, audio=False)
    await stage.play()
    assert_never_paused(stage.sink)
    assert max(ages(stage, 11, 29)) < 0.1


async def test_the_filter_is_told_to_forget_when_the_source_begins_again() -> None:
    arrivals = merged(camera(FPS, 5, pts=9.0), camera(FPS, 5, start=6.0, pts=0.0, first=120))
    stage = live_stage(arrivals, lambda block, scale: 0.02, audio=False)
    await stage.play()
    assert stage.runner is not None
    assert [at - START for at in stage.runner.resets if at > START + 1] == pytest.approx([6.0], abs=0.06)


async def test_half_the_frame_rate_fills_every_slot() -> None:
    arrivals = [video(index / 10, index / 10, 2 * index) for index in range(100)]
    stage = live_stage(arrivals, lambda block, scale: 0.02, audio=False)
    await stage.play()
    assert_never_paused(stage.sink)
    settled = [p.number for p in stage.sink.pictures if p.at - START > 2]
    assert all(b - a in (0, 2) for a, b in itertools.pairwise(settled))


async def test_a_machine_that_slept_leaves_slots_out() -> None:
    stage = live_stage(camera(FPS, 10), audio=False)

    def sleep() -> None:
        stage.clock._now += 5.0

    await stage.play((4.0, sleep))
    assert stage.counters()["slots_skipped"] == pytest.approx(5 * FPS, abs=3)


async def test_an_empty_source_ends_without_a_picture() -> None:
    stage = live_stage([], lambda block, scale: 0.02)
    await stage.play()
    assert stage.sink.pictures == []


@pytest.mark.parametrize("ending", ["crash", "restart"])
async def test_after_a_break_a_lagging_filter_still_gives_each_frame_its_own(ending: str) -> None:
    arrivals = merged(camera(FPS, 5), camera(FPS, 5, start=5.0, pts=5.0 if ending == "crash" else 90.0, first=100))
    stage = live_stage(arrivals, lambda block, scale: 0.02, audio=False, lag=2)
    runner = stage.runner
    assert runner is not None
    crashes = iter([True])

    def fault(now: float) -> float:
        if ending == "crash" and now - START >= 5 and next(crashes, False):
            runner._owed.clear()
            raise FilterCrashedError("died")
        return 0.0

    runner.fault = fault
    await stage.play()
    filtered = [p for p in stage.sink.pictures if p.kind == "filtered" and p.at - START > 7 and p.pts < 9.8]
    assert len(filtered) > 30
    assert "slate" not in kinds(stage.sink), "what a filter gives while it fills up belongs to nobody"
    assert all(p.number == round(p.pts * FPS) for p in filtered)


@pytest.mark.parametrize(("before", "after"), [(0, 3), (3, 0), (4, 1)])
async def test_a_lag_that_changes_while_live(before: int, after: int) -> None:
    stage = live_stage(camera(FPS, 20), lambda block, scale: 0.02, audio=False, lag=before)
    runner = stage.runner
    assert runner is not None

    def change() -> None:
        runner.lag = after
        if after < before:
            runner._owed = runner._owed[-after:] if after else []

    await stage.play((8.0, change))
    assert_never_paused(stage.sink)
    pictures = [p for p in stage.sink.pictures if 4 < p.at - START < 19.5]
    behind = [round(p.pts * FPS) - p.number for p in pictures]
    assert min(behind) == 0, "never a later frame than the slot's own"
    assert max(behind) <= abs(after - before), "while it changes, the picture before is shown on"
    assert {late for late, p in zip(behind, pictures, strict=True) if not 8 < p.at - START < 10} == {0}
    settled = [p.kind for p in stage.sink.pictures if 12 < p.at - START < 19]
    assert set(settled) == {"filtered"}
    assert stage.counters().get("late", 0) <= 1


async def test_a_lag_leaves_less_time_to_render() -> None:
    """What comes out belongs to a frame two periods older: 0.25 s of budget are 0.15 s for the filter."""
    stage = live_stage(camera(FPS, 20), lambda block, scale: 0.17, audio=False, lag=2)
    await stage.play()
    assert stage.counters()["left_out"] > 200
