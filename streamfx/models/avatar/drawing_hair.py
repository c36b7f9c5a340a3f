"""Hair and head cloths on the canvas: shapes of a style, placed by the head's pose, with shade, strands and shine."""

from __future__ import annotations

import numpy as np

from streamfx.models.avatar import drawing_hair_long, drawing_hair_short, drawing_hair_tied
from streamfx.models.avatar.character import Character
from streamfx.models.avatar.drawing_canvas import GRAIN, Canvas, Colour, Points, Shade, apart, curve, mix, ribbon
from streamfx.models.avatar.drawing_hair_shapes import arc
from streamfx.models.avatar.drawing_paints import Paints
from streamfx.models.avatar.drawing_pose import UNIT, Head

_MAKERS = {**drawing_hair_short.STYLES, **drawing_hair_long.STYLES, **drawing_hair_tied.STYLES}
_CLOTH_SHADE: Colour = (190, 178, 204)
NAMES = ("back", "front", "wraps_back", "wraps", "folds", "back_folds", "strands", "back_strands", "ties")

LINES = {"folds": 0.014, "back_folds": 0.022, "strands": 0.0145, "back_strands": 0.016}
"""Which of them are lines, and how wide, in the picture's units."""


def _thick(line: Points, width: float) -> Points:
    """The outline of a line ``(N, 3)``, drawn once rather than for every picture."""
    return np.column_stack([ribbon(line[:, :2], width), np.concatenate([line[:, 2], line[::-1, 2]])])


class Hair:
    """A character's hair. Call ``at`` for each pose, then draw from the back to the front."""

    def __init__(self, who: Character):
        self.who = who
        self.style = _MAKERS[who.hair](who)
        turn = np.array([who.hair_side * who.face_width, 1, 1])
        for name in NAMES:
            setattr(self.style, name, [shape * turn for shape in getattr(self.style, name)])
        for name, width in LINES.items():
            lines = getattr(self.style, name)
            setattr(self.style, name, [_thick(line, width / (UNIT * who.head_size)) for line in lines])
        shapes = [shape for name in NAMES for shape in getattr(self.style, name)]
        # All at once: placing thousands of points takes hardly longer than placing ten.
        self.all = np.vstack([np.zeros((1, 3)), *shapes])
        self.counts = [1, *(len(shape) for shape in shapes)]
        self.crown = arc(-62, 62, -0.2, -0.16, 13, z=0.32)
        self.buzzed = who.hair == "buzz"

    def at(self, head: Head) -> None:
        """Places all shapes in the picture."""
        self.head = head
        placed = iter(apart(head.place(self.all), self.counts)[1:])
        for name in NAMES:
            setattr(self, f"_{name}", [next(placed) for _ in getattr(self.style, name)])

    def fringe(self) -> list[Points]:
        """What throws a shadow on the face."""
        return [*self._front, *self._wraps] if self.style.shadow else []

    def silhouettes(self) -> list[Points]:
        """All outlines."""
        return [*self._back, *self._wraps_back, *self._front, *self._wraps]

    _back: list[Points]
    _front: list[Points]
    _wraps_back: list[Points]
    _wraps: list[Points]
    _folds: list[Points]
    _back_folds: list[Points]
    _strands: list[Points]
    _back_strands: list[Points]
    _ties: list[Points]

    def draw_back(self, canvas: Canvas, paints: Paints) -> None:
        """Behind the neck."""
        for shape in self._back:
            canvas.shape(shape, paints.hair_back if not self._back_strands else mix(paints.hair, paints.hair_dark, 0.6))
        for line in self._back_strands:
            canvas.fill(line, paints.hair_dark)

    def draw_cloth_back(self, canvas: Canvas, paints: Paints) -> None:
        """What covers neck and shoulders."""
        for shape in self._wraps_back:
            canvas.shape(shape, mix(paints.wrap, paints.dark(paints.wrap), 0.22))
        if self._wraps_back:
            self._light(canvas, paints, self._wraps_back, paints.wrap, _CLOTH_SHADE, 0.0)
        for line in self._back_folds:
            canvas.fill(line, paints.ink if canvas.line else paints.dark(paints.wrap, 0.36))

    def draw_front(self, canvas: Canvas, paints: Paints) -> None:
        """Over the face."""
        if self._front:
            fill = mix(paints.skin_dark, paints.hair, 0.72) if self.buzzed else paints.hair
            shaved = self.who.hair in ("undercut", "quiff", "curly_crop")
            for n, shape in enumerate(self._front):
                canvas.shape(shape, mix(paints.skin_dark, paints.hair, 0.66) if shaved and n == 0 else fill)
            self._light(canvas, paints, self._front, paints.hair, paints.hair_shade, self.style.shine)
            dark = paints.ink if canvas.line else paints.hair_dark
            for line in self._strands:
                canvas.fill(line, dark)
        for shape in self._ties:
            canvas.shape(shape, paints.wrap)
        if self._wraps:
            for shape in self._wraps:
                canvas.shape(shape, paints.wrap)
            self._light(canvas, paints, self._wraps, paints.wrap, _CLOTH_SHADE, 0.55)
            for line in self._folds:
                canvas.fill(line, paints.ink if canvas.line else paints.dark(paints.wrap, 0.28))

    def _light(
        self, canvas: Canvas, paints: Paints, shapes: list[Points], base: Colour, shade: Colour, shine: float
    ) -> None:
        """Dark on the side away from the light, a band of light on the other."""
        away = -canvas.light
        dark = Shade(canvas, paints.hard)
        u = self.head.unit
        edge = np.array([[0.5, -1.8], [0.74, -1.1], [0.86, -0.6], [0.98, 0.2], [1.02, 1.2], [1.0, 2.6]])
        edge = curve(self.head.place(np.column_stack([edge * [away, 1], np.full(6, 0.1)])))
        dark.paint([np.vstack([edge, [[away * 1.5, 1.5], [away * 1.5, -1.5]]])], shade, 0.2, 0.85)
        if not paints.hard:
            low = self.head.place(np.array([[-2.2, 0.9, 0.1], [2.2, 0.9, 0.1], [2.2, 3.2, 0.1], [-2.2, 3.2, 0.1]]))
            dark.paint([low], shade, 0.5, 0.7)
        within = canvas.stencil(shapes, GRAIN)
        dark.apply(within)
        if paints.hard and shine < 0.6:
            return
        lit = self.crown[:9] if canvas.light < 0 else self.crown[4:]
        line = curve(self.head.place(lit))
        glow = Shade(canvas, dark=False)
        light = mix(base, (255, 236, 210), 0.34 if not paints.hard else 0.2)
        more: Colour = tuple(max(0, a - b) for a, b in zip(light, base, strict=True))  # type: ignore[assignment]
        glow.paint([ribbon(line, 0.34 * u)], more, 0.02 if paints.hard else 0.1, shine)
        glow.apply(within)
