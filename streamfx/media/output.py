"""Outputs, each encoded and written by a process of its own, so that none can hold up the stream or another.

The stream writes into shared memory and never waits; an output that does not take its pictures loses them.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from streamfx.core.backoff import Backoff
from streamfx.core.errors import StreamFXError, UsageError, redact
from streamfx.core.frames import Pixels, Samples
from streamfx.ipc.arena import Arena
from streamfx.ipc.child import Child, spawn
from streamfx.media import hardware
from streamfx.media.base import OutputFormat, SinkState
from streamfx.media.encoders import AUTO, CODECS, SOFTWARE, refusal
from streamfx.media.output_process import format_to_json
from streamfx.media.slots import AUDIO_SLOT_SAMPLES, AUDIO_SLOTS, VIDEO_SLOTS, SlotLayout
from streamfx.media.url import MediaUrl

logger = logging.getLogger(__name__)

CONTAINERS = {
    ".mp4": "mp4",
    ".m4v": "mp4",
    ".mov": "mov",
    ".mkv": "matroska",
    ".ts": "mpegts",
    ".flv": "flv",
}
"""File endings we write, with FFmpeg's names of the formats."""

_CONNECT_TIMEOUT = 10.0
_STALL_TIMEOUT = 6.0
_STABLE_AFTER = 20.0
_SPARE_AUDIO = 8


def push_output(url: MediaUrl, output: OutputFormat) -> ProcessOutput:
    """A live connection to ``rtmp(s)://``; tried again for ever, 1 s … 30 s apart. Raises ``UsageError``."""
    check_stream(url)
    return ProcessOutput(url, output, container="flv", push=True)


def file_output(url: MediaUrl, output: OutputFormat) -> ProcessOutput:
    """A file; ``?overwrite=1`` replaces an old one. Raises ``UsageError`` if it cannot be written."""
    path = check_writable(url)
    return ProcessOutput(url, output, container=CONTAINERS[path.suffix.lower()], push=False)


def check_stream(url: MediaUrl) -> None:
    """Raises ``UsageError`` unless a live output names a server and a stream."""
    if not url.host or not url.path.strip("/"):
        raise UsageError(f"{url} names no server or no stream; write {url.scheme}://HOST/APP/KEY")


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


