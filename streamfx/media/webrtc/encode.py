"""Pictures and sound to RTP payloads, once for everybody who watches."""

from __future__ import annotations

import random
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import av
import numpy as np
from av.video.frame import PictureType
from av.video.reformatter import VideoReformatter

from streamfx.core.frames import AUDIO_RATE, Pixels, Samples
from streamfx.media.convert import COLOUR_TAGS, colorspace_of, for_encoder
from streamfx.media.webrtc import compat

Codec = Literal["H264", "VP8"]

VIDEO_RATE = 90_000
"""RTP ticks per second of video."""

OPUS_SAMPLES = 960
"""Samples of one Opus frame: 20 ms."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """One frame on its way to viewers. ``ticks``: its timestamp in RTP ticks, unwrapped. ``captured_at``: clock seconds
    at which the source frame came in that it was made of, None for a slate and for sound."""

    payloads: list[bytes]
    ticks: int
    key: bool
    size: int
    captured_at: float | None = None


class VideoEncoder:
    """One encoder for live viewers: no reordering, constant bitrate, key frames when asked. Call it from one thread.

    ``size``: (width, height), even. ``bitrate``: bits per second.
    """

    def __init__(self, codec: Codec, size: tuple[int, int], bitrate: int, threads: int, gop_seconds: float) -> None:
        self.size = size
        self.bitrate = bitrate
        self._codec = codec
        self._reformatter = VideoReformatter()
        self._matrix = colorspace_of(size[1])
        self._picture_id = random.randrange(1 << 15)
        self._context = _h264(size, bitrate, gop_seconds) if codec == "H264" else _vp8(size, bitrate, gop_seconds)
        tag = COLOUR_TAGS[self._matrix]
        self._context.color_primaries = self._context.color_trc = self._context.colorspace = tag
        self._context.color_range = 1
        self._context.thread_count = threads

    def encode(self, pixels: Pixels, ticks: int, key: bool, captured_at: float | None) -> Encoded | None:
        """``(H, W, 3) uint8`` RGB of any size to an encoded frame. None if the encoder left it out."""
        frame = for_encoder(self._reformatter, pixels, self._matrix, self.size)
        frame.pts, frame.time_base = ticks, Fraction(1, VIDEO_RATE)
        frame.pict_type = PictureType.I if key else PictureType.NONE
        packets = self._context.encode(frame)
        data = b"".join(bytes(packet) for packet in packets)
        if not data:
            return None
        self._picture_id += 1
        payloads = (
            compat.packetise_h264(data) if self._codec == "H264" else compat.packetise_vp8(data, self._picture_id)
        )
        return Encoded(payloads, ticks, any(packet.is_keyframe for packet in packets), len(data), captured_at)


def _h264(size: tuple[int, int], bitrate: int, gop_seconds: float) -> av.VideoCodecContext:
    options = {
        "preset": "superfast",
        "tune": "zerolatency",
        "profile": "baseline",
        "forced-idr": "1",
        "sc_threshold": "0",
        "maxrate": str(bitrate),
        # Small enough that a key frame does not come in one long burst.
        "bufsize": str(bitrate // 2),
    }
    return _context("libx264", size, bitrate, gop_seconds, options)


def _vp8(size: tuple[int, int], bitrate: int, gop_seconds: float) -> av.VideoCodecContext:
    options = {
        "deadline": "realtime",
        "cpu-used": "-6",
        "lag-in-frames": "0",
        "minrate": str(bitrate),
        "maxrate": str(bitrate),
        "bufsize": str(bitrate),
        "undershoot-pct": "100",
        "overshoot-pct": "15",
        "static-thresh": "1",
        "noise-sensitivity": "0",
        "error-resilient": "default",
        "qmin": "2",
        "qmax": "56",
    }
    return _context("libvpx", size, bitrate, gop_seconds, options)


def _context(
    name: str, size: tuple[int, int], bitrate: int, gop_seconds: float, options: dict[str, str]
) -> av.VideoCodecContext:
    context = av.CodecContext.create(name, "w")
    assert isinstance(context, av.VideoCodecContext)
    context.width, context.height = size
    context.pix_fmt = "yuv420p"
    context.time_base = Fraction(1, VIDEO_RATE)
    context.framerate = Fraction(30)
    context.gop_size = round(30 * gop_seconds)
    context.bit_rate = bitrate
    context.options = options
    return context


class OpusEncoder:
    """Sound as it comes to Opus frames of 20 ms. Call it from one thread. ``bitrate``: bits per second."""

    def __init__(self, bitrate: int) -> None:
        self._bitrate = bitrate
        self._context = self._open()
        self._pending: list[Samples] = []
        self._held = 0
        self._next: int | None = None

    def _open(self) -> av.AudioCodecContext:
        context = av.CodecContext.create("libopus", "w")
        assert isinstance(context, av.AudioCodecContext)
        context.sample_rate, context.layout, context.format = AUDIO_RATE, "stereo", "flt"
        context.bit_rate = self._bitrate
        context.time_base = Fraction(1, AUDIO_RATE)
        context.options = {"application": "audio", "frame_duration": "20"}
        return context

    def encode(self, samples: Samples, start: int) -> list[Encoded]:
        """``(2, N) float32`` from sample index ``start`` on; what does not follow on the last begins anew."""
        if self._next is None or start != self._next + self._held:
            self._pending, self._held, self._next = [], 0, start
        self._pending.append(samples)
        self._held += samples.shape[1]
        if self._held < OPUS_SAMPLES:
            return []
        run = np.concatenate(self._pending, axis=1)
        frames: list[Encoded] = []
        whole = run.shape[1] // OPUS_SAMPLES * OPUS_SAMPLES
        for first in range(0, whole, OPUS_SAMPLES):
            frames += self._frame(run[:, first : first + OPUS_SAMPLES], self._next + first)
        self._next += whole
        self._pending, self._held = [run[:, whole:]], run.shape[1] - whole
        return frames

    def _frame(self, samples: Samples, start: int) -> list[Encoded]:
        interleaved = np.ascontiguousarray(samples.T).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(interleaved, "flt", "stereo")
        frame.sample_rate, frame.time_base, frame.pts = AUDIO_RATE, Fraction(1, AUDIO_RATE), start
        packets = self._context.encode(frame)
        return [Encoded([data], start, True, len(data)) for data in (bytes(packet) for packet in packets)]
