"""What reads a live stream: ``python -m streamfx.media.live_input_process``, started by ``media.live_input``.

FFmpeg takes the stream apart and decodes nothing: each packet goes to the parent as the body of an (enhanced) FLV tag.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from typing import Any

import av
import av.logging
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition, Stream

from streamfx.ipc.parent import Parent
from streamfx.media.rtmp.flv import AUDIO_FOURCCS, VIDEO_FOURCCS
from streamfx.media.srt_program import NoProgramError, SrtProgram

_VIDEO = {name: code for code, name in VIDEO_FOURCCS.items()}
_AUDIO = {name: code for code, name in AUDIO_FOURCCS.items()}
_G711 = {"pcm_alaw": 7, "pcm_mulaw": 8}
"""Codecs that only a classic tag has a number for."""

_PROBING = {"fpsprobesize": "0", "analyzeduration": "3000000"}
"""The rate is measured by whoever decodes, and nobody is to wait long for a track that was announced."""
_READ_SIZE = 4096

_CONFIG, _FRAME = 0, 1
_KEY, _INTER = 1, 2


def main() -> int:
    parent = Parent()
    hello = parent.receive()
    if hello is None:
        return 0
    program = SrtProgram()
    threading.Thread(target=_leave_with, args=(parent, program), name="parent", daemon=True).start()
    try:
        container = _open(hello, program)
        with contextlib.closing(container):
            _send_all(parent, container)
    except NoProgramError as error:
        parent.send(kind="error", error=str(error), final=True)
    except (av.FFmpegError, OSError, ValueError) as error:
        said = (getattr(error, "strerror", None) or "").lower()
        reason = program.last_words or said or str(error) or type(error).__name__
        parent.send(kind="error", error=reason, final=False)
    finally:
        program.end()
    return 0


def _leave_with(parent: Parent, program: SrtProgram) -> None:
    """Nobody reads any more: a call that waits for a silent peer must not keep us."""
    parent.receive()
    program.end()
    os._exit(0)


def _open(hello: dict[str, Any], program: SrtProgram) -> InputContainer:
    av.logging.set_level(None)
    place, container, options = str(hello["place"]), str(hello["container"]), dict(hello["options"])
    try:
        return av.open(place, "r", format=container, options=_PROBING | options)
    except av.ProtocolNotFoundError:
        stream = program.read(place, options)
        return av.open(stream, "r", format=container, options=_PROBING, buffer_size=_READ_SIZE)


def _send_all(parent: Parent, container: InputContainer) -> None:
    video = next((s for s in container.streams.video if not s.disposition & Disposition.attached_pic), None)
    audio = container.streams.audio[0] if container.streams.audio else None
    left_out = []
    if video is not None and video.codec_context.name not in _VIDEO:
        raise ValueError(f"its video is {video.codec_context.name}; send H.264, HEVC, AV1 or VP9")
    if audio is not None and audio.codec_context.name not in _AUDIO | _G711:
        left_out.append(f"sound in {audio.codec_context.name}")
        audio = None
    chosen: list[Stream] = [stream for stream in (video, audio) if stream is not None]
    if not chosen:
        raise ValueError("it has neither a picture nor sound that can be used")
    parent.send(kind="live", left_out=", ".join(left_out))
    for stream in chosen:
        if stream.codec_context.name not in _G711:  # which has none
            _send(parent, stream, 0, head_of(stream, _CONFIG) + (stream.codec_context.extradata or b""))
    for packet in container.demux(chosen):
        time = packet.dts if packet.dts is not None else packet.pts
        if packet.size and time is not None:
            ms = round(1000 * time * packet.time_base)
            _send(parent, packet.stream, ms, head_of(packet.stream, _FRAME, packet) + bytes(packet))


def _send(parent: Parent, stream: Stream, ms: int, body: bytes) -> None:
    parent.send(body, kind=stream.type, ms=ms, size=len(body))


def head_of(stream: Stream, kind: int, packet: Packet[Stream] | None = None) -> bytes:
    """What comes before a packet's data in the body of an FLV tag (Enhanced RTMP v2), or before the codec's
    configuration."""
    name = stream.codec_context.name
    if isinstance(stream, av.AudioStream):
        if name in _G711:
            return bytes([_G711[name] << 4 | 2 | (stream.codec_context.channels > 1)])
        return bytes([9 << 4 | kind]) + _AUDIO[name]
    key = packet is None or packet.is_keyframe
    head = bytes([0x80 | (_KEY if key else _INTER) << 4 | kind]) + _VIDEO[name]
    if packet is None or name not in ("h264", "hevc", "vvc"):
        return head
    early = 0
    if packet.pts is not None and packet.dts is not None:
        early = round(1000 * (packet.pts - packet.dts) * packet.time_base)
    return head + max(-(1 << 23), min((1 << 23) - 1, early)).to_bytes(3, "big", signed=True)


if __name__ == "__main__":
    sys.exit(main())
