"""What several tests need: clips to read, the ``streamfx`` command to run, files to look into."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parent.parent
BUNNY = ROOT / "examples" / "media" / "big-buck-bunny.mp4"
"""1280×720, 25 fps, 132 frames, AAC 5.1 at 48 kHz; its index (moov) comes last."""

SPEECH = ROOT / "examples" / "media" / "speech.wav"
"""Somebody reads for 7.1 seconds: mono, 16 kHz."""

Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class Answer:
    """How a command ended. ``seconds``: how long it took."""

    code: int
    out: str
    err: str
    seconds: float


def command(*arguments: str | Path) -> list[str]:
    """The ``streamfx`` command of the interpreter that runs the tests."""
    return [sys.executable, "-m", "streamfx", *map(str, arguments)]


def environment(**more: str) -> dict[str, str]:
    """Ours, wide enough that tables are not cut, with our plain test filters to be found."""
    return os.environ | {"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"} | more


def streamfx(*arguments: str | Path, env: dict[str, str] | None = None, timeout: float = 30, **more: Any) -> Answer:
    """Runs the command to its end in a process of its own."""
    started = time.monotonic()
    done = subprocess.run(
        command(*arguments),
        env=env or environment(),
        timeout=timeout,
        check=False,
        **{"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | more,
    )
    return Answer(done.returncode, done.stdout or "", done.stderr or "", time.monotonic() - started)


def plain(size: tuple[int, int], colour: Sequence[int]) -> Picture:
    """``(H, W, 3) uint8`` of one colour."""
    return np.full((size[1], size[0], 3), colour, np.uint8)


def ramp(size: tuple[int, int], n: int = 0) -> Picture:
    """A grey ramp from left to right that moves with ``n``, so that frames differ."""
    row = (np.linspace(40, 200, size[0]) + 3 * n).astype(np.uint8)
    return np.broadcast_to(row[None, :, None], (size[1], size[0], 3)).copy()


@dataclass
class Clip:
    """A file to be made. ``pts``: seconds of the frames. ``rate``: of the sound in Hz, 0 for none."""

    size: tuple[int, int] = (64, 48)
    fps: Fraction = Fraction(25)
    pictures: Iterable[Picture] | None = None
    pts: Sequence[float] | None = None
    frames: int = 10
    rate: int = 0
    layout: str = "stereo"
    start: float = 0.0
    aspect: Fraction | None = None
    codec: str = "mpeg4"
    matrix: int | None = None
    """H.273 code point of the colours' matrix; None: BT.601 without a tag."""
    tagged: bool = True
    """Whether the matrix is written into the file."""
    seconds: float | None = None
    """Of sound; None: as long as the picture."""
    options: dict[str, str] = field(default_factory=dict)

    def write(self, path: Path) -> Path:
        with av.open(str(path), "w", options=self.options) as container:
            video = container.add_stream(self.codec, rate=self.fps)
            video.width, video.height = self.size
            video.pix_fmt = "yuv420p"
            video.time_base = Fraction(1, 90_000)
            video.codec_context.time_base = Fraction(1, 90_000) if self.codec != "mpeg4" else 1 / self.fps
            video.codec_context.bit_rate = 2_000_000
            video.codec_context.gop_size = 5
            if self.codec == "libx264":
                video.options = {"preset": "ultrafast", "crf": "10", "bf": "0"}
            if self.aspect is not None:
                video.codec_context.sample_aspect_ratio = self.aspect
            if self.matrix is not None and self.tagged:
                context = video.codec_context
                context.color_primaries = context.color_trc = context.colorspace = self.matrix
            audio = container.add_stream("aac", rate=self.rate, layout=self.layout) if self.rate else None
            times = self.pts or [float(n / self.fps) for n in range(self.frames)]
            pictures = self.pictures or (ramp(self.size, n) for n in range(len(times)))
            base = video.codec_context.time_base
            for seconds, picture in zip(times, pictures, strict=False):
                frame = av.VideoFrame.from_ndarray(picture, "rgb24").reformat(
                    format="yuv420p", dst_colorspace="ITU709" if self.matrix == 1 else "ITU601", dst_color_range="MPEG"
                )
                frame.pts, frame.time_base = round((seconds + self.start) / base), base
                container.mux(video.encode(frame))
            container.mux(video.encode(None))
            if audio is not None:
                self._sound(container, audio, self.seconds or times[-1] + float(1 / self.fps))
        return path

    def _sound(self, container: Any, audio: Any, seconds: float) -> None:
        channels = len(av.AudioLayout(self.layout).channels)
        total = round(seconds * self.rate)
        tone = np.sin(2 * np.pi * 440 * np.arange(total) / self.rate).astype(np.float32) * 0.3
        for first in range(0, total, 1024):
            part = np.tile(tone[first : first + 1024], (channels, 1))
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(part), "fltp", self.layout)
            frame.sample_rate, frame.time_base = self.rate, Fraction(1, self.rate)
            frame.pts = first + round(self.start * self.rate)
            container.mux(audio.encode(frame))
        container.mux(audio.encode(None))


@dataclass(frozen=True)
class Contents:
    """What is in a file. ``video``, ``audio``: seconds at which pictures and sound are presented."""

    size: tuple[int, int]
    video: list[float]
    audio: list[float]
    first: Picture | None


def look_into(path: Path) -> Contents:
    """Decodes a whole file; raises what FFmpeg raises if it cannot be played."""
    video: list[float] = []
    audio: list[float] = []
    first: Picture | None = None
    with av.open(str(path)) as container:
        streams = [*container.streams.video[:1], *container.streams.audio[:1]]
        size = container.streams.video[0].width, container.streams.video[0].height
        for packet in container.demux(streams):
            for frame in packet.decode():
                if isinstance(frame, av.VideoFrame):
                    video.append(frame.time)
                    if first is None:
                        matrix = "ITU709" if int(frame.colorspace) == 1 else "ITU601"
                        rgb = frame.reformat(format="rgb24", src_colorspace=matrix, dst_color_range="JPEG")
                        first = rgb.to_ndarray()
                else:
                    audio.append(frame.time)
    return Contents(size, video, audio, first)
