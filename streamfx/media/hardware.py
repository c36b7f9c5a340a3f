"""Which encoders really work here. ``python -m streamfx.media.hardware`` prints them as JSON: drivers may crash
the process that tries them, so ask in one that may."""

from __future__ import annotations

import json
import sys
from fractions import Fraction

import av
import av.logging
import numpy as np

ENCODERS = {
    "libx264": "software H.264",
    "h264_nvenc": "NVIDIA",
    "h264_qsv": "Intel Quick Sync",
    "h264_vaapi": "VA-API (Intel, AMD)",
    "h264_amf": "AMD AMF",
    "h264_videotoolbox": "Apple VideoToolbox",
    "aac": "AAC sound",
}


def works(name: str) -> bool:
    """Whether encoder ``name`` is there and encodes one picture (or can be opened, for sound)."""
    try:
        context = av.CodecContext.create(name, "w")
        if isinstance(context, av.VideoCodecContext):
            context.width, context.height, context.pix_fmt = 256, 256, "yuv420p"
            context.time_base = Fraction(1, 30)
            picture = av.VideoFrame.from_ndarray(np.zeros((256, 256, 3), np.uint8), "rgb24").reformat(format="yuv420p")
            picture.pts = 0
            return bool(context.encode(picture) + context.encode(None))
        return name in av.codecs_available
    except (ValueError, OSError, av.FFmpegError):
        return False


if __name__ == "__main__":
    av.logging.set_level(None)
    json.dump({name: works(name) for name in ENCODERS}, sys.stdout)
