"""What stays still: the backdrop, and shoulders in their clothes, each drawn once for a character and a size."""

from __future__ import annotations

import cv2
import numpy as np

from streamfx.models.avatar.character import Character
from streamfx.models.avatar.drawing_canvas import (
    GRAIN,
    STEPS,
    Canvas,
    Colour,
    Pixels,
    Points,
    Shade,
    circle,
    curve,
    mix,
    moved,
)
from streamfx.models.avatar.drawing_paints import Paints

TOP = 0.3
"""No clothes above this height, in the picture's units."""
LOW = 0.02
"""How far all of it is moved down."""


def backdrop(who: Character, side: int, paints: Paints) -> Pixels:
    """A soft gradient with a quiet motif, ``(side, side, 3)``."""
    rows = np.linspace(0, 1, side)[:, None, None]
    columns = np.linspace(-1, 1, side)[None, :, None]
    share: Points = np.clip(rows + 0.12 * columns * -who.light, 0, 1)
    ground = np.array(paints.above) * (1 - share) + np.array(paints.below) * share
    canvas = Canvas(np.rint(ground).astype(np.uint8))
    before = canvas.pixels.copy()
    middle = np.array([0.0, -0.12])
    if who.backdrop == "disc":
        canvas.fill(circle(96) * 0.8 + middle, paints.motif)
    elif who.backdrop == "rings":
        for radius in (0.66, 0.86, 1.06):
            canvas.fill_all(
                [circle(96) * (radius + 0.045) + middle, circle(96) * (radius - 0.045) + middle], paints.motif
            )
    elif who.backdrop == "hills":
        for height, lean in ((0.15, 0.22), (0.42, -0.18)):
            x = np.linspace(-1.1, 1.1, 40)
            ridge = np.stack([x, height + lean * np.sin(2.4 * x + height * 9) * 0.6], axis=1)
            canvas.fill(
                np.vstack([ridge, [[1.1, 1.1], [-1.1, 1.1]]]), mix(paints.below, paints.motif, 0.5 - height * 0.4)
            )
    elif who.backdrop == "window":
        for left in (-0.62, 0.08):
            slant = np.array([[left, -1.1], [left + 0.5, -1.1], [left + 0.12, 1.1], [left - 0.38, 1.1]]) * [
                -who.light,
                1,
            ]
            canvas.fill(slant, paints.motif)
    return np.asarray(cv2.addWeighted(before, 0.45, canvas.pixels, 0.55, 0), np.uint8)


