"""What sends to one target: ``python -m streamfx.media.sender_process``, started by ``media.target``.

FFmpeg opens and closes connections with the GIL held and may take seconds for it, so nothing else is done in here.
"""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import av
import av.logging

from streamfx.core.errors import redact
from streamfx.ipc.parent import Parent
from streamfx.media.packets import AUDIO_TICKS, VIDEO_TICKS
from streamfx.media.srt_program import NoProgramError, SrtProgram

_SPECIAL = re.compile(r"([\\'|])")
_SPECIAL_IN_OPTIONS = re.compile(r"([\\':\]\s])")
_INTERLEAVE = "500000"
"""Microseconds that one lane waits for the other when that pauses."""
_FINISH_TIMEOUT = 1.0


class Sender:
    """A live container that takes packets which others encoded. Raises ``av.FFmpegError``, ``OSError``, ``ValueError``.

    ``headers``: a NUT file with streams like ours; ``options``: of the container and of its connection; ``fps`` and
    ``rate`` (bits per second) are told to players.
    """

    def __init__(
        self, place: str, container: str, options: Mapping[str, str], headers: bytes, fps: Fraction, rate: int
    ) -> None:
        # Only through the tee muxer do options reach the connection: PyAV itself opens it without any.
        told = {"f": container, "max_interleave_delta": _INTERLEAVE, **options}
        output = tee_output(place, told)
        self._container = av.open(output, "w", format="tee", options={"max_interleave_delta": _INTERLEAVE})
        self._streams: dict[bool, Any] = {}
        with av.open(io.BytesIO(headers)) as templates:
            for template in templates.streams:
                stream = self._container.add_stream_from_template(template)
                self._streams[isinstance(stream, av.VideoStream)] = stream
        self._streams[True].codec_context.framerate = fps
        self._streams[True].codec_context.bit_rate = rate
        self._container.start_encoding()

    def write(self, message: Mapping[str, Any], data: bytes) -> None:
        """Sends a packet; blocks for as long as the other end does."""
        packet = av.Packet(data)
        packet.stream = self._streams[message["video"]]
        packet.time_base = Fraction(1, VIDEO_TICKS if message["video"] else AUDIO_TICKS)
        packet.pts, packet.dts, packet.duration = message["pts"], message["dts"], message["duration"]
        packet.is_keyframe = message["key"]
        self._container.mux(packet)

    def close(self) -> None:
        """Says goodbye to the other end."""
        self._container.close()


def tee_output(place: str, options: Mapping[str, str]) -> str:
    """How the tee muxer is told of an output. Its list of options is escaped, and then all of it once more."""
    listed = ":".join(name + "=" + _SPECIAL_IN_OPTIONS.sub(r"\\\1", value) for name, value in options.items())
    return _SPECIAL.sub(r"\\\1", f"[{listed}]{place}")


def main() -> int:
    av.logging.set_level(None)
    parent = Parent()
    hello = parent.receive()
    if hello is None:
        return 0
    program = SrtProgram()
    try:
        place, options = hello["place"], hello["options"]
        if place.startswith("srt://"):
            place, options = f"pipe:{program.write(place, options)}", {}
        sender = Sender(place, hello["container"], options, hello["data"], Fraction(hello["fps"]), hello["rate"])
        parent.send(kind="live")
        while (message := parent.receive()) is not None:
            sender.write(message, message["data"])
            parent.send(kind="sent")
        sender.close()
        program.finish(_FINISH_TIMEOUT)
        program.end()
    except (av.FFmpegError, OSError, ValueError, NoProgramError) as error:
        reason = program.last_words or getattr(error, "strerror", None) or str(error) or type(error).__name__
        program.end()
        parent.send(kind="error", error=redact(reason, hello["secrets"]))
        # Closing a container whose peer is gone can block for seconds; there is nothing left to save in it.
        os._exit(1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
