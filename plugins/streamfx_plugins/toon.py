"""A cartoon of the stream: flat colours, soft tonal steps, ink along the contours.

After H. Winnemöller, S. Olsen, B. Gooch, "Real-time video abstraction" (2006), and H. Winnemöller, J. Kyprianidis,
S. Olsen, "XDoG: an extended difference-of-Gaussians compendium" (2012), with the costly parts at half size.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from streamfx.filters import Block, Context, Filter, FilterInfo, Params

Gray = NDArray[Any]
"""``(H, W) uint8``. OpenCV's own annotations do not tell element types apart."""
Picture = NDArray[Any]
"""``(H, W, 3) uint8`` RGB."""

_QUALITIES = 3
_WORKING_LINES = 400
"""Lines at which surfaces are flattened and contours found; larger pictures are shrunk to it for that."""


class ToonParams(Params):
    """How the cartoon is drawn."""

    smoothing: float = Field(0.6, ge=0, le=1, title="Smoothing", description="how far surfaces are flattened")
    levels: int = Field(9, ge=2, le=24, title="Tones", description="number of brightness steps")
    softness: float = Field(0.5, ge=0, le=1, title="Softness", description="0: hard steps between tones, 1: hardly any")
    ink: float = Field(0.85, ge=0, le=1, title="Ink", description="darkness of the outlines; 0 draws none")
    detail: float = Field(0.5, ge=0, le=1, title="Detail", description="how faint a contour may be to get an outline")
    ink_width: float = Field(1.0, ge=0.5, le=3, title="Line width", description="width of the outlines")
    saturation: float = Field(1.35, ge=0, le=3, title="Saturation", description="1 keeps the colours as they are")
    steadiness: float = Field(
        0.7, ge=0, le=1, title="Steadiness", description="how much still parts are kept from flickering"
    )


class Toon(Filter[ToonParams]):
    """The cartoon filter. Keeps one half-size picture from the past, for steadiness."""

    name = "toon"
    info = FilterInfo(
        summary="Draws the stream as a cartoon: flat colours, soft tones, inked contours.",
        quality_levels=_QUALITIES,
        min_scale=0.5,
    )

    def __init__(self) -> None:
        self._past: NDArray[np.float32] | None = None

    def setup(self, context: Context, params: ToonParams) -> None:
        """Runs one black picture, so that the first real one is not slowed by OpenCV's own start."""
        width, height = context.size
        self.process(Block(video=np.zeros((1, height, width, 3), np.uint8), pts=(0.0,)), params)
        self.reset()

    def process(self, block: Block, params: ToonParams) -> Block:
        drawn = [self._draw(frame, params, min(block.quality, _QUALITIES - 1)) for frame in block.frames]
        return block.with_video(np.stack(drawn))

    def reset(self) -> None:
        self._past = None

    def _draw(self, frame: Picture, params: ToonParams, quality: int) -> Picture:
        """``(H, W, 3) uint8`` RGB → the same shape. ``quality`` 0 smooths twice, 1 once, 2 once and smaller."""
        height, width = frame.shape[:2]
        share = max(1.0, min(height, width) / (_WORKING_LINES if quality < 2 else _WORKING_LINES * 0.7))
        small_size = max(1, round(width / share)), max(1, round(height / share))
        small = self._steady(cv2.resize(frame, small_size, interpolation=cv2.INTER_AREA), params.steadiness)
        flat = _flatten(small, params.smoothing, passes=2 if quality == 0 else 1)
        luma, red, blue = cv2.split(cv2.cvtColor(flat, cv2.COLOR_RGB2YCrCb))
        # Growing before the tones are cut keeps the edges of the tones sharp at full size.
        tones = cv2.LUT(cv2.resize(luma, (width, height), interpolation=cv2.INTER_CUBIC), _tone_curve(params))
        if params.ink > 0:
            ink = _ink_lines(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), params, min(height, width) / share)
            tones = cv2.multiply(tones, cv2.resize(ink, (width, height), interpolation=cv2.INTER_CUBIC), scale=1 / 255)
        curve = _chroma_curve(params.saturation)
        chroma = [cv2.resize(cv2.LUT(c, curve), (width, height), interpolation=cv2.INTER_LINEAR) for c in (red, blue)]
        return np.asarray(cv2.cvtColor(cv2.merge([tones, *chroma]), cv2.COLOR_YCrCb2RGB), np.uint8)

    def _steady(self, small: Picture, steadiness: float) -> Picture:
        """Averages over time where hardly anything moves; a moving part is taken as it comes."""
        now = small.astype(np.float32)
        past = self._past
        if steadiness == 0 or past is None or past.shape != now.shape:
            self._past = now
            return small
        change = cv2.absdiff(now, past)
        moved = cv2.blur(cv2.cvtColor(change, cv2.COLOR_RGB2GRAY), (5, 5))
        weight = np.clip((moved - 6.0) / 14.0, 1.0 - 0.85 * steadiness, 1.0)
        self._past = past + (now - past) * weight[..., None]
        return cv2.convertScaleAbs(self._past).reshape(small.shape)