class Body:
    """Shoulders and clothes as a layer that breathing lifts, by parts of a pixel; the neck is drawn with the head."""

    def __init__(self, who: Character, side: int, paints: Paints):
        self.who, self.side, self.paints = who, side, paints
        self.neck_half = 0.2 * who.neck
        canvas = Canvas(np.zeros((side, side, 4), np.uint8), paints.line, paints.ink, who.light)
        self._clothes(canvas)
        first = int((TOP + 1) / 2 * side)
        layer = canvas.pixels[first:]
        self.first = first
        self.colours = np.ascontiguousarray(layer[..., :3])
        self.clear = np.asarray(cv2.bitwise_not(cv2.merge([np.ascontiguousarray(layer[..., 3])] * 3)), np.uint8)

    def lift(self, breath: float) -> float:
        """How far breath moves the shoulders: down, in the picture's units."""
        return LOW - 0.011 * breath

    def draw(self, canvas: Canvas, breath: float) -> None:
        """The clothes on a canvas of this size."""
        down = self.lift(breath) * self.side / 2
        whole = int(np.floor(down))
        part = down - whole
        first = self.first + whole
        one = slice(0, self.side - first)

        def shifted(layer: Pixels) -> Pixels:
            padded = np.vstack([layer[:1], layer, np.repeat(layer[-1:], 8, axis=0)])
            upper, lower = padded[1:][one], padded[:-1][one]
            return np.asarray(cv2.addWeighted(upper, 1 - part, lower, part, 0), np.uint8)

        target = canvas.pixels[first : first + one.stop]
        ground = cv2.multiply(target, shifted(self.clear), scale=1 / 255)
        canvas.pixels[first : first + one.stop] = cv2.add(ground, shifted(self.colours))

    def skin(self, breath: float, top: Points) -> Points:
        """Neck and upper chest, closed; ``top``: (2, 2), where the neck's left and right side meet the head."""
        n, down = self.neck_half, self.lift(breath)
        right = np.array([[n * 1.02, 0.47], [n * 1.3, 0.57], [0.5, 0.72], [0.5, 1.05]])
        base = moved(np.vstack([right, right[::-1] * [-1, 1]]), 0, down)
        right = np.vstack([top[1], (top[1] + base[0]) / 2 + [-0.006, 0], base[:3]])
        left = np.vstack([base[5:], (top[0] + base[-1]) / 2 + [0.006, 0], top[0]])
        return np.vstack([curve(right), base[3:5], curve(left)])

    def silhouette(self, breath: float) -> Points:
        """The closed outline of the clothes."""
        return moved(self._torso(), 0, self.lift(breath))

    def _torso(self, spread: float = 0.0) -> Points:
        n, w = self.neck_half + 0.02 + spread, 0.8 * self.who.shoulders + spread
        right = np.array(
            [
                [n * 0.98, 0.515],
                [n * 1.35, 0.56],
                [0.5 * w, 0.635],
                [0.82 * w, 0.73],
                [0.97 * w, 0.87],
                [1.03 * w, 1.15],
            ]
        )
        right = curve(right)
        return np.vstack([right, right[::-1] * [-1, 1]])

    def _neckline(self, depth: float, half: float, sharp: bool = False) -> Points:
        """An open line from left to right, from one side of the neck down and up again."""
        n = half
        right_side = self._torso()[: STEPS * 5 + 1]
        # The ends lie on the shoulders' line.
        top = float(np.interp(half, right_side[:, 0], right_side[:, 1])) - 0.004
        depth += 0.5 - top
        if sharp:
            right = np.array([[0.0, top + depth], [0.55 * n, top + 0.52 * depth], [n, top]])
        else:
            right = np.array(
                [[0.0, top + depth], [0.45 * n, top + 0.9 * depth], [0.86 * n, top + 0.5 * depth], [n, top]]
            )
        right = curve(right)
        return np.vstack([right[:0:-1] * [-1, 1], right])

    def _cut(self, neckline: Points, spread: float = 0.0) -> Points:
        """The torso without what lies above a neckline: from its left end along it, then around."""
        torso = self._torso(spread)
        return np.vstack([neckline, torso[np.abs(torso[:, 0]) > neckline[-1, 0]]])

    def _garment(self, canvas: Canvas, neckline: Points, colour: Colour, spread: float = 0.0) -> None:
        shape = self._cut(neckline, spread)
        canvas.shape(shape, colour)
        self._shade(canvas, shape)

    def _shade(self, canvas: Canvas, shape: Points) -> None:
        hard = self.paints.hard
        away = -self.who.light
        shade = Shade(canvas, hard)
        w = self.who.shoulders
        edge = curve(np.array([[0.36, 0.5], [0.47 * w, 0.72], [0.5 * w, 0.9], [0.46 * w, 1.2]])) * [away, 1]
        shade.paint([np.vstack([edge, [[away * 1.6, 1.2], [away * 1.6, 0.4]]])], self.paints.cloth_shade, 0.2, 0.8)
        shade.paint(
            [circle() * [0.34, 0.12] + [0.03 * away, 0.53]], self.paints.cloth_shade, 0.12, 0.0 if hard else 0.8
        )
        shade.apply(canvas.stencil([shape], GRAIN))

    def _clothes(self, canvas: Canvas) -> None:
        draw = getattr(self, f"_{self.who.clothes}")
        draw(canvas)

    def _band(self, canvas: Canvas, line: Points, width: float, colour: Colour) -> None:
        """A collar's band below a neckline, even in width, its ends over the shoulders."""
        lower = line * [1.0, 1.0] + np.stack(
            [np.sign(line[:, 0]) * width * 0.55 * (np.abs(line[:, 0]) / 0.25), np.full(len(line), width)], axis=1
        )
        canvas.shape(np.vstack([line, lower[::-1]]), colour)

    def _crew(self, canvas: Canvas) -> None:
        p = self.paints
        line = self._neckline(0.15, self.neck_half + 0.045)
        self._garment(canvas, line, p.cloth)
        self._band(canvas, line, 0.042, p.dark(p.cloth, 0.16))

    def _stripes(self, canvas: Canvas) -> None:
        p = self.paints
        line = self._neckline(0.16, self.neck_half + 0.07)
        shape = self._cut(line)
        canvas.shape(shape, p.cloth)
        x = np.linspace(shape[:, 0].min() - 0.05, shape[:, 0].max() + 0.05, 41)
        with canvas.inside(shape):
            for height in (0.74, 0.86, 0.98):
                top = np.stack([x, height + 0.05 * x * x], axis=1)
                canvas.fill(np.vstack([top, moved(top, 0, 0.05)[::-1]]), p.accent)
        self._shade(canvas, shape)
        self._band(canvas, line, 0.032, p.accent)

    def _vneck(self, canvas: Canvas) -> None:
        p = self.paints
        line = self._neckline(0.33, self.neck_half + 0.05, sharp=True)
        self._garment(canvas, line, p.cloth)
        self._band(canvas, line, 0.045, p.dark(p.cloth, 0.18))

    def _turtleneck(self, canvas: Canvas) -> None:
        p = self.paints
        self._garment(canvas, self._neckline(0.1, self.neck_half + 0.03), p.cloth)
        n = self.neck_half + 0.016
        right = np.array(
            [
                [0.0, 0.432],
                [0.55 * n, 0.424],
                [0.93 * n, 0.4],
                [n, 0.42],
                [n * 1.03, 0.47],
                [n * 1.14, 0.56],
                [n * 1.14, 0.56],
                [0.6 * n, 0.63],
                [0, 0.645],
            ]
        )
        right = curve(right)
        roll = np.vstack([right, right[-2:0:-1] * [-1, 1]])
        canvas.shape(roll, p.light(p.cloth, 0.06))
        self._shade(canvas, roll)
        for x in (-0.66, -0.33, 0.0, 0.33, 0.66):
            canvas.stroke(
                curve(np.array([[x * n, 0.46], [x * n * 1.05, 0.53], [x * n * 1.1, 0.6]])), 0.008, p.dark(p.cloth, 0.2)
            )

    def _shirt(self, canvas: Canvas) -> None:
        p = self.paints
        self._garment(canvas, self._neckline(0.24, self.neck_half + 0.03, sharp=True), p.cloth)
        canvas.stroke(np.array([[0.0, 0.74], [0.0, 1.1]]), 0.007, p.dark(p.cloth, 0.3), "none")
        for height in (0.83, 0.95):
            canvas.shape(circle(16) * 0.014 + [0.0, height], p.dark(p.cloth, 0.35))
        self._collar(canvas, p.light(p.cloth, 0.12))

    def _collar(self, canvas: Canvas, colour: Colour) -> None:
        n = self.neck_half + 0.025
        wing = np.array(
            [[n * 0.97, 0.45], [n * 1.16, 0.55], [0.19, 0.78], [0.0, 0.715], [0.45 * n, 0.62], [n * 0.86, 0.5]]
        )
        for side in (-1.0, 1.0):
            shape = wing * [side, 1]
            canvas.fill(moved(shape, 0, 0.016), self.paints.dark(self.paints.cloth, 0.3))
            canvas.shape(shape, colour)

    def _suit(self, canvas: Canvas) -> None:
        p = self.paints
        shirt = mix(p.cloth, (250, 246, 240), 0.93)
        self._garment(canvas, self._neckline(0.22, self.neck_half + 0.03, sharp=True), shirt)
        tie = np.array([[-0.05, 0.7], [0.05, 0.7], [0.036, 0.765], [0.075, 1.1], [-0.075, 1.1], [-0.036, 0.765]])
        canvas.shape(tie, p.accent)
        canvas.fill(np.array([[-0.036, 0.765], [0.036, 0.765], [0.042, 0.79], [-0.042, 0.79]]), p.dark(p.accent, 0.3))
        n = self.neck_half + 0.025
        wing = np.array(
            [[n * 0.97, 0.455], [n * 1.12, 0.55], [0.17, 0.75], [0.0, 0.705], [0.5 * n, 0.62], [n * 0.88, 0.5]]
        )
        for side in (-1.0, 1.0):
            canvas.shape(wing * [side, 1], shirt)
        self._jacket(canvas, p.cloth)

    def _blazer(self, canvas: Canvas) -> None:
        p = self.paints
        line = self._neckline(0.2, self.neck_half + 0.04)
        self._garment(canvas, line, p.accent)
        self._band(canvas, line, 0.03, p.dark(p.accent, 0.12))
        self._jacket(canvas, p.cloth)

    def _jacket(self, canvas: Canvas, colour: Colour) -> None:
        p = self.paints
        torso = self._torso(0.01)
        right_side = torso[: len(torso) // 2]
        n = self.neck_half + 0.06
        for side in (-1.0, 1.0):
            front = np.vstack([[[n, 0.53], [0.2, 0.78], [0.1, 1.15]], right_side[:3:-1]])
            shape = front * [side, 1]
            canvas.shape(shape, colour)
            self._shade(canvas, shape)
            lapel = np.array(
                [
                    [n * 0.94, 0.505],
                    [n * 1.22, 0.55],
                    [0.43, 0.72],
                    [0.36, 0.765],
                    [0.41, 0.8],
                    [0.12, 1.12],
                    [0.09, 1.12],
                    [0.19, 0.8],
                ]
            ) * [side, 1]
            canvas.fill(moved(lapel, side * 0.008, 0.014), p.dark(colour, 0.4))
            canvas.shape(lapel, p.light(colour, 0.09))

    def _hoodie(self, canvas: Canvas) -> None:
        p = self.paints
        line = self._neckline(0.2, self.neck_half + 0.05)
        self._garment(canvas, line, p.cloth, 0.02)
        for side in (-1.0, 1.0):
            roll = np.array(
                [
                    [self.neck_half * 0.9, 0.43],
                    [self.neck_half + 0.1, 0.44],
                    [0.42, 0.6],
                    [0.36, 0.72],
                    [0.17, 0.79],
                    [0.0, 0.775],
                    [0.0, 0.7],
                    [0.13, 0.665],
                    [self.neck_half + 0.01, 0.55],
                ]
            )
            shape = curve(roll, closed=True) * [side, 1]
            canvas.shape(shape, p.light(p.cloth, 0.07))
            self._shade(canvas, shape)
            cord = curve(np.array([[0.1, 0.745], [0.115, 0.85], [0.105, 0.95]])) * [side, 1]
            canvas.stroke(cord, 0.02, p.accent, "none")
            canvas.stroke(cord[-4:], 0.027, p.dark(p.accent, 0.25), "none")

    def _dungarees(self, canvas: Canvas) -> None:
        p = self.paints
        line = self._neckline(0.15, self.neck_half + 0.05)
        self._garment(canvas, line, p.accent)
        self._band(canvas, line, 0.036, p.dark(p.accent, 0.12))
        bib = np.array([[-0.3, 0.88], [0.3, 0.88], [0.36, 1.15], [-0.36, 1.15]])
        for side in (-1.0, 1.0):
            strap = np.array([[0.36, 0.58], [0.46, 0.61], [0.31, 0.95], [0.22, 0.93]]) * [side, 1]
            canvas.shape(strap, p.cloth)
        canvas.shape(bib, p.cloth)
        canvas.stroke(np.array([[-0.28, 0.915], [0.28, 0.915]]), 0.006, p.light(p.cloth, 0.4), "none")
        for side in (-1.0, 1.0):
            canvas.shape(circle(20) * 0.03 + [side * 0.262, 0.925], p.metal)
