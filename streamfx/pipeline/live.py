"""The live way: every frame has a deadline, nothing queues, the output never pauses."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction

import numpy as np

from streamfx.core.channel import Closed, LatestBlocks
from streamfx.core.clock import Clock
from streamfx.core.errors import FilterCrashedError, FilterError
from streamfx.core.frames import AUDIO_RATE, AudioFrame, Pixels, VideoFrame
from streamfx.core.governor import Governor, build_ladder
from streamfx.core.playout import SLOT_EARLY, Gate, Playout, Shown, slot_of
from streamfx.core.stats import SessionStats
from streamfx.core.timeline import Timeline
from streamfx.filters.base import Block, FilterInfo
from streamfx.filters.worker import FilterRunner
from streamfx.media.base import OutputFormat, Sink, Source
from streamfx.pipeline.audio_lane import AudioLane
from streamfx.pipeline.lag import LagLine
from streamfx.pipeline.settings import SessionSettings
from streamfx.pipeline.shelf import Picture, Shelf
from streamfx.pipeline.slate import Slate

logger = logging.getLogger(__name__)

_STALE = 0.1
"""Seconds after which a frame is no good to start a stream with."""

_STANDSTILL = 0.5
"""Seconds the output may be behind itself before it leaves slots out (the machine slept)."""


class LiveFlow:
    """Three tasks: frames come in, the newest are filtered, the output slots are filled when they are due."""

    def __init__(
        self,
        settings: SessionSettings,
        output: OutputFormat,
        runner: FilterRunner | None,
        sinks: Sequence[Sink],
        stats: SessionStats,
        clock: Clock,
        on_event: Callable[[str, str], None],
    ) -> None:
        info = settings.filter.type.info if settings.filter else FilterInfo()
        self._settings = settings
        self._fps: Fraction = output.fps
        self._period = float(1 / output.fps)
        self._has_audio = output.audio
        self._runner = runner
        self._sinks = sinks
        self._stats = stats
        self._clock = clock
        self._on_event = on_event
        self._block = info.block
        self._timeline = Timeline(float(output.fps))
        self._playout = Playout(float(output.fps), settings.budget)
        self._gate = Gate(settings.gate, self._period)
        self._governor = Governor(build_ladder(info.quality_levels, info.min_scale))
        self._blocks: LatestBlocks[VideoFrame] = LatestBlocks(info.block)
        self._lag = LagLine(info.lag)
        self._sources, self._rendered = Shelf(), Shelf()
        self._audio = AudioLane()
        self._started = asyncio.Event()
        self._end: float | None = None
        self._last_media: float | None = None
        self._last_slot = -1
        self._last_shown: Picture | None = None
        self._slate: tuple[float, Slate] | None = None

    @property
    def rung(self) -> str:
        """The governor's present rung."""
        return self._governor.rung.name

    @property
    def delay(self) -> float:
        """Seconds from capture to output, at present."""
        return self._playout.delay

    async def run(self, source: Source) -> None:
        """Runs until the source has ended and its last frame was put out."""
        async with asyncio.TaskGroup() as group:
            filtering = group.create_task(self._filter(), name="filter") if self._runner else None
            group.create_task(self._pace(), name="pace")
            try:
                await self._ingest(source)
            finally:
                self._end = 0.0 if self._last_media is None else self._last_media + self._period
                self._started.set()
                self._blocks.close()
            if filtering is not None:
                # What is in the works may still come in time for its slot; after that nobody wants it.
                await asyncio.wait([filtering], timeout=self._settings.budget)
                filtering.cancel()

    async def _ingest(self, source: Source) -> None:
        anchors = 0
        async for frame in source.frames():
            lane = "video" if isinstance(frame, VideoFrame) else "audio"
            if anchors == 0 and (lane == "audio" or self._clock.now() - frame.captured_at > _STALE):
                # The stream begins with a picture, and not with one that waited while the outputs were opened:
                # that would be to begin behind.
                continue
            media = self._timeline.map(frame.pts, frame.captured_at, lane)
            if self._timeline.anchors != anchors:
                anchors = self._timeline.anchors
                self._restart(anchors)
            if media is None:
                self._stats.count("outdated")
            elif isinstance(frame, VideoFrame):
                self._take_picture(frame.at(media, deadline=frame.captured_at + self._settings.budget))
            else:
                self._take_sound(frame.at(media))

    def _restart(self, anchors: int) -> None:
        """The source begins, or begins again."""
        if anchors > 1:
            self._stats.count("source_restarts")
            self._on_event("source", "timestamps anchored anew")
        self._audio.restart()
        self._blocks.clear()
        self._lag.clear()

    def _take_picture(self, frame: VideoFrame) -> None:
        now = self._clock.now()
        self._stats.count("frames_in")
        self._stats.stage("ingest", max(0.0, now - frame.captured_at))
        self._last_media = frame.pts
        picture = Picture(frame.pixels, frame.pts, frame.captured_at)
        self._sources.add(picture)
        self._playout.captured(frame.pts, frame.captured_at)
        if self._runner is None:
            self._rendered.add(picture)
        self._playout.ready(frame.pts, now)
        slot = slot_of(frame.pts, self._fps)
        if self._runner is not None and self._runner.ready and slot > self._last_slot:
            # Of several frames for one slot of a slower output, one is enough to filter.
            self._last_slot = slot
            self._blocks.put(frame)
        self._started.set()

    def _take_sound(self, frame: AudioFrame) -> None:
        if self._has_audio:
            self._audio.put(frame)
            # The slot that begins before it needs its first samples.
            slot = math.floor(frame.pts / self._period + 1e-6)
            self._playout.sound_ready(slot * self._period, self._clock.now())

    async def _filter(self) -> None:
        assert self._runner is not None
        anchors = self._timeline.anchors
        while True:
            await self._runner.wait_ready()
            try:
                block = await self._blocks.take()
            except Closed:
                return
            reset = anchors != self._timeline.anchors
            anchors = self._timeline.anchors
            await self._render(self._runner, block, reset)

    async def _render(self, runner: FilterRunner, frames: list[VideoFrame], reset: bool) -> None:
        """Filters a block at the rung the governor chooses, and shelves what comes out."""
        now = self._clock.now()
        # With a lag, the rendering that comes out belongs to an older frame, which is due earlier.
        deadline = frames[0].deadline - self._lag.frames * self._period
        decision = self._governor.decide(now, deadline, len(frames) * self._period)
        if decision.moved_from is not None:
            self._stats.moves[decision.moved_from.name, self._governor.rung.name] += 1
        rung = decision.rung
        if rung is None:
            self._stats.count("left_out", len(frames))
            return
        self._stats.stage("wait", now - frames[-1].captured_at)
        block = Block(video=_stack(frames), pts=tuple(frame.pts for frame in frames), quality=rung.quality)
        try:
            rendered = await runner.process(block, scale=rung.scale, reset=reset, timeout=self._hang_timeout)
        except FilterCrashedError as error:
            self._stats.count("filter_crashes")
            self._lag.clear()
            logger.debug("crash=%s", error)
            return
        except FilterError as error:
            self._stats.count("filter_errors")
            self._on_event("filter", str(error))
            return
        took = self._clock.now() - now
        self._governor.measured(rung, took)
        self._stats.stage("filter", rendered.seconds)
        self._stats.stage("handover", max(0.0, took - rendered.seconds))
        self._stats.rungs[rung.name] += 1
        self._shelve(frames, rendered.block.frames)

    @property
    def _hang_timeout(self) -> float:
        return max(2.0, 8 * self._settings.budget)

    def _shelve(self, frames: list[VideoFrame], pictures: Iterable[Pixels]) -> None:
        now = self._clock.now()
        for frame, pixels in zip(frames, pictures, strict=True):
            self._stats.count("processed")
            owner = self._lag.owner(frame)
            if owner is not None:
                if now > owner.deadline:
                    self._stats.count("late")
                self._rendered.add(Picture(pixels, owner.pts, owner.captured_at))
                self._playout.ready(owner.pts, now)

    async def _pace(self) -> None:
        await self._started.wait()
        while self._end is None or self._playout.slot * self._period < self._end - self._period / 2:
            await self._clock.sleep_until(self._playout.due)
            now = self._clock.now()
            if now - self._playout.due > _STANDSTILL:
                self._stats.count("slots_skipped", self._playout.skip_to(now))
            self._emit(self._playout.slot, now)
            self._playout.step()
            self._stats.counters["dropped"] = self._blocks.dropped

    def _emit(self, slot: int, now: float) -> None:
        """Fills one output slot."""
        media = float(slot / self._fps)
        reach = media + SLOT_EARLY * self._period
        rendered, source = self._rendered.newest_at(reach), self._sources.newest_at(reach)
        shown = self._gate.choose(media, rendered.media if rendered else None, source.media if source else None)
        if shown is Shown.SLATE:
            pixels = self._slate_at(media)
        else:
            picture = source if shown is Shown.SOURCE else rendered
            if picture is None:
                return
            self._slate = None
            pixels = picture.pixels
            if picture is not self._last_shown:
                self._stats.latency.add(now - picture.captured_at)
            self._last_shown = picture
        self._count(shown)
        for sink in self._sinks:
            sink.write_video(pixels, media)
        if self._has_audio:
            start, end = (int(index * AUDIO_RATE / self._fps) for index in (slot, slot + 1))
            samples = self._audio.take(start, end - start)
            for sink in self._sinks:
                sink.write_audio(samples, start)
        self._stats.stage("emit", self._clock.now() - now)

    def _count(self, shown: Shown) -> None:
        self._stats.count("frames_out")
        if shown is Shown.REUSED:
            self._stats.count("reused")
        elif shown is Shown.SLATE:
            self._stats.count("slate_shown")
        elif shown is Shown.SOURCE and self._runner is not None:
            self._stats.count("source_shown")

    def _slate_at(self, media: float) -> Pixels:
        if self._slate is None:
            last = self._last_shown.pixels if self._last_shown else np.zeros((*self._size, 3), np.uint8)
            self._slate = media, Slate(last)
        since, slate = self._slate
        return slate.picture(media - since)

    @property
    def _size(self) -> tuple[int, int]:
        """(height, width) before anything was shown."""
        newest = self._sources.newest_at(float("inf"))
        return (newest.pixels.shape[0], newest.pixels.shape[1]) if newest else (360, 640)


def _stack(frames: list[VideoFrame]) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return frames[0].pixels[None] if len(frames) == 1 else np.stack([frame.pixels for frame in frames])
