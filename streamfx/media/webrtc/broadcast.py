"""One session's result for any number of viewers: encoded once, handed out as packets."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from streamfx.core.clock import Clock
from streamfx.core.frames import AUDIO_RATE, Pixels, Samples
from streamfx.media.base import SinkState
from streamfx.media.hls import Tap
from streamfx.media.webrtc.adapt import Adaptation, Layer
from streamfx.media.webrtc.encode import VIDEO_RATE, Codec, Encoded, OpusEncoder, VideoEncoder

logger = logging.getLogger(__name__)

_VIDEO_AHEAD = 45
_AUDIO_AHEAD = 50
_REPEAT_AFTER = 0.25
"""Seconds after which a picture that has not changed is encoded again all the same."""
_STARVED_AFTER = 1.0
_SLATE_PERIOD = 0.2
_ADAPT_EVERY = 1.0
_IDLE_LAYER = 3.0
_SLATE_SIZE = (640, 360)


@dataclass(frozen=True, slots=True)
class BroadcastSettings:
    """``video_kbps``, ``low_kbps``: caps of the two layers, 0: by picture size. ``key_every``: least seconds between
    key frames that viewers ask for. ``gop_seconds``: between those that nobody asked for."""

    video_kbps: int = 0
    low_kbps: int = 0
    audio_kbps: int = 96
    key_every: float = 0.5
    gop_seconds: float = 10.0
    threads: int = 2

    def bitrate(self, layer: Layer, size: tuple[int, int]) -> int:
        """Bits per second for pictures of ``size``. By size: 0.1 bit a pixel at 30 fps, so 2.8 Mbps at 1280×720 and
        0.9 at 640×480; the low layer a quarter of the high one."""
        high = 1000 * self.video_kbps or int(min(8e6, max(6e5, 3.0 * size[0] * size[1])))
        return high if layer == "high" else (1000 * self.low_kbps or max(150_000, high // 4))


class SlateMaker(Protocol):
    """Makes the pictures that are shown while there is no stream: ``(H, W, 3) uint8`` at a second of the show."""

    def picture(self, seconds: float) -> Pixels: ...


class Outlet:
    """A bounded queue of encoded frames for one track of one viewer."""

    def __init__(self, capacity: int) -> None:
        self._frames: deque[Encoded] = deque()
        self._capacity = capacity
        self._news = asyncio.Event()
        self.closed = False
        self.dropped = 0
        self.sent = 0
        self.bytes = 0

    def put(self, frame: Encoded) -> bool:
        """Takes a frame; never waits. When it is full, everything in it goes, and this frame too: returns False."""
        if len(self._frames) >= self._capacity:
            self.clear()
            self.dropped += 1
            return False
        self._frames.append(frame)
        self._news.set()
        return True

    def clear(self) -> None:
        self.dropped += len(self._frames)
        self._frames.clear()

    async def get(self) -> Encoded | None:
        """The next frame; None once it is closed."""
        while not self._frames:
            if self.closed:
                return None
            self._news.clear()
            await self._news.wait()
        frame = self._frames.popleft()
        self.sent += 1
        self.bytes += frame.size
        return frame

    def close(self) -> None:
        self.closed = True
        self._frames.clear()
        self._news.set()


class Viewer:
    """One who watches. Its feedback (``want_key``, ``estimate``, ``lost``) comes from its peer."""

    def __init__(self, broadcast: Broadcast, codec: Codec) -> None:
        self.codec = codec
        self.layer: Layer = "high"
        self.video = Outlet(_VIDEO_AHEAD)
        self.audio = Outlet(_AUDIO_AHEAD)
        self.adaptation = Adaptation()
        self._broadcast = broadcast
        self._waits_for_key = True

    def offer(self, frame: Encoded) -> None:
        """A frame of its layer: taken unless it refers to one that this viewer did not get."""
        if self._waits_for_key and not frame.key:
            return
        self._waits_for_key = not self.video.put(frame)
        if self._waits_for_key:
            self.want_key()

    def want_key(self) -> None:
        """The viewer's decoder cannot go on without a key frame."""
        self._broadcast.rendition(self.codec, self.layer).want_key()

    def move(self, layer: Layer) -> None:
        """From the next key frame of the other layer on, that one is sent."""
        self.layer = layer
        self._waits_for_key = True
        self.want_key()

    def close(self) -> None:
        self.video.close()
        self.audio.close()


