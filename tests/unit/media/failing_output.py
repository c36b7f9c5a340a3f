"""An output's process whose hardware encoder opens and then fails, as no hardware does on demand: x264 stands in for it
until then. ``FAILING_WAY``: error, crash, later. Without it, a process that says nothing."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import av

from streamfx.media import encoder
from streamfx.media.encoders import RECIPES, SOFTWARE, Recipe
from streamfx.media.output_process import main


def fail(way: str) -> None:
    RECIPES["nvenc"] = Recipe("libx264", "", push={"tune": "zerolatency"}, file={"tune": "zerolatency"})
    add_stream = encoder.Encoder._add_video
    good = 20 if way == "later" else 0

    class Failing:
        """A stream of video with another ``encode``."""

        def __init__(self, stream: Any) -> None:
            self._stream = stream
            self._taken = 0

        def __getattr__(self, name: str) -> Any:
            return getattr(self._stream, name)

        def encode(self, frame: av.VideoFrame | None) -> Any:
            self._taken += 1
            if self._taken <= good:
                return self._stream.encode(frame)
            if way == "crash":
                os.abort()
            raise av.ExternalError(0x544146, "Generic error in an external library")

    def added(self: Any) -> Any:
        stream = add_stream(self)
        return stream if self._encoder == SOFTWARE else Failing(stream)

    encoder.Encoder._add_video = added  # type: ignore[method-assign]


if __name__ == "__main__":
    if "FAILING_WAY" not in os.environ:
        time.sleep(60)
    fail(os.environ["FAILING_WAY"])
    sys.exit(main())
