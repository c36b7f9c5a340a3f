"""The embedded restyler from file to file, decoding and encoding included: frames a second, and seconds to the first.

    python -m benchmarks.restyle_speed

Each figure is of two runs of ``streamfx run`` on clips of different length, so that starting does not count; the start
is what a clip of a single frame takes in all.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

import av
import cv2
import numpy as np

from benchmarks.machine import describe

_CLIP = "examples/media/big-buck-bunny.mp4"
_SHORT, _LONG = 30, 230

_CASES: dict[str, tuple[tuple[int, int], dict[str, str], tuple[str, ...]]] = {
    "256x256": ((256, 256), {}, ()),
    "512x512": ((512, 512), {}, ()),
    "512x512, drawn at full size": ((512, 512), {}, ("--set", "detail=512")),
    "1280x720": ((1280, 720), {}, ()),
    "256x256, oneDNN kept to AVX2": ((256, 256), {"ONEDNN_MAX_CPU_ISA": "AVX2"}, ()),
}


def make(path: Path, size: tuple[int, int], count: int) -> None:
    """The bundled clip there and back, at ``size``."""
    with av.open(_CLIP) as source:
        frames = [frame.to_ndarray(format="rgb24") for frame in islice(source.decode(video=0), 40, None)]
    small = [np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), np.uint8) for frame in frames]
    around = [*small, *small[-2:0:-1]]
    with av.open(str(path), "w") as target:
        stream = target.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for n in range(count):
            target.mux(stream.encode(av.VideoFrame.from_ndarray(around[n % len(around)], "rgb24")))
        target.mux(stream.encode(None))


def seconds(folder: Path, size: tuple[int, int], count: int, extra: dict[str, str], options: tuple[str, ...]) -> float:
    given, out = folder / f"{size[0]}-{size[1]}-{count}.mp4", folder / "out.mp4"
    if not given.exists():
        make(given, size, count)
    command = [sys.executable, "-m", "streamfx", "run", str(given), str(out), "--overwrite", "--filter", "restyle"]
    started = time.perf_counter()
    subprocess.run([*command, *options], check=True, capture_output=True, env=os.environ | extra)
    return time.perf_counter() - started


def main() -> None:
    print(describe())
    print("| restyle, file to file | frames a second | a clip of one frame, s |")
    print("|---|---:|---:|")
    with tempfile.TemporaryDirectory() as name:
        for case, (size, extra, options) in _CASES.items():
            taken = {count: seconds(Path(name), size, count, extra, options) for count in (_SHORT, _LONG)}
            first = min(seconds(Path(name), size, 1, extra, options) for _ in range(3))
            rate = (_LONG - _SHORT) / (taken[_LONG] - taken[_SHORT])
            print(f"| {case} | {rate:.1f} | {first:.2f} |", flush=True)


if __name__ == "__main__":
    main()
