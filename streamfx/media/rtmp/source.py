"""``rtmp://`` and ``rtmps://`` as sources: pulled from a server, or pushed to us (``?listen=1``)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterable, AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from fractions import Fraction
from typing import Protocol

from streamfx.core.backoff import Backoff
from streamfx.core.clock import Clock
from streamfx.core.errors import SourceError, StreamFXError, UsageError
from streamfx.core.frames import Frame, VideoFrame
from streamfx.media.base import MediaInfo, Source, SourceRequest
from streamfx.media.door import Visit
from streamfx.media.hwaccel import NONE, find_device, hwaccel_option
from streamfx.media.rtmp.client import RtmpPlayer
from streamfx.media.rtmp.connection import FlvTag
from streamfx.media.rtmp.decode import TagDecoder
from streamfx.media.rtmp.publish import Publisher
from streamfx.media.rtmp.server import RtmpServer
from streamfx.media.rtmp.tag_queue import TagQueue
from streamfx.media.url import MediaUrl

logger = logging.getLogger(__name__)

_WHOLE_RATES = [Fraction(n) for n in (5, 10, 12, 15, 20, 24, 25, 30, 48, 50, 60, 90, 100, 120, 144, 240)]
_NTSC_RATES = [Fraction(n * 1000, 1001) for n in (24, 30, 60, 120)]
_RATE_SAMPLE = 12
_OPEN_TIMEOUT = 15.0
_SOUND_ALONE = 1.0
"""Seconds of sound without a picture until none is waited for."""
_FRAMES_AHEAD = 16


def open_rtmp(url: MediaUrl, request: SourceRequest) -> AbstractAsyncContextManager[Source]:
    """An RTMP source. Options: ``listen=1`` serves, and waits for a publisher with this path and key (empty host:
    loopback); ``grace=SECONDS`` ends the stream when nobody has sent anything for so long (listening: never;
    pulling: 60); ``hwaccel=DEVICE`` decodes there.

    Raises ``UsageError``; entering raises ``SourceError``.
    """
    url.allow(("listen", "grace", "hwaccel"))
    hwaccel = hwaccel_option(url)
    listen = url.flag("listen", False)
    grace = url.number("grace", 0 if listen else 60, 0, 1e7)
    app, _, key = url.path.strip("/").rpartition("/")
    if not app or not key:
        raise UsageError(f"{url.scheme}://{url.host}: name the application and the stream, as rtmp://HOST/live/KEY")
    if listen and url.scheme == "rtmps":
        raise UsageError("listening with TLS is not possible yet; listen on rtmp:// and put a TLS proxy in front")
    if not listen and not url.host:
        raise UsageError("an RTMP source to pull needs a host, as rtmp://HOST/live/KEY (or ?listen=1 to be pushed to)")
    if listen:
        return _listening(url, request, app, key, grace, hwaccel)
    return _pulling(url, request, grace, hwaccel)


@contextlib.asynccontextmanager
async def _listening(
    url: MediaUrl, request: SourceRequest, app: str, key: str, grace: float, hwaccel: str
) -> AsyncIterator[Source]:
    host, port = url.host or "127.0.0.1", url.port or 1935
    async with contextlib.AsyncExitStack() as stack:
        server = await stack.enter_async_context(
            request.shared.get(("rtmp", host, port), lambda: RtmpServer(host, port, clock=request.clock))
        )
        source = await stack.enter_async_context(feeding(request, hwaccel))

        async def on_publish(publisher: Publisher) -> None:
            source.begin(f"publisher {publisher.peer} is on")
            await source.feed(publisher.tags(), publisher)
            request.on_state(f"publisher left ({publisher.ended}), waiting for it to return")
            source.paused(grace)

        stack.callback(server.add_route(app, key, on_publish))
        request.on_state(f"waiting for a publisher on rtmp://{host}:{server.port}/{app}/****")
        await source.opened(None)
        yield source


@contextlib.asynccontextmanager
async def _pulling(url: MediaUrl, request: SourceRequest, grace: float, hwaccel: str) -> AsyncIterator[Source]:
    async with feeding(request, hwaccel) as source:
        puller = asyncio.create_task(_pull(url, request, source, grace), name="rtmp pull")
        try:
            await source.opened(_OPEN_TIMEOUT)
            yield source
        finally:
            puller.cancel()
            await asyncio.gather(puller, return_exceptions=True)


async def _pull(url: MediaUrl, request: SourceRequest, source: RtmpSource, grace: float) -> None:
    """Plays the stream, again and again when it breaks off, until ``grace`` seconds brought nothing."""
    backoff = Backoff(first=0.5, longest=10.0)
    while True:
        reason = "the stream ended"
        last_heard = source.heard_at
        try:
            async with RtmpPlayer(_without_options(url), clock=request.clock) as player:
                source.begin("pulling")
                await source.feed(player.tags(), player)
        except (StreamFXError, OSError) as error:
            if not source.ever_began:
                source.end(error if isinstance(error, StreamFXError) else SourceError(f"{url}: {error}"))
                return
            reason = str(error)
        now = request.clock.now()
        if source.heard_at != last_heard:
            backoff.reset()
        if now - source.heard_at >= grace:
            source.end(SourceError(f"{url} was lost and did not come back within {grace:.0f} s: {reason}"))
            return
        request.on_state(f"lost ({reason}), trying again")
        await request.clock.sleep_until(now + min(backoff.next(), max(0.1, source.heard_at + grace - now)))


def _without_options(url: MediaUrl) -> str:
    """The URL as the server is to see it: our own options are none of its business."""
    return url.raw.partition("?")[0]


async def deliver(publisher: Publisher, visit: Visit, clock: Clock) -> None:
    """Brings one publisher's frames to a door, until it leaves."""
    async with feeding(SourceRequest(clock=clock, sound_will_do=True)) as source, asyncio.TaskGroup() as group:
        source.begin("publishing")

        async def feed() -> None:
            await source.feed(publisher.tags(), publisher)
            source.end(None)

        task = group.create_task(feed(), name="rtmp feed")
        try:
            await source.opened(None)
            visit.fps, visit.video = source.info.fps, source.info.video
            async for frame in source.frames():
                visit.deliver(frame)
        finally:
            task.cancel()


