"""Where publishers come in: whoever publishes at the moment, over whatever protocol, as one source."""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable
from fractions import Fraction

import av

from streamfx.core.errors import SourceError
from streamfx.core.frames import Frame, VideoFrame
from streamfx.media.base import MediaInfo, Source, SourceRequest
from streamfx.media.convert import VideoConverter

_FRAMES_AHEAD = 24
_REMEMBERED = 256
_OUTGROWN_AFTER = 1.5
"""Seconds that pictures must have had another size before the stream follows: senders shrink them for a moment when
the network is bad."""


class Visit:
    """One publisher's stay. ``kind``: by what protocol. ``fps``: nominal. ``video``: whether pictures come."""

    def __init__(self, door: Door, kind: str, fps: Fraction, retire: Callable[[], None], video: bool = True) -> None:
        self.kind = kind
        self.fps = fps
        self.video = video
        self.retire = retire
        self._door = door
        self.native: tuple[int, int] | None = None
        self.native_since = 0.0

    @property
    def current(self) -> bool:
        """Whether nobody else has taken over."""
        return self._door.visitor is self

    def deliver(self, frame: Frame, captured_ntp: float | None = None) -> None:
        """Hands a frame in; never waits. ``captured_ntp``: when the publisher captured it, in seconds of the
        publisher's own clock since 1970, where known."""
        if self.current:
            self._door._take(self, frame, captured_ntp)

    def leave(self) -> None:
        """The publisher is gone; calling it again does nothing."""
        self._door._left(self)


class Door:
    """One publisher at a time; who comes last takes over (the one before is often a dead connection).

    ``on_change`` is called when a publisher comes or goes.
    """

    def __init__(self, on_change: Callable[[], None] = lambda: None) -> None:
        self.on_change = on_change
        self.visitor: Visit | None = None
        self._arrival = asyncio.Event()
        self._source: _DoorSource | None = None
        self._captured: OrderedDict[float, float] = OrderedDict()

    def enter(
        self,
        kind: str,
        fps: Fraction = Fraction(30),
        retire: Callable[[], None] = lambda: None,
        video: bool = True,
    ) -> Visit:
        """Lets a publisher in. ``retire`` is called when another takes over."""
        before, self.visitor = self.visitor, Visit(self, kind, fps, retire, video)
        if before is not None:
            before.retire()
        if self._source is not None:
            self._source.resumed()
        self._arrival.set()
        self.on_change()
        return self.visitor

    async def wait_for_visitor(self) -> None:
        """Returns as soon as somebody publishes."""
        await self._arrival.wait()

    def captured_ntp(self, captured_at: float) -> float | None:
        """When the publisher captured the frame that came in at ``captured_at``; None if unknown."""
        return self._captured.get(captured_at)

    def outgrown(self, now: float) -> bool:
        """Whether the publisher's pictures have had another shape, or more pixels, than the stream for a while."""
        visit, source = self.visitor, self._source
        if visit is None or visit.native is None or source is None or source.size is None:
            return False
        if now - visit.native_since < _OUTGROWN_AFTER:
            return False
        (width, height), (old_width, old_height) = visit.native, source.size
        reshaped = abs(width * old_height - height * old_width) > 0.02 * width * old_height
        return reshaped or width * height > 1.1 * old_width * old_height

    @contextlib.asynccontextmanager
    async def open(self, request: SourceRequest, grace: float) -> AsyncIterator[Source]:
        """The source, once the first picture is there. It ends when nobody has published for ``grace`` seconds, or
        ``end`` is called."""
        self._source = source = _DoorSource(request, grace)
        if self.visitor is None:
            source.paused()
        try:
            await source.opened()
            yield source
        finally:
            source.end()
            if self._source is source:
                self._source = None

    def end(self) -> None:
        """Ends the source that is open, if any; the publisher stays."""
        if self._source is not None:
            self._source.end()

    def _take(self, visit: Visit, frame: Frame, captured_ntp: float | None) -> None:
        if isinstance(frame, VideoFrame) and frame.size != visit.native:
            visit.native, visit.native_since = frame.size, frame.captured_at
        if captured_ntp is not None:
            self._captured[frame.captured_at] = captured_ntp
            if len(self._captured) > _REMEMBERED:
                self._captured.popitem(last=False)
        if self._source is not None:
            self._source.put(frame, visit)

    def _left(self, visit: Visit) -> None:
        if self.visitor is visit:
            self.visitor = None
            self._arrival.clear()
            if self._source is not None:
                self._source.paused()
            self.on_change()


class _DoorSource:
    """A ``Source`` of what comes through the door while it is open."""

    def __init__(self, request: SourceRequest, grace: float) -> None:
        self._request = request
        self._grace = grace
        self._info: asyncio.Future[MediaInfo] = asyncio.get_running_loop().create_future()
        self._frames: deque[Frame] = deque()
        self._news = asyncio.Event()
        self._ended = False
        self._ending: asyncio.TimerHandle | None = None
        self._fit: VideoConverter | None = None
        self._dropped = 0

    @property
    def info(self) -> MediaInfo:
        return self._info.result()

    @property
    def size(self) -> tuple[int, int] | None:
        return self._info.result().size if self._info.done() and self._info.exception() is None else None

    async def opened(self) -> None:
        await asyncio.shield(self._info)

    def put(self, frame: Frame, visit: Visit) -> None:
        if not self._info.done():
            self._learn(frame, visit)
        size = self.size
        if size is None:
            return
        if visit.video is not self.info.video:
            # Whether there is a picture is not to change under a pipeline: another one begins.
            self.end()
            return
        if isinstance(frame, VideoFrame) and frame.size != size:
            frame = self._fitted(frame)
        if len(self._frames) >= _FRAMES_AHEAD:
            self._frames.popleft()
            self._dropped += 1
        self._frames.append(frame)
        self._news.set()

    def _learn(self, frame: Frame, visit: Visit) -> None:
        if isinstance(frame, VideoFrame):
            size = self._request.size or frame.size
            self._info.set_result(MediaInfo(size, visit.fps, audio=True, live=True))
        elif not visit.video and self._request.sound_will_do:
            self._info.set_result(MediaInfo.of_sound(live=True))
        elif not visit.video:
            self._info.set_exception(
                SourceError("the publisher sends sound alone; send a picture too, or choose a filter driven by sound")
            )
            self._info.exception()  # it may be that nobody waits any more

    def _fitted(self, frame: VideoFrame) -> VideoFrame:
        if self._fit is None:
            self._fit = VideoConverter(self.size)
        picture = av.VideoFrame.from_numpy_buffer(frame.pixels, "rgb24")
        return VideoFrame(self._fit.convert(picture), frame.pts, frame.captured_at, frame.sequence)

    def resumed(self) -> None:
        if self._ending is not None:
            self._ending.cancel()
            self._ending = None

    def paused(self) -> None:
        self.resumed()
        self._ending = asyncio.get_running_loop().call_later(self._grace, self.end)

    def end(self) -> None:
        self.resumed()
        self._ended = True
        self._news.set()
        if not self._info.done():
            self._info.set_exception(SourceError("nobody published; send a stream to this session"))
            self._info.exception()  # it may be that nobody waits any more

    async def frames(self) -> AsyncIterator[Frame]:
        while True:
            while self._frames:
                yield self._frames.popleft()
            if self._ended:
                return
            self._news.clear()
            await self._news.wait()

    def stats(self) -> dict[str, int]:
        return {"frames_dropped": self._dropped}
