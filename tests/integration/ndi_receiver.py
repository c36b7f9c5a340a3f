"""Receives the NDI source whose name has the first argument in it, for some seconds; prints what it saw as JSON."""

from __future__ import annotations

import json
import sys
import time

import numpy as np
from cyndilib.finder import Finder
from cyndilib.receiver import Receiver
from cyndilib.video_frame import VideoFrameSync
from cyndilib.wrapper.ndi_recv import RecvBandwidth, RecvColorFormat

from streamfx.media.pattern import read_counter


def main() -> None:
    finder, deadline = Finder(), time.monotonic() + 8
    finder.open()
    while not (names := [name for name in finder.get_source_names() if sys.argv[1] in name]):
        if time.monotonic() > deadline:
            raise SystemExit("there is no such source")
        time.sleep(0.05)
    video = VideoFrameSync()
    receiver = Receiver(color_format=RecvColorFormat.RGBX_RGBA, bandwidth=RecvBandwidth.highest)
    receiver.frame_sync.set_video_frame(video)
    receiver.set_source(finder.get_source(names[0]))
    numbers: list[int | None] = []
    stamp, size, rate = 0.0, (0, 0), 0.0
    deadline = time.monotonic() + float(sys.argv[2])
    while time.monotonic() < deadline:
        receiver.frame_sync.capture_video()
        if video.xres and video.get_timestamp_posix() != stamp:
            stamp, size, rate = video.get_timestamp_posix(), video.get_resolution(), float(video.get_frame_rate())
            pixels = np.array(video.get_array(), np.uint8).reshape(size[1], size[0], 4)
            numbers.append(read_counter(np.ascontiguousarray(pixels[:, :, :3])))
        time.sleep(0.004)
    receiver.disconnect()
    finder.close()
    sys.stdout.write(json.dumps({"name": names[0], "size": size, "rate": rate, "numbers": numbers}))


if __name__ == "__main__":
    main()
