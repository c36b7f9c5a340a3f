"""RTMP tags to frames, straight through FFmpeg's decoders: no demuxer that would want to probe first."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from fractions import Fraction

import av

from streamfx.core.errors import StreamFXError, UsageError
from streamfx.core.frames import AUDIO_RATE, AudioFrame, Frame, VideoFrame
from streamfx.media.convert import AudioConverter, VideoConverter
from streamfx.media.hwaccel import NONE, find_device
from streamfx.media.rtmp.connection import FlvTag
from streamfx.media.rtmp.flv import AudioPacket, parse_audio, parse_video

logger = logging.getLogger(__name__)

_MILLISECOND = Fraction(1, 1000)


class TagDecoder:
    """Decodes one publisher's tags, in order. Blocks for as long as decoding takes: keep it off the event loop.

    What is damaged or unknown is skipped and counted in ``broken``; nothing is shown before the first key frame.
    ``hwaccel``: the device that decodes, or ``auto``; what it cannot decode is decoded in software.
    """

    def __init__(self, size: tuple[int, int] | None, hwaccel: str = NONE) -> None:
        self._hwaccel = hwaccel
        self._pictures = VideoConverter(size)
        self._sound = AudioConverter()
        self._video: av.VideoCodecContext | None = None
        self._audio: av.AudioCodecContext | None = None
        self._configs: dict[str, tuple[str, bytes]] = {}
        self._running = False
        self._sequence = 0
        self.broken = 0

    def restart(self) -> None:
        """Another publisher follows: its decoders are made anew, the size of the pictures stays."""
        self._video = self._audio = None
        self._configs.clear()
        self._running = False

    def decode(self, tag: FlvTag) -> list[Frame]:
        """Frames that came out with this tag; pts in seconds of the publisher's clock."""
        try:
            if tag.kind == "video":
                return list(self._decode_video(tag))
            if tag.kind == "audio":
                return list(self._decode_audio(tag))
        except (StreamFXError, av.FFmpegError, ValueError) as error:
            self.broken += 1
            logger.debug("tag=%s skipped error=%s", tag.kind, error)
        return []

    def _decode_video(self, tag: FlvTag) -> Iterator[Frame]:
        packet = parse_video(tag.body)
        if packet.kind == "config" and self._changed("video", packet.codec, packet.data):
            self._video = self._video_decoder(packet.codec, packet.data)
            self._running = False
        if packet.kind != "frame":
            return
        if self._video is None:
            self._video = self._video_decoder(packet.codec, b"")
        self._running = self._running or packet.keyframe
        if not self._running:
            return
        unit = av.Packet(packet.data)
        unit.dts, unit.pts = tag.timestamp_ms, tag.timestamp_ms + packet.composition_ms
        unit.time_base = _MILLISECOND
        for picture in self._video.decode(unit):
            if picture.pts is None:
                continue
            pixels = self._pictures.convert(picture, float(self._video.sample_aspect_ratio or 1))
            yield VideoFrame(pixels, picture.pts / 1e3, tag.received_at, self._sequence)
            self._sequence += 1

    def _video_decoder(self, codec: str, config: bytes) -> av.VideoCodecContext:
        try:
            device = find_device(self._hwaccel, codec)
        except UsageError as error:  # which codec a publisher sends is its own choice
            logger.warning("%s; decoding in software", error)
            device = None
        context = av.CodecContext.create(codec, "r", device)
        assert isinstance(context, av.VideoCodecContext)
        context.extradata = config or None
        # Threads by frame would hold a frame back for each thread.
        context.thread_type = "SLICE"
        return context

    def _decode_audio(self, tag: FlvTag) -> Iterator[Frame]:
        packet = parse_audio(tag.body)
        if packet.kind == "config" and self._changed("audio", packet.codec, packet.data):
            self._audio = _audio_decoder(packet)
        if packet.kind != "frame":
            return
        if self._audio is None:
            if packet.codec == "aac":  # without its configuration it is noise
                return
            self._audio = _audio_decoder(packet)
        pts = tag.timestamp_ms / 1e3
        for sound in self._audio.decode(av.Packet(packet.data)):
            for samples in self._sound.convert(sound):
                yield AudioFrame(samples, pts, tag.received_at)
                pts += samples.shape[1] / AUDIO_RATE

    def _changed(self, lane: str, codec: str, data: bytes) -> bool:
        """Whether this configuration is news; encoders repeat it at will."""
        before = self._configs.get(lane)
        self._configs[lane] = codec, data
        return before != (codec, data)


def _audio_decoder(packet: AudioPacket) -> av.AudioCodecContext:
    name = {"pcm": "pcm_s16le"}.get(packet.codec, packet.codec)
    context = av.CodecContext.create(name, "r")
    assert isinstance(context, av.AudioCodecContext)
    if packet.kind == "config":
        context.extradata = packet.data or None
    if packet.sample_rate:
        context.sample_rate = packet.sample_rate
        context.layout = "mono" if packet.channels == 1 else "stereo"
    return context
