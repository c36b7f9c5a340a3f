"""Frames to a container: H.264 and AAC. Runs in a process of its own."""

from __future__ import annotations

from fractions import Fraction
from typing import IO, Any

import av
import av.logging
import numpy as np
from av.container import OutputContainer
from av.video.frame import PictureType
from av.video.reformatter import VideoReformatter

from streamfx.core.frames import AUDIO_RATE, Pixels, Samples
from streamfx.media.base import OutputFormat
from streamfx.media.convert import COLOUR_TAGS, colorspace_of, for_encoder
from streamfx.media.encoders import CODECS, RECIPES, SOFTWARE
from streamfx.media.hwaccel import accelerator
from streamfx.media.packets import VIDEO_TICKS

HLS = "hls"

PLAYABLE_AFTER_CRASH = {
    # Fragments while it is written, an ordinary file once it is finished. The delayed header knows of reordering and
    # of the encoder's lead-in, without which picture and sound start 80 ms apart.
    "mp4": {"movflags": "hybrid_fragmented+delay_moov"},
    "mov": {"movflags": "hybrid_fragmented+delay_moov"},
    "matroska": {"cluster_time_limit": "1000"},
    "mpegts": {},
    "flv": {},
    # A window of segments that players follow; what has left it is removed.
    HLS: {
        "hls_time": "2",
        "hls_list_size": "6",
        "hls_delete_threshold": "3",
        "hls_flags": "independent_segments+delete_segments+temp_file",
    },
}
"""Containers we write to files, with options that leave a playable file whatever happens."""


def video_bitrate(size: tuple[int, int], fps: Fraction) -> int:
    """Bits per second that make a clean picture with a fast encoder: 0.11 a pixel, from 0.5 to 9 Mbps."""
    return int(min(9e6, max(5e5, 0.11 * size[0] * size[1] * float(fps))))


class HardwareError(Exception):
    """A hardware encoder cannot be opened, or failed on the way. Another encoder may do."""


