"""What a picture is painted on: splines, filled shapes, tapered strokes and soft shade, in a picture [-1, 1] wide."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate
from typing import NamedTuple, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

Points: TypeAlias = npt.NDArray[np.float64]
"""(N, 2): x to the right and y down, the picture from -1 to 1 in both; (N, 3) with a depth towards the watcher."""
Pixels: TypeAlias = npt.NDArray[np.uint8]
Colour: TypeAlias = tuple[int, int, int]

WHITE: Colour = (255, 255, 255)
BLACK: Colour = (0, 0, 0)
SHIFT = 4
REACH = 0.15
"""How far what is painted inside a shape may go beyond it."""
GRAIN = 4
"""How coarse soft shade is; hard shade is half as coarse."""
STEPS = 8


def rgb(text: str) -> Colour:
    """``#rrggbb`` as three numbers."""
    return int(text[1:3], 16), int(text[3:5], 16), int(text[5:7], 16)


def mix(one: Colour, other: Colour, share: float) -> Colour:
    """``one`` with that share of ``other`` in it, each channel rounded."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(one, other, strict=True))
    return red, green, blue


def times(one: Colour, other: Colour) -> Colour:
    """The product, with 255 as one: ``one`` under a light of the colour ``other``."""
    red, green, blue = (a * b // 255 for a, b in zip(one, other, strict=True))
    return red, green, blue


def ratio(shaded: Colour, base: Colour) -> Colour:
    """What ``base`` is to be multiplied with to give ``shaded``, as far as that darkens it."""
    red, green, blue = (min(255, a * 255 // max(b, 1)) for a, b in zip(shaded, base, strict=True))
    return red, green, blue


@lru_cache(maxsize=256)
def _basis(count: int, closed: bool, steps: int) -> Points:
    """The matrix ``(samples, count)`` of a Catmull-Rom spline through ``count`` points."""
    t = np.arange(steps) / steps
    weights = 0.5 * np.stack(
        [-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, -(t**2) + t**3], axis=1
    )
    spans = count if closed else count - 1
    matrix = np.zeros((spans * steps + (not closed), count))
    for span in range(spans):
        for offset in range(4):
            index = span + offset - 1
            index = index % count if closed else min(max(index, 0), count - 1)
            matrix[span * steps : (span + 1) * steps, index] += weights[:, offset]
    if not closed:
        matrix[-1, -1] = 1
    return matrix


def curve(points: Points, closed: bool = False, steps: int = STEPS) -> Points:
    """A smooth line through all ``points``; one that is there twice makes a corner."""
    smooth: Points = _basis(len(points), closed, steps) @ points
    return smooth


def moved(points: Points, right: float, down: float) -> Points:
    """All points, shifted."""
    return np.asarray(points + np.array([right, down]))


def area(points: Points) -> float:
    """Of a closed outline: below 0 where it runs counterclockwise as it is seen."""
    x, y = points[:, 0], points[:, 1]
    return float(x[:-1] @ y[1:] - x[1:] @ y[:-1] + x[-1] * y[0] - x[0] * y[-1]) / 2


def apart(points: Points, counts: Sequence[int]) -> list[Points]:
    """Rows that were stacked, as they were: the first ``counts[0]`` of them, and so on."""
    ends = list(accumulate(counts))
    return [points[end - count : end] for end, count in zip(ends, counts, strict=True)]


@lru_cache(maxsize=8)
def circle(count: int = 24) -> Points:
    """A circle of radius 1 as ``(count, 2)``."""
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def normals(line: Points, closed: bool = False) -> Points:
    """Unit vectors across a line, ``(N, 2)``: to the outside of a closed one that runs clockwise as it is seen."""
    along = np.empty_like(line)
    along[1:-1] = line[2:] - line[:-2]
    along[0] = line[1] - line[-1 if closed else 0]
    along[-1] = line[0 if closed else -1] - line[-2]
    length = np.sqrt(along[:, 0] ** 2 + along[:, 1] ** 2) + 1e-9
    across = np.empty_like(line)
    across[:, 0] = along[:, 1] / length
    across[:, 1] = -along[:, 0] / length
    return across


@lru_cache(maxsize=64)
def _taper(count: int, kind: str) -> Points:
    s = np.linspace(0, 1, count)[:, None]
    if kind == "both":
        return np.asarray(np.sin(np.pi * np.clip(s, 0.004, 0.996)) ** 0.7)
    if kind == "end":
        return np.asarray((1 - s) ** 0.7 * np.minimum(1, 0.35 + s * 6))
    return np.ones_like(s)


def ribbon(line: Points, width: float, taper: str = "both") -> Points:
    """The outline of a stroke along ``line``: thin at ``both`` ends, at its ``end``, or round and even (``none``)."""
    across = normals(line)
    half = across * _taper(len(line), taper) * (width / 2)
    sides = [line + half, (line - half)[::-1]]
    if taper == "none":
        turn = np.linspace(0, np.pi, 7)[1:-1, None]
        last, first = across[-1] * width / 2, across[0] * width / 2
        onward = np.array([-last[1], last[0]]), np.array([first[1], -first[0]])
        sides.insert(1, line[-1] + np.cos(turn) * last + np.sin(turn) * onward[0])
        sides.append(line[0] - np.cos(turn) * first + np.sin(turn) * onward[1])
    return np.vstack(sides)


class Canvas:
    """Square ``pixels``, painted in place: 3 channels, or 4 for a layer whose colours are multiplied with its opacity.

    With a ``line`` (a width in the picture's units) every ``shape`` gets an outline of the colour ``ink``, which is
    heavier on the side that is turned away from the light (``light``: -1 from the left, 1 from the right).
    """

    def __init__(self, pixels: Pixels, line: float = 0.0, ink: Colour = BLACK, light: float = -1):
        self.pixels, self.side = pixels, len(pixels)
        self.line, self.ink, self.light = line, ink, light
        self.opaque = pixels.shape[2] == 4

    def fixed(self, points: Points, coarse: int = 1) -> npt.NDArray[np.int32]:
        """Points in the fixed point numbers that OpenCV draws with, on a grid ``coarse`` times coarser."""
        return np.rint((points + 1.0) * (self.side / coarse * (1 << SHIFT) / 2) - (1 << SHIFT) / 2).astype(np.int32)

    def _value(self, colour: Colour) -> tuple[int, ...]:
        return (*colour, 255) if self.opaque else colour

    def fill(self, points: Points, colour: Colour) -> None:
        """A filled shape with smooth edges."""
        cv2.fillPoly(self.pixels, [self.fixed(points)], self._value(colour), cv2.LINE_AA, SHIFT)

    def veil(self, points: Points, colour: Colour, share: float) -> None:
        """A filled shape that lets what is below it through: it covers a ``share`` of it."""
        box = self.box(points)
        before = self.pixels[box].copy()
        self.fill(points, colour)
        self.pixels[box] = cv2.addWeighted(before, 1 - share, self.pixels[box], share, 0)

    def fill_all(self, shapes: Sequence[Points], colour: Colour) -> None:
        """Several shapes at once; where two overlap there is a hole, which is how rings are drawn."""
        cv2.fillPoly(self.pixels, [self.fixed(shape) for shape in shapes], self._value(colour), cv2.LINE_AA, SHIFT)

    def stroke(self, line: Points, width: float, colour: Colour, taper: str = "both") -> None:
        """A line with a width in the picture's units."""
        self.fill(ribbon(line, width, taper), colour)

    def shape(self, points: Points, colour: Colour) -> None:
        """A filled shape, with an outline if this canvas has any: the ink is what is seen of a larger one below."""
        if self.line:
            across = normals(points, closed=True)
            weight = 0.72 - 0.28 * self.light * across[:, :1] + 0.22 * across[:, 1:]
            half = across * (weight * (self.line / 2))
            # Points may run either way around: the ring is the same, which side is outside does not matter for that.
            if area(points) < 0:
                half = -half
            self.fill(points + half, self.ink)
            points = points - half
        self.fill(points, colour)

    def stencil(self, shapes: Sequence[Points], grain: int = 1) -> Stencil:
        """What lies inside any of the shapes (at least one); its box starts and ends at multiples of ``grain``."""
        rows, columns = self.box(np.vstack(shapes), 0.03)
        top, bottom = rows.start // grain * grain, -(-rows.stop // grain) * grain
        left, right = columns.start // grain * grain, -(-columns.stop // grain) * grain
        inside: Pixels = np.zeros((bottom - top, right - left), np.uint8)
        corner = np.array([left, top], np.int32) << SHIFT
        for points in shapes:
            cv2.fillPoly(inside, [self.fixed(points) - corner], 255, cv2.LINE_AA, SHIFT)
        keep = np.asarray(cv2.merge([inside] * self.pixels.shape[2]), np.uint8)
        return Stencil((slice(top, bottom), slice(left, right)), keep)

    def box(self, points: Points, margin: float = 0.02) -> tuple[slice, slice]:
        """Rows and columns around some points; never empty."""
        half, last = self.side / 2, self.side - 1
        left, top = ((points.min(axis=0) - margin + 1) * half).tolist()
        right, bottom = ((points.max(axis=0) + margin + 1) * half).tolist()
        left, top = min(max(int(left), 0), last), min(max(int(top), 0), last)
        return slice(top, min(max(int(bottom), top), last) + 1), slice(left, min(max(int(right), left), last) + 1)

    def inside(self, points: Points) -> Inside:
        """For what is to be seen only inside a shape: ``with canvas.inside(points): canvas.fill(...)``."""
        return Inside(self, points)


class Stencil(NamedTuple):
    """Part of a canvas (``box``: rows and columns) and how far each channel of each pixel there is inside, to 255."""

    box: tuple[slice, slice]
    keep: Pixels


class Inside:
    """Keeps what is painted within one shape: what lies outside it, up to ``REACH`` away, is put back."""

    def __init__(self, canvas: Canvas, points: Points):
        self.canvas, self.points = canvas, points
        self.box = canvas.box(points, REACH)

    def __enter__(self) -> None:
        self.before = self.canvas.pixels[self.box].copy()

    def __exit__(self, *_: object) -> None:
        after = self.canvas.pixels[self.box]
        rows, columns = self.box
        mask: Pixels = np.zeros(after.shape[:2], np.uint8)
        corner = np.array([columns.start, rows.start], np.int32) << SHIFT
        cv2.fillPoly(mask, [self.canvas.fixed(self.points) - corner], 255, cv2.LINE_AA, SHIFT)
        keep = cv2.merge([mask] * after.shape[2])
        inner = cv2.multiply(after, keep, scale=1 / 255)
        outer = cv2.multiply(self.before, cv2.bitwise_not(keep), scale=1 / 255)
        self.canvas.pixels[self.box] = cv2.add(inner, outer)


class Shade:
    """A map that part of a canvas is multiplied with (``dark``) or that is added to it, painted coarse and blurred.

    ``hard`` shade has sharp edges and does not add up where it overlaps, as in flat illustrations.
    """

    def __init__(self, canvas: Canvas, hard: bool = False, dark: bool = True):
        self.canvas, self.hard, self.dark = canvas, hard, dark
        self.coarse = GRAIN // 2 if hard else GRAIN
        self.side = canvas.side // self.coarse
        self.map: Pixels = np.full((self.side, self.side, 3), 255 if dark else 0, np.uint8)

    def paint(self, shapes: Sequence[Points], colour: Colour, blur: float = 0.0, strength: float = 1.0) -> None:
        """Adds shapes of one colour, their edges ``blur`` wide in the picture's units (hard shade: a tenth of that)."""
        colour = mix(WHITE if self.dark else BLACK, colour, strength)
        reach = round(blur * (0.05 if self.hard else 0.5) * self.side / 2)
        layer = np.full_like(self.map, 255 if self.dark else 0)
        for points in shapes:
            cv2.fillPoly(layer, [self.canvas.fixed(points, self.coarse)], colour, cv2.LINE_AA, SHIFT)
        if reach >= 1:
            kernel = (2 * reach + 1,) * 2
            layer = np.asarray(cv2.blur(cv2.blur(layer, kernel), kernel), np.uint8)
        if self.hard:
            cv2.min(self.map, layer, self.map) if self.dark else cv2.max(self.map, layer, self.map)
        elif self.dark:
            cv2.multiply(self.map, layer, self.map, 1 / 255)
        else:
            cv2.add(self.map, layer, self.map)

    def apply(self, within: Stencil) -> None:
        """Puts the map on the canvas; ``within`` has this map's ``coarse`` grain."""
        rows, columns = (slice(side.start // self.coarse, side.stop // self.coarse) for side in within.box)
        keep = within.keep[..., :3]
        fine = cv2.resize(self.map[rows, columns], keep.shape[1::-1], interpolation=cv2.INTER_LINEAR)
        target = self.canvas.pixels[within.box][..., :3]
        if self.dark:
            cv2.max(fine, cv2.bitwise_not(keep), fine)
            target[:] = cv2.multiply(target, fine, scale=1 / 255)
        else:
            target[:] = cv2.add(target, cv2.min(fine, keep, fine))
