"""What sources and sinks are, and which URL scheme leads to which."""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import enum
import importlib
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Protocol, TypeVar, cast

from streamfx.core.clock import Clock
from streamfx.core.errors import UsageError
from streamfx.core.frames import Frame, Pixels, Samples
from streamfx.media.encoders import EncoderName
from streamfx.media.url import MediaUrl


@dataclass(frozen=True, slots=True)
class MediaInfo:
    """What a source gives. ``size``: (width, height). ``fps``: nominal frames per second. ``audio``: whether there may
    be sound. ``live``: frames come in real time, whether we are ready or not. ``duration``: seconds, if known.
    ``video``: whether there is a picture; without one, size and fps mean nothing."""

    size: tuple[int, int]
    fps: Fraction
    audio: bool
    live: bool
    duration: float | None = None
    video: bool = True

    @classmethod
    def of_sound(cls, live: bool, duration: float | None = None) -> MediaInfo:
        """Of a source that has no picture."""
        return cls((0, 0), Fraction(1), audio=True, live=live, duration=duration, video=False)


T = TypeVar("T")


class Shared:
    """Things that several sources or sinks use together (a listening port, an encoder): made for the first, closed
    after the last."""

    def __init__(self) -> None:
        self._users: dict[Hashable, int] = {}
        self._things: dict[Hashable, Any] = {}
        self._lock = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def get(self, key: Hashable, make: Callable[[], AbstractAsyncContextManager[T]]) -> AsyncIterator[T]:
        """The thing called ``key``, made (and entered) if it is not there yet."""
        async with self._lock:
            if key not in self._things:
                manager = make()
                self._things[key] = manager, await manager.__aenter__()
                self._users[key] = 0
            self._users[key] += 1
        try:
            yield self._things[key][1]
        finally:
            # Shielded: one who is cancelled on the way out would keep it open for ever.
            await asyncio.shield(self._leave(key))

    async def _leave(self, key: Hashable) -> None:
        async with self._lock:
            self._users[key] -= 1
            if self._users[key] == 0:
                manager, _ = self._things.pop(key)
                await manager.__aexit__(None, None, None)


@dataclass(frozen=True, slots=True)
class SourceRequest:
    """What the session wants of a source. ``size``: (width, height) to deliver, None for the source's own.
    ``sound_will_do``: whether a source without a picture is welcome. ``realtime``: pace by timestamps (a live output
    follows). ``on_state``: told in a few words how it goes.
    ``shared``: what it may use together with other sources."""

    clock: Clock
    size: tuple[int, int] | None = None
    realtime: bool = False
    sound_will_do: bool = False
    on_state: Callable[[str], None] = field(default=lambda text: None)
    shared: Shared = field(default_factory=Shared)


class Source(Protocol):
    """Where frames come from: an async context manager (``SourceError`` if it cannot be opened)."""

    @property
    def info(self) -> MediaInfo:
        """Known once open."""
        ...

    def frames(self) -> AsyncIterator[Frame]:
        """Video and audio as they come, in decoding order; ends with the stream. Every video frame has the
        size of ``info``; pauses (a publisher that left) are just that. Raises ``SourceError``."""
        ...

    def stats(self) -> dict[str, int]:
        """What was lost before it became a frame, by name."""
        ...


class SinkState(enum.StrEnum):
    """How an output fares."""

    CONNECTING = "connecting"
    LIVE = "live"
    RETRYING = "retrying"
    FAILED = "failed"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class EncodeSettings:
    """How outputs are encoded. Bitrates in bits per second; 0 chooses by picture size. ``preset``: of the software
    encoder. ``gop_seconds``: seconds between key frames."""

    video_bitrate: int = 0
    audio_bitrate: int = 128_000
    preset: str = "veryfast"
    gop_seconds: float = 2.0
    encoder: EncoderName = "auto"


@dataclass(frozen=True, slots=True)
class OutputFormat:
    """What is written to every output: (width, height), nominal frames per second, whether there is sound, whether
    it comes in real time, and how it is encoded."""

    size: tuple[int, int]
    fps: Fraction
    audio: bool
    live: bool
    encode: EncodeSettings


