"""Video4Linux: what a device node is and which pictures it gives, asked of its driver by ioctl. Linux only."""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

LOOPBACK_DRIVER = "v4l2 loopback"

# <linux/videodev2.h>: the numbers hold the size of what is passed.
_QUERYCAP, _ENUM_FMT, _ENUM_FRAMESIZES, _ENUM_FRAMEINTERVALS = 0x80685600, 0xC0405602, 0xC02C564A, 0xC034564B
_CAPTURE, _OUTPUT, _MEM2MEM, _DEVICE_CAPS = 0x1, 0x2, 0xC000, 0x80000000
_BUF_TYPE_CAPTURE, _DISCRETE = 1, 1
_MOST = 64
"""Entries of one list that are asked for: a driver that never says "no more" must not hold us."""

_FORMATS = {
    "YUYV": "yuyv422",
    "UYVY": "uyvy422",
    "NV12": "nv12",
    "YU12": "yuv420p",
    "422P": "yuv422p",
    "RGB3": "rgb24",
    "BGR3": "bgr24",
    "GREY": "gray",
    "MJPG": "mjpeg",
    "JPEG": "mjpeg",
    "H264": "h264",
    "HEVC": "hevc",
}
"""FFmpeg's names of what drivers call by four letters."""


@dataclass(frozen=True, slots=True)
class Mode:
    """Pictures of ``size`` = (width, height) in a ``format`` of FFmpeg's, at one of ``rates`` per second."""

    format: str
    size: tuple[int, int]
    rates: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Node:
    """What a driver says of one device node. ``bus``: the plug it is on."""

    driver: str
    card: str
    bus: str
    capabilities: int

    @property
    def captures(self) -> bool:
        """Whether it gives pictures as a camera does."""
        return bool(self.capabilities & _CAPTURE) and not self.capabilities & _MEM2MEM

    @property
    def is_loopback(self) -> bool:
        """Whether it is a virtual camera of v4l2loopback."""
        return self.driver == LOOPBACK_DRIVER

    @property
    def takes_pictures(self) -> bool:
        """Of a virtual camera: whether nobody feeds it yet."""
        return bool(self.capabilities & _OUTPUT)


def query(path: Path) -> Node:
    """Asks a device node what it is. Raises ``OSError`` if it may not be opened or is no video device."""
    with _opened(path) as descriptor:
        return parse_node(_ask(descriptor, _QUERYCAP, bytes(104)))


def parse_node(answer: bytes) -> Node:
    """Reads a ``v4l2_capability``."""
    driver, card, bus, _, whole, node = struct.unpack_from("=16s32s32sIII", answer)
    return Node(_text(driver), _text(card), _text(bus), node if whole & _DEVICE_CAPS else whole)


def modes(path: Path) -> tuple[Mode, ...]:
    """Which pictures a camera gives, in the driver's order; what FFmpeg has no name for is left out. Empty where the
    driver does not tell."""
    with contextlib.suppress(OSError), _opened(path) as descriptor:
        return tuple(_modes(descriptor))
    return ()


def _modes(descriptor: int) -> Iterator[Mode]:
    for answer in _list(descriptor, _ENUM_FMT, lambda n: struct.pack("=II56x", n, _BUF_TYPE_CAPTURE)):
        (fourcc,) = struct.unpack_from("=4s", answer, 44)
        name = _FORMATS.get(fourcc.decode("latin-1"))
        if name is None:
            continue
        for size in _sizes(descriptor, fourcc):
            yield Mode(name, size, tuple(_rates(descriptor, fourcc, size)))


def _sizes(descriptor: int, fourcc: bytes) -> Iterator[tuple[int, int]]:
    for answer in _list(descriptor, _ENUM_FRAMESIZES, lambda n: struct.pack("=I4s36x", n, fourcc)):
        kind, *numbers = struct.unpack_from("=IIIIII", answer, 8)
        if kind != _DISCRETE:
            yield numbers[1], numbers[4]
            return
        yield numbers[0], numbers[1]


def _rates(descriptor: int, fourcc: bytes, size: tuple[int, int]) -> Iterator[float]:
    for answer in _list(descriptor, _ENUM_FRAMEINTERVALS, lambda n: struct.pack("=I4sII36x", n, fourcc, *size)):
        kind, numerator, denominator = struct.unpack_from("=III", answer, 16)
        if numerator:
            yield round(denominator / numerator, 3)
        if kind != _DISCRETE:
            return


def _list(descriptor: int, request: int, question: Callable[[int], bytes]) -> Iterator[bytes]:
    with contextlib.suppress(OSError):  # its way of saying that there is no more
        for n in range(_MOST):
            yield _ask(descriptor, request, question(n))


def _ask(descriptor: int, request: int, question: bytes) -> bytes:
    import fcntl

    answer = bytearray(question)
    fcntl.ioctl(descriptor, request, answer)
    return bytes(answer)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDWR | getattr(os, "O_NONBLOCK", 0))
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _text(raw: bytes) -> str:
    return raw.partition(b"\0")[0].decode("utf-8", "replace").strip()
