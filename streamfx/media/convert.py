"""FFmpeg's frames to ours: upright, square-pixelled RGB at one size, and 48 kHz stereo."""

from __future__ import annotations

import math
from collections.abc import Iterator

import av
import numpy as np
from av.audio.resampler import AudioResampler
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from streamfx.core.frames import AUDIO_RATE, Pixels, Samples

_UNSPECIFIED = 2


def colorspace_of(height: int, tagged: int = _UNSPECIFIED) -> Colorspace:
    """The matrix of a picture: as tagged, else BT.709 from 720 lines on and BT.601 below, as players assume."""
    if tagged in (1, 5, 6):
        return Colorspace.ITU709 if tagged == 1 else Colorspace.ITU601
    return Colorspace.ITU709 if height >= 720 else Colorspace.ITU601


COLOUR_TAGS = {Colorspace.ITU709: 1, Colorspace.ITU601: 6}
"""H.273 code points for primaries, transfer and matrix: BT.709, or SMPTE 170M (the BT.601 of 525 lines)."""


def for_encoder(
    reformatter: VideoReformatter,
    pixels: Pixels,
    matrix: Colorspace,
    size: tuple[int, int] | None = None,
    format: str = "yuv420p",
) -> av.VideoFrame:
    """``(H, W, 3) uint8`` RGB as encoders want it: halved colour planes, limited range, the given matrix.
    ``size``: (width, height) to scale to. ``format``: yuv420p or nv12."""
    width, height = size or (None, None)
    return reformatter.reformat(
        av.VideoFrame.from_numpy_buffer(pixels, "rgb24"),
        width=width,
        height=height,
        format=format,
        src_colorspace=Colorspace.ITU709,
        dst_colorspace=matrix,
        src_color_range=ColorRange.JPEG,
        dst_color_range=ColorRange.MPEG,
        interpolation=Interpolation.BILINEAR,
    )


def even(value: float) -> int:
    """The nearest even number from 2 on: encoders with halved colour planes take no others."""
    return max(2, 2 * math.floor(value / 2 + 0.5))


class VideoConverter:
    """Turns decoded pictures into RGB of one size. The first picture sets the size unless one is asked for;
    pictures of another shape are fitted in, with black beside them."""

    def __init__(self, size: tuple[int, int] | None = None) -> None:
        self._size = size
        self._reformatter = VideoReformatter()

    @property
    def size(self) -> tuple[int, int] | None:
        """(width, height) of what comes out; None before the first picture."""
        return self._size

    def convert(self, frame: av.VideoFrame, aspect: float = 1.0) -> Pixels:
        """``(H, W, 3) uint8`` RGB. ``aspect``: width of one sample over its height."""
        turned = frame.rotation % 180 == 90
        width, height = frame.width * aspect, float(frame.height)
        if turned:
            width, height = height, width
        if self._size is None:
            self._size = even(width), even(height)
        if self._size == (even(frame.width), even(frame.height)) and aspect == 1 and not turned:
            fitted = self._size
        else:
            share = min(self._size[0] / width, self._size[1] / height)
            fitted = min(self._size[0], even(width * share)), min(self._size[1], even(height * share))
        pixels = self._scale(frame, (fitted[1], fitted[0]) if turned else fitted)
        if frame.rotation % 360:
            pixels = np.ascontiguousarray(np.rot90(pixels, (frame.rotation // 90) % 4))
        return pixels if fitted == self._size else self._pad(pixels)

    def _scale(self, frame: av.VideoFrame, size: tuple[int, int]) -> Pixels:
        rgb = self._reformatter.reformat(
            frame,
            width=size[0],
            height=size[1],
            format="rgb24",
            src_colorspace=colorspace_of(frame.height, int(frame.colorspace)),
            dst_colorspace=Colorspace.ITU709,
            dst_color_range=ColorRange.JPEG,
            interpolation=Interpolation.BICUBIC,
        )
        return np.asarray(rgb.to_ndarray(), np.uint8)

    def _pad(self, pixels: Pixels) -> Pixels:
        assert self._size is not None
        canvas = np.zeros((self._size[1], self._size[0], 3), np.uint8)
        top, left = (self._size[1] - pixels.shape[0]) // 2, (self._size[0] - pixels.shape[1]) // 2
        canvas[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
        return canvas


class AudioConverter:
    """Turns decoded sound of any format into 48 kHz stereo; a change of format mid-stream is followed."""

    def __init__(self) -> None:
        self._resampler: AudioResampler | None = None
        self._format: tuple[str, str, int] | None = None

    def convert(self, frame: av.AudioFrame) -> Iterator[Samples]:
        """Runs of ``(2, N) float32``."""
        form = (frame.format.name, frame.layout.name, frame.sample_rate)
        if self._resampler is None or form != self._format:
            self._resampler = AudioResampler("fltp", "stereo", AUDIO_RATE)
            self._format = form
        frame.pts = None
        for out in self._resampler.resample(frame):
            yield np.ascontiguousarray(out.to_ndarray(), np.float32)