@contextlib.asynccontextmanager
async def feeding(request: SourceRequest, hwaccel: str = NONE) -> AsyncIterator[RtmpSource]:
    """A source that decodes what it is fed, for the length of the block."""
    # Nearly all who publish send H.264: a named device that does not decode that is refused at once.
    await asyncio.to_thread(find_device, hwaccel, "h264")
    source = RtmpSource(request, hwaccel)
    decoding = asyncio.create_task(source.decode(), name="rtmp decode")
    try:
        yield source
    finally:
        decoding.cancel()
        await asyncio.gather(decoding, return_exceptions=True)
        source.close()


class Sender(Protocol):
    """Where tags come from."""

    @property
    def metadata(self) -> dict[str, object]:
        """What ``onMetaData`` said."""
        ...


class RtmpSource:
    """Frames of whoever publishes, one after the other, on one session's line.

    Tags are taken off the connection as fast as they come and decoded in a thread. If decoding cannot keep up,
    what waits is thrown away up to the next key frame: a late picture helps nobody.
    """

    def __init__(self, request: SourceRequest, hwaccel: str = NONE) -> None:
        self._request = request
        self._decoder = TagDecoder(request.size, hwaccel)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="rtmp-decode")
        self._tags = TagQueue()
        self._frames: asyncio.Queue[Frame | None] = asyncio.Queue(_FRAMES_AHEAD)
        self._info: asyncio.Future[MediaInfo] = asyncio.get_running_loop().create_future()
        self._measured: list[float] = []
        self._sound_since: float | None = None
        self._pictures_come = False
        self._metadata_rate: Fraction | None = None
        self._ending: asyncio.TimerHandle | None = None
        self._error: StreamFXError | None = None
        self.ever_began = False
        self.heard_at = request.clock.now()
        """When the last tag came, in clock seconds; at first, when the source was made."""

    @property
    def info(self) -> MediaInfo:
        return self._info.result()

    async def opened(self, timeout: float | None) -> None:
        """Waits for the first picture, or until it is clear that there is but sound. Raises ``SourceError``."""
        try:
            async with asyncio.timeout(timeout):
                await asyncio.shield(self._info)
        except TimeoutError:
            raise SourceError(f"the stream gave no picture within {timeout:.0f} s; check that it is live") from None

    def begin(self, state: str) -> None:
        """Somebody sends from now on."""
        self.ever_began = True
        self._tags.restart()
        if self._ending is not None:
            self._ending.cancel()
            self._ending = None
        self._request.on_state(state)

    def paused(self, grace: float) -> None:
        """Nobody sends; the stream ends if that stays so for ``grace`` seconds (0: wait for ever)."""
        if grace:
            self._ending = asyncio.get_running_loop().call_later(grace, self.end, None)

    def end(self, error: StreamFXError | None) -> None:
        """No more will come; what has come is still decoded."""
        self._error = error
        self._tags.close()

    async def feed(self, tags: AsyncIterable[FlvTag], sender: Sender) -> None:
        """Takes one sender's tags until it leaves."""
        async for tag in tags:
            self.heard_at = tag.received_at
            if tag.kind == "data":
                self._metadata_rate = _stated_rate(sender.metadata)
            self._pictures_come = self._pictures_come or tag.kind == "video"
            self._tags.put(tag)

    async def decode(self) -> None:
        """Tags to frames, until cancelled or ended."""
        try:
            await self._decode()
        except Exception as error:
            logger.exception("decoding failed")
            self.end(SourceError(f"decoding failed: {type(error).__name__}: {error}"))
        if not self._info.done():
            self._info.set_exception(self._error or SourceError("the stream ended before its first picture"))
            self._info.exception()  # it may be that nobody waits any more
        await self._frames.put(None)

    async def _decode(self) -> None:
        loop = asyncio.get_running_loop()
        while (item := await self._tags.get()) is not None:
            if item == "restart":
                await loop.run_in_executor(self._thread, self._decoder.restart)
                continue
            for frame in await loop.run_in_executor(self._thread, self._decoder.decode, item):
                if not self._info.done():
                    self._learn(frame)
                # Until the stream is known nobody reads, and a queue full of sound would keep the picture out.
                if self._info.done():
                    await self._frames.put(frame)

    def _learn(self, frame: Frame) -> None:
        """Finds out the size and the frame rate from the first pictures, or that there are none."""
        if not isinstance(frame, VideoFrame):
            if self._sound_since is None:
                self._sound_since = frame.pts
            if self._request.sound_will_do and not self._pictures_come and frame.pts - self._sound_since > _SOUND_ALONE:
                self._info.set_result(MediaInfo.of_sound(live=True))
            return
        self._measured.append(frame.pts)
        rate = self._metadata_rate
        if rate is None and len(self._measured) >= _RATE_SAMPLE:
            span = max(self._measured) - min(self._measured)
            # Timestamps in whole milliseconds do not tell 30 from 29.97; far more streams have whole rates.
            rate = nearest_rate((len(self._measured) - 1) / span, _WHOLE_RATES) if span > 0 else Fraction(30)
        if rate is not None:
            # Whether there is sound may change with every publisher: there is always a track for it.
            self._info.set_result(MediaInfo(frame.size, rate, audio=True, live=True))

    async def frames(self) -> AsyncIterator[Frame]:
        while (frame := await self._frames.get()) is not None:
            yield frame
        if self._error is not None:
            raise self._error

    def stats(self) -> dict[str, int]:
        return {"tags_damaged": self._decoder.broken, "tags_dropped": self._tags.dropped}

    def close(self) -> None:
        if self._ending is not None:
            self._ending.cancel()
        self._thread.shutdown(wait=False, cancel_futures=True)


def _stated_rate(metadata: dict[str, object]) -> Fraction | None:
    """The frame rate that a publisher's metadata states, if it is a sensible one."""
    stated = metadata.get("framerate")
    if isinstance(stated, int | float) and 1 <= stated <= 240:
        return nearest_rate(float(stated))
    return None


def nearest_rate(fps: float, usual_rates: Sequence[Fraction] = (*_WHOLE_RATES, *_NTSC_RATES)) -> Fraction:
    """The usual frame rate within 1 % of ``fps``, else ``fps`` itself, from 1 to 240."""
    usual = min(usual_rates, key=lambda rate: abs(float(rate) - fps))
    if abs(float(usual) - fps) <= 0.01 * fps:
        return usual
    return Fraction(min(240.0, max(1.0, fps))).limit_denominator(1001)
