"""A photographed face's own measure: millimetres of a face of common size, and the lines of its lips and lids in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

_PUPILS = 63.0
"""Millimetres between a face's eyes."""
LIP_SAMPLES = 33

_UPPER_INNER = [78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308]
_LOWER_INNER = [78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308]
_UPPER_OUTER = [61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291]
_LOWER_OUTER = [61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291]
OVAL = [
    *[10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152],
    *[148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109],
]
BROWS = ([70, 63, 105, 66, 107, 46, 53, 52, 65, 55], [300, 293, 334, 296, 336, 276, 283, 282, 295, 285])
_EYES = ([33, 133, 159, 145], [362, 263, 386, 374])
_SKIN = [205, 425, 199]
_OPEN = 1.4
"""Millimetres between the lips, from which on a photograph's mouth is open."""


def ramp(value: npt.ArrayLike, low: float, high: float) -> Floats:
    """0 up to ``low``, 1 from ``high`` on, smooth between."""
    t = np.clip((np.asarray(value, np.float32) - np.float32(low)) / np.float32(high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), np.float32)


def bell(value: npt.ArrayLike, width: float) -> Floats:
    """1 at 0, and 1/e ``width`` away."""
    return np.asarray(np.exp(-((np.asarray(value, np.float32) / np.float32(width)) ** 2)), np.float32)


@dataclass(frozen=True)
class Frame:
    """Where a face is: its mouth's middle is the origin, x along the eyes, y down, both in its millimetres."""

    origin: Floats
    turn: Floats
    mm: float
    """Pixels."""

    @classmethod
    def of(cls, points: Floats) -> Frame:
        """``points``: (468, 3), in pixels."""
        left, right = (points[eye, :2].mean(axis=0) for eye in _EYES)
        across = right - left
        length = float(np.hypot(*across))
        x, y = across / length
        turn = np.array([[x, y], [-y, x]], np.float32)
        return cls(np.asarray(points[[61, 291], :2].mean(axis=0), np.float32), turn, length / _PUPILS)

    def face(self, pixels: npt.ArrayLike) -> Floats:
        """(N, 2) points of the picture, in millimetres."""
        return np.asarray((np.asarray(pixels, np.float32) - self.origin) @ self.turn.T / self.mm, np.float32)

    def picture(self, face: Floats) -> Floats:
        """(N, 2) points in millimetres, in the picture's pixels."""
        return np.asarray(face @ self.turn * self.mm + self.origin, np.float32)

    def along(self, moves: Floats) -> Floats:
        """(..., 2) moves in millimetres, in pixels."""
        return np.asarray(moves @ self.turn * self.mm, np.float32)


def sampled(picture: npt.NDArray[Any], where: Floats, how: int = cv2.INTER_LINEAR) -> npt.NDArray[Any]:
    """``picture`` at ``where`` (h, w, 2), of its own type; its border goes on outside it."""
    remap: Any = cv2.remap
    return np.asarray(remap(picture, where, None, how, borderMode=cv2.BORDER_REPLICATE))


def softness(picture: npt.NDArray[np.uint8], points: Floats) -> float:
    """Half the width in pixels that an edge of ``picture`` (S, S, 3) has where ``points`` (468, 3) are: what is painted
    is as sharp as what was photographed."""
    low, high = (
        np.clip(edge, 0, picture.shape[0]).astype(int) for edge in (points[:, :2].min(0), points[:, :2].max(0))
    )
    face = picture[low[1] : high[1], low[0] : high[0]].mean(axis=2).astype(np.float32)
    once, twice = cv2.GaussianBlur(face, (0, 0), 1), cv2.GaussianBlur(face, (0, 0), 2)
    fine = float(np.abs(face - once).mean()) / (float(np.abs(once - twice).mean()) + 1e-3)
    return 0.75 * float(np.clip((0.85 / (fine + 1e-3)) ** 1.5, 1, 3))


def line(points: Floats, samples: int) -> Floats:
    """(N, 2) points along a line made (samples, 2), denser to its ends, where lines of lips and lids bend most."""
    steps = np.hypot(*np.diff(points, axis=0).T)
    along = np.concatenate([[0], np.cumsum(steps)]) / steps.sum()
    wanted = (1 - np.cos(np.linspace(0, np.pi, samples))) / 2
    return np.stack([np.interp(wanted, along, points[:, axis]) for axis in (0, 1)], axis=1).astype(np.float32)


def _shades(picture: npt.NDArray[np.uint8], points: Floats) -> float:
    """How bright ``picture`` is at most of (N, 2) points."""
    at = np.clip(np.round(points), 0, picture.shape[0] - 1).astype(np.int64)
    return float(np.median(picture[at[:, 1], at[:, 0]].mean(axis=1)))


@dataclass(frozen=True)
class Lips:
    """A mouth as it was photographed, in the face's millimetres."""

    seam: Floats
    """Where the lower lip is cut from what is above it, (LIP_SAMPLES, 2), from corner to corner."""
    ajar: Floats
    """How far above that the upper lip ends, (LIP_SAMPLES,): 0 for a mouth that was shut."""
    teeth: bool
    """Whether its own teeth are seen there."""
    upper: float
    lower: float
    """How thick the lips are."""
    chin: float
    """How far below the corners the chin is."""

    @classmethod
    def of(cls, frame: Frame, points: Floats, picture: npt.NDArray[np.uint8]) -> Lips:
        """``points``: (468, 3), in pixels of ``picture`` (S, S, 3)."""
        flat = frame.face(points[:, :2])
        above, below = line(flat[_UPPER_INNER], LIP_SAMPLES), line(flat[_LOWER_INNER], LIP_SAMPLES)
        between = np.asarray((above + below) / 2, np.float32)
        gap = np.maximum(below[:, 1] - np.interp(below[:, 0], *above.T), 0).astype(np.float32)
        shade = _shades(picture, frame.picture(between)[10:-10])
        edges = points[[_UPPER_OUTER + _LOWER_OUTER, _UPPER_INNER + _LOWER_INNER], :2]
        lip = _shades(picture, np.asarray(edges.mean(axis=0), np.float32))
        # The mesh may see a mouth open that is not: between shut lips there is nothing but lips.
        teeth = shade > 1.15 * lip and shade > 0.6 * _shades(picture, points[_SKIN, :2])
        ajar = gap.max() >= _OPEN and (teeth or shade < 0.75 * lip)
        seam, gap = (below, gap) if ajar else (between, np.zeros_like(gap))
        middle = LIP_SAMPLES // 2
        upper = float(above[middle, 1] - flat[_UPPER_OUTER, 1][4:7].mean())
        lower = float(flat[_LOWER_OUTER, 1][4:7].mean() - below[middle, 1])
        return cls(seam, gap, bool(ajar and teeth), max(upper, 3.0), max(lower, 4.0), float(flat[152, 1]))

    @property
    def half(self) -> float:
        """Half the mouth's width."""
        return float(self.seam[-1, 0] - self.seam[0, 0]) / 2
