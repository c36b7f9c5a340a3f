"""What runs in an NDI output's process: ``python -m streamfx.media.ndi_process``, started by ``media.ndi``."""

from __future__ import annotations

import sys

import cv2

from streamfx.core.errors import SinkError
from streamfx.core.frames import Pixels
from streamfx.media.base import OutputFormat
from streamfx.media.ndi import MISSING, missing_library
from streamfx.media.virtualcam_process import feed


class NdiSender:
    """An NDI source called ``name``, for whoever receives it; errors are ``SinkError`` with a sentence."""

    def __init__(self, output: OutputFormat, name: str) -> None:
        if missing_library():
            raise SinkError(MISSING)
        try:
            from cyndilib.sender import Sender
            from cyndilib.video_frame import VideoSendFrame
            from cyndilib.wrapper.ndi_structs import FourCC

            video = VideoSendFrame()
            video.set_resolution(*output.size)
            video.set_frame_rate(output.fps)
            video.set_fourcc(FourCC.RGBX)
            # The pace is ours: the library's clock would wait.
            self._sender = Sender(name, clock_video=False)
            self._sender.set_video_frame(video)
            self._sender.open()
        except Exception as error:
            raise SinkError(f"the NDI library does not start ({error})") from error
        self.device = str(self._sender.name)

    def send(self, pixels: Pixels) -> None:
        """``(H, W, 3) uint8`` RGB."""
        try:
            self._sender.write_video(cv2.cvtColor(pixels, cv2.COLOR_RGB2RGBA).reshape(-1))
        except Exception as error:
            raise SinkError(f"the NDI library takes no pictures ({error})") from error

    def close(self) -> None:
        self._sender.close()


def main() -> int:
    return feed(lambda hello, output: NdiSender(output, hello["device"]))


if __name__ == "__main__":
    sys.exit(main())