class Encoder:
    """An open container that takes pictures and sound.

    ``place``: a path or an open file; ``container``: FFmpeg's name of the format; ``push``: for a live
    connection, at a constant bitrate and without reordering, instead of constant quality, as HLS is always encoded,
    which is watched while it is written; ``encoder``: one of ``CODECS``; ``hls_flags``: more flags of FFmpeg's for
    it, each with a + before. Every method may block for as long as the place does. Raises ``av.FFmpegError`` and
    ``OSError``, and ``HardwareError`` (at first before anything is written).
    """

    def __init__(
        self,
        place: str | IO[bytes],
        container: str,
        output: OutputFormat,
        push: bool,
        encoder: str = SOFTWARE,
        hls_flags: str = "",
    ) -> None:
        av.logging.set_level(None)
        # What has been muxed goes to the disk at once: a killed process takes its buffers with it.
        options = {"flush_packets": "1"} | PLAYABLE_AFTER_CRASH.get(container, {})
        if container == HLS:
            options["hls_flags"] += hls_flags
        self._output = output
        self._push = push or container == HLS
        self._encoder = encoder
        self._pixels = "yuv420p" if encoder == SOFTWARE else RECIPES[encoder].pixels
        self._origin: float | None = None if output.live else 0.0
        self._last_tick = -1
        self._reformatter = VideoReformatter()
        self._matrix = colorspace_of(output.size[1])
        self._container: OutputContainer = av.open(place, "w", format=container, options=options)
        self._video = self._add_video()
        if encoder != SOFTWARE:
            self._open_hardware()
        self._audio = self._add_audio() if output.audio else None
        self._container.start_encoding()
        self.bytes = 0

    def _add_video(self) -> av.VideoStream:
        output = self._output
        gop = max(1, round(output.encode.gop_seconds * output.fps))
        rate = output.encode.video_bitrate or video_bitrate(output.size, output.fps)
        by_rate = self._push or bool(output.encode.video_bitrate)
        if self._encoder == SOFTWARE:
            stream = self._software_stream(rate)
        else:
            by_rate = by_rate or not RECIPES[self._encoder].quality
            stream = self._hardware_stream(rate if by_rate else 0)
        context = stream.codec_context
        context.width, context.height = output.size
        context.pix_fmt = self._pixels
        context.time_base = Fraction(1, VIDEO_TICKS)
        context.gop_size = gop
        if by_rate:
            context.bit_rate = rate
        tag = COLOUR_TAGS[self._matrix]
        context.color_primaries = context.color_trc = context.colorspace = tag
        context.color_range = 1
        return stream

    def _software_stream(self, rate: int) -> av.VideoStream:
        options: dict[str, str] = {"preset": self._output.encode.preset, "sc_threshold": "0"}
        if self._push:
            options |= {"tune": "zerolatency", "forced-idr": "1", "maxrate": str(rate), "bufsize": str(rate)}
        elif not self._output.encode.video_bitrate:
            options["crf"] = "20"
        stream = self._container.add_stream(CODECS[SOFTWARE], rate=self._output.fps, options=options)
        assert isinstance(stream, av.VideoStream)
        return stream

    def _hardware_stream(self, rate: int) -> av.VideoStream:
        """``rate``: bits per second, 0 for constant quality."""
        recipe = RECIPES[self._encoder]
        more = {"hwaccel": accelerator(recipe.device)} if recipe.device else {}
        options = recipe.options(push=self._push, rate=rate)
        try:
            stream = self._container.add_stream(recipe.codec, rate=self._output.fps, options=options, **more)
        except (av.FFmpegError, ValueError, NotImplementedError, TypeError) as error:
            raise HardwareError(_reason(error)) from error
        assert isinstance(stream, av.VideoStream)
        return stream

    def _open_hardware(self) -> None:
        """Opens it before the container is: what fails here has touched no file and no connection."""
        try:
            self._video.codec_context.open()
        except (av.FFmpegError, ValueError) as error:
            raise HardwareError(_reason(error)) from error

    def _add_audio(self) -> av.AudioStream:
        stream = self._container.add_stream("aac", rate=AUDIO_RATE, layout="stereo")
        assert isinstance(stream, av.AudioStream)
        stream.codec_context.bit_rate = self._output.encode.audio_bitrate
        return stream

    def prepare(self, pixels: Pixels, pts: float, key: bool = False) -> av.VideoFrame | None:
        """The picture in the encoder's format, to become a key frame if ``key``; ``pixels`` is free again afterwards.
        None if its time has passed."""
        if self._origin is None:
            self._origin = pts
        tick = round((pts - self._origin) * VIDEO_TICKS)
        if tick <= self._last_tick:
            return None
        self._last_tick = tick
        frame = for_encoder(self._reformatter, pixels, self._matrix, format=self._pixels)
        frame.pict_type = PictureType.I if key else PictureType.NONE
        frame.pts, frame.time_base = tick, Fraction(1, VIDEO_TICKS)
        return frame

    def write_video(self, frame: av.VideoFrame) -> None:
        """Encodes and sends a prepared picture."""
        self._mux(self._encode(frame))

    def _encode(self, frame: av.VideoFrame | None) -> list[Any]:
        try:
            return self._video.encode(frame)
        except av.FFmpegError as error:
            if self._encoder == SOFTWARE:
                raise
            raise HardwareError(_reason(error)) from error

    def write_audio(self, samples: Samples, start: int) -> None:
        """Encodes and sends ``(2, N) float32`` from sample index ``start`` on; what lies before the first picture of a
        live stream is left out."""
        if self._audio is None or self._origin is None:
            return
        start -= round(self._origin * AUDIO_RATE)
        samples = samples[:, max(0, -start) :]
        if samples.shape[1] == 0:
            return
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), "fltp", "stereo")
        frame.sample_rate, frame.pts, frame.time_base = AUDIO_RATE, max(0, start), Fraction(1, AUDIO_RATE)
        self._mux(self._audio.encode(frame))

    def _mux(self, packets: list[Any]) -> None:
        for packet in packets:
            self.bytes += packet.size
            self._container.mux(packet)

    def finish(self) -> None:
        """Writes out what the encoders still hold, and the trailer."""
        self._mux(self._encode(None))
        if self._audio is not None:
            self._mux(self._audio.encode(None))
        self._container.close()


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error or type(error).__name__)
