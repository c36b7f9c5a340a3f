"""The live way: every frame has a deadline, nothing queues, the output never pauses."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np

from streamfx.core.clock import Clock
from streamfx.core.frames import AUDIO_RATE, AudioFrame, Pixels, VideoFrame
from streamfx.core.playout import SLOT_EARLY, Gate, Playout, Shown, slot_of
from streamfx.core.slate import Slate
from streamfx.core.stats import SessionStats
from streamfx.core.timeline import Timeline
from streamfx.filters.base import FilterInfo
from streamfx.filters.worker import FilterRunner
from streamfx.media.base import OutputFormat, Sink, Source
from streamfx.pipeline.audio_lane import AudioLane
from streamfx.pipeline.filter_lane import FilterLane
from streamfx.pipeline.settings import SessionSettings
from streamfx.pipeline.shelf import Picture, Shelf

logger = logging.getLogger(__name__)

_STALE = 0.1
"""Seconds after which a frame is no good to start a stream with."""

_STANDSTILL = 0.5
"""Seconds the output may be behind itself before it leaves slots out (the machine slept)."""


class LiveFlow:
    """Frames come in, the newest are filtered, the output slots are filled when they are due.

    ``sinks`` may change while it runs, and so may the filter (``switch``).
    """

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
        self._settings = settings
        self._fps: Fraction = output.fps
        self._period = float(1 / output.fps)
        self._has_audio = output.audio
        self._sinks = sinks
        self._stats = stats
        self._clock = clock
        self._on_event = on_event
        self._timeline = Timeline(float(output.fps))
        self._playout = Playout(float(output.fps), settings.budget)
        self._lane = self._suit(settings.filter.type.info if settings.filter else None, runner)
        self._rendering: asyncio.Task[None] | None = None
        self._group: asyncio.TaskGroup | None = None
        self._sources, self._rendered = Shelf(), Shelf()
        self._audio = AudioLane()
        self._started = asyncio.Event()
        self._end: float | None = None
        self._last_media: float | None = None
        self._last_slot = -1
        self._last_shown: Picture | None = None
        self._slate: tuple[float, Slate] | None = None
        self._dropped_before = 0
        self.shown: Shown | None = None
        """What the last slot was filled with."""

    @property
    def rung(self) -> str | None:
        """The governor's present rung; None without a filter."""
        return self._lane.rung if self._lane else None

    @property
    def delay(self) -> float:
        """Seconds from capture to output, at present."""
        return self._playout.delay

    def switch(self, info: FilterInfo | None, runner: FilterRunner | None) -> None:
        """Another filter (or none) from the next frame on; its runner should be ready. What the one before has in the
        works is let go; its last picture is held until the new one's first."""
        if self._lane is not None:
            self._lane.retire()
            self._dropped_before += self._lane.dropped
        if self._rendering is not None:
            self._rendering.cancel()
            self._rendering = None
        self._lane = self._suit(info, runner)
        self._render()

    def _suit(self, info: FilterInfo | None, runner: FilterRunner | None) -> FilterLane | None:
        """The lane of a filter, and what else depends on which one it is."""
        gate, hears = self._settings.gate, info is not None and info.takes == "audio"
        # What is drawn from the sound may stand in for a face; the camera's picture is not to show instead of it.
        self._gate = Gate(replace(gate, fallback="hold") if hears else gate, self._period)
        self._budget = self._playout.budget = self._settings.budget + (info.lookahead if info else 0.0)
        if info is None or runner is None:
            return None
        return FilterLane(
            info, runner, self._period, self._budget, self._stats, self._clock, self._on_event, self._take_rendered
        )

    def _render(self) -> None:
        if self._lane is not None and self._group is not None and self._end is None:
            self._rendering = self._group.create_task(self._lane.run(), name="filter")

    async def run(self, source: Source) -> None:
        """Runs until the source has ended and its last frame was put out."""
        async with asyncio.TaskGroup() as self._group:
            self._render()
            self._group.create_task(self._pace(), name="pace")
            try:
                await self._ingest(source)
            finally:
                self._end = 0.0 if self._last_media is None else self._last_media + self._period
                self._started.set()
                if self._lane is not None:
                    self._lane.finish()
            if self._rendering is not None:
                # What is in the works may still come in time for its slot; after that nobody wants it.
                await asyncio.wait([self._rendering], timeout=self._budget)
                self._rendering.cancel()

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
                self._take_picture(frame.at(media, deadline=frame.captured_at + self._budget))
            else:
                self._take_sound(frame.at(media))

    def _restart(self, anchors: int) -> None:
        """The source begins, or begins again."""
        if anchors > 1:
            self._stats.count("source_restarts")
            self._on_event("source", "timestamps anchored anew")
        self._audio.restart()
        if self._lane is not None:
            self._lane.restart()

    def _take_picture(self, frame: VideoFrame) -> None:
        now = self._clock.now()
        self._stats.count("frames_in")
        self._stats.stage("ingest", max(0.0, now - frame.captured_at))
        self._last_media = frame.pts
        picture = Picture(frame.pixels, frame.pts, frame.captured_at)
        self._sources.add(picture)
        self._playout.captured(frame.pts, frame.captured_at)
        if self._lane is None:
            self._rendered.add(picture)
        self._playout.ready(frame.pts, now)
        slot = slot_of(frame.pts, self._fps)
        if self._lane is not None and self._lane.ready and slot > self._last_slot:
            # Of several frames for one slot of a slower output, one is enough to filter.
            self._last_slot = slot
            self._lane.offer(frame)
        self._started.set()

    def _take_sound(self, frame: AudioFrame) -> None:
        if self._has_audio:
            for piece in self._audio.put(frame):
                if self._lane is not None:
                    self._lane.hear(*piece)
            # The slot that begins before it needs its first samples.
            slot = math.floor(frame.pts / self._period + 1e-6)
            self._playout.sound_ready(slot * self._period, self._clock.now())

    def _take_rendered(self, picture: Picture) -> None:
        self._rendered.add(picture)
        self._playout.ready(picture.media, self._clock.now())

    async def _pace(self) -> None:
        await self._started.wait()
        while self._end is None or self._playout.slot * self._period < self._end - self._period / 2:
            await self._clock.sleep_until(self._playout.due)
            now = self._clock.now()
            if now - self._playout.due > _STANDSTILL:
                self._stats.count("slots_skipped", self._playout.skip_to(now))
            self._emit(self._playout.slot, now)
            self._playout.step()
            self._stats.counters["dropped"] = self._dropped_before + (self._lane.dropped if self._lane else 0)

    def _emit(self, slot: int, now: float) -> None:
        """Fills one output slot."""
        media = float(slot / self._fps)
        reach = media + SLOT_EARLY * self._period
        rendered, source = self._rendered.newest_at(reach), self._sources.newest_at(reach)
        shown = self._gate.choose(media, rendered.media if rendered else None, source.media if source else None)
        captured_at: float | None = None
        if shown is Shown.SLATE:
            pixels = self._slate_at(media)
        else:
            picture = source if shown is Shown.SOURCE else rendered
            if picture is None:
                return
            self._slate = None
            pixels, captured_at = picture.pixels, picture.captured_at
            if picture is not self._last_shown:
                self._stats.latency.add(now - picture.captured_at)
            self._last_shown = picture
        self._count(shown)
        for sink in self._sinks:
            sink.write_video(pixels, media, captured_at)
        if self._has_audio:
            start, end = (int(index * AUDIO_RATE / self._fps) for index in (slot, slot + 1))
            samples = self._audio.take(start, end - start)
            for sink in self._sinks:
                sink.write_audio(samples, start)
        self._stats.stage("emit", self._clock.now() - now)

    def _count(self, shown: Shown) -> None:
        self.shown = shown
        self._stats.count("frames_out")
        if shown is Shown.REUSED:
            self._stats.count("reused")
        elif shown is Shown.SLATE:
            self._stats.count("slate_shown")
        elif shown is Shown.SOURCE and self._lane is not None:
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
