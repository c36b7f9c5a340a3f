"""File to file: nothing dropped, order kept, crashes retried."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from streamfx.core.errors import FilterCrashedError, FilterError, SinkError
from streamfx.core.stats import SessionStats
from streamfx.media.base import EncodeSettings, OutputFormat, SinkState
from streamfx.media.url import MediaUrl
from streamfx.pipeline.offline import OfflineFlow
from streamfx.pipeline.settings import SessionSettings
from tests.unit.pipeline.flowkit import (
    SIZE,
    Arrival,
    FakeRunner,
    FakeSource,
    RecordingSink,
    TestClock,
    camera,
    filter_choice,
    merged,
    microphone,
)


@dataclass
class Job:
    clock: TestClock
    flow: OfflineFlow
    sink: RecordingSink
    stats: SessionStats
    runner: FakeRunner | None
    source: FakeSource

    async def run(self) -> None:
        task = asyncio.create_task(self.flow.run(self.source))
        for _ in range(5000):
            if task.done():
                break
            await self.clock.advance(0.05)
        await task


def job(
    arrivals: Iterable[Arrival],
    cost: float | None = 0.01,
    fps: Fraction | None = None,
    audio: bool = False,
    lag: int = 0,
    **info: Any,
) -> Job:
    clock, stats = TestClock(), SessionStats()
    sink = RecordingSink(clock)
    runner = None if cost is None else FakeRunner(clock, lambda block, scale: cost, lag)
    choice = None if cost is None else filter_choice(**info)
    settings = SessionSettings(MediaUrl.parse("testpattern://"), (), filter=choice, fps=fps)
    output = OutputFormat(SIZE, fps or Fraction(20), audio, False, EncodeSettings())
    flow = OfflineFlow(settings, output, runner, [sink], stats, clock)
    return Job(clock, flow, sink, stats, runner, FakeSource(clock, arrivals, live=False))


async def test_every_frame_in_order_with_its_own_timestamp() -> None:
    work = job(camera(20, 5, pts=3.0))
    await work.run()
    assert [p.number for p in work.sink.pictures] == list(range(100))
    assert [p.pts for p in work.sink.pictures] == pytest.approx([3.0 + n / 20 for n in range(100)])
    assert {p.kind for p in work.sink.pictures} == {"filtered"}
    assert work.sink.rooms >= 100
    assert work.flow.position == pytest.approx(3.0 + 99 / 20)


async def test_a_slow_filter_drops_nothing() -> None:
    work = job(camera(20, 2), cost=1.0)
    await work.run()
    assert [p.number for p in work.sink.pictures] == list(range(40))
    assert work.stats.counters["late"] == 40
    assert work.stats.counters["dropped"] == 0


@pytest.mark.parametrize(("block", "lag"), [(1, 0), (4, 0), (1, 2), (4, 2), (4, 5), (3, 1)])
@pytest.mark.parametrize("count", [1, 3, 4, 10])
async def test_the_last_block_and_what_lags_are_flushed(block: int, lag: int, count: int) -> None:
    work = job(camera(20, count / 20), block=block, lag=lag)
    await work.run()
    assert [(p.number, p.kind) for p in work.sink.pictures] == [(n, "filtered") for n in range(count)]
    assert work.runner is not None
    assert {len(b.frames) for b in work.runner.blocks} == {block}


async def test_nothing_in_is_nothing_out() -> None:
    work = job([], block=4, lag=2)
    await work.run()
    assert work.sink.pictures == []


async def test_fewer_frames_a_second() -> None:
    work = job(camera(20, 5), fps=Fraction(10))
    await work.run()
    assert [p.pts for p in work.sink.pictures] == pytest.approx([n / 10 for n in range(len(work.sink.pictures))])
    assert len(work.sink.pictures) in (50, 51)
    shown = [abs(p.number / 20 - p.pts) for p in work.sink.pictures]
    assert max(shown) <= 0.051
    assert work.runner is not None
    assert len(work.runner.blocks) <= 51, "what is not shown is not rendered"
    assert work.stats.counters["dropped"] == 100 - len(work.runner.blocks)


async def test_more_frames_a_second() -> None:
    work = job(camera(20, 5), fps=Fraction(50))
    await work.run()
    pts = [p.pts for p in work.sink.pictures]
    assert pts == pytest.approx([n / 50 for n in range(len(pts))])
    assert len(pts) == pytest.approx(250, abs=3)
    assert max(abs(p.number / 20 - p.pts) for p in work.sink.pictures) <= 0.06
    assert work.runner is not None
    assert len(work.runner.blocks) == 100
    assert work.stats.counters["reused"] == len(pts) - 100


async def test_a_crash_is_tried_again() -> None:
    work = job(camera(20, 1))
    calls = 0

    def fault(now: float) -> float:
        nonlocal calls
        calls += 1
        if calls in (5, 6):
            raise FilterCrashedError("died")
        return 0.0

    assert work.runner is not None
    work.runner.fault = fault
    await work.run()
    assert [p.number for p in work.sink.pictures] == list(range(20))
    assert work.stats.counters["filter_crashes"] == 2


@pytest.mark.parametrize(("block", "lag"), [(1, 3), (4, 6)])
async def test_what_a_late_filter_owed_when_it_crashed_is_given_again(block: int, lag: int) -> None:
    work = job(camera(20, 2), block=block, lag=lag)
    runner = work.runner
    assert runner is not None
    calls = 0

    def fault(now: float) -> float:
        nonlocal calls
        calls += 1
        if calls == 6:
            runner._owed.clear()
            raise FilterCrashedError("died")
        return 0.0

    runner.fault = fault
    await work.run()
    assert [(p.number, p.kind) for p in work.sink.pictures] == [(n, "filtered") for n in range(40)]
    assert work.stats.counters["filter_crashes"] == 1


async def test_time_that_runs_backwards_is_left_out() -> None:
    arrivals = [*camera(20, 1), *camera(20, 0.5, pts=0.5, first=100), *camera(20, 1, pts=1.0, first=20)]
    work = job(arrivals, cost=None)
    await work.run()
    assert [p.number for p in work.sink.pictures] == list(range(40))
    assert work.stats.counters["dropped"] == 10


async def test_a_filter_that_never_gives_anything_ends() -> None:
    work = job(camera(20, 1), lag=10_000)
    await work.run()
    assert work.sink.pictures == []


async def test_a_filter_that_crashes_on_one_frame_ends_the_job_with_its_place() -> None:
    work = job(camera(20, 1))

    def fault(now: float) -> float:
        assert work.runner is not None
        if work.runner.blocks[-1].pts[0] >= 0.5:
            raise FilterError("filter 'some' failed: ValueError: no")
        return 0.0

    assert work.runner is not None
    work.runner.fault = fault
    with pytest.raises(FilterError, match=r"gave up at 0\.50 s after 3 attempts: filter 'some' failed"):
        await work.run()
    assert len(work.sink.pictures) == 10


async def test_when_no_output_works_any_more_the_job_ends() -> None:
    work = job(camera(20, 1), cost=None)
    work.sink.state, work.sink.error = SinkState.FAILED, "disk full"
    with pytest.raises(SinkError, match="recording cannot be written: disk full"):
        await work.run()


async def test_sound_goes_along_unchanged() -> None:
    work = job(merged(camera(20, 3), microphone(3, loud=2.0)), audio=True)
    await work.run()
    track = work.sink.track()
    assert int(np.argmax(track > 0.5)) == pytest.approx(2.0 * 48_000, abs=2)
    assert len(track) == pytest.approx(3 * 48_000, abs=2000)


async def test_sound_is_left_out_where_none_is_wanted() -> None:
    work = job(merged(camera(20, 1), microphone(1)), cost=None, audio=False)
    await work.run()
    assert work.sink.sounds == []
    assert {p.kind for p in work.sink.pictures} == {"source"}
