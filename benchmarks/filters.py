"""What the filters that ship cost on one core, per frame of the bundled clip, at each quality level.

python -m benchmarks.filters [--size 1280x720] [--filters toon,restyle]
"""

from __future__ import annotations

import argparse
import statistics
import time
from fractions import Fraction

import av
import cv2
import numpy as np

from benchmarks.machine import describe
from streamfx.core.frames import Pixels
from streamfx.filters import Block, Context
from streamfx.filters.registry import load, target_of
from streamfx.media.convert import VideoConverter
from streamfx.media.url import parse_size

_CLIP = "examples/media/big-buck-bunny.mp4"
_FRAMES = 60


def pictures(size: tuple[int, int]) -> list[Pixels]:
    converter = VideoConverter(size)
    with av.open(_CLIP) as container:
        return [converter.convert(frame) for frame, _ in zip(container.decode(video=0), range(_FRAMES), strict=False)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--size", default="1280x720")
    parser.add_argument("--filters", default="pixelate,toon,restyle", help="names, separated by commas")
    given = parser.parse_args()
    size = parse_size(given.size)
    cv2.setNumThreads(1)
    frames = pictures(size)
    print(describe())
    print(f"| filter at {size[0]}x{size[1]}, one core | quality level | p50 ms | p95 ms | frames a second |")
    print("|---|---:|---:|---:|---:|")
    for name in given.filters.split(","):
        kind = load(target_of(name))
        params = kind.params_type()
        for quality in range(kind.info.quality_levels):
            filter_ = kind()
            filter_.setup(Context(size=size, fps=float(Fraction(25))), params)
            times = []
            for index, frame in enumerate(frames):
                block = Block(video=frame[None], pts=(index / 25,), quality=quality)
                started = time.perf_counter()
                filter_.process(block, params)
                times.append(1e3 * (time.perf_counter() - started))
            p50 = statistics.median(times)
            p95 = float(np.quantile(times, 0.95))
            print(f"| {name} | {quality} | {p50:.1f} | {p95:.1f} | {1e3 / p50:.0f} |")
            filter_.close()


if __name__ == "__main__":
    main()
