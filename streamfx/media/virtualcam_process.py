"""What runs in a virtual camera's process: ``python -m streamfx.media.virtualcam_process``, started by
``media.virtualcam``."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from streamfx.core.cadence import Cadence
from streamfx.core.errors import SinkError
from streamfx.core.frames import Pixels
from streamfx.ipc.arena import Arena
from streamfx.ipc.parent import Parent
from streamfx.media.base import OutputFormat
from streamfx.media.output_process import format_from_json
from streamfx.media.slots import SlotLayout
from streamfx.media.virtualcam import LIBRARY, how_to_make_one, missing_library, place_of

_LOOK_EVERY = 1.0
"""Seconds between looks whether the device is there: on Linux the library does not tell."""


class Line(Protocol):
    """The line to the parent, as ``Parent`` is one."""

    def receive(self, timeout: float | None = None) -> dict[str, Any] | None: ...

    def send(self, **message: Any) -> None: ...


class Device(Protocol):
    """Takes pictures; errors are ``SinkError``. ``device``: its name."""

    device: str

    def send(self, pixels: Pixels) -> None:
        """``(H, W, 3) uint8`` RGB."""
        ...

    def close(self) -> None: ...


class Camera:
    """A virtual camera that takes pictures of ``size``; errors are ``SinkError`` with a sentence."""

    def __init__(self, output: OutputFormat, device: str | None, backend: str | None) -> None:
        lacking = missing_library()
        if lacking:
            raise SinkError(f"the library {LIBRARY} is missing: {lacking}")
        import pyvirtualcam

        width, height = output.size
        try:
            self._camera = pyvirtualcam.Camera(
                width, height, float(output.fps), device=place_of(device), backend=backend
            )
        except Exception as error:
            raise SinkError(_sentence(error, output)) from error
        self.device = str(self._camera.device)
        self._node = Path(self.device) if self.device.startswith("/dev/") else None
        self._number = self._numbered()
        self._looked = time.monotonic()

    def send(self, pixels: Pixels) -> None:
        """``(H, W, 3) uint8`` RGB."""
        if time.monotonic() - self._looked > _LOOK_EVERY:
            self._looked = time.monotonic()
            if self._numbered() != self._number:
                raise SinkError(f"{self.device} is gone")
        try:
            self._camera.send(pixels)
        except Exception as error:
            raise SinkError(f"{self.device} takes no pictures ({error})") from error

    def close(self) -> None:
        self._camera.close()

    def _numbered(self) -> int | None:
        """The number of the device that is there, None if there is none."""
        try:
            return self._node.stat().st_rdev if self._node else 0
        except OSError:
            return None


def _sentence(error: Exception, output: OutputFormat) -> str:
    reason = " ".join(str(error).split()).rstrip(".")
    if "busy" in reason.lower() or "already in use" in reason.lower():
        size = "x".join(map(str, output.size))
        return (
            f"another program feeds it, or one that shows it keeps it from changing to {size}; end that one ({reason})"
        )
    return f"it could not be opened ({reason}); {how_to_make_one()}"


def main() -> int:
    return feed(lambda hello, output: Camera(output, hello["device"], hello["backend"]))


def feed(open_device: Callable[[dict[str, Any], OutputFormat], Device]) -> int:
    """All that the process does, with the device that ``open_device`` gives for the parent's first message. Returns the
    exit code."""
    parent = Parent()
    hello = parent.receive()
    if hello is None:
        return 0
    output = format_from_json(hello["output"])
    arena = Arena.attach(hello["arena"])
    try:
        device = open_device(hello, output)
    except SinkError as error:
        parent.send(kind="error", error=str(error))
        return 1
    parent.send(kind="live", device=device.device)
    try:
        serve(parent, device.send, arena, output)
    except SinkError as error:
        parent.send(kind="error", error=str(error))
        # Closing a device that is gone may block; there is nothing to save.
        os._exit(1)
    device.close()
    return 0


def serve(
    parent: Line,
    write: Callable[[Pixels], None],
    arena: Arena,
    output: OutputFormat,
    now: Callable[[], float] = time.monotonic,
) -> None:
    """Takes pictures until the parent has no more, and writes them at the output's rate: each when it comes, the last
    one again when none does, and of several at once the newest. A slot is given back as soon as it was read."""
    layout, cadence = SlotLayout(output.size), Cadence(float(output.fps))
    picture: Pixels = np.zeros((output.size[1], output.size[0], 3), np.uint8)
    waiting, written, each = False, 0, picture.size // 2  # devices take one and a half bytes a pixel
    while True:
        due = cadence.due(waiting)
        try:
            message = parent.receive(None if due == float("inf") else max(0.0, due - now()))
        except TimeoutError:
            write(picture)
            cadence.wrote(now(), waiting)
            written += each
            parent.send(kind="sent" if waiting else "repeated", bytes=written)
            waiting = False
            continue
        if message is None:
            if waiting:
                write(picture)
            return
        if message["kind"] == "video":
            if waiting:
                parent.send(kind="skipped", bytes=written)
            np.copyto(picture, layout.video(arena, message["slot"]))
            parent.send(kind="free", lane="video", slot=message["slot"])
            waiting = True


if __name__ == "__main__":
    sys.exit(main())