@dataclass(frozen=True, slots=True)
class _Shot:
    pixels: Pixels
    ticks: int
    captured_at: float | None


class Rendition:
    """One encode of the pictures: a codec at a layer's size and bitrate, in a thread of its own. Latest wins."""

    def __init__(
        self, codec: Codec, layer: Layer, settings: BroadcastSettings, clock: Clock, viewers: Callable[[], list[Viewer]]
    ) -> None:
        self.codec = codec
        self.layer = layer
        self._settings = settings
        self._clock = clock
        self._viewers = viewers
        self._shot: _Shot | None = None
        self._news = asyncio.Event()
        self._encoder: VideoEncoder | None = None
        self._key_wanted = True
        self._key_at = float("-inf")
        self._recent: deque[tuple[float, int]] = deque()
        self.unused_since: float | None = None
        self.encoded = self.skipped = 0

    def offer(self, shot: _Shot) -> None:
        """A picture to be encoded, in place of one that still waits."""
        if self._shot is not None:
            self.skipped += 1
        self._shot = shot
        self._news.set()

    def want_key(self) -> None:
        """Makes the next picture a key frame, but not more often than ``key_every`` allows."""
        self._key_wanted = True

    @property
    def key_due(self) -> bool:
        """Whether the next picture will be a key frame."""
        return self._key_wanted and self._clock.now() - self._key_at >= self._settings.key_every

    @property
    def bitrate(self) -> float:
        """Bits per second over the last two seconds."""
        now = self._clock.now()
        while self._recent and self._recent[0][0] < now - 2:
            self._recent.popleft()
        return sum(size for _, size in self._recent) * 8 / 2

    async def run(self) -> None:
        """Encodes until cancelled."""
        loop = asyncio.get_running_loop()
        thread = ThreadPoolExecutor(1, thread_name_prefix=f"encode-{self.codec}-{self.layer}")
        try:
            while True:
                while self._shot is None:
                    self._news.clear()
                    await self._news.wait()
                shot, self._shot = self._shot, None
                key = self.key_due
                if key:
                    self._key_wanted, self._key_at = False, self._clock.now()
                frame = await loop.run_in_executor(thread, self._encode, shot, key)
                if frame is not None:
                    self._hand_out(frame)
        finally:
            thread.shutdown(wait=False, cancel_futures=True)
            # With it go its threads: the garbage collector would take its time.
            self._encoder = None

    def _encode(self, shot: _Shot, key: bool) -> Encoded | None:
        height, width = shot.pixels.shape[:2]
        share = 1.0 if self.layer == "high" else 0.5
        size = max(2, round(width * share / 2) * 2), max(2, round(height * share / 2) * 2)
        if self._encoder is None or self._encoder.size != size:
            bitrate = self._settings.bitrate(self.layer, (width, height))
            threads = min(self._settings.threads, 1 + size[0] * size[1] // 400_000)
            self._encoder = VideoEncoder(self.codec, size, bitrate, threads, self._settings.gop_seconds)
        return self._encoder.encode(shot.pixels, shot.ticks, key, shot.captured_at)

    def _hand_out(self, frame: Encoded) -> None:
        self.encoded += 1
        self._recent.append((self._clock.now(), frame.size))
        if frame.key:
            self._key_at = self._clock.now()
        for viewer in self._viewers():
            viewer.offer(frame)


class Broadcast:
    """Takes a session's pictures and sound (``sink``) and gives them to its viewers (``join``); shows a slate while
    there is no session. Entered with ``run`` beside it.

    ``slate``: makes the waiting pictures out of the last one shown.
    """

    def __init__(self, settings: BroadcastSettings, clock: Clock, slate: Callable[[Pixels], SlateMaker]) -> None:
        self._settings = settings
        self._clock = clock
        self._make_slate = slate
        self._origin = clock.now()
        self._viewers: list[Viewer] = []
        self._taps: list[Tap] = []
        self._renditions: dict[tuple[Codec, Layer], tuple[Rendition, asyncio.Task[None]]] = {}
        self._group: asyncio.TaskGroup | None = None
        self._opus = OpusEncoder(1000 * settings.audio_kbps)
        self._sounds: deque[tuple[Samples, int]] = deque(maxlen=64)
        self._sound_news = asyncio.Event()
        self._last = np.zeros((_SLATE_SIZE[1], _SLATE_SIZE[0], 3), np.uint8)
        self._last_ticks = -1
        self._fed_at = float("-inf")
        self._encoded_at = float("-inf")

    @property
    def viewers(self) -> int:
        """How many watch."""
        return len(self._viewers)

    @property
    def bitrate(self) -> float:
        """Bits per second of all video encodes together."""
        return sum(rendition.bitrate for rendition, _ in self._renditions.values())

    @property
    def encodes(self) -> list[str]:
        """The encodes at work, as "H264 high"."""
        return [f"{codec} {layer}" for codec, layer in self._renditions]

    def join(self, codec: Codec) -> Viewer:
        """A new viewer; it starts with the next key frame."""
        viewer = Viewer(self, codec)
        self._viewers.append(viewer)
        viewer.want_key()
        return viewer

    def leave(self, viewer: Viewer) -> None:
        """The viewer is gone; calling it again does nothing."""
        viewer.close()
        if viewer in self._viewers:
            self._viewers.remove(viewer)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the newest picture."""
        return self._last.shape[1], self._last.shape[0]

    @contextlib.contextmanager
    def tapped(self, tap: Tap) -> Iterator[None]:
        """Gives all that is shown to ``tap``, too, for the length of the block."""
        self._taps.append(tap)
        try:
            yield
        finally:
            self._taps.remove(tap)

    def sink(self) -> BroadcastSink:
        """A sink for one run of the session's pipeline; its time follows on what was shown before."""
        return BroadcastSink(self)

    def rendition(self, codec: Codec, layer: Layer) -> Rendition:
        """The encode of this kind, begun if nobody needed it before."""
        found = self._renditions.get((codec, layer))
        if found is None:
            assert self._group is not None, "Broadcast.run is not running"
            rendition = Rendition(codec, layer, self._settings, self._clock, lambda: self._watching(codec, layer))
            task = self._group.create_task(rendition.run(), name=f"encode {codec} {layer}")
            found = self._renditions[codec, layer] = rendition, task
        return found[0]

    def _watching(self, codec: Codec, layer: Layer) -> list[Viewer]:
        return [viewer for viewer in self._viewers if (viewer.codec, viewer.layer) == (codec, layer)]

    @contextlib.asynccontextmanager
    async def running(self) -> Any:
        """Keeps the encodes going for the length of the block."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            tasks = [
                group.create_task(self._show_slates(), name="slate"),
                group.create_task(self._encode_sound(), name="encode sound"),
                group.create_task(self._adapt(), name="adapt"),
            ]
            try:
                yield
            finally:
                for viewer in self._viewers:
                    viewer.close()
                for task in (*tasks, *(task for _, task in self._renditions.values())):
                    task.cancel()
                self._renditions.clear()
                self._group = None

    def seconds(self, at: float) -> float:
        """Clock seconds on the broadcast's own timeline, which never jumps."""
        return at - self._origin

    def show(self, pixels: Pixels, seconds: float, captured_at: float | None) -> None:
        """A picture for ``seconds`` of the timeline. One that is the same object as before is encoded again only now
        and then, or when a viewer waits for a key frame."""
        now = self._clock.now()
        self._fed_at = now
        for tap in self._taps:
            tap.picture(pixels, seconds)
        repeated = pixels is self._last and now - self._encoded_at < _REPEAT_AFTER
        if repeated and not any(rendition.key_due for rendition, _ in self._renditions.values()):
            return
        self._offer(pixels, seconds, captured_at)

    def _offer(self, pixels: Pixels, seconds: float, captured_at: float | None) -> None:
        ticks = round(seconds * VIDEO_RATE)
        if ticks <= self._last_ticks:
            return
        self._last, self._last_ticks, self._encoded_at = pixels, ticks, self._clock.now()
        for rendition, _ in self._renditions.values():
            rendition.offer(_Shot(pixels, ticks, captured_at))

    def sound(self, samples: Samples, start: int) -> None:
        """Sound from sample index ``start`` of the timeline on."""
        for tap in self._taps:
            tap.sound(samples, start)
        if self._viewers:
            self._sounds.append((samples, start))
            self._sound_news.set()

    async def _encode_sound(self) -> None:
        loop = asyncio.get_running_loop()
        thread = ThreadPoolExecutor(1, thread_name_prefix="encode-opus")
        try:
            while True:
                while not self._sounds:
                    self._sound_news.clear()
                    await self._sound_news.wait()
                samples, start = self._sounds.popleft()
                for frame in await loop.run_in_executor(thread, self._opus.encode, samples, start):
                    for viewer in self._viewers:
                        viewer.audio.put(frame)
        finally:
            thread.shutdown(wait=False, cancel_futures=True)

    async def _show_slates(self) -> None:
        """While no session feeds us: the last picture dimmed, and something that moves."""
        slate: SlateMaker | None = None
        since = 0.0
        while True:
            await asyncio.sleep(_SLATE_PERIOD)
            now = self._clock.now()
            if now - self._fed_at < _STARVED_AFTER:
                slate = None
                continue
            if slate is None:
                slate, since = self._make_slate(self._last), now
            if self._viewers or self._taps:
                picture = slate.picture(now - since)
                for tap in self._taps:
                    tap.picture(picture, self.seconds(now))
                if self._viewers:
                    self._offer(picture, self.seconds(now), None)

    async def _adapt(self) -> None:
        """Moves viewers between the layers as their networks go, and ends encodes that nobody needs."""
        while True:
            await asyncio.sleep(_ADAPT_EVERY)
            now = self._clock.now()
            for viewer in self._viewers:
                bitrate = self.rendition(viewer.codec, viewer.layer).bitrate
                layer = viewer.adaptation.choose(now, viewer.layer, bitrate)
                if layer != viewer.layer:
                    logger.info("viewer layer=%s", layer)
                    viewer.move(layer)
            for key, (rendition, task) in list(self._renditions.items()):
                if self._watching(*key):
                    rendition.unused_since = None
                elif rendition.unused_since is None:
                    rendition.unused_since = now
                elif now - rendition.unused_since > _IDLE_LAYER:
                    task.cancel()
                    del self._renditions[key]


class BroadcastSink:
    """A ``Sink`` that feeds a broadcast: one run of a pipeline, whose own time starts at 0."""

    name = "viewers"
    state = SinkState.LIVE
    error = ""

    def __init__(self, broadcast: Broadcast) -> None:
        self._broadcast = broadcast
        self._offset: float | None = None

    def stats(self) -> dict[str, Any]:
        return {"viewers": self._broadcast.viewers}

    async def run(self) -> None:
        await asyncio.get_running_loop().create_future()

    async def opened(self) -> None: ...

    async def room(self) -> None: ...

    def write_video(self, pixels: Pixels, pts: float, captured_at: float | None = None) -> None:
        if self._offset is None:
            self._offset = self._broadcast.seconds(self._broadcast._clock.now()) - pts
        self._broadcast.show(pixels, pts + self._offset, captured_at)

    def write_audio(self, samples: Samples, start: int) -> None:
        if self._offset is not None:
            self._broadcast.sound(samples, start + round(self._offset * AUDIO_RATE))

    async def finish(self, timeout: float) -> None: ...