def _flatten(picture: Picture, smoothing: float, passes: int) -> Picture:
    """Removes texture and keeps edges: a median for the grain, bilateral passes for the surfaces."""
    if smoothing == 0:
        return picture
    for _ in range(passes):
        picture = cv2.bilateralFilter(picture, 5, 10 + 40 * smoothing, 1.0 + 3 * smoothing)
    return np.asarray(cv2.medianBlur(picture, 3 if smoothing < 0.8 else 5), np.uint8)


def _ink_lines(luma: Gray, params: ToonParams, lines: float) -> Gray:
    """White paper with dark lines, ``uint8``, at the size of ``luma``: the extended difference of Gaussians.

    ``lines``: the shorter side of the picture at this size, which the width of the strokes goes with.
    """
    sigma = max(0.5, 1.15 * params.ink_width * lines / _WORKING_LINES)
    fine = luma.astype(np.float32)
    near = cv2.GaussianBlur(fine, (0, 0), sigma)
    far = cv2.GaussianBlur(fine, (0, 0), 1.6 * sigma)
    # Relative to the brightness around: a contour in the shade is as much of a contour as one in the sun.
    valley = cv2.divide(far - near, far + 20.0)
    faintest = 0.065 - 0.055 * params.detail
    line = np.clip((valley - faintest) * (1.0 / (faintest + 0.025)), 0.0, 1.0)
    # Where lines crowd (grass, gravel, leaves) they would turn to dirt: the denser, the fainter.
    side = 2 * round(lines / 24) + 1
    crowd = cv2.blur(line, (side, side))
    line *= np.clip(1.45 - 3.6 * crowd, 0.0, 1.0)
    line *= line * (3 - 2 * line) * (255 * params.ink)
    return np.asarray(255 - line, np.uint8)


@lru_cache(maxsize=16)
def _tone_curve(params: ToonParams) -> Gray:
    """Soft steps: within a step the tone changes little, between steps quickly but not at once."""
    value = np.arange(256, dtype=np.float64) / 255
    step = 1.0 / params.levels
    nearest = (np.floor(value / step) + 0.5) * step
    sharpness = 1.5 + 14 * (1 - params.softness)
    offset = (value - nearest) / step
    # tanh around the border between two steps, as Winnemöller's soft quantisation, written from the step's middle.
    soft = 0.5 * np.tanh(sharpness * (np.abs(offset) - 0.5)) / math.tanh(0.5 * sharpness) + 0.5
    toned = nearest + np.sign(offset) * soft * step * 0.5
    lifted = toned**0.92
    return np.asarray(np.clip(lifted * 255, 0, 255).round(), np.uint8)


@lru_cache(maxsize=16)
def _chroma_curve(saturation: float) -> Gray:
    """Stretches a colour difference around grey, gently towards the ends so that nothing turns neon."""
    value = (np.arange(256, dtype=np.float64) - 128) / 128
    stretched = np.tanh(value * saturation * 1.1) / 1.1
    return np.asarray(np.clip(128 + 128 * stretched, 0, 255).round(), np.uint8)
