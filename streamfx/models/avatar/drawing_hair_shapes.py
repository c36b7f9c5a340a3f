"""Hair as shapes: what each style is made of, in the head's units, for a head without face_width's factor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from streamfx.models.avatar.character import Character
from streamfx.models.avatar.drawing_canvas import Points, curve
from streamfx.models.avatar.drawing_pose import ramp

OUTER, BACK = -0.12, -0.42
"""Depths: of the outline around the head, and of what hangs behind it."""


@dataclass
class Style:
    """Closed shapes ``(N, 3)`` and lines ``(N, 3)``; all but ``wraps`` have the hair's colour."""

    back: list[Points] = field(default_factory=list)
    """Behind neck and clothes."""
    front: list[Points] = field(default_factory=list)
    """Over the face."""
    wraps_back: list[Points] = field(default_factory=list)
    wraps: list[Points] = field(default_factory=list)
    """Cloth over the head."""
    folds: list[Points] = field(default_factory=list)
    back_folds: list[Points] = field(default_factory=list)
    strands: list[Points] = field(default_factory=list)
    """Dark lines over the front."""
    back_strands: list[Points] = field(default_factory=list)
    ties: list[Points] = field(default_factory=list)
    shine: float = 1.0
    """How bright the band of light is: less where hair is coiled."""
    shadow: bool = True
    """Whether the front throws a shadow on the face."""


def at(points: list[tuple[float, float]], z: float | None = None) -> Points:
    """Points at one depth, or on the skull's front (``None``)."""
    flat = np.array(points, np.float64)
    return np.column_stack([flat, _skull(flat) if z is None else np.full(len(flat), z)])


def _skull(flat: Points) -> Points:
    x, y = flat[:, 0] / 1.03, (flat[:, 1] + 0.05) / 1.55
    # Flatter at the sides: there a turn would push it out over the head's outline.
    flatter = 1 - 0.75 * ramp(np.abs(flat[:, 0]), 0.7, 1.0)
    return np.asarray(0.05 + 0.85 * flatter * np.sqrt(np.clip(1 - x * x - y * y, 0, None)))


def arc(start: float, end: float, side: float, top: float, count: int = 13, z: float = OUTER) -> Points:
    """Along the head's outline, degrees clockwise from the top; hair is ``side`` and ``top`` thick there."""
    angle = np.radians(np.linspace(start, end, count))
    volume = side + (top - side) * np.clip(np.cos(angle), 0, 1) ** 1.5
    x = (1.0 + volume) * np.sin(angle)
    y = -0.2 - (0.93 + volume) * np.cos(angle)
    return np.column_stack([x, y, np.full(count, z)])


def closed(*pieces: Points) -> Points:
    """Splines through each piece, joined with corners."""
    return np.vstack([curve(piece) if len(piece) > 2 else piece for piece in pieces])


def bumps(outline: Points, count: int, height: float, phase: float = 0.0) -> Points:
    """A closed outline with round bumps all along, as curls have."""
    step = np.vstack([outline, outline[:1]])
    length = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(step[:, :2], axis=0).T))])
    s = np.linspace(0, length[-1], count * 8, endpoint=False)
    dense = np.stack([np.interp(s, length, step[:, axis]) for axis in range(3)], axis=1)
    ahead = np.roll(dense, -3, axis=0) - np.roll(dense, 3, axis=0)
    size = np.hypot(ahead[:, 0], ahead[:, 1]) + 1e-9
    area = np.sum(dense[:, 0] * np.roll(dense[:, 1], -1) - np.roll(dense[:, 0], -1) * dense[:, 1])
    turn = np.arange(len(s)) / 8 + phase
    swell = height * (1 + 0.3 * np.sin(turn * 2.1)) * np.abs(np.sin(np.pi * turn)) ** 0.7
    out = np.sign(area) * np.stack([ahead[:, 1] / size, -ahead[:, 0] / size], axis=1)
    dense[:, :2] += out * swell[:, None]
    return dense


