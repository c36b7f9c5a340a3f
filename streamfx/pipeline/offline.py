"""The file-to-file way: every frame is filtered, in order, as fast as all parts can go."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np

from streamfx.core.clock import Clock
from streamfx.core.errors import FilterCrashedError, FilterError, SinkError
from streamfx.core.frames import AUDIO_RATE, AudioFrame, Pixels, VideoFrame, silence
from streamfx.core.playout import slot_of
from streamfx.core.stats import SessionStats
from streamfx.filters.base import LONGEST_SOUND, Block, FilterInfo
from streamfx.filters.host import MOST_IN_FLIGHT
from streamfx.filters.worker import FilterRunner
from streamfx.media.audio_clock import AudioClock
from streamfx.media.base import OutputFormat, Sink, SinkState, Source
from streamfx.pipeline.ear import Ear
from streamfx.pipeline.settings import SessionSettings

_ATTEMPTS = 3
_HANG_TIMEOUT = 60.0


class OfflineFlow:
    """Reads, filters and writes with back-pressure: the slowest part sets the pace, nothing is dropped.

    Frames keep their timestamps unless ``settings.fps`` asks for a constant rate.
    """

    def __init__(
        self,
        settings: SessionSettings,
        output: OutputFormat,
        runner: FilterRunner | None,
        sinks: Sequence[Sink],
        stats: SessionStats,
        clock: Clock,
    ) -> None:
        info = settings.filter.type.info if settings.filter else FilterInfo()
        self._budget = settings.budget
        self._grid: Fraction | None = settings.fps
        self._has_audio = output.audio
        self._runner = runner
        self._sinks = sinks
        self._stats = stats
        self._clock = clock
        self._block = info.block
        self._period = float(1 / output.fps)
        self._in_flight: deque[list[VideoFrame]] = deque()
        self._given = -math.inf
        self._audio = AudioClock()
        self._ear = Ear(LONGEST_SOUND) if info.takes == "audio" else None
        self._gathered: list[VideoFrame] = []
        self._newest: VideoFrame | None = None
        self._held: tuple[int, Pixels] | None = None
        self._last_slot = -1
        self.position = 0.0
        """Media time, in seconds, that was written last."""

    async def run(self, source: Source) -> None:
        """Runs until the source has ended and everything is handed to the outputs."""
        if self._runner is not None:
            await self._runner.wait_ready()
        async for frame in source.frames():
            if isinstance(frame, AudioFrame):
                await self._sound(frame)
            elif self._wanted(frame):
                self._stats.count("frames_in")
                self._newest = frame
                self._gathered.append(frame)
                if len(self._gathered) == self._block:
                    await self._filter(self._gathered)
                    self._gathered = []
        await self._flush()

    def _wanted(self, frame: VideoFrame) -> bool:
        """Whether time goes on with a frame; at a constant rate, whether it falls on an output slot of its own."""
        slot = slot_of(frame.pts, self._grid) if self._grid is not None else 0
        repeats = slot <= self._last_slot if self._grid is not None else False
        if repeats or (self._newest is not None and frame.pts <= self._newest.pts):
            self._stats.count("dropped")
            return False
        self._last_slot = slot
        return True

    async def _flush(self) -> None:
        """Pads the last block, and goes on so until a filter that is late has given the last frame."""
        last = self._newest
        for _ in range(MOST_IN_FLIGHT):
            if last is None or self._newest is None or (not self._gathered and self._given >= self._newest.pts):
                break
            while len(self._gathered) < self._block:
                last = last.at(last.pts + self._period)
                self._gathered.append(last)
            if self._ear is not None:
                # Of what comes after the end, there is nothing to hear.
                self._ear.put(round(last.pts * AUDIO_RATE), silence(round(self._period * AUDIO_RATE)))
            block, self._gathered = self._gathered, []
            await self._filter(block)
        if self._held is not None:
            await self._write(self._held[1], float(self._held[0] / (self._grid or 1)))

    async def _filter(self, frames: list[VideoFrame]) -> None:
        """Filters a block and writes what comes out. What fails is tried again: after a crash, with all that the filter
        had taken in and not given."""
        if self._runner is None:
            await self._hand_on([(frame.pts, frame.pixels) for frame in frames], self._clock.now())
            return
        self._in_flight.append(frames)
        todo = [frames]
        attempt = 1
        while todo:
            taken_at = self._clock.now()
            try:
                block = await self._render(self._runner, todo[0])
            except FilterError as error:
                crashed = isinstance(error, FilterCrashedError)
                self._stats.count("filter_crashes" if crashed else "filter_errors")
                if attempt == _ATTEMPTS:
                    where = f"at {todo[0][0].pts:.2f} s"
                    raise FilterError(f"gave up {where} after {_ATTEMPTS} attempts: {error}") from error
                attempt += 1
                todo = list(self._in_flight) if crashed else todo
                continue
            todo = todo[1:]
            await self._hand_on(zip(block.pts, block.frames, strict=True), taken_at)

    async def _render(self, runner: FilterRunner, frames: list[VideoFrame]) -> Block:
        pts = tuple(frame.pts for frame in frames)
        block = Block(video=np.stack([frame.pixels for frame in frames]), pts=pts)
        if self._ear is not None and (sound := self._ear.take()) is not None:
            block = replace(block, audio=sound[0], audio_pts=sound[1])
        await runner.wait_ready()
        started = self._clock.now()
        rendered = await runner.process(block, timeout=_HANG_TIMEOUT)
        took = self._clock.now() - started
        self._stats.stage("filter", rendered.seconds)
        self._stats.stage("handover", max(0.0, took - rendered.seconds))
        self._stats.rungs["full"] += 1
        self._stats.count("processed", len(frames))
        if took > self._budget:
            self._stats.count("late", len(frames))
        return rendered.block

    async def _hand_on(self, pictures: Iterable[tuple[float, Pixels]], taken_at: float) -> None:
        """Writes pictures, but not those of padding, nor again what was written before a crash."""
        for pts, pixels in pictures:
            if self._newest is not None and self._given < pts <= self._newest.pts:
                self._given = pts
                await self._place(pixels, pts)
                self._stats.latency.add(self._clock.now() - taken_at)
        while self._in_flight and self._in_flight[0][-1].pts <= self._given:
            self._in_flight.popleft()
        while len(self._in_flight) * self._block > MOST_IN_FLIGHT:
            self._in_flight.popleft()

    async def _place(self, pixels: Pixels, pts: float) -> None:
        """Writes a picture, repeated as often as a constant rate asks for."""
        if self._grid is None:
            await self._write(pixels, pts)
            return
        slot = slot_of(pts, self._grid)
        if self._held is not None:
            first, held = self._held
            for index in range(first, slot):
                await self._write(held, float(index / self._grid))
                self._stats.count("reused", int(index > first))
        self._held = slot, pixels

    async def _write(self, pixels: Pixels, pts: float) -> None:
        await self._room()
        for sink in self._sinks:
            sink.write_video(pixels, pts)
        self._stats.count("frames_out")
        self.position = pts

    async def _sound(self, frame: AudioFrame) -> None:
        if not self._has_audio:
            return
        for start, samples in self._audio.push(frame):
            if self._ear is not None:
                self._ear.put(start, samples)
            await self._room()
            for sink in self._sinks:
                sink.write_audio(samples, start)

    async def _room(self) -> None:
        """Waits for the slowest output that still works. Raises ``SinkError`` if none does."""
        for sink in self._sinks:
            await sink.room()
        if all(sink.state in (SinkState.FAILED, SinkState.CLOSED) for sink in self._sinks):
            raise SinkError("; ".join(f"{sink.name} cannot be written: {sink.error}" for sink in self._sinks))
