"""Files, each encoded and written by a process of its own, so that none can hold up the stream or another output.

The stream writes into shared memory and never waits; a file that does not take its pictures loses them.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from pathlib import Path
from typing import Any

from streamfx.core.errors import StreamFXError, UsageError
from streamfx.core.frames import Pixels, Samples
from streamfx.ipc.child import Child, spawn
from streamfx.media import hardware
from streamfx.media.base import OutputFormat, SinkState
from streamfx.media.encoder import HLS
from streamfx.media.encoders import AUTO, CODECS, SOFTWARE, refusal
from streamfx.media.output_process import format_to_json
from streamfx.media.process_sink import Next, ProcessSink
from streamfx.media.slots import Slots
from streamfx.media.url import MediaUrl

logger = logging.getLogger(__name__)

CONTAINERS = {
    ".mp4": "mp4",
    ".m4v": "mp4",
    ".mov": "mov",
    ".mkv": "matroska",
    ".ts": "mpegts",
    ".flv": "flv",
    ".m3u8": HLS,
}
"""File endings we write, with FFmpeg's names of the formats."""

_OPEN_TIMEOUT = 10.0
_STALL_TIMEOUT = 6.0


def file_output(url: MediaUrl, output: OutputFormat) -> ProcessOutput:
    """A file; ``?overwrite=1`` replaces an old one. Raises ``UsageError`` if it cannot be written."""
    path = check_writable(url)
    return ProcessOutput(url, output, container=CONTAINERS[path.suffix.lower()])


def check_writable(url: MediaUrl) -> Path:
    """The path of a file output. Raises ``UsageError`` unless it can be created, without touching anything."""
    url.allow(("overwrite",))
    path = Path(url.path)
    if path.suffix.lower() not in CONTAINERS:
        raise UsageError(f"{path}: cannot tell the format; end the name in {', '.join(CONTAINERS)}")
    if path.is_dir():
        raise UsageError(f"{path} is a folder; give a file name")
    if not path.parent.is_dir():
        raise UsageError(f"{path}: the folder {path.parent} does not exist; create it first")
    if path.exists() and not url.flag("overwrite", False):
        raise UsageError(f"{path} exists already; choose another name or pass --overwrite")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise UsageError(f"{path} may not be written; check the permissions of {path.parent}")
    return path


