"""What runs in a file's process: ``python -m streamfx.media.output_process``, started by ``media.output``."""

from __future__ import annotations

import dataclasses
import os
import sys
from fractions import Fraction
from typing import Any

import av
import numpy as np

from streamfx.ipc.arena import Arena
from streamfx.ipc.parent import Parent
from streamfx.media.base import EncodeSettings, OutputFormat
from streamfx.media.encoder import Encoder, HardwareError
from streamfx.media.slots import SlotLayout


def main() -> int:
    parent = Parent()
    hello = parent.receive()
    if hello is None:
        return 0
    output = format_from_json(hello["output"])
    arena = Arena.attach(hello["arena"])
    try:
        encoder = Encoder(hello["place"], hello["container"], output, False, hello["encoder"], hello["hls_flags"])
        parent.send(kind="live")
        serve(parent, encoder, arena, SlotLayout(output.size))
        encoder.finish()
    except HardwareError as error:
        parent.send(kind="encoder failed", error=sentence(error))
        os._exit(1)
    except (av.FFmpegError, OSError, ValueError) as error:
        parent.send(kind="error", error=sentence(error))
        os._exit(1)
    parent.send(kind="finished", bytes=encoder.bytes)
    return 0


def serve(parent: Parent, encoder: Encoder, arena: Arena, layout: SlotLayout) -> None:
    """Takes pictures and sound until the parent has no more. A slot is given back as soon as it was read."""
    while (message := parent.receive()) is not None:
        slot = message["slot"]
        if message["kind"] == "video":
            frame = encoder.prepare(layout.video(arena, slot), message["pts"], message["key"])
            parent.send(kind="free", lane="video", slot=slot)
            if frame is not None:
                encoder.write_video(frame)
                parent.send(kind="sent", bytes=encoder.bytes)
        else:
            samples = np.array(layout.audio(arena, slot, message["samples"]))
            parent.send(kind="free", lane="audio", slot=slot)
            encoder.write_audio(samples, message["start"])


def format_to_json(output: OutputFormat) -> dict[str, Any]:
    return dataclasses.asdict(output) | {"fps": str(output.fps)}


def format_from_json(values: dict[str, Any]) -> OutputFormat:
    return OutputFormat(
        size=(values["size"][0], values["size"][1]),
        fps=Fraction(values["fps"]),
        audio=values["audio"],
        live=values["live"],
        encode=EncodeSettings(**values["encode"]),
    )


def sentence(error: Exception) -> str:
    """What an error says, without what it says it about: a path or a URL."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


if __name__ == "__main__":
    sys.exit(main())
