"""``virtualcam://``: the picture as a camera that other programs can choose, by the library pyvirtualcam.

It is fed by a process of its own, as every output is: drivers crash and hang, and must not take the stream with them.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from streamfx.core.errors import StreamFXError, UsageError
from streamfx.core.frames import Pixels, Samples
from streamfx.ipc.child import Child, spawn
from streamfx.media import v4l2
from streamfx.media.base import OutputFormat, SinkState
from streamfx.media.devices import Device, cameras, virtual_cameras
from streamfx.media.output_process import format_to_json
from streamfx.media.process_sink import Next, ProcessSink
from streamfx.media.slots import Slots
from streamfx.media.url import MediaUrl

logger = logging.getLogger(__name__)

LIBRARY = "pyvirtualcam"

_PATIENCE = 6.0
"""Seconds that a device may take over anything before its process is ended."""
_LOOK_EVERY = 1.0
_BACKENDS = {"linux": ("v4l2loopback",), "darwin": ("obs",), "win32": ("obs", "unitycapture")}
_MAKE_ONE = "sudo modprobe v4l2loopback exclusive_caps=1 card_label=streamfx"
_HOW = {
    "linux": f"sudo apt install v4l2loopback-dkms && {_MAKE_ONE}",
    "darwin": "install OBS (https://obsproject.com), start it, choose Start Virtual Camera once, and quit it",
    "win32": "install OBS (https://obsproject.com), whose virtual camera comes with it",
}


def virtual_camera(url: MediaUrl, output: OutputFormat) -> VirtualCamera:
    """The first virtual camera, or the one at ``virtualcam:///dev/video4`` or called ``virtualcam://?name=NAME``.
    ``backend=NAME``: of the library. Raises ``UsageError``."""
    check_url(url)
    return VirtualCamera(url, output)


def check_url(url: MediaUrl) -> None:
    """Raises ``UsageError`` unless the URL can be meant so on this system."""
    url.allow(("name", "backend"))
    if url.host:
        raise UsageError(f"{url}: write virtualcam://, virtualcam:///dev/video4 or virtualcam://?name=NAME")
    if url.path.strip("/") and "name" in url.options:
        raise UsageError(f"{url} names two virtual cameras; leave one out")
    backends = _BACKENDS.get(sys.platform, ())
    if url.options.get("backend", next(iter(backends), "")) not in backends:
        raise UsageError(
            f"{url}: backend {url.options['backend']!r} is not known here; there are: {', '.join(backends) or 'none'}"
        )


def check_device(url: MediaUrl) -> None:
    """Raises ``UsageError`` with the commands that help if there is no such virtual camera, or no library for it. Only
    Linux tells before it is opened. Opens device nodes, which may take a moment."""
    check_url(url)
    lacking = missing_library()
    if lacking:
        raise UsageError(f"{url} needs the library {LIBRARY}: {lacking}")
    if sys.platform == "linux":
        _check_loopback(url, _wanted(url))


def missing_library() -> str:
    """The command that installs the library; empty if it is here."""
    return "" if find_spec(LIBRARY) is not None else "pip install 'streamfx[virtualcam]'"


def how_to_make_one() -> str:
    """What to do on this system to have a virtual camera."""
    return _HOW.get(sys.platform, "this system has none that streamfx knows")


def place_of(wanted: str | None) -> str | None:
    """What the library calls the device that is wanted: on Linux it knows paths alone."""
    if wanted is None or sys.platform != "linux":
        return wanted
    return next((device.place for device in virtual_cameras() if device.name == wanted), wanted)


def _wanted(url: MediaUrl) -> str | None:
    return (url.path if url.path.strip("/") else url.options.get("name")) or None


def _check_loopback(url: MediaUrl, wanted: str | None) -> None:
    found = virtual_cameras()
    if wanted is not None:
        found = [device for device in found if wanted in (device.place, device.name)]
    if any(not device.fault for device in found):
        return
    if found:
        raise UsageError(f"{url}: {found[0]} is fed by another program; end that one, or {_another(virtual_cameras())}")
    raise UsageError(f"{url}: {_reason(wanted)}")


def _reason(wanted: str | None) -> str:
    if wanted is None or not wanted.startswith("/"):
        called = f" called {wanted!r}" if wanted else ""
        closed = next((device for device in cameras() if device.fault), None)
        if closed is not None:
            return f"there is no virtual camera{called} that may be used here; {closed.place} {closed.fault}"
        return f"there is no virtual camera{called} here; {how_to_make_one()}"
    try:
        v4l2.query(Path(wanted))
    except FileNotFoundError:
        return f"{wanted} does not exist; {_another(virtual_cameras())}"
    except PermissionError:
        return f"{wanted} may not be opened; sudo usermod -aG video $USER, then log in again"
    except OSError:
        pass
    return f"{wanted} is no virtual camera; {_another(virtual_cameras())}"


def _another(found: list[Device]) -> str:
    free = [device.url for device in found if not device.fault]
    return f"use {', '.join(free)}" if free else f"make one: {how_to_make_one()}"


class VirtualCamera(ProcessSink):
    """A virtual camera, tried again (with back-off) when it goes away or its driver takes the process with it. One that
    cannot be opened at the very beginning has failed for good. Sound is not for cameras."""

    _program = "streamfx.media.virtualcam_process"

    def __init__(self, url: MediaUrl, output: OutputFormat) -> None:
        super().__init__(str(url))
        self._url = url
        self._format = output
        self._slots: Slots | None = None
        self._ever_live = False
        self._last_progress = 0.0
        self._bytes_before = 0
        self._writes = False
        self.device = ""
        self.repeated = self.dropped = self.missed = 0

    def stats(self) -> dict[str, Any]:
        return {
            "output": self.name,
            "state": self.state.value,
            "error": self.error,
            "device": self.device,
            "sent": self.sent,
            "repeated": self.repeated,
            "dropped": self.dropped,
            "missed_while_away": self.missed,
            "reconnects": self.reconnects,
            "bytes": self.bytes,
            "queue_depth": self._slots.waiting if self._slots else 0,
        }

    async def _attempt(self) -> Next:
        if await self._live() and not self._ever_live:
            return Next.NONE
        return Next.LATER

    async def _live(self) -> bool:
        """One life of the process. Returns whether it told of an error, or there could be none."""
        try:
            slots = Slots(self._format.size)
        except (StreamFXError, OSError) as error:  # no memory to share now
            self.error = str(error)
            return True
        try:
            async with spawn(self._program, self.name) as child:
                self._child = child
                child.send(self._hello(slots))
                return await self._listen(child, slots)
        except OSError as error:  # no process to be had now
            self.error = str(error)
            return True
        finally:
            self._child = self._slots = None
            slots.arena.close()

    def _hello(self, slots: Slots) -> dict[str, Any]:
        return {
            "device": _wanted(self._url),
            "backend": self._url.options.get("backend"),
            "arena": str(slots.arena.path),
            "output": format_to_json(self._format),
        }

    async def _listen(self, child: Child, slots: Slots) -> bool:
        """Follows the child until it ends, killing it when it hangs. Returns whether it told of an error."""
        self._last_progress = time.monotonic()
        self._bytes_before, self._writes = self.bytes, False
        while True:
            try:
                async with asyncio.timeout(_LOOK_EVERY):
                    message = await child.receive()
            except TimeoutError:
                if self._hangs():
                    self.error = f"the device took nothing for {_PATIENCE:.0f} s"
                    return False
                continue
            if message is None:
                status = await child.finish(timeout=1.0)
                if not self._closing:
                    self.error = child.last_words or f"its process ended (status {status})"
                return False
            if message["kind"] == "error":
                self.error = message["error"]
                return True
            self._take(message, slots)

    def _hangs(self) -> bool:
        """Whether it owes us something for too long: nothing before the first picture, then one every period."""
        owing = self._slots is None or self._writes or self._slots.waiting > 0
        return owing and time.monotonic() - self._last_progress > _PATIENCE

    def _take(self, message: dict[str, Any], slots: Slots) -> None:
        self._last_progress = time.monotonic()
        kind = message["kind"]
        if kind == "live":
            slots.arena.unlink()
            self._slots, self._ever_live = slots, True
            self.device, self.error = message["device"], ""
            self._set(SinkState.LIVE)
        elif kind == "free":
            slots.free(message["lane"], message["slot"])
            self._changed.set()
        else:
            self._writes = True
            self.sent += kind == "sent"
            self.repeated += kind == "repeated"
            self.dropped += kind == "skipped"
            self.bytes = self._bytes_before + message["bytes"]

    async def room(self) -> None:
        while not self._ended.is_set() and not (self._slots and self._slots.room):
            await self._change()

    def write_video(self, pixels: Pixels, pts: float, captured_at: float | None = None) -> None:
        if self._slots is None or self._child is None or self._closing:
            self.missed += 1
        elif not self._slots.write_video(self._child, pixels, pts):
            self.dropped += 1

    def write_audio(self, samples: Samples, start: int) -> None:
        """Cameras have no sound."""
