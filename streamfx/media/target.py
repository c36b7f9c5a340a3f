"""Live outputs: what a shared encoder has made goes to each by a process of its own, which a slow or dead peer may hold
up as long as it likes.

A target that does not take its packets loses pictures, and only it; it begins, and goes on, with a key frame.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from streamfx.core.errors import SinkError, UsageError, redact
from streamfx.core.frames import Pixels, Samples
from streamfx.ipc.child import Child, spawn
from streamfx.media.base import OutputFormat, Shared, SinkState
from streamfx.media.encoder import video_bitrate
from streamfx.media.packets import Packet, PacketQueue
from streamfx.media.process_sink import Next, ProcessSink
from streamfx.media.shared_encoder import SharedEncoder, shared_encoder
from streamfx.media.url import MediaUrl

logger = logging.getLogger(__name__)

_STALL_TIMEOUT = 6.0
_SETTLE = 0.3
_UNDER_WAY = 1 << 16
"""Bytes that a sender is given before it has told of the last ones: what lies there cannot be dropped any more."""


@dataclass(frozen=True, slots=True)
class Transport:
    """How packets get to targets of one URL scheme. ``container``: FFmpeg's name of the format; ``options``: of that
    and of the connection, by FFmpeg's names, without colons and brackets in them. ``place``: where to, if that is not
    the target's own URL. ``connect_timeout``: seconds until one who does not answer is given up; ``longest_wait``:
    seconds between two attempts."""

    container: str
    options: Mapping[str, str] = field(default_factory=dict, repr=False)
    place: str = ""
    connect_timeout: float = 10.0
    longest_wait: float = 30.0


# A short buffer in the system: what lies there is late already, and drops cannot help it. Timeouts in microseconds.
_RTMP = Transport(
    "flv", {"flvflags": "no_duration_filesize", "rw_timeout": "5000000", "send_buffer_size": str(1 << 17)}
)

_RTSP = Transport("rtsp", {"rtsp_transport": "tcp"})

TRANSPORTS = {"rtmp": _RTMP, "rtmps": _RTMP, "rtsp": _RTSP, "rtsps": _RTSP}


def push_output(url: MediaUrl, output: OutputFormat, encoders: Shared) -> Target:
    """A live connection; tried again for ever, 1 s … 30 s apart. ``encoders``: of the session, where targets of equal
    formats find the encoder that they share. Raises ``UsageError``."""
    check_stream(url)
    return Target(url, output, encoders, TRANSPORTS[url.scheme])


def check_stream(url: MediaUrl) -> None:
    """Raises ``UsageError`` unless a live output names a server and a stream."""
    if not url.host or not url.path.strip("/"):
        raise UsageError(f"{url} names no server or no stream; write {url.scheme}://HOST/APP/KEY")


class Target(ProcessSink):
    """A sink that sends what the shared encoder gives, connected again (with back-off) when its peer goes away."""

    def __init__(self, url: MediaUrl, output: OutputFormat, encoders: Shared, transport: Transport) -> None:
        super().__init__(str(url), transport.longest_wait)
        self._url = url
        self._format = output
        self._encoders = encoders
        self._transport = transport
        self._encoder: SharedEncoder | None = None
        self._queue: PacketQueue | None = None
        """Packets to be sent; None while there is no connection."""
        self._under_way: deque[Packet] = deque()
        self._headers = b""
        self._outdated = False
        self._last_progress = 0.0
        self._dropped = self._missed = 0

    @property
    def dropped(self) -> int:
        """Pictures lost because the encoder or the peer did not keep up, or on their way when that went away."""
        return self._dropped + (self._queue.dropped if self._queue else 0)

    @property
    def missed(self) -> int:
        """Pictures that came while there was no connection, or before the key frame that it began with."""
        return self._missed + (self._queue.missed if self._queue else 0)

    def stats(self) -> dict[str, Any]:
        return {
            "output": self.name,
            "state": self.state.value,
            "error": self.error,
            "sent": self.sent,
            "dropped": self.dropped,
            "missed_while_away": self.missed,
            "reconnects": self.reconnects,
            "bytes": self.bytes,
            "encoder": self._encoder.codec if self._encoder else "",
            "encoder_failures": self._encoder.failures if self._encoder else 0,
            "queue_depth": self._queue.pictures if self._queue else 0,
        }

    async def run(self) -> None:
        try:
            async with self._encoders.get(self._format, lambda: shared_encoder(self._format)) as self._encoder:
                await super().run()
        finally:
            self._end()

    async def _attempt(self) -> Next:
        """One connection, from its opening to its end."""
        assert self._encoder is not None
        self._outdated = False
        try:
            await self._connect(self._encoder)
        except (SinkError, OSError) as error:  # no encoder, no process to be had; there may be some later
            self.error = redact(str(error), self._url.secrets)
        finally:
            self._child = None
        if self._encoder.failed and not self._closing:
            self.error = self._encoder.error
            return Next.NONE
        return Next.AT_ONCE if self._outdated else Next.LATER

    async def _connect(self, encoder: SharedEncoder) -> None:
        async with spawn("streamfx.media.sender_process", self.name) as child:
            self._child = child
            self._headers = await encoder.open()
            if self._closing:
                return
            child.send(self._hello(), self._headers)
            self._last_progress = time.monotonic()
            try:
                await self._listen(child, encoder)
            finally:
                self._detach(encoder)
                self._dropped += sum(packet.video for packet in self._under_way)
                self._under_way.clear()

    def _hello(self) -> dict[str, Any]:
        return {
            "place": self._transport.place or self._url.raw,
            "container": self._transport.container,
            "options": dict(self._transport.options),
            "fps": str(self._format.fps),
            "rate": self._format.encode.video_bitrate or video_bitrate(self._format.size, self._format.fps),
            "secrets": list(self._url.secrets),
        }

    async def _listen(self, child: Child, encoder: SharedEncoder) -> None:
        """Follows the sender until it ends, or stalls, or its connection is no use any more."""
        while True:
            patience = self._transport.connect_timeout if self._queue is None else _STALL_TIMEOUT
            try:
                async with asyncio.timeout(1.0):
                    message = await child.receive()
            except TimeoutError:
                if self._outdated:
                    return
                if self._stalled(patience):
                    where = "answer" if self._queue is None else "take anything"
                    self.error = f"the other end did not {where} for {patience:.0f} s"
                    return
                continue
            if message is None:
                status = await child.finish(timeout=1.0)
                if not self._closing and not self._outdated:
                    self.error = redact(child.last_words, self._url.secrets) or f"its process ended (status {status})"
                return
            if message["kind"] == "error":
                refused = self._queue is None
                self.error = (
                    f"it was not let in ({message['error']}); check address and key" if refused else message["error"]
                )
                return
            self._last_progress = time.monotonic()
            if message["kind"] == "live":
                self._connected(encoder)
            else:
                self._acknowledged()

    def _stalled(self, patience: float) -> bool:
        """Whether the sender owes us something for too long. Nothing to do is no stall."""
        if self._queue is not None and (self._closing or not self._under_way):
            self._last_progress = time.monotonic()
        return time.monotonic() - self._last_progress > patience

    def _connected(self, encoder: SharedEncoder) -> None:
        self._queue = PacketQueue()
        encoder.attach(self)
        if encoder.running:
            self.resume(encoder.headers)

    def _detach(self, encoder: SharedEncoder) -> None:
        """Takes no more packets. Those that still wait are lost."""
        if self._queue is None:
            return
        encoder.detach(self)
        self._dropped += self._queue.dropped + self._queue.pictures
        self._missed += self._queue.missed
        self._queue = None

    def _acknowledged(self) -> None:
        packet = self._under_way.popleft()
        self.sent += packet.video
        self.bytes += len(packet.data)
        self._send()

    def _send(self, most: int = _UNDER_WAY) -> None:
        """Gives the sender of what waits as much as may be under way."""
        if self._child is None or self._queue is None:
            return
        size = sum(len(packet.data) for packet in self._under_way)
        while size < most and (packet := self._queue.pop()) is not None:
            size += len(packet.data)
            self._under_way.append(packet)
            times = {"pts": packet.pts, "dts": packet.dts, "duration": packet.duration}
            self._child.send({"video": packet.video, "key": packet.key, **times}, packet.data)

    # What the encoder tells

    def take(self, packet: Packet) -> None:
        if self._queue is not None:
            self._queue.put(packet)
            self._send()

    def cut(self, lost: int) -> None:
        if self._queue is not None and self._encoder is not None:
            self._dropped += lost
            self._queue.cut()
            self.error = self._encoder.error
            self._set(SinkState.RETRYING)

    def resume(self, headers: bytes) -> None:
        if headers == self._headers:
            self.error = ""
            self._set(SinkState.LIVE)
        elif self._child is not None:
            # The peer was told of other pictures than there will be: it has to be told anew.
            self._outdated = True
            self._child.end_input()

    # The sink

    async def room(self) -> None:
        while not self._ended.is_set() and (self._queue is None or self._encoder is None):
            await self._change()
        if self._encoder is not None:
            await self._encoder.room()

    def write_video(self, pixels: Pixels, pts: float, captured_at: float | None = None) -> None:
        if self._queue is None or self._encoder is None or not self._encoder.running or self._closing:
            self._missed += 1
        elif not self._encoder.write_video(pixels, pts):
            self._dropped += 1

    def write_audio(self, samples: Samples, start: int) -> None:
        if self._queue is not None and self._encoder is not None and not self._closing:
            self._encoder.write_audio(samples, start)

    async def _let_go(self) -> None:
        """Hands over what is still in the encoder and what waits, and lets the sender go."""
        if self._queue is not None and self._encoder is not None:
            try:
                async with asyncio.timeout(_SETTLE):
                    await self._encoder.settle()
            except TimeoutError:
                pass
            self._send(most=1 << 30)
            self._detach(self._encoder)
        await super()._let_go()
