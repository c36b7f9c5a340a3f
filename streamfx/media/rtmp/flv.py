"""What is inside audio, video and data messages: FLV tag bodies, classic and enhanced.

Specs: Adobe "Video File Format" 10.1, annex E.4; Veovera "Enhanced RTMP" v1 and v2 (fourCC codecs, ModEx, multitrack).
A body is what an RTMP message of type 8, 9 or 18 carries, and what an FLV file has between two tag headers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from streamfx.media.rtmp import amf0
from streamfx.media.rtmp.errors import RtmpProtocolError

PacketKind = Literal["config", "frame", "end", "other"]

VIDEO_FOURCCS = {b"avc1": "h264", b"hvc1": "hevc", b"av01": "av1", b"vp09": "vp9", b"vp08": "vp8", b"vvc1": "vvc"}
"""Enhanced video codes and FFmpeg's names for their decoders."""
AUDIO_FOURCCS = {b"mp4a": "aac", b"Opus": "opus", b"fLaC": "flac", b"ac-3": "ac3", b"ec-3": "eac3", b".mp3": "mp3"}
"""Enhanced audio codes and FFmpeg's names for their decoders."""

SET_DATA_FRAME = b"\x02\x00\x0d@setDataFrame"
"""The AMF0 string a publisher puts before metadata; what follows is the body of an FLV data tag."""

# Packet types. Those of video and audio differ only in where multitrack is.
_SEQUENCE_START, _CODED_FRAMES, _SEQUENCE_END, _CODED_FRAMES_X, _METADATA, _MOD_EX = 0, 1, 2, 3, 4, 7
_VIDEO_MULTITRACK, _AUDIO_MULTITRACK = 6, 5
_ONE_TRACK, _MANY_TRACKS, _MANY_CODECS = range(3)
_KEY_FRAME, _GENERATED_KEY_FRAME, _COMMAND_FRAME = 1, 4, 5
_WITH_COMPOSITION_TIME = {"h264", "hevc", "vvc"}

_CLASSIC_VIDEO = {7: "h264", 12: "hevc"}
_OTHER_VIDEO = {2: "Sorenson H.263", 3: "Screen Video", 4: "VP6", 5: "VP6", 6: "Screen Video 2"}
_CLASSIC_AUDIO = {2: "mp3", 3: "pcm", 7: "pcm_alaw", 8: "pcm_mulaw", 10: "aac", 14: "mp3"}
_OTHER_AUDIO = {1: "ADPCM", 4: "Nellymoser", 5: "Nellymoser", 6: "Nellymoser", 11: "Speex"}
_AUDIO_RATES = (5512, 11025, 22050, 44100)


@dataclass(frozen=True, slots=True)
class VideoPacket:
    """One video tag's content.

    ``codec`` is FFmpeg's decoder name, or "" when the tag has none. ``kind`` is "config" (``data`` is the decoder
    configuration record, FFmpeg's extradata), "frame" (``data`` is one access unit; for h264, hevc and vvc with
    length prefixes), "end" (of the sequence) or "other" (nothing to decode). ``composition_ms`` is pts - dts in
    milliseconds and may be negative.
    """

    codec: str
    kind: PacketKind
    keyframe: bool = False
    composition_ms: int = 0
    data: bytes = b""


@dataclass(frozen=True, slots=True)
class AudioPacket:
    """One audio tag's content; ``codec``, ``kind`` and ``data`` as in ``VideoPacket``.

    ``sample_rate`` (Hz) and ``channels`` come from a classic tag's header and are 0 where only the codec's own
    configuration tells (AAC and all enhanced codecs).
    """

    codec: str
    kind: PacketKind
    data: bytes = b""
    sample_rate: int = 0
    channels: int = 0


def parse_video(body: bytes) -> VideoPacket:
    """Parses the body of a video tag. Of several tracks the one numbered 0 is taken; without it, "other".

    Raises:
        RtmpProtocolError: the body ends too early, or its codec is not supported.
    """
    if not body:
        return VideoPacket("", "other")
    if body[0] & 0x80:
        return _enhanced_video(body)
    frame_type, codec_id = body[0] >> 4, body[0] & 15
    if frame_type == _COMMAND_FRAME:
        return VideoPacket(_CLASSIC_VIDEO.get(codec_id, ""), "other")
    codec = _CLASSIC_VIDEO.get(codec_id)
    if codec is None:
        name = _OTHER_VIDEO.get(codec_id, f"number {codec_id}")
        raise RtmpProtocolError(f"video codec {name} is not supported; send H.264, HEVC, AV1, VP9 or VP8")
    if len(body) < 5:
        raise RtmpProtocolError("a video tag ends too early")
    match body[1]:
        case 0:
            return VideoPacket(codec, "config", data=body[5:])
        case 1:
            return VideoPacket(codec, "frame", _is_key(frame_type), _signed24(body, 2), body[5:])
        case 2:
            return VideoPacket(codec, "end")
    return VideoPacket(codec, "other")


def parse_audio(body: bytes) -> AudioPacket:
    """Parses the body of an audio tag. Of several tracks the one numbered 0 is taken; without it, "other".

    Raises:
        RtmpProtocolError: the body ends too early, or its codec is not supported.
    """
    if not body:
        return AudioPacket("", "other")
    sound_format = body[0] >> 4
    if sound_format == 9:
        return _enhanced_audio(body)
    codec = _CLASSIC_AUDIO.get(sound_format)
    if codec is None:
        name = _OTHER_AUDIO.get(sound_format, f"number {sound_format}")
        raise RtmpProtocolError(f"audio codec {name} is not supported; send AAC, MP3, Opus, FLAC, AC-3 or PCM")
    if codec == "aac":
        if len(body) < 2:
            raise RtmpProtocolError("an audio tag ends too early")
        kinds: dict[int, PacketKind] = {0: "config", 1: "frame"}
        return AudioPacket(codec, kinds.get(body[1], "other"), body[2:])
    rate, channels = _AUDIO_RATES[body[0] >> 2 & 3], (body[0] & 1) + 1
    if codec == "pcm":
        codec = "pcm_s16le" if body[0] & 2 else "pcm_u8"
    elif sound_format != 2:  # MP3 8 kHz and the two G.711 laws ignore the rate bits (E.4.2.1)
        rate = 8000
    return AudioPacket(codec, "frame", body[1:], rate, channels)