class Sink(Protocol):
    """Where frames go: an async context manager. Writing never waits; ``room`` does."""

    name: str

    @property
    def state(self) -> SinkState: ...

    @property
    def error(self) -> str:
        """Why it failed or is trying again; no secrets in it."""
        ...

    def stats(self) -> dict[str, Any]:
        """JSON values: state, frames sent and dropped, bytes, reconnects."""
        ...

    async def run(self) -> None:
        """Keeps the output going; run beside the stream and cancelled with it. Returns once it failed for good."""
        ...

    async def opened(self) -> None:
        """Waits until it takes pictures, or has failed once."""
        ...

    async def room(self) -> None:
        """Waits until a picture can be written without being dropped, or the output has failed."""
        ...

    def write_video(self, pixels: Pixels, pts: float, captured_at: float | None = None) -> None:
        """A picture of the agreed size at ``pts`` seconds. Dropped and counted if the output is not keeping up.
        ``captured_at``: clock seconds at which its source frame came in; None if there is none (a slate)."""
        ...

    def write_audio(self, samples: Samples, start: int) -> None:
        """48 kHz sound from sample index ``start`` on the same timeline."""
        ...

    async def finish(self, timeout: float) -> None:
        """Writes out what was taken and closes, within ``timeout`` seconds."""
        ...


SourceFactory = Callable[[MediaUrl, SourceRequest], AbstractAsyncContextManager[Source]]
SinkFactory = Callable[[MediaUrl, OutputFormat], Sink]
PushFactory = Callable[[MediaUrl, OutputFormat, Shared], Sink]

_SOURCES = {
    "file": "streamfx.media.files:open_file",
    "testpattern": "streamfx.media.testpattern:open_pattern",
    "camera": "streamfx.media.camera:open_camera",
    "microphone": "streamfx.media.camera:open_microphone",
    "rtmp": "streamfx.media.rtmp.source:open_rtmp",
    "rtmps": "streamfx.media.rtmp.source:open_rtmp",
    "rtsp": "streamfx.media.rtsp:open_rtsp",
    "rtsps": "streamfx.media.rtsp:open_rtsp",
    "srt": "streamfx.media.srt:open_srt",
}
_SINKS = {
    "file": "streamfx.media.output:file_output",
    "virtualcam": "streamfx.media.virtualcam:virtual_camera",
    "ndi": "streamfx.media.ndi:ndi_output",
    "rtmp": "streamfx.media.target:push_output",
    "rtmps": "streamfx.media.target:push_output",
    "rtsp": "streamfx.media.target:push_output",
    "rtsps": "streamfx.media.target:push_output",
    "srt": "streamfx.media.srt:srt_output",
}
LIVE_SINKS = frozenset({"rtmp", "rtmps", "rtsp", "rtsps", "srt", "virtualcam", "ndi"})
"""Schemes of outputs that take frames in real time only."""
_PUSHES = frozenset({"rtmp", "rtmps", "rtsp", "rtsps", "srt"})
"""Those of them that share an encoder with others of an equal format."""


def open_source(url: MediaUrl, request: SourceRequest) -> AbstractAsyncContextManager[Source]:
    """The source behind ``url``, to be entered. Raises ``UsageError`` for an unknown scheme or option."""
    return cast(SourceFactory, _resolve(_SOURCES, url, "input"))(url, request)


def make_sink(url: MediaUrl, output: OutputFormat, encoders: Shared) -> Sink:
    """The sink behind ``url``. ``encoders``: of the session, where live connections find the one that they share.
    Raises ``UsageError`` for an unknown scheme or option."""
    factory = _resolve(_SINKS, url, "output")
    if url.scheme in _PUSHES:
        return cast(PushFactory, factory)(url, output, encoders)
    return cast(SinkFactory, factory)(url, output)


def check_scheme(url: MediaUrl, *, output: bool) -> None:
    """Raises ``UsageError`` unless something here reads (or writes) such URLs."""
    table, role = (_SINKS, "output") if output else (_SOURCES, "input")
    if url.scheme not in table:
        near = difflib.get_close_matches(url.scheme, list(table), 3)
        # Rather two letters that changed places than another letter.
        near.sort(key=lambda scheme: sorted(scheme) != sorted(url.scheme))
        hint = f"did you mean {near[0]}://?" if near else f"use a file path, {', '.join(f'{s}://' for s in table)}"
        raise UsageError(f"{url.scheme}:// is no known {role}; {hint}")


def _resolve(table: dict[str, str], url: MediaUrl, role: str) -> object:
    check_scheme(url, output=role == "output")
    module, _, name = table[url.scheme].partition(":")
    return getattr(importlib.import_module(module), name)
