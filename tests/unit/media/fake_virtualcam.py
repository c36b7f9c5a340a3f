"""A virtual camera's process with a fake driver behind the real library: no kernel module can be loaded for tests.

It writes a line for each picture to the file ``FAKE_CAMERA_LOG``: its first pixel and its length. While the file
``FAKE_CAMERA_WAY`` exists it behaves badly, as that says: busy (cannot be opened), gone (takes nothing any more),
crash, hang.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import pyvirtualcam
from numpy.typing import NDArray
from pyvirtualcam import camera

from streamfx.media.virtualcam_process import main


class FakeDriver:
    """A backend as ``pyvirtualcam.Backend`` describes it."""

    def __init__(self, *, width: int, height: int, fps: float, fourcc: int, device: str | None) -> None:
        if bad_way() == "busy":
            raise RuntimeError("Virtual camera device /dev/video4 could not be configured: Device or resource busy")
        self._device = device or "fake camera"
        self._log = Path(os.environ["FAKE_CAMERA_LOG"])
        self._note(size=[width, height], fps=fps, fourcc=fourcc.to_bytes(4, "little").decode())

    def device(self) -> str:
        return self._device

    def native_fourcc(self) -> None:
        return None

    def send(self, frame: NDArray[np.uint8]) -> None:
        way = bad_way()
        if way == "gone":
            raise RuntimeError("No such device")
        if way == "crash":
            os.abort()
        if way == "hang":
            time.sleep(60)
        self._note(pixel=frame[:3].tolist(), length=len(frame))

    def close(self) -> None:
        self._note(closed=True)

    def _note(self, **what: object) -> None:
        with self._log.open("a") as log:
            log.write(json.dumps(what) + "\n")


def bad_way() -> str:
    try:
        return Path(os.environ["FAKE_CAMERA_WAY"]).read_text()
    except FileNotFoundError:
        return ""


if __name__ == "__main__":
    camera.BACKENDS.clear()
    pyvirtualcam.register_backend("fake", FakeDriver)
    sys.exit(main())