def parse_metadata(body: bytes) -> dict[str, object]:
    """Gives the properties of an ``onMetaData`` data tag, with or without ``@setDataFrame`` before it.

    Gives an empty dict for any other data tag (cue points, captions).

    Raises:
        RtmpProtocolError: the body is not AMF0.
    """
    values = amf0.decode(body)
    if values[:1] == ["@setDataFrame"]:
        del values[0]
    if len(values) < 2 or values[0] != "onMetaData" or not isinstance(values[1], dict):
        return {}
    return dict(values[1])


class _Cursor:
    """Reads a body from the front; every read past its end is an RtmpProtocolError."""

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.at = 1

    def take(self, size: int) -> bytes:
        chunk = self.body[self.at : self.at + size]
        if len(chunk) < size:
            raise RtmpProtocolError("an enhanced media tag ends too early")
        self.at += size
        return chunk

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def rest(self) -> bytes:
        return self.body[self.at :]


def _packet_type(cursor: _Cursor, packet_type: int) -> int:
    """Skips ModEx prefixes (v2): each a size, that many bytes, then 4 bits of its kind and 4 of the next type."""
    while packet_type == _MOD_EX:
        size = cursor.number(1) + 1
        if size == 256:
            size = cursor.number(2) + 1
        cursor.take(size)
        packet_type = cursor.number(1) & 15
    return packet_type


def _open_track(cursor: _Cursor, packet_type: int, multitrack_type: int) -> tuple[int, bytes, bytes | None]:
    """Reads the fourCC and, of a multitrack body, finds track 0: (packet type, fourCC, payload or None)."""
    if packet_type != multitrack_type:
        return packet_type, cursor.take(4), cursor.rest()
    both = cursor.number(1)
    multitrack, packet_type = both >> 4, both & 15
    if multitrack > _MANY_CODECS:
        raise RtmpProtocolError(f"multitrack type {multitrack} of a media tag is not known")
    fourcc = b"" if multitrack == _MANY_CODECS else cursor.take(4)
    while cursor.at < len(cursor.body):
        if multitrack == _MANY_CODECS:
            fourcc = cursor.take(4)
        track = cursor.number(1)
        payload = cursor.rest() if multitrack == _ONE_TRACK else cursor.take(cursor.number(3))
        if track == 0:
            return packet_type, fourcc, payload
        if multitrack == _ONE_TRACK:
            break
    return packet_type, fourcc, None


def _enhanced_video(body: bytes) -> VideoPacket:
    cursor = _Cursor(body)
    frame_type = body[0] >> 4 & 7
    packet_type = _packet_type(cursor, body[0] & 15)
    if frame_type == _COMMAND_FRAME and packet_type != _METADATA:
        return VideoPacket("", "other")
    packet_type, fourcc, payload = _open_track(cursor, packet_type, _VIDEO_MULTITRACK)
    if payload is None:
        return VideoPacket("", "other")
    codec = VIDEO_FOURCCS.get(fourcc)
    if codec is None:
        raise RtmpProtocolError(f"video codec {_show(fourcc)} is not supported; send H.264, HEVC, AV1, VP9 or VP8")
    if packet_type == _SEQUENCE_START:
        return VideoPacket(codec, "config", data=payload)
    if packet_type == _SEQUENCE_END:
        return VideoPacket(codec, "end")
    if packet_type not in (_CODED_FRAMES, _CODED_FRAMES_X):  # HDR metadata, MPEG-2 TS, and what may come
        return VideoPacket(codec, "other")
    composition_ms = 0
    if packet_type == _CODED_FRAMES and codec in _WITH_COMPOSITION_TIME:
        if len(payload) < 3:
            raise RtmpProtocolError("an enhanced media tag ends too early")
        composition_ms, payload = _signed24(payload, 0), payload[3:]
    return VideoPacket(codec, "frame", _is_key(frame_type), composition_ms, payload)


def _enhanced_audio(body: bytes) -> AudioPacket:
    cursor = _Cursor(body)
    packet_type = _packet_type(cursor, body[0] & 15)
    packet_type, fourcc, payload = _open_track(cursor, packet_type, _AUDIO_MULTITRACK)
    if payload is None:
        return AudioPacket("", "other")
    codec = AUDIO_FOURCCS.get(fourcc)
    if codec is None:
        raise RtmpProtocolError(f"audio codec {_show(fourcc)} is not supported; send AAC, MP3, Opus, FLAC or AC-3")
    kinds: dict[int, PacketKind] = {_SEQUENCE_START: "config", _CODED_FRAMES: "frame", _SEQUENCE_END: "end"}
    kind = kinds.get(packet_type, "other")
    return AudioPacket(codec, kind, payload if kind in ("config", "frame") else b"")


def _is_key(frame_type: int) -> bool:
    return frame_type in (_KEY_FRAME, _GENERATED_KEY_FRAME)


def _signed24(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 3], "big", signed=True)


def _show(fourcc: bytes) -> str:
    return repr(fourcc.decode("ascii", "replace"))
