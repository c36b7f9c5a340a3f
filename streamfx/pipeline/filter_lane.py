"""One filter at work in a live stream: it gets the newest frames, and its results belong to their moments."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from streamfx.core.channel import Closed, LatestBlocks
from streamfx.core.clock import Clock
from streamfx.core.errors import FilterCrashedError, FilterError
from streamfx.core.frames import Samples, VideoFrame
from streamfx.core.governor import Governor, Rung, build_ladder
from streamfx.core.stats import SessionStats
from streamfx.filters.base import LONGEST_SOUND, Block, FilterInfo
from streamfx.filters.host import MOST_IN_FLIGHT
from streamfx.filters.worker import FilterRunner
from streamfx.pipeline.batcher import Batcher
from streamfx.pipeline.ear import Ear
from streamfx.pipeline.shelf import Picture

logger = logging.getLogger(__name__)

_EXPLORE_EVERY = 30.0


@dataclass(frozen=True, slots=True)
class _Moment:
    captured_at: float
    deadline: float


class FilterLane:
    """Renders the newest block at the rung its governor chooses; ``on_rendered`` gets each picture in order.

    ``period``: seconds between frames. ``budget``: seconds from capture to output, with the filter's lookahead. One
    that works on several
    frames at once gives the pictures of earlier ones; how much earlier is seen from their pts, and leaves less time.
    """

    def __init__(
        self,
        info: FilterInfo,
        runner: FilterRunner,
        period: float,
        budget: float,
        stats: SessionStats,
        clock: Clock,
        on_event: Callable[[str, str], None],
        on_rendered: Callable[[Picture], None],
    ) -> None:
        self._runner = runner
        self._period = period
        self._budget = budget
        self._stats = stats
        self._clock = clock
        self._on_event = on_event
        self._on_rendered = on_rendered
        self._batcher = Batcher(info.blocks or (info.block,), 1 / period, budget)
        self._ladder = build_ladder(info.quality_levels, info.min_scale)
        self._governor = Governor(self._ladder)
        self._blocks: LatestBlocks[VideoFrame] = LatestBlocks(self._batcher.size)
        self._in_flight: OrderedDict[float, _Moment] = OrderedDict()
        self._lag = 0.0
        self._explored_at = clock.now()
        self._ear = Ear(LONGEST_SOUND) if info.takes == "audio" else None
        self._reset = False
        self._closed = False

    @property
    def rung(self) -> str:
        """The governor's present rung."""
        return self._governor.rung.name

    @property
    def ready(self) -> bool:
        """Whether the filter takes frames now."""
        return self._runner.ready

    @property
    def dropped(self) -> int:
        """Frames that were replaced by newer ones before the filter got to them."""
        return self._blocks.dropped

    def offer(self, frame: VideoFrame) -> None:
        """A frame to be filtered, if there is time for it."""
        self._blocks.put(frame)

    def hear(self, start: int, samples: Samples) -> None:
        """Sound from sample index ``start`` of media time on, for a filter that takes it."""
        if self._ear is not None:
            self._ear.put(start, samples)

    def restart(self) -> None:
        """The source was interrupted: what waits is old, and the filter is to forget."""
        self._blocks.clear()
        if self._ear is not None:
            self._ear.clear()
        self._forget()
        self._reset = True

    def finish(self) -> None:
        """Nothing more will be offered; what waits is still rendered."""
        self._blocks.close()

    def retire(self) -> None:
        """Another filter has taken over: what comes out from now on is not shown."""
        self._closed = True
        self._blocks.close()

    async def run(self) -> None:
        """Renders until ``finish`` or ``retire``, or cancelled."""
        while not self._closed:
            await self._runner.wait_ready()
            try:
                block = await self._blocks.take()
            except Closed:
                return
            reset, self._reset = self._reset, False
            await self._render(block, reset)

    async def _render(self, frames: list[VideoFrame], reset: bool) -> None:
        now = self._clock.now()
        # With a lag, the rendering that comes out belongs to an older frame, which is due earlier.
        deadline = frames[0].deadline - self._lag
        settled = self._batcher.settled
        rung = self._choose(now, deadline, len(frames)) if settled else self._ladder[0]
        if rung is None:
            self._stats.count("left_out", len(frames))
            return
        self._stats.stage("wait", now - frames[-1].captured_at)
        block = Block(video=_stack(frames), pts=tuple(frame.pts for frame in frames), quality=rung.quality)
        sound = self._ear.take() if self._ear else None
        if sound is not None:
            block = replace(block, audio=sound[0], audio_pts=sound[1])
        for frame in frames:
            self._in_flight[frame.pts] = _Moment(frame.captured_at, frame.deadline)
        while len(self._in_flight) > MOST_IN_FLIGHT:
            self._in_flight.popitem(last=False)
        try:
            rendered = await self._runner.process(block, scale=rung.scale, reset=reset, timeout=self._hang_timeout)
        except FilterCrashedError as error:
            if not self._closed:
                self._stats.count("filter_crashes")
                self._forget()
                logger.debug("crash=%s", error)
            return
        except FilterError as error:
            self._stats.count("filter_errors")
            self._on_event("filter", str(error))
            return
        took = self._clock.now() - now
        if settled:
            self._governor.measured(rung, took)
        else:
            self._explored(len(frames), took)
        self._stats.stage("filter", rendered.seconds)
        self._stats.stage("handover", max(0.0, took - rendered.seconds))
        self._stats.rungs[rung.name] += 1
        self._stats.count("processed", len(frames))
        self._hand_on(frames[0].pts, rendered.block)

    def _choose(self, now: float, deadline: float, frames: int) -> Rung | None:
        """The rung for a block; None if it is to be left out."""
        decision = self._governor.decide(now, deadline, frames * self._period)
        if decision.moved_from is not None:
            self._stats.moves[decision.moved_from.name, self._governor.rung.name] += 1
            if decision.moved_from is self._ladder[0] and now - self._explored_at > _EXPLORE_EVERY:
                # Before it looks worse for long: perhaps another block size keeps up.
                self._explored_at = now
                self._batcher.explore()
                self._blocks.resize(self._batcher.size)
        return decision.rung

    def _explored(self, frames: int, took: float) -> None:
        """Takes note of a block while the batcher looks for the size of blocks. What other sizes cost is not to be held
        against the one it settles for."""
        self._batcher.measured(frames, took)
        self._blocks.resize(self._batcher.size)
        if self._batcher.settled:
            before, self._governor = self._governor.rung, Governor(self._ladder)
            if before is not self._ladder[0]:
                self._stats.moves[before.name, self._ladder[0].name] += 1

    @property
    def _hang_timeout(self) -> float:
        return max(2.0, 8 * self._budget)

    def _hand_on(self, asked: float, block: Block) -> None:
        """``asked``: pts of the first frame that went in."""
        now = self._clock.now()
        if block.pts:
            # By the frames that it was given since: those left out in between make it no later than it is.
            self._lag = self._period * sum(block.pts[0] < pts <= asked for pts in self._in_flight)
        for pts, pixels in zip(block.pts, block.frames, strict=True):
            owner = self._in_flight.pop(pts, None)
            if owner is not None and not self._closed:
                if now > owner.deadline:
                    self._stats.count("late")
                self._on_rendered(Picture(pixels, pts, owner.captured_at))

    def _forget(self) -> None:
        self._in_flight.clear()
        self._lag = 0.0


def _stack(frames: list[VideoFrame]) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return frames[0].pixels[None] if len(frames) == 1 else np.stack([frame.pixels for frame in frames])
