"""One encoder for all targets of a session that want the same: it encodes once, in a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from typing import Any, Protocol

from streamfx.core.backoff import Backoff
from streamfx.core.errors import SinkError, StreamFXError
from streamfx.core.frames import Pixels, Samples
from streamfx.ipc.child import Child, spawn
from streamfx.media import hardware
from streamfx.media.base import OutputFormat
from streamfx.media.encoders import AUTO, CODECS, SOFTWARE, refusal
from streamfx.media.output_process import format_to_json
from streamfx.media.packets import KeyFrames, Packet
from streamfx.media.slots import Slots

logger = logging.getLogger(__name__)

_OPEN_TIMEOUT = 10.0
_STALL_TIMEOUT = 6.0
_STABLE_AFTER = 20.0


class Feed(Protocol):
    """Who takes packets. None of it may wait."""

    def take(self, packet: Packet) -> None:
        """The next packet of either lane, in decoding order."""
        ...

    def cut(self, lost: int) -> None:
        """The encoder is gone, with ``lost`` pictures; another is being started."""
        ...

    def resume(self, headers: bytes) -> None:
        """Another encoder is there. Its first picture is a key frame, and ``headers`` may be others."""
        ...


class SharedEncoder:
    """Encodes for those who are attached, started again (with back-off) when its process dies or hangs.

    Every target hands over every picture; the first one's is taken. A hardware encoder that fails, though it was found
    to work, is given up for the software one, unless it was named. ``failed``: it is no use to try any more.
    """

    def __init__(self, output: OutputFormat) -> None:
        self._format = output
        self._feeds: list[Feed] = []
        self._keys = KeyFrames()
        self._slots: Slots | None = None
        self._child: Child | None = None
        self._patience: asyncio.Timeout | None = None
        self._changed = asyncio.Event()
        self._codec = ""
        self._attempts = 0
        self._last_video = float("-inf")
        self._last_audio = -1
        self._took_last = False
        self._taken = self._done = 0
        self._ever = False
        self.headers = b""
        self.error = ""
        self.failed = False
        self.failures = 0

    @property
    def codec(self) -> str:
        """FFmpeg's name of the present encoder; empty before there is one."""
        return CODECS.get(self._codec, "")

    @property
    def pid(self) -> int | None:
        """Its process id, while it runs."""
        return self._child.pid if self._child else None

    @property
    def running(self) -> bool:
        """Whether it takes pictures."""
        return self._slots is not None

    async def open(self) -> bytes:
        """Waits until it runs; returns the headers of its streams. Raises ``SinkError`` if it could not be started."""
        attempts = self._attempts
        while not self.running:
            if self.failed or self._attempts > attempts:
                raise SinkError(self.error)
            await self._change()
        return self.headers

    async def room(self) -> None:
        """Waits until a picture can be written without being dropped, or it has failed."""
        while not self.failed and not (self._slots and self._slots.room):
            await self._change()

    async def settle(self) -> None:
        """Waits until all that it took is encoded."""
        while self.running and self._done < self._taken:
            await self._change()

    def attach(self, feed: Feed) -> None:
        """Packets go there from now on; a key frame is made for it as soon as may be."""
        self._feeds.append(feed)
        self._keys.ask()

    def detach(self, feed: Feed) -> None:
        """No more of them."""
        self._feeds.remove(feed)

    def write_video(self, pixels: Pixels, pts: float) -> bool:
        """Takes a picture, unless it has it already. Returns whether it was taken."""
        if pts <= self._last_video:
            return self._took_last
        self._last_video, self._took_last = pts, False
        if self._slots is not None and self._child is not None:
            idle = self._slots.waiting == 0
            if self._taken == 0:
                self._keys.made()  # it begins with one
            self._took_last = self._slots.write_video(self._child, pixels, pts, self._keys.due(pts))
            self._taken += self._took_last
            if idle:
                self._expect(_STALL_TIMEOUT)
        return self._took_last

    def write_audio(self, samples: Samples, start: int) -> None:
        """Takes sound from sample index ``start`` on, unless it has it already."""
        if start <= self._last_audio:
            return
        self._last_audio = start
        if self._slots is not None and self._child is not None:
            self._slots.write_audio(self._child, samples, start)

    async def run(self) -> None:
        """Keeps it going until it is cancelled, or no use."""
        try:
            await self._keep_going()
        finally:
            self.failed = True
            self._changed.set()

    async def _keep_going(self) -> None:
        backoff = Backoff(first=1.0, longest=30.0)
        while not self.failed:
            started, failures = time.monotonic(), self.failures
            self.failed = await self._attempt()
            for feed in self._feeds:
                feed.cut(self._taken - self._done)
            fell_back = self.failures > failures
            self._attempts += not fell_back
            self._changed.set()
            if self.failed or fell_back:
                continue
            logger.warning("%s; it is started again", self.error)
            if time.monotonic() - started > _STABLE_AFTER:
                backoff.reset()
                continue
            await asyncio.sleep(backoff.next())

    async def _attempt(self) -> bool:
        """One life of the process. Returns whether trying again is pointless."""
        self._taken = self._done = 0
        try:
            wanted = self._format.encode.encoder
            self._codec = SOFTWARE if self.failures else await hardware.pick(wanted, wait=False)
            return await self._live(Slots(self._format.size))
        except TimeoutError:
            return self._gone(f"it did not answer for {_OPEN_TIMEOUT if not self._taken else _STALL_TIMEOUT:.0f} s")
        except (StreamFXError, OSError) as error:  # no memory to share, no process to be had; there may be some later
            self.error = str(error)
            return False

    async def _live(self, slots: Slots) -> bool:
        try:
            async with spawn("streamfx.media.encoder_process", "encoder") as child:
                output = format_to_json(self._format)
                child.send({"encoder": self._codec, "arena": str(slots.arena.path), "output": output})
                self._child = child
                try:
                    async with asyncio.timeout(_OPEN_TIMEOUT) as self._patience:
                        return await self._listen(child, slots)
                finally:
                    self._slots = self._child = self._patience = None
        finally:
            slots.arena.close()

    async def _listen(self, child: Child, slots: Slots) -> bool:
        """Follows the process until it ends. Returns whether its error is final."""
        while (message := await child.receive()) is not None:
            kind = message["kind"]
            if kind == "encoder failed":
                return self._encoder_failed(message["error"])
            if kind == "error":
                self.error = message["error"]
                return False
            if kind in ("ready", "packet"):
                data = await child.read(message["size"])
                if data is None:
                    break
                self._give(message, data, slots)
            elif kind == "free":
                slots.free(message["lane"], message["slot"])
            elif kind == "sent":
                self._done += 1
            self._expect(_STALL_TIMEOUT if slots.waiting else None)
            self._changed.set()
        status = await child.finish(timeout=1.0)
        return self._gone(child.last_words or f"its process ended (status {status})")

    def _give(self, message: dict[str, Any], data: bytes, slots: Slots) -> None:
        if message["kind"] == "ready":
            slots.arena.unlink()
            self._slots, self.headers, self.error = slots, data, ""
            for feed in self._feeds:
                feed.resume(data)
            return
        self._ever = True
        times = (message["pts"], message["dts"], message["duration"])
        packet = Packet(message["video"], data, *times, message["key"])
        if packet.video and packet.key:
            self._keys.made()
        for feed in self._feeds:
            feed.take(packet)

    def _gone(self, fault: str) -> bool:
        """It died or hangs without a word. Of hardware that has given nothing so far, it is the driver's doing."""
        if self._codec != SOFTWARE and self._done == 0:
            return self._encoder_failed(fault)
        self.error = f"the encoder {self.codec} stopped: {fault}"
        return False

    def _encoder_failed(self, fault: str) -> bool:
        """Counts it, and says so. Returns whether that is final."""
        if self._format.encode.encoder != AUTO:
            self.error = refusal(self._codec, fault)
            return not self._ever
        self.failures += 1
        logger.warning("encoder %s failed (%s); going on with %s", self._codec, fault, CODECS[SOFTWARE])
        return False

    def _expect(self, seconds: float | None) -> None:
        """Gives the process so long for its next message; None: it owes us nothing."""
        if self._patience is not None and not self._patience.expired():
            loop = asyncio.get_running_loop()
            self._patience.reschedule(None if seconds is None else loop.time() + seconds)

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()


@contextlib.asynccontextmanager
async def shared_encoder(output: OutputFormat) -> AsyncIterator[SharedEncoder]:
    """An encoder that runs for the length of the block, to be kept in a ``Shared``."""
    encoder = SharedEncoder(output)
    task = asyncio.create_task(encoder.run(), name=f"encoder {output.size[0]}x{output.size[1]}")
    try:
        yield encoder
    finally:
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error
