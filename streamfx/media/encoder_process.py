"""What encodes once for many: ``python -m streamfx.media.encoder_process``, started by ``media.shared_encoder``."""

from __future__ import annotations

import io
import os
import sys
from fractions import Fraction
from typing import Any

import av

from streamfx.ipc.arena import Arena
from streamfx.ipc.parent import Parent
from streamfx.media.base import OutputFormat
from streamfx.media.encoder import Encoder, HardwareError
from streamfx.media.output_process import format_from_json, sentence, serve
from streamfx.media.packets import VIDEO_TICKS
from streamfx.media.slots import SlotLayout


class PacketEncoder(Encoder):
    """Gives its packets to the parent instead of to a container, with times on the stream's own timeline."""

    def __init__(self, output: OutputFormat, encoder: str, parent: Parent) -> None:
        place = io.BytesIO()
        super().__init__(place, "nut", output, push=True, encoder=encoder)
        self._origin = 0.0
        self._parent = parent
        self._frame_ticks = round(VIDEO_TICKS / output.fps)
        self.headers = self._write_headers(place)

    def _write_headers(self, place: io.BytesIO) -> bytes:
        """A NUT file of nothing but headers; a packet of each stream is in it, or nothing would open it."""
        for stream in self._container.streams:
            packet = av.Packet(bytes(8))
            packet.stream, packet.time_base, packet.is_keyframe = stream, Fraction(1, VIDEO_TICKS), True
            packet.pts = packet.dts = 0
            self._container.mux(packet)
        self._container.close()
        return place.getvalue()

    def _mux(self, packets: list[Any]) -> None:
        for packet in packets:
            video = isinstance(packet.stream, av.VideoStream)
            self.bytes += packet.size
            self._parent.send(
                bytes(packet),
                kind="packet",
                size=packet.size,
                video=video,
                pts=packet.pts,
                dts=packet.dts if packet.dts is not None else packet.pts,
                duration=packet.duration or (self._frame_ticks if video else 0),
                key=packet.is_keyframe,
            )


def main() -> int:
    parent = Parent()
    hello = parent.receive()
    if hello is None:
        return 0
    output = format_from_json(hello["output"])
    arena = Arena.attach(hello["arena"])
    try:
        encoder = PacketEncoder(output, hello["encoder"], parent)
        parent.send(encoder.headers, kind="ready", size=len(encoder.headers))
        serve(parent, encoder, arena, SlotLayout(output.size))
    except HardwareError as error:
        parent.send(kind="encoder failed", error=sentence(error))
        os._exit(1)
    except (av.FFmpegError, OSError, ValueError) as error:
        parent.send(kind="error", error=sentence(error))
        os._exit(1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