class ProcessOutput:
    """A sink in a process of its own, started again (with back-off) when it dies or its peer goes away.

    A file is never overwritten by its own second part: that goes to ``name.2.mp4`` and so on, to the next that is free.
    A hardware encoder that fails, though it was found to work, is given up for the software one, unless it was named.
    """

    def __init__(self, url: MediaUrl, output: OutputFormat, *, container: str, push: bool) -> None:
        self.name = str(url)
        self._url = url
        self._format = output
        self._container = container
        self._push = push
        self._layout = SlotLayout(output.size)
        self._arena: Arena | None = None
        self._child: Child | None = None
        self._free: dict[str, list[int]] = {"video": [], "audio": []}
        self._changed = asyncio.Event()
        self._closing = False
        self._ended = asyncio.Event()
        self._parts = 0
        self._last_progress = 0.0
        self.on_state: Callable[[ProcessOutput], None] = lambda sink: None
        self.state = SinkState.CONNECTING
        self.error = ""
        self.sent = self.dropped = self.missed = self.reconnects = self.bytes = 0
        self._attempt_bytes = 0
        self._attempt_sent = self._attempt_taken = 0
        self._encoder = ""
        self._encoder_failures = 0

    @property
    def pid(self) -> int | None:
        """The process id of the output, while it runs."""
        return self._child.pid if self._child else None

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
            "queue_depth": VIDEO_SLOTS - len(self._free["video"]) if self._arena else 0,
        }

    async def run(self) -> None:
        backoff = Backoff(first=1.0, longest=30.0)
        try:
            while not self._closing:
                started, failures = time.monotonic(), self._encoder_failures
                fatal = await self._attempt()
                if self._closing:
                    break
                if fatal:
                    self._set(SinkState.FAILED)
                    return
                if self._encoder_failures > failures:
                    continue
                if time.monotonic() - started > _STABLE_AFTER:
                    backoff.reset()
                self.reconnects += 1
                self._set(SinkState.RETRYING)
                await self._pause(backoff.next())
        finally:
            self._ended.set()
            self._changed.set()
        self._set(SinkState.CLOSED)

    async def _pause(self, seconds: float) -> None:
        """Waits out the back-off; ``finish`` ends it early."""
        deadline = time.monotonic() + seconds
        while not self._closing and (left := deadline - time.monotonic()) > 0:
            self._changed.clear()
            try:
                async with asyncio.timeout(left):
                    await self._changed.wait()
            except TimeoutError:
                return

    async def _attempt(self) -> bool:
        """One life of the output's process. Returns whether trying again is pointless."""
        self._set(SinkState.CONNECTING)
        self._attempt_bytes = self._attempt_sent = self._attempt_taken = 0
        try:
            self._encoder = await self._pick_encoder()
            return False if self._closing else await self._live()
        except (
            StreamFXError,
            OSError,
        ) as error:  # no memory to share, no process to be had; a push may find some later
            self.error = redact(str(error), self._url.secrets)
            return not self._push

    async def _pick_encoder(self) -> str:
        """A live output begins with what is known about this machine; a file that nothing waits for can find out."""
        if self._encoder_failures:
            return SOFTWARE
        return await hardware.pick(self._format.encode.encoder, wait=not self._format.live)

    def _encoder_failed(self, fault: str) -> bool:
        """Counts it, and says so. Returns whether that is final."""
        name = self._encoder
        if self._format.encode.encoder != AUTO:
            self.error = refusal(name, fault)
            return not self._push or self.sent == 0
        self._encoder_failures += 1
        self._arena = None  # nothing more is taken until the next begins
        self.dropped += self._attempt_taken - self._attempt_sent
        if self._attempt_sent == 0:
            self._parts = max(0, self._parts - 1)  # of this part there is nothing to keep
        logger.warning("output=%s: encoder %s failed (%s); going on with %s", self.name, name, fault, CODECS[SOFTWARE])
        return False

    async def _live(self) -> bool:
        arena = Arena.create(self._layout.size)
        fatal = False
        try:
            async with spawn("streamfx.media.output_process", self.name) as child:
                self._child = child
                child.send(self._hello(arena))
                self._last_progress = time.monotonic()
                fatal = await self._listen(child, arena)
        finally:
            self._child = self._arena = None
            self.bytes += self._attempt_bytes
            self._attempt_bytes = 0
            arena.close()
        return fatal

    def _hello(self, arena: Arena) -> dict[str, Any]:
        return {
            "place": self._url.raw if self._push else str(self._part_name()),
            "container": self._container,
            "push": self._push,
            "encoder": self._encoder,
            "arena": str(arena.path),
            "output": format_to_json(self._format),
            "secrets": list(self._url.secrets),
        }

    def _part_name(self) -> Path:
        path = part = Path(self._url.path)
        self._parts += 1
        while self._parts > 1 and (part := path.with_suffix(f".{self._parts}{path.suffix}")).exists():
            self._parts += 1
        return part

    async def _listen(self, child: Child, arena: Arena) -> bool:
        """Follows the child until it ends, killing it when it stalls. Returns whether its error is final."""
        while True:
            patience = _CONNECT_TIMEOUT if self.state is SinkState.CONNECTING else _STALL_TIMEOUT
            try:
                async with asyncio.timeout(1.0):
                    message = await child.receive()
            except TimeoutError:
                if self._stalled(patience):
                    if not self._push and self._encoder != SOFTWARE and self._attempt_sent == 0:
                        return self._encoder_failed(f"it did not answer for {patience:.0f} s")
                    where = "answer" if self.state is SinkState.CONNECTING else "take anything"
                    self.error = f"the other end did not {where} for {patience:.0f} s"
                    return False
                continue
            if message is None:
                status = await child.finish(timeout=1.0)
                if status and self._encoder != SOFTWARE and self._attempt_sent == 0 and not self._closing:
                    # No error was told: a driver took the process with it.
                    return self._encoder_failed(f"its process ended with status {status}")
                if not self._closing and not self.error:
                    self.error = redact(child.last_words, self._url.secrets) or f"its process ended (status {status})"
                return False
            if message["kind"] == "encoder failed":
                return self._encoder_failed(message["error"])
            if message["kind"] == "error":
                self.error = message["error"]
                return bool(message["fatal"])
            self._take(message, arena)

    def _stalled(self, patience: float) -> bool:
        """Whether the child owes us something for too long. Nothing to do is no stall."""
        idle = self.state is SinkState.LIVE and len(self._free["video"]) == VIDEO_SLOTS
        if idle or (self._closing and self.state is SinkState.LIVE):
            self._last_progress = time.monotonic()
        return time.monotonic() - self._last_progress > patience

    def _take(self, message: dict[str, Any], arena: Arena) -> None:
        self._last_progress = time.monotonic()
        if message["kind"] == "live":
            arena.unlink()
            self._free = {"video": list(range(VIDEO_SLOTS)), "audio": list(range(AUDIO_SLOTS))}
            self._arena = arena
            self.error = ""
            self._set(SinkState.LIVE)
        elif message["kind"] == "free":
            self._free[message["lane"]].append(message["slot"])
            self._changed.set()
        else:
            self.sent += message["kind"] == "sent"
            self._attempt_sent += message["kind"] == "sent"
            self._attempt_bytes = message["bytes"]

    def _set(self, state: SinkState) -> None:
        if state is self.state:
            return
        self.state = state
        self._changed.set()
        logger.info("output=%s state=%s error=%r", self.name, state.value, self.error)
        self.on_state(self)

    async def opened(self) -> None:
        """Waits until it takes pictures, or has failed once."""
        while self.state is SinkState.CONNECTING and not self._ended.is_set():
            self._changed.clear()
            await self._changed.wait()

    async def room(self) -> None:
        while not self._ended.is_set() and not (
            self._arena and self._free["video"] and len(self._free["audio"]) >= _SPARE_AUDIO
        ):
            self._changed.clear()
            await self._changed.wait()

    def write_video(self, pixels: Pixels, pts: float, captured_at: float | None = None) -> None:
        if self._arena is None or self._child is None or self._closing:
            self.missed += 1
            return
        if not self._free["video"]:
            self.dropped += 1
            return
        self._attempt_taken += 1
        slot = self._free["video"].pop()
        self._layout.video(self._arena, slot)[:] = pixels
        self._child.send({"kind": "video", "slot": slot, "pts": pts})

    def write_audio(self, samples: Samples, start: int) -> None:
        if self._arena is None or self._child is None or self._closing:
            return
        for first in range(0, samples.shape[1], AUDIO_SLOT_SAMPLES):
            if not self._free["audio"]:
                return
            slot = self._free["audio"].pop()
            part = samples[:, first : first + AUDIO_SLOT_SAMPLES]
            self._layout.audio(self._arena, slot, part.shape[1])[:] = part
            self._child.send({"kind": "audio", "slot": slot, "start": start + first, "samples": part.shape[1]})

    async def finish(self, timeout: float) -> None:
        self._closing = True
        self._changed.set()
        if self._child is not None:
            self._child.end_input()
        try:
            async with asyncio.timeout(timeout):
                await self._ended.wait()
        except TimeoutError:
            if self._child is not None:
                await self._child.kill()
