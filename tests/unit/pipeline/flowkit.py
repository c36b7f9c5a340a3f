"""A stage for the flows: a source, a filter and an output that live by a clock the test moves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamfx.core.clock import Clock, FakeClock
from streamfx.core.errors import FilterCrashedError
from streamfx.core.frames import AUDIO_RATE, AudioFrame, Frame, VideoFrame
from streamfx.core.playout import GatePolicy
from streamfx.core.stats import SessionStats
from streamfx.filters.base import Block, Filter, FilterInfo, Params
from streamfx.filters.worker import Rendered
from streamfx.media.base import EncodeSettings, MediaInfo, OutputFormat, SinkState
from streamfx.media.url import MediaUrl
from streamfx.pipeline.live import LiveFlow
from streamfx.pipeline.settings import FilterChoice, SessionSettings

SIZE = (32, 32)
RAW, FILTERED = 200, 100
"""The blue channel of a source frame and of a filtered one; a slate's is darker than either."""


class TestClock(FakeClock):
    """Few turns of the loop a step: nothing on this stage hands on more than a few times."""

    __test__ = False

    @staticmethod
    async def settle(turns: int = 6) -> None:
        await FakeClock.settle(turns)


def picture(number: int) -> NDArray[np.uint8]:
    """A frame that carries its number in red and green."""
    pixels = np.empty((SIZE[1], SIZE[0], 3), np.uint8)
    pixels[...] = (number // 256 % 256, number % 256, RAW)
    return pixels


def number_of(pixels: NDArray[np.uint8]) -> int:
    return int(pixels[0, 0, 0]) * 256 + int(pixels[0, 0, 1])


@dataclass
class Arrival:
    """``frame`` comes ``at`` seconds after the source was opened."""

    at: float
    make: Callable[[float], Frame]


def video(at: float, pts: float, number: int) -> Arrival:
    return Arrival(at, lambda now: VideoFrame(picture(number), pts, now, number))


def sound(at: float, pts: float, seconds: float, level: float = 0.25) -> Arrival:
    samples = np.full((2, round(seconds * AUDIO_RATE)), level, np.float32)
    return Arrival(at, lambda now: AudioFrame(samples, pts, now))


def camera(fps: float, seconds: float, start: float = 0.0, pts: float = 0.0, first: int = 0) -> Iterator[Arrival]:
    """A steady picture source from ``start`` on."""
    for index in range(round(fps * seconds)):
        yield video(start + index / fps, pts + index / fps, first + index)


def microphone(
    seconds: float, start: float = 0.0, pts: float = 0.0, frame: float = 0.02, loud: float = -1.0
) -> Iterator[Arrival]:
    """Steady quiet sound; the frame that begins at ``loud`` seconds (of pts) is loud."""
    for index in range(round(seconds / frame)):
        here = pts + index * frame
        yield sound(start + index * frame, here, frame, 0.9 if abs(here - loud) < 1e-6 else 0.1)


class FakeSource:
    def __init__(self, clock: Clock, arrivals: Iterable[Arrival], live: bool = True, fps: int = 20) -> None:
        self.info = MediaInfo(SIZE, Fraction(fps), audio=True, live=live)
        self._clock = clock
        self._arrivals = arrivals

    async def frames(self) -> AsyncIterator[Frame]:
        start = self._clock.now()
        for arrival in self._arrivals:
            if self.info.live and start + arrival.at > self._clock.now():
                await self._clock.sleep_until(start + arrival.at)
            yield arrival.make(self._clock.now())


class FakeRunner:
    """The thin seam: stands for a worker process. ``process`` takes ``cost(quality, scale)`` seconds of fake time."""

    def __init__(self, clock: Clock, cost: Callable[[Block, float], float], lag: int = 0) -> None:
        self._clock = clock
        self._cost = cost
        self.lag = lag
        """Frames by which it is late; may change."""
        self._owed: list[tuple[float, NDArray[np.uint8]]] = []
        self._ready = asyncio.Event()
        self._ready.set()
        self.busy = 0
        self.blocks: list[Block] = []
        self.resets: list[float] = []
        self.fault: Callable[[float], float] | None = None
        """Asked at each call with the time; may raise, or give extra seconds."""

    @property
    def ready(self) -> bool:
        return self._ready.is_set()

    async def wait_ready(self) -> None:
        await self._ready.wait()

    async def run(self) -> None:
        await asyncio.Event().wait()

    def set_params(self, params: Params) -> None:
        raise AssertionError("the flows do not set parameters")

    async def down_until(self, when: float) -> None:
        self._ready.clear()
        self._owed.clear()
        await self._clock.sleep_until(when)
        self._ready.set()

    async def process(self, block: Block, *, scale: float = 1.0, reset: bool = False, timeout: float) -> Rendered:
        assert self.ready
        assert self.busy == 0, "one block at a time"
        self.busy += 1
        try:
            self.blocks.append(block)
            now = self._clock.now()
            if reset:
                self.resets.append(now)
                self._owed.clear()
            seconds = self._cost(block, scale) + (self.fault(now) if self.fault else 0.0)
            await self._clock.sleep_until(now + min(seconds, timeout))
            if seconds > timeout:
                raise FilterCrashedError("hung")
            return Rendered(self._filtered(block), seconds)
        finally:
            self.busy -= 1

    def _filtered(self, block: Block) -> Block:
        for pts, frame in zip(block.pts, block.frames, strict=True):
            marked = frame.copy()
            marked[..., 2] = FILTERED
            self._owed.append((pts, marked))
        given = self._owed[: max(0, len(self._owed) - self.lag)][: len(block.pts)]
        self._owed = self._owed[len(given) :]
        pictures = np.stack([pixels for _, pixels in given]) if given else block.frames[:0]
        return block.with_video(pictures, tuple(pts for pts, _ in given))


@dataclass
class Written:
    at: float
    pts: float
    pixels: NDArray[np.uint8] = field(repr=False)

    @property
    def number(self) -> int:
        return number_of(self.pixels)

    @property
    def kind(self) -> str:
        return {RAW: "source", FILTERED: "filtered"}.get(int(self.pixels[0, 0, 2]), "slate")


class RecordingSink:
    """Remembers when each picture and each run of samples was written."""

    name = "recording"
    state = SinkState.LIVE
    error = ""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.pictures: list[Written] = []
        self.sounds: list[tuple[float, int, NDArray[np.float32]]] = []
        self.rooms = 0

    def stats(self) -> dict[str, Any]:
        return {}

    async def run(self) -> None: ...

    async def opened(self) -> None: ...

    async def room(self) -> None:
        self.rooms += 1
        await asyncio.sleep(0)

    def write_video(self, pixels: NDArray[np.uint8], pts: float, captured_at: float | None = None) -> None:
        self.pictures.append(Written(self._clock.now(), pts, pixels))

    def write_audio(self, samples: NDArray[np.float32], start: int) -> None:
        self.sounds.append((self._clock.now(), start, samples))

    async def finish(self, timeout: float) -> None: ...

    def track(self) -> NDArray[np.float32]:
        """The left channel as one run, checked to be without seam."""
        expected = self.sounds[0][1]
        for _, start, samples in self.sounds:
            assert start == expected
            expected += samples.shape[1]
        return np.concatenate([samples[0] for _, _, samples in self.sounds])


def filter_choice(**info: Any) -> FilterChoice:
    class Some(Filter[Params]):
        name = "some"

        def process(self, block: Block, params: Params) -> Block:
            raise AssertionError("the runner stands for it")

    Some.info = FilterInfo(**({"min_scale": 1.0} | info))
    return FilterChoice("nowhere:Some", Some, Params())


@dataclass
class Stage:
    """A live flow with everything around it. ``seconds`` is fake time since the start."""

    clock: TestClock
    flow: LiveFlow
    sink: RecordingSink
    stats: SessionStats
    runner: FakeRunner | None
    source: FakeSource
    events: list[tuple[str, str]]

    async def play(self, *steps: tuple[float, Callable[[], Awaitable[None] | None]], step: float = 0.25) -> None:
        """Runs until the flow ends; ``steps`` happen at their seconds."""
        pending = sorted(steps, key=lambda item: item[0])
        start = self.clock.now()
        helpers: list[asyncio.Future[None]] = []
        task = asyncio.create_task(self.flow.run(self.source))
        await self.clock.settle()
        while not task.done():
            while pending and self.clock.now() - start >= pending[0][0] - 1e-9:
                result = pending.pop(0)[1]()
                if result is not None:
                    helpers.append(asyncio.ensure_future(result))
            await self.clock.advance(step)
        await task
        for helper in helpers:
            helper.cancel()
        await asyncio.gather(*helpers, return_exceptions=True)

    def counters(self) -> dict[str, int]:
        return dict(self.stats.counters)


def live_stage(
    arrivals: Iterable[Arrival],
    cost: Callable[[Block, float], float] | None = None,
    *,
    fps: int = 20,
    budget: float = 0.25,
    audio: bool = True,
    gate: GatePolicy | None = None,
    start: float = 100.0,
    lag: int = 0,
    **info: Any,
) -> Stage:
    clock = TestClock(start)
    sink = RecordingSink(clock)
    stats = SessionStats()
    events: list[tuple[str, str]] = []
    runner = FakeRunner(clock, cost, lag) if cost else None
    settings = SessionSettings(
        MediaUrl.parse("testpattern://"),
        (),
        filter=filter_choice(**info) if cost else None,
        budget=budget,
        gate=gate or GatePolicy(),
    )
    output = OutputFormat(SIZE, Fraction(fps), audio, True, EncodeSettings())
    flow = LiveFlow(settings, output, runner, [sink], stats, clock, lambda kind, text: events.append((kind, text)))
    return Stage(clock, flow, sink, stats, runner, FakeSource(clock, arrivals, fps=fps), events)


def merged(*streams: Iterable[Arrival]) -> list[Arrival]:
    """All arrivals by time."""
    return sorted((arrival for stream in streams for arrival in stream), key=lambda arrival: arrival.at)
