"""The insides of aiortc are as ``compat`` expects. If this fails after an upgrade, look at ``compat``."""

from __future__ import annotations

import inspect
from importlib.metadata import version

import av
import numpy as np
import pytest
from aiortc import RTCConfiguration, RTCIceTransport, RTCPeerConnection, RTCRtpReceiver, RTCRtpSender
from aiortc.codecs.h264 import H264Decoder, h264_depayload
from aiortc.codecs.vpx import vp8_depayload
from aiortc.jitterbuffer import JitterFrame

from streamfx.media.webrtc import compat
from streamfx.media.webrtc.encode import VideoEncoder


def test_the_version_is_one_that_was_tested() -> None:
    assert version("aiortc").rpartition(".")[0] in compat.TESTED_VERSIONS


async def test_the_private_names_are_there() -> None:
    connection = RTCPeerConnection(RTCConfiguration([]))
    transceiver = connection.addTransceiver("video")
    receiver, sender = transceiver.receiver, transceiver.sender
    for name in ("jitter_buffer", "codecs", "remote_streams"):
        assert hasattr(receiver, f"_{RTCRtpReceiver.__name__}__{name}")
    for name in ("encoder", "rtp_timestamp"):
        assert hasattr(sender, f"_{RTCRtpSender.__name__}__{name}")
    assert hasattr(receiver.transport.transport, f"_{RTCIceTransport.__name__}__start")
    assert hasattr(receiver.transport.transport._connection, "_query_consent_task")
    for owner, names in (
        (RTCRtpReceiver, ("_send_rtcp_pli", "_handle_rtcp_packet")),
        (RTCRtpSender, ("_handle_rtcp_packet",)),
    ):
        for name in names:
            assert inspect.iscoroutinefunction(getattr(owner, name))
    assert callable(sender._send_keyframe)
    await compat.close(connection)


def test_a_name_that_went_away_is_told_of() -> None:
    with pytest.raises(AttributeError, match="aiortc has changed"):
        compat._set_private(object(), RTCRtpReceiver, "nonsense", 1)


def test_h264_payloads_give_the_picture_back() -> None:
    encoder = VideoEncoder("H264", (320, 240), 800_000, 1, 2.0)
    picture = np.random.default_rng(0).integers(0, 255, (240, 320, 3), np.uint8)
    encoded = encoder.encode(picture, 0, True, None)
    assert encoded is not None
    assert encoded.key
    assert max(map(len, encoded.payloads)) <= 1300
    data = b"".join(h264_depayload(payload) for payload in encoded.payloads)
    (frame,) = H264Decoder().decode(JitterFrame(data, 0)) or [None]
    assert isinstance(frame, av.VideoFrame)
    assert (frame.width, frame.height) == (320, 240)


def test_vp8_picture_ids_count_on() -> None:
    encoder = VideoEncoder("VP8", (320, 240), 800_000, 1, 2.0)
    picture = np.zeros((240, 320, 3), np.uint8)
    frames = [encoder.encode(picture, 3000 * n, n == 0, None) for n in range(3)]
    assert all(frame is not None for frame in frames)
    assert [frame.key for frame in frames if frame] == [True, False, False]
    assert all(vp8_depayload(frame.payloads[0]) for frame in frames if frame)
