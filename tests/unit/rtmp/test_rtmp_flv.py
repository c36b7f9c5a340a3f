"""Tag bodies, classic and enhanced."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamfx.media.rtmp import amf0
from streamfx.media.rtmp.errors import RtmpProtocolError
from streamfx.media.rtmp.flv import AudioPacket, VideoPacket, parse_audio, parse_metadata, parse_video


@pytest.mark.parametrize(
    ("body", "packet"),
    [
        (b"", VideoPacket("", "other")),
        (b"\x17\x00\x00\x00\x00avcc", VideoPacket("h264", "config", data=b"avcc")),
        (b"\x17\x01\x00\x00\x28key", VideoPacket("h264", "frame", True, 40, b"key")),
        (b"\x27\x01\xff\xff\xd8inter", VideoPacket("h264", "frame", False, -40, b"inter")),
        (b"\x17\x02\x00\x00\x00", VideoPacket("h264", "end")),
        (b"\x57\x00", VideoPacket("h264", "other")),
        (b"\x1c\x01\x00\x00\x00x", VideoPacket("hevc", "frame", True, 0, b"x")),
        (b"\x90hvc1cfg", VideoPacket("hevc", "config", data=b"cfg")),
        (b"\x91hvc1\x00\x00\x21x", VideoPacket("hevc", "frame", True, 33, b"x")),
        (b"\xa3hvc1x", VideoPacket("hevc", "frame", False, 0, b"x")),
        (b"\x91avc1\x00\x00\x21x", VideoPacket("h264", "frame", True, 33, b"x")),
        (b"\x90av01cfg", VideoPacket("av1", "config", data=b"cfg")),
        (b"\xa1av01x", VideoPacket("av1", "frame", False, 0, b"x")),
        (b"\x91vp09x", VideoPacket("vp9", "frame", True, 0, b"x")),
        (b"\x92av01", VideoPacket("av1", "end")),
        (b"\x94hvc1" + amf0.encode("colorInfo", {}), VideoPacket("hevc", "other")),
        (b"\xd1\x00", VideoPacket("", "other")),  # a command frame
        # ModEx with a 3 byte nanosecond offset, then CodedFramesX
        (b"\x97\x02\x00\x00\x01\x03hvc1x", VideoPacket("hevc", "frame", True, 0, b"x")),
        # ModEx with a two byte size
        (b"\x97\xff\x01\x00" + bytes(257) + b"\x03hvc1x", VideoPacket("hevc", "frame", True, 0, b"x")),
        # multitrack: one track; track 0 after another; per-track codecs; no track 0
        (b"\x96\x03hvc1\x00x", VideoPacket("hevc", "frame", True, 0, b"x")),
        (b"\x96\x13hvc1\x01\x00\x00\x02yy\x00\x00\x00\x01x", VideoPacket("hevc", "frame", True, 0, b"x")),
        (b"\x96\x23av01\x01\x00\x00\x01yhvc1\x00\x00\x00\x01x", VideoPacket("hevc", "frame", True, 0, b"x")),
        (b"\x96\x03hvc1\x01x", VideoPacket("", "other")),
    ],
)
def test_video(body: bytes, packet: VideoPacket) -> None:
    assert parse_video(body) == packet


@pytest.mark.parametrize(
    ("body", "packet"),
    [
        (b"", AudioPacket("", "other")),
        (b"\xaf\x00\x11\x90", AudioPacket("aac", "config", b"\x11\x90")),
        (b"\xaf\x01raw", AudioPacket("aac", "frame", b"raw")),
        (b"\x2fmp3", AudioPacket("mp3", "frame", b"mp3", 44100, 2)),
        (b"\xe2mp3", AudioPacket("mp3", "frame", b"mp3", 8000, 1)),
        (b"\x3eab", AudioPacket("pcm_s16le", "frame", b"ab", 44100, 1)),
        (b"\x38ab", AudioPacket("pcm_u8", "frame", b"ab", 22050, 1)),
        (b"\x72ab", AudioPacket("pcm_alaw", "frame", b"ab", 8000, 1)),
        (b"\x90OpusOpusHead", AudioPacket("opus", "config", b"OpusHead")),
        (b"\x91Opusx", AudioPacket("opus", "frame", b"x")),
        (b"\x91mp4ax", AudioPacket("aac", "frame", b"x")),
        (b"\x91ac-3x", AudioPacket("ac3", "frame", b"x")),
        (b"\x92fLaC", AudioPacket("flac", "end")),
        (b"\x94Opus\x01\x02", AudioPacket("opus", "other")),
        (b"\x97\x00\x00\x01Opusx", AudioPacket("opus", "frame", b"x")),
        (b"\x95\x11mp4a\x00\x00\x00\x01x\x01\x00\x00\x01y", AudioPacket("aac", "frame", b"x")),
    ],
)
def test_audio(body: bytes, packet: AudioPacket) -> None:
    assert parse_audio(body) == packet


@pytest.mark.parametrize("body", [b"\x22x", b"\x14x", b"\x1fx", b"\x17\x01", b"\x91xxxxy", b"\x91hv", b"\x91hvc1\x00"])
def test_bad_video_says_why(body: bytes) -> None:
    with pytest.raises(RtmpProtocolError, match=r"not supported; send|too early"):
        parse_video(body)


@pytest.mark.parametrize("body", [b"\xb0x", b"\x60x", b"\xaf", b"\x91xxxx", b"\x97\x05x"])
def test_bad_audio_says_why(body: bytes) -> None:
    with pytest.raises(RtmpProtocolError, match=r"not supported; send|too early"):
        parse_audio(body)


def test_metadata() -> None:
    properties = amf0.EcmaArray(width=640.0, encoder="x")
    assert parse_metadata(amf0.encode("@setDataFrame", "onMetaData", properties)) == properties
    assert parse_metadata(amf0.encode("onMetaData", {"width": 1})) == {"width": 1}
    assert parse_metadata(amf0.encode("onCuePoint", {})) == {}
    assert parse_metadata(b"") == {}


@given(st.binary(max_size=100) | st.binary(max_size=60).map(lambda tail: b"\x96\x23hvc1" + tail))
def test_garbage_does_no_harm(body: bytes) -> None:
    for parse in (parse_video, parse_audio, parse_metadata):
        with contextlib.suppress(RtmpProtocolError):
            parse(body)