class ProcessOutput(ProcessSink):
    """A file written by a process of its own, started again (with back-off) when that dies or hangs.

    A file is never overwritten by its own second part: that goes to ``name.2.mp4`` and so on, to the next that is free.
    An HLS playlist goes on instead: players follow it by its name.
    A hardware encoder that fails, though it was found to work, is given up for the software one, unless it was named.
    """

    def __init__(self, url: MediaUrl, output: OutputFormat, *, container: str, go_on: bool = False) -> None:
        """``go_on``: with the HLS playlist that is there already, and leave it open at the end for the next."""
        super().__init__(str(url))
        self._url = url
        self._format = output
        self._container = container
        self._go_on = go_on
        self._slots: Slots | None = None
        self._parts = 0
        self._last_progress = 0.0
        self.dropped = self.missed = 0
        self._attempt_bytes = 0
        self._attempt_sent = self._attempt_taken = 0
        self._encoder = ""
        self._encoder_failures = 0

    def stats(self) -> dict[str, Any]:
        return {
            "output": self.name,
            "state": self.state.value,
            "error": self.error,
            "sent": self.sent,
            "dropped": self.dropped,
            "missed_while_away": self.missed,
            "reconnects": self.reconnects,
            "bytes": self.bytes + self._attempt_bytes,
            "encoder": CODECS.get(self._encoder, ""),
            "encoder_failures": self._encoder_failures,
            "queue_depth": self._slots.waiting if self._slots else 0,
        }

    async def _attempt(self) -> Next:
        self._attempt_bytes = self._attempt_sent = self._attempt_taken = 0
        failures = self._encoder_failures
        try:
            self._encoder = await self._pick_encoder()
            fatal = False if self._closing else await self._live()
        except (StreamFXError, OSError) as error:  # no memory to share, no process to be had
            self.error = str(error)
            fatal = True
        if fatal:
            return Next.NONE
        return Next.AT_ONCE if self._encoder_failures > failures else Next.LATER

    async def _pick_encoder(self) -> str:
        """A live stream begins with what is known about this machine; one that nothing waits for can find out."""
        if self._encoder_failures:
            return SOFTWARE
        return await hardware.pick(self._format.encode.encoder, wait=not self._format.live)

    def _encoder_failed(self, fault: str) -> bool:
        """Counts it, and says so. Returns whether that is final."""
        name = self._encoder
        if self._format.encode.encoder != AUTO:
            self.error = refusal(name, fault)
            return True
        self._encoder_failures += 1
        self._slots = None  # nothing more is taken until the next begins
        self.dropped += self._attempt_taken - self._attempt_sent
        if self._attempt_sent == 0:
            self._parts = max(0, self._parts - 1)  # of this part there is nothing to keep
        logger.warning("output=%s: encoder %s failed (%s); going on with %s", self.name, name, fault, CODECS[SOFTWARE])
        return False

    async def _live(self) -> bool:
        slots = Slots(self._format.size)
        fatal = False
        try:
            async with spawn("streamfx.media.output_process", self.name) as child:
                self._child = child
                child.send(self._hello(slots))
                self._last_progress = time.monotonic()
                fatal = await self._listen(child, slots)
        finally:
            self._child = self._slots = None
            self.bytes += self._attempt_bytes
            self._attempt_bytes = 0
            slots.arena.close()
        return fatal

    def _hello(self, slots: Slots) -> dict[str, Any]:
        return {
            "place": str(self._part_name()),
            "container": self._container,
            "hls_flags": ("+append_list" if self._go_on or self._parts > 1 else "")
            + ("+omit_endlist" if self._go_on else ""),
            "encoder": self._encoder,
            "arena": str(slots.arena.path),
            "output": format_to_json(self._format),
        }

    def _part_name(self) -> Path:
        path = part = Path(self._url.path)
        self._parts += 1
        while (
            self._container != HLS
            and self._parts > 1
            and (part := path.with_suffix(f".{self._parts}{path.suffix}")).exists()
        ):
            self._parts += 1
        return part

    async def _listen(self, child: Child, slots: Slots) -> bool:
        """Follows the child until it ends, killing it when it stalls. Returns whether its error is final."""
        while True:
            patience = _OPEN_TIMEOUT if self.state is SinkState.CONNECTING else _STALL_TIMEOUT
            try:
                async with asyncio.timeout(1.0):
                    message = await child.receive()
            except TimeoutError:
                if self._stalled(patience):
                    if self._encoder != SOFTWARE and self._attempt_sent == 0:
                        return self._encoder_failed(f"it did not answer for {patience:.0f} s")
                    what = "answer" if self.state is SinkState.CONNECTING else "take anything"
                    self.error = f"its process did not {what} for {patience:.0f} s"
                    return False
                continue
            if message is None:
                status = await child.finish(timeout=1.0)
                if status and self._encoder != SOFTWARE and self._attempt_sent == 0 and not self._closing:
                    # No error was told: a driver took the process with it.
                    return self._encoder_failed(f"its process ended with status {status}")
                if not self._closing and not self.error:
                    self.error = child.last_words or f"its process ended (status {status})"
                return False
            if message["kind"] == "encoder failed":
                return self._encoder_failed(message["error"])
            if message["kind"] == "error":
                self.error = message["error"]
                return True
            self._take(message, slots)

    def _stalled(self, patience: float) -> bool:
        """Whether the child owes us something for too long. Nothing to do is no stall."""
        idle = self._slots is not None and self._slots.waiting == 0
        if idle or (self._closing and self.state is SinkState.LIVE):
            self._last_progress = time.monotonic()
        return time.monotonic() - self._last_progress > patience

    def _take(self, message: dict[str, Any], slots: Slots) -> None:
        self._last_progress = time.monotonic()
        if message["kind"] == "live":
            slots.arena.unlink()
            self._slots = slots
            self.error = ""
            self._set(SinkState.LIVE)
        elif message["kind"] == "free":
            slots.free(message["lane"], message["slot"])
            self._changed.set()
        else:
            self.sent += message["kind"] == "sent"
            self._attempt_sent += message["kind"] == "sent"
            self._attempt_bytes = message["bytes"]

    async def room(self) -> None:
        while not self._ended.is_set() and not (self._slots and self._slots.room):
            await self._change()

    def write_video(self, pixels: Pixels, pts: float, captured_at: float | None = None) -> None:
        if self._slots is None or self._child is None or self._closing:
            self.missed += 1
        elif self._slots.write_video(self._child, pixels, pts):
            self._attempt_taken += 1
        else:
            self.dropped += 1

    def write_audio(self, samples: Samples, start: int) -> None:
        if self._slots is not None and self._child is not None and not self._closing:
            self._slots.write_audio(self._child, samples, start)
