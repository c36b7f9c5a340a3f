"""The file-to-file way: every frame is filtered, in order, as fast as all parts can go."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction

import numpy as np

from streamfx.core.clock import Clock
from streamfx.core.errors import FilterCrashedError, FilterError, SinkError
from streamfx.core.frames import AudioFrame, Pixels, VideoFrame
from streamfx.core.playout import slot_of
from streamfx.core.stats import SessionStats
from streamfx.filters.base import Block, FilterInfo
from streamfx.filters.worker import FilterRunner
from streamfx.media.audio_clock import AudioClock
from streamfx.media.base import OutputFormat, Sink, SinkState, Source
from streamfx.pipeline.lag import LagLine
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
        self._info = info
        self._lag = LagLine(info.lag)
        self._audio = AudioClock()
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
        """Whether a frame falls on an output slot of its own; without a constant rate all do."""
        if self._grid is None:
            return True
        slot = slot_of(frame.pts, self._grid)
        if slot <= self._last_slot:
            self._stats.count("dropped")
            return False
        self._last_slot = slot
        return True

    async def _flush(self) -> None:
        """Pads the last block with its last frame, and feeds that to a lagging filter until it has given all."""
        owed = self._info.lag + len(self._gathered)
        while owed > 0 and self._newest is not None:
            padding = [self._newest] * (self._block - len(self._gathered))
            await self._filter(self._gathered + padding, most=owed)
            owed -= self._block
            self._gathered = []
        if self._held is not None:
            await self._write(self._held[1], float(self._held[0] / (self._grid or 1)))

    async def _filter(self, frames: list[VideoFrame], most: int | None = None) -> None:
        """Filters a block and writes what comes out, but for at most ``most`` frames."""
        taken_at = self._clock.now()
        if self._runner is None:
            pictures: Iterable[Pixels] = [frame.pixels for frame in frames]
        else:
            pictures = await self._render(self._runner, frames)
        for frame, pixels in list(zip(frames, pictures, strict=True))[:most]:
            owner = self._lag.owner(frame)
            if owner is not None:
                await self._place(pixels, owner.pts)
                self._stats.latency.add(self._clock.now() - taken_at)

    async def _render(self, runner: FilterRunner, frames: list[VideoFrame]) -> Iterable[Pixels]:
        """Filters a block; after a crash, waits for the filter to come back and tries again."""
        block = Block(video=np.stack([frame.pixels for frame in frames]), pts=tuple(frame.pts for frame in frames))
        for attempt in range(1, _ATTEMPTS + 1):
            await runner.wait_ready()
            started = self._clock.now()
            try:
                rendered = await runner.process(block, timeout=_HANG_TIMEOUT)
            except FilterError as error:
                self._stats.count("filter_crashes" if isinstance(error, FilterCrashedError) else "filter_errors")
                if attempt == _ATTEMPTS:
                    where = f"at {frames[0].pts:.2f} s"
                    raise FilterError(f"gave up {where} after {_ATTEMPTS} attempts: {error}") from error
                continue
            took = self._clock.now() - started
            self._stats.stage("filter", rendered.seconds)
            self._stats.stage("handover", max(0.0, took - rendered.seconds))
            self._stats.rungs["full"] += 1
            self._stats.count("processed", len(frames))
            if took > self._budget:
                self._stats.count("late", len(frames))
            return rendered.block.frames
        raise AssertionError("unreachable")

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
            await self._room()
            for sink in self._sinks:
                sink.write_audio(samples, start)

    async def _room(self) -> None:
        """Waits for the slowest output that still works. Raises ``SinkError`` if none does."""
        for sink in self._sinks:
            await sink.room()
        if all(sink.state in (SinkState.FAILED, SinkState.CLOSED) for sink in self._sinks):
            raise SinkError("; ".join(f"{sink.name} cannot be written: {sink.error}" for sink in self._sinks))
