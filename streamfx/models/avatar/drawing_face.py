"""The face without eyes, mouth and hair: its outline, ears, nose, and how light falls on it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from streamfx.models.avatar.character import Character
from streamfx.models.avatar.drawing_canvas import GRAIN, Canvas, Points, Shade, apart, circle, curve, mix, moved, ribbon
from streamfx.models.avatar.drawing_eyes import PLACE
from streamfx.models.avatar.drawing_mouth import Mouth
from streamfx.models.avatar.drawing_paints import Paints
from streamfx.models.avatar.drawing_pose import Head

_SPOTS = (
    (0.34, 0.33), (0.47, 0.3), (0.58, 0.36), (0.43, 0.42), (0.26, 0.4), (0.53, 0.44), (0.66, 0.29), (0.37, 0.25),
    (0.1, 0.22), (0.03, 0.3), (0.64, 0.4), (0.3, 0.47),
)  # fmt: skip


def both(points: Points) -> list[Points]:
    """Points of the right half, and their mirror image."""
    return [points, points * [-1, 1]]


class Face:
    """The parts of a face that a character's design fixes; poses move them."""

    def __init__(self, who: Character):
        self.who = who
        w, long = who.face_width, who.face_length
        right = np.array(
            [
                [0.0, -1.12, 0.0],
                [0.5 * w, -1.04, 0.0],
                [0.86 * w, -0.7, 0.0],
                [0.985 * w, -0.2, 0.0],
                [0.965 * w * who.cheek, 0.25 * long, 0.05],
                [0.845 * w * who.jaw, 0.68 * long, 0.12],
                [0.575 * w * who.jaw, 0.985 * long, 0.26],
                [0.27 * who.chin, 1.13 * long, 0.42],
                [0.0, 1.185 * long, 0.46],
            ]
        )
        self.contour = np.vstack([right, right[-2:0:-1] * [-1, 1, 1]])
        e = who.ears
        self.ear = np.array(
            [
                [0.9, 0.0], [0.97, -0.1 * e], [1.06, -0.13 * e], [1.13, -0.03 * e], [1.12, 0.14], [1.06, 0.28 * e],
                [0.98, 0.36 * e], [0.9, 0.33 * e],
            ]
        )  # fmt: skip
        self.ear_fold = np.array([[0.99, 0.02], [1.04, -0.05 * e], [1.08, 0.02], [1.065, 0.13], [1.02, 0.2]])
        self.nose_half = 0.155 * who.nose_width
        self.nose_end = 0.415 * who.nose_length * long

    def outline(self, head: Head) -> Points:
        """The closed outline in the picture, chin and all."""
        points = self.contour.copy()
        points[:, :2] = head.jawed(points[:, :2])
        return curve(head.place(points), closed=True)

    def ear_points(self, head: Head, flat: Points, side: float) -> Points:
        """Points of an ear: it goes against the turn of the face, and the one turned away hides."""
        near = side * -head.pose.yaw
        wide = 0.92 + (flat[:, 0] - 0.94) * (1 + 0.4 * near) + min(near, 0.0) * 0.06
        return head.place(np.column_stack([side * wide * self.who.face_width, flat[:, 1], np.zeros(len(flat))]))

    def draw_ears(self, canvas: Canvas, head: Head, paints: Paints) -> None:
        """Both, to be drawn before the face."""
        for side in (-1.0, 1.0):
            shape = self.ear_points(head, curve(self.ear, closed=True), side)
            away = side != canvas.light
            canvas.shape(shape, mix(paints.skin, paints.skin_dark, 0.62 if away else 0.18))
            fold = self.ear_points(head, curve(self.ear_fold), side)
            canvas.stroke(fold, 0.014, paints.ink if canvas.line else mix(paints.skin_dark, paints.crease, 0.3))

    def draw(
        self, canvas: Canvas, head: Head, paints: Paints, outline: Points, fringe: Sequence[Points], mouth: Mouth
    ) -> None:
        """Skin with its light and shade; ``fringe``: the front hair, which throws a shadow."""
        canvas.shape(outline, paints.skin)
        away = -canvas.light
        shade = Shade(canvas, paints.hard)
        self._form(shade, head, paints, outline, away)
        cast = np.array([0.012 * away, 0.05]) * head.unit / 0.4
        shade.paint([piece + cast for piece in fringe], paints.shade, 0.05, 0.85)
        self._details(shade, head, paints, mouth, away)
        within = canvas.stencil([outline], GRAIN)
        if paints.hard:
            shade.apply(within)
        soft = Shade(canvas) if paints.hard else shade
        self._flush(soft, head, paints)
        self._lines(soft, head, paints, mouth)
        soft.apply(within)
        if not paints.hard:
            glow = Shade(canvas, dark=False)
            spots = [
                circle() * [r, 0.7 * r] + [x * canvas.light, y]
                for x, y, r in ((0.46, 0.3, 0.2), (0.3, -0.55, 0.3), (0.1, 1.0 + head.jaw, 0.12))
            ]
            glow.paint(head.all_on_face(spots), paints.glow, 0.12)
            tip = circle() * [0.055, 0.05] + [0.025 * canvas.light, self.nose_end - 0.1]
            glow.paint([head.on_face(tip, 0.2)], paints.glow, 0.03, 1.3)
            glow.apply(within)
        self._freckles(canvas, head, paints)
        self._nose(canvas, head, paints)

    def _form(self, shade: Shade, head: Head, paints: Paints, outline: Points, away: float) -> None:
        """The side of the face that is turned away from the light, and the jaw's underside."""
        long = self.who.face_length
        edge = np.array(
            [[0.62, -1.3], [0.74, -0.5], [0.7, 0.0], [0.72, 0.3], [0.56, 0.62], [0.4, 0.95 * long], [0.1, 1.14 * long]]
        )
        edge = curve(head.on_face(head.jawed(edge * [away, 1])))
        out = np.array([[0.5, 1.7], [1.6, 1.5], [1.6, -1.3]]) * [away, 1] * head.unit + [0, -0.1]
        shade.paint([np.vstack([edge, out])], paints.shade, 0.16, 0.72)

    def _details(self, shade: Shade, head: Head, paints: Paints, mouth: Mouth, away: float) -> None:
        end, half = self.nose_end, self.nose_half
        if not shade.hard:
            sockets = [
                circle() * [0.3, 0.17] + [side * PLACE * self.who.eye_spacing * 0.95, -0.05] for side in (-1.0, 1.0)
            ]
            shade.paint(head.all_on_face(sockets), paints.shade, 0.1, 0.34)
        side = np.array(
            [[0.16, -0.26], [0.085, -0.02], [0.075, 0.16], [0.12, end - 0.1], [half, end - 0.02], [0.06, end + 0.03],
             [0.03, end - 0.1], [0.025, 0.1], [0.05, -0.1]]
        )  # fmt: skip
        lift = np.array([0.02, 0.05, 0.09, 0.14, 0.05, 0.12, 0.2, 0.12, 0.06])
        flat = side * [away, 1]
        shape = head.on_face(flat, lift)
        shade.paint([curve(shape, closed=True)], paints.shade, 0.035, 0.6)
        under = circle() * [half * 0.95, 0.05] + [0.03 * away, end + 0.055]
        shade.paint([head.on_face(under, 0.04)], paints.shade, 0.04, 0.6)
        low = mouth.lower_outer[12:-12]
        pool = np.vstack([moved(low, 0, 0.02), moved(low * [0.8, 1], 0, 0.075)[::-1]])
        shade.paint([head.on_face(pool)], paints.shade, 0.035, 0.55)

    def _flush(self, soft: Shade, head: Head, paints: Paints) -> None:
        glad = max(head.pose.smile, 0.0)
        cheeks = [circle() * [0.2, 0.135] + [side * 0.6, 0.4 - 0.05 * glad] for side in (-1.0, 1.0)]
        strength = (0.55 if paints.hard else 0.45) + 0.25 * glad
        soft.paint(head.all_on_face(cheeks), paints.flush, 0.1 if not paints.hard else 0.05, strength)
        nose = circle() * [0.11, 0.08] + [0, self.nose_end - 0.07]
        soft.paint([head.on_face(nose, 0.15)], paints.flush, 0.06, 0.28)

    def _lines(self, soft: Shade, head: Head, paints: Paints, mouth: Mouth) -> None:
        """Folds from nose to mouth that smiling deepens, and those that age leaves."""
        pose, age = head.pose, self.who.age
        old = max(0.0, age - 0.45) / 0.55
        glad = max(pose.smile, 0.0)
        deep = 0.3 * old + 0.3 * glad + 0.08 * pose.lips_wide
        corner = mouth.corner
        folds: list[tuple[list[list[float]], float, float]] = []
        if deep > 0.01:
            fold = [
                [self.nose_half + 0.07, self.nose_end - 0.05],
                [corner[0] * 0.55 + 0.24, self.nose_end * 0.62 + corner[1] * 0.38],
                [corner[0] * 0.8 + 0.2, corner[1] + 0.09],
            ]
            folds.append((fold, 0.02, min(deep, 0.6)))
        dent = 0.3 + 0.3 * glad + 0.25 * pose.lips_press
        folds.append(([[corner[0] + 0.02, corner[1] - 0.03], [corner[0] + 0.045, corner[1] + 0.015]], 0.03, dent))
        if old > 0:
            folds.append(([[0.3, 0.2], [0.42, 0.235], [0.56, 0.205]], 0.016, 0.5 * old))
            folds.append(([[0.73, 0.0], [0.82, -0.035]], 0.014, 0.6 * old))
            folds.append(([[0.73, 0.05], [0.83, 0.06]], 0.014, 0.6 * old))
            brow = [[0.0, -0.56], [0.2, -0.572], [0.42, -0.54]]
            folds += [(brow, 0.015, 0.4 * old), ([[x, y - 0.12] for x, y in brow], 0.015, 0.4 * old)]
        for points, width, strength in folds:
            lines = [ribbon(line, width) for line in head.all_on_face(both(curve(np.array(points))))]
            soft.paint(lines, paints.shade, 0.014, min(1.0, 1.5 * strength))

    def _freckles(self, canvas: Canvas, head: Head, paints: Paints) -> None:
        count = round(len(_SPOTS) * self.who.freckles)
        if count:
            spots = np.array([(side * x * (1 + 0.06 * side), y) for x, y in _SPOTS[:count] for side in (-1, 1)])
            sizes = 0.011 + 0.004 * np.sin(np.arange(len(spots)) * 2.4)
            dots = head.on_face(spots)[:, None] + sizes[:, None, None] * 1.5 * head.unit * circle(8)
            canvas.fill_all(list(dots), mix(paints.skin, paints.skin_dark, 0.75))
        if self.who.mole:
            place = head.on_face(np.array([[0.47 * self.who.hair_side, 0.58]]))
            canvas.fill(place + circle(10) * 0.011, mix(paints.skin_dark, paints.crease, 0.7))

    def _nose(self, canvas: Canvas, head: Head, paints: Paints) -> None:
        end, half = self.nose_end, self.nose_half
        colour = paints.ink if canvas.line else paints.crease
        weight = 0.017 if canvas.line else 0.014

        wing = np.array([[half * 0.86, end - 0.085], [half * 1.04, end - 0.02], [half * 0.9, end + 0.03]])
        hole = np.array([[half * 0.26, end + 0.034], [half * 0.5, end + 0.012], [half * 0.78, end + 0.03]])
        lines = np.vstack([*both(wing), *both(hole)])
        lifts = np.array([0.04, 0.04, 0.06] * 2 + [0.15, 0.12, 0.08] * 2)
        left, right, *holes = apart(head.on_face(lines, lifts), (3, 3, 3, 3))
        for line in (left, right):
            canvas.stroke(curve(line), weight, mix(paints.skin_dark, colour, 0.55))
        for line in holes:
            canvas.stroke(curve(line), weight * 1.35, colour)
        if canvas.line:
            away = -canvas.light
            bridge = np.array([[0.07 * away, 0.12], [0.1 * away, 0.26], [half * 0.8 * away, end - 0.06]])
            canvas.stroke(curve(head.on_face(bridge, np.array([0.1, 0.13, 0.08]))), 0.011, paints.ink)
