"""H.264 encoders by name: what FFmpeg calls them, and how each is told to be quick, or to make a good file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from streamfx.core.errors import UsageError

EncoderName = Literal["auto", "software", "nvenc", "qsv", "vaapi", "amf", "videotoolbox"]

AUTO = "auto"
SOFTWARE = "software"


@dataclass(frozen=True, slots=True)
class Recipe:
    """How an encoder is used. ``codec``: its name in FFmpeg; ``pixels``: the format it takes pictures in.

    Options: ``push`` for a live connection, at a constant rate and without reordering; ``file`` for files, and
    ``quality`` besides, unless a rate is asked for. An encoder without ``quality`` writes files at a rate too.
    ``device``: of the kind that pictures have to be brought to first.
    """

    codec: str
    label: str
    pixels: str = "yuv420p"
    push: Mapping[str, str] = field(default_factory=dict)
    file: Mapping[str, str] = field(default_factory=dict)
    quality: Mapping[str, str] = field(default_factory=dict)
    device: str = ""

    def options(self, *, push: bool, rate: int) -> dict[str, str]:
        """What the encoder is given. ``rate``: bits per second, 0 for constant quality."""
        if push:
            return {**self.push, "maxrate": str(rate), "bufsize": str(rate)}
        return {**self.file, **({} if rate else self.quality)}


RECIPES: dict[str, Recipe] = {
    "nvenc": Recipe(
        "h264_nvenc",
        "NVIDIA NVENC",
        push={
            "preset": "p4",
            "tune": "ull",
            "rc": "cbr",
            "zerolatency": "1",
            "delay": "0",
            "bf": "0",
            "no-scenecut": "1",
            "forced-idr": "1",
        },
        file={"preset": "p5", "tune": "hq", "rc": "vbr"},
        quality={"cq": "23"},
    ),
    # Which of its two circuits a chip has for H.264 differs, so low_power is left to the driver.
    "qsv": Recipe(
        "h264_qsv",
        "Intel Quick Sync",
        pixels="nv12",
        push={"preset": "veryfast", "async_depth": "1", "look_ahead": "0", "bf": "0", "forced_idr": "1"},
        file={"preset": "medium"},
        quality={"global_quality": "23"},
    ),
    "vaapi": Recipe(
        "h264_vaapi",
        "VA-API (Intel, AMD)",
        pixels="nv12",
        push={"rc_mode": "CBR", "async_depth": "1", "bf": "0"},
        quality={"rc_mode": "CQP", "qp": "22"},
        device="vaapi",
    ),
    "amf": Recipe(
        "h264_amf",
        "AMD AMF",
        pixels="nv12",
        push={
            "usage": "ultralowlatency",
            "quality": "speed",
            "rc": "cbr",
            "latency": "1",
            "async_depth": "1",
            "bf": "0",
            "forced_idr": "1",
        },
        file={"usage": "transcoding", "quality": "quality"},
        quality={"rc": "cqp", "qp_i": "20", "qp_p": "22", "qp_b": "24"},
    ),
    # Constant quality is for Apple's own chips only.
    "videotoolbox": Recipe(
        "h264_videotoolbox",
        "Apple VideoToolbox",
        pixels="nv12",
        push={"realtime": "1", "prio_speed": "1", "allow_sw": "0", "bf": "0"},
        file={"allow_sw": "0"},
    ),
}
"""Hardware encoders, in the order in which ``auto`` takes them. Options as in FFmpeg's manual of codecs."""

CODECS = {SOFTWARE: "libx264"} | {name: recipe.codec for name, recipe in RECIPES.items()}
"""FFmpeg's name of each."""


def choose(wanted: str, faults: Mapping[str, str]) -> str:
    """The encoder to take: ``wanted``, or for ``auto`` the first in hardware that works, else ``software``.

    ``faults``: by FFmpeg's name, why an encoder does not work here, empty if it does; what is not in there is not
    known to work. Raises ``UsageError`` for a named one that does not work.
    """
    if wanted == AUTO:
        return next((name for name, recipe in RECIPES.items() if faults.get(recipe.codec) == ""), SOFTWARE)
    if wanted == SOFTWARE:
        return SOFTWARE
    fault = faults.get(RECIPES[wanted].codec, "it could not be tried")
    if fault:
        raise UsageError(refusal(wanted, fault))
    return wanted


def refusal(name: str, fault: str) -> str:
    """The sentence about an encoder that does not work."""
    return f"encoder {name} does not work here: {fault}; take auto or software"
