"""The test picture and its sound: frame numbers that can be read back from the pixels, flashes that go with clicks."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from streamfx.core.frames import AUDIO_RATE, Pixels, Samples

_COUNTER_BITS = 20
_CHECK_BITS = 6
_CELLS = 1 + _COUNTER_BITS + _CHECK_BITS + 1
"""A white cell, the number, its check, a black cell: what is white and what black is read from the strip itself."""

_STRIP_TOP, _STRIP_BOTTOM = 0.03, 0.13
_STRIP_LEFT, _STRIP_RIGHT = 0.03, 0.97
_PATCH = (0.74, 0.94, 0.84, 0.97)
"""The flash: top, bottom, left, right, as shares of the picture."""

_TONE_HZ, _TONE_LEVEL = 220.0, 0.04
_CLICK_HZ, _CLICK_LEVEL, _CLICK_SECONDS = 1000.0, 0.6, 0.02

_BARS = ((235, 235, 235), (240, 215, 70), (70, 200, 215), (90, 190, 90), (200, 90, 170), (215, 75, 65), (60, 85, 185))
_DIGITS = (
    "01110 10001 10011 10101 11001 10001 01110",
    "00100 01100 00100 00100 00100 00100 01110",
    "01110 10001 00001 00110 01000 10000 11111",
    "11111 00010 00100 00010 00001 10001 01110",
    "00010 00110 01010 10010 11111 00010 00010",
    "11111 10000 11110 00001 00001 10001 01110",
    "00110 01000 10000 11110 10001 10001 01110",
    "11111 00001 00010 00100 01000 01000 01000",
    "01110 10001 10001 01110 10001 10001 01110",
    "01110 10001 10001 01111 00001 00010 01100",
)


class Pattern:
    """The moving test pattern of one size: (width, height) from 64x36 on, at ``fps`` frames per second.

    Colour bars, a disc that goes round, the frame number as digits and as a strip of black and white cells, and a
    patch that is white for the first frame of each second, when the sound clicks.
    """

    def __init__(self, size: tuple[int, int], fps: float) -> None:
        self._width, self._height = size
        self._fps = fps
        self._background = self._draw_background()
        self._digits = [self._draw_digit(text) for text in _DIGITS]
        self._disc_radius = max(2.0, self._height * 0.07)

    def picture(self, n: int) -> Pixels:
        """Frame ``n``: ``(H, W, 3) uint8`` RGB, a fresh array."""
        picture = self._background.copy()
        for index, bit in enumerate(_cells_of(n)):
            rows, columns = _cell_box(index, self._width, self._height)
            picture[rows, columns] = 255 if bit else 0
        self._draw_disc(picture, n / self._fps)
        self._draw_number(picture, n)
        rows, columns = _box(_PATCH, self._width, self._height)
        picture[rows, columns] = 255 if self.flashes(n) else 16
        return picture

    def flashes(self, n: int) -> bool:
        """Whether frame ``n`` is the first of a second."""
        return math.floor(n / self._fps + 1e-9) > math.floor((n - 1) / self._fps + 1e-9)

    @staticmethod
    def sound(start: int, samples: int) -> Samples:
        """``(2, samples) float32`` from sample index ``start`` on: a soft tone, and a click as each second begins."""
        index = np.arange(start, start + samples)
        tone = _TONE_LEVEL * np.sin(2 * np.pi * _TONE_HZ * (index % AUDIO_RATE) / AUDIO_RATE)
        since = (index % AUDIO_RATE) / AUDIO_RATE
        click = np.where(since < _CLICK_SECONDS, _CLICK_LEVEL * np.sin(2 * np.pi * _CLICK_HZ * since), 0.0)
        return np.tile((tone + click).astype(np.float32), (2, 1))

    def _draw_background(self) -> Pixels:
        picture = np.empty((self._height, self._width, 3), np.float32)
        bar = np.minimum(np.arange(self._width) * len(_BARS) // self._width, len(_BARS) - 1)
        picture[:] = np.asarray(_BARS, np.float32)[bar]
        shade = np.linspace(0.95, 0.45, self._height, dtype=np.float32)[:, None, None]
        picture *= shade
        ramp = slice(int(self._height * 0.62), int(self._height * 0.70))
        picture[ramp] = np.linspace(0, 255, self._width, dtype=np.float32)[None, :, None]
        picture[: int(self._height * 0.16)] = 24
        picture[int(self._height * 0.70) :] = 24
        return picture.astype(np.uint8)

    def _draw_digit(self, text: str) -> NDArray[np.bool_]:
        dots = np.array([[dot == "1" for dot in row] for row in text.split()])
        scale = max(1, self._height // 48)
        return np.kron(dots, np.ones((scale, scale), bool)).astype(bool)

    def _draw_number(self, picture: Pixels, n: int) -> None:
        top, left = int(self._height * 0.76), int(self._width * 0.05)
        for digit in f"{n:06d}":
            dots = self._digits[int(digit)]
            area = picture[top : top + dots.shape[0], left : left + dots.shape[1]]
            area[dots[: area.shape[0], : area.shape[1]]] = 230
            left += dots.shape[1] + max(1, dots.shape[1] // 5)

    def _draw_disc(self, picture: Pixels, seconds: float) -> None:
        angle = 2 * math.pi * seconds / 4
        x = self._width * (0.5 + 0.36 * math.sin(angle))
        y = self._height * (0.39 - 0.14 * math.cos(2 * angle))
        reach = math.ceil(self._disc_radius) + 1
        top, left = max(0, int(y) - reach), max(0, int(x) - reach)
        patch = picture[top : int(y) + reach + 1, left : int(x) + reach + 1]
        rows, columns = np.ogrid[top : top + patch.shape[0], left : left + patch.shape[1]]
        distance = np.hypot(rows - y, columns - x)
        cover = np.clip(self._disc_radius + 0.5 - distance, 0.0, 1.0)[..., None]
        glow = np.clip(1.15 - 0.5 * distance / self._disc_radius, 0.0, 1.0)[..., None]
        patch[:] = (patch * (1 - cover) + np.array((255, 140, 40)) * glow * cover).astype(np.uint8)


def read_counter(pixels: Pixels) -> int | None:
    """The frame number in a picture of the pattern, at whatever size it has come to; None if it cannot be read
    without doubt. Numbers count modulo 2**20."""
    height, width = pixels.shape[:2]
    levels = [float(pixels[_cell_box(index, width, height, core=0.5)].mean()) for index in range(_CELLS)]
    white, black = levels[0], levels[-1]
    clear = 0.3 * (white - black)
    if white - black < 60 or any(min(abs(level - white), abs(level - black)) > clear for level in levels):
        return None
    bits = [level > (white + black) / 2 for level in levels[1:-1]]
    number = sum(bit << index for index, bit in enumerate(reversed(bits[:_COUNTER_BITS])))
    return number if [True, *bits, False] == _cells_of(number) else None


def is_flash(pixels: Pixels) -> bool:
    """Whether the flash of the pattern is lit in this picture."""
    rows, columns = _box(_PATCH, pixels.shape[1], pixels.shape[0], core=0.5)
    return float(pixels[rows, columns].mean()) > 128


def click_times(samples: Samples) -> list[float]:
    """Seconds, from the start of ``(2, N) float32`` at 48 kHz, at which clicks begin; within 1 ms, codecs included."""
    loud = np.flatnonzero(np.abs(samples).max(axis=0) > 0.4 * _CLICK_LEVEL)
    if not loud.size:
        return []
    begins = loud[np.concatenate(([True], np.diff(loud) > 0.3 * AUDIO_RATE))]
    return [float(index / AUDIO_RATE) for index in begins]


def _cells_of(n: int) -> list[bool]:
    number = n % (1 << _COUNTER_BITS)
    check = (number * 0x9E3779B1 >> 7) % (1 << _CHECK_BITS)
    word = number << _CHECK_BITS | check
    bits = [bool(word >> index & 1) for index in reversed(range(_COUNTER_BITS + _CHECK_BITS))]
    return [True, *bits, False]


def _cell_box(index: int, width: int, height: int, core: float = 1.0) -> tuple[slice, slice]:
    step = (_STRIP_RIGHT - _STRIP_LEFT) / _CELLS
    left = _STRIP_LEFT + index * step
    return _box((_STRIP_TOP, _STRIP_BOTTOM, left, left + step), width, height, core)


def _box(shares: tuple[float, float, float, float], width: int, height: int, core: float = 1.0) -> tuple[slice, slice]:
    """Rows and columns of a rectangle; ``core``: the share of it, per side, around its centre."""
    top, bottom, left, right = shares
    dy, dx = (bottom - top) * (1 - core) / 2, (right - left) * (1 - core) / 2
    rows = round((top + dy) * height), round((bottom - dy) * height)
    columns = round((left + dx) * width), round((right - dx) * width)
    return slice(rows[0], max(rows[0] + 1, rows[1])), slice(columns[0], max(columns[0] + 1, columns[1]))
