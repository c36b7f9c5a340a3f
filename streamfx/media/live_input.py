"""Live streams that FFmpeg reads (RTSP, SRT): each by a process of its own, whose packets go the way of RTMP's tags.

FFmpeg's calls to a peer that says nothing cannot be cancelled; a process can be ended at any time.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from streamfx.core.backoff import Backoff
from streamfx.core.clock import Clock
from streamfx.core.errors import SourceError, redact
from streamfx.ipc.child import Child, spawn
from streamfx.media.base import Source, SourceRequest
from streamfx.media.rtmp.connection import FlvTag
from streamfx.media.rtmp.source import RtmpSource, feeding

logger = logging.getLogger(__name__)

_OPEN_TIMEOUT = 15.0
_LONGEST_WAIT = 10.0
_SILENCE_TIMEOUT = 6.0
"""Seconds without a packet after which a stream that came is taken for lost."""


@dataclass(frozen=True, slots=True)
class LiveInput:
    """What is to be read. ``shown``: its name for users; ``place``: the URL for FFmpeg; ``container``: its name of the
    format; ``options``: its options (they and the URL may hold ``secrets``). ``listens``: others call us, whenever they
    like. ``grace``: seconds without anything after which the stream ends, 0 for never."""

    shown: str
    place: str = field(repr=False)
    container: str
    grace: float
    options: Mapping[str, str] = field(default_factory=dict, repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)
    listens: bool = False


@contextlib.asynccontextmanager
async def live_source(what: LiveInput, request: SourceRequest, hwaccel: str) -> AsyncIterator[Source]:
    """Its frames, from the first connection on; a stream that breaks off is opened again (with back-off).

    Entering raises ``SourceError`` if it cannot be opened; one that listens waits for as long as it takes.
    """
    async with feeding(request, hwaccel) as source:
        reader = _Reader(what, request, source)
        reading = asyncio.create_task(reader.run(), name="live input")
        try:
            await source.opened(None if what.listens else 2 * _OPEN_TIMEOUT)
            yield source
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)


class _Sender:
    """Where FFmpeg's tags come from."""

    def __init__(self) -> None:
        self.metadata: dict[str, object] = {}
        """Nothing is known beforehand."""


class _LostError(Exception):
    """The stream is not there (any more). ``final``: trying again cannot help."""

    def __init__(self, reason: str, final: bool = False) -> None:
        super().__init__(reason)
        self.final = final


class _Reader:
    def __init__(self, what: LiveInput, request: SourceRequest, source: RtmpSource) -> None:
        self._what = what
        self._request = request
        self._source = source

    async def run(self) -> None:
        """Reads the stream, again and again when it breaks off, until ``grace`` seconds brought nothing."""
        try:
            await self._read_on()
        except Exception as error:
            logger.exception("reading failed")
            self._source.end(SourceError(f"{self._what.shown} cannot be read: {type(error).__name__}: {error}"))

    async def _read_on(self) -> None:
        what, source, clock = self._what, self._source, self._request.clock
        # Who listens is to be there again when the caller is.
        backoff = Backoff(first=0.1 if what.listens else 0.5, longest=1.0 if what.listens else _LONGEST_WAIT)
        while True:
            last_heard = source.heard_at
            try:
                await self._read_once()
                reason = "the stream ended"
            except _LostError as error:
                reason = str(error)
                if error.final or not (source.ever_began or what.listens):
                    source.end(SourceError(f"{what.shown} cannot be read: {reason}"))
                    return
            except OSError as error:  # no process to be had
                reason = str(error)
            now = clock.now()
            if source.heard_at != last_heard:
                backoff.reset()
            if what.grace and source.ever_began and now - source.heard_at >= what.grace:
                lost = f"{what.shown} was lost and did not come back within {what.grace:.0f} s: {reason}"
                source.end(None if what.listens else SourceError(lost))
                return
            self._request.on_state(f"lost ({reason}), trying again")
            left = max(0.1, source.heard_at + what.grace - now) if what.grace else _LONGEST_WAIT
            await clock.sleep_until(now + min(backoff.next(), left))

    async def _read_once(self) -> None:
        """One connection, until it ends. Raises ``_LostError``."""
        what = self._what
        async with spawn("streamfx.media.live_input_process", what.shown) as child:
            child.send({"place": what.place, "container": what.container, "options": dict(what.options)})
            if what.listens:
                self._request.on_state(f"waiting for a caller on {what.shown}")
            hello = await self._next(child, None if what.listens else _OPEN_TIMEOUT)
            if hello is None:
                raise _LostError(self._last_words(child))
            if hello["kind"] == "error":
                raise _LostError(redact(hello["error"], what.secrets), bool(hello["final"]))
            self._source.begin("a caller is on" if what.listens else "pulling")
            if hello["left_out"]:
                logger.warning("source=%s: %s left out", what.shown, hello["left_out"])
            await self._source.feed(self._tags(child, self._request.clock), _Sender())
            raise _LostError(self._last_words(child))

    async def _tags(self, child: Child, clock: Clock) -> AsyncIterator[FlvTag]:
        while (message := await self._next(child, _SILENCE_TIMEOUT)) is not None:
            body = await child.read(message["size"])
            if body is None:
                return
            yield FlvTag(message["kind"], message["ms"], body, clock.now())

    async def _next(self, child: Child, patience: float | None) -> dict[str, Any] | None:
        try:
            async with asyncio.timeout(patience):
                return await child.receive()
        except TimeoutError:
            raise _LostError(f"nothing came for {patience:.0f} s") from None

    def _last_words(self, child: Child) -> str:
        return redact(child.last_words, self._what.secrets) or "the stream ended"
