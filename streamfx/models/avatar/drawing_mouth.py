"""The mouth: lips as smooth functions of the coefficients, and what is seen between them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from streamfx.models.avatar.character import Character
from streamfx.models.avatar.drawing_canvas import Canvas, Points, circle, mix, moved, ribbon
from streamfx.models.avatar.drawing_paints import Paints
from streamfx.models.avatar.drawing_pose import Head, Pose, ramp

Place: TypeAlias = Callable[[Points], Points]
"""Flat points of the face to points of the picture."""

WIDTH = 0.355
HEIGHT = 0.715
"""Where the closed lips meet, below the eyes, in the head's units."""
SAMPLES = 33
# Denser towards the corners, where the lips' edges are steepest.
_T = np.sin(np.linspace(-np.pi / 2, np.pi / 2, SAMPLES))


class Mouth:
    """A character's mouth in one pose, in the face's flat units: all outlines as functions of x, left to right.

    The four lines ``upper_outer``, ``upper_inner``, ``lower_inner`` and ``lower_outer``, ``(SAMPLES, 2)``, keep that
    order from top to bottom for every pose, since each is the one above it plus something that is never negative.
    """

    def __init__(self, who: Character, pose: Pose):
        wide, rounded, press, tuck = pose.lips_wide, pose.lips_round, pose.lips_press, pose.lip_tuck
        glad, sad = max(pose.smile, 0.0), max(-pose.smile, 0.0)
        shown = 1 - press
        jaw = pose.jaw_open**0.85
        gap = 0.46 * jaw * (1 - 0.14 * rounded) * (1 - 0.22 * wide)
        # An s holds the rows of teeth together; an f leaves just the upper teeth's edge; an l needs room for the tip.
        gap += (0.145 - gap) * pose.teeth * (0.92 if gap > 0.145 else 1.0)
        gap += (0.1 - gap) * tuck * 0.94
        gap += max(0.0, 0.17 * pose.tongue_up - gap) * (1 - 0.6 * rounded)
        self.gap = gap * shown
        self.opening = float(np.clip(self.gap / 0.2, 0, 1))

        spread = (1 + 0.27 * wide + 0.17 * glad - 0.05 * sad) * (1 - 0.5 * rounded) * (1 - 0.1 * jaw * shown)
        self.half = WIDTH * who.mouth_width * spread * (1 - 0.06 * tuck)
        inner = self.half * (1 - 0.2 * rounded)
        outer = self.half + 0.012 + 0.035 * rounded
        thick = (1 - 0.48 * press) * (1 + 0.3 * rounded) * (1 - 0.14 * wide) * (1 - 0.1 * glad)
        upper = 0.088 * who.lip_upper * thick * (1 - 0.12 * jaw * shown)
        lower = 0.112 * who.lip_lower * thick * (1 - 0.1 * jaw * shown) * (1 - 0.55 * tuck)

        middle = HEIGHT * who.face_length - 0.035 * rounded * (1 - self.opening) - 0.05 * self.opening + 0.014 * press
        top = middle - 0.01 * glad
        corner = (
            middle
            - 0.04 * (1 - rounded)
            + 0.4 * self.gap
            - (0.105 * glad - 0.07 * sad) * (1 - 0.55 * rounded)
            + 0.014 * press
        )
        # Between a calm curve and a ring: how full the lines are towards the corners.
        full = 0.5 + 0.42 * (1 - rounded) * (1 - 0.9 * self.opening)
        span = (1 - np.abs(_T) ** 2.2) ** full
        outer_span = (1 - np.abs(_T) ** 2) ** (0.92 - 0.42 * max(rounded, 0.7 * self.opening))
        bead = 0.016 * np.exp(-((_T / 0.24) ** 2)) * (1 - rounded) * (1 - press)
        bow = 0.3 * who.lip_bow * np.exp(-((_T / 0.17) ** 2)) * (1 - 0.75 * rounded)
        closed = corner + (top - corner) * span + bead * (1 - 0.8 * self.opening)
        self.upper_inner = np.stack([inner * _T, closed], axis=1)
        self.lower_inner = np.stack([inner * _T, closed + self.gap * span], axis=1)
        outer_line = np.interp(outer * _T, inner * _T, closed)
        under_line = np.interp(outer * _T, inner * _T, self.lower_inner[:, 1])
        ceiling = corner + (top - upper - corner) * outer_span + upper * bow
        ground = corner + (top + self.gap + lower - corner) * outer_span
        # Lips have curves of their own, and never less than a rim around what is open.
        ceiling = np.minimum(ceiling, outer_line - 0.3 * upper * outer_span)
        ground = np.maximum(ground, under_line + 0.3 * lower * outer_span)
        self.upper_outer = np.stack([outer * _T, ceiling], axis=1)
        self.lower_outer = np.stack([outer * _T, ground], axis=1)
        self.lift = 0.02 + 0.1 * rounded
        self.corner = np.array([outer, corner])
        self.upper_teeth = 0.125 * (1 - 0.95 * rounded) + 0.02 * wide + 0.02 * glad
        self.pose = pose

    def interior(self) -> Points:
        """The closed outline between the lips, flat."""
        return np.vstack([self.upper_inner, self.lower_inner[::-1]])

    def outline(self) -> Points:
        """The closed outline around the lips, flat."""
        return np.vstack([self.upper_outer, self.lower_outer[::-1]])

    def draw(self, canvas: Canvas, head: Head, paints: Paints) -> None:
        """Lips and all that is between them."""

        def on(flat: Points) -> Points:
            return head.on_face(flat, self.lift)

        middle = (self.upper_inner + self.lower_inner) / 2
        canvas.shape(on(self.outline()), paints.lip)
        canvas.fill(on(np.vstack([self.upper_outer, middle[::-1]])), paints.lip_upper)
        self._shine(canvas, head, paints)
        if self.gap > 0.002:
            inside = on(self.interior())
            with canvas.inside(inside):
                self._between(canvas, head, paints)
        # The line where lips meet lives on as the upper lip's edge when they part, and fades in the lower one's.
        weight = 0.015 + 0.004 * self.pose.lips_press - 0.006 * self.opening
        reach = self.upper_inner * [1.035, 1]
        canvas.stroke(on(reach), weight * head.unit / 0.4, paints.lip_line)
        if canvas.line and self.gap > 0.002:
            canvas.stroke(on(self.lower_inner), canvas.line * self.opening, paints.ink)

    def _shine(self, canvas: Canvas, head: Head, paints: Paints) -> None:
        """Light on the lower lip, more on lips that are pushed forward."""
        low, high = self.lower_outer[SAMPLES // 2, 1], self.lower_inner[SAMPLES // 2, 1]
        spot = circle() * [0.34 * self.half, 0.14 * (low - high)] + [
            0.13 * self.half * canvas.light,
            0.54 * low + 0.46 * high,
        ]
        canvas.fill(head.on_face(spot, self.lift), paints.lip_light)

    def _between(self, canvas: Canvas, head: Head, paints: Paints) -> None:
        """What the open mouth shows, from the back to the front; the caller cuts it out along the lips."""
        pose = self.pose
        depth = -0.04

        def on(flat: Points) -> Points:
            return head.on_face(flat, depth)

        low, high = self.lower_inner, self.upper_inner
        floor = float(low[:, 1].max())
        roof = float(high[:, 1].min())
        height = floor - roof
        canvas.fill(on(np.vstack([high - [0, 0.1], moved(low[::-1], 0, 0.1)])), paints.cavity)
        throat = np.array([0.0, roof + 0.36 * height]) + circle() * [0.62 * self.half, 0.3 * height]
        canvas.fill(on(throat), paints.cavity_deep)

        ridge = floor - 0.38 * height * self.opening
        bottom = circle() * [0.66 * self.half, 0.4 * height] + [0, ridge + 0.4 * height]
        canvas.fill(on(bottom), paints.tongue)
        canvas.fill(on(circle() * [0.34 * self.half, 0.13 * height] + [0, ridge + 0.2 * height]), paints.tongue_light)
        self._lower_teeth(canvas, on, paints)
        edge = float(high[SAMPLES // 2, 1])
        teeth = self._visible_teeth()
        if pose.tongue_up > 0.01:
            behind = edge + 0.6 * teeth
            self._tip(canvas, on, paints, floor, floor + 0.05 + (behind - floor - 0.05) * pose.tongue_up)
        self._upper_teeth(canvas, on, paints)
        between = float(ramp(pose.tongue_up, 0.9, 1.0))
        if between > 0:
            # Not just behind the teeth, but between them, as in th: at first no higher than the teeth's edge.
            self._tip(canvas, on, paints, floor, edge + teeth * (1 - 0.6 * between), 0.8)

    def _tip(self, canvas: Canvas, on: Place, paints: Paints, floor: float, reach: float, wide: float = 1.0) -> None:
        """The tongue's tip, raised from the mouth's ``floor`` to the height ``reach``."""
        half = wide * min(0.62 * self.half, 0.19)
        angle = np.linspace(-np.pi, 0, 21)
        dome = np.stack([half * np.cos(angle), reach + 0.1 + 0.1 * np.sin(angle)], axis=1)
        shape = np.vstack([[-1.25 * half, floor + 0.12], dome, [1.25 * half, floor + 0.12]])
        canvas.fill(on(shape), mix(paints.tongue, paints.tongue_light, 0.6))
        under = np.stack([0.55 * half * np.cos(angle), reach + 0.13 + 0.05 * np.sin(angle)], axis=1)
        canvas.fill(on(np.vstack([under, [0.4 * half, floor + 0.1], [-0.4 * half, floor + 0.1]])), paints.tongue)

    def _visible_teeth(self) -> float:
        """How far the upper teeth reach down: to the lower lip for an f, to the lower teeth for an s."""
        plain = min(self.upper_teeth, 0.5 * self.gap) * (1 - 0.3 * self.pose.tongue_up)
        plain += (0.45 * self.gap - plain) * self.pose.teeth
        return float(plain + (1.02 * self.gap - plain) * self.pose.lip_tuck)

    def _upper_teeth(self, canvas: Canvas, on: Place, paints: Paints) -> None:
        down = self._visible_teeth()
        arch = 1 - 0.16 * _T**2
        row = self.upper_inner * [0.97, 1]
        # The row is straighter than the lip above it.
        middle = row[SAMPLES // 2, 1]
        level = middle + (row[:, 1] - middle) * 0.5 + down * arch
        edge = np.stack([row[:, 0], np.maximum(level, row[:, 1])], axis=1)
        canvas.fill(on(np.vstack([row - [0, 0.08], edge[::-1]])), paints.tooth)
        shadow = row + (edge - row) * 0.22
        canvas.fill(on(np.vstack([row - [0, 0.08], shadow[::-1]])), paints.tooth_dark)

    def _lower_teeth(self, canvas: Canvas, on: Place, paints: Paints) -> None:
        together = float(ramp(self.pose.teeth, 0.15, 0.9))
        up = 0.36 * self.gap * together
        if up < 0.004:
            return
        arch = 1 - 0.3 * np.abs(_T) ** 3
        row = self.lower_inner * [0.9, 1]
        edge = row - np.stack([np.zeros(SAMPLES), up * arch], axis=1)
        canvas.fill(on(np.vstack([edge, moved(row[::-1], 0, 0.08)])), paints.tooth_dark)
        canvas.fill(on(ribbon(moved(edge, 0, 0.36 * up), 0.6 * up)), paints.tooth)
