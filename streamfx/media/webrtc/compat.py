"""Everything we touch of aiortc that is not its public interface, in one place.

aiortc's receiver queues without bound and releases a frame only when the next begins; its sender encodes for every
viewer. Both are replaced here at a single point each: the receiver's jitter buffer, and the sender's encoder.
``tests/unit/webrtc/test_compat.py`` fails when a new version moves one of these names.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, Protocol

from aiortc import RTCIceTransport, RTCPeerConnection, RTCRtpReceiver, RTCRtpSender, RTCRtpTransceiver
from aiortc.codecs.h264 import H264Encoder
from aiortc.codecs.vpx import Vp8Encoder
from aiortc.rtp import RtcpRrPacket, RtcpSrPacket

from streamfx.media.webrtc.assemble import FrameAssembler, Packet

TESTED_VERSIONS = ("1.16",)
"""Release series whose insides are as this module expects."""

_NTP_EPOCH = 2_208_988_800
"""Seconds from 1900, where NTP begins, to 1970."""

_START_TIMEOUT = 2.0

ReportHandler = Callable[[int, float], None]


class _Buffer:
    """Stands where aiortc keeps its jitter buffer; whole frames go their own way from here."""

    def __init__(self, assembler: FrameAssembler) -> None:
        self._assembler = assembler

    def add(self, packet: Packet) -> tuple[bool, None]:
        return self._assembler.add(packet), None


def take_over_receiver(receiver: RTCRtpReceiver, assembler: FrameAssembler, on_report: ReportHandler) -> None:
    """Sends the receiver's packets to ``assembler`` instead of aiortc's decoder, and its sender reports to
    ``on_report`` as (RTP timestamp, NTP seconds since 1970)."""
    _set_private(receiver, RTCRtpReceiver, "jitter_buffer", _Buffer(assembler))
    handle = receiver._handle_rtcp_packet

    async def handle_and_tell(packet: Any) -> None:
        if isinstance(packet, RtcpSrPacket):
            info = packet.sender_info
            on_report(info.rtp_timestamp, info.ntp_timestamp / (1 << 32) - _NTP_EPOCH)
        await handle(packet)

    receiver._handle_rtcp_packet = handle_and_tell  # type: ignore[method-assign]


def codec_names(receiver: RTCRtpReceiver) -> dict[int, str]:
    """Negotiated codecs by payload type, once the receiver has started."""
    codecs: dict[int, Any] = _private(receiver, RTCRtpReceiver, "codecs")
    return {number: codec.name for number, codec in codecs.items()}


async def ask_for_key_frame(receiver: RTCRtpReceiver) -> None:
    """Sends a picture loss indication (RFC 4585, 6.3.1) for every stream that comes in."""
    for ssrc in list(_private(receiver, RTCRtpReceiver, "remote_streams")):
        await receiver._send_rtcp_pli(ssrc)


class SentFrame(Protocol):
    """An encoded frame as a track hands it to a sender: RTP payloads, and ticks of its timestamp."""

    payloads: list[bytes]
    ticks: int


class _Packer:
    """Stands where aiortc keeps a sender's encoder: frames come encoded and packetised already."""

    def __init__(self, on_bitrate: Callable[[int], None]) -> None:
        self._on_bitrate = on_bitrate

    def pack(self, frame: SentFrame) -> tuple[list[bytes], int]:
        return frame.payloads, frame.ticks & 0xFFFFFFFF

    @property
    def target_bitrate(self) -> int:
        return 0

    @target_bitrate.setter
    def target_bitrate(self, bitrate: int) -> None:
        self._on_bitrate(bitrate)


def take_over_sender(
    sender: RTCRtpSender,
    on_key_frame: Callable[[], None],
    on_bitrate: Callable[[int], None],
    on_loss: Callable[[float], None],
) -> None:
    """Makes the sender pass on ``SentFrame``s from its track, and tells what its peer says: a key frame is wanted, it
    can take so many bits per second (REMB), so large a share (0 … 1) of packets was lost (RTCP receiver reports)."""
    _set_private(sender, RTCRtpSender, "encoder", _Packer(on_bitrate))
    sender._send_keyframe = on_key_frame  # type: ignore[method-assign]
    handle = sender._handle_rtcp_packet

    async def handle_and_tell(packet: Any) -> None:
        if isinstance(packet, RtcpRrPacket | RtcpSrPacket):
            for report in packet.reports:
                if report.ssrc == sender._ssrc:
                    on_loss(report.fraction_lost / 256)
        await handle(packet)

    sender._handle_rtcp_packet = handle_and_tell  # type: ignore[method-assign]


def last_timestamp(sender: RTCRtpSender) -> int:
    """The RTP timestamp (32 bit, as on the wire) of the last packet sent."""
    return int(_private(sender, RTCRtpSender, "rtp_timestamp"))


def negotiated_codec(transceiver: RTCRtpTransceiver) -> str:
    """Name of the codec that is sent, once the answer is made: "H264", "VP8", "opus"."""
    return str(transceiver._codecs[0].name)


def packetise_h264(annex_b: bytes) -> list[bytes]:
    """RTP payloads (RFC 6184, packetization-mode 1) of one access unit."""
    return H264Encoder._packetize(H264Encoder._split_bitstream(annex_b))


def packetise_vp8(frame: bytes, picture_id: int) -> list[bytes]:
    """RTP payloads (RFC 7741) of one frame; ``picture_id``: 15 bit, one more for every frame."""
    return Vp8Encoder._packetize(frame, picture_id & 0x7FFF)


async def close(connection: RTCPeerConnection) -> None:
    """Closes a connection, and what one that was about to connect starts all the same (aioice's consent checks)."""
    transports = {transceiver.receiver.transport.transport for transceiver in connection.getTransceivers()}
    await connection.close()
    for transport in transports:
        started: asyncio.Event | None = _private(transport, RTCIceTransport, "start")
        if started is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_START_TIMEOUT):
                    await started.wait()
        consent = transport._connection._query_consent_task
        if consent is not None and not consent.done():
            consent.cancel()
            await asyncio.wait([consent])


def _private(thing: object, owner: type, name: str) -> Any:
    return getattr(thing, f"_{owner.__name__}__{name}")


def _set_private(thing: object, owner: type, name: str, value: object) -> None:
    mangled = f"_{owner.__name__}__{name}"
    if not hasattr(thing, mangled):
        raise AttributeError(f"aiortc has changed: {owner.__name__} has no {name} any more")
    setattr(thing, mangled, value)