def locks(points: list[tuple[float, float, float]], width: float, tip: float = 0.25, wave: float = 0.0) -> Points:
    """A tress along a line: full, then thinner towards its round end; ``wave`` swings its sides."""
    line = curve(np.array(points))
    s = np.linspace(0, 1, len(line))
    along = np.gradient(line[:, :2], axis=0)
    along /= np.hypot(along[:, 0], along[:, 1])[:, None] + 1e-9
    across = np.stack([along[:, 1], -along[:, 0]], axis=1)
    half = width / 2 * (1 - (1 - tip) * s**2.5) * np.minimum(1, 0.6 + 2 * s)
    swing = wave * np.sin(s * np.pi * 4.2)
    left, right = line.copy(), line.copy()
    left[:, :2] += across * (half + swing)[:, None]
    right[:, :2] -= across * (half - swing)[:, None]
    turn = np.linspace(0, np.pi, 7)[1:-1, None]
    end = np.repeat(line[-1:], len(turn), axis=0)
    end[:, :2] += across[-1] * swing[-1] + half[-1] * (np.cos(turn) * across[-1] + np.sin(turn) * along[-1])
    return np.vstack([left, end, right[::-1]])


def plait(points: list[tuple[float, float, float]], width: float, count: int) -> tuple[list[Points], list[Points]]:
    """A braid: leaves that lie alternately to the left and right, and the dark lines between them."""
    line = curve(np.array(points))
    leaves, lines = [], []
    index = np.linspace(0, len(line) - 1, count + 1)
    for n in range(count):
        middle = np.array(
            [np.interp((index[n] + index[n + 1]) / 2, np.arange(len(line)), line[:, k]) for k in range(3)]
        )
        size = width * (1 - 0.35 * n / count)
        lean = 1 if n % 2 else -1
        turn = np.linspace(0, 2 * np.pi, 14, endpoint=False)
        x, y = size * 0.62 * np.cos(turn), size * 0.5 * np.sin(turn)
        tilt = 0.55 * lean
        leaf = np.stack([x * np.cos(tilt) - y * np.sin(tilt), x * np.sin(tilt) + y * np.cos(tilt), 0 * x], axis=1)
        leaves.append(leaf + middle + [lean * size * 0.1, 0, 0])
        reach = np.array([[-0.55 * lean, -0.2, 0.01], [0.05 * lean, 0.18, 0.01], [0.42 * lean, 0.1, 0.01]]) * 0.8 * size
        lines.append(curve(reach * [1, 1, 1 / size] + middle))
    return leaves, lines


def sweep(hairline: Points, crown: tuple[float, float], count: int, reach: float = 0.75) -> list[Points]:
    """Strands from along a hairline towards the crown."""
    lines = []
    for place in np.linspace(0.08, 0.92, count):
        n = place * (len(hairline) - 1)
        start = np.array([np.interp(n, np.arange(len(hairline)), hairline[:, k]) for k in range(3)])
        target = np.array([crown[0] + 0.35 * start[0], crown[1], 0.1])
        bend = start + (target - start) * 0.5 + [0.12 * start[0], -0.02, 0.05]
        lines.append(curve(np.array([start, start + (bend - start) * 0.8, start + (target - start) * reach])))
    return lines


def coils(places: list[tuple[float, float]], size: float) -> list[Points]:
    """Small hooks that say that hair is curled."""
    lines = []
    for n, (x, y) in enumerate(places):
        lean = size if n % 2 else -size
        hook = [
            (x - lean, y - 0.3 * size),
            (x, y - 0.75 * size),
            (x + 0.8 * lean, y),
            (x + 0.1 * lean, y + 0.55 * size),
        ]
        lines.append(curve(at(hook)))
    return lines


def mirrored(shapes: list[Points]) -> list[Points]:
    """The same on the other side."""
    return [shape * [-1, 1, 1] for shape in shapes]


Maker: TypeAlias = Callable[[Character], Style]
