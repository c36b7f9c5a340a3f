"""Decoding in hardware, as a source's option ``hwaccel`` asks for it."""

from __future__ import annotations

import difflib
from collections.abc import Iterator

import av
from av.codec.hwaccel import HWAccel, hwdevices_available

from streamfx.core.errors import UsageError
from streamfx.media.url import MediaUrl

DEVICES = {
    "cuda": "NVIDIA NVDEC",
    "videotoolbox": "Apple VideoToolbox",
    "d3d11va": "Direct3D 11",
    "vaapi": "VA-API (Intel, AMD)",
}
"""Devices, in the order in which ``auto`` tries them."""

NONE, AUTO = "none", "auto"


def hwaccel_option(url: MediaUrl) -> str:
    """What ``?hwaccel=`` says; ``none`` without it. Raises ``UsageError`` for what is no device."""
    names = (NONE, AUTO, *DEVICES)
    wanted = url.options.get("hwaccel", NONE)
    if wanted not in names:
        near = difflib.get_close_matches(wanted, names, 1)
        hint = f"did you mean {near[0]}?" if near else f"choose {', '.join(names)}"
        raise UsageError(f"{url}: option hwaccel is {wanted!r}; {hint}")
    return wanted


def accelerator(device: str, fallback: bool = True) -> HWAccel:
    """Settings for a device. ``fallback``: what the device cannot decode is decoded in software."""
    return HWAccel(device_type=device, allow_software_fallback=fallback)


def find_device(wanted: str, codec: str) -> HWAccel | None:
    """The device that decodes ``codec`` (FFmpeg's name of a decoder); None for software. Blocks while it is opened.

    Raises ``UsageError`` if a named one does not.
    """
    for device in _candidates(wanted):
        try:
            context = av.CodecContext.create(codec, "r", accelerator(device))
        except (av.FFmpegError, OSError, ValueError) as error:
            fault = f"it cannot be opened ({(getattr(error, 'strerror', None) or str(error)).lower()})"
        else:
            if context.is_hwaccel:
                return accelerator(device)
            fault = "it has no decoder"
        if wanted != AUTO:
            raise UsageError(f"hwaccel={device} cannot decode {codec} here: {fault}; take hwaccel=auto or none")
    return None


def _candidates(wanted: str) -> Iterator[str]:
    if wanted == AUTO:
        present = hwdevices_available()
        yield from (device for device in DEVICES if device in present)
    elif wanted != NONE:
        yield wanted
